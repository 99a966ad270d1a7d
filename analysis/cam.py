"""Where a detector's evidence lies: by its own map if it has one, else by Grad-CAM.

Grad-CAM is Selvaraju et al., arXiv 1610.02391, by the grad-cam package.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.special import expit

from analysis.detectors import load_detector
from analysis.store import Store, StoreError
from analysis.verdicts import Judge
from data.audits import Evidence, run_audits
from data.images import decode, file_digest, read_mask
from data.manifest import Manifest, build_manifest
from data.measure import measure
from data.photographs import PER_GROUP
from data.pictures import mask_file
from data.sources.base import FAKE as FAKE_LABEL
from grid.corpora import corpus_options
from grid.datasets import data_options
from grid.plan import FINISHED
from grid.spec import TrialSpec
from grid.tasks import DETECTION
from grid.uris import sqlite_file
from models.detector import DETECTION_CLASSES, FAKE, Detector
from models.maps import over_picture, picture_maps
from models.registry import list_detectors, resolve_config, size_check

if TYPE_CHECKING:
    import torch

MOST_BYTES = 500_000_000  # of pictures that are held for the next run
BATCH_PIXELS = 2_000_000  # per batch of pictures, of which there is at least one
OWN_MAP, GRAD_CAM = "map", "Grad-CAM"  # what explains a picture
NO_LAYER = (
    "this method has no layer for Grad-CAM: its features are statistics of the whole picture, or it "
    "predicts the mean over tiles of a picture (resize=native)"
)


def cam_maps(
    detector: Detector,
    pixels: np.ndarray,
    *,
    target_class: int | Sequence[int] | np.ndarray | None = None,
) -> np.ndarray:
    """Grad-CAM maps of a detector's last spatial layer, by `pytorch_grad_cam.GradCAM`.

    A map explains the log-odds of a class against all others: logit - log of the sum of exp(the other logits). With two
    classes these are the difference of the two logits, which is the score that tables and pages show. A single logit
    would be another question: a network may raise both logits at a place that changes no answer.

    Each map is scaled to its own maximum, so a map compares positions within one picture, not pictures with each other.
    If no position of a picture is evidence for the class, or all are alike, the map is zero.

    Args:
        detector: a fitted detector.
        pixels: uint8 (N, S, S, 3), or four channels, from the detector's `squares`.
        target_class: the class whose log-odds are explained, one for all pictures or one per picture. None: "fake" for
            detection, whatever the detector predicts; the predicted class for attribution.

    Returns:
        float32 (N, S, S), in [0, 1].

    Raises:
        ValueError: the method has no spatial layer; a class that does not exist, or a wrong number of classes.
    """
    target = detector.cam_target()
    if target is None:
        raise ValueError(NO_LAYER)
    import torch
    from pytorch_grad_cam import GradCAM

    from models.compute import Compute

    if target_class is None and tuple(detector.classes) == DETECTION_CLASSES:
        target_class = FAKE
    chosen: list[int | None] = [None] * len(pixels)
    if target_class is not None:
        classes = np.broadcast_to(np.asarray(target_class, dtype=np.int64), len(pixels))
        if len(pixels) and not (classes.min() >= 0 and classes.max() < len(detector.classes)):
            raise ValueError(f"target_class must lie in 0 .. {len(detector.classes) - 1}, got {target_class}")
        chosen = classes.tolist()
    size = int(pixels.shape[1])
    maps = np.zeros((len(pixels), size, size), dtype=np.float32)
    batch_size = max(1, BATCH_PIXELS // size**2)
    with torch.no_grad(), Compute().exactly(), _gradients_from(target.layers):
        # no `with`: the library's __exit__ swallows every IndexError
        cam = GradCAM(target.module, target.layers, target.reshape)
        try:
            for start in range(0, len(pixels), batch_size):
                part = slice(start, start + batch_size)
                batch = target.normalise(torch.from_numpy(np.ascontiguousarray(pixels[part])))
                with torch.no_grad():  # `_gradients_from` switches gradients on within
                    maps[part] = cam(batch, [partial(_log_odds, number=number) for number in chosen[part]])
        finally:
            cam.activations_and_grads.release()
            target.module.zero_grad(set_to_none=True)
    if pixels.shape[3] == 4:  # nothing is evidence where a picture was filled up
        maps *= pixels[..., 3] > 0
        largest = maps.max(axis=(1, 2), keepdims=True, initial=0)
        maps = np.divide(maps, largest, out=maps, where=largest > 0)
    return maps.clip(0, 1)


def _log_odds(logits: torch.Tensor, *, number: int | None) -> torch.Tensor:
    """Logits of one picture (C,) -> the log-odds of a class against all others; None: of the predicted class."""
    import torch

    number = int(logits.argmax()) if number is None else number
    return logits[number] - torch.cat([logits[:number], logits[number + 1 :]]).logsumexp(dim=0)


def cam_grid(detector: Detector) -> tuple[int, int] | None:
    """Rows and columns of the layer behind the maps, before they are enlarged; None for a method without Grad-CAM."""
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
    """Record gradients from these layers on: the map stays the same, and earlier layers keep no activations.

    Without it, SAM at 1024 pixels would keep the attention of all its blocks. Enter it before grad-cam adds its own
    hooks to the layers, because hooks run in the order in which they were added.
    """
    import torch

    def begin(module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        if output.requires_grad:  # another of the layers comes before
            return output
        torch.set_grad_enabled(True)
        return output.detach().requires_grad_().clone()  # a copy, as the next layer may change it in place

    handles = [layer.register_forward_hook(begin) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def image_maps(detector: Detector, images: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Decoded pictures, uint8 (H, W, 3) of any sizes -> one map each, float32 (H, W); see `cam_maps`."""
    if detector.geometry is None:
        raise ValueError(NO_LAYER)
    maps = cam_maps(detector, detector.squares(images))
    return [
        detector.geometry.invert(cam, (image.shape[0], image.shape[1])) for cam, image in zip(maps, images, strict=True)
    ]


