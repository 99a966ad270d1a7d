"""How much a frozen encoder's features of a picture change when the picture is disturbed a little; nothing is trained.

RIGID (He et al. 2024, arXiv 2405.20112) adds noise, MINDER (Tsai et al. 2024, arXiv 2411.19117) also blurs and takes
the minimum of both distances. Whether fakes change more or less than real images depends on the strength
(arXiv 2606.20488), so the strength and the direction are chosen on real validation photographs and their edits.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from sklearn.metrics import roc_auc_score

from models.checks import check_validation, load_tensors, matching_facts, softmax_loss
from models.configs import SimilarityConfig
from models.detector import BuildContext, Detector, Encoder, Examples, FitSession, Prediction, Rows
from models.encoding import frozen_encoder
from models.preparations import ONLY_OPEN_CLIP
from models.tiles import tiled
from models.window_classifier import one_scale

NOISES = (0.008, 0.02, 0.05, 0.1)  # deviation, for pixels from 0 to 1
BLURS = (0.5, 1.0, 1.5, 2.0)  # deviation in pixels of the square that the encoder takes
_VERSION = 1  # increase it when distances change


class DistanceEncoder:
    """Cosine distances between the features of a picture and those of its disturbed versions.

    The noise is the same for every picture, so that distances follow from the picture alone.

    Args:
        encoder: takes squares.
        noises: strengths of the noise.
        blurs: strengths of the blur.
    """

    def __init__(self, encoder: Encoder, *, noises: Sequence[float] = NOISES, blurs: Sequence[float] = ()) -> None:
        self._encoder, self._noises, self._blurs = encoder, tuple(noises), tuple(blurs)
        self.geometry, self.device = encoder.geometry, encoder.device
        self.num_features = len(noises) + len(blurs)
        self.key = f"{encoder.key}-distances{_VERSION}-{'noise-blur' if blurs else 'noise'}"

    def encode(self, pixels: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
        """uint8 (N, S, S, 3) -> float32 (N, D), from 0 to 2: one distance per strength, the noises first."""
        pixels = np.asarray(pixels)
        plain = self._encoder.encode(pixels)
        disturbed = [_noisy(pixels, strength) for strength in self._noises]
        disturbed += [_blurred(pixels, strength) for strength in self._blurs]
        distances = [_cosine_distances(plain, self._encoder.encode(part)) for part in disturbed]
        return np.stack(distances, axis=1).astype(np.float32)


def _noisy(pixels: np.ndarray, strength: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 255 * strength, (*pixels.shape[1:3], 3))
    return _with_colours(pixels, pixels[..., :3] + noise)


def _blurred(pixels: np.ndarray, strength: float) -> np.ndarray:
    return _with_colours(pixels, gaussian_filter(pixels[..., :3].astype(np.float32), (0, strength, strength, 0)))


def _with_colours(pixels: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """The pixels with other colours; a fourth channel stays."""
    changed = pixels.copy()
    changed[..., :3] = np.rint(colours).clip(0, 255)
    return changed


def _cosine_distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    products = np.einsum("nd,nd->n", first, second, dtype=np.float64)
    lengths = np.linalg.norm(first.astype(np.float64), axis=1) * np.linalg.norm(second.astype(np.float64), axis=1)
    return np.asarray(1 - products / np.maximum(lengths, np.finfo(np.float64).tiny))


class DistanceDetector(Detector):
    """The minimum of chosen distances, brought to the scale of log-odds on validation photographs and their edits.

    Args:
        encoder: gives a distance per strength.
        groups: numbers of distances; one of each group is chosen.
        classes: "real" and "fake".
        weights_note: origin of the encoder's weights.
    """

    def __init__(
        self, encoder: Encoder, groups: Sequence[Sequence[int]], classes: tuple[str, ...], *, weights_note: str
    ) -> None:
        self.encoder, self.geometry, self.classes = encoder, encoder.geometry, classes
        self.weights_note = weights_note
        self._key, self._num_features, self._groups = encoder.key, encoder.num_features, groups
        self._chosen = np.array([group[0] for group in groups])
        self._scale = np.array([1.0, 0.0])  # factor, which has the direction, and what is added

    def fit(self, train: Examples, valid: Examples, session: FitSession) -> None:
        """Choose one strength per group, and the direction, by the AUROC on `valid`. `train` is not read.

        Raises:
            ValueError: no validation images, or of one class alone.
        """
        check_validation(valid, self.classes)
        distances = self._gather(valid.inputs)
        choices = [np.array(choice) for choice in itertools.product(*self._groups)]
        values = [float(roc_auc_score(valid.labels, distances[:, choice].min(axis=1))) for choice in choices]
        best = int(np.abs(np.array(values) - 0.5).argmax())
        self._chosen = choices[best]
        direction = 1.0 if values[best] >= 0.5 else -1.0
        factor, added = one_scale(direction * distances[:, self._chosen].min(axis=1)[None], valid.labels)
        self._scale = np.array([direction * factor, added])
        logits = self.predict(valid.inputs).logits
        loss, right = softmax_loss(logits, valid.labels), float((logits.argmax(axis=1) == valid.labels).mean())
        # nothing is trained, so the values of training are those of the choice
        report = {"train/loss": loss, "train/accuracy": right, "valid/loss": loss, "valid/accuracy": right}
        session.on_epoch(1, report | {"valid/chosen_auroc": max(values[best], 1 - values[best])})

    def predict(self, inputs: Rows) -> Prediction:
        """See `Detector`; the embeddings are the distances."""
        distances = self._gather(inputs)
        score = self._scale[0] * distances[:, self._chosen].min(axis=1) + self._scale[1]
        return Prediction(np.stack([-score / 2, score / 2], axis=1).astype(np.float32), distances)

    def _gather(self, inputs: Rows) -> np.ndarray:
        distances = np.asarray(inputs[np.arange(len(inputs))], dtype=np.float32)
        if distances.shape[1:] != (self._num_features,):
            raise ValueError(f"distances have shape {distances.shape}, expected (N, {self._num_features})")
        return distances

    def save(self, folder: Path) -> None:
        """See `Detector`."""
        tensors = {"chosen": torch.from_numpy(self._chosen), "scale": torch.from_numpy(self._scale)}
        torch.save(tensors, folder / "distance.pt")
        (folder / "distance.json").write_text(json.dumps(self._facts(), indent=2), encoding="utf-8")

    def load(self, folder: Path) -> None:
        """See `Detector`."""
        matching_facts(folder / "distance.json", self._facts())
        state = load_tensors(folder / "distance.pt")
        if state.keys() != {"chosen", "scale"} or state["chosen"].shape != (len(self._groups),):
            raise ValueError(f"{folder / 'distance.pt'} has no choice of this method's distances")
        self._chosen, self._scale = state["chosen"].numpy(), state["scale"].numpy()

    def _facts(self) -> dict[str, object]:
        return {"classes": list(self.classes), "encoder": self._key}


def build_distance(config: SimilarityConfig, context: BuildContext, *, blurs: Sequence[float] = ()) -> DistanceDetector:
    """A detector on distances of a frozen backbone: one strength of the noise, and one of the blur if there are any.

    Raises:
        ValueError: the library has no such backbone.
        WeightsError: the weights cannot be had or do not fit.
    """
    clip = {name: getattr(config, name) for name in ONLY_OPEN_CLIP} if config.library == "open_clip" else {}
    encoder = frozen_encoder(config.library, config, context, **clip)
    note = encoder.backbone.weights_note
    groups = [range(len(NOISES)), range(len(NOISES), len(NOISES) + len(blurs))]
    distances = tiled(DistanceEncoder(encoder, blurs=blurs), config.resize)
    return DistanceDetector(distances, [group for group in groups if len(group)], context.classes, weights_note=note)
