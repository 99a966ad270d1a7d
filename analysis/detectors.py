"""A tracked run's detector, built again from what MLflow holds of it: its specification and its checkpoint."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.store import Store, StoreError
from data.transforms import Geometry
from grid import names
from grid.spec import SPEC_VERSION, TrialSpec
from models.configs import NetworkConfig
from models.detector import BuildContext, Detector, Prediction, WeightsError
from models.registry import create_detector, detector_info

if TYPE_CHECKING:
    from models.training import NetworkDetector


def load_detector(
    store: Store, run_id: str, *, device: str = "cpu", weight_files: Mapping[str, Path] | None = None
) -> tuple[Detector, TrialSpec]:
    """Build the detector of a finished run.

    A network of which everything trained needs no pretrained weights again: its checkpoint holds every tensor. A frozen
    encoder is not in the checkpoint, so its weights must be had again, from where the run had them.

    Args:
        store: an open grid.
        run_id: of a trial in it.
        device: torch device string.
        weight_files: digest -> local path, for frozen encoders whose weights were a local file.

    Raises:
        StoreError: no such run; a checkpoint that is missing, damaged or another detector's; encoder weights that
            cannot be had; a specification of another version. The message names the run and the remedy.
    """
    fields = store.spec(run_id)
    if fields.get("version") != SPEC_VERSION:
        raise StoreError(
            f"run {run_id} has spec version {fields.get('version')}, this code reads version {SPEC_VERSION}: check out "
            "the commit that the run was made with"
        )
    try:
        spec = TrialSpec.from_dict(fields)
        info = detector_info(spec.method)
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(
            f"{names.SPEC} of run {run_id} cannot be used: {error}. Is this the commit that the run was made with?"
        ) from error
    folder = store.checkpoint(run_id)
    context = BuildContext(spec.classes, spec.seed, device, dict(weight_files or {}))
    try:
        if isinstance(info.config, NetworkConfig):
            detector: Detector = _unfilled_network(spec, context)
        else:
            detector = create_detector(spec.method, dict(spec.config), context)
    except WeightsError as error:
        raise StoreError(
            f"run {run_id} ({spec.name}) has a frozen encoder, whose weights are not part of its checkpoint and cannot "
            f"be had here: {error}\nGive the file that the run used with --weights FILE"
        ) from error
    except (TypeError, ValueError) as error:
        raise StoreError(
            f"the detector of run {run_id} ({spec.name}) cannot be built: {error}. Is this the commit that the run was "
            "made with?"
        ) from error
    try:
        detector.load(folder)
        _check_preprocessing(detector, folder)
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise StoreError(
            f"the checkpoint of run {run_id} ({spec.name}) cannot be used: {error}\nDelete the run "
            f"(mlflow runs delete --run-id {run_id}) and launch the grid again, which runs this trial alone"
        ) from error
    return detector, spec


def _unfilled_network(spec: TrialSpec, context: BuildContext) -> NetworkDetector:
    """The run's network with random weights, which `load` then replaces, every one of them.

    A hub's tag decides the preprocessing too, so it stays in the network's name while it is built.
    """
    config = dict(spec.config)
    kind, _, tag = str(config["weights"]).partition(":")
    if kind == "hub" and tag:
        config["backbone"] = f"{str(config['backbone']).partition('.')[0]}.{tag}"
    detector: Any = create_detector(spec.method, config | {"weights": "random"}, context)
    detector.config = dataclasses.replace(detector.config, backbone=dict(spec.config)["backbone"])
    return detector


def _check_preprocessing(detector: Detector, folder: Path) -> None:
    """Refuse a network that would see other pixels than when it was trained, as after an update of timm."""
    now = getattr(detector, "preprocessing", None)
    if now is None:
        return  # an encoder's preprocessing is part of its key, which `load` compares
    then = json.loads((folder / "model.json").read_text())["preprocessing"]
    found = json.loads(json.dumps(dataclasses.asdict(now)))
    if then != found:
        raise ValueError(f"it was trained with the preprocessing {then}, here it would get {found}")


def check_device(device: str) -> None:
    """Raise `StoreError` for a device that is not there."""
    import torch

    if device not in ("cpu", "cuda"):
        raise StoreError(f"--device is cpu or cuda, got {device!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise StoreError("--device cuda was asked for but torch sees no GPU; use --device cpu")


def detector_inputs(detector: Detector, images: Sequence[np.ndarray]) -> np.ndarray:
    """Decoded pictures, uint8 (H, W, 3) of any sizes -> what `Detector.predict` takes: pixels or features."""
    pixels = images if detector.geometry is None else square_pixels(detector, images)
    return np.asarray(pixels) if detector.encoder is None else detector.encoder.encode(pixels)


def square_pixels(detector: Detector, images: Sequence[np.ndarray]) -> np.ndarray:
    """Decoded pictures, uint8 (H, W, 3) of any sizes -> uint8 (N, S, S, 3), as the detector was trained on.

    Raises:
        ValueError: the detector takes pictures at their native size.
    """
    if detector.geometry is None:
        raise ValueError("this detector takes pictures at their native size")
    geometry = Geometry(**detector.geometry)
    return np.stack([geometry.apply(image) for image in images])


def predict_images(detector: Detector, images: Sequence[np.ndarray]) -> Prediction:
    """Score decoded pictures, uint8 (H, W, 3) of any sizes, in order."""
    return detector.predict(detector_inputs(detector, images))
