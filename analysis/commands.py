"""The command lines of `launch.py` that run given trials of a tracked grid."""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Iterable, Mapping
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
    """Commands that run these trials and no others; methods that lack the same tasks, seeds and sets share one.

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
    base += [] if _is_drawn(experiment.source, data_folder) else ["--data", data_folder]
    conditions = tags.get(names.CONDITIONS, "")
    base += ["--conditions", conditions] if conditions else []
    options = shlex.split(tags.get(names.OPTIONS) or tags.get(names.DATA_OPTIONS, ""))
    prefix, place = _store_options(tracking_uri)
    if experiment.name != mlflow_experiment:
        place = ["--experiment-name", mlflow_experiment, *place]

    everything = sorted(generators)
    commands: dict[tuple[Any, ...], dict[str, list[str]]] = {}
    by = ["method", "config", "train_condition"]
    for (method, config, train_condition), rows in trials.groupby(by, sort=False):
        settings = _settings(str(method), json.loads(str(config)), experiment)
        for product in _products(rows, everything):
            turn = 0  # one command holds one configuration of a method
            while method in commands.get((*product, train_condition, turn), {}):
                turn += 1
            commands.setdefault((*product, train_condition, turn), {})[str(method)] = settings
    lines = []
    for (tasks, seeds, train_on, train_condition, _), chosen in commands.items():
        words = [*base, *_about(options, chosen), *place, "--methods", ",".join(chosen), "--seeds", *map(str, seeds)]
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
    experiments = list_experiments()
    for candidate in (name, corpus):
        if candidate in experiments:
            return load_experiment(candidate)
    return Experiment(corpus, source=corpus, methods={})


def _is_drawn(corpus: str, data_folder: str) -> bool:
    """Whether the software makes the images itself, and did."""
    drawn = get_source(corpus).drawn if corpus in list_sources() else None
    return drawn is not None and Path(data_folder).name == drawn.folder(Path()).name


def _products(rows: pd.DataFrame, everything: list[str]) -> list[tuple[tuple[str, ...], tuple[int, ...], str]]:
    """The trials of one method as products of tasks and seeds, each with the argument of --train-on."""
    seeds_of: dict[tuple[tuple[str, ...], str], list[int]] = {}
    for seed, of_seed in rows.groupby("seed"):
        tasks_of: dict[str, list[str]] = {}
        for task in list_tasks():
            of_task = {TrainSet.parse(str(text)) for text in of_seed.loc[of_seed["task"] == task, "trained_on"]}
            if of_task:
                fitting = [train_on for train_on in tasks_of if _means(train_on, task, of_task, everything)]
                train_on = fitting[0] if fitting else _train_on(task, of_task, everything)
                tasks_of.setdefault(train_on, []).append(task)
        for train_on, tasks in tasks_of.items():
            seeds_of.setdefault((tuple(tasks), train_on), []).append(int(str(seed)))
    return [(tasks, tuple(seeds), train_on) for (tasks, train_on), seeds in seeds_of.items()]


def _means(train_on: str, task: str, wanted: set[TrainSet], everything: list[str]) -> bool:
    """Whether an argument of --train-on gives these training sets of a task; "" is none given.

    Without generators, a method is trained on none whatever the argument.
    """
    free = {train for train in wanted if train.generators}
    return not free or set(get_task(task).train_sets(train_on or None, everything)) == free


def _train_on(task: str, wanted: set[TrainSet], everything: list[str]) -> str:
    """The argument of --train-on for these training sets; "" where the task's own are meant."""
    if _means("", task, wanted, everything):
        return ""
    whole = tuple(everything) if len(everything) > 1 else None
    return ",".join(ALL if train.generators == whole else str(train) for train in sorted(wanted))


def _about(options: list[str], methods: Collection[str]) -> list[str]:
    """The options without what they set for other methods, which launch.py would refuse."""
    kept, words = list[str](), iter(options)
    for word in words:
        if word != "--set":
            kept.append(word)
            continue
        setting = next(words, "")
        if setting.partition("=")[0].rpartition(".")[0] in methods:
            kept += [word, setting]
    return kept


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
