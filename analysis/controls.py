"""Whether results can be believed: null controls against chance, and methods against references."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd

from analysis.cells import Where, detection_estimates
from analysis.intervals import Estimate, Sources, average, difference
from analysis.matrices import decimals, trained_on_label
from analysis.store import SCORE_COLUMNS, Store, StoreError
from grid import names
from grid.controls import CELL_COLUMNS, CONTROL, METHOD, REFERENCE, References
from grid.means import mean_of
from grid.plan import FINISHED
from grid.tasks import DETECTION, get_task, list_controls
from grid.train_sets import NONE, TrainSet
from models.detector import DETECTION_CLASSES
from models.metrics import in_words

LEVEL = 0.99  # of the intervals that a control is held against
CHANCE = 0.5
METRICS = ("accuracy", "auroc")
NULL_COLUMNS = ["task", "variant", "seed", "tested_on", "metric", "value", "low", "high", "outside", "run_id"]
BESIDE_COLUMNS = [
    "variant", "metric", "trained_on", "tested_on", "value", "best_reference", "reference_value", "difference", "low",
    "high", "above",
]  # fmt: skip
_SHOWN_CELLS = 3


def methods_alone(store: Store) -> Store:
    """The grid without controls and references, none of which is a result of a method."""
    return store.of_kinds(METHOD)


def has_controls(store: Store) -> bool:
    """Whether the grid has a trial of a control or a reference, or references without trials."""
    return bool(len(store.of_kinds(CONTROL, REFERENCE).runs())) or kept_references(store) is not None


# Null controls -------------------------------------------------------------------------------------------------------


def null_cells(store: Store) -> pd.DataFrame:
    """Every cell of every finished trial of a null control, held against chance.

    Returns:
        columns `NULL_COLUMNS`, one row per trial, cell and metric. `low` and `high` are the 99 % interval over source
        photographs; `outside`: whether it leaves out chance.

    Raises:
        StoreError: a run's scores are missing or cannot be read.
    """
    runs = store.of_kinds(CONTROL).runs()
    rows: list[dict[str, object]] = []
    for run in runs[runs["state"] == FINISHED].to_dict("records"):
        task, run_id = get_task(run["task"], int(run["seed"])), str(run["run_id"])
        scores = store.scores(run_id, columns=[*SCORE_COLUMNS, "score"])
        sources, numbers = Sources([scores]), task.class_numbers(scores, DETECTION_CLASSES)
        shared = {name: run[name] for name in ("task", "variant", "seed", "run_id")}
        for tested_on, images in task.cells(scores, DETECTION_CLASSES).items():
            cell = sources.cell(scores[images], numbers[images])
            for metric in METRICS:
                estimate = average([cell.parts(metric)], level=LEVEL)
                low, high = estimate.interval
                values = {"value": estimate.value, "low": low, "high": high, "outside": not low <= CHANCE <= high}
                rows.append(shared | {"tested_on": tested_on, "metric": metric} | values)
    return pd.DataFrame(rows, columns=NULL_COLUMNS)


def null_sentences(cells: pd.DataFrame, *, off_chance_only: bool = False) -> list[str]:
    """How many cells of each control are off chance, in words; one sentence per control.

    Args:
        cells: from `null_cells`.
        off_chance_only: leave out the controls that are at chance.
    """
    sentences = []
    for task in list_controls():
        own = cells[cells["task"] == task]
        if own.empty:
            continue
        outside = int(own["outside"].sum())
        sentence = f"{task}: {outside} of {len(own)} values are outside the 99 % interval around chance"
        by_chance = f"about {0.01 * len(own):.1f} are expected"
        if outside > max(1, 0.02 * len(own)):
            sentence += (
                f", where {by_chance}: a control off chance means a leak between training and test, or an interval "
                "that is too narrow. Results of this grid cannot be believed until the cause is found"
            )
        elif off_chance_only:
            continue
        else:
            sentence += f", where {by_chance}: no sign of a leak between training and test, or of too narrow intervals"
        sentences.append(f"{sentence}.")
    return sentences


# References ----------------------------------------------------------------------------------------------------------


def kept_references(store: Store) -> References | None:
    """The references that need no pictures, as kept with the grid; None if there are none.

    Raises:
        StoreError: they are there and cannot be read.
    """
    try:
        text = store.records.text(store.parent, names.REFERENCES)
        if not text:
            return None
        kept = json.loads(text)
        scores = pd.read_parquet(store.records.artifact(store.parent, kept["scores"]))
        return References(scores, pd.DataFrame(kept["cells"], columns=CELL_COLUMNS), tuple(kept["notes"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{names.REFERENCES} of the grid's run {store.parent.info.run_id} cannot be read: {error}\n"
            "The launch command with --controls writes it again"
        ) from error


@dataclass(frozen=True, eq=False)
class Beside:
    """The methods of a grid beside its references.

    Attributes:
        methods: variant -> cell -> value with its interval, of detection on clean pictures.
        references: reference -> likewise.
        notes: why a reference or a cell is missing, in words.
    """

    methods: Mapping[str, Mapping[Where, Estimate]] = field(default_factory=dict)
    references: Mapping[str, Mapping[Where, Estimate]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @cached_property
    def cells(self) -> pd.DataFrame:
        """Every cell of every method with the best reference of that cell: columns `BESIDE_COLUMNS`.

        `difference`, `low` and `high` are the method minus the reference, paired by photograph, with the 95 % interval;
        `above`: whether the whole interval is above 0.
        """
        rows = []
        for variant, own in self.methods.items():
            for where, estimate in own.items():
                rivals = {name: cells[where] for name, cells in self.references.items() if where in cells}
                if not rivals:
                    continue
                best = max(rivals, key=lambda name: rivals[name].value)
                found = difference(estimate, rivals[best])
                values = (estimate.value, best, rivals[best].value, found.difference, found.low, found.high)
                trained_on, tested_on, metric = where
                rows.append((variant, metric, trained_on, tested_on, *values, found.low > 0))
        return pd.DataFrame(rows, columns=BESIDE_COLUMNS)

    def rows(self) -> pd.DataFrame:
        """One row per reference, training set, generator and metric: its value with its 95 % interval."""
        rows = [
            (reference, *where, estimate.value, *estimate.interval)
            for reference, cells in self.references.items()
            for where, estimate in cells.items()
        ]
        return pd.DataFrame(rows, columns=["reference", "trained_on", "tested_on", "metric", "value", "low", "high"])

    def means(self, variant: str) -> pd.DataFrame:
        """One row per reference, to stand beside a method's matrix: means over the cells that both have.

        Returns:
            columns reference, then accuracy and AUROC, each in-domain and cross-generator; NaN without such cells.
        """
        rows = []
        own = self.methods.get(variant, {})
        for reference, cells in self.references.items():
            row: dict[str, object] = {"reference": reference}
            for metric in METRICS:
                shared = [where for where in cells if where in own and where[2] == metric]
                for kind, in_domain in (("in-domain", True), ("cross-generator", False)):
                    chosen = [where for where in shared if (where[1] in TrainSet.parse(where[0])) == in_domain]
                    row[f"{in_words(metric)}, {kind}"] = mean_of(cells[where].value for where in chosen)
            rows.append(row)
        return pd.DataFrame(rows)

    def without(self) -> list[str]:
        """One sentence per method of which some cells have no reference beside them, as after a grid has grown."""
        known, sentences = {where for cells in self.references.values() for where in cells}, []
        for variant, own in self.methods.items():
            cells = {where[:2]: where in known for where in own if where[0] != NONE}  # without fakes there is none
            if lacking := sum(not has_one for has_one in cells.values()):
                sentences.append(
                    f"{variant}: {lacking} of {len(cells)} cells have no reference beside them, because its training "
                    "sets came later. The launch command with --controls adds them."
                )
        return sentences

    def warnings(self, generators: list[str], variant: str | None = None) -> list[str]:
        """One sentence per method that is not above the best reference in some cell; of one variant, or of all."""
        sentences = []
        for name, own in self.cells.groupby("variant", sort=False):
            if variant not in (None, name):
                continue
            parts = []
            for metric, cells in own.groupby("metric", sort=False):
                below = cells[~cells["above"].astype(bool)].sort_values("difference")
                if below.empty:
                    continue
                shown = [
                    f"trained on {trained_on_label(str(cell.trained_on), generators)}, tested on {cell.tested_on}: "
                    f"{decimals(float(cell.value))} against {decimals(float(cell.reference_value))} "  # type: ignore[arg-type]
                    f"of {cell.best_reference}"
                    for cell in below.head(_SHOWN_CELLS).itertuples()
                ]
                more = f"; and {len(below) - _SHOWN_CELLS} more" if len(below) > _SHOWN_CELLS else ""
                words = in_words(str(metric))
                parts.append(f"by {words} in {len(below)} of {len(cells)} cells ({'; '.join(shown)}{more})")
            if parts:
                sentences.append(
                    f"{name} is not above the best reference {', and '.join(parts)}. The grid does not show "
                    "that it is better there than a row without a trained encoder."
                )
        return sentences

    def brief(self, generators: list[str]) -> list[str]:
        """`warnings` for a terminal: per method how many cells, and the worst of them."""
        sentences = []
        for name, own in self.cells.groupby("variant", sort=False):
            below = own[~own["above"].astype(bool)].sort_values("difference")
            if below.empty:
                continue
            counts = [
                f"{int((~of_metric['above'].astype(bool)).sum())} of {len(of_metric)} cells by {in_words(str(metric))}"
                for metric, of_metric in own.groupby("metric", sort=False)
                if not of_metric["above"].all()
            ]
            worst = next(below.itertuples())
            metric = in_words(str(worst.metric))
            sentences.append(
                f"{name} is not above the best reference in {' and '.join(counts)}; worst: {metric} "
                f"{decimals(float(worst.value))} against {decimals(float(worst.reference_value))} of "  # type: ignore[arg-type]
                f"{worst.best_reference}, trained on {trained_on_label(str(worst.trained_on), generators)}, tested on "
                f"{worst.tested_on}"
            )
        return sentences


def beside_references(store: Store) -> Beside:
    """The methods beside the references, on the same test images.

    Raises:
        StoreError: a run's scores, or the references, are missing or cannot be read.
    """
    kept = kept_references(store)
    sides = [store.of_kinds(kind) for kind in (METHOD, REFERENCE)]
    runs = pd.concat([side.runs() for side in sides])
    finished = runs[(runs["task"] == DETECTION) & (runs["state"] == FINISHED)]
    if finished.empty or (kept is None and sides[1].runs().empty):
        return Beside()
    sources = Sources([store.scores(finished["run_id"].iloc[0], columns=SCORE_COLUMNS)])
    methods, references = (detection_estimates(side, METRICS, sources) for side in sides)
    if kept is not None:
        by = ["reference", "trained_on", "tested_on"]
        for (reference, trained_on, tested_on), scores in kept.scores.groupby(by, sort=False):
            cell = sources.cell(scores, np.asarray(scores["label"]))
            of_reference = references.setdefault(str(reference), {})
            for metric in METRICS:
                of_reference[str(trained_on), str(tested_on), metric] = average([cell.parts(metric)])
    return Beside(methods, references, () if kept is None else kept.notes)
