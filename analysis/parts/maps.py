"""Detectors' own maps beside the masks: a matrix per method and measure, by edited area, beside published values."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from analysis.areas import THIRDS
from analysis.cells import CELL
from analysis.figures.matrices import colour_span
from analysis.maps import IN_WORDS, METRICS, Cells, map_areas, map_cells, map_table
from analysis.matrices import ORIENTATION, decimals, pivot
from analysis.page import Block, Fold, Text
from analysis.parts import Report, register_part
from analysis.parts.matrices import Shown, coloured, drawn
from analysis.published import localisation_beside_published
from analysis.store import StoreError
from analysis.tables import MISSING, cell_text, in_words
from data.audits.masks import doubted
from data.images import MASK_RULE
from grid.localisation import MEAN_MASK
from grid.means import mean_of
from grid.tasks import DETECTION

FIRST = ("iou_fixed", "iou_valid", "ap")


@register_part("maps", title="Localisation", position=69)
def maps(report: Report) -> Iterator[Block]:
    """Empty if no method of the grid has maps of its own, or its data set has no masks."""
    verdict = report.store.verdict
    untrusted = {} if verdict is None or "masks" in verdict.accepted else doubted(verdict.findings, report.generators)
    cells = dict[str, Cells]()
    for variant in report.variants(DETECTION):
        try:
            found = map_cells(
                report.store, list(report.finished(DETECTION, variant)["run_id"]), leave_out=list(untrusted)
            )
        except StoreError as error:
            yield report.problem(f"{variant}: no localisation: {error}")
            continue
        cells |= {variant: found} if found else {}
    if not cells:
        return
    turned = "rows: trained on, columns: tested on" if report.options.transpose else ORIENTATION
    yield Text(
        "Maps of the detectors themselves, log-odds of fake per place, against the masks of all test fakes, pixel by "
        f"pixel, as the trials measured them on clean pictures. One matrix per method and measure; {turned}. Values "
        "are means over fakes and seeds, intervals are over photographs. Chance: a map that calls every pixel fake, "
        "or orders pixels at random. Mean mask: the mean of the training masks, the same map for every picture, with "
        "thresholds of its own; a map that is not above it has found less than where masks usually lie. Shuffled: the "
        "same maps beside the masks of other fakes of the generator. A constant map has the values that follow from "
        f"it. {MASK_RULE}"
    )
    yield from report.audit()
    for generator, what in untrusted.items():
        yield report.problem(
            f"Maps are not shown on the fakes of {generator}: {what}. After a launch with --accept-audit masks they "
            "are."
        )
    yield from _left_out(report, cells)
    table = map_table(cells)
    for variant in cells:
        own = table[table["variant"] == variant]
        shown = {metric: _matrix(report, own, table, metric) for metric in METRICS if metric in set(own["metric"])}
        yield drawn(report, [shown[metric] for metric in FIRST if metric in shown])
        if "iou_valid" not in shown:
            yield Text(
                f"{variant} had no validation fake whose mask could choose a threshold; log-odds 0 stands alone."
            )
        rest = coloured(report, [each for metric, each in shown.items() if metric not in FIRST])
        yield Fold(f"{report.labelled(variant)}: other measures of its maps", [rest, *_thresholds(report, variant)])
    caption = "Maps beside the masks: every cell and the means over cells; 95 % intervals over source photographs"
    block = report.folder.table("maps", table, caption=caption, shown=_worded(in_words(table, report.generators)))
    means = "Maps beside the masks: means over the cells of each method; in brackets 95 % intervals"
    yield report.folder.table("maps-means", _means(table), caption=means)
    yield Fold("Maps beside the masks, every value", [block])
    yield from _by_area(report, cells)
    yield from _published(report, table)


def _left_out(report: Report, cells: dict[str, Cells]) -> Iterator[Block]:
    """A sentence on the test fakes that have no place to find."""
    of_generator: dict[str, dict[str, int]] = {}
    for variant in cells:
        for run_id in report.finished(DETECTION, variant)["run_id"]:
            measured = report.store.localisation(run_id)
            of_generator |= {} if measured is None else measured[1]["left_out"]
    words = [
        f"{generator} {' and '.join(f'{count} {why}' for why, count in counts.items())}"
        for generator, counts in of_generator.items()
    ]
    if words:
        yield report.problem(f"Test fakes that are left out of localisation: {'; '.join(words)}.", lasting=True)


def _thresholds(report: Report, variant: str) -> Iterator[Block]:
    """The threshold of each run from its validation masks, in a sentence."""
    words = []
    for row in report.finished(DETECTION, variant)[["run_id", "trained_on", "seed"]].itertuples(index=False):
        measured = report.store.localisation(str(row.run_id))
        if measured is not None and measured[1]["threshold"] is not None:
            words.append(f"trained on {row.trained_on}, seed {row.seed}: {measured[1]['threshold']:+.2f}")
    if words:
        yield Text(f"Thresholds from validation, as log-odds: {'; '.join(words)}.")


def _matrix(report: Report, table: pd.DataFrame, every: pd.DataFrame, metric: str) -> Shown:
    """Of one variant, whose values `table` has; `every` has those of all, which share a scale of colours."""
    variant = str(table["variant"].iloc[0])
    rows = table[(table["metric"] == metric) & (table["kind"] == CELL)]
    planned = report.runs.loc[(report.runs["variant"] == variant) & (report.runs["task"] == DETECTION), "trained_on"]
    matrix = pivot(rows, "mean", generators=report.generators, planned=planned)
    fewest, most = int(rows["num_images"].min()), int(rows["num_images"].max())
    count = f"{most} fakes per cell" if fewest == most else f"{fewest} to {most} fakes per cell"
    beside = [
        f"{words} {decimals(mean_of(rows[name]))}"
        for name, words in (("chance", "chance"), (MEAN_MASK, "mean mask"), ("shuffled", "shuffled"))
        if rows[name].notna().any()
    ]
    turn, words = report.options.transpose, IN_WORDS[metric]
    name = f"maps-matrix-{variant}-{metric}"
    caption = f"{report.labelled(variant)}: {words}"
    report.folder.files(name, matrix, caption=caption, transpose=turn, variant=variant)
    title = f"{report.labelled(variant)}: {words}\n{count}; {', '.join(beside)}"
    span = colour_span(every.loc[(every["metric"] == metric) & (every["kind"] == CELL), "mean"].astype(float), words)
    return Shown(matrix, words, name, title, span)


def _means(table: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for (variant, kind, metric), row in table[table["kind"] != CELL].groupby(["variant", "kind", "metric"], sort=False):
        one = row.iloc[0].to_dict()
        rows.append(
            {"method": variant, "mean": str(kind).removesuffix(" mean"), "measure": IN_WORDS[str(metric)],
             "maps": _interval(row),
             **{name.replace("_", " "): _number(one[name]) for name in ("chance", MEAN_MASK, "shuffled")}}
        )  # fmt: skip
    return pd.DataFrame(rows)


def _number(value: float) -> str:
    return decimals(value) if value == value else MISSING


def _worded(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(metric=table["metric"].map(IN_WORDS)).rename(columns={"metric": "measure"})


def _by_area(report: Report, cells: dict[str, Cells]) -> Iterator[Block]:
    table = map_areas(cells)
    if table.empty:
        return
    caption = (
        "Maps by edited area: each generator's test fakes in thirds by the share of the picture that their mask covers"
    )
    block = report.folder.table("maps-areas", table, caption=caption, shown=_worded(in_words(table, report.generators)))
    rows = [
        {"method": variant, "mean": str(kind).removesuffix(" mean"), "measure": IN_WORDS[str(metric)]}
        | {third: _interval(of_mean[of_mean["third"] == third]) for third in THIRDS}
        for (variant, kind, metric), of_mean in table[table["kind"] != CELL].groupby(
            ["variant", "kind", "metric"], sort=False
        )
    ]
    means = "Maps by edited area: means over the cells of each method; in brackets 95 % intervals"
    yield report.folder.table("maps-areas-means", pd.DataFrame(rows), caption=means)
    yield Fold("Maps by edited area: every cell", [block])


def _interval(rows: pd.DataFrame) -> str:
    """The value of the one row with its interval; "missing" without a row."""
    if rows.empty:
        return MISSING
    value, low, high = rows[["mean", "low", "high"]].iloc[0].astype(float)
    return cell_text(value, float("nan"), low, high)


def _published(report: Report, table: pd.DataFrame) -> Iterator[Block]:
    beside = localisation_beside_published(report.store, table)
    if beside.empty:
        return
    published = report.store.source.published
    assert published is not None
    caption = (
        f"IoU of our maps at log-odds 0 beside {published.localiser}; the set-up differs in each row, as the note says"
    )
    yield report.folder.table("maps-published", beside, caption=caption, shown=in_words(beside, report.generators))
