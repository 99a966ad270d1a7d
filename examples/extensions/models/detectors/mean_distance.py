"""Distance from the mean real image, in residual statistics: trained without a single fake."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from models.checks import check_reals, load_tensors, matching_facts
from models.detector import BuildContext, Detector, Encoder, Examples, FitSession, Prediction, Rows
from models.needs import PictureNeeds
from models.registry import register_detector
from models.residuals import MIN_SIDE


@dataclass(frozen=True)
class Config:
    """Attributes:
    quantile: share of the real validation images that stay below the threshold.
    """

    quantile: float = Field(default=0.9, gt=0, lt=1)


@register_detector(
    "mean_distance",
    config=Config(),
    gpu_share=0.0,
    needs_fakes=False,
    picture_needs=lambda config: PictureNeeds(min_side=MIN_SIDE),
    depends_on_seed=lambda config: False,
)
def build(config: Config, context: BuildContext) -> Detector:
    """Distance from the mean of real images; needs no fakes."""
    from models.residuals import ResidualEncoder

    return MeanDistance(ResidualEncoder(), context.classes, config)


class MeanDistance(Detector):
    """The standardised distance from the mean of the real training images is the log-odds of fake."""

    weights_note = "weight-free"

    def __init__(self, encoder: Encoder, classes: tuple[str, ...], config: Config) -> None:
        self.encoder, self.geometry, self.classes, self.config = encoder, encoder.geometry, classes, config
        self._mean = np.zeros(encoder.num_features, dtype=np.float32)
        self._scale = np.ones(encoder.num_features, dtype=np.float32)

    def fit(self, train: Examples, valid: Examples, session: FitSession) -> None:
        """Mean and standard deviation of the training images, and the threshold from the validation images."""
        check_reals(train, valid)
        features = train.inputs[np.arange(len(train.inputs))]
        self._mean, self._scale = features.mean(axis=0), features.std(axis=0) + 1e-6
        distances = self._distances(valid.inputs[np.arange(len(valid.inputs))])
        self.threshold = float(np.quantile(distances, self.config.quantile))
        called_real = float((self.predict(valid.inputs).logits.argmax(axis=1) == 0).mean())
        loss = float(distances.mean())
        session.on_epoch(
            1, {"train/loss": loss, "valid/loss": loss, "train/accuracy": called_real, "valid/accuracy": called_real}
        )

    def _distances(self, features: np.ndarray) -> np.ndarray:
        if features.shape[1:] != self._mean.shape:
            raise ValueError(f"features have shape {features.shape}, wanted (N, {len(self._mean)})")
        return np.sqrt((((features - self._mean) / self._scale) ** 2).mean(axis=1, dtype=np.float64))

    def predict(self, inputs: Rows) -> Prediction:
        """See `Detector`."""
        features = np.asarray(inputs[np.arange(len(inputs))], dtype=np.float32)
        distances = self._distances(features).astype(np.float32)
        return Prediction(np.stack([-distances / 2, distances / 2], axis=1), features)

    def save(self, folder: Path) -> None:
        """See `Detector`."""
        tensors = {"mean": torch.from_numpy(self._mean), "scale": torch.from_numpy(self._scale)}
        torch.save(tensors, folder / "state.pt")
        (folder / "facts.json").write_text(json.dumps(self._facts()), encoding="utf-8")

    def load(self, folder: Path) -> None:
        """See `Detector`."""
        matching_facts(folder / "facts.json", self._facts())
        state = load_tensors(folder / "state.pt")
        self._mean, self._scale = state["mean"].numpy(), state["scale"].numpy()

    def _facts(self) -> dict[str, object]:
        return {"classes": list(self.classes), "num_features": self.encoder.num_features}
