"""Networks that train: Adam, checkpoints within an epoch, halved batches; and a timm network that trains on pixels."""

from __future__ import annotations

import abc
import dataclasses
import json
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import nn

from models.backbones.base import BackboneRequest, seeded
from models.backbones.timm import timm_cam, timm_classifier, timm_num_features, without_weights
from models.checks import check_examples, check_pixels, load_tensors, matching_facts, softmax_loss
from models.compute import compute_on
from models.configs import NetworkConfig, TrainingConfig
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
from models.tiles import NATIVE, means, pictures_of, random_part, tiles_in_batches
from models.weights import weights_note

log = logging.getLogger(__name__)

SMALLEST_HALVED = 4  # images in a batch; half of a smaller batch may be one image, too few for batch normalisation
CHECK_EVERY = 20  # steps between two checks of the losses; each check waits for the GPU

State = dict[str, Any]


class Batch(NamedTuple):
    """Training images in the host's memory.

    Attributes:
        rows: pixels uint8 (N, H, W, 3), or features float32 (N, D).
        mirrored: whether to mirror each, bool (N,).
        labels: int64 (N,).
        targets: what the loss compares the outputs with: the labels, unless a method says otherwise.
    """

    rows: torch.Tensor
    mirrored: torch.Tensor
    labels: torch.Tensor
    targets: torch.Tensor


class Outputs(NamedTuple):
    """What a network gives in training.

    Attributes:
        logits: (N, C).
        embeddings: (N, D), the classifier's inputs; None where the loss does not ask for them.
        cells: (N, C, h, w), logits of places of the picture; None for a method that has none.
    """

    logits: torch.Tensor
    embeddings: torch.Tensor | None = None
    cells: torch.Tensor | None = None


