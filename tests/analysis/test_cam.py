from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from pytorch_grad_cam import GradCAM

from analysis.cam import (
    Column,
    Panel,
    cam_grid,
    cam_maps,
    choose_images,
    image_maps,
    read_images,
    read_masks,
    scores_of_fakes,
)
from analysis.figures.cam import cam_panel, overlay
from analysis.localisation import localise
from analysis.store import StoreError
from data.manifest import Manifest, build_manifest
from models.detector import Detector, Examples, FitSession, fake_scores
from tests.corpora import write_dolos
from tests.models.toys import SIDE, examples, make_images, small

WITH_CAM = ["xception_scratch", "clip_linear", "sam_linear"]
CLASSES = ("real", "lama", "ldm")


def fitted(name: str, classes: tuple[str, ...] = ("real", "fake"), **overrides: Any) -> Detector:
    detector = small(name, classes, **overrides)
    detector.fit(examples(detector, 12, seed=1), examples(detector, 6, seed=2), FitSession())
    return detector


@pytest.fixture(scope="module")
def detectors() -> dict[str, Detector]:
    return {name: fitted(name) for name in WITH_CAM}


def library_maps(detector: Any, pixels: np.ndarray, targets: list[int]) -> np.ndarray:
    """The library itself on the detector's layer, all pictures at once, gradients through everything.

    With two classes the score that is shown is the difference of the logits.
    """
    target = detector.cam_target()
    assert target is not None
    batch = target.normalise(torch.from_numpy(pixels)).requires_grad_()
    cam = GradCAM(model=target.module, target_layers=target.layers, reshape_transform=target.reshape)
    return cam(batch, [lambda logits, number=number: logits[number] - logits[1 - number] for number in targets])


@pytest.mark.parametrize("name", WITH_CAM)
def test_maps_are_the_librarys(name: str, detectors: dict[str, Detector], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analysis.cam.BATCH_PIXELS", 2 * SIDE**2)  # batches of two pictures
    detector = detectors[name]
    pixels = make_images(np.array([0, 1, 1, 0, 1]), seed=3)
    spread = 0.0
    for target, wanted in ((None, [1] * 5), (0, [0] * 5), ([0, 1, 0, 1, 1], [0, 1, 0, 1, 1])):
        maps = cam_maps(detector, pixels, target_class=target)
        assert maps.shape == (5, SIDE, SIDE)
        assert maps.dtype == np.float32
        assert maps.min() >= 0
        assert maps.max() <= 1
        spread = max(spread, float(maps.std(axis=(1, 2)).max()))
        np.testing.assert_allclose(maps, library_maps(detector, pixels, wanted), atol=1e-5)
    assert spread > 0.05  # or equality would say nothing


@pytest.mark.slow
def test_maps_are_the_librarys_for_the_published_xception() -> None:
    detector = small("xception_scratch", backbone="xception41", size=299)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 299, 299, 3), dtype=np.uint8)
    maps = cam_maps(detector, pixels)
    np.testing.assert_allclose(maps, library_maps(detector, pixels, [1, 1]), atol=1e-5)
    assert maps.std() > 0.05
    assert cam_grid(detector) == (10, 10)


