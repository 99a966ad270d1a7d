"""The only writer of MLflow: one parent run per grid, one child run per trial; no global active run."""

from __future__ import annotations

import getpass
import json
import logging
import math
import signal
import socket
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grid.records import Records, StoreError, answering, conditions_of, open_records  # isort: skip  # sets what MLflow reads first

import mlflow
import numpy as np
import psutil
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from data.conditions import CLEAN
from grid import names
from grid.plan import RUNNING
from grid.spec import TrialSpec
from grid.uris import sqlite_file, without_password

if TYPE_CHECKING:
    from data.manifest import Manifest
    from grid.trial import Scored

ROOT = Path(__file__).resolve().parents[1]
HEARTBEAT_SECONDS = 10.0
STALE_SECONDS = 60.0  # after so long without a heartbeat a launch on another machine counts as dead

log = logging.getLogger(__name__)


class GridBusyError(StoreError):
    """Somebody else runs this grid; the message says who."""


@dataclass(frozen=True)
class Tracker:
    """A grid's place in MLflow.

    Attributes:
        uri: tracking URI.
        experiment_id: of the MLflow experiment.
        parent_id: of the grid's parent run.
        origin: tags that say who runs which code; found once, by the driver, because workers have no git history.
    """

    uri: str
    experiment_id: str
    parent_id: str
    origin: Mapping[str, str]

    @property
    def client(self) -> MlflowClient:
        """A client of this store."""
        return MlflowClient(tracking_uri=self.uri)

    @property
    def records(self) -> Records:
        """What this store holds."""
        return Records(self.uri, self.experiment_id)

    def open_trial(self, spec: TrialSpec, tags: Mapping[str, str]) -> TrialRun:
        """Find the trial's unfinished run, or create one: a retry and a later launch go on in the same run."""
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
            **({names.TRAIN_CONDITION: spec.train_condition} if spec.train_condition != CLEAN else {}),
            **self.origin,
            **tags,
        }
        if unfinished:
            run_id = unfinished[-1].info.run_id
            client.update_run(run_id, status="RUNNING")
            client.log_batch(run_id, tags=[RunTag(key, value) for key, value in all_tags.items()])
        else:
            run_id = client.create_run(self.experiment_id, tags=all_tags, run_name=spec.name).info.run_id
        if names.SPEC not in {artifact.path for artifact in client.list_artifacts(run_id)}:
            params = [Param(key, str(value)) for key, value in spec.params().items()]
            client.log_batch(run_id, params=params)
            inputs = client.get_run(self.parent_id).inputs
            if inputs:
                client.log_inputs(run_id, inputs.dataset_inputs)
            client.log_dict(run_id, spec.to_dict(), names.SPEC)  # the last of it: says that the rest is there
        return TrialRun(self.uri, run_id)

    def finished_trial(self, run_id: str) -> TrialRun:
        """The run of a trial that was finished before."""
        return TrialRun(self.uri, run_id)

    def close_interrupted(self, keys: Iterable[str], errors: Mapping[str, str] | None = None) -> None:
        """Mark the runs of trials that nobody is running any more; those that have an outcome stay as they are.

        Args:
            keys: of the trials.
            errors: key -> one line, of those that failed: where a worker died, its trial could not record it itself.
        """
        client, messages = self.client, errors or {}
        for key, state in self.records.states(keys).items():
            if state.state != RUNNING:
                continue
            if key in messages:
                client.set_tag(state.run_id, names.ERROR, messages[key][:5000])
            client.set_terminated(state.run_id, "FAILED" if key in messages else "KILLED")

    @contextmanager
    def claim(self) -> Iterator[Claim]:
        """Be the only one who runs this grid, on whatever machine, for the duration of a block.

        Raises:
            GridBusyError: somebody else is.
        """
        claim = Claim(self, _claim_launch(self))
        try:
            yield claim
        finally:
            claim.end()

    def close_grid(self, *, complete: bool) -> None:
        """End the parent run; the next launch opens it again."""
        self.client.set_terminated(self.parent_id, "FINISHED" if complete else "FAILED")


