"""The Ray executor: pending trials on fractions of GPUs, retried from their last checkpoint."""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError
from ray.tune import Callback, Checkpoint, CheckpointConfig, FailureConfig, RunConfig, TuneConfig, Tuner
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from data.manifest import Manifest
from data.pictures import ConditionError
from data.splits import sizes_of_groups
from grid.checkpoints import remove_states
from grid.cluster import cluster_nodes, connect
from grid.host_memory import memory_of_rows
from grid.nodes import ACCELERATOR, Demand, check_feasible, num_gpus, slots, trial_demand
from grid.plan import Inputs, Work, distinct_inputs
from grid.preparing import Board, Survey, prepare_input, survey_input
from grid.runner import DONE, FAILED, REPORTED, STARTED, PermanentFailureError, TrialEvent, execute
from grid.settings import ClusterError, RunSettings
from grid.tracking import Tracker
from grid.trial import recipes
from models.detector import MemoryExhausted

IMAGES_PER_TASK = 128  # at least, for a preparing task: its worker takes seconds to start

log = logging.getLogger(__name__)


def _compute(work: Work, settings: RunSettings, tracker: Tracker, share: float) -> None:
    """Do the work of a trial in its worker."""
    raylet = os.getppid()

    def report(metrics: dict[str, float], checkpoint: Path | None) -> None:
        if os.getppid() != raylet:  # the driver was killed, and Ray with it; the next launch may run this trial
            os._exit(1)
        kept = Checkpoint.from_directory(str(checkpoint)) if checkpoint else None
        tune.report({**metrics, "has_checkpoint": kept is not None}, checkpoint=kept)

    try:
        execute(work, settings, tracker, share=share, report=report)
    except PermanentFailureError as error:
        tune.report({"permanent_failure": str(error)})


