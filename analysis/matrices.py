"""Cross-generator matrices and attribution tables: figures, their spread over seeds, and intervals over images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from analysis.intervals import (
    ATTRIBUTION_METRICS,
    DETECTION_METRICS,
    NUM_RESAMPLES,
    Answers,
    Resampler,
    cell_scores,
    difference_of,
    interval_of,
    proportion_interval,
)
from analysis.store import Store, StoreError
from grid.names import SCORES

# The order of the published tables; generators that are not in it follow in alphabetical order.
PUBLISHED_ORDER = ("lama", "ldm", "repaint", "pluralistic")
ORIENTATION = "rows: tested on, columns: trained on"
AT_VALIDATION = "_valid_threshold"  # ends the name of a metric at the run's own threshold
CELL, IN_DOMAIN, CROSS_GENERATOR, GAP = "cell", "in-domain mean", "cross-generator mean", "gap"
CELL_COLUMNS = [
    "kind", "task", "variant", "trained_on", "tested_on", "metric", "mean", "std", "num_seeds", "low", "high",
    "run_ids",
]  # fmt: skip


@dataclass(frozen=True)
class MatrixMeans:
    """Means over a cross-generator matrix; NaN where no such cell is there.

    Attributes:
        in_domain: over the cells whose test generator was trained on.
        cross_generator: over the other cells.
    """

    in_domain: float
    cross_generator: float

    @property
    def gap(self) -> float:
        """What is lost from in-domain to cross-generator."""
        return self.in_domain - self.cross_generator


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


def ordered(generators: Iterable[str]) -> list[str]:
    """Generators in the order of the tables."""
    found = set(generators)
    known = [name for name in PUBLISHED_ORDER if name in found]
    return known + sorted(found - set(known))


def column_order(trained_on: Iterable[str], generators: Sequence[str]) -> list[str]:
    """What was trained on, in the order of the columns: single generators as in the rows, then unions."""
    names = set(trained_on)
    single = ordered({name for name in names if "+" not in name} | set(generators))
    return single + sorted(names - set(single), key=lambda name: (name.count("+"), name))


def trained_on_label(trained_on: str, generators: Sequence[str]) -> str:
    """A short heading for a column: the name itself, "all", or "all but <generator>" where that is shorter.

    Args:
        trained_on: generators joined by "+".
        generators: all generators of the data set.
    """
    parts, everything = set(trained_on.split("+")), set(generators)
    left_out = everything - parts
    if len(everything) < 3 or len(parts) < 2 or not parts <= everything or len(left_out) > 1:
        return trained_on.replace("+", " + ")
    return f"all but {left_out.pop()}" if left_out else "all"


def cross_generator_matrix(results: pd.DataFrame, method: str, metric: str = "accuracy") -> pd.DataFrame:
    """One method's matrix: rows tested on, columns trained on, the mean over seeds in each cell; NaN where missing.

    Args:
        results: from `Store.results` or `analysis.store.load_results`.
        method: name of a variant where the results have a column of that name, else of a method.
        metric: name of a metric.
    """
    wanted = (results["task"] == "detection") & (results[_grouping(results)] == method) & (results["metric"] == metric)
    return _pivot(results[wanted], "value")


def matrix_means(matrix: pd.DataFrame) -> MatrixMeans:
    """In-domain and cross-generator means of a matrix as `cross_generator_matrix` makes it."""
    in_domain = in_domain_cells(matrix)
    values = matrix.to_numpy(float)

    def mean(cells: np.ndarray) -> float:
        return float(np.nanmean(cells)) if np.isfinite(cells).any() else float("nan")

    return MatrixMeans(mean(values[in_domain]), mean(values[~in_domain]))


def in_domain_cells(matrix: pd.DataFrame) -> np.ndarray:
    """Bool, in the shape of the matrix: whether the row's generator is among those that the column was trained on."""
    cells = [[_is_in_domain(str(row), str(column)) for column in matrix.columns] for row in matrix.index]
    return np.array(cells, dtype=bool).reshape(matrix.shape)


