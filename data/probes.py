"""Facts about the files of a data set, kept on disk: a file is opened once, and again only if its size or time changes.

A first reading of many files uses processes, and keeps what it has every `SAVED_EVERY` files: a reading that is killed
goes on from there.
"""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import astuple, fields
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from data.images import BadImage, ImageFacts, read
from data.kept import Kept
from data.parallel import parallel_map
from data.photographs import Key, Row, Shot, add_measured, measure_photograph, photographs
from data.roots import Roots
from data.sources.base import Problem

PROBE_VERSION = 3  # increase it when `data.images` refuses a file that it accepted, or returns other facts than before
SAVED_EVERY = 50_000  # files
PROCESSES_FROM = 5_000  # files; starting processes takes a second or two, in which threads read as many
_CHUNK = 64  # files that a process is given at once
_FIELDS = tuple(field.name for field in fields(ImageFacts))
_SCHEMA = pa.schema(
    [("path", pa.large_string()), ("size", pa.int64()), ("mtime_ns", pa.int64())]
    + [(name, pa.int64() if name in ("width", "height", "num_bytes") else pa.large_string()) for name in _FIELDS]
)

Progress = Callable[[int, int], None]
Item = str | list[Shot]  # a file, or a photograph of which all files are new
Result = tuple[list[tuple[Any, ...]], list[Problem], dict[Key, Row]]  # rows of path and facts


class Stamped(NamedTuple):
    """Files, and by what a change of them is noticed.

    Attributes:
        paths: large_string (N,), each once, as in a manifest.
        size, mtime_ns: int64 (N,); -1 for a file that is not there.
    """

    paths: pa.Array
    size: np.ndarray
    mtime_ns: np.ndarray


class Facts(NamedTuple):
    """Facts about good files.

    Attributes:
        paths: large_string (N,), the files that were asked about.
        row: int64 (N,), the row of a file in `table`; -1 for a bad file.
        table: columns as `ImageFacts`.
    """

    paths: pa.Array
    row: np.ndarray
    table: pa.Table

    def rows_of(self, paths: pd.Series[str]) -> np.ndarray:
        """The rows of `table` of these files, int64; -1 for a bad file and for no file."""
        number = pc.index_in(pa.array(paths, pa.large_string()), value_set=self.paths)
        number = number.fill_null(-1).to_numpy(zero_copy_only=False)
        return np.where(number < 0, -1, self.row[number])

    def column(self, name: str, rows: np.ndarray) -> pa.ChunkedArray:
        """A fact of these rows; null for -1."""
        return self.table[name].take(pa.array(rows, mask=rows < 0))


def stamped(table: pd.DataFrame, roots: Roots) -> Stamped:
    """The files of a table of images, masks and originals too, with their sizes and times."""
    names = [name for name in ("path", "mask", "original") if name in table.columns]
    columns = [pa.array(table[name], pa.large_string()).drop_null() for name in names]
    paths = pc.unique(pa.chunked_array(columns, pa.large_string()))
    size, mtime_ns = array("q"), array("q")
    main, named = f"{roots.main}{os.sep}", bool(roots.named)
    for start in range(0, len(paths), SAVED_EVERY):  # in pieces, to hold few Python strings at once
        for path in paths.slice(start, SAVED_EVERY).to_pylist():
            try:
                stat = os.stat(roots.file(path) if named and ":" in path else main + path)  # noqa: PTH116  # pathlib costs as much again
            except OSError:  # `read` says why
                size.append(-1)
                mtime_ns.append(-1)
            else:
                size.append(stat.st_size)
                mtime_ns.append(stat.st_mtime_ns)
    return Stamped(paths, np.array(size, np.int64), np.array(mtime_ns, np.int64))


def probe_all(
    files: Stamped,
    table: pd.DataFrame,
    roots: Roots,
    cache: Path,
    progress: Progress | None,
    measured_per_group: int,
) -> tuple[Facts, list[Problem]]:
    """Facts about every good file, and a problem for every bad file; opens only files that changed.

    Photographs of which all files are new are measured on the way, if `measured_per_group` is not 0.
    """
    kept = _kept(roots.main, cache)
    known = kept.read()
    row = pc.index_in(files.paths, value_set=known["path"]).fill_null(-1).to_numpy(zero_copy_only=False).astype(int)
    for name, now in (("size", files.size), ("mtime_ns", files.mtime_ns)):
        if len(known):
            row[(known[name].to_numpy()[row] != now) | (files.size < 0)] = -1
    changed = files.paths.filter(pa.array(row < 0))
    known = known.select(_FIELDS)
    if not len(changed):
        return Facts(files.paths, row, known), []
    fresh, problems = _read_changed(changed, files, table, roots, cache, kept, progress, measured_per_group)
    number = pc.index_in(files.paths, value_set=fresh["path"]).fill_null(-1).to_numpy(zero_copy_only=False)
    row = np.where(number >= 0, number + len(known), row)
    return Facts(files.paths, row, pa.concat_tables([known, fresh.select(_FIELDS)])), problems


