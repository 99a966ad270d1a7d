"""Run an experiment grid: plan it, do what is pending, print the tables."""

from __future__ import annotations

import argparse
import errno
import os
import shlex
import tempfile
from collections.abc import Callable, Collection
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from grid import names
from grid.command_line import on_stderr, print_json, print_wrapped
from grid.commands import BAD_INPUT, OK, SOME_FAILED, BadInputError, Context, register_command
from grid.faults import fault
from grid.local_store import Reserve
from grid.options import (
    Launch,
    add_data_options,
    add_experiment,
    add_place_options,
    add_trial_options,
    resolve,
)
from grid.uris import sqlite_file

if TYPE_CHECKING:
    from threading import Event

    import pandas as pd
    from rich.console import Console

    from data.manifest import Manifest
    from data.verdict import Verdict
    from grid.experiments import Experiment
    from grid.foresight import Kind
    from grid.plan import Plan, TrialState
    from grid.progress import GridProgress
    from grid.runner import Executor
    from grid.settings import RunSettings
    from grid.spec import TrialSpec
    from grid.tracking import Tracker

NOTE = "yellow"


def add_options(parser: argparse.ArgumentParser) -> None:
    """The experiment, and everything about it."""
    add_experiment(parser)
    parser.add_argument(
        "--config", type=Path, metavar="FILE",
        help="a YAML file with options as keys, such as `methods: [clip_linear]`; words given here come on top",
    )  # fmt: skip
    instead = parser.add_argument_group("instead of running it")
    instead.add_argument("--plan", action="store_true", help="print what would run and stop; starts no trial")
    instead.add_argument("--status", action="store_true", help="print a grid's progress from MLflow; starts nothing")
    instead.add_argument("--json", action="store_true", help="with --plan or --status: print JSON, and nothing else")
    add_data_options(parser)
    add_trial_options(parser)
    add_place_options(parser)


@register_command("run", add_options)
def run(options: argparse.Namespace, context: Context) -> int:
    """Run an experiment; what is finished is never run again."""
    if options.json and not (options.plan or options.status):
        raise BadInputError(
            "--json is for --plan and --status; results as JSON are in the report's tables and in MLflow"
        )
    if options.json:
        context = Context(on_stderr(), context.show_results)
    from grid.steps import step

    try:
        with step(context.console, "reading the options", in_logs=False):
            launch = resolve(options)
        return _run(launch, context)
    except BadInputError as error:
        if not options.json:
            raise
        print_json({"error": str(error)})
        return BAD_INPUT
    except Exception as error:
        said = fault(error, cache=options.cache or options.runs / "cache")
        if said is None:
            raise
        raise BadInputError(said) from error


