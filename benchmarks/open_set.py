"""Is a generator that was left out of training seen to be unknown? Four scores, each generator left out in turn.

    GRID_REAL_FACES=DIR python -m benchmarks open-set

Trials of the task `open_set` on the photographs in DIR (layout of Dolos) and on the demo's faces, by the grid's own
code and recorded nowhere. Methods: `residual_linear`, and `xception_pretrained` in its small form, with one seed per
repeat. Counted is on how many of the left-out generators the AUROC of a distance, unknown against known, is above that
of the largest softmax; of the two distances, the one with the higher count.
"""

from __future__ import annotations

import os
import tempfile
from collections import defaultdict
from pathlib import Path

from benchmarks.grids import drawn_manifest, fresh_settings, noise_manifest
from benchmarks.measure import Measured, NotHereError, Outcome, Target, say, time_is_up
from data.manifest import Manifest, build_manifest
from grid.experiments import cross_generator_trials
from grid.names import parse_metric
from grid.settings import RunSettings
from grid.spec import TrialSpec
from grid.tasks import OPEN_SET
from grid.trial import fit, score
from models.detector import FitSession
from models.open_set import BASELINE, UNKNOWN_SCORES
from models.open_set_metrics import UNKNOWN_AUROC
from models.registry import detector_info, resolve_config

FACES, DEMO = "photographs", "demo"
WITHOUT_SEED, WITH_SEED = "residual_linear", "xception_pretrained"
METHODS = (WITHOUT_SEED, WITH_SEED)
VARIABLE = "GRID_REAL_FACES"
LANDED = "called real"
WANTED = 3  # of four left-out generators


def run(repeats: int, *, toy: bool = False) -> Outcome:
    """Target: with `residual_linear` on the photographs, a distance is better on at least 3 of 4."""
    figures: dict[str, Measured] = {}
    sizes = []
    with tempfile.TemporaryDirectory() as name:
        for data, manifest in _data_sets(Path(name), toy=toy).items():
            settings = fresh_settings(Path(name) / f"of-{data}", manifest)
            sizes.append(f"{data}: {len(manifest.table)} images, {len(manifest.generators)} generators")
            for method in METHODS[:1] if toy else METHODS:
                seeds = range(1 if method == WITHOUT_SEED else repeats)
                figures[f"{data}, {method}"] = _measured(data, manifest, method, seeds, settings)
    return Outcome("; ".join(sizes), figures)


def _measured(data: str, manifest: Manifest, method: str, seeds: range, settings: RunSettings) -> Measured:
    counts: list[float] = []
    parts: dict[str, list[float]] = defaultdict(list)
    for seed in seeds:
        if seed and time_is_up():
            break
        config = resolve_config(method, detector_info(method).small)
        specs = cross_generator_trials(
            generators=manifest.generators, configs={method: config}, tasks=[OPEN_SET], seeds=[seed],
            data=manifest.digest,
        )  # fmt: skip
        found = {where: value for spec in specs for where, value in metrics_of(spec, settings).items()}
        for left_out in manifest.generators:
            for score_name in UNKNOWN_SCORES:
                auroc = found[left_out, f"{UNKNOWN_AUROC.name}/{score_name}"]
                parts[part_name(left_out, score_name)].append(auroc)
            parts[part_name(left_out, LANDED)].append(found[left_out, "lands_on/real"])
            parts[part_name(left_out, "accuracy")].append(found[left_out, "accuracy"])
        counts.append(float(_best_count(parts, manifest.generators)))
        say(f"{data}, {method}, seed {seed}: {counts[-1]:g} of {len(manifest.generators)}")
    photographs = data == FACES and method == WITHOUT_SEED
    return Measured(
        f"left-out generators of the {data} on which a distance beats the largest softmax ({method})",
        "generators",
        counts,
        Target(WANTED, at_least=True) if photographs else None,
        parts,
        fewer_because="" if method == WITH_SEED else "no seed changes the numbers of this method",
    )


def part_name(left_out: str, what: str) -> str:
    """Name of a part: of a score, its AUROC; else a share."""
    return f"{left_out}: {what}"


def _best_count(parts: dict[str, list[float]], generators: tuple[str, ...]) -> int:
    """Of the two distances the higher count, in the newest repeat."""
    distances = [name for name, kind in UNKNOWN_SCORES.items() if kind.is_distance]
    return max(
        sum(parts[part_name(one, name)][-1] > parts[part_name(one, BASELINE)][-1] for one in generators)
        for name in distances
    )


def metrics_of(spec: TrialSpec, settings: RunSettings) -> dict[tuple[str, str], float]:
    """(tested on, metric) -> value of one trial, fitted and scored on the CPU."""
    with tempfile.TemporaryDirectory() as folder:
        fitted = fit(spec, settings, FitSession(), device="cpu", checkpoint_to=Path(folder))
        scored = score(spec, fitted.detector, settings, threshold=fitted.threshold)
    parsed = {parse_metric(name): value for name, value in scored.metrics.items()}
    return {(where[1], where[2]): value for where, value in parsed.items() if where is not None}


def _data_sets(folder: Path, *, toy: bool) -> dict[str, Manifest]:
    if toy:
        return {FACES: noise_manifest(folder, {"train": 4, "valid": 2, "test": 3}, 64)}
    faces = os.environ.get(VARIABLE)
    if not faces:
        raise NotHereError(f"{VARIABLE} names no folder of photographs in the layout of Dolos")
    return {
        FACES: build_manifest("dolos", Path(faces), cache=folder / "facts-of-photographs"),
        DEMO: drawn_manifest(folder, toy=False),
    }
