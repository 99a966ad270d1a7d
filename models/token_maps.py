"""What methods share that learn from masks, on the patch tokens of a frozen backbone."""

from __future__ import annotations

import abc
import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import logsumexp
from torch import nn

from models.backbones.base import BackboneRequest
from models.checks import (
    check_examples,
    check_masked,
    check_pixels,
    given_masks,
    load_tensors,
    matching_facts,
    softmax_loss,
)
from models.compute import compute_on
from models.configs import TokenConfig
from models.detector import BuildContext, Detector, Examples, FitSession, Prediction, Rows
from models.encoding import backbone_request, encoder_key, load_backbone_once, pictures_at_once
from models.maps import cell_shares
from models.memory import in_batches, move
from models.picture_score import PictureScale, top_mean
from models.tokens import PatchTokens

_SCALE, _OFFSETS = "scale", "offsets"  # beside the head's tensors in `head.pt`


class Targets:
    """How much of each cell of a grid is fake, by the masks.

    Args:
        examples: with masks.
        detector: whose geometry counts.
        cells: rows and columns of the grid.
        split: "training" or "validation", for messages.

    Attributes:
        known: bool (N,): False for a fake without a mask, from which nothing is learnt.

    Raises:
        ValueError: there are no masks, or no fake has one.
    """

    def __init__(self, examples: Examples, detector: Detector, cells: tuple[int, int], *, split: str) -> None:
        masks, geometry = given_masks(examples), detector.geometry
        assert geometry is not None, "of a detector of squares"
        self._shares = np.zeros((len(examples.labels), *cells), dtype=np.uint8)  # of 255
        self.known = np.ones(len(examples.labels), dtype=bool)
        fakes = np.flatnonzero(examples.labels)  # in a picture that is labelled real, nothing is fake
        for number in fakes:
            (mask,) = masks[np.array([number])]
            if mask is None:
                self.known[number] = False
            else:
                self._shares[number] = np.rint(255 * cell_shares(mask, geometry, cells))
        check_masked(examples.labels, self.known, split=split)

    def shares(self, index: np.ndarray) -> np.ndarray:
        """float32 (n, rows, columns), in [0, 1]."""
        return self._shares[index].astype(np.float32) / 255


