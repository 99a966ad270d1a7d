"""Grad-CAM (Selvaraju et al., arXiv 1610.02391, by the grad-cam package): where a detector's evidence lies."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from analysis.detectors import load_detector
from analysis.store import Store, StoreError
from data.images import decode, file_digest, read_mask
from data.manifest import DataProblems, Manifest, build_manifest
from data.sources.base import FAKE as FAKE_LABEL
from data.sources.base import SHARED_REAL
from grid.plan import FINISHED
from grid.spec import TrialSpec
from grid.tasks import DETECTION, class_names, get_task
from grid.uris import sqlite_file
from models.detector import DETECTION_CLASSES, FAKE, Detector

if TYPE_CHECKING:
    import torch

BATCH_PIXELS = 2_000_000


class NoCam(ValueError):
    """The method has no differentiable spatial layer."""


def cam_maps(
    detector: Detector,
    pixels: np.ndarray,
    *,
    target_class: int | Sequence[int] | np.ndarray | None = None,
    batch_size: int | None = None,
) -> np.ndarray:
    """What `pytorch_grad_cam.GradCAM` gives on the detector's own layer.

    Each map is scaled to its own maximum, so maps compare places within a picture, not pictures with each other. A
    picture in which no place speaks for the class, or all places do alike, has a map of zeros.

    Args:
        detector: fitted.
        pixels: uint8 (N, S, S, 3), as the detector takes them.
        target_class: of which the logit is explained, one for all or one each. None: "fake" for detection, whatever the
            detector says; the predicted class for attribution.
        batch_size: pictures at once; None: what 2 million pixels make, at least one.

    Returns:
        float32 (N, S, S), in [0, 1].

    Raises:
        NoCam: the method has none.
        ValueError: a class that does not exist, or a wrong number of them.
    """
    target = detector.cam_target()
    if target is None:
        raise NoCam("this method has no layer for Grad-CAM: its features are statistics of the whole picture")
    import torch
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    if target_class is None and tuple(detector.classes) == DETECTION_CLASSES:
        target_class = FAKE
    classes = None
    if target_class is not None:
        classes = np.broadcast_to(np.asarray(target_class, dtype=np.int64), len(pixels))
        if len(pixels) and not (classes.min() >= 0 and classes.max() < len(detector.classes)):
            raise ValueError(f"target_class must lie in 0 .. {len(detector.classes) - 1}, got {target_class}")
    size = int(pixels.shape[1])
    maps = np.zeros((len(pixels), size, size), dtype=np.float32)
    batch_size = batch_size or max(1, BATCH_PIXELS // size**2)
    with torch.no_grad(), _gradients_from(target.layers):
        # not as a context manager: its __exit__ swallows every IndexError
        cam = GradCAM(target.module, target.layers, target.reshape)
        try:
            for start in range(0, len(pixels), batch_size):
                part = slice(start, start + batch_size)
                batch = target.normalise(torch.from_numpy(np.ascontiguousarray(pixels[part])))
                chosen = None if classes is None else [ClassifierOutputTarget(int(number)) for number in classes[part]]
                with torch.no_grad():  # `_gradients_from` switches gradients on; off again for the next batch
                    maps[part] = cam(batch, chosen)
        finally:
            cam.activations_and_grads.release()
            target.module.zero_grad(set_to_none=True)
    return maps.clip(0, 1)


def cam_grid(detector: Detector) -> tuple[int, int] | None:
    """Rows and columns of the layer that maps are made from, before they are enlarged; None without Grad-CAM."""
    target = detector.cam_target()
    if target is None or detector.geometry is None:
        return None
    import torch

    maps: list[torch.Tensor] = []
    handle = target.layers[-1].register_forward_hook(lambda module, inputs, output: maps.append(output))
    size, parameter = detector.geometry.size, next(target.module.parameters())
    try:
        with torch.no_grad():
            target.module(torch.zeros(1, 3, size, size, device=parameter.device, dtype=parameter.dtype))
    finally:
        handle.remove()
    activations = maps[0] if target.reshape is None else target.reshape(maps[0])
    return int(activations.shape[2]), int(activations.shape[3])


@contextmanager
def _gradients_from(layers: Sequence[torch.nn.Module]) -> Iterator[None]:
    """Record gradients only behind the layers: what lies before them costs no memory, and the map stays the same.

    Without it SAM at 1024 pixels would keep the attention of all its blocks. To be entered before grad-cam puts its own
    hooks on the layers, because hooks run in the order in which they were put there.
    """
    import torch

    def begin(module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        if output.requires_grad:  # behind another of the layers
            return output
        torch.set_grad_enabled(True)
        return output.detach().requires_grad_().clone()  # a copy, which the next layer may change in place

    handles = [layer.register_forward_hook(begin) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def image_maps(
    detector: Detector,
    images: Sequence[np.ndarray],
    *,
    target_class: int | Sequence[int] | np.ndarray | None = None,
    batch_size: int | None = None,
) -> list[np.ndarray]:
    """Decoded pictures, uint8 (H, W, 3) of any sizes -> one map each, float32 (H, W); see `cam_maps`."""
    if detector.cam_target() is None or detector.geometry is None:
        raise NoCam("this method has no layer for Grad-CAM: its features are statistics of the whole picture")
    maps = cam_maps(detector, detector.squares(images), target_class=target_class, batch_size=batch_size)
    return [
        detector.geometry.invert(cam, (image.shape[0], image.shape[1])) for cam, image in zip(maps, images, strict=True)
    ]


# What a run says about pictures ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answers:
    """What a run says about N pictures, from its scores.

    Attributes:
        names: the class that it calls each: "real" or "fake", or a generator's name for attribution.
        log_odds: float (N,): of "fake" for detection, of the class that it says for attribution.
        correct: bool (N,): at p = 0.5 for detection, as in the accuracy matrices.
    """

    names: list[str]
    log_odds: np.ndarray
    correct: np.ndarray


@dataclass(frozen=True)
class Column:
    """One run's column of a panel.

    Attributes:
        trained_on: a training set as text.
        answers: what it says about the panel's pictures; None where there is a problem.
        maps: its CAMs, float32 (H, W) each, in [0, 1]; None for a method that has none, and where there is a problem.
        grid: rows and columns of the layer that the maps are enlarged from; None as `maps`.
        run_id: of the run.
        problem: why nothing is known of this run; "" where all went well.
        loaded: whether its detector could be loaded.
    """

    trained_on: str
    answers: Answers | None
    maps: list[np.ndarray] | None
    grid: tuple[int, int] | None
    run_id: str = ""
    problem: str = ""
    loaded: bool = True


@dataclass(frozen=True)
class Panel:
    """The same pictures seen by one variant, trained on one thing after another.

    Attributes:
        variant: of a method.
        task: "detection" or "attribution".
        tested_on: the generator that made the pictures.
        sources: names of the photographs behind them.
        images: uint8 (H, W, 3) each.
        masks: bool (H, W) each, True where fake; None where there is none.
        columns: one a run.
    """

    variant: str
    task: str
    tested_on: str
    sources: list[str]
    images: list[np.ndarray]
    masks: list[np.ndarray | None]
    columns: list[Column]


def answers(scores: pd.DataFrame, spec: TrialSpec) -> Answers:
    """Read rows of `Store.scores` of a run with this specification."""
    logits = scores[[f"logit_{name}" for name in spec.classes]].to_numpy(np.float64, copy=True)
    if get_task(spec.task).is_binary:
        log_odds = scores["score"].to_numpy(np.float64)
        said = log_odds > 0
        return Answers(
            [DETECTION_CLASSES[int(number)] for number in said], log_odds, said == (scores["label"] == FAKE_LABEL).to_numpy()
        )
    highest = logits.argmax(axis=1)
    chosen = np.take_along_axis(logits, highest[:, None], axis=1)[:, 0]
    np.put_along_axis(logits, highest[:, None], -np.inf, axis=1)
    called = np.array(spec.classes)[highest]
    return Answers(called.tolist(), chosen - np.logaddexp.reduce(logits, axis=1), called == class_names(scores))


def make_panels(
    store: Store,
    manifest: Manifest,
    variant: str,
    *,
    task: str = DETECTION,
    count: int = 4,
    seed: int = 0,
    device: str = "cpu",
    weight_files: Mapping[str, Path] | None = None,
) -> list[Panel]:
    """A variant's panels, one a generator: the same photographs through the first finished seed of each training set.

    A run that cannot be loaded or explained has a column that says so, and costs the others nothing.

    Args:
        store: an open grid.
        manifest: from `open_images`.
        variant: of a method.
        task: "detection" or "attribution".
        count: pictures a panel.
        seed: of their choice.
        device: torch device string.
        weight_files: see `load_detector`.

    Raises:
        StoreError: the variant has no finished run of the task.
        BadImage: a picture cannot be read.
    """
    runs = store.runs()
    runs = runs[(runs["variant"] == variant) & (runs["task"] == task) & (runs["state"] == FINISHED)]
    if runs.empty:
        raise StoreError(f"{variant} has no finished {task} run; {store.missing_command(variant=variant, task=task)}")
    runs = first_seeds(runs)
    panels, chosen = [], []
    for generator in manifest.generators:
        rows = choose_images(manifest, generator, count, seed=seed)
        images, masks = read_images(manifest, rows), read_masks(manifest, rows)
        chosen.append(rows)
        panels.append(Panel(variant, task, generator, rows["source_id"].tolist(), images, masks, []))
    for run_id, trained_on in zip(runs["run_id"], runs["trained_on"], strict=True):
        columns, loaded = [], False
        try:
            detector, spec = load_detector(store, run_id, device=device, weight_files=weight_files)
            loaded = True
            scores, grid = store.scores(run_id), cam_grid(detector)
            for panel, rows in zip(panels, chosen, strict=True):
                of_generator = scores[scores["generator"] == panel.tested_on].drop_duplicates("digest")
                said = answers(of_generator.set_index("digest").loc[rows["digest"]], spec)
                maps = image_maps(detector, panel.images) if grid is not None else None
                columns.append(Column(trained_on, said, maps, grid, run_id))
        except Exception as error:  # a checkpoint, a method, memory: it is this run's alone
            problem = str(error) or type(error).__name__
            columns = [Column(trained_on, None, None, None, run_id, problem, loaded)] * len(panels)
        for panel, column in zip(panels, columns, strict=True):
            panel.columns.append(column)
    return panels


def first_seeds(runs: pd.DataFrame) -> pd.DataFrame:
    """Of the rows of `Store.runs`, of one variant and task, the one with the smallest seed for each `trained_on`."""
    return runs.sort_values("seed", kind="stable").drop_duplicates("trained_on").sort_index()


# Which pictures -------------------------------------------------------------------------------------------------------


def choose_images(
    manifest: Manifest, generator: str, count: int | None, *, seed: int = 0, split: str = "test"
) -> pd.DataFrame:
    """The same source photographs for every method, run and generator, as far as they exist in each.

    Photographs come in the order of a hash of their source id; first those that every generator has made a fake of, so
    that the pictures of two generators can be compared.

    Args:
        manifest: of the data set.
        generator: whose fakes; "real": the real images that all generators share.
        count: at most so many; None: all.
        seed: another one gives another choice.
        split: "test", or "valid" to choose a threshold with.

    Returns:
        rows of the manifest's table.

    Raises:
        ValueError: no such generator, or it has no image in the split.
    """
    names = (*manifest.generators, SHARED_REAL)
    if generator not in names:
        raise ValueError(f"no generator {generator!r}; there are: {', '.join(names)}")
    table = manifest.table[manifest.table["split"] == split]
    is_fake = table["label"] == FAKE_LABEL
    sources = table[is_fake].groupby("generator")["source_id"].agg(set)
    in_all = set.intersection(*sources) if len(sources) else set()
    rows = table[(table["generator"] == generator) & (is_fake == (generator != SHARED_REAL))]
    if rows.empty:
        raise ValueError(f"{generator} has no image in the {split} split")
    ranks = [
        (source not in in_all, hashlib.sha256(f"{seed}/{source}".encode()).hexdigest()) for source in rows["source_id"]
    ]
    order = sorted(range(len(rows)), key=lambda row: (ranks[row], rows["digest"].iloc[row]))
    return rows.iloc[order[:count]]


def read_images(manifest: Manifest, rows: pd.DataFrame) -> list[np.ndarray]:
    """Decode these rows' pictures: uint8 (H, W, 3) each.

    Raises:
        StoreError: a file is not there, or not the one that the manifest was made of.
        BadImage: it cannot be decoded.
    """
    return [decode(_verified(path, digest)) for path, digest in zip(manifest.paths(rows), rows["digest"], strict=True)]


def read_masks(manifest: Manifest, rows: pd.DataFrame) -> list[np.ndarray | None]:
    """These rows' masks, bool (H, W), True where fake; None where there is none. Raises as `read_images`."""
    return [
        None if pd.isna(mask) else read_mask(_verified(manifest.root / str(mask), digest))
        for mask, digest in zip(rows["mask"], rows["mask_digest"], strict=True)
    ]


