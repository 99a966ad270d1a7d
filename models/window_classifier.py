"""A small network that tells edited windows of a picture from others, by the statistics of `models.windows`."""

from __future__ import annotations

import logging

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.nn import functional

from models.detector import Examples, Rows, TrainingDiverged
from models.tiles import pictures_of
from models.windows import CELL, NUM_FEATURES, SPAN, grid_of, over_windows, window_statistics

log = logging.getLogger(__name__)

EDITED, UNCERTAIN = 0.5, 0.1  # a window counts as edited above the first share of edited pixels; between both it is out
LIMIT = 6.0  # deviations to which inputs are clipped
_SHARE_FOR_SCALES = 7  # every so many windows give the scales of the inputs
_LARGE = 2 * 256 * 256  # pixels; of larger pictures more windows take part, in proportion
_SMALLEST_DEVIATION = 1e-3  # of a statistic
_SMALLEST_SLOPE = 1e-3  # of the log-odds, per deviation of the scores
_CONSTANT = 1e-6  # share of the largest score below which a deviation is rounding


class WindowClassifier(nn.Module):
    """Statistics of windows -> log-odds that they are edited.

    The network sees each window's statistics, and how they differ from those of the whole picture.

    Args:
        hidden: number of hidden units.
        dropout: share of inputs, and of hidden units, that are left out in training.
        seed: of the initial weights.
    """

    center: torch.Tensor
    scale: torch.Tensor

    def __init__(self, *, hidden: int, dropout: float, seed: int) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(2 * NUM_FEATURES))
        self.register_buffer("scale", torch.ones(2 * NUM_FEATURES))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.layers = nn.Sequential(
                nn.Dropout(dropout), nn.Linear(2 * NUM_FEATURES, hidden), nn.ReLU(), nn.Dropout(dropout),
                nn.Linear(hidden, 1),
            )  # fmt: skip

    def forward(self, windows: torch.Tensor, wholes: torch.Tensor) -> torch.Tensor:
        """float32 (N, NUM_FEATURES) each: of windows, and of the picture of each -> log-odds, float32 (N,)."""
        inputs = torch.cat([windows, windows - wholes], dim=1)
        inputs = ((inputs - self.center) * self.scale).clamp(-LIMIT, LIMIT)
        logits: torch.Tensor = self.layers(inputs)
        return logits[:, 0]

    @torch.inference_mode()
    def map_of(self, windows: np.ndarray, whole: np.ndarray) -> np.ndarray:
        """Of one picture, as from `window_statistics`: log-odds of its windows, float32 (h, w)."""
        flat = torch.from_numpy(np.ascontiguousarray(windows.reshape(-1, NUM_FEATURES)))
        logits: np.ndarray = self(flat, torch.from_numpy(whole).expand(len(flat), -1)).numpy()
        return logits.reshape(windows.shape[:2])


def edited_shares(mask: np.ndarray) -> np.ndarray:
    """Share of edited pixels of each window: bool (H, W) -> float64 (h, w); h and w from `models.windows.grid_of`.

    As in `window_statistics`, pixels beyond the last whole cell belong to the last cell.
    """
    starts = [CELL * np.arange(number + SPAN - 1) for number in grid_of((mask.shape[0], mask.shape[1]))]
    inside, all_pixels = (
        np.add.reduceat(np.add.reduceat(values.astype(np.float64), starts[0], axis=0), starts[1], axis=1)
        for values in (mask, np.ones(mask.shape))
    )
    return np.asarray(over_windows(inside) / over_windows(all_pixels))


