"""Checkpoints of unfinished trials, in folders `<root>/<launch>/<trial key>/checkpoint_<n>`.

This is the layout of Ray Tune. The in-process executor uses it too, so that a later launch can go on from either. The
folders of a finished trial are removed; its weights are in MLflow.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

from data.images import file_digest
from grid.faults import in_one_line

log = logging.getLogger(__name__)
_STATE, _SEAL = "state.pt", "seal.json"


class LostCheckpointError(ValueError):
    """The checkpoint of a finished trial is gone or cannot be used, so its detector cannot be scored.

    Attributes:
        for_good: whether another attempt would find the same, on any machine.
    """

    def __init__(self, message: str, *, for_good: bool = False) -> None:
        super().__init__(message)
        self.for_good = for_good


def write_state(folder: Path, state: dict[str, Any], *, order: int) -> None:
    """Write a training state into `folder`, with its digest as a seal, so that a truncated file is recognised.

    Args:
        folder: an existing empty folder.
        state: must be readable by `torch.load(weights_only=True)`.
        order: increases from each checkpoint of a trial to the next, across retries and launches.
    """
    import torch

    torch.save(state, folder / _STATE)
    (folder / _SEAL).write_text(json.dumps({"sha256": file_digest(folder / _STATE), "order": order}), encoding="utf-8")


def read_state(folder: Path) -> dict[str, Any]:
    """Read a state. Raises `ValueError` if it is incomplete, does not match its seal, or is no state."""
    import torch

    seal = _seal(folder)
    if seal is None or not (folder / _STATE).is_file() or file_digest(folder / _STATE) != seal["sha256"]:
        raise ValueError(f"the checkpoint {folder} is truncated or incomplete")
    try:
        state = torch.load(folder / _STATE, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # torch raises many kinds
        raise ValueError(f"the checkpoint {folder} cannot be read by torch: {in_one_line(error)}") from error
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise ValueError(f"the checkpoint {folder} holds no training state")
    return state


def latest_state(root: Path, key: str) -> tuple[dict[str, Any] | None, int]:
    """The newest sound state of the trial with this key, of any launch, and its order; (None, 0) if there is none."""
    folders = root.glob(f"*/{key}/checkpoint_*")
    for order, folder in sorted(((seal["order"], path) for path in folders if (seal := _seal(path))), reverse=True):
        try:
            return read_state(folder), order
        except (ValueError, OSError) as error:
            log.warning("%s; going back to the one before it", error)
    return None, 0


def remove_states(root: Path, keys: Collection[str]) -> None:
    """Remove the checkpoints of the trials with these keys."""
    for folder in root.glob("*/*"):
        if folder.name in keys:
            shutil.rmtree(folder, ignore_errors=True)


def _seal(folder: Path) -> dict[str, Any] | None:
    try:
        seal = json.loads((folder / _SEAL).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    sound = isinstance(seal, dict) and isinstance(seal.get("sha256"), str) and type(seal.get("order")) is int
    return seal if sound else None
