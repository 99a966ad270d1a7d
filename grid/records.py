"""The only reader of MLflow: experiments, grids, trials, their states and their artifacts."""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import sqlite3
import ssl
import tempfile
import urllib.error
import urllib.request
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

# MLflow reads these when it is imported: no telemetry, no progress bars, no line per migration.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
# Wait 2 + 4 + … + 128 seconds for a server that goes away: what a trial logs meanwhile is late, not lost.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "7")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "2")

from mlflow.entities import Metric, Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy import Engine, event, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from data.addresses import without_passwords
from data.conditions import CLEAN
from grid import names
from grid.equal_size import EqualSize
from grid.faults import in_one_line, locked_store
from grid.local_runs import read_histories, read_runs
from grid.local_store import LOCK_SECONDS, StoreError, artifact_folder, check_file
from grid.plan import FAILED, FINISHED, INTERRUPTED, RUNNING, TrialState
from grid.train_sets import TrainSet
from grid.uris import local_path, sqlite_file, store_variable

__all__ = [
    "Records", "StoreAccess", "StoreError", "answering", "check_store", "conditions_of", "damaged_plan", "knock",
    "list_experiments", "open_records", "speaking_runs", "state_of", "trial_state",
]  # fmt: skip

_STATES = {"FINISHED": FINISHED, "FAILED": FAILED, "KILLED": INTERRUPTED, "RUNNING": RUNNING, "SCHEDULED": RUNNING}
_PREFERENCE = (FINISHED, RUNNING, INTERRUPTED, FAILED)
_KNOCK_SECONDS = 5.0
_DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}  # where an address says none
_CHOICE = "MLFLOW_TRACKING_URI (or --runs of launch.py, --tracking-uri of python -m analysis)"

# MLflow logs the traceback of each error of its database, and then raises the error, which is told in our own words.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)


@event.listens_for(Engine, "connect")
def _wait_for_locks(connection: Any, _: Any) -> None:
    if isinstance(connection, sqlite3.Connection):
        connection.execute(f"PRAGMA busy_timeout = {LOCK_SECONDS * 1000:.0f}")


