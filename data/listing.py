"""The images that a corpus lists, as a table."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from data.roots import Roots
from data.sources.base import WHITE_FAKE, Entries, Entry, FolderEntries

_TEXT = pa.large_string()
_COLUMNS = ("path", "label", "generator", "source_id", "split", "mask", "mask_white", "original")


def listed(entries: Entries, roots: Roots, *, names_per_split: bool = False) -> pd.DataFrame:
    """One row per image: columns path, label, generator, source_id, split and mask as in a manifest.

    Where a mask of the data set is white for fake there is a column mask_white, where a corpus states originals a
    column original.

    Args:
        entries: the images. They are removed from it on the way, so that a million images are not held twice.
        roots: the folders of the data set.
        names_per_split: put the split before the source id.
    """
    stored = _Stored(roots)
    chunks: dict[str, list[pa.Array]] = {name: [] for name in _COLUMNS}
    while entries.parts:
        part = entries.parts.pop(0)
        found = _of_entries(part, stored) if isinstance(part, list) else _of_folder(part, stored)
        del part
        for name, column in zip(_COLUMNS, found, strict=True):
            chunks[name].append(column)
    types = dict.fromkeys(_COLUMNS, _TEXT) | {"label": pa.int64()}
    columns = {name: pa.chunked_array(chunks.pop(name), types[name]) for name in _COLUMNS}
    if not pc.any(pc.equal(columns["mask_white"], WHITE_FAKE)).as_py():
        del columns["mask_white"]
    if columns["original"].null_count == len(columns["original"]):
        del columns["original"]
    if names_per_split:
        parts = columns["split"], columns["source_id"]
        columns["source_id"] = pc.binary_join_element_wise(*parts, pa.scalar("/", _TEXT))
    for name in ("generator", "source_id"):
        columns[name] = _one_spelling(columns[name])
    table = pa.table(columns).to_pandas()
    kinds = {name: "string" if name in ("mask", "mask_white", "original") else "str" for name in table.columns}
    return table.astype(kinds | {"label": "int64"})


class _Stored:
    """From files to the texts that a manifest keeps; the text of a folder is found once."""

    def __init__(self, roots: Roots) -> None:
        self._roots = roots
        self._folders: dict[str, str] = {}

    def folder(self, folder: Path) -> str:
        """What stands before the names of the files in a folder; "" for the data folder itself."""
        text = str(folder)
        if text not in self._folders:
            stored = self._roots.stored(folder)
            is_root = stored == "." or stored.endswith(":.")
            self._folders[text] = stored[:-1] if is_root else f"{stored}/"
        return self._folders[text]

    def names(self, folder: Path, names: list[str]) -> list[str]:
        """The texts of files in one folder."""
        before = self.folder(folder)
        if before:
            return [before + name for name in names]
        return [self._roots.stored(folder / name) for name in names]  # a name may read as a further folder's

    def file(self, path: Path) -> str:
        """The text of a file."""
        text = str(path)
        folder, _, name = text.rpartition(os.sep)
        if before := self._folders.get(folder):
            return before + name
        stored = self._roots.stored(path)
        if stored.endswith(f"/{name}"):
            self._folders[folder] = stored[: -len(name)]
        return stored


def _of_folder(part: FolderEntries, stored: _Stored) -> Iterator[pa.Array]:
    """The columns `_COLUMNS` of a folder."""
    count = len(part.names)
    yield pa.array(stored.names(part.folder, part.names), _TEXT)
    yield _all(part.label, count)
    yield _all(part.generator, count)
    yield pa.array(part.source_ids, _TEXT)
    yield _all(part.splits, count) if isinstance(part.splits, str) else pa.array(part.splits, _TEXT)
    if part.masks is None:
        yield pa.nulls(count, _TEXT)
        yield pa.nulls(count, _TEXT)
    else:
        masks = pa.array(part.mask_names, _TEXT)
        names = iter(stored.names(part.masks, masks.drop_null().to_pylist()))
        yield pa.array([name and next(names) for name in part.mask_names], _TEXT)
        yield pc.if_else(masks.is_valid(), pa.scalar(part.mask_white, _TEXT), pa.scalar(None, _TEXT))
    yield pa.nulls(count, _TEXT)


def _of_entries(part: list[Entry], stored: _Stored) -> Iterator[pa.Array]:
    """The columns `_COLUMNS` of single images."""
    file = stored.file
    yield pa.array([file(entry.path) for entry in part], _TEXT)
    yield pa.array([entry.label for entry in part], pa.int64())
    for name in ("generator", "source_id", "split"):
        yield pa.array([getattr(entry, name) for entry in part], _TEXT)
    yield pa.array([file(entry.mask) if entry.mask else None for entry in part], _TEXT)
    yield pa.array([entry.mask_white if entry.mask else None for entry in part], _TEXT)
    yield pa.array([file(entry.original) if entry.original else None for entry in part], _TEXT)


def _all(value: str | int, count: int) -> pa.Array:
    return pa.array(repeat(value, count), pa.int64() if isinstance(value, int) else _TEXT, size=count)


def _one_spelling(names: pa.ChunkedArray) -> pa.ChunkedArray:
    """Composed letters (NFC) where a name is written in two ways; other names stay, so that digests do not change."""
    if pc.all(pc.string_is_ascii(names)).as_py():
        return names
    series = pd.Series(names.to_pandas())
    composed = series.map(lambda name: unicodedata.normalize("NFC", name))
    one = series.where(series.groupby(composed).transform("nunique") == 1, composed)
    return pa.chunked_array([pa.array(one, _TEXT)])
