"""The manifest of a data set: one row per image. It is checked as a whole before any work starts."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import logging
import os
import re
import unicodedata
import uuid
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, astuple, dataclass, fields
from functools import cached_property
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd
import pyarrow as pa
from filelock import FileLock
from PIL import Image

from data.audits import Evidence, Finding, run_audits
from data.images import BadImage, ImageFacts, file_digest, read
from data.parallel import parallel_map
from data.photographs import Key as MeasuredKey
from data.photographs import Row, Shot, add_measured, measure_photograph, photographs
from data.sources import get_source
from data.sources.base import (
    FAKE,
    REAL,
    SHARED_REAL,
    SPLITS,
    Entry,
    Problem,
    Scan,
    relative,
    rows_of_cells,
    shown_names,
)  # fmt: skip
from data.unread import note_on, unbalanced

logger = logging.getLogger(__name__)

COLUMNS = (
    "path", "label", "generator", "source_id", "split", "mask", "digest", "mask_digest", "width", "height", "format",
    "mode", "quantisation", "num_bytes", "profile", "metadata",
)  # fmt: skip
_CONTENT = ["label", "generator", "source_id", "split", "digest", "mask_digest"]
_ORDER = ["split", "label", "generator", "source_id", "digest", "path"]
_NULLABLE = ["mask", "mask_digest"]
_WHOLE_NUMBERS = ["label", "width", "height", "num_bytes"]
_SHOWN_FILES = 20
_LEADING_ZEROS = re.compile(r"(?<![\d.])0+(?=\d)")  # not behind a point: x1.05 and x1.5 are two numbers
_FACTS = "manifest.json"
_PROBE_VERSION = 3  # increase it when `data.images` refuses a file that it accepted, or returns other facts than before


class DataProblems(ValueError):
    """All problems of a data folder, in one message.

    Attributes:
        problems: sorted.
    """

    def __init__(self, problems: Iterable[Problem], where: str, layout: str) -> None:
        self.problems = sorted(problems)
        super().__init__(self.problems, where, layout)  # all arguments, so that the error can be pickled
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
        root: the folder to which all paths are relative.
        source: name of the corpus, as registered in `data.sources`.
        table: one row per image, columns `COLUMNS`: path and mask (posix, relative to the root), label (0 real, 1
            fake), generator ("real" for real images that all generators share), source_id, split, digest and
            mask_digest (SHA-256 of the files), width, height, format, mode, quantisation, num_bytes, profile and
            metadata (see `data.images.ImageFacts`; a saved manifest of an older version lacks the last three). Without
            a mask, mask and mask_digest are `pd.NA`. The order of the rows depends only on the content; the index is
            0 ... n - 1.
        skipped: the bad files that were left out.
        notes: notes of the scan (see `data.sources.base.Scan`).
        findings: findings of the audits (see `data.audits`); after `build_manifest`, of those that decode nothing.
    """

    root: Path
    source: str
    table: pd.DataFrame
    skipped: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def remarks(self) -> list[str]:
        """Notes and findings: what a reader of the results should know about the data set, one sentence each."""
        return [*self.notes, *map(str, self.findings)]

    @cached_property
    def digest(self) -> str:
        """16 hexadecimal digits of a hash of the rows without their paths: moving the folder does not change it."""
        columns = [self.table[column].astype(object) for column in _CONTENT]
        rows = sorted(json.dumps([None if pd.isna(v) else v for v in row]) for row in zip(*columns, strict=True))
        return hashlib.sha256("\n".join(rows).encode()).hexdigest()[:16]

    @property
    def generators(self) -> tuple[str, ...]:
        """The generators of the fakes, sorted."""
        return tuple(sorted(self.table.loc[self.table["label"] == FAKE, "generator"].unique()))

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
        table = _limited(self.table, n).reset_index(drop=True)
        return dataclasses.replace(self, table=table)

    def with_findings(self, findings: Iterable[Finding]) -> Manifest:
        """The same images with these findings."""
        manifest = dataclasses.replace(self, findings=tuple(findings))
        vars(manifest)["digest"] = self.digest  # slow to compute, and of the same images
        return manifest

    def paths(self, rows: pd.DataFrame) -> list[Path]:
        """The absolute paths of the images of these rows."""
        return [self.root / path for path in rows["path"]]

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
        buffer = BytesIO()
        self.table.to_feather(buffer, compression="uncompressed")  # a compressed table cannot be memory-mapped
        sha256 = hashlib.sha256(buffer.getbuffer()).hexdigest()
        file = folder / f"table-{sha256[:16]}.arrow"
        if not file.exists() or file_digest(file) != sha256:
            with _replacing(file) as temporary:
                temporary.write_bytes(buffer.getbuffer())
        facts = {
            "digest": self.digest,
            "table": file.name,
            "table_sha256": sha256,
            "root": str(self.root),
            "source": self.source,
            "skipped": [asdict(problem) for problem in self.skipped],
            "notes": self.notes,
            "findings": [finding.to_dict() for finding in self.findings],
        }
        with _replacing(folder / _FACTS) as temporary:
            temporary.write_text(json.dumps(facts, indent=1), encoding="utf-8")

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
        )
        vars(manifest)["digest"] = facts["digest"]  # slow to compute; the table's checksum shows that it is still right
        return manifest


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

    Raises:
        DataProblems: all problems, in one error.
        KeyError: no such corpus; the message lists the corpora.
        ValueError: no such generator; the message lists the generators.
    """
    root = Path(root).absolute()
    scan = get_source(source).scan
    scanned = scan(root, seed=seed)
    _choose_generators(scanned, generators)
    if names_per_split:
        scanned.entries = [dataclasses.replace(e, source_id=f"{e.split}/{e.source_id}") for e in scanned.entries]
        scanned.notes.append("file names restart in each split: the same name in two splits is two photographs")
    table = _entries_table(scanned.entries, root)
    if limit is not None:
        table = _limited(table, limit)
    expected = _groups(table)
    facts, bad = _probe_all(table, root, cache, progress, measured_per_group)

    problems = [*scanned.problems, *bad, *unbalanced(scanned.entries, scanned.unread, root)]
    table = _join_facts(table, facts, problems)
    table = _leave_out(table, _of_bad_sizes(table, size_check), problems)
    table = _leave_out(table, _contradictory_labels(table), problems)
    table = _leave_out(table, [*_leaks(table, "source_id"), *_leaks(table, "digest")], problems)
    # Groups that are empty because of a missing folder are reported already; groups that became empty here are not.
    structural = any(not problem.skippable for problem in scanned.problems)
    problems += _empty_groups(table, only=expected if structural else None)

    blocking = [problem for problem in problems if not (skip_bad and problem.skippable)]
    if blocking:
        needs_layout = any(not problem.skippable for problem in blocking)
        layout = inspect.cleandoc(scan.__doc__ or "") if needs_layout else ""
        raise DataProblems(blocking, f"{root} (source {source})", layout)
    table = table.sort_values(_ORDER).reset_index(drop=True)[list(COLUMNS)]
    notes = (*scanned.all_notes(), *note_on(scanned.unread))
    manifest = Manifest(root, source, table, tuple(sorted(problems)), notes)
    return dataclasses.replace(manifest, findings=tuple(run_audits(Evidence(manifest))))


def _choose_generators(scanned: Scan, generators: Collection[str] | None) -> None:
    """Take in what these generators need and leave out all that is only about others; None: the default generators."""
    default = {entry.generator for entry in scanned.entries if entry.label == FAKE}
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
        raise ValueError(f"no generator {', '.join(unknown)} in the data; there are: {names}")
    others = default - set(generators)
    kept = {*generators, SHARED_REAL}
    scanned.entries = [entry for entry in scanned.entries if entry.generator in kept]
    scanned.unread = [entry for entry in scanned.unread if entry.generator in kept]
    scanned.problems = [
        problem
        for problem in scanned.problems
        if problem.generator in {*generators, ""} and not others & set(PurePosixPath(problem.path).parts)
    ]


def _entries_table(entries: list[Entry], root: Path) -> pd.DataFrame:
    rows = [
        (relative(e.path, root), e.label, e.generator, e.source_id, e.split, relative(e.mask, root) if e.mask else None)
        for e in entries
    ]
    table = pd.DataFrame(rows, columns=list(COLUMNS[:6])).astype({"label": "int64", "mask": "string"})
    return table.assign(**{column: _one_spelling(table[column]) for column in ("generator", "source_id")})


def _one_spelling(names: pd.Series[str]) -> pd.Series[str]:
    """Composed letters (NFC) where a name is written in two ways; other names stay, so that digests do not change."""
    composed = names.map(lambda name: unicodedata.normalize("NFC", name))
    return names.where(names.groupby(composed).transform("nunique") == 1, composed)


def _typed(table: pd.DataFrame) -> pd.DataFrame:
    """The table with column types that depend neither on the pandas version nor on whether there are masks."""
    types = dict.fromkeys(_NULLABLE, "string") | dict.fromkeys(_WHOLE_NUMBERS, "int64")
    return table.astype({column: kind for column, kind in types.items() if column in table.columns})


def _limited(table: pd.DataFrame, n: int) -> pd.DataFrame:
    if n < 1:
        raise ValueError(f"the limit must be at least 1, got {n}")
    rank = table["source_id"].map(lambda source_id: hashlib.sha256(source_id.encode()).hexdigest())
    order = rank.sort_values(kind="stable").index
    kept = table.loc[order].groupby(["split", "generator", "label"]).head(n).index
    return table.loc[sorted(kept)]


def _join_facts(table: pd.DataFrame, facts: dict[str, ImageFacts], problems: list[Problem]) -> pd.DataFrame:
    """Add the files' facts. Rows with a bad image are dropped; bad masks, and masks of another size, are removed."""
    table = table[table["path"].isin(facts.keys())].copy()
    images = [facts[path] for path in table["path"]]
    masks = [None if pd.isna(mask) else facts.get(mask) for mask in table["mask"]]
    for row, (path, image, mask) in enumerate(zip(table["mask"], images, masks, strict=True)):
        if mask and (mask.width, mask.height) != (image.width, image.height):
            detail = f"mask {mask.width} x {mask.height}, image {image.width} x {image.height}"
            what, remedy = "mask and image differ in size", "restore the mask that belongs to the image"
            problems.append(Problem(path, what, remedy, detail, skippable=True))
            masks[row] = None
    table["mask"] = table["mask"].where(pd.Series([mask is not None for mask in masks], index=table.index))
    table["digest"] = [image.digest for image in images]
    table["mask_digest"] = [mask.digest if mask else None for mask in masks]
    for column in COLUMNS[COLUMNS.index("width") :]:
        table[column] = [getattr(image, column) for image in images]
    return _typed(table)


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
    return table[~table["path"].isin({problem.path for problem in bad})]


