"""The sections of a report, one file per section: each takes the shared frames and yields blocks of the page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pandas as pd

from analysis.cells import cell_table
from analysis.page import Block, Folder, Text
from analysis.store import Store
from data.conditions import CLEAN
from data.register import Register
from grid.plan import FINISHED
from models.detector import DETECTION_CLASSES
from models.metrics import AT_VALIDATION, metrics_for, reported


@dataclass(frozen=True)
class Options:
    """What a report is to hold.

    Attributes:
        compare: two variants, of which the first is held against the second.
        transpose: turn rows and columns of the matrices: rows trained on, columns tested on.
        cam: draw Grad-CAM and measure it, the one part that needs the images and runs models.
        images: where the data folder is now; None: where it was.
        cache: the grid's cache folder; None: beside a local store.
        cam_images: images per cell that CAMs are measured on.
        device: torch device string.
        weight_files: digest -> local file, for frozen encoders whose weights were one.
        projection: "tsne" or "umap".
        command: that makes this report, to be written into it.
        log: keep the report in MLflow too, as an artifact of the grid's run.
    """

    compare: tuple[str, str] | None = None
    transpose: bool = False
    cam: bool = True
    images: Path | None = None
    cache: Path | None = None
    cam_images: int = 16
    device: str = "cpu"
    weight_files: Mapping[str, Path] = field(default_factory=dict)
    projection: str = "tsne"
    command: str = ""
    log: bool = True


class Report:
    """What the parts of a report share.

    Attributes:
        store: the grid.
        folder: where figures and tables are written.
        options: what the report is to hold.
        say: told what is being done.
        problems: what went wrong while the report was made; said under what it does not show.
        runs: every trial (see `Store.runs`).
        results: every test value on clean pictures (see `Store.results`).
    """

    def __init__(
        self, store: Store, folder: Folder, options: Options, problems: list[Text], say: Callable[[str], None]
    ) -> None:
        self.store, self.folder, self.options, self.say = store, folder, options, say
        self.problems = problems
        self.runs, results = store.runs(), store.results()
        self.results = results[results["condition"] == CLEAN]

    @cached_property
    def metrics(self) -> list[str]:
        """Names of the metrics of real or fake that are shown, in order."""
        names = [metric.name for metric in metrics_for(DETECTION_CLASSES)]
        return reported({*names, *(name + AT_VALIDATION for name in names)})

    @cached_property
    def cells(self) -> pd.DataFrame:
        """Every value on clean pictures with its interval (see `cell_table`)."""
        return cell_table(self.store, metrics=self.metrics)

    @cached_property
    def generators(self) -> list[str]:
        """All that were trained or tested on, in the order of tables."""
        return self.store.generators

    def variants(self, task: str) -> list[str]:
        """Variants of a task in the order of the plan, finished or not."""
        return list(dict.fromkeys(self.runs.loc[self.runs["task"] == task, "variant"]))

    def finished(self, task: str, variant: str | None = None) -> pd.DataFrame:
        """Runs of a task, and of a variant."""
        runs = self.runs[(self.runs["task"] == task) & (self.runs["state"] == FINISHED)]
        return runs if variant is None else runs[runs["variant"] == variant]

    def labelled(self, variant: str) -> str:
        """A variant with its weights, as they decide what its values mean."""
        notes = self.weights(variant)
        return f"{variant} [{'; '.join(notes)}]" if notes else variant

    def weights(self, variant: str) -> list[str]:
        """Where a variant's pretrained weights come from, as its runs say."""
        notes = self.runs.loc[self.runs["variant"] == variant, "weights"]
        return [str(note) for note in dict.fromkeys(notes) if note not in ("", "none")]

    def problem(self, text: str) -> Text:
        """Say it here, and under what the report does not show. What follows the first line is a command."""
        first, _, rest = text.partition("\n")
        self.problems.append(Text(first, command=rest.strip()))
        return Text(first, strong=True, command=rest.strip())


@dataclass(frozen=True)
class Part:
    """One section.

    Attributes:
        name: of its module.
        title: above it.
        position: among the sections, the smallest first.
        blocks: what it shows; nothing where it has nothing to say.
    """

    name: str
    title: str
    position: int
    blocks: Callable[[Report], Iterator[Block]]


_parts: Register[Part] = Register("part of a report", __name__)


def register_part(
    name: str, *, title: str, position: int
) -> Callable[[Callable[[Report], Iterator[Block]]], Callable[[Report], Iterator[Block]]]:
    """Register the decorated part under `name`. Raises `ValueError` where the name is taken."""

    def decorate(blocks: Callable[[Report], Iterator[Block]]) -> Callable[[Report], Iterator[Block]]:
        _parts.add(name, Part(name, title, position, blocks))
        return blocks

    return decorate


def list_parts() -> list[Part]:
    """All parts in the order of a report."""
    return sorted(map(_parts.get, _parts.names()), key=lambda part: (part.position, part.name))
