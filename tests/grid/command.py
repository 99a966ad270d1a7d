"""What `launch.py` comes to when a test calls it in its own process."""

from __future__ import annotations

import re
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
    def rows(self) -> list[list[str]]:
        """The cells of every table with borders, headings first; the lines of one cell are joined by a space."""
        rows: list[list[str]] = []
        for line in self.printed.splitlines():
            cells = [cell.strip() for cell in re.split("[│┃]", line)[1:-1]]
            if cells and not cells[0]:
                rows[-1] = [f"{above} {below}".strip() for above, below in zip(rows[-1], cells, strict=True)]
            elif cells:
                rows.append(cells)
        return rows


Command = Callable[..., Outcome]


def mlflow_runs(runs: Path, role: str, experiment: str = "dolos") -> list[Any]:
    client = MlflowClient(tracking_uri=f"sqlite:///{runs / 'mlflow.db'}")
    found = client.get_experiment_by_name(experiment)
    return list(client.search_runs([found.experiment_id], f"tags.`{names.ROLE}` = '{role}'")) if found else []
