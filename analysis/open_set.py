"""Open set: is a generator that was left out of training seen to be unknown, and which class are its images given?

Every value follows from the stored rows of a trial: class, logits, and one column per score of "unknown". Intervals are
over source photographs, as everywhere (`analysis.intervals`); a photograph and its fakes stand together, also where one
is known and the other is not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from analysis.intervals import Estimate, Part, Sources, average, difference
from analysis.store import Store
from data.conditions import CLEAN
from grid import names
from grid.means import mean_of
from grid.plan import FINISHED
from grid.tasks import OPEN_SET, REAL, get_task
from grid.train_sets import TrainSet
from models.metrics import Metric
from models.open_set import BASELINE, UNKNOWN_SCORES, scores_of_table
from models.open_set_metrics import FPR_95, LANDING, OPEN_SET_METRICS, OSCR, UNKNOWN, UNKNOWN_AUROC, open_set_answers

TABLE_COLUMNS = [
    "variant", "left_out", "condition", "score", "auroc", "auroc_low", "auroc_high", "oscr", "oscr_low", "oscr_high",
    "fpr95", "fpr95_low", "fpr95_high", "difference", "difference_low", "difference_high", "num_seeds", "run_ids",
]  # fmt: skip
ACCURACY_COLUMNS = ["variant", "left_out", "condition", "accuracy", "low", "high", "num_seeds", "run_ids"]
_SHORT = {UNKNOWN_AUROC.name: "auroc", OSCR.name: "oscr", FPR_95.name: "fpr95"}


def open_set_tables(store: Store, *, condition: str = CLEAN) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every value of the open-set trials, a mean over seeds, with 95 % intervals over source photographs.

    A generator that is only tested is left out of every training set: its values are means over these, too.

    Args:
        store: the grid.
        condition: condition of the test pictures.

    Returns:
        columns `TABLE_COLUMNS`, one row per variant, left-out generator and score: AUROC of unknown images against
        known ones, OSCR, false positive rate at 95 % true positive rate, and the AUROC minus that of the largest
        softmax, paired by photograph. Then columns `ACCURACY_COLUMNS`, one row per variant and left-out generator:
        the accuracy on the known classes.

    Raises:
        StoreError: a run's scores are missing or cannot be read.
    """
    rows: list[dict[str, object]] = []
    accuracies: list[dict[str, object]] = []
    seeds = dict(zip(store.runs()["run_id"], store.runs()["seed"], strict=True))
    for (variant, left_out), run_ids in _runs(store, condition).items():
        parts: dict[tuple[str, str], list[list[Part]]] = defaultdict(list)
        closed: list[list[Part]] = []
        for run_id in run_ids:
            accuracy, of_run = _parts(store, run_id, left_out, condition)
            closed.append(accuracy)
            for where, part in of_run.items():
                parts[where].append([part])
        shared = {"variant": variant, "left_out": left_out, "condition": condition}
        behind = {"num_seeds": len({seeds[run_id] for run_id in run_ids}), "run_ids": tuple(run_ids)}
        estimate = average(closed)
        accuracies.append({**shared, "accuracy": estimate.value, **_interval("", estimate), **behind})
        # A score that one of the runs lacks, because that run is older, has no row.
        estimates = {where: average(of_seeds) for where, of_seeds in parts.items() if len(of_seeds) == len(run_ids)}
        baseline = estimates[UNKNOWN_AUROC.name, BASELINE]
        for score in dict.fromkeys(score for _, score in estimates):
            row: dict[str, object] = {**shared, "score": score, **behind}
            for metric, short in _SHORT.items():
                row |= {short: estimates[metric, score].value, **_interval(f"{short}_", estimates[metric, score])}
            if score != BASELINE:
                gap = difference(estimates[UNKNOWN_AUROC.name, score], baseline)
                row |= {"difference": gap.difference, "difference_low": gap.low, "difference_high": gap.high}
            rows.append(row)
    return pd.DataFrame(rows, columns=TABLE_COLUMNS), pd.DataFrame(accuracies, columns=ACCURACY_COLUMNS)