def _run(launch: Launch, context: Context) -> int:
    options = launch.options
    if options.status:
        from grid.commands.status import print_status

        return print_status(launch.name, launch.settings.tracking_uri, context.console, in_json=options.json)
    _check_gpu(launch)
    _check_temporary_folder(launch)
    for method, config in launch.configs.items():
        if str(config.get("weights", "")).endswith(":ema"):
            print_wrapped(
                f"note: the weights file of {method} holds raw and averaged (EMA) weights; the averaged ones are "
                "taken, as by timm's own loader. For the raw ones, give a file that holds them alone",
                context.console,
                style=NOTE,
            )
    manifest = read_data(launch, context.console)
    if manifest is None:
        return plan_before_drawing(launch, context.console)

    from grid.audit import audit, check_verdict, print_verdict, refusal_of
    from grid.foresight import count_images
    from grid.masks import check_conditions, check_masks_to_learn, with_trusted_masks
    from grid.plan import make_plan
    from grid.printed_plan import look_ahead, plan_as_json, print_plan
    from grid.settings import ClusterError, InfeasibleError
    from grid.steps import step

    check_pairs(manifest, launch)
    with step(context.console, "looking at the sizes of pictures under the conditions", in_logs=False):
        check_sizes(manifest, launch)
    trials = launch.trials(manifest)  # refuses names and training sets, so before pixels are measured
    settings, accepted = launch.settings, options.accept_audit
    manifest, verdict, measured = audit(
        manifest, context.console, cache=settings.cache, accepted=accepted, decode=not options.plan
    )
    manifest.save(settings.manifests / manifest.digest)
    print_verdict(verdict, context.console)
    for task, methods in launch.without_trials(trials).items():
        note = f"note: no {task} trial of {', '.join(methods)} with these training sets"
        print_wrapped(note, context.console, style=NOTE)
    with step(context.console, "reading the MLflow store", in_logs=False):
        trials, states = known_trials(trials, launch.name, launch.settings)
    plan = make_plan(trials, states, launch.conditions)
    check_masks_to_learn(manifest, verdict, [work.spec for work in plan.pending if work.fits])
    if options.plan:
        with step(context.console, "looking at weights, GPU, time and disk", in_logs=False):
            durations = known_durations(launch.name, launch.settings)
            ahead = look_ahead(plan, launch, manifest, durations, num_images=count_images(manifest))
    if options.plan and "mask_white" in manifest.table.columns:
        note_masks(manifest, settings.cache, context.console)
    if options.plan and options.json:
        print_json(plan_as_json(plan, ahead) | {"stops": refusal_of(verdict) if plan.pending else None})
        return OK
    if options.plan:
        print_plan(plan, ahead, context.console)
        console = context.console
        console.print("audits that look at pixels run before the grid, or by `python launch.py audit`")
        if plan.pending and (refusal := refusal_of(verdict)):
            print_wrapped(f"a launch without --plan stops: {refusal}", console, style=NOTE)
        return OK
    assert measured is not None, "None is for plans alone"
    measured, failed = with_trusted_masks(manifest, measured, verdict), False
    if plan.pending:
        check_verdict(verdict)
        check_conditions(manifest, verdict, plan.pending)
    from grid.records import StoreError

    if not plan.pending:
        from grid.tracking import keep_verdict

        context.console.print(f"all {len(plan.trials)} trials are finished; nothing to run")
        try:
            keep_verdict(settings.tracking_uri, launch.name, manifest.digest, verdict)
            record_references(launch, manifest, measured)
        except StoreError as error:
            raise BadInputError(str(error)) from error
    else:
        try:
            failed = run_pending(plan, launch, manifest, verdict, measured, context.console)
        except (StoreError, ClusterError, InfeasibleError) as error:
            raise BadInputError(str(error)) from error
    context.console.print()
    keys = [trial.key for trial in plan.trials]
    context.show_results(launch.settings.tracking_uri, launch.name, manifest.digest, keys, launch.settings.cache)
    return SOME_FAILED if failed else OK


def _check_gpu(launch: Launch) -> None:
    """Refuse a GPU of this machine that torch cannot use. A cluster's nodes are checked when the grid starts."""
    from grid.devices import check_here
    from grid.settings import InfeasibleError
    from models.registry import detector_info

    options = launch.options
    if options.address or os.environ.get("RAY_ADDRESS") or options.num_gpus == 0:
        return
    try:
        check_here(launch.settings, [(name, detector_info(name).gpu_share) for name in launch.configs])
    except InfeasibleError as error:
        raise BadInputError(str(error)) from error


def _check_temporary_folder(launch: Launch) -> None:
    """Refuse a temporary folder whose path is too long for a Ray of our own, before anything is read."""
    from grid.settings import long_temporary_folder

    options = launch.options
    problem = long_temporary_folder()
    if problem is None or options.plan or options.local or options.address or os.environ.get("RAY_ADDRESS"):
        return
    from grid.cluster import find_cluster

    if find_cluster() is None:
        raise BadInputError(problem)