def attribution_table(results: pd.DataFrame) -> pd.DataFrame:
    """Attribution accuracy: one row a method, columns overall, real, then one a generator; means over seeds."""
    rows = results[(results["task"] == "attribution") & results["metric"].str.match("accuracy(/|$)")]
    by = _grouping(results)
    table = rows.pivot_table(index=by, columns="metric", values="value", aggfunc="mean")
    table = table.reindex([method for method in dict.fromkeys(results[by]) if method in table.index])
    return _class_columns(table)


def cell_table(
    store: Store,
    *,
    metrics: Sequence[str] = ("accuracy",),
    variants: Iterable[str] | None = None,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """Every cell of every matrix, and every attribution figure, with its spread over seeds and its interval.

    Figures are the logged ones; intervals are 95 % percentile intervals over source images from the logged scores, with
    seeds pooled (see `analysis.intervals`). Each run's scores are read once, whatever the number of metrics.

    Args:
        store: the grid.
        metrics: names as logged. For attribution, "accuracy" brings the accuracy of each class with it.
        variants: only these; None: all.
        num_resamples: B.
        seed: of the resampling.

    Returns:
        columns `CELL_COLUMNS`. `kind` is "cell", or for a whole matrix "in-domain mean", "cross-generator mean" and
        "gap" (then trained_on and tested_on are "", and `std` is over the seeds that all their cells have). `tested_on`
        is "all" for attribution. `std` is NaN for a single seed; `low` and `high` are NaN for metrics that images have
        no part in. `run_ids` is a tuple. A metric that no
        run has logged has no rows.

    Raises:
        StoreError: a run's scores are missing or cannot be read.
    """
    results = store.results()
    results = results[_of_metrics(results, metrics)]
    if variants is not None:
        results = results[results["variant"].isin(list(variants))]
    if results.empty:
        return pd.DataFrame(columns=CELL_COLUMNS)
    first = store.scores(results["run_id"].iloc[0], columns=["source_id", "generator", "label"])
    resampler = Resampler([first], num_resamples=num_resamples, seed=seed)
    rows: list[dict[str, object]] = []
    for (task, variant), of_variant in results.groupby(["task", "variant"], sort=False):
        answers: dict[tuple[str, str, str], Answers] = {}
        distributions = _distributions(store, of_variant, resampler, answers)
        cells = []
        for place, found in of_variant.groupby(["trained_on", "tested_on", "metric"], sort=False):
            trained_on, tested_on, metric = map(str, place)
            where, value = (trained_on, tested_on, metric), float(found["value"].mean())
            if where in distributions:
                plain = metric.removesuffix(AT_VALIDATION)
                interval = proportion_interval(distributions[where], answers[where], plain, value)
            else:
                interval = interval_of(np.array([]))
            cells.append(
                {
                    "kind": CELL,
                    "task": task,
                    "variant": variant,
                    "trained_on": trained_on,
                    "tested_on": tested_on,
                    "metric": metric,
                    "mean": value,
                    "std": found["value"].std(ddof=1),
                    "num_seeds": len(found),
                    "low": interval.low,
                    "high": interval.high,
                    "run_ids": tuple(found["run_id"]),
                    "by_seed": found.groupby("seed")["value"].mean(),
                }
            )
        rows += cells
        if task == "detection":
            rows += [row for metric in metrics for row in _mean_rows(cells, distributions, metric)]
    return pd.DataFrame(rows, columns=CELL_COLUMNS)


def matrix_with_intervals(
    store: Store,
    variant: str,
    metric: str = "accuracy",
    *,
    cells: pd.DataFrame | None = None,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> IntervalMatrix:
    """One variant's matrix with everything that belongs to it; planned columns are there even when nothing is finished.

    Args:
        store: the grid.
        variant: as in `Store.runs`.
        metric: as logged.
        cells: from `cell_table`, if that is there already: it is the part that takes time.
        num_resamples: B.
        seed: of the resampling.

    Raises:
        ValueError: no such variant; the message lists what exists.
        StoreError: as `cell_table`.
    """
    runs = store.runs()
    runs = runs[runs["task"] == "detection"]
    if variant not in set(runs["variant"]):
        raise ValueError(f"no detection by {variant!r}; there are: {', '.join(dict.fromkeys(runs['variant']))}")
    if cells is None:
        cells = cell_table(store, metrics=[metric], variants=[variant], num_resamples=num_resamples, seed=seed)
    cells = cells[(cells["task"] == "detection") & (cells["variant"] == variant) & (cells["metric"] == metric)]
    planned = set(runs.loc[runs["variant"] == variant, "trained_on"])
    singles = {name for text in runs["trained_on"] for name in str(text).split("+")}
    inside = cells[cells["kind"] == CELL]
    parts = {
        name: _pivot(inside, name, rows=singles, columns=planned)
        for name in ("mean", "std", "num_seeds", "low", "high")
    }
    wholes = cells[cells["kind"] != CELL]
    intervals = {
        str(kind): (float(low), float(high))
        for kind, low, high in zip(wholes["kind"], wholes["low"], wholes["high"], strict=True)
    }
    parts["num_seeds"] = parts["num_seeds"].fillna(0).astype(int)
    return IntervalMatrix(variant, metric, **parts, means=matrix_means(parts["mean"]), intervals=intervals)


def attribution_with_intervals(
    store: Store, *, cells: pd.DataFrame | None = None, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> pd.DataFrame:
    """Attribution accuracy with intervals, one row a variant and class ("overall", "real", then the generators).

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
    rows = cells[(cells["task"] == "attribution") & cells["metric"].str.match("accuracy(/|$)")]
    rows = rows.assign(**{"class": rows["metric"].map(lambda name: name.partition("/")[2] or "overall")})
    order = ["overall", "real", *ordered(set(rows["class"]) - {"overall", "real"})]
    variants = list(dict.fromkeys(rows["variant"]))
    rank = rows["variant"].map(variants.index) * len(order) + rows["class"].map(order.index)
    columns = ["variant", "class", "mean", "std", "num_seeds", "low", "high", "run_ids"]
    return rows.iloc[np.argsort(rank.to_numpy(), kind="stable")][columns].reset_index(drop=True)


def compare(
    store: Store, a: str, b: str, metric: str = "accuracy", *, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> pd.DataFrame:
    """One variant against another by a paired bootstrap over source images: a minus b.

    Only cells that both have are compared. With several seeds each side is the mean over its own.

    Returns:
        columns kind, task, trained_on, tested_on, metric, a, b, difference, low, high, p. `kind` is "cell", "mean"
        (over all cells), "in-domain mean" or "cross-generator mean". p values are not corrected for their number, and
        never below 2 / (B + 1).

    Raises:
        ValueError: no such variant, a metric without intervals, or no cell that both have.
        StoreError: as `cell_table`.
    """
    results = store.results()
    for variant in (a, b):
        if variant not in set(results["variant"]):
            known = ", ".join(dict.fromkeys(results["variant"]))
            raise ValueError(f"no finished run of {variant!r}; there are: {known}")
    results = results[_of_metrics(results, [metric]) & results["variant"].isin([a, b])]
    columns = ["kind", "task", "trained_on", "tested_on", "metric", "a", "b", "difference", "low", "high", "p"]
    resampler: Resampler | None = None
    rows: list[dict[str, object]] = []
    for task, of_task in results.groupby("task", sort=False):
        if resampler is None:
            first = store.scores(of_task["run_id"].iloc[0], columns=["source_id", "generator", "label"])
            resampler = Resampler([first], num_resamples=num_resamples, seed=seed)
        sides = [of_task[of_task["variant"] == variant] for variant in (a, b)]
        values = [side.groupby(["trained_on", "tested_on", "metric"], sort=False)["value"].mean() for side in sides]
        found = [_distributions(store, side, resampler) for side in sides]
        shared = [place for place in values[0].index if place in values[1].index and place in found[0]]
        kinds: dict[str, list[tuple[str, str, str]]] = {}
        if task == "detection":
            inside = [place for place in shared if _is_in_domain(place[1], place[0])]
            outside = [place for place in shared if place not in set(inside)]
            kinds = {"mean": shared, IN_DOMAIN: inside, CROSS_GENERATOR: outside}
        groups = [(CELL, [place], place) for place in shared]
        groups += [(kind, places, ("", "", metric)) for kind, places in kinds.items() if places]
        for kind, places, (trained_on, tested_on, name) in groups:
            figures = [float(side.loc[places].mean()) for side in values]
            resampled = np.mean([found[0][place] - found[1][place] for place in places], axis=0)
            difference = difference_of(figures[0] - figures[1], resampled)
            rows.append(
                {
                    "kind": kind,
                    "task": task,
                    "trained_on": trained_on,
                    "tested_on": tested_on,
                    "metric": name,
                    "a": figures[0],
                    "b": figures[1],
                    "difference": difference.value,
                    "low": difference.low,
                    "high": difference.high,
                    "p": difference.p,
                }
            )
    if not rows:
        raise ValueError(f"{a!r} and {b!r} have no finished cell of {metric!r} in common that images can be drawn for")
    return pd.DataFrame(rows, columns=columns)


def _distributions(
    store: Store,
    results: pd.DataFrame,
    resampler: Resampler,
    answers: dict[tuple[str, str, str], Answers] | None = None,
) -> dict[tuple[str, str, str], np.ndarray]:
    """(trained on, tested on, metric) -> the resampled figure (B,), averaged over seeds; of one task and variant.

    `answers` gets the answers of the last run of each, if it is given.

    On one thread: the matrix products are so small that more only wait for each other.
    """
    totals: dict[tuple[str, str, str], np.ndarray] = {}
    counts: dict[tuple[str, str, str], int] = {}
    with threadpool_limits(limits=1, user_api="blas"):
        for run_id, figures in results.groupby("run_id", sort=False):
            wanted = [
                (str(trained_on), str(tested_on), str(metric))
                for trained_on, tested_on, metric in figures[["trained_on", "tested_on", "metric"]].itertuples(
                    index=False
                )
                if _can_resample(str(figures["task"].iloc[0]), str(metric))
            ]
            if not wanted:
                continue
            try:
                cells = _answers(store, str(run_id), str(figures["task"].iloc[0]), wanted, resampler)
            except StoreError:
                raise
            except (ValueError, KeyError) as error:
                raise store.broken(str(run_id), SCORES, error) from error
            threshold = store.threshold(str(run_id))
            for place in wanted:
                _, tested_on, metric = place
                own = metric.endswith(AT_VALIDATION)
                found = resampler.distribution(
                    cells[tested_on], metric.removesuffix(AT_VALIDATION), threshold if own else 0.0
                )
                totals[place] = totals[place] + found if place in totals else found
                counts[place] = counts.get(place, 0) + 1
                if answers is not None:
                    answers[place] = cells[tested_on]
    return {place: total / counts[place] for place, total in totals.items()}


def _answers(
    store: Store, run_id: str, task: str, wanted: Sequence[tuple[str, str, str]], resampler: Resampler
) -> dict[str, Answers]:
    """Tested on -> the cell's answers, from one reading of the run's scores."""
    columns = ["source_id", "generator", "label"]
    if task == "attribution":
        logits = [f"logit_{name}" for name in ("real", *wanted[0][0].split("+"))]
        return {"all": resampler.answers(store.scores(run_id, columns=columns + logits))}
    scores = store.scores(run_id, columns=[*columns, "score"])
    tested_on = dict.fromkeys(place[1] for place in wanted)
    return {generator: resampler.answers(cell_scores(scores, generator)) for generator in tested_on}


def _mean_rows(
    cells: Sequence[Mapping[str, object]], distributions: Mapping[tuple[str, str, str], np.ndarray], metric: str
) -> list[dict[str, object]]:
    """In-domain mean, cross-generator mean and their gap, over the cells of one variant and metric."""
    of_metric = [cell for cell in cells if cell["metric"] == metric]
    means: dict[str, float] = {}
    by_seed: dict[str, pd.Series] = {}
    resampled: dict[str, np.ndarray] = {}
    for kind, wanted in ((IN_DOMAIN, True), (CROSS_GENERATOR, False)):
        chosen = [
            cell for cell in of_metric if _is_in_domain(str(cell["tested_on"]), str(cell["trained_on"])) == wanted
        ]
        if chosen:
            means[kind] = float(np.mean([float(str(cell["mean"])) for cell in chosen]))
            # of the seeds that every cell has
            by_seed[kind] = pd.concat([cast(pd.Series, cell["by_seed"]) for cell in chosen], axis=1, join="inner").mean(
                axis=1
            )
            places = [(str(cell["trained_on"]), str(cell["tested_on"]), metric) for cell in chosen]
            found = [distributions[place] for place in places if place in distributions]
            resampled[kind] = np.mean(found, axis=0) if found else np.array([])
    if len(means) == 2:
        means[GAP] = means[IN_DOMAIN] - means[CROSS_GENERATOR]
        resampled[GAP] = resampled[IN_DOMAIN] - resampled[CROSS_GENERATOR]
        by_seed[GAP] = (by_seed[IN_DOMAIN] - by_seed[CROSS_GENERATOR]).dropna()
    rows: list[dict[str, object]] = []
    for kind, mean in means.items():
        interval = interval_of(resampled[kind])
        rows.append(
            {
                "kind": kind,
                "task": "detection",
                "variant": of_metric[0]["variant"],
                "trained_on": "",
                "tested_on": "",
                "metric": metric,
                "mean": mean,
                "std": float(by_seed[kind].std(ddof=1)),
                "num_seeds": min(int(str(cell["num_seeds"])) for cell in of_metric),
                "low": interval.low,
                "high": interval.high,
                "run_ids": (),
            }
        )
    return rows


def _pivot(cells: pd.DataFrame, values: str, *, rows: Iterable[str] = (), columns: Iterable[str] = ()) -> pd.DataFrame:
    matrix = cells.pivot_table(index="tested_on", columns="trained_on", values=values, aggfunc="mean", dropna=False)
    tested_on = ordered(set(cells["tested_on"]) | set(rows))
    # what was never planned is not missing; without a plan, a matrix is square
    planned = set(columns)
    order = column_order(set(cells["trained_on"]) | planned, () if planned else tested_on)
    matrix = matrix.reindex(index=tested_on, columns=order)
    return matrix.astype(float).rename_axis(index="tested on", columns="trained on")


def _class_columns(table: pd.DataFrame) -> pd.DataFrame:
    table = table.rename(columns=lambda name: name.partition("/")[2] or "overall")
    generators = ordered(set(table.columns) - {"overall", "real"})
    return table.reindex(columns=["overall", "real", *generators]).rename_axis(index="method", columns="accuracy on")


def _grouping(results: pd.DataFrame) -> str:
    return "variant" if "variant" in results.columns else "method"


def _is_in_domain(tested_on: str, trained_on: str) -> bool:
    return tested_on in trained_on.split("+")


def _can_resample(task: str, metric: str) -> bool:
    if task == "attribution":
        return metric in ATTRIBUTION_METRICS or metric.startswith("accuracy/")
    return metric.removesuffix(AT_VALIDATION) in DETECTION_METRICS


def _of_metrics(results: pd.DataFrame, metrics: Sequence[str]) -> pd.Series[bool]:
    """Which rows are of these metrics; attribution's accuracy brings its classes."""
    wanted = results["metric"].isin(list(metrics))
    if "accuracy" in metrics:
        wanted |= (results["task"] == "attribution") & results["metric"].str.startswith("accuracy/")
    return wanted
