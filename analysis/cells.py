"""Every cell of every matrix, with its spread over seeds and its interval over images; and methods compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from analysis.intervals import (
    NUM_RESAMPLES,
    Cell,
    Resampler,
    difference_of,
    has_interval,
    interval_of,
    proportion_interval,
)
from analysis.matrices import OVERALL, MatrixMeans, class_of, column_order, matrix_means, of_condition, pivot
from analysis.store import Store, StoreError
from data.conditions import CLEAN
from grid import names
from grid.tasks import ATTRIBUTION, DETECTION, REAL, class_names, get_task
from grid.train_sets import TrainSet
from models.metrics import AT_VALIDATION, get_metric

CELL, IN_DOMAIN, CROSS_GENERATOR, GAP = "cell", "in-domain mean", "cross-generator mean", "gap"
CELL_COLUMNS = [
    "kind", "task", "variant", "condition", "trained_on", "tested_on", "metric", "mean", "std", "num_seeds", "low",
    "high", "run_ids",
]  # fmt: skip
_SOURCES = ["source_id", "generator", "label"]

Where = tuple[str, str, str]  # trained on, tested on, metric


@dataclass(frozen=True, eq=False)
class IntervalMatrix:
    """One variant's matrix of one metric, rows tested on and columns trained on; NaN where a cell is missing.

    Attributes:
        variant: the method, with its settings where they differ.
        metric: name of the metric.
        mean: over seeds.
        std: sample standard deviation over seeds; NaN for a single one.
        num_seeds: how many finished runs are in each cell; 0 where it is missing.
        low, high: 95 % interval over source images; NaN where the metric has none.
        means: in-domain and cross-generator mean.
        intervals: "in-domain mean", "cross-generator mean" and "gap" -> (low, high).
        condition: of the test pictures.
    """

    variant: str
    metric: str
    mean: pd.DataFrame
    std: pd.DataFrame
    num_seeds: pd.DataFrame
    low: pd.DataFrame
    high: pd.DataFrame
    means: MatrixMeans
    intervals: Mapping[str, tuple[float, float]]
    condition: str = CLEAN


def cell_table(
    store: Store,
    *,
    metrics: Sequence[str] = ("accuracy",),
    variants: Iterable[str] | None = None,
    conditions: Sequence[str] = (CLEAN,),
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """Every cell of every matrix, and every attribution value, with its spread over seeds and its interval.

    Values are the logged ones; a metric that a run has not logged is computed from its logged scores. Intervals are
    95 % intervals over source images from those scores, with seeds pooled (see `analysis.intervals`). Each run's scores
    are read once per condition, whatever the number of metrics.

    Args:
        store: the grid.
        metrics: names as logged. Where a task has several classes, "accuracy" brings the accuracy of each with it.
        variants: only these; None: all.
        conditions: of the test pictures.
        num_resamples: B.
        seed: of the resampling.

    Returns:
        columns `CELL_COLUMNS`. `kind` is "cell", or for a whole matrix "in-domain mean", "cross-generator mean" and
        "gap" (then trained_on and tested_on are "", and `std` is over the seeds that all their cells have). `tested_on`
        is "all" for attribution. `std` is NaN for a single seed; `low` and `high` are NaN for metrics that images have
        no part in. `run_ids` is a tuple. A metric that no run has logged and nobody knows has no rows.

    Raises:
        StoreError: a run's scores are missing or cannot be read.
    """
    results = store.results()
    if variants is not None:
        results = results[results["variant"].isin(list(variants))]
    if results.empty:
        return pd.DataFrame(columns=CELL_COLUMNS)
    resampler = _resampler(store, results, num_resamples, seed)
    rows: list[dict[str, object]] = []
    for condition in conditions:
        of_one = of_condition(results, condition)
        for (task, variant), of_variant in of_one.groupby(["task", "variant"], sort=False):
            shared = {"task": str(task), "variant": str(variant), "condition": condition}
            resampled = _resample(store, of_variant, metrics, resampler, condition)
            rows += [shared | row for row in _cells(resampled)]
            if get_task(str(task)).is_binary:
                rows += [shared | row for metric in metrics for row in _mean_rows(resampled, metric)]
    return pd.DataFrame(rows, columns=CELL_COLUMNS)


def matrix_with_intervals(
    store: Store,
    variant: str,
    metric: str = "accuracy",
    *,
    cells: pd.DataFrame | None = None,
    condition: str = CLEAN,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> IntervalMatrix:
    """One variant's matrix with everything that belongs to it; planned columns are there even when nothing is finished.

    Args:
        store: the grid.
        variant: as in `Store.runs`.
        metric: as logged.
        cells: from `cell_table`, if that is there already: it is the part that takes time.
        condition: of the test pictures.
        num_resamples: B.
        seed: of the resampling.

    Raises:
        ValueError: no such variant; the message lists what exists.
        StoreError: as `cell_table`.
    """
    runs = store.runs()
    runs = runs[runs["task"] == DETECTION]
    if variant not in set(runs["variant"]):
        raise ValueError(f"no detection by {variant!r}; there are: {', '.join(dict.fromkeys(runs['variant']))}")
    if cells is None:
        cells = cell_table(
            store, metrics=[metric], variants=[variant], conditions=[condition], num_resamples=num_resamples, seed=seed
        )
    cells = of_condition(cells, condition)
    cells = cells[(cells["task"] == DETECTION) & (cells["variant"] == variant) & (cells["metric"] == metric)]
    planned = set(runs.loc[runs["variant"] == variant, "trained_on"])
    inside = cells[cells["kind"] == CELL]
    parts = {
        name: pivot(inside, name, generators=store.generators, planned=planned)
        for name in ("mean", "std", "num_seeds", "low", "high")
    }
    wholes = cells[cells["kind"] != CELL]
    intervals = {
        str(kind): (float(low), float(high))
        for kind, low, high in zip(wholes["kind"], wholes["low"], wholes["high"], strict=True)
    }
    parts["num_seeds"] = parts["num_seeds"].fillna(0).astype(int)
    means = matrix_means(parts["mean"])
    return IntervalMatrix(variant, metric, **parts, means=means, intervals=intervals, condition=condition)


def attribution_with_intervals(
    store: Store, *, cells: pd.DataFrame | None = None, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> pd.DataFrame:
    """Attribution accuracy with intervals, one row per variant and class ("overall", "real", then the generators).

    Args:
        store: the grid.
        cells: from `cell_table` with the metric "accuracy", if that is there already.
        num_resamples: B.
        seed: of the resampling.

    Returns:
        columns variant, class, mean, std, num_seeds, low, high, run_ids.
    """
    if cells is None:
        cells = cell_table(store, num_resamples=num_resamples, seed=seed)
    cells = of_condition(cells, CLEAN)
    rows = cells[(cells["task"] == ATTRIBUTION) & cells["metric"].str.match("accuracy(/|$)")]
    rows = rows.assign(**{"class": rows["metric"].map(class_of)})
    order = [OVERALL, REAL, *store.ordered(set(rows["class"]) - {OVERALL, REAL})]
    variants = list(dict.fromkeys(rows["variant"]))
    rank = rows["variant"].map(variants.index) * len(order) + rows["class"].map(order.index)
    columns = ["variant", "class", "mean", "std", "num_seeds", "low", "high", "run_ids"]
    return rows.iloc[np.argsort(rank.to_numpy(), kind="stable")][columns].reset_index(drop=True)


def compare(
    store: Store, a: str, b: str, metric: str = "accuracy", *, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> pd.DataFrame:
    """One variant against another by a paired bootstrap over source images, on clean pictures: a minus b.

    Only cells that both have are compared. With several seeds each side is the mean over its own.

    Returns:
        columns kind, task, trained_on, tested_on, metric, a, b, difference, low, high, p. `kind` is "cell", "mean"
        (over all cells), "in-domain mean" or "cross-generator mean". p values are not corrected for their number, and
        never below 2 / (B + 1).

    Raises:
        ValueError: no such variant, a metric without intervals, or no cell that both have.
        StoreError: as `cell_table`.
    """
    results = of_condition(store.results(), CLEAN)
    for variant in (a, b):
        if variant not in set(results["variant"]):
            names = ", ".join(dict.fromkeys(results["variant"]))
            raise ValueError(f"no finished run of {variant!r}; there are: {names}")
    results = results[results["variant"].isin([a, b])]
    columns = ["kind", "task", "trained_on", "tested_on", "metric", "a", "b", "difference", "low", "high", "p"]
    resampler = _resampler(store, results, num_resamples, seed)
    rows: list[dict[str, object]] = []
    for task, of_task in results.groupby("task", sort=False):
        sides = [
            _resample(store, of_task[of_task["variant"] == variant], [metric], resampler, CLEAN) for variant in (a, b)
        ]
        shared = [where for where in sides[0] if where in sides[1] and sides[0][where].distribution is not None]
        groups: list[tuple[str, list[Where], Where]] = [(CELL, [where], where) for where in shared]
        if get_task(str(task)).is_binary:
            inside = [where for where in shared if _is_in_domain(where)]
            outside = [where for where in shared if not _is_in_domain(where)]
            kinds = {"mean": shared, IN_DOMAIN: inside, CROSS_GENERATOR: outside}
            groups += [(kind, cells, ("", "", metric)) for kind, cells in kinds.items() if cells]
        for kind, cells, (trained_on, tested_on, name) in groups:
            means = [float(np.mean([side[where].mean for where in cells])) for side in sides]
            differences = [sides[0][where].resamples - sides[1][where].resamples for where in cells]
            difference = difference_of(means[0] - means[1], np.mean(differences, axis=0))
            rows.append(
                {
                    "kind": kind, "task": task, "trained_on": trained_on, "tested_on": tested_on, "metric": name,
                    "a": means[0], "b": means[1], "difference": difference.value, "low": difference.low,
                    "high": difference.high, "p": difference.p,
                }
            )  # fmt: skip
    if not rows:
        raise ValueError(f"{a!r} and {b!r} have no finished cell of {metric!r} in common that images can be drawn for")
    return pd.DataFrame(rows, columns=columns)


@dataclass
class _Resampled:
    """One cell of one variant and metric.

    Attributes:
        values: one row per run: run_id, seed, value.
        distribution: the sum over runs of the resampled values (B,); None for a metric that images have no part in.
        cell: the answers of the last run.
    """

    values: list[tuple[str, int, float]]
    distribution: np.ndarray | None = None
    cell: Cell | None = None

    @property
    def mean(self) -> float:
        return float(pd.Series([value for _, _, value in self.values]).mean())

    @property
    def resamples(self) -> np.ndarray:
        """Averaged over the runs."""
        return np.array([]) if self.distribution is None else self.distribution / len(self.values)

    @property
    def by_seed(self) -> pd.Series:
        table = pd.DataFrame(self.values, columns=["run_id", "seed", "value"])
        return table.groupby("seed")["value"].mean()


def _resampler(store: Store, results: pd.DataFrame, num_resamples: int, seed: int) -> Resampler:
    """Draws of the test set's sources: every run was scored on the same images."""
    first = store.scores(results["run_id"].iloc[0], columns=_SOURCES)
    return Resampler([first], num_resamples=num_resamples, seed=seed)