def read_data(launch: Launch, console: Console) -> Manifest | None:
    """Validate the corpus and save its manifest where the trials find it; None: a plan of a demo not drawn yet."""
    from grid.steps import step

    with step(console, "looking for the data set", in_logs=False):  # importing pandas takes a second
        from data.addresses import is_url
        from data.fetch import FetchError, fetch
        from data.manifest import BadGeneratorsError, DataProblems, build_manifest
        from data.photographs import PER_GROUP
        from data.sources import get_source
        from grid.corpora import corpus_options, unpacked
        from grid.progress import counting
        from models.registry import size_check

    options, settings = launch.options, launch.settings
    source = get_source(launch.experiment.source)
    drawn = source.drawn if options.data is None else None
    if drawn is not None:
        _check_sizes_of([drawn.size()], [drawn.size()], launch)
        if options.plan and not drawn.folder(settings.cache).exists():
            return None
    if options.data is None and drawn is None:
        raise BadInputError(f"{launch.experiment.name} needs --data DIR, the folder of the corpus")
    if options.data is not None:
        check_layout(options.data, launch.experiment, lists=options.list)
    check_writable(settings.cache, *([] if options.plan else [settings.runs]))
    with counting(console) as count:
        if drawn is not None:
            root = drawn.make(settings.cache, partial(count, "drawing faces"))
        elif is_url(options.data):
            try:
                root = fetch(options.data, settings.cache / "corpora", progress=partial(count, "fetching files"))
            except FetchError as error:
                raise BadInputError(str(error)) from error
            check_layout(str(root), launch.experiment, shown=options.data, lists=options.list)
        else:
            root = Path(options.data).resolve()
        root = unpacked(root, source, options, settings.cache, partial(count, "unpacking MiB"))
        try:
            manifest = build_manifest(
                source.name,
                root,
                cache=settings.cache,
                seed=options.split_seed,
                skip_bad=options.skip_bad,
                limit=options.limit,
                generators=options.generators,
                names_per_split=options.names_per_split,
                size_check=size_check(launch.configs.items()),
                progress=partial(count, "reading files"),
                measured_per_group=0 if options.plan else PER_GROUP,
                **corpus_options(options),
            )
        except DataProblems as error:
            raise BadInputError(str(error)) from error
        except BadGeneratorsError as error:
            raise BadInputError(f"--generators: {error}") from error
    manifest.save(settings.manifests / manifest.digest)
    console.print(manifest.summary(), highlight=False, markup=False)
    for note in manifest.notes:
        print_wrapped(f"note: {note}", console, style=NOTE)
    if manifest.skipped:
        print_wrapped(f"left out: {len(manifest.skipped)} bad files; recorded in MLflow", console, style=NOTE)
    if options.generators and not options.train_on:
        print_wrapped(
            f"note: only {', '.join(manifest.generators)} take part, in training and in tests\nto train on these and "
            f"test on every generator: --train-on {','.join(manifest.train_generators)} in place of --generators",
            console,
            style=NOTE,
        )
    return manifest


def note_masks(manifest: Manifest, cache: Path, console: Console) -> None:
    """Print what a sample of masks says beside the originals, where the corpus says what white in a mask means."""
    from data.masks import check_sample
    from data.pictures import FileError

    try:
        num_pairs, findings = check_sample(manifest, cache=cache)
    except FileError as error:
        raise BadInputError(str(error)) from error
    for finding in findings:
        text = f"masks of a sample ({num_pairs} beside their originals): {finding}"
        print_wrapped(text, console, style=NOTE)


def check_pairs(manifest: Manifest, launch: Launch) -> None:
    """Refuse fakes without what a condition needs: their mask, and their original in the same size.

    Raises:
        BadInputError: the message counts and names the fakes, with the remedy.
    """
    from data.conditions import get_condition, members
    from data.pictures import pair_problems
    from grid.plan import TEST

    trained = {name for joined in launch.train_conditions for name in members(joined)}
    for name in dict.fromkeys([*launch.conditions, *sorted(trained)]):
        if not get_condition(name).needs_pairs:
            continue
        table = manifest.table
        rows = table if name in trained else table[table["split"] == TEST]
        if problem := pair_problems(manifest, rows, name):
            raise BadInputError(problem)


def check_sizes(manifest: Manifest, launch: Launch) -> None:
    """Refuse conditions that give pictures of a size that a method cannot take, such as a small part of each.

    Of the data set's sizes, the one with the shortest side and the one with the longest ratio of sides are tried.

    Raises:
        BadInputError: the message names conditions, sizes and methods, with the remedy.
    """
    from grid.plan import TEST

    def extremes(rows: pd.DataFrame) -> set[tuple[int, int]]:
        pairs = rows[["width", "height"]].drop_duplicates().sort_values(["width", "height"]).astype(int)
        sizes = list(pairs.itertuples(index=False, name=None))
        return {min(sizes, key=min), max(sizes, key=lambda size: max(size) / min(size))} if sizes else set()

    table = manifest.table
    _check_sizes_of(extremes(table), extremes(table[table["split"] == TEST]), launch)


def _check_sizes_of(of_all: Collection[tuple[int, int]], of_test: Collection[tuple[int, int]], launch: Launch) -> None:
    """As `check_sizes`, of these sizes (width, height) of all pictures, and of the test pictures."""
    from data.conditions import CLEAN, members, size_under
    from models.registry import detector_info, size_check

    trained = {name for joined in launch.train_conditions for name in members(joined)}
    problems = []
    for name in {*launch.conditions, *trained} - {CLEAN}:
        # Controls and references are scored on clean pictures alone.
        methods = [each for each in launch.configs.items() if name in trained or not detector_info(each[0]).reference]
        check = size_check(methods)
        for width, height in of_all if name in trained else of_test:
            given = size_under(name, width, height)
            if given is not None and (problem := check(*given)):
                sizes = f"of {given[0]} x {given[1]} pixels from those of {width} x {height}"
                problems.append(f"{name} makes pictures {sizes}: {problem}")
    if problems:
        remedy = "Leave the condition out (--conditions, --train-condition), or the method (--methods)"
        raise BadInputError("\n".join([*sorted(problems), remedy]))


