"""The detector that measures the distance from real photographs; `models/detectors/real_only.py` registers it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from models.checks import check_reals, load_tensors, matching_facts
from models.detector import Detector, Encoder, Examples, FitSession, Prediction, Rows
from models.novelty import Novelty, without_limit

_ARRAYS = ("mean", "scale", "components", "variances")


class RealDistance(Detector):
    """The score is the squared Mahalanobis distance from the real training images; the logits are half of it.

    Args:
        encoder: of the images.
        classes: "real" and "fake".
        quantile: share of the real validation images that lie below the threshold.
        weights_note: origin of the encoder's weights.
    """

    def __init__(self, encoder: Encoder, classes: tuple[str, ...], *, quantile: float, weights_note: str) -> None:
        self.encoder, self.geometry, self.classes = encoder, encoder.geometry, classes
        self.weights_note = weights_note
        self._key, self._quantile = encoder.key, quantile
        self._reals: Novelty | None = None

    def fit(self, train: Examples, valid: Examples, session: FitSession) -> None:
        """Mean and covariance of the training photographs; the threshold is a quantile of the validation photographs.

        Raises:
            ValueError: an image that is not real, fewer than 2 training images or no validation image, or features
                that are not finite.
        """
        check_reals(train, valid)
        self._reals = without_limit(train.inputs[np.arange(len(train.inputs))])
        of_train, of_valid = (self._squared(part.inputs) for part in (train, valid))
        self.threshold = float(np.quantile(of_valid, self._quantile))
        report: dict[str, float] = {}
        for name, distances in (("train", of_train), ("valid", of_valid)):
            report |= {f"{name}/loss": float(distances.mean())}  # there is no other loss
            report |= {f"{name}/accuracy": float((distances <= self.threshold).mean())}
        session.on_epoch(1, report)

    def predict(self, inputs: Rows) -> Prediction:
        """See `Detector`; the embeddings are the statistics."""
        squared = self._squared(inputs).astype(np.float32)
        features = np.asarray(inputs[np.arange(len(inputs))], dtype=np.float32)
        return Prediction(np.stack([-squared / 2, squared / 2], axis=1), features)

    def _squared(self, inputs: Rows) -> np.ndarray:
        assert self._reals is not None, "not fitted"
        return np.square(self._reals.distances(inputs[np.arange(len(inputs))]))

    def save(self, folder: Path) -> None:
        """See `Detector`."""
        assert self._reals is not None, "not fitted"
        tensors = {name: torch.from_numpy(getattr(self._reals, name)) for name in _ARRAYS}
        numbers = torch.tensor([self._reals.rest, self.threshold or 0.0], dtype=torch.float64)
        torch.save(tensors | {"numbers": numbers}, folder / "reals.pt")
        (folder / "reals.json").write_text(json.dumps(self._facts(), indent=2), encoding="utf-8")

    def load(self, folder: Path) -> None:
        """See `Detector`."""
        matching_facts(folder / "reals.json", self._facts())
        state = load_tensors(folder / "reals.pt")
        if state.keys() != {*_ARRAYS, "numbers"} or state["numbers"].shape != (2,):
            raise ValueError(f"{folder / 'reals.pt'} is no state of this method")
        rest, self.threshold = state["numbers"].tolist()
        arrays = {name: state[name].numpy() for name in _ARRAYS}
        self._reals = Novelty(**arrays, rest=rest, limit=1.0, facts={})

    def _facts(self) -> dict[str, object]:
        return {"classes": list(self.classes), "statistics": self._key}
