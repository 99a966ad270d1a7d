"""What a plan says before anything starts: what is missing, how long the trials take, how much disk they need.

Durations are those of trials of the same kind that finished in this store, on the same images. Where there are none,
the core-seconds that `docs/cost.md` states stand in their place, for methods with their own settings, on a CPU.
Everything else is not known, and a plan says so.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grid.plan import TEST, TRAIN, Work
from grid.spec import TrialSpec

if TYPE_CHECKING:
    import pandas as pd

    from data.manifest import Manifest
    from grid.settings import RunSettings
    from models.published import Held

Kind = tuple[str, str, str, int, str, str]
# Core-seconds per image on a CPU, as docs/cost.md states them: of training, and of scoring; or of encoding, once.
TRAINED = {"xception_scratch": (1.064, 1.064 * 18.4 / 55.17), "xception_pretrained": (1.064, 1.064 * 18.4 / 55.17)}
ENCODED = {"clip_linear": 2.43, "sam_linear": 25.9, "residual_linear": 0.008632}
DIGEST_BYTES = 65  # per row of a store


def kind_of(spec: TrialSpec) -> Kind:
    """Trials of one kind take about the same time: method with its settings, task, training images, data set."""
    config = json.dumps(dict(spec.config), sort_keys=True)
    images = json.dumps([repr(spec.equal_size), list(spec.train_conditions)])
    return spec.task, spec.method, config, len(spec.train_generators), images, spec.data


@dataclass(frozen=True)
class Hours:
    """The time of pending work.

    Attributes:
        seconds: of all trials whose kind has finished in this store, one after another.
        measured: number of these trials.
        core_seconds: of the trials whose cost is stated for a CPU.
        stated: number of these trials.
        unknown: method -> number of trials of which neither is known.
        scoring: method -> number of finished trials that are scored under more conditions; how long is not known.
        at_once: trials that this machine runs at once, at most.
    """

    seconds: float
    measured: int
    core_seconds: float
    stated: int
    unknown: Mapping[str, int]
    scoring: Mapping[str, int]
    at_once: int

    def lines(self) -> list[str]:
        """In words."""
        said = []
        if self.measured:
            count = f"{self.measured} trial{'s' if self.measured != 1 else ''}"
            together = (
                f", {in_hours(self.seconds / self.at_once)} with {self.at_once} at once" if self.at_once > 1 else ""
            )
            said.append(
                f"time: {in_hours(self.seconds)} for {count}, as trials of their kinds took here, one after another"
                f"{together}"
            )
        if self.stated:
            count = f"{self.stated} trial{'s' if self.stated != 1 else ''}"
            said.append(f"time: about {self.core_seconds / 3600:,.2g} core-hours for {count} on a CPU (docs/cost.md)")
        if self.unknown:
            methods = ", ".join(f"{number} of {method}" for method, number in self.unknown.items())
            said.append(
                f"time: not known for {methods}: no trial of this kind has finished here. A launch says the time that "
                "is left once its first trial has finished, and a plan after it how long such trials take"
            )
        if self.scoring:
            methods = ", ".join(f"{number} of {method}" for method, number in self.scoring.items())
            said.append(f"time: not known for scoring finished trials further: {methods}")
        return said

    def as_json(self) -> dict[str, Any]:
        """In plain JSON types."""
        return {
            "measured_seconds": self.seconds if self.measured else None, "measured_trials": self.measured,
            "stated_core_seconds": self.core_seconds if self.stated else None, "stated_trials": self.stated,
            "unknown_trials": dict(self.unknown), "scoring_trials": dict(self.scoring), "at_once": self.at_once,
        }  # fmt: skip


def in_hours(seconds: float) -> str:
    """Such as "about 40 s", "about 12 min", "about 3.5 h"."""
    if seconds < 90:
        return f"about {seconds:.0f} s"
    return f"about {seconds / 60:.0f} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"


def hours(
    pending: Sequence[Work], durations: Mapping[Kind, Sequence[float]], manifest: Manifest | None, *,
    at_once: int, on_cpu: Callable[[str], bool] = lambda method: True,
) -> Hours:  # fmt: skip
    """The time that pending work takes.

    Args:
        pending: of the plan.
        durations: kind -> seconds of finished trials.
        manifest: of the images; None: they are not made yet.
        at_once: trials that run at once.
        on_cpu: whether trials of a method compute on a CPU.
    """
    seconds, measured, core_seconds, stated = 0.0, 0, 0.0, 0
    unknown: Counter[str] = Counter()
    scoring: Counter[str] = Counter()
    encoded: set[str] = set()
    for work in pending:
        spec = work.spec
        if not work.fits:
            scoring[spec.method] += 1
        elif known := durations.get(kind_of(spec)):
            seconds, measured = seconds + sum(known) / len(known), measured + 1
        elif manifest is not None and on_cpu(spec.method) and _as_shipped(spec):
            core_seconds, stated = core_seconds + _stated(spec, manifest, encoded), stated + 1
        else:
            unknown[spec.method] += 1
    at_once = max(1, min(at_once, len(pending)))
    return Hours(seconds, measured, core_seconds, stated, dict(unknown), dict(scoring), at_once)


def _as_shipped(spec: TrialSpec) -> bool:
    """Whether a cost is stated for the trial: a published method with its own settings, whatever its weights."""
    if spec.method not in TRAINED and spec.method not in ENCODED:
        return False
    from models.registry import detector_info

    own = detector_info(spec.method).config
    changed = {name for name, value in dict(spec.config).items() if getattr(own, name) != value}
    return changed <= {"weights", "padding"}


def _stated(spec: TrialSpec, manifest: Manifest, encoded: set[str]) -> float:
    """Core-seconds; a frozen encoder's count with the first trial of its method, which `encoded` remembers."""
    if spec.method in ENCODED:
        first = spec.method not in encoded
        encoded.add(spec.method)
        return len(manifest.table) * ENCODED[spec.method] if first else 0.0
    trained, scored = TRAINED[spec.method]
    images = (
        len(manifest.select(TRAIN, spec.train_generators)) if spec.equal_size is None else 2 * spec.equal_size.train
    )
    epochs = int(dict(spec.config).get("epochs", 1)) * len(spec.train_conditions)
    return epochs * images * trained + len(_test_rows(manifest)) * scored


