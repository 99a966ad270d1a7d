"""Checks and computations that both families of detectors share."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch

from models.detector import Examples, Masks
from models.weights import DAMAGE

log = logging.getLogger(__name__)


def check_examples(train: Examples, valid: Examples, classes: tuple[str, ...]) -> None:
    """Refuse examples that cannot be trained on, before any time is spent.

    Raises:
        ValueError: a class without training images, no validation images, or a label out of range.
    """
    for name, examples in (("training", train), ("validation", valid)):
        _check_labels(name, examples, classes)
    _check_classes("training", train, classes)


def check_validation(valid: Examples, classes: tuple[str, ...]) -> None:
    """Refuse examples from which a method that trains nothing cannot choose.

    Raises:
        ValueError: no validation images, a class without any, or a label out of range.
    """
    _check_labels("validation", valid, classes)
    _check_classes("validation", valid, classes)


def check_reals(train: Examples, valid: Examples) -> None:
    """Refuse examples for a method that is trained on real images alone.

    Raises:
        ValueError: a split is empty, or has a fake.
    """
    for name, examples in (("training", train), ("validation", valid)):
        _check_not_empty(name, examples)
        if examples.labels.any():
            raise ValueError("this method is trained on real images alone")


def given_masks(examples: Examples) -> Masks:
    """The masks of examples. Raises `ValueError` if there are none."""
    if examples.masks is None:
        raise ValueError("this method learns from masks, and was given none")
    return examples.masks


def check_masked(labels: np.ndarray, has_mask: np.ndarray, *, split: str = "training") -> None:
    """Warn of fakes without a mask. Raises `ValueError` if no fake has one.

    Args:
        labels: int (N,), 0 = real.
        has_mask: bool (N,); of real pictures it does not count.
        split: "training" or "validation", for messages.
    """
    of_fakes = has_mask[labels != 0]
    if len(of_fakes) and not of_fakes.any():
        raise ValueError(f"no {split} fake has a mask, and this method learns from masks")
    if without := int((~of_fakes).sum()):
        log.warning("%d of %d %s fakes have no mask; nothing is learnt from them", without, len(of_fakes), split)


def _check_not_empty(name: str, examples: Examples) -> None:
    if len(examples.labels) == 0:
        raise ValueError(f"the {name} split is empty; check the manifest's splits and generators")


def _check_labels(name: str, examples: Examples, classes: tuple[str, ...]) -> None:
    _check_not_empty(name, examples)
    if examples.labels.min() < 0 or examples.labels.max() >= len(classes):
        raise ValueError(f"the {name} labels must lie in 0 .. {len(classes) - 1} ({', '.join(classes)})")


def _check_classes(name: str, examples: Examples, classes: tuple[str, ...]) -> None:
    counts = np.bincount(examples.labels, minlength=len(classes))
    absent = [label for label, count in zip(classes, counts, strict=True) if count == 0]
    if absent:
        missing = ", ".join(absent)
        raise ValueError(
            f"no {name} image of class {missing} among {len(examples.labels)}: add some, or drop the class"
        )


def check_pixels(pixels: np.ndarray, size: int) -> None:
    """Raise `ValueError` unless the pixels are uint8 (N, size, size, 3): a silent resize would change the features.

    A fourth channel, which marks where pictures were filled up, is accepted.
    """
    if pixels.dtype != np.uint8 or pixels.shape[1:] not in ((size, size, 3), (size, size, 4)):
        raise ValueError(f"need uint8 (N, {size}, {size}, 3), got {pixels.dtype} {pixels.shape}")


def softmax_loss(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean cross-entropy in nats: logits (N, C), labels (N,)."""
    logits = logits - logits.max(axis=1, keepdims=True)
    chosen = logits[np.arange(len(labels)), labels]
    return float((np.log(np.exp(logits).sum(axis=1)) - chosen).mean())


def matching_facts(path: Path, facts: Mapping[str, Any]) -> None:
    """Compare the description of a saved detector with `facts`, that of the detector that loads it.

    Raises:
        ValueError: the file is missing or unreadable, or an entry differs; the message names file and entry.
    """
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is not a saved detector's description: {error}") from None
    for key, value in facts.items():
        if saved.get(key) != value:
            raise ValueError(f"{path} has {key} {saved.get(key)!r}, this detector has {value!r}")


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read a saved state dict onto the CPU.

    Raises:
        ValueError: the file is missing, truncated or damaged, holds code, or holds NaN or infinity.
    """
    try:
        tensors: dict[str, torch.Tensor] = torch.load(path, weights_only=True, map_location="cpu")
    except (UnpicklingError, *DAMAGE) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    if not isinstance(tensors, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in tensors.values()):
        raise ValueError(f"{path} holds something else than named tensors")
    if broken := [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]:
        raise ValueError(f"{path} holds NaN or infinity in {len(broken)} of {len(tensors)} tensors ({broken[0]})")
    return tensors