def _resample(
    store: Store, results: pd.DataFrame, metrics: Sequence[str], resampler: Resampler, condition: str
) -> dict[Where, _Resampled]:
    """Every cell of one task, variant and condition.

    On one thread: the matrix products are so small that more only wait for each other.
    """
    resampled: dict[Where, _Resampled] = {}
    with threadpool_limits(limits=1, user_api="blas"):
        for (run_id, trained_on, seed, task), logged in results.groupby(
            ["run_id", "trained_on", "seed", "task"], sort=False
        ):
            classes = get_task(str(task)).classes(TrainSet.parse(str(trained_on)))
            values = {
                (str(tested_on), str(metric)): float(value)
                for tested_on, metric, value in logged[["tested_on", "metric", "value"]].to_numpy().tolist()
            }
            names = _wanted(values, metrics, classes, binary=get_task(str(task)).is_binary)
            resamples = any(has_interval(classes, metric) for _, metric in names)
            tested = {tested_on for tested_on, _ in names}
            read = (store, str(run_id), str(task), classes, tested, resampler, condition)
            cells = _read_cells(*read) if resamples else {}
            threshold = store.threshold(str(run_id))
            for tested_on, metric in names:
                entry = resampled.setdefault((str(trained_on), tested_on, metric), _Resampled([]))
                value = values.get((tested_on, metric))
                if has_interval(classes, metric):
                    plain = metric.removesuffix(AT_VALIDATION)
                    at = threshold if metric != plain else 0.0
                    drawn = resampler.distribution(cells[tested_on], plain, at)
                    entry.distribution = drawn if entry.distribution is None else entry.distribution + drawn
                    entry.cell = cells[tested_on]
                    if value is None:
                        answers = cells[tested_on].answers
                        value = get_metric(plain).value(answers if answers.scores is None else answers.at(at))
                if value is not None:
                    entry.values.append((str(run_id), int(str(seed)), value))
    return {where: resampled[where] for where in _in_order(store, resampled) if resampled[where].values}


