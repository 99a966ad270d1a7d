"""Curves of each method, folded, and the calibration error of every cell in one table."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from analysis.curves import calibration_table
from analysis.figures.curves import (
    precision_recall_figure,
    reliability_figure,
    roc_figure,
    score_figure,
    training_figure,
)
from analysis.matrices import column_order, decimals
from analysis.page import Block, Fold, Picture, Text
from analysis.parts import Report, register_part
from grid.tasks import DETECTION


@register_part("curves", title="Curves", position=80)
def curves(report: Report) -> Iterator[Block]:
    """ROC, precision and recall, reliability, scores and training."""
    history = report.store.history()
    tables: list[pd.DataFrame] = []
    for variant in dict.fromkeys(report.runs["variant"]):
        report.say(f"  {variant}")
        blocks: list[Block] = []
        runs = report.finished(DETECTION, variant)
        if len(runs):
            scores = _scores(report, runs)
            table = calibration_table(scores)
            tables.append(table.assign(method=variant)[["method", "trained_on", "tested_on", "ece"]])
            blocks += _score_figures(report, variant, scores, float(table["ece"].mean()))
        of_variant = history[history["variant"] == variant]
        figure = training_figure(of_variant, title=f"{variant}: training", generators=report.generators)
        if figure is not None:
            last = of_variant.sort_values("step").groupby("metric")["value"].last()
            end = ", ".join(f"{name} {value:.3f}" for name, value in last.items() if "/" in str(name))
            alt = f"Losses and accuracies of {variant} over epochs, one column per trial; one trial ends at {end}."
            blocks.append(report.folder.picture(f"training-{variant}", figure, alt=alt))
        elif len(of_variant):
            blocks.append(Text(f"{variant} is fitted in one step, so there is no curve of its training."))
        if blocks:
            yield Fold(report.labelled(variant), blocks)
    if tables:
        table = pd.concat(tables, ignore_index=True)
        caption = "Expected calibration error of each cell (Guo et al. 2017, 15 bins, probability of fake)"
        yield Fold("Calibration error of every cell", [report.folder.table("calibration", table, caption=caption)])
    if len(history):
        (report.folder.path / "tables" / "history.csv").write_text(history.to_csv(index=False), encoding="utf-8")


def _scores(report: Report, runs: pd.DataFrame) -> pd.DataFrame:
    """The runs' scores with trained_on and seed; training sets and generators in the order of tables."""
    columns = column_order(runs["trained_on"], report.generators)
    ordered = runs.sort_values("trained_on", key=lambda names: names.map(columns.index), kind="stable")
    rank = {name: number for number, name in enumerate(report.generators)}
    frames = []
    for run_id, trained_on, seed in ordered[["run_id", "trained_on", "seed"]].to_numpy().tolist():
        scores = report.store.scores(run_id)
        scores = scores.sort_values("generator", key=lambda names: names.map(rank).fillna(-1), kind="stable")
        frames.append(scores.assign(trained_on=trained_on, seed=seed))
    return pd.concat(frames, ignore_index=True)


def _score_figures(report: Report, variant: str, scores: pd.DataFrame, ece: float) -> Iterator[Picture]:
    values = report.results[(report.results["variant"] == variant) & (report.results["task"] == DETECTION)]
    spread = {
        metric: f"from {decimals(cells.min())} to {decimals(cells.max())} over the cells"
        for metric, cells in values.groupby("metric")["value"]
    }
    for name, draw, words in (
        ("roc", roc_figure, f"ROC curves; AUROC {spread['auroc']}"),
        (
            "precision-recall",
            precision_recall_figure,
            f"Precision and recall for fakes; average precision {spread['ap']}",
        ),
        ("reliability", reliability_figure, f"Reliability diagrams; mean ECE over the cells {ece:.3f}"),
        ("scores", score_figure, f"Histograms of the scores by class; accuracy at p = 0.5 {spread['accuracy']}"),
    ):
        figure = draw(scores, title=f"{report.labelled(variant)}: {words.partition(';')[0]}")
        alt = f"{words}, of {variant}: one panel per training set, one line per generator it is tested on."
        yield report.folder.picture(f"{name}-{variant}", figure, alt=alt)
