"""The manifest of a data set: one row per image. It is checked as a whole before any work starts."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import uuid
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from data.audits import Evidence, Finding, run_audits
from data.images import file_digest, fits
from data.kept import replacing
from data.listing import listed
from data.probes import Facts, probe_all, stamped
from data.roots import Roots
from data.sources import get_source, list_sources
from data.sources.base import (
    FAKE,
    REAL,
    SHARED_REAL,
    SPLITS,
    WHITE_FAKE,
    Entries,
    Problem,
    Scan,
    names_to_refuse,
    owners_of,
    rows_of_cells,
    shown_names,
)  # fmt: skip
from data.splits import (
    empty_groups,
    groups_of,
    leaks,
    limited,
    move_copies,
    sizes_of_groups,
    take_validation,
    tested_on,
    trained_on,
    without_tests,
    without_training,
)
from data.unchanged import Unchanged
from data.unread import note_on, unbalanced

COLUMNS = (
    "path", "label", "generator", "source_id", "split", "mask", "digest", "mask_digest", "width", "height", "format",
    "mode", "quantisation", "num_bytes", "profile", "metadata",
)  # fmt: skip
OPTIONAL = ("mask_white", "original", "original_digest")  # columns of data sets that need them
_CONTENT = ["label", "generator", "source_id", "split", "digest", "mask_digest"]
_OPTIONAL_CONTENT = ("mask_white", "original_digest")
_ORDER = ["split", "label", "generator", "source_id", "digest", "path"]
_NULLABLE = ["mask", "mask_digest", *OPTIONAL]
_WHOLE_NUMBERS = ["label", "width", "height", "num_bytes"]
_SHOWN_FILES = 20
_PIECE = 100_000  # rows that are turned into Python's texts at once
_FACTS = "manifest.json"
_OF_TABLE = ("digest", "fingerprint", "_saved")  # what a manifest remembers that follows from its table alone


class BadGeneratorsError(ValueError):
    """Generators that were asked for are not in the data, or have images in common; the message has the remedy."""


class DataProblems(ValueError):
    """All problems of a data folder, in one message.

    Attributes:
        problems: sorted.
        counts: (generator, label, split) -> number of images that were understood, among them the bad ones.
        notes: notes of the scan (see `data.sources.base.Scan`).
    """

    def __init__(
        self, problems: Iterable[Problem], where: str, layout: str,
        counts: Mapping[tuple[str, int, str], int] | None = None, notes: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self.problems, self.counts, self.notes = sorted(problems), dict(counts or {}), tuple(notes)
        # all arguments, so that the error can be pickled
        super().__init__(self.problems, where, layout, self.counts, self.notes)
        self._where, self._layout = where, layout

    def __str__(self) -> str:
        kinds: defaultdict[tuple[str, str], list[Problem]] = defaultdict(list)
        for problem in self.problems:
            kinds[problem.what, problem.remedy].append(problem)
        count = len(self.problems)
        lines = [f"{count} problem{'s' if count > 1 else ''} in {self._where}"]
        for (what, remedy), group in kinds.items():
            lines += ["", f"{what} ({len(group)}); remedy: {remedy}"]
            lines += [f"  {p.path}{f'  ({p.detail})' if p.detail else ''}" for p in group[:_SHOWN_FILES]]
            if len(group) > _SHOWN_FILES:
                lines.append(f"  ... and {len(group) - _SHOWN_FILES} more")
        if self._layout:
            lines += ["", "The expected layout:", "", self._layout]
        if any(problem.skippable for problem in self.problems):
            lines += ["", "--skip-bad leaves bad files out where that is enough, and records them with the results."]
        return "\n".join(lines)


@dataclass(frozen=True, eq=False)
class Manifest:
    """The images of one corpus.

    Attributes:
        root: the folder to which all paths are relative, except for those that begin with the name of a further folder.
        source: name of the corpus, as registered in `data.sources`.
        table: one row per image, columns `COLUMNS`: path and mask (posix, relative to the root), label (0 real, 1
            fake), generator ("real" for real images that all generators share), source_id, split, digest and
            mask_digest (SHA-256 of the files), width, height, format, mode, quantisation, num_bytes, profile and
            metadata (see `data.images.ImageFacts`; a saved manifest of an older version lacks the last three). Without
            a mask, mask and mask_digest are `pd.NA`. A data set whose source says that white in a mask means fake, or
            which original a fake has, also has mask_white, original and original_digest, `pd.NA` where it says nothing.
            The order of the rows depends only on the content; the index is 0 ... n - 1.
        skipped: the bad files that were left out.
        notes: notes of the scan (see `data.sources.base.Scan`).
        findings: findings of the audits (see `data.audits`); after `build_manifest`, of those that decode nothing.
        further: name -> a further folder; paths below it are written `name:path`.
    """

    root: Path
    source: str
    table: pd.DataFrame
    skipped: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    further: Mapping[str, Path] = field(default_factory=dict)

    def file(self, path: str) -> Path:
        """The absolute path of a file of the table."""
        return Roots(self.root, self.further).file(path)

    @property
    def remarks(self) -> list[str]:
        """Notes and findings: what a reader of the results should know about the data set, one sentence each."""
        return [*self.notes, *map(str, self.findings)]

    @cached_property
    def digest(self) -> str:
        """16 hexadecimal digits of a hash of the rows without their paths: moving the folder does not change it."""
        names = [*_CONTENT, *(name for name in _OPTIONAL_CONTENT if name in self.table.columns)]
        return json_digest(self.table, names)[:16]

    @property
    def generators(self) -> tuple[str, ...]:
        """The generators of the fakes, sorted."""
        return tuple(sorted(self.table.loc[self.table["label"] == FAKE, "generator"].unique()))

    @property
    def train_generators(self) -> tuple[str, ...]:
        """The generators that a detector can be trained on, sorted; the others are only tested."""
        return tuple(sorted(trained_on(self.table)))

    @property
    def tested_generators(self) -> tuple[str, ...]:
        """The generators with test images, sorted; the others are only trained on."""
        return tuple(sorted(tested_on(self.table)))

    @cached_property
    def fingerprint(self) -> str:
        """What identifies the test images, see the function of this name."""
        return fingerprint(self.select(SPLITS[-1], self.generators))

    def select(self, split: str, generators: Sequence[str]) -> pd.DataFrame:
        """The fakes of these generators in a split, with their real images; without generators, every real image.

        The rows keep the order and the index of `table`.

        Raises:
            ValueError: no such split or generator; the message lists what exists.
        """
        if split not in SPLITS:
            raise ValueError(f"no split {split!r}; there are: {', '.join(SPLITS)}")
        if unknown := set(generators) - set(self.generators):
            raise ValueError(f"no generator {', '.join(sorted(unknown))}; there are: {', '.join(self.generators)}")
        chosen = rows_of_cells(self.table, generators) if len(generators) else self.table["label"] == REAL
        return self.table[(self.table["split"] == split) & chosen]

    def limit(self, n: int) -> Manifest:
        """At most `n` images per split, generator and label, chosen by a hash of the source id.

        So a fake and its original are chosen together. Raises `ValueError` for n < 1.
        """
        table = limited(self.table, n).reset_index(drop=True)
        return dataclasses.replace(self, table=table)

    def with_findings(self, findings: Iterable[Finding]) -> Manifest:
        """The same images with these findings."""
        manifest = dataclasses.replace(self, findings=tuple(findings))
        vars(manifest).update({name: vars(self)[name] for name in _OF_TABLE if name in vars(self)})
        return manifest

    def paths(self, rows: pd.DataFrame) -> list[Path]:
        """The absolute paths of the images of these rows."""
        return [self.file(path) for path in rows["path"]]

    def summary(self) -> str:
        """A small table in plain text: number of images per generator and split."""
        names = self.table["generator"].where(
            (self.table["label"] == FAKE) | (self.table["generator"] == SHARED_REAL),
            self.table["generator"] + " (real)",
        )
        counts = pd.crosstab(names, self.table["split"]).reindex(columns=list(SPLITS), fill_value=0)
        counts.index.name = counts.columns.name = None
        return counts.to_string()

    def save(self, folder: Path) -> None:
        """Write manifest.json and the table that it names into `folder`, each file whole or not at all.

        The name of the table's file is a hash of its content, and the file never changes: trials on any machine may
        have it memory-mapped.
        """
        folder.mkdir(parents=True, exist_ok=True)
        file, sha256 = self._save_table(folder)
        facts = {
            "digest": self.digest,
            "table": file.name,
            "table_sha256": sha256,
            "root": str(self.root),
            "source": self.source,
            **({"further": {name: str(folder) for name, folder in self.further.items()}} if self.further else {}),
            "skipped": [asdict(problem) for problem in self.skipped],
            "notes": self.notes,
            "findings": [finding.to_dict() for finding in self.findings],
        }
        with replacing(folder / _FACTS) as temporary:
            temporary.write_text(json.dumps(facts, indent=1), encoding="utf-8")

    def _save_table(self, folder: Path) -> tuple[Path, str]:
        """Write the table into `folder`, unless it is there: its file, and the SHA-256 of that."""
        if (saved := vars(self).get("_saved")) is not None:  # the same table in another folder
            other, sha256 = saved
            file = folder / other.name
            if not file.exists():
                with suppress(OSError):  # another disk, say; then it is written
                    file.hardlink_to(other)
            if _is_sound(file, sha256):
                return file, sha256
        temporary = folder / f".table.{uuid.uuid4().hex}"
        try:
            self.table.to_feather(temporary, compression="uncompressed")  # a compressed one cannot be memory-mapped
            sha256 = file_digest(temporary)
            file = folder / f"table-{sha256[:16]}.arrow"
            if not _is_sound(file, sha256):
                temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)
        vars(self)["_saved"] = file, sha256
        return file, sha256

    @classmethod
    def load(cls, folder: Path) -> Manifest:
        """Read a saved manifest; strings of the table stay in the file, which is memory-mapped.

        Raises:
            FileNotFoundError: there is no manifest.
            ValueError: the table is damaged, or an older version of this project wrote the manifest.
        """
        facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
        if "table" not in facts or file_digest(folder / facts["table"]) != facts["table_sha256"]:
            raise ValueError(f"the manifest in {folder} is damaged or of an older version; repeat the launch command")
        manifest = cls(
            root=Path(facts["root"]),
            source=facts["source"],
            table=_typed(pa.ipc.open_file(pa.memory_map(str(folder / facts["table"]))).read_pandas()),
            skipped=tuple(Problem(**problem) for problem in facts["skipped"]),
            notes=tuple(facts["notes"]),
            findings=tuple(map(Finding.from_dict, facts.get("findings", ()))),  # older manifests have none
            further={name: Path(folder) for name, folder in facts.get("further", {}).items()},
        )
        # slow to compute; the table's checksum shows that it is still right
        vars(manifest).update(digest=facts["digest"], _saved=(folder / facts["table"], facts["table_sha256"]))
        return manifest


def _is_sound(file: Path, sha256: str) -> bool:
    return file.exists() and file_digest(file) == sha256


def json_digest(rows: pd.DataFrame, columns: Sequence[str]) -> str:
    """SHA-256 of the rows in any order: of their JSON lists, sorted, one per line.

    Args:
        rows: with the columns label, generator and others.
        columns: label and generator first.
    """
    digest, between = hashlib.sha256(), b""
    heads = {f"[{label}, {json.dumps(name)}, ": group for (label, name), group in rows.groupby(list(columns[:2]))}
    for head in sorted(heads):  # no head begins with another one, so these are the sorted lines
        group = heads[head]
        lines = pc.binary_join_element_wise(*(_as_json(group[name]) for name in columns[2:]), _constant(", "))
        order = pc.sort_indices(lines)
        for start in range(0, len(order), _PIECE):
            piece = lines.take(order.slice(start, _PIECE)).to_pylist()
            digest.update(between + "\n".join(f"{head}{line}]" for line in piece).encode())
            between = b"\n"
    return digest.hexdigest()


def _as_json(texts: pd.Series[Any]) -> pa.ChunkedArray:
    """Each text as JSON, null for none."""
    values = pa.array(texts, pa.large_string())
    if pc.all(pc.match_substring_regex(values, r"^[ !#-\[\]-~]*$")).as_py() is not False:
        quoted = pc.binary_join_element_wise(_constant('"'), values, _constant('"'), _constant(""))
    else:
        quoted = pa.array([None if text is None else json.dumps(text) for text in values.to_pylist()], values.type)
    return pc.fill_null(quoted, _constant("null"))


def _constant(text: str) -> pa.Scalar:
    return pa.scalar(text, pa.large_string())


def fingerprint(rows: pd.DataFrame) -> str:
    """The number of these images, and a hash of them, in any order and whatever their paths: "900 0123…".

    Args:
        rows: with the columns label, generator, source_id and digest, as in a manifest or in a trial's scores.
    """
    columns = [rows[column].astype(str) for column in ("label", "generator", "source_id", "digest")]
    lines = sorted("\t".join(row) for row in zip(*columns, strict=True))
    return f"{len(lines)} " + hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]


def build_manifest(
    source: str,
    root: Path,
    *,
    cache: Path,
    seed: int = 0,
    skip_bad: bool = False,
    limit: int | None = None,
    generators: Collection[str] | None = None,
    names_per_split: bool = False,
    size_check: Callable[[int, int], str] | None = None,
    progress: Callable[[int, int], None] | None = None,
    measured_per_group: int = 0,
    further: Mapping[str, Path] | None = None,
    asked: Mapping[str, Any] | None = None,
) -> Manifest:
    """Read a data folder, check every file in it, and return its manifest.

    Args:
        source: name of the corpus; see `data.sources.list_sources`.
        root: the data folder; may be a link.
        cache: facts about files are kept here; a second build opens only files whose size or time has changed.
        seed: seed of the splits, if the folder has none.
        skip_bad: leave bad files out and record them in `Manifest.skipped`. An image with a bad mask stays, without
            the mask. Of an image in two splits, the copy in the most held-out split stays.
        limit: maximal number of images per split, generator and label; the others are neither opened nor checked.
        generators: keep only fakes of these generators, with their real images; None: all but those that take part
            only on request (see `Scan.on_request`).
        names_per_split: file names restart in each split: the same name in two splits is two photographs.
        size_check: (width, height) in pixels -> why a picture of this size cannot be used, in words; "" if it can be.
            It is called once per size. Such pictures are bad files.
        progress: called with (files done, files to open), from this thread.
        measured_per_group: measure the pixels of photographs of which all files are new, so that `data.measure.measure`
            with this `per_group` need not decode them again; 0: measure nothing.
        further: name -> a further folder that holds files of the corpus.
        asked: what else the corpus is asked, by the names in `data.sources.Source.options`.

    Raises:
        DataProblems: all problems, in one error.
        KeyError: no such corpus; the message lists the corpora.
        BadGeneratorsError: no such generator; the message lists the generators.
        ValueError: the corpus does not take something that it is asked.
    """
    root = Path(root).absolute()
    scan: Callable[..., Scan] = get_source(source).scan
    words = dict(asked or {})
    if further:
        words["further"] = further
    if refused := sorted(words.keys() - set(get_source(source).options)):
        raise ValueError(f"{source} takes no {' and no '.join(refused)}; the corpora that do: {_taking(refused)}")
    scanned = scan(root, seed=seed, **words)
    if refused_names := names_to_refuse(scanned.entries):
        raise DataProblems(refused_names, f"{root} (source {source})", "")
    _choose_generators(scanned, generators)
    if names_per_split:
        scanned.notes.append("file names restart in each split: the same name in two splits is two photographs")
    roots = Roots(root, further or {})
    entries, scanned.entries = Entries(scanned.entries), Entries()
    table = listed(entries, roots, names_per_split=names_per_split)
    unread = unbalanced(table, scanned.unread, root)
    # Groups that are empty because of a missing folder are reported already; groups that became empty here are not.
    structural = any(not problem.skippable for problem in scanned.problems)
    taken: Collection[str] = ()
    if not (scanned.splits_by_chance or structural):
        named = table["split"]
        table, moved = take_validation(table)
        taken = table.loc[table["split"] != named, "source_id"]
        scanned.notes += moved
    if limit is not None:
        table = limited(table, limit)
    files = stamped(table, roots)
    options = {"source": source, "skip_bad": skip_bad, "unread": unread, "taken": sorted(set(taken))}
    unchanged = Unchanged(cache, roots, table, files, scanned, options)
    if (kept := unchanged.load(size_check)) is not None:
        return kept
    expected = groups_of(table)
    counts = {(name, label, split): size for (name, split, label), size in sizes_of_groups(table).items()}
    only_tested = () if scanned.splits_by_chance else without_training(table)
    only_trained = () if scanned.splits_by_chance else without_tests(table)
    facts, bad = probe_all(files, table, roots, cache, progress, measured_per_group)
    del files

    problems = [*scanned.problems, *bad, *unread]
    table, joined = _join_facts(table, facts, problems)
    del facts
    pictures = table[["width", "height"]]
    scanned.notes += joined
    table, moved = move_copies(table, taken)
    scanned.notes += moved
    table = _leave_out(table, _of_bad_sizes(table, size_check), problems)
    table = _leave_out(table, _contradictory_labels(table), problems)
    table = _leave_out(table, [*leaks(table, "source_id"), *leaks(table, "digest")], problems)
    problems += empty_groups(
        table, only=expected if structural else None, only_tested=only_tested, only_trained=only_trained,
        by_chance=scanned.splits_by_chance,
    )  # fmt: skip

    blocking = [problem for problem in problems if not (skip_bad and problem.skippable)]
    if blocking:
        needs_layout = any(not problem.skippable for problem in blocking)
        layout = inspect.cleandoc(scan.__doc__ or "") if needs_layout else ""
        raise DataProblems(blocking, f"{root} (source {source})", layout, counts, scanned.all_notes())
    columns = [*COLUMNS, *(name for name in OPTIONAL if name in table.columns)]
    table = _ordered(table, columns)
    notes = [*scanned.all_notes(), *note_on(scanned.unread)]
    if only_tested:
        notes.append(f"only tested, because they have no training images: {', '.join(only_tested)}")
    if only_trained:
        notes.append(f"only trained on, because they have no test images: {', '.join(only_trained)}")
    manifest = Manifest(root, source, table, tuple(sorted(problems)), tuple(notes), further=dict(further or {}))
    manifest = manifest.with_findings(run_audits(Evidence(manifest)))
    unchanged.keep(manifest, pictures, bad, size_check)
    return manifest


def _ordered(table: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """These columns, with the rows in the order of manifests. A million rows are not held twice."""
    keys = pa.table({name: pa.array(table[name]) for name in _ORDER})
    order = pc.sort_indices(keys, sort_keys=[(name, "ascending") for name in _ORDER]).to_numpy()
    del keys
    return pd.DataFrame({name: table.pop(name).take(order).array for name in columns}, copy=False)


def _choose_generators(scanned: Scan, generators: Collection[str] | None) -> None:
    """Take in what these generators need and leave out all that is only about others; None: the default generators."""
    default = {generator for generator, label in Entries(scanned.entries).classes() if label == FAKE}
    on_request = scanned.on_request
    for name in sorted(on_request.keys() & set(generators or ())):
        scanned.add(on_request[name])
    if left_out := sorted(on_request.keys() - set(generators or ())):
        words = f"not part of the experiment unless --generators names them: {', '.join(left_out)}"
        scanned.notes.append(f"{words}; by default: {', '.join(sorted(default))}")
    if generators is None:
        return
    about = {problem.generator for problem in scanned.problems} - {""}
    if unknown := sorted(set(generators) - default - about - on_request.keys()):
        names = ", ".join(sorted(default | on_request.keys()))
        raise BadGeneratorsError(f"no generator {', '.join(unknown)} in the data; there are: {names}")
    _refuse_shared_images(scanned, generators)
    others = default - set(generators)
    kept, needed_by = {*generators, SHARED_REAL}, scanned.needed_by
    scanned.entries = Entries(scanned.entries).of_generators(kept)
    if needed_by:
        scanned.entries = Entries(entry for entry in scanned.entries if needed_by.get(entry.path, kept) & kept)
    scanned.unread = [entry for entry in scanned.unread if not kept.isdisjoint(owners_of(entry.generator))]
    scanned.problems = [
        problem
        for problem in scanned.problems
        if problem.generator in {*generators, ""} and not others & set(PurePosixPath(problem.path).parts)
    ]


def _refuse_shared_images(scanned: Scan, generators: Collection[str]) -> None:
    """Refuse generators that have images in common, such as one and its part that takes part on request alone."""
    owner: dict[Path, str] = {}
    for entry in scanned.entries:
        if entry.generator in generators and owner.setdefault(entry.path, entry.generator) != entry.generator:
            names = f"{owner[entry.path]} and {entry.generator}"
            raise BadGeneratorsError(f"{names} have images in common; name one of the two")


def _taking(options: Sequence[str]) -> str:
    """The corpora that take all of these options, in words."""
    return ", ".join(name for name in list_sources() if set(options) <= set(get_source(name).options)) or "none"


def _typed(table: pd.DataFrame) -> pd.DataFrame:
    """The table with column types that depend neither on the pandas version nor on whether there are masks."""
    types = dict.fromkeys(_NULLABLE, "string") | dict.fromkeys(_WHOLE_NUMBERS, "int64")
    return table.astype({column: kind for column, kind in types.items() if column in table.columns})


def _join_facts(table: pd.DataFrame, facts: Facts, problems: list[Problem]) -> tuple[pd.DataFrame, list[str]]:
    """Add the files' facts. Rows with a bad image are dropped; bad masks, and masks of another shape, are removed.

    Returns:
        the table; and notes on masks and originals of another size.
    """
    images = facts.rows_of(table["path"])
    if (images < 0).any():
        table, images = table[images >= 0], images[images >= 0]
    table = table.copy(deep=False)
    masks = facts.rows_of(table["mask"])
    other = _other_sizes(facts, masks, images)
    resized = 0
    for row in other:
        mask, image = _size(facts, masks[row]), _size(facts, images[row])
        if fits(mask, image):
            resized += 1
            continue
        detail = f"mask {mask[0]} x {mask[1]}, image {image[0]} x {image[1]}"
        what, remedy = "mask and image differ in size", "restore the mask that belongs to the image"
        problems.append(Problem(table["mask"].iloc[row], what, remedy, detail, skippable=True))
        masks[row] = -1
    table["mask"] = table["mask"].where(masks >= 0)
    table["digest"] = _text(facts.column("digest", images))
    table["mask_digest"] = _text(facts.column("digest", masks))
    for column in COLUMNS[COLUMNS.index("width") :]:
        values = facts.column(column, images)
        table[column] = values.to_numpy() if column in _WHOLE_NUMBERS else _text(values)
    notes = []
    if resized:
        notes.append(f"{resized} masks have the shape of their image and another size; they are resized, nearest pixel")
    if "mask_white" in table.columns:
        table["mask_white"] = table["mask_white"].where(table["mask"].notna())
        white = int((table["mask_white"] == WHITE_FAKE).sum())
        notes.append(f"white means fake in {white} masks")
    if "original" in table.columns:
        originals = facts.rows_of(table["original"])
        other = _other_sizes(facts, originals, images)
        originals[other] = -1
        table["original"] = table["original"].where(originals >= 0)
        table["original_digest"] = _text(facts.column("digest", originals))
        if len(other):
            text = "originals have another size than their fake and are not used as its original"
            notes.append(f"{len(other)} {text}")
    return _typed(table), notes


def _text(values: pa.ChunkedArray) -> Any:
    """Texts as pandas holds them, without a copy."""
    return pd.array(values.combine_chunks(), dtype="str")


def _size(facts: Facts, row: int) -> tuple[int, int]:
    return facts.table["width"][row].as_py(), facts.table["height"][row].as_py()


def _other_sizes(facts: Facts, some: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Where two files are there, rows of `facts`, and differ in width or height: int (M,)."""
    differ = np.zeros(len(some), bool)
    for name in ("width", "height"):
        values = facts.table[name].to_numpy()
        if len(values):
            differ |= values[some] != values[images]
    numbers: np.ndarray = np.flatnonzero(differ & (some >= 0))
    return numbers


