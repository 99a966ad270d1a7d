"""The register of corpora. A new file in this package is a new corpus; nothing else has to be touched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from data.register import Register
from data.sources.base import Scan


class Source(Protocol):
    """Reads a folder's layout; opens no picture, raises nothing for what it finds and writes it into the result."""

    def __call__(self, root: Path, *, seed: int = 0) -> Scan:
        """`seed` decides the splits where the folder has none."""
        ...


_S = TypeVar("_S", bound=Source)
_sources: Register[Source] = Register("source", __name__)


def register_source(name: str) -> Callable[[_S], _S]:
    """Register the decorated `scan` under `name`; its docstring is shown to a user whose folder does not fit.

    Raises:
        ValueError: the name is taken.
    """

    def decorate(scan: _S) -> _S:
        _sources.add(name, scan)
        return scan

    return decorate


def list_sources() -> list[str]:
    """Names of all registered corpora, in alphabetical order."""
    return _sources.names()


def get_source(name: str) -> Source:
    """Look a corpus up. Raises `KeyError` that lists what exists."""
    return _sources.get(name)