@dataclass
class RayExecutor:
    """Runs trials as Ray Tune trials, and prepares what they share in Ray tasks.

    Attributes:
        settings: folders, device and resources.
        tracker: of the grid.
        connection: the arguments of `grid.cluster.connect`, to connect again after a failure.
        compute: does a trial's work in its worker; gets the work, the settings, the tracker and the GPU share.
    """

    settings: RunSettings
    tracker: Tracker
    connection: Mapping[str, Any] = field(default_factory=dict)
    compute: Callable[[Work, RunSettings, Tracker, float], None] = _compute
    # Methods with configurations whose trials can run on a CPU, because their features exist.
    _fit_on_cpu: set[tuple[Any, ...]] = field(default_factory=set, init=False)

    def prepare(self, work: Sequence[Work], progress: Callable[[str, int, int], None]) -> None:
        """See `grid.runner.Executor`: one survey per distinct input, then tasks that share what is missing."""
        nodes = cluster_nodes()
        needed = {f"{inputs.spec.key} {inputs.name}": inputs for inputs in distinct_inputs(work, recipes)}
        methods = {inputs.spec.method for inputs in needed.values()}
        demands = {method: trial_demand(method, self.settings, nodes) for method in methods}
        check_feasible(demands, nodes)
        # On the driver's node, because other nodes may go away.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        board: Any = ray.remote(Board).options(num_cpus=0, scheduling_strategy=here).remote()
        warned: set[str] = set()

        def warn(method: str, warnings: str) -> None:
            for line in warnings.splitlines():
                if line not in warned:  # all tasks of a method report the same damage
                    log.warning("%s: %s", method, line)
                    warned.add(line)

        asked = {
            key: self._task(survey_input, inputs, self.settings, demands[inputs.spec.method])
            for key, inputs in needed.items()
        }
        surveys: dict[str, Survey] = {}
        missing: dict[str, int] = {}
        tasks: dict[Any, str] = {}
        for key, inputs in needed.items():
            spec = inputs.spec
            survey = surveys[key] = task_result(asked[key], spec.method)
            warn(spec.method, survey.warnings)
            if survey.fits_on_cpu and not self.settings.for_method(spec.method).asks_for_gpu:
                self._fit_on_cpu.add((spec.method, spec.config))
            if survey.missing:
                missing[key] = survey.missing
            tasks |= dict.fromkeys(self._start(key, inputs, survey, board), key)
        starved, succeeded = dict[str, MemoryExhausted](), set[str]()  # inputs with such tasks
        while tasks:
            ended, _ = ray.wait(list(tasks), timeout=0.5)
            for task in ended:
                key = tasks.pop(task)
                inputs = needed[key]
                try:
                    warn(inputs.spec.method, task_result(task, inputs.spec.method))
                    succeeded.add(key)
                except ConditionError as error:  # the trials that need the condition record it
                    warn(inputs.spec.method, str(error))
                except MemoryExhausted as error:  # a neighbour on its GPU holds too much
                    starved[key] = error
                if key in starved and key not in tasks.values():
                    if key not in succeeded:
                        raise starved[key]
                    log.warning("%s: %s; other tasks do the work", inputs.name, starved.pop(key))
                    succeeded.discard(key)
                    rest = dataclasses.replace(surveys[key], missing=1)  # one task does what the starved one left
                    tasks |= dict.fromkeys(self._start(key, inputs, rest, board), key)
            for key, total in missing.items():
                done = min(ray.get(board.read.remote(key)), total) if key in tasks.values() else total
                progress(needed[key].name, done, total)
        ray.kill(board)

    def _start(self, key: str, inputs: Inputs, survey: Survey, board: Any) -> list[Any]:
        """Start tasks that prepare what is missing, as many as fit at once; decoding needs no GPU."""
        settings = self.settings if survey.encodes else dataclasses.replace(self.settings, device="cpu")
        nodes = cluster_nodes()
        demand = trial_demand(inputs.spec.method, settings, nodes)
        num_tasks, share = spread(
            survey.missing,
            share=demand.share,
            num_gpus=num_gpus(nodes, demand),
            slots=min(slots(demand, nodes), settings.max_concurrent or sys.maxsize),
        )
        log.info("%s: %d tasks for %d images, %g GPU each", inputs.name, num_tasks, survey.missing, share)
        demand = dataclasses.replace(demand, resources={**demand.resources, "GPU": share})

        def progress(number: int) -> Callable[[int, int], None]:
            return lambda done, total: board.write.remote(key, number, done)

        return [self._task(prepare_input, inputs, settings, demand, progress(number)) for number in range(num_tasks)]

    def _task(
        self, function: Callable[..., Any], inputs: Inputs, settings: RunSettings, demand: Demand, *more: Any
    ) -> Any:
        """Start a Ray task: function(inputs, settings, share of a GPU, *more)."""
        options: dict[str, Any] = {
            "max_retries": 2,
            "num_cpus": demand.resources["CPU"],
            "num_gpus": demand.share,
            "memory": demand.resources.get("memory"),
            "resources": {name: part for name, part in demand.resources.items() if name.startswith(ACCELERATOR)},
            "label_selector": dict(demand.labels),
        }
        # Not `.options(…)`: the worker of a task that had a GPU would then live on, and hold the GPU's memory.
        task: Any = ray.remote(**options)(function)
        return task.remote(inputs, settings, demand.share, *more)

    def run(self, work: Sequence[Work], watch: Callable[[TrialEvent], None]) -> None:
        """See `grid.runner.Executor`. Retries go on from the last checkpoint, in the same MLflow run.

        A trial fails when its worker died more than `max_failures` times without an epoch that was new.

        If a node runs out of memory, Ray ends a worker, and Tune fails with it. Trials without an outcome then run
        again, half as many at once.
        """
        pending = {item.key: item for item in work}
        running: set[str] = set()
        done: set[str] = set()

        def follow(event: TrialEvent) -> None:
            if event.kind == STARTED:
                running.add(event.key)
            elif event.kind in (DONE, FAILED):
                running.discard(event.key)
                pending.pop(event.key, None)
                done.update([event.key] if event.kind == DONE else [])
            watch(event)

        checkpoints = self.settings.checkpoints(self.tracker.parent_id)
        at_once = self.settings.max_concurrent
        launches: list[Path] = []
        while pending:
            launches.append(checkpoints / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}")
            try:
                self._tune(list(pending.values()), launches[-1], at_once, follow)
                break  # trials that are still pending were interrupted
            except RuntimeError as error:
                if not isinstance(error.__cause__, OutOfMemoryError) or not running:
                    raise
                if len(running) == 1:
                    what = "OutOfMemoryError: alone on its node, the trial needs more memory than there is"
                    follow(TrialEvent(running.pop(), FAILED, error=what))
                else:
                    at_once = len(running) // 2
                    log.warning("memory ran out with %d trials at once; going on with %d", len(running), at_once)
                    running.clear()
                ray.shutdown()
                connect(**self.connection)
        remove_states(checkpoints, done)
        for folder in launches:
            if not any(folder.glob("*/checkpoint_*")):
                shutil.rmtree(folder, ignore_errors=True)

    def _tune(self, work: Sequence[Work], folder: Path, at_once: int, watch: Callable[[TrialEvent], None]) -> None:
        nodes = cluster_nodes()
        manifests = {data: Manifest.load(self.settings.manifests / data) for data in {item.spec.data for item in work}}
        sizes = {data: sizes_of_groups(manifest.table) for data, manifest in manifests.items()}
        trials: list[dict[str, Any]] = []
        asked: list[Demand] = []  # each once
        for item in work:
            rows_memory = memory_of_rows(item.spec, sizes[item.spec.data])
            demand = trial_demand(item.spec.method, self.settings, nodes, rows_memory=rows_memory)
            demand = demand.without_gpu() if (item.spec.method, item.spec.config) in self._fit_on_cpu else demand
            if demand not in asked:
                asked.append(demand)
            trials.append({"key": item.key, "work": item.to_dict(), "demand": asked.index(demand)})
        with_memory = [
            (trial["work"]["spec"]["method"], asked[trial["demand"]])
            for trial in trials
            if "memory" in asked[trial["demand"]].resources
        ]
        check_feasible(dict(sorted(with_memory, key=lambda pair: pair[1].resources["memory"])), nodes)  # the largest
        settings, tracker, do = self.settings, self.tracker, self.compute

        # Tune reads these two functions again for every trial, so what there is once per trial is in its configuration.
        def compute(config: dict[str, Any]) -> None:
            work = Work.from_dict(config["trial"]["work"])
            do(work, settings, tracker, asked[config["trial"]["demand"]].share)

        def placement(config: dict[str, Any]) -> tune.PlacementGroupFactory:
            demand = asked[config["trial"]["demand"]]
            labels = [dict(demand.labels)] if demand.labels else None
            return tune.PlacementGroupFactory([dict(demand.resources)], bundle_label_selector=labels)

        folder.parent.mkdir(parents=True, exist_ok=True)
        Tuner(
            tune.with_resources(compute, placement),
            tune_config=TuneConfig(
                search_alg=_InOrder(trials),
                scheduler=_InTurn(),
                num_samples=len(trials),
                max_concurrent_trials=at_once or None,
                trial_name_creator=_key_of,
                trial_dirname_creator=_key_of,
                reuse_actors=True,
            ),
            run_config=RunConfig(
                name=folder.name,
                storage_path=str(folder.parent),
                failure_config=FailureConfig(max_failures=self.settings.max_failures),
                checkpoint_config=CheckpointConfig(num_to_keep=2),
                callbacks=[_Watcher(watch)],
                verbose=0,
            ),
        ).fit()


