"""Every cell of every matrix with its spread over seeds and its two intervals; comparison of methods."""

from __future__ import annotations

import json
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd

from analysis.intervals import (
    NO_INTERVAL,
    NO_SPREAD,
    Cell,
    Estimate,
    Interval,
    Part,
    Sources,
    average,
    difference,
    has_interval,
    mean,
)
from analysis.matrices import OVERALL, MatrixMeans, class_of, column_order, matrix_means, pivots
from analysis.seeds import NONE, Pool, Runs, SeedSpread, added, by_train_set, joined, of_sum, pooled
from analysis.soundness import SOURCE_COLUMNS
from analysis.store import Store, StoreError
from data.conditions import CLEAN
from grid import names
from grid.means import CROSS_GENERATOR, IN_DOMAIN, mean_of
from grid.tasks import ATTRIBUTION, DETECTION, REAL, Task, class_names, get_task
from grid.train_sets import TrainSet
from models.metrics import AT_VALIDATION, get_metric, is_at_half
from models.registry import depends_on_seed, gives_log_odds

# Ends of the kinds of means, where some training sets have one generator and others have several.
ONE_GENERATOR, SEVERAL_GENERATORS = ", trained on one generator", ", trained on several generators"
METHODS, THESE_RUNS = "the methods", "these runs"  # what a comparison is about
CELL, GAP = "cell", "gap"
CELL_COLUMNS = [
    "kind", "task", "variant", "condition", "trained_on", "tested_on", "metric", "mean", "std", "num_seeds", "seeded",
    "low", "high", "one_more_low", "one_more_high", "run_ids",
]  # fmt: skip

Where = tuple[str, str, str]  # trained on, tested on, metric


