"""Wall clock of the demo grid under Ray and MLflow, against the same trials' compute on the same cores.

The limit is as many plain processes as there are cores, with one thread each: first what the trials share, one process
a method, then the trials, the longest first, each to whoever is free. They record nothing, and their imports are done
before the clock starts. One process that computes with every core is no better limit: small networks gain little from
a second thread, and lose much on a machine that does something else besides.

Under Ray the clock runs while images are prepared, and from the first trial's computing to the last one's end, in the
launcher's order and with every record in MLflow. Start-up is shown apart: `ray.init` and the imports of a worker on
each core; and between preparing and the first trial Tune, which starts workers of its own, with the same imports again.
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count, repeat
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.finished import open_grid
from benchmarks.grids import compute, demo_trials, drawn_manifest, fresh_settings, prepare
from benchmarks.measure import Measured, Outcome, Target, column, interleave, ratios, say
from data.manifest import Manifest
from grid.experiments import PUBLISHED
from grid.names import SECONDS
from grid.plan import Work, distinct_inputs
from grid.runner import DONE, FAILED, Executor, TrialEvent
from grid.settings import RunSettings
from grid.spec import TrialSpec


@dataclass(frozen=True)
class Size:
    """Images per class and split, and the demo's methods that take part."""

    limit: int
    methods: tuple[str, ...] = PUBLISHED


FULL = Size(1000)  # all of them
TOY = Size(2, ("clip_linear",))


def run(repeats: int, *, toy: bool = False) -> Outcome:
    """Target: 1.15 times the limit."""
    size = TOY if toy else FULL
    cores = machine.cores()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest = drawn_manifest(folder, toy=toy).limit(size.limit)
        specs = demo_trials(manifest, size.methods)
        which = ", ".join(size.methods)
        setup = f"{len(specs)} demo trials ({which}) on {len(manifest.table)} of its images; {cores} cores"
        say(setup)
        numbers = count()
        with processes(cores) as pool:

            def plain() -> dict[str, float]:
                settings = fresh_settings(folder / f"plain{next(numbers)}", manifest)
                return in_processes(pool, specs, settings)

            def under_ray() -> dict[str, float]:
                settings = fresh_settings(folder / f"ray{next(numbers)}", manifest)
                return with_ray(specs, settings, manifest, cores)

            found = interleave(repeats, {"plain": plain, "ray": under_ray})
    parts = {f"{name}: {part}, s": column(found[name], part) for name in found for part in found[name][0]}
    return Outcome(
        setup,
        {
            "over plain processes": Measured(
                f"wall clock under Ray and MLflow, start-up apart, over plain processes on the same cores ({setup})",
                "ratio",
                ratios(column(found["ray"], "wall"), column(found["plain"], "wall")),
                Target(1.15),
                parts,
            ),
            "start-up": Measured(
                "start-up of Ray and of a worker on each core, then of Tune and of its workers, not counted above",
                "s",
                [one["start-up"] + one["Tune's start-up"] for one in found["ray"]],
            ),
        },
    )


@contextmanager
def processes(number: int) -> Iterator[ProcessPoolExecutor]:
    """Plain processes that have their imports behind them."""
    with ProcessPoolExecutor(number, mp_context=multiprocessing.get_context("spawn")) as pool:
        list(pool.map(_warm_up, range(number)))
        yield pool


def _warm_up(number: int) -> None:
    """What a worker needs; then stays for a while, so that every worker gets to do it."""
    _imports()
    time.sleep(1.0)


def _imports() -> None:
    import importlib

    for name in ("grid.runner", "grid.tracking", "grid.trial", "models.linear", "models.training", "open_clip"):
        importlib.import_module(name)


def in_processes(pool: ProcessPoolExecutor, specs: list[TrialSpec], settings: RunSettings) -> dict[str, float]:
    """Seconds: on the wall; of it, until everything was prepared; the trials' own, added up."""
    started = time.perf_counter()
    list(pool.map(prepare, distinct_inputs([Work(spec) for spec in specs]), repeat(settings)))
    prepared = time.perf_counter() - started
    trials = sum(pool.map(compute, specs, repeat(settings)))
    return {"wall": time.perf_counter() - started, "preparing": prepared, "all trials": trials}


def with_ray(specs: list[TrialSpec], settings: RunSettings, manifest: Manifest, cores: int) -> dict[str, float]:
    """The same under a Ray of our own, and its start-up.

    Raises:
        RuntimeError: a trial failed.
    """
    connection = {"num_cpus": cores, "num_gpus": 0}
    started = time.perf_counter()
    with warm_workers(cores, connection):
        connected = time.perf_counter()
        return {"start-up": connected - started, **recorded(specs, settings, manifest, connection)}


@contextmanager
def warm_workers(number: int, connection: Mapping[str, Any]) -> Iterator[None]:
    """A Ray session whose workers, one a core, have their imports behind them.

    Args:
        number: cores of all of its nodes.
        connection: what `grid.cluster.connect` takes.
    """
    import ray
    import ray.cloudpickle

    from grid import cluster

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the launcher leaves this folder out of its upload
    with cluster.session(**connection):
        warm_up: Any = ray.remote(_warm_up).options(num_cpus=1)
        ray.get([warm_up.remote(core) for core in range(number)])
        yield


def recorded(
    specs: list[TrialSpec], settings: RunSettings, manifest: Manifest, connection: Mapping[str, Any]
) -> dict[str, float]:
    """Seconds of what the launcher does with these trials under the Ray that is connected, with all records.

    On the wall, Tune's start-up not counted; of it, until everything was prepared; the trials' own, added up; and
    Tune's start-up.

    Raises:
        RuntimeError: a trial failed.
    """
    from grid import ray_executor

    tracker = open_grid(settings, "benchmark", manifest, specs)
    first = settings.runs / "first"
    executor = ray_executor.RayExecutor(settings, tracker, connection)
    executor.compute = noting_the_first(executor.compute, first)
    started = time.time()
    executor.prepare([Work(spec) for spec in specs], lambda method, done, total: None)
    prepared = time.time()
    run_all(executor, specs)
    ended = time.time()
    waited = first.stat().st_mtime - prepared
    return {
        "wall": ended - started - waited,
        "preparing": prepared - started,
        "Tune's start-up": waited,
        "all trials": sum(run.data.metrics[SECONDS] for run in tracker.records.trials()),
    }


def noting_the_first(compute: Callable[..., None], file: Path) -> Callable[..., None]:
    """The same with a worker's imports before it; `file` appears when the first trial is about to compute."""

    def computing(*arguments: Any) -> None:
        _imports()
        if not file.exists():
            file.touch()
        compute(*arguments)

    return computing


def run_all(executor: Executor, specs: list[TrialSpec]) -> None:
    """Run trials that must work. Raises `RuntimeError` where one does not."""
    outcomes: dict[str, str] = {}

    def watch(event: TrialEvent) -> None:
        if event.kind in (DONE, FAILED):
            outcomes[event.key] = event.error

    executor.run([Work(spec) for spec in specs], watch)
    errors = [outcomes.get(spec.key, "no outcome") for spec in specs]
    if any(errors):
        raise RuntimeError("; ".join(filter(None, errors)))
