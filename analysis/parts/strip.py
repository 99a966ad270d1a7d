"""One photograph with its fakes, and where the method that carries best sees fake."""

from __future__ import annotations

from collections.abc import Iterator

from analysis.answer import Standing, best_of, standings
from analysis.cam import OWN_MAP
from analysis.figures.strip import strip_figure
from analysis.matrices import column_order, trained_on_label
from analysis.page import Block, Text
from analysis.parts import Report, register_part
from analysis.store import StoreError
from analysis.strip import Strip, make_strip, with_maps
from data.images import BadImage
from grid.tasks import DETECTION
from grid.train_sets import TrainSet
from models.registry import gives_log_odds


@register_part("strip", title="One photograph", position=12)
def strip(report: Report) -> Iterator[Block]:
    """Empty if no method can be called the best, or the pictures are not here, which the limits then say."""
    best = _best(standings(report.cells, report.generators))
    if best is None:
        return
    runs = report.finished(DETECTION, best.variant)
    if not gives_log_odds(str(runs["method"].iloc[0])):
        report.problem(f"No picture of one photograph: the score of {best.variant}, the best, is no log-odds.")
        return
    trained_on = column_order(runs["trained_on"], report.generators)[0]
    run_id = str(runs.loc[runs["trained_on"] == trained_on, "run_id"].iloc[0])
    try:
        made = make_strip(report.manifest, report.store.scores(run_id), report.generators)
    except (StoreError, BadImage) as error:
        report.problem(f"No picture of one photograph beside the summary: {error}")
        return
    if made is None:
        return
    label, training = report.labelled(best.variant), trained_on_label(trained_on, report.generators)
    yield Text(
        f"One test photograph, as {label} sees it: the detector trained on {training}, the first training set of the "
        "tables. Not picked by eye: of the photographs with a fake by every generator, it is the one whose fakes have "
        "the median score: about half of the photographs score higher, and half lower."
    )
    made, what = _maps(report, made, run_id)
    yield Text(what)
    answers = ", ".join(f"{name} {value:+.2f}" for name, value in zip(made.generators, made.log_odds, strict=True))
    real = "" if made.real_log_odds is None else f"the real photograph {made.real_log_odds:+.2f}, "
    figure = strip_figure(
        made, title=f"{label}, trained on {training}: photograph {made.source}",
        note=f"{what} Number: log-odds of “fake”; above 0 the answer is “fake”.",
        trained_on=TrainSet.parse(trained_on).generators,
    )  # fmt: skip
    alt = f"Photograph {made.source}, its mask and its fakes, seen by {label}. Log-odds of fake: {real}{answers}."
    yield report.folder.picture("strip", figure, alt=alt)


def _best(standing: list[Standing]) -> Standing | None:
    """The best on unseen generators: of the methods that learn from fakes, if there are any."""
    ranked = [one for one in standing if one.ranked]
    learnt = [one for one in ranked if one.learns]
    return next(iter(best_of(learnt or ranked)), None)


def _maps(report: Report, made: Strip, run_id: str) -> tuple[Strip, str]:
    """The strip with maps where they can be made, and a sentence on what they are, or why there are none."""
    options = report.options
    if not options.cam:
        return made, "No map: --no-cam asks for none."
    try:
        made = with_maps(made, report.store, run_id, device=options.device, weight_files=options.weight_files)
    except Exception as error:  # whatever fails, the pictures can be shown; the section Grad-CAM has the problem too
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        report.problem(f"No map beside one photograph: {why}")
        return made, f"No map: {why}."
    if made.maps is None:
        return made, "No map: the method has neither maps of its own nor a layer for Grad-CAM."
    what = (
        "Maps: the detector's own, the probability of fake of each place."
        if made.kind == OWN_MAP
        else "Maps: Grad-CAM of the class “fake”, each scaled to its own maximum; the method has no map of its own."
    )
    return made, f"{what} White line: border of the repainted region."
