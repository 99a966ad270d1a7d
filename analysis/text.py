"""Tables for the terminal."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection

import numpy as np
import pandas as pd
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

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
from analysis.open_set import logged_table, logged_verdicts
from analysis.robustness import ordered
from analysis.store import Store
from analysis.tables import cell_text, plain
from analysis.variants import label_of
from data.conditions import CLEAN
from grid.command_line import print_wrapped
from grid.equal_size import EqualSize
from grid.overview import seeds_in_words
from grid.tasks import DETECTION, OPEN_SET, WHOLE, get_task, list_tasks
from grid.train_sets import TrainSet
from models.metrics import AT_VALIDATION, in_words
from models.registry import depends_on_seed, gives_log_odds

# Of binary tasks: all metrics that are printed. See `_accuracy` for the second.
PRINTED = ("accuracy", f"accuracy{AT_VALIDATION}", "auroc")
MOST_MATRICES = 3  # conditions besides "clean"; of more, the terminal has means, and the report the matrices


def print_results(results: pd.DataFrame, console: Console, store: Store, beside: Beside | None = None) -> None:
    """Print every variant's cross-generator accuracy and AUROC per condition, then the accuracy of each class.

    Where results are of many conditions, a matrix of clean pictures and a table with a row per condition are printed.

    Args:
        results: rows of `Store.results`, of methods alone; of binary tasks, the metrics `PRINTED` are enough.
        console: where to print.
        store: the grid without controls and references, for planned trials and the order of generators.
        beside: the references; None: there are none.
    """
    conditions = ordered(sorted(results["condition"].unique()))
    many = len(conditions) > MOST_MATRICES + 1
    for task in list_tasks():
        of_task = results[results["task"] == task]
        if get_task(task).is_binary:
            for variant in of_task["variant"].unique():
                of_variant = of_task[of_task["variant"] == variant]
                for condition in [CLEAN] if many else conditions:
                    rows = of_variant[of_variant["condition"] == condition]
                    if len(rows):
                        _print_matrix(rows, str(variant), task, condition, console, store)
                        if task == DETECTION and condition == CLEAN:
                            _print_references(beside or Beside(), str(variant), console)
                if many:
                    _print_means(of_variant, str(variant), task, conditions, console, store)
            continue
        if many and len(of_task):
            _print_overall(of_task, task, conditions, console)
        for condition in [CLEAN] if many else conditions:
            rows = of_task[of_task["condition"] == condition]
            if len(rows):
                console.print(f"[bold]{task}[/]{_under(condition)}: {get_task(task).heading}", highlight=False)
                _print_verdict(console, store)
                _print_labels(rows, console)
                if task == OPEN_SET:
                    _print_open_set(rows, condition, console, store)
                    continue
                whole = set(rows["tested_on"].unique()) == {WHOLE}
                of_classes = _classes(rows, task, condition, store) if whole else None
                _print_table(
                    value_table(rows, task, condition=condition) if of_classes is None else of_classes, console
                )


def _print_references(beside: Beside, variant: str, console: Console) -> None:
    """The references beside a method's matrix: their means over the same cells; nothing without references."""
    means = beside.means(variant)
    if len(means):
        console.print(f"  references beside {variant}, means over the same cells; none is a method", highlight=False)
        _print_table(means, console)


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
        groups = cells.groupby(["task", "variant"], sort=False)
        counts = groups["outside"].agg(["size", "sum"]).astype(int).astype(str)
        counts["mean"] = groups["value"].mean()
        shown = counts.rename(columns={"size": "values", "sum": "outside"})
        _print_table(shown.reset_index().rename(columns={"task": "control", "variant": "method"}), console)
        for sentence in null_sentences(cells):
            console.print(Padding(Text(sentence), (0, 0, 0, 2)))
    sentences = beside.brief(methods_alone(store).generators)
    for sentence in sentences:
        print_wrapped(f"warning: {sentence}", console, style="yellow")
    if sentences:
        console.print("  the report lists these cells, under “Controls”", highlight=False)


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
    accuracy, words = _accuracy(results)
    matrix, auroc = (
        cross_generator_matrix(
            results, variant, metric, generators=store.generators, planned=planned, condition=condition, task=task
        )
        for metric in (accuracy, "auroc")
    )
    other = "" if task == DETECTION else f" {task},"
    heading = f"[bold]{_labelled(variant, results)}[/]{_under(condition)}:{other} {words} (AUROC); {ORIENTATION}"
    console.print(heading, highlight=False)
    _print_verdict(console, store)
    texts = matrix.map(cell_text) + " (" + auroc.map(cell_text) + ")"
    texts = texts.mask(in_domain_cells(matrix), "[bold]" + texts + "[/]")
    for table in _as_few(len(texts.columns), lambda part: _matrix_table(texts.iloc[:, part], store), console):
        console.print(table)
    for part, columns in _kinds(matrix):
        for name, values in ((words, matrix[columns]), ("AUROC", auroc[columns])):
            means = matrix_means(values).named(values)
            shown = ", ".join(f"{kind} {cell_text(value)}" for kind, value in means.items())
            console.print(f"  {name}{part}: {shown}", highlight=False)
    for size in filter(None, results["equal_size"].unique()):
        console.print(f"  every training set: {EqualSize.parse(size).words} (launch.py --equal-size)", highlight=False)
    console.print(f"  {_seeds(results)}\n", highlight=False)


def _kinds(matrix: pd.DataFrame) -> list[tuple[str, list[str]]]:
    """Columns whose means belong together: those of one generator and those of several, in words, if there are both."""
    columns = [str(column) for column in matrix.columns]
    several = [column for column in columns if len(TrainSet.parse(column)) > 1]
    single = [column for column in columns if column not in several]
    if not single or not several:
        return [("", columns)]
    return [(", trained on one generator", single), (", trained on several generators", several)]


