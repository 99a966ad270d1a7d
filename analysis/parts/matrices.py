"""Each method's cross-generator matrices: accuracy and AUROC first, the other metrics folded."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from analysis.cells import CELL, matrix_with_intervals
from analysis.figures.matrices import colour_span, matrix_figure
from analysis.matrices import ORIENTATION
from analysis.page import Block, Fold, Picture, Row, Text, html_table
from analysis.parts import Report, register_part
from analysis.tables import cell_text, long_form
from analysis.tables import in_words as readable
from data.conditions import CLEAN
from grid.tasks import DETECTION
from models.metrics import in_words


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
        metrics = set(report.cells["metric"])
        shown = [
            matrix_picture(report, variant, metric)
            for metric in report.metrics_of(variant, report.metrics)
            if metric in metrics
        ]
        yield from report.audit()
        yield Row(shown[:2])
        yield from _references(report, variant)
        blocks = [Row(shown[2:]), *_runs_behind(report, variant)]
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


def matrix_picture(
    report: Report, variant: str, metric: str, *, cells: pd.DataFrame | None = None, condition: str = CLEAN
) -> Picture:
    """Draw a matrix with its intervals, and write it to table files.

    Args:
        report: the report.
        variant: variant of a method.
        metric: as logged.
        cells: from `cell_table`; None: the report's, on clean pictures.
        condition: condition of the test pictures.
    """
    table = report.cells if cells is None else cells
    matrix = matrix_with_intervals(report.store, variant, metric, cells=table, condition=condition)
    words, turn, name = in_words(metric), report.options.transpose, f"matrix-{variant}-{metric}"
    if condition != CLEAN:
        words, name = f"{words}, {condition}", f"{name}-{condition}"
    report.folder.files(name, matrix, caption=f"{report.labelled(variant)}: {words}", transpose=turn)
    title = f"{report.labelled(variant)}: {words}"
    figure = matrix_figure(matrix, metric=metric, title=title, transpose=turn, span=colours_of(report, metric, table))
    values = readable(long_form(matrix), report.generators)
    alt = f"Cross-generator matrix of {report.labelled(variant)}, {words}. " + matrix_sentence(values)
    return report.folder.picture(name, figure, alt=alt)


def colours_of(report: Report, metric: str, cells: pd.DataFrame) -> tuple[float, float]:
    """One scale of colours for a metric of all methods, on clean pictures and in these cells."""
    tables = [
        of[(of["task"] == DETECTION) & (of["metric"] == metric) & (of["kind"] == CELL)] for of in (report.cells, cells)
    ]
    return colour_span([value for table in tables for value in table["mean"].astype(float)], metric)


def matrix_sentence(cells: pd.DataFrame) -> str:
    """The matrix in words, for readers who cannot see it, from the columns tested_on, trained_on and mean."""
    lines = []
    for tested_on, row in cells.groupby("tested_on", sort=False):
        values = zip(row["trained_on"], row["mean"].astype(float), strict=True)
        words = ", ".join(f"trained on {trained_on} {cell_text(mean)}" for trained_on, mean in values)
        lines.append(f"tested on {tested_on}: {words}")
    return "; ".join(lines).capitalize() + "."


def _runs_behind(report: Report, variant: str) -> Iterator[Block]:
    runs = report.runs[(report.runs["variant"] == variant) & (report.runs["task"] == DETECTION)]
    table = readable(runs[["trained_on", "seed", "state", "run_id"]], report.generators)
    table = table.assign(run_id=table["run_id"].where(table["run_id"] != "", "none yet"))
    links = {"run_id": [f"#run-{key}" for key in runs["key"]]}
    yield html_table(table, f"The runs behind the columns of {report.labelled(variant)}", links=links)
    for metric in report.metrics_of(variant, report.metrics)[:2]:
        cells = long_form(matrix_with_intervals(report.store, variant, metric, cells=report.cells))
        shown = readable(cells.drop(columns=["variant", "metric"]), report.generators)
        yield html_table(
            shown, f"{report.labelled(variant)}: {in_words(metric)}, every cell; intervals are 95 % intervals"
        )
