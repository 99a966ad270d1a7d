"""Where the files of a data set are: below its folder, or below further folders that have a name."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

ROOT_NAME = "[A-Za-z][A-Za-z0-9_-]+"  # of a further folder: two letters at least, so that C: is a drive


@dataclass(frozen=True)
class Roots:
    """The folders of a data set.

    Attributes:
        main: the data folder; paths below it are kept relative to it.
        named: name -> a further folder; paths below it are kept as `name:path`.
    """

    main: Path
    named: Mapping[str, Path] = field(default_factory=dict)
    _parents: dict[Path, bool] = field(default_factory=dict, init=False, repr=False, compare=False)

    def stored(self, path: Path) -> str:
        """A path as manifests keep it.

        Raises:
            ValueError: the path is outside of the folders, or its name reads as a path below a further folder.
        """
        for name, folder in (("", self.main), *self.named.items()):
            if path.is_relative_to(folder):
                below = path.relative_to(folder).as_posix()
                if not name and (first := below.partition(":"))[1] and first[0] in self.named:
                    raise ValueError(f"{below} lies below {self.main}, and reads as a path below {first[0]}")
                return f"{name}:{below}" if name else below
        raise ValueError(f"{path} is outside of {', '.join(map(str, (self.main, *self.named.values())))}")

    def file(self, stored: str) -> Path:
        """The inverse of `stored`."""
        name, colon, below = stored.partition(":")
        return self.named[name] / below if colon and name in self.named else self.main / stored

    def holds(self, path: Path) -> bool:
        """Whether a path without ".." leads to a place below one of the folders, through whatever links."""
        if path.is_symlink():
            return self._is_inside(os.path.realpath(path))
        parent = path.parent
        if parent not in self._parents:
            self._parents[parent] = self._is_inside(os.path.realpath(parent))
        return self._parents[parent] or self._is_inside(os.path.realpath(path))

    def _is_inside(self, real: str) -> bool:
        return any(Path(real).is_relative_to(folder) for folder in self._real)

    @cached_property
    def _real(self) -> list[str]:
        return [os.path.realpath(folder) for folder in (self.main, *self.named.values())]


def parse_roots(words: Iterable[str]) -> dict[str, Path]:
    """Name -> folder, from words NAME=DIR.

    Raises:
        ValueError: a word has another form, a name is given twice, or a folder does not exist; with the remedy.
    """
    named: dict[str, Path] = {}
    for word in words:
        name, equals, folder = word.partition("=")
        if not equals or not folder or not re.fullmatch(ROOT_NAME, name):
            raise ValueError(
                "--root wants NAME=DIR, such as coco=/data/coco, with a name of two or more letters, digits, _ and -; "
                f"got {word!r}"
            )
        if name in named:
            raise ValueError(f"--root {name}=… is given twice; give each folder a name of its own")
        if not Path(folder).is_dir():
            raise ValueError(f"--root {word}: {folder} does not exist or is not a folder; check the path")
        named[name] = Path(folder).resolve()
    return named
