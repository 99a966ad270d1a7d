"""Rules for the tables that ask whether a result can be believed: conditions, edited area, thresholds, controls."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from analysis.verify import estimates
from analysis.verify.compare import Between, Derived, OfNothing
from analysis.verify.estimates import Estimate, Images, Piece
from analysis.verify.evidence import (
    ATTRIBUTION,
    CELL,
    CLEAN,
    CONTROL,
    CROSS,
    DETECTION,
    FINISHED,
    IN_DOMAIN,
    PASTED,
    REFERENCE,
    Evidence,
    EvidenceError,
    Where,
    cell_rows,
    slug,
)
from analysis.verify.tables import IN_WORDS, RECORDED, all_conditions, label_of, mean_cell, rule

METRICS = ("accuracy", "auroc")
_OPTIMUM = 1e-5  # share by which two searches for the best temperature may differ
_KINDS = {"in-domain": True, "cross-generator": False}
_MEANS = {IN_DOMAIN: True, CROSS: False}


def _in_domain(where: Where) -> bool:
    return where[2] in where[1].split("+")


def _texts(found: Estimate | None) -> tuple[float, ...]:
    return () if found is None else (found.value, found.low, found.high)


def _variants(evidence: Evidence, task: str = DETECTION) -> list[str]:
    return list(dict.fromkeys(evidence.trials.loc[evidence.trials["task"] == task, "variant"]))


# Conditions ----------------------------------------------------------------------------------------------------------


def _changing(evidence: Evidence) -> list[str]:
    """Conditions of the section on robustness: clean, then those that change real and fake pictures alike."""
    return [name for name in all_conditions(evidence) if name != PASTED]


@rule("conditions")
def conditions(evidence: Evidence, name: str, table: pd.DataFrame) -> Derived | str:
    """The means of each method under each condition, and the median change of the scores."""
    rows = []
    for variant in _variants(evidence):
        planned = evidence.trials[(evidence.trials["task"] == DETECTION) & (evidence.trials["variant"] == variant)]
        for condition in _changing(evidence):
            scored = evidence.runs(DETECTION, variant, condition)
            if scored.empty:
                continue
            row: dict[str, object] = {"method": variant, "condition": condition, "trials": (len(scored), len(planned))}
            for column in table.columns:
                row |= mean_cell(evidence, variant, condition, str(column))
            moved: dict[int, list[np.ndarray]] = {0: [], 1: []}
            for key in scored["key"]:
                before = evidence.scores(key).set_index("path")["score"]
                after = evidence.scores(key, condition).set_index("path")
                change = (after["score"] - before.reindex(after.index)).to_numpy(float)
                for label, changes in moved.items():
                    changes.append(change[after["label"].to_numpy() == label])
            row |= {
                f"shift of {w}": (float(np.median(np.concatenate(moved[n]))),) for n, w in enumerate(("real", "fake"))
            }
            rows.append(row)
    return Derived(pd.DataFrame(rows), ["method", "condition"])


@rule("robustness")
def robustness(evidence: Evidence, name: str, table: pd.DataFrame) -> Derived | str:
    """Means over the conditions beside clean pictures, of the trials that were scored under all."""
    rows, others = [], [condition for condition in _changing(evidence) if condition != CLEAN]
    for variant in _variants(evidence):
        scored, finished = evidence.runs(DETECTION, variant, *others), evidence.runs(DETECTION, variant)
        if scored.empty:
            continue
        row: dict[str, object] = {"method": variant, "trials": (len(scored), len(finished))}
        for heading in table.columns:
            column, _, over = str(heading).rpartition(", ")
            words, _, kind = column.rpartition(", ")
            if words not in IN_WORDS or kind not in _KINDS:
                continue
            found = [
                estimate
                for condition in ([CLEAN] if over == CLEAN else others)
                for where, estimate in evidence.estimates(scored, condition).items()
                if where[3] == IN_WORDS[words] and _in_domain(where) == _KINDS[kind]
            ]
            row[str(heading)] = _texts(estimates.mean_of(found)) if found else ()
        rows.append(row)
    return Derived(pd.DataFrame(rows), ["method"])


@rule("conditions-attribution")
def conditions_attribution(evidence: Evidence, name: str, table: pd.DataFrame) -> Derived | str:
    """Attribution's accuracies under each condition, without intervals."""
    return _attribution(evidence, {name: name for name in _changing(evidence)}, "condition")