def _verified(path: Path, digest: str) -> Path:
    """The path again, if its bytes are those of the data set."""
    remedy = "bring the data set's own file back, or say where the data folder is with --images DIR"
    try:
        actual = file_digest(path)
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error.strerror or error}); {remedy}") from error
    if actual != digest:
        raise StoreError(f"{path} is another file than the grid was made on (by its SHA-256); {remedy}")
    return path


def open_images(store: Store, *, root: Path | None = None, cache: Path | None = None) -> Manifest:
    """The manifest of the grid's data set, with its pictures in reach.

    Args:
        store: an open grid.
        root: where the data folder is now; None: where it was when the manifest was made.
        cache: the grid's cache folder, where `launch.py` keeps manifests; None: `cache` beside a local store. Without
            a manifest there, one is made from `root`.

    Raises:
        StoreError: neither a manifest nor a data folder, another data set, or pictures that are not there.
    """
    file = sqlite_file(store.tracking_uri)
    if cache is None and file is not None:
        cache = file.parent / "cache"
    remedy = "say where the data folder is with --images DIR"
    folder = None if cache is None else cache / "manifests" / store.data
    if folder is not None and (folder / "manifest.json").is_file():
        try:
            manifest = Manifest.load(folder)
        except (OSError, ValueError, KeyError) as error:
            raise StoreError(f"the manifest in {folder} cannot be read: {error}; delete it and {remedy}") from error
        if root is not None:
            manifest = dataclasses.replace(manifest, root=Path(root).absolute())
    elif root is None:
        raise StoreError(
            f"Grad-CAM needs the pictures of data set {store.data}, and no manifest of it is here; {remedy}"
        )
    else:
        try:
            with TemporaryDirectory() as scratch:
                manifest = build_manifest(store.corpus, root, cache=cache or Path(scratch), skip_bad=True)
        except (DataProblems, KeyError) as error:
            raise StoreError(f"the data folder {root} cannot be used: {error}") from error
    if manifest.digest != store.data:
        raise StoreError(
            f"{manifest.root} is data set {manifest.digest}, the grid was made on {store.data}. A grid that was "
            "narrowed with --limit needs its own cache folder: name it with --cache DIR"
        )
    first = manifest.paths(manifest.table.iloc[:1])[0]
    if not first.is_file():
        raise StoreError(f"the pictures of data set {store.data} are not in {manifest.root}; {remedy}")
    return manifest
