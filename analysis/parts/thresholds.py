"""Each method at several thresholds: p = 0.5, the own validation threshold, the oracle; and where few reals may err."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from analysis.cells import cell_table
from analysis.matrices import decimals
from analysis.page import Block, Fold, Text
from analysis.parts import Report, register_part
from analysis.parts.matrices import coloured, matrix
from analysis.parts.summary import mean_text
from analysis.tables import CONFIDENCE
from analysis.thresholds import CHOSEN_ON, USED_ON, fewest_reals, transfer_matrix, transfer_table
from analysis.verdicts import temperature_of
from grid.means import CROSS_GENERATOR, IN_DOMAIN
from grid.tasks import DETECTION
from models.metrics import AT_VALIDATION, in_words

ORACLE = "oracle_accuracy"
LOW_FPR = {"tpr_at_fpr_1": 100, "tpr_at_fpr_5": 20}  # metric -> reals of which one is the share that may err
UNSURE_BELOW = {"tpr_at_fpr_1": 500}  # metric -> reals below which fewer than 9 of 10 intervals hold the truth
METRICS = ("accuracy", f"accuracy{AT_VALIDATION}", ORACLE, *LOW_FPR)


@register_part("thresholds", title="Thresholds", position=22)
def thresholds(report: Report) -> Iterator[Block]:
    """A table of means per method, folded matrices, and the threshold of one generator used on another."""
    variants = [variant for variant in report.variants(DETECTION) if len(report.finished(DETECTION, variant))]
    if not variants:
        return
    yield Text(
        "The same scores at several thresholds. The oracle is the best threshold in hindsight, found on the test cell "
        "itself: no detector has it, nothing is ranked by it and nothing is chosen with it. What lies between it and "
        "the own validation threshold is lost by a threshold that has moved, not by the order of the images. TPR is "
        "the share of fakes that are found where 1 % or 5 % of the reals may be called fake; images of one score are "
        "called alike."
    )
    few = fewest_reals(report.store, str(report.finished(DETECTION)["run_id"].iloc[0]))
    for metric, needed in LOW_FPR.items():
        if few < needed:
            yield Text(
                f"{in_words(metric)} rests on too few images: a test cell has {few} reals, and with fewer than "
                f"{needed} it is the share of fakes above the highest of them."
            )
        elif few < UNSURE_BELOW.get(metric, 0):
            yield Text(
                f"{in_words(metric)} rests on few images: a test cell has {few} reals, of which {few // needed} may be "
                f"called fake. With fewer than {UNSURE_BELOW[metric]} reals the value tends to be too high and its "
                "interval too narrow (docs/numbers.md)."
            )
    cells = cell_table(report.store, metrics=METRICS)
    cells = cells[cells["task"] == DETECTION]
    rows = [
        {"method": variant}
        | {
            f"{in_words(metric)}, {kind.removesuffix(' mean')}": mean_text(
                report, cells, variant, DETECTION, metric, kind
            )
            for metric in METRICS
            for kind in (IN_DOMAIN, CROSS_GENERATOR)
        }
        for variant in variants
    ]
    caption = f"Means over the cells of each method's matrix, in brackets {CONFIDENCE}"
    yield report.folder.table("thresholds", pd.DataFrame(rows), caption=caption)
    yield from _temperatures(report, variants)
    for variant in variants:
        shown = [matrix(report, variant, metric, cells=cells) for metric in (ORACLE, *LOW_FPR)]
        yield Fold(f"{report.labelled(variant)}: thresholds", [*_transfer(report, variant), coloured(report, shown)])


def _temperatures(report: Report, variants: list[str]) -> Iterator[Block]:
    """Each run's temperature; empty if all runs are older."""
    rows: list[dict[str, object]] = []
    for variant in variants:
        for run_id, trained_on, seed in report.finished(DETECTION, variant)[
            ["run_id", "trained_on", "seed"]
        ].itertuples(index=False):
            fitted = temperature_of(report.store, str(run_id))
            if fitted is None:
                continue
            row = {"method": variant, "trained_on": trained_on, "seed": seed, "temperature": fitted.value}
            row |= {"ECE before": fitted.ece_before, "ECE after": fitted.ece_after}
            rows.append(row | {"validation images": fitted.num_images, "note": fitted.note})
    if rows:
        caption = "Temperature of each run and its calibration error, on the run's own validation images"
        table = pd.DataFrame(rows)
        shown = table.assign(**{name: table[name].map(decimals) for name in ("temperature", "ECE before", "ECE after")})
        yield Fold("Temperatures", [report.folder.table("temperatures", table, caption=caption, shown=shown)])


def _transfer(report: Report, variant: str) -> Iterator[Block]:
    """The threshold chosen on one generator, used on another: the mean over detectors, and each of them as a table."""
    table, older = transfer_table(report.store, report.finished(DETECTION, variant))
    if older:
        lack, command = "keeps" if len(older) == 1 else "keep", report.store.validation_command(older)
        number = "1 older run" if len(older) == 1 else f"{len(older)} older runs"
        yield Text(
            f"{number} of {variant} {lack} no validation scores, so thresholds of other generators are not known; this "
            "adds them, from the checkpoints:", command=command,
        )  # fmt: skip
    if table.empty:
        return
    name, words = f"threshold-transfer-{variant}", "accuracy with the threshold of one generator's validation images"
    matrix = transfer_matrix(table, report.generators)
    caption = f"{report.labelled(variant)}: {words}; "
    caption += f"columns: {CHOSEN_ON}, rows: {USED_ON} the test cell; means over training sets"
    yield report.folder.table(name, matrix, caption=caption, shown=matrix.map(decimals), variant=variant)
    each = table.assign(accuracy=table["accuracy"].map(decimals))
    caption = f"{report.labelled(variant)}: {words}, per training set (means over seeds)"
    yield report.folder.table(f"{name}-each", table, caption=caption, shown=each, variant=variant)