class Claim:
    """This process is the one that runs a grid, for as long as it gives signs of life.

    Attributes:
        lost: somebody else has taken the grid over, because no sign of life reached MLflow for too long; this process
            is then interrupted as by Ctrl-C.
    """

    def __init__(self, tracker: Tracker, number: int) -> None:
        self.lost = False
        self._tracker, self._number = tracker, number
        self._ended = threading.Event()
        self._say(f"{time.time():.0f}")
        self._heart = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._heart.start()

    def _say(self, what: str) -> None:
        self._tracker.client.set_tag(self._tracker.parent_id, names.HEARTBEAT, f"{self._number} {what}")

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT_SECONDS):
            try:
                newest, _ = _newest_launch(self._tracker.client.get_run(self._tracker.parent_id))
                if newest != self._number:
                    self.lost = True
                    log.error("another launch has taken this grid over; stopping")
                    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                    return
                self._say(f"{time.time():.0f}")
            except Exception:  # the server is away, and trials wait for it too
                log.debug("no heartbeat", exc_info=True)

    def end(self) -> None:
        """Let the next one run the grid."""
        self._ended.set()
        self._heart.join()
        if not self.lost:
            with suppress(MlflowException):  # then it is the end of this process, or of its heartbeat, that tells
                self._say("ended")


def _claim_launch(tracker: Tracker) -> int:
    """Enter this process as the grid's next launch: its number."""
    client = tracker.client
    process = psutil.Process()
    me = {
        "user": _user() or "somebody",
        "host": socket.gethostname(),
        "pid": process.pid,
        "since": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "machine": _machine(),
        "process_started": process.create_time(),
        "time": time.time(),
        "id": uuid.uuid4().hex,  # so that no two entries are equal
    }
    while True:
        run = client.get_run(tracker.parent_id)
        number, owner = _newest_launch(run)
        if owner:
            seen = _last_seen(run, number, owner)
            if seen is not None and _is_alive(owner, seen):
                raise GridBusyError(
                    f"this grid is being run by {owner['user']} on {owner['host']} (process {owner['pid']}) since "
                    f"{owner['since']}, last sign of life {max(0, time.time() - seen):.0f} s ago\nWait for it "
                    "(--status shows how far it is), stop it there, or give this one an --experiment-name of its own"
                )
        try:
            client.log_param(tracker.parent_id, f"{names.LAUNCH}{number + 1}", json.dumps(me))
        except MlflowException:  # refused, because somebody else was faster, who is then found; or a real error
            if _newest_launch(client.get_run(tracker.parent_id))[0] == number:
                raise
            continue
        return number + 1


def _newest_launch(run: Run) -> tuple[int, dict[str, Any]]:
    """Number and entry of the newest launch; (0, {}) before the first."""
    numbers = [int(name.removeprefix(names.LAUNCH)) for name in run.data.params if name.startswith(names.LAUNCH)]
    if not numbers:
        return 0, {}
    return max(numbers), json.loads(run.data.params[f"{names.LAUNCH}{max(numbers)}"])


def _last_seen(run: Run, number: int, owner: Mapping[str, Any]) -> float | None:
    """When the newest launch gave its last sign of life, in seconds since 1970; None: it has ended."""
    beating, _, what = run.data.tags.get(names.HEARTBEAT, "").partition(" ")
    if beating != str(number):
        return float(owner["time"])  # it has entered itself and not come further yet
    return None if what == "ended" else float(what)


def _is_alive(owner: Mapping[str, Any], seen: float) -> bool:
    if owner["machine"] != _machine():
        return time.time() - seen < STALE_SECONDS
    try:
        return bool(psutil.Process(owner["pid"]).create_time() == owner["process_started"])
    except psutil.NoSuchProcess:
        return False


def _machine() -> str:
    """Equal for two processes that can see each other by their process ids."""
    return f"{socket.gethostname()} {psutil.boot_time():.0f} {Path('/proc/self/ns/pid').readlink()}"


