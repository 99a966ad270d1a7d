"""The Ray executor: pending trials on fractions of GPUs, retried from their last checkpoint."""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError
from ray.tune import Callback, Checkpoint, CheckpointConfig, FailureConfig, RunConfig, TuneConfig, Tuner
from ray.tune.experiment import Trial
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from grid.checkpoints import remove_states
from grid.cluster import cluster_nodes, connect
from grid.nodes import ACCELERATOR, Demand, check_feasible, num_gpus, slots, trial_demand
from grid.plan import Inputs, Work, distinct_inputs
from grid.preparing import Board, prepare_input, survey_input
from grid.runner import (
    DONE,
    FAILED,
    REPORTED,
    STARTED,
    PermanentFailureError,
    Survey,
    TrialEvent,
    execute,
)
from grid.settings import ClusterError, InfeasibleError, RunSettings
from grid.tracking import Tracker
from models.detector import MemoryExhausted

log = logging.getLogger(__name__)


@dataclass
class RayExecutor:
    """Trials as Ray Tune trials, what they share as Ray tasks before them."""

    settings: RunSettings
    tracker: Tracker
    connection: Mapping[str, Any] = field(default_factory=dict)  # what `connect` was called with
    # What a trial's worker does with the work's fields, the settings as JSON, the tracker and its share of a GPU.
    compute: Callable[[dict[str, Any], str, Tracker, float], None] = field(default_factory=lambda: _compute)
    # Methods with configurations whose trials need no GPU any more: their features are there.
    _fit_on_cpu: set[tuple[Any, ...]] = field(default_factory=set, init=False)

    def prepare(self, work: Sequence[Work], progress: Callable[[str, int, int], None]) -> None:
        """See `grid.runner.Executor`: one look at each distinct input, then tasks that share what is missing."""
        nodes = cluster_nodes()
        if self.settings.device == "cuda" and not num_gpus(nodes):
            raise InfeasibleError("--device cuda was asked for but Ray knows of no GPU; use --device auto or cpu")
        needed = {f"{inputs.spec.key} {inputs.condition}": inputs for inputs in distinct_inputs(work)}
        methods = {inputs.spec.method for inputs in needed.values()}
        demands = {method: trial_demand(method, self.settings, nodes) for method in methods}
        check_feasible(demands, nodes)
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        # Here, because another node may go away.
        board: Any = ray.remote(Board).options(num_cpus=0, scheduling_strategy=here).remote()
        surveys = {
            self._task(survey_input, inputs, self.settings, demands[inputs.spec.method]): key
            for key, inputs in needed.items()
        }
        missing: dict[str, int] = {}
        tasks: dict[Any, str] = {}
        said: set[str] = set()
        while surveys or tasks:
            ended, _ = ray.wait([*surveys, *tasks], timeout=0.5)
            for task in ended:
                key = surveys.get(task) or tasks[task]
                spec = needed[key].spec
                survey, warnings = _result(task, spec.method)
                for line in warnings:
                    if line not in said:  # every task of a method sees the same damage
                        log.warning("%s: %s", spec.method, line)
                said.update(warnings)
                if surveys.pop(task, None):
                    missing[key] = survey.missing
                    if survey.fits_on_cpu and not self.settings.for_method(spec.method).asks_for_gpu:
                        self._fit_on_cpu.add((spec.method, spec.config))
                    tasks |= dict.fromkeys(self._start(key, needed[key], survey, board), key)
                else:
                    del tasks[task]
            done = ray.get(board.read.remote())
            for key, total in missing.items():
                if total:
                    over = key not in tasks.values()
                    progress(needed[key].name, total if over else min(done.get(key, 0), total), total)
        ray.kill(board)

    def _start(self, key: str, inputs: Inputs, survey: Survey, board: Any) -> list[Any]:
        """Start as many tasks as fit at once to prepare what is missing; decoding takes no GPU."""
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
        demand = demand.with_share(share)
        return [self._task(prepare_input, inputs, settings, demand, board, key, number) for number in range(num_tasks)]

    def _task(
        self, function: Callable[..., Any], inputs: Inputs, settings: RunSettings, demand: Demand, *more: Any
    ) -> Any:
        """Start a Ray task; `function` gets the input, the settings and the share of a GPU first."""
        options: dict[str, Any] = {
            "max_retries": 2,
            "num_cpus": demand.resources["CPU"],
            "num_gpus": demand.share,
            "memory": demand.resources.get("memory"),
            "resources": {name: part for name, part in demand.resources.items() if name.startswith(ACCELERATOR)},
            "label_selector": dict(demand.labels),
        }
        # Not `.options(…)`, with which the worker of a task that had a GPU would live on, and hold the GPU's memory.
        task: Any = ray.remote(**options)(function)
        return task.remote(inputs.to_dict(), settings.to_json(), demand.share, *more)

    def run(self, work: Sequence[Work], watch: Callable[[TrialEvent], None]) -> None:
        """See `grid.runner.Executor`. Retries go on from the last checkpoint, in the same MLflow run.

        Where the memory of a node runs out, Ray ends a worker and Tune falls with it: the trials that have no outcome
        then go on with half as many at once.
        """
        pending = {item.key: item for item in work}
        running: set[str] = set()
        done: list[str] = []

        def follow(event: TrialEvent) -> None:
            if event.kind == STARTED:
                running.add(event.key)
            elif event.kind in (DONE, FAILED):
                running.discard(event.key)
                pending.pop(event.key, None)
                done.extend([event.key] if event.kind == DONE else [])
            watch(event)

        checkpoints = self.settings.checkpoints(self.tracker.parent_id)
        at_once = self.settings.max_concurrent
        launches: list[Path] = []
        while pending:
            launches.append(checkpoints / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}")
            try:
                self._tune(list(pending.values()), launches[-1], at_once, follow)
                break  # what is still pending was interrupted
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
        remove_states(checkpoints, set(done))
        for folder in launches:
            if not any(folder.glob("*/checkpoint_*")):
                shutil.rmtree(folder, ignore_errors=True)

    def _tune(self, work: Sequence[Work], folder: Path, at_once: int, watch: Callable[[TrialEvent], None]) -> None:
        by_key = {item.key: item.to_dict() for item in work}
        nodes = cluster_nodes()
        specs = [item.spec for item in work]
        by_method = {method: trial_demand(method, self.settings, nodes) for method in {spec.method for spec in specs}}
        demands = {
            spec.key: by_method[spec.method].without_gpu()
            if (spec.method, spec.config) in self._fit_on_cpu
            else by_method[spec.method]
            for spec in specs
        }
        settings, tracker, do = self.settings.to_json(), self.tracker, self.compute

        def compute(config: dict[str, Any]) -> None:
            key = config["trial"]
            do(by_key[key], settings, tracker, demands[key].share)

        folder.parent.mkdir(parents=True, exist_ok=True)
        Tuner(
            tune.with_resources(compute, lambda config: placement(demands[config["trial"]])),
            param_space={"trial": tune.grid_search(list(by_key))},
            tune_config=TuneConfig(
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


def placement(demand: Demand) -> tune.PlacementGroupFactory:
    """What Tune reserves for a trial."""
    labels = [dict(demand.labels)] if demand.labels else None
    return tune.PlacementGroupFactory([dict(demand.resources)], bundle_label_selector=labels)


def _key_of(trial: Trial) -> str:
    return str(trial.config["trial"])


def _compute(work: dict[str, Any], settings: str, tracker: Tracker, share: float) -> None:
    """Runs in the trial's worker."""
    raylet = os.getppid()

    def report(metrics: dict[str, float], checkpoint: Path | None) -> None:
        if os.getppid() != raylet:  # the driver was killed and Ray with it; the next launch may have this trial
            os._exit(1)
        kept = Checkpoint.from_directory(str(checkpoint)) if checkpoint else None
        tune.report({**metrics, "has_checkpoint": kept is not None}, checkpoint=kept)

    last = tune.get_checkpoint()
    resume = [Path(last.path)] if last else []
    try:
        execute(
            Work.from_dict(work),
            RunSettings.from_json(settings),
            tracker,
            share=share,
            report=report,
            resume_from=resume,
        )
    except PermanentFailureError as error:
        tune.report({"permanent_failure": str(error)})


class _Watcher(Callback):
    """Turns Tune's call-backs, which run in the driver, into events."""

    def __init__(self, watch: Callable[[TrialEvent], None]) -> None:
        self._watch = watch
        self._gave_up: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune snapshots its call-backs; this one watches a terminal, and no experiment is ever restored

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._watch(TrialEvent(_key_of(trial), STARTED))

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        if "permanent_failure" in result:
            self._gave_up.add(_key_of(trial))
            self._watch(TrialEvent(_key_of(trial), FAILED, error=result["permanent_failure"]))
        elif "epoch" in result:
            metrics = {name: value for name, value in result.items() if "/" in name and isinstance(value, float)}
            self._watch(TrialEvent(_key_of(trial), REPORTED, {"epoch": result["epoch"], **metrics}))

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        if _key_of(trial) not in self._gave_up:
            self._watch(TrialEvent(_key_of(trial), DONE))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        if trial.status == Trial.ERROR:  # else it is about to be retried
            self._watch(TrialEvent(_key_of(trial), FAILED, error=_last_error(trial)))


def _last_error(trial: Trial) -> str:
    try:
        lines = [line for line in Path(trial.error_file).read_text().splitlines() if line.strip()]
    except (OSError, TypeError):  # a worker that was killed may leave no file
        lines = []
    return lines[-1] if lines else "the worker died"


# Preparing -----------------------------------------------------------------------------------------------------------

IMAGES_A_TASK = 128  # at least, where images are prepared: a worker takes seconds to start


def _result(task: Any, method: str) -> Any:
    """What a preparing task gives, or its own error.

    Raises:
        ClusterError: its worker died, each time.
    """
    try:
        return ray.get(task)
    except RayTaskError as error:
        if isinstance(error.cause, ValueError | MemoryExhausted):  # about the data or a trial, and told as such
            raise error.cause from None
        raise
    except RayError as error:
        raise ClusterError(
            f"{method}: its images could not be prepared, as every worker that tried died; what they finished stays, "
            f"and the same command goes on from there ({str(error).splitlines()[0]})"
        ) from error


def spread(num_images: int, *, share: float, num_gpus: float, slots: int) -> tuple[int, float]:
    """How many tasks prepare so many images, and on what share of a GPU each.

    Ray fills one GPU before it takes the next, so the share grows until the tasks that there are lie on all of them.

    Args:
        num_images: what is missing.
        share: of a GPU that a trial of the method asks for, 0 to 1.
        num_gpus: of the cluster.
        slots: tasks with that share that fit at once.
    """
    num_tasks = min(max(slots, 1), -(-num_images // IMAGES_A_TASK))
    if num_tasks and num_gpus and 0 < share < 1:
        share = max(share, 1 / math.ceil(num_tasks / num_gpus))
    return num_tasks, share
