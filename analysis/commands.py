"""Command lines of `launch.py` that run given trials of a tracked grid."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from data.addresses import without_passwords
from data.conditions import CLEAN, is_condition
from data.sources import get_source, list_sources
from grid import names
from grid.experiments import Experiment, list_experiments, load_experiment
from grid.tasks import get_task, list_tasks, to_train_on
from grid.train_sets import ALL, TrainSet
from grid.uris import STORE, sqlite_file, store_variable
from models.registry import depends_on_seed

ROOT = Path(__file__).resolve().parents[1]


def launch_commands(
    trials: pd.DataFrame,
    *,
    mlflow_experiment: str,
    corpus: str,
    generators: Iterable[str],
    untested: Collection[str] = (),
    data_folder: str,
    tags: Mapping[str, str],
    tracking_uri: str,
) -> list[str]:
    """Commands that run exactly these trials; methods that lack the same tasks, seeds and training sets share one.

    Args:
        trials: rows of `Store.runs()` with task, method, config, trained_on, train_condition, equal_size and seed.
        mlflow_experiment: name of the MLflow experiment.
        corpus: the data set's source.
        generators: those of the data set that can be trained on.
        untested: generators without test images.
        data_folder: folder of the images.
        tags: tags of the grid's run, with the experiment and options that made it.
        tracking_uri: of the store.
    """
    if trials.empty:
        return []
    experiment = _experiment(tags.get(names.EXPERIMENT) or mlflow_experiment, corpus)
    prefix, store_options = _store_options(tracking_uri)
    base = ["python", "launch.py", experiment.name]
    base += [] if _is_drawn(experiment.source, data_folder) else ["--data", data_folder]
    conditions = [name for name in tags.get(names.CONDITIONS, "").split(",") if is_condition(name)]
    base += ["--conditions", ",".join(conditions)] if conditions else []
    options = shlex.split(tags.get(names.OPTIONS) or tags.get(names.DATA_OPTIONS, ""))
    if experiment.name != mlflow_experiment:
        store_options = ["--experiment-name", mlflow_experiment, *store_options]

    parts = to_train_on(list_tasks(), sorted(generators), untested)
    generators_of = {task: names_ for tasks, names_ in parts for task in tasks}
    commands: dict[tuple[Any, ...], dict[str, list[str]]] = {}  # what a command runs -> method -> its settings
    by = ["method", "config", "train_condition", "equal_size"]
    for (method, config, *condition_and_size), rows in trials.groupby(by, sort=False):
        settings = _settings(str(method), json.loads(str(config)), experiment)
        products = _products(rows, generators_of)
        if not depends_on_seed(str(method), json.loads(str(config))):  # a command runs it with its first seed alone
            products = [(tasks, (seed,), train_on) for tasks, seeds, train_on in products for seed in seeds]
        for product in products:
            number = 0  # a command holds one configuration of a method
            while method in commands.get((*product, *condition_and_size, number), {}):
                number += 1
            commands.setdefault((*product, *condition_and_size, number), {})[str(method)] = settings
    lines = []
    for (tasks, seeds, train_on, train_condition, equal_size, _), methods in commands.items():
        words = [*base, *_options_of(methods, options), *store_options]
        words += ["--methods", ",".join(methods), "--seeds", *map(str, seeds)]
        words += ["--tasks", ",".join(tasks)] if tasks != tuple(experiment.tasks) else []
        words += ["--train-on", train_on] if train_on else []
        words += ["--train-condition", str(train_condition)] if train_condition != CLEAN else []
        words += ["--equal-size", str(equal_size)] if equal_size else []
        lines.append(prefix + shlex.join(words + [word for settings in methods.values() for word in settings]))
    return lines


def _experiment(name: str, corpus: str) -> Experiment:
    """The experiment that made a grid; for older grids, which do not name it, that of the grid's name or corpus."""
    for candidate in (name, corpus):
        if candidate in list_experiments():
            return load_experiment(candidate)
    return Experiment(corpus, source=corpus, methods={})


def _is_drawn(corpus: str, data_folder: str) -> bool:
    """Whether the images were drawn by the software itself."""
    drawn = get_source(corpus).drawn if corpus in list_sources() else None
    return drawn is not None and Path(data_folder).name == drawn.folder(Path()).name


