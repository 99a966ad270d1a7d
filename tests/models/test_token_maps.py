"""Methods that learn from masks, on a plant: fakes whose edited region has a strong pattern."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from models.backbones import load_backbone
from models.backbones.base import BackboneRequest
from models.detector import Detector, Examples, FitSession, fake_scores
from models.localisation import RankedMap
from models.maps import over_picture
from models.registry import resolve_config
from models.scoring import cell_metrics
from models.tokens import PatchTokens
from tests.models.toys import DETECTION, SIDE, MadeMasks, Recorder, read_back, small


def planted(num_each: int, seed: int) -> tuple[np.ndarray, np.ndarray, list[np.ndarray | None]]:
    """Photographs of coarse noise; in a fake, a rectangle has fine stripes. (Pixels, labels, masks.)"""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat([0, 1], num_each))
    coarse = rng.normal(128, 25, (len(labels), SIDE // 8, SIDE // 8, 3))
    images = coarse.repeat(8, axis=1).repeat(8, axis=2)
    masks = list[np.ndarray | None]()
    stripes = 60.0 * (np.arange(SIDE) % 2)[:, None, None]
    for image, label in zip(images, labels, strict=True):
        mask = np.zeros((SIDE, SIDE), dtype=bool)
        if label:
            top, left = 8 * rng.integers(0, 4, 2)
            height, width = 8 * rng.integers(2, 5, 2)
            mask[top : top + height, left : left + width] = True
            image += stripes * mask[:, :, None]
        masks.append(mask)
    return images.clip(0, 255).astype(np.uint8), labels, masks


def fitted(name: str, **overrides: object) -> tuple[Detector, Recorder]:
    detector, recorder = small(name, **overrides), Recorder()
    parts = []
    for num, seed in ((40, 1), (12, 2)):
        images, labels, masks = planted(num, seed)
        parts.append(Examples(images, labels, MadeMasks(masks)))
    detector.fit(*parts, recorder.session)
    return detector, recorder


@pytest.mark.parametrize(("name", "overrides"), [("mask_linear", {}), ("mask_decoder", {"epochs": 12})])
def test_a_planted_region_is_found(name: str, overrides: dict[str, object]) -> None:
    """Random weights are enough for stripes; a map that ignored the masks would reach the masks' share, 0.14."""
    detector, _ = fitted(name, **overrides)
    images, labels, masks = planted(20, 3)
    maps = detector.maps(images)
    assert maps is not None
    numbers = [
        RankedMap(over_picture(cells, detector.geometry, mask.shape)).measure(mask, {"fixed": 0.0})
        for cells, mask in zip(maps, masks, strict=True)
        if mask is not None and mask.any()
    ]
    assert np.mean([each["iou_fixed"] for each in numbers]) > 0.7
    assert np.mean([each["ap"] for each in numbers]) > 0.9
    assert (maps[labels == 0] > 0).mean() < 0.02  # and next to nothing in real pictures
    assert cell_metrics(labels, fake_scores(detector.predict(images).logits))["auroc"] > 0.95


