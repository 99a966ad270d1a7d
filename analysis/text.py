"""Tables for the terminal."""

from __future__ import annotations

import math

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from analysis.matrices import ORIENTATION, attribution_table, cross_generator_matrix, matrix_means


def print_results(results: pd.DataFrame, console: Console) -> None:
    """Print every method's cross-generator accuracy and AUROC, then attribution; says where weights are random."""
    detection = results[results["task"] == "detection"]
    for method in dict.fromkeys(detection["method"]):
        _print_matrix(detection, method, console)
    if (results["task"] == "attribution").any():
        console.print("[bold]attribution[/]: accuracy over all classes, and of each class")
        console.print(_attribution(results))


def _print_matrix(results: pd.DataFrame, method: str, console: Console) -> None:
    of_method = results[results["method"] == method]
    matrix = cross_generator_matrix(results, method)
    auroc = cross_generator_matrix(results, method, "auroc")
    console.print(f"[bold]{_labelled(method, of_method)}[/]: accuracy (AUROC); {ORIENTATION}", highlight=False)
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("")
    for column in matrix.columns:
        table.add_column(str(column), justify="right")
    for row, accuracies, aurocs in zip(matrix.index, matrix.to_numpy(), auroc.to_numpy(), strict=True):
        in_domain = [row in str(column).split("+") for column in matrix.columns]
        table.add_row(str(row), *map(_cell, accuracies, aurocs, in_domain))
    console.print(table)
    for name, values in (("accuracy", matrix), ("AUROC", auroc)):
        means = matrix_means(values)
        console.print(
            f"  {name}: in-domain mean {_figure(means.in_domain)}, cross-generator mean "
            f"{_figure(means.cross_generator)}, gap {_figure(means.gap)}",
            highlight=False,
        )
    console.print(f"  seeds: {', '.join(map(str, sorted(of_method['seed'].unique())))}\n", highlight=False)


def _attribution(results: pd.DataFrame) -> Table:
    figures = attribution_table(results)
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("method", overflow="fold")
    for column in figures.columns:
        table.add_column(str(column), justify="right")
    for method, row in figures.iterrows():
        table.add_row(_labelled(str(method), results[results["method"] == method]), *map(_figure, row))
    return table


def _labelled(method: str, results: pd.DataFrame) -> str:
    weights = [note for note in dict.fromkeys(results["weights"]) if note]
    return f"{method} [{'; '.join(weights)}]".replace("[", "\\[") if weights else method


def _cell(accuracy: float, auroc: float, in_domain: bool) -> str:
    text = f"{_figure(accuracy)} ({_figure(auroc)})"
    return f"[bold]{text}[/]" if in_domain else text


def _figure(value: float) -> str:
    return "missing" if math.isnan(value) else f"{value:.3f}"
