"""Open set: each generator left out of attribution in turn. Is it seen, and what are its images taken for?"""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from analysis.figures.open_set import landing_figure
from analysis.open_set import landing_table, open_set_tables, verdicts
from analysis.page import Block, Bullets, Fold, Text
from analysis.parts import Report, register_part
from analysis.tables import MISSING, PHOTOGRAPHS_ALONE, cell_text
from data.conditions import CLEAN
from grid.tasks import OPEN_SET, REAL
from models.open_set import BASELINE, UNKNOWN_SCORES


@register_part("open_set", title="Open set", position=52)
def open_set(report: Report) -> Iterator[Block]:
    """Empty if the grid has no trials of the task."""
    variants = report.variants(OPEN_SET)
    if not variants:
        return
    yield Text(
        "Each generator is left out of attribution in turn, so that its test images are of no known class. A score "
        "says how likely an image is unknown: two follow from the class scores (largest softmax, energy), two are "
        "distances from the embeddings of the training images. AUROC: the share of pairs of an unknown and a known "
        "image in which the unknown one scores higher; 0.5 is chance. OSCR: the share of such pairs in which the known "
        "image is also given its right class; it cannot be above the accuracy on the known classes. FPR at 95 % TPR: "
        "the share of unknown images that pass as known where 95 % of the known images pass. Validation images of the "
        "known classes choose the number of neighbours. The left-out generator and the test images choose nothing."
    )
    for variant in variants:
        if report.finished(OPEN_SET, variant).empty:
            command = report.store.missing_command(task=OPEN_SET, variant=variant)
            yield Text(f"{variant}: no open-set trial is finished; this runs them:", strong=True, command=command)
    table, accuracy = open_set_tables(report.store)
    if table.empty:
        return
    landings = {variant: landing_table(report.store, variant) for variant in dict.fromkeys(table["variant"])}
    yield Bullets(
        [Text(f"{sentence}. {_most_called_real(landings[str(variant)])}.")
         for variant, sentence in zip(landings, verdicts(table), strict=True)]
    )  # fmt: skip
    yield report.folder.table(
        "open-set", table.drop(columns="run_ids"), shown=_shown(table),
        caption="Unknown against known images, per method, left-out generator and score; in brackets "
        f"{PHOTOGRAPHS_ALONE}",
    )  # fmt: skip
    yield report.folder.table(
        "open-set-accuracy", accuracy.drop(columns="run_ids"), shown=_accuracies(accuracy),
        caption=f"Accuracy on the known classes with one generator left out; in brackets {PHOTOGRAPHS_ALONE}",
    )  # fmt: skip
    for variant, counts in landings.items():
        seeds = int(table.loc[table["variant"] == variant, "num_seeds"].max())
        several = f", {seeds} seeds added up" if seeds > 1 else ""
        caption = f"{report.labelled(str(variant))}: which class the images "
        caption += f"of a left-out generator are given, counts{several}"
        report.folder.files(f"landing-{variant}", counts.astype("Int64"), caption=caption, variant=str(variant))
        yield report.folder.picture(
            f"landing-{variant}",
            landing_figure(counts, title=f"{report.labelled(str(variant))}: where the unknown land{several}"),
            alt=f"{caption}. {_landings_in_words(counts)}",
        )
    for condition in report.store.conditions:
        if condition == CLEAN:
            continue
        table, _ = open_set_tables(report.store, condition=condition)
        if len(table):
            block = report.folder.table(
                f"open-set-{condition}", table.drop(columns="run_ids"), shown=_shown(table),
                caption=f"Unknown against known images, test pictures under {condition}",
            )  # fmt: skip
            yield Fold(f"Open set under {condition}", [block])


def _shown(table: pd.DataFrame) -> pd.DataFrame:
    def texts(name: str) -> list[str]:
        columns = [name, f"{name}_low", f"{name}_high"]
        return [cell_text(value, low=low, high=high) for value, low, high in table[columns].to_numpy(float).tolist()]

    differences = [
        "" if score == BASELINE else text for score, text in zip(table["score"], texts("difference"), strict=True)
    ]
    return pd.DataFrame(
        {
            "method": table["variant"], "left out": table["left_out"],
            "score": [UNKNOWN_SCORES[score].words for score in table["score"]], "AUROC": texts("auroc"),
            "AUROC minus that of the largest softmax": differences, "OSCR": texts("oscr"),
            "FPR at 95 % TPR": texts("fpr95"),
        }
    )  # fmt: skip


def _accuracies(accuracy: pd.DataFrame) -> pd.DataFrame:
    values = accuracy[["accuracy", "low", "high"]].to_numpy(float).tolist()
    texts = accuracy.assign(text=[cell_text(value, low=low, high=high) for value, low, high in values])
    wide = texts.pivot_table(index="variant", columns="left_out", values="text", aggfunc="first", sort=False)
    return wide.fillna(MISSING).rename_axis(index="method", columns="left out")


def _most_called_real(counts: pd.DataFrame) -> str:
    """The left-out generator whose images are called real most often."""
    totals, real = counts.sum(axis=1).to_numpy(float), counts[REAL].to_numpy(float)
    worst = int((real / totals).argmax())
    where = f"{real[worst]:.0f} of {totals[worst]:.0f} images when it was left out"
    return f"Called real most often: {counts.index[worst]}, {where}"


def _landings_in_words(counts: pd.DataFrame) -> str:
    lines = []
    for left_out, row in counts.iterrows():
        words = ", ".join(f"{name} {int(count)}" for name, count in row.dropna().items())
        lines.append(f"{left_out}: {words}")
    return "; ".join(lines) + "."
