"""The register of corpora: the layout of a folder, and facts about its data. A new file here is a new corpus."""

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
    """Lists the images of a folder. It opens no picture and raises no errors: problems are part of the result."""

    def __call__(self, root: Path, *, seed: int = 0) -> Scan:
        """`seed` determines the splits if the folder has none. Further arguments: see `Source.options`."""
        ...


@dataclass(frozen=True)
class Drawn:
    """A corpus that the software makes if no folder is given.

    Attributes:
        folder: the grid's cache -> the corpus' folder.
        make: makes the corpus unless it exists, and returns its folder; progress gets (done, total).
        is_one: whether a folder holds such a corpus, wherever it is now.
        generators: the generators that the corpus will have.
        num_images: split -> the images that each class of the corpus will have.
        size: (width, height) of every picture.
    """

    folder: Callable[[Path], Path]
    make: Callable[[Path, Progress], Path]
    is_one: Callable[[Path], bool]
    generators: Callable[[], list[str]]
    num_images: Callable[[], Mapping[str, int]]
    size: Callable[[], tuple[int, int]]


@dataclass(frozen=True)
class Published:
    """Published values of a corpus, which a report shows beside ours.

    Attributes:
        paper: source of the values, for texts.
        detection: CSV with method, tested_on, trained_on, accuracy (0–1).
        attribution: CSV with method, class ("overall", "real", then the generators), accuracy (0–1).
        localisation: CSV with tested_on, trained_on, iou_percent, of a localiser trained with masks; None: there is
            none.
        localiser: name of that localiser, for texts.
        setup: method -> setting -> the values that equal the published set-up. Settings that were not published are
            absent.
        num_test_images: number of test images per class.
        num_images: class ("real" or a generator) -> split -> number of images, as far as it is known.
    """

    paper: str
    detection: Path
    attribution: Path
    localisation: Path | None = None
    localiser: str = ""
    setup: Mapping[str, Mapping[str, tuple[Any, ...]]] = field(default_factory=dict)
    num_test_images: int = 0
    num_images: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """One corpus.

    Attributes:
        name: as on the command line.
        scan: lists the images; its docstring is shown to a user whose folder has another layout.
        order: generators in the order of tables; others follow in alphabetical order.
        caveats: generator -> what a reader of results on its fakes should know; "": the same for all results.
        published: published values; None: there are none.
        drawn: how the software makes the corpus if no folder is given; None: it needs a folder.
        looks_like: whether a folder has this layout, by a look at names of folders; None: that cannot be told.
        options: names of further arguments that `scan` takes, such as "further".
        is_layout: data of anybody may be laid out like this; the name says nothing about whose they are.
        yields_to: corpora that a folder is read as, unless a user says otherwise, if it looks like both.
        is_packed: whether the images of a folder lie in Parquet or tar files, which `data.unpack.unpack` turns into
            files before `scan` is called; None: never.
    """

    name: str
    scan: ScanFunction
    order: Sequence[str] = ()
    caveats: Mapping[str, str] = field(default_factory=dict)
    published: Published | None = None
    drawn: Drawn | None = None
    looks_like: Callable[[Path], bool] | None = None
    options: Sequence[str] = ()
    yields_to: Sequence[str] = ()
    is_packed: Callable[[Path], bool] | None = None
    is_layout: bool = False

    def ordered(self, generators: Sequence[str] | set[str]) -> list[str]:
        """Generators in the order of tables."""
        first = [name for name in self.order if name in generators]
        return first + sorted(set(generators) - set(first))


_sources: Register[Source] = Register("corpus", __name__)


list_sources, get_source = _sources.names, _sources.get


def recognise(root: Path) -> list[str]:
    """Names of the corpora whose layout the folder has, as far as that can be told."""
    found = ((name, get_source(name).looks_like) for name in list_sources())
    return [name for name, looks_like in found if looks_like is not None and looks_like(root)]


def preferred(root: Path) -> list[str]:
    """As `recognise`, without the corpora that yield to another one of them (`Source.yields_to`)."""
    names = recognise(root)
    return [name for name in names if not set(get_source(name).yields_to) & set(names)]


def register_source(name: str, **facts: Any) -> Callable[[ScanFunction], ScanFunction]:
    """Register the decorated `scan` under `name`; `facts` are the other fields of `Source`.

    Raises:
        ValueError: the name is taken.
    """

    def decorate(scan: ScanFunction) -> ScanFunction:
        _sources.add(name, Source(name, scan, **facts))
        return scan

    return decorate