@dataclass(frozen=True)
class Explanation:
    """Where a detector sees fake in some pictures.

    Attributes:
        kind: `OWN_MAP` or `GRAD_CAM`.
        maps: float32 (H, W) each, in [0, 1]: the probability of fake of each place by the detector's own map; or
            Grad-CAM, scaled to its own maximum.
        grid: rows and columns of what the maps are enlarged from.
    """

    kind: str
    maps: list[np.ndarray]
    grid: tuple[int, int]


def explain(detector: Detector, images: Sequence[np.ndarray]) -> Explanation | None:
    """Explain decoded pictures, uint8 (H, W, 3) of any sizes; None for a method with neither maps nor Grad-CAM."""
    if len(images) and (cells := picture_maps(detector, images)) is not None:
        over = [over_picture(c, detector.geometry, i.shape[:2]) for c, i in zip(cells, images, strict=True)]
        return Explanation(OWN_MAP, [expit(each).astype(np.float32) for each in over], cells[0].shape)
    grid = cam_grid(detector)
    return None if grid is None else Explanation(GRAD_CAM, image_maps(detector, images), grid)


# Panels ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Column:
    """One run's column of a panel.

    Attributes:
        trained_on: a training set as text.
        log_odds: float (N,), log-odds of fake of the panel's pictures; None if there is a problem.
        maps: as in `Explanation`; None for a method with neither maps nor Grad-CAM, or with a problem.
        grid: as in `Explanation`; None as `maps`.
        run_id: id of the run.
        problem: why the column could not be made; "" if it could.
        loaded: whether the run's detector could be loaded.
        kind: as in `Explanation`; "" without maps.
        distances: how far each picture is from those that the run knows, over the limit beyond which there is no
            verdict (`analysis.verdicts`); empty where it is not known.
    """

    trained_on: str
    log_odds: np.ndarray | None
    maps: list[np.ndarray] | None
    grid: tuple[int, int] | None
    run_id: str = ""
    problem: str = ""
    loaded: bool = True
    kind: str = ""
    distances: Sequence[float] = ()


@dataclass(frozen=True)
class Panel:
    """The same fakes seen by one variant's detectors, one per training set.

    Attributes:
        variant: variant of a method.
        tested_on: the generator that made the pictures.
        sources: names of the photographs behind them.
        images: uint8 (H, W, 3) each.
        masks: bool (H, W) each, True where fake; None if a picture has none.
        columns: one per run.
    """

    variant: str
    tested_on: str
    sources: list[str]
    images: list[np.ndarray]
    masks: list[np.ndarray | None]
    columns: list[Column]


def _distances(judge: Judge, detector: Detector, images: Sequence[np.ndarray]) -> list[float]:
    """See `Column`."""
    if not judge.looks:
        return []
    judged = judge.judge(images, detector.predict(detector.inputs(images)).embeddings)
    return [each.distance for each in judged if each.distance is not None]


