"""Where the evidence lies, as pictures and as numbers; the one part that needs the images and runs models."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pandas as pd

from analysis.cam import GRAD_CAM, OWN_MAP, Panel, ReadOnce, make_panels
from analysis.cells import IntervalMatrix
from analysis.figures.cam import cam_panel
from analysis.figures.matrices import colour_span
from analysis.localisation import localisation_table, localise_run, without_masks
from analysis.matrices import decimals, matrix_means, pivot, pivots
from analysis.page import Block, Fold, Picture, Text, html_table
from analysis.parts import Report, register_part
from analysis.parts.matrices import NUM_OPEN, Shown, coloured, drawn
from analysis.published import published_localisation
from analysis.store import StoreError
from analysis.variants import add_origins
from data.audits.masks import untrusted_masks
from data.images import MASK_RULE
from data.manifest import Manifest
from data.sources.base import FAKE
from grid.means import mean_of
from grid.plan import TRAIN
from grid.spec import TrialSpec
from grid.tasks import DETECTION
from models.detector import Detector

CAM_METRICS = {
    "iou": "IoU at the threshold from validation",
    "pointing": "pointing game",
    "iou_fixed": "IoU at 0.5",
    "energy": "CAM energy inside the mask",
    "ap": "average precision over pixels",
}
PANEL_IMAGES = 4


@register_part("cam", title="Grad-CAM", position=70)
def cam(report: Report) -> Iterator[Block]:
    """Panels of each method, then localisation of all methods. A run that fails affects no other run."""
    if not report.options.cam:
        report.problem("Grad-CAM is left out, as --no-cam asks.", lasting=True)
        return
    try:
        manifest = report.manifest
    except StoreError as error:
        yield report.problem(f"No Grad-CAM: {error}")
        return
    yield Text(
        "The same photographs for every method: input, mask, and each detector's evidence for “fake”, one detector per "
        "training set. A detector with a map of its own shows that map; of any other, Grad-CAM explains the score that "
        "is shown, the log-odds of fake. Of several seeds, the first finished one. The panels are PNG files alone: an "
        "SVG file of photographs is larger and no sharper."
    )
    fakes = manifest.table[(manifest.table["label"] == FAKE) & (manifest.table["split"] != TRAIN)]
    if without := int(fakes["mask"].isna().sum()):
        yield report.problem(
            f"{without} of {len(fakes)} validation and test fakes have no mask; Grad-CAM is measured on the others.",
            lasting=True,
        )
    verdict = report.store.verdict
    untrusted = {} if verdict is not None and "masks" in verdict.accepted else untrusted_masks(manifest)
    for generator, what in untrusted.items():
        yield report.problem(
            f"Grad-CAM is not measured on the fakes of {generator}: {what}. After a launch with --accept-audit masks "
            "it is.",
            lasting=True,
        )
    trusted = ReadOnce(without_masks(manifest, untrusted))
    tables, priors = list[pd.DataFrame](), dict[tuple[str, ...], pd.DataFrame]()
    for variant in report.variants(DETECTION):
        if report.finished(DETECTION, variant).empty:
            continue
        report.say(f"  {variant}")
        pictures, images = _of_variant(report, manifest, trusted, variant, priors)
        yield from pictures
        if images is not None:
            tables.append(images)
    if tables:
        rows = pd.concat(tables, ignore_index=True)
        shared = report.runs[["run_id", "variant", "trained_on", "seed"]]
        each = shared.merge(rows, on="run_id", how="right")
        (report.folder.path / "tables" / "localisation-images.csv").write_text(
            add_origins(each, report.origins).to_csv(index=False), encoding="utf-8"
        )
        yield from _localisation(report, localisation_table(rows, report.runs))
        yield from _ties(rows)


def _of_variant(
    report: Report, manifest: Manifest, trusted: ReadOnce, variant: str, priors: dict[tuple[str, ...], pd.DataFrame]
) -> tuple[list[Block], pd.DataFrame | None]:
    options, blocks = report.options, list[Block]()
    count = min(PANEL_IMAGES, options.cam_images)
    found = dict[str, pd.DataFrame | Exception]()  # of each run, whose detector is loaded once

    def measure(run_id: str, detector: Detector, spec: TrialSpec) -> None:
        try:
            images = localise_run(
                report.store, run_id, trusted, detector, spec, images_per_cell=options.cam_images, priors=priors
            )
            found[run_id] = images.assign(run_id=run_id)
        except Exception as error:  # whatever fails, the other runs still have their values
            found[run_id] = error

    try:
        panels = make_panels(
            report.store, manifest, variant, count=count, device=options.device, weight_files=options.weight_files,
            also=measure,
        )  # fmt: skip
    except Exception as error:  # whatever fails, the other methods still have their panels
        return [report.problem(f"{variant}: no Grad-CAM: {error}")], None
    columns = panels[0].columns
    problems: list[Block] = [
        report.problem(
            f"{variant}, trained on {column.trained_on}: no Grad-CAM of run {column.run_id}: {column.problem}"
        )
        for column in columns
        if column.problem
    ]
    sound = [column for column in columns if not column.problem]
    if not any(column.maps for column in sound):
        if sound:
            problems.append(Text(f"{variant} has no spatial layer, so there is no Grad-CAM of it."))
        return problems, None
    blocks += [_picture(report, variant, panel) for panel in panels]
    measured = []
    if any(column.kind == OWN_MAP for column in sound):
        problems.append(Text(f"{variant} has maps of its own; the section Localisation holds them against the masks."))
    for column in (column for column in sound if column.kind == GRAD_CAM):
        of_run = found[column.run_id]
        if isinstance(of_run, Exception):
            words = f"{variant}, trained on {column.trained_on}: no localisation of run {column.run_id}: "
            problems.append(report.problem(words + (str(of_run) or type(of_run).__name__)))
        else:
            measured.append(of_run)
    shown = [Fold(f"Panels of {report.labelled(variant)}", blocks), *problems]
    return shown, pd.concat(measured, ignore_index=True) if measured else None


def _picture(report: Report, variant: str, panel: Panel) -> Picture:
    right = ", ".join(
        f"trained on {column.trained_on} {'not known' if column.log_odds is None else (column.log_odds > 0).sum()}"
        for column in panel.columns
    )
    what = "Maps" if any(column.kind == OWN_MAP for column in panel.columns) else "Grad-CAM"
    alt = (
        f"{what} of {report.labelled(variant)} on {len(panel.images)} fakes of {panel.tested_on}: input, mask, "
        f"and one map per training set. Right answers of {len(panel.images)}: {right}."
    )
    figure = cam_panel(panel, report.generators, label=report.labelled(variant))
    return report.folder.picture(f"cam-{variant}-{panel.tested_on}", figure, alt=alt, vector=False)


def _localisation(report: Report, table: pd.DataFrame) -> Iterator[Block]:
    count = int(table.loc[table["subset"] == "all", "num_images"].max())
    yield Text(
        f"Grad-CAM maps against the masks, at most {count} fakes per cell. Shuffled: the same maps with the masks of "
        "other images of the cell. Chance: the mask's share of the picture, the value of a flat map. Prior: the mean "
        "of the validation masks, the same for every image; a map below it has found less than where masks usually lie."
        f" {MASK_RULE}"
    )
    whole = table[table["subset"] == "all"]
    for variant in dict.fromkeys(whole["variant"]):
        matrices = [_matrix(report, table, variant, metric, "all") for metric in CAM_METRICS]
        answered = table.loc[table["variant"] == variant, "subset"]
        matrices += [
            _matrix(report, table, variant, "iou", subset)
            for subset in ("correct", "wrong")
            if (answered == subset).any()
        ]
        yield drawn(report, matrices[:NUM_OPEN])
        others = coloured(report, matrices[NUM_OPEN:])
        yield Fold(f"{report.labelled(variant)}: other metrics of localisation", [others])
    caption = "CAM against the masks, over all images of a cell and split by right and wrong answers"
    shown = table[
        [
            "variant", "trained_on", "tested_on", "subset", "metric", "value", "low", "high", "shuffled", "prior",
            "chance", "flat", "num_images",
        ]
    ].assign(metric=table["metric"].map(CAM_METRICS))  # fmt: skip
    block = report.folder.table("localisation", table, caption=caption, shown=shown)
    yield Fold("Localisation, every value", [block])
    published = report.store.source.published
    if published is not None and published.localisation is not None:
        caption = f"For comparison of the shape only: IoU of {published.localiser}, a localiser trained with masks"
        yield Fold("A published localiser", [html_table(published_localisation(published), caption)])


def _with_intervals(
    rows: pd.DataFrame, matrix: pd.DataFrame, report: Report, variant: str, planned: Iterable[str]
) -> IntervalMatrix:
    """The matrix of one measure with the interval of each cell over its images, which are few."""
    low, high = pivots(rows, ("low", "high"), generators=report.generators, planned=planned).values()
    nothing, seeds = matrix * float("nan"), matrix.notna().astype(int)
    measure = str(rows["metric"].iloc[0])
    return IntervalMatrix(variant, measure, matrix, nothing, seeds, low, high, matrix_means(matrix), {})


def _ties(images: pd.DataFrame) -> Iterator[Block]:
    """How many maps have several highest places, so that the pointing game counts a share of them."""
    shared = images[~images["pointing"].isin([0.0, 1.0])]
    if len(shared):
        flat = int(shared["flat"].sum())
        yield Text(
            f"In the pointing game, {len(shared)} of {len(images)} maps have several highest places that lie partly in "
            f"the mask ({flat} of them are flat): each counts as the share of these places that does, not as 0 or 1."
        )


def _matrix(report: Report, table: pd.DataFrame, variant: str, metric: str, subset: str) -> Shown:
    rows = table[(table["subset"] == subset) & (table["variant"] == variant)]
    planned = report.runs.loc[(report.runs["variant"] == variant) & (report.runs["task"] == DETECTION), "trained_on"]
    of_metric = rows[rows["metric"] == metric]
    matrix = pivot(of_metric, "value", generators=report.generators, planned=planned)
    words = CAM_METRICS[metric] + ("" if subset == "all" else f", {subset} answers")
    fewest, most = int(of_metric["num_images"].min()), int(of_metric["num_images"].max())
    count = f"{most} images per cell" if fewest == most else f"{fewest} to {most} images per cell"
    beside = (
        f"{count}; shuffled {decimals(mean_of(of_metric['shuffled']))}, prior {decimals(mean_of(of_metric['prior']))}"
    )
    name = f"localisation-{variant}-{metric}" + ("" if subset == "all" else f"-{subset}")
    turn = report.options.transpose
    caption = f"{report.labelled(variant)}: {words}"
    report.folder.files(name, matrix, caption=caption, transpose=turn, variant=variant)
    title = f"{report.labelled(variant)}: {words}\n{beside}"
    every = table.loc[(table["metric"] == metric) & (table["subset"] == subset), "value"].astype(float)
    shown = _with_intervals(of_metric, matrix, report, variant, planned)
    return Shown(shown, CAM_METRICS[metric], name, title, colour_span(every, CAM_METRICS[metric]))
