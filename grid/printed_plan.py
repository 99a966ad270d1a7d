"""A plan in the terminal and as JSON: every trial, and what a launch needs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from grid.command_line import print_wrapped
from grid.foresight import Disk, Hours, Kind, disk, hours, missing
from grid.overview import Row, as_json, print_rows

if TYPE_CHECKING:
    from rich.console import Console

    from data.manifest import Manifest
    from grid.options import Launch
    from grid.plan import Plan, Work
    from grid.settings import RunSettings
    from models.published import Held

NOTE = "yellow"


@dataclass(frozen=True)
class Ahead:
    """What a launch of a plan needs.

    Attributes:
        settings: of the launch.
        held: method -> where its weights are.
        missing: what it would have to fetch, or do without, in words.
        hours: of the pending work.
        disk: of the pending work.
    """

    settings: RunSettings
    held: Mapping[str, Sequence[Held]]
    missing: Sequence[str]
    hours: Hours
    disk: Disk


def look_ahead(
    plan: Plan,
    launch: Launch,
    manifest: Manifest | None,
    durations: Mapping[Kind, Sequence[float]],
    *,
    num_images: tuple[int, int],
) -> Ahead:
    """Look at the weights, the GPU, the time and the disk of what is pending. Asks no server.

    Args:
        plan: the plan.
        launch: settings and configurations.
        manifest: of the images; None: they are not made yet.
        durations: kind -> seconds of finished trials.
        num_images: of the images, and of the test images among them.
    """
    from models.published import weights_held
    from models.registry import detector_info

    settings = launch.settings
    methods = list(dict.fromkeys(work.spec.method for work in plan.pending))
    configs = {method: launch.configs[method] for method in methods}
    held = {name: weights_held(name, config, weight_files=settings.weight_files) for name, config in configs.items()}
    shares = {method: detector_info(method).gpu_share for method in methods}
    lacking = missing(held, settings, shares)
    needed = disk(plan.pending, *num_images, folders=dict.fromkeys((settings.cache, settings.runs)))
    expected = hours(
        plan.pending,
        durations,
        manifest,
        at_once=_at_once(launch, shares),
        on_cpu=lambda method: on_cpu(settings, shares[method]),
    )
    return Ahead(settings, held, lacking, expected, needed)


def on_cpu(settings: RunSettings, share: float) -> bool:
    """Whether trials with this share of a GPU compute on the CPU of this machine."""
    from grid.devices import has_card, torch_problem

    return settings.device == "cpu" or not share or not has_card() or torch_problem() is not None


def _at_once(launch: Launch, shares: Mapping[str, float]) -> int:
    """Trials that this machine runs at once, at most, by its cores and its GPUs; 1 on a cluster, which is not asked."""
    options, settings = launch.options, launch.settings
    if options.local or options.address or os.environ.get("RAY_ADDRESS"):
        return 1
    cores = options.num_cpus or os.cpu_count() or 1
    fitting = int(cores // settings.cpus_per_trial) if settings.cpus_per_trial else cores
    used = [settings.for_method(name).gpu_share(share, gpus_available=1) for name, share in shares.items()]
    if all(used) and not on_cpu(settings, 1):
        import torch

        fitting = min(fitting, int((options.num_gpus or torch.cuda.device_count()) / min(used)))
    return max(1, min(fitting, settings.max_concurrent or fitting))


def in_words(plan: Plan, pending: Sequence[Work]) -> str:
    """How many trials there are, and what is to do."""
    fits = sum(work.fits for work in pending)
    words = f"{len(plan.trials)} trials, {len(plan.finished)} finished before, {fits} to run"
    scored = len(pending) - fits
    what = (
        "under further conditions"
        if any(work.conditions for work in pending if not work.fits)
        else "on validation images"
    )
    return words + (f", {scored} to score {what}" if scored else "")


def print_plan(plan: Plan, ahead: Ahead, console: Console) -> None:
    """Every trial with its state and what it would ask for; then what is missing, the time and the disk."""
    from grid.tasks import get_task
    from models import published
    from models.registry import depends_on_seed

    console.print(f"{in_words(plan, plan.pending)}\n")
    settings = ahead.settings
    asks = {trial.method: [", ".join(asked_for(trial.method, settings))] for trial in plan.trials}
    for method, held in ahead.held.items():
        asks[method] += [f"weights: {words}"] if (words := published.in_words(held)) else []
    print_rows(planned_rows(plan), console, asks={method: "\n  ".join(lines) for method, lines in asks.items()})
    once = dict.fromkeys(
        trial.method
        for trial in plan.trials
        if not depends_on_seed(trial.method, dict(trial.config)) and not get_task(trial.task).is_control
    )
    if once:
        print_wrapped(f"once, with one seed, because the results do not depend on it: {', '.join(once)}", console)
        if any(get_task(trial.task).is_control for trial in plan.trials):
            print_wrapped("null controls run with each seed, because their labels follow from it", console)
    if settings.accelerator or settings.gpu_memory or settings.by_method:
        print_wrapped("whether a node has what is asked for is seen when the grid starts", console)
    if any("GPU share" in line for lines in asks.values() for line in lines) and not on_cpu(settings, 1):
        text = "frozen methods need the GPU only while their features are computed, unless one was asked for"
        print_wrapped(text, console)
    for line in ahead.missing:
        print_wrapped(f"missing: {line}", console, style=NOTE)
    if any(published.missing_files(held) for held in ahead.held.values()):
        print_wrapped("for machines without a network: python launch.py fetch-weights --help", console)
    for line in [*ahead.hours.lines(), *ahead.disk.lines()]:
        print_wrapped(line, console)
    if warning := ahead.disk.warning():
        print_wrapped(f"disk: {warning}", console, style=NOTE)


def plan_as_json(plan: Plan, ahead: Ahead) -> dict[str, Any]:
    """A plan in plain JSON types."""
    scoring = {work.key: list(work.conditions) for work in plan.pending if not work.fits}
    return {
        "finished": len(plan.finished),
        "to_run": sum(work.fits for work in plan.pending),
        "to_score": len(scoring),
        "conditions": list(plan.conditions),
        "weights": {method: [_weights(each) for each in held] for method, held in ahead.held.items()},
        "missing": list(ahead.missing),
        "time": ahead.hours.as_json(),
        "disk": ahead.disk.as_json(),
        "trials": [
            as_json(
                trial,
                state=plan.state(trial),
                to_score=scoring.get(trial.key, []),
                asks_for=asked_for(trial.method, ahead.settings),
            )
            for trial in plan.trials
        ],
    }


def _weights(held: Held) -> dict[str, Any]:
    return asdict(held) | {"files": [str(file) for file in held.files]}


def planned_rows(plan: Plan) -> list[Row]:
    """The trials of a plan with their states."""
    scoring = {work.key: f"finished; to score: {work.scores}" for work in plan.pending if not work.fits}
    return [Row(trial, scoring.get(trial.key, plan.state(trial))) for trial in plan.trials]


def asked_for(method: str, settings: RunSettings) -> list[str]:
    """What trials of a method ask for, such as "GPU share 0.5" and "1 CPU core"."""
    from models.registry import detector_info

    own = settings.for_method(method)
    share = own.gpu_share(detector_info(method).gpu_share, gpus_available=1)
    words = [f"GPU share {share:g}" if share else "no GPU"]
    words += [f"on {own.accelerator}"] if share and own.accelerator else []
    words += [f"{own.gpu_memory:g} GB of GPU memory"] if share and own.gpu_memory else []
    words += [f"{own.cpus_per_trial:g} CPU core{'s' if own.cpus_per_trial != 1 else ''}"]
    words += [f"{own.memory_per_trial:g} GB of memory"] if own.memory_per_trial else []
    return words
