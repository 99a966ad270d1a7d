"""The only writer of MLflow: one parent run per grid, one child run per trial; no global active run."""

from __future__ import annotations

import getpass
import json
import logging
import math
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from grid.records import Records, StoreAccess, StoreError, answering, conditions_of, open_records  # isort: skip  # before mlflow

import mlflow
import numpy as np
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from data.addresses import without_passwords
from data.conditions import CLEAN
from grid import names
from grid.checkpoints import LostCheckpointError
from grid.commit import git_state
from grid.controls import References, detection_train_sets, kind_of
from grid.faults import in_one_line, only_warned
from grid.launches import ENDED, Launch, machine, newest_launch, process_start, still_alive
from grid.local_store import adopt_moved, artifact_folder, find_moved, make_file
from grid.plan import FINISHED, RUNNING
from grid.spec import TrialSpec
from grid.summaries import describe_trial, summaries
from grid.tasks import class_names
from grid.train_sets import TrainSet
from grid.uris import sqlite_file, store_variable

if TYPE_CHECKING:
    from data.manifest import Manifest
    from data.verdict import Verdict
    from grid.localisation import Localised
    from grid.previews import Previews
    from grid.trial import Scored
    from grid.validation import Validated

HEARTBEAT_SECONDS = 10.0
STALE_SECONDS = 60.0  # a launch on another machine without a heartbeat for this long counts as dead

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tracker(StoreAccess):
    """Writes the runs of one grid.

    Attributes:
        experiment_id: id of the MLflow experiment.
        parent_id: id of the grid's parent run.
        origin: tags with the user and the version of the code; from the driver, because workers have no git history.
    """

    experiment_id: str
    parent_id: str
    origin: Mapping[str, str]

    @property
    def records(self) -> Records:
        """The reader of this experiment."""
        return Records(self.uri, self.experiment_id)

    def open_trial(self, spec: TrialSpec, tags: Mapping[str, str]) -> TrialRun:
        """Find or create the trial's unfinished run; retries and later launches go on in the same run."""
        client = self.client
        unfinished = [run for run in self.records.runs_of(spec.key) if run.info.status != "FINISHED"]
        all_tags = {
            names.ROLE: names.TRIAL_ROLE,
            names.PARENT_RUN: self.parent_id,
            names.KEY: spec.key,
            names.TASK: spec.task,
            names.METHOD: spec.method,
            names.TRAIN_GENERATORS: str(spec.train_set),
            names.SEED: str(spec.seed),
            names.DATA: spec.data,
            names.DESCRIPTION: describe_trial(spec),
            **({names.CONTROL: kind} if (kind := kind_of(spec.task, spec.method)) else {}),
            **({names.TRAIN_CONDITION: spec.train_condition} if spec.train_condition != CLEAN else {}),
            **({names.EQUAL_SIZE: str(spec.equal_size)} if spec.equal_size else {}),
            **self.origin,
            **tags,
        }
        if unfinished:
            run_id = unfinished[-1].info.run_id
            client.update_run(run_id, status="RUNNING")
            if unfinished[-1].data.tags.get(names.DESCRIPTION):  # a person may have changed it
                del all_tags[names.DESCRIPTION]
        else:
            run_id = client.create_run(self.experiment_id, tags=all_tags, run_name=spec.name).info.run_id
        # For every run, because the process that created it may have died here; the same values again are harmless.
        params = [Param(key, str(value)) for key, value in spec.params().items()]
        client.log_batch(run_id, params=params, tags=[RunTag(key, value) for key, value in all_tags.items()])
        if inputs := client.get_run(self.parent_id).inputs:
            client.log_inputs(run_id, inputs.dataset_inputs)
        client.log_dict(run_id, spec.to_dict(), names.SPEC)
        return TrialRun(self.uri, run_id)

    def finished_trial(self, run_id: str) -> TrialRun:
        """The run of a finished trial."""
        return TrialRun(self.uri, run_id)

    def close_interrupted(self, keys: Iterable[str], errors: Mapping[str, str] | None = None) -> None:
        """End the runs that are still open although their trials have stopped.

        `errors`: key -> one line, for trials that failed; a worker that died could not record its error.
        """
        client, messages = self.client, errors or {}
        for key, state in self.records.states(keys).items():
            if state.state == FINISHED and key in messages:  # it failed while it was scored under a condition
                tags = client.get_run(state.run_id).data.tags
                error = tags.get(names.CONDITION_ERROR) or messages[key][:5000]  # a worker that died recorded none
                client.set_tag(state.run_id, names.CONDITION_ERROR, error)
            if state.state != RUNNING:
                continue
            if key in messages:
                client.set_tag(state.run_id, names.ERROR, messages[key][:5000])
            client.set_terminated(state.run_id, "FAILED" if key in messages else "KILLED")

    def record_launch(
        self,
        manifest: Manifest,
        trials: Iterable[TrialSpec],
        *,
        conditions: Iterable[str] = (),
        launched: Mapping[str, str] | None = None,
        verdict: Verdict | None = None,
    ) -> None:
        """Log what this launch runs, in the grid's parent run.

        Args:
            manifest: the data set, logged as an MLflow input.
            trials: all trials of the grid, added to the grid's plan.
            conditions: conditions to score under, added to those of earlier launches.
            launched: tags that describe the launch: `names.EXPERIMENT`, `names.OPTIONS`.
            verdict: what the audits say of the data set; None: it was not audited.

        Raises:
            StoreError: the store was moved, and a launch of another grid of the experiment uses the old paths.
        """
        self._adopt_moved()
        client, parent_id = self.client, self.parent_id
        grid = client.get_run(parent_id)
        client.update_run(parent_id, status="RUNNING")
        client.log_text(parent_id, manifest.summary(), names.MANIFEST_SUMMARY)
        source = json.dumps({"uri": manifest.root.as_uri()})
        images: dict[str, dict[str, int]] = {}
        for key, count in Counter(zip(class_names(manifest.table), manifest.table["split"], strict=True)).items():
            images.setdefault(key[0], {})[key[1]] = count
        profile = json.dumps(
            {"num_rows": len(manifest.table), "generators": list(manifest.generators), "images": images}
        )
        dataset = Dataset(manifest.source, manifest.digest, "local", source, profile=profile)
        client.log_inputs(parent_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "train, valid, test")])])
        asked = sorted((conditions_of(grid) | set(conditions)) - {CLEAN})
        tags = {**(launched or {}), names.CONDITIONS: ",".join(asked), names.TEST_IMAGES: manifest.fingerprint}
        _tag(client, grid, tags)
        client.log_text(parent_id, "".join(f"{note}\n" for note in manifest.remarks), names.NOTES)
        if verdict is not None:
            _log_verdict(self.records, grid, verdict)
        try:
            planned = self.records.plan(grid)
        except StoreError as error:
            log.warning("%s", error)
            planned = {}
        planned |= {trial.key: trial.to_dict() for trial in trials}
        client.log_dict(parent_id, {"trials": [fields | {"key": key} for key, fields in planned.items()]}, names.PLAN)

    def lacks_areas(self, digests: Iterable[str]) -> bool:
        """Whether the grid's run lacks the edited area of one of these images; also where its file is damaged."""
        try:
            areas = json.loads(self.records.text(self.client.get_run(self.parent_id), names.AREAS) or "{}")
            return not set(digests) <= set(areas)
        except (OSError, TypeError, ValueError) as error:
            log.warning("%s of the grid's run is damaged and will be made again (%s)", names.AREAS, error)
            return True

    def record_areas(self, areas: Mapping[str, float]) -> None:
        """Log the edited area of each test fake (`mask_share` of `data.measure`) in the grid's parent run."""
        self.client.log_dict(self.parent_id, dict(areas), names.AREAS)

    def _adopt_moved(self) -> None:
        """Enter the new paths of a local store that was moved, unless somebody runs another grid of the experiment."""
        moved = find_moved(self.uri, self.experiment_id)
        if moved is None:
            return
        for grid in self.records.grids():
            if grid.info.run_id == self.parent_id:
                continue
            other = Tracker(self.uri, self.experiment_id, grid.info.run_id, self.origin)
            launch = other.newest_launch()
            if _runs(other, launch, f"another grid of this experiment, on {grid.data.tags.get(names.DATA)},"):
                raise StoreError(
                    f"another grid of this experiment is being run by {launch.who}\nIts artifacts are in {moved[0]} "
                    f"there, and in {moved[1]} here. Wait until that launch has ended (--status shows its progress), "
                    "or mount the folder under the same path here"
                )
        adopt_moved(self.uri, self.experiment_id)
        log.warning("the store was moved or copied: artifacts that were in %s are used in %s", *moved)

    def newest_launch(self) -> Launch:
        """The grid's newest launch, read again."""
        return newest_launch(self.client.get_run(self.parent_id))

    @contextmanager
    def claim(self) -> Iterator[threading.Event]:
        """Make this process the only one that runs the grid, on any machine, for the duration of a block.

        A thread writes a heartbeat meanwhile. If no heartbeat reaches MLflow for too long, another launch may take the
        grid over; this process is then interrupted as by Ctrl-C. A launch on another machine that has not ended is
        watched before it is taken over, for `STALE_SECONDS`.

        Yields:
            An event that is set if another launch has taken the grid over.

        Raises:
            StoreError: another launch runs the grid.
        """
        number, lost, ended = _claim_launch(self), threading.Event(), threading.Event()

        def write(text: str) -> None:
            self.client.set_tag(self.parent_id, names.HEARTBEAT, f"{number} {text}")

        def beat() -> None:
            while not ended.wait(HEARTBEAT_SECONDS):
                try:
                    if self.newest_launch().number != number:
                        lost.set()
                        log.error("another launch has taken this grid over; stopping")
                        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                        return
                    write(f"{time.time():.3f}")
                except Exception:  # the server is away; trials wait for it too
                    log.debug("no heartbeat", exc_info=True)

        write(f"{time.time():.3f}")
        heart = threading.Thread(target=beat, name="heartbeat", daemon=True)
        heart.start()
        try:
            yield lost
        finally:
            ended.set()
            heart.join()
            if not lost.is_set():
                with suppress(MlflowException):  # others then see that the process or its heartbeat has ended
                    write(ENDED)

    def close_grid(self, *, complete: bool) -> None:
        """End the parent run, with each method's means in it; the next launch opens it again."""
        with only_warned("the means of the methods are not kept with the grid"), answering(self.uri):
            grid = self.client.get_run(self.parent_id)
            metrics, tags = summaries(self.records, grid)
            _tag(self.client, grid, tags, _points(metrics, step=0))
        self.client.set_terminated(self.parent_id, "FINISHED" if complete else "FAILED")