def check_layout(data: str, experiment: Experiment, *, shown: str = "", lists: str = "") -> None:
    """Refuse a folder that the experiment is not about: photographs for the demo, or the layout of another corpus.

    Args:
        data: `--data`; a bucket is looked at once it is fetched.
        experiment: the experiment.
        shown: the address to name in the message; "": `data`.
        lists: `--list`; whoever names files that list the images has chosen the layout.

    Raises:
        BadInputError: the message names the experiment that fits.
    """
    from data.addresses import is_url, without_passwords
    from data.sources import get_source, list_sources, recognise

    source, shown = get_source(experiment.source), without_passwords(shown or data)
    root = Path(data).resolve()
    names = [] if is_url(data) else recognise(root)
    others = names or [name for name in list_sources() if get_source(name).drawn is None]
    commands = " or ".join(f"python launch.py {name} --data {shlex.quote(shown)}" for name in others)
    if source.drawn is not None and (is_url(data) or not source.drawn.is_one(root)):
        if not is_url(data) and not root.is_dir():
            raise BadInputError(
                f"--data {shown} does not exist or is not a folder; check the path, and name the experiment: "
                f"{experiment.name} draws its own images"
            )
        layout = f"{shown} has the layout of {names[0]}: " if names else "name the experiment: "
        raise BadInputError(
            f"the experiment is {experiment.name}, which draws its own images; a report would call those in {shown} "
            f"drawn faces\n{layout}{commands}"
        )
    if names and source.looks_like is not None and source.name not in names and not lists:
        raise BadInputError(f"{shown} has the layout of {names[0]}, not of {source.name}: {commands}")


def check_writable(*folders: Path) -> None:
    """Make these folders, and write to each of them, before any work is done whose result could not be kept."""
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(b"?")
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise BadInputError(
                f"{folder} cannot be written to ({error.strerror}); --runs and --cache choose the folders"
            ) from error


def known_trials(
    trials: list[TrialSpec], name: str, settings: RunSettings
) -> tuple[list[TrialSpec], dict[str, TrialState]]:
    """The trials, each with the seed that is finished where any will do, and what MLflow knows of them.

    A local store that is not there yet is not asked: MLflow takes seconds.
    """
    file = sqlite_file(settings.tracking_uri)
    if file is not None and not file.exists():
        return trials, {}

    from grid.plan import FINISHED, with_finished_seeds
    from grid.records import StoreError, open_records, trial_state
    from models.registry import depends_on_seed

    try:
        records = open_records(settings.tracking_uri, name)
        runs = {} if records is None else records.speaking()
    except StoreError as error:
        raise BadInputError(str(error)) from error
    states = {key: trial_state(run) for key, run in runs.items()}
    finished = {key for key, state in states.items() if state.state == FINISHED}
    seeds: dict[str, set[int]] = {}
    for key in finished:
        tags = runs[key].data.tags
        if (seed := tags.get(names.SEED, "")).isdecimal():
            seeds.setdefault(tags.get(names.METHOD, ""), set()).add(int(seed))
    trials = with_finished_seeds(trials, finished, seeds, depends_on_seed)
    return trials, {trial.key: states[trial.key] for trial in trials if trial.key in states}


def known_durations(name: str, settings: RunSettings) -> dict[Kind, list[float]]:
    """Kind -> seconds of the finished trials of that kind in MLflow; see `known_trials`."""
    file = sqlite_file(settings.tracking_uri)
    if file is not None and not file.exists():
        return {}

    from grid.foresight import kind_of
    from grid.plan import FINISHED
    from grid.records import StoreError, open_records, speaking_runs, state_of
    from grid.spec import TrialSpec

    durations: dict[Kind, list[float]] = {}
    try:
        records = open_records(settings.tracking_uri, name)
        if records is None:
            return {}
        planned = {key: fields for grid in records.grids() for key, fields in records.plan(grid).items()}
        for key, run in speaking_runs(records.trials(params=False, metrics=[names.SECONDS])).items():
            seconds = run.data.metrics.get(names.SECONDS)
            if state_of(run) == FINISHED and seconds is not None and key in planned:
                with suppress(TypeError, ValueError):  # a trial of another checkout says nothing about this one's
                    durations.setdefault(kind_of(TrialSpec.from_dict(planned[key])), []).append(seconds)
    except StoreError as error:
        raise BadInputError(str(error)) from error
    return durations


