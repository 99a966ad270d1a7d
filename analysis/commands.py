"""The command lines of `launch.py` that run given trials of a tracked grid."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from data.conditions import CLEAN
from data.sources import get_source, list_sources
from grid import names
from grid.experiments import Experiment, list_experiments, load_experiment
from grid.tasks import get_task, list_tasks
from grid.train_sets import ALL, TrainSet
from grid.uris import STORE, sqlite_file, without_password

ROOT = Path(__file__).resolve().parents[1]


def launch_commands(
    trials: pd.DataFrame,
    *,
    mlflow_experiment: str,
    corpus: str,
    generators: Iterable[str],
    data_folder: str,
    tags: Mapping[str, str],
    tracking_uri: str,
) -> list[str]:
    """As few commands as do it: methods that lack the same tasks, seeds and training sets share one.

    Args:
        trials: rows of `Store.runs()` with task, method, config, trained_on, train_condition and seed.
        mlflow_experiment: name of the MLflow experiment.
        corpus: the data's source.
        generators: all generators of the data set.
        data_folder: where the images are.
        tags: of the grid's run, which say what made it.
        tracking_uri: of the store.
    """
    if trials.empty:
        return []
    experiment = _experiment(tags.get(names.EXPERIMENT) or mlflow_experiment, corpus)
    base = ["python", "launch.py", experiment.name]
    if experiment.source not in list_sources() or get_source(experiment.source).drawn is None:
        base += ["--data", data_folder]
    conditions = tags.get(names.CONDITIONS, "")
    base += ["--conditions", conditions] if conditions else []
    base += shlex.split(tags.get(names.OPTIONS) or tags.get(names.DATA_OPTIONS, ""))
    if experiment.name != mlflow_experiment:
        base += ["--experiment-name", mlflow_experiment]
    prefix, runs = _store_options(tracking_uri)
    base += runs

    everything = sorted(generators)
    commands: dict[tuple[Any, ...], dict[str, list[str]]] = {}
    by = ["method", "config", "train_condition"]
    for (method, config, train_condition), rows in trials.groupby(by, sort=False):
        tasks = tuple(task for task in list_tasks() if (rows["task"] == task).any())
        seeds = tuple(sorted(rows["seed"].unique()))
        train_on = _train_on(rows, everything)
        settings = _settings(str(method), json.loads(str(config)), experiment)
        turn = 0  # one command holds one configuration of a method
        while method in commands.get((tasks, seeds, train_on, train_condition, turn), {}):
            turn += 1
        commands.setdefault((tasks, seeds, train_on, train_condition, turn), {})[str(method)] = settings
    lines = []
    for (tasks, seeds, train_on, train_condition, _), chosen in commands.items():
        words = [*base, "--methods", ",".join(chosen), "--seeds", *map(str, seeds)]
        if tasks != tuple(list_tasks()[:2]):
            words += ["--tasks", ",".join(tasks)]
        words += ["--train-on", train_on] if train_on else []
        words += ["--train-condition", str(train_condition)] if train_condition != CLEAN else []
        lines.append(prefix + shlex.join(words + [word for words in chosen.values() for word in words]))
    return lines


def store_variable(tracking_uri: str) -> str:
    """What goes before a command for it to find the store; a password the user has."""
    return f"MLFLOW_TRACKING_URI={shlex.quote(without_password(tracking_uri))}"


def _experiment(name: str, corpus: str) -> Experiment:
    """The experiment that made a grid; of grids that do not say it, the one of that name or of the corpus."""
    known = list_experiments()
    for candidate in (name, corpus):
        if candidate in known:
            return load_experiment(candidate)
    return Experiment(corpus, source=corpus, methods={})


def _train_on(rows: pd.DataFrame, everything: list[str]) -> str:
    """The argument of --train-on for these trials; "" where each task's own training sets are meant."""
    by_task = {task: {TrainSet.parse(text) for text in of_task["trained_on"]} for task, of_task in rows.groupby("task")}
    words: dict[str, None] = {}
    for task, sets in by_task.items():
        own = set(get_task(str(task)).train_sets(None, everything))
        free = {train for train in sets if train.generators}  # without generators, a method is trained on none anyway
        if not free or free == own:
            continue
        for train in sorted(free):
            words[ALL if train.generators == tuple(everything) and len(everything) > 1 else str(train)] = None
    return ",".join(words)


def _store_options(tracking_uri: str) -> tuple[str, list[str]]:
    """What leads to a store: a variable before the command, or options of it."""
    file = sqlite_file(tracking_uri)
    if file is None or file.name != STORE or "?" in tracking_uri:
        return f"{store_variable(tracking_uri)} ", []
    folder = file.resolve().parent
    return "", [] if folder == ROOT / "runs" else ["--runs", str(folder)]


def _settings(method: str, config: Mapping[str, Any], experiment: Experiment) -> list[str]:
    """The --set and --weights that lead from an experiment's settings of a method to this configuration."""
    from models.registry import detector_info, resolve_config

    try:
        small = detector_info(method).small if experiment.small else {}
        default = resolve_config(method, {**small, **experiment.methods.get(method, {})})
    except (KeyError, ValueError):
        default = {}
    words: list[str] = []
    for name, value in config.items():
        if name in default and default[name] == value:
            continue
        if name == "weights":
            words += ["--weights", f"{method}={'FILE' if str(value).startswith('file:') else value}"]
        else:
            words += ["--set", f"{method}.{name}={value}"]
    return words