def _claim_launch(tracker: Tracker) -> int:
    """Enter this process as the grid's newest launch; returns its number."""
    client, pid, now = tracker.client, os.getpid(), time.time()
    me = {
        "user": _user() or "somebody",
        "host": socket.gethostname(),
        "pid": pid,
        "since": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now)),
        "time": now,  # for people, like `since`: no clock decides who has the grid
        "machine": machine(),
        "started": process_start(pid),
        "id": uuid.uuid4().hex,  # so that no two entries are equal
    }
    while True:
        launch = tracker.newest_launch()
        if not launch.is_gone:
            if _runs(tracker, launch, "this grid,"):
                raise StoreError(
                    f"this grid is being run by {launch.who}\nWait for it (--status shows its progress), stop it "
                    "there, or give this launch another --experiment-name"
                )
            if tracker.newest_launch() != launch:  # it has ended, or somebody else was quicker
                continue
        try:
            client.log_param(tracker.parent_id, f"{names.LAUNCH}{launch.number + 1}", json.dumps(me))
            return launch.number + 1
        except MlflowException:  # another launch has taken the number, and the next round finds it; or a real error
            if tracker.newest_launch().number == launch.number:
                raise


def _runs(tracker: Tracker, launch: Launch, what: str) -> bool:
    """Whether a grid's newest launch is alive; one on another machine is watched for up to `STALE_SECONDS`."""
    if launch.is_gone or launch.is_here:
        return not launch.is_gone
    waiting = "%s runs %s and has not ended: waiting for a sign of life, for up to %.0f s"
    log.warning(waiting, launch.who, what, STALE_SECONDS)
    step = min(1.0, HEARTBEAT_SECONDS)
    return still_alive(launch, tracker.newest_launch, patience=STALE_SECONDS, wait=time.sleep, step=step)


