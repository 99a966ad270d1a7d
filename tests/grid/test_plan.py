from __future__ import annotations

import dataclasses
import json
import pickle
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from grid.plan import (
    FAILED,
    FINISHED,
    INTERRUPTED,
    PENDING,
    RUNNING,
    Inputs,
    TrialState,
    Work,
    distinct_inputs,
    look_rows,
    make_plan,
    with_finished_seeds,
)
from grid.spec import TrialSpec
from grid.tasks import ATTRIBUTION, DETECTION
from models.registry import depends_on_seed, resolve_config
from tests.grid.grids import paper_manifest, work_of

TRIALS = [TrialSpec(DETECTION, "residual_linear", (), (name,), 0, "d") for name in ("ldm", "lama", "repaint")]


def finished(*conditions: str, run_id: str = "run") -> TrialState:
    return TrialState(run_id, FINISHED, frozenset({"clean", *conditions}), validated=True)


def test_without_any_run_everything_is_pending_in_the_order_asked_for() -> None:
    plan = make_plan(TRIALS, {})
    assert plan.pending == tuple(work_of(TRIALS))
    assert plan.trials == tuple(TRIALS)
    assert plan.finished == ()
    assert {plan.state(trial) for trial in TRIALS} == {PENDING}
    assert all(work.fits for work in plan.pending)


def test_a_finished_trial_is_not_run_again() -> None:
    plan = make_plan(TRIALS, {TRIALS[1].key: finished()})
    assert plan.pending == (Work(TRIALS[0]), Work(TRIALS[2]))
    assert plan.finished == (TRIALS[1],)


@pytest.mark.parametrize("state", [FAILED, INTERRUPTED, RUNNING])
def test_whatever_is_not_finished_runs_again(state: str) -> None:
    plan = make_plan(TRIALS, {TRIALS[0].key: TrialState("run", state)})
    assert plan.state(TRIALS[0]) == state
    assert Work(TRIALS[0]) in plan.pending


def test_when_all_are_finished_nothing_is_pending() -> None:
    plan = make_plan(TRIALS, {trial.key: finished() for trial in TRIALS})
    assert plan.pending == ()
    assert plan.finished == tuple(TRIALS)


def test_a_trial_whose_seed_does_not_matter_gives_way_to_one_that_is_finished() -> None:
    def of(method: str, seed: int, task: str = DETECTION) -> TrialSpec:
        return TrialSpec(task, method, tuple(resolve_config(method).items()), ("lama",), seed, "data")

    linear, network = of("residual_linear", 7), of("xception_scratch", 7)
    asked = [linear, network, control := of("residual_linear", 7, "shuffled_labels")]
    done = {dataclasses.replace(trial, seed=seed).key for trial in asked for seed in (2, 3)}
    assert with_finished_seeds(asked, done, {trial.method: [3, 2, 0] for trial in asked}, depends_on_seed) == [
        of("residual_linear", 2),
        network,
        control,
    ]
    assert (
        with_finished_seeds(asked, done | {linear.key}, {trial.method: [3, 2, 7] for trial in asked}, depends_on_seed)
        == asked
    )
    assert with_finished_seeds(asked, set(), {trial.method: [0, 1] for trial in asked}, depends_on_seed) == asked


def test_a_trial_that_is_asked_for_twice_is_planned_once() -> None:
    assert make_plan([*TRIALS, *reversed(TRIALS)], {}).trials == tuple(TRIALS)


def test_runs_of_trials_that_nobody_asked_for_change_nothing() -> None:
    assert make_plan(TRIALS, {"0" * 16: finished()}).pending == tuple(work_of(TRIALS))