def landing_table(store: Store, variant: str, *, condition: str = CLEAN) -> pd.DataFrame:
    """Which class the images of each left-out generator are given: counts, added up over seeds.

    Returns:
        rows left-out generator, columns class ("real", then the generators); NaN for a generator's own column, because
        it was no class then.

    Raises:
        StoreError: as `open_set_tables`.
    """
    task, counts = get_task(OPEN_SET), dict[str, pd.Series]()
    for (of_variant, left_out), run_ids in _runs(store, condition).items():
        if of_variant != variant:
            continue
        for run_id in run_ids:
            scores, classes = store.scores(run_id, condition=condition), _classes(store, run_id)
            unknown = task.cells(scores, classes)[left_out] & (task.class_numbers(scores, classes) == UNKNOWN)
            answered = scores.loc[unknown, [f"logit_{name}" for name in classes]].to_numpy().argmax(axis=1)
            own = pd.Series(np.bincount(answered, minlength=len(classes)), index=list(classes), dtype=float)
            counts[left_out] = counts[left_out].add(own, fill_value=0) if left_out in counts else own
    order = store.ordered({*counts, *(name for own in counts.values() for name in own.index if name != REAL)})
    table = pd.DataFrame(counts).T.reindex(index=[name for name in order if name in counts], columns=[REAL, *order])
    return table.rename_axis(index="left out", columns="answered with")


def logged_table(results: pd.DataFrame, store: Store, *, condition: str = CLEAN) -> pd.DataFrame:
    """The logged values in short, for the terminal: one row per variant and left-out generator, means over seeds.

    Args:
        results: rows of `Store.results`.
        store: the grid, for the order of generators.
        condition: condition of the test pictures.

    Returns:
        columns method, left out, accuracy on known classes, AUROC by each score, and called real (share of the left-out
        generator's images).
    """
    rows = results[(results["task"] == OPEN_SET) & (results["condition"] == condition)]
    order = store.ordered(set(rows["tested_on"]))
    table = []
    for variant in dict.fromkeys(rows["variant"]):
        for left_out in order:
            own = rows[(rows["variant"] == variant) & (rows["tested_on"] == left_out)]
            if own.empty:
                continue
            values = {str(metric): mean_of(of_metric) for metric, of_metric in own.groupby("metric")["value"]}
            row = {"method": variant, "left out": left_out, "accuracy on known": values.get("accuracy", np.nan)}
            for name, score in UNKNOWN_SCORES.items():
                row[score.words] = values.get(f"{UNKNOWN_AUROC.name}/{name}", np.nan)
            table.append(row | {"called real": values.get(f"{LANDING}/{REAL}", np.nan)})
    return pd.DataFrame(table)


def verdicts(table: pd.DataFrame) -> list[str]:
    """One sentence per variant: does a distance beat the largest softmax, and on how many left-out generators?

    Args:
        table: columns variant, left_out, score and auroc; with difference_low, it is also said on how many the interval
            of the difference lies above 0.
    """
    return [f"{variant}: {_verdict(rows)}" for variant, rows in table.groupby("variant", sort=False)]


def logged_verdicts(table: pd.DataFrame) -> list[str]:
    """The same from `logged_table`."""
    words = {score.words: name for name, score in UNKNOWN_SCORES.items()}
    shown = [word for word in words if word in table.columns]
    long = table.melt(id_vars=["method", "left out"], value_vars=shown, var_name="score", value_name="auroc")
    long = long.rename(columns={"method": "variant", "left out": "left_out"}).dropna(subset="auroc")
    return verdicts(long.assign(score=long["score"].map(words)))