def test_a_fake_without_a_mask_teaches_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Its tokens are left out: the fit is that of the other pictures, whatever such a fake shows."""
    images, labels, masks = planted(10, 1)
    valid = Examples(*_arrays(planted(6, 2)))
    extra = np.concatenate([images, 255 - images[labels == 1][:3]])
    more = np.concatenate([labels, [1, 1, 1]])
    with caplog.at_level(logging.WARNING):
        maps = []
        for train in (
            Examples(images, labels, MadeMasks(masks)),
            Examples(extra, more, MadeMasks([*masks, None, None, None])),
        ):
            detector = small("mask_linear")
            detector.fit(train, valid, FitSession())
            maps.append(detector.maps(images))
    np.testing.assert_allclose(maps[0], maps[1], atol=1e-6)
    assert "3 of 13 training fakes have no mask; nothing is learnt from them" in caplog.text


def _arrays(made: tuple[np.ndarray, np.ndarray, list[np.ndarray | None]]) -> tuple[np.ndarray, np.ndarray, MadeMasks]:
    images, labels, masks = made
    return images, labels, MadeMasks(masks)


def test_empty_masks_give_finite_maps() -> None:
    """As where real pictures are labelled fake, in a null control: nothing is found, and every number is finite."""
    images, labels, masks = planted(8, 1)
    blank = MadeMasks([np.zeros((SIDE, SIDE), dtype=bool) for _ in masks])
    for name in ("mask_linear", "mask_decoder"):
        detector = small(name)
        detector.fit(Examples(images, labels, blank), Examples(images, labels, blank), FitSession())
        assert np.isfinite(detector.predict(images).logits).all()
        maps = detector.maps(images)
        assert maps is not None
        assert np.isfinite(maps).all()
        assert (maps < 0).all()


def test_fewer_tokens_than_there_are() -> None:
    detector, _ = fitted("mask_linear", tokens=800)
    assert detector.maps(planted(2, 3)[0]).shape == (4, 8, 8)


@pytest.mark.parametrize("stop", [1, 4])
def test_an_interrupted_training_ends_as_an_uninterrupted_one(stop: int) -> None:
    quick = {"epochs": 2, "batch_size": 32}
    images, labels, masks = planted(40, 1)
    train, valid = Examples(images, labels, MadeMasks(masks)), Examples(*_arrays(planted(6, 2)))
    whole = small("mask_decoder", **quick)
    whole.fit(train, valid, FitSession())
    first = Recorder(checkpoint_at=lambda count: count == stop)
    small("mask_decoder", **quick).fit(train, valid, first.session)
    again, recorder = small("mask_decoder", **quick), Recorder(resume=read_back(first.states[0]))
    again.fit(train, valid, recorder.session)
    np.testing.assert_array_equal(again.predict(images).logits, whole.predict(images).logits)
    np.testing.assert_array_equal(again.maps(images), whole.maps(images))


def test_the_learning_rate_falls_and_training_ends() -> None:
    """The masks of validation are the other way round: what is learnt makes its loss larger."""
    images, labels, masks = planted(12, 1)
    turned = [~mask if mask is not None and mask.any() else mask for mask in masks]
    recorder = Recorder()
    small("mask_decoder", epochs=40, patience=1).fit(
        Examples(images, labels, MadeMasks(masks)), Examples(images, labels, MadeMasks(turned)), recorder.session
    )
    rates = [metrics["learning_rate"] for _, metrics in recorder.epochs]
    assert len(rates) < 20
    assert sorted(set(rates), reverse=True) == pytest.approx([1e-2, 1e-3, 1e-4, 1e-5])  # a thousandth is the last


def test_the_published_decoder() -> None:
    """Four stages of five convolutions, from 16 x 16 tokens to a logit per pixel of 256 x 256."""
    from models.configs import MaskDecoderConfig
    from models.token_decoder import make_decoder

    with torch.device("meta"):
        decoder = make_decoder(1024, MaskDecoderConfig(), num_outputs=1)
        found = decoder(torch.empty(1, 1024, 16, 16))
    assert found.shape == (1, 1, 256, 256)
    assert sum(isinstance(layer, torch.nn.Conv2d) for layer in decoder) == 21
    stages = [(1024, 512), (512, 256), (256, 128), (128, 64)]
    weights = sum(25 * (a * b + 4 * b * b) + 5 * b + 10 * b for a, b in stages) + 25 * 64 + 1
    assert sum(parameter.numel() for parameter in decoder.parameters()) == weights


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"depth": "0"}, "depth must be above 0"),
        ({"depth": "1.5"}, "depth must be at most 1"),
        ({"family": "sam"}, "'open_clip', 'timm'"),
        ({"family": "timm", "mean": "0.5,0.5,0.5"}, "timm's networks bring their own mean"),
    ],
)
def test_what_is_refused(overrides: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolve_config("mask_linear", overrides)


@pytest.mark.parametrize("channels", ["", "512,", "0", "a"])
def test_channels_are_whole_numbers(channels: str) -> None:
    with pytest.raises(ValueError, match="whole numbers above 0"):
        resolve_config("mask_decoder", {"channels": channels})


@pytest.mark.parametrize(("depth", "block"), [(1.0, 4), (0.75, 3), (0.875, 4), (0.5, 2), (0.1, 1)])
def test_the_depth_is_rounded_up_to_a_block(depth: float, block: int) -> None:
    tokens = PatchTokens(load_backbone("open_clip", BackboneRequest("demo-vit-64", "random")), depth)
    assert (tokens.block, tokens.cells, tokens.width) == (block, (8, 8), 128)


def test_tokens_are_those_that_the_block_leaves() -> None:
    backbone = load_backbone("open_clip", BackboneRequest("demo-vit-64", "random"))
    left: list[torch.Tensor] = []
    block = backbone.network.transformer.resblocks[1]  # type: ignore[union-attr,index]
    handle = block.register_forward_hook(lambda module, inputs, output: left.append(output))  # type: ignore[union-attr]
    pictures = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found = PatchTokens(backbone, 0.5)(pictures)
    handle.remove()
    expected = left[-1][:, 1:].reshape(2, 8, 8, 128).permute(0, 3, 1, 2)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("backbone", "depth", "block", "cells", "width"),
    [("test_vit", 0.5, 3, (10, 10), 64), ("test_resnet", 0.6, 3, (20, 20), 48), ("test_resnet", 1.0, 5, (5, 5), 96)],
)
def test_tokens_of_timm(backbone: str, depth: float, block: int, cells: tuple[int, int], width: int) -> None:
    """Blocks of a vision transformer, as of DINO; stages of a convolutional network."""
    found = PatchTokens(load_backbone("timm", BackboneRequest(backbone, "random")), depth)
    assert (found.block, found.cells, found.width) == (block, cells, width)
    detector = small("mask_linear", family="timm", backbone=backbone, weights="random", depth=depth)
    assert (detector.token_cells, detector.classes) == (cells, DETECTION)  # type: ignore[attr-defined]


def test_a_network_without_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match="RN50 has no patch tokens that can be read: name a vision transformer"):
        small("mask_linear", backbone="RN50", weights="random")
