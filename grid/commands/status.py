"""Progress of an experiment's grids, from MLflow alone."""

from __future__ import annotations

import argparse
import shlex
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from data.addresses import without_passwords
from grid.commands import OK, BadInputError, Context, register_command
from grid.options import ROOT, add_experiment
from grid.uris import tracking_uri

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console


def add_options(parser: argparse.ArgumentParser) -> None:
    """Which grid."""
    from pathlib import Path

    add_experiment(parser)
    parser.add_argument(
        "--experiment-name", metavar="NAME", help="name of the MLflow experiment; default: the experiment's name"
    )
    parser.add_argument("--runs", type=Path, default=ROOT / "runs", metavar="DIR", help="MLflow's local store")


@register_command("status", add_options)
def status(options: argparse.Namespace, context: Context) -> int:
    """Print a grid's progress; starts nothing."""
    runs: Path = options.runs.resolve()
    try:
        uri = tracking_uri(runs)
    except ValueError as error:  # a path that no store can have
        raise BadInputError(str(error)) from error
    return print_status(options.experiment_name or options.experiment, uri, context.console)


def print_status(name: str, uri: str, console: Console) -> int:
    """The trials of each of an experiment's grids, with their states.

    Args:
        name: of the MLflow experiment.
        uri: tracking URI.
        console: where to.

    Raises:
        BadInputError: nothing was launched there yet, or MLflow cannot be read.
    """
    from rich.markup import escape
    from rich.table import Table

    from data.conditions import CLEAN
    from grid import names
    from grid.controls import task_words
    from grid.datasets import list_data_sets
    from grid.launches import newest_launch
    from grid.plan import INTERRUPTED, RUNNING, make_plan
    from grid.records import StoreError, conditions_of, damaged_plan, open_records, speaking_runs, trial_state
    from grid.spec import TrialSpec
    from grid.tasks import list_tasks

    try:
        records = open_records(uri, name)
        if records is None:
            raise BadInputError(
                f"no MLflow experiment named {name!r} at {without_passwords(uri)}; nothing was launched there yet"
                + _others(uri)
            )
        grids, all_trials = records.grids(), records.trials()
        runs = speaking_runs(all_trials)
        known = {key: trial_state(run) for key, run in runs.items()}
        data_sets = {data.digest: data for data in list_data_sets(grids, all_trials)}
        for grid in reversed(grids):
            planned = records.plan(grid).values()
            try:
                trials = [TrialSpec.from_dict(fields) for fields in planned if fields["task"] in list_tasks()]
            except (TypeError, ValueError) as error:
                raise damaged_plan(grid, error) from error
            states = {trial.key: known[trial.key] for trial in trials if trial.key in known}
            launch = newest_launch(grid)
            if launch.number and launch.is_gone:  # killed: nobody could record it
                running = {key: state for key, state in states.items() if state.state == RUNNING}
                states |= {key: replace(state, state=INTERRUPTED) for key, state in running.items()}
            plan = make_plan(trials, states, sorted(conditions_of(grid) - {CLEAN}))
            scoring = {work.key: work.scores for work in plan.pending if not work.fits}
            counts: Counter[str] = Counter()
            table = Table()
            for column in ("task", "trial", "state", "latest"):
                table.add_column(column)
            for trial in plan.trials:
                state, run = plan.state(trial), runs.get(trial.key)
                tags = run.data.tags if run is not None else {}
                note = tags.get(names.ERROR) or tags.get(names.CONDITION_ERROR, "")
                if run is not None and state == RUNNING:
                    metrics = sorted(run.data.metrics.items())
                    note = ", ".join(f"{metric} {value:.3f}" for metric, value in metrics if "/" in metric)
                elif trial.key in scoring:
                    state = f"{state}; to score: {scoring[trial.key]}"
                counts[state] += 1
                table.add_row(task_words(trial.task, trial.method), trial.name, state, escape(note))
            title = f"{grid.info.run_name}: {data_sets[grid.data.tags[names.DATA]]}"
            console.print(title, style="italic", highlight=False, markup=False, soft_wrap=True)
            console.print(table)
            summary = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
            console.print(f"{summary} of {len(plan.trials)}\n")
            if unknown := sorted({fields["task"] for fields in planned} - {*list_tasks()}):
                console.print(f"trials of {', '.join(unknown)} are left out: this checkout has no such task\n")
    except StoreError as error:
        raise BadInputError(str(error)) from error
    return OK


def _others(uri: str) -> str:
    """The end of a message that names the experiments of a store; "" if there are none."""
    from grid.records import Records, list_experiments
    from grid.uris import sqlite_file

    file = sqlite_file(uri)
    if file is not None and not file.exists():
        return ""  # MLflow would create the file
    grids = [name for name, number in sorted(list_experiments(uri).items()) if Records(uri, number, name).grids()]
    listed = ", ".join(f"--experiment-name {shlex.quote(name)}" for name in grids)
    return f". The store has: {listed}" if grids else ""
