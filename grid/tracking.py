"""The only writer of MLflow: one parent run a grid, one child run a trial; no global active run."""

from __future__ import annotations

import getpass
import json
import logging
import math
import os
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Read by MLflow when it is imported: no telemetry, no bars, no line for each migration.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
# A server that is away is waited for, 2 + 4 + … + 128 seconds: what a trial logs meanwhile is late, not lost.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "7")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "2")

import mlflow
import numpy as np
import psutil
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import SQLAlchemyError

from grid import names
from grid.plan import FAILED, FINISHED, INTERRUPTED, RUNNING, TrialState
from grid.spec import TrialSpec

if TYPE_CHECKING:
    from data.manifest import Manifest
    from grid.trial import TrialResult

ROOT = Path(__file__).resolve().parents[1]
_STATES = {"FINISHED": FINISHED, "FAILED": FAILED, "KILLED": INTERRUPTED, "RUNNING": RUNNING, "SCHEDULED": RUNNING}
_PREFERENCE = (FINISHED, RUNNING, INTERRUPTED, FAILED)  # which run speaks for a trial that has several
HEARTBEAT_SECONDS = 10.0
STALE_SECONDS = 60.0  # after so long without a heartbeat a launch on another machine counts as dead

log = logging.getLogger(__name__)


class TrackingError(RuntimeError):
    """MLflow cannot be reached or refuses; the message says what to do."""


