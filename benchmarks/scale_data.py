"""A data folder of very many images: a launch on unchanged data, and the first reading, over plain loops.

The images are real and tiny (PNG of 8 px, each another one), in the layout of plain folders, so that it is their
number that counts. Each side runs in a process of its own after its imports, in seconds of wall clock. Plain scan:
`os.scandir` and `stat` of every file, and one join of all of them by path, size and time with the facts on disk. Two
others stand beside it, and neither opens a file: torchvision's `ImageFolder`, which lists names alone, and a script
with pyarrow, whose listing has sizes and times and is joined in the same way. Hugging Face's `imagefolder` is a third
one where `datasets` is installed, which this project does without. Plain reading: as many processes as cores, which get
64 files at once, call `data.images.probe` for each (hash, decode, the checks of one file) and keep nothing. Bare
reading: the same with SHA-256 and Pillow alone; of such tiny pictures the checks of `probe` take longer than decoding
them. Ours gives the manifest: all checks, the audits of headers, the digest. The growth exponent is the slope of
log(seconds) by log(images): 1 is linear.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import shutil
import struct
import tempfile
import time
import zlib
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from benchmarks.measure import Measured, Outcome, Target, column, in_new_process, interleave, peak_resident, ratios
from data.images import probe
from data.manifest import build_manifest
from data.parallel import parallel_map

SOURCE = "folders"
GENERATORS = ("one", "two", "three", "four")
SPLITS = {"train": 0.8, "valid": 0.1, "test": 0.1}
SIZES, TOY = (10_000, 30_000, 100_000), (80, 160, 400)
MODULE = "benchmarks.scale_data"
_CHUNK = 64
_SIDE = 8


def run(repeats: int, *, toy: bool = False) -> Outcome:
    """Targets: 1.3 times the plain scan and 1 GB; 1.2 times the plain reading; growth exponents of at most 1.1."""
    sizes = TOY if toy else SIZES
    with tempfile.TemporaryDirectory() as name:
        folders = {size: Path(name) / str(size) for size in sizes}
        sides: dict[str, Callable[[], dict[str, float]]] = {}
        for size, folder in folders.items():
            make(folder / "images", size)
            where = {"folder": str(folder)}
            sides[f"plain reading {size}"] = partial(in_new_process, MODULE, "plain_reading", where)
            sides[f"first {size}"] = partial(in_new_process, MODULE, "first_reading", where)
            in_new_process(MODULE, "first_reading", where)  # what is unchanged from here on
            sides[f"plain scan {size}"] = partial(in_new_process, MODULE, "plain_scan", where)
            sides[f"unchanged {size}"] = partial(in_new_process, MODULE, "unchanged", where)
        largest = sizes[-1]
        others = {"image_folder": "torchvision's `ImageFolder`", "pyarrow_scan": "a script with pyarrow"}
        if find_spec("datasets") is not None:
            others["hugging_face"] = (
                f"Hugging Face's `imagefolder` (datasets {version('datasets')}), loaded once before"
            )
        for listing in others:
            sides[listing] = partial(in_new_process, MODULE, listing, {"folder": str(folders[largest])})
        where = {"folder": str(folders[largest]), "bare": "1"}
        sides[f"bare reading {largest}"] = partial(in_new_process, MODULE, "plain_reading", where)
        found = interleave(repeats, sides)

    def seconds(side: str, size: int) -> list[float]:
        return column(found[f"{side} {size}"], "seconds")

    figures = {
        ours: Measured(
            f"seconds of {what} {largest:,} images over {anchor}",
            "ratio",
            ratios(seconds(ours, largest), seconds(anchor, largest)),
            Target(limit),
            {f"{ours}, s": seconds(ours, largest), f"{anchor}, s": seconds(anchor, largest)},
        )
        for ours, anchor, limit, what in (
            ("unchanged", "plain scan", 1.3, "a launch's look at unchanged"),
            ("first", "plain reading", 1.2, "the first reading of"),
        )
    }
    figures["first over bare"] = Measured(
        f"seconds of the first reading of {largest:,} images over bare reading",
        "ratio",
        ratios(seconds("first", largest), seconds("bare reading", largest)),
        parts={"bare reading, s": seconds("bare reading", largest)},
    )
    for listing, words in others.items():
        figures[f"unchanged over {listing}"] = Measured(
            f"seconds of a launch's look at unchanged {largest:,} images over {words}",
            "ratio",
            ratios(seconds("unchanged", largest), column(found[listing], "seconds")),
            parts={"s": column(found[listing], "seconds"), "GB": column(found[listing], "peak_gb")},
        )
    for ours in ("unchanged", "first"):
        values = [seconds(ours, size) for size in sizes]
        figures[f"{ours} growth"] = Measured(
            f"growth exponent of that time, {ours}, from {sizes[0]:,} to {largest:,} images",
            "exponent",
            [exponent(sizes, of_repeat) for of_repeat in zip(*values, strict=True)],
            Target(1.1),
            {f"{size:,} images, s": of_size for size, of_size in zip(sizes, values, strict=True)},
        )
        figures[f"{ours} memory"] = Measured(
            f"peak memory of the process, {ours}, with {largest:,} images",
            "GB",
            column(found[f"{ours} {largest}"], "peak_gb"),
            Target(1.0),
            {f"{size:,} images, GB": column(found[f"{ours} {size}"], "peak_gb") for size in sizes},
        )
    return Outcome(f"PNG of {_SIDE} px, {len(GENERATORS)} generators with real images of their own", figures)


def exponent(sizes: tuple[int, ...], seconds: tuple[float, ...]) -> float:
    """The slope of log(seconds) by log(size), by least squares."""
    x, y = [math.log(size) for size in sizes], [math.log(value) for value in seconds]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    above = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return above / sum((a - mean_x) ** 2 for a in x)


def make(root: Path, num_images: int) -> None:
    """Write about `num_images` pictures: per generator as many real images as fakes."""
    number = 0
    for generator in GENERATORS:
        for kind in ("0_real", "1_fake"):
            for split, share in SPLITS.items():
                folder = root / split / generator / kind
                folder.mkdir(parents=True)
                for _ in range(round(num_images * share / (2 * len(GENERATORS)))):
                    (folder / f"{generator}_{number:08d}.png").write_bytes(picture(number))
                    number += 1


def picture(number: int) -> bytes:
    """A PNG of 8 px that no other number gives."""
    row = b"\0" + struct.pack(">QQQ", number, number * 2_654_435_761 % 2**64, 0)
    header = struct.pack(">IIBBBBB", _SIDE, _SIDE, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(_SIDE * row, 1)), (b"IEND", b""))
    number_of = struct.Struct(">I").pack
    parts = (number_of(len(data)) + kind + data + number_of(zlib.crc32(kind + data)) for kind, data in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


# The sides ------------------------------------------------------------------------------------------------------------


def _measured(work: Callable[[], Any]) -> dict[str, float]:
    started = time.perf_counter()
    work()
    return {"seconds": time.perf_counter() - started, "peak_gb": peak_resident() / 1e9}


def _import_audits() -> None:
    """What a launch imports whatever its data."""
    import sklearn.tree  # noqa: F401

    from data.audits import audits_for
    from data.sources import list_sources

    audits_for(measured=False)
    list_sources()


def unchanged(folder: str) -> dict[str, float]:
    """A launch on the data of `first_reading`: its manifest, digest and all."""
    _import_audits()
    return _measured(lambda: build_manifest(SOURCE, Path(folder) / "images", cache=Path(folder) / "cache").digest)


def first_reading(folder: str) -> dict[str, float]:
    """The first launch: every file is opened."""
    _import_audits()
    shutil.rmtree(Path(folder) / "cache", ignore_errors=True)
    return unchanged(folder)


def plain_scan(folder: str) -> dict[str, float]:
    """Names, sizes and times of all files, joined with the facts that `first_reading` has kept."""

    def scan() -> None:
        root = str(Path(folder) / "images")
        found: list[tuple[str, int, int]] = []
        folders = [root]
        while folders:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.is_dir():
                        folders.append(entry.path)
                    else:
                        stat = entry.stat()
                        found.append((entry.path[len(root) + 1 :], stat.st_size, stat.st_mtime_ns))
        names = ["path", "size", "mtime_ns"]
        (facts,) = (Path(folder) / "cache" / "probes").glob("*.parquet")
        joined = pd.DataFrame(found, columns=names).merge(pd.read_parquet(facts), on=names)
        assert len(joined) == len(found), "the facts are of these files"

    return _measured(scan)


def image_folder(folder: str) -> dict[str, float]:
    """Torchvision's list of all files with their classes; it looks at no size, no time and no content."""
    from torchvision.datasets import ImageFolder

    return _measured(lambda: ImageFolder(str(Path(folder) / "images")).samples)