def test_ten_thousand_trials_are_planned_with_one_look_at_each() -> None:
    """No timing here: that the identity of a trial is worked out once is what keeps planning linear."""
    hashed = 0

    class Counted(TrialSpec):
        def to_dict(self) -> dict[str, Any]:
            nonlocal hashed
            hashed += 1
            return super().to_dict()

    trials = [Counted(DETECTION, "m", (), ("lama",), seed, "d") for seed in range(10_000)]
    states = {trial.key: finished() for trial in trials[::2]}
    plan = make_plan(trials, states, ["jpeg-75"])
    assert (sum(work.fits for work in plan.pending), len(plan.finished)) == (5000, 5000)
    assert {plan.state(work.spec) for work in plan.pending if work.fits} == {PENDING}
    assert hashed == 10_000


# Conditions ----------------------------------------------------------------------------------------------------------


def test_a_finished_trial_that_lacks_a_condition_is_scored_and_not_fitted() -> None:
    plan = make_plan(TRIALS, {trial.key: finished(run_id=f"run of {trial.key}") for trial in TRIALS}, ["jpeg-75"])
    assert plan.pending == tuple(Work(trial, ("jpeg-75",), f"run of {trial.key}") for trial in TRIALS)
    assert not any(work.fits for work in plan.pending)
    assert plan.finished == tuple(TRIALS)


def test_only_what_a_trial_lacks_is_scored() -> None:
    states = {
        TRIALS[0].key: finished("jpeg-50", "jpeg-75", run_id="a"),
        TRIALS[1].key: finished("jpeg-75", run_id="b"),
        TRIALS[2].key: finished("jpeg-90", run_id="c"),
    }
    plan = make_plan(TRIALS, states, ["jpeg-75", "jpeg-50"])
    assert plan.conditions == ("clean", "jpeg-75", "jpeg-50")
    assert [plan.missing(trial) for trial in TRIALS] == [(), ("jpeg-50",), ("jpeg-75", "jpeg-50")]
    assert plan.pending == (Work(TRIALS[1], ("jpeg-50",), "b"), Work(TRIALS[2], ("jpeg-75", "jpeg-50"), "c"))


def test_a_trial_that_was_scored_under_all_of_them_is_not_work() -> None:
    states = {trial.key: finished("jpeg-75", "jpeg-50") for trial in TRIALS}
    assert make_plan(TRIALS, states, ["jpeg-75"]).pending == ()


@pytest.mark.parametrize("state", [None, FAILED, INTERRUPTED, RUNNING])
def test_an_unfinished_trial_is_fitted_and_scored_under_all_of_them(state: str | None) -> None:
    states = {TRIALS[0].key: TrialState("run", state)} if state else {}
    (work,) = make_plan(TRIALS[:1], states, ["jpeg-75", "clean", "jpeg-75"]).pending
    assert work == Work(TRIALS[0], ("clean", "jpeg-75"))
    assert work.fits


def test_controls_and_references_are_scored_on_clean_pictures_alone() -> None:
    control = TrialSpec("shuffled_labels", "residual_linear", (), ("lama",), 0, "d")
    reference = TrialSpec(DETECTION, "mean_brightness", (), ("lama",), 0, "d")
    method = TrialSpec(DETECTION, "residual_linear", (), ("lama",), 0, "d")
    plan = make_plan([control, reference, method], {control.key: finished(run_id="c")}, ["jpeg-75"])
    assert plan.pending == (Work(reference, ("clean",)), Work(method, ("clean", "jpeg-75")))


def test_clean_is_always_among_the_conditions_and_the_first() -> None:
    assert make_plan(TRIALS, {}).conditions == ("clean",)
    assert make_plan(TRIALS, {}, ["jpeg-75", "jpeg-50", "jpeg-75"]).conditions == ("clean", "jpeg-75", "jpeg-50")
    assert make_plan(TRIALS, {}, ["jpeg-75", "clean"]).conditions == ("clean", "jpeg-75")


