"""Milliseconds that Ray Tune takes per trial of a trial that does nothing, as a grid grows.

The trials go through the grid's own executor, on a Ray of their own with two cores, without MLflow. What is timed is
from the end of the 20th trial to the end of the last: workers start, and Ray itself, before that.
"""

from __future__ import annotations

import math
import tempfile
import time
from pathlib import Path

from benchmarks.grids import paper_manifest
from benchmarks.measure import Measured, Outcome, Target, column, in_new_process, interleave, peak_resident, ratios
from grid.cluster import session
from grid.plan import Work
from grid.ray_executor import RayExecutor
from grid.runner import DONE, TrialEvent
from grid.settings import RunSettings
from grid.spec import TrialSpec
from grid.tasks import DETECTION
from grid.tracking import Tracker
from models.registry import resolve_config

METHOD = "xception_scratch"
STARTED = 20  # trials that are not counted


def run(repeats: int, *, toy: bool = False) -> Outcome:
    """Target: a trial among the most costs no more than twice as much as one among the fewest."""
    sizes = (25, 30) if toy else (200, 1_000, 5_000)
    sides = {
        f"{size:,}": lambda size=size: in_new_process("benchmarks.scale_ray", "nothing", {"num_trials": size})
        for size in sizes
    }
    found = interleave(repeats, sides)
    per_trial = {name: column(values, "ms") for name, values in found.items()}
    few, many = f"{sizes[0]:,}", f"{sizes[-1]:,}"
    grown = ratios(per_trial[many], per_trial[few])
    return Outcome(
        f"trials that do nothing, {', '.join(per_trial)}, on two cores",
        {
            "per trial": Measured(
                f"milliseconds per trial that does nothing, among {many} over among {few}",
                "ratio",
                grown,
                None if toy else Target(2.0),
                parts={f"{name} trials, ms": values for name, values in per_trial.items()},
            ),
            "growth": Measured(
                f"exponent of the whole time's growth from {few} to {many} trials (1: in proportion)",
                "exponent",
                [1 + math.log(ratio) / math.log(sizes[-1] / sizes[0]) for ratio in grown],
            ),
            "memory": Measured(
                f"peak memory of the driver with {many} trials",
                "GB",
                column(found[many], "peak_gb"),
                parts={f"{few} trials, GB": column(found[few], "peak_gb")},
            ),
        },
    )


def nothing(num_trials: int) -> dict[str, float]:
    """Milliseconds per trial, and peak memory of this process in GB."""
    ended: list[float] = []

    def watch(event: TrialEvent) -> None:
        if event.kind == DONE:
            ended.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as name, session(address=None, num_gpus=0, num_cpus=2, check_gpus=False):
        nowhere = "sqlite:////none"
        settings = RunSettings(Path(name) / "cache", Path(name) / "runs", nowhere, device="cpu", cpus_per_trial=1)
        manifest = paper_manifest(Path(name), 100)
        manifest.save(settings.manifests / manifest.digest)
        config = tuple(resolve_config(METHOD).items())
        work = [Work(TrialSpec(DETECTION, METHOD, config, ("lama",), n, manifest.digest)) for n in range(num_trials)]
        RayExecutor(settings, Tracker(nowhere, "0", "0", {}), {}, lambda *told: None).run(work, watch)
    counted = len(ended) - STARTED
    return {"ms": 1000 * (ended[-1] - ended[STARTED - 1]) / counted, "peak_gb": peak_resident() / 1e9}
