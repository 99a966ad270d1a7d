"""The sections of a report, one file per section: a function that takes the `Report` and yields blocks of the page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.cells import cell_table
from analysis.controls import Beside, beside_references, methods_alone
from analysis.page import Block, Folder, Text
from analysis.store import Store
from analysis.variants import origin_of, with_origin
from data.conditions import CLEAN
from data.manifest import Manifest
from data.register import Register
from grid.plan import FINISHED
from models.detector import DETECTION_CLASSES
from models.metrics import AT_VALIDATION, is_at_half, metrics_for, reported
from models.registry import gives_log_odds

AUDIT = "Audit"  # title of the section that has every finding in full


@dataclass(frozen=True)
class Options:
    """Options of a report.

    Attributes:
        compare: two variants, the second to be subtracted from the first; None: no comparison.
        transpose: swap rows and columns of the matrices: rows trained on, columns tested on.
        every_matrix: draw every matrix as a picture too, not only those that stand open.
        cam: draw and measure Grad-CAM maps, the one part that needs the images and runs models.
        images: the data folder; None: its path when the grid ran.
        cache: the grid's cache folder; None: the one beside a local store.
        cam_images: images per cell on which maps are measured.
        device: torch device string.
        weight_files: digest -> local file, for frozen encoders whose weights were a file.
        projection: "tsne" or "umap".
        command: the command line that makes this report, shown in it.
        log: keep the report in MLflow too, as an artifact of the grid's run.
        one_file: put the pictures into the page too.
        processes: processes that draw pictures; with 1, they are drawn in this one.
        keep: keep finished parts for the next report, and take unchanged ones from there (see `analysis.kept`).
    """

    compare: Sequence[str] | None = None
    transpose: bool = False
    every_matrix: bool = False
    cam: bool = True
    images: Path | None = None
    cache: Path | None = None
    cam_images: int = 16
    device: str = "cpu"
    weight_files: Mapping[str, Path] = field(default_factory=dict)
    projection: str = "tsne"
    command: str = ""
    log: bool = True
    one_file: bool = False
    processes: int = 1
    keep: bool = False


class Report:
    """What the parts of a report share.

    Attributes:
        store: the grid, without its controls and references.
        whole: the grid with them.
        folder: where pictures and tables are written.
        options: options of the report.
        say: called with each step, in words.
        problems: what went wrong so far; listed under "What this does not show".
        passing: how many of the problems may be gone the next time, so that their parts are not kept.
        runs: every trial (see `Store.runs`).
        results: every test value on clean pictures (see `Store.results`).
        ahead: name of a part -> what its `Part.ahead` has begun.
    """

    def __init__(
        self, store: Store, folder: Folder, options: Options, problems: list[Text], say: Callable[[str], None]
    ) -> None:
        self.whole, self.store = store, methods_alone(store)
        self.folder, self.options, self.say = folder, options, say
        folder.origins, folder.generators = self.origins, self.generators
        self.problems, self.passing = problems, len(problems)
        self.ahead: dict[str, Any] = {}
        self.runs, results = self.store.runs(), self.store.results()
        self.results = results[results["condition"] == CLEAN]

    @cached_property
    def metrics(self) -> list[str]:
        """Names of the detection metrics to show, in order."""
        names = [metric.name for metric in metrics_for(DETECTION_CLASSES)]
        return reported({*names, *(name + AT_VALIDATION for name in names)})

    @cached_property
    def cells(self) -> pd.DataFrame:
        """Every value on clean pictures, with its interval (see `cell_table`)."""
        return cell_table(self.store, metrics=self.metrics)

    @cached_property
    def beside(self) -> Beside:
        """Every cell of detection beside the references; empty on grids without references."""
        return beside_references(self.whole)

    @cached_property
    def manifest(self) -> Manifest:
        """Of the data set, whose pictures can be read. Raises `StoreError` as `analysis.cam.open_images` does."""
        from analysis.cam import open_images

        return open_images(self.store, root=self.options.images, cache=self.options.cache)

    @cached_property
    def generators(self) -> list[str]:
        """Every generator that a trial was trained or tested on, in the order of tables."""
        return self.store.generators

    def variants(self, task: str) -> list[str]:
        """Variants of a task, finished or not, in the order of the plan."""
        return list(dict.fromkeys(self.runs.loc[self.runs["task"] == task, "variant"]))

    def finished(self, task: str, variant: str | None = None) -> pd.DataFrame:
        """Finished runs of a task, or of one variant."""
        runs = self.runs[(self.runs["task"] == task) & (self.runs["state"] == FINISHED)]
        return runs if variant is None else runs[runs["variant"] == variant]

    def metrics_of(self, variant: str, metrics: Iterable[str]) -> list[str]:
        """Those of the metrics of real and fake that a variant can have: at p = 0.5 its score must be a log-odds."""
        log_odds = all(map(gives_log_odds, map(str, self.runs.loc[self.runs["variant"] == variant, "method"])))
        return [metric for metric in metrics if log_odds or not is_at_half(metric)]

    def labelled(self, variant: str) -> str:
        """A variant with its backbone and the origin of its weights: "clip_linear [ViT-L-14, openai]"."""
        return with_origin(variant, self.origins)

    @cached_property
    def origins(self) -> dict[str, str]:
        """Variant -> backbone and origin of its weights, of methods, controls and references."""
        own = self.store.runs()
        named = [(str(name), rows) for runs in (self.whole.runs(), own) for name, rows in runs.groupby("variant")]
        return {name: origin_of(rows) for name, rows in named}

    def weights(self, variant: str) -> list[str]:
        """Sources of a variant's pretrained weights, as its runs logged them."""
        notes = self.runs.loc[self.runs["variant"] == variant, "weights"]
        return [str(note) for note in dict.fromkeys(notes) if note not in ("", "none")]

    def audit(self, *, here: bool = False) -> Iterator[Block]:
        """A line on what the audits say of the data, to stand above a matrix; none if that is not known.

        Args:
            here: it stands in the section that has every finding, to which it else has a link.
        """
        if self.store.verdict is not None:
            yield Text(f"Audit of the data: {self.store.verdict}.", link="" if here else AUDIT)

    def problem(self, text: str, *, lasting: bool = False) -> Text:
        """A problem to show here and under "What this does not show"; lines after the first are a command.

        Args:
            text: the problem.
            lasting: whether it follows from what `analysis.kept.fingerprint` covers, such as the data set: it stays
                until that changes, and its part is kept with it. Else the part is made anew the next time.
        """
        first, _, rest = text.partition("\n")
        self.problems.append(Text(first, command=rest.strip()))
        self.passing += not lasting
        return Text(first, strong=True, command=rest.strip())


