"""A list of images: any corpus, wherever its files lie below the data folder and the further folders."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from data.roots import ROOT_NAME, Roots
from data.sources import register_source
from data.sources._lists import (
    NEGATIVE,
    SPLITS,
    BadListError,
    Listed,
    Row,
    check_inside,
    find_lists,
    named_lists,
    read_list,
    sole_list,
)
from data.sources._paths import ListedPaths, slashes
from data.sources._photographs import Item, source_ids
from data.sources._tree import why_test_set
from data.sources.base import (
    FAKE,
    JOINED,
    REAL,
    SHARED_REAL,
    UNNAMEABLE,
    WHITE_FAKE,
    WHITE_KEPT,
    Entry,
    Problem,
    Scan,
    owners_of,
    root_problems,
    shown_names,
    subfolders,
)

ALIASES: dict[str, tuple[str, ...]] = {
    "path": ("path", "file_name", "filename", "image", "image_path", "img_path", "imagepath", "fake"),
    "label": ("label", "y", "is_fake"),
    "generator": (
        "generator", "model", "model_name", "generatorname", "inpainting_model", "manipulation_type", "method",
    ),
    "split": ("split",),
    "source_id": ("source_id", "image_id", "coco_id", "video", "original_id"),
    "mask": ("mask", "mask_path", "mask_file_name", "gt"),
    "original": ("original", "original_path", "original_file_name", "src_path", "real"),
    "mask_white": ("mask_white",),
}  # fmt: skip
LABELS = {
    **dict.fromkeys(("0", "false", "real", "nature", "authentic", "original", "pristine"), REAL),
    **dict.fromkeys(("1", "true", "fake", "ai", "tampered", "manipulated", "generated"), FAKE),
}
_OWN_NUMBER = "image_id"  # often the number of the image, not of the photograph
_NONE = ("", "none", "nan", "null", NEGATIVE)
_MAX_DEPTH = 2  # how far `looks_like` looks
_WHOLE = re.compile(r"\d+\.0")  # a whole number, as a table with gaps is saved
_OF_A_ROOT = re.compile(rf"({ROOT_NAME}):(?!//)[^:]*/")
_TOLD = 3  # examples in a problem
_MISSING = 0.01  # of the rows; more missing files are one problem
_FIRST_FIELD = "^([^_]+)_"  # how BR-Gen and others begin the names of their files


def looks_like(root: Path) -> bool:
    """Whether a list with a name of its own is in the folder, or a list of paths is the only list in it."""
    if not root.is_dir():
        return False
    try:
        if named_lists(root, max_depth=_MAX_DEPTH):
            return True
    except BadListError:
        return True  # several lists, say
    if _looks_packed(root):
        return True
    try:
        (file,) = sole_list(root)
        return "path" in _columns(read_list(file).rows)
    except BadListError:
        return False


def is_packed(root: Path) -> bool:
    """Whether a folder has no list, and Parquet or tar files that hold pictures."""
    from data.shards import first_shards, holds_pictures

    if not root.is_dir():
        return False
    try:
        if named_lists(root, max_depth=_MAX_DEPTH):
            return False
    except BadListError:
        return False
    return any(map(holds_pictures, first_shards(root)))


def _looks_packed(root: Path) -> bool:
    """As `is_packed`; tar files count only in a folder without folders, as others are archives of what is unpacked."""
    from data.shards import first_shards, holds_pictures, is_tar

    if not is_packed(root):
        return False
    return any(not is_tar(path) and holds_pictures(path) for path in first_shards(root)) or not subfolders(root)


@register_source(
    "manifest",
    looks_like=looks_like,
    options=("further", "lists", "generator_from", "source_from", "mask_white"),
    is_layout=True,
    yields_to=("opensdi",),
    is_packed=is_packed,
)
def scan(
    root: Path,
    *,
    seed: int = 0,
    further: Mapping[str, Path] | None = None,
    lists: str = "",
    generator_from: str = "",
    source_from: str = "",
    mask_white: str = "",
) -> Scan:
    """A list of images in the data folder: list.csv, or .tsv, .json, .jsonl, .parquet; or --list FILE.

        path,label,generator,split,source_id,mask,original,mask_white
        train/0001.png,fake,lama,train,0001,masks/0001.png,real/0001.png,fake

    path alone is needed. Paths are relative to the list, else to the data folder; `coco:train/1.jpg` is below the
    folder that --root coco=DIR names. From a file's name can come a generator (--generator-from REGEX) and the id of a
    photograph (--source-from REGEX). --mask-white kept: white means unchanged in masks of which the list does not say
    it. Lists of IMDL-BenCo, ForensicHub, DeepfakeBench, Hugging Face (metadata.csv), SAGI-D and CocoGlide are read as
    they are, and so are lines `image mask label` of a text file that --list names. Pictures in Parquet or tar files are
    unpacked into the cache first.
    """
    result = Scan(problems=root_problems(root))
    if result.problems:
        return result
    roots = Roots(root, further or {})
    try:
        files = [root / name.strip() for name in lists.split(",")] if lists else find_lists(root)
        for file in files:
            if ".." in file.parts:
                raise BadListError(f"--list {file.name} with ..", "name a list in the data folder")
            check_inside(roots, file)
        found = [read_list(file, root) for file in files]
        pattern, source = _pattern("--generator-from", generator_from), _pattern("--source-from", source_from)
    except BadListError as error:
        return Scan(problems=[Problem(".", error.what, error.remedy)])
    reader = _Reader(roots, seed, pattern, source, mask_white)
    for listed in found:
        reader.read(listed)
    return reader.result()


def _pattern(option: str, text: str) -> re.Pattern[str] | None:
    """The regular expression of an option; None if it is not given. Raises `BadListError`."""
    if not text:
        return None
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise BadListError(f"{option} {text}: {error}", "give a regular expression") from error
    if pattern.groups < 1:
        raise BadListError(f"{option} {text} has no group", "put the part that counts into ( )")
    return pattern


@dataclass
class _Reader:
    """Reads rows, and keeps what was guessed."""

    roots: Roots
    seed: int
    pattern: re.Pattern[str] | None
    source: re.Pattern[str] | None
    white: str
    items: list[Item] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    guesses: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    num_rows: int = 0
    is_white_used: bool = False

    def read(self, listed: Listed) -> None:
        """Read the rows of one list."""
        name = listed.file.name
        if not listed.rows:
            self._problem(name, "a list without rows", "give one row per image")
            return
        columns = _columns(listed.rows)
        names = list(dict.fromkeys(str(column) for row in listed.rows for column in row))
        if "path" not in columns:
            detail = f"there are: {shown_names(names)}"
            self._problem(name, "no column for the path", "name it path", detail)
            return
        if unknown := [column for column in names if column not in columns.values()]:
            self.guesses[f"columns that are not read: {shown_names(unknown)}"] += 1
        if listed.form:
            self.guesses[f"{name} was read as a list of the form {listed.form}"] += 1
        self.guesses.update(listed.guesses)
        if listed.form == "IMDL-BenCo" and self.pattern is None and self._has_fields(listed):
            return
        own = _split_of_name(listed.file.stem)
        rows = [{name: _text(row.get(column)) for name, column in columns.items()} for row in listed.rows]
        paths = ListedPaths(self.roots, listed.file, [row["path"] for row in rows if row["path"]])
        before = len(self.items)
        for number, values in enumerate(rows, 1):
            self.num_rows += 1
            if values["path"]:
                self._row(values, listed.file, paths, columns, own)
            else:
                what, remedy = "a row without a path", "write the path, or take the row out"
                self._problem(f"{name}, row {number}", what, remedy)
        if (columns["path"].strip().lower(), columns.get("original", "").strip().lower()) == ("fake", "real"):
            self.items += self._originals(self.items[before:], self.notes)
        if paths.num_shortened:
            dropped, example = paths.example
            words = "path was" if paths.num_shortened == 1 else "paths were"
            self.guesses[
                f"{name}: {paths.num_shortened} {words} found without their first folders: {dropped}, as in {example}"
            ] += 1

    def _has_fields(self, listed: Listed) -> bool:
        """Refuse a list without generators whose file names begin with what may be one."""
        names = [PurePosixPath(slashes(str(row["path"]))).name for row in listed.rows if _is_named(row.get("mask"))]
        first = Counter(match[1] for name in names if (match := re.match(_FIRST_FIELD, name)))
        if len(first) < 2 or len(first) > 20 or first.total() < len(names):
            return False
        what = "a list without generators"
        remedy = f"say where the generator is in a file's name: --generator-from '{_FIRST_FIELD}'"
        self._problem(listed.file.name, what, remedy, f"that gives: {shown_names(sorted(first))}")
        return True

    def _row(
        self, values: dict[str, str], file: Path, paths: ListedPaths, columns: Mapping[str, str], own_split: str
    ) -> None:
        path, key = self._find(values["path"], paths)
        if path is None:
            return
        mask = original = None
        original_key = ""
        if _is_named(values.get("mask")):
            mask, _ = self._find(values["mask"], paths)
        if _is_named(values.get("original")):
            original, original_key = self._find(values["original"], paths)
        label = self._label(values, columns, is_original=original_key == key)
        if label is None:
            return
        if label == FAKE and path in (mask, original):
            part = "mask" if path == mask else "original"
            self._problem(key, f"the {part} of an image is the image itself", f"name the {part}, or leave it empty")
            return
        generator, name = self._generator(values, path, key, label, file)
        split = self._split(values, key, own_split, file)
        if generator is None or split is None:
            return
        white = (values.get("mask_white") or self.white or WHITE_FAKE).lower()
        if mask is not None and white not in (WHITE_FAKE, WHITE_KEPT):
            self._problem(key, "mask_white is neither fake nor kept", "write fake or kept", white)
            return
        if mask is not None and not values.get("mask_white"):
            said = f"by --mask-white it means {white}" if self.white else "read as fake"
            self.is_white_used = True
            self.guesses[f"the list does not say what white in a mask means (mask_white); {said}"] += 1
        if label == REAL:
            mask, original, original_key = None, None, ""
        given = self._source_id(values, key, path.name, is_from_name=not original_key)
        if given is None:
            return
        is_weak = columns.get("source_id", "").strip().lower() == _OWN_NUMBER
        item = Item(path, key, label, generator, split, name, given, is_weak, mask, white, original, original_key)
        self.items.append(item)

    # One value --------------------------------------------------------------------------------------------------------

    def _source_id(self, values: Mapping[str, str], key: str, name: str, *, is_from_name: bool) -> str | None:
        """The id that the list or --source-from gives, or ""; None and a problem if the pattern is not in the name."""
        if self.source is None or not is_from_name:
            given = values.get("source_id", "")
            return given.removesuffix(".0") if _WHOLE.fullmatch(given) else given
        match = self.source.search(name) or self.source.search(key)
        if match is None or not match[1]:
            self._problem(key, "no id of a photograph in the file's name", "change --source-from")
            return None
        return match[1]

    def _label(self, values: Mapping[str, str], columns: Mapping[str, str], *, is_original: bool) -> int | None:
        if "label" in columns:
            label = LABELS.get(values["label"].lower().removesuffix(".0"))
            if label is None:
                remedy = f"write one of: {', '.join(LABELS)}"
                self._problem(values["path"], "a label that is not known", remedy, repr(values["label"]))
            return label
        if values.get("mask", "").lower() == NEGATIVE:
            return REAL
        if columns["path"].strip().lower() == "fake":
            return FAKE
        if is_original:
            self.guesses["the list has no labels; images that are their own original were read as real"] += 1
            return REAL
        if _is_named(values.get("mask")) or _is_named(values.get("original")):
            self.guesses["the list has no labels; images with a mask or an original were read as fake"] += 1
            return FAKE
        if "mask" in columns or "original" in columns:
            self.guesses["the list has no labels; images without a mask and an original were read as real"] += 1
            return REAL
        self._problem(values["path"], "no label", "add a column label: real or fake", skippable=False)
        return None

    def _generator(
        self, values: Mapping[str, str], path: Path, key: str, label: int, file: Path
    ) -> tuple[str | None, str]:
        """The generator; and the stem of the image's name without it."""
        given = values.get("generator", "")
        if label == REAL:
            owners = filter(None, map(str.strip, owners_of(given)))
            return JOINED.join(sorted(owners)) or SHARED_REAL, path.stem
        if self.pattern is not None:
            in_name = self.pattern.search(path.name)
            match = in_name or self.pattern.search(key)
            if match is None or not match[1]:
                self._problem(key, "no generator in the file's name", "change --generator-from")
                return None, ""
            if in_name is None:
                return match[1], path.stem
            rest = path.stem[: in_name.start()] + path.stem[in_name.end() :]
            return match[1], rest.strip("_-. ") or path.stem
        if given:
            if "," in given:
                self.guesses["several generators in one image were read as a generator of its own"] += 1
            return "-then-".join(part.strip() for part in given.split(",")), path.stem
        name = _without_splits(file.stem)
        if not name and file.parent != self.roots.main:
            name = _without_splits(file.parent.name)
        name = name or "fake"
        self.guesses[f"no generator is named; it was taken from the list's name: {name}"] += 1
        return name, path.stem

    def _split(self, values: Mapping[str, str], key: str, own: str, file: Path) -> str | None:
        given = values.get("split", "").lower()
        if given:
            if given not in SPLITS:
                self._problem(key, "a split that is not known", "write train, valid or test", given)
            return SPLITS.get(given)
        name, colon, below = key.partition(":")
        inside = below if colon and name in self.roots.named else key
        folders = [SPLITS[part.lower()] for part in PurePosixPath(inside).parts[:-1] if part.lower() in SPLITS]
        if own and folders and folders[0] != own:
            what, remedy = "the list's name and the folder name two splits", "name the split in a column split"
            self._problem(key, what, remedy, f"the list: {own}, the folder: {folders[0]}")
            return None
        if own:
            self.guesses["the list names no splits; they were taken from the lists' names"] += 1
            return own
        if folders:
            self.guesses["the list names no splits; they were taken from the folders' names"] += 1
            return folders[0]
        if why := why_test_set(file.parent.name, ()) if file.parent != self.roots.main else "":
            self.guesses[f"{file.name} is of a benchmark's test set ({why}): its images are only tested"] += 1
            return "test"
        return ""

    def _find(self, text: str, paths: ListedPaths) -> tuple[Path | None, str]:
        """(the file of a path of the list, its key); None and a problem if it is not there or must not be read."""
        found = paths.find(text)
        if found.refused is not None:
            what, remedy, detail = found.refused
            self._problem(text, what, remedy, detail)
        elif found.path is None:
            self.missing.append(text)
        return found.path, found.key

    def _problem(self, path: str, what: str, remedy: str, detail: str = "", *, skippable: bool = True) -> None:
        self.problems.append(Problem(path, what, remedy, detail, skippable=skippable))

    # All of it --------------------------------------------------------------------------------------------------------

    def result(self) -> Scan:
        """The images, with all problems and all guesses."""
        problems = [*self.problems, *self._missing_problems()]
        if self.white and not self.is_white_used and not problems:
            what = f"--mask-white {self.white}, and no mask of which the list does not say what white means"
            problems.append(Problem(".", what, "leave the option out, or the column mask_white"))
        notes = self.notes
        items = self._unique(problems, notes)
        if items and all(item.label == FAKE for item in items):
            items += self._originals(items, notes)
        fakes = {item.generator for item in items if item.label == FAKE}
        owners = {item.generator for item in items if item.label == REAL}
        others = {owner for owner in owners if fakes.isdisjoint(owners_of(owner))}
        if named := sorted(others - {SHARED_REAL}):
            notes.append(f"real images of {shown_names(named)} belong to no generator, so all generators share them")
        items = [
            dataclasses.replace(item, generator=SHARED_REAL) if item.generator in others else item for item in items
        ]
        items = self._with_splits(items, problems, notes)
        by_chance = bool(items) and not any(item.split for item in items)
        ids = source_ids(items, set(filter(str.isalpha, LABELS)), by_chance=by_chance)
        problems += ids.problems
        notes += ids.notes
        entries = self._entries(items, ids.ids, self._names(items, problems, notes))
        notes += [f"{text} ({count} times)" if count > 1 else text for text, count in sorted(self.guesses.items())]
        return Scan(problems=problems, notes=notes, entries=entries, splits_by_chance=by_chance)

    def _with_splits(self, items: list[Item], problems: list[Problem], notes: list[str]) -> list[Item]:
        """The images with the splits that a whole list implies; a split stays "" if it is to be by chance."""
        splits = {item.split for item in items}
        if "" in splits and len(splits) > 1:
            without = [item for item in items if not item.split]
            detail = f"{len(without)} of {len(items)} images, such as {without[0].key}"
            problems.append(Problem(".", "no split, while other images have one", "name the split of each", detail))
            return [item for item in items if item.split]
        if splits == {""}:
            generators = {item.generator for item in items if item.label == FAKE}
            if why := why_test_set(self.roots.main.resolve().name, generators):
                notes.append(f"the list is of a benchmark's test set ({why}): its images are only tested")
                return [dataclasses.replace(item, split="test") for item in items]
            notes.append(f"the list names no splits; images were split 80/10/10 by source id with seed {self.seed}")
        elif "valid" in splits and "test" not in splits:
            notes.append("the list names no test images: the validation images are the test images")
            return [dataclasses.replace(item, split="test" if item.split == "valid" else "train") for item in items]
        return items

    def _missing_problems(self) -> list[Problem]:
        what, remedy = "a listed file is not there", "restore it, or take the row out"
        unnamed = {match[1] for text in self.missing if (match := _OF_A_ROOT.match(slashes(text)))}
        if others := sorted(unnamed - self.roots.named.keys()):
            options = " ".join(f"--root {name}=DIR" for name in others[:_TOLD])
            remedy = f"name the further folders of which the list has paths: {options}"
            detail = f"{len(self.missing)} files of {self.num_rows} rows, such as {', '.join(self.missing[:_TOLD])}"
            return [Problem(".", "paths below further folders that have no name here", remedy, detail)]
        if len(self.missing) > max(_TOLD, _MISSING * self.num_rows):
            detail = f"{len(self.missing)} files of {self.num_rows} rows, such as {', '.join(self.missing[:_TOLD])}"
            remedy = "check --data; paths are relative to the list or to the data folder; --root NAME=DIR adds a folder"
            return [Problem(".", "listed files are not there", remedy, detail)]
        return [Problem(slashes(text), what, remedy, skippable=True) for text in dict.fromkeys(self.missing)]

    def _unique(self, problems: list[Problem], notes: list[str]) -> list[Item]:
        """Each image once; rows that say different things of one image are a problem."""
        of_path: defaultdict[Path, list[Item]] = defaultdict(list)
        for item in self.items:
            of_path[item.path].append(item)
        kept, repeated = [], 0
        for same in of_path.values():
            if difference := _difference(same):
                remedy = f"find out which {difference} is right and take the other row out"
                detail = "" if difference == "label" else f"{len(same)} rows"
                what = f"one image with two {difference}s"
                problems.append(Problem(same[0].key, what, remedy, detail, skippable=True))
                continue
            repeated += len(same) - 1
            if len({item.generator for item in same}) > 1:
                names = {item.generator for item in same}
                owner = SHARED_REAL if SHARED_REAL in names else JOINED.join(sorted(names))
                kept.append(dataclasses.replace(same[0], generator=owner))
            else:
                kept.append(same[0])
        if repeated:
            words = "1 row names" if repeated == 1 else f"{repeated} rows name"
            notes.append(f"{words} an image that another row names too; each image counts once")
        return kept

    def _originals(self, items: Sequence[Item], notes: list[str]) -> list[Item]:
        """The originals of a list without real images, as its real images; an edit that was edited again is none."""
        reals: dict[Path, Item] = {}
        fakes = {item.path for item in items}
        for item in items:
            if item.original is not None and item.original not in fakes:
                reals.setdefault(item.original, dataclasses.replace(
                    item, path=item.original, key=item.original_key, name=item.original.stem, label=REAL,
                    generator=SHARED_REAL, mask=None, original=None, original_key="",
                ))  # fmt: skip
        if reals:
            notes.append(f"the list has no real images; the {len(reals)} originals of its fakes are the real images")
        return [*reals.values()]

    def _names(self, items: Sequence[Item], problems: list[Problem], notes: list[str]) -> dict[str, str]:
        """The generator of items -> the same without characters that no name of a generator may have."""
        own = sorted({name for item in items for name in owners_of(item.generator)})
        of_name: defaultdict[str, list[str]] = defaultdict(list)
        for name in own:
            of_name[UNNAMEABLE.sub("_", name)].append(name)
        changed = [f"{name!r} is {new}" for new, names in of_name.items() for name in names if name != new]
        if changed:
            words = "characters that a generator's name cannot have were replaced by _"
            notes.append(f"{words}: {shown_names(changed)}")
        remedy = "rename one of them: a name has letters without accents, digits, blanks and _ - . :"
        problems += [
            Problem(new, "several generators with one name", remedy, ", ".join(map(repr, names)))
            for new, names in of_name.items()
            if len(names) > 1
        ]
        return {
            item.generator: JOINED.join(sorted(UNNAMEABLE.sub("_", name) for name in owners_of(item.generator)))
            for item in items
        }

    def _entries(self, items: Sequence[Item], ids: Sequence[str], names: Mapping[str, str]) -> list[Entry]:
        from data.splits import photograph_key, split_by_chance  # not at the top: it imports pandas

        return [
            Entry(
                item.path, item.label, names[item.generator], source,
                item.split or split_by_chance(photograph_key(source), seed=self.seed),
                item.mask, item.white, item.original,
            )
            for item, source in zip(items, ids, strict=True)
        ]  # fmt: skip


