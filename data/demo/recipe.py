"""The built-in demo: drawn faces and four stand-in generators, made on first use in the layout of Dolos.

Version 2 draws one part of each face anew (hair, eyes, mouth or beard), and all generators repaint that region with
that content: they differ in their traces alone. Version 1 has smaller pictures, a random region for each generator, and
generators that think of a face themselves; it stays as it was, for results that were published with it.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image
from threadpoolctl import threadpool_limits

from data.demo.changes import draw_edit
from data.demo.faces import add_sensor_noise, draw_face, draw_mask
from data.demo.inpainters import Wish, get_inpainter, list_inpainters

VERSIONS = (1, 2)  # what they draw never changes; other pixels are another version

# First source id of each split. They are far apart, so that a picture keeps its id whatever the sizes of the splits.
_FIRST_ID = {"train": 0, "valid": 40_000, "test": 70_000}
PICTURES_PER_WORKER = 24  # fewer pictures are not worth the start of a process

_README_FILE = "README.txt"
_README_BEGINS = "Synthetic demo data, drawn by this project"
_README = """\
{begins} ({key}).

Every face here is a drawing made by data/demo/faces.py; no photograph of a person was used. The "fakes" were repainted
by simple stand-ins in data/demo/inpainters/, each of which mimics the mechanism of one family of generators:

    fourier_fill    extrapolation in the Fourier domain, pasted exactly    (the mechanism of LaMa)
    autoencoder     the whole picture passes a lossy transform             (the mechanism of LDM)
    patch_sample    plausible fills sampled from the picture's own patches (the mechanism of Pluralistic)
    renoise         denoise, re-noise, re-impose the known pixels          (the mechanism of RePaint)

Generators in this folder: {generators}.
Nothing here comes from LaMa, LDM, Pluralistic, RePaint or the Dolos data set, and no value measured on it says
anything about them: it shows that the software runs and what its tables look like.

Masks: white (255) = unchanged, black (0) = repainted.
"""


@dataclass(frozen=True)
class DemoRecipe:
    """The contents of the demo. Equal recipes give equal bytes.

    Attributes:
        version: how everything is drawn, one of `VERSIONS`.
        size: side of the pictures in pixels, at least 32.
        train: number of faces in the split, at most 40,000. Each face exists once as real and, per generator, once as
            fake.
        valid: likewise, at most 30,000.
        test: likewise, at most 30,000.
        seed: seed of everything drawn, not negative.

    Raises:
        ValueError: a value outside of these limits; beyond them, the splits would share faces.
    """

    size: int = 112
    train: int = 160
    valid: int = 40
    test: int = 100
    seed: int = 0
    version: int = 2

    def __post_init__(self) -> None:
        limits = {"size": (32, 4096), "train": (1, 40_000), "valid": (1, 30_000), "test": (1, 30_000)}
        for name, (lowest, highest) in limits.items():
            if not lowest <= getattr(self, name) <= highest:
                raise ValueError(f"{name} must lie in {lowest} to {highest}, got {getattr(self, name)}")
        if self.version not in VERSIONS:
            raise ValueError(f"version must be one of {', '.join(map(str, VERSIONS))}, got {self.version}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")

    @property
    def splits(self) -> dict[str, int]:
        """Split -> number of faces."""
        return {"train": self.train, "valid": self.valid, "test": self.test}

    @property
    def key(self) -> str:
        """Folder name, which depends on every field and the set of generators."""
        generators = zlib.crc32(",".join(list_inpainters()).encode())
        fields = "-".join(f"{name}{value}" for name, value in asdict(self).items() if name != "version")
        return f"demo-v{self.version}-{fields}-{generators:08x}"


FIRST = DemoRecipe(size=64, train=300, valid=60, version=1)  # the whole demo of version 1


def make_demo(
    folder: Path,
    recipe: DemoRecipe = DemoRecipe(),
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Make the demo in `folder` unless it exists.

    It is built in a neighbouring folder under a lock, which is renamed when the demo is complete. So a killed build
    never looks finished, and of two builders at once the second waits for the first.

    Args:
        folder: cache folder; created if missing.
        recipe: what to make.
        workers: number of processes; None: one per core. They are spawned, so a calling script needs the usual
            `if __name__ == "__main__"`. With 1, everything happens in the caller's process.
        progress: called with (faces done, all faces) in the caller's process.

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


def is_demo(root: Path) -> bool:
    """Whether a folder is the root of a demo, of any recipe and version."""
    try:
        text = (root / _README_FILE).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return text.startswith(_README_BEGINS)


def _build(root: Path, recipe: DemoRecipe, workers: int | None, progress: Callable[[int, int], None] | None) -> None:
    pictures = [(split, _FIRST_ID[split] + i) for split, num in recipe.splits.items() for i in range(num)]
    num_workers = min(workers or os.cpu_count() or 1, -(-len(pictures) // PICTURES_PER_WORKER))
    make = partial(_make_pictures, root / "celebahq", recipe)
    for done, _ in enumerate(_run(make, pictures, num_workers), start=1):
        if progress is not None:
            progress(done, len(pictures))
    readme = _README.format(begins=_README_BEGINS, key=recipe.key, generators=", ".join(list_inpainters()))
    (root / _README_FILE).write_text(readme, encoding="utf-8")


def _run(make: Callable[[tuple[str, int]], None], pictures: list[tuple[str, int]], num_workers: int) -> Iterator[None]:
    if num_workers == 1:
        yield from map(make, pictures)
        return
    with ProcessPoolExecutor(num_workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(make, pictures, chunksize=4)


def _make_pictures(base: Path, recipe: DemoRecipe, picture: tuple[str, int]) -> None:
    """Draw one face, add sensor noise, let every generator repaint it. At module level, so that it can be spawned."""
    split, source_id = picture
    path = Path(split, f"{source_id:05d}.png")

    def rng_for(purpose: str) -> np.random.Generator:
        """Random numbers of this picture for one purpose, independent of all other pictures."""
        return np.random.default_rng([recipe.seed, source_id, zlib.crc32(purpose.encode())])

    # One thread: sums then do not depend on the number of cores, and workers do not compete for the cores.
    with threadpool_limits(1):
        wish: Wish = None
        if recipe.version == 1:
            face = draw_face(rng_for("face"), recipe.size)
        else:
            face, edited, mask = draw_edit(rng_for, recipe.size)
            wish = edited * np.float32(255)
        real = add_sensor_noise(face, rng_for("sensor"))
        _save(real, base / "real" / path)
        for generator in list_inpainters():
            rng = rng_for(f"generator {generator}")
            if recipe.version == 1:
                mask = draw_mask(rng, recipe.size)
            fake = get_inpainter(generator)(real, mask, rng, wish)
            _save(fake, base / "fake" / generator / "images" / path)
            _save(np.where(mask, 0, 255).astype(np.uint8), base / "fake" / generator / "masks" / path)


def _save(pixels: NDArray[np.uint8], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, format="PNG")