class TrainedDetector(Detector):
    """A network that trains with Adam, on pixels or on features. A subclass says what goes in and what comes out.

    A method that trains in another way overrides `outputs`, `loss` or `learning_rate`. Only parameters that require a
    gradient train.

    Initial weights, the order of the images, their mirroring and dropout depend only on (seed, epoch, step), so a
    checkpoint needs no state of a random generator: on a CPU, an interrupted training ends bit by bit like an
    uninterrupted one. On a GPU, cuDNN uses only deterministic algorithms.

    If the forward or backward pass of a step runs out of the device's memory, this step and all later steps are
    computed in two halves whose gradients are added: one step of the optimiser on the same images, equal up to
    rounding. Batch normalisation is the exception: its statistics are those of half a batch, its running averages are
    updated twice per step, and the layers before the one that ran out have seen that first batch once more. So is a
    loss over pairs of images: it sees the pairs inside each half. `batch_halved` records it.

    Args:
        network: from `rows` prepared by `prepared` to logits; moved to the device when it is first used.
        config: hyper-parameters.
        context: classes, seed, device.
        num_features: D of the embeddings.
    """

    config: TrainingConfig
    mirrors = False  # whether half of the training images are mirrored

    def __init__(self, network: nn.Module, config: TrainingConfig, context: BuildContext, *, num_features: int) -> None:
        self.config = config
        self.classes = context.classes
        self._num_features = num_features
        self._seed = context.seed
        self._compute = compute_on(context.device, config.precision)
        self._device = self._compute.device
        self._network = cast(Any, network)  # timm's methods are not nn.Module's
        self._scored_at_once = config.batch_size

    # What a subclass says --------------------------------------------------------------------------------------------

    @abc.abstractmethod
    def gather(self, inputs: Rows, index: np.ndarray) -> torch.Tensor:
        """Rows in the host's memory. Raises `ValueError` where they have another shape than the network takes."""

    @abc.abstractmethod
    def prepared(self, rows: torch.Tensor, mirrored: torch.Tensor | None = None) -> torch.Tensor:
        """Rows on the device -> what the network takes. `mirrored`, bool (N,), says which images are mirrored."""

    @abc.abstractmethod
    def embed(self, x: torch.Tensor) -> torch.Tensor:
        """What the network takes -> embeddings (N, D)."""

    @abc.abstractmethod
    def classify(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Embeddings float32 (N, D) -> logits (N, C)."""

    @abc.abstractmethod
    def facts(self) -> dict[str, Any]:
        """What a saved network must agree in with the detector that loads it, as plain JSON types."""

    def training_rows(
        self, train: Examples, index: np.ndarray, mirrored: np.ndarray, epoch: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What a step of an epoch (from 1) trains on: rows as `gather` gives them, and the loss's targets.

        `index` and `mirrored` have one entry per image. The rows are mirrored later, by `prepared`.
        """
        return self.gather(train.inputs, index), as_tensor(train.labels[index])

    def outputs(self, x: torch.Tensor) -> Outputs:
        """What the network takes -> what the loss takes, with gradients."""
        return Outputs(self._network(x))

    def scored(self, embeddings: torch.Tensor) -> Outputs:
        """What `embed` gives, in float32 -> logits (N, C) and embeddings (N, D) of a prediction."""
        return Outputs(self.classify(embeddings), embeddings)

    def loss(self, outputs: Outputs, targets: torch.Tensor) -> torch.Tensor:
        """The mean loss per image, a float32 scalar. `outputs` may have 16 bits."""
        return nn.functional.cross_entropy(outputs.logits.float(), targets)

    def validated(self, valid: Examples) -> np.ndarray:
        """Logits of the validation images, float (N, C), after each epoch: its loss chooses the epoch."""
        return self.predict(valid.inputs).logits

    def learning_rate(self, epoch: int, step: int, num_steps: int) -> float:
        """Adam's learning rate in a step (from 0, of `num_steps`) of an epoch (from 1)."""
        return self.config.learning_rate

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
        self.before_training()
        optimiser = torch.optim.Adam(
            [parameter for parameter in self._network.parameters() if parameter.requires_grad],
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
                    for group in optimiser.param_groups:
                        group["lr"] = self.learning_rate(epoch, step, num_steps)
                    self._step((epoch, step), batch, optimiser, scaler, sums[:, step])
                    due = session.checkpoint_due()
                    if due or step % CHECK_EVERY == CHECK_EVERY - 1:
                        self._check(sums[0], epoch)
                    if due:
                        session.save_checkpoint(state(epoch, step + 1))
                first_step = 0
                self._check(sums[0], epoch)
                metrics = self._epoch_metrics(sums, train, valid)
                metrics["learning_rate"] = self.learning_rate(epoch, 0, num_steps)
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

    def before_training(self) -> None:
        """Whatever a subclass does with the network, on its device, before the first step or before it is resumed."""

    def _training_batches(self, train: Examples, epoch: int, first_step: int) -> Iterator[tuple[int, Batch]]:
        """(step, batch) in the host's memory, starting at `first_step`; on a GPU in pinned memory."""
        generator = np.random.default_rng([self._seed, epoch])
        order = generator.permutation(len(train.labels))
        mirrored = generator.random(len(order)) < (0.5 if self.mirrors else 0.0)
        batches = _batches(len(order), self.config.batch_size)

        def batch(step: int) -> Batch:
            index = order[batches[step]]
            flips = mirrored[batches[step]]
            rows, targets = self.training_rows(train, index, flips, epoch)
            return Batch(*map(self._pinned, (rows, as_tensor(flips), as_tensor(train.labels[index]), targets)))

        with ThreadPoolExecutor(1) as gathering:  # a batch, while the one before it is computed
            following = [gathering.submit(batch, first_step)] if first_step < len(batches) else []
            for step in range(first_step, len(batches)):
                ready = following.pop().result()
                if step + 1 < len(batches):
                    following.append(gathering.submit(batch, step + 1))
                yield step, ready

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
            rows, mirrored, truth, targets = map(self._to_device, part)
            with self._compute.autocast():
                outputs = self.outputs(self.prepared(rows, mirrored))
            loss = self.loss(outputs, targets)
            scaler.scale(loss * (len(truth) / num_images)).backward()
            sums[0] += loss.detach() * len(truth)
            sums[1] += (outputs.logits.detach().argmax(dim=1) == truth).sum()

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
        logits = self.validated(valid)
        return {
            "train/loss": loss,
            "train/accuracy": accuracy,
            "valid/loss": softmax_loss(logits, valid.labels),
            "valid/accuracy": float((logits.argmax(axis=1) == valid.labels).mean()),
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
        """Score every row once, in order. The embeddings are the classifier's inputs.

        The classifier always computes in 32 bits, so that scores of different images do not collide. If memory runs
        out, fewer images are scored at once.

        Raises:
            MemoryExhausted: not even one image fits.
        """
        network = self._network.eval()
        move(network, self._device)
        logits = np.empty((len(inputs), len(self.classes)), dtype=np.float32)
        embeddings = np.empty((len(inputs), self._num_features), dtype=np.float32)

        @torch.inference_mode()
        def score(part: slice) -> None:
            rows = self._to_device(self.gather(inputs, np.arange(part.start, part.stop)))
            with self._compute.autocast(), self._compute.exactly():
                embedding = self.embed(self.prepared(rows))
            outputs = self.scored(embedding.float())
            assert outputs.embeddings is not None
            embeddings[part] = outputs.embeddings.cpu().numpy()
            logits[part] = outputs.logits.cpu().numpy()

        self._scored_at_once = in_batches(score, len(inputs), self._scored_at_once)
        return Prediction(logits, embeddings)

    def _pinned(self, tensor: torch.Tensor) -> torch.Tensor:
        """On a GPU, in memory from which it is copied without this process waiting; there already, or a copy."""
        return tensor.pin_memory() if self._device.type == "cuda" else tensor

    def _to_device(self, tensor: torch.Tensor) -> torch.Tensor:
        return self._pinned(tensor).to(self._device, non_blocking=True)

    # Files -----------------------------------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """Write `model.pt`, the network's state dict, and `model.json`, which describes the network."""
        state = {name: tensor.cpu().contiguous() for name, tensor in self._network.state_dict().items()}
        torch.save(state, folder / "model.pt")
        facts = self.facts() | {"config": dataclasses.asdict(self.config)}
        (folder / "model.json").write_text(json.dumps(facts, indent=2), encoding="utf-8")

    def load(self, folder: Path) -> None:
        """Read a saved network.

        Raises:
            ValueError: it is another network, has other classes or is damaged; or its preprocessing was different when
                it was trained, as after an update of timm.
        """
        matching_facts(folder / "model.json", self.facts())
        state = load_tensors(folder / "model.pt")
        try:
            self._network.load_state_dict(state)
        except RuntimeError as error:
            raise ValueError(f"{folder / 'model.pt'} does not fit this network: {error}") from None


class NetworkDetector(TrainedDetector):
    """A timm network with its own classifier, trained on pixels: squares uint8 (N, S, S, 3).

    With `resize=native` it takes pictures of their native sizes. It trains on one square of each, at a place that
    follows from (seed, epoch, number of the image); a prediction is the mean over tiles that cover the picture. There
    is no Grad-CAM then.

    `model.pt` has timm's names: `timm.create_model(backbone, num_classes=C)` loads it, with `img_size=size` for a
    transformer at another size.

    Args:
        config: hyper-parameters.
        context: classes, seed, device, weight files.

    Raises:
        ValueError: timm has no such network.
        WeightsError: the weights cannot be had or do not fit.
    """

    config: NetworkConfig

    def __init__(self, config: NetworkConfig, context: BuildContext) -> None:
        request = BackboneRequest(
            config.backbone, config.weights, context.weight_files, context.seed, config.resize, config.size or None
        )
        network, self.preprocessing = timm_classifier(
            without_weights(request) if context.restoring else request, len(context.classes)
        )
        self.config = config
        with seeded(context.seed):
            self.adapt(network)
        super().__init__(network, config, context, num_features=timm_num_features(network))
        self.mirrors = config.flip
        self._square = self.preprocessing.geometry
        self.geometry = None if config.resize == NATIVE else self._square
        self.weights_note = weights_note(config.weights, context.weight_files)

    def adapt(self, network: Any) -> None:
        """Change a timm network with its weights, or freeze parts of it; torch's generator is seeded. Here: nothing."""

    def before_training(self) -> None:
        """Compile the network, if asked. Not in the constructor: Grad-CAM needs hooks, which a compiled one lacks."""
        if self.config.compile:
            self._network.compile()

    def gather(self, inputs: Rows, index: np.ndarray) -> torch.Tensor:
        """See `TrainedDetector`."""
        pixels = inputs[index]
        check_pixels(pixels, self.preprocessing.size)
        return as_tensor(pixels)

    def training_rows(
        self, train: Examples, index: np.ndarray, mirrored: np.ndarray, epoch: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `TrainedDetector`."""
        if self.geometry is not None:
            return super().training_rows(train, index, mirrored, epoch)
        pictures = zip(pictures_of(train.inputs, index), index, strict=True)
        squares = [self._square.apply(self.crop(picture, int(number), epoch)) for picture, number in pictures]
        return as_tensor(np.stack(squares)), as_tensor(train.labels[index])

    def crop(self, picture: np.ndarray, number: int, epoch: int) -> np.ndarray:
        """The part of a picture, or of its mask, that an epoch trains on with `resize=native`; at most a square."""
        return random_part(picture, self._square.size, np.random.default_rng([self._seed, epoch, number]))

    def predict(self, inputs: Rows) -> Prediction:
        """See `TrainedDetector`."""
        if self.geometry is not None:
            return super().predict(inputs)
        logits = np.empty((len(inputs), len(self.classes)), dtype=np.float32)
        embeddings = np.empty((len(inputs), self._num_features), dtype=np.float32)
        for part, tiles, counts in tiles_in_batches(pictures_of(inputs, np.arange(len(inputs))), self._square):
            found = super().predict(tiles)
            logits[part], embeddings[part] = means(found.logits, counts), means(found.embeddings, counts)
        return Prediction(logits, embeddings)

    def prepared(self, rows: torch.Tensor, mirrored: torch.Tensor | None = None) -> torch.Tensor:
        """See `TrainedDetector`."""
        if mirrored is not None:
            rows = torch.where(mirrored[:, None, None, None], rows.flip(2), rows)
        return self.preprocessing.normalise(rows)

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        """See `TrainedDetector`."""
        embeddings: torch.Tensor = self._network.forward_head(self._network.forward_features(x), pre_logits=True)
        return embeddings

    def classify(self, embeddings: torch.Tensor) -> torch.Tensor:
        """See `TrainedDetector`."""
        logits: torch.Tensor = self._network.get_classifier()(embeddings)
        return logits

    def facts(self) -> dict[str, Any]:
        """See `TrainedDetector`."""
        return {
            "backbone": self.config.backbone,
            "num_classes": len(self.classes),
            "classes": list(self.classes),
            "size": self.preprocessing.size,
            "preprocessing": json.loads(json.dumps(dataclasses.asdict(self.preprocessing))),  # tuples become lists
        }

    def cam_target(self) -> CamTarget | None:
        """The network and its last feature map; None with `resize=native`."""
        if self.geometry is None:
            return None
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


def as_tensor(array: np.ndarray) -> torch.Tensor:
    """A tensor of an array's content, which is copied only if torch cannot take it as it is."""
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))
