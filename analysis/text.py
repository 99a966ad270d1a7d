"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Collection

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from analysis.controls import Beside, methods_alone, null_cells, null_sentences
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
from analysis.tables import cell_text, plain
from data.conditions import CLEAN
from grid.tasks import DETECTION, WHOLE, get_task, list_tasks
from grid.train_sets import TrainSet


def print_results(results: pd.DataFrame, console: Console, store: Store, beside: Beside | None = None) -> None:
    """Print every variant's cross-generator accuracy and AUROC per condition, then the accuracy of each class.

    Args:
        results: rows of `Store.results`, of methods alone.
        console: where to print.
        store: the grid without controls and references, for planned trials and the order of generators.
        beside: the references; None: there are none.
    """
    conditions = sorted(set(results["condition"]), key=lambda name: (name != CLEAN, name))
    for task in list_tasks():
        of_task = results[results["task"] == task]
        if get_task(task).is_binary:
            for variant in dict.fromkeys(of_task["variant"]):
                of_variant = of_task[of_task["variant"] == variant]
                for condition in conditions:
                    rows = of_variant[of_variant["condition"] == condition]
                    if len(rows):
                        _print_matrix(rows, str(variant), task, condition, console, store)
                        if task == DETECTION and condition == CLEAN:
                            _print_references(beside or Beside(), str(variant), console)
            continue
        for condition in conditions:
            rows = of_task[of_task["condition"] == condition]
            if len(rows):
                console.print(f"[bold]{task}[/]{_under(condition)}: {get_task(task).heading}", highlight=False)
                _print_verdict(console, store)
                whole = set(rows["tested_on"]) == {WHOLE}
                console.print(
                    _classes(rows, task, condition, store)
                    if whole
                    else _table(value_table(rows, task, condition=condition))
                )


def _print_references(beside: Beside, variant: str, console: Console) -> None:
    """The references beside a method's matrix: their means over the same cells; nothing without references."""
    means = beside.means(variant)
    if len(means):
        console.print(f"  references beside {variant}, means over the same cells; none is a method", highlight=False)
        console.print(_table(means))


def print_controls(store: Store, beside: Beside, keys: Collection[str], console: Console) -> None:
    """Print null controls under a heading of their own, then where methods are not above the references.

    Args:
        store: the grid, with its controls.
        beside: from `analysis.controls.beside_references`.
        keys: of the trials to print.
        console: where to print.
    """
    runs, cells = store.runs(), null_cells(store)
    cells = cells[cells["run_id"].isin(runs.loc[runs["key"].isin(keys), "run_id"])]
    if len(cells):
        console.print("[bold]Null controls[/]: .5 is expected; no results of detection", highlight=False)
        console.print(_table(cells.drop(columns=["run_id", "outside"])))
        for sentence in null_sentences(cells):
            console.print(f"  {sentence}", highlight=False, markup=False)
    for sentence in beside.warnings(methods_alone(store).generators):
        console.print(f"warning: {sentence}", style="yellow", highlight=False, markup=False)


def _print_verdict(console: Console, store: Store) -> None:
    """What the audits say of the data that a table rests on; nothing if that is not known."""
    if store.verdict is not None:
        console.print(f"  audit: {store.verdict}", highlight=False, markup=False)


def _under(condition: str) -> str:
    return "" if condition == CLEAN else f" under {condition}"


def _print_matrix(
    results: pd.DataFrame, variant: str, task: str, condition: str, console: Console, store: Store
) -> None:
    runs = store.runs()
    planned = runs.loc[(runs["variant"] == variant) & (runs["task"] == task), "trained_on"]
    matrix, auroc = (
        cross_generator_matrix(
            results, variant, metric, generators=store.generators, planned=planned, condition=condition, task=task
        )
        for metric in ("accuracy", "auroc")
    )
    other = "" if task == DETECTION else f" {task},"
    heading = f"[bold]{_labelled(variant, results)}[/]{_under(condition)}:{other} accuracy (AUROC); {ORIENTATION}"
    console.print(heading, highlight=False)
    _print_verdict(console, store)
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("")
    for column in matrix.columns:
        label = str(column) if len(TrainSet.parse(str(column))) else trained_on_label(str(column), store.generators)
        table.add_column(label, justify="right")
    rows = zip(matrix.index, matrix.to_numpy(), auroc.to_numpy(), in_domain_cells(matrix), strict=True)
    for row, accuracies, aurocs, in_domain in rows:
        texts = [f"{cell_text(a)} ({cell_text(b)})" for a, b in zip(accuracies, aurocs, strict=True)]
        bold = [f"[bold]{text}[/]" if mark else text for text, mark in zip(texts, in_domain, strict=True)]
        table.add_row(str(row), *bold)
    console.print(table)
    for name, values in (("accuracy", matrix), ("AUROC", auroc)):
        means = matrix_means(values).named(values)
        words = ", ".join(f"{kind} {cell_text(value)}" for kind, value in means.items())
        console.print(f"  {name}: {words}", highlight=False)
    console.print(f"  seeds: {', '.join(map(str, sorted(results['seed'].unique())))}\n", highlight=False)


def _classes(results: pd.DataFrame, task: str, condition: str, store: Store) -> Table:
    values = class_table(results, task, store.generators, condition=condition)
    labels = [_labelled(str(variant), results[results["variant"] == variant]) for variant in values.index]
    return _table(values.set_axis(labels).rename_axis(index="method").reset_index())


def _table(values: pd.DataFrame) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for column in values.columns:
        table.add_column(str(column), overflow="fold", justify="right" if values[column].dtype == float else "left")
    for row in values.itertuples(index=False, name=None):
        table.add_row(*map(plain, row))
    return table


def _labelled(variant: str, results: pd.DataFrame) -> str:
    weights = [note for note in dict.fromkeys(results["weights"]) if note]
    return f"{variant} [{'; '.join(weights)}]".replace("[", "\\[") if weights else variant
