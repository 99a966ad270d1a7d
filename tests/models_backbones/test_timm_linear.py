"""The features of `timm_linear` are timm's own, whatever the kind of network."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import timm
import torch

from models.detector import BuildContext
from models.encoding import FrozenEncoder
from models.linear import LinearDetector
from models.registry import create_detector, detector_info, resolve_config

# Name, size, and what the features are.
KINDS = [
    ("test_vit", 64, "the class token"),
    ("test_vit2", 64, "the mean of the patch tokens, normalised"),
    ("vit_pe_core_tiny_patch16_384", 64, "the Perception Encoder's attention pool"),
    ("vit_dpwee_patch16_reg1_gap_256", 64, "the mean of the patch tokens, without one register"),
    ("test_convnext", 64, "the mean of a convolutional map"),
    ("mobilenetv3_small_050", 64, "convolutions after the pool"),
]


def encoder(backbone: str, size: int) -> FrozenEncoder:
    settings = {"backbone": backbone, "size": size, "weights": "random"}
    detector = create_detector("timm_linear", resolve_config("timm_linear", settings), BuildContext(("real", "fake")))
    return cast(FrozenEncoder, cast(LinearDetector, detector).encoder)


@pytest.mark.parametrize(("name", "size", "what"), KINDS, ids=[kind[0] for kind in KINDS])
def test_features_are_the_input_of_timms_classifier(name: str, size: int, what: str) -> None:
    ours = encoder(name, size)
    options: dict[str, Any] = {"img_size": size} if timm.get_pretrained_cfg(name).fixed_input_size else {}
    theirs = timm.create_model(name, **options).eval()
    own = ours.backbone.network.state_dict()
    missing = theirs.load_state_dict(own, strict=False)
    assert not missing.unexpected_keys
    assert {key.partition(".")[0] for key in missing.missing_keys} <= {"head", "classifier"}
    pixels = np.random.default_rng(0).integers(0, 256, (3, size, size, 3), dtype=np.uint8)
    with torch.inference_mode():
        pictures = ours.backbone.preprocessing.normalise(torch.from_numpy(pixels))
        expected = theirs.forward_head(theirs.forward_features(pictures), pre_logits=True).numpy()
    np.testing.assert_allclose(ours.encode(pixels), expected, atol=1e-5)
    assert np.ptp(expected, axis=0).max() > 1e-3  # the pictures differ


def test_the_default_is_dinov2_with_registers() -> None:
    config = detector_info("timm_linear").config
    published = timm.get_pretrained_cfg(config.backbone)
    assert config.weights == "hub"
    assert published is not None
    assert published.tag == "lvd142m"
    with torch.device("meta"):
        network = timm.create_model(config.backbone.partition(".")[0], num_classes=0)
    assert network.num_reg_tokens == 4
    assert network.global_pool == "token"


@pytest.mark.parametrize("name", ["vit_base_patch16_dinov3.lvd1689m", "vit_pe_core_large_patch14_336.fb"])
def test_names_of_other_families_are_published(name: str) -> None:
    assert timm.get_pretrained_cfg(name) is not None
    assert name.partition(".")[2] in {published.partition(".")[2] for published in timm.list_pretrained()}
