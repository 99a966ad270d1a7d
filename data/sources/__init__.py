"""The register of corpora. A new file in this package is a new corpus; nothing else has to be touched."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from data.sources.base import Scan


class Source(Protocol):
    """Reads a folder's layout; opens no picture, raises nothing for what it finds and writes it into the result."""

    def __call__(self, root: Path, *, seed: int = 0) -> Scan:
        """`seed` decides the splits where the folder has none."""
        ...


_S = TypeVar("_S", bound=Source)
_sources: dict[str, Source] = {}


def register_source(name: str) -> Callable[[_S], _S]:
    """Register the decorated `scan` under `name`; its docstring is shown to a user whose folder does not fit.

    Raises:
        ValueError: the name is taken.
    """

    def decorate(scan: _S) -> _S:
        if name in _sources:
            raise ValueError(f"a source named {name!r} is registered already")
        _sources[name] = scan
        return scan

    return decorate


def _load_all() -> None:
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")


def list_sources() -> list[str]:
    """Names of all registered corpora, in alphabetical order."""
    _load_all()
    return sorted(_sources)


def get_source(name: str) -> Source:
    """Look a corpus up. Raises `KeyError` that lists what exists."""
    _load_all()
    if name not in _sources:
        raise KeyError(f"no source named {name!r}; there are: {', '.join(sorted(_sources))}")
    return _sources[name]