def test_what_raises_both_logits_alike_changes_no_map() -> None:
    """It changes no answer, so it is no evidence: the map explains the score that is shown, not one logit."""
    detector = fitted("xception_scratch")
    pixels, targets = make_images(np.array([0, 1, 0, 1]), seed=3), [0, 0, 1, 1]
    scores, maps = fake_scores(detector.predict(pixels).logits), cam_maps(detector, pixels, target_class=targets)
    target = detector.cam_target()
    assert target is not None
    classifier = target.module.get_classifier()
    with torch.no_grad():
        classifier.weight += 5 * classifier.weight.abs().max() * torch.rand(classifier.weight.shape[1])
    np.testing.assert_allclose(fake_scores(detector.predict(pixels).logits), scores, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(cam_maps(detector, pixels, target_class=targets), maps, atol=1e-3)
    assert maps.std() > 0.05


def test_with_several_classes_a_map_explains_the_log_odds_against_all_others() -> None:
    detector = fitted("sam_linear", CLASSES)
    pixels = make_images(np.array([0, 1, 2, 1]), seed=4)
    target = detector.cam_target()
    assert target is not None
    cam = GradCAM(model=target.module, target_layers=target.layers, reshape_transform=target.reshape)
    targets = [lambda logits, number=number: torch.logit(logits.double().softmax(0)[number]) for number in (0, 1, 2, 0)]
    expected = cam(target.normalise(torch.from_numpy(pixels)).requires_grad_(), targets)
    assert expected.std() > 0.05
    np.testing.assert_allclose(cam_maps(detector, pixels, target_class=[0, 1, 2, 0]), expected, atol=1e-4)


def test_attribution_explains_the_predicted_class() -> None:
    detector = fitted("sam_linear", CLASSES)
    pixels = make_images(np.array([0, 1, 2, 1]), seed=4)
    assert detector.encoder is not None
    predicted = detector.predict(detector.encoder.encode(pixels)).logits.argmax(axis=1)
    assert len(set(predicted)) > 1
    np.testing.assert_array_equal(cam_maps(detector, pixels), cam_maps(detector, pixels, target_class=predicted))


def test_a_cam_leaves_nothing_behind(detectors: dict[str, Detector]) -> None:
    detector = detectors["xception_scratch"]
    pixels = make_images(np.array([0, 1]), seed=5)
    before = detector.predict(pixels).logits
    cam_maps(detector, pixels)
    target = detector.cam_target()
    assert target is not None
    assert not any(module._forward_hooks for module in target.module.modules())
    assert all(parameter.grad is None for parameter in target.module.parameters())
    assert torch.is_grad_enabled()
    np.testing.assert_array_equal(detector.predict(pixels).logits, before)


def test_the_layers_places_are_counted(detectors: dict[str, Detector]) -> None:
    assert cam_grid(detectors["clip_linear"]) == (8, 8)
    assert cam_grid(detectors["sam_linear"]) == (8, 8)
    assert cam_grid(detectors["xception_scratch"]) == (2, 2)
    assert cam_grid(small("residual_linear")) is None


def test_without_a_spatial_layer_it_says_so() -> None:
    pixels = make_images(np.array([0, 1]), seed=5)
    for explain in (cam_maps, image_maps):
        with pytest.raises(ValueError, match="no layer for Grad-CAM"):
            explain(small("residual_linear"), pixels)


@pytest.mark.parametrize("target", [2, -1, [0, 5]])
def test_a_class_that_is_not_there(target: Any, detectors: dict[str, Detector]) -> None:
    with pytest.raises(ValueError, match=r"must lie in 0 \.\. 1"):
        cam_maps(detectors["sam_linear"], make_images(np.array([0, 1]), seed=5), target_class=target)


def test_no_picture_gives_no_map(detectors: dict[str, Detector]) -> None:
    assert cam_maps(detectors["sam_linear"], np.zeros((0, SIDE, SIDE, 3), np.uint8)).shape == (0, SIDE, SIDE)


def planted(count: int, seed: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Grey noise; every second picture has a bright square somewhere: pixels, labels, masks."""
    rng = np.random.default_rng(seed)
    pixels = rng.normal(100, 12, (count, size, size, 3))
    masks = np.zeros((count, size, size), dtype=bool)
    side = size * 3 // 8
    for picture, mask in zip(pixels[1::2], masks[1::2], strict=True):
        top, left = rng.integers(0, size - side + 1, 2)
        mask[top : top + side, left : left + side] = True
        picture[mask] += 90
    return pixels.clip(0, 255).astype(np.uint8), np.arange(count) % 2, masks


def test_the_map_lies_where_the_evidence_is() -> None:
    """A network that learned to see a bright square points at the square: no axis is swapped, no class, no sign."""
    size = 128
    detector = small("xception_scratch", size=size, epochs=6, learning_rate=3e-3, flip=False)
    train, valid = (Examples(*planted(count, seed, size)[:2]) for count, seed in ((96, 0), (32, 1)))
    detector.fit(train, valid, FitSession())
    pixels, labels, masks = planted(64, 2, size)
    assert (detector.predict(pixels).logits.argmax(axis=1) == labels).mean() > 0.9
    found = localise(cam_maps(detector, pixels[1::2]), masks[1::2], threshold=0.5).mean()
    assert found["energy"] > 2 * found["chance"]
    assert found["pointing"] > 0.7
    assert found["ap"] > 3 * found["chance"]


# Which pictures -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    folder = tmp_path_factory.mktemp("corpus")
    write_dolos(folder / "dolos", ("lama", "ldm"), {"train": 2, "valid": 2, "test": 8})
    base = folder / "dolos" / "celebahq" / "fake" / "ldm"
    for kind in ("images", "masks"):  # two photographs that ldm has no fake of
        for name in sorted((base / kind / "test").iterdir())[:2]:
            name.unlink()
    return build_manifest("dolos", folder / "dolos", cache=folder / "cache")


def test_the_same_photographs_for_every_generator(manifest: Manifest) -> None:
    of = {name: choose_images(manifest, name, 5) for name in ("lama", "ldm")}
    assert of["lama"]["source_id"].tolist() == of["ldm"]["source_id"].tolist()
    assert set(of["lama"]["generator"]) == {"lama"}
    assert set(of["lama"]["split"]) == {"test"}
    assert set(of["lama"]["label"]) == {1}


def test_the_choice_is_stable(manifest: Manifest) -> None:
    first = choose_images(manifest, "lama", 4)
    pd_equal = choose_images(manifest, "lama", 4)
    assert first.equals(pd_equal)
    assert choose_images(manifest, "lama", 8)["path"].tolist()[:4] == first["path"].tolist()
    everything = choose_images(manifest, "lama", None)
    assert len(everything) == 8
    assert set(choose_images(manifest, "lama", 6)["source_id"]) == set(choose_images(manifest, "ldm", 6)["source_id"])


def test_choosing_what_is_not_there(manifest: Manifest) -> None:
    with pytest.raises(ValueError, match="no test fakes of 'dalle'; there are test fakes of: lama, ldm"):
        choose_images(manifest, "dalle", 3)


def test_pictures_and_masks_are_read_in_order(manifest: Manifest) -> None:
    rows = choose_images(manifest, "lama", 3)
    images, masks = read_images(manifest, rows), read_masks(manifest, rows)
    assert [image.shape for image in images] == [(16, 16, 3)] * 3
    assert all(mask is not None and mask[8, 8] and not mask[0, 0] for mask in masks)
    assert read_masks(manifest, manifest.table[manifest.table["label"] == 0][:2]) == [None, None]


@pytest.mark.parametrize("column", ["path", "mask"])
def test_another_picture_of_the_same_name_is_refused(manifest: Manifest, tmp_path: Path, column: str) -> None:
    moved = dataclasses.replace(manifest, root=tmp_path / "elsewhere")
    shutil.copytree(manifest.root, moved.root)
    rows = choose_images(moved, "lama", 2)
    assert len(read_images(moved, rows)) == len(read_masks(moved, rows)) == 2
    changed = moved.root / rows[column].iloc[1]
    Image.fromarray(np.full((16, 16, 3), 7, np.uint8)).save(changed)
    read = read_images if column == "path" else read_masks
    with pytest.raises(StoreError, match=rf"{changed.name} is another file.*--images DIR"):
        read(moved, rows)
    changed.unlink()
    with pytest.raises(StoreError, match=rf"{changed.name} cannot be read.*--images DIR"):
        read(moved, rows)


# Panels ---------------------------------------------------------------------------------------------------------------


def test_a_fake_has_the_score_of_its_generator_and_copies_count_once() -> None:
    rows = [
        ("a", "real", 0, -1.0),
        ("b", "lama", 1, 2.0),
        ("b", "lama", 1, 2.0),
        ("c", "ldm", 1, 0.5),
        ("b", "ldm", 1, 3.0),
    ]
    scores = pd.DataFrame(rows, columns=["digest", "generator", "label", "score"])
    assert scores_of_fakes(scores, "lama").to_dict() == {"b": 2.0}
    assert scores_of_fakes(scores, "ldm").to_dict() == {"c": 0.5, "b": 3.0}


def make_panel(*, with_maps: bool = True) -> Panel:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (20, 30, 3), dtype=np.uint8) for _ in range(2)]
    mask = np.zeros((20, 30), bool)
    mask[5:10, 5:10] = True
    columns = []
    for name in ("ldm", "lama", "lama+ldm"):
        maps = [rng.random((20, 30)), np.zeros((20, 30))] if with_maps else None
        columns.append(Column(name, np.array([1.25, -0.5]), maps, (2, 3) if with_maps else None))
    return Panel("sam_linear", "lama", ["00001", "00002"], images, [mask, None], columns)


def words(figure: Figure) -> str:
    import matplotlib.text

    return "\n".join(text.get_text() for text in figure.findobj(matplotlib.text.Text))


def test_a_panel_says_what_it_shows(tmp_path: Path) -> None:
    figure = cam_panel(make_panel(), ["lama", "ldm"])
    said = words(figure)
    for part in ("sam_linear", "tested on lama", "columns: trained on", "✓ fake +1.25", "✗ real -0.50", "2 × 3 places"):
        assert part in said
    assert "source 00001" in said
    assert "no mask" in said
    assert "flat" in said
    headings = [axes.get_title() for axes in figure.axes if "trained on" in axes.get_title()]
    assert [heading.split("\n")[1] for heading in headings] == [
        "lama",
        "ldm",
        "lama + ldm",
    ]
    assert ["in-domain" in heading for heading in headings] == [True, False, True]
    edges = {axes.spines["left"].get_linestyle() for axes in figure.axes if "✗" in axes.get_xlabel()}
    assert edges.isdisjoint({"-"})
    figure.savefig(tmp_path / "panel.png")
    assert (tmp_path / "panel.png").stat().st_size > 1000


def columns_of(figure: Figure) -> list[str]:
    headings = [axes.get_title() for axes in figure.axes if "trained on" in axes.get_title()]
    return [heading.split("\n")[1] for heading in headings]


def test_the_columns_of_a_panel_come_in_the_order_of_the_corpus() -> None:
    panel = make_panel()
    panel.columns.append(dataclasses.replace(panel.columns[0], trained_on="none"))
    assert columns_of(cam_panel(panel, ["lama", "ldm"])) == ["no generator", "lama", "ldm", "lama + ldm"]
    of_corpus = cam_panel(panel, ["repaint", "ldm", "lama"])
    assert columns_of(of_corpus) == ["no generator", "ldm", "lama", "all but repaint"]
    assert ["in-domain" in axes.get_title() for axes in of_corpus.axes if "trained on" in axes.get_title()] == [
        False, False, True, True,
    ]  # fmt: skip


def test_a_panel_without_cams_says_so() -> None:
    assert "no CAM" in words(cam_panel(make_panel(with_maps=False), ["lama", "ldm"]))


def test_panels_say_how_far_out_a_picture_is_and_where_there_is_no_verdict() -> None:
    panel = make_panel()
    assert "distance" not in words(cam_panel(panel, ["lama", "ldm"])).lower()
    columns = [dataclasses.replace(panel.columns[0], distances=[0.5, 1.5]), *panel.columns[1:]]
    said = words(cam_panel(dataclasses.replace(panel, columns=columns), ["lama", "ldm"]))
    assert "✓ fake +1.25\ndistance 0.50" in said
    assert "✗ real -0.50\nno verdict (1.50)" in said
    assert "above 1 there is no verdict" in " ".join(said.split())


def test_an_overlay_is_brightest_where_the_map_is() -> None:
    image = np.full((10, 10, 3), 90, np.uint8)
    cam = np.zeros((10, 10))
    cam[2:4, 6:9] = 1
    drawn = overlay(image, cam)
    assert drawn.dtype == np.uint8
    assert drawn[cam == 1].mean() > drawn[cam == 0].mean() + 30
