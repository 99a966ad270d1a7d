"""Progress of an experiment's grids, from MLflow alone."""

from __future__ import annotations

import argparse
import shlex
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from data.addresses import without_passwords
from grid.command_line import print_json
from grid.commands import OK, BadInputError, Context, register_command
from grid.options import ROOT, add_experiment
from grid.uris import tracking_uri

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

LATEST = ("train/", "valid/")  # metrics of a running trial that are shown
METRICS = ("test/*/accuracy", *(f"{name}*" for name in LATEST))  # all that are read


def add_options(parser: argparse.ArgumentParser) -> None:
    """Which grid."""
    from pathlib import Path

    add_experiment(parser)
    parser.add_argument(
        "--experiment-name", metavar="NAME", help="name of the MLflow experiment; default: the experiment's name"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, and nothing else")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs", metavar="DIR", help="MLflow's local store")


@register_command("status", add_options)
def status(options: argparse.Namespace, context: Context) -> int:
    """Print a grid's progress; starts nothing."""
    runs: Path = options.runs.resolve()
    try:
        uri = tracking_uri(runs)
    except ValueError as error:  # a path that no store can have
        raise BadInputError(str(error)) from error
    return print_status(options.experiment_name or options.experiment, uri, context.console, in_json=options.json)


def print_status(name: str, uri: str, console: Console, *, in_json: bool = False) -> int:
    """The trials of each of an experiment's grids, with their states and figures; failed ones first.

    Args:
        name: of the MLflow experiment.
        uri: tracking URI.
        console: where to.
        in_json: print JSON to standard output, and nothing else.

    Raises:
        BadInputError: nothing was launched there yet, or MLflow cannot be read.
    """
    from grid.steps import step

    with step(console, "reading the MLflow store", in_logs=False):  # importing MLflow takes seconds
        from rich.markup import escape

        from data.conditions import CLEAN
        from grid import names
        from grid.datasets import list_data_sets
        from grid.launches import newest_launch
        from grid.overview import LEGEND, Row, accuracies_of, as_json, failures, print_rows
        from grid.plan import FINISHED, INTERRUPTED, RUNNING, make_plan
        from grid.records import StoreError, conditions_of, damaged_plan, open_records, speaking_runs, trial_state
        from grid.spec import TrialSpec
        from grid.tasks import list_tasks
    try:
        with step(console, "reading the MLflow store", in_logs=False):
            records = open_records(uri, name)
            grids = [] if records is None else records.grids()
            all_trials = [] if records is None else records.trials(params=False, metrics=METRICS)
        if records is None:
            raise BadInputError(
                f"no MLflow experiment named {name!r} at {without_passwords(uri)}; nothing was launched there yet, or "
                "its images are still being read" + _others(uri)
            )
        runs = speaking_runs(all_trials)
        known = {key: trial_state(run) for key, run in runs.items()}
        found, tasks = list[dict[str, Any]](), {*list_tasks()}
        data_sets = {data.digest: data for data in list_data_sets(grids, all_trials)}
        for grid in reversed(grids):
            planned = records.plan(grid).values()
            try:
                trials = [TrialSpec.from_dict(fields) for fields in planned if fields["task"] in tasks]
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
            rows, errors = [], dict[str, str]()
            for trial in plan.trials:
                state, run = plan.state(trial), runs.get(trial.key)
                tags, metrics = (run.data.tags, run.data.metrics) if run is not None else ({}, {})
                if said := tags.get(names.ERROR) or tags.get(names.CONDITION_ERROR, ""):
                    errors[trial.key] = said
                accuracies = accuracies_of(metrics, trial) if state == FINISHED else {}
                latest = {name: metrics[name] for name in sorted(metrics) if name.startswith(LATEST)}
                latest = latest if state == RUNNING else {}
                if trial.key in scoring:
                    state = f"{state}; to score: {scoring[trial.key]}"
                counts[state] += 1
                rows.append(Row(trial, state, accuracies, latest))
            title = f"{grid.info.run_name}: {data_sets[grid.data.tags[names.DATA]]}"
            summary = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
            if in_json:
                found.append(
                    {
                        "grid": grid.info.run_name,
                        "data": grid.data.tags[names.DATA],
                        "counts": dict(counts),
                        "trials": [
                            as_json(
                                row.trial,
                                state=plan.state(row.trial),
                                to_score=[*plan.missing(row.trial)] if row.trial.key in scoring else [],
                                error=errors.get(row.trial.key),
                                figures={**row.accuracies, **row.latest},
                            )
                            for row in rows
                        ],
                    }
                )
                continue
            console.print(title, style="italic", highlight=False, markup=False, soft_wrap=not console.is_terminal)
            for said in failures([(row.trial, errors[row.trial.key]) for row in rows if row.trial.key in errors]):
                console.print(f"[red]failed[/]  {escape(said)}", highlight=False)
            print_rows(rows, console, figures=True)
            if any(row.accuracies for row in rows):
                console.print(LEGEND, highlight=False)
            console.print(f"{summary} of {len(plan.trials)}\n")
            if unknown := sorted({fields["task"] for fields in planned} - tasks):
                console.print(f"trials of {', '.join(unknown)} are left out: this checkout has no such task\n")
        if in_json:
            print_json({"experiment": name, "grids": found})
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
    return f". Give one that the store has: {listed}" if grids else ""