def make_panels(
    store: Store,
    manifest: Manifest,
    variant: str,
    *,
    count: int,
    device: str = "cpu",
    weight_files: Mapping[str, Path] | None = None,
    also: Callable[[str, Detector, TrialSpec], None] = lambda run_id, detector, spec: None,
) -> list[Panel]:
    """A variant's panels, one per generator, with the first finished detection run of each training set.

    All panels show the same source photographs. A run that cannot be loaded or explained has a column that says so.

    Args:
        store: an open grid.
        manifest: from `open_images`.
        variant: a variant with a finished detection run.
        count: pictures per panel.
        device: torch device string.
        weight_files: see `load_detector`.
        also: called for each run that Grad-CAM explains, while its detector is loaded; must not raise.

    Raises:
        BadImage: a picture cannot be read.
    """
    runs = store.runs()
    runs = runs[(runs["variant"] == variant) & (runs["task"] == DETECTION) & (runs["state"] == FINISHED)]
    runs = runs.sort_values("seed", kind="stable").drop_duplicates("trained_on").sort_index()
    panels, chosen = [], []
    for generator in manifest.tested_generators:
        rows = choose_images(manifest, generator, count)
        images, masks = read_images(manifest, rows), read_masks(manifest, rows)
        chosen.append(rows)
        panels.append(Panel(variant, generator, rows["source_id"].tolist(), images, masks, []))
    for run_id, trained_on in zip(runs["run_id"], runs["trained_on"], strict=True):
        columns, loaded = [], False
        try:
            detector, spec = load_detector(store, run_id, device=device, weight_files=weight_files)
            loaded = True
            scores, judge = store.scores(run_id), Judge(store, run_id)
            for panel, rows in zip(panels, chosen, strict=True):
                log_odds = scores_of_fakes(scores, panel.tested_on).loc[rows["digest"]].to_numpy()
                found = explain(detector, panel.images)
                maps, grid, kind = (None, None, "") if found is None else (found.maps, found.grid, found.kind)
                distances = _distances(judge, detector, panel.images)
                columns.append(Column(trained_on, log_odds, maps, grid, run_id, kind=kind, distances=distances))
        except Exception as error:  # whatever fails, the other runs still have their columns
            problem = str(error) or type(error).__name__
            columns = [Column(trained_on, None, None, None, run_id, problem, loaded)] * len(panels)
        for panel, column in zip(panels, columns, strict=True):
            panel.columns.append(column)
        if any(column.kind == GRAD_CAM for column in columns):
            also(run_id, detector, spec)
    return panels


def scores_of_fakes(scores: pd.DataFrame, generator: str) -> pd.Series:
    """Log-odds of fake of a generator's test fakes by digest; copies of a picture, which have one score, count once.

    Args:
        scores: from `Store.scores`, of a detection run.
        generator: the generator.
    """
    rows = scores[(scores["generator"] == generator) & (scores["label"] == FAKE_LABEL)]
    return rows.drop_duplicates("digest").set_index("digest")["score"].astype(float)


# Which pictures -------------------------------------------------------------------------------------------------------


def choose_images(manifest: Manifest, generator: str, count: int | None, *, split: str = "test") -> pd.DataFrame:
    """Fakes of the same source photographs for every method, run and generator, as far as they exist.

    Photographs come in the order of a hash of their source id; those with a fake by every generator come first, so that
    pictures of two generators can be compared.

    Args:
        manifest: of the data set.
        generator: the generator of the fakes.
        count: at most so many; None: all.
        split: "test", or "valid" to choose a threshold with.

    Returns:
        rows of the manifest's table.

    Raises:
        ValueError: no such generator, or it has no fake in the split.
    """
    table = manifest.table
    fakes = table[(table["split"] == split) & (table["label"] == FAKE_LABEL)]
    sources = fakes.groupby("generator")["source_id"].agg(set)
    if generator not in sources:
        raise ValueError(f"no {split} fakes of {generator!r}; there are {split} fakes of: {', '.join(sources.index)}")
    shared = set.intersection(*sources)
    rows = fakes[fakes["generator"] == generator]
    keys = [
        (source not in shared, hashlib.sha256(f"0/{source}".encode()).hexdigest(), digest)
        for source, digest in zip(rows["source_id"], rows["digest"], strict=True)
    ]
    return rows.iloc[sorted(range(len(rows)), key=keys.__getitem__)[:count]]


def read_images(manifest: Manifest, rows: pd.DataFrame) -> list[np.ndarray]:
    """Decode the pictures of these rows: uint8 (H, W, 3) each.

    Raises:
        StoreError: a file is missing, or differs from the one in the manifest.
        BadImage: it cannot be decoded.
    """
    return [decode(_verified(path, digest)) for path, digest in zip(manifest.paths(rows), rows["digest"], strict=True)]


def read_masks(manifest: Manifest, rows: pd.DataFrame) -> list[np.ndarray | None]:
    """Masks of these rows, bool (H, W), True where fake; None if a picture has none. Raises as `read_images`."""
    files = [mask_file(manifest, row) for row in rows.to_dict("records")]
    return [
        None if file is None else read_mask(_verified(file.path, file.digest), white=file.white, size=file.size)
        for file in files
    ]


