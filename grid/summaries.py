"""What MLflow's lists and pages show of a grid at a glance: means of each method, and descriptions."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from grid import names
from grid.controls import METHOD, kind_of
from grid.means import CROSS_GENERATOR, IN_DOMAIN, SUMMARISED, summary_of_method
from grid.overview import label_of_trial, trained_in_words
from grid.plan import FINISHED
from grid.records import Records, StoreError, speaking_runs, state_of
from grid.spec import TrialSpec
from grid.tasks import DETECTION
from grid.train_sets import TrainSet
from grid.variants import variants_of

if TYPE_CHECKING:
    from mlflow.entities import Run

log = logging.getLogger(__name__)

_BEGIN = "Grid on data set "
HEADINGS = {IN_DOMAIN: "own generators", CROSS_GENERATOR: "unseen generators"}


def describe_trial(spec: TrialSpec) -> str:
    """A trial in Markdown, for its page in MLflow."""
    label = f"trained on {trained_in_words(spec, ())}"
    lines = [f"**{label_of_trial(spec)}**, {spec.task}: {label}, seed {spec.seed}."]
    if spec.task == DETECTION:
        own, unseen = (names.summary_metric(kind, "METRIC") for kind in (IN_DOMAIN, CROSS_GENERATOR))
        lines.append(
            f"`{own}` is the mean over the generators that it was trained on, `{unseen}` over the others "
            "(docs/numbers.md); `test/GENERATOR/METRIC` is one cell. Pictures of the cells, of the ROC curves and of "
            f"the worst mistakes are in the artifacts, folder `{names.PREVIEW}`."
        )
    return "\n\n".join(lines)


def summaries(records: Records, grid: Run) -> tuple[dict[str, float], dict[str, str]]:
    """The metrics and tags that a grid's run lacks: each method's means, and its description.

    Args:
        records: of the experiment.
        grid: the grid's run.

    Returns:
        those that differ from what the run has; a description that a person wrote is not among them.
    """
    data = grid.data.tags[names.DATA]
    trials = [run for run in records.trials() if run.data.tags.get(names.DATA) == data]
    runs = speaking_runs(trials)
    try:
        planned = records.plan(grid)
    except StoreError as error:  # a launch goes on without it, and so does its end
        log.warning("the means of the methods are not logged: %s", error)
        return {}, {}
    methods = {key: fields for key, fields in planned.items() if kind_of(fields["task"], fields["method"]) == METHOD}
    variants = dict(zip(methods, variants_of(list(methods.values())), strict=True))
    of_variant: dict[str, list[tuple[TrainSet, Mapping[str, float]]]] = {}
    for key, run in runs.items():
        if key in variants and run.data.tags[names.TASK] == DETECTION and state_of(run) == FINISHED:
            train_set = TrainSet.parse(run.data.tags[names.TRAIN_GENERATORS])
            of_variant.setdefault(variants[key], []).append((train_set, run.data.metrics))
    found: dict[str, float] = {}
    for variant, own in of_variant.items():
        found |= summary_of_method(variant, own)
    new = {name: value for name, value in found.items() if grid.data.metrics.get(name) != value}
    note = describe_grid(grid, {variant: summary_of_method(variant, own) for variant, own in of_variant.items()})
    before = grid.data.tags.get(names.DESCRIPTION, "")
    is_ours = not before or before.startswith(_BEGIN)
    return new, {names.DESCRIPTION: note} if is_ours and before != note else {}


def describe_grid(grid: Run, of_variant: Mapping[str, Mapping[str, float]]) -> str:
    """A grid in Markdown, for its page in MLflow: its data, each method's means, the highest unseen AUROC first."""
    from models.metrics import get_metric

    lines = [
        f"{_BEGIN}`{grid.data.tags[names.DATA]}` ({grid.data.tags[names.SOURCE]}). Below it is one run per "
        f"trial; sort the list by `{names.summary_metric(CROSS_GENERATOR, 'auroc')}` for what carries best. "
        f"The report is in the artifacts, `{names.REPORT}/index.html`, once `python -m analysis` has written it."
    ]
    if of_variant:
        columns = [(kind, metric) for kind in (CROSS_GENERATOR, IN_DOMAIN) for metric in reversed(SUMMARISED)]
        header = ["method", *(f"{get_metric(metric).words}, {HEADINGS[kind]}" for kind, metric in columns)]
        first = {name: values.get(names.summary_metric(*columns[0], name), -1.0) for name, values in of_variant.items()}
        table = [header, ["---"] * len(header)]
        for variant in sorted(of_variant, key=lambda name: -first[name]):
            values = [of_variant[variant].get(names.summary_metric(*column, variant)) for column in columns]
            table.append([f"`{variant}`", *("none" if value is None else f"{value:.3f}" for value in values)])
        lines += ["\n".join("| " + " | ".join(row) + " |" for row in table)]
        lines.append("Means over the cells of each method's matrix, of finished trials on clean pictures.")
    return "\n\n".join(lines)
