"""Which images a training set of equal size has, written out from `docs/believe/seeds.md`, section "Training sets"."""

from __future__ import annotations

import numpy as np
import pandas as pd


def equal_rows(rows: pd.DataFrame, per_class: int) -> np.ndarray:
    """Which rows are chosen: bool (N,); the same number of real and of fake, and of each generator in each.

    Photographs come in the order of the digest of their real image, else of their first image. Each that has both
    classes gives a fake, of the generator that lacks most, and a real image, one that came with that generator if there
    is one. Then the other images follow, photograph by photograph, until nothing is lacking.

    Args:
        rows: of one split and condition: label, generator, source_id, digest.
        per_class: images of each class.
    """
    kinds = [(int(label), str(name)) for label, name in zip(rows["label"], rows["generator"], strict=True)]
    digests = rows["digest"].astype(str).tolist()
    of_source: dict[str, list[int]] = {}
    for row, source in enumerate(rows["source_id"].astype(str)):
        of_source.setdefault(source, []).append(row)

    def place(own: list[int]) -> tuple[str, str]:
        first = min(digests[row] for row in own)
        return min((digests[row] for row in own if kinds[row][0] == 0), default=first), first

    sorted_rows = [sorted(own, key=digests.__getitem__) for own in sorted(of_source.values(), key=place)]
    lacking = {kind: per_class // len({k for k in kinds if k[0] == kind[0]}) for kind in set(kinds)}
    chosen = np.zeros(len(rows), dtype=bool)
    for own in sorted_rows:
        fakes, reals = ([row for row in own if kinds[row][0] == label and lacking[kinds[row]]] for label in (1, 0))
        if fakes and reals:
            fake = max(fakes, key=lambda row: lacking[kinds[row]])
            made_by = kinds[fake][1]
            real = max(reals, key=lambda row: (kinds[row][1] == made_by, lacking[kinds[row]]))
            for row in (fake, real):
                chosen[row] = True
                lacking[kinds[row]] -= 1
    for row in (row for own in sorted_rows for row in own if not chosen[row]):
        if lacking[kinds[row]]:
            chosen[row] = True
            lacking[kinds[row]] -= 1
    return chosen
