#!/usr/bin/env python
"""Run, plan or follow an experiment grid.

python launch.py                        the built-in demo, nothing needed
python launch.py dolos --data DIR       the published experiment on the Dolos data set
python launch.py folders --data DIR     the same on <generator>/0_real, <generator>/1_fake
"""

from __future__ import annotations

import argparse
import dataclasses
import errno
import logging
import os
import shlex
import signal
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grid import names
from grid.experiments import list_experiments, load_experiment
from grid.spec import TASKS, TrialSpec

if TYPE_CHECKING:
    from rich.console import Console

    from data.manifest import Manifest
    from grid.plan import Plan, TrialState
    from grid.runner import Executor
    from grid.settings import RunSettings
    from grid.tracking import Claim, Tracker

ROOT = Path(__file__).resolve().parent
OK, SOME_FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

# Options that hold for all methods or, as METHOD=VALUE, for one: setting of `grid.settings.PER_METHOD` -> unit, help.
PER_METHOD = {
    "gpus_per_trial": ("X", "share of a GPU; default: the method's own"),
    "memory_per_trial": ("GB", "host memory; default: not asked"),
    "accelerator": ("TYPE", "only GPUs of this type, by Ray's names: T4, A10G, A100"),
    "gpu_memory": ("GB", "only GPUs of which a trial has this much memory; nodes declare it, see docs/cluster.md"),
}


