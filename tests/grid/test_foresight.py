"""What a plan says of hours, disk and of what is missing, against values computed by hand."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from grid import foresight
from grid.foresight import Disk, count_images, disk, hours, in_bytes, in_hours, kind_of, missing
from grid.plan import Work
from grid.spec import TrialSpec
from models.detector import DETECTION_CLASSES, BuildContext
from models.published import Held
from models.registry import create_detector, detector_info, list_detectors, resolve_config
from models.sizes import NETWORKS, footprint
from tests.grid.grids import make_settings, paper_manifest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks" / "results.json"
NAMES = ("lama", "ldm")
# `paper_manifest`: 10 real images and 10 fakes of each generator in each of three splits.
IMAGES, TEST, TRAIN_ON_ONE = 90, 30, 20


def spec(
    method: str = "residual_linear", train: tuple[str, ...] = ("lama",), seed: int = 0, **config: object
) -> TrialSpec:
    return TrialSpec("detection", method, tuple(resolve_config(method, config).items()), train, seed, "d")


# Hours


def test_measured_durations_are_means_of_the_same_kind() -> None:
    pending = [Work(spec(seed=1)), Work(spec(seed=2)), Work(spec(train=NAMES)), Work(spec(seed=3), run_id="r")]
    durations = {
        kind_of(spec()): [10.0, 20.0],
        kind_of(spec("clip_linear", weights="random", mean="0.5,0.5,0.5")): [99.0],
    }
    found = hours(pending, durations, None, at_once=2)
    assert (found.seconds, found.measured, found.stated, dict(found.unknown)) == (30.0, 2, 0, {"residual_linear": 1})
    assert found.lines() == [
        "time: about 30 s for 2 trials, as trials of their kinds took here, one after another, "
        "about 15 s with 2 at once",
        "time: not known for 1 of residual_linear: no trial of this kind has finished here. A launch says the time "
        "that is left once its first trial has finished, and a plan after it how long such trials take",
        "time: not known for scoring finished trials further: 1 of residual_linear",
    ]
    assert found.as_json() == {
        "measured_seconds": 30.0, "measured_trials": 2, "stated_core_seconds": None, "stated_trials": 0,
        "unknown_trials": {"residual_linear": 1}, "scoring_trials": {"residual_linear": 1}, "at_once": 2,
    }  # fmt: skip


def test_a_stated_cost_is_that_of_the_images(tmp_path: Path) -> None:
    manifest = paper_manifest(tmp_path, NAMES)
    pending = [Work(spec("sam_linear", seed=seed)) for seed in (0, 1)]
    found = hours(pending, {}, manifest, at_once=1)
    assert (found.core_seconds, found.stated) == (pytest.approx(25.9 * IMAGES), 2)  # encoded once for both trials
    found = hours([Work(spec("xception_scratch", epochs=1))], {}, manifest, at_once=1)
    assert found.core_seconds == pytest.approx(1.064 * TRAIN_ON_ONE + 1.064 * 18.4 / 55.17 * TEST)
    small = hours([Work(spec("xception_scratch", **detector_info("xception_scratch").small))], {}, manifest, at_once=1)
    assert dict(small.unknown) == {"xception_scratch": 1}
    on_gpu = hours(pending, {}, manifest, at_once=1, on_cpu=lambda method: False)
    assert dict(on_gpu.unknown) == {"sam_linear": 2}


def test_stated_costs_are_those_of_the_benchmarks() -> None:
    figures = json.loads(BENCHMARKS.read_text(encoding="utf-8"))["cost"]["figures"]
    for method, seconds in foresight.ENCODED.items():
        assert seconds == pytest.approx(figures[f"{method} time"]["median"], rel=1e-3)
    arithmetic = figures["xception_scratch arithmetic"]
    part = arithmetic["parts"]["scored, GFLOP"]["median"] / arithmetic["median"]
    trained = figures["xception_scratch time"]["median"]
    for both in foresight.TRAINED.values():
        assert both == pytest.approx((trained, trained * part))


@pytest.mark.parametrize(("seconds", "words"), [(40, "about 40 s"), (720, "about 12 min"), (12_600, "about 3.5 h")])
def test_hours_in_words(seconds: float, words: str) -> None:
    assert in_hours(seconds) == words


# Disk


def test_disk_is_images_times_bytes_and_what_trials_keep(tmp_path: Path) -> None:
    manifest = paper_manifest(tmp_path, NAMES)
    pending = [
        Work(spec(), ("clean", "jpeg-75")), Work(spec(seed=1), ("clean",)),
        Work(spec("xception_scratch")), Work(spec("xception_pretrained")), Work(spec("npr")),
    ]  # fmt: skip
    found = disk(pending, *count_images(manifest), folders=[tmp_path / "not" / "there"])
    assert found.stores == {
        "features of residuals": IMAGES * (1056 * 4 + 65),
        "features of residuals, 1 condition": TEST * (1056 * 4 + 65),
        "pixels, 299 px, squash, bicubic": IMAGES * (299 * 299 * 3 + 65),  # both Xceptions share it
    }
    embeddings = TEST * 2 * (1056 * 3 + 2048 * 2)
    assert found.per_trial == 2 * 8 * 1057 + 2 * 100_160_552 + embeddings
    assert found.unknown == ["npr"]
    assert found.free[str(tmp_path / "not" / "there")] > 0
    assert found.lines()[1] == "disk: not known for npr"


def test_too_little_space_is_said() -> None:
    needed = Disk({"pixels": 2_000_000_000}, 500_000_000, [], {"/a": 3_000_000_000, "/b": 2_400_000_000})
    assert needed.total == 2_500_000_000
    assert needed.warning().startswith("/b has 2.4 GB free, and the launch needs about 2.5 GB")
    assert Disk({"pixels": 1}, 0, [], {"/a": 2}).warning() == ""
    assert needed.lines() == [
        "disk: about 2.5 GB, less what is there already: pixels 2.0 GB; checkpoints and artifacts of trials 500 MB"
    ]


@pytest.mark.parametrize(("size", "words"), [(900, "1 kB"), (3_400_000, "3 MB"), (13_410_150_000, "13.4 GB")])
def test_bytes_in_words(size: int, words: str) -> None:
    assert in_bytes(size) == words


WITH_FOOTPRINT = [name for name in list_detectors() if detector_info(name).footprint is not None]


@pytest.mark.parametrize("method", WITH_FOOTPRINT)
def test_the_table_of_sizes_is_that_of_the_built_detectors(method: str, tmp_path: Path) -> None:
    config = resolve_config(method, detector_info(method).small)
    kept = footprint(method, config)
    detector = create_detector(method, config, BuildContext(DETECTION_CLASSES))
    assert kept is not None
    if detector.encoder is not None:
        assert (kept.per_image, kept.width) == (4 * detector.encoder.num_features, detector.encoder.num_features)
        assert kept.is_features
        return
    assert detector.geometry is not None
    assert kept.per_image == 3 * detector.geometry.size**2
    assert detector.geometry.interpolation in kept.what
    detector.save(tmp_path)
    written = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert written == pytest.approx(kept.checkpoint, rel=0.05)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_table_of_networks_is_timms(name: str) -> None:
    import timm

    with torch.device("meta"):
        network = timm.create_model(name, num_classes=2)
    side, interpolation, width, num_bytes = NETWORKS[name]
    config = network.default_cfg
    assert (side, interpolation) == (config["input_size"][-1], config["interpolation"])
    assert width == network.num_features
    assert num_bytes == sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())


# What is missing


def test_what_is_missing_is_named_per_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    away = Held("vit_b, hub weights", "fetch", "not here; a launch fetches them (about 375 MB)")
    here = Held("x", "here", "in the cache")
    cpu = make_settings(tmp_path)
    plain = dataclasses.replace(cpu, device="auto")
    held = {"sam_linear": [away], "other": [away, here], "clip_linear": [here]}
    assert missing(held, cpu, {"sam_linear": 0.5}) == [
        "weights of sam_linear, other (vit_b, hub weights): not here; a launch fetches them (about 375 MB)"
    ]
    monkeypatch.setattr("grid.devices.torch_problem", lambda: "Found no NVIDIA driver on your system. Please check.")
    monkeypatch.setattr("grid.devices.has_card", lambda: False)
    (said,) = missing({}, plain, {"sam_linear": 0.5, "residual_linear": 0.0})
    assert said == (
        "a GPU: shares of a GPU are ignored, and trials of sam_linear compute "
        "on the CPU. Nodes of a cluster are looked at when the grid starts"
    )
    monkeypatch.setattr("grid.devices.has_card", lambda: True)
    assert missing({}, plain, {"sam_linear": 0.5})[0].startswith("CUDA, because torch cannot use the GPU (Found")
    assert missing({}, plain, {"residual_linear": 0.0}) == []