@event.listens_for(Engine, "before_cursor_execute", retval=True)
def _wait_longer_for_locks(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> tuple[str, Any]:
    """MLflow gives up on a locked SQLite file after 20 seconds; it sets that at the start of each session."""
    if statement.startswith("PRAGMA busy_timeout"):
        statement = f"PRAGMA busy_timeout = {LOCK_SECONDS * 1000:.0f}"
    return statement, parameters


@dataclass(frozen=True)
class StoreAccess:
    """Access to an MLflow store, by its tracking URI."""

    uri: str

    @property
    def client(self) -> MlflowClient:
        """A new client of the store."""
        return MlflowClient(tracking_uri=self.uri)


@dataclass(frozen=True)
class Records(StoreAccess):
    """One MLflow experiment, to read.

    Attributes:
        experiment_id: id of the experiment.
        experiment: name of the experiment; "" in a trial, which needs no name.
        patient: whether to wait minutes for a server that is away, as a trial does; else give up within seconds.
    """

    experiment_id: str
    experiment: str = ""
    patient: bool = True

    def grids(self, data: str | None = None) -> list[Run]:
        """The parent runs, the oldest first.

        Args:
            data: digest of a data set, for the grids on it alone; None: all grids.
        """
        return self._search(
            f"tags.`{names.ROLE}` = '{names.GRID_ROLE}'" + (f" and tags.`{names.DATA}` = '{data}'" if data else "")
        )

    def trials(self, *, params: bool = True, metrics: Sequence[str] = ("*",)) -> list[Run]:
        """The runs of all trials, the oldest first, without their inputs.

        Args:
            params: False leaves out the parameters where that is quicker, as in a local store.
            metrics: patterns (`*`, `?`) of names of metrics; others are left out where that is quicker.
        """
        file = sqlite_file(self.uri)
        if file is None:
            return self._search(f"tags.`{names.ROLE}` = '{names.TRIAL_ROLE}'")
        with self._asking():
            return read_runs(file, self.experiment_id, names.ROLE, names.TRIAL_ROLE, params=params, metrics=metrics)

    def runs_of(self, key: str) -> list[Run]:
        """The runs of one trial, the oldest first."""
        return self._search(f"tags.`{names.KEY}` = '{key}'")

    def state(self, key: str) -> TrialState | None:
        """The state of one trial; None if it has no run."""
        run = speaking_runs(self.runs_of(key)).get(key)
        return None if run is None else trial_state(run)

    def speaking(self) -> dict[str, Run]:
        """Key -> the run that counts for a trial (see `speaking_runs`), without metrics."""
        return speaking_runs(self.trials(params=False, metrics=()))

    def states(self, keys: Iterable[str]) -> dict[str, TrialState]:
        """Key -> state of these trials, without those that have no run."""
        chosen = set(keys)
        return {key: trial_state(run) for key, run in self.speaking().items() if key in chosen}

    def plan(self, grid: Run) -> dict[str, dict[str, Any]]:
        """Key -> fields of the spec, for every trial that was ever planned in a grid; see `TrialSpec.from_dict`.

        Raises:
            StoreError: the plan exists and cannot be read.
        """
        try:
            text = self.text(grid, names.PLAN)
            return {} if text is None else dict(map(_planned, json.loads(text)["trials"]))
        except StoreError:
            raise
        except (ValueError, KeyError, TypeError, OSError, RecursionError) as error:
            raise damaged_plan(grid, error) from error

    def history(self, run_id: str, metric: str) -> list[Metric]:
        """Every logged point of a metric."""
        with self._asking():
            return list(self.client.get_metric_history(run_id, metric))

    def histories(self, metrics: Mapping[str, Collection[str]]) -> Iterator[tuple[str, str, int, float]]:
        """Every logged point of metrics of many runs: run id, metric, step and value, in the order of `history`.

        Of a local store with one query; of a server with one request per run and metric.

        Args:
            metrics: run id -> names of its metrics.
        """
        file = sqlite_file(self.uri)
        if file is None:
            for run_id, chosen in metrics.items():
                for metric in chosen:
                    yield from ((run_id, metric, point.step, point.value) for point in self.history(run_id, metric))
            return
        with self._asking():
            found = read_histories(file, metrics)
        for run_id, chosen in metrics.items():
            for metric in chosen:
                yield from ((run_id, metric, *point) for point in found.get((run_id, metric), ()))

    def text(self, run: Run, name: str) -> str | None:
        """The newest content of a text artifact at the top of a run; None if there is none.

        Raises:
            ValueError: it is not UTF-8.
            OSError: the file cannot be read.
            StoreError: MLflow does not answer.
        """
        folder = artifact_folder(self.uri, run.info.artifact_uri)
        if folder is not None:
            return (folder / name).read_text(encoding="utf-8") if (folder / name).is_file() else None
        with self._asking(), tempfile.TemporaryDirectory() as target:
            if not self._has(run, name):
                return None
            return Path(self.client.download_artifacts(run.info.run_id, name, target)).read_text(encoding="utf-8")

    def artifact(self, run: Run, name: str) -> Path:
        """The path of an artifact that never changes: in a local store, or downloaded once from a remote store.

        Downloads are kept in `inpaint-grid/artifacts` in XDG_CACHE_HOME or ~/.cache.

        Raises:
            FileNotFoundError: the run has no artifact of that name.
            StoreError: MLflow does not answer.
        """
        folder = artifact_folder(self.uri, run.info.artifact_uri)
        if folder is not None:
            if not (folder / name).exists():
                raise FileNotFoundError(f"nothing is at {folder / name}")
            return folder / name
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        target = cache / "inpaint-grid" / "artifacts" / run.info.run_id / name
        if not target.exists():
            with self._asking():
                exists = self._has(run, name)
            if not exists:
                raise FileNotFoundError(f"the run has no artifact {name}")
            target.parent.mkdir(parents=True, exist_ok=True)
            with self._asking(), tempfile.TemporaryDirectory(dir=target.parent) as temporary:
                fetched = self.client.download_artifacts(run.info.run_id, name, temporary)
                if not target.exists():
                    shutil.move(fetched, target)
        return target

    def fetch_artifacts(
        self, run: Run, folder: Path, *, only: Collection[str] | None = None, leave_out: Collection[str] = ()
    ) -> None:
        """Copy the newest content of a run's artifacts into a folder.

        Args:
            run: the run.
            folder: an existing folder.
            only: names of files and folders at the top of the run, for these alone; None: all.
            leave_out: names of files and folders at the top of the run that are not copied.

        Raises:
            StoreError: MLflow does not answer, or an artifact cannot be read.
        """

        def wanted(name: str) -> bool:
            return name not in leave_out and (only is None or name in only)

        local = artifact_folder(self.uri, run.info.artifact_uri)
        if local is not None:
            for path in sorted(local.iterdir()) if local.is_dir() else ():
                if wanted(path.name):
                    (shutil.copytree if path.is_dir() else shutil.copyfile)(path, folder / path.name)
            return
        with self._asking():
            for artifact in self.client.list_artifacts(run.info.run_id):
                if wanted(artifact.path):
                    self.client.download_artifacts(run.info.run_id, artifact.path, str(folder))

    @contextmanager
    def _asking(self) -> Iterator[None]:
        if not self.patient:
            knock(self.uri)
        with answering(self.uri):
            yield

    def _has(self, run: Run, name: str) -> bool:
        folder = name.rpartition("/")[0]
        return name in {artifact.path for artifact in self.client.list_artifacts(run.info.run_id, folder or None)}

    def _search(self, query: str) -> list[Run]:
        runs: list[Run] = []
        token = None
        with self._asking():
            while True:
                page = self.client.search_runs(
                    [self.experiment_id], query, max_results=1000, order_by=["attributes.start_time ASC"],
                    page_token=token,
                )  # fmt: skip
                runs.extend(page)
                token = page.token
                if not token:
                    return runs


def open_records(uri: str, experiment: str, *, patient: bool = True) -> Records | None:
    """Open an experiment by its name; None if there is no such experiment or no store. Creates nothing.

    Raises:
        StoreError: the store cannot be read, or the experiment is deleted.
    """
    file = sqlite_file(uri)
    if file is not None:
        if not file.exists():
            return None  # MLflow would create the file
        check_file(file)
    knock(uri)
    with answering(uri):
        record = MlflowClient(tracking_uri=uri).get_experiment_by_name(experiment)
    if record is None:
        return None
    if record.lifecycle_stage != "active":
        raise StoreError(
            f"the MLflow experiment {experiment!r} is deleted; restore it: {store_variable(uri)} mlflow experiments "
            f"restore -x {record.experiment_id}; or give a launch another name with --experiment-name"
        )
    return Records(uri, str(record.experiment_id), experiment, patient)


def list_experiments(uri: str) -> dict[str, str]:
    """Name -> id of every experiment of a store."""
    with answering(uri):
        experiments = MlflowClient(tracking_uri=uri).search_experiments()
    return {experiment.name: str(experiment.experiment_id) for experiment in experiments}


def check_store(uri: str) -> None:
    """Raise `StoreError` if the store does not exist or does not answer. Creates nothing."""
    file = sqlite_file(uri)
    path = local_path(uri) if file is None else file
    if path is not None and not path.exists():
        raise StoreError(f"no MLflow store at {path}; `python launch.py` writes one; name another with {_CHOICE}")
    if file is None:
        knock(uri)
    else:
        check_file(file)


def knock(uri: str) -> None:
    """Raise `StoreError` for a bad address, or a server that gives no answer in seconds; MLflow tries for minutes."""
    try:
        if uri.startswith("http"):
            _knock_at_server(uri)
        elif database := _database(uri):
            socket.create_connection(database, timeout=_KNOCK_SECONDS).close()
    except OSError as error:
        if isinstance(getattr(error, "reason", None), ssl.SSLError):  # MLflow itself judges certificates
            return
        raise _unreachable(uri, error) from error


def _knock_at_server(uri: str) -> None:
    try:
        _ = urlsplit(uri).port
    except ValueError:
        raise StoreError(
            f"{without_passwords(uri)} is no address of a server: its port is no number, or its user name or password "
            "has characters that must be encoded, such as %2F for a slash"
        ) from None  # its text has a part of the password
    with suppress(urllib.error.HTTPError):  # an answer, such as "401 Unauthorized"
        urllib.request.urlopen(without_passwords(uri), timeout=_KNOCK_SECONDS).close()  # noqa: S310


def _database(uri: str) -> tuple[str, int] | None:
    """Host and port of a database, if its address says them in the usual way."""
    try:
        url = make_url(uri)
    except (ArgumentError, ValueError):  # MLflow says what is wrong with it
        return None
    port = url.port or _DATABASE_PORTS.get(url.get_backend_name())
    return (url.host, port) if url.host and port else None


@contextmanager
def answering(uri: str) -> Iterator[None]:
    """Turn what MLflow raises in a block into `StoreError`."""
    try:
        yield
    except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError) as error:
        raise _unreachable(uri, error) from error


