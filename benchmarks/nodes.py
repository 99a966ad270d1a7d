"""Wall clock of demo trials on two Ray nodes with one CPU core each, over the same trials on one such node.

The nodes are Ray's own on this machine, with a head that has no core for trials, as a cluster's has: what is measured
is how trials spread over nodes, not a network. Driver, head and MLflow's records take part of the machine's cores, so a
machine with two shows less than one with four. The clock runs as in `ray_grid`; start-up and imports are not counted.

Trials that only sleep take no core and record nothing: their ratio is that of the scheduling alone.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path

from benchmarks import machine
from benchmarks.grids import demo_trials, drawn_manifest, fresh_settings
from benchmarks.measure import Measured, Outcome, Target, column, interleave, ratios, say, timed
from benchmarks.ray_grid import TOY as TOY_SIZE
from benchmarks.ray_grid import Size, recorded, run_all, warm_workers
from data.manifest import Manifest
from grid.plan import Work
from grid.settings import RunSettings
from grid.spec import TrialSpec
from grid.tracking import Tracker

# The part of the demo, the number of trials that sleep, and how long each of them does, in seconds.
FULL = (Size(100, ("xception_scratch", "clip_linear")), 8, 2.0)
TOY = (TOY_SIZE, 2, 0.1)


def run(repeats: int, *, toy: bool = False) -> Outcome:
    """Target of both: 0.6; of the demo's trials only where there are two cores."""
    size, num_resting, seconds = TOY if toy else FULL
    cores = machine.cores()
    numbers = count()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest = drawn_manifest(folder, toy=toy).limit(size.limit)
        specs = demo_trials(manifest, size.methods)
        resting = specs[:num_resting]
        setup = f"{len(specs)} demo trials ({', '.join(size.methods)}) on {len(manifest.table)} of its images"
        say(f"{setup}; {cores} cores")

        def on(nodes: int) -> dict[str, float]:
            settings = fresh_settings(folder / f"{next(numbers)}", manifest)
            return on_nodes(nodes, specs, resting, seconds, settings, manifest)

        found = interleave(repeats, {"one node": lambda: on(1), "two nodes": lambda: on(2)})

    def over(what: str) -> list[float]:
        return ratios(column(found["two nodes"], what), column(found["one node"], what))

    def parts(*names: str) -> dict[str, list[float]]:
        return {f"{side}: {part}, s": column(found[side], part) for side in found for part in names}

    return Outcome(
        f"{setup}; {cores} cores",
        {
            "demo trials": Measured(
                f"wall clock on two nodes with a core each over one such node ({setup}; {cores} cores)",
                "ratio",
                over("wall"),
                Target(0.6) if cores >= 2 else None,
                parts("wall", "preparing", "all trials"),
            ),
            "sleeping trials": Measured(
                f"the same of {num_resting} trials that sleep {seconds:g} s",
                "ratio",
                over("sleeping"),
                Target(0.6),
                parts("sleeping"),
            ),
        },
    )


def on_nodes(
    number: int,
    specs: list[TrialSpec],
    resting: list[TrialSpec],
    seconds: float,
    settings: RunSettings,
    manifest: Manifest,
) -> dict[str, float]:
    """Seconds on a cluster of so many nodes: what `recorded` gives for `specs`, and "sleeping" for `resting`."""
    from ray.cluster_utils import Cluster

    from grid.ray_executor import RayExecutor

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(number):
            cluster.add_node(num_cpus=1)
        connection = {"address": cluster.address}
        with warm_workers(number, connection):
            found = recorded(specs, settings, manifest, connection)
            nowhere = Tracker(settings.tracking_uri, "", "", {})
            executor = RayExecutor(settings, nowhere, connection, sleeper(seconds))
            return found | {"sleeping": timed(lambda: run_all(executor, resting))}
    finally:
        cluster.shutdown()


def sleeper(seconds: float) -> Callable[[Work, RunSettings, Tracker, float], None]:
    """A trial that takes so long and does nothing."""

    def sleep(work: Work, settings: RunSettings, tracker: Tracker, share: float) -> None:
        import time

        time.sleep(seconds)

    return sleep
