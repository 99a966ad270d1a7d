"""The detector that looks for edited windows; `models/detectors/self_edited_windows.py` registers it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from models.checks import check_examples, load_tensors, matching_facts, softmax_loss
from models.configs import ProbeConfig, WindowsConfig
from models.detector import BuildContext, Detector, Examples, FitSession, Prediction, Rows, fake_scores
from models.linear import LinearDetector
from models.picture_score import top_mean
from models.tiles import pictures_of
from models.window_classifier import WindowClassifier, fit_windows, of_cells, of_wholes, one_scale
from models.windows import NUM_FEATURES, WholeEncoder, window_statistics

WINDOWS, WHOLE = 0, 1  # recipes of the method's self-edited pictures


class SelfEditedWindows(Detector):
    """The score of an image: its top windows and a logistic regression on the whole image, on one scale.

    Args:
        config: settings.
        context: classes and seed.
    """

    weights_note = "weight-free"
    geometry = None

    def __init__(self, config: WindowsConfig, context: BuildContext) -> None:
        self.config, self.classes, self._seed = config, context.classes, context.seed
        self._classifier = WindowClassifier(hidden=config.hidden, dropout=config.dropout, seed=context.seed)
        self._whole = LinearDetector(WholeEncoder(), context.classes, ProbeConfig(), weights_note=self.weights_note)
        self._scale = np.array([1.0, 1.0, 0.0])  # of the windows' score, of the whole image's, and what is added

    def fit(self, train: Examples, valid: Examples, session: FitSession) -> None:
        """Fit both parts, then bring them to one scale. Reports once; the training values are those of windows.

        Raises:
            ValueError: a class without training images, no validation images, or no mask of an edited picture.
            TrainingDiverged: the loss is not finite.
        """
        check_examples(train, valid, self.classes)
        if train.recipes is None or train.masks is None:
            raise ValueError("this method learns from self-edited pictures with their masks alone")
        config = self.config
        self._classifier, loss, accuracy = fit_windows(
            train, np.flatnonzero(train.recipes == WINDOWS), per_picture=config.windows, hidden=config.hidden,
            dropout=config.dropout, epochs=config.epochs, batch_size=config.batch_size,
            learning_rate=config.learning_rate, weight_decay=config.weight_decay, seed=self._seed,
        )  # fmt: skip
        rows = np.flatnonzero(train.recipes == WHOLE)
        tops, wholes = self._measure(valid.inputs)
        own = Examples(of_wholes(train.inputs, rows), train.labels[rows])
        self._whole.fit(own, Examples(wholes, valid.labels), FitSession())
        parts = np.stack([tops, fake_scores(self._whole.predict(wholes).logits)])
        self._scale = one_scale(parts, valid.labels)
        logits = self._logits(parts)
        right = float((logits.argmax(axis=1) == valid.labels).mean())
        report = {"train/loss": loss, "train/accuracy": accuracy}
        session.on_epoch(1, report | {"valid/loss": softmax_loss(logits, valid.labels), "valid/accuracy": right})

    def predict(self, inputs: Rows) -> Prediction:
        """See `Detector`; the embeddings are the statistics of the whole images."""
        tops, wholes = self._measure(inputs)
        return Prediction(self._logits(np.stack([tops, fake_scores(self._whole.predict(wholes).logits)])), wholes)

    def maps(self, pixels: np.ndarray) -> np.ndarray:
        """See `Detector`: cells of 16 pixels, each with the mean log-odds of the windows that it is in."""
        maps = (self._classifier.map_of(*window_statistics(image)) for image in pixels)
        return np.stack([of_cells(windows, image.shape[:2]) for windows, image in zip(maps, pixels, strict=True)])

    def _measure(self, inputs: Rows) -> tuple[np.ndarray, np.ndarray]:
        """The mean of the top windows, float64 (N,), and the statistics of the whole, float32 (N, D), of each image."""
        tops, wholes = np.empty(len(inputs)), np.empty((len(inputs), NUM_FEATURES), dtype=np.float32)
        for number, image in enumerate(pictures_of(inputs, np.arange(len(inputs)))):
            windows, wholes[number] = window_statistics(image)
            found = self._classifier.map_of(windows, wholes[number])
            tops[number] = top_mean(found[None, None], self.config.top)[0, 0]
        return tops, wholes

    def _logits(self, parts: np.ndarray) -> np.ndarray:
        """Scores of windows and of whole images, float64 (2, N) -> logits, float32 (N, 2)."""
        score = self._scale[:2] @ parts + self._scale[2]
        return np.stack([-score / 2, score / 2], axis=1).astype(np.float32)

    def save(self, folder: Path) -> None:
        """See `Detector`. The classifier of whole images lies in a folder of its own."""
        tensors = dict(self._classifier.state_dict()) | {"of_score": torch.from_numpy(self._scale)}
        torch.save(tensors, folder / "windows.pt")
        (folder / "windows.json").write_text(json.dumps(self._facts(), indent=2), encoding="utf-8")
        (folder / "whole").mkdir()
        self._whole.save(folder / "whole")

    def load(self, folder: Path) -> None:
        """See `Detector`."""
        matching_facts(folder / "windows.json", self._facts())
        tensors = load_tensors(folder / "windows.pt")
        try:
            self._scale = tensors.pop("of_score").numpy()
            self._classifier.load_state_dict(tensors)
        except (KeyError, RuntimeError):
            raise ValueError(f"{folder / 'windows.pt'} is no classifier of windows") from None
        self._classifier.eval().requires_grad_(False)
        self._whole.load(folder / "whole")

    def _facts(self) -> dict[str, object]:
        return {"classes": list(self.classes), "statistics": WholeEncoder.key, "hidden": self.config.hidden}
