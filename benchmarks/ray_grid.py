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
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from benchmarks import machine
from benchmarks.grids import compute, drawn_manifest, fresh_settings, prepare
from benchmarks.measure import Figure, Outcome, Target, interleave, ratios, say
from data.manifest import Manifest
from grid.experiments import demo
from grid.names import SECONDS
from grid.runner import DONE, FAILED, Executor, TrialEvent, distinct_inputs
from grid.settings import RunSettings
from grid.spec import TASKS, Scalar, TrialSpec
from models.registry import resolve_config


@dataclass(frozen=True)
class Size:
    """The demo's methods that take part, overrides of them, and images a class and split."""

    limit: int
    methods: Mapping[str, Mapping[str, Scalar]] = field(default_factory=lambda: demo.METHODS)


FULL = Size(1000)  # all of them
TOY = Size(2, {"clip_linear": demo.METHODS["clip_linear"]})


def run(repeats: int, *, toy: bool = False) -> Outcome:
    """Target: 1.15 times the limit."""
    size = TOY if toy else FULL
    cores = machine.cores()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest = drawn_manifest(folder, toy=toy).limit(size.limit)
        specs = demo_trials(manifest, size)
        which = ", ".join(size.methods)
        setup = f"{len(specs)} demo trials ({which}) on {len(manifest.table)} of its images; {cores} cores"
        say(setup)
        numbers = count()
        with processes(cores) as pool:

            def plain() -> dict[str, float]:
                settings = fresh_settings(folder / f"plain{next(numbers)}", manifest, cpus_per_trial=1)
                return in_processes(pool, specs, settings, manifest)

            def under_ray() -> dict[str, float]:
                settings = fresh_settings(folder / f"ray{next(numbers)}", manifest, cpus_per_trial=1)
                return with_ray(specs, settings, manifest, cores)

            found = interleave(repeats, {"plain": plain, "ray": under_ray})
    sides = {name: [one["wall"] for one in found[name]] for name in found}
    parts = {f"{name}: {part}, s": [one[part] for one in found[name]] for name in found for part in found[name][0]}
    return Outcome(
        setup,
        {
            "over plain processes": Figure(
                f"wall clock under Ray and MLflow, start-up apart, over plain processes on the same cores ({setup})",
                "ratio",
                ratios(sides["ray"], sides["plain"]),
                Target(1.15),
                parts,
            ),
            "start-up": Figure(
                "start-up of Ray and of a worker on each core, then of Tune and of its workers, not counted above",
                "s",
                [one["start-up"] + one["Tune's start-up"] for one in found["ray"]],
            ),
        },
    )


def demo_trials(manifest: Manifest, size: Size) -> list[TrialSpec]:
    """The demo's trials of these methods in the launcher's order, the longest first."""
    configs = {method: resolve_config(method, overrides) for method, overrides in size.methods.items()}
    trials = demo.trials(generators=manifest.generators, configs=configs, tasks=TASKS, seeds=(0,), data=manifest.digest)
    return sorted(trials, key=lambda trial: -len(trial.train_generators))


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


def in_processes(
    pool: ProcessPoolExecutor, specs: list[TrialSpec], settings: RunSettings, manifest: Manifest
) -> dict[str, float]:
    """Seconds: on the wall; of it, until everything was prepared; the trials' own, added up."""
    started = time.perf_counter()
    list(pool.map(_prepare, [(spec.to_dict(), settings.to_json()) for spec in distinct_inputs(specs)]))
    prepared = time.perf_counter() - started
    jobs = [(spec.to_dict(), settings.to_json(), manifest) for spec in specs]
    trials = sum(pool.map(_compute, jobs))
    return {"wall": time.perf_counter() - started, "preparing": prepared, "all trials": trials}


def _prepare(job: tuple[dict[str, Any], str]) -> None:
    with threadpool_limits(1):
        prepare([TrialSpec.from_dict(job[0])], RunSettings.from_json(job[1]))


def _compute(job: tuple[dict[str, Any], str, Manifest]) -> float:
    spec, settings, manifest = job
    with threadpool_limits(1):  # of BLAS too, as Ray has it: two make a small fit 10 × slower
        return compute(TrialSpec.from_dict(spec), RunSettings.from_json(settings), manifest).metrics[SECONDS]


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
    from mlflow.tracking import MlflowClient

    from grid import ray_executor, tracking

    settings.runs.mkdir(parents=True)
    tracker = tracking.open_grid(settings.tracking_uri, "benchmark", manifest, specs, settings.runs / "artifacts")
    first = settings.runs / "first"
    executor = ray_executor.RayExecutor(settings, tracker, connection)
    executor.compute = noting_the_first(executor.compute, first)
    started = time.time()
    executor.prepare(specs, lambda method, done, total: None)
    prepared = time.time()
    run_all(executor, specs)
    ended = time.time()
    waited = first.stat().st_mtime - prepared
    runs = MlflowClient(tracking_uri=settings.tracking_uri).search_runs([tracker.experiment_id], max_results=1000)
    return {
        "wall": ended - started - waited,
        "preparing": prepared - started,
        "Tune's start-up": waited,
        "all trials": sum(run.data.metrics.get(SECONDS, 0.0) for run in runs),
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

    executor.run(specs, watch)
    errors = [outcomes.get(spec.key, "no outcome") for spec in specs]
    if any(errors):
        raise RuntimeError("; ".join(filter(None, errors)))