def _verdict(rows: pd.DataFrame) -> str:
    by_score = {str(score): of_score.set_index("left_out") for score, of_score in rows.groupby("score", sort=False)}
    baseline = by_score[BASELINE]["auroc"]
    total, best, parts = len(baseline), 0, []
    for name, score in UNKNOWN_SCORES.items():
        if not score.is_distance or name not in by_score:
            continue
        own = by_score[name]
        higher = int((own["auroc"] > baseline.reindex(own.index)).sum())
        sure = ""
        if "difference_low" in own:
            sure = f" (on {int((own['difference_low'] > 0).sum())} the interval of the difference lies above 0)"
        best = max(best, higher)
        parts.append(f"the {score.words} on {higher} of {total}{sure}")
    if not parts:
        return "no distance was measured"
    listed = ", ".join(parts)
    if best == 0:
        return f"no distance beats the largest softmax on any of {total} left-out generators"
    many = "a distance beats" if best > total / 2 else "no distance beats"
    return f"{many} the largest softmax on most of the left-out generators: {listed}"


def _runs(store: Store, condition: str) -> Mapping[tuple[str, str], list[str]]:
    """(variant, left-out generator) -> its finished runs, in the order of tables."""
    runs = store.runs()
    runs = runs[(runs["task"] == OPEN_SET) & (runs["state"] == FINISHED)]
    found: dict[tuple[str, str], list[str]] = {}
    for variant, of_variant in runs.groupby("variant", sort=False):
        cells: dict[str, list[str]] = defaultdict(list)
        for run_id in of_variant["run_id"]:
            if condition in store.scored(run_id):
                for left_out in _left_out(store, str(run_id)):
                    cells[left_out].append(str(run_id))
        found |= {(str(variant), left_out): cells[left_out] for left_out in store.ordered(cells)}
    return found


def _left_out(store: Store, run_id: str) -> list[str]:
    scores = store.scores(run_id, ["source_id", "generator", "label"])
    return list(get_task(OPEN_SET).cells(scores, _classes(store, run_id)))


def _classes(store: Store, run_id: str) -> tuple[str, ...]:
    trained = TrainSet.parse(store.tags(run_id)[names.TRAIN_GENERATORS])
    return get_task(OPEN_SET).classes(trained)


def _parts(store: Store, run_id: str, left_out: str, condition: str) -> tuple[list[Part], dict[tuple[str, str], Part]]:
    """Of one run: what its accuracy on known classes is the sum of; and (metric, score) -> that metric as one part."""
    task, classes = get_task(OPEN_SET), _classes(store, run_id)
    scores = store.scores(run_id, condition=condition)
    sources, cell = Sources([scores]), task.cells(scores, classes)[left_out]
    frame, numbers = scores[cell], task.class_numbers(scores, classes)[cell]
    logits, indices = frame[[f"logit_{name}" for name in classes]].to_numpy(), sources.indices(frame)
    try:
        closed = sources.cell(frame, numbers).parts("accuracy")
        unknown = scores_of_table(frame, logits)
        parts = {
            (metric.name, score): _part(metric, numbers, logits, classes, values, indices, len(sources))
            for metric in OPEN_SET_METRICS
            for score, values in unknown.items()
        }
    except ValueError as error:
        raise store.broken(run_id, names.condition_artifact(condition, names.SCORES), error) from error
    return closed, parts


def _part(
    metric: Metric,
    numbers: np.ndarray,
    logits: np.ndarray,
    classes: Iterable[str],
    values: np.ndarray,
    indices: np.ndarray,
    num_sources: int,
) -> Part:
    answers = open_set_answers(metric, numbers, logits, tuple(classes), values)
    influence = np.bincount(indices, weights=metric.influences(answers, indices), minlength=num_sources)
    return Part(1.0, metric.value(answers), influence, len(np.unique(indices)), None)


def _interval(prefix: str, estimate: Estimate) -> dict[str, float]:
    return {f"{prefix}low": estimate.interval.low, f"{prefix}high": estimate.interval.high}