@dataclass(frozen=True)
class TrialRun(StoreAccess):
    """Writes one trial's run, from the process that computes the trial."""

    run_id: str

    def fitted(self) -> tuple[Path, float | None]:
        """The checkpoint folder and the threshold of a finished trial; None for a task without a threshold.

        Raises:
            LostCheckpointError: the checkpoint is gone.
        """
        run = self.client.get_run(self.run_id)
        records = Records(self.uri, run.info.experiment_id)
        try:
            folder = records.artifact(run, names.CHECKPOINT)
        except FileNotFoundError as error:
            others = False  # without the run's other files too, a disk may be missing, and come back
            with suppress(FileNotFoundError):
                others = records.artifact(run, names.SPEC).exists()
            raise self.lost_checkpoint(f"is gone: {error}", for_good=others) from error
        return folder, run.data.metrics.get(names.THRESHOLD)

    def lost_checkpoint(self, why: str, *, for_good: bool) -> LostCheckpointError:
        """The error to raise about this run's checkpoint, with the remedy."""
        return LostCheckpointError(
            f"the checkpoint of run {self.run_id} {why}. Delete the run ({store_variable(self.uri)} mlflow runs delete "
            f"--run-id {self.run_id}) and launch again, to run this trial again",
            for_good=for_good,
        )

    def log_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Log metrics at step `epoch`, unless an earlier attempt did; MLflow would keep both points."""
        client = self.client
        logged = client.get_run(self.run_id).data.metrics
        points = [point for name in metrics if name in logged for point in client.get_metric_history(self.run_id, name)]
        if not any(point.step >= epoch for point in points):
            client.log_batch(self.run_id, metrics=_points(metrics, step=epoch))

    def finish(
        self,
        scored: Scored,
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
        checkpoint: Path,
        warnings: str = "",
        *,
        validated: Validated | None = None,
        localised: Localised | None = None,
        previews: Previews | None = None,
    ) -> None:
        """Log all results of a trial, then end its run: a FINISHED run is always complete.

        Args:
            scored: scores of clean pictures.
            metrics: metrics besides those of `scored`.
            tags: facts about the computation.
            checkpoint: folder with the fitted detector.
            warnings: lines that were logged as warnings.
            validated: artifacts of the validation images; its metrics are among `metrics`. None: the task has none.
            localised: what the detector's own maps say of the masks; None: there are no maps or no masks.
            previews: pictures for the UI; None: the task has none.
        """
        if warnings:
            self.client.log_text(self.run_id, warnings, names.WARNINGS)
        for written in (validated, localised):
            if written is not None:
                self._log_written(written)
        metrics = {**metrics, **(localised.metrics if localised is not None else {})}
        self._log_scores(scored, with_embeddings=True)
        self.client.log_artifacts(self.run_id, str(checkpoint), names.CHECKPOINT)
        if scored.embedded is not None:
            tags = {**tags, names.EMBEDDED: str(len(scored.embedded))}
        self._log_final({**metrics, **scored.metrics}, {**tags, names.ERROR: ""})
        if previews is not None:
            with only_warned("the previews of a trial are not kept"):
                self._log_written(previews)
        self.client.set_terminated(self.run_id, "FINISHED")

    def add_scores(self, scored: Scored, facts: Mapping[str, str]) -> None:
        """Log a finished trial's scores under a further condition; the tag with the condition comes last.

        Args:
            scored: scores under the condition.
            facts: what computed them (device, node, versions, warnings): may differ from what trained the detector.
        """
        self.client.log_dict(self.run_id, dict(facts), names.condition_artifact(scored.condition, names.FACTS))
        self._log_scores(scored, with_embeddings=False)
        run = self.client.get_run(self.run_id)
        done = conditions_of(run) - {CLEAN} | {scored.condition}
        tags = {names.CONDITIONS: ",".join(sorted(done))}
        if run.data.tags.get(names.CONDITION_ERROR, "").startswith(f"{scored.condition}: "):
            tags[names.CONDITION_ERROR] = ""
        self._log_final(scored.metrics, tags)

    def add_validation(self, validated: Validated) -> None:
        """Log what a finished trial makes of the validation images of all generators; the tags come last.

        A metric that the run has already stays as it is.
        """
        self._log_written(validated)
        tags = {names.VALIDATED: "true", names.CALIBRATED: "true"}
        run = self.client.get_run(self.run_id)
        if run.data.tags.get(names.CONDITION_ERROR, "").startswith(f"{names.ON_VALIDATION}: "):
            tags[names.CONDITION_ERROR] = ""
        new = {name: value for name, value in validated.metrics.items() if name not in run.data.metrics}
        self._log_final(new, tags)

    def _log_written(self, result: Validated | Localised | Previews) -> None:
        with tempfile.TemporaryDirectory() as name:
            result.write(Path(name))
            self.client.log_artifacts(self.run_id, name)

    def never_validate(self, error: LostCheckpointError, traceback: str) -> None:
        """Record why a finished trial can never score the validation images: no later launch tries it again."""
        self.fail_condition(names.ON_VALIDATION, error, traceback)
        self.client.set_tag(self.run_id, names.VALIDATED, names.NEVER)

    def fail_condition(self, condition: str, error: BaseException, traceback: str) -> None:
        """Record why a finished trial could not be scored under a condition; the run stays finished.

        `names.ON_VALIDATION` stands for the validation images of all generators.
        """
        self.client.log_text(self.run_id, traceback, names.condition_artifact(condition, names.TRACEBACK))
        self.client.set_tag(self.run_id, names.CONDITION_ERROR, f"{condition}: {_one_line(error)}")

    def _log_scores(self, scored: Scored, *, with_embeddings: bool) -> None:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            path = folder / names.condition_artifact(scored.condition, names.SCORES)
            path.parent.mkdir(parents=True, exist_ok=True)
            scored.scores.to_parquet(path, index=False)
            if with_embeddings and (scored.embedded is None or len(scored.embedded)):
                np.save(folder / names.EMBEDDINGS, scored.embeddings)
                if scored.embedded is not None:
                    np.save(folder / names.EMBEDDED_ROWS, scored.embedded)
            self.client.log_artifacts(self.run_id, str(folder))

    def _log_final(self, metrics: Mapping[str, float], tags: Mapping[str, str]) -> None:
        run = self.client.get_run(self.run_id)
        # Only new values: an attempt that died here may have logged some, and a second point would be a duplicate.
        final = {metric: value for metric, value in metrics.items() if run.data.metrics.get(metric) != value}
        _tag(self.client, run, tags, _points(final, step=0))

    def fail(self, error: BaseException, traceback: str, warnings: str = "") -> None:
        """Record why the trial failed, and end its run."""
        if warnings:
            self.client.log_text(self.run_id, warnings, names.WARNINGS)
        self.client.log_text(self.run_id, traceback, names.TRACEBACK)
        self.client.set_tag(self.run_id, names.ERROR, _one_line(error))
        self.client.set_terminated(self.run_id, "FAILED")


def find_grid(uri: str, experiment: str, manifest: Manifest, artifacts: Path) -> Tracker:
    """Find or create the experiment and the grid's parent run, one per experiment and data set.

    A local store appears whole, so several launches may make it at once. Of one that was moved, `record_launch` enters
    the new paths: here, another launch may still use the old ones.

    Args:
        uri: tracking URI.
        experiment: name of the MLflow experiment.
        manifest: the data set.
        artifacts: folder for the artifacts of a local store; a server chooses its own.

    Raises:
        StoreError: the store cannot be reached or was moved without its artifacts, or the experiment is deleted.
    """
    file = sqlite_file(uri)
    if file is not None and not file.exists():
        make_file(file, lambda new: MlflowClient(tracking_uri=new).search_experiments())
    records = open_records(uri, experiment)
    client = MlflowClient(tracking_uri=uri)
    if records is None:
        location = None
        if file is not None:
            artifacts.mkdir(parents=True, exist_ok=True)  # so that a folder that is not there was moved
            location = artifacts.resolve().as_uri()
        with answering(uri), suppress(MlflowException):  # another launch created it meanwhile
            client.create_experiment(experiment, artifact_location=location)
        records = open_records(uri, experiment)
        if records is None:
            raise StoreError(f"the MLflow experiment {experiment!r} could not be created at {without_passwords(uri)}")
    if moved := find_moved(uri, records.experiment_id):  # refused here if it was moved without its artifacts
        moved[1].mkdir(exist_ok=True)
    origin, created = _origin(), ""
    if not records.grids(manifest.digest):
        tags = {
            names.ROLE: names.GRID_ROLE,
            names.DATA: manifest.digest,
            names.SOURCE: manifest.source,
            names.SKIPPED: str(len(manifest.skipped)),
            **origin,
        }
        name = f"{experiment} on {manifest.digest}"
        created = client.create_run(records.experiment_id, tags=tags, run_name=name).info.run_id
    # If two launches create a run at the same time, both use the older one; but clocks differ, so first the one in use.
    grid = min(
        records.grids(manifest.digest),
        key=lambda run: (newest_launch(run).number == 0, run.info.start_time, run.info.run_id),
    )
    parent_id = str(grid.info.run_id)
    if created not in ("", parent_id):
        client.delete_run(created)
    return Tracker(uri, records.experiment_id, parent_id, origin)


def keep_verdict(uri: str, experiment: str, data: str, verdict: Verdict) -> None:
    """Log what the audits say of a data set, for a grid of which nothing is to be run.

    Args:
        uri: tracking URI.
        experiment: name of the MLflow experiment.
        data: digest of the data set.
        verdict: what the audits say.

    Raises:
        StoreError: the store cannot be read or written.
    """
    records = open_records(uri, experiment)
    if records is None:
        return
    with answering(uri):
        for grid in records.grids(data):
            _log_verdict(records, grid, verdict)


def _log_verdict(records: Records, grid: Run, verdict: Verdict) -> None:
    """Log a verdict, if it is another one; what an earlier launch accepted stays accepted, as results rest on it."""
    text = records.text(grid, names.AUDIT)
    if text:
        before = json.loads(text)
        accepted = dict.fromkeys([*before["accepted"], *verdict.accepted])
        verdict = replace(verdict, accepted=tuple(accepted))
        if before == json.loads(json.dumps(verdict.to_dict())):
            return
    records.client.log_dict(grid.info.run_id, verdict.to_dict(), names.AUDIT)


def keep_references(
    uri: str, experiment: str, data: str, compute: Callable[[list[TrainSet]], References]
) -> References | None:
    """Log the references that need no pictures with the grid of a data set, for all training sets of its plan.

    Args:
        uri: tracking URI.
        experiment: name of the MLflow experiment.
        data: digest of the data set.
        compute: training sets of detection -> the references.

    Returns:
        what was logged; None if it is there already, or if there is no grid.

    Raises:
        StoreError: the store cannot be read or written.
    """
    records, kept = open_records(uri, experiment), None
    if records is None:
        return None
    with answering(uri):
        for grid in records.grids(data):
            computed = compute(list(detection_train_sets(records.plan(grid).values())))
            text = json.dumps(computed.to_dict(), indent=1)
            if records.text(grid, names.REFERENCES) == text:
                continue
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / computed.file
                file.write_bytes(computed.content)
                records.client.log_artifact(grid.info.run_id, str(file))
            records.client.log_text(grid.info.run_id, text, names.REFERENCES)
            kept = computed
    return kept


def keep_report(uri: str, parent_id: str, folder: Path) -> None:
    """Log a folder with a report as artifacts of the grid's parent run.

    Overwrites files of an earlier report. Its other files stay, because MLflow removes no artifacts. Of a local store
    that was moved, the report is put where its artifacts are now, and the recorded paths stay as they are.

    Raises:
        StoreError: MLflow did not accept the report, or the store was moved without its artifacts.
    """
    client = MlflowClient(tracking_uri=uri)
    with answering(uri):
        run = client.get_run(parent_id)
        local = artifact_folder(uri, run.info.artifact_uri)
        if local is None:
            client.log_artifacts(parent_id, str(folder), names.REPORT)
            return
        if not local.exists():
            find_moved(uri, run.info.experiment_id)  # refused, rather than the old folder made again
        shutil.copytree(folder, local / names.REPORT, dirs_exist_ok=True)


def _tag(client: MlflowClient, run: Run, tags: Mapping[str, str], points: Sequence[Metric] = ()) -> None:
    """Log metrics and tags in one request, then take away the tags whose new value is empty."""
    entries = [RunTag(key, value) for key, value in tags.items() if value]
    client.log_batch(run.info.run_id, metrics=points, tags=entries)
    for key in [key for key, value in tags.items() if not value and key in run.data.tags]:
        client.delete_tag(run.info.run_id, key)


def _points(metrics: Mapping[str, float], *, step: int) -> list[Metric]:
    now = int(time.time() * 1000)
    bad = [name for name, value in metrics.items() if not math.isfinite(value)]
    if bad:
        raise ValueError(f"these metrics are not finite: {', '.join(bad)}")
    return [Metric(name, float(value), now, step) for name, value in metrics.items()]


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {in_one_line(error)}"


def _origin() -> dict[str, str]:
    """Tags with the user, the commit (if it is known) and the MLflow version."""
    tags = {names.SOURCE_NAME: "launch.py", names.MLFLOW_VERSION: mlflow.__version__}
    if checkout := git_state():
        tags |= {names.GIT_COMMIT: checkout[0], names.GIT_CHANGED: str(checkout[1]).lower()}
    if user := _user():
        tags[names.USER] = user
    return tags


def _user() -> str:
    with suppress(OSError, KeyError):  # in a container, the user id may have no name
        return getpass.getuser()
    return ""