def _seeds(results: pd.DataFrame) -> str:
    """The seeds behind a table of one variant."""
    seeds = sorted(map(int, results["seed"].unique()))
    first = results.iloc[0]
    if not depends_on_seed(str(first["method"]), json.loads(str(first["config"]))):
        return f"{'' if len(seeds) == 1 else 'seeds: '}{seeds_in_words(seeds)}; the method does not depend on the seed"
    return seeds_in_words(seeds) if len(seeds) == 1 else f"seeds: {seeds_in_words(seeds)}"


def _matrix_table(texts: pd.DataFrame, store: Store) -> Table:
    """One column per training set, headed in words."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("", no_wrap=True)
    for column in texts.columns:
        label = trained_on_label(str(column), store.generators)
        whole = [*label.split(), *(Text.from_markup(text).plain for text in texts[column])]  # no line breaks inside
        table.add_column(escape(label), justify="right", min_width=max(map(len, whole)))
    for row, values in zip(texts.index, texts.to_numpy().tolist(), strict=True):
        table.add_row(escape(str(row)), *values)
    return table


def _accuracy(results: pd.DataFrame) -> tuple[str, str]:
    """The accuracy that stands in the matrix of a variant, and its words: at p = 0.5 where its score is a log-odds."""
    if gives_log_odds(str(results["method"].iloc[0])):
        return "accuracy", "accuracy"
    metric = f"accuracy{AT_VALIDATION}"
    return metric, in_words(metric)


def _print_means(
    results: pd.DataFrame, variant: str, task: str, conditions: list[str], console: Console, store: Store
) -> None:
    """A row per condition: the means of the matrices of accuracy and of AUROC."""
    rows = []
    for condition in conditions:
        of_condition = results[results["condition"] == condition]
        if of_condition.empty:
            continue
        row: dict[str, object] = {"condition": condition}
        accuracy, in_heading = _accuracy(of_condition)
        for words, metric in ((in_heading, accuracy), ("AUROC", "auroc")):
            matrix = cross_generator_matrix(
                of_condition, variant, metric, generators=store.generators, condition=condition, task=task
            )
            means = matrix_means(matrix)
            row |= {f"{words}, in-domain": means.in_domain, f"{words}, cross-generator": means.cross_generator}
        rows.append(row)
    console.print(f"[bold]{_labelled(variant, results)}[/] under conditions: means over the cells", highlight=False)
    _print_table(pd.DataFrame(rows), console)


def _print_overall(results: pd.DataFrame, task: str, conditions: list[str], console: Console) -> None:
    """A row per condition: the accuracy of each method over all classes."""
    overall = results[results["metric"] == "accuracy"]
    means = overall.pivot_table(index="condition", columns="variant", values="value", aggfunc="mean", sort=False)
    means = means.reindex([condition for condition in conditions if condition in means.index])
    console.print(f"[bold]{task}[/] under conditions: accuracy over all classes", highlight=False)
    _print_table(means.rename_axis(index="condition").reset_index(), console)


def _classes(results: pd.DataFrame, task: str, condition: str, store: Store) -> pd.DataFrame:
    return class_table(results, task, store.generators, condition=condition).rename_axis(index="method").reset_index()


def _print_open_set(results: pd.DataFrame, condition: str, console: Console, store: Store) -> None:
    table = logged_table(results, store, condition=condition)
    _print_table(table, console)
    for sentence in logged_verdicts(table):
        console.print(Padding(Text(sentence), (0, 0, 0, 2)))
    console.print()


def _print_labels(results: pd.DataFrame, console: Console) -> None:
    """Which backbones and weights stand behind the names of a table."""
    for variant in results["variant"].unique():
        of_variant = results[results["variant"] == variant]
        if (label := label_of(str(variant), of_variant)) != variant:
            console.print(f"  {label}", highlight=False, markup=False)


def _print_table(values: pd.DataFrame, console: Console) -> None:
    """Print a frame; where its numbers do not fit, as several tables, each of which begins with the names."""
    numbers = [column for column in values.columns if values[column].dtype == float]
    names = [column for column in values.columns if column not in numbers]
    for table in _as_few(
        len(numbers), lambda part: _table(values[[*names, *(numbers[number] for number in part)]]), console
    ):
        console.print(table)


def _table(values: pd.DataFrame) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for column in values.columns:
        words = [*str(column).split(), *(plain(value) for value in values[column])]
        table.add_column(
            escape(str(column)),
            justify="right" if values[column].dtype == float else "left",
            overflow="fold",
            min_width=max(map(len, words), default=0),  # no line breaks inside names and numbers
        )
    for row in values.itertuples(index=False, name=None):
        table.add_row(*(escape(plain(value)) for value in row))
    return table


def _as_few(num_columns: int, build: Callable[[np.ndarray], Table], console: Console) -> list[Table]:
    """As few tables as fit into the console's width, each of some of the columns; `build` takes their numbers."""
    wide = console.options.update_width(100_000)
    for count in range(1, max(num_columns, 1) + 1):
        tables = [build(part) for part in np.array_split(np.arange(num_columns), count)]
        if all(Measurement.get(console, wide, table).minimum <= console.width for table in tables):
            break
    for table in tables:
        if Measurement.get(console, wide, table).maximum > console.width:
            for column in table.columns:  # else Rich makes some of them narrower than their `min_width`
                column.width = column.min_width
    return tables


def _labelled(variant: str, results: pd.DataFrame) -> str:
    return label_of(variant, results).replace("[", "\\[")