@dataclass(frozen=True)
class TrialRun:
    """One trial's run, written to from the process that computes it."""

    uri: str
    run_id: str

    @property
    def client(self) -> MlflowClient:
        """A client of this store."""
        return MlflowClient(tracking_uri=self.uri)

    def fitted(self) -> tuple[Path, float | None]:
        """Of a finished trial: the folder with its checkpoint, and its threshold; None for a task without one.

        Raises:
            StoreError: the checkpoint is gone.
        """
        run = self.client.get_run(self.run_id)
        try:
            folder = Records(self.uri, run.info.experiment_id).artifact(run, names.CHECKPOINT)
        except FileNotFoundError as error:
            raise StoreError(
                f"the checkpoint of run {self.run_id} ({run.info.run_name}) is gone: {error}. Delete the run "
                f"(mlflow runs delete --run-id {self.run_id}) and launch again, which runs this trial anew"
            ) from error
        return folder, run.data.metrics.get(names.THRESHOLD)

    def log_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Log metrics at step `epoch`, unless an earlier attempt has: a repeated step would be a second point."""
        client = self.client
        logged = client.get_run(self.run_id).data.metrics
        for name in metrics:
            if name in logged and any(point.step >= epoch for point in client.get_metric_history(self.run_id, name)):
                return
        client.log_batch(self.run_id, metrics=_points(metrics, step=epoch))

    def finish(
        self,
        scored: Scored,
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
        checkpoint: Path,
        warnings: Sequence[str] = (),
    ) -> None:
        """Log everything that a trial leaves behind, artifacts first: a run is FINISHED only when it is whole.

        Args:
            scored: on clean pictures.
            metrics: besides those of `scored`.
            tags: facts about how it was computed.
            checkpoint: folder with the fitted detector.
            warnings: what was logged as a warning.
        """
        self._log_warnings(warnings)
        self._log_scores(scored, with_embeddings=True)
        self.client.log_artifacts(self.run_id, str(checkpoint), names.CHECKPOINT)
        self._log_final({**metrics, **scored.metrics}, {**tags, names.ERROR: ""})
        self.client.set_terminated(self.run_id, "FINISHED")

    def add_scores(self, scored: Scored) -> None:
        """Log what a finished trial's detector makes of a further condition; the tag that says so comes last."""
        self._log_scores(scored, with_embeddings=False)
        done = conditions_of(self.client.get_run(self.run_id)) - {CLEAN} | {scored.condition}
        self._log_final(scored.metrics, {names.CONDITIONS: ",".join(sorted(done)), names.CONDITION_ERROR: ""})

    def fail_condition(self, condition: str, error: BaseException, traceback: str) -> None:
        """Record why a finished trial could not be scored under a condition; the run stays as it is."""
        self.client.log_text(self.run_id, traceback, names.condition_artifact(condition, names.TRACEBACK))
        self.client.set_tag(self.run_id, names.CONDITION_ERROR, f"{condition}: {_one_line(error)}")

    def _log_scores(self, scored: Scored, *, with_embeddings: bool) -> None:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            path = folder / names.condition_artifact(scored.condition, names.SCORES)
            path.parent.mkdir(parents=True, exist_ok=True)
            scored.scores.to_parquet(path, index=False)
            if with_embeddings:
                np.save(folder / names.EMBEDDINGS, scored.embeddings)
            self.client.log_artifacts(self.run_id, str(folder))

    def _log_final(self, metrics: Mapping[str, float], tags: Mapping[str, str]) -> None:
        logged = self.client.get_run(self.run_id).data.metrics
        # An attempt that died here has logged its own values, and the scores beside them are now this one's.
        final = {metric: value for metric, value in metrics.items() if logged.get(metric) != value}
        entries = [RunTag(key, value) for key, value in tags.items()]
        self.client.log_batch(self.run_id, metrics=_points(final, step=0), tags=entries)

    def fail(self, error: BaseException, traceback: str, warnings: Sequence[str] = ()) -> None:
        """Record why the trial failed, then end its run."""
        self._log_warnings(warnings)
        client = self.client
        client.log_text(self.run_id, traceback, names.TRACEBACK)
        client.set_tag(self.run_id, names.ERROR, _one_line(error))
        client.set_terminated(self.run_id, "FAILED")

    def _log_warnings(self, lines: Sequence[str]) -> None:
        if lines:  # a worker's terminal is nobody's
            self.client.log_text(self.run_id, "\n".join(lines) + "\n", names.WARNINGS)


