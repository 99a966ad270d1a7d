"""One rule per table of the report: a function that derives the table again from the evidence.

A new table needs one more function with `@rule("PATTERN")`, where PATTERN is the table's name with "*" for what varies.
A table without a rule is listed as not verified.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import pandas as pd

from analysis.verify import estimates, seeds
from analysis.verify.compare import Between, Derived, OfNothing
from analysis.verify.evidence import (
    ATTRIBUTION,
    CELL,
    CLEAN,
    CROSS,
    DETECTION,
    FINISHED,
    GAP,
    IN_DOMAIN,
    METHOD,
    ONE_GENERATOR,
    OPEN_SET,
    SEVERAL_GENERATORS,
    Evidence,
    Value,
    slug,
)

Rule = Callable[[Evidence, str, pd.DataFrame], Derived | str]  # a text: why nothing of the table is derived
RULES: dict[str, Rule] = {}
IMAGES = "needs the images and the detector"
COPIED = "copied from a paper"
RECORDED = "recorded while the trial ran; does not follow from its scores"
IN_WORDS = {
    "accuracy": "accuracy",
    "accuracy at p = 0.5": "accuracy",
    "accuracy at the threshold from validation": "accuracy" + estimates.VALIDATION,
    "balanced accuracy at p = 0.5": "balanced_accuracy",
    "AUROC": "auroc",
    "oracle accuracy, best threshold in hindsight": "oracle_accuracy",
    "TPR at 1 % FPR": "tpr_at_fpr_1",
    "TPR at 5 % FPR": "tpr_at_fpr_5",
}


def rule(pattern: str) -> Callable[[Rule], Rule]:
    """Register the decorated function for the tables whose names match a pattern.

    It is called with the evidence, the table's name, and the CSV as text; it returns what the CSV should hold, or why
    nothing of it is derived.
    """

    def decorate(function: Rule) -> Rule:
        RULES[pattern] = function
        return function

    return decorate


def rule_for(name: str) -> Rule | None:
    """The rule of a table: of several patterns that match, the longest."""
    matches = [pattern for pattern in RULES if fnmatchcase(name, pattern)]
    return RULES[max(matches, key=len)] if matches else None


# Detection -----------------------------------------------------------------------------------------------------------


@rule("matrix-*")
def matrix(evidence: Evidence, name: str, table: pd.DataFrame) -> Derived | str:
    """One matrix of one method, metric and condition, with spreads and intervals."""
    if table.empty or not {"variant", "metric", "condition"} <= set(table.columns):
        return "no rule for a matrix without the columns variant, metric and condition"
    variant, metric, condition = (str(table[column].iloc[0]) for column in ("variant", "metric", "condition"))
    if metric not in estimates.metrics_of(("real", "fake")):
        return f"no rule for the metric {metric}"
    if name != slug(f"matrix-{variant}-{metric}" + ("" if condition == CLEAN else f"-{condition}")):
        return OfNothing(f"its rows are of {variant}, {metric}, {condition}, which is not what its name says")
    rows, texts = [], {}
    columns = columns_of(evidence, variant)
    for tested_on in evidence.generators:
        for trained_on in columns:
            value = evidence.value(DETECTION, variant, (condition, trained_on, tested_on, metric))
            rows.append(
                {"variant": variant, "metric": metric, "condition": condition, "tested_on": tested_on,
                 "trained_on": trained_on, **_numbers(value)}
            )  # fmt: skip
            texts[tested_on, label_of(evidence, trained_on)] = value.shown if value else ()
    wide = pd.Series(texts).unstack().rename_axis(index="tested on", columns="trained on")
    means = evidence.means(variant, metric, condition)
    caption = {kind: tuple(v for v in (m.mean, m.low, m.high) if not math.isnan(v)) for kind, m in means.items()}
    keys = ["variant", "metric", "condition", "tested_on", "trained_on"]
    return Derived(pd.DataFrame(rows), keys, wide=wide, caption=caption)


def named_seeds(seeds: set[int]) -> str:
    """Such as "one seed (0)", "0, 1, 2", or of more than ten in a row "0 to 49 (50)"."""
    ordered = sorted(seeds)
    if len(ordered) == 1:
        return f"one seed ({ordered[0]})"
    in_a_row = len(ordered) > 10 and ordered[-1] - ordered[0] == len(ordered) - 1
    return f"{ordered[0]} to {ordered[-1]} ({len(ordered):,})" if in_a_row else ", ".join(map(str, ordered))


@rule("summary")
def summary(evidence: Evidence, name: str, table: pd.DataFrame) -> Derived | str:
    """The means of each method."""
    rows = []
    for variant in dict.fromkeys(evidence.trials["variant"]):
        own = evidence.trials[evidence.trials["variant"] == variant]
        row: dict[str, object] = {"method": variant}
        for column in table.columns:
            row |= mean_cell(evidence, variant, CLEAN, str(column))
        if "attribution, overall" in table.columns:
            trained_on = next(iter(own.loc[own["task"] == ATTRIBUTION, "trained_on"].tolist()), "")
            value = evidence.value(ATTRIBUTION, variant, (CLEAN, trained_on, "all", "accuracy"))
            row["attribution, overall"] = value.in_brief if value else ()
        row["seeds"] = (
            named_seeds(set(own["seed"])) if own["depends_on_seed"].iloc[0] else "does not depend on the seed"
        )
        row["trials finished"] = (int((own["state"] == FINISHED).sum()), len(own))
        rows.append(row)
    return Derived(pd.DataFrame(rows), ["method"], {"weights": RECORDED})


@rule("best-of-cells")
def best_of_cells(evidence: Evidence, name: str, table: pd.DataFrame) -> Derived | str:
    """The highest AUROC of each cell, and every method that has it, in the order of the alphabet."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for variant in dict.fromkeys(evidence.finished.loc[evidence.finished["task"] == DETECTION, "variant"]):
        for (_, trained_on, tested_on, metric), (by_seed, _) in evidence.cells(DETECTION, variant).items():
            if metric == "auroc":
                found.setdefault((tested_on, trained_on), {})[variant] = float(np.mean(list(by_seed.values())))
    rows = []
    for (tested_on, trained_on), values in found.items():
        highest = max(values.values())
        best = sorted(variant for variant, value in values.items() if value >= highest - 1e-12)
        rows.append({"tested_on": tested_on, "trained_on": trained_on, "mean": highest, "variants": " = ".join(best)})
    return Derived(pd.DataFrame(rows), ["tested_on", "trained_on"])


