"""A network that trains in full: Adam, cross-entropy, checkpoints within an epoch."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import nn

from models.backbones.base import BackboneRequest
from models.backbones.timm import timm_cam, timm_classifier, timm_num_features, without_weights
from models.checks import check_examples, check_pixels, load_tensors, matching_facts, softmax_loss
from models.compute import compute_on
from models.configs import NetworkConfig
from models.detector import (
    BuildContext,
    CamTarget,
    Detector,
    Examples,
    FitSession,
    MemoryExhausted,
    Prediction,
    Rows,
    TrainingDiverged,
)
from models.memory import fits, in_batches, move
from models.weights import weights_note

log = logging.getLogger(__name__)

SMALLEST_HALVED = 4  # images in a batch; half of a smaller batch may be one image, too few for batch normalisation
CHECK_EVERY = 20  # steps between two checks of the losses; each check waits for the GPU

State = dict[str, Any]


class Batch(NamedTuple):
    """Training images in the host's memory: pixels uint8 (N, H, W, 3), whether to mirror each (N,), labels (N,)."""

    pixels: torch.Tensor
    mirrored: torch.Tensor
    labels: torch.Tensor


class NetworkDetector(Detector):
    """A timm network with its own classifier, trained on pixels.

    Initial weights, the order of the images, their mirroring and dropout depend only on (seed, epoch, step), so a
    checkpoint needs no state of a random generator: on a CPU, an interrupted training ends bit by bit like an
    uninterrupted one. On a GPU, cuDNN uses only deterministic algorithms.

    If the forward or backward pass of a step runs out of the device's memory, this step and all later steps are
    computed in two halves whose gradients are added: one step of the optimiser on the same images, equal up to
    rounding. Batch normalisation is the exception: its statistics are those of half a batch, its running averages are
    updated twice per step, and the layers before the one that ran out have seen that first batch once more.
    `batch_halved` records it.

    Args:
        config: hyper-parameters.
        context: classes, seed, device, weight files.

    Raises:
        ValueError: timm has no such network.
        WeightsError: the weights cannot be had or do not fit.
    """

    def __init__(self, config: NetworkConfig, context: BuildContext) -> None:
        request = BackboneRequest(
            config.backbone, config.weights, context.weight_files, context.seed, config.resize, config.size or None
        )
        network, self.preprocessing = timm_classifier(
            without_weights(request) if context.restoring else request, len(context.classes)
        )
        self.config = config
        self.classes = context.classes
        self.geometry = self.preprocessing.geometry
        self.weights_note = weights_note(config.weights, context.weight_files)
        self._seed = context.seed
        self._compute = compute_on(context.device, config.precision)
        self._device = self._compute.device
        self._network = cast(Any, network)  # timm's methods are not nn.Module's; moved when it is first used
        self._scored_at_once = config.batch_size

    # Training --------------------------------------------------------------------------------------------------------

    def fit(self, train: Examples, valid: Examples, session: FitSession) -> None:
        """Train, and keep the epoch that `config.select` names.

        The state given to `session.save_checkpoint` refers to the live tensors: `save_checkpoint` must write it before
        it returns.

        Raises:
            ValueError: a class without training images, no validation images, a label out of range.
            TrainingDiverged: a loss is not finite.
            MemoryExhausted: half a batch does not fit into the device's memory either.
        """
        check_examples(train, valid, self.classes)
        move(self._network, self._device)
        if self.config.compile:  # not in the constructor: Grad-CAM needs hooks, which a compiled network lacks
            self._network.compile()
        optimiser = torch.optim.Adam(
            self._network.parameters(),
            lr=self.config.learning_rate,
            weight_decay=self.config.weight_decay,
            fused=True if self._device.type == "cuda" else None,  # None: torch's choice
        )
        scaler = torch.amp.GradScaler(self._device.type, enabled=self._compute.dtype is torch.float16)
        num_steps = len(_batches(len(train.labels), self.config.batch_size))
        sums = torch.zeros(2, num_steps, device=self._device)  # of losses and of right answers, one column per step
        first_epoch, first_step, best = 1, 0, None
        self.batch_halved = False
        if session.resume is not None:
            first_epoch, first_step, best = self._restore(session.resume, optimiser, scaler, sums)

        def state(epoch: int, step: int) -> State:
            """Everything needed to continue at this step (from 0) of this epoch (from 1)."""
            return {
                "epoch": epoch,
                "step": step,
                "network": self._network.state_dict(),
                "optimiser": optimiser.state_dict(),
                "scaler": scaler.state_dict(),
                "sums": sums,
                "best": best,
                "batch_halved": self.batch_halved,
            }

        cuda = [torch.cuda.current_device()] if self._device.type == "cuda" else []
        with torch.random.fork_rng(cuda), self._compute.exactly(deterministic=True):
            for epoch in range(first_epoch, self.config.epochs + 1):
                if first_step == 0:
                    sums.zero_()
                self._network.train()
                for step, batch in self._training_batches(train, epoch, first_step):
                    self._step((epoch, step), batch, optimiser, scaler, sums[:, step])
                    due = session.checkpoint_due()
                    if due or step % CHECK_EVERY == CHECK_EVERY - 1:
                        self._check(sums[0], epoch)
                    if due:
                        session.save_checkpoint(state(epoch, step + 1))
                first_step = 0
                self._check(sums[0], epoch)
                metrics = self._epoch_metrics(sums, train, valid)
                if not np.isfinite(metrics["valid/loss"]):
                    raise self._diverged(f"the validation loss after epoch {epoch} is {metrics['valid/loss']}")
                if best is None or metrics["valid/loss"] < best["loss"]:
                    weights = {name: tensor.clone() for name, tensor in self._network.state_dict().items()}
                    best = {"loss": metrics["valid/loss"], "epoch": epoch, "network": weights}
                session.on_epoch(epoch, metrics)
                if session.checkpoint_due():
                    session.save_checkpoint(state(epoch + 1, 0))
        if self.config.select == "best" and best is not None:
            log.info("epoch %d of %d is the best on validation", best["epoch"], self.config.epochs)
            self._network.load_state_dict(best["network"])

    def _training_batches(self, train: Examples, epoch: int, first_step: int) -> Iterator[tuple[int, Batch]]:
        """(step, batch) in the host's memory, starting at `first_step`."""
        generator = np.random.default_rng([self._seed, epoch])
        order = generator.permutation(len(train.labels))
        mirrored = generator.random(len(order)) < (0.5 if self.config.flip else 0.0)
        batches = _batches(len(order), self.config.batch_size)
        for step in range(first_step, len(batches)):
            index = order[batches[step]]
            pixels = self._gather(train.inputs, index)
            yield step, Batch(pixels, *map(_as_tensor, (mirrored[batches[step]], train.labels[index])))

    def _step(
        self,
        position: tuple[int, int],
        batch: Batch,
        optimiser: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        sums: torch.Tensor,
    ) -> None:
        """One step of the optimiser, in halves if memory has run out; arguments as in `_gradients`."""

        def compute() -> None:
            optimiser.zero_grad()
            self._gradients(position, batch, scaler, sums)

        def change() -> None:
            scaler.step(optimiser)

        done = fits(compute)
        if not done and not self.batch_halved and len(batch.labels) >= SMALLEST_HALVED:
            self.batch_halved = True
            log.warning(
                "memory ran out in epoch %d, step %d with a batch of %d images; continuing with two halves per batch",
                *(position[0], position[1] + 1, len(batch.labels)),
            )
            done = fits(compute)
        # Adam allocates its averages in its first step, before it changes a weight; `fits` has freed what was cached.
        # A step that a scaler has begun cannot be repeated.
        done = done and (fits(change) or (not scaler.is_enabled() and fits(change)))
        if not done:
            raise MemoryExhausted(
                f"{'half ' if self.batch_halved else ''}a batch of {len(batch.labels)} images does not fit into the "
                "device's memory: give each trial more of a GPU (--gpus-per-trial), "
                f"or lower batch_size (now {self.config.batch_size}) or size"
            )
        scaler.update()

    def _gradients(
        self,
        position: tuple[int, int],
        batch: Batch,
        scaler: torch.amp.GradScaler,
        sums: torch.Tensor,
    ) -> None:
        """Add the gradients of the batch's mean loss, in one backward pass or two.

        Args:
            position: (epoch, step), the seed of torch's generators, for dropout and the like.
            batch: the images; moved to the device here.
            scaler: scales the loss.
            sums: set to (sum of losses, number of right answers), without waiting for the device.
        """
        torch.manual_seed(int(np.random.SeedSequence([self._seed, *position]).generate_state(1)[0]))
        sums.zero_()
        num_images = len(batch.labels)
        num_parts = 2 if self.batch_halved and num_images >= SMALLEST_HALVED else 1
        for part in zip(*(tensor.chunk(num_parts) for tensor in batch), strict=True):
            pixels, mirrored, truth = map(self._to_device, part)
            pixels = torch.where(mirrored[:, None, None, None], pixels.flip(2), pixels)
            with self._compute.autocast():
                logits = self._network(self.preprocessing.normalise(pixels))
            loss = nn.functional.cross_entropy(logits.float(), truth)
            scaler.scale(loss * (len(truth) / num_images)).backward()
            sums[0] += loss.detach() * len(truth)
            sums[1] += (logits.detach().argmax(dim=1) == truth).sum()

    def _restore(
        self, state: State, optimiser: torch.optim.Optimizer, scaler: torch.amp.GradScaler, sums: torch.Tensor
    ) -> tuple[int, int, State | None]:
        if state["sums"].shape != sums.shape:
            raise ValueError(
                f"the checkpoint is of a training with {state['sums'].shape[1]} steps per epoch, this one has "
                f"{sums.shape[1]}: it belongs to another trial"
            )
        self._network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        if state["scaler"]:  # empty if the state was saved without a scaler, in another precision or on a CPU
            scaler.load_state_dict(state["scaler"])
        sums.copy_(state["sums"])
        self.batch_halved = state["batch_halved"]
        return state["epoch"], state["step"], state["best"]

    def _epoch_metrics(self, sums: torch.Tensor, train: Examples, valid: Examples) -> dict[str, float]:
        loss, accuracy = (sums.double().sum(dim=1) / len(train.labels)).tolist()
        logits = self.predict(valid.inputs).logits
        return {
            "train/loss": loss,
            "train/accuracy": accuracy,
            "valid/loss": softmax_loss(logits, valid.labels),
            "valid/accuracy": float((logits.argmax(axis=1) == valid.labels).mean()),
            "learning_rate": self.config.learning_rate,
        }

    def _check(self, losses: torch.Tensor, epoch: int) -> None:
        for step in (~torch.isfinite(losses)).nonzero().flatten().tolist():
            value = float(losses[step])
            raise self._diverged(f"the loss became {value} in epoch {epoch}, step {step + 1} of {len(losses)}")

    def _diverged(self, what: str) -> TrainingDiverged:
        remedy = f"try a lower learning_rate (now {self.config.learning_rate:g})"
        if self._compute.is_mixed:
            remedy += " or precision=full"
        return TrainingDiverged(f"{what}; {remedy}")

    # Inference -------------------------------------------------------------------------------------------------------

    def predict(self, inputs: Rows) -> Prediction:
        """Score every row once, in order: uint8 (N, H, W, 3). The embeddings are the classifier's inputs.

        The classifier always computes in 32 bits, so that scores of different images do not collide. If memory runs
        out, fewer images are scored at once.

        Raises:
            MemoryExhausted: not even one image fits.
        """
        network = self._network.eval()
        move(network, self._device)
        logits = np.empty((len(inputs), len(self.classes)), dtype=np.float32)
        embeddings = np.empty((len(inputs), timm_num_features(network)), dtype=np.float32)

        @torch.inference_mode()
        def score(part: slice) -> None:
            pixels = self._to_device(self._gather(inputs, np.arange(part.start, part.stop)))
            with self._compute.autocast(), self._compute.exactly():
                features = network.forward_features(self.preprocessing.normalise(pixels))
                embedding = network.forward_head(features, pre_logits=True)
            embedding = embedding.float()
            embeddings[part] = embedding.cpu().numpy()
            logits[part] = network.get_classifier()(embedding).cpu().numpy()

        self._scored_at_once = in_batches(score, len(inputs), self._scored_at_once)
        return Prediction(logits, embeddings)

    def _gather(self, inputs: Rows, index: np.ndarray) -> torch.Tensor:
        pixels = inputs[index]
        check_pixels(pixels, self.preprocessing.size)
        return _as_tensor(pixels)

    def _to_device(self, tensor: torch.Tensor) -> torch.Tensor:
        if self._device.type == "cuda":  # from pinned memory, so that this process need not wait for the copy
            tensor = tensor.pin_memory()
        return tensor.to(self._device, non_blocking=True)

    # Files -----------------------------------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """Write `model.pt`, timm's own state dict, and `model.json`, which describes the network.

        `timm.create_model(backbone, num_classes=C)` loads it, with `img_size=size` for a transformer at another size.
        """
        state = {name: tensor.cpu().contiguous() for name, tensor in self._network.state_dict().items()}
        torch.save(state, folder / "model.pt")
        facts = self._facts() | {"config": dataclasses.asdict(self.config)}
        (folder / "model.json").write_text(json.dumps(facts, indent=2), encoding="utf-8")

    def load(self, folder: Path) -> None:
        """Read a saved network.

        Raises:
            ValueError: it is another network, has other classes or is damaged; or its preprocessing was different when
                it was trained, as after an update of timm.
        """
        matching_facts(folder / "model.json", self._facts())
        state = load_tensors(folder / "model.pt")
        try:
            self._network.load_state_dict(state)
        except RuntimeError as error:
            raise ValueError(f"{folder / 'model.pt'} does not fit {self.config.backbone}: {error}") from None

    def _facts(self) -> dict[str, Any]:
        return {
            "backbone": self.config.backbone,
            "num_classes": len(self.classes),
            "classes": list(self.classes),
            "size": self.preprocessing.size,
            "preprocessing": json.loads(json.dumps(dataclasses.asdict(self.preprocessing))),  # tuples become lists
        }

    def cam_target(self) -> CamTarget:
        """The network and its last feature map."""
        move(self._network, self._device)
        layers, reshape = timm_cam(self._network, self.preprocessing.size)
        return CamTarget(self._network.eval(), layers, self.preprocessing.normalise, reshape)


def _batches(num_rows: int, batch_size: int) -> list[slice]:
    """Slices that cover all rows; there must be at least one row.

    The last batch may be smaller. If it would have one row, that row joins the batch before it, because batch
    normalisation has no variance over one image.
    """
    starts = list(range(0, num_rows, batch_size))
    if len(starts) > 1 and num_rows - starts[-1] == 1:
        starts.pop()
    return [slice(start, end) for start, end in zip(starts, [*starts[1:], num_rows], strict=True)]


def _as_tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))
