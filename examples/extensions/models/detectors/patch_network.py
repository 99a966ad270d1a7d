"""A network of our own, in a class of its own: logits of patches, averaged over the picture. With Grad-CAM."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import nn

from models.checks import check_examples, load_tensors, matching_facts, softmax_loss
from models.detector import BuildContext, CamTarget, Detector, Examples, FitSession, Prediction, Rows
from models.geometry import Geometry
from models.needs import resized_to
from models.registry import register_detector

SIDE, CHANNELS, BATCH = 32, 16, 16


@dataclass(frozen=True)
class Config:
    """Attributes:
    epochs: passes over the training images.
    learning_rate: of Adam.
    """

    epochs: int = Field(default=60, ge=1)
    learning_rate: float = Field(default=0.01, gt=0)


@register_detector(
    "patch_network",
    config=Config(),
    gpu_share=0.25,
    small={"epochs": 40},
    picture_needs=lambda config: resized_to(SIDE),
)
def build(config: Config, context: BuildContext) -> Detector:
    """Small network over patches, trained from scratch."""
    return PatchNetwork(config, context)


class _Module(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.patches = nn.Sequential(
            nn.Conv2d(3, CHANNELS, 5, stride=2), nn.ReLU(), nn.Conv2d(CHANNELS, CHANNELS, 3), nn.ReLU()
        )
        self.head = nn.Linear(CHANNELS, num_classes)

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        return self.patches(images).mean(dim=(2, 3))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.embed(images))


class PatchNetwork(Detector):
    """See the module."""

    weights_note = "random weights"
    geometry = Geometry(SIDE)

    def __init__(self, config: Config, context: BuildContext) -> None:
        self.classes, self._config, self._seed, self._device = context.classes, config, context.seed, context.device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(context.seed)
            self._module = _Module(len(context.classes)).to(context.device)

    def fit(self, train: Examples, valid: Examples, session: FitSession) -> None:
        """See `Detector`."""
        check_examples(train, valid, self.classes)
        optimiser = torch.optim.Adam(self._module.parameters(), lr=self._config.learning_rate)
        best = np.inf, copy.deepcopy(self._module.state_dict())
        for epoch in range(1, self._config.epochs + 1):
            self._module.train()
            order = np.random.default_rng([self._seed, epoch]).permutation(len(train.labels))
            for index in np.array_split(order, max(1, len(order) // BATCH)):
                logits = self._module(self._normalise(torch.from_numpy(np.array(train.inputs[index]))))
                labels = torch.from_numpy(train.labels[index]).to(self._device)
                optimiser.zero_grad()
                nn.functional.cross_entropy(logits, labels).backward()
                optimiser.step()
            metrics = {}
            for name, examples in (("train", train), ("valid", valid)):
                logits = self.predict(examples.inputs).logits
                metrics[f"{name}/loss"] = softmax_loss(logits, examples.labels)
                metrics[f"{name}/accuracy"] = float((logits.argmax(axis=1) == examples.labels).mean())
            session.on_epoch(epoch, metrics)
            if metrics["valid/loss"] < best[0]:
                best = metrics["valid/loss"], copy.deepcopy(self._module.state_dict())
        self._module.load_state_dict(best[1])

    @torch.inference_mode()
    def predict(self, inputs: Rows) -> Prediction:
        """See `Detector`."""
        self._module.eval()
        embeddings = [np.empty((0, CHANNELS), dtype=np.float32)]
        for index in np.split(np.arange(len(inputs)), np.arange(BATCH, len(inputs), BATCH)):
            pixels = np.array(inputs[index])
            if pixels.shape[1:] != (SIDE, SIDE, 3):
                raise ValueError(f"pixels have shape {pixels.shape}, wanted (N, {SIDE}, {SIDE}, 3)")
            embeddings.append(self._module.embed(self._normalise(torch.from_numpy(pixels))).cpu().numpy())
        stacked = np.concatenate(embeddings)
        logits = self._module.head(torch.from_numpy(stacked).to(self._device)).cpu().numpy()
        return Prediction(logits, stacked)

    def _normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.to(self._device).permute(0, 3, 1, 2).float() / 127.5 - 1

    def save(self, folder: Path) -> None:
        """See `Detector`."""
        torch.save(self._module.state_dict(), folder / "network.pt")
        (folder / "facts.json").write_text(json.dumps({"classes": list(self.classes)}), encoding="utf-8")

    def load(self, folder: Path) -> None:
        """See `Detector`."""
        matching_facts(folder / "facts.json", {"classes": list(self.classes)})
        self._module.load_state_dict(load_tensors(folder / "network.pt"))

    def cam_target(self) -> CamTarget | None:
        """See `Detector`."""
        return CamTarget(self._module.eval(), [self._module.patches[-1]], self._normalise)
