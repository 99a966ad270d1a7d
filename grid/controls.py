"""Whether results can be believed: which trials are controls, and the reference rows that need no pictures.

Two references follow from the manifest alone, so they are computed once per grid, without a trial:

- `headers_only`: a decision tree on the facts of file headers and on bytes per pixel, fitted on the training images.
- `mask_area`: the share of the picture that is edited. A real image has no mask; "it has none" would tell it from every
  fake and say nothing. So a real image counts with the area that the fake of the same photograph by the tested
  generator has, without one with the mean area of that photograph's fakes by other generators, and is left out without
  any. The value says whether the photographs that were edited more are those of the fakes. Where each fake has its real
  image in the cell and each real image its fake, it is .5 exactly.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from grid.plan import TEST, TRAIN, VALID
from grid.tasks import DETECTION, cell_rows, get_task
from grid.train_sets import TrainSet

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from data.manifest import Manifest
    from grid.spec import TrialSpec

CONTROL, REFERENCE, METHOD = "control", "reference", ""  # kinds of trials
HEADERS_ONLY, MASK_AREA = "headers_only", "mask_area"
SCORE_COLUMNS = ["reference", "trained_on", "tested_on", "source_id", "generator", "label", "score"]
CELL_COLUMNS = ["reference", "trained_on", "tested_on", "accuracy", "auroc", "num_images", "left_out"]


def kind_of(task: str, method: str) -> str:
    """The kind of a trial: of a null control, of a reference method, or, as all others, of a method.

    A method or a task that this checkout does not have is neither.
    """
    from grid.tasks import list_controls
    from models.registry import detector_info, list_detectors

    if task in list_controls():
        return CONTROL
    return REFERENCE if method in list_detectors() and detector_info(method).reference else METHOD


def task_words(task: str, method: str) -> str:
    """A trial's task for a table: "detection", "detection (reference)", "shuffled_labels (control)"."""
    kind = kind_of(task, method)
    return f"{task} ({kind})" if kind else task


def control_problems(trials: Iterable[TrialSpec], manifest: Manifest) -> list[str]:
    """One line per control and seed for which chance leaves a class without images."""
    problems = []
    asked = {(trial.task, trial.seed, trial.train_set) for trial in trials if get_task(trial.task).is_control}
    for name, seed, train in sorted(asked):
        task = get_task(name, seed)
        classes = task.classes(train)
        for split in (TRAIN, VALID, TEST):
            rows = manifest.select(split, train.generators if split != TEST else manifest.generators)
            numbers = task.class_numbers(rows, classes)
            cells = task.cells(rows, classes).values() if split == TEST else [numbers >= 0]
            if any(len({*numbers[cell].tolist()}) < len(classes) for cell in cells):
                problems.append(
                    f"{name}, seed {seed}: by chance, one of its two classes has no image among the {len(rows)} of the "
                    f"{split} split; take more images (a larger --limit), other --seeds, or leave the control out"
                )
                break
    return problems


@dataclass(frozen=True, eq=False)
class References:
    """Scores of the references that are computed once per grid.

    Attributes:
        scores: one row per image of a cell, columns `SCORE_COLUMNS`. `trained_on` and `tested_on` as in results. A
            higher score means fake; 0 is the threshold.
        cells: one row per cell, columns `CELL_COLUMNS`; `left_out` counts images without a score.
        notes: why a reference or a cell is missing, in words.
    """

    scores: pd.DataFrame
    cells: pd.DataFrame
    notes: tuple[str, ...] = ()

    @cached_property
    def content(self) -> bytes:
        """The scores as a parquet file."""
        buffer = io.BytesIO()
        self.scores.to_parquet(buffer, index=False)
        return buffer.getvalue()

    @property
    def file(self) -> str:
        """A name for that file, by its content: whoever has downloaded it never needs it again."""
        return f"references-{hashlib.sha256(self.content).hexdigest()[:16]}.parquet"

    def to_dict(self) -> dict[str, Any]:
        """The cells as plain types, and the name of the file with the scores."""
        return {"scores": self.file, "cells": self.cells.to_dict("records"), "notes": list(self.notes)}


