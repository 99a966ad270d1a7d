"""The masks of a manifest's rows, read from their files whenever they are asked for."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd

from data.audits import Evidence, Finding, run_audits
from data.manifest import Manifest
from data.measure import measure
from data.pictures import Pictures, mask_file
from data.sources.base import FAKE, REAL, WHITE_FAKE, WHITE_KEPT

NUM_PAIRS = 20  # of each generator, whose masks are held against the originals by `check_sample`


class ManifestMasks:
    """The edited area of each picture.

    Args:
        manifest: describes the data set.
        rows: of the manifest, in order.
        copies: how often the rows follow one another, as where pictures are trained on under several conditions.
    """

    def __init__(self, manifest: Manifest, rows: pd.DataFrame, *, copies: int = 1) -> None:
        self._manifest, self._copies = manifest, copies
        columns = ["label", "mask", "mask_digest", "width", "height", "mask_white"]
        self._rows = rows[[name for name in columns if name in rows.columns]].to_dict("list")

    def __len__(self) -> int:
        return len(self._rows["label"]) * self._copies

    def __getitem__(self, index: np.ndarray) -> list[np.ndarray | None]:
        """The masks at an index array, bool (H, W) each, True where the picture is fake.

        Nothing is fake in a real picture. A fake without a mask has None.

        Raises:
            FileError: a mask's file is gone, has changed or cannot be decoded.
        """
        return [self._read(int(number) % len(self._rows["label"])) for number in np.arange(len(self))[index]]

    def _read(self, number: int) -> np.ndarray | None:
        row = {name: values[number] for name, values in self._rows.items()}
        if row["label"] == REAL:
            return np.zeros((int(row["height"]), int(row["width"])), dtype=bool)
        file = mask_file(self._manifest, row)
        return None if file is None else file.mask()


def meanings(manifest: Manifest) -> dict[str, int]:
    """What white means in the masks -> how many of them; see `data.images.fake_levels`."""
    masks = manifest.table["mask"].notna()
    if "mask_white" not in manifest.table.columns:
        return {WHITE_KEPT: int(masks.sum())} if masks.any() else {}
    counts = manifest.table.loc[masks, "mask_white"].value_counts()
    return {name: int(counts[name]) for name in (WHITE_KEPT, WHITE_FAKE) if name in counts.index}


def check_sample(manifest: Manifest, *, cache: Path, num_pairs: int = NUM_PAIRS) -> tuple[int, list[Finding]]:
    """Hold masks against originals on a sample, without measuring the whole data set.

    Args:
        manifest: describes the data set.
        cache: numbers measured on pixels are kept here.
        num_pairs: at most so many fakes of each generator, chosen by their digest. They have a mask, and an original if
            any fake of the generator has one.

    Returns:
        the number of fakes that were looked at beside their original; and the findings of the audit of masks on them.

    Raises:
        FileError: a file is gone, has changed or cannot be decoded.
    """
    table = manifest.table
    fakes = table[(table["label"] == FAKE) & table["mask"].notna()].sort_values("digest")
    files = Pictures(manifest, "paste-back").files(fakes)
    fakes = fakes.assign(_paired=[file.original is not None for file in files])
    fakes = fakes.sort_values("_paired", ascending=False, kind="stable").groupby("generator").head(num_pairs)
    sources = set(fakes["source_id"])
    rows = table[table.index.isin(fakes.index) | ((table["label"] == REAL) & table["source_id"].isin(sources))]
    sample = dataclasses.replace(manifest, table=rows.reset_index(drop=True))
    measured = measure(sample, cache=cache)
    return int(measured["paired"].sum()), run_audits(Evidence(sample, measured), ["masks"])
