"""Small multiples of curves: one panel per training set, one line per test generator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures import style
from analysis.figures.palette import Look, looks
from analysis.matrices import column_order, decimals, mean_of, trained_on_label
from grid.tasks import REAL, cell_rows, class_names, generators_of, get_task, list_tasks
from grid.train_sets import TrainSet
from models.calibration import expected_calibration_error, reliability

NUM_SCORE_BINS = 40
_MAX_ACROSS = 4
_SIDE = 2.7  # inches

Draw = Callable[[Axes, pd.DataFrame, Look], float]  # draws one cell's curve, returns the value for the legend


def roc_figure(scores: pd.DataFrame, *, title: str) -> Figure:
    """ROC curves, one line per seed; the legend has the mean AUROC over seeds.

    Args:
        scores: of one variant's detection runs: generator, label, score, trained_on, seed.
        title: above the panels.
    """
    from sklearn.metrics import roc_auc_score, roc_curve

    def draw(axes: Axes, cell: pd.DataFrame, look: Look) -> float:
        false_positives, true_positives, _ = roc_curve(cell["label"], cell["score"])
        axes.plot(false_positives, true_positives, color=look.colour, ls=look.dash, lw=1.4)
        return float(roc_auc_score(cell["label"], cell["score"]))

    return _panels(scores, draw, ("false positive rate", "true positive rate"), title=title, value="AUROC")


def precision_recall_figure(scores: pd.DataFrame, *, title: str) -> Figure:
    """Precision and recall for "fake"; the grey line is the precision of guessing. Arguments as in `roc_figure`."""
    from sklearn.metrics import average_precision_score, precision_recall_curve

    def draw(axes: Axes, cell: pd.DataFrame, look: Look) -> float:
        precision, recall, _ = precision_recall_curve(cell["label"], cell["score"])
        # the area under the step-wise curve is the average precision
        axes.plot(recall, precision, color=look.colour, ls=look.dash, lw=1.4, drawstyle="steps-post")
        axes.axhline(float((cell["label"] == 1).mean()), color="#999999", lw=0.8, zorder=0)
        return float(average_precision_score(cell["label"], cell["score"]))

    return _panels(scores, draw, ("recall", "precision"), title=title, value="AP", diagonal=False)


def reliability_figure(scores: pd.DataFrame, *, title: str, given: str = "as given") -> Figure:
    """Share of fakes by the predicted probability of fake; the diagonal is perfect.

    Args:
        scores: as in `roc_figure`.
        title: above the panels.
        given: what the probability is, in words.
    """

    def draw(axes: Axes, cell: pd.DataFrame, look: Look) -> float:
        labels, log_odds = cell["label"].to_numpy(), cell["score"].to_numpy()
        bins = reliability(labels, log_odds)
        bins = bins[bins["num_images"] > 0]
        axes.plot(
            bins["probability"], bins["fake"], color=look.colour, ls=look.dash, lw=1.0, marker=look.marker, ms=3,
            alpha=0.85,
        )  # fmt: skip
        return expected_calibration_error(labels, log_odds)

    return _panels(scores, draw, (f"probability of fake, {given}", "share that is fake"), title=title, value="ECE")


def score_figure(scores: pd.DataFrame, *, title: str) -> Figure:
    """Histograms of the scores, one per class, stacked; the vertical line is p = 0.5.

    All histograms have the same area. Scores beyond the 0.5 % and 99.5 % quantiles of a panel are counted into its
    outermost bins.

    Args:
        scores: as in `roc_figure`; seeds are pooled.
        title: above the panels.
    """
    look_of = looks([REAL, *generators_of(scores)])
    with style():
        figure, grid = _grid(scores, title)
        for axes, (_, rows) in zip(grid, scores.groupby("trained_on", sort=False), strict=True):
            edges = _edges(rows["score"].to_numpy())
            shares = {}
            for name in look_of:
                values = rows.loc[class_names(rows) == name, "score"].clip(edges[0], edges[-1])
                shares[name] = np.histogram(values, edges)[0] / max(len(values), 1)
            highest = max(share.max() for share in shares.values()) or 1.0
            for base, (name, share) in enumerate(reversed(shares.items())):  # the first class is on top
                axes.stairs(
                    base + 0.9 * share / highest, edges, baseline=base, fill=True, alpha=0.8,
                    color=look_of[name].colour,
                )  # fmt: skip
            axes.axvline(0, color="#555555", lw=0.8, ls=(0, (4, 2)))
            axes.set_yticks(range(len(shares)), list(shares)[::-1])
            axes.tick_params(axis="y", length=0, labelsize=7.5)
            axes.set_xlabel("score (log-odds of fake)")
            axes.spines[["top", "right", "left"]].set_visible(False)
    return figure


def _edges(scores: np.ndarray) -> np.ndarray:
    """Edges of histogram bins that cover nearly all scores and zero; fewer bins if there are few scores."""
    low, high = np.quantile(scores, [0.005, 0.995])
    low, high = min(float(low), 0.0), max(float(high), 0.0)
    return np.linspace(low, high if high > low else low + 1, int(np.clip(len(scores) // 20, 10, NUM_SCORE_BINS)) + 1)


def training_figure(history: pd.DataFrame, *, title: str, generators: Sequence[str]) -> Figure | None:
    """Losses and accuracies over epochs: a row per quantity, a column per trial; None if no trial has two epochs.

    Args:
        history: of one variant's runs, from `Store.history`: task, trained_on, seed, metric, step, value. Only the
            metrics train/… and valid/… of a loss or an accuracy are drawn.
        title: above the panels.
        generators: all generators, in the order of tables.
    """
    parts = history["metric"].str.extract(r"^(?P<split>train|valid)/(?P<quantity>loss|accuracy)$")
    history = history.assign(**parts).dropna(subset=["split"])
    if history.empty or history.groupby(["task", "trained_on", "seed", "metric"])["step"].nunique().max() < 2:
        return None
    quantities = [name for name in ("loss", "accuracy") if name in set(history["quantity"])]
    trials = [
        (trained_on, task)
        for task in list_tasks()
        for trained_on in column_order(history.loc[history["task"] == task, "trained_on"], generators)
    ]
    looks_of: dict[str, dict[str, Any]] = {
        "train": {"color": "#0072b2", "ls": "-", "marker": "o"},
        "valid": {"color": "#d55e00", "ls": (0, (4, 1.5)), "marker": "s"},
    }
    with style():
        size = (max(2.3 * len(trials), 4.6) + 0.3, 1.9 * len(quantities) + 0.9)
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(len(quantities), len(trials), squeeze=False, sharey="row")
        for row, quantity in zip(grid, quantities, strict=True):
            for axes, (trained_on, task) in zip(row, trials, strict=True):
                lines = history[
                    (history["quantity"] == quantity)
                    & (history["trained_on"] == trained_on)
                    & (history["task"] == task)
                ]
                for (split, _), line in lines.groupby(["split", "seed"], sort=True):
                    line = line.sort_values("step")
                    axes.plot(line["step"], line["value"], lw=1.3, ms=3, **looks_of[str(split)])
                axes.xaxis.get_major_locator().set_params(integer=True)
                if quantity == "accuracy":
                    axes.set_ylim(-0.02, 1.02)
                axes.grid(color="#eeeeee")
            row[0].set_ylabel(quantity)
        for axes, (trained_on, task) in zip(grid[0], trials, strict=True):
            words = get_task(task).label(TrainSet.parse(trained_on), generators)
            axes.set_title(words.replace("trained on ", "trained on\n"), fontsize=9)
        for axes in grid[-1]:
            axes.set_xlabel("epoch")
        figure.suptitle(title, x=0.01, ha="left", fontsize=10)
        handles = [
            Line2D([], [], ms=4, label="training" if split == "train" else "validation", **looks_of[split])
            for split in looks_of
            if split in set(history["split"])
        ]
        figure.legend(handles=handles, loc="outside lower left", ncols=len(handles), frameon=False, fontsize=8)
    return figure


def _panels(
    scores: pd.DataFrame, draw: Draw, labels: tuple[str, str], *, title: str, value: str, diagonal: bool = True
) -> Figure:
    look_of = looks(generators_of(scores))
    with style():
        figure, grid = _grid(scores, title)
        for axes, (trained_on, rows) in zip(grid, scores.groupby("trained_on", sort=False), strict=True):
            if diagonal:
                axes.plot([0, 1], [0, 1], color="#999999", lw=0.8, zorder=0)
            axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=labels[0], ylabel=labels[1], aspect="equal")
            axes.set_xticks([0, 0.5, 1])
            axes.set_yticks([0, 0.5, 1])
            handles = []
            for generator, look in look_of.items():
                values = [
                    draw(axes, of_seed[cell_rows(of_seed, generator)], look)
                    for _, of_seed in rows.groupby("seed", sort=True)
                    if generator in generators_of(of_seed)
                ]
                if values:
                    star = " *" if generator in TrainSet.parse(str(trained_on)) else ""
                    text = f"{generator} {decimals(mean_of(values))}{star}"
                    handles.append(Line2D([], [], color=look.colour, ls=look.dash, lw=1.6, label=text))
            axes.legend(
                handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.2), frameon=False, title=value,
                fontsize=7.5, title_fontsize=7.5, handlelength=2.6, labelspacing=0.25,
            )  # fmt: skip
        figure.supxlabel("one line per generator that is tested on; * it was trained on", fontsize=8, x=0.01, ha="left")
    return figure


def _grid(scores: pd.DataFrame, title: str) -> tuple[Figure, list[Axes]]:
    """A figure with one panel per training set, at most four in a row."""
    trained = [str(name) for name in dict.fromkeys(scores["trained_on"])]
    across = min(len(trained), _MAX_ACROSS)
    down = -(-len(trained) // across)
    figure = Figure(figsize=(max(across * _SIDE, 4.6) + 0.2, down * (_SIDE + 0.8) + 0.6), layout="constrained")
    grid = list(figure.subplots(down, across, squeeze=False).ravel())
    for axes in grid[len(trained) :]:
        axes.remove()
    for axes, trained_on in zip(grid, trained, strict=False):
        axes.set_title(f"trained on {trained_on_label(trained_on, generators_of(scores))}", fontsize=9)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    return figure, grid[: len(trained)]