class GridBusyError(TrackingError):
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

    def open_trial(self, spec: TrialSpec, tags: Mapping[str, str]) -> TrialRun:
        """Find the trial's unfinished run, or create one: a retry and a later launch go on in the same run."""
        client = self.client
        runs = _search(client, self.experiment_id, f"tags.`{names.KEY}` = '{spec.key}'")
        runs = [run for run in runs if run.info.status != "FINISHED"]
        all_tags = {
            names.ROLE: names.TRIAL_ROLE,
            names.PARENT_RUN: self.parent_id,
            names.KEY: spec.key,
            names.TASK: spec.task,
            names.METHOD: spec.method,
            names.TRAIN_GENERATORS: names.LIST_SEPARATOR.join(spec.train_generators),
            names.SEED: str(spec.seed),
            names.DATA: spec.data,
            **self.origin,
            **tags,
        }
        if runs:
            run_id = runs[0].info.run_id
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

    def close_interrupted(self, keys: Iterable[str], errors: Mapping[str, str] | None = None) -> None:
        """Mark the runs of trials that nobody is running any more; those that have an outcome stay as they are.

        Args:
            keys: of the trials.
            errors: key -> one line, of those that failed: where a worker died, its trial could not record it itself.
        """
        client, known = self.client, errors or {}
        for key, state in trial_states(self.uri, self.experiment_id, keys).items():
            if state.state != RUNNING:
                continue
            if key in known:
                client.set_tag(state.run_id, names.ERROR, known[key][:5000])
            client.set_terminated(state.run_id, "FAILED" if key in known else "KILLED")

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

    def log_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Log metrics at step `epoch`, unless an earlier attempt has: a repeated step would be a second point."""
        client = self.client
        known = client.get_run(self.run_id).data.metrics
        for name in metrics:
            if name in known and any(point.step >= epoch for point in client.get_metric_history(self.run_id, name)):
                return
        client.log_batch(self.run_id, metrics=_points(metrics, step=epoch))

    def finish(self, result: TrialResult, checkpoint: Path, warnings: Sequence[str] = ()) -> None:
        """Log everything that the trial leaves behind, artifacts first: a run is FINISHED only when it is whole."""
        self._log_warnings(warnings)
        client = self.client
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            result.scores.to_parquet(folder / names.SCORES, index=False)
            np.save(folder / names.EMBEDDINGS, result.embeddings)
            client.log_artifacts(self.run_id, str(folder))
        client.log_artifacts(self.run_id, str(checkpoint), names.CHECKPOINT)
        known = client.get_run(self.run_id).data.metrics
        # An attempt that died here has logged its own figures, and the scores beside them are now this one's.
        final = {metric: value for metric, value in result.metrics.items() if known.get(metric) != value}
        tags = [RunTag(key, value) for key, value in result.tags.items()] + [RunTag(names.ERROR, "")]
        client.log_batch(self.run_id, metrics=_points(final, step=0), tags=tags)
        client.set_terminated(self.run_id, "FINISHED")

    def fail(self, error: BaseException, traceback: str, warnings: Sequence[str] = ()) -> None:
        """Record why the trial failed, then end its run."""
        self._log_warnings(warnings)
        client = self.client
        client.log_text(self.run_id, traceback, names.TRACEBACK)
        client.set_tag(self.run_id, names.ERROR, f"{type(error).__name__}: {error}"[:5000])
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
    data_options: str = "",
) -> Tracker:
    """Find or create the experiment and the grid's parent run: one for each experiment and data set.

    Call it from one process before any trial starts: several processes that create a fresh SQLite store at once fail.

    Args:
        uri: tracking URI.
        experiment: name of the MLflow experiment.
        manifest: the data set, logged as an MLflow input.
        trials: the whole grid, logged so that progress can be told from MLflow alone.
        artifacts: where a local store keeps artifacts; a server decides for itself.
        data_options: of the command line, that made the data set what it is.

    Raises:
        TrackingError: the store cannot be reached, or the experiment was deleted.
    """
    client = MlflowClient(tracking_uri=uri)
    experiment_id = find_experiment(uri, experiment)
    if experiment_id is None:
        location = artifacts.resolve().as_uri() if uri.startswith(names.SQLITE) else None
        try:
            experiment_id = client.create_experiment(experiment, artifact_location=location)
        except MlflowException:  # somebody else was faster
            experiment_id = find_experiment(uri, experiment)
            if experiment_id is None:
                raise
    origin = _origin()
    parent_id = _oldest_grid(client, experiment_id, manifest.digest)
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
        created = client.create_run(experiment_id, tags=tags, run_name=name).info.run_id
        # Of two that create it at once both go on with the older one.
        parent_id = _oldest_grid(client, experiment_id, manifest.digest) or created
        if parent_id != created:
            client.delete_run(created)
        client.log_text(parent_id, manifest.summary(), names.MANIFEST_SUMMARY)
        source = json.dumps({"uri": manifest.root.as_uri()})
        profile = json.dumps({"num_rows": len(manifest.table), "generators": list(manifest.generators)})
        dataset = Dataset(manifest.source, manifest.digest, "local", source, profile=profile)
        client.log_inputs(parent_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "train, valid, test")])])
    client.set_tag(parent_id, names.DATA_OPTIONS, data_options)
    client.log_text(parent_id, "".join(f"{note}\n" for note in manifest.notes), names.NOTES)
    planned = {trial["key"]: trial for trial in _planned(client, parent_id)}
    planned |= {trial.key: trial.to_dict() | {"key": trial.key} for trial in trials}
    client.log_dict(parent_id, {"trials": list(planned.values())}, names.PLAN)
    return Tracker(uri, experiment_id, parent_id, origin)


def _oldest_grid(client: MlflowClient, experiment_id: str, digest: str) -> str | None:
    """Id of the parent run of the grid on that data set."""
    found = _search(client, experiment_id, f"tags.`{names.ROLE}` = 'grid' and tags.`{names.DATA}` = '{digest}'")
    found.sort(key=lambda run: (run.info.start_time, run.info.run_id))
    return str(found[0].info.run_id) if found else None


def find_experiment(uri: str, experiment: str) -> str | None:
    """Id of the experiment, or None. Raises `TrackingError` when the store cannot be read or it is deleted."""
    if uri.startswith(names.SQLITE) and not Path(uri.removeprefix(names.SQLITE)).exists():
        return None  # MLflow would create the file, and asking should change nothing
    try:
        if uri.startswith("http"):
            knock(uri)
        found = MlflowClient(tracking_uri=uri).get_experiment_by_name(experiment)
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise TrackingError(
            f"cannot reach MLflow at {names.without_password(uri)}: {error}\n"
            "Is the server running, and MLFLOW_TRACKING_URI right?"
        ) from error
    if found is None:
        return None
    if found.lifecycle_stage != "active":
        raise TrackingError(
            f"the MLflow experiment {experiment!r} is deleted; restore it (`mlflow experiments restore -x "
            f"{found.experiment_id}`) or choose another name with --experiment"
        )
    return str(found.experiment_id)


def knock(uri: str) -> None:
    """Raise `OSError` where nobody answers: MLflow's own patience with a server that is not there is minutes."""
    try:
        urllib.request.urlopen(names.without_password(uri), timeout=10).close()  # noqa: S310
    except urllib.error.HTTPError:  # an answer, if only "who are you?"
        pass
    except urllib.error.URLError as error:
        if not isinstance(error.reason, ssl.SSLError):  # whether a certificate will do, MLflow's own settings say
            raise


