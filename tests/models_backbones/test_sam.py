from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from segment_anything import SamPredictor
from segment_anything.modeling import Sam

from models.backbones import sam as family
from models.detector import WeightsError
from models.encoding import FrozenEncoder
from models.registry import detector_info, resolve_config
from models.weights import file_digest
from tests.models_backbones.helpers import (
    as_file_weights,
    assert_gradient_reaches,
    assert_places_land,
    cam_activations,
    picture,
    sam_backbone,
)


def whole_state(encoder: torch.nn.Module) -> dict[str, torch.Tensor]:
    """In the format of the published files: a whole SAM, of which the other parts do not matter."""
    state = {f"image_encoder.{name}": tensor for name, tensor in encoder.state_dict().items()}
    return {**state, "prompt_encoder.not_a_point_embed.weight": torch.ones(1, 256), "mask_decoder.x": torch.ones(1)}


def test_features_are_the_necks_mean() -> None:
    backbone = sam_backbone("demo", weights="random", seed=1)
    x = picture(backbone, 2)
    with torch.no_grad():
        neck = backbone.network(x)
        features = backbone(x)
    assert neck.shape == (2, 64, 8, 8)
    assert features.shape == (2, backbone.num_features) == (2, 64)
    assert torch.allclose(features, neck.flatten(2).mean(dim=2), atol=1e-6)
    head = torch.nn.Linear(64, 2)
    places = head(neck.permute(0, 2, 3, 1))  # the same classifier at every place
    assert torch.allclose(head(features), places.mean(dim=(1, 2)), atol=1e-5)


def test_cam() -> None:
    backbone = sam_backbone("demo", weights="random", seed=1)
    assert backbone.cam()[1] is None
    with torch.no_grad():
        _, activations, _ = cam_activations(backbone, picture(backbone))
        assert torch.equal(activations, backbone.network(picture(backbone)))
    assert_places_land(backbone, within=1)  # the neck ends with a 3 x 3 convolution
    assert_gradient_reaches(backbone)


def test_preprocessing_is_sams() -> None:
    preprocessing = sam_backbone("demo", weights="random").preprocessing
    assert (preprocessing.size, preprocessing.policy, preprocessing.interpolation) == (64, "pad", "bilinear")
    assert [255 * value for value in preprocessing.mean] == pytest.approx([123.675, 116.28, 103.53])
    assert [255 * value for value in preprocessing.std] == pytest.approx([58.395, 57.12, 57.375])
    assert preprocessing.geometry.fill == (124, 116, 104)


@pytest.mark.parametrize("size", [64, 96, 48])
def test_attention_is_sams_own(size: int) -> None:
    """The same features and gradients as segment_anything's attention: windows, all places, resized distances."""
    backbone = sam_backbone("demo", weights="random", seed=1, size=size)
    for name, parameter in backbone.network.named_parameters():
        if "rel_pos" in name:  # zero in a new network
            torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(2))
    own = copy.deepcopy(backbone)
    for block in own.network.blocks:
        del block.attn.forward
    x = picture(backbone, 2).requires_grad_()
    features, expected = backbone(x), own(x)
    assert torch.allclose(features, expected, rtol=0, atol=2e-6)
    ((gradient,), (wanted,)) = (torch.autograd.grad(one.square().sum(), x) for one in (features, expected))
    assert torch.allclose(gradient, wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))
    torch.nn.init.zeros_(backbone.network.blocks[-1].attn.rel_pos_h)
    assert not torch.allclose(backbone(x), expected, rtol=0, atol=1e-4)  # the distances matter here


@pytest.mark.parametrize("shape", [(192, 256), (256, 192), (200, 256), (64, 64), (3, 250)])
def test_pictures_that_are_not_square_are_sams_own_predictors(shape: tuple[int, int]) -> None:
    """Filled up with zeros after normalisation, and the average is over the picture alone."""
    backbone = sam_backbone("demo", weights="random", seed=1)
    photograph = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    predictor = SamPredictor(Sam(backbone.network, torch.nn.Identity(), torch.nn.Identity()))
    predictor.set_image(photograph)
    encoder = FrozenEncoder(backbone)
    assert encoder.geometry is not None
    square = encoder.geometry.apply(photograph)
    height, width = predictor.input_size
    normalised = backbone.preprocessing.normalise(torch.from_numpy(square)[None])
    assert (normalised[:, :, height:] == 0).all()
    assert (normalised[:, :, :, width:] == 0).all()
    with torch.no_grad():
        neck = backbone.network(normalised[:, :3])
    assert torch.allclose(neck, predictor.features, atol=1e-5)
    # by hand: each of the 8 x 8 positions counts by the share of its 8 x 8 pixels that the picture covers
    rows, columns = ((np.minimum(8 * np.arange(8) + 8, n) - 8 * np.arange(8)).clip(0) / 8 for n in (height, width))
    expected = np.average(predictor.features[0].flatten(1).numpy(), axis=1, weights=np.outer(rows, columns).ravel())
    np.testing.assert_allclose(encoder.encode(square[None])[0], expected, atol=1e-5)


