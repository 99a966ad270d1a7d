"""Runs one trial and records it in MLflow, for every executor; and the executor in this process, for debugging."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from data.conditions import CLEAN
from data.manifest import DataProblems
from data.pictures import ConditionError
from grid import names
from grid.checkpoints import LostCheckpointError, latest_state, remove_states, write_state
from grid.devices import use_device
from grid.faults import FaultError, fault, in_one_line, only_warned
from grid.localisation import localise
from grid.means import summary_of_trial
from grid.plan import FINISHED, Work, distinct_inputs, lacks_validation
from grid.preparing import kept_warnings, prepare_input
from grid.previews import Previews, make_previews
from grid.settings import RunSettings
from grid.spec import TrialSpec
from grid.tasks import DETECTION
from grid.trial import Scored, build, fit, recipes, restore, score, versions
from grid.validation import Validated, validate
from models.detector import Detector, FitSession, TrainingDiverged, WeightsError
from models.geometry import Geometry
from models.registry import detector_info

if TYPE_CHECKING:
    from grid.tracking import Tracker, TrialRun

log = logging.getLogger(__name__)

STARTED, REPORTED, DONE, FAILED = "started", "reported", "done", "failed"


@dataclass(frozen=True)
class TrialEvent:
    """A change in the state of a trial.

    Attributes:
        key: the trial's key.
        kind: "started", "reported" (an epoch ended), "done" or "failed".
        metrics: name -> value, with "epoch"; only for "reported".
        error: one line; only for "failed".
    """

    key: str
    kind: str
    metrics: dict[str, float] = field(default_factory=dict)
    error: str = ""


class Executor(Protocol):
    """Computes trials, in this process or on a Ray cluster."""

    def prepare(self, work: Sequence[Work], progress: Callable[[str, int, int], None]) -> None:
        """Compute the pixels and features that trials share. `progress` gets (name of the input, done, total)."""

    def run(self, work: Sequence[Work], watch: Callable[[TrialEvent], None]) -> None:
        """Do all work. A failed trial does not stop the others; KeyboardInterrupt is not caught."""


class PermanentFailureError(RuntimeError):
    """A trial failed, and a retry would fail in the same way; MLflow has the error."""


def execute(
    work: Work,
    settings: RunSettings,
    tracker: Tracker,
    *,
    share: float,
    report: Callable[[dict[str, float], Path | None], None],
) -> None:
    """Do what is left of one trial, and record it in MLflow.

    Args:
        work: fit and score the trial, or score its fitted detector further.
        settings: folders, device and resources.
        tracker: of the grid.
        share: the trial's share of a GPU, 0 to 1.
        report: takes (metrics, checkpoint folder or None) and copies the folder before it returns.

    Raises:
        PermanentFailureError: a retry would fail in the same way.
        FaultError: the machine failed; a retry goes on in the same run, on another machine perhaps.
        Exception: any other error; a retry goes on in the same run.
    """
    try:
        state = tracker.records.state(work.key)
        if state is not None and state.state == FINISHED:  # an earlier attempt; a retry repeats nothing
            missing = tuple(condition for condition in work.conditions if condition not in state.conditions)
            work = Work(work.spec, missing, state.run_id, lacks_validation(work.spec, state))
        if work.fits:
            _fit_and_score(work, settings, tracker, share=share, report=report)
        else:
            run = tracker.finished_trial(work.run_id)

            @cache
            def load() -> tuple[Detector, float | None, str]:
                (checkpoint, threshold), device = run.fitted(), use_device(settings, share)
                try:
                    detector = restore(work.spec, dict(settings.weight_files), device, checkpoint)
                except WeightsError:
                    raise
                except (KeyError, OSError, RuntimeError, ValueError) as error:
                    damaged = isinstance(error, KeyError | ValueError)  # not a disk or a memory that failed
                    raise run.lost_checkpoint(f"cannot be used: {error}", for_good=damaged) from error
                return detector, threshold, device

            _score_conditions(work, settings, run, load)
    except (ConditionError, DataProblems, LostCheckpointError, TrainingDiverged, WeightsError) as error:
        raise PermanentFailureError(f"{type(error).__name__}: {error}") from error
    except Exception as error:
        said = fault(error, cache=settings.cache)
        if said is None:
            raise
        raise FaultError(said) from error


def _fit_and_score(
    work: Work,
    settings: RunSettings,
    tracker: Tracker,
    *,
    share: float,
    report: Callable[[dict[str, float], Path | None], None],
) -> None:
    """Fit a trial from its newest sound checkpoint, and score it; its run is finished after clean pictures."""
    spec = work.spec
    run = tracker.open_trial(spec, {names.NODE: os.uname().nodename, names.GPU_SHARE: f"{share:g}"})
    with kept_warnings() as warnings:
        state, order = latest_state(settings.checkpoints(tracker.parent_id), spec.key)
        started = last_checkpoint = time.monotonic()

        def on_epoch(epoch: int, metrics: dict[str, float]) -> None:
            report({"epoch": epoch, **metrics}, None)  # first, because it ends this worker if the driver was killed
            run.log_epoch(epoch, metrics)

        def checkpoint_due() -> bool:
            return time.monotonic() - last_checkpoint >= settings.checkpoint_seconds

        def save_checkpoint(state: dict[str, Any]) -> None:
            nonlocal order, last_checkpoint
            order += 1
            with tempfile.TemporaryDirectory() as name:
                write_state(Path(name), state, order=order)
                report({}, Path(name))
            last_checkpoint = time.monotonic()

        session = FitSession(on_epoch, checkpoint_due, save_checkpoint, state)
        copied = {names.COPY_SECONDS: 0.0, names.COPIED_BYTES: 0.0} if settings.local_copies else {}
        try:
            device = use_device(settings, share)
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                fitted = fit(spec, settings, session, device=device, checkpoint_to=folder, copied=copied)
                metrics, tags = dict(fitted.metrics), dict(fitted.tags)
                validated: Validated | None = None
                if fitted.threshold is not None:
                    validated = validate(spec, fitted.detector, settings, copied=copied)
                    metrics |= validated.metrics
                    tags |= {names.VALIDATED: "true", names.CALIBRATED: "true"}
                scored = score(spec, fitted.detector, settings, threshold=fitted.threshold, copied=copied)
                localised = localise(spec, fitted.detector, settings)
                previews = _previews(spec, scored, settings, fitted.threshold)
                metrics |= summary_of_trial(spec.train_set, scored.metrics) if spec.task == DETECTION else {}
                metrics |= {names.SECONDS: time.monotonic() - started} | copied
                run.finish(
                    scored, metrics, tags, folder, warnings.getvalue(), validated=validated, localised=localised,
                    previews=previews,
                )  # fmt: skip
        except Exception as error:
            said = fault(error, cache=settings.cache)
            try:
                run.fail(FaultError(said) if said else error, traceback.format_exc(), warnings.getvalue())
            except Exception:
                if said is None:  # where a disk is full, say, the record fails for the same reason
                    raise
            raise error
    _score_conditions(work, settings, run, lambda: (fitted.detector, fitted.threshold, device))


def _previews(spec: TrialSpec, scored: Scored, settings: RunSettings, threshold: float | None) -> Previews | None:
    """Pictures for the UI; None where they cannot be drawn, which is warned of."""
    with only_warned("the previews of a trial are not drawn"):
        return make_previews(spec, scored, settings, threshold=threshold)
    return None


def _score_conditions(
    work: Work, settings: RunSettings, run: TrialRun, load: Callable[[], tuple[Detector, float | None, str]]
) -> None:
    """Score a trial's detector, with its threshold, on what its run lacks.

    That is the validation images of all generators, if they are asked for, and each condition except "clean", which its
    run has already. An error of one is raised after the others are scored. Where the checkpoint is lost for good, its
    run says that it is never validated, which is no error: the trial is finished.
    """
    failure: Exception | None = None
    if work.validates:
        try:
            detector, _, _ = load()
            run.add_validation(validate(work.spec, detector, settings))
        except LostCheckpointError as error:
            if not error.for_good:
                run.fail_condition(names.ON_VALIDATION, error, traceback.format_exc())
                raise
            run.never_validate(error, traceback.format_exc())
            log.warning("%s is finished without values on the validation images: %s", work.spec.name, error)
        except Exception as error:
            run.fail_condition(names.ON_VALIDATION, error, traceback.format_exc())
            failure = error
    for condition in work.conditions:
        if condition == CLEAN:
            continue
        try:
            with kept_warnings() as warnings:
                detector, threshold, device = load()
                scored = score(work.spec, detector, settings, threshold=threshold, condition=condition)
            facts = {names.DEVICE: device, names.NODE: os.uname().nodename, names.VERSIONS: versions()}
            run.add_scores(scored, {**facts, names.WARNINGS: warnings.getvalue()})
        except Exception as error:
            if fault(error, cache=settings.cache):
                raise
            run.fail_condition(condition, error, traceback.format_exc())
            if isinstance(error, LostCheckpointError):
                raise
            failure = failure or error
    if failure is not None:
        raise failure


def check_detectors(specs: Sequence[TrialSpec], settings: RunSettings) -> dict[str, Geometry | None]:
    """Build each distinct detector once on the CPU, to find missing or wrong weights before the grid starts.

    Returns:
        method -> how it resizes pictures; None: it takes them at their native size.

    Raises:
        WeightsError: weights or architectures cannot be loaded; the message names each method.
    """
    problems, geometries = [], {}
    for spec in {(spec.method, spec.config): spec for spec in specs}.values():
        try:
            geometries[spec.method] = build(spec, settings, "cpu").geometry
        except (WeightsError, ValueError) as error:
            problems.append(f"{spec.method}: {str(error).replace('METHOD', spec.method)}")
    if problems:
        raise WeightsError("\n".join(problems))
    return geometries


@dataclass
class LocalExecutor:
    """Trials in this process, one after the other: for a debugger, or without Ray."""

    settings: RunSettings
    tracker: Tracker

    def prepare(self, work: Sequence[Work], progress: Callable[[str, int, int], None]) -> None:
        """See `Executor`. Where a condition fails, the trials that need it record the error."""
        for inputs in distinct_inputs(work, recipes):
            try:
                prepare_input(inputs, self.settings, self._share(inputs.spec), partial(progress, inputs.name))
            except ConditionError as error:
                log.warning("%s", error)

    def _share(self, spec: TrialSpec) -> float:
        import torch

        settings = self.settings.for_method(spec.method)
        return settings.gpu_share(detector_info(spec.method).gpu_share, gpus_available=torch.cuda.device_count())

    def run(self, work: Sequence[Work], watch: Callable[[TrialEvent], None]) -> None:
        """See `Executor`. A failed trial is not retried, because a debugging run is there to show its traceback.

        Raises:
            FaultError: the machine failed, so that further trials would fail too.
        """
        checkpoints = self.settings.checkpoints(self.tracker.parent_id)
        for item in work:
            watch(TrialEvent(item.key, STARTED))

            def report(metrics: dict[str, float], checkpoint: Path | None, key: str = item.key) -> None:
                if checkpoint is not None:
                    _keep(checkpoint, checkpoints / "local" / key)
                if metrics:
                    watch(TrialEvent(key, REPORTED, metrics))

            try:
                execute(item, self.settings, self.tracker, share=self._share(item.spec), report=report)
            except FaultError:
                raise
            except Exception as error:
                log.debug("trial %s failed", item.key, exc_info=True)
                watch(TrialEvent(item.key, FAILED, error=f"{type(error).__name__}: {in_one_line(error)}"))
            else:
                remove_states(checkpoints, {item.key})
                watch(TrialEvent(item.key, DONE))


def _keep(checkpoint: Path, folder: Path) -> None:
    """Copy a checkpoint into the trial's folder, and remove all but the newest two, as Ray Tune does."""
    earlier = sorted(folder.glob("checkpoint_*"))
    number = int(earlier[-1].name.rpartition("_")[2]) + 1 if earlier else 0
    shutil.copytree(checkpoint, folder / f"checkpoint_{number:06d}")
    for path in earlier[:-1]:
        shutil.rmtree(path, ignore_errors=True)
