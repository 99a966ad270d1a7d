"""Tracked runs as tidy data frames; what is read from MLflow comes through `grid.records`."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from analysis.commands import launch_commands, store_variable
from data.conditions import CLEAN
from data.sources import Source, get_source
from grid import names
from grid.plan import FAILED, FINISHED, INTERRUPTED, PENDING, RUNNING
from grid.records import (
    Records,
    StoreError,
    check_store,
    conditions_of,
    list_experiments,
    open_records,
    speaking_runs,
    state_of,
)
from grid.tasks import WHOLE
from grid.train_sets import TrainSet
from grid.uris import local_path, tracking_uri, without_password

if TYPE_CHECKING:
    from mlflow.entities import Run

logger = logging.getLogger(__name__)

__all__ = ["HISTORY_COLUMNS", "RUN_COLUMNS", "SCORE_COLUMNS", "Store", "StoreError", "open_store"]

ROOT = Path(__file__).resolve().parents[1]
RUN_COLUMNS = [
    "run_id", "key", "task", "method", "variant", "trained_on", "train_condition", "seed", "state", "weights", "config",
    "device", "node", "gpu_share", "git_commit", "start", "end", "seconds", "error", "url",
]  # fmt: skip
HISTORY_COLUMNS = ["run_id", "method", "variant", "trained_on", "seed", "task", "metric", "step", "value"]
SCORE_COLUMNS = ["path", "digest", "source_id", "generator", "label"]  # then condition, logit_<class>, maybe score
_SPEC_VERSION = "spec_version"  # parameter of a trial's run


@dataclass(frozen=True)
class Store:
    """One grid on one data set, as MLflow knew it when it was opened; artifacts are read when asked for.

    Attributes:
        records: the MLflow experiment.
        data: digest of the data set.
        corpus: name of the data's source, such as "dolos".
        parent: the grid's parent run.
    """

    records: Records
    data: str
    corpus: str
    parent: Run = field(repr=False, compare=False)
    _runs: Mapping[str, Run] = field(repr=False, compare=False)  # id -> run, one per trial
    _planned: Mapping[str, Mapping[str, Any]] = field(repr=False, compare=False)  # key -> spec as plain types
    _table: pd.DataFrame = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_table", self._make_table())

    @property
    def tracking_uri(self) -> str:
        """Where MLflow is."""
        return self.records.uri

    @property
    def experiment(self) -> str:
        """Name of the MLflow experiment."""
        return self.records.experiment

    @property
    def parent_run_id(self) -> str:
        """Id of the parent run."""
        return str(self.parent.info.run_id)

    @property
    def parent_tags(self) -> dict[str, str]:
        """Tags of the parent run."""
        return dict(self.parent.data.tags)

    @property
    def source(self) -> Source:
        """What is known of the corpus; nothing where this checkout has no such corpus."""
        try:
            return get_source(self.corpus)
        except KeyError:
            return Source(self.corpus, _no_scan)

    def ordered(self, generators: Iterable[str]) -> list[str]:
        """Generators in the order of the corpus' tables."""
        return self.source.ordered(set(generators))

    @property
    def generators(self) -> list[str]:
        """All that were trained or tested on, in the order of tables."""
        trained = {name for text in self._table["trained_on"] for name in TrainSet.parse(str(text)).generators}
        tested = {tested_on for run in self._runs.values() for _, tested_on, _, _ in _test_values(run)}
        return self.ordered((trained | tested) - {WHOLE})

    @property
    def conditions(self) -> list[str]:
        """Those that any finished trial was scored under: "clean", then the others in alphabetical order."""
        return sorted(set(self.results()["condition"]) | {CLEAN}, key=lambda name: (name != CLEAN, name))

    @property
    def unscored(self) -> dict[str, list[str]]:
        """Condition that the grid was asked for -> run ids of finished trials that were not scored under it."""
        asked = conditions_of(self.parent) - {CLEAN}
        finished = [run for run in self._runs.values() if run.info.status == "FINISHED"]
        lacking = {
            name: [run.info.run_id for run in finished if name not in conditions_of(run)] for name in sorted(asked)
        }
        return {name: run_ids for name, run_ids in lacking.items() if run_ids}

    def runs(self) -> pd.DataFrame:
        """One row per trial that was ever planned or run, in the order of the plan.

        Returns:
            columns `RUN_COLUMNS`. `state` is finished, running, failed, interrupted or pending; a pending trial has an
            empty `run_id`. Where a trial has several finished runs, the first one counts. `variant` is the method, with
            the settings that differ where the same method is there with several configurations. `config` is JSON with
            sorted keys. `trained_on` is a training set as text (see `grid.train_sets`). `start` and `end` are in UTC,
            `seconds` is the trial's own count. `url` is a link into the MLflow UI; without a server, the part of it
            after the server's address.
        """
        return self._table.copy()

    def results(self) -> pd.DataFrame:
        """Every test value of every finished trial: columns `RUN_COLUMNS`, data, condition, tested_on, metric, value.

        `tested_on` is "all" for a task that tests all images as one cell, as attribution does.
        """
        rows = [row for run in self._runs.values() if state_of(run) == FINISHED for row in _rows_of(run)]
        values = pd.DataFrame(rows, columns=["run_id", "condition", "tested_on", "metric", "value"])
        finished = self._table[self._table["state"] == FINISHED].assign(data=self.data)
        return finished.merge(values, on="run_id", how="inner")

    def history(self, run_ids: Iterable[str] | None = None) -> pd.DataFrame:
        """What was logged over epochs, of finished and unfinished runs: columns `HISTORY_COLUMNS`.

        One request per run and metric.

        Args:
            run_ids: only these; None: all.
        """
        chosen = None if run_ids is None else set(run_ids)
        rows = []
        for run_id, run in self._runs.items():
            if chosen is not None and run_id not in chosen:
                continue
            for metric in run.data.metrics:
                if metric.startswith(("time/", "copy/")) or metric == names.THRESHOLD or names.parse_metric(metric):
                    continue
                points = self.records.history(run_id, metric)
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

    def scores(self, run_id: str, columns: Sequence[str] | None = None, *, condition: str = CLEAN) -> pd.DataFrame:
        """One row per unique test image: `SCORE_COLUMNS`, condition, `logit_<class>`, and for detection `score`.

        Args:
            run_id: of a finished run.
            columns: only these, which is faster; None: all.
            condition: of the pictures.

        Raises:
            StoreError: no such run, or its scores are missing or cannot be read.
        """
        name = names.condition_artifact(condition, names.SCORES)
        path = self.artifact(run_id, name)
        try:
            table = pd.read_parquet(path, columns=None if columns is None else list(columns))
        except Exception as error:  # pyarrow raises many kinds
            raise self.broken(run_id, name, error) from error
        absent = [column for column in SCORE_COLUMNS if column not in table.columns] if columns is None else []
        if absent or table.empty:
            raise self.broken(run_id, name, f"no column {', '.join(absent)}" if absent else "no rows")
        if columns is None and "condition" not in table.columns:  # of runs from before there were conditions
            table.insert(len(SCORE_COLUMNS), "condition", condition)
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
        path = self.artifact(run_id, names.SPEC)
        try:
            spec: dict[str, Any] = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise self.broken(run_id, names.SPEC, error) from error
        return spec

    def artifact(self, run_id: str, name: str) -> Path:
        """A file or folder of a run: in place where the store is on this machine, else downloaded once.

        Raises:
            StoreError: no such run or artifact.
        """
        try:
            return self.records.artifact(self._run(run_id), name)
        except FileNotFoundError as error:
            raise self.broken(run_id, name, error) from error

    @property
    def notes(self) -> list[str]:
        """What the newest launch found that a reader should know of the data set."""
        with suppress(StoreError, OSError):
            return (self.records.text(self.parent, names.NOTES) or "").splitlines()
        return []

    @property
    def data_profile(self) -> dict[str, Any]:
        """Of the data set: `num_rows` (images) and `generators` (names); empty where the store does not say."""
        for dataset in self.parent.inputs.dataset_inputs if self.parent.inputs else []:
            with suppress(ValueError, TypeError):
                profile = json.loads(dataset.dataset.profile or "")
                if isinstance(profile, dict) and {"num_rows", "generators"} <= profile.keys():
                    return profile
        return {}

    def without(self, run_ids: Iterable[str]) -> Store:
        """The same grid as if these runs had never been: their trials are pending, as far as the plan has them."""
        left_out = set(run_ids)
        return dataclasses.replace(self, _runs={key: run for key, run in self._runs.items() if key not in left_out})

    def missing_command(
        self, *, task: str | None = None, variant: str | None = None, trained_on: str | None = None
    ) -> str:
        """The command that runs what is missing; several lines where one command cannot; "" when all is there.

        Trials that are not finished run; finished ones are scored under the conditions that they lack.

        Args:
            task: only this task.
            variant: only this variant of a method.
            trained_on: only trials trained on this.
        """
        unscored = {run_id for run_ids in self.unscored.values() for run_id in run_ids}
        table = self._table[(self._table["state"] != FINISHED) | self._table["run_id"].isin(unscored)]
        for column, value in (("task", task), ("variant", variant), ("trained_on", trained_on)):
            if value is not None:
                table = table[table[column] == value]
        return "\n".join(self._commands(table))

    def _commands(self, table: pd.DataFrame) -> list[str]:
        return launch_commands(
            table,
            mlflow_experiment=self.experiment,
            corpus=self.corpus,
            generators=self.data_profile.get("generators") or self.generators,
            data_folder=self._data_root(),
            tags=self.parent.data.tags,
            tracking_uri=self.tracking_uri,
        )

    def _run(self, run_id: str) -> Run:
        if run_id not in self._runs:
            raise StoreError(f"no trial of {self.experiment!r} on data set {self.data} has the run id {run_id!r}")
        return self._runs[run_id]

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

    def _data_root(self) -> str:
        for dataset in self.parent.inputs.dataset_inputs if self.parent.inputs else []:
            try:
                uri = json.loads(dataset.dataset.source)["uri"]
            except (ValueError, KeyError, TypeError):
                continue
            return str(local_path(uri) or uri)
        return "DIR"

    def _make_table(self) -> pd.DataFrame:
        rows: dict[str, dict[str, Any]] = {
            key: {
                "run_id": "",
                "key": key,
                "task": trial["task"],
                "method": trial["method"],
                "trained_on": str(TrainSet(tuple(trial["train_generators"]))),
                "train_condition": trial.get("train_condition", CLEAN),
                "seed": int(trial["seed"]),
                "state": PENDING,
                "config": json.dumps(trial["config"], sort_keys=True),
            }
            for key, trial in self._planned.items()
        }
        for run in self._runs.values():
            key = run.data.tags[names.KEY]
            rows[key] = {"config": _config_of(run)} | rows.get(key, {}) | self._facts(run)
        table = pd.DataFrame(list(rows.values()), columns=RUN_COLUMNS)
        wholes = [*map(_with_condition, table["config"], table["train_condition"])]
        called = variant_names(zip(table["method"], wholes, strict=True))
        table["variant"] = [called[pair] for pair in zip(table["method"], wholes, strict=True)]
        text = ["weights", "device", "node", "git_commit", "error", "url"]
        table[text] = table[text].astype("str").fillna("")
        for column in ("start", "end"):
            table[column] = pd.to_datetime(table[column], unit="ms", utc=True)
        return table.astype({"gpu_share": float, "seconds": float, "seed": int})

    def _facts(self, run: Run) -> dict[str, Any]:
        tags = run.data.tags
        path = f"#/experiments/{self.records.experiment_id}/runs/{run.info.run_id}"
        return {
            "run_id": run.info.run_id,
            "key": tags[names.KEY],
            "task": tags[names.TASK],
            "method": tags[names.METHOD],
            "trained_on": tags[names.TRAIN_GENERATORS],
            "train_condition": tags.get(names.TRAIN_CONDITION, CLEAN),
            "seed": int(tags[names.SEED]),
            "weights": tags.get(names.WEIGHTS, ""),
            "state": state_of(run),
            "device": tags.get(names.DEVICE, ""),
            "node": tags.get(names.NODE, ""),
            "gpu_share": _number(tags.get(names.GPU_SHARE)),
            "git_commit": tags.get(names.GIT_COMMIT, ""),
            "start": run.info.start_time,
            "end": run.info.end_time,
            "seconds": run.data.metrics.get(names.SECONDS, float("nan")),
            "error": tags.get(names.ERROR) or tags.get(names.CONDITION_ERROR, ""),
            "url": f"{without_password(self.tracking_uri).rstrip('/')}/{path}"
            if self.tracking_uri.startswith("http")
            else path,
        }