def test_square_pictures_have_the_features_that_they_always_had() -> None:
    backbone = sam_backbone("demo", weights="random", seed=1)
    encoder = FrozenEncoder(backbone)
    squares = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    assert encoder.geometry is not None
    marked = np.stack([encoder.geometry.apply(square) for square in squares])
    assert marked.shape == (3, 64, 64, 4)
    np.testing.assert_array_equal(encoder.encode(marked), encoder.encode(squares))
    with torch.no_grad():
        plain = backbone.network(backbone.preprocessing.normalise(torch.from_numpy(squares))).mean(dim=(2, 3))
    np.testing.assert_array_equal(encoder.encode(marked), plain.numpy())
    tall = encoder.geometry.apply(np.zeros((90, 40, 3), np.uint8))
    mixed = encoder.encode(np.stack([*marked, tall]))
    np.testing.assert_allclose(mixed[:3], plain.numpy(), atol=1e-6)


def test_a_trials_key_changes_where_pictures_are_not_square_and_are_filled_up() -> None:
    info = detector_info("sam_linear")
    assert info.for_pictures is not None
    for resize, fills in (("own", True), ("pad", True), ("squash", False), ("crop", False)):
        config = resolve_config("sam_linear", {"resize": resize})
        assert "padding" not in config
        assert info.for_pictures(config, square=True) == config
        assert info.for_pictures(config, square=False) == config | ({"padding": "zero"} if fills else {})


@pytest.mark.parametrize("prefix", ["", "model."])
@pytest.mark.parametrize("whole", [True, False])
def test_loads_a_whole_sam_or_its_encoder(tmp_path: Path, whole: bool, prefix: str) -> None:
    theirs = sam_backbone("demo", weights="random", seed=1)
    path = tmp_path / "sam.pth"
    state = whole_state(theirs.network) if whole else theirs.network.state_dict()
    torch.save({prefix + name: tensor for name, tensor in state.items()}, path)
    weights, files = as_file_weights(path)
    ours = sam_backbone("demo", weights=weights, weight_files=files, seed=2)
    x = picture(ours)
    assert torch.equal(ours(x), theirs(x))
    assert ours.weights_digest == file_digest(path)


def test_a_wrong_file_is_refused(tmp_path: Path) -> None:
    state = whole_state(sam_backbone("demo", weights="random").network)
    del state["image_encoder.neck.0.weight"]
    path = tmp_path / "sam.pth"
    torch.save(state, path)
    weights, files = as_file_weights(path)
    with pytest.raises(WeightsError, match=r"sam\.pth do not fit .*1 missing \(neck\.0\.weight \(64, 64, 1, 1\)\)"):
        sam_backbone("demo", weights=weights, weight_files=files)


def test_another_size() -> None:
    backbone = sam_backbone("demo", weights="random", size=96)
    assert backbone.preprocessing.size == 96
    with torch.no_grad():
        assert backbone.network(picture(backbone)).shape == (1, 64, 12, 12)
    assert_places_land(backbone, within=1)  # the neck ends with a 3 x 3 convolution
    with pytest.raises(ValueError, match="multiple of 8"):
        sam_backbone("demo", weights="random", size=60)


def test_weights_follow_from_the_seed_and_nothing_else() -> None:
    before = torch.get_rng_state()
    first = sam_backbone("demo", weights="random", seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    x = picture(first)
    assert torch.equal(first(x), sam_backbone("demo", weights="random", seed=5)(x))
    assert not torch.equal(first(x), sam_backbone("demo", weights="random", seed=6)(x))


def test_names_and_tags() -> None:
    with pytest.raises(ValueError, match="vit_b, vit_l, vit_h, demo"):
        sam_backbone("vit_s", weights="random")
    with pytest.raises(WeightsError, match="no published weights"):
        sam_backbone("demo", weights="hub")
    with pytest.raises(WeightsError, match="no tags"):
        sam_backbone("vit_b", weights="hub:sa1b")
    with pytest.raises(WeightsError, match="cannot fetch the weights of SAM vit_b"):
        sam_backbone("vit_b", weights="hub")


@pytest.mark.slow
@pytest.mark.long
def test_vit_b(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The genuine architecture: a whole SAM saved as published, fetched as from the hub, one picture of 1024 pixels."""
    from segment_anything import sam_model_registry

    sam = sam_model_registry["vit_b"]()
    path = tmp_path / "sam_vit_b_01ec64.pth"
    torch.save(sam.state_dict(), path)
    asked = []

    def fetch(url: str, *, what: str) -> Path:
        asked.append(url)
        return path

    monkeypatch.setattr(family, "url_file", fetch)
    backbone = sam_backbone("vit_b", weights="hub")
    assert asked == ["https://dl.fbaipublicfiles.com/segment_anything/sam_vit_b_01ec64.pth"]
    theirs = sam.image_encoder.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in backbone.network.state_dict().items())
    assert (backbone.preprocessing.size, backbone.num_features) == (1024, 256)
    assert torch.allclose(255 * torch.tensor(backbone.preprocessing.mean), sam.pixel_mean.flatten(), atol=1e-3)
    with torch.inference_mode():
        features, activations, _ = cam_activations(backbone, picture(backbone))
    assert features.shape == (1, 256)
    assert activations.shape == (1, 256, 64, 64)