def speaking_runs(runs: Iterable[Run]) -> dict[str, Run]:
    """Key -> the run that counts for a trial: its first finished run, else its newest run in the best state.

    Args:
        runs: runs of trials, the oldest first.
    """
    chosen: dict[str, Run] = {}
    for run in runs:
        key = run.data.tags.get(names.KEY)
        if key is None:
            continue
        if key in chosen:
            before, now = (_PREFERENCE.index(state_of(candidate)) for candidate in (chosen[key], run))
            if now > before or now == before == 0:
                continue
        chosen[key] = run
    return chosen


def state_of(run: Run) -> str:
    """The run's state, one of the states of `grid.plan`."""
    return _STATES.get(run.info.status, FAILED)


def trial_state(run: Run) -> TrialState:
    """The state of the run's trial."""
    state = state_of(run)
    if state != FINISHED:
        return TrialState(run.info.run_id, state)
    tags = run.data.tags
    validated = tags.get(names.VALIDATED) == names.NEVER
    validated |= tags.get(names.VALIDATED) == "true" and names.CALIBRATED in tags
    return TrialState(run.info.run_id, state, conditions_of(run), validated)


def conditions_of(run: Run) -> frozenset[str]:
    """The conditions in the run's tag, and "clean"."""
    return frozenset({CLEAN, *filter(None, run.data.tags.get(names.CONDITIONS, "").split(","))})