def _difference(same: Sequence[Item]) -> str:
    """What rows of one image do not agree on; ""."""
    facts: dict[str, set[Any]] = {
        "label": {item.label for item in same},
        "split": {item.split for item in same},
        "generator": {item.generator for item in same if item.label == FAKE},
        "mask": {(item.mask, item.white if item.mask else "") for item in same},
        "original": {item.original_key for item in same},
    }
    return next((name for name, values in facts.items() if len(values) > 1), "")


def _split_of_name(stem: str) -> str:
    found = {SPLITS[word] for word in re.split(r"[^a-z]+", stem.lower()) if word in SPLITS}
    return found.pop() if len(found) == 1 else ""


def _without_splits(name: str) -> str:
    """A name without the words that name splits; "" if no letter is left."""
    words = "|".join(sorted(SPLITS, key=len, reverse=True))
    rest = re.sub(rf"(?i)[_\-. ]*(?<![a-z])({words})(?![a-z])", "", name).strip("_-. ")
    return rest if any(map(str.isalpha, rest)) else ""


def _columns(rows: Sequence[Row]) -> dict[str, str]:
    """What we read -> the list's own name of that column. With `fake` and `real`, a row is a pair of images."""
    own = {str(name).strip().lower(): str(name) for row in rows for name in row}
    found = {name: next((own[alias] for alias in aliases if alias in own), None) for name, aliases in ALIASES.items()}
    return {name: column for name, column in found.items() if column is not None}


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and value != value):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # a column of numbers with a gap is read as floats
    return str(value).strip()


def _is_named(value: Any) -> bool:
    """Whether a value names a file."""
    return _text(value).lower() not in _NONE