def trial_states(uri: str, experiment_id: str, keys: Iterable[str]) -> dict[str, TrialState]:
    """What MLflow knows of the given trials; those without a run are absent."""
    wanted = set(keys)
    states: dict[str, TrialState] = {}
    for run in _search(MlflowClient(tracking_uri=uri), experiment_id, f"tags.`{names.ROLE}` = 'trial'"):
        key = run.data.tags.get(names.KEY)
        if key in wanted:
            state = TrialState(run.info.run_id, _STATES[run.info.status])
            if key not in states or _PREFERENCE.index(state.state) < _PREFERENCE.index(states[key].state):
                states[key] = state
    return states


def planned_grids(uri: str, experiment_id: str) -> list[tuple[Run, list[TrialSpec]]]:
    """The grids of an experiment, newest first: each parent run with every trial that was ever planned in it."""
    client = MlflowClient(tracking_uri=uri)
    grids = _search(client, experiment_id, f"tags.`{names.ROLE}` = 'grid'")
    return [(run, [_as_spec(trial) for trial in _planned(client, run.info.run_id)]) for run in grids]


def keep_report(uri: str, parent_id: str, folder: Path) -> None:
    """Log a report on a grid as artifacts of the grid's parent run, over an earlier one.

    MLflow removes no artifacts: files of an earlier report that this one does not have stay.

    Args:
        uri: tracking URI.
        parent_id: the parent run.
        folder: everything in it is logged.

    Raises:
        TrackingError: MLflow did not take it.
    """
    try:
        MlflowClient(tracking_uri=uri).log_artifacts(parent_id, str(folder), names.REPORT)
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise TrackingError(f"the report {folder} could not be logged to {uri}: {error}") from error


def errors(uri: str, states: Mapping[str, TrialState]) -> dict[str, str]:
    """Key -> message of those trials that failed."""
    client = MlflowClient(tracking_uri=uri)
    failed = {key: state for key, state in states.items() if state.state == FAILED}
    return {key: client.get_run(state.run_id).data.tags.get(names.ERROR, "?") for key, state in failed.items()}


def latest_metrics(uri: str, run_id: str) -> dict[str, float]:
    """The last value of every metric of a run."""
    return dict(MlflowClient(tracking_uri=uri).get_run(run_id).data.metrics)


def _as_spec(fields: dict[str, Any]) -> TrialSpec:
    return TrialSpec.from_dict({name: value for name, value in fields.items() if name != "key"})


def _planned(client: MlflowClient, parent_id: str) -> list[dict[str, Any]]:
    present = {artifact.path for artifact in client.list_artifacts(parent_id)}
    if names.PLAN not in present:
        return []
    with tempfile.TemporaryDirectory() as folder:
        text = Path(client.download_artifacts(parent_id, names.PLAN, folder)).read_text()
    trials: list[dict[str, Any]] = json.loads(text)["trials"]
    return trials


def _search(client: MlflowClient, experiment_id: str, query: str) -> list[Run]:
    runs: list[Run] = []
    token = None
    while True:
        page = client.search_runs([experiment_id], query, max_results=1000, page_token=token)
        runs.extend(page)
        token = page.token
        if not token:
            return runs


def _points(metrics: Mapping[str, float], *, step: int) -> list[Metric]:
    now = int(time.time() * 1000)
    bad = [name for name, value in metrics.items() if not math.isfinite(value)]
    if bad:
        raise ValueError(f"these metrics are not finite: {', '.join(bad)}")
    return [Metric(name, float(value), now, step) for name, value in metrics.items()]


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
