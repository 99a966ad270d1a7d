"""Tracked runs as tidy data frames, read from MLflow through `grid.records`."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from analysis.commands import launch_commands
from analysis.soundness import SCORE_COLUMNS, CellRows, problem_of
from analysis.values import cells_of, values_of
from data.addresses import without_passwords
from data.arrays import load_array
from data.conditions import CLEAN
from data.manifest import fingerprint
from data.sources import Source, get_source, list_sources
from data.verdict import Verdict
from grid import names
from grid.controls import kind_of
from grid.datasets import choose, data_folder, data_profile, list_data_sets, train_generators, untested_generators
from grid.equal_size import EqualSize
from grid.plan import FAILED, FINISHED, INTERRUPTED, PENDING, RUNNING, has_conditions
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
from grid.tasks import WHOLE, Task, get_task, list_tasks
from grid.train_sets import TrainSet
from grid.uris import store_variable
from grid.uris import tracking_uri as default_tracking_uri
from grid.variants import variant_names, variant_settings
from models.metrics import Answers
from models.open_set import BASELINE, COLUMN

if TYPE_CHECKING:
    from mlflow.entities import Run

logger = logging.getLogger(__name__)

__all__ = ["HISTORY_COLUMNS", "RUN_COLUMNS", "SCORE_COLUMNS", "Store", "StoreError", "open_store"]

ROOT = Path(__file__).resolve().parents[1]
RUN_COLUMNS = [
    "run_id", "key", "task", "method", "variant", "trained_on", "train_condition", "equal_size", "seed", "state",
    "weights", "config", "device", "node", "gpu_share", "git_commit", "start", "end", "seconds", "error", "url",
]  # fmt: skip
HISTORY_COLUMNS = ["run_id", "method", "variant", "trained_on", "seed", "task", "metric", "step", "value"]
_ONCE = (names.THRESHOLD, names.VALIDATION, names.CALIBRATION_METRICS, names.MAPS, names.SUMMARY)
NOT_PER_EPOCH = ("time/", "copy/", *_ONCE)
_IMAGE_COLUMNS = ["label", "generator", "source_id", "digest"]  # what `fingerprint` reads


@dataclass(frozen=True)
class Store:
    """One grid on one data set, as MLflow had it when the store was opened; artifacts are read on demand.

    Attributes:
        records: the MLflow experiment.
        data: digest of the data set.
        corpus: name of the data set's source, such as "dolos".
        parent: the grid's parent run.
        cell_rows: which rows of scores are which cell.
    """

    records: Records
    data: str
    corpus: str
    parent: Run = field(repr=False, compare=False)
    _runs: Mapping[str, Run] = field(repr=False, compare=False)  # run id -> run, one per trial
    _planned: Mapping[str, Mapping[str, Any]] = field(repr=False, compare=False)  # key -> spec as plain types
    _sound: set[tuple[str, str]] = field(default_factory=set, repr=False, compare=False)  # checked (run id, condition)
    cell_rows: CellRows = field(default_factory=CellRows, repr=False, compare=False)
    _images: list[pd.DataFrame] = field(default_factory=list, repr=False, compare=False)  # of the newest sound scores

    @property
    def tracking_uri(self) -> str:
        """The tracking URI."""
        return self.records.uri

    @property
    def experiment(self) -> str:
        """Name of the MLflow experiment."""
        return self.records.experiment

    @property
    def source(self) -> Source:
        """The corpus; plain "folders" if this checkout lacks it, which have no caveats and no published values."""
        return get_source(self.corpus if self.corpus in list_sources() else "folders")

    def ordered(self, generators: Iterable[str]) -> list[str]:
        """These generators in the order of the corpus's tables."""
        return self.source.ordered(set(generators))

    @property
    def generators(self) -> list[str]:
        """Every generator that a trial was trained or tested on, in the order of tables; without untested ones."""
        return list(self._generators)

    @cached_property
    def _generators(self) -> list[str]:
        trained = {name for text in self._table["trained_on"].unique() for name in TrainSet.parse(str(text)).generators}
        is_binary = {task: get_task(task).is_binary for task in set(self._table["task"])}
        tested = cells_of(run for run in self._runs.values() if is_binary[run.data.tags[names.TASK]])
        return self.ordered((trained | tested) - {WHOLE, *untested_generators(self.data_profile)})

    @property
    def conditions(self) -> list[str]:
        """Conditions that a finished trial was scored under: "clean", then the others in alphabetical order."""
        return sorted(set(self._results["condition"].unique()) | {CLEAN}, key=lambda name: (name != CLEAN, name))

    @property
    def unscored(self) -> dict[str, list[str]]:
        """Requested condition -> run ids of the finished trials of methods that were not scored under it."""
        finished = {
            run_id: conditions_of(run)
            for run_id, run in self._runs.items()
            if state_of(run) == FINISHED and has_conditions(run.data.tags[names.TASK], run.data.tags[names.METHOD])
        }
        lacking = {
            condition: [run_id for run_id, scored in finished.items() if condition not in scored]
            for condition in sorted(conditions_of(self.parent))
        }
        return {condition: run_ids for condition, run_ids in lacking.items() if run_ids}

    def runs(self) -> pd.DataFrame:
        """One row per trial that was ever planned or run, in the order of the plan.

        Returns:
            columns `RUN_COLUMNS`. `state` is finished, running, failed, interrupted or pending; a pending trial has an
            empty `run_id`. Of several finished runs of a trial, the first counts. `variant` is the method; if a method
            has several configurations, the settings that differ are appended. `config` is JSON with sorted keys.
            `trained_on` is a training set as text (see `grid.train_sets`). `equal_size` is "24,8" for 24 images of
            each class in training and 8 in validation; "" for all images. `start` and `end` are in UTC; `seconds` is
            measured by the trial. `url` is a link into the MLflow UI, without the server's address for a local store.
        """
        return self._table.copy()

    def results(self, *, binary_metrics: Collection[str] | None = None) -> pd.DataFrame:
        """Every test value of every finished trial: columns `RUN_COLUMNS`, data, condition, tested_on, metric, value.

        `tested_on` is "all" for a task that tests all images as one cell, as attribution does. With `binary_metrics`,
        binary tasks have these metrics alone: thousands of trials have a million values.
        """
        return self._results.copy() if binary_metrics is None else self._values(binary_metrics)

    @cached_property
    def _results(self) -> pd.DataFrame:
        return self._values(None)

    def _values(self, binary_metrics: Collection[str] | None) -> pd.DataFrame:
        finished = self._table[self._table["state"] == FINISHED].assign(data=self.data)
        return values_of(finished, self._runs.values(), binary_metrics)

    def history(self, run_ids: Iterable[str] | None = None) -> pd.DataFrame:
        """Every metric logged per epoch, of finished and unfinished runs: columns `HISTORY_COLUMNS`.

        Of a server, this takes one request per run and metric.

        Args:
            run_ids: the runs to read; None: all.
        """
        chosen = set(self._runs if run_ids is None else run_ids)
        metrics = {run_id: _per_epoch(run) for run_id, run in self._runs.items() if run_id in chosen}
        rows = list(self.records.histories(metrics))
        points = pd.DataFrame(rows, columns=["run_id", "metric", "step", "value"])
        shared = self._table[["run_id", "method", "variant", "trained_on", "seed", "task"]]
        return points.merge(shared, on="run_id", how="left")[HISTORY_COLUMNS]

    def entities(self) -> list[Run]:
        """The run of each trial that has one, as MLflow had it when the store was opened."""
        return list(self._runs.values())

    def tags(self, run_id: str) -> dict[str, str]:
        """Every tag of a run; `grid.names` has their names."""
        return dict(self._run(run_id).data.tags)

    def scored(self, run_id: str) -> list[str]:
        """The conditions that a finished run was scored under, "clean" first."""
        return sorted(conditions_of(self._run(run_id)), key=lambda name: (name != CLEAN, name))

    def threshold(self, run_id: str) -> float:
        """The threshold chosen on the run's validation split: log-odds of fake; NaN if none was logged."""
        return float(self._run(run_id).data.metrics.get(names.THRESHOLD, float("nan")))

    def validation(self, run_id: str) -> dict[str, float]:
        """Generator -> AUROC on its validation images; empty for a run that has not scored them, as older ones."""
        metrics = self._run(run_id).data.metrics
        return {
            generator: float(value)
            for name, value in metrics.items()
            if (generator := names.parse_validation_metric(name)) is not None
        }

    def metrics_of(self, run_id: str, begin: str) -> dict[str, float]:
        """The run's metrics whose names begin so, such as `names.MAPS` or `names.SUMMARY`; empty for a run without."""
        metrics = self._run(run_id).data.metrics
        return {name: float(value) for name, value in metrics.items() if name.startswith(begin)}

    def localisation(self, run_id: str) -> tuple[pd.DataFrame, dict[str, Any]] | None:
        """What a run's own maps say of the masks (`grid.localisation.Localised`: images and facts); None without.

        Raises:
            StoreError: the run logged such values, and its files are missing or cannot be read.
        """
        if not self.metrics_of(run_id, names.MAPS):
            return None
        images, facts = (self.artifact(run_id, name) for name in (names.LOCALISATION, names.LOCALISATION_FACTS))
        try:
            return pd.read_parquet(images), json.loads(facts.read_text(encoding="utf-8"))
        except Exception as error:  # pyarrow raises many kinds
            raise self.broken(run_id, names.LOCALISATION, error) from error

    def scores(self, run_id: str, columns: Sequence[str] | None = None, *, condition: str = CLEAN) -> pd.DataFrame:
        """One row per unique test image: `SCORE_COLUMNS`, condition, `logit_<class>`, and for detection `score`.

        The rows are held against the test images that the launch recorded.

        Args:
            run_id: of a finished run.
            columns: the columns to read (fewer are faster); None: all.
            condition: condition of the test pictures.

        Raises:
            StoreError: no such run, or its scores are missing, cannot be read, or are not those of the test images.
        """
        name = names.condition_artifact(condition, names.SCORES)
        path = self.artifact(run_id, name)
        try:
            if columns is not None and (run_id, condition) in self._sound:
                return pd.read_parquet(path, columns=list(columns))
            table = pd.read_parquet(path)
        except Exception as error:  # pyarrow raises many kinds
            raise self.broken(run_id, name, error) from error
        if problem := self._problem_of(table, run_id) or self._contradiction(table, run_id, condition):
            raise self.broken(run_id, name, problem)
        self._sound.add((run_id, condition))
        if "condition" not in table.columns:  # older runs know no conditions
            table.insert(len(SCORE_COLUMNS), "condition", condition)
        if columns is None:
            return table
        if absent := [column for column in columns if column not in table.columns]:
            raise self.broken(run_id, name, f"no column {', '.join(absent)}")
        return table[list(columns)]

    def _problem_of(self, scores: pd.DataFrame, run_id: str) -> str:
        """Why these are not the scores of the data set's test images; "" if they are.

        A grid that was last launched by an older version of this project did not record its test images; of its scores,
        only their form is checked, and that no image is there twice.
        """
        task, classes = self._task_of(run_id)
        numbers = [f"logit_{name}" for name in classes] + (["score"] if task.is_binary else [])
        if task.scores_unknown:  # an older run may lack a score that was added later, but not all of them
            numbers += [name for name in scores.columns if str(name).startswith(COLUMN)] or [COLUMN + BASELINE]
        expected, problem = self.parent.data.tags.get(names.TEST_IMAGES), problem_of(scores, numbers)
        if problem or expected is None or any(scores[_IMAGE_COLUMNS].equals(images) for images in self._images):
            return problem
        if fingerprint(scores) != expected:
            return f"its {len(scores)} rows are not those of the data set's {expected.split()[0]} test images"
        self._images[:] = [scores[_IMAGE_COLUMNS]]  # runs have the same rows in the same order, mostly
        return ""

    def _contradiction(self, scores: pd.DataFrame, run_id: str, condition: str) -> str:
        """Which logged accuracy these scores do not give; "" if they give all."""
        task, classes = self._task_of(run_id)
        logged, (numbers, cells) = self._run(run_id).data.metrics, self.cell_rows.of(task, classes, scores)
        if task.is_binary:
            answers = Answers.from_scores(numbers, scores["score"].to_numpy())
        else:
            answers = Answers.from_logits(numbers, scores[[f"logit_{name}" for name in classes]].to_numpy(), classes)
        for tested_on, cell in cells.items():
            value = logged.get(names.metric_name(tested_on, "accuracy", condition))
            counted = cell & (numbers >= 0)
            if value is None or not counted.any():
                continue
            found = float((answers.answered == numbers)[counted].mean())
            if abs(found - value) > 1e-6:
                return f"they give an accuracy of {found:.4f} on {tested_on}, and {value:.4f} was logged"
        return ""

    def _task_of(self, run_id: str) -> tuple[Task, tuple[str, ...]]:
        """A run's task and its classes."""
        tags = self._run(run_id).data.tags
        task = get_task(tags[names.TASK], int(tags[names.SEED]))
        return task, tuple(task.classes(TrainSet.parse(tags[names.TRAIN_GENERATORS])))

    def embeddings(self, run_id: str) -> np.ndarray:
        """Test embeddings, float16 (N, D), in the row order of `scores`. Raises `StoreError` as `scores` does."""
        path = self.artifact(run_id, names.EMBEDDINGS)
        try:
            array = load_array(path)
        except (OSError, ValueError) as error:
            raise self.broken(run_id, names.EMBEDDINGS, error) from error
        if array.ndim != 2 or array.dtype.kind != "f":
            raise self.broken(run_id, names.EMBEDDINGS, f"its shape is {array.shape}, of {array.dtype}")
        return array

    def checkpoint(self, run_id: str) -> Path:
        """Folder of the saved detector. Raises `StoreError` if there is no such run or no checkpoint."""
        folder = self.artifact(run_id, names.CHECKPOINT)
        if not folder.is_dir() or not any(folder.iterdir()):
            raise self.broken(run_id, names.CHECKPOINT, "the folder is empty")
        return folder

    def spec(self, run_id: str) -> dict[str, Any]:
        """The trial's specification as plain types. Raises `StoreError` as `scores` does."""
        path = self.artifact(run_id, names.SPEC)
        try:
            spec: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise self.broken(run_id, names.SPEC, error) from error
        return spec

    def artifact(self, run_id: str, name: str) -> Path:
        """Path of a run's file or folder; downloaded once if the store is on another machine.

        Raises:
            StoreError: no such run or artifact.
        """
        try:
            return self.records.artifact(self._run(run_id), name)
        except FileNotFoundError as error:
            raise self.broken(run_id, name, error) from error

    @property
    def notes(self) -> list[str]:
        """Remarks of the newest launch on the data set, one per line; empty if they cannot be read."""
        with suppress(StoreError, OSError):
            return (self.records.text(self.parent, names.NOTES) or "").splitlines()
        return []

    @cached_property
    def verdict(self) -> Verdict | None:
        """What the newest launch's audits say of the data set; None on older grids, or if it cannot be read."""
        with suppress(StoreError, OSError):
            text = self.records.text(self.parent, names.AUDIT)
            return Verdict.from_dict(json.loads(text)) if text else None
        return None

    @cached_property
    def edited_areas(self) -> dict[str, float]:
        """Digest of a test fake -> the share of its mask that is fake; empty for older grids, or without masks.

        Raises:
            StoreError: the file is damaged.
        """
        try:
            areas = json.loads(self.records.text(self.parent, names.AREAS) or "{}")
            return {str(digest): float(area) for digest, area in areas.items()}
        except (AttributeError, OSError, TypeError, ValueError) as error:
            raise StoreError(
                f"{names.AREAS} of the grid's run {self.parent.info.run_id} is damaged: {error}. The next launch that "
                "runs something writes it again"
            ) from error

    @property
    def data_profile(self) -> dict[str, Any]:
        """Of the data set; see `grid.datasets.data_profile`."""
        return data_profile(self.parent)

    def without(self, run_ids: Iterable[str]) -> Store:
        """The same grid without these runs; their trials are pending."""
        left_out = set(run_ids)
        kept = {run_id: run for run_id, run in self._runs.items() if run_id not in left_out}
        return dataclasses.replace(self, _runs=kept)

    def of_kinds(self, *kinds: str) -> Store:
        """The same grid with nothing but the trials of these kinds, see `grid.controls.kind_of`."""
        tags = {run_id: run.data.tags for run_id, run in self._runs.items()}
        of_runs = {run_id: (each[names.TASK], each[names.METHOD]) for run_id, each in tags.items()}
        of_plan = {key: (trial["task"], trial["method"]) for key, trial in self._planned.items()}
        chosen = {pair for pair in {*of_runs.values(), *of_plan.values()} if kind_of(*pair) in kinds}
        if chosen.issuperset({*of_runs.values(), *of_plan.values()}):
            return self  # with the tables that it has made already
        runs = {run_id: run for run_id, run in self._runs.items() if of_runs[run_id] in chosen}
        planned = {key: trial for key, trial in self._planned.items() if of_plan[key] in chosen}
        return dataclasses.replace(self, _runs=runs, _planned=planned)

    def missing_command(self, *, task: str | None = None, variant: str | None = None) -> str:
        """The command that runs the missing trials, one line per command; "" if nothing is missing.

        It runs unfinished trials and scores finished ones under the conditions that they lack.

        Args:
            task: only trials of this task.
            variant: only trials of this variant of a method.
        """
        unscored = {run_id for run_ids in self.unscored.values() for run_id in run_ids}
        table = self._table[(self._table["state"] != FINISHED) | self._table["run_id"].isin(unscored)]
        for column, value in (("task", task), ("variant", variant)):
            if value is not None:
                table = table[table[column] == value]
        return "\n".join(self._commands(table))

    def validation_command(self, run_ids: Iterable[str]) -> str:
        """The command after which these runs have what `validation` returns, one line per command."""
        return "\n".join(self._commands(self._table[self._table["run_id"].isin(list(run_ids))]))

    def _commands(self, table: pd.DataFrame) -> list[str]:
        return launch_commands(
            table,
            mlflow_experiment=self.experiment,
            corpus=self.corpus,
            generators=train_generators(self.data_profile) or self.generators,
            untested=untested_generators(self.data_profile),
            data_folder=data_folder(self.parent),
            tags=self.parent.data.tags,
            tracking_uri=self.tracking_uri,
        )

    def _run(self, run_id: str) -> Run:
        if run_id not in self._runs:
            raise StoreError(f"no trial of {self.experiment!r} on data set {self.data} has the run id {run_id!r}")
        return self._runs[run_id]

    def broken(self, run_id: str, name: str, why: object) -> StoreError:
        """The error to raise about an unusable artifact: names the run, the reason and the remedy."""
        run = self._run(run_id)
        again = self._commands(self._table[self._table["run_id"] == run_id])
        return StoreError(
            f"{name} of run {run_id} ({run.info.run_name}) is missing or cannot be read: {why}\n"
            "If the store was moved or copied, its folder artifacts must lie beside it. Otherwise delete the run and "
            f"run its trial again:\n  {store_variable(self.tracking_uri)} mlflow runs delete --run-id {run_id}\n  "
            + "\n  ".join(again)
        )

    @cached_property
    def _table(self) -> pd.DataFrame:
        rows: dict[str, dict[str, Any]] = {
            key: {
                "run_id": "",
                "key": key,
                "task": trial["task"],
                "method": trial["method"],
                "trained_on": str(TrainSet(tuple(trial["train_generators"]))),
                "train_condition": trial.get("train_condition", CLEAN),
                "equal_size": str(EqualSize(**trial["equal_size"])) if "equal_size" in trial else "",
                "seed": int(trial["seed"]),
                "state": PENDING,
                "config": json.dumps(trial["config"], sort_keys=True),
            }
            for key, trial in self._planned.items()
        }
        for run in self._runs.values():
            try:
                row = self._row(run)
            except (KeyError, ValueError) as error:
                raise StoreError(
                    f"the tags of run {run.info.run_id} ({run.info.run_name}) in MLflow are damaged: {error}\n"
                    "Mend them in the MLflow UI, or delete the run and launch its grid again:\n"
                    f"  {store_variable(self.tracking_uri)} mlflow runs delete --run-id {run.info.run_id}"
                ) from error
            planned = rows.get(row["key"])  # what a trial is, its plan says
            rows[row["key"]] = {"config": self._config(run)} | row if planned is None else row | _identity(planned)
        table = pd.DataFrame(list(rows.values()), columns=RUN_COLUMNS)
        configs = list(zip(table["method"], variant_settings(table), strict=True))
        variants = variant_names(configs)
        table["variant"] = [variants[method_and_config] for method_and_config in configs]
        text = ["weights", "device", "node", "git_commit", "error", "url"]
        table[text] = table[text].astype("str").fillna("")
        for column in ("start", "end"):
            table[column] = pd.to_datetime(table[column], unit="ms", utc=True)
        return table.astype({"gpu_share": float, "seconds": float, "seed": int})

    def _row(self, run: Run) -> dict[str, Any]:
        tags, url = run.data.tags, f"#/experiments/{self.records.experiment_id}/runs/{run.info.run_id}"
        if self.tracking_uri.startswith("http"):
            url = f"{without_passwords(self.tracking_uri).rstrip('/')}/{url}"
        return {
            "run_id": run.info.run_id,
            "key": tags[names.KEY],
            "task": tags[names.TASK],
            "method": tags[names.METHOD],
            "trained_on": str(TrainSet.parse(tags[names.TRAIN_GENERATORS])),
            "train_condition": tags.get(names.TRAIN_CONDITION, CLEAN),
            "equal_size": tags.get(names.EQUAL_SIZE, ""),
            "seed": int(tags[names.SEED]),
            "weights": tags.get(names.WEIGHTS, ""),
            "state": state_of(run),
            "device": tags.get(names.DEVICE, ""),
            "node": tags.get(names.NODE, ""),
            "gpu_share": float(tags.get(names.GPU_SHARE, "nan")),
            "git_commit": tags.get(names.GIT_COMMIT, ""),
            "start": run.info.start_time,
            "end": run.info.end_time,
            "seconds": run.data.metrics.get(names.SECONDS, float("nan")),
            "error": tags.get(names.ERROR) or tags.get(names.CONDITION_ERROR, ""),
            "url": url,
        }

    def _config(self, run: Run) -> str:
        """The configuration of a run whose plan is lost, from its specification."""
        config: object = None
        with suppress(OSError, ValueError, KeyError, TypeError):  # a damaged file is as good as none
            config = json.loads(self.records.text(run, names.SPEC) or "{}")["config"]
        return json.dumps(config if isinstance(config, dict) else {}, sort_keys=True)


