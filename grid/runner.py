"""From pending trials to finished ones: what every executor does, and the in-process executor for debugging."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from data.conditions import CLEAN
from grid import names
from grid.checkpoints import latest_state, remove_states, write_state
from grid.plan import FINISHED, Inputs, Work, distinct_inputs
from grid.settings import RunSettings
from grid.spec import TrialSpec
from models.geometry import Geometry
from models.registry import detector_info

if TYPE_CHECKING:
    from data.manifest import Manifest
    from grid.tracking import Tracker, TrialRun
    from models.detector import Detector

log = logging.getLogger(__name__)

STARTED, REPORTED, DONE, FAILED = "started", "reported", "done", "failed"


@dataclass(frozen=True)
class TrialEvent:
    """Something that happened to a trial, for whoever watches.

    Attributes:
        key: the trial's.
        kind: "started", "reported" (an epoch ended), "done" or "failed".
        metrics: of the epoch.
        error: one line, for "failed".
    """

    key: str
    kind: str
    metrics: dict[str, float] = field(default_factory=dict)
    error: str = ""


class Executor(Protocol):
    """Something that computes trials: in this process, on a Ray cluster, or not at all in a test."""

    def prepare(self, work: Sequence[Work], progress: Callable[[str, int, int], None]) -> None:
        """Compute what several trials share, once for each distinct input: progress gets (what, done, total)."""
        ...

    def run(self, work: Sequence[Work], watch: Callable[[TrialEvent], None]) -> None:
        """Do all work to its end; a failed trial does not stop the others. KeyboardInterrupt passes through."""
        ...


class PermanentFailureError(RuntimeError):
    """A trial failed in a way that a retry would only repeat; already recorded in MLflow."""


def execute(
    work: Work,
    settings: RunSettings,
    tracker: Tracker,
    *,
    share: float,
    report: Callable[[dict[str, float], Path | None], None],
    resume_from: Sequence[Path] = (),
) -> None:
    """Do what is left of one trial and record it in MLflow.

    Args:
        work: fit and score, or score a fitted one.
        settings: with what.
        tracker: where its results are kept.
        share: of a GPU that it was given.
        report: takes (metrics, checkpoint folder or None); the folder is the callee's only during the call.
        resume_from: checkpoint folders to consider besides those of the grid.

    Raises:
        PermanentFailureError: a retry would fail the same way.
        Exception: anything else. A retry goes on in the same run.
    """
    try:
        work = _left(work, tracker)
        if work.fits:
            _fit_and_score(work, settings, tracker, share=share, report=report, resume_from=resume_from)
        elif work.conditions:
            _score(work, settings, tracker, share=share)
    except Exception as error:
        from data.manifest import DataProblems
        from models.detector import TrainingDiverged, WeightsError

        if isinstance(error, DataProblems | TrainingDiverged | WeightsError):
            raise PermanentFailureError(f"{type(error).__name__}: {error}") from error
        raise


def _left(work: Work, tracker: Tracker) -> Work:
    """The work without what an earlier attempt has finished, so that a retry trains and scores nothing again."""
    from grid.records import speaking_runs, trial_state

    run = speaking_runs(tracker.records.runs_of(work.key)).get(work.key)
    known = None if run is None else trial_state(run)
    if known is None or known.state != FINISHED:
        return work
    missing = tuple(condition for condition in work.conditions if condition not in known.conditions)
    return Work(work.spec, missing, known.run_id)


def _fit_and_score(
    work: Work,
    settings: RunSettings,
    tracker: Tracker,
    *,
    share: float,
    report: Callable[[dict[str, float], Path | None], None],
    resume_from: Sequence[Path],
) -> None:
    """Fit a trial, going on from its newest sound checkpoint, and score it: clean pictures end its run."""
    from grid.trial import Copied, choose_device, fit, score
    from models.detector import FitSession

    spec = work.spec
    run = tracker.open_trial(spec, {names.NODE: os.uname().nodename, names.GPU_SHARE: f"{share:g}"})
    with kept_warnings() as warnings:
        state, order = latest_state(settings.checkpoints(tracker.parent_id), spec.key, *resume_from)
        started = last_checkpoint = time.monotonic()

        def on_epoch(epoch: int, metrics: dict[str, float]) -> None:
            report({"epoch": epoch, **metrics}, None)  # first: it ends a worker that nobody waits for any more
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
        copied = Copied()
        try:
            device, manifest = choose_device(settings, share), _manifest(spec, settings)
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                fitted = fit(spec, settings, manifest, session, device=device, checkpoint_to=folder, copied=copied)
                detector, threshold = fitted.detector, fitted.threshold
                scored = score(spec, detector, settings, manifest, threshold=threshold, copied=copied)
                metrics = fitted.metrics | {names.SECONDS: time.monotonic() - started}
                if settings.local_copies is not None:
                    metrics |= {names.COPY_SECONDS: copied.seconds, names.COPIED_BYTES: float(copied.bytes)}
                run.finish(scored, metrics, fitted.tags, folder, warnings)
        except Exception as error:
            run.fail(error, traceback.format_exc(), warnings)
            raise
        _score_conditions(work, detector, threshold, settings, manifest, run)


def _score(work: Work, settings: RunSettings, tracker: Tracker, *, share: float) -> None:
    """Score a finished trial under further conditions, from its checkpoint."""
    from grid.trial import choose_device, restore

    run = tracker.finished_trial(work.run_id)
    try:
        device, manifest = choose_device(settings, share), _manifest(work.spec, settings)
        checkpoint, threshold = run.fitted()
        detector = restore(work.spec, dict(settings.weight_files), device, checkpoint)
    except Exception as error:
        run.fail_condition(",".join(work.conditions), error, traceback.format_exc())
        raise
    _score_conditions(work, detector, threshold, settings, manifest, run)


def _score_conditions(
    work: Work, detector: Detector, threshold: float | None, settings: RunSettings, manifest: Manifest, run: TrialRun
) -> None:
    """Score a fitted detector under each condition but clean, which its run has already."""
    from grid.trial import score

    for condition in work.conditions:
        if condition == CLEAN:
            continue
        try:
            run.add_scores(score(work.spec, detector, settings, manifest, threshold=threshold, condition=condition))
        except Exception as error:
            run.fail_condition(condition, error, traceback.format_exc())
            raise


def _manifest(spec: TrialSpec, settings: RunSettings) -> Manifest:
    from data.manifest import Manifest

    return Manifest.load(settings.manifests / spec.data)


@contextmanager
def kept_warnings() -> Iterator[list[str]]:
    """Collect what is logged as a warning or worse: a worker's terminal is nobody's."""
    handler = _Warnings()
    logging.getLogger().addHandler(handler)
    try:
        yield handler.lines
    finally:
        logging.getLogger().removeHandler(handler)


class _Warnings(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.lines.append(f"{record.levelname} {record.name}: {record.getMessage()}")
        except Exception:  # whatever a library hands to its logger, it is no reason to end a trial
            self.handleError(record)


@dataclass(frozen=True)
class Survey:
    """What is left to prepare of an input.

    Attributes:
        missing: images that are neither decoded nor encoded for it yet.
        encodes: whether a frozen encoder computes features; else images are decoded, which takes no GPU.
        fits_on_cpu: whether trials can run on a CPU once features exist; false for bf16 features, which only a GPU run
            may use.
    """

    missing: int
    encodes: bool
    fits_on_cpu: bool


def survey_shared(inputs: Inputs, settings: RunSettings, share: float) -> Survey:
    """Count what `prepare_shared` would have to do here, on the same device: an encoder's key may depend on it."""
    from grid.trial import build, choose_device, missing_inputs

    device = choose_device(settings, share)
    detector = build(inputs.spec, settings, device)
    missing = missing_inputs(detector, _manifest(inputs.spec, settings), settings, inputs)
    encoder = detector.encoder
    if encoder is None:
        return Survey(missing, encodes=False, fits_on_cpu=False)
    on_cpu = encoder if device == "cpu" else build(inputs.spec, settings, "cpu").encoder
    return Survey(missing, encodes=True, fits_on_cpu=on_cpu is not None and on_cpu.key == encoder.key)


