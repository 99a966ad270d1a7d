"""A flat folder of pairs: each photograph beside the fakes that were made of it."""

from __future__ import annotations

from pathlib import Path

from data.sources import register_source
from data.sources.base import FAKE, REAL, SHARED_REAL, Entry, Scan, list_images, root_problems

SPLIT_OF = ("train", "train", "train", "valid", "test")  # by the photograph's number


@register_source("pairs", order=("smooth", "noisy"), caveats={"": "The splits follow from the photographs' numbers."})
def scan(root: Path, *, seed: int = 0) -> Scan:
    """A flat folder of pairs.

    <number>-real.png       a photograph
    <number>-<generator>.png    a fake that was made of it
    <number>-mask.png       where the fakes are fake: black; the rest is white
    """
    result = Scan(problems=root_problems(root))
    if result.problems:
        return result
    listing = list_images(root, root)
    result.add_remarks(listing)
    for path in listing.images:
        number, _, maker = path.stem.partition("-")
        if maker == "mask":
            continue
        label, generator = (REAL, SHARED_REAL) if maker == "real" else (FAKE, maker)
        mask = path.with_stem(f"{number}-mask") if label == FAKE else None
        split = SPLIT_OF[int(number) % len(SPLIT_OF)]
        result.entries.append(Entry(path, label, generator, number, split, mask))
    return result