@given(
    st.lists(st.one_of(st.none(), st.sets(st.sampled_from(["jpeg-50", "jpeg-75", "jpeg-90"]))), min_size=3, max_size=3),
    st.lists(st.sampled_from(["clean", "jpeg-50", "jpeg-75", "jpeg-90"]), max_size=4),
)
@hypothesis_settings(deadline=None)
def test_after_the_work_nothing_is_left(scored: list[set[str] | None], asked: list[str]) -> None:
    """Whatever was known, doing exactly what is pending finishes the grid; and nothing is done twice."""
    states = {
        trial.key: finished(*done, run_id=trial.key)
        for trial, done in zip(TRIALS, scored, strict=True)
        if done is not None
    }
    plan = make_plan(TRIALS, states, asked)
    after = dict(states)
    for work in plan.pending:
        before = states.get(work.key)
        had = before.conditions if before else frozenset[str]()
        assert work.fits == (before is None)
        assert not had & set(work.conditions)
        after[work.key] = TrialState(work.key, FINISHED, had | set(work.conditions), validated=True)
        assert not work.validates  # a fit validates, and what was finished before had validated
    assert make_plan(TRIALS, after, asked).pending == ()


def test_work_in_words_names_conditions_where_nothing_is_fitted() -> None:
    assert str(Work(TRIALS[0], ("clean", "jpeg-75"))) == "detection residual_linear/ldm/seed0"
    assert str(Work(TRIALS[0], ("jpeg-75", "jpeg-50"), "r")) == (
        "detection residual_linear/ldm/seed0 under jpeg-75, jpeg-50"
    )
    assert str(Work(TRIALS[0], (), "r", validates=True)) == "detection residual_linear/ldm/seed0 on validation images"
    both = Work(TRIALS[0], ("jpeg-75",), "r", validates=True)
    assert str(both) == "detection residual_linear/ldm/seed0 on validation images, under jpeg-75"


def test_what_shows_the_kind_of_pictures_is_chosen_by_digest_and_limited_per_class(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("grid.plan.LOOK_IMAGES", 2)
    digests = ["b", "a", "c", "e", "d", "f", "g"]
    table = pd.DataFrame({"digest": digests, "split": ["train"] * 6 + ["valid"], "label": [0] * 3 + [1] * 4})
    table["generator"] = ["real"] * 3 + ["lama"] * 4
    assert look_rows(table, "train")["digest"].tolist() == ["b", "a", "e", "d"]
    assert sorted(look_rows(table.sample(frac=1, random_state=0), "train")["digest"]) == ["a", "b", "d", "e"]
    assert look_rows(table, "valid")["digest"].tolist() == ["g"]


def test_a_finished_trial_of_an_older_checkout_scores_the_validation_images_and_fits_nothing() -> None:
    older = TrialState("old", FINISHED, frozenset({"clean"}))
    attribution = TrialSpec(ATTRIBUTION, "residual_linear", (), ("lama", "ldm"), 0, "d")
    plan = make_plan([TRIALS[0], attribution], {TRIALS[0].key: older, attribution.key: older})
    assert plan.pending == (Work(TRIALS[0], (), "old", validates=True),)  # attribution has no such values
    (needed,) = distinct_inputs(plan.pending)
    assert (needed.condition, needed.splits) == ("clean", ("valid", "look"))
    together = make_plan([TRIALS[0]], {TRIALS[0].key: older}, ["jpeg-75"])
    assert together.pending == (Work(TRIALS[0], ("jpeg-75",), "old", validates=True),)


@pytest.mark.parametrize("work", [Work(TRIALS[0]), Work(TRIALS[1], ("jpeg-75", "jpeg-50"), "run")])
def test_work_survives_the_trip_to_another_process(work: Work) -> None:
    back = pickle.loads(pickle.dumps(work))
    assert back == work
    assert (back.key, back.fits) == (work.spec.key, work.fits)


# What work takes of the data set -------------------------------------------------------------------------------------


def on_jpeg(spec: TrialSpec) -> TrialSpec:
    return dataclasses.replace(spec, train_condition="jpeg-95")


def needs(*work: Work) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(inputs.spec.method, inputs.condition, inputs.splits) for inputs in distinct_inputs(work)]


def test_clean_trials_take_the_whole_data_set_once() -> None:
    assert needs(*work_of(TRIALS)) == [("residual_linear", "clean", ())]