def references(manifest: Manifest, measured: pd.DataFrame, train_sets: Sequence[TrainSet]) -> References:
    """Compute `headers_only` and `mask_area` for every training set and every generator that is tested on.

    Args:
        manifest: describes the data set.
        measured: from `data.measure.measure`.
        train_sets: of the grid's trials of detection; a set without generators has no reference.
    """
    import pandas as pd

    frames, cells, notes = [], list[dict[str, Any]](), list[str]()
    area = measured["mask_share"]
    for train in (train for train in train_sets if train.generators):
        score = _by_headers(manifest, train)
        threshold = _area_threshold(manifest, area, train)
        for generator in manifest.tested_generators:
            rows = _cell(manifest, TEST, generator)
            for reference, values in (
                (HEADERS_ONLY, score.loc[rows.index].to_numpy()),
                (MASK_AREA, _areas(rows, manifest, area, generator) - threshold),
            ):
                frame = rows[["source_id", "generator", "label"]].assign(
                    reference=reference, trained_on=str(train), tested_on=generator, score=values
                )[SCORE_COLUMNS]
                known = frame[frame["score"].notna()]
                if known["label"].nunique() < 2:
                    notes.append(f"{reference}, trained on {train}, tested on {generator}: one class has no known area")
                    continue
                frames.append(known)
                cells.append(_values(known, left_out=len(frame) - len(known)))
    scores = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=SCORE_COLUMNS)
    return References(scores, pd.DataFrame(cells, columns=CELL_COLUMNS), tuple(notes))


def _cell(manifest: Manifest, split: str, generator: str) -> pd.DataFrame:
    rows = manifest.select(split, manifest.generators)
    return rows[cell_rows(rows, generator)]


def _values(scored: pd.DataFrame, *, left_out: int) -> dict[str, Any]:
    from models.scoring import cell_metrics

    metrics = cell_metrics(scored["label"].to_numpy(), scored["score"].to_numpy())
    first = scored.iloc[0]
    return {
        "reference": first["reference"], "trained_on": first["trained_on"], "tested_on": first["tested_on"],
        "accuracy": metrics["accuracy"], "auroc": metrics["auroc"], "num_images": len(scored), "left_out": left_out,
    }  # fmt: skip


def _by_headers(manifest: Manifest, train: TrainSet) -> pd.Series[float]:
    """Log-odds of fake of every image, by a tree that was fitted on the training images of a training set."""
    import pandas as pd

    from data.audits.headers import fitted_scores

    table = manifest.table
    fitted_on = table.index.isin(manifest.select(TRAIN, train.generators).index)
    return pd.Series(fitted_scores(table, fitted_on), index=table.index)


def _areas(rows: pd.DataFrame, manifest: Manifest, area: pd.Series[float], generator: str) -> np.ndarray:
    """The edited area that each image of a generator's cell counts with: float64 (N,), NaN where it is not known."""
    import numpy as np

    table = manifest.table
    fakes = table[table["label"] == 1].assign(area=area)
    fakes = fakes[fakes["split"].isin(rows["split"].unique())]
    own = fakes[fakes["generator"] == generator].groupby("source_id")["area"].mean()
    others = fakes[fakes["generator"] != generator].groupby("source_id")["area"].mean()
    of_real = rows["source_id"].map(own).fillna(rows["source_id"].map(others))
    return np.where(rows["label"] == 1, area.loc[rows.index], of_real.to_numpy(float))


def _area_threshold(manifest: Manifest, area: pd.Series[float], train: TrainSet) -> float:
    """The area above which an image counts as fake, chosen on the validation images of a training set's generators."""
    import numpy as np

    from models.scoring import choose_threshold

    parts = []
    for generator in train.generators:
        rows = _cell(manifest, VALID, generator)
        parts.append((rows["label"].to_numpy(), _areas(rows, manifest, area, generator)))
    labels, areas = (np.concatenate(values) for values in zip(*parts, strict=True))
    known = np.isfinite(areas)
    return choose_threshold(labels[known], areas[known]) if len(set(labels[known])) == 2 else 0.0


def detection_train_sets(planned: Iterable[dict[str, Any]]) -> Iterator[TrainSet]:
    """The training sets of planned trials of detection, sorted and each once.

    Args:
        planned: fields of specs, as in a grid's plan.
    """
    yield from sorted({TrainSet(tuple(each["train_generators"])) for each in planned if each["task"] == DETECTION})
