"""Small multiples of curves: one panel per training set, one line per generator that is tested on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.curves import (
    expected_calibration_error,
    precision_recall_points,
    reliability,
    roc_points,
)
from analysis.figures import style
from analysis.figures.palette import REAL, looks
from analysis.matrices import column_order, trained_on_label
from grid.tasks import cell_rows, generators_of, get_task, list_tasks
from grid.train_sets import TrainSet

NUM_SCORE_BINS = 40
_MAX_ACROSS = 4
_SIDE = 2.7  # inches

Draw = Callable[[Axes, pd.DataFrame, str], float]


def roc_figure(scores: pd.DataFrame, *, title: str) -> Figure:
    """ROC curves; several seeds give several lines, the legend has their mean AUROC.

    Args:
        scores: of one variant's detection runs: generator, label, score, trained_on, seed.
        title: above the panels.
    """

    def draw(axes: Axes, cell: pd.DataFrame, generator: str) -> float:
        from sklearn.metrics import roc_auc_score

        look = looks(generators_of(scores))[generator]
        axes.plot(*roc_points(cell).to_numpy().T, color=look.colour, ls=look.dash, lw=1.4, label=generator)
        return float(roc_auc_score(cell["label"], cell["score"]))

    def frame(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color="#999999", lw=0.8, zorder=0)
        _unit_square(axes, "false positive rate", "true positive rate")

    return _panels(scores, draw, frame, title=title, figure_of_merit="AUROC")


def precision_recall_figure(scores: pd.DataFrame, *, title: str) -> Figure:
    """Precision and recall for "fake"; the grey line is the share of fakes, what guessing gets. As `roc_figure`."""

    def draw(axes: Axes, cell: pd.DataFrame, generator: str) -> float:
        from sklearn.metrics import average_precision_score

        look = looks(generators_of(scores))[generator]
        points = precision_recall_points(cell).to_numpy().T
        # the step-wise curve is the one whose area is the average precision
        axes.plot(*points, color=look.colour, ls=look.dash, lw=1.4, drawstyle="steps-post", label=generator)
        axes.axhline(float((cell["label"] == 1).mean()), color="#999999", lw=0.8, zorder=0)
        return float(average_precision_score(cell["label"], cell["score"]))

    def frame(axes: Axes) -> None:
        _unit_square(axes, "recall", "precision")

    return _panels(scores, draw, frame, title=title, figure_of_merit="AP")


def reliability_figure(scores: pd.DataFrame, *, title: str) -> Figure:
    """How often an image that was given a probability of fake is one; the diagonal is perfect. As `roc_figure`."""

    def draw(axes: Axes, cell: pd.DataFrame, generator: str) -> float:
        look = looks(generators_of(scores))[generator]
        labels, given = cell["label"].to_numpy(), cell["score"].to_numpy()
        bins = reliability(labels, given)
        bins = bins[bins["num_images"] > 0]
        axes.plot(
            bins["probability"], bins["fake"], color=look.colour, ls=look.dash, lw=1.0, marker=look.marker, ms=3,
            alpha=0.85,
            label=generator,
        )  # fmt: skip
        return expected_calibration_error(labels, given)

    def frame(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color="#999999", lw=0.8, zorder=0)
        _unit_square(axes, "probability of fake, as given", "share that is fake")

    return _panels(scores, draw, frame, title=title, figure_of_merit="ECE")


def score_figure(scores: pd.DataFrame, *, title: str) -> Figure:
    """Histograms of the scores, one a class, one above the other; the vertical line is p = 0.5.

    All histograms have the same area. Scores beyond the 0.5 % and 99.5 % quantiles of a panel are counted into its
    outermost bins.

    Args:
        scores: as in `roc_figure`; seeds are pooled.
        title: above the panels.
    """
    looked = looks([REAL, *generators_of(scores)])
    trained = _columns(scores)
    with style():
        figure, grid = _grid(len(trained), title)
        for axes, trained_on in zip(grid, trained, strict=True):
            own = scores[scores["trained_on"] == trained_on]
            edges = _edges(own["score"].to_numpy())
            shares = {}
            for name in looked:
                of_class = own["label"] == 0 if name == REAL else (own["label"] == 1) & (own["generator"] == name)
                values = own.loc[of_class, "score"].clip(edges[0], edges[-1])
                shares[name] = np.histogram(values, edges)[0] / max(len(values), 1)
            highest = max(share.max() for share in shares.values()) or 1.0
            for row, (name, share) in enumerate(shares.items()):
                base = len(shares) - 1 - row  # the first class is on top
                axes.stairs(
                    base + 0.9 * share / highest, edges, baseline=base, fill=True, alpha=0.8,
                    color=looked[name].colour, label=name,
                )  # fmt: skip
            axes.axvline(0, color="#555555", lw=0.8, ls=(0, (4, 2)))
            axes.set_yticks(range(len(shares)), list(shares)[::-1])
            axes.tick_params(axis="y", length=0, labelsize=7.5)
            axes.set_xlabel("score (log-odds of fake)")
            axes.spines[["top", "right", "left"]].set_visible(False)
            axes.set_title(_heading(trained_on, scores), fontsize=9)
    return figure


def _edges(scores: np.ndarray) -> np.ndarray:
    """Of histogram bins that cover nearly all scores and zero; fewer where there are few scores."""
    low, high = np.quantile(scores, [0.005, 0.995])
    low, high = min(float(low), 0.0), max(float(high), 0.0)
    return np.linspace(low, high if high > low else low + 1, int(np.clip(len(scores) // 20, 10, NUM_SCORE_BINS)) + 1)


def training_figure(history: pd.DataFrame, *, title: str, generators: Sequence[str] = ()) -> Figure | None:
    """Losses and accuracies over epochs: one row per quantity, one column per trial; None where nothing has two.

    Args:
        history: of one variant's runs, from `Store.history`: task, trained_on, seed, metric, step, value. Metrics other
            than train/… and valid/… of a loss or an accuracy are left out.
        title: above the panels.
        generators: all generators, in the order of tables.
    """
    parts = history["metric"].str.extract(r"^(?P<split>train|valid)/(?P<quantity>loss|accuracy)$")
    history = history.assign(**parts).dropna(subset=["split"])
    if history.empty or history.groupby(["task", "trained_on", "seed", "metric"])["step"].nunique().max() < 2:
        return None
    quantities = [name for name in ("loss", "accuracy") if name in set(history["quantity"])]
    names = [
        (trained_on, str(task))
        for task, of_task in history.groupby("task", sort=False)
        for trained_on in column_order(of_task["trained_on"], generators)
    ]
    names.sort(key=lambda name: list_tasks().index(name[1]))
    everything = generators or sorted({name for text, _ in names for name in TrainSet.parse(text).generators})
    dashes = {"train": "-", "valid": (0, (4, 1.5))}
    colours = {"train": "#0072b2", "valid": "#d55e00"}
    with style():
        figure = Figure(figsize=(max(2.3 * len(names), 4.6) + 0.3, 1.9 * len(quantities) + 0.9), layout="constrained")
        grid = figure.subplots(len(quantities), len(names), squeeze=False, sharey="row")
        for row, quantity in zip(grid, quantities, strict=True):
            for axes, (trained_on, task) in zip(row, names, strict=True):
                own = history[
                    (history["quantity"] == quantity)
                    & (history["trained_on"] == trained_on)
                    & (history["task"] == task)
                ]
                for (split, _), line in own.groupby(["split", "seed"], sort=True):
                    line = line.sort_values("step")
                    axes.plot(
                        line["step"], line["value"], color=colours[str(split)], ls=dashes[str(split)], lw=1.3,
                        marker="o" if split == "train" else "s", ms=3,
                    )  # fmt: skip
                axes.xaxis.get_major_locator().set_params(integer=True)
                if quantity == "accuracy":
                    axes.set_ylim(-0.02, 1.02)
                axes.grid(color="#eeeeee")
        for axes, (trained_on, task) in zip(grid[0], names, strict=True):
            words = get_task(task).label(TrainSet.parse(trained_on), everything)
            axes.set_title(words.replace("trained on ", "trained on\n"), fontsize=9)
        for axes in grid[-1]:
            axes.set_xlabel("epoch")
        for row, quantity in zip(grid, quantities, strict=True):
            row[0].set_ylabel(quantity)
        figure.suptitle(title, x=0.01, ha="left", fontsize=10)
        splits = [split for split in dashes if split in set(history["split"])]
        handles = [
            Line2D([], [], color=colours[split], ls=dashes[split], marker="o" if split == "train" else "s", ms=4,
                   label="training" if split == "train" else "validation")
            for split in splits
        ]  # fmt: skip
        _legend(figure, handles)
    return figure


def _panels(
    scores: pd.DataFrame,
    draw: Draw,
    frame: Callable[[Axes], None],
    *,
    title: str,
    figure_of_merit: str,
) -> Figure:
    trained = _columns(scores)
    generators = generators_of(scores)
    with style():
        figure, grid = _grid(len(trained), title)
        for axes, trained_on in zip(grid, trained, strict=True):
            frame(axes)
            own = scores[scores["trained_on"] == trained_on]
            lines = []
            for generator in generators:
                values = [
                    draw(axes, of_seed[cell_rows(of_seed, generator)], generator)
                    for _, of_seed in own.groupby("seed", sort=True)
                    if generator in generators_of(of_seed)
                ]
                if values:
                    look = looks(generators)[generator]
                    text = f"{generator} {np.mean(values):.3f}"
                    if generator in TrainSet.parse(trained_on):
                        text += " *"
                    lines.append(Line2D([], [], color=look.colour, ls=look.dash, lw=1.6, label=text))
            options: dict[str, Any] = {
                "fontsize": 7.5,
                "title_fontsize": 7.5,
                "handlelength": 2.6,
                "labelspacing": 0.25,
            }
            axes.legend(
                handles=lines, loc="upper center", bbox_to_anchor=(0.5, -0.2), frameon=False, title=figure_of_merit,
                **options,
            )  # fmt: skip
            axes.set_title(_heading(trained_on, scores), fontsize=9)
        figure.supxlabel("one line per generator that is tested on; * it was trained on", fontsize=8, x=0.01, ha="left")
    return figure


def _grid(count: int, title: str) -> tuple[Figure, list[Axes]]:
    """A figure with `count` panels in rows of at most four."""
    across = max(1, min(count, _MAX_ACROSS))
    down = -(-max(count, 1) // across)
    figure = Figure(figsize=(max(across * _SIDE, 4.6) + 0.2, down * (_SIDE + 0.8) + 0.6), layout="constrained")
    grid = list(figure.subplots(down, across, squeeze=False).ravel())
    for axes in grid[count:]:
        axes.remove()
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    return figure, grid[:count]


def _legend(figure: Figure, handles: Sequence[Line2D]) -> None:
    figure.legend(handles=handles, loc="outside lower left", ncols=min(len(handles), 5), frameon=False, fontsize=8)


def _unit_square(axes: Axes, across: str, up: str) -> None:
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=across, ylabel=up, aspect="equal")
    axes.set_xticks([0, 0.5, 1])
    axes.set_yticks([0, 0.5, 1])


def _columns(scores: pd.DataFrame) -> list[str]:
    return [str(name) for name in dict.fromkeys(scores["trained_on"])]


def _heading(trained_on: str, scores: pd.DataFrame) -> str:
    return f"trained on {trained_on_label(trained_on, generators_of(scores))}"
