"""A linear classifier on patch tokens, fitted to masks: logistic regression per cell."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
import torch
from scipy.optimize import minimize
from torch import nn

from models.configs import MaskLinearConfig
from models.detector import BuildContext, Examples, FitSession
from models.linear import CONSTANT, L2_CHOICES, ROWS_AT_ONCE, TOLERANCE
from models.token_maps import Targets, TokenDetector, cell_losses

log = logging.getLogger(__name__)

VALID_PART = 4  # of the tokens that are trained on, one in so many is validated on

Cells = tuple[np.ndarray, np.ndarray, np.ndarray]  # tokens float32 (M, width), shares float32 (M,), labels int64 (M,)


class LinearMapDetector(TokenDetector):
    """Each cell's log-odds are a linear function of its token; the label of a cell is the mask's share of it.

    The optimum is found by L-BFGS on standardised tokens, so the seed does not matter; which cells of a picture are
    trained on, where there are more than `config.tokens`, is drawn with a seed of its own.

    Args:
        config: the backbone and the settings of the fit.
        context: see `TokenDetector`, as for the errors.
    """

    def __init__(self, config: MaskLinearConfig, context: BuildContext) -> None:
        self.config = config
        super().__init__(config, context)

    def make_head(self, seed: int) -> nn.Module:
        """See `TokenDetector`; zeros until it is fitted."""
        head = nn.utils.skip_init(nn.Conv2d, self.token_width, self.num_fakes, kernel_size=1)
        head.load_state_dict({name: torch.zeros_like(tensor) for name, tensor in head.state_dict().items()})
        return head.requires_grad_(False)

    def fit_head(self, train: Examples, valid: Examples, session: FitSession) -> None:
        """See `TokenDetector`. Reports once, as epoch 1; `train/…` are of cells, `valid/…` of pictures."""
        splits = {"training": train, "validation": valid}
        targets = {name: Targets(part, self, self.token_cells, split=name) for name, part in splits.items()}
        self.to_device()
        caps = {"training": self.config.tokens, "validation": max(1, self.config.tokens // VALID_PART)}
        of_train, of_valid = (self._cells(splits[name], targets[name], caps[name]) for name in splits)
        metrics = self._fit(of_train, of_valid)
        pictures = self.fit_scale(self.pooled_of(valid.inputs), valid.labels)
        session.on_epoch(1, metrics | {f"valid/{name}": value for name, value in pictures.items()})

    def _cells(self, examples: Examples, targets: Targets, cap: int) -> Cells:
        """Tokens of as many cells of each picture, at most `cap` in all; of fakes without a mask none."""
        rows, columns = self.token_cells
        pictures = np.flatnonzero(targets.known)
        per_picture = max(1, min(rows * columns, cap // len(pictures)))
        tokens = np.empty((len(pictures) * per_picture, self.token_width), dtype=np.float32)
        shares = np.empty(len(tokens), dtype=np.float32)
        drawn = np.random.default_rng(0)
        places = np.stack([drawn.permutation(rows * columns)[:per_picture] for _ in pictures])

        def read(part: slice) -> None:
            flat = self.tokens(examples.inputs[pictures[part]]).flatten(2).cpu().numpy()
            into, cells = slice(part.start * per_picture, part.stop * per_picture), places[part]
            chosen = np.take_along_axis(flat, cells[:, None], axis=2).transpose(0, 2, 1)
            tokens[into] = chosen.reshape(-1, flat.shape[1])
            own = targets.shares(pictures[part]).reshape(len(cells), -1)
            shares[into] = np.take_along_axis(own, cells, axis=1).ravel()

        self.in_batches(read, len(pictures))
        if not np.isfinite(tokens).all():
            raise ValueError("tokens are not finite; the backbone's weights or its precision are at fault")
        return tokens, shares, np.repeat(examples.labels[pictures], per_picture)

    def _fit(self, train: Cells, valid: Cells) -> dict[str, float]:
        """Set the head to the optimum with the best penalty. Changes the tokens."""
        mean = train[0].mean(axis=0, dtype=np.float64).astype(np.float32)
        largest = np.maximum(train[0].max(axis=0), -train[0].min(axis=0))
        for tokens, *_ in (train, valid):
            tokens -= mean  # in place, because they may be gigabytes
        squares = sum(np.square(part, dtype=np.float64).sum(axis=0) for part in _pieces(train[0]))
        deviation = np.sqrt(squares / len(train[0]))
        scale = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=deviation > CONSTANT * largest)
        for tokens, *_ in (train, valid):
            tokens *= scale.astype(np.float32)
        weights = np.zeros((self.num_fakes, self.token_width + 1))
        best: tuple[float, float, np.ndarray] | None = None
        for l2 in (self.config.l2,) if self.config.l2 else L2_CHOICES:
            weights = self._solve(train, l2, weights)
            loss = _losses(valid, weights)[0]
            log.info("l2 %g: validation loss of cells %.4f", l2, loss)
            if best is not None and loss > best[0]:
                break
            if best is None or loss < best[0]:
                best = loss, l2, weights
        assert best is not None
        loss, l2, weights = best
        if not self.config.l2 and l2 == L2_CHOICES[-1]:
            log.warning(
                "validation chose the weakest of the penalties that were tried (l2 %g): set l2 to try others", l2
            )
        slopes = weights[:, :-1] * scale
        self.head.load_state_dict(
            {"weight": torch.from_numpy(slopes.astype(np.float32))[:, :, None, None],
             "bias": torch.from_numpy((weights[:, -1] - slopes @ mean).astype(np.float32))}
        )  # fmt: skip
        train_loss, accuracy = _losses(train, weights)
        return {"train/loss": train_loss, "train/accuracy": accuracy, "valid/cell_loss": loss, "l2": l2}

    def _solve(self, cells: Cells, l2: float, start: np.ndarray) -> np.ndarray:
        """Minimise mean cross-entropy + l2 / 2 |W|^2 from `start`: weights (C - 1, width + 1), the offset last."""
        tokens, shares, labels = cells
        expected = shares[:, None] * (labels[:, None] == np.arange(1, self.num_fakes + 1))

        def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
            weights = flat.reshape(start.shape)
            log_odds = _log_odds(tokens, weights)
            highest = np.maximum(log_odds.max(axis=1, keepdims=True), 0)
            exponents = np.exp(log_odds - highest)
            total = exponents.sum(axis=1, keepdims=True) + np.exp(-highest)
            loss = float((np.log(total) + highest).mean() - (expected * log_odds).sum() / len(tokens))
            excess = (exponents / total - expected) / len(tokens)
            gradient = np.empty_like(weights)
            gradient[:, :-1] = excess.T.astype(np.float32) @ tokens + l2 * weights[:, :-1]
            gradient[:, -1] = excess.sum(axis=0)
            return loss + l2 / 2 * float(np.square(weights[:, :-1]).sum()), gradient.ravel()

        options = {"maxiter": self.config.max_iterations, "gtol": TOLERANCE, "ftol": 0.0}
        found = minimize(objective, start.ravel(), jac=True, method="L-BFGS-B", options=options)
        if found.nit >= self.config.max_iterations:
            log.warning(
                "logistic regression (l2 %g) had not converged after %d iterations; raise max_iterations, or l2",
                l2,
                self.config.max_iterations,
            )
        return np.asarray(found.x).reshape(start.shape)


def _pieces(tokens: np.ndarray) -> Iterator[np.ndarray]:
    """Some rows at a time, so that what is computed of them takes little memory."""
    return (tokens[start : start + ROWS_AT_ONCE] for start in range(0, len(tokens), ROWS_AT_ONCE))


def _log_odds(tokens: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """float64 (M, C - 1)."""
    return (tokens @ weights[:, :-1].T.astype(np.float32)).astype(np.float64) + weights[:, -1]


def _losses(cells: Cells, weights: np.ndarray) -> tuple[float, float]:
    """Mean cross-entropy per cell, and the share of cells whose likelier class is right."""
    tokens, shares, labels = cells
    log_odds = torch.from_numpy(_log_odds(tokens, weights))
    loss, right = cell_losses(log_odds, torch.from_numpy(shares).double(), torch.from_numpy(labels))
    return float(loss.mean()), float(right.double().mean())