def _of_bad_sizes(table: pd.DataFrame, size_check: Callable[[int, int], str] | None) -> list[Problem]:
    """Pictures of a size that cannot be used."""
    if size_check is None:
        return []
    sizes = table[["width", "height"]].drop_duplicates()
    pairs = zip(sizes["width"].tolist(), sizes["height"].tolist(), strict=True)
    bad = {size: words for size in pairs if (words := size_check(*size))}
    if not bad:
        return []
    remedy = "replace the picture, or choose methods that can take it (--methods)"
    return [
        Problem(path, bad[width, height], remedy, f"{width} x {height} pixels", skippable=True)
        for path, width, height in zip(table["path"], table["width"], table["height"], strict=True)
        if (width, height) in bad
    ]


def _leave_out(table: pd.DataFrame, bad: list[Problem], problems: list[Problem]) -> pd.DataFrame:
    problems += bad
    return table[~table["path"].isin({problem.path for problem in bad})] if bad else table


def _contradictory_labels(table: pd.DataFrame) -> list[Problem]:
    """Every copy of an image that is labelled both real and fake."""
    what, remedy = "the same bytes labelled both real and fake", "find out which label is right and remove the others"
    copies = table[table["digest"].duplicated(keep=False)]
    copies = copies[copies.groupby("digest")["label"].transform("nunique") > 1]
    paths = copies.groupby("digest")["path"].agg(list)
    return [
        Problem(path, what, remedy, f"same as {shown_names([p for p in paths[digest] if p != path])}", skippable=True)
        for path, digest in zip(copies["path"], copies["digest"], strict=True)
    ]