@rule("calibration")
def calibration(evidence: Evidence, name: str, table: pd.DataFrame) -> Derived | str:
    """Expected calibration error of each cell, as given and with the trial's temperature; mean over seeds."""
    errors: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    detection = evidence.finished[evidence.finished["task"] == DETECTION]
    for key, variant, trained_on in detection[["key", "variant", "trained_on"]].itertuples(index=False):
        if not evidence.gives_log_odds(key):
            continue
        kept = evidence.validation(key)
        fitted = None if kept is None else kept[1]["temperature"]
        for tested_on, images in evidence.images(key).items():
            assert images.scores is not None
            pair = [estimates.calibration_error(images.labels, images.scores), math.nan]
            if fitted is not None:
                pair[1] = estimates.calibration_error(images.labels, images.scores / fitted["value"])
            errors.setdefault((variant, trained_on, tested_on), []).append((pair[0], pair[1]))
    keys = ["method", "trained_on", "tested_on"]
    means = {where: pd.DataFrame(pairs).mean().tolist() for where, pairs in errors.items()}  # NaN does not count
    rows = [(*where, *pair) for where, pair in means.items()]
    return Derived(pd.DataFrame(rows, columns=[*keys, "ece", "ece_calibrated"]), keys)


@rule("compare-*")
def comparison(evidence: Evidence, name: str, table: pd.DataFrame) -> Derived | str:
    """One method minus another, paired by photograph; of the methods, or of these runs alone."""
    variants = list(dict.fromkeys(evidence.trials["variant"]))
    found = [
        (a, b, metric, ending)
        for a in variants for b in variants for metric in ("accuracy", "auroc") for ending in ("", "-runs")
        if slug(f"compare-{a}-{b}-{metric}{ending}") == name
    ]  # fmt: skip
    if len(found) != 1:
        return OfNothing("its name does not say which two methods it compares")
    (a, b, metric, ending), rows = found[0], []
    for task in dict.fromkeys(evidence.finished["task"]):
        if task not in (DETECTION, ATTRIBUTION, OPEN_SET):
            continue
        sides = [evidence.cells(task, variant) for variant in (a, b)]
        shared = [w for w in sides[0] if w in sides[1] and (w[3] == metric or w[3].startswith(f"{metric}/"))]
        groups = [(CELL, [w], (w[1], w[2], w[3])) for w in shared]
        if task == DETECTION and shared:
            own = [w for w in shared if w[2] in w[1].split("+")]
            others = [w for w in shared if w not in own]
            kinds = {"mean": shared, IN_DOMAIN: own, CROSS: others}
            groups += [(kind, cells, ("", "", metric)) for kind, cells in kinds.items() if cells]
        for kind, cells, where in groups:
            means = [estimates.mean_of([side[w][1] for w in cells]) for side in sides]
            of_seeds = [evidence.seeds(task, variant, dict.fromkeys(cells, 1 / len(cells))) for variant in (a, b)]
            known = [each.of_mean for each in of_seeds if each is not None]
            if (len(known) == 2) != (ending == ""):  # of these runs alone where the seeds of one side are not known
                continue
            values = estimates.difference(means[0], means[1], None if ending else seeds.added(known))
            rows.append((kind, task, *where, *(m.value for m in means), *values))
    keys = ["kind", "task", "trained_on", "tested_on", "metric"]
    names = [*keys, "a", "b", "difference", "low", "high", "p"]
    if ending:
        names[-6:] = ["a, this run", "b, this run", "difference of these two runs", "low", "high",
                      "p: these two runs differ"]  # fmt: skip
    frame = pd.DataFrame(rows, columns=names)
    shown = frame.assign(trained_on=[label_of(evidence, text) if text else "" for text in frame["trained_on"]])
    return Derived(frame, keys, shown=shown, leave_out=_of_other_tasks)