def test_a_condition_is_needed_of_the_test_split_alone() -> None:
    assert needs(*work_of(TRIALS, ("clean", "jpeg-75"))) == [
        ("residual_linear", "clean", ()),
        ("residual_linear", "jpeg-75", ("test",)),
    ]


def test_scoring_a_finished_trial_needs_no_clean_pictures() -> None:
    assert needs(Work(TRIALS[0], ("jpeg-75",), "run")) == [("residual_linear", "jpeg-75", ("test",))]


def test_training_under_a_condition_needs_its_training_pictures_and_clean_ones_for_the_test() -> None:
    assert needs(Work(on_jpeg(TRIALS[0]))) == [
        ("residual_linear", "jpeg-95", ("train", "valid")),
        ("residual_linear", "clean", ("test",)),
    ]


def test_parts_of_one_condition_are_joined() -> None:
    assert needs(Work(on_jpeg(TRIALS[0]), ("clean", "jpeg-95"))) == [
        ("residual_linear", "jpeg-95", ("train", "valid", "test")),
        ("residual_linear", "clean", ("test",)),
    ]
    both = [Work(on_jpeg(TRIALS[0])), Work(TRIALS[1], ("jpeg-95",), "run")]
    for order in (both, both[::-1]):
        found = {condition: set(splits) for _, condition, splits in needs(*order)}
        assert found == {"jpeg-95": {"train", "valid", "test"}, "clean": {"test"}}


def test_a_part_beside_the_whole_is_the_whole() -> None:
    both = [Work(on_jpeg(TRIALS[0])), Work(TRIALS[1])]
    for order in (both, both[::-1]):
        found = {condition: splits for _, condition, splits in needs(*order)}
        assert found["clean"] == ()


def test_each_method_and_configuration_has_inputs_of_its_own() -> None:
    other = dataclasses.replace(TRIALS[0], method="clip_linear")
    settings = dataclasses.replace(TRIALS[0], config=(("l2", 0.1),))
    seed = dataclasses.replace(TRIALS[0], seed=7)
    task = TrialSpec(ATTRIBUTION, "residual_linear", (), ("lama", "ldm"), 0, "d")
    found = distinct_inputs(work_of([TRIALS[0], seed, task, other, settings]))
    assert [(inputs.spec.method, inputs.spec.config) for inputs in found] == [
        ("residual_linear", ()),
        ("clip_linear", ()),
        ("residual_linear", (("l2", 0.1),)),
    ]


def test_without_work_nothing_is_needed() -> None:
    assert distinct_inputs([]) == []


def test_inputs_name_the_method_and_a_condition_that_is_not_clean() -> None:
    assert Inputs(TRIALS[0]).name == "residual_linear"
    assert Inputs(TRIALS[0], "jpeg-75", ("test",)).name == "residual_linear, jpeg-75"


def test_inputs_survive_the_trip_to_another_process() -> None:
    for inputs in (Inputs(TRIALS[0]), Inputs(on_jpeg(TRIALS[0]), "jpeg-95", ("train", "valid"))):
        assert pickle.loads(pickle.dumps(inputs)) == inputs


def test_the_rows_of_inputs_are_those_of_their_splits(tmp_path: Path) -> None:
    manifest = paper_manifest(tmp_path)
    assert len(Inputs(TRIALS[0]).rows(manifest)) == len(manifest.table) == 90
    test = Inputs(TRIALS[0], "jpeg-75", ("test",)).rows(manifest)
    assert set(test["split"]) == {"test"}
    assert len(test) == 30
    fitting = Inputs(TRIALS[0], "jpeg-95", ("train", "valid")).rows(manifest)
    assert set(fitting["split"]) == {"train", "valid"}
    assert len(fitting) == 60


def test_work_is_what_its_json_says() -> None:
    work = Work(TRIALS[0], ("clean", "jpeg-75"), "run", validates=True)
    assert Work.from_dict(json.loads(json.dumps(work.to_dict()))) == work
