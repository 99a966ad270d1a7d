from __future__ import annotations

from typing import Any

import pytest

from grid.plan import FAILED, FINISHED, INTERRUPTED, PENDING, RUNNING, TrialState, make_plan
from grid.spec import DETECTION, TrialSpec

TRIALS = [TrialSpec(DETECTION, "residual_linear", (), (name,), 0, "d") for name in ("ldm", "lama", "repaint")]


def test_without_any_run_everything_is_pending_in_the_order_asked_for() -> None:
    plan = make_plan(TRIALS, {})
    assert plan.pending == plan.trials == tuple(TRIALS)
    assert plan.finished == ()
    assert {plan.state(trial) for trial in TRIALS} == {PENDING}


def test_a_finished_trial_is_not_run_again() -> None:
    plan = make_plan(TRIALS, {TRIALS[1].key: TrialState("run", FINISHED)})
    assert plan.pending == (TRIALS[0], TRIALS[2])
    assert plan.finished == (TRIALS[1],)


@pytest.mark.parametrize("state", [FAILED, INTERRUPTED, RUNNING])
def test_whatever_is_not_finished_runs_again(state: str) -> None:
    plan = make_plan(TRIALS, {TRIALS[0].key: TrialState("run", state)})
    assert plan.state(TRIALS[0]) == state
    assert TRIALS[0] in plan.pending


def test_when_all_are_finished_nothing_is_pending() -> None:
    plan = make_plan(TRIALS, {trial.key: TrialState("run", FINISHED) for trial in TRIALS})
    assert plan.pending == ()
    assert plan.finished == tuple(TRIALS)


def test_a_trial_that_is_asked_for_twice_is_planned_once() -> None:
    assert make_plan([*TRIALS, *reversed(TRIALS)], {}).trials == tuple(TRIALS)


def test_runs_of_trials_that_nobody_asked_for_change_nothing() -> None:
    assert make_plan(TRIALS, {"0" * 16: TrialState("run", FINISHED)}).pending == tuple(TRIALS)


def test_ten_thousand_trials_are_planned_with_one_look_at_each() -> None:
    """No timing here: that the identity of a trial is worked out once is what keeps planning linear."""
    hashed = 0

    class Counted(TrialSpec):
        def to_dict(self) -> dict[str, Any]:
            nonlocal hashed
            hashed += 1
            return super().to_dict()

    trials = [Counted(DETECTION, "m", (), ("lama",), seed, "d") for seed in range(10_000)]
    states = {trial.key: TrialState("r", FINISHED) for trial in trials[::2]}
    plan = make_plan(trials, states)
    assert (len(plan.pending), len(plan.finished)) == (5000, 5000)
    assert {plan.state(trial) for trial in plan.pending} == {PENDING}
    assert hashed == 10_000
