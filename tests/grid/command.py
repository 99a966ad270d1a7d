"""What `launch.py` comes to when a test calls it in its own process."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow.tracking import MlflowClient

from grid import names


@dataclass(frozen=True)
class Outcome:
    """What a command came to; `text` has single spaces instead of the terminal's line breaks."""

    status: int
    printed: str

    @property
    def text(self) -> str:
        return " ".join(self.printed.split())

    @property
    def trials(self) -> list[dict[str, Any]]:
        """What `--json` printed of each trial, of all grids."""
        content = json.loads(self.printed)
        return [trial for grid in content.get("grids", [content]) for trial in grid["trials"]]


Command = Callable[..., Outcome]


def mlflow_runs(runs: Path, role: str, experiment: str = "dolos") -> list[Any]:
    client = MlflowClient(tracking_uri=f"sqlite:///{runs / 'mlflow.db'}")
    found = client.get_experiment_by_name(experiment)
    return list(client.search_runs([found.experiment_id], f"tags.`{names.ROLE}` = '{role}'")) if found else []
