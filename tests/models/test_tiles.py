"""Pictures of native size: training on a part of each, predictions as means over tiles; masks of patches."""

from __future__ import annotations

import dataclasses
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.detector import Examples, FitSession, fake_scores, of_native_size
from models.geometry import Geometry
from models.patch_masks import UNKNOWN
from models.registry import detector_info, reads_masks, resolve_config
from models.scoring import cell_metrics
from models.tiles import TiledEncoder, corners, tiles_of
from models.training import NetworkDetector
from tests.models.toys import SIDE, MadeMasks, Recorder, examples, make_images, make_labels, read_back, small

SQUARE = Geometry(SIDE, policy="native", fill=(9, 9, 9))
SMALLER = SIDE // 2
ENCODERS = ["timm_linear", "clip_linear", "rine", "minder"]  # one per way of building


@given(st.integers(1, 500), st.integers(1, 100))
def test_tiles_cover_a_side_and_are_as_few_as_can_be(side: int, size: int) -> None:
    starts = corners(side, size)
    assert len(starts) == max(1, -(-side // size))
    assert set(range(side)) == {pixel for start in starts for pixel in range(start, min(side, start + size))}
    assert starts[-1] == max(0, side - size)


def test_a_picture_of_exactly_the_size_is_one_tile_and_a_smaller_one_is_filled() -> None:
    (picture,) = make_images(np.array([1]), seed=0)
    (tile,) = tiles_of(picture, SQUARE)
    np.testing.assert_array_equal(tile, picture)
    (tile,) = tiles_of(picture[:20], SQUARE)
    np.testing.assert_array_equal(tile[22:42], picture[:20])
    assert (np.delete(tile, np.s_[22:42], axis=0) == 9).all()
    assert len(tiles_of(np.zeros((SIDE + 1, 2 * SIDE + 1, 3), dtype=np.uint8), SQUARE)) == 6


def pictures() -> list[np.ndarray]:
    """One of exactly the square, and one of two tiles that do not overlap."""
    return [*make_images(np.array([1]), seed=0), np.concatenate(list(make_images(np.array([0, 1]), seed=1)), axis=1)]


@pytest.mark.parametrize("method", ENCODERS)
def test_features_are_the_mean_over_tiles(method: str) -> None:
    tiles, one = small(method, resize="native"), small(method, resize="squash")
    assert tiles.geometry is None
    assert tiles.encoder is not None
    assert one.encoder is not None
    assert tiles.encoder.key != one.encoder.key
    first, wide = pictures()
    of_tiles = tiles.encoder.encode([first, wide])
    of_squares = one.encoder.encode(np.stack([first, wide[:, :SIDE], wide[:, SIDE:]]))
    np.testing.assert_allclose(of_tiles[0], of_squares[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(of_tiles[1], of_squares[1:].mean(axis=0), rtol=1e-4, atol=1e-5)
    assert tiles.cam_target() is None


def test_the_key_of_features_of_tiles_is_not_that_of_one_crop() -> None:
    encoder = small("timm_linear", resize="native").encoder
    assert isinstance(encoder, TiledEncoder)
    assert encoder.key.endswith("-tiles")
    assert "native" in encoder.key


def test_predictions_are_the_mean_over_tiles() -> None:
    tiles, one = (cast(NetworkDetector, small("xception_scratch", resize=resize)) for resize in ("native", "squash"))
    first, wide = pictures()
    of_tiles = tiles.predict(of_native_size([first, wide]))
    of_squares = one.predict(np.stack([first, wide[:, :SIDE], wide[:, SIDE:]]))
    for found, squares in zip(dataclasses.astuple(of_tiles), dataclasses.astuple(of_squares), strict=True):
        np.testing.assert_allclose(found[0], squares[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found[1], squares[1:].mean(axis=0), rtol=1e-4, atol=1e-5)
    assert tiles.cam_target() is None
    assert one.cam_target() is not None


def test_training_sees_another_part_of_a_picture_in_each_epoch_and_the_same_after_an_interruption() -> None:
    detector = cast(NetworkDetector, small("npr", size=SMALLER))
    train = examples(detector, 8, seed=1)
    index, flips = np.arange(len(train.labels)), np.zeros(len(train.labels), dtype=bool)
    first, again, later = (detector.training_rows(train, index, flips, epoch)[0].numpy() for epoch in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != later).any(axis=(1, 2, 3)).mean() > 0.5
    for row, picture in zip(first, train.inputs[index], strict=True):
        windows = np.lib.stride_tricks.sliding_window_view(picture, (SMALLER, SMALLER, 3))[:, :, 0]
        assert (windows == row).all(axis=(2, 3, 4)).any()


def test_an_interrupted_training_on_parts_of_pictures_ends_as_an_uninterrupted_one() -> None:
    def fit(recorder: Recorder) -> NetworkDetector:
        detector = cast(NetworkDetector, small("npr", size=SMALLER, epochs=2))
        detector.fit(examples(detector, 8, seed=1), examples(detector, 4, seed=2), recorder.session)
        return detector

    whole = Recorder(checkpoint_at=lambda count: count == 3)
    expected, inputs = fit(whole), of_native_size(list(make_images(np.array([0, 1]), seed=3)))
    resumed = fit(Recorder(resume=read_back(whole.states[0])))
    np.testing.assert_array_equal(resumed.predict(inputs).logits, expected.predict(inputs).logits)


def masked(**settings: Any) -> NetworkDetector:
    return cast(NetworkDetector, small("patch_head", supervision="mask", **settings))


def half_edited(detector: NetworkDetector, num_each: int, seed: int) -> tuple[Examples, MadeMasks]:
    """Fakes that are fake in their left half alone, with masks."""
    labels = make_labels(2, num_each, seed)
    images, reals = make_images(labels, seed), make_images(np.zeros_like(labels), seed + 100)
    images[:, :, SIDE // 2 :] = reals[:, :, SIDE // 2 :]
    masks = np.zeros((len(labels), SIDE, SIDE), dtype=bool)
    masks[labels == 1, :, : SIDE // 2] = True
    made = MadeMasks(list(masks))
    return Examples(detector.inputs(list(images)), labels, made), made


def test_patches_learn_from_masks() -> None:
    assert not reads_masks("patch_head", resolve_config("patch_head"))
    assert reads_masks("patch_head", resolve_config("patch_head", {"supervision": "mask"}))
    detector = masked(size=48, batch_size=8)
    train, _ = half_edited(detector, 32, seed=1)
    valid, _ = half_edited(detector, 8, seed=2)
    detector.fit(train, valid, FitSession())
    test, _ = half_edited(detector, 8, seed=3)
    scores = fake_scores(detector.predict(test.inputs).logits)
    assert cell_metrics(test.labels, scores)["auroc"] > 0.9
    maps = detector.maps(np.stack(list(test.inputs[test.labels == 1])))
    middle = maps.shape[2] // 2
    assert maps.dtype == np.float32
    assert maps[:, :, : middle - 1].mean() > 0 > maps[:, :, middle + 1 :].mean()


@pytest.mark.parametrize("flip", [False, True])
def test_targets_of_patches_follow_the_part_and_its_mirroring(flip: bool) -> None:
    detector = masked(size=SMALLER)
    train, masks = half_edited(detector, 4, seed=1)
    masks.masks = [*masks.masks[:-1], None]
    train = dataclasses.replace(train, labels=np.ones_like(train.labels))
    index = np.arange(len(train.labels))
    rows, targets = detector.training_rows(train, index, np.full(len(index), flip), epoch=1)
    rows = detector.prepared(rows, None if not flip else rows.new_ones(len(rows)).bool())
    assert targets.shape == (len(index), *detector._network.fc(detector.embed(rows)).shape[2:])
    assert (targets[-1] == UNKNOWN).all()
    seen = [detector.crop(mask, int(number), 1) for number, mask in enumerate(masks.masks[:-1])]
    for target, part in zip(targets.numpy(), seen, strict=False):
        assert target.mean() == pytest.approx(part.mean(), abs=0.1)
        if 0.2 < part.mean() < 0.8:  # the left of the part is fake, its right is not
            assert (target[:, 0] < target[:, -1]).all() if flip else (target[:, 0] > target[:, -1]).all()


def test_patches_that_learn_from_masks_refuse_to_go_without() -> None:
    detector = masked()
    train, masks = half_edited(detector, 4, seed=1)
    valid, _ = half_edited(detector, 4, seed=2)
    with pytest.raises(ValueError, match="learns from masks, and was given none"):
        detector.fit(dataclasses.replace(train, masks=None), valid, FitSession())
    masks.masks = [None] * len(masks.masks)
    with pytest.raises(ValueError, match="no training fake has a mask"):
        detector.fit(train, valid, FitSession())


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("npr", {"backbone": "test_vit"}, "name resnet50"),
        ("npr", {"size": 63}, "size must be even"),
        ("patch_head", {"backbone": "resnet18"}, "name legacy_xception"),
    ],
)
def test_other_networks_are_refused(method: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(method, **settings)


def test_as_published() -> None:
    npr, patches = (detector_info(name).config for name in ("npr", "patch_head"))
    assert (npr.backbone, npr.size, npr.epochs, npr.batch_size, npr.learning_rate) == ("resnet50", 224, 50, 32, 2e-4)
    assert (patches.blocks, patches.batch_size, patches.learning_rate, patches.epochs) == (2, 32, 1e-3, 50)
    rates = [cast(NetworkDetector, small("npr")).learning_rate(epoch, 0, 1) / 3e-3 for epoch in (1, 11, 12, 21, 22)]
    assert rates == pytest.approx([1, 1, 0.8, 0.8, 0.64])
