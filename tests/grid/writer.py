"""What each of several processes does at once in a test; imports no more than a process needs that only logs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from grid.spec import TrialSpec
from grid.tracking import Tracker


@dataclass(frozen=True)
class Scored:
    """Like `grid.trial.Scored`, whose module would bring torch and scikit-learn along."""

    metrics: dict[str, float]
    condition: str = "clean"
    scores: pd.DataFrame = field(default_factory=lambda: pd.DataFrame({"score": [0.5]}))
    embeddings: np.ndarray = field(default_factory=lambda: np.zeros((1, 2), dtype=np.float16))
    embedded: None = None


def write_trial(start: Any, tracker: Tracker, spec: dict[str, Any], num_epochs: int, checkpoint: str) -> None:
    """Wait for the others, then log a whole trial."""
    from pathlib import Path

    trial = TrialSpec.from_dict(spec)
    start.wait(timeout=180)
    run = tracker.open_trial(trial, {})
    for epoch in range(1, num_epochs + 1):
        run.log_epoch(epoch, {"train/loss": trial.seed + 1 / epoch, "valid/loss": trial.seed - 1 / epoch})
    scored: Any = Scored({"test/lama/accuracy": trial.seed / 10})
    run.finish(scored, {}, {}, Path(checkpoint))
