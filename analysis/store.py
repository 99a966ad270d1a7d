"""The only reader of MLflow for tables and figures: tracked runs to tidy data frames, and their artifacts."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

import numpy as np
import pandas as pd
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from analysis.commands import launch_commands, store_variable
from grid import names
from grid.plan import FAILED, FINISHED, INTERRUPTED, PENDING, RUNNING
from grid.tracking import knock

logger = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = [
    "run_id", "key", "task", "method", "trained_on", "seed", "data", "weights", "tested_on", "metric", "value",
]  # fmt: skip
RUN_COLUMNS = [
    "run_id", "key", "task", "method", "variant", "trained_on", "seed", "state", "weights", "config", "device", "node",
    "gpu_share", "git_commit", "start", "end", "seconds", "error", "url",
]  # fmt: skip
HISTORY_COLUMNS = ["run_id", "method", "variant", "trained_on", "seed", "task", "metric", "step", "value"]
SCORE_COLUMNS = ["path", "digest", "source_id", "generator", "label"]  # then logit_<class>; score for detection

_STATES = {"FINISHED": FINISHED, "FAILED": FAILED, "KILLED": INTERRUPTED, "RUNNING": RUNNING, "SCHEDULED": RUNNING}
_PREFERENCE = (FINISHED, RUNNING, INTERRUPTED, FAILED)  # which run speaks for a trial that has several
_NO_ANSWER = ("API request to", "Max retries", "onnection", "timed out")  # of a server, which is no artifact's fault
_SPEC_VERSION = "spec_version"  # parameter of a trial's run


class StoreError(ValueError):
    """The tracked runs cannot be read as one grid; the message names what is wrong and says what to do."""


@dataclass(frozen=True)
class Store:
    """One grid on one data set, as MLflow knew it when it was opened; artifacts are read when asked for.

    Attributes:
        tracking_uri: where MLflow is.
        experiment: name of the MLflow experiment.
        experiment_id: its id.
        data: digest of the data set.
        parent_run_id: the grid's parent run.
        corpus: name of the data's source, such as "dolos".
        parent_tags: tags of the parent run.
    """

    tracking_uri: str
    experiment: str
    experiment_id: str
    data: str
    parent_run_id: str
    corpus: str
    parent_tags: Mapping[str, str]
    _parent: Run = field(repr=False, compare=False)
    _runs: tuple[Run, ...] = field(repr=False, compare=False)  # one a trial
    _planned: Mapping[str, Mapping[str, Any]] = field(repr=False, compare=False)  # key -> spec as plain types
    _table: pd.DataFrame = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_table", self._make_table())

    @property
    def client(self) -> MlflowClient:
        """A client of this store."""
        return MlflowClient(tracking_uri=self.tracking_uri)

    def runs(self) -> pd.DataFrame:
        """One row a trial that was ever planned or run, in the order of the plan.

        Returns:
            columns `RUN_COLUMNS`. `state` is finished, running, failed, interrupted or pending; a pending trial has an
            empty `run_id`. Where a trial has several finished runs, the first one counts. `variant` is the method, with
            the settings that differ where the same method is there with several configurations. `config` is JSON with
            sorted keys. `trained_on` is joined by "+". `start` and `end` are in UTC, `seconds` is the trial's own
            count. `url` is a link into the MLflow UI; without a server, the part of it after the server's address.
        """
        return self._table.copy()

    def results(self) -> pd.DataFrame:
        """Every test figure of every finished trial: columns `RUN_COLUMNS`, data, tested_on, metric, value.

        `tested_on` is "all" for attribution.
        """
        rows = [row for run in self._runs if _state(run) == FINISHED for row in _test_figures(run)]
        figures = pd.DataFrame(rows, columns=["run_id", "tested_on", "metric", "value"])
        finished = self._table[self._table["state"] == FINISHED].assign(data=self.data)
        return finished.merge(figures, on="run_id", how="inner")

    def history(self, run_ids: Iterable[str] | None = None) -> pd.DataFrame:
        """What was logged over epochs, of finished and unfinished runs: columns `HISTORY_COLUMNS`.

        One request a run and metric.

        Args:
            run_ids: only these; None: all.
        """
        wanted = None if run_ids is None else set(run_ids)
        rows = []
        with _asking(self.tracking_uri):
            for run in self._runs:
                run_id = run.info.run_id
                if wanted is not None and run_id not in wanted:
                    continue
                for metric in run.data.metrics:
                    if metric.startswith(("test/", "time/", "copy/")) or metric == names.THRESHOLD:
                        continue
                    points = self.client.get_metric_history(run_id, metric)
                    rows += [(run_id, metric, point.step, point.value) for point in points]
        points_table = pd.DataFrame(rows, columns=["run_id", "metric", "step", "value"])
        shared = self._table[["run_id", "method", "variant", "trained_on", "seed", "task"]]
        return points_table.merge(shared, on="run_id", how="left")[HISTORY_COLUMNS]

    def tags(self, run_id: str) -> dict[str, str]:
        """Every tag of a run, as `grid.names` has them."""
        return dict(self._run(run_id).data.tags)

    def threshold(self, run_id: str) -> float:
        """The run's own threshold, from its validation split: log-odds of fake; NaN where it has none."""
        return float(self._run(run_id).data.metrics.get(names.THRESHOLD, float("nan")))

    def scores(self, run_id: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """One row a unique test image: `SCORE_COLUMNS`, `logit_<class>`, and for detection `score` (log-odds of fake).

        Args:
            run_id: of a finished run.
            columns: only these, which is faster; None: all.

        Raises:
            StoreError: no such run, or its scores are missing or cannot be read.
        """
        path = self.artifact(run_id, names.SCORES)
        try:
            table = pd.read_parquet(path, columns=None if columns is None else list(columns))
        except Exception as error:  # pyarrow raises many kinds
            raise self.broken(run_id, names.SCORES, error) from error
        absent = [name for name in SCORE_COLUMNS if name not in table.columns] if columns is None else []
        if absent or table.empty:
            raise self.broken(run_id, names.SCORES, f"no column {', '.join(absent)}" if absent else "no rows")
        return table

    def embeddings(self, run_id: str) -> np.ndarray:
        """Float16 (N, D), rows as in `scores`.

        Raises:
            StoreError: as `scores`.
        """
        path = self.artifact(run_id, names.EMBEDDINGS)
        try:
            array: np.ndarray = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise self.broken(run_id, names.EMBEDDINGS, error) from error
        if array.ndim != 2:
            raise self.broken(run_id, names.EMBEDDINGS, f"its shape is {array.shape}")
        return array

    def checkpoint(self, run_id: str) -> Path:
        """The folder that the detector was saved into.

        Raises:
            StoreError: no such run, or it has no checkpoint.
        """
        folder = self.artifact(run_id, names.CHECKPOINT)
        if not folder.is_dir() or not any(folder.iterdir()):
            raise self.broken(run_id, names.CHECKPOINT, "the folder is empty")
        return folder

    def spec(self, run_id: str) -> dict[str, Any]:
        """The trial's whole specification, as plain types.

        Raises:
            StoreError: as `scores`.
        """
        try:
            found: dict[str, Any] = json.loads(self.artifact(run_id, names.SPEC).read_text())
        except (OSError, ValueError) as error:
            if isinstance(error, StoreError):
                raise
            raise self.broken(run_id, names.SPEC, error) from error
        return found

    def artifact(self, run_id: str, name: str) -> Path:
        """A file or folder of a run: in place where the store is on this machine, else downloaded once.

        Raises:
            StoreError: no such run or artifact.
        """
        place = _local_path(self._run(run_id).info.artifact_uri)
        if place is not None:
            if not (place / name).exists():
                raise self.broken(run_id, name, f"nothing is at {place / name}")
            return place / name
        target = artifact_cache() / run_id / name
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            with (
                tempfile.TemporaryDirectory(dir=target.parent) as folder,
                _asking(self.tracking_uri, lambda error: self.broken(run_id, name, error)),
            ):
                found = Path(self.client.download_artifacts(run_id, name, folder))
                if not target.exists():
                    shutil.move(found, target)
        return target

    @property
    def notes(self) -> list[str]:
        """What the newest launch found that a reader should know of the data set."""
        with suppress(StoreError, OSError):
            return _parent_text(self.client, self.tracking_uri, self._parent, names.NOTES).splitlines()
        return []

    @property
    def data_profile(self) -> dict[str, Any]:
        """Of the data set: `num_rows` (images) and `generators` (names); empty where the store does not say."""
        for one in self._parent.inputs.dataset_inputs if self._parent.inputs else []:
            with suppress(ValueError, TypeError):
                profile = json.loads(one.dataset.profile or "")
                if isinstance(profile, dict) and {"num_rows", "generators"} <= profile.keys():
                    return profile
        return {}

    def without(self, run_ids: Iterable[str]) -> Store:
        """The same grid as if these runs had never been: their trials are pending, as far as the plan has them."""
        left_out = set(run_ids)
        return dataclasses.replace(self, _runs=tuple(run for run in self._runs if run.info.run_id not in left_out))

    def missing_command(
        self, *, task: str | None = None, variant: str | None = None, trained_on: str | None = None
    ) -> str:
        """The command that runs what is not finished; several lines where one command cannot; "" when all is there.

        What is finished is never run again.

        Args:
            task: only this task.
            variant: only this variant of a method.
            trained_on: only trials trained on this.
        """
        table = self._table[self._table["state"] != FINISHED]
        for column, value in (("task", task), ("variant", variant), ("trained_on", trained_on)):
            if value is not None:
                table = table[table[column] == value]
        return "\n".join(self._commands(table))

    def _commands(self, table: pd.DataFrame) -> list[str]:
        return launch_commands(
            table,
            experiment=self.experiment,
            corpus=self.corpus,
            generators=self._generators(),
            data_folder=self._data_root(),
            data_options=self.parent_tags.get(names.DATA_OPTIONS, ""),
            tracking_uri=self.tracking_uri,
        )

    def _run(self, run_id: str) -> Run:
        for run in self._runs:
            if run.info.run_id == run_id:
                return run
        raise StoreError(f"no trial of {self.experiment!r} on data set {self.data} has the run id {run_id!r}")

    def broken(self, run_id: str, name: str, why: object) -> StoreError:
        """The error to raise about an artifact: whose it is, why it cannot be used, and what to do about it."""
        run = self._run(run_id)
        again = self._commands(self._table[self._table["run_id"] == run_id])
        return StoreError(
            f"{name} of run {run_id} ({run.info.run_name}) is missing or cannot be read: {why}\n"
            "If the store was copied, its artifacts must lie where they were. Else delete the run and run its trial "
            f"again:\n  {store_variable(self.tracking_uri)} mlflow runs delete --run-id {run_id}\n  "
            + "\n  ".join(again)
        )

    def _generators(self) -> list[str]:
        found = {name for text in self._table["trained_on"] for name in text.split(names.LIST_SEPARATOR)}
        cells = {row[1] for run in self._runs for row in _test_figures(run)}
        return sorted((found | cells) - {names.ALL})

    def _data_root(self) -> str:
        for one in self._parent.inputs.dataset_inputs if self._parent.inputs else []:
            try:
                uri = json.loads(one.dataset.source)["uri"]
            except (ValueError, KeyError, TypeError):
                continue
            return str(_local_path(uri) or uri)
        return "DIR"

    def _make_table(self) -> pd.DataFrame:
        rows: dict[str, dict[str, Any]] = {
            key: {
                "run_id": "",
                "key": key,
                "task": trial["task"],
                "method": trial["method"],
                "trained_on": names.LIST_SEPARATOR.join(trial["train_generators"]),
                "seed": int(trial["seed"]),
                "state": PENDING,
                "config": json.dumps(trial["config"], sort_keys=True),
            }
            for key, trial in self._planned.items()
        }
        for run in self._runs:
            key = run.data.tags[names.KEY]
            rows[key] = {"config": _config_of(run)} | rows.get(key, {}) | self._facts(run)
        table = pd.DataFrame(list(rows.values()), columns=RUN_COLUMNS)
        called = variant_names(zip(table["method"], table["config"], strict=True))
        table["variant"] = [called[pair] for pair in zip(table["method"], table["config"], strict=True)]
        text = ["weights", "device", "node", "git_commit", "error", "url"]
        table[text] = table[text].fillna("")
        for column in ("start", "end"):
            table[column] = pd.to_datetime(table[column], unit="ms", utc=True)
        return table.astype({"gpu_share": float, "seconds": float, "seed": int})

    def _facts(self, run: Run) -> dict[str, Any]:
        tags = run.data.tags
        path = f"#/experiments/{self.experiment_id}/runs/{run.info.run_id}"
        return _identity(run) | {
            "state": _state(run),
            "device": tags.get(names.DEVICE, ""),
            "node": tags.get(names.NODE, ""),
            "gpu_share": _number(tags.get(names.GPU_SHARE)),
            "git_commit": tags.get(names.GIT_COMMIT, ""),
            "start": run.info.start_time,
            "end": run.info.end_time,
            "seconds": run.data.metrics.get(names.SECONDS, float("nan")),
            "error": tags.get(names.ERROR, ""),
            "url": f"{names.without_password(self.tracking_uri).rstrip('/')}/{path}"
            if self.tracking_uri.startswith("http")
            else path,
        }


def open_store(
    experiment: str | None = None,
    *,
    tracking_uri: str | None = None,
    data: str | None = None,
    spec_version: int | None = None,
) -> Store:
    """Read one grid.

    Args:
        experiment: name of the MLflow experiment; None: the only one that holds a grid.
        tracking_uri: a local store or a server; None: MLFLOW_TRACKING_URI, else `runs/mlflow.db` of this checkout.
        data: digest of the data set, or its beginning; None: the experiment holds one only.
        spec_version: of the runs to read; None: there is one only.

    Raises:
        StoreError: no store there (none is created), a server that does not answer, no such experiment, runs of
            several data sets or spec versions of which none was chosen, no finished run, a parent run that is gone.
    """
    uri = tracking_uri or default_tracking_uri()
    experiment, experiment_id = _find_experiment(uri, experiment)
    client = MlflowClient(tracking_uri=uri)
    with _asking(uri):
        parents = _search(client, experiment_id, f"tags.`{names.ROLE}` = '{names.GRID_ROLE}'")
        trials = _search(client, experiment_id, f"tags.`{names.ROLE}` = '{names.TRIAL_ROLE}'")
    if not parents and not trials:
        raise StoreError(
            f"the MLflow experiment {experiment!r} at {uri} holds no grid; `python launch.py` writes one there"
        )
    digest = _choose_data(experiment, parents, trials, data)
    trials = [run for run in trials if run.data.tags.get(names.DATA) == digest]
    trials = _choose_version(experiment, digest, trials, spec_version)
    parents = [run for run in parents if run.data.tags.get(names.DATA) == digest]
    if not parents:
        lost = trials[0].data.tags.get(names.PARENT_RUN, "?")
        raise StoreError(
            f"the parent run {lost} of the grid {experiment!r} on data set {digest} is gone; restore it: "
            f"{store_variable(uri)} mlflow runs restore --run-id {lost}"
        )
    parent = parents[-1]
    chosen = _one_each(trials)
    if not any(_state(run) == FINISHED for run in chosen):
        states = [_state(run) for run in chosen]
        counts = ", ".join(f"{states.count(state)} {state}" for state in _PREFERENCE if state in states)
        name = parent.info.run_name
        raise StoreError(
            f"no trial of {name!r} (run {parent.info.run_id}) is finished yet: {counts or 'none has started'}. "
            "`python launch.py --status` shows the progress, and the launch command goes on where it was"
        )
    planned = {key: trial for key, trial in _read_plan(client, uri, parent).items() if trial.get("data") == digest}
    if spec_version is not None:
        planned = {key: trial for key, trial in planned.items() if trial.get("version") == spec_version}
    corpus = parent.data.tags.get(names.SOURCE) or _dataset_name(parent)
    return Store(
        uri,
        experiment,
        experiment_id,
        digest,
        parent.info.run_id,
        corpus,
        dict(parent.data.tags),
        parent,
        tuple(chosen),
        planned,
    )


def load_results(tracking_uri: str, experiment: str, *, data: str | None = None) -> pd.DataFrame:
    """Test figures of every finished trial, one row each; unlike `open_store`, empty when nothing is finished.

    Args:
        tracking_uri: a local store or a server.
        experiment: name of the MLflow experiment.
        data: digest of the data set; None: the experiment holds one only.

    Returns:
        columns `COLUMNS`; `tested_on` is "all" for attribution. Where a trial has several finished runs, the first one
        counts.

    Raises:
        StoreError: no such store or experiment, or runs of several data sets and `data` does not choose.
    """
    _, experiment_id = _find_experiment(tracking_uri, experiment)
    query = f"tags.`{names.ROLE}` = '{names.TRIAL_ROLE}' and attributes.status = 'FINISHED'"
    if data is not None:
        query += f" and tags.`{names.DATA}` = '{data}'"
    with _asking(tracking_uri):
        runs = _one_each(_search(MlflowClient(tracking_uri=tracking_uri), experiment_id, query))
    rows = [
        _identity(run) | {"data": run.data.tags[names.DATA], "tested_on": tested_on, "metric": metric, "value": value}
        for run in runs
        for _, tested_on, metric, value in _test_figures(run)
    ]
    table = pd.DataFrame(rows, columns=COLUMNS)
    if table["data"].nunique() > 1:
        digests = ", ".join(sorted(table["data"].unique()))
        raise StoreError(f"{experiment!r} holds runs of several data sets ({digests}); choose one by its digest")
    return table


def default_tracking_uri() -> str:
    """MLFLOW_TRACKING_URI, else the local store that `launch.py` writes by default."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"{names.SQLITE}{ROOT / 'runs' / 'mlflow.db'}"


def artifact_cache() -> Path:
    """Where artifacts of remote stores are kept: `inpaint-grid/artifacts` in XDG_CACHE_HOME or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "inpaint-grid" / "artifacts"


def variant_names(configs: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """(method, configuration as JSON) -> a name that keeps different configurations apart.

    The method alone where it has one configuration, else with every setting that is not the same in all of them.
    """
    by_method: dict[str, dict[str, dict[str, Any]]] = {}
    for method, text in configs:
        by_method.setdefault(method, {})[text] = json.loads(text)
    called = {}
    for method, found in by_method.items():
        settings = sorted({name for config in found.values() for name in config})
        differing = [name for name in settings if len({json.dumps(config.get(name)) for config in found.values()}) > 1]
        for text, config in found.items():
            words = ", ".join(f"{name}={config.get(name, 'unset')}" for name in differing)
            called[method, text] = f"{method} ({words})" if differing else method
    return called


def _find_experiment(uri: str, experiment: str | None) -> tuple[str, str]:
    """Name and id."""
    _check_local(uri)
    with _asking(uri):
        client = MlflowClient(tracking_uri=uri)
        if experiment is not None:
            found = client.get_experiment_by_name(experiment)
            if found is not None and found.lifecycle_stage == "active":
                return found.name, str(found.experiment_id)
        known = {one.name: str(one.experiment_id) for one in client.search_experiments()}
    listed = ", ".join(sorted(known)) or "none"
    if experiment is not None and found is not None:
        raise StoreError(
            f"the MLflow experiment {experiment!r} is deleted; restore it: {store_variable(uri)} "
            f"mlflow experiments restore -x {found.experiment_id}"
        )
    if experiment is not None:
        raise StoreError(f"no MLflow experiment named {experiment!r} at {uri}; there are: {listed}")
    with _asking(uri):
        query = f"tags.`{names.ROLE}` = '{names.GRID_ROLE}'"
        grids = {name: one for name, one in known.items() if client.search_runs([one], query, max_results=1)}
    if len(grids) == 1:
        return next(iter(grids.items()))
    if grids:
        raise StoreError(f"{uri} holds several grids; choose one with --experiment: {', '.join(sorted(grids))}")
    raise StoreError(f"no experiment at {uri} holds a grid (there are: {listed}); `python launch.py` writes one there")


def _check_local(uri: str) -> None:
    """Refuse a local store that is not there, which MLflow would create."""
    remedy = "`python launch.py` writes one; name another with --tracking-uri or MLFLOW_TRACKING_URI"
    database = _sqlite_path(uri)
    if database is not None:
        if not database.is_file():
            raise StoreError(f"no MLflow store at {database}; {remedy}")
        try:
            connection = sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)
            try:
                found = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'experiments'").fetchone()
            finally:
                connection.close()
        except sqlite3.Error as error:
            raise StoreError(f"{database} cannot be read as an MLflow store: {error}; {remedy}") from error
        if found is None:
            raise StoreError(f"{database} is an SQLite file but holds no MLflow store; {remedy}")
    elif (folder := _local_path(uri)) is not None and not folder.is_dir():
        raise StoreError(f"no MLflow store at {folder}; {remedy}")


def _sqlite_path(uri: str) -> Path | None:
    return Path(uri.removeprefix(names.SQLITE).partition("?")[0]) if uri.startswith(names.SQLITE) else None


def _local_path(uri: str) -> Path | None:
    """The path that a file URI or a plain path means; None for anything remote."""
    parsed = urlparse(uri)
    if parsed.scheme == "file":
        return Path(url2pathname(parsed.path))
    return Path(uri) if not parsed.scheme else None


@contextmanager
def _asking(uri: str, refused: Callable[[Exception], StoreError] | None = None) -> Iterator[None]:
    """Ask MLflow; what it raises becomes a `StoreError`.

    A server that does not answer at once is given up. One that stops answering in the middle is waited for as long as
    MLflow's own settings say, which is minutes.

    Args:
        uri: of the store.
        refused: what to raise where MLflow answers, but with an error.
    """

    def unanswered(error: Exception) -> StoreError:
        return StoreError(
            f"cannot read MLflow at {uri}: {str(error).strip()[:500]}\n"
            "Is the server running, and --tracking-uri or MLFLOW_TRACKING_URI right?"
        )

    try:
        if uri.startswith("http"):
            knock(uri)
    except OSError as error:
        raise unanswered(error) from error
    try:
        yield
    except (MlflowException, OSError) as error:
        if refused is not None and not any(sign in str(error) for sign in _NO_ANSWER):
            raise refused(error) from error
        raise unanswered(error) from error


def _search(client: MlflowClient, experiment_id: str, query: str) -> list[Run]:
    """All runs that match, the oldest first."""
    runs: list[Run] = []
    token = None
    while True:
        page = client.search_runs(
            [experiment_id], query, max_results=1000, order_by=["attributes.start_time ASC"], page_token=token
        )
        runs.extend(page)
        token = page.token
        if not token:
            return runs


def _one_each(runs: Iterable[Run]) -> list[Run]:
    """The run that speaks for each trial: the first finished one, else the newest of the most hopeful state."""
    chosen: dict[str, Run] = {}
    for run in runs:
        key = run.data.tags[names.KEY]
        if key in chosen:
            old, new = _PREFERENCE.index(_state(chosen[key])), _PREFERENCE.index(_state(run))
            if new > old or new == old == 0:
                continue
        chosen[key] = run
    return list(chosen.values())


def _choose_data(experiment: str, parents: list[Run], trials: list[Run], data: str | None) -> str:
    counts: dict[str, int] = {}
    called: dict[str, str] = {}
    for run in parents:
        digest = run.data.tags[names.DATA]
        counts.setdefault(digest, 0)
        called[digest] = run.info.run_name
    for run in trials:
        digest = run.data.tags[names.DATA]
        counts[digest] = counts.get(digest, 0) + 1
    listed = "; ".join(f"{digest}: {count} runs, {called.get(digest, '?')!r}" for digest, count in counts.items())
    if data is None:
        if len(counts) == 1:
            return next(iter(counts))
        raise StoreError(
            f"{experiment!r} holds runs of several data sets, which are never mixed; choose one with --data DIGEST: "
            f"{listed}"
        )
    found = [digest for digest in counts if digest.startswith(data)]
    if len(found) != 1:
        raise StoreError(f"{experiment!r} has {'no' if not found else 'more than one'} data set {data!r}; {listed}")
    return found[0]


def _choose_version(experiment: str, digest: str, trials: list[Run], version: int | None) -> list[Run]:
    by_version: dict[str, list[Run]] = {}
    for run in trials:
        by_version.setdefault(run.data.params.get(_SPEC_VERSION, "?"), []).append(run)
    listed = "; ".join(
        f"version {name}: {len(runs)} runs, such as {runs[-1].info.run_id} ({runs[-1].info.run_name})"
        for name, runs in by_version.items()
    )
    if version is not None:
        if trials and str(version) not in by_version:
            raise StoreError(f"{experiment!r} on data set {digest} has no run of spec version {version}; {listed}")
        return by_version.get(str(version), [])
    if len(by_version) > 1:
        raise StoreError(
            f"{experiment!r} on data set {digest} holds runs of several spec versions, which do not mean the same and "
            f"are never mixed; read one with --spec-version N, or delete the old runs: {listed}"
        )
    return trials


def _read_plan(client: MlflowClient, uri: str, parent: Run) -> dict[str, dict[str, Any]]:
    """Key -> every trial ever planned; empty, with a warning, where the plan cannot be had."""
    try:
        text = _parent_text(client, uri, parent, names.PLAN)
        return {trial["key"]: trial for trial in json.loads(text)["trials"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning(
            "%s of the grid's run %s cannot be read, so trials that never started are not known: %s. Launching the "
            "grid again writes it",
            names.PLAN,
            parent.info.run_id,
            error,
        )
        return {}


def _parent_text(client: MlflowClient, uri: str, parent: Run, name: str) -> str:
    """A text that is kept with the grid's run, in its newest form. Raises `OSError` or `StoreError`."""
    place = _local_path(parent.info.artifact_uri)
    if place is not None:
        return (place / name).read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder, _asking(uri):
        return Path(client.download_artifacts(parent.info.run_id, name, folder)).read_text(encoding="utf-8")


def _dataset_name(parent: Run) -> str:
    inputs = parent.inputs.dataset_inputs if parent.inputs else []
    return str(inputs[0].dataset.name) if inputs else ""


def _state(run: Run) -> str:
    return _STATES.get(run.info.status, FAILED)


def _identity(run: Run) -> dict[str, Any]:
    tags = run.data.tags
    return {
        "run_id": run.info.run_id,
        "key": tags[names.KEY],
        "task": tags[names.TASK],
        "method": tags[names.METHOD],
        "trained_on": tags[names.TRAIN_GENERATORS],
        "seed": int(tags[names.SEED]),
        "weights": tags.get(names.WEIGHTS, ""),
    }


def _test_figures(run: Run) -> Iterator[tuple[str, str, str, float]]:
    """(run id, tested on, metric, value) of each test metric."""
    for name, value in run.data.metrics.items():
        place, _, rest = name.partition("/")
        if place == "test":
            tested_on, _, metric = rest.partition("/")
            yield run.info.run_id, tested_on, metric, value


def _config_of(run: Run) -> str:
    """The configuration from a run's parameters, which MLflow keeps as text."""
    config = {}
    for name, text in run.data.params.items():
        if name.startswith("config."):
            value = {"True": True, "False": False}.get(text)
            config[name.removeprefix("config.")] = _parsed(text) if value is None else value
    return json.dumps(config, sort_keys=True)


def _parsed(text: str) -> str | int | float:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _number(text: str | None) -> float:
    try:
        return float(text) if text else float("nan")
    except ValueError:
        return float("nan")