def _identity(row: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("task", "method", "trained_on", "train_condition", "equal_size", "seed", "config")
    return {name: row[name] for name in kept}


def open_store(
    experiment: str | None = None,
    *,
    tracking_uri: str | None = None,
    data: str | None = None,
    run_id: str | None = None,
    spec_version: int | None = None,
    unfinished: bool = False,
) -> Store:
    """Read one grid.

    Args:
        experiment: name of the MLflow experiment; None: the only one that holds a grid.
        tracking_uri: a local store or a server; None: MLFLOW_TRACKING_URI, else `runs/mlflow.db` of this checkout.
        data: words for the data set, such as "limit=20" (see `names.DATA_WORDS`); None: all fit. Of several that fit,
            the newest with a finished trial is read, and a warning says which and names the others.
        run_id: the data set of this run, by its id or the beginning of its id; None: as `data` says.
        spec_version: version of the specifications to read; None: the runs have one version.
        unfinished: also open a grid without a finished trial.

    Raises:
        StoreError: no store there (none is created), a server that does not answer, no such experiment or data set,
            runs of several spec versions and no choice, no finished run, or a deleted parent run.
    """
    try:
        uri = tracking_uri or default_tracking_uri(ROOT / "runs")
    except ValueError as error:  # MLFLOW_TRACKING_URI names no store that can be read
        raise StoreError(str(error)) from error
    shown = without_passwords(uri)
    records = _find_experiment(uri, experiment)
    parents, trials = records.grids(), records.trials()
    if not parents and not trials:
        raise StoreError(
            f"the MLflow experiment {records.experiment!r} at {shown} holds no grid; `python launch.py` writes one "
            "there"
        )
    of_run = {run.data.tags[names.DATA] for run in trials if run_id and run.info.run_id.startswith(run_id)}
    data = of_run.pop() if data is None and len(of_run) == 1 else data
    data_sets = list_data_sets(parents, trials)
    try:
        chosen_data, choice = choose(data_sets, data, unfinished=unfinished)
    except ValueError as error:
        raise StoreError(f"the MLflow experiment {records.experiment!r}: {error}") from error
    if choice:
        logger.warning("%r holds %s", records.experiment, choice)
    digest, tasks = chosen_data.digest, list_tasks()
    of_data = [run for run in trials if run.data.tags.get(names.DATA) == digest]
    trials = [run for run in of_data if run.data.tags[names.TASK] in tasks]
    trials = _choose_version(records.experiment, digest, trials, spec_version)
    parents = [run for run in parents if run.data.tags.get(names.DATA) == digest]
    if not parents:
        lost = trials[0].data.tags.get(names.PARENT_RUN, "?")
        raise StoreError(
            f"the parent run {lost} of the grid {records.experiment!r} on data set {digest} was deleted; restore it: "
            f"{store_variable(uri)} mlflow runs restore --run-id {lost}"
        )
    parent, chosen = parents[-1], speaking_runs(trials)
    states = Counter(map(state_of, chosen.values()))
    if not unfinished and FINISHED not in states:
        counts = ", ".join(f"{states[state]} {state}" for state in (RUNNING, INTERRUPTED, FAILED) if states[state])
        raise StoreError(
            f"no trial of {parent.info.run_name!r} (run {parent.info.run_id}) is finished yet: "
            f"{counts or 'none has started'}. `python launch.py --status` shows the progress; the launch command "
            "continues the grid"
        )
    try:
        planned = records.plan(parent)
    except StoreError as error:
        logger.warning("%s", error)
        planned = {}
    planned = {
        key: trial
        for key, trial in planned.items()
        if trial["data"] == digest and spec_version in (None, trial["version"])
    }
    unknown = Counter(trial["task"] for trial in planned.values() if trial["task"] not in tasks)
    for task, count in unknown.items():
        many = f"{count} trials are left out: this checkout does not have their"
        left_out = "1 trial is left out: this checkout does not have its" if count == 1 else many
        logger.warning("%s task %r", left_out, task)
    planned = {key: trial for key, trial in planned.items() if trial["task"] not in unknown}
    corpus = parent.data.tags[names.SOURCE]
    return Store(records, digest, corpus, parent, {run.info.run_id: run for run in chosen.values()}, planned)


def _find_experiment(uri: str, experiment: str | None) -> Records:
    check_store(uri)
    experiments, shown = list_experiments(uri), without_passwords(uri)
    listed = ", ".join(sorted(experiments)) or "none"
    if experiment is not None:
        records = open_records(uri, experiment, patient=False)
        if records is None:
            raise StoreError(f"no MLflow experiment named {experiment!r} at {shown}; there are: {listed}")
        return records
    grids = [Records(uri, number, name, patient=False) for name, number in experiments.items()]
    grids = [records for records in grids if records.grids()]
    if not grids:
        raise StoreError(
            f"no experiment at {shown} holds a grid (there are: {listed}); `python launch.py` writes one there"
        )
    if len(grids) > 1:
        listed = ", ".join(sorted(records.experiment for records in grids))
        raise StoreError(f"{shown} holds several grids; choose one with --experiment: {listed}")
    return grids[0]


def _choose_version(experiment: str, digest: str, trials: list[Run], version: int | None) -> list[Run]:
    by_version: dict[str, list[Run]] = {}
    for run in trials:
        by_version.setdefault(run.data.params.get("spec_version", "?"), []).append(run)
    if not trials or (version is None and len(by_version) == 1):
        return trials
    if str(version) in by_version:
        return by_version[str(version)]
    listed = "; ".join(
        f"version {name}: {len(runs)} run(s), such as {runs[-1].info.run_id} ({runs[-1].info.run_name})"
        for name, runs in by_version.items()
    )
    if version is not None:
        raise StoreError(f"{experiment!r} on data set {digest} has no run of spec version {version}; {listed}")
    raise StoreError(
        f"{experiment!r} on data set {digest} holds runs of several spec versions, which differ in meaning and are "
        f"never mixed; read one with --spec-version N, or delete the old runs: {listed}"
    )


def _per_epoch(run: Run) -> list[str]:
    return [name for name in run.data.metrics if not name.startswith(NOT_PER_EPOCH) and not names.parse_metric(name)]