@dataclass(frozen=True, eq=False)
class IntervalMatrix:
    """One variant's matrix of one metric, rows tested on and columns trained on; NaN if a cell is missing.

    Attributes:
        variant: the method, with its settings if it has several configurations.
        metric: name of the metric.
        mean: mean over seeds.
        std: sample standard deviation over seeds; NaN for a single seed.
        num_seeds: number of finished runs per cell; 0 if it is missing.
        low, high: 95 % confidence interval of the mean over seeds and photographs; with one seed, of this one run over
            photographs; NaN if the metric has none.
        means: in-domain and cross-generator mean.
        intervals: "in-domain mean", "cross-generator mean" and "gap" -> (low, high).
        condition: condition of the test pictures.
        one_more_low, one_more_high: 95 % prediction interval of one more run; NaN with one seed; empty: the
            matrix has none.
        seeded: whether the method depends on the seed.
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
    one_more_low: pd.DataFrame = field(default_factory=pd.DataFrame)
    one_more_high: pd.DataFrame = field(default_factory=pd.DataFrame)
    seeded: bool = True


def cell_table(
    store: Store,
    *,
    metrics: Sequence[str] = ("accuracy",),
    conditions: Sequence[str] = (CLEAN,),
) -> pd.DataFrame:
    """Every cell of every matrix, and every attribution value, with its spread over seeds and its two intervals.

    Values are the logged ones; a metric that a run has not logged is computed from its logged scores. `low` and `high`
    are the 95 % confidence interval of the mean: over seeds and source photographs; with one seed, of this one run over
    photographs alone. `one_more_low` and `one_more_high` are the 95 % prediction interval of one more run; NaN with one
    seed (see `analysis.intervals` and `analysis.seeds`). Each run's scores are read once per condition, whatever the
    number of metrics.

    Args:
        store: the grid.
        metrics: names as logged. For a task with several classes, "accuracy" includes the accuracy of each class.
        conditions: conditions of the test pictures.

    Returns:
        columns `CELL_COLUMNS`. `kind` is "cell", or for a whole matrix "in-domain mean", "cross-generator mean" and
        "gap"; the same ends with `ONE_GENERATOR` or `SEVERAL_GENERATORS` for a part of the training sets, where there
        are both (then trained_on and tested_on are "", and `std` is over the seeds that all their cells have).
        `tested_on` is "all" for attribution. `std` is NaN for a single seed; intervals are NaN for metrics that cannot
        be computed from scores. `seeded` is False for a method that does not depend on the seed, whose seed variance
        is 0. `run_ids` is a tuple. A metric that is neither logged nor registered has no rows.

    Raises:
        StoreError: a run's scores are missing or cannot be read.
    """
    results = store.results()
    if results.empty:
        return pd.DataFrame(columns=CELL_COLUMNS)
    sources = _sources(store, results)
    rows: list[dict[str, object]] = []
    for condition in conditions:
        of_condition = results[results["condition"] == condition]
        for (task, variant), of_variant in of_condition.groupby(["task", "variant"], sort=False):
            shared = {"task": str(task), "variant": str(variant), "condition": condition}
            entries = _entries(store, of_variant, metrics, sources, condition)
            seeds = _Seeds(entries)
            rows += [shared | _cell_row(where, entry, seeds) for where, entry in entries.items()]
            if get_task(str(task)).is_binary:
                for metric in metrics:
                    for suffix, of_kind in _kinds(entries, metric).items():
                        rows += [shared | row for row in _mean_rows(of_kind, metric, seeds, suffix)]
    return pd.DataFrame(rows, columns=CELL_COLUMNS)


def matrix_with_intervals(
    store: Store, variant: str, metric: str = "accuracy", *, cells: pd.DataFrame, condition: str = CLEAN
) -> IntervalMatrix:
    """One variant's matrix with spreads and intervals, including planned columns without a finished run.

    Args:
        store: the grid.
        variant: as in `Store.runs`.
        metric: as logged.
        cells: from `cell_table`, with this metric and condition.
        condition: condition of the test pictures.

    Raises:
        ValueError: no such variant; the message lists what exists.
    """
    runs = store.runs()
    runs = runs[runs["task"] == DETECTION]
    if variant not in set(runs["variant"]):
        raise ValueError(f"no detection by {variant!r}; there are: {', '.join(dict.fromkeys(runs['variant']))}")
    cells = cells[
        (cells["task"] == DETECTION)
        & (cells["variant"] == variant)
        & (cells["metric"] == metric)
        & (cells["condition"] == condition)
    ]
    planned = set(runs.loc[runs["variant"] == variant, "trained_on"])
    values = ("mean", "std", "num_seeds", "low", "high", "one_more_low", "one_more_high")
    parts = pivots(cells[cells["kind"] == CELL], values, generators=store.generators, planned=planned)
    parts["num_seeds"] = parts["num_seeds"].fillna(0).astype(int)
    means = cells[cells["kind"] != CELL]
    intervals = {
        str(kind): (float(low), float(high))
        for kind, low, high in zip(means["kind"], means["low"], means["high"], strict=True)
    }
    return IntervalMatrix(
        variant,
        metric,
        **parts,
        seeded=bool(cells["seeded"].astype(bool).all()),
        means=matrix_means(parts["mean"]),
        intervals=intervals,
        condition=condition,
    )


def attribution_with_intervals(store: Store, cells: pd.DataFrame) -> pd.DataFrame:
    """Attribution accuracy with intervals, one row per variant and class ("overall", "real", then the generators).

    Args:
        store: the grid.
        cells: from `cell_table` with the metric "accuracy".

    Returns:
        columns variant, class, mean, std, num_seeds, seeded, low, high, one_more_low, one_more_high, run_ids.
    """
    rows = cells[
        (cells["task"] == ATTRIBUTION) & (cells["condition"] == CLEAN) & cells["metric"].str.match("accuracy(/|$)")
    ]
    rows = rows.assign(**{"class": rows["metric"].map(class_of)})
    order = {
        "variant": list(dict.fromkeys(rows["variant"])),
        "class": [OVERALL, REAL, *store.ordered(set(rows["class"]) - {OVERALL, REAL})],
    }
    rows = rows.sort_values(
        list(order), key=lambda column: column.map(order[str(column.name)].index), ignore_index=True
    )
    return rows[["variant", "class", *CELL_COLUMNS[CELL_COLUMNS.index("mean") :]]]


def compare(store: Store, a: str, b: str, metric: str = "accuracy") -> pd.DataFrame:
    """One variant minus another on clean pictures, paired by source photograph (`analysis.intervals.difference`).

    Only cells that both variants have are compared. With several seeds, each variant's value is the mean over its own.

    Returns:
        columns kind, task, trained_on, tested_on, metric, a, b, difference, low, high, p, about. `kind` is "cell",
        "mean" (over all cells), "in-domain mean" or "cross-generator mean". `about` says what `low`, `high` and `p` are
        about: `METHODS` where the seeds of both sides are known to change the value by how much (several seeds, or a
        method that does not depend on the seed), else `THESE_RUNS`: another seed could give another answer. p values
        are not corrected for their number.

    Raises:
        ValueError: no such variant, a metric without intervals, or no cell that both have.
        StoreError: as `cell_table`.
    """
    results = store.results()
    results = results[results["condition"] == CLEAN]
    for variant in (a, b):
        if variant not in set(results["variant"]):
            names = ", ".join(dict.fromkeys(results["variant"]))
            raise ValueError(f"no finished run of {variant!r}; there are: {names}")
    results = results[results["variant"].isin([a, b])]
    sources = _sources(store, results)
    rows: list[dict[str, object]] = []
    for task, of_task in results.groupby("task", sort=False):
        sides = [
            _entries(store, of_task[of_task["variant"] == variant], [metric], sources, CLEAN) for variant in (a, b)
        ]
        seeds = [_Seeds(side) for side in sides]
        shared = [where for where in sides[0] if where in sides[1] and sides[0][where].parts]
        groups: list[tuple[str, list[Where], Where]] = [(CELL, [where], where) for where in shared]
        if get_task(str(task)).is_binary:
            in_domain = [where for where in shared if _is_in_domain(where)]
            others = [where for where in shared if not _is_in_domain(where)]
            kinds = {"mean": shared, IN_DOMAIN: in_domain, CROSS_GENERATOR: others}
            groups += [(kind, cells, ("", "", metric)) for kind, cells in kinds.items() if cells]
        for kind, cells, (trained_on, tested_on, name) in groups:
            means = [mean([side[where].estimate for where in cells]) for side in sides]
            by_seeds = [of_side.of(dict.fromkeys(cells, 1 / len(cells))).of_mean for of_side in seeds]
            spread = NO_SPREAD if a == b else added(by_seeds)
            found = difference(means[0], means[1], spread if spread.is_known else NO_SPREAD)
            where = {"kind": kind, "task": task, "trained_on": trained_on, "tested_on": tested_on, "metric": name}
            values = {"a": means[0].value, "b": means[1].value, **found._asdict()}
            rows.append({**where, **values, "about": METHODS if spread.is_known else THESE_RUNS})
    if not rows:
        raise ValueError(f"{a!r} and {b!r} have no finished cell of {metric!r} in common that has an interval")
    return pd.DataFrame(rows)


def cell_estimates(
    store: Store, run_ids: Collection[str], metric: str, *, condition: str = CLEAN
) -> dict[tuple[str, str], Estimate]:
    """(trained on, tested on) -> a cell's mean over seeds, with its interval, of runs of one variant and task.

    Estimates of the same grid can be paired with `analysis.intervals.difference` and averaged with `mean`.

    Args:
        store: the grid.
        run_ids: of finished runs that were scored under the condition.
        metric: as logged, with an interval.
        condition: condition of the test pictures.

    Raises:
        StoreError: a run's scores are missing or cannot be read.
    """
    results = store.results()
    results = results[results["run_id"].isin(set(run_ids)) & (results["condition"] == condition)]
    if results.empty:
        return {}
    entries = _entries(store, results, [metric], _sources(store, results), condition)
    return {where[:2]: entry.estimate for where, entry in entries.items() if where[2] == metric and entry.parts}


def detection_estimates(store: Store, metrics: Sequence[str], sources: Sources) -> dict[str, dict[Where, Estimate]]:
    """Every cell of detection on clean pictures, averaged over seeds: variant -> cell -> value with its interval.

    Metrics without intervals are left out. `sources`: of the test set, so that values can be compared.
    """
    results = store.results()
    results = results[(results["condition"] == CLEAN) & (results["task"] == DETECTION)]
    found = {}
    for variant, rows in results.groupby("variant", sort=False):
        entries = _entries(store, rows, metrics, sources, CLEAN)
        found[str(variant)] = {where: entry.estimate for where, entry in entries.items() if entry.parts}
    return found


@dataclass
class _Entry:
    """One cell of one variant and metric.

    Attributes:
        run_ids: of its runs, one per seed.
        values: seed -> value.
        parts: per seed, what the metric is the sum of; empty for a metric without intervals.
        seeded: whether the method depends on the seed.
    """

    run_ids: list[str] = field(default_factory=list)
    values: dict[int, float] = field(default_factory=dict)
    parts: list[list[Part]] = field(default_factory=list)
    seeded: bool = True

    @property
    def mean(self) -> float:
        return mean_of(self.values.values())

    @cached_property
    def estimate(self) -> Estimate:
        """Averaged over seeds."""
        return average(self.parts)


class _Seeds:
    """What the seeds do to the values of one variant, task and condition.

    Args:
        entries: its cells, of any metrics.
    """

    def __init__(self, entries: Mapping[Where, _Entry]) -> None:
        self._entries = entries
        self._seeded = any(entry.seeded for entry in entries.values())
        self._pools: dict[str, Pool] = {}

    def of(self, coefficients: Mapping[Where, float]) -> SeedSpread:
        """For a sum over cells of one metric: cell -> how often it counts. A single cell's variance is the pool's."""
        if not self._seeded:
            return NONE
        if len(coefficients) == 1:
            ((where, _),) = coefficients.items()
            entry = self._entries[where]
            return self._pool(where[2]).of(entry.mean, len(entry.values))
        runs = self._runs(coefficients)
        of_train_set: dict[Hashable, dict[Hashable, float]] = {train_set: {} for train_set in runs}
        for (trained_on, *cell), coefficient in coefficients.items():
            of_train_set[trained_on][tuple(cell)] = coefficient
        return of_sum((runs[train_set], own) for train_set, own in of_train_set.items())

    def _pool(self, metric: str) -> Pool:
        """Of this metric; the accuracies of all classes have one pool."""
        family = metric.partition("/")[0] + "/" * ("/" in metric)
        if family not in self._pools:
            alike = [where for where in self._entries if where[2] == metric or ("/" in family and family in where[2])]
            self._pools[family] = pooled(self._runs(alike).values())
        return self._pools[family]

    def _runs(self, cells: Iterable[Where]) -> dict[Hashable, Runs]:
        return by_train_set({(where[0], where[1:]): self._entries[where].values for where in cells})


def _sources(store: Store, results: pd.DataFrame) -> Sources:
    """Every run was scored on the same images."""
    return Sources([store.scores(results["run_id"].iloc[0], columns=SOURCE_COLUMNS)])


def _entries(
    store: Store, results: pd.DataFrame, metrics: Sequence[str], sources: Sources, condition: str
) -> dict[Where, _Entry]:
    """Every cell of one task, variant and condition."""
    entries: dict[Where, _Entry] = {}
    by = ["run_id", "trained_on", "seed", "task"]
    for (run_id, trained_on, seed, task_name), logged in results.groupby(by, sort=False):
        task = get_task(str(task_name), int(str(seed)))
        seeded = _is_seeded(logged)
        classes = task.classes(TrainSet.parse(str(trained_on)))
        values: dict[Any, float] = logged.set_index(["tested_on", "metric"])["value"].to_dict()
        wanted = _metrics_of_run(values, metrics, classes, binary=task.is_binary)
        if not gives_log_odds(str(logged["method"].iloc[0])):
            wanted = [where for where in wanted if not is_at_half(where[1])]
        cells: dict[str, Cell] = {}
        if any(has_interval(classes, metric) for _, metric in wanted):
            tested = {tested_on for tested_on, _ in wanted}
            cells = _read_cells(store, str(run_id), task, classes, tested, sources, condition)
        for tested_on, metric in wanted:
            entry = entries.setdefault((str(trained_on), tested_on, metric), _Entry(seeded=seeded))
            value = values.get((tested_on, metric))
            if has_interval(classes, metric):
                plain = metric.removesuffix(AT_VALIDATION)
                threshold = 0.0 if metric == plain else store.threshold(str(run_id))
                cell = cells[tested_on]
                entry.parts.append(cell.parts(plain, threshold))
                if value is None:
                    value = get_metric(plain).value(cell.at(threshold))
            if value is not None:
                entry.run_ids.append(str(run_id))
                entry.values[int(str(seed))] = value
    return {where: entries[where] for where in _in_order(store, entries) if entries[where].values}


def _is_seeded(results: pd.DataFrame) -> bool:
    """Whether the method of these rows of one run depends on the seed."""
    row = results.iloc[0]
    return depends_on_seed(str(row["method"]), json.loads(str(row["config"])))


def _in_order(store: Store, cells: Iterable[Where]) -> list[Where]:
    """Cells in the order of tables: by training set, test generator, and the accuracies of classes by class."""
    cells = list(cells)
    trained = {name for trained_on, _, _ in cells for name in TrainSet.parse(trained_on).generators}
    generators = store.ordered(trained | {tested_on for _, tested_on, _ in cells})
    columns = column_order({trained_on for trained_on, _, _ in cells}, generators)
    classes = [OVERALL, REAL, *generators]

    def key(where: Where) -> tuple[int, int, int]:
        trained_on, tested_on, metric = where
        rank = classes.index(class_of(metric)) if class_of(metric) in classes else len(classes)
        return columns.index(trained_on), generators.index(tested_on), rank

    return sorted(cells, key=key)


def _metrics_of_run(
    logged: Collection[tuple[str, str]], metrics: Sequence[str], classes: Sequence[str], *, binary: bool
) -> list[tuple[str, str]]:
    """(tested on, metric) of a run's values: the logged ones, and those that can be computed from its scores."""
    chosen = [
        (tested_on, metric)
        for tested_on, metric in logged
        if metric in metrics or (metric.startswith("accuracy/") and "accuracy" in metrics)
    ]
    computed = [
        (tested_on, metric)
        for tested_on in dict.fromkeys(tested_on for tested_on, _ in logged)
        for metric in metrics
        if has_interval(classes, metric) and (binary or not metric.endswith(AT_VALIDATION))
    ]
    return list(dict.fromkeys(chosen + computed))