@rule("paste-back-attribution")
def pasted_attribution(evidence: Evidence, name: str, table: pd.DataFrame) -> Derived | str:
    """The same of raw and of pasted fakes."""
    return _attribution(evidence, {CLEAN: "raw", PASTED: "pasted"}, "test fakes")


def _attribution(evidence: Evidence, named: Mapping[str, str], heading: str) -> Derived:
    rows = []
    for condition, words in named.items():
        for variant in _variants(evidence, ATTRIBUTION):
            row: dict[str, object] = {}
            for where, (by_seed, _) in evidence.cells(ATTRIBUTION, variant, condition).items():
                if re.match("accuracy(/|$)", where[3]):
                    row[where[3].partition("/")[2] or "overall"] = float(np.mean(list(by_seed.values())))
            rows += [{"method": variant, heading: words, **row}] if row else []
    return Derived(pd.DataFrame(rows), ["method", heading])


# Paste-back ----------------------------------------------------------------------------------------------------------


def _pasted(evidence: Evidence, variant: str, metric: str) -> Iterator[tuple[str, str, str, Estimate, Estimate, bool]]:
    """Kind, trained on, tested on, raw, pasted, and whether no score changes."""
    trials = evidence.runs(DETECTION, variant, PASTED)
    sides = [evidence.estimates(trials, condition) for condition in (CLEAN, PASTED)]
    raw, pasted = ({w[1:3]: e for w, e in side.items() if w[3] == metric} for side in sides)
    same: dict[tuple[str, str], bool] = {}
    for key, trained_on in trials[["key", "trained_on"]].itertuples(index=False):
        after = evidence.images(key, PASTED)
        for tested_on, images in evidence.images(key).items():
            where = str(trained_on), tested_on
            pair = images.scores, after[tested_on].scores
            assert pair[0] is not None
            assert pair[1] is not None
            same[where] = same.get(where, True) and bool(np.array_equal(pair[0], pair[1]))
    shared = [where for where in raw if where in pasted]
    groups = [(CELL, *where, [where]) for where in shared]
    groups += [("mean", "", "", shared)] if shared else []
    for kind, inside in _MEANS.items():
        chosen = [where for where in shared if (where[1] in where[0].split("+")) == inside]
        groups += [(kind, "", "", chosen)] if chosen else []
    for kind, trained_on, tested_on, cells in groups:
        means = [estimates.mean_of([side[where] for where in cells]) for side in (raw, pasted)]
        yield kind, trained_on, tested_on, means[0], means[1], all(same[where] for where in cells)


def _change(raw: Estimate, pasted: Estimate, unchanged: bool) -> tuple[float, float, float, float]:
    return (0.0, 0.0, 0.0, 1.0) if unchanged else estimates.difference(pasted, raw)


@rule("paste-back")
def paste_back(evidence: Evidence, name: str, table: pd.DataFrame) -> Derived | str:
    """The means of each method on raw and on pasted fakes, and their paired difference."""
    rows = []
    words = {metric: words for words, metric in IN_WORDS.items()}
    for variant in _variants(evidence):
        for metric in METRICS:
            for kind, _, _, raw, pasted, unchanged in _pasted(evidence, variant, metric):
                if kind not in _MEANS:
                    continue
                trained = str(evidence.runs(DETECTION, variant)["train_condition"].iloc[0])
                change = (0,) if unchanged else _change(raw, pasted, unchanged)[:3]
                rows.append(
                    {"method": variant, "trained on": {CLEAN: "raw", PASTED: "pasted"}.get(trained, trained),
                     "mean": f"{words[metric]}, {kind.removesuffix(' mean')}", "test raw": (raw.value,),
                     "test pasted": (pasted.value,), "difference": change}
                )  # fmt: skip
    return Derived(pd.DataFrame(rows), ["method", "mean"])


