"""Each method under the conditions that it was scored under: curves, tables of means and shifts, folded matrices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from analysis.cells import cell_table
from analysis.figures.robustness import robustness_figure
from analysis.matrices import class_table, decimals
from analysis.page import Block, Fold, HeatMaps, Text, sentence_list
from analysis.parts import Report, register_part
from analysis.parts.matrices import coloured, matrix
from analysis.parts.summary import mean_text
from analysis.robustness import changed, mean_over_conditions, ordered, score_shifts, scored_under
from analysis.tables import CONFIDENCE, PHOTOGRAPHS_ALONE, cell_text
from data.conditions import CLEAN, get_condition, is_condition, members
from grid.means import CROSS_GENERATOR, IN_DOMAIN
from grid.tasks import ATTRIBUTION, DETECTION
from models.metrics import AT_VALIDATION, in_words

METRICS = ("accuracy", "auroc")
FIXED = "accuracy" + AT_VALIDATION  # at the threshold that was chosen on the validation split, whatever the condition


@register_part("robustness", title="Robustness", position=25)
def robustness(report: Report) -> Iterator[Block]:
    """Empty if every test picture was clean, or pasted back, which has a section of its own."""
    others = ordered(changed(report.store.conditions))
    if not others:
        return
    names = [CLEAN, *others]
    described = "; ".join(f"{name}: {_summary(name)}" for name in others)
    yield Text(
        "The same detectors on changed test pictures, real and fake alike; training pictures, and the threshold from "
        f"validation, are unchanged. {described}."
    )
    yield from map(Text, equalised(report))
    metrics = [*METRICS, FIXED]
    cells = pd.concat([report.cells, cell_table(report.store, metrics=metrics, conditions=others)], ignore_index=True)
    attribution = class_tables(report, {name: name for name in names}, "condition")
    cells = cells[cells["task"] == DETECTION]
    variants = [variant for variant in report.variants(DETECTION) if variant in set(cells["variant"])]
    yield from report.audit()
    if variants:
        yield _curves(report, cells, variants, names)
        yield from _means(report, cells, variants, others)
        yield _table(report, cells, variants, names)
        yield Text("Prediction intervals of one more run are in the CSV files matrix-METHOD-METRIC-CONDITION.")
    if len(attribution):
        caption = "Attribution under each condition: accuracy over all classes, and of each class"
        yield report.folder.table("conditions-attribution", attribution, caption=caption)
    for variant in variants:
        for condition in others:
            own = cells[(cells["variant"] == variant) & (cells["condition"] == condition)]
            if len(own):
                matrices = _matrices(report, variant, condition, own)
                yield Fold(f"{report.labelled(variant)}: {condition}", [*report.audit(), matrices])


def class_tables(report: Report, conditions: Mapping[str, str], heading: str) -> pd.DataFrame:
    """Attribution under several conditions: a row per variant and condition; accuracy over all classes, and of each.

    Args:
        report: the report.
        conditions: condition -> what stands in the column `heading`.
        heading: the last column.
    """
    results = report.store.results()
    tables = [
        class_table(results, ATTRIBUTION, report.generators, condition=condition)
        .rename_axis(columns=None)
        .reset_index()
        .assign(**{heading: words})
        for condition, words in conditions.items()
    ]
    return pd.concat(tables, ignore_index=True)


def equalised(report: Report) -> Iterator[str]:
    """A sentence per condition that detectors were both trained and scored under."""
    for train_condition in dict.fromkeys(report.runs["train_condition"]):
        runs = report.runs[report.runs["train_condition"] == train_condition]
        finished = [run_id for run_id in runs["run_id"] if run_id]
        for condition in changed(members(str(train_condition))):
            if alike := scored_under(report.store, finished, [condition]):
                variants = ", ".join(dict.fromkeys(runs.loc[runs["run_id"].isin(alike), "variant"]))
                if train_condition == condition:
                    yield (
                        f"Real and fake were made alike by {condition}: {variants} learned from pictures under "
                        f"{condition}, and the values under {condition} are of test pictures that went through the "
                        "same. A difference between real and fake files that the condition removes cannot help a "
                        "detector there. A difference that is left under the condition can. Other sections show clean "
                        "test pictures."
                    )
                else:
                    yield f"{variants} learned from pictures under {condition} too, among other conditions."


def _summary(condition: str) -> str:
    return get_condition(condition).summary.rstrip(".") if is_condition(condition) else "not in this checkout"


def _curves(report: Report, cells: pd.DataFrame, variants: Sequence[str], names: Sequence[str]) -> Block:
    """The figure: AUROC, and accuracy at the fixed threshold, over the conditions."""
    means = cells[cells["kind"].isin([IN_DOMAIN, CROSS_GENERATOR]) & cells["metric"].isin(["auroc", FIXED])]
    figure = robustness_figure(
        means, variants=variants, conditions=names, metrics=("auroc", FIXED), labels=report.origins
    )
    lowest = []
    for variant in variants:
        rows = means[(means["variant"] == variant) & (means["metric"] == "auroc") & (means["kind"] == CROSS_GENERATOR)]
        if len(rows):
            worst = rows.iloc[int(rows["mean"].to_numpy(float).argmin())]
            lowest.append(f"{variant} {decimals(float(worst['mean']))} under {worst['condition']}")
    alt = "AUROC and accuracy of each method over the conditions. Lowest cross-generator AUROC: " + "; ".join(lowest)
    return report.folder.picture("robustness", figure, alt=alt + ".")


def _means(report: Report, cells: pd.DataFrame, variants: Sequence[str], others: Sequence[str]) -> Iterator[Block]:
    """A mean over conditions per method, beside clean pictures."""
    rows = []
    for variant in variants:
        finished = list(report.finished(DETECTION, variant)["run_id"])
        runs = scored_under(report.store, finished, others)
        if not runs:
            continue
        row: dict[str, object] = {"method": variant}
        for metric in report.metrics_of(variant, METRICS):
            clean = mean_over_conditions(report.store, runs, metric, [CLEAN])
            under = mean_over_conditions(report.store, runs, metric, others)
            for kind, before, after in zip(("in-domain", "cross-generator"), clean, under, strict=True):
                for words, estimate in ((CLEAN, before), ("mean over conditions", after)):
                    text = "none" if estimate is None else cell_text(estimate.value, float("nan"), *estimate.interval)
                    row[f"{in_words(metric)}, {kind}, {words}"] = text
        row["trials"] = f"{len(runs)} of {len(finished)}"
        rows.append(row)
    if rows:
        caption = (
            f"Mean over {sentence_list(others)} beside clean pictures, each condition with the same weight; in "
            f"brackets {PHOTOGRAPHS_ALONE}; of the trials that were scored under each"
        )
        yield report.folder.table("robustness", pd.DataFrame(rows).fillna("none"), caption=caption)


def _table(report: Report, cells: pd.DataFrame, variants: Sequence[str], names: Sequence[str]) -> Block:
    """A row per method and condition: means, and the shift of the scores."""
    rows = []
    for variant in variants:
        runs = list(report.finished(DETECTION, variant)["run_id"])
        shifts = score_shifts(report.store, runs, names).set_index("condition")
        for condition in names:
            if row := _row(report, cells, variant, condition):
                trials = row.pop("trials")
                for label in ("real", "fake"):
                    row[f"shift of {label}"] = _signed(float(shifts[label].loc[condition]))
                rows.append({**row, "trials": trials})
    caption = (
        f"Means over the cells of each method's matrix, in brackets {CONFIDENCE}; of the trials that were scored under "
        "the condition. The shift is the median change in log-odds of fake of the same "
        "image against the clean picture: above 0, images look more fake than before"
    )
    return report.folder.table("conditions", pd.DataFrame(rows), caption=caption)


def _signed(shift: float) -> str:
    text = f"{shift:+.2f}"
    return "0.00" if text in ("+0.00", "-0.00") else text


def _row(report: Report, cells: pd.DataFrame, variant: str, condition: str) -> dict[str, object]:
    """A method's means under a condition; empty if none of its trials was scored under it."""
    own = cells[(cells["variant"] == variant) & (cells["condition"] == condition)]
    if own.empty:
        return {}
    row: dict[str, object] = {"method": variant, "condition": condition}
    for metric in (*METRICS, FIXED):
        for kind in (IN_DOMAIN, CROSS_GENERATOR):
            name = f"{in_words(metric)}, {kind.removesuffix(' mean')}"
            row[name] = mean_text(report, own, variant, DETECTION, metric, kind)
    scored = {run_id for run_ids in own["run_ids"] for run_id in run_ids}
    planned = (report.runs["variant"] == variant) & (report.runs["task"] == DETECTION)
    row["trials"] = f"{len(scored)} of {planned.sum()}"
    return row


def _matrices(report: Report, variant: str, condition: str, cells: pd.DataFrame) -> HeatMaps:
    """A method's matrices under a condition."""
    metrics = report.metrics_of(variant, METRICS)
    made = [matrix(report, variant, metric, cells=cells, condition=condition) for metric in metrics]
    return coloured(report, made)
