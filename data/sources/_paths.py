"""Paths that a list of images names -> files."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from data.roots import Roots

_SAMPLE = 200  # rows that say how many leading folders are not here


@dataclass(frozen=True)
class Found:
    """What became of one path.

    Attributes:
        path: the file; None: it is not there, or must not be read.
        key: the path as manifests keep it, also of a file that is not there: equal keys are one file.
        refused: (problem, remedy, detail) of a file that must not be read; None of one that is just not there.
    """

    path: Path | None
    key: str
    refused: tuple[str, str, str] | None = None


class ListedPaths:
    """Finds the files of one list.

    All paths of a list are read in the same way, so that no other file takes the place of a missing one: relative to
    the list, or else relative to the data folder; and all without the same number of leading folders.

    Attributes:
        num_shortened: how many paths were found without their first folders.
        example: the first folders that the first of these paths lost, and that path.
    """

    def __init__(self, roots: Roots, file: Path, texts: Sequence[str]) -> None:
        """`texts` are the paths of all images of the list `file`."""
        self._roots = roots
        self.num_shortened, self.example = 0, ("", "")
        sample = texts[:: max(1, len(texts) // _SAMPLE)]
        self._base, self._number = self._choose(file, [_parts(text) for text in sample if not self._is_placed(text)])

    def find(self, text: str) -> Found:
        """The file of a path of the list."""
        value = slashes(text)
        if ".." in PurePosixPath(value).parts:
            remedy = "write paths below the data folder, or name the folder: --root NAME=DIR"
            return Found(None, value, ("a path with ..", remedy, ""))
        name, colon, below = value.partition(":")
        if colon and name in self._roots.named:
            path = self._roots.named[name] / below.lstrip("/")
            return self._inside(path) if is_there(path) else Found(None, self._roots.stored(path))
        if self._is_placed(text):
            return self._inside(Path(value))
        parts = _parts(text)
        if self._number and len(parts) < self._number + 2:
            return Found(None, value)
        path = self._base.joinpath(*parts[self._number :])
        if is_there(path):
            if self._number:
                self.num_shortened += 1
                self.example = self.example if self.example[0] else ("/".join(parts[: self._number]), text)
            return self._inside(path)
        if value.startswith("/") and is_there(Path(value)):
            return self._inside(Path(value))
        return Found(None, self._roots.stored(path) if self._is_below(path) and ":" not in value else value)

    def _choose(self, file: Path, sample: Sequence[Sequence[str]]) -> tuple[Path, int]:
        """(folder, number of leading folders to drop): the longest ends of paths that any file has."""
        folders = dict.fromkeys([file.parent, self._roots.main])
        for number in range(max([len(parts) - 1 for parts in sample], default=0) or 1):
            long_enough = [parts[number:] for parts in sample if not number or len(parts) > number + 1]
            hits = {f: sum(is_there(f.joinpath(*parts)) for parts in long_enough) for f in folders}
            best = max(hits, key=lambda folder: hits[folder])  # the first of equal ones
            if hits[best]:
                return best, number
        return file.parent, 0

    def _is_placed(self, text: str) -> bool:
        """Whether a path says by itself which file of the folders it means."""
        value = slashes(text)
        name, colon, _ = value.partition(":")
        return bool(colon and name in self._roots.named) or (
            value.startswith("/") and self._is_below(Path(value)) and is_there(Path(value))
        )

    def _is_below(self, path: Path) -> bool:
        return any(path.is_relative_to(folder) for folder in (self._roots.main, *self._roots.named.values()))

    def _inside(self, path: Path) -> Found:
        if not (self._is_below(path) and self._roots.holds(path)):
            remedy = "copy it into the data folder, or name its folder: --root NAME=DIR"
            detail = f"leads to {os.path.realpath(path)}"
            return Found(None, path.as_posix(), ("a file outside of the data folder", remedy, detail))
        try:
            return Found(path, self._roots.stored(path))
        except ValueError as error:
            return Found(None, path.as_posix(), ("a name that reads as a further folder", "rename it", str(error)))


def is_there(path: Path) -> bool:
    """Whether a file is there. A text that no file system takes as a path, such as one too long, names none."""
    return os.path.isfile(path)  # noqa: PTH113  # `Path.is_file` raises errors for such texts


def slashes(text: str) -> str:
    """A path with / in place of backslashes."""
    return text.strip().replace("\\", "/")


def _parts(text: str) -> tuple[str, ...]:
    """The folders and the name of a path, without the root or the drive."""
    parts = PurePosixPath(re.sub(r"^[A-Za-z]:", "", slashes(text))).parts
    return parts[1:] if parts[:1] == ("/",) else parts