def of_cells(windows: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A map of windows -> a map of as many even cells as the picture has of 16 pixels.

    Each cell has the mean over the windows that it is in. The last cells, which are larger where a side is no multiple
    of 16, are then brought to the places of even cells, linearly.

    Args:
        windows: (h, w).
        shape: (H, W) of the picture.

    Returns:
        (h + 1, w + 1), cells that cover the picture evenly.
    """
    padded = np.pad(windows, 1, mode="edge")
    cells = (padded[1:, 1:] + padded[:-1, 1:] + padded[1:, :-1] + padded[:-1, :-1]) / SPAN**2
    for axis, side in enumerate(shape):
        number = cells.shape[axis]
        middles = CELL * np.arange(number) + CELL / 2
        middles[-1] = (CELL * (number - 1) + side) / 2
        places = (np.arange(number) + 0.5) * side / number
        lines = cells if axis == 1 else cells.T
        moved = np.stack([np.interp(places, middles, line) for line in lines])
        cells = moved if axis == 1 else moved.T
    return np.asarray(cells, dtype=windows.dtype)


def of_wholes(inputs: Rows, rows: np.ndarray) -> np.ndarray:
    """Statistics of the whole pictures at these rows: float32 (n, NUM_FEATURES)."""
    statistics = np.empty((len(rows), NUM_FEATURES), dtype=np.float32)
    for number, image in enumerate(pictures_of(inputs, rows)):
        statistics[number] = window_statistics(image)[1]
    return statistics


def one_scale(parts: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Factors of two scores and a number to be added, so that the sum is the log-odds of fake: float64 (3,).

    Each score is divided by its deviation, and a logistic regression on their sum gives the rest. Call it with
    *validation* images.

    Args:
        parts: float64 (2, N).
        labels: int64 (N,).
    """
    middle, spread = parts.mean(axis=1), parts.std(axis=1)
    deviation = np.where(spread > _CONSTANT * np.abs(parts).max(axis=1), spread, 1.0)  # else the score is constant
    total = ((parts - middle[:, None]) / deviation[:, None]).sum(axis=0)
    model = LogisticRegression(class_weight="balanced").fit(total[:, None], labels)
    slope, added = float(model.coef_[0, 0]), float(model.intercept_[0])
    if slope <= 0:
        log.warning("validation photographs score no lower than their edits; the scores say nothing about edits here")
        slope = _SMALLEST_SLOPE
    factors = slope / deviation
    return np.array([*factors, added - float(factors @ middle)])


def fit_windows(
    examples: Examples, rows: np.ndarray, *, per_picture: int, hidden: int, dropout: float, epochs: int,
    batch_size: int, learning_rate: float, weight_decay: float, seed: int,
) -> tuple[WindowClassifier, float, float]:  # fmt: skip
    """Train on windows of these rows. Returns the classifier, and its loss and accuracy in the last epoch.

    At most `per_picture` windows of each picture take part, drawn by the seed; of larger pictures more, as there are
    fewer of them. AdamW, with a rate that falls to 0 along a cosine; edited windows weigh more, by the square root of
    how many more others there are.

    Raises:
        ValueError: a fake without a mask, or no edited window, or no other.
        TrainingDiverged: the loss is not finite.
    """
    rng = np.random.default_rng(seed)
    windows, wholes, numbers, labels = list[np.ndarray](), list[np.ndarray](), list[int](), list[np.ndarray]()
    for number, pixels in enumerate(pictures_of(examples.inputs, rows)):
        (mask,) = examples.masks[rows[number : number + 1]] if examples.masks is not None else (None,)
        if mask is None:
            raise ValueError("a self-edited picture has no mask; its windows cannot be told apart")
        statistics, whole = window_statistics(pixels)
        shares = edited_shares(mask).ravel()
        count = round(per_picture * max(1.0, pixels.shape[0] * pixels.shape[1] / _LARGE))
        chosen = rng.permutation(np.flatnonzero((shares > EDITED) | (shares <= UNCERTAIN)))[:count]
        windows.append(statistics.reshape(-1, NUM_FEATURES)[chosen].astype(np.float16))
        labels.append(shares[chosen] > EDITED)
        numbers += [number] * len(chosen)
        wholes.append(whole)
    all_windows, all_wholes = torch.from_numpy(np.concatenate(windows)), torch.from_numpy(np.stack(wholes))
    of_picture, targets = torch.tensor(numbers), torch.from_numpy(np.concatenate(labels).astype(np.float32))
    del windows
    share = float(targets.mean())
    if not 0 < share < 1:
        raise ValueError("the training windows are all edited, or none is; check the regions of the edited pictures")
    weight = torch.tensor(((1 - share) / share) ** 0.5)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        classifier = WindowClassifier(hidden=hidden, dropout=dropout, seed=seed)
        some = slice(None, None, _SHARE_FOR_SCALES)
        inputs = torch.cat([part := all_windows[some].float(), part - all_wholes[of_picture[some]]], dim=1)
        classifier.center.copy_(inputs.mean(dim=0))
        classifier.scale.copy_(1 / (inputs.std(dim=0, correction=0) + _SMALLEST_DEVIATION))
        optimiser = torch.optim.AdamW(classifier.parameters(), lr=learning_rate, weight_decay=weight_decay)
        batches = -(-len(targets) // batch_size)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, batches * epochs)
        for epoch in range(epochs):
            total, right = 0.0, 0
            order = torch.from_numpy(np.random.default_rng([seed, epoch]).permutation(len(targets)))
            for index in order.split(batch_size):
                logits = classifier(all_windows[index].float(), all_wholes[of_picture[index]])
                loss = functional.binary_cross_entropy_with_logits(logits, targets[index], pos_weight=weight)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
                total += float(loss.detach()) * len(index)
                right += int(((logits > 0) == (targets[index] > 0)).sum())
            if not np.isfinite(total):
                raise TrainingDiverged(
                    f"the loss is not finite after epoch {epoch + 1}; try a lower learning_rate (now {learning_rate:g})"
                )
    if not all(bool(torch.isfinite(tensor).all()) for tensor in classifier.state_dict().values()):
        raise TrainingDiverged(
            f"the weights are not finite after the last step; try a lower weight_decay (now {weight_decay:g}) or "
            f"learning_rate (now {learning_rate:g})"
        )
    return classifier.eval().requires_grad_(False), total / len(targets), right / len(targets)