@rule("paste-back-*")
def pasted_cells(evidence: Evidence, name: str, table: pd.DataFrame) -> Derived | str:
    """Every cell of a method on raw and on pasted fakes."""
    named = {slug(f"paste-back-{v}-{m}"): (v, m) for v in _variants(evidence) for m in METRICS}
    if name not in named:
        return OfNothing("its name does not say which method and metric it is of")
    (variant, metric), rows, texts = named[name], [], {}
    for kind, trained_on, tested_on, raw, pasted, unchanged in _pasted(evidence, variant, metric):
        change = _change(raw, pasted, unchanged)
        rows.append(
            {"kind": kind, "trained_on": trained_on, "tested_on": tested_on, "metric": metric, "raw": raw.value,
             "pasted": pasted.value, **dict(zip(("difference", "low", "high", "p"), change, strict=True)),
             "pasted_low": pasted.low, "pasted_high": pasted.high, "unchanged": str(unchanged)}
        )  # fmt: skip
        if kind == CELL:
            texts[tested_on, label_of(evidence, trained_on)] = (0,) if unchanged else change[:3]
    wide = pd.Series(texts).unstack().rename_axis(index="tested on", columns="trained on")
    return Derived(pd.DataFrame(rows), ["kind", "trained_on", "tested_on"], wide=wide)


# Edited area ---------------------------------------------------------------------------------------------------------

_THIRDS = ("smallest third", "middle third", "largest third")


def _by_area(evidence: Evidence) -> pd.DataFrame | str:
    """Every cell by thirds of the edited area of its test fakes, and the means; each third has all the reals."""
    path = evidence.folder / "artifacts" / "edited_areas.json"
    if not path.is_file():
        return "the grid's run has no edited_areas.json"
    try:
        areas = {str(digest): float(area) for digest, area in json.loads(path.read_text(encoding="utf-8")).items()}
    except (ValueError, AttributeError) as error:
        raise EvidenceError(f"{path} cannot be read: {error}") from error
    rows: list[dict[str, object]] = []
    for variant in _variants(evidence):
        parts: dict[tuple[str, str, str, str], list[list[Piece]]] = {}
        facts: dict[tuple[str, str], tuple[float, float, int]] = {}
        for key, trained_on in evidence.runs(DETECTION, variant)[["key", "trained_on"]].itertuples(index=False):
            scores = evidence.scores(key)
            area = np.array([areas.get(digest, math.nan) for digest in scores["digest"]])
            fake, made_by = scores["label"].to_numpy() == 1, scores["generator"].to_numpy(object)
            for tested_on, images in evidence.images(key).items():
                own = area[fake & (made_by == tested_on)]
                in_cell = area[((made_by == tested_on) | (~fake & (made_by == "real")))]
                known = own[~np.isnan(own)]
                if not len(known):
                    continue
                edges = [-math.inf, *np.quantile(known, [1 / 3, 2 / 3]), math.inf]
                for third, low, high in zip(_THIRDS, edges[:-1], edges[1:], strict=True):
                    chosen = (images.labels == 1) & (in_cell > low) & (in_cell <= high)
                    if not chosen.any():
                        continue
                    facts[tested_on, third] = in_cell[chosen].min(), in_cell[chosen].max(), int(chosen.sum())
                    part = _part(images, chosen | (images.labels == 0))
                    for metric in ("auroc", "balanced_accuracy") if evidence.gives_log_odds(key) else ("auroc",):
                        parts.setdefault((trained_on, tested_on, metric, third), []).append(
                            estimates.pieces(part, metric)
                        )
        found = {where: estimates.over_seeds(of_seeds) for where, of_seeds in parts.items()}
        groups = [(CELL, *where, [where]) for where in found]
        for metric, third in dict.fromkeys(where[2:] for where in found):
            for kind, inside in _MEANS.items():
                alike = [w for w in found if w[2:] == (metric, third) and (w[1] in w[0].split("+")) == inside]
                groups += [(kind, "", "", metric, third, alike)] if alike else []
        for kind, trained_on, tested_on, metric, third, cells in groups:
            mean, known_facts = estimates.mean_of([found[w] for w in cells]), [facts[w[1], w[3]] for w in cells]
            rows.append(
                {"kind": kind, "method": variant, "trained_on": trained_on, "tested_on": tested_on, "metric": metric,
                 "third": third, "area_from": min(f[0] for f in known_facts),
                 "area_to": max(f[1] for f in known_facts), "num_fakes": sum(f[2] for f in known_facts),
                 "mean": mean.value, "low": mean.low, "high": mean.high}
            )  # fmt: skip
    return pd.DataFrame(rows)