def run_pending(
    plan: Plan, launch: Launch, manifest: Manifest, verdict: Verdict, measured: pd.DataFrame, console: Console
) -> bool:
    """Check weights, prepare shared inputs, run. Returns whether any trial failed."""
    from grid import tracking
    from grid.plan import make_plan
    from grid.runner import check_detectors
    from grid.steps import step
    from models.detector import WeightsError
    from models.metrics import list_metrics

    settings = launch.settings
    list_metrics()  # an error in a metric's file shows now, and not after the training
    specs = [work.spec for work in plan.pending]
    try:
        with step(console, f"checking the weights of {', '.join(dict.fromkeys(spec.method for spec in specs))}"):
            geometries = check_detectors(specs, settings)
    except WeightsError as error:
        raise BadInputError(str(error)) from error
    cropping = [method for method, geometry in geometries.items() if geometry and geometry.policy == "crop"]
    if cropping and (oblong := int((manifest.table["width"] != manifest.table["height"]).sum())):
        print_wrapped(
            f"note: {oblong} images are not square, and only the middle of them is seen by {', '.join(cropping)}\n"
            "to show all of them: --set METHOD.resize=squash",
            console,
            style=NOTE,
        )
    with step(console, "opening the MLflow store"):
        tracker = tracking.find_grid(settings.tracking_uri, launch.name, manifest, settings.runs / "artifacts")
    with tracker.claim() as lost:
        launched = {names.EXPERIMENT: launch.experiment.name, names.OPTIONS: launch.repeated()}
        launched |= {names.LAUNCH_FILE: launch.options.as_yaml} if launch.options.as_yaml else {}
        tracker.record_launch(manifest, plan.trials, conditions=plan.conditions, launched=launched, verdict=verdict)
        record_areas(tracker, manifest, measured)
        record_references(launch, manifest, measured)
        # Looked up again: whoever ran this grid until now may have finished some of it meanwhile.
        states = tracker.records.states([trial.key for trial in plan.trials])
        plan = make_plan(plan.trials, states, plan.conditions)
        return run_claimed(plan, launch, tracker, lost, console)


def record_areas(tracker: Tracker, manifest: Manifest, measured: pd.DataFrame) -> None:
    """Keep the edited area of each test fake that has a mask to be trusted with the grid, once, for the report."""
    from grid.plan import TEST

    masked = (manifest.table["split"] == TEST) & measured["mask_share"].notna()
    areas = dict(zip(manifest.table.loc[masked, "digest"], measured.loc[masked, "mask_share"].tolist(), strict=True))
    if areas and tracker.lacks_areas(areas):
        tracker.record_areas(areas)


def record_references(launch: Launch, manifest: Manifest, measured: pd.DataFrame) -> None:
    """Keep the references that need no pictures with the grid, if --controls asks for them and they are not there."""
    if not launch.options.controls:
        return
    from grid.controls import references
    from grid.tracking import keep_references

    uri = launch.settings.tracking_uri
    keep_references(uri, launch.name, manifest.digest, lambda sets: references(manifest, measured, sets))