def open_store(
    experiment: str | None = None,
    *,
    tracking_uri: str | None = None,
    data: str | None = None,
    spec_version: int | None = None,
    unfinished: bool = False,
) -> Store:
    """Read one grid.

    Args:
        experiment: name of the MLflow experiment; None: the only one that holds a grid.
        tracking_uri: a local store or a server; None: MLFLOW_TRACKING_URI, else `runs/mlflow.db` of this checkout.
        data: digest of the data set, or its beginning; None: the experiment holds one only.
        spec_version: of the runs to read; None: there is one only.
        unfinished: a grid of which no trial is finished is read too.

    Raises:
        StoreError: no store there (none is created), a server that does not answer, no such experiment, runs of
            several data sets or spec versions of which none was chosen, no finished run, a parent run that is gone.
    """
    uri = tracking_uri or default_tracking_uri()
    records = _find_experiment(uri, experiment)
    parents, trials = records.grids(), records.trials()
    if not parents and not trials:
        raise StoreError(
            f"the MLflow experiment {records.experiment!r} at {uri} holds no grid; `python launch.py` writes one there"
        )
    digest = _choose_data(records.experiment, parents, trials, data)
    trials = [run for run in trials if run.data.tags.get(names.DATA) == digest]
    trials = _choose_version(records.experiment, digest, trials, spec_version)
    parents = [run for run in parents if run.data.tags.get(names.DATA) == digest]
    if not parents:
        lost = trials[0].data.tags.get(names.PARENT_RUN, "?")
        raise StoreError(
            f"the parent run {lost} of the grid {records.experiment!r} on data set {digest} is gone; restore it: "
            f"{store_variable(uri)} mlflow runs restore --run-id {lost}"
        )
    parent, chosen = parents[-1], speaking_runs(trials)
    if not unfinished and not any(state_of(run) == FINISHED for run in chosen.values()):
        states = [state_of(run) for run in chosen.values()]
        recorded = (FINISHED, RUNNING, INTERRUPTED, FAILED)
        counts = ", ".join(f"{states.count(state)} {state}" for state in recorded if state in states)
        name = parent.info.run_name
        raise StoreError(
            f"no trial of {name!r} (run {parent.info.run_id}) is finished yet: {counts or 'none has started'}. "
            "`python launch.py --status` shows the progress, and the launch command goes on where it was"
        )
    planned = {key: trial for key, trial in _read_plan(records, parent).items() if trial.get("data") == digest}
    if spec_version is not None:
        planned = {key: trial for key, trial in planned.items() if trial.get("version") == spec_version}
    corpus = parent.data.tags.get(names.SOURCE) or _dataset_name(parent)
    return Store(records, digest, corpus, parent, {run.info.run_id: run for run in chosen.values()}, planned)