def _part(images: Images, chosen: np.ndarray) -> Images:
    scores = None if images.scores is None else images.scores[chosen]
    arrays = images.labels[chosen], images.answers[chosen], images.units[chosen]
    return Images(*arrays, images.num_units, images.classes, scores)


@rule("edited-area")
def edited_area(evidence: Evidence, name: str, table: pd.DataFrame) -> Derived | str:
    """The means of each method by edited area."""
    found = _by_area(evidence)
    if isinstance(found, str):
        return found
    words = {metric: words for words, metric in IN_WORDS.items()}
    rows: dict[tuple[str, str], dict[str, object]] = {}
    for row in found[found["kind"] != CELL].to_dict("records"):
        key = row["method"], f"{words[row['metric']]}, {row['kind'].removesuffix(' mean')}"
        empty: dict[str, object] = {"method": key[0], "mean": key[1], **dict.fromkeys(_THIRDS, ())}
        rows.setdefault(key, empty)[row["third"]] = row["mean"], row["low"], row["high"]
    return Derived(pd.DataFrame(list(rows.values())), ["method", "mean"])


@rule("edited-area-cells")
def edited_area_cells(evidence: Evidence, name: str, table: pd.DataFrame) -> Derived | str:
    """Every cell by edited area."""
    found = _by_area(evidence)
    if isinstance(found, str):
        return found
    cells = found[found["kind"] == CELL].drop(columns="kind").reset_index(drop=True)
    return Derived(cells, ["method", "trained_on", "tested_on", "metric", "third"])


# Thresholds ----------------------------------------------------------------------------------------------------------


@rule("thresholds")
def thresholds(evidence: Evidence, name: str, table: pd.DataFrame) -> Derived | str:
    """The means of each method at several thresholds."""
    rows = []
    for variant in _variants(evidence):
        if len(evidence.runs(DETECTION, variant)):
            row: dict[str, object] = {"method": variant}
            for column in table.columns:
                row |= mean_cell(evidence, variant, CLEAN, str(column))
            rows.append(row)
    return Derived(pd.DataFrame(rows), ["method"])


@rule("temperatures")
def temperatures(evidence: Evidence, name: str, table: pd.DataFrame) -> Derived | str:
    """Temperatures from the trials' own validation images, and calibration errors before and with the kept ones."""
    rows = []
    detection = evidence.finished[evidence.finished["task"] == DETECTION]
    for key, variant, trained_on, seed in detection[["key", "variant", "trained_on", "seed"]].itertuples(index=False):
        kept, own = evidence.validation(key), evidence.own_validation(key)
        if kept is None or kept[1]["temperature"] is None:
            continue
        if trained_on == "none":  # from self-edited photographs, whose scores are not kept
            fitted = kept[1]["temperature"]
            rows.append(
                {"method": variant, "trained_on": trained_on, "seed": seed, "temperature": fitted["value"],
                 "ECE before": fitted["ece_before"], "ECE after": fitted["ece_after"],
                 "validation images": fitted["num_images"]}
            )  # fmt: skip
            continue
        if own is None:
            continue
        labels, scores = own["label"].to_numpy(), own["score"].to_numpy(float)
        value = estimates.temperature(labels, scores)
        near = _OPTIMUM + estimates.flatness(scores, value)
        rows.append(
            {"method": variant, "trained_on": trained_on, "seed": seed,
             "temperature": Between(value * (1 - near), value * (1 + near)),
             "ECE before": estimates.calibration_error(labels, scores),
             "ECE after": estimates.calibration_error(labels, scores / kept[1]["temperature"]["value"]),
             "validation images": own["path"].nunique()}
        )  # fmt: skip
    return Derived(pd.DataFrame(rows), ["method", "trained_on", "seed"], {"note": RECORDED})