def _key_of(trial: Trial) -> str:
    return str(trial.config["trial"]["key"])


class _InOrder(Searcher):
    """Gives Tune the trials of a list, one after the other; Tune's own `grid_search` copies the list for each trial."""

    def __init__(self, trials: Iterable[Mapping[str, Any]]) -> None:
        super().__init__()
        self._rest = iter(trials)

    def suggest(self, trial_id: str) -> dict[str, Any]:
        return {"trial": next(self._rest)}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        pass

    def save(self, checkpoint_path: str) -> None:  # no experiment is restored
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError("MLflow knows what is finished, and the next launch runs the rest")


class _InTurn(FIFOScheduler):
    """Runs trials in Tune's order. Tune's own scheduler looks for the next one among all that have finished, too."""

    def __init__(self) -> None:
        super().__init__()
        self._unfinished: list[Trial] = []

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:  # also of one that is tried again
        self._unfinished.append(trial)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        self._unfinished = [each for each in self._unfinished if each is not trial]

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        self._unfinished = [trial for trial in self._unfinished if not trial.is_finished()]
        return next((trial for trial in self._unfinished if trial.status == Trial.PENDING), None)


class _Watcher(Callback):
    """Turns Tune's call-backs, which run in the driver, into events; and forgets failures before a trial's progress."""

    def __init__(self, watch: Callable[[TrialEvent], None]) -> None:
        self._watch = watch
        self._epochs: dict[str, int] = {}  # the last one that each trial has reached

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune saves its call-backs, but `watch` cannot be pickled, and no experiment is restored

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._watch(TrialEvent(_key_of(trial), STARTED))

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        if "epoch" in result:
            if result["epoch"] > self._epochs.get(_key_of(trial), 0):
                self._epochs[_key_of(trial)] = result["epoch"]
                trial.run_metadata.num_failures = 0  # reclaimed nodes and the like do not add up over a long trial
            metrics = {name: value for name, value in result.items() if "/" in name and isinstance(value, float)}
            self._watch(TrialEvent(_key_of(trial), REPORTED, {"epoch": result["epoch"], **metrics}))

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        error = trial.last_result.get("permanent_failure", "")
        self._watch(TrialEvent(_key_of(trial), FAILED if error else DONE, error=error))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        if trial.status == Trial.ERROR:  # otherwise Tune retries it
            self._watch(TrialEvent(_key_of(trial), FAILED, error=_last_error(trial)))