def _contradictory_labels(table: pd.DataFrame) -> list[Problem]:
    """Every copy of an image that is labelled both real and fake."""
    what, remedy = "the same bytes labelled both real and fake", "find out which label is right and remove the others"
    copies = table[table.groupby("digest")["label"].transform("nunique") > 1]
    paths = copies.groupby("digest")["path"].agg(list)
    return [
        Problem(path, what, remedy, f"same as {shown_names([p for p in paths[digest] if p != path])}", skippable=True)
        for path, digest in zip(copies["path"], copies["digest"], strict=True)
    ]


def _leaks(table: pd.DataFrame, column: str) -> list[Problem]:
    """Images whose source id or bytes are also in a more held-out split.

    Source ids whose numbers differ only in leading zeros count as one: 1.png and 00001.png are the same photograph.
    """
    what, remedy, keys = "the same bytes in two splits", "keep it in one split", table[column]
    if column == "source_id":
        what = "one photograph in two splits"
        remedy += "; if names restart in each split and mean other photographs there, give --names-per-split"
        keys = keys.str.replace(_LEADING_ZEROS, "", regex=True)
    rank = table["split"].map(SPLITS.index)
    max_rank = rank.groupby(keys).transform("max")
    leaked = rank < max_rank
    held_out = rank == max_rank
    kept = dict(zip(reversed(keys[held_out].tolist()), reversed(table.loc[held_out, "path"].tolist()), strict=True))
    return [
        Problem(path, what, remedy, f"also {kept[key]}", skippable=True)
        for path, key in zip(table.loc[leaked, "path"], keys[leaked], strict=True)
    ]