def _products(
    rows: pd.DataFrame, generators_of: Mapping[str, list[str]]
) -> list[tuple[tuple[str, ...], tuple[int, ...], str]]:
    """The trials of one method as products of tasks and seeds, each with the argument of --train-on.

    `generators_of` has the generators that trials of a task may be trained on.
    """
    seeds_of: dict[tuple[tuple[str, ...], str], list[int]] = {}
    for seed, of_seed in rows.groupby("seed"):
        tasks_of: dict[str, list[str]] = {}
        for task in list_tasks():
            train_sets = {TrainSet.parse(str(text)) for text in of_seed.loc[of_seed["task"] == task, "trained_on"]}
            if train_sets:
                own = generators_of[task]
                matches = [train_on for train_on in tasks_of if _gives(train_on, task, train_sets, own)]
                train_on = matches[0] if matches else _train_on(task, train_sets, own)
                tasks_of.setdefault(train_on, []).append(task)
        for train_on, tasks in tasks_of.items():
            seeds_of.setdefault((tuple(tasks), train_on), []).append(int(str(seed)))
    return [(tasks, tuple(seeds), train_on) for (tasks, train_on), seeds in seeds_of.items()]


def _gives(train_on: str, task: str, train_sets: set[TrainSet], all_generators: list[str]) -> bool:
    """Whether an argument of --train-on gives these training sets of a task; "" is no argument.

    A method that needs no fakes is trained on none, whatever the argument.
    """
    with_fakes = {train for train in train_sets if train.generators}
    return not with_fakes or set(get_task(task).train_sets(train_on or None, all_generators)) == with_fakes


def _train_on(task: str, train_sets: set[TrainSet], all_generators: list[str]) -> str:
    """The argument of --train-on for these training sets; "" if they are the task's default."""
    if _gives("", task, train_sets, all_generators):
        return ""
    whole = tuple(all_generators) if len(all_generators) > 1 else None
    return ",".join(ALL if train.generators == whole else str(train) for train in sorted(train_sets))


def _options_of(methods: Collection[str], options: list[str]) -> list[str]:
    """The options without the settings of other methods, which launch.py would refuse."""
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
    """What leads a command to the store: a variable before it, and options."""
    file = sqlite_file(tracking_uri)
    if file is None or file.name != STORE or "?" in tracking_uri:
        return f"{store_variable(tracking_uri)} ", []
    folder = file.resolve().parent
    return "", [] if folder == ROOT / "runs" else ["--runs", str(folder)]


def _settings(method: str, config: Mapping[str, Any], experiment: Experiment) -> list[str]:
    """The --set and --weights that turn an experiment's settings of a method into this configuration."""
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
        if name.endswith("weights"):
            target = method if name == "weights" else f"{method}.{name}"
            words += ["--weights", f"{target}={'FILE' if str(value).startswith('file:') else value}"]
        else:
            words += ["--set", f"{method}.{name}={value}"]
    return words


def explore_command(options: argparse.Namespace) -> str:
    """The command of the page to click in for the grid of a report, with the options that both commands have."""
    words = [str(_python()), "-m", "analysis", "explore"]
    for option in ("experiment", "tracking_uri", "data", "spec_version", "images", "cache"):
        if (value := getattr(options, option)) is not None:
            words += [f"--{option.replace('_', '-')}", without_passwords(str(value))]
    return shlex.join(words)


def _python() -> Path:
    """This Python, as a path that can be typed here."""
    python = Path(sys.executable)
    return python.relative_to(Path.cwd()) if python.is_relative_to(Path.cwd()) else python


def next_commands(uri: str, experiment: str, cache: Path) -> dict[str, str]:
    """The commands that a person may want next: the report's, and the MLflow UI's or the server's address.

    Args:
        uri: tracking URI.
        experiment: of MLflow.
        cache: the launch's; named where the report would not look for it.
    """
    shown, python = without_passwords(uri), _python()
    report = [str(python), "-m", "analysis", "--experiment", experiment]
    if uri != f"sqlite:///{Path('runs', 'mlflow.db').resolve()}":
        report += ["--tracking-uri", shown]
    file = sqlite_file(uri)
    if file is None or cache.absolute() != file.parent.absolute() / "cache":
        report += ["--cache", str(cache)]
    local = shlex.join([str(python.with_name("mlflow")), "ui", "--backend-store-uri", shown])
    return {"report:": shlex.join(report), "MLflow UI:": shown if uri.startswith("http") else local}
