"""Which trials are still to run. Pure: what is finished is told, never looked up here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from grid.spec import TrialSpec

FINISHED, RUNNING, FAILED, INTERRUPTED, PENDING = "finished", "running", "failed", "interrupted", "pending"


@dataclass(frozen=True)
class TrialState:
    """What tracking knows of a trial: its run, and one of the states above."""

    run_id: str
    state: str


@dataclass(frozen=True)
class Plan:
    """A grid's trials in order, with what is known of each.

    Attributes:
        trials: all of them.
        states: key -> state, for those that have a run.
    """

    trials: tuple[TrialSpec, ...]
    states: Mapping[str, TrialState]

    def state(self, trial: TrialSpec) -> str:
        """One of the states; "pending" where there is no run."""
        known = self.states.get(trial.key)
        return known.state if known else PENDING

    @property
    def pending(self) -> tuple[TrialSpec, ...]:
        """What is not finished: new, failed and interrupted trials alike."""
        return tuple(trial for trial in self.trials if self.state(trial) != FINISHED)

    @property
    def finished(self) -> tuple[TrialSpec, ...]:
        """What will not run again."""
        return tuple(trial for trial in self.trials if self.state(trial) == FINISHED)


def make_plan(trials: Iterable[TrialSpec], states: Mapping[str, TrialState]) -> Plan:
    """Join the wanted trials with what is known of them; a trial that is asked for twice is planned once."""
    return Plan(tuple({trial.key: trial for trial in trials}.values()), states)
