"""The contract of every experiment: a new file in `grid/experiments` is tested by being there."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import pytest

from data.sources import list_sources
from grid.experiments import list_experiments, load_experiment
from grid.spec import ATTRIBUTION, DETECTION, TASKS, TrialSpec
from models.registry import list_detectors, resolve_config

PUBLISHED = ("xception_scratch", "xception_pretrained", "clip_linear", "sam_linear")


@pytest.fixture(params=list_experiments())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def all_trials(name: str, **changes: Any) -> list[TrialSpec]:
    experiment = load_experiment(name)
    wanted: dict[str, Any] = {
        "generators": ("lama", "ldm", "repaint", "pluralistic"),
        "configs": {method: resolve_config(method, overrides) for method, overrides in experiment.METHODS.items()},
        "tasks": TASKS,
        "seeds": experiment.SEEDS,
        "data": "0123456789abcdef",
    }
    return list(experiment.trials(**wanted | changes))


def test_the_three_experiments_are_there() -> None:
    assert {"demo", "dolos", "folders"} <= set(list_experiments())


def test_an_unknown_experiment_is_answered_with_those_that_exist() -> None:
    with pytest.raises(KeyError, match=r"no experiment named 'doloss'; there are: .*dolos"):
        load_experiment("doloss")


def test_its_docstring_gives_the_command_that_runs_it(name: str) -> None:
    text = importlib.import_module(f"grid.experiments.{name}").__doc__ or ""
    assert "python launch.py" in text
    assert name == "demo" or f"launch.py {name}" in text


def test_its_corpus_is_registered(name: str) -> None:
    assert load_experiment(name).SOURCE in list_sources()


def test_its_methods_are_registered_and_their_settings_exist(name: str) -> None:
    methods = load_experiment(name).METHODS
    assert set(methods) <= set(list_detectors())
    for method, overrides in methods.items():
        assert resolve_config(method, overrides).items() >= overrides.items()


def test_it_holds_the_four_published_methods(name: str) -> None:
    assert set(PUBLISHED) <= set(load_experiment(name).METHODS)


def test_no_two_of_its_trials_have_one_key(name: str) -> None:
    trials = all_trials(name, seeds=(0, 1))
    assert len({trial.key for trial in trials}) == len(trials)


def test_every_method_is_in_both_tasks_on_every_generator(name: str) -> None:
    trials = all_trials(name)
    for method in load_experiment(name).METHODS:
        for seed in load_experiment(name).SEEDS:
            one = [trial for trial in trials if (trial.method, trial.seed) == (method, seed)]
            assert sum(trial.task == DETECTION for trial in one) == 4
            assert sum(trial.task == ATTRIBUTION for trial in one) == 1


def test_its_trials_carry_the_whole_configuration(name: str) -> None:
    for trial in all_trials(name):
        assert dict(trial.config) == resolve_config(trial.method, load_experiment(name).METHODS[trial.method])


def test_planning_it_needs_nothing_heavy(name: str) -> None:
    # the real proof, in a fresh process, is in tests/test_architecture.py; this one names the culprit
    module = sys.modules[f"grid.experiments.{name}"]
    assert not {"torch", "ray", "mlflow", "numpy", "pandas"} & set(vars(module))


def test_the_published_experiment_changes_no_default_of_a_published_method() -> None:
    assert all(load_experiment("dolos").METHODS[method] == {} for method in PUBLISHED)


def test_the_demo_needs_no_download() -> None:
    demo = load_experiment("demo").METHODS
    for method, overrides in demo.items():
        weights = str(resolve_config(method, overrides).get("weights", "random"))
        assert weights == "random" or weights.startswith("package:")