class ReadOnce:
    """Pictures and masks of a data set that many runs look at: each is read once, as long as there is room."""

    def __init__(self, manifest: Manifest) -> None:
        """Hold nothing yet. Masks are those of this manifest."""
        self.manifest = manifest
        self._held = dict[str, Any]()
        self._room = MOST_BYTES

    def images(self, rows: pd.DataFrame) -> list[np.ndarray]:
        """As `read_images`."""
        return self._each("image", rows, read_images)

    def masks(self, rows: pd.DataFrame) -> list[np.ndarray | None]:
        """As `read_masks`."""
        return self._each("mask", rows, read_masks)

    def _each(self, what: str, rows: pd.DataFrame, read: Callable[[Manifest, pd.DataFrame], list[Any]]) -> list[Any]:
        names = [f"{what} of {path}" for path in rows["path"]]
        for number, name in enumerate(names):
            if name not in self._held and self._room > 0:
                (self._held[name],) = read(self.manifest, rows.iloc[number : number + 1])
                self._room -= 0 if self._held[name] is None else self._held[name].nbytes
        return [
            self._held[name] if name in self._held else read(self.manifest, rows.iloc[number : number + 1])[0]
            for number, name in enumerate(names)
        ]


def _verified(path: Path, digest: str) -> Path:
    """The path, once its bytes are known to be those of the data set."""
    remedy = "restore the data set's own file, or name the data folder with --images DIR"
    try:
        actual = file_digest(path)
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error.strerror or error}); {remedy}") from error
    if actual != digest:
        raise StoreError(f"{path} is another file than the grid was made on (by its SHA-256); {remedy}")
    return path


def _size_check(store: Store) -> Callable[[int, int], str]:
    """Of the grid's methods: pictures that one of them cannot take were left out of its data."""
    runs, known = store.runs(), list_detectors()
    configs: list[tuple[str, dict[str, Any]]] = []
    for row in runs[runs["method"].isin(known)].drop_duplicates(["method", "config"]).to_dict("records"):
        configs.append((row["method"], json.loads(row["config"])))
        try:
            resolve_config(*configs[-1])
        except (TypeError, ValueError) as error:
            run = f"run {row['run_id']}" if row["run_id"] else f"the planned trial {row['key']}"
            raise StoreError(
                f"the configuration of {run} ({row['method']}) cannot be used by this code: {error}; check out the "
                "commit that the run was made with, or name the grid's cache, which has its manifest, with --cache DIR"
            ) from error
    return size_check(configs)


def open_images(store: Store, *, root: Path | None = None, cache: Path | None = None) -> Manifest:
    """The manifest of the grid's data set, whose pictures can be read.

    Args:
        store: an open grid.
        root: the data folder; None: its path when the manifest was made.
        cache: the grid's cache folder, where `launch.py` keeps manifests; None: `cache` beside a local store. If it has
            no manifest of the data set, one is made from `root`.

    Raises:
        StoreError: neither a manifest nor a data folder, another data set, missing pictures, or a method's
            configuration that this code does not know.
    """
    file = sqlite_file(store.tracking_uri)
    if cache is None and file is not None:
        cache = file.parent / "cache"
    remedy = "name the launch's cache with --cache DIR, or the data folder with --images DIR"
    folder = None if cache is None else cache / "manifests" / store.data
    if folder is not None and (folder / "manifest.json").is_file():
        try:
            manifest = Manifest.load(folder)
        except (OSError, ValueError, KeyError) as error:
            raise StoreError(f"the manifest in {folder} cannot be read: {error}; delete it and {remedy}") from error
        if root is not None:
            manifest = dataclasses.replace(manifest, root=root.absolute())
    elif root is None:
        raise StoreError(f"data set {store.data} has no manifest here, so its pictures cannot be read; {remedy}")
    else:
        options, check = data_options(store.parent.data.tags), _size_check(store)
        try:
            with TemporaryDirectory() as scratch:
                manifest = build_manifest(
                    store.corpus,
                    root,
                    cache=cache or Path(scratch),
                    skip_bad=True,
                    seed=options.split_seed,
                    limit=options.limit,
                    generators=options.generators,
                    names_per_split=options.names_per_split,
                    size_check=check,
                    measured_per_group=PER_GROUP,
                    **corpus_options(options),
                )
                evidence = Evidence(manifest, measure(manifest, cache=cache or Path(scratch)))
                masks = run_audits(evidence, ["masks"])  # whose masks Grad-CAM must not be measured against
                manifest = dataclasses.replace(manifest, findings=(*manifest.findings, *masks))
        except (ValueError, KeyError) as error:
            raise StoreError(f"the data folder {root} cannot be used: {error}") from error
    if manifest.digest != store.data:
        raise StoreError(
            f"{manifest.root} is data set {manifest.digest}, the grid was made on {store.data}; name the right folder "
            "with --images DIR, or the grid's cache, which has its manifest, with --cache DIR"
        )
    if not manifest.paths(manifest.table.iloc[:1])[0].is_file():
        raise StoreError(f"the pictures of data set {store.data} are not in {manifest.root}; {remedy}")
    return manifest