@rule("training-sets")
def training_sets(evidence: Evidence, name: str, table: pd.DataFrame) -> Derived | str:
    """Means over the training sets of one generator, and over those of several, of methods that have both."""
    rows = []
    detection = evidence.trials[evidence.trials["task"] == DETECTION]
    for variant in dict.fromkeys(detection["variant"]):
        sets = {where[1] for where in evidence.cells(DETECTION, variant)}
        if len({"+" in text for text in sets}) < 2:
            continue
        for ending in (ONE_GENERATOR, SEVERAL_GENERATORS):
            row: dict[str, object] = {"method": variant, "trained on": ending.removeprefix(", trained on ")}
            for column in table.columns:
                row |= mean_cell(evidence, variant, CLEAN, str(column), ending)
            rows.append(row)
    return Derived(pd.DataFrame(rows), ["method", "trained on"])


# Attribution ---------------------------------------------------------------------------------------------------------


@rule("attribution")
def attribution(evidence: Evidence, name: str, table: pd.DataFrame) -> Derived | str:
    """Accuracy over all classes, and of each."""
    rows, texts = [], {}
    trials = evidence.finished[evidence.finished["task"] == ATTRIBUTION]
    for variant, trained_on in dict.fromkeys(trials[["variant", "trained_on"]].itertuples(index=False, name=None)):
        for condition, where, tested_on, metric in evidence.cells(ATTRIBUTION, variant):
            if where != trained_on or not re.match("accuracy(/|$)", metric):
                continue
            value = evidence.value(ATTRIBUTION, variant, (condition, trained_on, tested_on, metric))
            label = metric.partition("/")[2] or "overall"
            rows.append({"variant": variant, "class": label, **_numbers(value)})
            texts[variant, label] = value.shown if value else ()
    wide = pd.Series(texts).unstack().rename_axis(index="method", columns="accuracy on")
    return Derived(pd.DataFrame(rows), ["variant", "class"], wide=wide)


