"""Words and numbers that the audits of pixels share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data.sources.base import shown_names

Numbers = Sequence[float] | NDArray[np.floating] | pd.Series


def names(rows: pd.DataFrame) -> str:
    """The first few files of manifest rows, and the number of further ones."""
    return shown_names(rows["path"].tolist())


def auroc(fakes: Numbers, reals: Numbers) -> float:
    """The probability that a fake's number is larger than a real image's; half of equal numbers count. No NaN."""
    ranks = pd.Series([*reals, *fakes]).rank().to_numpy()
    n_fakes, n_reals = len(fakes), len(reals)
    return float((ranks[n_reals:].sum() - n_fakes * (n_fakes + 1) / 2) / (n_fakes * n_reals))


def separation(fakes: Numbers, reals: Numbers) -> float:
    """The AUROC of a number alone, whichever class has the larger values: .5 to 1."""
    alone = auroc(fakes, reals)
    return max(alone, 1 - alone)