def _groups(table: pd.DataFrame) -> set[tuple[str, str, int]]:
    return set(zip(table["generator"], table["split"], table["label"].tolist(), strict=True))


def _empty_groups(table: pd.DataFrame, only: set[tuple[str, str, int]] | None) -> list[Problem]:
    """Empty groups: every split needs fakes of every generator, and real images for them.

    `only` restricts the result to these groups.
    """
    present = _groups(table)
    groups = present | (only or set())
    generators = {generator for generator, _, label in groups if label == FAKE}
    if SHARED_REAL in generators:
        return [Problem(SHARED_REAL, "a generator named 'real'", "rename its folder; the name means real images")]
    if not generators and only is None:
        return [Problem(".", "no fake images", "give a folder that holds fakes of at least one generator")]
    with_reals = {generator for generator, _, label in groups if label == REAL}
    needed = {(generator, split, FAKE) for generator in generators for split in SPLITS}
    needed |= {(name if name in with_reals else SHARED_REAL, split, REAL) for name, split, _ in needed}
    if only is not None:
        needed &= only
    remedy = "add usable images for it (or take another seed, if the splits are random)"
    return [
        Problem(generator, "a split without images", remedy, f"{split}, {'fake' if label == FAKE else 'real'}")
        for generator, split, label in sorted(needed - present)
    ]