@rule("confusion-*")
def confusion(evidence: Evidence, name: str, table: pd.DataFrame) -> Derived | str:
    """Counts of true and answered classes, all seeds added up."""
    trials = evidence.finished[evidence.finished["task"] == ATTRIBUTION]
    variants = [v for v in dict.fromkeys(trials["variant"]) if slug(f"confusion-{v}") == name]
    if len(variants) != 1:
        return OfNothing("its name does not say which method it is of")
    counts: dict[str, dict[str, int]] = {}
    for key in trials.loc[trials["variant"] == variants[0], "key"]:
        images = evidence.images(key)["all"]
        for true in images.classes:
            for answered in images.classes:
                hits = (images.labels == images.classes.index(true)) & (
                    images.answers == images.classes.index(answered)
                )
                row = counts.setdefault(true, {})
                row[answered] = row.get(answered, 0) + int(hits.sum())
    first = "true class / predicted class"
    frame = pd.DataFrame([{first: true, **row} for true, row in counts.items()])
    return Derived(frame, [first])


@rule("embeddings")
def embeddings(evidence: Evidence, name: str, table: pd.DataFrame) -> Derived | str:
    """Silhouette and purity of the embeddings of each method's first attribution run."""
    rows = []
    trials = evidence.finished[evidence.finished["task"] == ATTRIBUTION]
    for variant in dict.fromkeys(trials["variant"]):
        key = str(trials.loc[trials["variant"] == variant, "key"].iloc[0])
        vectors, scores = evidence.embeddings(key), evidence.scores(key)
        classes = evidence.classes_of_images(key)
        compared, is_sample = estimates.sample(classes), evidence.embedded(key) is not None
        if vectors is None or len(vectors) != len(compared if is_sample else scores):
            return f"trial {key} has no embeddings, or not one per row of its scores or of its sample of them"
        silhouette, purity, chance, count = estimates.separation(
            vectors if is_sample else vectors[compared], classes[compared],
            scores["source_id"].to_numpy(object)[compared],
        )  # fmt: skip
        rows.append(
            {"method": variant, "silhouette": Between(silhouette - 1e-6, silhouette + 1e-6),
             f"{count}-NN purity": Between(*purity), "chance": chance, "dimensions": vectors.shape[1]}
        )  # fmt: skip
    return Derived(pd.DataFrame(rows), ["method"], {"projection": "the settings of a picture, t-SNE or UMAP"})


# Grad-CAM ------------------------------------------------------------------------------------------------------------

_MAPS = ("iou", "iou_fixed", "pointing", "energy", "ap")


@rule("localisation-images")
def localisation_images(evidence: Evidence, name: str, table: pd.DataFrame) -> Derived | str:
    """Which images were explained, and whether they were answered right; the maps need the images."""
    trials = evidence.finished.set_index("run_id")
    rows = []
    for run_id, of_run in table.groupby("run_id", sort=False):
        if run_id not in trials.index:
            continue
        trial = trials.loc[str(run_id)]
        scores = evidence.scores(str(trial["key"]))
        fakes = scores[(scores["label"] == 1) & scores["path"].isin(of_run["path"])]
        for path, digest, source, generator, real, fake in fakes[
            ["path", "digest", "source_id", "generator", "logit_real", "logit_fake"]
        ].itertuples(index=False):
            rows.append(
                {"run_id": run_id, "path": path, "variant": trial["variant"], "trained_on": trial["trained_on"],
                 "seed": trial["seed"], "tested_on": generator, "digest": digest, "source_id": source,
                 "correct": str(bool(fake > real))}
            )  # fmt: skip
    kinds = [*_MAPS, "chance", "flat", "threshold"]
    kinds += [f"{prefix}_{metric}" for prefix in ("prior", "shuffled") for metric in _MAPS]
    return Derived(pd.DataFrame(rows), ["run_id", "path"], dict.fromkeys(kinds, IMAGES))


