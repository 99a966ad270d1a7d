"""The command lines of `launch.py` that run given trials of a tracked grid."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from grid import names
from grid.experiments import list_experiments, load_experiment
from grid.spec import ATTRIBUTION, DETECTION

ROOT = Path(__file__).resolve().parents[1]


def launch_commands(
    trials: pd.DataFrame,
    *,
    experiment: str,
    corpus: str,
    generators: Iterable[str],
    data_folder: str,
    data_options: str = "",
    tracking_uri: str,
) -> list[str]:
    """As few commands as do it: methods that lack the same tasks, seeds and generators share one.

    Args:
        trials: rows of `Store.runs()` with task, method, config, trained_on and seed.
        experiment: name of the MLflow experiment.
        corpus: the data's source, which names an experiment where the MLflow experiment has a name of its own.
        generators: all generators of the data set.
        data_folder: where the images are.
        data_options: those of the launch that made the data set what it is.
        tracking_uri: of the store.
    """
    if trials.empty:
        return []
    known = experiment in list_experiments()
    called = experiment if known else corpus
    methods: Mapping[str, Mapping[str, Any]] = load_experiment(called).METHODS if called in list_experiments() else {}
    base = ["python", "launch.py", called]
    if corpus != "demo":
        base += ["--data", data_folder]
    base += shlex.split(data_options)
    if not known:
        base += ["--experiment-name", experiment]
    prefix, runs = _place(tracking_uri)
    base += runs

    everything = set(generators)
    commands: dict[tuple[Any, ...], dict[str, list[str]]] = {}
    for (method, config), rows in trials.groupby(["method", "config"], sort=False):
        tasks = tuple(task for task in (DETECTION, ATTRIBUTION) if (rows["task"] == task).any())
        seeds = tuple(sorted(rows["seed"].unique()))
        of_detection = rows.loc[rows["task"] == DETECTION, "trained_on"]
        trained = {name for text in of_detection for name in text.split(names.LIST_SEPARATOR)}
        only = tuple(sorted(trained)) if trained and trained != everything else ()
        settings = _settings(str(method), json.loads(str(config)), methods)
        turn = 0  # one command holds one configuration of a method
        while method in commands.get((tasks, seeds, only, turn), {}):
            turn += 1
        commands.setdefault((tasks, seeds, only, turn), {})[str(method)] = settings
    lines = []
    for (tasks, seeds, only, _), chosen in commands.items():
        words = [*base, "--methods", ",".join(chosen), "--seeds", *map(str, seeds)]
        if len(tasks) == 1:
            words += ["--tasks", *tasks]
        if only:
            words += ["--generators", ",".join(only)]
        lines.append(prefix + shlex.join(words + [word for words in chosen.values() for word in words]))
    return lines


def store_variable(tracking_uri: str) -> str:
    """What goes before a command for it to find the store; a password the user has."""
    return f"MLFLOW_TRACKING_URI={shlex.quote(names.without_password(tracking_uri))}"


def _place(tracking_uri: str) -> tuple[str, list[str]]:
    """What leads to a store: a variable before the command, or options of it."""
    local = tracking_uri.startswith(names.SQLITE)
    database = Path(tracking_uri.removeprefix(names.SQLITE)).resolve() if local else None
    if database is None or database.name != "mlflow.db":
        return f"{store_variable(tracking_uri)} ", []
    return "", [] if database == ROOT / "runs" / "mlflow.db" else ["--runs", str(database.parent)]


def _settings(method: str, config: Mapping[str, Any], methods: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The --set and --weights that lead from an experiment's settings of a method to this configuration."""
    from models.registry import resolve_config

    try:
        default = resolve_config(method, dict(methods.get(method, {})))
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
