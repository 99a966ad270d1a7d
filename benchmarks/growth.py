"""What one more trial costs when many are finished, and how long planning takes.

A store is filled with 16, 160 and 1,600 finished runs. A new process then does what a launch and a worker do: look up
what is finished, plan, and run one trial of a tiny probe with all its records in MLflow, after another that is not
counted. Planning is timed on 10,000 trials of which half are finished, without MLflow, whose look-up is shown apart.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from mlflow.entities import Metric, Param, RunTag
from mlflow.tracking import MlflowClient

from benchmarks.measure import Figure, Outcome, Target, in_new_process, interleave, peak_resident, ratios, say
from benchmarks.memory import GENERATORS, stored
from data.manifest import Manifest
from grid import names, tracking
from grid.plan import FINISHED, TrialState, make_plan
from grid.runner import execute_trial
from grid.settings import RunSettings
from grid.spec import TASKS, TrialSpec, cross_generator_trials
from models.registry import list_detectors, resolve_config

EXPERIMENT = "growth"
NUM_IMAGES = 1_000


def run(repeats: int, *, toy: bool = False) -> Outcome:
    """Target: 10,000 trials are planned in 5 s."""
    sizes = (2, 4, 8) if toy else (16, 160, 1_600)
    num_planned = 100 if toy else 10_000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        told = stored(folder, "probe", NUM_IMAGES)
        settings = RunSettings.from_json(told["settings"])
        spec = TrialSpec.from_dict(json.loads(told["spec"]))
        databases = fill(folder / "finished", settings, spec, sizes)

        def one_more(size: int) -> dict[str, float]:
            shutil.copy(databases[size], settings.runs / "mlflow.db")
            found: dict[str, float] = in_new_process("benchmarks.growth", "one_more_trial", told, threads=1)
            return found

        sides: dict[str, Callable[[], dict[str, float]]] = {
            f"{size:,} finished": partial(one_more, size) for size in sizes
        }
        sides["planning"] = lambda: in_new_process("benchmarks.growth", "planning", {"num_trials": num_planned})
        found = interleave(repeats, sides)

    def column(size: int, what: str) -> list[float]:
        return [one[what] for one in found[f"{size:,} finished"]]

    def over(what: str) -> list[float]:
        return ratios(column(sizes[-1], what), column(sizes[0], what))

    def parts(what: str, unit: str) -> dict[str, list[float]]:
        return {f"{size:,} finished, {unit}": column(size, what) for size in sizes}

    many = f"with {sizes[-1]:,} finished over with {sizes[0]:,}"
    return Outcome(
        f"a probe on {NUM_IMAGES:,} rows of features; {', '.join(map(str, sizes))} finished runs in SQLite",
        {
            "time": Figure(
                f"seconds of one more tiny trial and its records, {many}",
                "ratio",
                over("trial"),
                parts=parts("trial", "s"),
            ),
            "look-up": Figure(
                f"seconds to look up {sizes[-1]:,} finished trials",
                "s",
                column(sizes[-1], "look-up"),
                parts=parts("look-up", "s"),
            ),
            "memory": Figure(
                f"peak memory of that process, {many}", "ratio", over("peak_gb"), parts=parts("peak_gb", "GB")
            ),
            "planning": Figure(
                f"seconds to plan {num_planned:,} trials",
                "s",
                [one["seconds"] for one in found["planning"]],
                Target(5.0),
            ),
        },
    )


def fill(folder: Path, settings: RunSettings, like: TrialSpec, sizes: Sequence[int]) -> dict[int, Path]:
    """Number of finished runs -> a database that holds them. The runs have everything but artifacts."""
    settings.runs.mkdir(parents=True)
    folder.mkdir()
    database = settings.runs / "mlflow.db"
    manifest = Manifest.load(settings.manifests / like.data)
    specs = [replace(like, seed=seed + 10) for seed in range(sizes[-1])]
    tracker = tracking.open_grid(settings.tracking_uri, EXPERIMENT, manifest, specs, settings.runs / "artifacts")
    client = MlflowClient(tracking_uri=settings.tracking_uri)
    figures = [
        names.metric_name(generator, metric) for generator in GENERATORS for metric in ("accuracy", "auroc", "ap")
    ]
    databases = {}
    for number, spec in enumerate(specs, start=1):
        tags = {
            names.ROLE: names.TRIAL_ROLE,
            names.PARENT_RUN: tracker.parent_id,
            names.KEY: spec.key,
            names.TASK: spec.task,
            names.METHOD: spec.method,
            names.TRAIN_GENERATORS: names.LIST_SEPARATOR.join(spec.train_generators),
            names.SEED: str(spec.seed),
            names.DATA: spec.data,
        }
        run_id = client.create_run(tracker.experiment_id, tags=tags, run_name=spec.name).info.run_id
        client.log_batch(
            run_id,
            metrics=[Metric(name, 0.5, 0, 0) for name in [*figures, names.SECONDS, names.THRESHOLD]],
            params=[Param(name, str(value)) for name, value in spec.params().items()],
            tags=[RunTag(names.WEIGHTS, "made up"), RunTag(names.DEVICE, "cpu")],
        )
        client.set_terminated(run_id, "FINISHED")
        if number in sizes:
            say(f"{number} finished runs written")
            databases[number] = Path(shutil.copy(database, folder / f"{number}.db"))
    return databases


def one_more_trial(spec: str, settings: str) -> dict[str, float]:
    """Seconds of the look-up and of a trial, and peak memory in GB."""
    told = RunSettings.from_json(settings)
    like = TrialSpec.from_dict(json.loads(spec))
    experiment_id = tracking.find_experiment(told.tracking_uri, EXPERIMENT)
    assert experiment_id is not None
    (parent, planned), *_ = tracking.planned_grids(told.tracking_uri, experiment_id)
    started = time.perf_counter()
    states = tracking.trial_states(told.tracking_uri, experiment_id, [trial.key for trial in planned])
    seconds = {"look-up": time.perf_counter() - started}
    assert make_plan(planned, states).finished
    tracker = tracking.Tracker(told.tracking_uri, experiment_id, parent.info.run_id, {})
    for trial in (like, replace(like, seed=1)):  # the first is not counted
        started = time.perf_counter()
        execute_trial(trial, told, tracker, share=0.0, report=lambda metrics, checkpoint: None)
        seconds["trial"] = time.perf_counter() - started
    return seconds | {"peak_gb": peak_resident() / 1e9}


def planning(num_trials: int) -> dict[str, float]:
    """Seconds to lay out a grid and tell what is pending, given what is finished."""
    configs = {method: resolve_config(method) for method in list_detectors()}
    a_seed = len(configs) * (len(GENERATORS) + 1)

    def laid_out() -> list[TrialSpec]:
        seeds = range(-(-num_trials // a_seed))
        trials = cross_generator_trials(generators=GENERATORS, configs=configs, tasks=TASKS, seeds=seeds, data="0" * 16)
        return list(trials)[:num_trials]

    states = {trial.key: TrialState("0" * 32, FINISHED) for trial in laid_out()[::2]}
    started = time.perf_counter()
    plan = make_plan(laid_out(), states)
    counted = len(plan.pending), len(plan.finished)
    seconds = time.perf_counter() - started
    assert sum(counted) == num_trials
    return {"seconds": seconds}