class TokenDetector(Detector):
    """A frozen backbone, and a head that gives each cell of a grid, for each fake class, its log-odds against "real".

    The map is the log-odds of all fake classes together. The score of a picture follows from the cells: the logit of
    "real" is 0; that of a fake class is the mean of the highest tenth of its cells, times a positive scale, plus an
    offset of the class. Scale and offsets are fitted to the validation images: training has seen its own. A tenth,
    because an edit is a part of the picture: the mean of all cells would measure the edited area, and the highest cell
    alone the largest error.

    Args:
        config: names the backbone.
        context: classes, seed, device, weight files.

    Raises:
        ValueError: the family has no such backbone, or it has no patch tokens.
        WeightsError: the weights cannot be had or do not fit.
    """

    def __init__(self, config: TokenConfig, context: BuildContext) -> None:
        request = backbone_request(
            config, context, mean=config.mean, std=config.std, interpolation=config.interpolation
        )
        self._tokens = _load_tokens_once(config.family, request, config.depth)
        self.preprocessing = self._tokens.backbone.preprocessing
        self.geometry = self.preprocessing.geometry
        self.classes = context.classes
        self.weights_note = self._tokens.backbone.weights_note
        self.compute = compute_on(context.device, config.precision)
        self.num_fakes = len(context.classes) - 1
        self.token_width, self.token_cells = self._tokens.width, self._tokens.cells
        self.head = self.make_head(context.seed)
        self._scale = PictureScale(self.num_fakes)
        self._at_once = pictures_at_once(self.preprocessing.size)

    @abc.abstractmethod
    def make_head(self, seed: int) -> nn.Module:
        """A new head, on the CPU: tokens (N, width, rows, columns) -> log-odds (N, C - 1, any rows, any columns)."""

    @abc.abstractmethod
    def fit_head(self, train: Examples, valid: Examples, session: FitSession) -> None:
        """Train the head, and fit the scale to the validation images (`fit_scale`)."""

    def fit(self, train: Examples, valid: Examples, session: FitSession) -> None:
        """Train on the masks.

        Raises:
            ValueError: no masks, a class without training images, no validation images, a label out of range.
            TrainingDiverged: a loss is not finite.
            MemoryExhausted: the images of a step do not fit into the device's memory.
        """
        check_examples(train, valid, self.classes)
        self.fit_head(train, valid, session)

    # Inference -------------------------------------------------------------------------------------------------------

    def tokens(self, pixels: np.ndarray) -> torch.Tensor:
        """uint8 (N, S, S, 3) -> patch tokens, float32 (N, width, rows, columns), on the device, without gradients."""
        check_pixels(pixels, self.preprocessing.size)
        batch = torch.from_numpy(np.require(pixels, requirements=["C", "W"])).to(self.compute.device)
        with torch.no_grad(), self.compute.autocast(), self.compute.exactly():
            tokens: torch.Tensor = self._tokens(self.preprocessing.normalise(batch))
        return tokens.float()

    def to_device(self) -> None:
        """Move everything to the device."""
        move(self._tokens, self.compute.device)
        move(self.head, self.compute.device)

    def for_all(self, inputs: Rows, use: Callable[[slice, torch.Tensor, torch.Tensor], None]) -> None:
        """Call `use` with (rows, tokens, the head's log-odds) of all inputs, in order, batch by batch.

        Raises:
            MemoryExhausted: not even one image fits.
        """
        self.to_device()
        self.head.eval()

        def score(part: slice) -> None:
            tokens = self.tokens(inputs[np.arange(part.start, part.stop)])
            with torch.no_grad(), self.compute.exactly():
                found = self.head(tokens)
            use(part, tokens, found)

        self.in_batches(score, len(inputs))

    def in_batches(self, compute: Callable[[slice], None], count: int) -> None:
        """Call `compute` on slices of `count` pictures, as many at once as fit; errors as of `for_all`."""
        self._at_once = in_batches(compute, count, self._at_once)

    def predict(self, inputs: Rows) -> Prediction:
        """Score every row once, in order: uint8 (N, S, S, 3). The embeddings are the means of the patch tokens.

        Raises:
            MemoryExhausted: not even one image fits.
        """
        pooled = np.empty((len(inputs), self.num_fakes))
        means = np.empty((len(inputs), self.token_width), dtype=np.float32)

        def use(part: slice, tokens: torch.Tensor, found: torch.Tensor) -> None:
            pooled[part] = top_mean(found.cpu().numpy())
            means[part] = tokens.mean(dim=(2, 3)).cpu().numpy()

        self.for_all(inputs, use)
        return Prediction(self._scale.logits(pooled).astype(np.float32), means)

    def maps(self, pixels: np.ndarray) -> np.ndarray:
        """See `Detector.maps`."""
        maps = list[np.ndarray]()
        self.for_all(pixels, lambda part, tokens, found: maps.append(logsumexp(found.cpu().numpy(), axis=1)))
        return np.concatenate(maps).astype(np.float32)

    # A picture's score ------------------------------------------------------------------------------------------------

    def fit_scale(self, pooled: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """Fit the scale of pictures' scores; arguments as of `PictureScale.fit`. Returns `loss` and `accuracy`."""
        self._scale.fit(pooled, labels)
        logits = self._scale.logits(pooled)
        return {"loss": softmax_loss(logits, labels), "accuracy": float((logits.argmax(axis=1) == labels).mean())}

    def pooled_of(self, inputs: Rows) -> np.ndarray:
        """Means of the highest cells of all inputs: float64 (N, C - 1). Errors as of `for_all`."""
        pooled = np.empty((len(inputs), self.num_fakes))

        def use(part: slice, tokens: torch.Tensor, found: torch.Tensor) -> None:
            pooled[part] = top_mean(found.cpu().numpy())

        self.for_all(inputs, use)
        return pooled

    # Files -----------------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, torch.Tensor]:
        """A copy of everything that is fitted, on the CPU."""
        head = {f"head.{name}": tensor.detach().cpu().clone() for name, tensor in self.head.state_dict().items()}
        scale = torch.tensor(self._scale.scale, dtype=torch.float64)
        return head | {_SCALE: scale, _OFFSETS: torch.from_numpy(self._scale.offsets.copy())}

    def set_state(self, state: dict[str, torch.Tensor]) -> None:
        """Take over what `state` gave. Raises `KeyError` or `RuntimeError` if it is of another head."""
        scale, offsets = float(state[_SCALE]), state[_OFFSETS].double().numpy()
        if offsets.shape != (self.num_fakes,):
            raise RuntimeError(f"there are {offsets.shape} offsets for {self.num_fakes} classes")
        head = {name.removeprefix("head."): tensor for name, tensor in state.items() if name.startswith("head.")}
        self.head.load_state_dict(head)
        self._scale = PictureScale(self.num_fakes, scale, offsets)

    def save(self, folder: Path) -> None:
        """Write `head.pt`, the head's tensors and the scale of pictures' scores, and `head.json` about them."""
        torch.save(self.state(), folder / "head.pt")
        (folder / "head.json").write_text(json.dumps(self._facts(), indent=2), encoding="utf-8")

    def load(self, folder: Path) -> None:
        """Read a saved head. Raises `ValueError` if it is for other classes or another backbone."""
        matching_facts(folder / "head.json", self._facts())
        state = load_tensors(folder / "head.pt")
        try:
            self.set_state(state)
        except (KeyError, RuntimeError) as error:
            raise ValueError(f"{folder / 'head.pt'} does not fit this detector: {error}") from None

    def _facts(self) -> dict[str, Any]:
        return {
            "classes": list(self.classes),
            "encoder": encoder_key(self._tokens.backbone),
            "block": self._tokens.block,
            "head": repr(self.head),
        }


def cell_losses(
    log_odds: torch.Tensor, shares: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy per cell, in nats, and whether its likelier class is right.

    Args:
        log_odds: float32 (N, C - 1, ...), of each fake class against "real".
        shares: float32 (N, ...), how much of each cell is fake.
        labels: int64 (N,), class numbers.

    Returns:
        float32 (N, ...) and bool (N, ...).
    """
    logits = torch.cat([torch.zeros_like(log_odds[:, :1]), log_odds], dim=1)
    logs = logits.log_softmax(dim=1)
    number = labels.view(-1, *([1] * (logs.ndim - 1))).expand(-1, 1, *logs.shape[2:])
    of_class = logs.gather(1, number)[:, 0]
    loss = -(shares * of_class + (1 - shares) * logs[:, 0])
    expected = torch.where(shares > 0.5, number[:, 0], torch.zeros_like(number[:, 0]))
    return loss, logits.argmax(dim=1) == expected


def _load_tokens(family: str, request: BackboneRequest, depth: float) -> PatchTokens:
    return PatchTokens(load_backbone_once(family, request), depth)


# As for backbones: what trials share that a worker computes one after another.
_load_tokens_once = lru_cache(maxsize=1)(_load_tokens)
