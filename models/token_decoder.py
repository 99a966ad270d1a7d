"""A convolutional decoder of patch tokens, trained on masks."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from models.backbones.base import seeded
from models.configs import MaskDecoderConfig, channel_numbers
from models.detector import BuildContext, Examples, FitSession, MemoryExhausted, TrainingDiverged
from models.memory import fits
from models.picture_score import top_mean
from models.token_maps import Targets, TokenDetector, cell_losses

log = logging.getLogger(__name__)

# Of the published code, bit-ml/DeCLIP at 1b6120f: models/clip_models.py, options/base_options.py, train.py.
KERNEL = 5
INITIAL_DEVIATION = 0.02
DROP, LEAST = 10.0, 1e-3  # the learning rate is divided by this, until it is below this share of the first one


class DecoderDetector(TokenDetector):
    """Convolutions over the tokens' grid, each stage of which doubles its sides, then one log-odds per pixel and class.

    Initial weights and the order of the images depend only on the seed and the epoch. So on a CPU, an interrupted
    training ends bit by bit like an uninterrupted one.

    Args:
        config: the backbone, and the settings of the decoder and of its training.
        context: see `TokenDetector`, as for the errors.
    """

    def __init__(self, config: MaskDecoderConfig, context: BuildContext) -> None:
        self.config, self._seed = config, context.seed
        super().__init__(config, context)
        doubled = 2 ** len(channel_numbers(config.channels))
        self._cells = (self.token_cells[0] * doubled, self.token_cells[1] * doubled)

    def make_head(self, seed: int) -> nn.Module:
        """See `TokenDetector`."""
        with seeded(seed):
            return make_decoder(self.token_width, self.config, num_outputs=self.num_fakes)

    def fit_head(self, train: Examples, valid: Examples, session: FitSession) -> None:
        """See `TokenDetector`. Keeps the epoch with the best validation loss per pixel.

        The learning rate is divided by ten after `patience` epochs without a better loss. `train/…` are of pixels;
        `valid/accuracy` is of pictures, `valid/iou` the mean of the fakes at log-odds 0.
        """
        targets = Targets(train, self, self._cells, split="training")
        checked = Targets(valid, self, self._cells, split="validation")
        self.to_device()
        optimiser = torch.optim.AdamW(self.head.parameters(), lr=self.config.learning_rate, weight_decay=0.0)
        pictures = np.flatnonzero(targets.known)
        first_epoch, first_step, stale = 1, 0, 0
        sums = torch.zeros(2, dtype=torch.float64)  # of losses and of right pixels
        best: dict[str, Any] | None = None
        if (saved := session.resume) is not None:
            self.set_state(saved["state"])
            optimiser.load_state_dict(saved["optimiser"])
            first_epoch, first_step, stale, best = (saved[name] for name in ("epoch", "step", "stale", "best"))
            sums.copy_(saved["sums"])

        def saved_at(epoch: int, step: int) -> dict[str, Any]:
            return {
                "epoch": epoch, "step": step, "stale": stale, "best": best, "sums": sums, "state": self.state(),
                "optimiser": optimiser.state_dict(),
            }  # fmt: skip

        for epoch in range(first_epoch, self.config.epochs + 1):
            if first_step == 0:
                sums.zero_()
            for step, index in self._batches(pictures, epoch, first_step):
                self._step(train, targets, index, optimiser, sums)
                if not torch.isfinite(sums[0]):
                    raise TrainingDiverged(
                        f"the loss is not finite in epoch {epoch}, step {step + 1}; "
                        f"try a lower learning_rate (now {self.config.learning_rate:g})"
                    )
                if session.checkpoint_due():
                    session.save_checkpoint(saved_at(epoch, step + 1))
            first_step = 0
            rate = float(optimiser.param_groups[0]["lr"])
            loss, accuracy = (sums / (len(pictures) * self._cells[0] * self._cells[1])).tolist()
            metrics = {"train/loss": loss, "train/accuracy": accuracy, "learning_rate": rate}
            metrics |= self._validated(valid, checked)
            if best is None or metrics["valid/loss"] < best["loss"]:
                best, stale = {"loss": metrics["valid/loss"], "epoch": epoch, "state": self.state()}, 0
            else:
                stale += 1
            session.on_epoch(epoch, metrics)
            if stale == self.config.patience:
                stale, rate = 0, rate / DROP
                if rate < LEAST * self.config.learning_rate * (1 - 1e-9):
                    log.info("epoch %d is the last: the learning rate would fall to %g", epoch, rate)
                    break
                for group in optimiser.param_groups:
                    group["lr"] = rate
            if session.checkpoint_due():
                session.save_checkpoint(saved_at(epoch + 1, 0))
        if best is not None:
            log.info("epoch %d is the best on validation", best["epoch"])
            self.set_state(best["state"])

    def _batches(self, pictures: np.ndarray, epoch: int, first_step: int) -> Iterator[tuple[int, np.ndarray]]:
        """(step, numbers of the pictures), from `first_step` on."""
        order = pictures[np.random.default_rng([self._seed, epoch]).permutation(len(pictures))]
        for step in range(first_step, -(-len(order) // self.config.batch_size)):
            yield step, order[step * self.config.batch_size : (step + 1) * self.config.batch_size]

    def _step(
        self,
        train: Examples,
        targets: Targets,
        index: np.ndarray,
        optimiser: torch.optim.Optimizer,
        sums: torch.Tensor,
    ) -> None:
        """One step of the optimiser; adds the sums of the losses and of the right pixels to `sums`."""
        pixels, labels, shares = train.inputs[index], train.labels[index], targets.shares(index)

        def compute() -> None:
            self.head.train()
            optimiser.zero_grad()
            tokens = self.tokens(pixels)
            with self.compute.exactly(deterministic=True):
                loss, right = cell_losses(self.head(tokens), *map(self._moved, (shares, labels)))
                loss.mean().backward()
                optimiser.step()
            sums.add_(torch.stack([loss.detach().double().sum(), right.double().sum()]).cpu())

        if not fits(compute):
            raise MemoryExhausted(
                f"a batch of {len(index)} images does not fit into the device's memory: give each trial more of a GPU "
                f"(--gpus-per-trial), or lower batch_size (now {self.config.batch_size}) or size"
            )

    def _validated(self, valid: Examples, targets: Targets) -> dict[str, float]:
        """`valid/loss` per pixel, `valid/accuracy` of pictures, `valid/iou` of fakes; fits the scale."""
        pooled = np.empty((len(valid.labels), self.num_fakes))
        losses, overlaps = list[float](), list[float]()

        def use(part: slice, tokens: torch.Tensor, found: torch.Tensor) -> None:
            pooled[part] = top_mean(found.cpu().numpy())
            index = np.arange(part.start, part.stop)
            shares, labels = map(self._moved, (targets.shares(index), valid.labels[index]))
            loss = cell_losses(found, shares, labels)[0].mean(dim=(1, 2)).cpu().numpy()
            losses.extend(loss[targets.known[index]].tolist())
            marked, called = shares > 0.5, found.logsumexp(dim=1) > 0
            both, either = ((marked & called).sum(dim=(1, 2)), (marked | called).sum(dim=(1, 2)))
            fakes = (marked.any(dim=2).any(dim=1)).cpu().numpy()
            overlaps.extend((both / either.clamp(min=1)).cpu().numpy()[fakes].tolist())

        self.for_all(valid.inputs, use)
        accuracy = self.fit_scale(pooled, valid.labels)["accuracy"]
        found = {"valid/loss": float(np.mean(losses)), "valid/accuracy": accuracy}
        if not np.isfinite(found["valid/loss"]):
            raise TrainingDiverged(
                f"the validation loss is not finite; try a lower learning_rate (now {self.config.learning_rate:g})"
            )
        return found | ({"valid/iou": float(np.mean(overlaps))} if overlaps else {})

    def _moved(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.compute.device)


def make_decoder(width: int, config: MaskDecoderConfig, *, num_outputs: int) -> nn.Sequential:
    """A new decoder: tokens (N, width, h, w) -> (N, num_outputs, h 2^s, w 2^s) for s stages."""
    layers = list[nn.Module]()
    for channels in channel_numbers(config.channels):
        for _ in range(config.convolutions):
            layers += [nn.Conv2d(width, channels, KERNEL, padding=KERNEL // 2), nn.BatchNorm2d(channels), nn.ReLU()]
            width = channels
        layers.append(nn.Upsample(scale_factor=2, mode="bilinear"))
    layers.append(nn.Conv2d(width, num_outputs, KERNEL, padding=KERNEL // 2))
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, 0.0, INITIAL_DEVIATION)
    return nn.Sequential(*layers)