def default_tracking_uri() -> str:
    """MLFLOW_TRACKING_URI, else the local store that `launch.py` writes by default."""
    return tracking_uri(ROOT / "runs")


def variant_names(configs: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """(method, configuration as JSON) -> a name that keeps different configurations apart.

    The method alone where it has one configuration, else with every setting that is not the same in all of them.
    """
    by_method: dict[str, dict[str, dict[str, Any]]] = {}
    for method, text in configs:
        by_method.setdefault(method, {})[text] = json.loads(text)
    called = {}
    for method, variants in by_method.items():
        settings = sorted({name for config in variants.values() for name in config})
        differing = [name for name in settings if len({json.dumps(config.get(name)) for config in variants.values()}) > 1]
        for text, config in variants.items():
            words = ", ".join(f"{name}={config.get(name, 'unset')}" for name in differing)
            called[method, text] = f"{method} ({words})" if differing else method
    return called


def _with_condition(config: str, train_condition: str) -> str:
    """A configuration, as JSON, with the condition that it is trained under."""
    return json.dumps(json.loads(config) | {"train_condition": train_condition}, sort_keys=True)


def _find_experiment(uri: str, experiment: str | None) -> Records:
    check_store(uri)
    experiments = list_experiments(uri)
    if experiment is not None:
        records = open_records(uri, experiment, patient=False)
        if records is None:
            listed = ", ".join(sorted(experiments)) or "none"
            raise StoreError(f"no MLflow experiment named {experiment!r} at {uri}; there are: {listed}")
        return records
    grids = [Records(uri, number, name, patient=False) for name, number in experiments.items()]
    grids = [records for records in grids if records.grids()]
    if len(grids) == 1:
        return grids[0]
    if grids:
        listed = ", ".join(sorted(records.experiment for records in grids))
        raise StoreError(f"{uri} holds several grids; choose one with --experiment: {listed}")
    listed = ", ".join(sorted(experiments)) or "none"
    raise StoreError(f"no experiment at {uri} holds a grid (there are: {listed}); `python launch.py` writes one there")


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
    matches = [digest for digest in counts if digest.startswith(data)]
    if len(matches) != 1:
        raise StoreError(f"{experiment!r} has {'no' if not matches else 'more than one'} data set {data!r}; {listed}")
    return matches[0]


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


def _read_plan(records: Records, parent: Run) -> dict[str, dict[str, Any]]:
    """Key -> every trial ever planned; empty, with a warning, where the plan cannot be read."""
    try:
        return records.plan(parent)
    except StoreError as error:
        logger.warning("%s", error)
        return {}


def _dataset_name(parent: Run) -> str:
    inputs = parent.inputs.dataset_inputs if parent.inputs else []
    return str(inputs[0].dataset.name) if inputs else ""


def _test_values(run: Run) -> Iterator[tuple[str, str, str, float]]:
    """(condition, tested on, metric, value) of each test metric."""
    for name, value in run.data.metrics.items():
        parsed = names.parse_metric(name)
        if parsed is not None:
            yield (*parsed, value)


def _rows_of(run: Run) -> Iterator[tuple[str, str, str, str, float]]:
    return ((run.info.run_id, *row) for row in _test_values(run))


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


def _no_scan(root: Path, *, seed: int = 0) -> Any:
    raise KeyError("this checkout has no such corpus")