class BadInputError(Exception):
    """Something the user can mend; the message says how."""


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; see `--help`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", nargs="?", default="demo", help=f"one of: {', '.join(list_experiments())}")

    what = parser.add_argument_group("what to run")
    what.add_argument(
        "--data", metavar="DIR", help="the corpus' folder, or s3://BUCKET/FOLDER, gs://…; the demo draws its own"
    )
    what.add_argument("--methods", type=_names, metavar="A,B", help="only these methods")
    what.add_argument(
        "--tasks", type=_names, default=list(TASKS), metavar="A,B", help="only these of detection,attribution"
    )
    what.add_argument(
        "--generators", type=_names, metavar="A,B", help="train on these generators only; tests stay on all"
    )
    what.add_argument("--seeds", type=int, nargs="+", metavar="N", help="default: the experiment's own")
    what.add_argument("--limit", type=int, metavar="N", help="at most N images for each class and split: a quick look")
    what.add_argument("--split-seed", type=int, default=0, metavar="N", help="of splits made where a corpus has none")
    what.add_argument("--skip-bad", action="store_true", help="leave bad files out, and record how many")
    what.add_argument(
        "--weights", action="append", default=[], metavar="METHOD=W", help="a local file, hub, hub:TAG or random"
    )
    what.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="METHOD.NAME=VALUE",
        help="a method's setting; METHOD * is all that have it",
    )

    where = parser.add_argument_group("where and how")
    where.add_argument("--plan", action="store_true", help="print what would run and stop; starts no trial")
    where.add_argument("--status", action="store_true", help="print a grid's progress from MLflow; starts nothing")
    where.add_argument("--local", action="store_true", help="in this process, one trial after the other, without Ray")
    where.add_argument("--experiment-name", metavar="NAME", help="of the MLflow experiment; default: the experiment")
    where.add_argument(
        "--runs", type=Path, default=ROOT / "runs", metavar="DIR", help="MLflow's local store and checkpoints"
    )
    where.add_argument("--cache", type=Path, metavar="DIR", help="decoded pixels and features; default: RUNS/cache")
    where.add_argument(
        "--local-copies",
        type=Path,
        metavar="DIR",
        help="a folder on each node's own disk; default: none, read where the cache is",
    )
    where.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    where.add_argument("--cpus-per-trial", type=float, default=1.0, metavar="X", help="default: 1")
    for name, (unit, what_for) in PER_METHOD.items():
        words = f"{what_for}; METHOD={unit} for one method"
        where.add_argument(option_of(name), action="append", default=[], metavar=unit, help=words)
    where.add_argument("--max-concurrent", type=int, default=0, metavar="N", help="trials at once; default: what fits")
    where.add_argument("--max-failures", type=int, default=2, metavar="N", help="retries of a trial; default: 2")
    where.add_argument("--checkpoint-seconds", type=float, default=60.0, metavar="S", help="default: 60")
    where.add_argument(
        "--address",
        metavar="ADDRESS",
        help="of a Ray cluster; default: RAY_ADDRESS, else on a head the cluster of `ray up`, else a Ray of our own",
    )
    where.add_argument("--num-gpus", type=int, metavar="N", help="GPUs of our own Ray; may be logical, for a trial run")
    where.add_argument("--num-cpus", type=int, metavar="N", help="CPU cores of our own Ray")
    where.add_argument("--verbose", action="store_true", help="log what the parts do; full tracebacks")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says. Returns the exit status: 0, 1 some trials failed, 2 bad input, 130 interrupted."""
    options = parse_arguments(arguments)
    from rich.console import Console
    from rich.logging import RichHandler
    from rich.markup import escape

    console = Console(width=None if sys.stdout.isatty() else 120)
    level = logging.INFO if options.verbose else logging.WARNING
    logging.basicConfig(level=level, format="%(message)s", handlers=[RichHandler(console=console, show_path=False)])
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job starts with it ignored
    signal.signal(signal.SIGTERM, _as_interrupt)
    try:
        return status(options, console) if options.status else launch(options, console)
    except BadInputError as error:
        if options.verbose:
            console.print_exception()
        console.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        return BAD_INPUT
    except Exception as error:
        if not _disk_is_full(error):
            raise
        if options.verbose:
            console.print_exception()
        console.print(
            f"[bold red]error:[/] a disk is full: {escape(str(error))}\nMake space where --runs and --cache are "
            f"({escape(str(options.runs))}); the same command goes on from the last checkpoints",
            highlight=False,
            soft_wrap=True,
        )
        return BAD_INPUT
    except KeyboardInterrupt:
        console.print("\ninterrupted; the same command goes on from here")
        return INTERRUPTED


def launch(options: argparse.Namespace, console: Console) -> int:
    """Plan the grid, run what is pending, print the tables."""
    settings, configs = resolve(options)
    manifest = read_data(options, settings, console)
    if manifest is None:
        console.print("the demo's images are not drawn yet, so every trial is pending; run without --plan to draw them")
        return OK
    trials = wanted_trials(options, manifest, configs)

    from grid.plan import make_plan
    from grid.settings import ClusterError, InfeasibleError

    name = options.experiment_name or options.experiment
    plan = make_plan(trials, known_states(trials, name, settings))
    if options.plan:
        print_plan(plan, settings, console)
        return OK
    if not plan.pending:
        console.print(f"all {len(plan.trials)} trials are finished; nothing to run")
        print_tables(name, settings, plan, console)
        return OK

    from grid import tracking

    try:
        failed = run_pending(plan, name, options, settings, manifest, console)
    except (tracking.TrackingError, ClusterError, InfeasibleError) as error:
        raise BadInputError(str(error)) from error
    print_tables(name, settings, plan, console)
    return SOME_FAILED if failed else OK


def known_states(trials: Sequence[TrialSpec], name: str, settings: RunSettings) -> dict[str, TrialState]:
    """What MLflow knows of these trials. A local store that is not there yet is not asked: MLflow takes seconds."""
    local = settings.tracking_uri.removeprefix(names.SQLITE)
    if local != settings.tracking_uri and not Path(local).exists():
        return {}

    from grid import tracking

    try:
        experiment_id = tracking.find_experiment(settings.tracking_uri, name)
        if experiment_id is None:
            return {}
        return tracking.trial_states(settings.tracking_uri, experiment_id, [trial.key for trial in trials])
    except tracking.TrackingError as error:
        raise BadInputError(str(error)) from error


def resolve(options: argparse.Namespace) -> tuple[RunSettings, dict[str, dict[str, object]]]:
    """Turn the command line into settings and each method's whole configuration; every mistake in one message."""
    from grid.settings import RunSettings
    from models.detector import WeightsError
    from models.registry import resolve_config
    from models.weights import parse_weights_argument

    try:
        experiment = load_experiment(options.experiment)
    except KeyError as error:
        raise BadInputError(error.args[0]) from error
    methods = options.methods or list(experiment.METHODS)
    overrides = {method: dict(experiment.METHODS.get(method, {})) for method in methods}
    problems = []
    if options.limit is not None and options.limit < 1:
        problems.append(f"limit must be at least 1, got {options.limit}")
    problems += [
        f"--tasks has no {task!r}; there are: {', '.join(TASKS)}" for task in options.tasks if task not in TASKS
    ]
    weight_files: dict[str, Path] = {}
    for text in options.set:
        target, _, value = text.partition("=")
        method, _, setting = target.rpartition(".")
        if not method or not setting or "=" not in text:
            problems.append(f"--set wants METHOD.NAME=VALUE, got {text!r}")
        elif method != "*" and method not in methods:
            problems.append(f"--set {text}: no method {method!r} in this grid; there are: {', '.join(methods)}")
        else:
            targets = [one for one in methods if setting in settings_of(one)] if method == "*" else [method]
            if not targets:
                problems.append(f"--set {text}: no method of this grid has a setting {setting!r}")
            for one in targets:
                overrides[one][setting] = value
    for text in options.weights:
        method, _, value = text.partition("=")
        if method not in methods or not value:
            problems.append(f"--weights wants METHOD=W with METHOD of {', '.join(methods)}; got {text!r}")
            continue
        try:
            weights, path = parse_weights_argument(value)
        except WeightsError as error:
            problems.append(f"--weights {text}: {error}")
            continue
        overrides[method]["weights"] = weights
        if path is not None:
            weight_files[weights.removeprefix("file:")] = path.resolve()
    configs = {}
    for method, chosen in overrides.items():
        try:
            configs[method] = resolve_config(method, chosen)
        except (KeyError, ValueError) as error:
            problems.append(str(error.args[0]))
    problems += about_ray(options)
    for_all, by_method = per_method(options, methods, problems)
    runs = options.runs.resolve()
    try:
        settings = RunSettings(
            cache=(options.cache or runs / "cache").resolve(),
            runs=runs,
            local_copies=options.local_copies and options.local_copies.absolute(),
            tracking_uri=tracking_uri(runs),
            device=options.device,
            cpus_per_trial=options.cpus_per_trial,
            max_concurrent=options.max_concurrent,
            max_failures=options.max_failures,
            checkpoint_seconds=options.checkpoint_seconds,
            weight_files=weight_files,
            by_method=by_method,
            **for_all,
        )
        if settings.device != "cpu":  # which has been complained of
            problems += without_gpu(settings, list(configs))
    except ValueError as error:
        problems.append(str(error))
    if problems:
        raise BadInputError("\n".join(problems))
    return settings, configs