def _read_cells(
    store: Store,
    run_id: str,
    task: Task,
    classes: Sequence[str],
    tested: Set[str],
    sources: Sources,
    condition: str,
) -> dict[str, Cell]:
    """Tested on -> its images; reads the run's scores, which must have images of each of `tested`."""
    columns = ["score"] if task.is_binary else [f"logit_{name}" for name in classes]
    try:
        scores = store.scores(run_id, columns=[*SOURCE_COLUMNS, *columns], condition=condition)
        numbers, rows = store.cell_rows.of(task, classes, scores)
        absent = sorted(tested - set(rows))
        if not task.is_binary:
            absent += [name for number, name in enumerate(classes) if number not in numbers]
        if absent:
            listed = ", ".join(dict.fromkeys(class_names(scores)))
            raise ValueError(f"they have no image of {', '.join(absent)}; there are: {listed}")
        return sources.cells(scores, numbers, rows)
    except StoreError:
        raise
    except (ValueError, KeyError) as error:
        raise store.broken(run_id, names.condition_artifact(condition, names.SCORES), error) from error


def _cell_row(where: Where, entry: _Entry, seeds: _Seeds) -> dict[str, object]:
    trained_on, tested_on, metric = where
    photographs = entry.estimate.interval if entry.parts else NO_INTERVAL
    return {
        "kind": CELL, "trained_on": trained_on, "tested_on": tested_on, "metric": metric, "mean": entry.mean,
        "std": pd.Series(entry.values).std(ddof=1), "num_seeds": len(entry.values), "seeded": entry.seeded,
        **_two_intervals(entry.mean, photographs, seeds.of({where: 1.0})), "run_ids": tuple(entry.run_ids),
    }  # fmt: skip