def _test_rows(manifest: Manifest) -> pd.DataFrame:
    return manifest.select(TEST, manifest.generators)


# Disk ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Disk:
    """About the space that a launch needs: what is stored already is not taken off, small artifacts are not counted.

    Attributes:
        stores: what is computed once, in words -> bytes in the cache.
        per_trial: bytes of checkpoints and artifacts of the pending trials.
        unknown: methods whose needs are not known.
        free: bytes that are free in the folders of the cache and of the runs: folder -> bytes.
    """

    stores: Mapping[str, int]
    per_trial: int
    unknown: Sequence[str]
    free: Mapping[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """All bytes that are known."""
        return sum(self.stores.values()) + self.per_trial

    def lines(self) -> list[str]:
        """In words."""
        said = []
        if self.total:
            cached = "; ".join(f"{what} {in_bytes(size)}" for what, size in self.stores.items())
            said.append(
                f"disk: about {in_bytes(self.total)}, less what is there already: {cached}; checkpoints and artifacts "
                f"of trials {in_bytes(self.per_trial)}"
            )
        if self.unknown:
            said.append(f"disk: not known for {', '.join(self.unknown)}")
        return said

    def warning(self) -> str:
        """That the space may not be enough; "" if it is."""
        short = [f"{folder} has {in_bytes(free)} free" for folder, free in self.free.items() if free < self.total]
        if not short:
            return ""
        return (
            f"{' and '.join(short)}, and the launch needs about {in_bytes(self.total)}\n"
            "make space, or choose other folders with --runs and --cache"
        )

    def as_json(self) -> dict[str, Any]:
        """In plain JSON types."""
        return {
            "stores": dict(self.stores), "per_trial": self.per_trial, "known_total": self.total,
            "unknown_methods": list(self.unknown), "free": dict(self.free),
        }  # fmt: skip


def in_bytes(size: float) -> str:
    """Such as "3 MB", "13.4 GB"."""
    if size >= 1e9:
        return f"{size / 1e9:.1f} GB"
    return f"{size / 1e6:.0f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"


def count_images(manifest: Manifest) -> tuple[int, int]:
    """The number of images, and of test images."""
    return len(manifest.table), len(_test_rows(manifest))


def disk(pending: Sequence[Work], num_images: int, num_test: int, *, folders: Iterable[Path] = ()) -> Disk:
    """The space that pending work needs, on clean pictures; conditions add features of the test images.

    Args:
        pending: of the plan.
        num_images: number of images of the data set.
        num_test: number of test images.
        folders: of the cache and of the runs, for their free space.
    """
    from models.sizes import footprint

    stores: dict[str, int] = {}
    scored: dict[str, dict[str, int]] = {}  # what is stored -> condition -> bytes
    per_trial = 0
    unknown: dict[str, None] = {}
    for work in pending:
        need = footprint(work.spec.method, dict(work.spec.config))
        if need is None:
            unknown[work.spec.method] = None
            continue
        if work.fits and need.per_image:
            stores[need.what] = num_images * (need.per_image + DIGEST_BYTES)
        further = [name for name in work.conditions if name != "clean"]
        if need.is_features:
            scored.setdefault(need.what, {}).update(dict.fromkeys(further, num_test * (need.per_image + DIGEST_BYTES)))
        per_trial += (need.checkpoint if work.fits else 0) + len(work.conditions) * num_test * 2 * need.width
    for what, sizes in scored.items():
        if sizes:
            count = f"{len(sizes)} condition{'s' if len(sizes) != 1 else ''}"
            stores[f"{what}, {count}"] = sum(sizes.values())
    return Disk(stores, per_trial, list(unknown), {str(folder): _free(folder) for folder in folders})


def _free(folder: Path) -> int:
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


# What is missing -----------------------------------------------------------------------------------------------------


def missing(held: Mapping[str, Sequence[Held]], settings: RunSettings, shares: Mapping[str, float]) -> list[str]:
    """What a launch would have to fetch, or do without, one line per thing.

    Args:
        held: method -> where its weights are.
        settings: device and shares.
        shares: method -> the share of a GPU that it asks for by default.
    """
    from models.published import grouped

    said = []
    for each, methods in grouped(held).items():
        if each.state in ("fetch", "unknown"):
            said.append(f"weights of {', '.join(methods)} ({each.what}): {each.said}")
    asking = [name for name, share in shares.items() if settings.for_method(name).gpu_share(share, gpus_available=1)]
    if asking and settings.device != "cpu":
        from grid.devices import has_card, torch_problem

        lacking = "" if has_card() else "a GPU"  # torch takes seconds to say so
        if not lacking and (problem := torch_problem()) is not None:
            lacking = f"CUDA, because torch cannot use the GPU ({problem.partition('. ')[0]})"
        if lacking:
            said.append(
                f"{lacking}: shares of a GPU are ignored, and trials of {', '.join(asking)} compute on the CPU. Nodes "
                "of a cluster are looked at when the grid starts"
            )
    return said