def open_grid(
    uri: str,
    experiment: str,
    manifest: Manifest,
    trials: Iterable[TrialSpec],
    artifacts: Path,
    *,
    conditions: Iterable[str] = (),
    launched: Mapping[str, str] | None = None,
) -> Tracker:
    """Find or create the experiment and the grid's parent run: one per experiment and data set.

    Call it from one process before any trial starts: several processes that create a fresh SQLite store at once fail.

    Args:
        uri: tracking URI.
        experiment: name of the MLflow experiment.
        manifest: the data set, logged as an MLflow input.
        trials: the whole grid, logged so that progress can be told from MLflow alone.
        artifacts: where a local store keeps artifacts; a server decides for itself.
        conditions: that trials are to be scored under; those that were asked for before stay.
        launched: further tags of the parent run, which say what made the grid: `names.EXPERIMENT`, `names.OPTIONS`.

    Raises:
        StoreError: the store cannot be reached, or the experiment was deleted.
    """
    client = MlflowClient(tracking_uri=uri)
    records = open_records(uri, experiment)
    if records is None:
        location = artifacts.resolve().as_uri() if sqlite_file(uri) is not None else None
        with answering(uri), suppress(MlflowException):  # somebody else was faster
            client.create_experiment(experiment, artifact_location=location)
        records = open_records(uri, experiment)
        if records is None:
            raise StoreError(f"the MLflow experiment {experiment!r} could not be made at {without_password(uri)}")
    origin = _origin()
    parent_id = _oldest_grid(records, manifest.digest)
    if parent_id:
        client.update_run(parent_id, status="RUNNING")
    else:
        tags = {
            names.ROLE: names.GRID_ROLE,
            names.DATA: manifest.digest,
            names.SOURCE: manifest.source,
            names.SKIPPED: str(len(manifest.skipped)),
            **origin,
        }
        name = f"{experiment} on {manifest.digest}"
        created = client.create_run(records.experiment_id, tags=tags, run_name=name).info.run_id
        # Of two that create it at once both go on with the older one.
        parent_id = _oldest_grid(records, manifest.digest) or created
        if parent_id != created:
            client.delete_run(created)
        client.log_text(parent_id, manifest.summary(), names.MANIFEST_SUMMARY)
        source = json.dumps({"uri": manifest.root.as_uri()})
        profile = json.dumps({"num_rows": len(manifest.table), "generators": list(manifest.generators)})
        dataset = Dataset(manifest.source, manifest.digest, "local", source, profile=profile)
        client.log_inputs(parent_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "train, valid, test")])])
    grid = records.run(parent_id)
    for tag, value in (launched or {}).items():
        client.set_tag(parent_id, tag, value)
    asked = sorted(conditions_of(grid) - {CLEAN} | set(conditions) - {CLEAN})
    client.set_tag(parent_id, names.CONDITIONS, ",".join(asked))
    client.log_text(parent_id, "".join(f"{note}\n" for note in manifest.remarks), names.NOTES)
    try:
        planned = records.plan(grid)
    except StoreError as error:
        log.warning("%s", error)
        planned = {}
    planned |= {trial.key: trial.to_dict() | {"key": trial.key} for trial in trials}
    client.log_dict(parent_id, {"trials": list(planned.values())}, names.PLAN)
    return Tracker(uri, records.experiment_id, parent_id, origin)


def _oldest_grid(records: Records, digest: str) -> str | None:
    """Id of the parent run of the grid on that data set."""
    grids = sorted(records.grids(digest), key=lambda run: (run.info.start_time, run.info.run_id))
    return str(grids[0].info.run_id) if grids else None


def keep_report(uri: str, parent_id: str, folder: Path) -> None:
    """Log a report on a grid as artifacts of the grid's parent run, over an earlier one.

    MLflow removes no artifacts: files of an earlier report that this one does not have stay.

    Args:
        uri: tracking URI.
        parent_id: the parent run.
        folder: everything in it is logged.

    Raises:
        StoreError: MLflow did not take it.
    """
    with answering(uri):
        MlflowClient(tracking_uri=uri).log_artifacts(parent_id, str(folder), names.REPORT)


def _points(metrics: Mapping[str, float], *, step: int) -> list[Metric]:
    now = int(time.time() * 1000)
    bad = [name for name, value in metrics.items() if not math.isfinite(value)]
    if bad:
        raise ValueError(f"these metrics are not finite: {', '.join(bad)}")
    return [Metric(name, float(value), now, step) for name, value in metrics.items()]


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:5000]


def _origin() -> dict[str, str]:
    """Who runs which code, as far as it can be told: a checkout without git has no commit."""
    tags = {names.SOURCE_NAME: "launch.py", names.MLFLOW_VERSION: mlflow.__version__}
    checkout = git_state()
    if checkout is not None:
        commit, changed = checkout
        tags |= {names.GIT_COMMIT: commit, names.GIT_CHANGED: str(changed).lower()}
    user = _user()
    return tags | {names.USER: user} if user else tags


def git_state() -> tuple[str, bool] | None:
    """This checkout's commit, and whether its files differ from it; None where it is no git checkout."""
    git = ["git", "-C", str(ROOT)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit, bool(changed.strip())


def _user() -> str:
    with suppress(OSError, KeyError):  # a container may run under a user id without a name
        return getpass.getuser()
    return ""