@rule("localisation")
def localisation(evidence: Evidence, name: str, table: pd.DataFrame) -> Derived | str:
    """Means and intervals over the images of localisation-images.csv, whose maps themselves are not verified."""
    images = _localised(evidence)
    if images is None:
        return "localisation-images.csv is missing"
    trials, rows = evidence.finished.set_index("run_id"), []
    for (run_id, tested_on), cell in images.groupby(["run_id", "tested_on"], sort=False):
        if run_id not in trials.index:
            continue
        trial, right = trials.loc[str(run_id)], cell["correct"] == "True"
        for subset, part in (("all", cell), ("correct", cell[right]), ("wrong", cell[~right])):
            for metric in _MAPS if len(part) else ():
                values, photographs = part[metric].astype(float).to_numpy(), part["source_id"].to_numpy()
                names, units = np.unique(photographs, return_inverse=True)
                moves = np.bincount(units, (values - values.mean()) / len(values))
                low, high = math.nan, math.nan
                if len(names) > 1:
                    low, high = estimates.interval(float(values.mean()), moves, len(names), None)
                of_part = {
                    column: float(part[source].astype(float).mean())
                    for column, source in (("chance", "chance"), ("shuffled", f"shuffled_{metric}"),
                                           ("prior", f"prior_{metric}"))
                }  # fmt: skip
                rows.append(
                    {"run_id": run_id, "task": DETECTION, "method": trial["method"], "variant": trial["variant"],
                     "trained_on": trial["trained_on"], "seed": trial["seed"], "tested_on": tested_on,
                     "subset": subset, "metric": metric, "value": float(values.mean()), "low": low, "high": high,
                     **of_part, "flat": float((part["flat"] == "True").mean()), "num_images": len(part),
                     "threshold": float(part["threshold"].iloc[0])}
                )  # fmt: skip
    return Derived(pd.DataFrame(rows), ["run_id", "tested_on", "subset", "metric"])


@rule("localisation-*-*")
def localisation_matrix(evidence: Evidence, name: str, table: pd.DataFrame) -> Derived | str:
    """A matrix of one measure of the maps, from localisation-images.csv."""
    images = _localised(evidence)
    if images is None:
        return "localisation-images.csv is missing"
    names = {
        slug(f"localisation-{variant}-{metric}" + ("" if subset == "all" else f"-{subset}")): (variant, metric, subset)
        for variant in set(images["variant"])
        for metric in _MAPS
        for subset in ("all", "correct", "wrong")
    }
    if name not in names:
        return OfNothing("its name does not say which method and measure it is of")
    variant, metric, subset = names[name]
    rows = images[images["variant"] == variant]
    rows = rows if subset == "all" else rows[(rows["correct"] == "True") == (subset == "correct")]
    by_run = (
        rows.assign(value=rows[metric].astype(float)).groupby(["run_id", "tested_on", "trained_on"])["value"].mean()
    )
    values = by_run.groupby(["tested_on", "trained_on"]).mean().unstack()
    values = values.reindex(index=evidence.generators, columns=columns_of(evidence, variant))
    first = str(table.columns[0])
    turned = first.startswith("trained")
    values = values.T if turned else values
    frame = values.rename_axis(index=first, columns=None).reset_index()
    labels = {trained_on: label_of(evidence, trained_on) for trained_on in columns_of(evidence, variant)}
    shown = frame.assign(**{first: frame[first].map(labels)}) if turned else frame.rename(columns=labels)
    return Derived(frame, [first], shown=shown)