def _last_error(trial: Trial) -> str:
    with suppress(OSError, TypeError, IndexError):  # a worker that was killed may leave no file
        return Path(trial.error_file).read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1]
    return "the worker died"


# Preparing -----------------------------------------------------------------------------------------------------------


def task_result(task: Any, method: str) -> Any:
    """The result of a preparing task.

    Raises:
        ValueError, MemoryExhausted, OSError: the task's own error, about the data, the images or a disk.
        ClusterError: the task's worker died, in each attempt.
    """
    try:
        return ray.get(task)
    except RayTaskError as error:
        if isinstance(error.cause, ValueError | MemoryExhausted | OSError):
            raise error.cause from None
        raise
    except RayError as error:
        raise ClusterError(
            f"{method}: its images could not be prepared, because every worker that tried died; finished images stay, "
            f"and the same command goes on from there ({str(error).splitlines()[0]})"
        ) from error


def spread(num_images: int, *, share: float, num_gpus: float, slots: int) -> tuple[int, float]:
    """The number of tasks that prepare these images, and the GPU share of each.

    `slots` tasks with the share of a trial fit at once. Ray fills one GPU before it takes the next, so the share grows
    until the tasks occupy all GPUs.
    """
    num_tasks = min(max(slots, 1), -(-num_images // IMAGES_PER_TASK))
    if num_tasks and num_gpus and 0 < share < 1:
        share = max(share, 1 / math.ceil(num_tasks / num_gpus))
    return num_tasks, share
