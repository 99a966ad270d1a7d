"""Each method's cross-generator matrices: accuracy and AUROC first, the other metrics folded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.cells import CELL, IntervalMatrix, matrix_with_intervals
from analysis.figures.matrices import colour_span, matrix_figure
from analysis.heat_maps import heat_map
from analysis.matrices import ORIENTATION
from analysis.page import Block, Fold, HeatMap, HeatMaps, Text, html_table
from analysis.parts import Report, register_part
from analysis.tables import in_words as readable
from analysis.tables import long_form
from data.conditions import CLEAN
from grid.tasks import DETECTION
from models.metrics import in_words

NUM_OPEN = 2  # measures whose matrices stand open, and are files of pictures too; the others are folded


@register_part("matrices", title="Matrices", position=20)
def matrices(report: Report) -> Iterator[Block]:
    """One matrix per method and metric; empty if the grid has no detection trials."""
    if not report.variants(DETECTION):
        return
    turned = "rows: trained on, columns: tested on" if report.options.transpose else ORIENTATION
    yield Text(
        f"One matrix per method and metric; {turned}. Outlined cells are in-domain. Values are means over seeds; "
        "accuracies stand beside an AUROC, which does not depend on a threshold."
    )
    for variant in report.variants(DETECTION):
        if report.finished(DETECTION, variant).empty:
            command = report.store.missing_command(task=DETECTION, variant=variant)
            yield Text(f"{variant}: no detection trial is finished; this runs them:", strong=True, command=command)
            continue
        measured = set(report.cells["metric"])
        shown = [
            matrix(report, variant, metric)
            for metric in report.metrics_of(variant, report.metrics)
            if metric in measured
        ]
        yield from report.audit()
        yield drawn(report, shown[:NUM_OPEN])
        yield from _references(report, variant)
        blocks = [coloured(report, shown[NUM_OPEN:]), *_runs_behind(report, variant)]
        yield Fold(f"{report.labelled(variant)}: other metrics, and the runs behind each column", blocks)


def _references(report: Report, variant: str) -> Iterator[Block]:
    """The references beside a method's matrices, and where it is not above them; nothing without references."""
    means = report.beside.means(variant)
    if means.empty:
        return
    caption = (
        f"References beside {report.labelled(variant)}: means over the same cells. None is a method (see Controls)"
    )
    yield report.folder.table(f"references-{variant}", means, caption=caption)
    yield from (Text(sentence, strong=True) for sentence in report.beside.warnings(report.generators, variant))


@dataclass(frozen=True, eq=False)
class Shown:
    """A matrix to show.

    Attributes:
        matrix: with or without its intervals.
        metric: as of `matrix_figure`.
        name: of its files, without suffix.
        title: above it.
        span: the values of the first and the last colour.
    """

    matrix: pd.DataFrame | IntervalMatrix
    metric: str
    name: str
    title: str
    span: tuple[float, float]


def drawn(report: Report, shown: Sequence[Shown]) -> HeatMaps:
    """Matrices as tables of the page, and as files of pictures, which a paper can take."""
    for each in shown:
        figure = matrix_figure(
            each.matrix, metric=each.metric, title=each.title, transpose=report.options.transpose, span=each.span
        )
        report.folder.figure(each.name, figure)
    return HeatMaps([_heat_map(report, each) for each in shown])


def coloured(report: Report, shown: Sequence[Shown]) -> HeatMaps:
    """Matrices as tables of the page; files of pictures only where `--every-matrix` asks for them."""
    return (
        drawn(report, shown) if report.options.every_matrix else HeatMaps([_heat_map(report, each) for each in shown])
    )


def _heat_map(report: Report, shown: Shown) -> HeatMap:
    return heat_map(
        shown.matrix, name=shown.name, metric=shown.metric, title=shown.title, transpose=report.options.transpose,
        span=shown.span,
    )  # fmt: skip


def matrix(
    report: Report, variant: str, metric: str, *, cells: pd.DataFrame | None = None, condition: str = CLEAN
) -> Shown:
    """A matrix with its intervals; it is written to table files.

    Args:
        report: the report.
        variant: variant of a method.
        metric: as logged.
        cells: from `cell_table`; None: the report's, on clean pictures.
        condition: condition of the test pictures.
    """
    table = report.cells if cells is None else cells
    with_intervals = matrix_with_intervals(report.store, variant, metric, cells=table, condition=condition)
    words, name = in_words(metric), f"matrix-{variant}-{metric}"
    if condition != CLEAN:
        words, name = f"{words}, {condition}", f"{name}-{condition}"
    title = f"{report.labelled(variant)}: {words}"
    report.folder.files(name, with_intervals, caption=title, transpose=report.options.transpose)
    return Shown(with_intervals, metric, name, title, colours_of(report, metric, table))


def colours_of(report: Report, metric: str, cells: pd.DataFrame) -> tuple[float, float]:
    """One scale of colours for a metric of all methods, on clean pictures and in these cells."""
    tables = [
        of[(of["task"] == DETECTION) & (of["metric"] == metric) & (of["kind"] == CELL)] for of in (report.cells, cells)
    ]
    return colour_span([value for table in tables for value in table["mean"].astype(float)], metric)


def _runs_behind(report: Report, variant: str) -> Iterator[Block]:
    runs = report.runs[(report.runs["variant"] == variant) & (report.runs["task"] == DETECTION)]
    table = readable(runs[["trained_on", "seed", "state", "run_id"]], report.generators)
    table = table.assign(run_id=table["run_id"].where(table["run_id"] != "", "none yet"))
    links = {"run_id": [f"#run-{key}" for key in runs["key"]]}
    yield html_table(table, f"The runs behind the columns of {report.labelled(variant)}", links=links)
    for metric in report.metrics_of(variant, report.metrics)[:NUM_OPEN]:
        cells = long_form(matrix_with_intervals(report.store, variant, metric, cells=report.cells))
        shown = readable(cells.drop(columns=["variant", "metric"]), report.generators)
        yield html_table(
            shown, f"{report.labelled(variant)}: {in_words(metric)}, every cell; intervals are 95 % intervals"
        )