@rule("threshold-transfer-*")
def transfer(evidence: Evidence, name: str, table: pd.DataFrame) -> Derived | str:
    """The threshold of one generator's validation images, used on another: means over detectors."""
    named = {slug(f"threshold-transfer-{variant}{end}"): (variant, end) for variant in _variants(evidence)
                for end in ("", "-each")}  # fmt: skip
    if name not in named:
        return OfNothing("its name does not say which method it is of")
    variant, end = named[name]
    cells = _transfers(evidence, variant)
    keys = ["trained_on", "chosen_on", "used_on"]
    grouped = cells.groupby(keys, sort=False)["accuracy"]
    each = grouped.agg(accuracy="mean", num_seeds="count").reset_index()
    if end:
        return Derived(each, keys)
    first = str(table.columns[0])
    matrix = each.pivot_table(index="used_on", columns="chosen_on", values="accuracy", aggfunc="mean")
    return Derived(matrix.rename_axis(index=first, columns=None).reset_index(), [first])


def _transfers(evidence: Evidence, variant: str) -> pd.DataFrame:
    rows = []
    for key, trained_on in evidence.runs(DETECTION, variant)[["key", "trained_on"]].itertuples(index=False):
        kept = evidence.validation(key)
        if kept is None:
            continue
        images = kept[0]
        for chosen_on in dict.fromkeys(images.loc[images["label"] == 1, "generator"]):
            own = images[cell_rows(images, str(chosen_on))]
            if own["label"].nunique() == 2:
                threshold = estimates.validation_threshold(own["label"].to_numpy(), own["score"].to_numpy(float))
                for used_on, cell in evidence.images(key).items():
                    rows.append((trained_on, chosen_on, used_on, estimates.metric(cell.at(threshold), "accuracy")))
    return pd.DataFrame(rows, columns=["trained_on", "chosen_on", "used_on", "accuracy"])


# Controls ------------------------------------------------------------------------------------------------------------


@rule("controls")
def controls(evidence: Evidence, name: str, table: pd.DataFrame) -> Derived | str:
    """Every cell of every null control, with its 99 % interval."""
    trials, rows = evidence.of_kind(CONTROL), []
    for trial in trials[trials["state"] == FINISHED].to_dict("records"):
        shared = {column: trial[column] for column in ("task", "variant", "seed", "run_id")}
        for (tested_on, metric), (_, pieces) in evidence.of_trial(trial["key"], CLEAN).items():
            if metric in METRICS:
                found = estimates.over_seeds([pieces], 0.99)
                outside = not found.low <= 0.5 <= found.high
                values = {"value": found.value, "low": found.low, "high": found.high, "outside": str(outside)}
                rows.append(shared | {"tested_on": tested_on, "metric": metric} | values)
    frame = pd.DataFrame(rows)
    shown = frame.assign(outside=frame["outside"].map(_YES_NO))
    return Derived(frame, ["run_id", "tested_on", "metric"], shown=shown)


_YES_NO = {"True": "yes", "False": "no"}


