"""Shortcuts that are planted in drawn photographs: what conditions show of them, with the method `residual_linear`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold

from data.conditions import CLEAN, Picture, get_condition
from data.demo.faces import add_sensor_noise, draw_face
from data.images import decode, read_mask
from data.manifest import build_manifest
from data.pictures import Pictures
from models.detector import DETECTION_CLASSES, BuildContext, Detector, Examples, FitSession, fake_scores
from models.registry import create_detector, resolve_config
from tests.corpora import write_dolos, write_image

SIDE = 128
METHOD = "residual_linear"


def photograph(number: int) -> np.ndarray:
    """A face of the demo, with a camera's noise."""
    rng = np.random.default_rng(number)
    return add_sensor_noise(draw_face(rng, SIDE), rng)


def a_detector() -> Detector:
    return create_detector(METHOD, resolve_config(METHOD, {}), BuildContext(DETECTION_CLASSES))


def cross_fitted(
    reals: list[np.ndarray], fakes: list[np.ndarray], *, train: str = CLEAN, test: Sequence[str] = (CLEAN,)
) -> list[float]:
    """AUROC of real against fake under each condition of the test.

    Each photograph is scored by a detector that saw neither it nor its fake, and was trained under one condition.
    """
    detector, labels = a_detector(), np.repeat([0, 1], len(reals))
    sources = np.tile(np.arange(len(reals)), 2)
    features = {name: detector.inputs(under(name, [*reals, *fakes])) for name in {train, *test}}
    scores = {name: np.empty(len(labels)) for name in test}
    for fitted, held_out in GroupKFold(5).split(sources, labels, sources):
        valid = np.isin(sources[fitted] % 4, [0])
        parts = [Examples(features[train][fitted][chosen], labels[fitted][chosen]) for chosen in (~valid, valid)]
        detector.fit(parts[0], parts[1], FitSession())
        for name in test:
            scores[name][held_out] = fake_scores(detector.predict(features[name][held_out]).logits)
    return [float(roc_auc_score(labels, scores[name])) for name in test]


def under(condition: str, pictures: list[np.ndarray]) -> list[np.ndarray]:
    apply: Callable[[Picture], np.ndarray] = get_condition(condition).apply
    return [apply(Picture(pixels, str(number))) for number, pixels in enumerate(pictures)]


@pytest.fixture(scope="module")
def photographs() -> list[np.ndarray]:
    return [photograph(number) for number in range(100)]


@pytest.mark.long
def test_real_photographs_that_were_saved_as_jpeg_are_found_out_until_all_are(photographs: list[np.ndarray]) -> None:
    reals, fakes = under("jpeg-90", photographs), photographs  # identical photographs, in two formats
    raw, both = cross_fitted(reals, fakes, test=[CLEAN, "jpeg-60"])
    assert raw >= 0.95
    assert 0.35 <= both <= 0.65


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory, photographs: list[np.ndarray]) -> Path:
    """Fakes of which the whole image went through a resize: `outside` has the original's pixels inside the mask."""
    root = tmp_path_factory.mktemp("plants") / "celebahq"
    middle = slice(SIDE // 4, 3 * SIDE // 4)
    mask = np.full((SIDE, SIDE), 255, dtype=np.uint8)
    mask[middle, middle] = 0
    for number, real in enumerate(photographs[:80]):
        split = "train" if number < 40 else "valid" if number < 52 else "test"
        whole = np.array(Image.fromarray(real).resize((124, 124), Image.Resampling.BICUBIC).resize((SIDE, SIDE)))
        outside = whole.copy()
        outside[middle, middle] = real[middle, middle]
        write_image(root / "real" / split / f"{number:03d}.png", real)
        for name, pixels in (("outside", outside), ("whole", whole)):
            write_image(root / "fake" / name / "images" / split / f"{number:03d}.png", pixels)
            write_image(root / "fake" / name / "masks" / split / f"{number:03d}.png", mask)
    return root.parent


@pytest.mark.long
def test_paste_back_takes_away_what_lies_outside_the_mask_and_nothing_else(planted: Path, tmp_path: Path) -> None:
    manifest = build_manifest("dolos", planted, cache=tmp_path)
    found: dict[tuple[str, str], float] = {}
    for generator in manifest.generators:
        detector = a_detector()
        examples = []
        for split in ("train", "valid"):
            rows = manifest.select(split, [generator])
            pictures = [decode(path) for path in manifest.paths(rows)]
            examples.append(Examples(detector.inputs(pictures), rows["label"].to_numpy()))
        detector.fit(examples[0], examples[1], FitSession())
        rows = manifest.select("test", [generator])
        for condition in ("clean", "paste-back"):
            pictures_of = Pictures(manifest, condition)
            pixels = [pictures_of.read(files) for files in pictures_of.files(rows)]
            scores = fake_scores(detector.predict(detector.inputs(pixels)).logits)
            found[generator, condition] = float(roc_auc_score(rows["label"], scores))
    assert found["outside", "clean"] >= 0.95
    assert found["outside", "paste-back"] == 0.5  # each fake is its original, so its score is that of the original
    assert found["whole", "clean"] >= 0.95
    assert 0.5 <= found["whole", "paste-back"] <= 1  # the region went through the resize too


@pytest.mark.long
def test_a_pasted_fake_that_differed_outside_its_mask_is_the_real_file(planted: Path, tmp_path: Path) -> None:
    manifest = build_manifest("dolos", planted, cache=tmp_path)
    rows = manifest.select("test", ["outside"]).query("label == 1")
    pictures = Pictures(manifest, "paste-back")
    for files, source in zip(pictures.files(rows), rows["source_id"], strict=True):
        real = decode(planted / "celebahq" / "real" / "test" / f"{source}.png")
        assert (decode(files.path) != real).any()
        np.testing.assert_array_equal(pictures.read(files), real)


def test_fakes_that_are_pasted_already_stay_as_they_are(dolos_with_masks: Path, tmp_path: Path) -> None:
    manifest = build_manifest("dolos", dolos_with_masks, cache=tmp_path)
    rows = manifest.select("test", manifest.generators).query("label == 1")
    pictures = Pictures(manifest, "paste-back")
    for files in pictures.files(rows):
        assert files.mask is not None
        assert read_mask(files.mask.path).any()
        np.testing.assert_array_equal(pictures.read(files), decode(files.path))


@pytest.fixture
def dolos_with_masks(tmp_path: Path) -> Path:
    return write_dolos(tmp_path / "dolos")
