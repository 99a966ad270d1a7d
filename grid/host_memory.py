"""How much host memory the rows of a trial take, from their number: what a trial asks Ray for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from data.sources.base import REAL, SHARED_REAL, owners_of
from grid.plan import TEST, TRAIN, VALID
from grid.spec import TrialSpec
from models.sizes import rows_memory

if TYPE_CHECKING:
    from data.splits import Group


def memory_of_rows(spec: TrialSpec, sizes: Mapping[Group, int]) -> int:
    """Bytes that the features and embeddings of a trial take at once; 0 if that is not known of its method.

    With equal sizes a trial has fewer training images than are counted here.

    Args:
        spec: the trial.
        sizes: of `data.splits.sizes_of_groups`, of its data set.
    """
    own = {*spec.train_generators}

    def is_fitted(generator: str, label: int) -> bool:
        return not own.isdisjoint(owners_of(generator)) or (label == REAL and generator == SHARED_REAL)

    def count(split: str, *, all_generators: bool) -> int:
        return sum(
            size
            for (generator, of_split, label), size in sizes.items()
            if of_split == split and (all_generators or is_fitted(generator, label))
        )

    fitted = len(spec.train_conditions) * sum(count(split, all_generators=False) for split in (TRAIN, VALID))
    scored = max(count(split, all_generators=True) for split in (VALID, TEST))
    return rows_memory(spec.method, dict(spec.config), fitted=fitted, scored=scored)
