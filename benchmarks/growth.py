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
from itertools import count
from pathlib import Path

from pydantic import TypeAdapter

from benchmarks.finished import open_grid, record
from benchmarks.grids import GENERATORS, TASKS
from benchmarks.measure import (
    Measured,
    Outcome,
    Target,
    column,
    in_new_process,
    interleave,
    peak_resident,
    ratios,
    say,
    timed,
)
from benchmarks.memory import stored
from data.conditions import CLEAN
from data.manifest import Manifest
from grid.experiments import PUBLISHED, cross_generator_trials
from grid.plan import FINISHED, TrialState, Work, make_plan
from grid.records import open_records
from grid.runner import execute
from grid.settings import RunSettings
from grid.spec import TrialSpec
from grid.tracking import Tracker
from grid.uris import STORE, sqlite_uri
from models.registry import resolve_config

EXPERIMENT = "growth"
NUM_IMAGES = 1_000


def run(repeats: int, *, toy: bool = False) -> Outcome:
    """Target: 10,000 trials are planned in 5 s."""
    sizes = (2, 4, 8) if toy else (16, 160, 1_600)
    num_planned = 100 if toy else 10_000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        told = stored(folder, "probe", NUM_IMAGES)
        settings = TypeAdapter(RunSettings).validate_json(told["settings"])
        spec = TrialSpec.from_dict(json.loads(told["spec"]))
        databases = fill(folder / "finished", settings, spec, sizes)
        numbers = count()

        def one_more(size: int) -> dict[str, float]:
            copy = Path(shutil.copy(databases[size], folder / f"{next(numbers)}.db"))
            changed = replace(settings, tracking_uri=sqlite_uri(copy))
            own = told | {"settings": TypeAdapter(RunSettings).dump_json(changed).decode()}
            found: dict[str, float] = in_new_process("benchmarks.growth", "one_more_trial", own, threads=1)
            return found

        sides: dict[str, Callable[[], dict[str, float]]] = {
            f"{size:,} finished": partial(one_more, size) for size in sizes
        }
        sides["planning"] = lambda: in_new_process("benchmarks.growth", "planning", {"num_trials": num_planned})
        found = interleave(repeats, sides)

    def each(size: int, what: str) -> list[float]:
        return column(found[f"{size:,} finished"], what)

    def over(what: str) -> list[float]:
        return ratios(each(sizes[-1], what), each(sizes[0], what))

    def parts(what: str, unit: str) -> dict[str, list[float]]:
        return {f"{size:,} finished, {unit}": each(size, what) for size in sizes}

    many = f"with {sizes[-1]:,} finished over with {sizes[0]:,}"
    return Outcome(
        f"a probe on {NUM_IMAGES:,} rows of features; {', '.join(map(str, sizes))} finished runs in SQLite",
        {
            "time": Measured(
                f"seconds of one more tiny trial and its records, {many}",
                "ratio",
                over("trial"),
                parts=parts("trial", "s"),
            ),
            "look-up": Measured(
                f"seconds to look up {sizes[-1]:,} finished trials",
                "s",
                each(sizes[-1], "look-up"),
                parts=parts("look-up", "s"),
            ),
            "memory": Measured(
                f"peak memory of that process, {many}", "ratio", over("peak_gb"), parts=parts("peak_gb", "GB")
            ),
            "planning": Measured(
                f"seconds to plan {num_planned:,} trials",
                "s",
                column(found["planning"], "seconds"),
                Target(5.0),
            ),
        },
    )


def fill(folder: Path, settings: RunSettings, like: TrialSpec, sizes: Sequence[int]) -> dict[int, Path]:
    """Number of finished runs -> a database that holds them."""
    folder.mkdir()
    manifest = Manifest.load(settings.manifests / like.data)
    specs = [replace(like, seed=seed + 10) for seed in range(sizes[-1])]
    tracker = open_grid(settings, EXPERIMENT, manifest, specs)
    databases = {}
    for number, spec in enumerate(specs, start=1):
        record(tracker, spec, manifest, number)
        if number in sizes:
            say(f"{number} finished runs written")
            databases[number] = Path(shutil.copy(settings.runs / STORE, folder / f"{number}.db"))
    return databases


def one_more_trial(spec: str, settings: str) -> dict[str, float]:
    """Seconds of the look-up and of a trial, and peak memory in GB."""
    told = TypeAdapter(RunSettings).validate_json(settings)
    like = TrialSpec.from_dict(json.loads(spec))
    records = open_records(told.tracking_uri, EXPERIMENT)
    assert records is not None
    (grid,) = records.grids()
    planned = [TrialSpec.from_dict(fields) for fields in records.plan(grid).values()]
    started = time.perf_counter()
    states = records.states(trial.key for trial in planned)
    seconds = {"look-up": time.perf_counter() - started}
    assert make_plan(planned, states).finished
    tracker = Tracker(told.tracking_uri, records.experiment_id, grid.info.run_id, {})
    for trial in (like, replace(like, seed=1)):  # the first is not counted
        once = partial(execute, Work(trial), told, tracker, share=0.0, report=lambda metrics, checkpoint: None)
        seconds["trial"] = timed(once)
    return seconds | {"peak_gb": peak_resident() / 1e9}


def planning(num_trials: int) -> dict[str, float]:
    """Seconds to lay out a grid and tell what is pending, given what is finished."""
    configs = {method: resolve_config(method) for method in PUBLISHED}
    a_seed = len(configs) * (len(GENERATORS) + 1)

    def laid_out() -> list[TrialSpec]:
        seeds = range(-(-num_trials // a_seed))
        trials = cross_generator_trials(generators=GENERATORS, configs=configs, tasks=TASKS, seeds=seeds, data="0" * 16)
        return list(trials)[:num_trials]

    states = {
        trial.key: TrialState("0" * 32, FINISHED, frozenset({CLEAN}), validated=True) for trial in laid_out()[::2]
    }
    started = time.perf_counter()
    plan = make_plan(laid_out(), states)
    counted = len(plan.pending), len(plan.finished)
    seconds = time.perf_counter() - started
    assert sum(counted) == num_trials
    return {"seconds": seconds}