# Runs, provenance, and what is not derived ----------------------------------------------------------------------------


@rule("runs")
def runs(evidence: Evidence, name: str, table: pd.DataFrame) -> Derived | str:
    """What each trial is, from its specification."""
    columns = ["run_id", "key", "task", "method", "variant", "trained_on", "train_condition", "equal_size", "seed",
               "state", "config"]  # fmt: skip
    kinds = evidence.all_trials["kind"]
    words = evidence.all_trials["task"] + (" (" + kinds + ")").where(kinds != METHOD, "")
    frame = evidence.all_trials[columns].assign(task=words)
    shown = frame.drop(columns="method").assign(  # readers see the variant under this name
        trained_on=[label_of(evidence, text) for text in frame["trained_on"]],
        run_id=frame["run_id"].where(frame["run_id"] != "", "none yet"),
    )
    shown["images of each class (train, valid)"] = frame["equal_size"].where(frame["equal_size"] != "", "all")
    recorded = ["weights", "device", "node", "gpu_share", "git_commit", "start", "end", "seconds", "time", "error",
                "url"]  # fmt: skip
    return Derived(frame, ["key"], dict.fromkeys(recorded, RECORDED), shown=shown)


@rule("provenance")
def provenance(evidence: Evidence, name: str, table: pd.DataFrame) -> Derived | str:
    """The data set and its size, and the seeds; the rest was recorded."""
    rows = []
    for what, text in table[["what", "value"]].itertuples(index=False):
        if what == "seeds":
            text = named_seeds(set(evidence.trials["seed"]))
        if what == "data set":
            size = f"{len(evidence.manifest)} images)"
            text = re.sub(r"^[0-9a-f]{16}", evidence.facts["data"], re.sub(r"\d+ images\)$", size, text))
        rows.append({"what": what, "value": text})
    return Derived(pd.DataFrame(rows), ["what"])


@rule("published-*")
def published_tables(evidence: Evidence, name: str, table: pd.DataFrame) -> Derived | str:
    """Our values beside those of a published table, which are copied; ours and the difference are derived."""
    rows, keys = [], ["detector", "trained_on", "tested_on", "metric", "variant"]
    for row in table[table["variant"] != ""].to_dict("records"):
        trained_on = "+".join(sorted(set(str(row["trained_on"]).split("+"))))
        where = (CLEAN, trained_on, str(row["tested_on"]), str(row["metric"]))
        value = evidence.value(DETECTION, str(row["variant"]), where)
        if value is not None:
            named = {key: row[key] for key in keys}
            rows.append({**named, "ours": value.mean, "difference": value.mean - float(row["published"])})
    if not rows:
        return COPIED
    unverified = dict.fromkeys(["published", "read", "source", "note"], COPIED)
    return Derived(
        pd.DataFrame(rows),
        keys,
        unverified,
        leave_out=lambda row: "" if row["variant"] not in ("", "missing") else COPIED,
    )


@rule("history")
def history(evidence: Evidence, name: str, table: pd.DataFrame) -> Derived | str:
    """Losses and accuracies of training."""
    return "losses and accuracies per epoch, recorded while the trial was trained"