def _in_order(store: Store, cells: Iterable[Where]) -> list[Where]:
    """Cells in the order of tables: by training set, by what is tested on, and the accuracies of classes by class."""
    cells = list(cells)
    trained = {name for trained_on, _, _ in cells for name in TrainSet.parse(trained_on).generators}
    generators = store.ordered(trained | {tested_on for _, tested_on, _ in cells})
    columns = column_order({trained_on for trained_on, _, _ in cells}, generators)
    classes = [OVERALL, REAL, *generators]

    def key(where: Where) -> tuple[int, int, int]:
        trained_on, tested_on, metric = where
        own = classes.index(class_of(metric)) if class_of(metric) in classes else len(classes)
        return columns.index(trained_on), generators.index(tested_on), own

    return sorted(cells, key=key)


def _wanted(
    logged: Mapping[tuple[str, str], float], metrics: Sequence[str], classes: Sequence[str], *, binary: bool
) -> list[tuple[str, str]]:
    """(tested on, metric) of a run's cells: what was logged, and what can be computed from its scores."""
    names = dict.fromkeys(
        where for where in logged if where[1] in metrics or (where[1].startswith("accuracy/") and "accuracy" in metrics)
    )
    for tested_on in dict.fromkeys(tested_on for tested_on, _ in logged):
        for metric in metrics:
            if has_interval(classes, metric) and (binary or not metric.endswith(AT_VALIDATION)):
                names.setdefault((tested_on, metric))
    return list(names)