def hugging_face(folder: str) -> dict[str, float]:
    """Its table of all files and classes, as of the second time: the first time makes a cache, which takes longer."""
    from datasets import load_dataset

    def load() -> None:
        load_dataset("imagefolder", data_dir=str(Path(folder) / "images"), cache_dir=str(Path(folder) / "hub"))

    load()
    return _measured(load)


def pyarrow_scan(folder: str) -> dict[str, float]:
    """The same as `plain_scan` by pyarrow: its listing of a folder, and its join."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pyarrow import fs

    def scan() -> None:
        root = str(Path(folder) / "images")
        listed = fs.LocalFileSystem().get_file_info(fs.FileSelector(root, recursive=True))
        files = [each for each in listed if each.is_file]
        table = pa.table(
            {
                "path": [each.path[len(root) + 1 :] for each in files],
                "size": [each.size for each in files],
                "mtime_ns": [each.mtime_ns for each in files],
            }
        )
        (facts,) = (Path(folder) / "cache" / "probes").glob("*.parquet")
        kept = pq.read_table(facts, columns=list(table.column_names)).cast(table.schema)
        joined = table.join(kept, keys=table.column_names, join_type="inner")
        assert joined.num_rows == len(files), "the facts are of these files"

    return _measured(scan)


def plain_reading(folder: str, bare: str = "") -> dict[str, float]:
    """Read every file in processes; `bare`: without the checks of one file."""

    def read() -> None:
        paths = [str(path) for path in (Path(folder) / "images").rglob("*.png")]
        chunks = (paths[start : start + _CHUNK] for start in range(0, len(paths), _CHUNK))
        work = hash_and_decode if bare else probe_all
        assert sum(parallel_map(work, chunks, workers=None, ahead=32, processes=True)) == len(paths)

    return _measured(read)


def probe_all(paths: list[str]) -> int:
    """`data.images.probe` of these files: their number."""
    for path in paths:
        probe(Path(path))
    return len(paths)


def hash_and_decode(paths: list[str]) -> int:
    """SHA-256 and pixels of these files: their number."""
    for path in paths:
        content = Path(path).read_bytes()
        hashlib.sha256(content).hexdigest()
        Image.open(io.BytesIO(content)).convert("RGB")
    return len(paths)