def tracking_uri(runs: Path) -> str:
    """Of the environment, with an absolute path where it is a file: trials run in folders of their own."""
    given = os.environ.get("MLFLOW_TRACKING_URI") or f"{names.SQLITE}{runs / 'mlflow.db'}"
    if not given.startswith(names.SQLITE):
        return given
    return f"{names.SQLITE}{Path(given.removeprefix(names.SQLITE)).absolute()}"


def about_ray(options: argparse.Namespace) -> list[str]:
    """One line for each option about Ray that could not be kept."""
    own = [option for option in ("num_gpus", "num_cpus") if getattr(options, option) is not None]
    problems = [f"{option_of(one)} must not be negative" for one in own if getattr(options, one) < 0]
    if options.local:
        given = own + (["address"] if options.address else [])
        return problems + [f"{option_of(one)} is about Ray; leave it out with --local" for one in given]
    address = options.address or os.environ.get("RAY_ADDRESS") or ""
    if address:
        problems += [f"{option_of(one)} is about a Ray of our own, not the cluster at {address}" for one in own]
    if "://" in address:
        problems.append(f"no Ray Client: launch on a node of the cluster, with --address HOST:PORT; got {address}")
    return problems


def per_method(
    options: argparse.Namespace, methods: Sequence[str], problems: list[str]
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The settings `PER_METHOD` as said for all methods, and method -> what was said for it; adds to the problems."""
    for_all: dict[str, Any] = {}
    by_method: dict[str, dict[str, Any]] = {}
    for name, (unit, _) in PER_METHOD.items():
        for text in getattr(options, name):
            method, equals, value = text.rpartition("=")
            try:
                chosen = float(value) if unit != "TYPE" else value
            except ValueError:
                chosen = ""
            if chosen == "":
                problems.append(f"{option_of(name)} wants {unit} or METHOD={unit}, got {text!r}")
            elif not equals:
                for_all[name] = chosen
            elif method in methods:
                by_method.setdefault(method, {})[name] = chosen
            else:
                known = ", ".join(methods)
                problems.append(f"{option_of(name)} {text}: no method {method!r} in this grid; there are: {known}")
    for name in ("accelerator", "gpu_memory"):
        if getattr(options, name) and (options.local or options.device == "cpu"):
            without = "--local" if options.local else "--device cpu"
            problems.append(f"{option_of(name)} chooses among the GPUs of a cluster; leave it out with {without}")
    return for_all, by_method


def without_gpu(settings: RunSettings, methods: Sequence[str]) -> list[str]:
    """One line for each of these methods for which alone a certain GPU is asked for though it uses none."""
    from models.registry import detector_info

    return [
        f"{option_of(name)} {method}=…: the method uses no GPU; give its trials a share with "
        f"--gpus-per-trial {method}=X, or leave it out"
        for method in methods
        for name in ("accelerator", "gpu_memory")
        if settings.by_method.get(method, {}).get(name)
        and not settings.for_method(method).gpu_share(detector_info(method).gpu_share, gpus_available=1)
    ]


def check_writable(*folders: Path) -> None:
    """Make these folders, and write to each of them, before any work is done whose result could not be kept."""
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(b"?")
        except OSError as error:
            if _disk_is_full(error):
                raise
            raise BadInputError(
                f"{folder} cannot be written to ({error.strerror}); --runs and --cache choose the folders"
            ) from error


def option_of(setting: str) -> str:
    """How a setting is called on the command line."""
    return "--" + setting.replace("_", "-")


def read_data(options: argparse.Namespace, settings: RunSettings, console: Console) -> Manifest | None:
    """Validate the corpus and save its manifest where the trials find it; None: a plan of a demo not drawn yet."""
    from data.demo.recipe import DemoRecipe, make_demo
    from data.fetch import FetchError, fetch, is_url
    from data.manifest import DataProblems, build_manifest
    from grid.progress import counting

    source = load_experiment(options.experiment).SOURCE
    own = source == "demo" and options.data is None
    if own and options.plan and not (settings.cache / "demo" / DemoRecipe().key).exists():
        return None
    if options.data is None and not own:
        raise BadInputError(f"{options.experiment} needs --data DIR, the corpus' folder")
    check_writable(settings.cache, *([] if options.plan else [settings.runs]))
    with counting(console) as count:
        if own:
            root = make_demo(settings.cache / "demo", progress=lambda done, total: count("drawing faces", done, total))
        elif is_url(options.data):
            fetched = partial(count, "fetching files")
            try:
                root = fetch(options.data, settings.cache / "corpora", progress=fetched)
            except FetchError as error:
                raise BadInputError(str(error)) from error
        else:
            root = Path(options.data).resolve()
        try:
            manifest = build_manifest(
                source,
                root,
                cache=settings.cache,
                seed=options.split_seed,
                skip_bad=options.skip_bad,
                limit=options.limit,
                progress=lambda done, total: count("reading images", done, total),
            )
        except DataProblems as error:
            raise BadInputError(str(error)) from error
    manifest.save(settings.manifests / manifest.digest)
    console.print(manifest.summary(), highlight=False, markup=False)
    for note in manifest.notes:
        console.print(f"note: {note}", style="yellow", highlight=False, markup=False)
    if manifest.skipped:
        console.print(f"left out: {len(manifest.skipped)} bad files; recorded in MLflow", style="yellow")
    return manifest


def settings_of(method: str) -> set[str]:
    """Names of a method's settings; empty where there is no such method, which is complained of elsewhere."""
    from models.registry import detector_info

    try:
        return {field.name for field in dataclasses.fields(detector_info(method).config)}
    except KeyError:
        return set()


def data_options(options: argparse.Namespace) -> str:
    """Those that make another data set of the same folder, as they are given."""
    words = [f"--limit {options.limit}"] if options.limit is not None else []
    words += [f"--split-seed {options.split_seed}"] if options.split_seed else []
    return " ".join(words + (["--skip-bad"] if options.skip_bad else []))


def wanted_trials(
    options: argparse.Namespace, manifest: Manifest, configs: dict[str, dict[str, object]]
) -> list[TrialSpec]:
    """The grid's trials, all of them."""
    experiment = load_experiment(options.experiment)
    try:
        names.check_generators(manifest.generators)
        trials = list(
            experiment.trials(
                generators=manifest.generators,
                configs=configs,
                tasks=options.tasks,
                seeds=options.seeds or experiment.SEEDS,
                data=manifest.digest,
            )
        )
    except ValueError as error:
        raise BadInputError(str(error)) from error
    if options.generators:
        unknown = sorted(set(options.generators) - set(manifest.generators))
        if unknown:
            raise BadInputError(
                f"--generators: no {', '.join(unknown)} in the data; there are: {', '.join(manifest.generators)}"
            )
        wanted = set(options.generators)
        trials = [trial for trial in trials if trial.task != "detection" or set(trial.train_generators) <= wanted]
    if not trials:
        raise BadInputError("these options leave no trial to run")
    return trials


def run_pending(
    plan: Plan, name: str, options: argparse.Namespace, settings: RunSettings, manifest: Manifest, console: Console
) -> bool:
    """Check weights, prepare shared inputs, run. Returns whether any trial failed."""
    from grid import tracking
    from grid.plan import make_plan
    from grid.runner import check_detectors
    from models.detector import WeightsError

    try:
        geometries = check_detectors(plan.pending, settings)
    except WeightsError as error:
        raise BadInputError(str(error)) from error
    cropping = [method for method, geometry in geometries.items() if geometry and geometry.policy == "crop"]
    if cropping and (oblong := int((manifest.table["width"] != manifest.table["height"]).sum())):
        console.print(
            f"note: {oblong} images are not square, and only the middle of them is seen by {', '.join(cropping)} "
            "(--set METHOD.resize=squash: all of them)",
            style="yellow",
            highlight=False,
        )
    tracker = tracking.open_grid(
        settings.tracking_uri,
        name,
        manifest,
        plan.trials,
        settings.runs / "artifacts",
        data_options=data_options(options),
    )
    with tracker.claim() as claim:
        # Looked up again: whoever ran this grid until now may have finished some of it meanwhile.
        keys = [trial.key for trial in plan.trials]
        states = tracking.trial_states(settings.tracking_uri, tracker.experiment_id, keys)
        return run_claimed(make_plan(plan.trials, states), options, settings, tracker, claim, console)


def run_claimed(
    plan: Plan, options: argparse.Namespace, settings: RunSettings, tracker: Tracker, claim: Claim, console: Console
) -> bool:
    """Run what is pending of a grid that nobody else runs. Returns whether any trial failed."""
    from grid.checkpoints import remove_states
    from grid.progress import GridProgress, counting
    from grid.runner import LocalExecutor
    from models.detector import MemoryExhausted

    # The longest first, so that none is left to run alone at the end.
    pending = sorted(plan.pending, key=lambda trial: -len(trial.train_generators))
    keys = [trial.key for trial in pending]
    # Those that finished in a launch that was killed have left theirs behind.
    remove_states(settings.checkpoints(tracker.parent_id), {trial.key for trial in plan.finished})
    console.print(f"{len(plan.trials)} trials, {len(plan.finished)} finished before, {len(pending)} to run")

    def run(executor: Executor) -> GridProgress:
        with counting(console) as count:
            try:
                executor.prepare(pending, count)
            except (ValueError, MemoryExhausted) as error:  # a changed file, a trial or an image that fits nowhere
                raise BadInputError(str(error)) from error
        with GridProgress(console, pending, finished=len(plan.finished)) as progress:
            executor.run(pending, progress)
        return progress

    complete, failed = False, dict[str, str]()
    try:
        if options.local:
            progress = run(LocalExecutor(settings, tracker))
        else:
            from grid import cluster, ray_executor

            address = options.address or os.environ.get("RAY_ADDRESS") or cluster.find_cluster()
            if address and (options.num_gpus, options.num_cpus) != (None, None):
                raise BadInputError(f"--num-gpus and --num-cpus are about a Ray of our own; here is one at {address}")
            connection = {"address": address, "num_gpus": options.num_gpus, "num_cpus": options.num_cpus}
            with cluster.session(**connection):
                if address:
                    console.print(f"Ray cluster at {address}: {cluster.describe_cluster()}", highlight=False)
                if settings.tracking_uri.startswith(names.SQLITE) and len(cluster.cluster_nodes()) > 1:
                    console.print(
                        "note: every node writes to one SQLite file, which network folders do not always bear; "
                        "MLFLOW_TRACKING_URI names a server (docs/cluster.md)",
                        style="yellow",
                        highlight=False,
                    )
                progress = run(ray_executor.RayExecutor(settings, tracker, connection))
        failed = progress.failed
        # Tune ends its trials when it is interrupted and returns; what has no outcome then was interrupted.
        lost = set(keys) - progress.done - failed.keys()
        if lost:
            raise KeyboardInterrupt
        complete = not failed
    finally:
        if not claim.lost:
            tracker.close_interrupted(keys, failed)
            tracker.close_grid(complete=complete)
    if failed:
        console.print(f"\n[red]{len(failed)} of {len(pending)} trials failed[/]; MLflow has what went wrong")
    return bool(failed)


def print_plan(plan: Plan, settings: RunSettings, console: Console) -> None:
    """Every trial with its state and what it would ask for."""
    from rich.table import Table

    from models.registry import detector_info

    def asks_for(method: str) -> dict[str, str]:
        own = settings.for_method(method)
        share = own.gpu_share(detector_info(method).gpu_share, gpus_available=1)
        return {
            "GPU share": f"{share:g}",
            "GPU type": own.accelerator if share else "",
            "GPU GB": f"{own.gpu_memory:g}" if share and own.gpu_memory else "",
            "CPU cores": f"{own.cpus_per_trial:g}",
            "memory GB": f"{own.memory_per_trial:g}" if own.memory_per_trial else "",
        }

    asked = {method: asks_for(method) for method in {trial.method for trial in plan.trials}}
    shown = [column for column in next(iter(asked.values())) if any(row[column] for row in asked.values())]
    table = Table(title=f"{len(plan.trials)} trials, {len(plan.pending)} to run")
    for column in ("task", "trial", "key", "state", *shown):
        table.add_column(column)
    for trial in plan.trials:
        row = asked[trial.method]
        table.add_row(trial.task, trial.name, trial.key, plan.state(trial), *(row[column] for column in shown))
    console.print(table)
    if settings.accelerator or settings.gpu_memory or settings.by_method:
        console.print("whether a node has what is asked for is seen when the grid starts")
    console.print(
        "GPU shares hold where there is a GPU; without one, trials run on their CPU cores alone. Once the features of "
        "a frozen method are there, its trials take no GPU, unless one was asked for"
    )


def status(options: argparse.Namespace, console: Console) -> int:
    """Progress of the experiment's grids, from MLflow alone."""
    from rich.markup import escape
    from rich.table import Table

    from grid import tracking
    from grid.plan import RUNNING

    settings, _ = resolve(options)
    name = options.experiment_name or options.experiment
    try:
        experiment_id = tracking.find_experiment(settings.tracking_uri, name)
    except tracking.TrackingError as error:
        raise BadInputError(str(error)) from error
    if experiment_id is None:
        raise BadInputError(
            f"no MLflow experiment named {name!r} at {names.without_password(settings.tracking_uri)}; "
            "nothing was launched there yet"
        )
    for parent, trials in tracking.planned_grids(settings.tracking_uri, experiment_id):
        states = tracking.trial_states(settings.tracking_uri, experiment_id, [trial.key for trial in trials])
        counts: dict[str, int] = {}
        table = Table(title=parent.info.run_name, title_justify="left")
        for column in ("task", "trial", "state", "latest"):
            table.add_column(column)
        errors = tracking.errors(settings.tracking_uri, states)
        for trial in trials:
            known = states.get(trial.key)
            state = known.state if known else "pending"
            counts[state] = counts.get(state, 0) + 1
            note = errors.get(trial.key, "")
            if known and state == RUNNING:
                metrics = tracking.latest_metrics(settings.tracking_uri, known.run_id)
                note = ", ".join(f"{key} {value:.3f}" for key, value in sorted(metrics.items()) if "/" in key)
            table.add_row(trial.task, trial.name, state, escape(note))
        console.print(table)
        console.print(", ".join(f"{count} {state}" for state, count in sorted(counts.items())) + f" of {len(trials)}\n")
    return OK


def print_tables(name: str, settings: RunSettings, plan: Plan, console: Console) -> None:
    """The matrices and the attribution rows of the plan's finished trials, and how to look further."""
    from analysis.store import load_results
    from analysis.text import print_results

    console.print()
    results = load_results(settings.tracking_uri, name, data=plan.trials[0].data)
    order = {trial.key: place for place, trial in enumerate(plan.trials)}
    results = results[results["key"].isin(order)].sort_values("key", key=lambda keys: keys.map(order), kind="stable")
    print_results(results, console)
    if settings.tracking_uri.startswith("http"):
        console.print(f"\nMLflow UI:  {names.without_password(settings.tracking_uri)}", highlight=False, soft_wrap=True)
    else:
        mlflow = Path(sys.executable).with_name("mlflow")
        command = shlex.join([str(mlflow), "ui", "--backend-store-uri", settings.tracking_uri])
        console.print(f"\nMLflow UI:  {command}", highlight=False, markup=False, soft_wrap=True)


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError("name at least one")
    return names


def _disk_is_full(error: BaseException | None) -> bool:
    """Whether that is at the bottom of it, in the words of the system or of SQLite."""
    while error is not None:
        if (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)) or "disk is full" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _as_interrupt(number: int, frame: object) -> None:
    signal.raise_signal(signal.SIGINT)


if __name__ == "__main__":
    sys.exit(main())