def _two_intervals(value: float, photographs: Interval, seeds: SeedSpread, *, least: float = 0.0) -> dict[str, float]:
    """The columns of both intervals; with one seed, the first is over photographs alone."""
    of_mean = joined(value, photographs, seeds.of_mean, least=least) if seeds.of_mean.is_known else photographs
    one_more = joined(value, photographs, seeds.of_one_more, least=least)
    return {"low": of_mean.low, "high": of_mean.high, "one_more_low": one_more.low, "one_more_high": one_more.high}


def _kinds(entries: Mapping[Where, _Entry], metric: str) -> dict[str, dict[Where, _Entry]]:
    """End of a kind's name -> the cells of a metric: all, and if there are both, by the number of generators."""
    cells = {where: entry for where, entry in entries.items() if where[2] == metric}
    several = {where: entry for where, entry in cells.items() if len(TrainSet.parse(where[0])) > 1}
    single = {where: entry for where, entry in cells.items() if where not in several}
    return {"": cells} | ({ONE_GENERATOR: single, SEVERAL_GENERATORS: several} if single and several else {})


def _mean_rows(cells: Mapping[Where, _Entry], metric: str, seed_spread: _Seeds, suffix: str) -> list[dict[str, object]]:
    """In-domain mean, cross-generator mean and their gap, over these cells of one variant and metric."""
    means: dict[str, float] = {}
    by_seed: dict[str, pd.Series] = {}
    estimates: dict[str, Estimate] = {}
    intervals: dict[str, Interval] = {}
    sums: dict[str, dict[Where, float]] = {}
    for kind, in_domain in ((IN_DOMAIN, True), (CROSS_GENERATOR, False)):
        inside = [where for where in cells if _is_in_domain(where) == in_domain]
        chosen = [cells[where] for where in inside]
        if chosen:
            sums[kind] = dict.fromkeys(inside, 1 / len(inside))
            means[kind] = mean_of(entry.mean for entry in chosen)
            # over the seeds that every cell has
            seeds = [pd.Series(entry.values) for entry in chosen]
            by_seed[kind] = pd.concat(seeds, axis=1, join="inner").mean(axis=1)
            if all(entry.parts for entry in chosen):
                estimates[kind] = mean([entry.estimate for entry in chosen])
                intervals[kind] = estimates[kind].interval
    if len(means) == 2:
        means[GAP] = means[IN_DOMAIN] - means[CROSS_GENERATOR]
        sums[GAP] = sums[IN_DOMAIN] | {where: -share for where, share in sums[CROSS_GENERATOR].items()}
        by_seed[GAP] = (by_seed[IN_DOMAIN] - by_seed[CROSS_GENERATOR]).dropna()
        if len(estimates) == 2:
            gap = difference(estimates[IN_DOMAIN], estimates[CROSS_GENERATOR])
            intervals[GAP] = Interval(gap.low, gap.high)
    num_seeds = min((len(entry.values) for entry in cells.values()), default=0)
    rows: list[dict[str, object]] = []
    for kind, value in means.items():
        least = -1.0 if kind == GAP else 0.0
        photographs = intervals.get(kind, NO_INTERVAL)
        rows.append(
            {
                "kind": kind + suffix, "trained_on": "", "tested_on": "", "metric": metric, "mean": value,
                "std": float(by_seed[kind].std(ddof=1)), "num_seeds": num_seeds,
                "seeded": any(entry.seeded for entry in cells.values()),
                **_two_intervals(value, photographs, seed_spread.of(sums[kind]), least=least), "run_ids": (),
            }
        )  # fmt: skip
    return rows


def _is_in_domain(where: Where) -> bool:
    trained_on, tested_on, _ = where
    return tested_on in TrainSet.parse(trained_on)