def _probe_all(
    table: pd.DataFrame, root: Path, cache: Path, progress: Callable[[int, int], None] | None, measured_per_group: int
) -> tuple[dict[str, ImageFacts], list[Problem]]:
    """Facts about every good file, and a problem for every bad file; opens only files that changed.

    Photographs of which all files are new are measured on the way, if `measured_per_group` is not 0.
    """
    files = sorted({*table["path"], *table["mask"].dropna()})
    key = hashlib.sha256(os.path.realpath(root).encode()).hexdigest()[:16]
    cache_file = cache / "probes" / f"{key}-v{_PROBE_VERSION}.parquet"
    stamps: dict[str, tuple[int, int]] = {}
    for file in files:
        with suppress(OSError):  # `probe` says why
            stat = (root / file).stat()
            stamps[file] = (stat.st_size, stat.st_mtime_ns)
    cached = _read_probes(cache_file)
    facts = {file: cached[file][1] for file, stamp in stamps.items() if file in cached and cached[file][0] == stamp}
    changed = [file for file in files if file not in facts]
    groups = photographs(table, measured_per_group) if measured_per_group and changed else []
    whole = [group for group in groups if not any(file in facts for shot in group for file in shot.files)]
    together = {file for group in whole for shot in group for file in shot.files}
    items: list[str | list[Shot]] = [*whole, *(file for file in changed if file not in together)]

    def read_item(item: str | list[Shot]) -> tuple[dict[str, ImageFacts | Problem], dict[MeasuredKey, Row]]:
        found: dict[str, ImageFacts | Problem] = {}

        def read_file(file: str) -> tuple[ImageFacts, Image.Image] | None:
            try:
                opened = read(root / file)
            except BadImage as error:
                found[file] = Problem(file, error.what, error.remedy, error.detail, skippable=True)
                return None
            found[file] = opened[0]
            return opened

        if isinstance(item, str):
            read_file(item)
            return found, {}
        return found, measure_photograph(item, read_file)

    problems: list[Problem] = []
    fresh: dict[str, ImageFacts] = {}
    measured: dict[MeasuredKey, Row] = {}
    done = 0
    try:
        with closing(parallel_map(read_item, items, workers=None, ahead=256)) as results:
            for found, rows in results:
                problems += [result for result in found.values() if isinstance(result, Problem)]
                fresh |= {file: result for file, result in found.items() if isinstance(result, ImageFacts)}
                measured |= rows
                done += len(found)
                if progress is not None:
                    progress(done, len(changed))
    finally:  # an interrupted build keeps the facts so far
        if fresh:
            _add_probes(cache_file, {file: (stamps[file], fact) for file, fact in fresh.items() if file in stamps})
        add_measured(root, cache, measured)
    return facts | fresh, problems


_Probes = dict[str, tuple[tuple[int, int], ImageFacts]]  # path -> ((size, mtime_ns), facts)


def _read_probes(cache_file: Path) -> _Probes:
    try:
        rows = pd.read_parquet(cache_file).itertuples(index=False, name=None)
        return {path: ((size, mtime), ImageFacts(*facts)) for path, size, mtime, *facts in rows}
    except FileNotFoundError:
        return {}
    except Exception as error:  # an unreadable cache costs only time
        logger.warning("%s cannot be read (%s); every file is opened again", cache_file, error)
        return {}


def _add_probes(cache_file: Path, fresh: _Probes) -> None:
    cache_file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{cache_file}.lock"):
        probes = _read_probes(cache_file) | fresh
        rows: list[tuple[Any, ...]] = [(path, *stamp, *astuple(facts)) for path, (stamp, facts) in probes.items()]
        names = ["path", "size", "mtime_ns", *(field.name for field in fields(ImageFacts))]
        with _replacing(cache_file) as temporary:
            pd.DataFrame(rows, columns=names).to_parquet(temporary, index=False)


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path`, which replaces `path` if the block succeeds and is removed otherwise."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
