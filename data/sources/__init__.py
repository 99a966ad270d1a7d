"""The register of corpora: how a folder is laid out, and what is known of it. A new file here is a new corpus."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from data.register import Register

if TYPE_CHECKING:
    from data.sources.base import Scan

Progress = Callable[[int, int], None]


class ScanFunction(Protocol):
    """Reads a folder's layout; opens no picture, raises nothing for what it finds and writes it into the result."""

    def __call__(self, root: Path, *, seed: int = 0) -> Scan:
        """`seed` decides the splits where the folder has none."""
        ...


@dataclass(frozen=True)
class Drawn:
    """A corpus that the software makes itself where no folder is given.

    Attributes:
        folder: the grid's cache -> where the corpus lies once it is made.
        make: makes it there unless it is there already, and returns the folder; progress gets (done, total).
    """

    folder: Callable[[Path], Path]
    make: Callable[[Path, Progress], Path]


@dataclass(frozen=True)
class Published:
    """Published values of a corpus, which a report lays beside ours.

    Attributes:
        paper: where they are from, for texts.
        detection: CSV with method, tested_on, trained_on, accuracy (0–1).
        attribution: CSV with method, class ("overall", "real", then the generators), accuracy (0–1).
        localisation: CSV with tested_on, trained_on, iou_percent, of a localiser that was trained with masks; None.
        localiser: which localiser that is, for texts.
        setup: method -> setting -> the values that mean the published set-up. A setting that was not published is not
            there.
        num_test_images: per class.
        num_images: per class, of training and testing.
    """

    paper: str
    detection: Path
    attribution: Path
    localisation: Path | None = None
    localiser: str = ""
    setup: Mapping[str, Mapping[str, tuple[Any, ...]]] = field(default_factory=dict)
    num_test_images: int = 0
    num_images: int = 0


@dataclass(frozen=True)
class Source:
    """One corpus.

    Attributes:
        name: as on the command line.
        scan: lists its images; the docstring is shown to a user whose folder does not fit.
        order: its generators in the order of tables; others follow in alphabetical order.
        caveats: generator -> what a reader of results on its fakes should know; "": of any results on this corpus.
        published: values to lay beside ours.
        drawn: how it is made where no folder is given; None: it needs a folder.
    """

    name: str
    scan: ScanFunction
    order: Sequence[str] = ()
    caveats: Mapping[str, str] = field(default_factory=dict)
    published: Published | None = None
    drawn: Drawn | None = None

    def ordered(self, generators: Sequence[str] | set[str]) -> list[str]:
        """Generators in the order of tables."""
        first = [name for name in self.order if name in generators]
        return first + sorted(set(generators) - set(first))


_sources: Register[Source] = Register("corpus", __name__)


def register_source(
    name: str,
    *,
    order: Sequence[str] = (),
    caveats: Mapping[str, str] | None = None,
    published: Published | None = None,
    drawn: Drawn | None = None,
) -> Callable[[ScanFunction], ScanFunction]:
    """Register the decorated `scan` under `name`; the other arguments are the fields of `Source`.

    Raises:
        ValueError: the name is taken.
    """

    def decorate(scan: ScanFunction) -> ScanFunction:
        _sources.add(name, Source(name, scan, tuple(order), dict(caveats or {}), published, drawn))
        return scan

    return decorate


def list_sources() -> list[str]:
    """Names of all registered corpora, in alphabetical order."""
    return _sources.names()


def get_source(name: str) -> Source:
    """Look a corpus up. Raises `KeyError` that lists what exists."""
    return _sources.get(name)
