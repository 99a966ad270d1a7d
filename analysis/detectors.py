"""A tracked run's detector, rebuilt from the specification and the checkpoint in MLflow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from analysis.store import Store, StoreError
from grid import names
from grid.devices import torch_problem
from grid.spec import SPEC_VERSION, TrialSpec
from grid.uris import store_variable
from models.detector import BuildContext, Detector, WeightsError
from models.registry import create_detector, detector_info
from models.weights import file_digest

_OTHER = "check out the commit that the run was made with"


def load_detector(
    store: Store, run_id: str, *, device: str = "cpu", weight_files: Mapping[str, Path] | None = None
) -> tuple[Detector, TrialSpec]:
    """Load the detector of a finished run.

    The checkpoint of a network holds every tensor. A frozen encoder is not in the checkpoint; its weights are fetched
    again from where the run had them.

    Args:
        store: an open grid.
        run_id: id of a finished run.
        device: torch device string.
        weight_files: digest -> local path, for frozen encoders whose weights were a local file.

    Raises:
        StoreError: no such run; a checkpoint that is missing, damaged or another detector's; encoder weights that
            cannot be fetched; a specification of another version. The message names the run and the remedy.
    """
    fields = store.spec(run_id)
    if fields.get("version") != SPEC_VERSION:
        raise StoreError(
            f"run {run_id} has spec version {fields.get('version')}, this code reads version {SPEC_VERSION}: {_OTHER}"
        )
    try:
        spec = TrialSpec.from_dict(fields)
        detector_info(spec.method)
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{names.SPEC} of run {run_id} cannot be used: {error}; {_OTHER}") from error
    folder = store.checkpoint(run_id)
    context = BuildContext(spec.classes, spec.seed, device, dict(weight_files or {}), restoring=True)
    try:
        detector = create_detector(spec.method, dict(spec.config), context)
    except WeightsError as error:
        raise StoreError(
            f"run {run_id} ({spec.name}) has a frozen encoder, whose weights are not in its checkpoint and cannot be "
            f"fetched here: {error}\nName the file that the run used with --weights FILE"
        ) from error
    except (TypeError, ValueError) as error:
        raise StoreError(f"the detector of run {run_id} ({spec.name}) cannot be built: {error}; {_OTHER}") from error
    try:
        detector.load(folder)
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise StoreError(
            f"the checkpoint of run {run_id} ({spec.name}) cannot be used: {error}\nDelete the run "
            f"({store_variable(store.tracking_uri)} mlflow runs delete --run-id {run_id}) and launch the grid again, "
            "which runs this trial alone"
        ) from error
    return detector, spec


def local_weights(paths: Iterable[Path]) -> dict[str, Path]:
    """The files of --weights: digest -> path. Raises `StoreError` for a file that does not exist."""
    files = list(paths)
    for path in files:
        if not path.is_file():
            raise StoreError(f"--weights {path}: there is no such file")
    return {file_digest(path): path.resolve() for path in files}


def check_device(device: str) -> None:
    """Raise `StoreError` for a GPU that does not exist."""
    if device == "cuda" and (problem := torch_problem()) is not None:
        raise StoreError(f"--device cuda, but torch sees no GPU: {problem}; use --device cpu")