def damaged_plan(grid: Run, error: Exception) -> StoreError:
    """The error to raise about a grid's plan that cannot be read."""
    return StoreError(
        f"{names.PLAN} of the grid's run {grid.info.run_id} is damaged, so trials that never started are unknown: "
        f"{in_one_line(error)}. Launching the grid again writes it"
    )


def _planned(fields: Any) -> tuple[str, dict[str, Any]]:
    """(key, fields of the spec) of an entry of a plan. Raises one of several errors if it is damaged."""
    kinds = {"key": str, "task": str, "method": str, "config": dict, "train_generators": list, "seed": int, "data": str}
    for name, kind in {**kinds, "version": int}.items():
        if not isinstance(fields[name], kind):
            raise TypeError(f"{name} is {fields[name]!r}")
    if not all(isinstance(name, str) for name in [*fields["train_generators"], fields.get("train_condition", CLEAN)]):
        raise TypeError("a generator or the condition is no name")
    TrainSet(tuple(fields["train_generators"]))
    if "equal_size" in fields:
        EqualSize(**fields["equal_size"])
    return fields["key"], {name: value for name, value in fields.items() if name != "key"}


def _unreachable(uri: str, error: Exception) -> StoreError:
    file = sqlite_file(uri)
    place = without_passwords(uri) if file is None else str(file)
    if message := locked_store(error, store=place):
        return StoreError(message)
    if uri.startswith("http") or _database(uri):
        remedy = f"Is the server running, and is its address right? {_CHOICE} names it"
    else:
        remedy = f"Is this the store that you mean? {_CHOICE} names another"
    return StoreError(
        f"cannot read MLflow at {without_passwords(uri)}: {without_passwords(in_one_line(error))}\n{remedy}"
    )
