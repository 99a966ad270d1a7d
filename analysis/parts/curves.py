"""Curves of each method, folded, and the calibration error of every cell in one table."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from analysis.curves import calibration_table
from analysis.figures.curves import (
    points_of_each,
    precision_recall_figure,
    reliability_figure,
    roc_figure,
    score_figure,
    training_figure,
)
from analysis.matrices import column_order, decimals
from analysis.page import Block, Fold, Picture, Text
from analysis.parts import Report, register_part
from analysis.variants import add_origins
from analysis.verdicts import temperature_of
from grid.tasks import DETECTION, generators_of
from models.metrics import AT_VALIDATION, in_words
from models.registry import gives_log_odds


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
            blocks += _points_text(scores)
            if not gives_log_odds(str(runs["method"].iloc[0])):
                blocks.append(Text("Its score is no log-odds, so it has no probability that could be calibrated."))
                blocks += _score_figures(report, variant, scores)
            else:
                table = calibration_table(scores)
                columns = ["method", "trained_on", "tested_on", "ece", "ece_calibrated"]
                tables.append(table.assign(method=variant)[columns])
                blocks += _score_figures(report, variant, scores, float(table["ece"].mean()))
                blocks += _calibrated_figure(report, variant, scores, table)
        of_variant = history[history["variant"] == variant]
        figure = training_figure(
            of_variant, title=f"{report.labelled(variant)}: training", generators=report.generators
        )
        if figure is not None:
            last = of_variant.sort_values("step").groupby("metric")["value"].last()
            end = ", ".join(f"{name} {value:.3f}" for name, value in last.items() if "/" in str(name))
            alt = f"Losses and accuracies of {report.labelled(variant)} over epochs, one column per trial; "
            alt += f"one trial ends at {end}."
            blocks.append(report.folder.picture(f"training-{variant}", figure, alt=alt))
        elif len(of_variant):
            blocks.append(Text(f"{variant} is fitted in one step, so there is no curve of its training."))
        if blocks:
            yield Fold(report.labelled(variant), blocks)
    if tables:
        table = pd.concat(tables, ignore_index=True)
        caption = (
            "Expected calibration error of each cell (Guo et al. 2017, 15 bins, probability of fake), as given and "
            "with each run's temperature from its validation split; missing: the run is older"
        )
        yield Fold("Calibration error of every cell", [report.folder.table("calibration", table, caption=caption)])
    if len(history):
        text = add_origins(history, report.origins).to_csv(index=False)
        (report.folder.path / "tables" / "history.csv").write_text(text, encoding="utf-8")


def _scores(report: Report, runs: pd.DataFrame) -> pd.DataFrame:
    """The runs' scores with trained_on, seed and calibrated; training sets and generators in the order of tables."""
    columns = column_order(runs["trained_on"], report.generators)
    ordered = runs.sort_values("trained_on", key=lambda names: names.map(columns.index), kind="stable")
    rank = {name: number for number, name in enumerate(report.generators)}
    frames = []
    for run_id, trained_on, seed in ordered[["run_id", "trained_on", "seed"]].to_numpy().tolist():
        scores = report.store.scores(run_id, columns=["generator", "label", "score"])
        scores = scores.astype({"generator": object})  # looked at cell by cell, which is slow with Arrow's strings
        scores = scores.sort_values("generator", key=lambda names: names.map(rank).fillna(-1), kind="stable")
        fitted = temperature_of(report.store, run_id)
        calibrated = np.nan if fitted is None else fitted.calibrated(scores["score"].to_numpy())
        frames.append(scores.assign(trained_on=trained_on, seed=seed, calibrated=calibrated))
    return pd.concat(frames, ignore_index=True)


def _points_text(scores: pd.DataFrame) -> Iterator[Text]:
    """That not every point of a curve is drawn, where there are more than that."""
    seeds = int(scores.groupby("trained_on")["seed"].nunique().max())
    most = points_of_each(seeds * len(generators_of(scores)))
    if scores.groupby(["trained_on", "seed"]).size().max() > most:
        yield Text(
            f"Of a ROC curve, and of one of precision and recall, at most {most} points are drawn, evenly along its "
            "length. The values beside the curves are of all images."
        )


def _calibrated_figure(report: Report, variant: str, scores: pd.DataFrame, table: pd.DataFrame) -> Iterator[Picture]:
    """Reliability with the temperatures, of the runs that have one."""
    known = scores[scores["calibrated"].notna()]
    if known.empty:
        return
    before, after = (float(table.loc[table["ece_calibrated"].notna(), name].mean()) for name in table.columns[-2:])
    words = (
        f"Reliability with the temperature from validation; mean ECE over the cells {after:.3f}, before {before:.3f}"
    )
    title = f"{report.labelled(variant)}: Reliability with the temperature from validation"
    figure = reliability_figure(known.assign(score=known["calibrated"]), title=title, given="calibrated")
    alt = f"{words}, of {report.labelled(variant)}: one panel per training set, one line per generator it is tested on."
    yield report.folder.picture(f"reliability-calibrated-{variant}", figure, alt=alt)


def _score_figures(report: Report, variant: str, scores: pd.DataFrame, ece: float | None = None) -> Iterator[Picture]:
    """Without a calibration error where the score is no log-odds."""
    values = report.results[(report.results["variant"] == variant) & (report.results["task"] == DETECTION)]
    spread = {
        metric: f"from {decimals(cells.min())} to {decimals(cells.max())} over the cells"
        for metric, cells in values.groupby("metric")["value"]
    }
    accuracy = "accuracy" if ece is not None else f"accuracy{AT_VALIDATION}"
    figures = (
        ("roc", roc_figure, f"ROC curves; AUROC {spread['auroc']}"),
        (
            "precision-recall",
            precision_recall_figure,
            f"Precision and recall for fakes; average precision {spread['ap']}",
        ),
        ("reliability", reliability_figure, f"Reliability diagrams; mean ECE over the cells {ece or 0.0:.3f}"),
        ("scores", score_figure, f"Histograms of the scores by class; {in_words(accuracy)} {spread[accuracy]}"),
    )
    for name, draw, words in figures:
        if draw is reliability_figure and ece is None:
            continue
        figure = draw(scores, title=f"{report.labelled(variant)}: {words.partition(';')[0]}")
        alt = f"{words}, of {report.labelled(variant)}: "
        alt += "one panel per training set, one line per generator it is tested on."
        yield report.folder.picture(f"{name}-{variant}", figure, alt=alt)
