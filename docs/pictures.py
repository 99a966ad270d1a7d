"""The pictures of the README and of the first page, from the demo's report: the same pixels in fewer colours.

From the root of the project: `make demo && .venv/bin/python docs/pictures.py report`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

NAMES = ("answer", "strip")  # of figures of the report
LEVELS = 32  # of red, green and blue each; a palette of 256 colours has none left for the dark end of a scale
MOST_BYTES = 330_000
HERE = Path(__file__).resolve().parent / "images"


def keep_pictures(report: Path, folder: Path = HERE) -> list[Path]:
    """Write `demo-NAME.png` of each of these figures.

    Args:
        report: folder of the demo's report.
        folder: where to.

    Returns:
        the files.

    Raises:
        ValueError: a file would be larger than `MOST_BYTES`.
    """
    files = []
    for name in NAMES:
        with Image.open(report / "figures" / f"{name}.png") as figure:
            pixels = np.asarray(figure.convert("RGB"))
        few = np.rint(np.rint(pixels * ((LEVELS - 1) / 255)) * (255 / (LEVELS - 1))).astype(np.uint8)
        files.append(folder / f"demo-{name}.png")
        Image.fromarray(few).save(files[-1], optimize=True)
        if (size := files[-1].stat().st_size) > MOST_BYTES:
            raise ValueError(f"{files[-1]} has {size:,} bytes, more than {MOST_BYTES:,}")
    return files


if __name__ == "__main__":
    for file in keep_pictures(Path(sys.argv[1])):
        print(file)
