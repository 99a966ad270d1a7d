"""What is still to do. Pure: what is finished is told, never looked up here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from data.conditions import CLEAN
from grid.spec import TrialSpec

if TYPE_CHECKING:
    import pandas as pd

    from data.manifest import Manifest

FINISHED, RUNNING, FAILED, INTERRUPTED, PENDING = "finished", "running", "failed", "interrupted", "pending"
TRAIN, VALID, TEST = "train", "valid", "test"


@dataclass(frozen=True)
class TrialState:
    """What tracking knows of a trial.

    Attributes:
        run_id: of its run.
        state: one of the states above; "finished": it is fitted, and scored on clean pictures.
        conditions: those that a finished trial was scored under.
    """

    run_id: str
    state: str
    conditions: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Work:
    """What is to do for one trial: fit it and score it, or score a fitted one under further conditions.

    Attributes:
        spec: the trial.
        conditions: to score under, names of `data.conditions`.
        run_id: of the finished run whose detector is scored; "": the trial is fitted first.
    """

    spec: TrialSpec
    conditions: tuple[str, ...] = (CLEAN,)
    run_id: str = ""

    @property
    def key(self) -> str:
        """The trial's."""
        return self.spec.key

    @property
    def fits(self) -> bool:
        """Whether the trial is to be fitted."""
        return not self.run_id

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {"spec": self.spec.to_dict(), "conditions": list(self.conditions), "run_id": self.run_id}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Work:
        """The inverse of `to_dict`."""
        return cls(TrialSpec.from_dict(fields["spec"]), tuple(fields["conditions"]), fields["run_id"])

    def __str__(self) -> str:
        name = f"{self.spec.task} {self.spec.name}"
        return name if self.fits else f"{name} under {', '.join(self.conditions)}"


@dataclass(frozen=True)
class Plan:
    """A grid's trials in order, with what is known of each.

    Attributes:
        trials: all of them.
        states: key -> state, for those that have a run.
        conditions: that every trial is to be scored under, "clean" first.
    """

    trials: tuple[TrialSpec, ...]
    states: Mapping[str, TrialState]
    conditions: tuple[str, ...] = (CLEAN,)

    def state(self, trial: TrialSpec) -> str:
        """One of the states; "pending" where there is no run."""
        state = self.states.get(trial.key)
        return state.state if state else PENDING

    def missing(self, trial: TrialSpec) -> tuple[str, ...]:
        """The conditions that the trial is not scored under yet."""
        state = self.states.get(trial.key)
        scored = state.conditions if state and state.state == FINISHED else frozenset()
        return tuple(name for name in self.conditions if name not in scored)

    @cached_property
    def pending(self) -> tuple[Work, ...]:
        """What is left: new, failed and interrupted trials are fitted, finished ones scored where a condition lacks."""
        work = []
        for trial in self.trials:
            missing = self.missing(trial)
            if self.state(trial) != FINISHED:
                work.append(Work(trial, self.conditions))
            elif missing:
                work.append(Work(trial, missing, self.states[trial.key].run_id))
        return tuple(work)

    @property
    def finished(self) -> tuple[TrialSpec, ...]:
        """What will not be fitted again."""
        return tuple(trial for trial in self.trials if self.state(trial) == FINISHED)


def make_plan(
    trials: Iterable[TrialSpec], states: Mapping[str, TrialState], conditions: Sequence[str] = (CLEAN,)
) -> Plan:
    """Join the wanted trials with what is known of them; a trial that is asked for twice is planned once.

    Args:
        trials: in order.
        states: key -> what is known.
        conditions: to score under; "clean" is always among them.
    """
    unique = {trial.key: trial for trial in trials}
    return Plan(tuple(unique.values()), states, tuple(dict.fromkeys([CLEAN, *conditions])))


# What work takes of the data set --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Inputs:
    """What a detector takes of some pictures, which trials share: a part of the data set under a condition.

    Attributes:
        spec: any trial with the method and configuration in question.
        condition: of the pictures.
        splits: whose pictures; () for the whole data set.
    """

    spec: TrialSpec
    condition: str = CLEAN
    splits: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """For progress: the method, and the condition where pictures are not clean."""
        return self.spec.method if self.condition == CLEAN else f"{self.spec.method}, {self.condition}"

    def rows(self, manifest: Manifest) -> pd.DataFrame:
        """The rows of the manifest."""
        table = manifest.table
        return table[table["split"].isin(self.splits)] if self.splits else table

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {"spec": self.spec.to_dict(), "condition": self.condition, "splits": list(self.splits)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Inputs:
        """The inverse of `to_dict`."""
        return cls(TrialSpec.from_dict(fields["spec"]), fields["condition"], tuple(fields["splits"]))


def distinct_inputs(work: Sequence[Work]) -> list[Inputs]:
    """What the work takes of the data set, each method, configuration and condition once."""
    inputs: dict[tuple[Any, ...], Inputs] = {}

    def need(spec: TrialSpec, condition: str, splits: tuple[str, ...]) -> None:
        key = (spec.method, spec.config, condition)
        before = inputs.get(key)
        if before is not None:
            splits = tuple(dict.fromkeys([*before.splits, *splits])) if before.splits and splits else ()
        inputs[key] = Inputs(before.spec if before else spec, condition, splits)

    for item in work:
        if item.fits:
            need(item.spec, item.spec.train_condition, (TRAIN, VALID) if item.spec.train_condition != CLEAN else ())
        for condition in item.conditions:
            need(item.spec, condition, (TEST,) if condition != CLEAN or item.spec.train_condition != CLEAN else ())
    return list(inputs.values())