def _references(evidence: Evidence) -> dict[str, dict[Where, Estimate]]:
    """Reference -> cell -> value: of trials, and of the scores that are kept with the grid's run."""
    trials = evidence.of_kind(REFERENCE)
    trials = trials[(trials["state"] == FINISHED) & (trials["task"] == DETECTION)]
    found = {str(v): evidence.estimates(own) for v, own in trials.groupby("variant", sort=False)}
    path = evidence.folder / "artifacts" / "references.json"
    if not path.is_file():
        return found
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        scores = pd.read_parquet(path.parent / facts["scores"])
    except Exception as error:  # pyarrow raises many kinds
        raise EvidenceError(f"{path}, or the scores that it names, cannot be read: {error}") from error
    for (reference, trained_on, tested_on), rows in scores.groupby(
        ["reference", "trained_on", "tested_on"], sort=False
    ):
        units = evidence.photographs.get_indexer(pd.Index(rows["source_id"]))
        values = rows["score"].to_numpy(float)
        images = Images(
            rows["label"].to_numpy(),
            (values > 0).astype(int),
            units,
            len(evidence.photographs),
            ("real", "fake"),
            values,
        )
        for metric in METRICS:
            where = CLEAN, str(trained_on), str(tested_on), metric
            found.setdefault(str(reference), {})[where] = estimates.over_seeds([estimates.pieces(images, metric)])
    return {name: {w: e for w, e in cells.items() if w[3] in METRICS} for name, cells in found.items()}


def _own(evidence: Evidence, variant: str) -> dict[Where, Estimate]:
    cells = evidence.estimates(evidence.runs(DETECTION, variant))
    return {where: estimate for where, estimate in cells.items() if where[3] in METRICS}


@rule("references")
def references(evidence: Evidence, name: str, table: pd.DataFrame) -> Derived | str:
    """Every cell of every reference."""
    rows = [
        (reference, *where[1:], *_texts(found))
        for reference, cells in _references(evidence).items()
        for where, found in cells.items()
    ]
    keys = ["reference", "trained_on", "tested_on", "metric"]
    return Derived(pd.DataFrame(rows, columns=[*keys, "value", "low", "high"]), keys)


@rule("references-*")
def references_beside(evidence: Evidence, name: str, table: pd.DataFrame) -> Derived | str:
    """The means of each reference over the cells that a method has, too."""
    variants = [variant for variant in _variants(evidence) if slug(f"references-{variant}") == name]
    if len(variants) != 1:
        return OfNothing("its name does not say which method it is of")
    own, rows = _own(evidence, variants[0]), []
    for reference, cells in _references(evidence).items():
        row: dict[str, object] = {"reference": reference}
        for column in table.columns:
            words, _, kind = str(column).rpartition(", ")
            if words in IN_WORDS and kind in _KINDS:
                shared = [w for w in cells if w in own and w[3] == IN_WORDS[words] and _in_domain(w) == _KINDS[kind]]
                row[str(column)] = float(np.mean([cells[w].value for w in shared])) if shared else math.nan
        rows.append(row)
    return Derived(pd.DataFrame(rows), ["reference"])


@rule("beside-references")
def beside(evidence: Evidence, name: str, table: pd.DataFrame) -> Derived | str:
    """Every cell of every method minus the best reference of it, paired by photograph."""
    of_references, rows = _references(evidence), []
    columns = ["variant", "metric", "trained_on", "tested_on"]
    named = {tuple(row[:4]): row[4] for row in table[[*columns, "best_reference"]].to_numpy().tolist()}
    for variant in _variants(evidence):
        for where, estimate in _own(evidence, variant).items():
            rivals = {reference: cells[where] for reference, cells in of_references.items() if where in cells}
            if not rivals:
                continue
            most, row = max(found.value for found in rivals.values()), (variant, where[3], where[1], where[2])
            best = [reference for reference, found in rivals.items() if found.value >= most - 1e-12]
            chosen = str(named[row]) if named.get(row) in best else best[0]  # of equal ones, any is the best
            change = estimates.difference(estimate, rivals[chosen])[:3]
            rows.append((*row, estimate.value, chosen, rivals[chosen].value, *change, str(change[1] > 0)))
    names = [*columns, "value", "best_reference", "reference_value", "difference", "low", "high", "above"]
    frame = pd.DataFrame(rows, columns=names)
    return Derived(frame, columns, shown=frame.assign(above=frame["above"].map(_YES_NO)))


@rule("audit")
def audit(evidence: Evidence, name: str, table: pd.DataFrame) -> Derived | str:
    """Findings."""
    return "what audits found in the images when the grid was launched; needs the images"
