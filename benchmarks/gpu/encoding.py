"""Encoding and scoring on a card: speed and error of each precision, against a CPU, and Grad-CAM afterwards."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks import heavy
from benchmarks.gpu.findings import Finding, Place, Tell, part
from benchmarks.gpu.memory import GIB, Utilisation
from benchmarks.gpu.project import ENCODERS, FULL, TF32, TRAINED, at_once, built, encode, precisions
from benchmarks.gpu.training import rate
from benchmarks.grids import noise_manifest
from benchmarks.machine import cores
from data.manifest import Manifest
from grid.experiments import cross_generator_trials
from grid.plan import Inputs
from grid.settings import RunSettings
from grid.tasks import DETECTION
from grid.trial import fill_inputs
from models.detector import DETECTION_CLASSES, BuildContext, Detector, Examples, FitSession, fake_scores
from models.registry import create_detector

BUSY_TARGET = 0.90  # share of the time in which the card computes, while it encodes from files
SCORE_TARGET = 1e-3  # log-odds: difference of scores between GPU and CPU in full precision
MOST_FILES = 4096
FILES_S = 6.5  # of encoding from files, as long as the encoder alone would take


# Speed and error -----------------------------------------------------------------------------------------------------


def encoders(place: Place, tell: Tell) -> None:
    """CLIP and SAM in each precision: images per second, how busy the card is, features against float32."""
    if TF32 not in precisions():
        tell(Finding("tf32", "this version does not have it"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = many_files(folder / "files", 12 if place.toy else MOST_FILES, 64 if place.toy else heavy.SIDE)
        for method in ENCODERS:
            exact: np.ndarray | None = None
            for precision in precisions():
                title = f"{method}, {precision}"
                with part(tell, title):
                    detector = built(place, method, precision=precision)
                    pixels = heavy.noise(detector, at_once(detector) if not place.toy else 4)
                    features = encode(detector, pixels)
                    exact = features if precision == FULL else exact
                    _tell_error(place, tell, title, features, exact)
                    store = folder / f"{method}-{precision}"
                    _tell_speed(place, tell, title, detector, method, pixels, files, store)


def _tell_error(place: Place, tell: Tell, title: str, features: np.ndarray, exact: np.ndarray | None) -> None:
    if exact is None or features is exact:
        return
    error = float(np.linalg.norm(features - exact) / np.linalg.norm(exact))
    far = float(np.abs(features - exact).max() / np.abs(exact).max())
    tell(place.on_card(Finding(f"{title}: features' relative error to float32, and the largest", [error, far])))


def _tell_speed(
    place: Place,
    tell: Tell,
    title: str,
    detector: Detector,
    method: str,
    pixels: np.ndarray,
    files: Manifest,
    folder: Path,
) -> None:
    def work() -> object:
        return encode(detector, pixels)

    if place.on_gpu:
        torch.cuda.reset_peak_memory_stats()
    in_memory = rate(place, work, len(pixels), 0.05 if place.toy else 1.2)
    tell(place.on_card(Finding(f"{title}: images/s from pixels in memory", in_memory)))
    tell(Finding(f"{title}: images at once", at_once(detector)))
    if place.on_gpu:
        tell(Finding(f"{title}: most allocated, GiB", torch.cuda.max_memory_allocated() / GIB))
    number = len(files.table) if place.toy else int(np.clip(FILES_S * in_memory, 96, MOST_FILES))
    with Utilisation() as card:
        started, per_second = from_files(detector, method, replace(files, table=files.table.head(number)), folder)
    tell(place.on_card(Finding(f"{title}: images/s from {number} files, without the first quarter", per_second)))
    tell(place.on_card(Finding(f"{title}: seconds until the first batch of files", started)))
    tell(place.on_card(Finding(f"{title}: utilisation by nvidia-smi, start included, percent", card.percent)))
    name = f"{title}: share of the time in which the card computes, from files"
    wanted = f"at least {BUSY_TARGET:g}"
    with part(tell, name, wanted):  # some machines let nobody watch kernels
        busy = kernel_seconds(place, work) / len(pixels) * per_second
        tell(place.on_card(Finding(name, busy, wanted, busy >= BUSY_TARGET)))


def kernel_seconds(place: Place, work: Callable[[], object]) -> float:
    """Seconds that the card's kernels take in one piece of work; 0 on a CPU.

    Raises:
        RuntimeError: torch's profiler saw no kernel on the card.
    """
    from torch.profiler import ProfilerActivity, profile

    activity = ProfilerActivity.CUDA if place.on_gpu else ProfilerActivity.CPU
    with profile(activities=[activity]) as found:
        work()
        if place.on_gpu:
            torch.cuda.synchronize()
    kernels = [
        event.time_range.elapsed_us() / 1e6
        for event in found.events() or ()
        if event.device_type.name == "CUDA" and not event.name.startswith(("Memcpy", "Memset"))
    ]
    if place.on_gpu and not kernels:
        raise RuntimeError("torch's profiler saw no kernel on the card")
    return sum(kernels)


def from_files(detector: Detector, method: str, files: Manifest, folder: Path) -> tuple[float, float]:
    """Decode and encode all pictures of a manifest into an empty store.

    Returns:
        seconds until the first batch was encoded, and images per second after the first quarter.
    """
    config = heavy.settings(method)
    settings = RunSettings(folder / "cache", folder / "runs", "", cpus_per_trial=cores())
    trials = cross_generator_trials(
        generators=files.generators, configs={method: config}, tasks=[DETECTION], seeds=[0], data=files.digest
    )
    spec = next(iter(trials))
    begun = time.perf_counter()
    seen: list[tuple[float, int]] = []

    def progress(done: int, total: int) -> None:
        seen.append((time.perf_counter() - begun, done))

    fill_inputs(detector, files, settings, Inputs(spec), progress=progress)
    end, number = seen[-1]
    middle, before = next(((when, done) for when, done in seen if done >= number / 4 and done < number), (0.0, 0))
    return seen[0][0], (number - before) / (end - middle)


def many_files(folder: Path, number: int, side: int) -> Manifest:
    """A manifest of so many files, few of them with different pixels: the others differ in bytes after the picture."""
    few = noise_manifest(folder, {"train": max(1, min(24, number // 8)), "valid": 1, "test": 1}, side)
    place = few.root / "again"
    place.mkdir()
    rows: list[dict[str, Any]] = []
    originals = [
        ({str(key): value for key, value in row.items()}, (few.root / row["path"]).read_bytes())
        for row in few.table.to_dict("records")
    ]
    for index in range(number):
        row, content = originals[index % len(originals)]
        content += index.to_bytes(8, "big")
        path = place / f"{index:06d}.png"
        path.write_bytes(content)
        new = {"path": path.relative_to(few.root).as_posix(), "digest": hashlib.sha256(content).hexdigest()}
        rows.append(row | new)
    return replace(few, table=pd.DataFrame(rows).astype(few.table.dtypes.to_dict()))


# Against a CPU -------------------------------------------------------------------------------------------------------


def numbers(place: Place, tell: Tell) -> None:
    """Scores of the same trained detectors on GPU and CPU, in each precision."""
    for method in (TRAINED, *ENCODERS):
        with part(tell, method), tempfile.TemporaryDirectory() as folder:
            heads = fitted(place, method, Path(folder))
            reference = heads(replace(place, device="cpu"), FULL)
            tell(Finding(f"{method}: largest score on the CPU", float(np.abs(reference).max())))
            for precision in precisions():
                far = float(np.abs(heads(place, precision) - reference).max())
                met = far <= SCORE_TARGET
                name = f"{method}, {precision}: largest difference of a score"
                if precision == FULL:
                    tell(place.on_card(Finding(name, far, f"at most {SCORE_TARGET:g}", met)))
                    if not place.on_gpu:
                        tell(Finding(f"{method}: the same on this CPU", far, f"at most {SCORE_TARGET:g}", met))
                else:
                    tell(place.on_card(Finding(name, far)))


def fitted(place: Place, method: str, folder: Path) -> Callable[[Place, str], np.ndarray]:
    """Train a detector at `place`: a function (place, precision) -> scores of the same pictures, loaded from file."""
    is_trained = heavy.trains(method)
    changes = {"epochs": 2, "batch_size": 4 if place.toy else 8} if is_trained else {}
    detector = built(place, method, **changes)
    number = 64 if is_trained and not place.toy else 12
    images = heavy.noise(detector, number)
    inputs = images if is_trained else encode(detector, images)
    labels = heavy.examples(images).labels
    detector.fit(Examples(inputs, labels), Examples(inputs[:4], labels[:4]), FitSession())
    detector.save(folder)
    shown = images[: 8 if is_trained else 2]
    small = heavy.small(method) if place.toy else {}

    def scores(where: Place, precision: str) -> np.ndarray:
        config = heavy.settings(method, {**small, **changes, "precision": precision})
        context = BuildContext(DETECTION_CLASSES, device=where.device, restoring=True)
        loaded = create_detector(method, config, context)
        loaded.load(folder)
        return fake_scores(loaded.predict(shown if is_trained else encode(loaded, shown)).logits)

    return scores


# Grad-CAM ------------------------------------------------------------------------------------------------------------


def grad_cam(place: Place, tell: Tell) -> None:
    """Encode, then the gradients that Grad-CAM needs, in one process."""
    for method in ENCODERS:
        name, wanted = f"{method}: gradients at the layer after encoding", "finite, not all zero"
        with part(tell, name, wanted):
            detector = built(place, method)
            images = heavy.noise(detector, 4)
            features = encode(detector, images)
            examples = Examples(features, heavy.examples(images).labels)
            detector.fit(examples, examples, FitSession())
            gradients = layer_gradients(detector, images[:1])
            good = bool(torch.isfinite(gradients).all() and gradients.any())
            tell(Finding(name, "as wanted" if good else "not", wanted, good))
            again = float(np.abs(encode(detector, images) - features).max())
            tell(Finding(f"{method}: features before and after differ by", again, "0", again == 0))


def layer_gradients(detector: Detector, pixels: np.ndarray) -> torch.Tensor:
    """Gradients of the logit of "fake" at the layer that Grad-CAM weights; pixels as the detector takes them."""
    target = detector.cam_target()
    assert target is not None
    outputs: list[torch.Tensor] = []
    handle = target.layers[-1].register_forward_hook(lambda module, inputs, output: outputs.append(output))
    try:
        device = next(target.module.parameters()).device
        logits = target.module(target.normalise(torch.from_numpy(pixels)).to(device))
        (gradients,) = torch.autograd.grad(logits[:, 1].sum(), outputs[-1:])
    finally:
        handle.remove()
    return gradients.cpu()