def run_claimed(plan: Plan, launch: Launch, tracker: Tracker, lost: Event, console: Console) -> bool:
    """Do what is pending of a grid that nobody else runs. Returns whether any trial failed."""
    from grid.checkpoints import remove_states
    from grid.printed_plan import in_words
    from grid.progress import GridProgress, counting
    from grid.runner import LocalExecutor
    from models.detector import MemoryExhausted

    settings = launch.settings
    # The longest first, so that none is left to run alone at the end.
    pending = sorted(plan.pending, key=lambda work: (not work.fits, -len(work.spec.train_generators)))
    keys = [work.key for work in pending]
    # Those that finished in a launch that was killed have left theirs behind.
    remove_states(settings.checkpoints(tracker.parent_id), {trial.key for trial in plan.finished})
    console.print(in_words(plan, pending))

    def execute(executor: Executor) -> GridProgress:
        with counting(console) as count:
            try:
                executor.prepare(pending, lambda method, done, total: count(f"images for {method}", done, total))
            except (ValueError, MemoryExhausted) as error:  # a changed file, a trial or an image that fits nowhere
                raise BadInputError(str(error)) from error
        with GridProgress(console, pending, finished=len(plan.trials) - len(pending)) as progress:
            executor.run(pending, progress)
        return progress

    complete, failed = False, dict[str, str]()
    reserve = Reserve(settings.runs / f".reserve-{tracker.parent_id}")
    try:
        reserve.take()
        if launch.options.local:
            progress = execute(LocalExecutor(settings, tracker))
        else:
            progress = on_ray(execute, launch, tracker, console)
        failed = progress.failed
        # Tune ends its trials when it is interrupted and returns; what has no outcome then was interrupted.
        unfinished = set(keys) - progress.done - failed.keys()
        if unfinished:
            raise KeyboardInterrupt
        complete = not failed
    finally:
        reserve.release()
        if not lost.is_set():
            tracker.close_interrupted(keys, failed)
            tracker.close_grid(complete=complete)
    if failed:
        console.print(f"\n[red]{len(failed)} of {len(pending)} trials failed[/]; MLflow has what went wrong")
    return bool(failed)


def on_ray(
    execute: Callable[[Executor], GridProgress], launch: Launch, tracker: Tracker, console: Console
) -> GridProgress:
    """Execute on the cluster of this machine or at the address that was given, or on a Ray of our own."""
    from grid import cluster
    from grid.ray_executor import RayExecutor
    from grid.steps import step

    options, settings = launch.options, launch.settings
    address = options.address or os.environ.get("RAY_ADDRESS") or cluster.find_cluster()
    if address and (options.num_gpus, options.num_cpus) != (None, None):
        raise BadInputError(f"--num-gpus and --num-cpus are about a Ray of our own; here is one at {address}")
    connection = {"address": address, "num_gpus": options.num_gpus, "num_cpus": options.num_cpus}
    with ExitStack() as opened:
        with step(console, _starting(address, options)):
            opened.enter_context(cluster.session(check_gpus=settings.device != "cpu", **connection))
        if address:
            console.print(f"Ray cluster at {address}: {cluster.describe_cluster()}", highlight=False)
        if sqlite_file(settings.tracking_uri) is not None and len(cluster.cluster_nodes()) > 1:
            print_wrapped(
                "note: every node writes to one SQLite file, which network folders do not always bear; "
                "MLFLOW_TRACKING_URI names a server (docs/cluster.md)",
                console,
                style=NOTE,
            )
        return execute(RayExecutor(settings, tracker, connection))


def _starting(address: str | None, options: argparse.Namespace) -> str:
    """What the first connection to Ray is, in words."""
    if address:
        return f"joining the Ray cluster at {address}"
    import torch

    cores = os.cpu_count() if options.num_cpus is None else options.num_cpus
    gpus = torch.cuda.device_count() if options.num_gpus is None else options.num_gpus
    return f"starting Ray ({cores} core{'s' if cores != 1 else ''}, {gpus or 'no'} GPU{'s' if gpus > 1 else ''})"


def plan_before_drawing(launch: Launch, console: Console) -> int:
    """The plan of a grid whose images a launch would make first: every trial is pending, and has no key yet."""
    from data.sources import get_source
    from grid.plan import TEST, make_plan
    from grid.printed_plan import look_ahead, plan_as_json, print_plan
    from grid.steps import step

    drawn = get_source(launch.experiment.source).drawn
    assert drawn is not None, "only such images are made"
    options = launch.options
    plan = make_plan(launch.trials_before_drawing(drawn.generators()), {}, launch.conditions)
    num_classes = 1 + len(set(drawn.generators()) & set(options.generators or drawn.generators()))
    splits = {split: num_classes * min(num, options.limit or num) for split, num in drawn.num_images().items()}
    note = f"the images of {launch.experiment.source} are not made yet; a launch without --plan makes them"
    with step(console, "looking at weights and GPU", in_logs=False):
        ahead = look_ahead(plan, launch, None, {}, num_images=(sum(splits.values()), splits[TEST]))
    if options.json:
        content = plan_as_json(plan, ahead)
        trials = [trial | {"key": None} for trial in content["trials"]]
        print_json(content | {"trials": trials, "stops": None, "note": note})
        return OK
    print_plan(plan, ahead, console)
    print_wrapped(note, console)
    return OK
