"""Tables for the terminal."""

from __future__ import annotations

import math

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from analysis.matrices import (
    ORIENTATION,
    class_table,
    cross_generator_matrix,
    in_domain_cells,
    matrix_means,
    trained_on_label,
    value_table,
)
from analysis.store import Store
from data.conditions import CLEAN
from grid.tasks import WHOLE, get_task, list_tasks
from grid.train_sets import TrainSet


def print_results(results: pd.DataFrame, console: Console, store: Store) -> None:
    """Print every variant's cross-generator accuracy and AUROC by condition, then accuracies of each class.

    Args:
        results: rows of `Store.results`.
        console: where to.
        store: the grid, for what was planned and for the order of generators.
    """
    conditions = dict.fromkeys(results["condition"])
    for task in list_tasks():
        of_task = results[results["task"] == task]
        if of_task.empty:
            continue
        if not get_task(task).is_binary:
            console.print(f"[bold]{task}[/]: {get_task(task).heading}")
            whole = set(of_task["tested_on"]) == {WHOLE}
            console.print(_classes(of_task, task, store) if whole else _values(of_task, task))
            continue
        for variant in dict.fromkeys(of_task["variant"]):
            for condition in sorted(conditions, key=lambda name: (name != CLEAN, name)):
                rows = of_task[(of_task["variant"] == variant) & (of_task["condition"] == condition)]
                if len(rows):
                    _print_matrix(rows, str(variant), condition, console, store)


def _print_matrix(results: pd.DataFrame, variant: str, condition: str, console: Console, store: Store) -> None:
    runs = store.runs()
    planned = runs.loc[(runs["variant"] == variant) & runs["task"].isin(results["task"]), "trained_on"]
    matrix, auroc = (
        cross_generator_matrix(
            results, variant, metric, generators=store.generators, planned=planned, condition=condition
        )
        for metric in ("accuracy", "auroc")
    )
    under = "" if condition == CLEAN else f" under {condition}"
    heading = f"[bold]{_labelled(variant, results)}[/]{under}: accuracy (AUROC); {ORIENTATION}"
    console.print(heading, highlight=False)
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("")
    for column in matrix.columns:
        label = str(column) if len(TrainSet.parse(str(column))) else trained_on_label(str(column), store.generators)
        table.add_column(label, justify="right")
    in_domain = in_domain_cells(matrix)
    for row, accuracies, aurocs, own in zip(matrix.index, matrix.to_numpy(), auroc.to_numpy(), in_domain, strict=True):
        table.add_row(str(row), *map(_cell, accuracies, aurocs, own))
    console.print(table)
    for name, values in (("accuracy", matrix), ("AUROC", auroc)):
        means = matrix_means(values).named(values)
        words = ", ".join(f"{kind} {_text(value)}" for kind, value in means.items())
        console.print(f"  {name}: {words}", highlight=False)
    console.print(f"  seeds: {', '.join(map(str, sorted(results['seed'].unique())))}\n", highlight=False)


def _classes(results: pd.DataFrame, task: str, store: Store) -> Table:
    values = class_table(results, task, store.generators)
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("method", overflow="fold")
    for column in values.columns:
        table.add_column(str(column), justify="right")
    for variant, row in values.iterrows():
        table.add_row(_labelled(str(variant), results[results["variant"] == variant]), *map(_text, row))
    return table


def _values(results: pd.DataFrame, task: str) -> Table:
    values = value_table(results, task)
    table = Table(box=box.SIMPLE_HEAD)
    for column in values.columns:
        table.add_column(str(column), overflow="fold", justify="right" if values[column].dtype == float else "left")
    for row in values.itertuples(index=False):
        table.add_row(*(_text(value) if isinstance(value, float) else str(value) for value in row))
    return table


def _labelled(variant: str, results: pd.DataFrame) -> str:
    weights = [note for note in dict.fromkeys(results["weights"]) if note]
    return f"{variant} [{'; '.join(weights)}]".replace("[", "\\[") if weights else variant


def _cell(accuracy: float, auroc: float, in_domain: bool) -> str:
    text = f"{_text(accuracy)} ({_text(auroc)})"
    return f"[bold]{text}[/]" if in_domain else text


def _text(value: float) -> str:
    return "missing" if math.isnan(value) else f"{value:.3f}"