@rule("published")
def published(evidence: Evidence, name: str, table: pd.DataFrame) -> Derived | str:
    """Our values and intervals; the published ones are copied from a paper, and only the difference is derived."""
    rows = []
    for cell in table.to_dict("records"):
        task, variant, kind = cell["task"], str(cell["variant"]), cell["kind"]
        value: Value | None
        if task == ATTRIBUTION:
            own = evidence.trials[(evidence.trials["task"] == task) & (evidence.trials["variant"] == variant)]
            metric = "accuracy" if cell["tested_on"] == "overall" else f"accuracy/{cell['tested_on']}"
            value = evidence.value(task, variant, (CLEAN, str(own["trained_on"].iloc[0]), "all", metric))
        elif kind == CELL:
            value = evidence.value(task, variant, (CLEAN, str(cell["trained_on"]), str(cell["tested_on"]), "accuracy"))
        else:
            value = evidence.means(variant, "accuracy").get(str(kind))
        if value is None:
            continue
        theirs = float(cell["published"])
        if "not the published set-up" in cell["published inside"]:
            inside = cell["published inside"]
        elif math.isnan(value.one_more_low):
            inside = "no prediction interval" + (": one seed" if value.num_seeds < 2 else "")
        else:
            inside = "yes" if value.one_more_low <= theirs <= value.one_more_high else "no"
        row = {name: cell[name] for name in ("kind", "task", "variant", "tested_on", "trained_on")}
        ends = {name: getattr(value, name) for name in ("low", "high", "one_more_low", "one_more_high")}
        rows.append(
            {**row, "ours": value.mean, **ends, "num_seeds": value.num_seeds, "difference": value.mean - theirs,
             "published inside": inside}
        )  # fmt: skip
    unverified = dict.fromkeys(["published", "note"], COPIED)
    frame = pd.DataFrame(rows)
    shown = frame.assign(trained_on=[label_of(evidence, t) if t != "all" else t for t in frame.get("trained_on", [])])
    return Derived(frame, ["kind", "task", "variant", "tested_on", "trained_on"], unverified, shown=shown)


# Shared --------------------------------------------------------------------------------------------------------------


def _numbers(value: Value | None) -> dict[str, float | int | None]:
    names = ["mean", "std", "num_seeds", "low", "high", "one_more_low", "one_more_high"]
    if value is None:
        return dict.fromkeys(names) | {"num_seeds": 0}
    return {name: getattr(value, name) for name in names}


def mean_cell(
    evidence: Evidence, variant: str, condition: str, column: str, ending: str = ""
) -> dict[str, tuple[float, ...]]:
    """The derived cell of a column such as "AUROC, in-domain"; empty for any other column."""
    words, _, kind = column.rpartition(", ")
    kinds = {"in-domain": IN_DOMAIN, "cross-generator": CROSS, "gap": GAP}
    if words not in IN_WORDS or kind not in kinds:
        return {}
    value = evidence.means(variant, IN_WORDS[words], condition, ending).get(kinds[kind])
    return {column: value.in_brief if value else ()}


def _of_other_tasks(row: Mapping[Any, Any]) -> str:
    return "" if row["task"] in (DETECTION, ATTRIBUTION, OPEN_SET) else f"no rule for the task {row['task']}"


def all_conditions(evidence: Evidence) -> list[str]:
    """Under which a trial of a method was scored."""
    scored = {condition for key in evidence.finished["key"] for condition in evidence.conditions(key)}
    return sorted(scored, key=lambda name: (name != CLEAN, name))


def columns_of(evidence: Evidence, variant: str) -> list[str]:
    """The training sets of a matrix, finished or not."""
    detection = evidence.trials[(evidence.trials["task"] == DETECTION) & (evidence.trials["variant"] == variant)]
    return list(dict.fromkeys(detection["trained_on"]))


def label_of(evidence: Evidence, trained_on: str) -> str:
    """A training set as the heading of a column."""
    if trained_on == "none":
        return "no generator"
    everything, trained = set(evidence.generators), set(trained_on.split("+"))
    left_out = sorted(everything - trained)
    if len(everything) < 3 or len(trained) < 2 or not trained <= everything or len(left_out) > 1:
        return " + ".join(sorted(trained))
    return f"all but {left_out[0]}" if left_out else "all"


def _localised(evidence: Evidence) -> pd.DataFrame | None:
    return evidence.tables.get("localisation-images")
