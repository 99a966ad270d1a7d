"""The contract of every experiment: a new file in `grid/experiments`, or a new corpus, is tested by being there."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections import Counter
from typing import Any

import pytest

import grid.experiments
from data.sources import list_sources
from grid.experiments import PUBLISHED as RUN_BY_DEFAULT
from grid.experiments import (
    Experiment,
    cross_generator_trials,
    list_experiments,
    load_experiment,
    register_experiment,
)
from grid.options import resolve
from grid.spec import TrialSpec
from grid.tasks import ATTRIBUTION, DETECTION, list_tasks
from launch import parse_arguments
from models.registry import detector_info, list_detectors, resolve_config

PUBLISHED = ("xception_scratch", "xception_pretrained", "clip_linear", "sam_linear")
GENERATORS = ("lama", "ldm", "repaint", "pluralistic")
WITH_A_FILE = [module.name for module in pkgutil.iter_modules(grid.experiments.__path__)]
GRID: dict[str, Any] = {
    "generators": ("repaint", "lama", "pluralistic", "ldm"),
    "configs": {method: {"epochs": 1} for method in PUBLISHED},
    "tasks": (DETECTION, ATTRIBUTION),
    "seeds": (0,),
    "data": "0123456789abcdef",
}


@pytest.fixture(params=list_experiments())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def configs(name: str) -> dict[str, dict[str, Any]]:
    """Method -> its whole configuration, as a launch resolves it."""
    return resolve(parse_arguments([name])).configs


def all_trials(name: str, **changes: Any) -> list[TrialSpec]:
    experiment = load_experiment(name)
    wanted: dict[str, Any] = {
        "generators": GENERATORS,
        "configs": configs(name),
        "tasks": list_tasks()[:2],
        "seeds": experiment.seeds,
        "data": "0123456789abcdef",
    }
    return list(experiment.trials(**wanted | changes))


def test_the_three_experiments_are_there() -> None:
    assert {"demo", "dolos", "folders"} <= set(list_experiments())


def test_every_corpus_is_an_experiment_and_one_without_a_file_runs_the_published_methods_as_they_are() -> None:
    assert set(list_sources()) <= set(list_experiments())
    for name in set(list_sources()) - set(WITH_A_FILE):
        experiment = load_experiment(name)
        assert (experiment.name, experiment.source) == (name, name)
        assert experiment.methods == {method: {} for method in RUN_BY_DEFAULT}
        assert not experiment.small


@pytest.mark.parametrize(
    ("wrong", "near"), [("doloss", " (did you mean 'dolos'?)"), ("foldrs", " (did you mean 'folders'?)"), ("xyz", "")]
)
def test_an_unknown_experiment_is_answered_with_those_that_exist(wrong: str, near: str) -> None:
    with pytest.raises(KeyError) as caught:
        load_experiment(wrong)
    exist = ", ".join(list_experiments())
    assert caught.value.args[0] == f"no experiment named {wrong!r}{near}; there are: {exist}"


def test_an_experiment_is_registered_once() -> None:
    with pytest.raises(ValueError, match="an experiment named 'dolos' is registered already"):
        register_experiment(Experiment("dolos", source="dolos"))


@pytest.mark.parametrize("name", WITH_A_FILE)
def test_its_docstring_gives_the_command_that_runs_it(name: str) -> None:
    text = importlib.import_module(f"grid.experiments.{name}").__doc__ or ""
    assert "python launch.py" in text
    assert name == "demo" or f"launch.py {name}" in text


def test_it_has_its_name_and_its_corpus_is_registered(name: str) -> None:
    assert load_experiment(name).name == name
    assert load_experiment(name).source in list_sources()


def test_its_methods_are_registered_and_their_settings_exist(name: str) -> None:
    methods = load_experiment(name).methods
    assert set(methods) <= set(list_detectors())
    for method, overrides in methods.items():
        assert resolve_config(method, overrides).items() >= overrides.items()


def test_it_holds_the_four_published_methods(name: str) -> None:
    assert set(PUBLISHED) <= set(load_experiment(name).methods)


def test_no_two_of_its_trials_have_one_key(name: str) -> None:
    trials = all_trials(name, seeds=(0, 1))
    assert len({trial.key for trial in trials}) == len(trials)


def test_every_method_is_in_both_tasks_on_every_generator(name: str) -> None:
    trials = all_trials(name)
    for method in load_experiment(name).methods:
        for seed in load_experiment(name).seeds:
            one = [trial for trial in trials if (trial.method, trial.seed) == (method, seed)]
            assert sum(trial.task == DETECTION for trial in one) == 4
            assert sum(trial.task == ATTRIBUTION for trial in one) == 1


def test_its_trials_carry_the_whole_configuration(name: str) -> None:
    experiment = load_experiment(name)
    for trial in all_trials(name):
        small = detector_info(trial.method).small if experiment.small else {}
        assert dict(trial.config) == resolve_config(trial.method, {**small, **experiment.methods[trial.method]})


@pytest.mark.parametrize("name", WITH_A_FILE)
def test_planning_it_needs_nothing_heavy(name: str) -> None:
    # the real proof, in a fresh process, is in tests/test_architecture.py; this one names the culprit
    module = sys.modules[f"grid.experiments.{name}"]
    assert not {"torch", "ray", "mlflow", "numpy", "pandas"} & set(vars(module))


def test_the_published_experiment_changes_no_default_of_a_published_method() -> None:
    assert not load_experiment("dolos").small
    assert all(load_experiment("dolos").methods[method] == {} for method in PUBLISHED)


@pytest.mark.parametrize("name", ["demo", "demo1"])
def test_the_demo_needs_no_download(name: str) -> None:
    for config in configs(name).values():
        weights = str(config.get("weights", "random"))
        assert weights == "random" or weights.startswith("package:")


# The grid of trials --------------------------------------------------------------------------------------------------


def test_the_published_grid_has_twenty_trials_a_seed() -> None:
    assert len(list(cross_generator_trials(**GRID))) == 20
    three = list(cross_generator_trials(**GRID | {"seeds": (0, 1, 2)}))
    assert len(three) == len({trial.key for trial in three}) == 60
    assert sorted({trial.seed for trial in three}) == [0, 1, 2]


def test_each_method_is_trained_once_on_each_generator_and_once_on_all_for_attribution() -> None:
    trials = list(cross_generator_trials(**GRID))
    for method in PUBLISHED:
        of_method = [trial for trial in trials if trial.method == method]
        detection = [trial.train_generators for trial in of_method if trial.task == DETECTION]
        attribution = [trial for trial in of_method if trial.task == ATTRIBUTION]
        assert sorted(detection) == [("lama",), ("ldm",), ("pluralistic",), ("repaint",)]
        assert [trial.classes for trial in attribution] == [("real", "lama", "ldm", "pluralistic", "repaint")]
    assert {(trial.data, trial.config) for trial in trials} == {("0123456789abcdef", (("epochs", 1),))}


def test_the_order_of_the_generators_does_not_change_the_grid() -> None:
    reverse = cross_generator_trials(**GRID | {"generators": reversed(GRID["generators"])})
    assert list(reverse) == list(cross_generator_trials(**GRID))


@pytest.mark.parametrize(("task", "number"), [(DETECTION, 16), (ATTRIBUTION, 4)])
def test_one_task_alone_can_be_asked_for(task: str, number: int) -> None:
    trials = list(cross_generator_trials(**GRID | {"tasks": (task,)}))
    assert len(trials) == number
    assert {trial.task for trial in trials} == {task}


def sets_of(trials: list[TrialSpec]) -> Counter[tuple[str, str, str]]:
    return Counter((trial.method, trial.task, str(trial.train_set)) for trial in trials)


def test_training_sets_that_are_asked_for_are_of_detection_alone() -> None:
    everything = "ldm+lama+repaint+pluralistic"
    one = GRID | {"configs": {"clip_linear": {}}}
    trials = list(cross_generator_trials(**one, train_on="all-but-lama, all"))
    assert sets_of(trials) == {
        ("clip_linear", DETECTION, "ldm+pluralistic+repaint"): 1,
        ("clip_linear", DETECTION, "lama+ldm+pluralistic+repaint"): 1,
        ("clip_linear", ATTRIBUTION, "lama+ldm+pluralistic+repaint"): 1,
    }
    named = list(cross_generator_trials(**one, train_on=everything))
    assert sets_of(named) == sets_of([trial for trial in trials if len(trial.train_set) == 4])


def test_a_method_without_fakes_is_trained_once_per_seed_for_detection_whatever_is_asked_for() -> None:
    two = GRID | {"configs": {"clip_linear": {}, "one_class": {}}, "seeds": (0, 1)}
    for train_on in (None, "each", "lama+ldm", "none,lama"):
        trials = list(cross_generator_trials(**two, train_on=train_on, without_fakes=["one_class"]))
        own = [trial for trial in trials if trial.method == "one_class"]
        assert [(trial.task, trial.train_generators, trial.seed) for trial in own] == [
            (DETECTION, (), 0),
            (DETECTION, (), 1),
        ]


def test_a_method_that_needs_fakes_is_never_trained_on_none() -> None:
    two = GRID | {"configs": {"clip_linear": {}, "one_class": {}}, "tasks": (DETECTION,)}
    trials = list(cross_generator_trials(**two, train_on="none", without_fakes=["one_class"]))
    assert sets_of(trials) == {("one_class", DETECTION, "none"): 1}


def test_the_training_condition_is_that_of_every_trial_and_clean_changes_no_key() -> None:
    plain = list(cross_generator_trials(**GRID))
    clean, jpeg = (list(cross_generator_trials(**GRID, train_condition=name)) for name in ("clean", "jpeg-95"))
    assert [trial.key for trial in clean] == [trial.key for trial in plain]
    assert {trial.train_condition for trial in jpeg} == {"jpeg-95"}
    assert not {trial.key for trial in jpeg} & {trial.key for trial in plain}


def test_a_training_set_that_does_not_exist_is_refused_with_what_exists() -> None:
    with pytest.raises(ValueError, match=r"no generator named 'lamma' \(did you mean 'lama'"):
        list(cross_generator_trials(**GRID, train_on="lamma"))
