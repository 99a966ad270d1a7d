"""OpenSDI (iamwangyabin/OpenSDI): images that five diffusion models edited in a part, or made as a whole."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter, defaultdict
from contextlib import suppress
from pathlib import Path, PurePosixPath

from data.sources import register_source
from data.sources._tree import SPLIT_NAMES
from data.sources.base import FAKE, REAL, WHITE_FAKE, Entry, Problem, Scan, root_problems

_COLUMNS = {"key", "image", "mask", "label"}
_UNPACKED = {"path", "mask", "key", "label", "part", "shard"}  # of the list
_LIST = "list.parquet"  # written by `data.unpack`
_LOOKED_AT = 20  # files
_KINDS = ("partial", "entire")
_PARTIAL = "-partial"  # generators of the partial edits alone
_LABELS = {"real": REAL, "0": REAL, "fake": FAKE, "1": FAKE}
_SPLIT = re.compile(r"(?<![a-z])(?:train|test|plus)|opensdidplus", re.IGNORECASE)
_LEGACY = re.compile(r"[^/]*")  # a key without folders


def looks_like(root: Path) -> bool:
    """Whether the folder holds Parquet files with the columns of OpenSDI, or such files unpacked."""
    from data.shards import BadShardError, columns_of, first_shards, is_tar

    if not root.is_dir():
        return False
    file = root / _LIST
    files = [file] if file.is_file() else [path for path in first_shards(root) if not is_tar(path)]
    for path in files[:_LOOKED_AT]:
        with suppress(BadShardError):  # a broken file: the next one may say it
            return set(columns_of(path)) in (_COLUMNS, _UNPACKED)
    return False


def is_packed(root: Path) -> bool:
    """Whether the folder holds Parquet files, and not the list of unpacked ones."""
    from data.shards import first_shards

    return root.is_dir() and not (root / _LIST).is_file() and bool(first_shards(root))


@register_source(
    "opensdi",
    order=("sd15", "sd2", "sdxl", "sd3", "flux"),
    caveats={
        "": "Second-hand of OpenSDI: the tables of JPEG's quantisation alone tell real from fake in 94 % of its images."
    },
    looks_like=looks_like,
    is_packed=is_packed,
)
def scan(root: Path, *, seed: int = 0) -> Scan:
    """OpenSDI: the Parquet files as published, unpacked into the cache by a launch.

        OpenSDI_train/data/sd15-00000-of-00100.parquet
        OpenSDI_test/data/{sd15,sd2,sdxl,sd3,flux}-00000-of-00010.parquet       columns key, image, mask, label

    The files name their generator; a folder above them (or the data folder) names the split: train, or plus
    (OpenSDIDplus, for training on the other generators), or test. White in a mask means fake. The generator sd15 is all
    of its images, as published; sd15-partial, which --generators can name, is the images that were edited in a part.
    """
    result = Scan(problems=root_problems(root))
    if result.problems:
        return result
    file = root / _LIST
    if not file.is_file():
        packed = is_packed(root)
        what = "Parquet files that are not unpacked" if packed else "no Parquet files of OpenSDI"
        remedy = "launch on it once, and give its folder in the cache" if packed else "give the folder that holds them"
        return Scan(problems=[Problem(".", what, remedy)])
    import pandas as pd  # not at the top: naming corpora does not need it

    table = pd.read_parquet(file)
    if missing := {"key", "part", "shard", "label", "path"} - set(table.columns):
        remedy = "for another corpus in Parquet files, the experiment is manifest"
        return Scan(problems=[Problem(_LIST, f"no column {', '.join(sorted(missing))}", remedy)])
    reader = _Reader(root)
    names = ["path", "mask", "key", "label", "part", "shard"]
    for values in table.reindex(columns=names).astype(object).where(table.notna(), "").to_dict("records"):
        reader.read({str(name): str(value) for name, value in values.items()})
    reader.finish(result)
    return result


class _Reader:
    """Reads rows, and counts what is to be said of them."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._splits: dict[str, str] = {}
        self._whole: list[Entry] = []
        self._partial: defaultdict[str, list[Entry]] = defaultdict(list)
        self._kinds: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._problems: list[Problem] = []
        self._legacy = self._without_mask = self._without_partial_mask = 0

    def read(self, row: dict[str, str]) -> None:
        """Read one row of the list."""
        place = row["path"] or f"{row['shard']}: {row['key']}"
        split = self._split(row["shard"])
        label = _LABELS.get(row["label"].lower())
        kind, named, group = _of_key(row["key"])
        generator = row["part"] if row["part"].lower() not in ("", *SPLIT_NAMES) else named
        if not split:
            return  # one problem per folder, in `finish`
        if not row["path"]:
            self._skip(place, "a row without an image", "fetch the Parquet file again")
        elif label is None:
            self._skip(place, "a label that is not known", "it is real or fake, 0 or 1", repr(row["label"]))
        elif group and _LABELS[group] != label:
            self._skip(place, "label and key disagree", "find out which is right", f"{row['label']}, {row['key']}")
        elif not generator:
            what, remedy = "no generator in the file's name and in the key", "name the Parquet file as it was published"
            self._skip(place, what, remedy, row["shard"])
        elif label == FAKE and named and named != generator:
            what, remedy = "key and file name two generators", "name the Parquet file as it was published"
            self._skip(place, what, remedy, f"{named}, {generator}")
        else:
            self._add(row, label, generator, kind, split)

    def _add(self, row: dict[str, str], label: int, generator: str, kind: str, split: str) -> None:
        self._legacy += bool(_LEGACY.fullmatch(row["key"]))
        mask = self._root / row["mask"] if row["mask"] and label == FAKE else None
        source = PurePosixPath(row["key"]).stem or PurePosixPath(row["path"]).stem
        entry = Entry(self._root / row["path"], label, generator, source, split, mask, WHITE_FAKE)
        self._whole.append(entry)
        if label == REAL:
            return
        is_partial = kind == "partial" if kind else mask is not None
        self._kinds[generator][_KINDS[not is_partial]] += 1
        self._without_mask += mask is None and not is_partial
        self._without_partial_mask += mask is None and is_partial
        if is_partial:
            self._partial[generator].append(entry)

    def _split(self, shard: str) -> str:
        """The split that the innermost folder names, else the data folder; ""."""
        folder = str(PurePosixPath(shard).parent)
        if folder not in self._splits:
            parts = [part for part in PurePosixPath(folder).parts if part != "."]
            words = [_words(part) for part in (self._root.name, *parts)]
            of_last = next((found for found in reversed(words) if found), set())
            self._splits[folder] = of_last.pop() if len(of_last) == 1 else ""
        return self._splits[folder]

    def _skip(self, path: str, what: str, remedy: str, detail: str = "") -> None:
        self._problems.append(Problem(path, what, remedy, detail, skippable=True))

    def finish(self, result: Scan) -> None:
        """Add everything to `result`."""
        remedy = "put them below folders with the published names, OpenSDI_train and OpenSDI_test, in the data folder"
        without = sorted(folder for folder, split in self._splits.items() if not split)
        result.problems += [
            Problem(folder, "no folder says whether this is train or test", remedy) for folder in without
        ]
        result.problems += self._problems
        result.entries += self._whole
        for generator, kinds in sorted(self._kinds.items()):
            shown = ", ".join(f"{kinds[kind]} {kind}" for kind in _KINDS)
            result.notes.append(f"{generator}: fakes by kind: {shown}")
            if all(kinds[kind] for kind in _KINDS):
                reals = [entry for entry in self._whole if entry.label == REAL and entry.generator == generator]
                own = [*self._partial[generator], *reals]
                renamed = [_renamed(entry, f"{generator}{_PARTIAL}") for entry in own]
                result.on_request[f"{generator}{_PARTIAL}"] = Scan(entries=renamed)
        if self._kinds:
            result.notes.append("OpenSDI has no originals of its fakes: a photograph is known by the name in its key")
        if self._without_mask:
            words = "fully generated images have no mask: all of them is fake; localisation leaves them out"
            result.notes.append(f"{self._without_mask} {words}, as the published pixel task does")
        if self._without_partial_mask:
            result.notes.append(
                f"{self._without_partial_mask} partial edits have no mask; localisation leaves them out"
            )
        if self._legacy:
            words = "keys are bare file names; such an image without a mask was read as fully generated"
            result.notes.append(f"{self._legacy} {words}")


def _words(name: str) -> set[str]:
    """The splits that the name of a folder names."""
    found = {match[0].lower() for match in _SPLIT.finditer(re.sub(r"-[0-9a-f]{12}$", "", name))}
    return {"test" if word == "test" else "train" for word in found}


def _of_key(key: str) -> tuple[str, str, str]:
    """(kind, generator, class) of a key such as partial/sd15/fake/000651821.jpg; "" where it does not say it."""
    parts = key.split("/")
    if len(parts) < 4 or parts[0] not in _KINDS:
        return "", "", ""
    return parts[0], parts[1], parts[2].lower() if parts[2].lower() in _LABELS else ""


def _renamed(entry: Entry, generator: str) -> Entry:
    return dataclasses.replace(entry, generator=generator)