Blocks = Callable[[Report], Iterator[Block]]


@dataclass(frozen=True)
class Part:
    """One section.

    Attributes:
        name: of its module.
        title: heading of the section.
        position: sections are sorted by it.
        blocks: yields the blocks of the section; a section without blocks is left out.
        ahead: begins work in other processes before the first part is made, in `Report.ahead`; None: there is none.
        kept: whether it may be kept for the next report: it depends on nothing but the grid, the code, the packages
            and the options (see `analysis.kept.fingerprint`).
    """

    name: str
    title: str
    position: int
    blocks: Blocks
    kept: bool = True
    ahead: Callable[[Report], Any] | None = None


_parts: Register[Part] = Register("part of a report", __name__)


def register_part(
    name: str, *, title: str, position: int, kept: bool = True, ahead: Callable[[Report], Any] | None = None
) -> Callable[[Blocks], Blocks]:
    """Register the decorated function as a part; see `Part`. Raises `ValueError` if the name is taken."""

    def decorate(blocks: Blocks) -> Blocks:
        _parts.add(name, Part(name, title, position, blocks, kept, ahead))
        return blocks

    return decorate


def list_parts() -> list[Part]:
    """All parts in the order of a report."""
    return sorted(map(_parts.get, _parts.names()), key=lambda part: (part.position, part.name))
