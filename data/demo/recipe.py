"""The built-in demo: drawn faces and four stand-in generators, made on first use in the layout of Dolos."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image
from threadpoolctl import threadpool_limits

from data.demo.faces import add_sensor_noise, draw_face, draw_mask
from data.demo.inpainters import get_inpainter, list_inpainters

DEMO_VERSION = 1  # to be raised whenever the same recipe draws other pixels

# First source id of each split: far apart, so that a picture keeps its number whatever the sizes of the splits.
_FIRST_ID = {"train": 0, "valid": 40_000, "test": 70_000}
_MOST = {"train": 40_000, "valid": 30_000, "test": 30_000}
PICTURES_PER_WORKER = 24  # fewer than that are not worth the start of a process

_README = """\
Synthetic demo data, drawn by this project ({key}).

Every face here is a drawing made by data/demo/faces.py; no photograph of a person was used. The "fakes" were repainted
by simple stand-ins in data/demo/inpainters/, each of which mimics the mechanism of one family of generators:

    fourier_fill    extrapolation in the Fourier domain, pasted exactly    (the mechanism of LaMa)
    autoencoder     the whole picture passes a lossy transform             (the mechanism of LDM)
    patch_sample    plausible fills sampled from the picture's own patches (the mechanism of Pluralistic)
    renoise         denoise, re-noise, re-impose the known pixels          (the mechanism of RePaint)

Generators in this folder: {generators}.
Nothing here comes from LaMa, LDM, Pluralistic, RePaint or the Dolos data set, and no figure measured on it says
anything about them: it shows that the software runs and what its tables look like.

Masks: white (255) = unchanged, black (0) = repainted.
"""


@dataclass(frozen=True)
class DemoRecipe:
    """What the demo holds; two equal recipes give the same bytes.

    Attributes:
        size: side of the pictures in pixels, at least 32.
        train, valid, test: faces a split; each of them exists once as real and once a generator as fake.
        seed: of everything drawn.

    Raises:
        ValueError: a number is out of range.
    """

    size: int = 64
    train: int = 300
    valid: int = 60
    test: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        if self.size < 32:
            raise ValueError(f"a face needs at least 32 pixels a side, got size={self.size}")
        if self.seed < 0:
            raise ValueError(f"the seed must not be negative, got {self.seed}")
        for split, most in _MOST.items():
            if not 1 <= getattr(self, split) <= most:
                raise ValueError(f"{split} must be between 1 and {most}, got {getattr(self, split)}")

    @property
    def key(self) -> str:
        """Folder name that changes with every field, with the drawing's version and with the set of generators."""
        generators = zlib.crc32(",".join(list_inpainters()).encode())
        fields = "-".join(f"{name}{value}" for name, value in asdict(self).items())
        return f"demo-v{DEMO_VERSION}-{fields}-{generators:08x}"


def make_demo(
    folder: Path,
    recipe: DemoRecipe = DemoRecipe(),
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Make the demo in `folder` unless it is there already.

    It is built in a neighbouring folder under a lock and renamed when complete: a killed build leaves nothing that is
    taken for finished, and of two builders at once the second waits for the first.

    Args:
        folder: cache folder; created where missing.
        recipe: what to make.
        workers: processes; None: one a core. They are spawned, so a calling script needs the usual
            `if __name__ == "__main__"`; with 1 everything happens in the caller's process.
        progress: called with (faces done, faces in all) in the caller's process.

    Returns:
        The root, `folder / recipe.key`, which holds celebahq/ and README.txt.
    """
    folder = folder.absolute()
    root = folder / recipe.key
    if root.is_dir():
        return root
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f".{recipe.key}.lock"):
        if root.is_dir():
            return root
        building = folder / f".{recipe.key}.building"
        shutil.rmtree(building, ignore_errors=True)
        try:
            _build(building, recipe, workers, progress)
            building.rename(root)
        except BaseException:
            shutil.rmtree(building, ignore_errors=True)
            raise
    return root


@dataclass(frozen=True)
class _Job:
    """One source picture: its real file, and a fake and a mask a generator."""

    root: Path
    size: int
    seed: int
    split: str
    source_id: int
    generators: tuple[str, ...]


def _build(root: Path, recipe: DemoRecipe, workers: int | None, progress: Callable[[int, int], None] | None) -> None:
    generators = tuple(list_inpainters())
    for split in _FIRST_ID:
        _real_folder(root, split).mkdir(parents=True)
        for generator in generators:
            for kind in ("images", "masks"):
                _fake_folder(root, generator, kind, split).mkdir(parents=True)
    jobs = [
        _Job(root, recipe.size, recipe.seed, split, first + i, generators)
        for split, first in _FIRST_ID.items()
        for i in range(getattr(recipe, split))
    ]
    num_workers = min(workers or os.cpu_count() or 1, -(-len(jobs) // PICTURES_PER_WORKER))
    for done, _ in enumerate(_run(jobs, num_workers), start=1):
        if progress is not None:
            progress(done, len(jobs))
    readme = _README.format(key=recipe.key, generators=", ".join(generators))
    (root / "README.txt").write_text(readme, encoding="utf-8")


def _run(jobs: list[_Job], num_workers: int) -> Iterator[None]:
    if num_workers == 1:
        yield from map(_make_pictures, jobs)
        return
    pool = ProcessPoolExecutor(num_workers, mp_context=multiprocessing.get_context("spawn"))
    try:
        yield from pool.map(_make_pictures, jobs, chunksize=4)
    finally:
        pool.shutdown(cancel_futures=True)


def _make_pictures(job: _Job) -> None:
    """Draw one face, photograph it, let every generator repaint it. At module level, so that it can be spawned."""
    name = f"{job.source_id:05d}.png"
    # One thread: sums come out the same on every number of cores, and workers do not fight for them.
    with threadpool_limits(1):
        face = draw_face(_stream(job, "face"), job.size)
        real = add_sensor_noise(face, _stream(job, "sensor"))
        _save(real, _real_folder(job.root, job.split) / name)
        for generator in job.generators:
            rng = _stream(job, f"generator {generator}")
            mask = draw_mask(rng, job.size)
            fake = get_inpainter(generator)(real, mask, rng)
            _save(fake, _fake_folder(job.root, generator, "images", job.split) / name)
            _save(np.where(mask, 0, 255).astype(np.uint8), _fake_folder(job.root, generator, "masks", job.split) / name)


def _stream(job: _Job, purpose: str) -> np.random.Generator:
    """Randomness of one picture for one purpose, independent of which others are made."""
    return np.random.default_rng([job.seed, job.source_id, zlib.crc32(purpose.encode())])


def _save(pixels: NDArray[np.uint8], path: Path) -> None:
    Image.fromarray(pixels).save(path, format="PNG")


def _real_folder(root: Path, split: str) -> Path:
    return root / "celebahq" / "real" / split


def _fake_folder(root: Path, generator: str, kind: str, split: str) -> Path:
    return root / "celebahq" / "fake" / generator / kind / split