def _read_cells(
    store: Store,
    run_id: str,
    task: str,
    classes: Sequence[str],
    tested: Set[str],
    resampler: Resampler,
    condition: str,
) -> dict[str, Cell]:
    """Tested on -> its images, from one reading of the run's scores, which must hold each of `tested`."""
    binary = get_task(task).is_binary
    columns = ["score"] if binary else [f"logit_{name}" for name in classes]
    try:
        scores = store.scores(run_id, columns=[*_SOURCES, *columns], condition=condition)
        numbers, rows = get_task(task).class_numbers(scores, classes), get_task(task).cells(scores, classes)
        absent = sorted(tested - set(rows))
        if not binary:
            absent += [name for number, name in enumerate(classes) if number not in numbers]
        if absent:
            listed = ", ".join(dict.fromkeys(class_names(scores)))
            raise ValueError(f"they have no image of {', '.join(absent)}; there are: {listed}")
        return {tested_on: resampler.cell(scores[cell], numbers[cell]) for tested_on, cell in rows.items()}
    except StoreError:
        raise
    except (ValueError, KeyError) as error:
        raise store.broken(run_id, names.condition_artifact(condition, names.SCORES), error) from error


def _cells(resampled: Mapping[Where, _Resampled]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for (trained_on, tested_on, metric), entry in resampled.items():
        if entry.cell is None:
            interval = interval_of(np.array([]))
        else:
            plain = metric.removesuffix(AT_VALIDATION)
            interval = proportion_interval(entry.resamples, entry.cell, plain, entry.mean)
        rows.append(
            {
                "kind": CELL, "trained_on": trained_on, "tested_on": tested_on, "metric": metric, "mean": entry.mean,
                "std": pd.Series([value for _, _, value in entry.values]).std(ddof=1),
                "num_seeds": len(entry.values), "low": interval.low, "high": interval.high,
                "run_ids": tuple(run_id for run_id, _, _ in entry.values),
            }
        )  # fmt: skip
    return rows


def _mean_rows(resampled: Mapping[Where, _Resampled], metric: str) -> list[dict[str, object]]:
    """In-domain mean, cross-generator mean and their gap, over the cells of one variant and metric."""
    of_metric = [where for where in resampled if where[2] == metric]
    means: dict[str, float] = {}
    by_seed: dict[str, pd.Series] = {}
    drawn: dict[str, np.ndarray] = {}
    for kind, in_domain in ((IN_DOMAIN, True), (CROSS_GENERATOR, False)):
        chosen = [resampled[where] for where in of_metric if _is_in_domain(where) == in_domain]
        if chosen:
            means[kind] = float(np.mean([entry.mean for entry in chosen]))
            # of the seeds that every cell has
            by_seed[kind] = pd.concat([entry.by_seed for entry in chosen], axis=1, join="inner").mean(axis=1)
            with_images = [entry.resamples for entry in chosen if entry.distribution is not None]
            drawn[kind] = np.mean(with_images, axis=0) if with_images else np.array([])
    if len(means) == 2:
        means[GAP] = means[IN_DOMAIN] - means[CROSS_GENERATOR]
        drawn[GAP] = drawn[IN_DOMAIN] - drawn[CROSS_GENERATOR]
        by_seed[GAP] = (by_seed[IN_DOMAIN] - by_seed[CROSS_GENERATOR]).dropna()
    rows: list[dict[str, object]] = []
    for kind, mean in means.items():
        interval = interval_of(drawn[kind])
        rows.append(
            {
                "kind": kind, "trained_on": "", "tested_on": "", "metric": metric, "mean": mean,
                "std": float(by_seed[kind].std(ddof=1)),
                "num_seeds": min(len(resampled[where].values) for where in of_metric),
                "low": interval.low, "high": interval.high, "run_ids": (),
            }
        )  # fmt: skip
    return rows


def _is_in_domain(where: Where) -> bool:
    trained_on, tested_on, _ = where
    return tested_on in TrainSet.parse(trained_on)
