"""Rules for the tables of open set: an image of a generator that was left out of training is of no known class."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.verify import estimates
from analysis.verify.compare import Derived, OfNothing
from analysis.verify.estimates import Estimate
from analysis.verify.evidence import CLEAN, OPEN_SET, Evidence, slug
from analysis.verify.tables import rule

_SHORT = {"unknown_auroc": "auroc", "oscr": "oscr", "unknown_fpr95": "fpr95"}
_WORDS = {
    "softmax": "largest softmax",
    "energy": "energy",
    "mahalanobis": "Mahalanobis distance",
    "knn": "k-NN distance",
}


@rule("open-set")
def open_set(evidence: Evidence, name: str, table: pd.DataFrame) -> Derived | str:
    """AUROC, OSCR and false positive rate of each score of "unknown", on clean pictures."""
    return _scores(evidence, CLEAN)


@rule("open-set-*")
def under_condition(evidence: Evidence, name: str, table: pd.DataFrame) -> Derived | str:
    """The same under a condition."""
    conditions = {condition for key in evidence.finished["key"] for condition in evidence.conditions(key)}
    found = [condition for condition in conditions if slug(f"open-set-{condition}") == name]
    return (
        _scores(evidence, found[0]) if len(found) == 1 else OfNothing("its name does not say which condition it is of")
    )


@rule("open-set-accuracy")
def accuracy(evidence: Evidence, name: str, table: pd.DataFrame) -> Derived | str:
    """Accuracy on the known classes."""
    rows, texts = [], {}
    for variant, left_out, trials in _groups(evidence, CLEAN):
        found = _of(evidence, trials, CLEAN, left_out)["accuracy"]
        rows.append(
            {"variant": variant, "left_out": left_out, "condition": CLEAN, "accuracy": found.value, "low": found.low,
             "high": found.high, "num_seeds": trials["seed"].nunique()}
        )  # fmt: skip
        texts[variant, left_out] = found.value, found.low, found.high
    wide = pd.Series(texts).unstack().rename_axis(index="method", columns="left out")
    return Derived(pd.DataFrame(rows), ["variant", "left_out", "condition"], wide=wide)


@rule("landing-*")
def landing(evidence: Evidence, name: str, table: pd.DataFrame) -> Derived | str:
    """Which class the images of a left-out generator are given: counts, all seeds added up."""
    first, counts = str(table.columns[0]), dict[str, dict[str, object]]()
    for variant, left_out, trials in _groups(evidence, CLEAN):
        if slug(f"landing-{variant}") != name:
            continue
        for key in trials["key"]:
            images, classes = evidence.images(key)[left_out], evidence.classes(key)
            answers = images.answers[images.labels == -1]
            row = counts.setdefault(left_out, dict.fromkeys(classes, 0))
            for number, of_class in enumerate(classes):
                row[of_class] = int(str(row.get(of_class, 0))) + int((answers == number).sum())
    if not counts:
        return OfNothing("its name does not say which method it is of")
    frame = pd.DataFrame([{first: left_out, **row} for left_out, row in counts.items()])
    return Derived(frame, [first])


def _scores(evidence: Evidence, condition: str) -> Derived:
    rows, lines = [], []
    for variant, left_out, trials in _groups(evidence, condition):
        found = _of(evidence, trials, condition, left_out)
        base = found["unknown_auroc/softmax"]
        for score in [each.partition("/")[2] for each in found if each.startswith("unknown_auroc/")]:
            row: dict[str, object] = {"variant": variant, "left_out": left_out, "condition": condition, "score": score}
            texts: dict[str, tuple[float, ...]] = {}
            for metric, short in _SHORT.items():
                own = found[f"{metric}/{score}"]
                row |= {short: own.value, f"{short}_low": own.low, f"{short}_high": own.high}
                texts[short] = own.value, own.low, own.high
            gap = estimates.difference(found[f"unknown_auroc/{score}"], base)[:3]
            gap = gap if score != "softmax" else (np.nan, np.nan, np.nan)
            row |= dict(zip(("difference", "difference_low", "difference_high"), gap, strict=True))
            rows.append(row | {"num_seeds": trials["seed"].nunique()})
            lines.append(
                {"method": variant, "left out": left_out, "score": _WORDS.get(score, score), "AUROC": texts["auroc"],
                 "AUROC minus that of the largest softmax": gap, "OSCR": texts["oscr"],
                 "FPR at 95 % TPR": texts["fpr95"]}
            )  # fmt: skip
    return Derived(pd.DataFrame(rows), ["variant", "left_out", "condition", "score"], shown=pd.DataFrame(lines))


def _groups(evidence: Evidence, condition: str) -> list[tuple[str, str, pd.DataFrame]]:
    """Variant, left-out generator, and the finished trials that were scored under a condition."""
    finished = evidence.finished[evidence.finished["task"] == OPEN_SET]
    found: dict[tuple[str, str], list[str]] = {}
    for key, variant in finished[["key", "variant"]].itertuples(index=False):
        if condition in evidence.conditions(key):
            for left_out in evidence.images(key, condition):
                found.setdefault((variant, left_out), []).append(key)
    return [(variant, left_out, finished[finished["key"].isin(keys)]) for (variant, left_out), keys in found.items()]


def _of(evidence: Evidence, trials: pd.DataFrame, condition: str, left_out: str) -> dict[str, Estimate]:
    """Metric -> mean over these trials, of metrics that all of them have."""
    parts: dict[str, list[list[estimates.Piece]]] = {}
    for key in trials["key"]:
        for (tested_on, metric), (_, pieces) in evidence.of_trial(key, condition).items():
            if tested_on == left_out and pieces:
                parts.setdefault(metric, []).append(pieces)
    return {metric: estimates.over_seeds(own) for metric, own in parts.items() if len(own) == len(trials)}