def _read_changed(
    changed: pa.Array,
    files: Stamped,
    table: pd.DataFrame,
    roots: Roots,
    cache: Path,
    kept: Kept,
    progress: Progress | None,
    measured_per_group: int,
) -> tuple[pa.Table, list[Problem]]:
    """Open files: the facts about the good ones, columns `_SCHEMA`, and a problem for each bad one."""
    whole: list[list[Shot]] = []
    if measured_per_group:
        new = set(changed.to_pylist())
        groups = photographs(table, measured_per_group)
        whole = [group for group in groups if all(file in new for shot in group for file in shot.files)]
        del new, groups
    together = {file for group in whole for shot in group for file in shot.files}
    items: Iterator[Item] = chain[Item](whole, (file for file in _sorted(changed) if file not in together))
    problems: list[Problem] = []
    fresh = _Fresh(files, kept)
    measured: dict[Key, Row] = {}
    done = 0
    try:
        with closing(_results(items, len(changed), roots)) as results:
            for found, bad, rows in results:
                problems += bad
                fresh.add(found)
                measured |= rows
                if len(measured) >= SAVED_EVERY:
                    add_measured(roots.main, cache, measured, merge=False)
                    measured = {}
                done += len(found) + len(bad)
                if progress is not None:
                    progress(done, len(changed))
    finally:  # an interrupted build keeps the facts so far
        fresh.save()
        add_measured(roots.main, cache, measured)
    kept.merge()
    return fresh.table(), problems


def _sorted(paths: pa.Array) -> Iterator[str]:
    """The paths in order; few of them are Python's texts at once."""
    order = pc.sort_indices(paths)
    for start in range(0, len(order), SAVED_EVERY):
        yield from paths.take(order.slice(start, SAVED_EVERY)).to_pylist()


def _results(items: Iterable[Item], num_files: int, roots: Roots) -> Generator[Result, None, None]:
    """What is found in each item, in order: by threads of this process, or by processes where there are many files."""
    if num_files < PROCESSES_FROM:
        return parallel_map(partial(_read_item, roots), items, workers=None, ahead=256)
    rest = iter(items)
    chunks = iter(lambda: list(islice(rest, _CHUNK)), [])
    return parallel_map(partial(_read_items, roots), chunks, workers=None, ahead=32, processes=True)


def _read_items(roots: Roots, items: Iterable[Item]) -> Result:
    found: list[tuple[Any, ...]] = []
    problems: list[Problem] = []
    measured: dict[Key, Row] = {}
    for item in items:
        rows, bad, numbers = _read_item(roots, item)
        found += rows
        problems += bad
        measured |= numbers
    return found, problems, measured


def _read_item(roots: Roots, item: Item) -> Result:
    found: dict[str, tuple[Any, ...]] = {}
    problems: dict[str, Problem] = {}

    def read_file(file: str) -> tuple[ImageFacts, Image.Image] | None:
        try:
            opened = read(roots.file(file))
        except BadImage as error:
            problems[file] = _problem(file, error)
            return None
        found[file] = (file, *astuple(opened[0]))
        return opened

    measured: dict[Key, Row] = {}
    if isinstance(item, str):
        read_file(item)
    else:
        measured = measure_photograph(item, read_file)
    return list(found.values()), list(problems.values()), measured


def problem_of(roots: Roots, file: str) -> Problem | None:
    """What is wrong with a file as it is now; None if it is a good picture."""
    try:
        read(roots.file(file))
    except BadImage as error:
        return _problem(file, error)
    return None


def _problem(file: str, error: BadImage) -> Problem:
    return Problem(file, error.what, error.remedy, error.detail, skippable=True)


class _Fresh:
    """Facts of files that were just read. They are kept on disk every `SAVED_EVERY` files."""

    def __init__(self, files: Stamped, kept: Kept) -> None:
        self._files, self._kept = files, kept
        self._rows: list[tuple[Any, ...]] = []
        self._tables: list[pa.Table] = []

    def add(self, rows: list[tuple[Any, ...]]) -> None:
        """Add rows of path and facts."""
        self._rows += rows
        if len(self._rows) >= SAVED_EVERY:
            self.save()

    def save(self) -> None:
        """Keep on disk what is not there yet."""
        if not self._rows:
            return
        paths, *facts = (list(column) for column in zip(*self._rows, strict=True))
        number = pc.index_in(pa.array(paths, pa.large_string()), value_set=self._files.paths).to_numpy()
        columns = [paths, self._files.size[number], self._files.mtime_ns[number], *facts]
        table = pa.table(columns, schema=_SCHEMA)
        self._tables.append(table)
        self._rows = []
        self._kept.add(table.filter(pc.field("size") >= 0))

    def table(self) -> pa.Table:
        """All facts that were added and saved."""
        return pa.concat_tables(self._tables) if self._tables else _SCHEMA.empty_table()


def _kept(root: Path, cache: Path) -> Kept:
    """The facts of a data folder on disk."""
    key = hashlib.sha256(os.path.realpath(root).encode()).hexdigest()[:16]
    file = cache / "probes" / f"{key}-v{PROBE_VERSION}.parquet"
    return Kept(file, _SCHEMA, ["path"], lost="its files are opened again")
