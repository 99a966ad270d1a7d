"""The means of each method, and the best methods."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator

import pandas as pd

from analysis.cells import CELL, CROSS_GENERATOR, GAP, IN_DOMAIN
from analysis.page import Block, Text
from analysis.parts import Report, register_part
from analysis.tables import CONFIDENCE, MISSING, cell_text
from grid.plan import FINISHED
from grid.tasks import ATTRIBUTION, DETECTION
from grid.train_sets import TrainSet
from models.metrics import get_metric
from models.registry import depends_on_seed

NOT_POSSIBLE = "none"  # such as the in-domain mean of a method that is trained without fakes


@register_part("summary", title="Summary", position=10)
def summary(report: Report) -> Iterator[Block]:
    """A sentence on the best methods, and a table of every method's means."""
    if report.runs.empty:
        yield Text("This grid has controls alone, and no results of a method.")
        return
    rows = []
    for variant in dict.fromkeys(report.runs["variant"]):
        row: dict[str, object] = {"method": variant}
        for metric in ("accuracy", "auroc"):
            for kind in (IN_DOMAIN, CROSS_GENERATOR, GAP) if metric == "accuracy" else (IN_DOMAIN, CROSS_GENERATOR):
                name = f"{get_metric(metric).words}, {kind.removesuffix(' mean')}"
                row[name] = mean_text(report, report.cells, variant, DETECTION, metric, kind)
        row["attribution, overall"] = mean_text(report, report.cells, variant, ATTRIBUTION, "accuracy", CELL)
        own = report.runs[report.runs["variant"] == variant]
        row["weights"] = "; ".join(report.weights(variant)) or "none"
        row["seeds"] = seeds_text(own)
        row["trials finished"] = f"{(own['state'] == FINISHED).sum()} of {len(own)}"
        rows.append(row)
    table = pd.DataFrame(rows)
    best = _best(report)
    if best:
        yield Text(best)
    elif len(table) > 1:
        yield Text("No two methods have the same cells yet, so their means are not ranked.")
    yield from (Text(f"Warning: {sentence}", strong=True) for sentence in report.beside.warnings(report.generators))
    yield from report.audit()
    yield report.folder.table(
        "summary", table,
        caption="Means over the cells of each method's matrix, ± standard deviation over seeds where there are "
        f"several, in brackets {CONFIDENCE}",
    )  # fmt: skip


def seeds_text(runs: pd.DataFrame) -> str:
    """The seeds of a method's trials, or that it does not depend on the seed.

    Args:
        runs: rows of `Store.runs()` of one variant.
    """
    first = runs.iloc[0]
    if not depends_on_seed(str(first["method"]), json.loads(str(first["config"]))):
        return "does not depend on the seed"
    return ", ".join(map(str, sorted(runs["seed"].unique())))


def with_most_cells(cells: pd.DataFrame) -> list[str]:
    """The variants with the largest set of cells that they share: only their means can be ranked.

    Args:
        cells: columns variant, tested_on, trained_on.
    """
    cells_of = {
        str(variant): frozenset(zip(rows["tested_on"], rows["trained_on"], strict=True))
        for variant, rows in cells.groupby("variant", sort=False)
    }
    num_variants = Counter(cells_of.values())
    most = max(num_variants, key=lambda same: (len(same), num_variants[same]), default=frozenset())
    return [variant for variant, same in cells_of.items() if same == most]


def mean_text(report: Report, cells: pd.DataFrame, variant: str, task: str, metric: str, kind: str) -> str:
    """The first of a variant's values of a kind, with its interval; "missing", or "none" if it cannot have one.

    Args:
        report: the report.
        cells: rows of `cell_table`, of one condition.
        variant: variant of a method.
        task: "detection" or "attribution".
        metric: as logged.
        kind: as in `cell_table`.
    """
    rows = cells[
        (cells["variant"] == variant) & (cells["task"] == task) & (cells["metric"] == metric) & (cells["kind"] == kind)
    ]
    if len(rows):
        values = rows[["mean", "std", "low", "high"]].iloc[0].astype(float)
        return cell_text(*(values if rows["seeded"].iloc[0] else values.where(values.index != "std")))
    planned = report.runs[(report.runs["variant"] == variant) & (report.runs["task"] == task)]
    trained = [TrainSet.parse(str(text)) for text in planned["trained_on"]]
    can_have = any(train.generators for train in trained) if kind in (IN_DOMAIN, GAP) else bool(trained)
    return MISSING if can_have else NOT_POSSIBLE


def _best(report: Report) -> str:
    """A sentence on the best of the methods that can be ranked; "" if there are not two."""
    of_accuracy = report.cells[(report.cells["metric"] == "accuracy") & (report.cells["task"] == DETECTION)]
    complete = with_most_cells(of_accuracy[of_accuracy["kind"] == CELL])
    if len(complete) < 2 and report.runs["variant"].nunique() > 1:
        return ""
    means = of_accuracy[of_accuracy["variant"].isin(complete)]
    parts = []
    for kind in (IN_DOMAIN, CROSS_GENERATOR):
        rows = means[means["kind"] == kind]
        if len(rows):
            best = int(rows["mean"].to_numpy(float).argmax())
            parts.append(f"{cell_text(rows['mean'].iloc[best])} {kind} ({rows['variant'].iloc[best]})")
    return f"Best mean accuracies: {', '.join(parts)}." if parts else ""
