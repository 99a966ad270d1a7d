"""What is still to do for a grid. Pure: callers pass in what is finished."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

from data.conditions import CLEAN
from grid.spec import TrialSpec
from grid.tasks import get_task

if TYPE_CHECKING:
    import pandas as pd

    from data.manifest import Manifest

FINISHED, RUNNING, FAILED, INTERRUPTED, PENDING = "finished", "running", "failed", "interrupted", "pending"
TRAIN, VALID, TEST = "train", "valid", "test"
LOOK = "look"  # of the training and validation split, see `look_rows`
LOOK_IMAGES = 500  # per class and split: enough for the covariance of their embeddings


@dataclass(frozen=True)
class TrialState:
    """The state of a trial in MLflow.

    Attributes:
        run_id: id of the trial's run.
        state: one of the states above; "finished": fitted, and scored on clean pictures.
        conditions: the conditions that a finished trial was scored under; empty for other states.
        validated: whether a finished trial has scored the validation images of all generators, or never can, because
            its checkpoint is lost.
    """

    run_id: str
    state: str
    conditions: frozenset[str] = frozenset()
    validated: bool = False


@dataclass(frozen=True)
class Work:
    """What is to do for one trial: fit and score it, or score its fitted detector further.

    Attributes:
        spec: the trial.
        conditions: names in `data.conditions` to score under.
        run_id: id of the finished run whose detector is scored; "": the trial is fitted first.
        validates: whether a fitted detector scores the validation images of all generators, as a trial does when it is
            fitted.
    """

    spec: TrialSpec
    conditions: tuple[str, ...] = (CLEAN,)
    run_id: str = ""
    validates: bool = False

    @property
    def key(self) -> str:
        """The trial's key."""
        return self.spec.key

    @property
    def fits(self) -> bool:
        """Whether the trial must be fitted."""
        return not self.run_id

    @property
    def scores(self) -> str:
        """What a fitted detector is to score, in words."""
        return ", ".join([*(["validation images"] if self.validates else []), *self.conditions])

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return dataclasses.asdict(self) | {"spec": self.spec.to_dict(), "conditions": list(self.conditions)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Work:
        """The inverse of `to_dict`."""
        own = {"spec": TrialSpec.from_dict(fields["spec"]), "conditions": tuple(fields["conditions"])}
        return cls(**{**fields, **own})

    def __str__(self) -> str:
        name = f"{self.spec.task} {self.spec.name}"
        if self.fits:
            return name
        parts = ["on validation images"] if self.validates else []
        parts += [f"under {', '.join(self.conditions)}"] if self.conditions else []
        return f"{name} {', '.join(parts)}"


@dataclass(frozen=True)
class Plan:
    """A grid's trials and their states.

    Attributes:
        trials: all trials, in order.
        states: key -> state, for trials that have a run.
        conditions: the conditions to score every trial of a method under, "clean" first.
    """

    trials: tuple[TrialSpec, ...]
    states: Mapping[str, TrialState]
    conditions: tuple[str, ...] = (CLEAN,)

    def state(self, trial: TrialSpec) -> str:
        """The trial's state; "pending" if it has no run."""
        return self.states[trial.key].state if trial.key in self.states else PENDING

    def missing(self, trial: TrialSpec) -> tuple[str, ...]:
        """The conditions that the trial has not been scored under; controls and references have clean ones alone."""
        scored = self.states[trial.key].conditions if trial.key in self.states else ()
        asked = self.conditions if has_conditions(trial.task, trial.method) else (CLEAN,)
        return tuple(name for name in asked if name not in scored)

    @cached_property
    def pending(self) -> tuple[Work, ...]:
        """What is left: unfinished trials to fit and score, finished trials to score on what they lack."""
        pending = []
        for trial in self.trials:
            missing = self.missing(trial)
            if self.state(trial) != FINISHED:
                pending.append(Work(trial, missing))
                continue
            state = self.states[trial.key]
            validates = lacks_validation(trial, state)
            if missing or validates:
                pending.append(Work(trial, missing, state.run_id, validates))
        return tuple(pending)

    @property
    def finished(self) -> tuple[TrialSpec, ...]:
        """The trials that are fitted already."""
        return tuple(trial for trial in self.trials if self.state(trial) == FINISHED)


@cache
def has_conditions(task: str, method: str) -> bool:
    """Whether trials are scored under `--conditions`: those of methods are, controls and references are not."""
    from grid.controls import METHOD, kind_of

    return kind_of(task, method) == METHOD


def lacks_validation(spec: TrialSpec, state: TrialState) -> bool:
    """Whether a finished trial is to score the validation images of all generators; only binary tasks have them."""
    task = get_task(spec.task)
    return task.is_binary and not task.is_control and not state.validated


def make_plan(
    trials: Iterable[TrialSpec], states: Mapping[str, TrialState], conditions: Sequence[str] = (CLEAN,)
) -> Plan:
    """The plan for these trials, without duplicates. The condition "clean" is added, as the first."""
    unique = {trial.key: trial for trial in trials}
    return Plan(tuple(unique.values()), states, tuple(dict.fromkeys([CLEAN, *conditions])))


def with_finished_seeds(
    trials: Iterable[TrialSpec],
    finished: Collection[str],
    seeds: Mapping[str, Iterable[int]],
    depends_on_seed: Callable[[str, Mapping[str, Any]], bool],
) -> list[TrialSpec]:
    """The trials; one whose results do not depend on the seed gives way to the same with a seed that is finished.

    Controls depend on it: their labels follow from the seed.

    Args:
        trials: of a grid.
        finished: keys of finished trials.
        seeds: method -> those of its finished trials; the lowest is taken.
        depends_on_seed: (method, configuration) -> whether its results depend on the seed.
    """
    chosen = list[TrialSpec]()
    for trial in trials:
        alike = [trial]
        if trial.key not in finished and not get_task(trial.task).is_control:
            others = () if depends_on_seed(trial.method, dict(trial.config)) else seeds.get(trial.method, ())
            alike = [
                other
                for seed in sorted(set(others))
                if (other := dataclasses.replace(trial, seed=seed)).key in finished
            ]
        chosen.append(next(iter(alike), trial))
    return chosen


# Inputs --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Inputs:
    """A part of the data set under a condition, as the detectors of one method and configuration read it.

    Attributes:
        spec: any trial with this method and configuration.
        condition: of the pictures.
        splits: the splits that take part, and maybe `LOOK`; () for the whole data set.
        recipe: of the self-edited pictures that the spec is trained on and validated with, before the condition; "":
            they are the pictures of the data set.
    """

    spec: TrialSpec
    condition: str = CLEAN
    splits: tuple[str, ...] = ()
    recipe: str = ""

    @property
    def name(self) -> str:
        """The method, the recipe of self-edited pictures, and the condition unless it is "clean"; for display."""
        words = [self.spec.method, *([f"self-edited {self.recipe}"] if self.recipe else [])]
        return ", ".join([*words, *([] if self.condition == CLEAN else [self.condition])])

    def rows(self, manifest: Manifest) -> pd.DataFrame:
        """The manifest's rows of these splits."""
        table = manifest.table
        if not self.splits:
            return table
        chosen = table["split"].isin(self.splits)
        if LOOK in self.splits:
            for split in (TRAIN, VALID):
                chosen |= table.index.isin(look_rows(table, split).index)
        return table[chosen]


def look_rows(table: pd.DataFrame, split: str) -> pd.DataFrame:
    """The images of a split that show what the data set's pictures are like: at most `LOOK_IMAGES` of each class.

    Chosen by digest, so that the choice depends on the images alone.

    Args:
        table: of a manifest.
        split: `TRAIN` or `VALID`.
    """
    rows = table[table["split"] == split].sort_values("digest", kind="stable")
    return rows.groupby(["label", "generator"], sort=False).head(LOOK_IMAGES).sort_index()


def splits_of_training(spec: TrialSpec) -> tuple[str, ...]:
    """The splits of the inputs that a fit reads; of clean pictures the whole data set, which is scored too."""
    return () if spec.train_conditions == (CLEAN,) else (TRAIN, VALID)


def distinct_inputs(
    work: Sequence[Work], recipes: Callable[[TrialSpec], Sequence[str]] = lambda spec: ()
) -> list[Inputs]:
    """The inputs of all work, one per method, configuration and condition.

    Args:
        work: of any trials.
        recipes: the recipes of the self-edited pictures that a trial learns from; these are inputs of their own, which
            depend on the seed, too.
    """
    inputs: dict[tuple[object, ...], Inputs] = {}
    for item in work:
        spec, training = item.spec, item.spec.train_conditions
        needs: list[tuple[str, tuple[str, ...]]] = []
        if item.fits:
            needs += [(name, splits_of_training(spec)) for name in training]
        if item.validates:
            needs += [(name, (VALID, LOOK)) for name in training]
        needs += [(name, (TEST,) if name != CLEAN or training != (CLEAN,) else ()) for name in item.conditions]
        for condition, splits in needs:
            shared = inputs.setdefault((spec.method, spec.config, condition), Inputs(spec, condition, splits))
            joined = tuple(dict.fromkeys([*shared.splits, *splits])) if shared.splits and splits else ()
            inputs[spec.method, spec.config, condition] = dataclasses.replace(shared, splits=joined)
    edited: dict[tuple[object, ...], Inputs] = {}
    for spec in (item.spec for item in work):
        for recipe, condition in itertools.product(recipes(spec), spec.train_conditions):
            key = (spec.method, spec.config, condition, recipe, spec.seed, spec.equal_size)
            edited.setdefault(key, Inputs(spec, condition, (TRAIN, VALID), recipe))
    return [*inputs.values(), *edited.values()]
