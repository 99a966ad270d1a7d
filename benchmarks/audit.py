"""What the audits of pixels add to the first reading of a data set, in seconds of the processor.

The data set has four generators that repaint a region of each photograph and paste it exactly, PNG of 256 px. Both
sides begin with an empty cache. "Reading" lists, decodes and checks every file. "Audited" measures the pixels on the
way, reads the numbers back and runs the audits that need them; then it does all of this again. Left out: generators
that change the whole image. Their traces cost about 1 ms more per image, and 0.2 s for each pair on which ways of
saving and resizing are tried (9 per generator, however many images there are).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from benchmarks.measure import Measured, Outcome, Target, column, interleave, ratios
from data.audits import Evidence, run_audits
from data.manifest import build_manifest
from data.measure import measure
from data.parallel import parallel_map
from data.photographs import PER_GROUP

GENERATORS = ("one", "two", "three", "four")
AUDITS = ("duplicates", "labels", "masks", "pixels")
SHARES = {"train": 0.6, "valid": 0.15, "test": 0.25}


def make(root: Path, num_photographs: int, size: int) -> None:
    """Write photographs, of smooth shapes with noise, and their fakes."""

    def write(number: int) -> None:
        rng = np.random.default_rng(number)
        place = number / num_photographs
        split = "train" if place < SHARES["train"] else "valid" if place < 1 - SHARES["test"] else "test"
        coarse = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        smooth = np.array(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC), np.float32)
        real = np.clip(smooth + rng.normal(0, 3, smooth.shape), 0, 255).astype(np.uint8)
        _save(real, root / f"celebahq/real/{split}/{number:05d}.png")
        for generator in GENERATORS:
            top, left = rng.integers(0, size // 2, 2)
            mask = np.full((size, size), 255, np.uint8)
            mask[top : top + size // 2, left : left + size // 2] = 0
            fake = np.where(mask[..., None] == 0, smooth.clip(0, 255).astype(np.uint8), real)
            _save(fake, root / f"celebahq/fake/{generator}/images/{split}/{number:05d}.png")
            _save(mask, root / f"celebahq/fake/{generator}/masks/{split}/{number:05d}.png")

    for _ in parallel_map(write, range(num_photographs), workers=None, ahead=64):
        pass


def _save(pixels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def _processor_time(work: Callable[[], object]) -> float:
    """Seconds of all threads of this process."""
    started = time.process_time()
    work()
    return time.process_time() - started


def read_only(root: Path) -> dict[str, float]:
    """The first reading, without pixels: {"first": core-seconds}."""
    with TemporaryDirectory() as cache:
        return {"first": _processor_time(lambda: build_manifest("dolos", root, cache=Path(cache)))}


def audited(root: Path) -> dict[str, float]:
    """The first reading with the audits, and all of it again: {"first", "again": core-seconds}."""
    with TemporaryDirectory() as cache:

        def work() -> None:
            manifest = build_manifest("dolos", root, cache=Path(cache), measured_per_group=PER_GROUP)
            run_audits(Evidence(manifest, measure(manifest, cache=Path(cache))), AUDITS)

        return {name: _processor_time(work) for name in ("first", "again")}


def run(repeats: int, *, toy: bool = False) -> Outcome:
    """Measure; see the top of the file."""
    size = 64 if toy else 256
    figures = {}
    for num_images, limit in ((50, None),) if toy else ((500, 0.6), (10_000, 0.25)):
        with TemporaryDirectory() as folder:
            root = Path(folder)
            make(root, num_images // (len(GENERATORS) + 1), size)
            audited(root)  # imports
            found = interleave(repeats, {"reading": partial(read_only, root), "audited": partial(audited, root)})
        reading, first = column(found["reading"], "first"), column(found["audited"], "first")
        again = column(found["audited"], "again")
        extra = [with_audits - alone for with_audits, alone in zip(first, reading, strict=True)]
        what = f"what audits of pixels add to the first reading of {num_images:,} images"
        parts = {"reading, core-s": reading, "with audits, core-s": first, "again, core-s": again}
        target = Target(limit) if limit else None
        figures[f"{num_images} images"] = Measured(what, "ratio", ratios(extra, reading), target, parts)
    return Outcome(f"4 generators, a mask for each fake, PNG of {size} px; processor time of all threads", figures)
