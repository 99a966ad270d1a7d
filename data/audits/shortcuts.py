"""File properties that differ between real and fake. A detector could learn them instead of a generator's traces."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from data.audits import Evidence, Level, register_audit
from data.sources.base import FAKE, REAL, rows_of_cells

FACTS = {
    "format": "file format",
    "size": "image size",
    "mode": "pixel type on disk",
    "quantisation": "JPEG quantisation",
}
SHARE_THAT_MATTERS = 0.05  # of the images; a smaller difference counts as chance


@register_audit("shortcuts")
def shortcuts(evidence: Evidence) -> Iterator[tuple[Level, str, str]]:
    """Compare each generator's fakes with the real images that they are tested against."""
    table = evidence.manifest.table
    described = table.assign(size=table["width"].astype(str) + " x " + table["height"].astype(str))
    for generator, fakes, reals in by_generator(described):
        for column, words in FACTS.items():
            pair = [rows.loc[rows[column] != "", column].value_counts(normalize=True) for rows in (fakes, reals)]
            if all(map(len, pair)) and pair[0].sub(pair[1], fill_value=0).abs().sum() / 2 > SHARE_THAT_MATTERS:
                shown = [", ".join(f"{value} {share:.0%}" for value, share in s.head(3).items()) for s in pair]
                yield (
                    "warn",
                    f"{generator} and real images differ in {words} ({shown[0]} against {shown[1]})",
                    "a detector can learn that instead",
                )


def by_generator(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, pd.DataFrame]]:
    """For each generator: (its name, its fakes, the real images that it is tested against)."""
    for generator in sorted(set(table.loc[table["label"] == FAKE, "generator"])):
        cell = table[rows_of_cells(table, [generator])]
        yield str(generator), cell[cell["label"] == FAKE], cell[cell["label"] == REAL]