def prepare_shared(inputs: Inputs, settings: RunSettings, share: float, progress: Callable[[int, int], None]) -> None:
    """Decode or encode the images of an input, unless that is done already.

    Several processes that do this at once, on any machines with the same cache, share the work.
    """
    from grid.trial import build, choose_device, fill_inputs, set_threads

    set_threads(settings)
    detector = build(inputs.spec, settings, choose_device(settings, share))
    fill_inputs(detector, _manifest(inputs.spec, settings), settings, inputs, progress=progress)


def check_detectors(specs: Sequence[TrialSpec], settings: RunSettings) -> dict[str, Geometry | None]:
    """Build each distinct detector once on the CPU, so that missing or wrong weights are known before the grid starts.

    Returns:
        method -> how it sees a picture; None: as it is.

    Raises:
        WeightsError: naming every method whose weights or architecture cannot be had.
    """
    from grid.trial import build
    from models.detector import WeightsError

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
    """The same trials in this process, one after the other: for a debugger, and where Ray is not wanted."""

    settings: RunSettings
    tracker: Tracker

    def prepare(self, work: Sequence[Work], progress: Callable[[str, int, int], None]) -> None:
        """See `Executor`."""
        for inputs in distinct_inputs(work):
            prepare_shared(inputs, self.settings, self._share(inputs.spec), partial(progress, inputs.name))

    def _share(self, spec: TrialSpec) -> float:
        import torch

        settings = self.settings.for_method(spec.method)
        return settings.gpu_share(detector_info(spec.method).gpu_share, gpus_available=torch.cuda.device_count())

    def run(self, work: Sequence[Work], watch: Callable[[TrialEvent], None]) -> None:
        """See `Executor`. A failed trial is not retried here: its traceback is what a debugging run is for."""
        checkpoints = self.settings.checkpoints(self.tracker.parent_id)
        for item in work:
            folder = checkpoints / "local" / item.key
            watch(TrialEvent(item.key, STARTED))

            def report(
                metrics: dict[str, float], checkpoint: Path | None, key: str = item.key, folder: Path = folder
            ) -> None:
                if checkpoint is not None:
                    _keep(checkpoint, folder)
                if metrics:
                    watch(TrialEvent(key, REPORTED, metrics))

            try:
                execute(item, self.settings, self.tracker, share=self._share(item.spec), report=report)
            except Exception as error:
                log.debug("trial %s failed", item.key, exc_info=True)
                watch(TrialEvent(item.key, FAILED, error=f"{type(error).__name__}: {error}"))
            else:
                remove_states(checkpoints, {item.key})
                watch(TrialEvent(item.key, DONE))


def _keep(checkpoint: Path, folder: Path, *, num_to_keep: int = 2) -> None:
    """Copy a checkpoint into the trial's folder and drop all but the newest, as Ray Tune does."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = sorted(int(path.name.rpartition("_")[2]) for path in folder.glob("checkpoint_*"))
    number = numbers[-1] + 1 if numbers else 0
    shutil.copytree(checkpoint, folder / f"checkpoint_{number:06d}")
    for old in [*numbers, number][:-num_to_keep]:
        shutil.rmtree(folder / f"checkpoint_{old:06d}", ignore_errors=True)
