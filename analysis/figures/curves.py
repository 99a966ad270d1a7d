"""Small multiples of curves: one panel per training set, one line per test generator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures import height_of, num_lines, panels, style, width_of, width_of_row, wrapped
from analysis.figures.palette import Look, looks
from analysis.matrices import column_order, decimals, trained_on_label
from grid.means import mean_of
from grid.tasks import REAL, cell_rows, class_names, generators_of, get_task, list_tasks
from grid.train_sets import TrainSet
from models.calibration import error_of_bins, reliability

NUM_SCORE_BINS = 40
MOST_POINTS = 500  # of a curve; an SVG file of a thousand fakes would hold all their steps otherwise
MOST_IN_PANEL = 10_000  # points of all curves of a panel, of which there are as many as generators times seeds
FEWEST_POINTS = 50  # of a curve, however many there are
_MAX_ACROSS = 4
_SIDE = 2.3  # inches, of a panel
_TO_LEGEND = 0.5  # inches, from a panel to its legend
_LEGEND_LINE = 0.145  # inches, of a line of the legend
_NARROWEST = 4.6  # inches, of a figure
_SMALL = 7.5  # points

# draws one cell's curve with at most so many points, returns the value for the legend
Draw = Callable[[Axes, pd.DataFrame, Look, int], float]


def roc_figure(scores: pd.DataFrame, *, title: str) -> Figure:
    """ROC curves, one line per seed; the legend has the mean AUROC over seeds.

    Args:
        scores: of one variant's detection runs: generator, label, score, trained_on, seed.
        title: above the panels.
    """
    from sklearn.metrics import auc, roc_curve

    def draw(axes: Axes, cell: pd.DataFrame, look: Look, most: int) -> float:
        false_positives, true_positives, _ = roc_curve(cell["label"].to_numpy(), cell["score"].to_numpy())
        axes.plot(*thinned(false_positives, true_positives, most), color=look.colour, ls=look.dash, lw=1.4)
        return float(auc(false_positives, true_positives))

    return _panels(scores, draw, ("false positive rate", "true positive rate"), title=title, value="AUROC")


def thinned(across: np.ndarray, up: np.ndarray, most: int = MOST_POINTS) -> tuple[np.ndarray, np.ndarray]:
    """At most so many points of a curve, evenly along its length, with the first and the last one.

    The length of a ROC curve is 2 sides of its panel, so 500 points are closer than a pixel of the page.

    Args:
        across: (N,), the curve's points in order, sideways.
        up: (N,), upwards.
        most: at least 2.
    """
    if len(across) <= most:
        return across, up
    length = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(across)) + np.abs(np.diff(up)))])
    chosen = np.searchsorted(length, np.linspace(0, length[-1], most))
    chosen = np.unique(np.append(chosen[:-1], len(across) - 1))
    return across[chosen], up[chosen]


def points_of_each(num_curves: int) -> int:
    """How many points each of so many curves in one panel has at most."""
    return max(FEWEST_POINTS, min(MOST_POINTS, MOST_IN_PANEL // max(num_curves, 1)))


def cells_of(scores: pd.DataFrame) -> dict[str, list[pd.DataFrame]]:
    """Generator -> its cell of each seed, the lowest seed first.

    Args:
        scores: of one training set: generator, label, score, seed.
    """
    cells: dict[str, list[pd.DataFrame]] = {}
    for _, of_seed in scores.groupby("seed", sort=True):
        for generator in generators_of(of_seed):
            cells.setdefault(generator, []).append(of_seed[cell_rows(of_seed, generator)])
    return cells


def precision_recall_figure(scores: pd.DataFrame, *, title: str) -> Figure:
    """Precision and recall for "fake"; the grey line is the precision of guessing. Arguments as in `roc_figure`."""
    from sklearn.metrics import precision_recall_curve

    guessed = set[tuple[Axes, float]]()  # seeds have the same line

    def draw(axes: Axes, cell: pd.DataFrame, look: Look, most: int) -> float:
        labels = cell["label"].to_numpy()
        precision, recall, _ = precision_recall_curve(labels, cell["score"].to_numpy())
        points = thinned(recall, precision, most // 2)  # a step is two points
        axes.plot(*points, color=look.colour, ls=look.dash, lw=1.4, drawstyle="steps-post")
        if (guess := (axes, float((labels == 1).mean()))) not in guessed:
            guessed.add(guess)
            axes.axhline(guess[1], color="#999999", lw=0.8, zorder=0)
        # the area under the step-wise curve, which is what `average_precision_score` returns
        return float(max(0.0, -np.sum(np.diff(recall) * precision[:-1])))

    return _panels(scores, draw, ("recall", "precision"), title=title, value="AP", diagonal=False)


def reliability_figure(scores: pd.DataFrame, *, title: str, given: str = "as given") -> Figure:
    """Share of fakes by the predicted probability of fake; the diagonal is perfect.

    Args:
        scores: as in `roc_figure`.
        title: above the panels.
        given: what the probability is, in words.
    """

    def draw(axes: Axes, cell: pd.DataFrame, look: Look, most: int) -> float:
        labels, log_odds = cell["label"].to_numpy(), cell["score"].to_numpy()
        every = reliability(labels, log_odds)
        bins = every[every["num_images"] > 0]
        axes.plot(
            bins["probability"], bins["fake"], color=look.colour, ls=look.dash, lw=1.0, ms=3,
            marker=look.marker if most == MOST_POINTS else "",  # of hundreds of curves, markers make files of megabytes
            alpha=0.85,
        )  # fmt: skip
        return error_of_bins(every)

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
        figure, grid = _grid(scores, title, left=0.1 + width_of("\n".join(look_of), _SMALL), below=0.5)
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
            axes.set_ylim(0, len(shares))
            axes.tick_params(axis="y", length=0, labelsize=_SMALL)
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
        heading = wrapped(title, inches=size[0], points=10)
        figure = Figure(figsize=(size[0], size[1] + 0.17 * heading.count("\n")), layout="constrained")
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
        figure.suptitle(heading, x=0.01, ha="left", fontsize=10)
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
    widest = 0.4 + max(width_of(f"{name} 0.000 *", _SMALL) for name in look_of)
    with style():
        figure, grid = _grid(
            scores, title,
            left=0.6, below=_TO_LEGEND + (len(look_of) + 1) * _LEGEND_LINE + 0.1,
            between=max(0.2, widest - _SIDE), foot=0.25,
        )  # fmt: skip
        for axes, (trained_on, rows) in zip(grid, scores.groupby("trained_on", sort=False), strict=True):
            if diagonal:
                axes.plot([0, 1], [0, 1], color="#999999", lw=0.8, zorder=0)
            axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=labels[0])
            axes.set_xticks([0, 0.5, 1])
            axes.set_yticks([0, 0.5, 1])
            if axes.yaxis.get_tick_params()["labelleft"]:
                axes.set_ylabel(labels[1])
            handles = []
            cells = cells_of(rows)
            most = points_of_each(sum(map(len, cells.values())))
            for generator, look in look_of.items():
                values = [draw(axes, cell, look, most) for cell in cells.get(generator, ())]
                if values:
                    star = " *" if generator in TrainSet.parse(str(trained_on)) else ""
                    text = f"{generator} {decimals(mean_of(values))}{star}"
                    handles.append(Line2D([], [], color=look.colour, ls=look.dash, lw=1.6, label=text))
            axes.legend(
                handles=handles, loc="upper center", bbox_to_anchor=(0.5, -_TO_LEGEND / _SIDE), frameon=False,
                title=value, fontsize=_SMALL, title_fontsize=_SMALL, handlelength=2.6, labelspacing=0.25, borderpad=0,
                borderaxespad=0,
            )  # fmt: skip
        figure.text(0.01, 0.0, "one line per generator that is tested on; * it was trained on", fontsize=8, va="bottom")
    return figure


def _grid(
    scores: pd.DataFrame, title: str, *, left: float, below: float, between: float = 0.2, foot: float = 0.0
) -> tuple[Figure, list[Axes]]:
    """A figure with one panel per training set, at most four in a row; lengths as in `panels`.

    The numbers of the first panel in a row stand for the whole row.
    """
    generators, trained = generators_of(scores), list(map(str, dict.fromkeys(scores["trained_on"])))
    across = min(len(trained), _MAX_ACROSS)
    headings = [
        wrapped(f"trained on {trained_on_label(name, generators)}", inches=_SIDE + between - 0.1, points=9)
        for name in trained
    ]
    width = width_of_row(across, side=_SIDE, left=left, between=between)
    heading = wrapped(title, inches=max(width, _NARROWEST), points=10)
    figure, grid = panels(
        len(trained), across=across, side=_SIDE, left=left, between=between,
        above=0.12 + height_of(max(map(num_lines, headings)), 9), below=below,
        top=0.1 + height_of(num_lines(heading), 10), foot=foot, narrowest=_NARROWEST,
    )  # fmt: skip
    for number, (axes, text) in enumerate(zip(grid, headings, strict=True)):
        axes.set_title(text, fontsize=9)
        axes.tick_params(labelleft=number % across == 0)
    figure.suptitle(heading, x=0.01, y=1.0, ha="left", va="top", fontsize=10)
    return figure, grid
