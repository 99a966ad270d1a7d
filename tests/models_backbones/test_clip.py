from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from models.backbones import open_clip as family
from models.backbones.base import Backbone, TokenGrid
from models.configs import LinearConfig, colours
from models.detector import WeightsError
from models.registry import resolve_config
from models.weights import file_digest
from tests.models_backbones import helpers
from tests.models_backbones.helpers import (
    as_file_weights,
    assert_gradient_reaches,
    assert_places_land,
    cam_activations,
    picture,
)

_TEXT = {"context_length": 8, "vocab_size": 32, "width": 16, "heads": 2, "layers": 1}
_VISION = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
_CONFIGS: dict[str, dict[str, Any]] = {
    "tiny-vit": {"embed_dim": 24, "vision_cfg": _VISION, "text_cfg": _TEXT},
    "tiny-vit-quickgelu": {"embed_dim": 24, "quick_gelu": True, "vision_cfg": _VISION, "text_cfg": _TEXT},
    "tiny-resnet": {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8},
        "text_cfg": _TEXT,
    },
    "tiny-timm": {
        "embed_dim": 24,
        "custom_text": True,
        "vision_cfg": {
            "timm_model_name": "test_vit",
            "timm_model_pretrained": False,
            "timm_pool": "",
            "timm_proj": "linear",
            "image_size": 160,
        },
        "text_cfg": _TEXT,
    },
    "tiny-siglip": {
        "embed_dim": 64,
        "custom_text": True,
        "init_logit_bias": -10,
        "vision_cfg": {
            "timm_model_name": "test_vit3",
            "timm_model_pretrained": False,
            "timm_pool": "map",
            "timm_proj": "none",
            "image_size": 160,
        },
        "text_cfg": _TEXT,
    },
    "tiny-coca": {
        "embed_dim": 24,
        "vision_cfg": {**_VISION, "attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True},
        "text_cfg": {**_TEXT, "embed_cls": True, "output_tokens": True},
        "multimodal_cfg": {"context_length": 8, "vocab_size": 32, "width": 16, "heads": 2, "layers": 1},
        "custom_text": True,
    },
}

# How pictures are prepared for the architectures above, of which no weights are published.
GIVEN = {"mean": "0.4,0.5,0.6", "std": "0.1,0.2,0.3", "interpolation": "bicubic", "policy": "crop"}


def clip_backbone(name: str, **request: Any) -> Backbone:
    given = GIVEN if name in _CONFIGS and not request["weights"].startswith("hub") else {}
    return helpers.clip_backbone(name, **{**given, **request})


@pytest.fixture(scope="module", autouse=True)
def tiny_architectures(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("architectures")
    for name, config in _CONFIGS.items():
        (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)


def whole_model(name: str) -> torch.nn.Module:
    """With its text tower, with random weights, as open_clip makes it."""
    return open_clip.create_model(name, pretrained_image=False, pretrained_text=False).eval()


def saved(model: torch.nn.Module, path: Path) -> Path:
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize("name", [*_CONFIGS, "demo-vit-64"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_features_are_encode_image(tmp_path: Path, name: str, suffix: str) -> None:
    family.register_architectures()
    theirs = whole_model(name)
    weights, files = as_file_weights(saved(theirs, tmp_path / f"model{suffix}"))
    ours = clip_backbone(name, weights=weights, weight_files=files)
    x = picture(ours, 2)
    with torch.no_grad():
        expected = theirs._encode_image(x, normalize=False)[0] if name == "tiny-coca" else theirs.encode_image(x)
        features = ours(x)
    assert features.shape == (2, ours.num_features)
    assert torch.allclose(features, expected, atol=1e-5)
    assert not torch.allclose(features.norm(dim=1), torch.ones(2), atol=1e-3)
    names = dict(ours.named_parameters())
    assert all(key.startswith("network.") for key in names)
    assert not any("token_embedding" in key for key in names)  # the text tower is gone
    assert ours.weights_digest == file_digest(next(iter(files.values())))


def test_a_whole_model_inside_another_program_loads(tmp_path: Path) -> None:
    """Its text tower has blocks of the same names as the image tower."""
    family.register_architectures()
    theirs = whole_model("demo-vit-64")
    path = tmp_path / "model.pt"
    torch.save({"model_state_dict": {f"clip.{name}": value for name, value in theirs.state_dict().items()}}, path)
    weights, files = as_file_weights(path)
    ours = clip_backbone("demo-vit-64", weights=weights, weight_files=files)
    x = picture(ours, 2)
    with torch.no_grad():
        assert torch.allclose(ours(x), theirs.encode_image(x), atol=1e-5)


@pytest.mark.parametrize("name", [*_CONFIGS, "demo-vit-64"])
def test_cam(name: str) -> None:
    backbone = clip_backbone(name, weights="random", seed=1)
    _, _, grid = cam_activations(backbone, picture(backbone, 2))
    assert grid.shape[0] == 2
    assert grid.shape[2] == grid.shape[3] > 1
    assert_gradient_reaches(backbone)
    if name != "tiny-resnet":
        assert_places_land(backbone)


def test_behind_the_last_block_patches_get_no_gradient() -> None:
    """Why the CAM layer is the last block's first norm."""
    backbone = clip_backbone("demo-vit-64", weights="random")
    block: Any = backbone.network.transformer.resblocks[-1]  # type: ignore[union-attr]
    seen: list[torch.Tensor] = []
    block.register_forward_hook(lambda module, inputs, output: seen.append(output))
    features = backbone(picture(backbone).requires_grad_())
    (gradient,) = torch.autograd.grad(features.square().sum(), seen[0])
    assert gradient[:, 0].abs().sum() > 0
    assert gradient[:, 1:].abs().sum() == 0


def test_the_other_layout_of_tokens() -> None:
    backbone = clip_backbone("tiny-vit", weights="random")
    transformer: Any = backbone.network.transformer
    assert backbone.cam()[1] == TokenGrid(1, batch_first=True)
    transformer.batch_first = False
    for block in transformer.resblocks:
        block.attn.batch_first = False
    assert backbone.cam()[1] == TokenGrid(1, batch_first=False)
    assert_places_land(backbone)


def test_preprocessing_is_the_models_own() -> None:
    preprocessing = clip_backbone("demo-vit-64", weights="random").preprocessing
    assert preprocessing.size == 64
    assert preprocessing.mean == open_clip.OPENAI_DATASET_MEAN
    assert preprocessing.std == open_clip.OPENAI_DATASET_STD
    assert (preprocessing.interpolation, preprocessing.policy) == ("bicubic", "crop")
    assert clip_backbone("demo-vit-64", weights="random", policy="squash").preprocessing.policy == "squash"


def test_another_size(tmp_path: Path) -> None:
    for name, size in [("tiny-vit", 64), ("tiny-timm", 96)]:
        theirs = whole_model(name)
        path = saved(theirs, tmp_path / f"{name}.safetensors")
        weights, files = as_file_weights(path)
        backbone = clip_backbone(name, weights=weights, weight_files=files, size=size)
        assert backbone.preprocessing.size == size
        larger = open_clip.create_model(
            name, pretrained=str(path), force_image_size=size, pretrained_image=False
        ).eval()
        x = picture(backbone)
        with torch.no_grad():
            assert torch.allclose(backbone(x), larger.encode_image(x), atol=1e-5)
        assert_places_land(backbone)


def test_weights_follow_from_the_seed_and_nothing_else() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = clip_backbone("tiny-vit", weights="random", seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    again = clip_backbone("tiny-vit", weights="random", seed=5)
    x = picture(first)
    assert torch.equal(first(x), again(x))
    assert not torch.equal(first(x), clip_backbone("tiny-vit", weights="random", seed=6)(x))
    assert (first.weights_digest, first.weights_note) == ("random-5", "random weights")


def test_open_clip_does_not_speak_of_missing_weights(caplog: pytest.LogCaptureFixture) -> None:
    filters = list(logging.getLogger().filters)
    with caplog.at_level(logging.INFO):
        clip_backbone("tiny-vit", weights="random")
    assert not caplog.records
    assert logging.getLogger().filters == filters


def test_a_file_of_another_model_is_refused(tmp_path: Path) -> None:
    weights, files = as_file_weights(saved(whole_model("tiny-resnet"), tmp_path / "model.pt"))
    with pytest.raises(WeightsError, match=r"model\.pt do not fit .*missing .*unexpected"):
        clip_backbone("tiny-vit", weights=weights, weight_files=files)
    model = whole_model("demo-vit-64")
    weights, files = as_file_weights(saved(model, tmp_path / "other.pt"))
    with pytest.raises(WeightsError, match=r"of another shape \(class_embedding is \(128,\), not \(32,\)"):
        clip_backbone("tiny-vit", weights=weights, weight_files=files)


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match=r"near it: .*ViT-L-14"):
        clip_backbone("ViT-L14", weights="random")
    with pytest.raises(WeightsError, match="its tags are: openai, yfcc15m, cc12m"):
        clip_backbone("RN50", weights="hub:laion")
    with pytest.raises(WeightsError, match="has no published weights; give it a file, or random ones"):
        clip_backbone("tiny-vit", weights="hub")
    with pytest.raises(WeightsError, match="use weights 'hub'"):
        clip_backbone("hf-hub:owner/name", weights="hub:openai")


# How pictures are prepared


def test_weights_that_do_not_say_it_are_prepared_for_as_all_published_ones_of_their_architecture() -> None:
    """Over all architectures of open_clip: no value is used that one of the published tags contradicts."""
    family.register_architectures()
    unknown = {}
    for name in set(open_clip.list_models()) - {*_CONFIGS, "demo-vit-64"}:
        tags = [open_clip.get_pretrained_cfg(name, tag) for tag in open_clip.list_pretrained_tags_by_model(name)]
        config = resolve_or_ask(name)
        if isinstance(config, str):
            unknown[name] = config
            assert len({(tag["mean"], tag["std"], tag["interpolation"], tag["resize_mode"]) for tag in tags}) != 1
            continue
        used = (
            colours(config["mean"]) if "mean" in config else open_clip.OPENAI_DATASET_MEAN,
            colours(config["std"]) if "std" in config else open_clip.OPENAI_DATASET_STD,
            config.get("interpolation", "bicubic"),
            {"own": "shortest", "squash": "squash"}[config["resize"]],
        )
        assert {(tag["mean"], tag["std"], tag["interpolation"], tag["resize_mode"]) for tag in tags} == {used}
    differ = {name for name in unknown if open_clip.list_pretrained_tags_by_model(name)}
    assert differ == {"ViT-L-14", "ViT-H-14", "ViT-H-14-quickgelu"}
    assert unknown["ViT-L-14"].endswith("--set clip_linear.mean=R,G,B --set clip_linear.std=R,G,B")
    assert unknown["ViT-H-14"].endswith("--set clip_linear.resize=crop|squash|pad")
    assert "none of its weights are published" in unknown["ViT-S-32"]


def resolve_or_ask(name: str, **settings: str) -> dict[str, Any] | str:
    """The configuration of a trial on this architecture with weights from a file, or the message that asks for more."""
    try:
        return resolve_config("clip_linear", {"backbone": name, "weights": "file:0123", **settings})
    except ValueError as error:
        return str(error)


HALF = {"mean": "0.5,0.5,0.5", "std": "0.5,0.5,0.5", "resize": "squash"}


@pytest.mark.parametrize(
    ("name", "added"),
    [
        ("ViT-L-14-quickgelu", {}),
        ("ViT-B-32", {}),
        ("ViT-B-16-SigLIP", {"mean": "0.5,0.5,0.5", "std": "0.5,0.5,0.5", "resize": "squash"}),
        ("ViT-B-16-SigLIP2", {"mean": "0.5,0.5,0.5", "std": "0.5,0.5,0.5", "resize": "squash"}),
        (
            "PE-Core-B-16",
            {"mean": "0.5,0.5,0.5", "std": "0.5,0.5,0.5", "interpolation": "bilinear", "resize": "squash"},
        ),
        ("MobileCLIP-S1", {"mean": "0.0,0.0,0.0", "std": "1.0,1.0,1.0", "interpolation": "bilinear"}),
        ("MobileCLIP2-S3", {"interpolation": "bilinear"}),
    ],
)
def test_a_trials_key_changes_where_openais_preparation_was_wrong(name: str, added: dict[str, str]) -> None:
    before = {**dataclasses.asdict(LinearConfig()), "backbone": name, "weights": "file:0123"}
    assert resolve_or_ask(name) == {**before, **added}
    assert resolve_or_ask(name, **added) == {**before, **added}  # the settings of a finished run repeat it


def test_a_preparation_that_is_not_known_is_asked_for_and_taken(tmp_path: Path) -> None:
    weights, files = as_file_weights(saved(whole_model("tiny-vit"), tmp_path / "model.pt"))
    asked = r"tiny-vit: the mean and std and interpolation and resize .*--set METHOD.mean=R,G,B --set METHOD.std=R,G,B"
    with pytest.raises(ValueError, match=asked):
        helpers.clip_backbone("tiny-vit", weights=weights, weight_files=files)
    with pytest.raises(ValueError, match="the std that"):
        helpers.clip_backbone("tiny-vit", weights="random", **{**GIVEN, "std": None})
    preprocessing = clip_backbone("tiny-vit", weights=weights, weight_files=files).preprocessing
    assert (preprocessing.mean, preprocessing.std) == ((0.4, 0.5, 0.6), (0.1, 0.2, 0.3))
    assert resolve_config("clip_linear", {"mean": " .5,0.48145466, 0.25"})["mean"] == "0.5,0.48145466,0.25"
    for setting, wrong, words in (("mean", "0.5", "three numbers R,G,B"), ("std", "58,57,57", "from 0 to 1")):
        with pytest.raises(ValueError, match=f"clip_linear.{setting} must be .*{words}"):
            resolve_config("clip_linear", {setting: wrong})


@pytest.mark.parametrize("published", ["ViT-B-16-SigLIP", "PE-Core-B-16", "MobileCLIP-S1"])
def test_pixels_of_other_towers_are_open_clips(published: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tag = open_clip.get_pretrained_cfg(published, open_clip.list_pretrained_tags_by_model(published)[0])
    monkeypatch.setattr(open_clip, "list_pretrained_tags_by_model", lambda name: ["a"])
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda name, asked: tag)
    preprocessing = helpers.clip_backbone("tiny-siglip", weights="random").preprocessing
    fields = {field: tag[field] for field in ("mean", "std", "interpolation", "resize_mode")}
    theirs = open_clip.transform.image_transform_v2(open_clip.transform.PreprocessCfg(size=160, **fields), False)
    photograph = np.random.default_rng(0).integers(0, 256, (120, 180, 3), dtype=np.uint8)
    ours = preprocessing.normalise(torch.tensor(preprocessing.geometry.apply(photograph))[None])[0]
    assert torch.allclose(ours, theirs(Image.fromarray(photograph)), atol=1e-6)


# QuickGELU


def test_openai_weights_are_refused_without_quickgelu() -> None:
    with pytest.raises(WeightsError, match=r"needs QuickGELU.*use 'ViT-L-14-quickgelu'"):
        clip_backbone("ViT-L-14", weights="hub:openai")
    with pytest.raises(WeightsError, match=r"must not have QuickGELU"):
        family.refuse_other_activation("ViT-B-32-quickgelu", "the weights 'laion2b'", False)
    family.refuse_other_activation("RN50", "the weights", True)  # ResNets have no GELU


class _Archive(torch.nn.Module):
    """Has what OpenAI's TorchScript files have: a model and three numbers."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.visual = model.visual
        for name, value in [("input_resolution", 32), ("context_length", 8), ("vocab_size", 32)]:
            self.register_buffer(name, torch.tensor(value))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.visual(x)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::torch.jit.TracerWarning")
def test_openais_own_archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = whole_model("tiny-vit-quickgelu")
    path = tmp_path / "ViT.pt"
    torch.jit.trace(_Archive(theirs).eval(), torch.zeros(1, 3, 32, 32), check_trace=False).save(str(path))
    weights, files = as_file_weights(path)
    with pytest.raises(WeightsError, match="TorchScript archive"):
        clip_backbone("tiny-vit-quickgelu", weights=weights, weight_files=files)

    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(family, "openai_archives", lambda: frozenset([digest]))
    with pytest.raises(WeightsError, match=r"needs QuickGELU.*use 'tiny-vit-quickgelu'"):
        clip_backbone("tiny-vit", weights=weights, weight_files=files)
    backbone = clip_backbone("tiny-vit-quickgelu", weights=weights, weight_files=files)
    x = picture(backbone)
    with torch.no_grad():
        assert torch.allclose(backbone(x), theirs.encode_image(x), atol=1e-5)


def test_openais_archives_re_saved_as_a_state_dict(tmp_path: Path) -> None:
    path = tmp_path / "ViT.pt"
    torch.save(_Archive(whole_model("tiny-vit-quickgelu")).half().state_dict(), path)
    weights, files = as_file_weights(path)
    with pytest.raises(WeightsError, match="needs QuickGELU"):
        clip_backbone("tiny-vit", weights=weights, weight_files=files)
    backbone = clip_backbone("tiny-vit-quickgelu", weights=weights, weight_files=files)
    assert next(backbone.parameters()).dtype == torch.float32


def test_the_digests_of_openais_archives_are_whole() -> None:
    digests = family.openai_archives()
    assert "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836" in digests  # ViT-L/14, from openai/CLIP
    assert all(len(digest) == 64 and int(digest, 16) for digest in digests)
    assert len(digests) == 9


# The hub


def test_a_tag_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = whole_model("tiny-vit-quickgelu")
    path = saved(theirs, tmp_path / "open_clip_model.safetensors")
    tag = {"hf_hub": "owner/name/", "quick_gelu": True, "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "size": 999}
    monkeypatch.setattr(open_clip, "list_pretrained_tags_by_model", lambda name: ["openai"])
    tag |= {"interpolation": "bicubic", "resize_mode": "squash"}
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda name, asked: tag)
    asked = []

    def fetch(repository: str, names: tuple[str, ...], *, what: str) -> Path:
        asked.append((repository, tuple(names)))
        return path

    monkeypatch.setattr(family, "hub_file", fetch)
    backbone = clip_backbone("tiny-vit-quickgelu", weights="hub")
    assert asked == [("owner/name", ("open_clip_model.safetensors", "open_clip_pytorch_model.bin"))]
    assert (backbone.preprocessing.mean, backbone.preprocessing.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert (backbone.preprocessing.size, backbone.preprocessing.policy) == (32, "squash")
    assert (backbone.weights_note, backbone.weights_digest) == ("hub weights (openai)", file_digest(path))
    with pytest.raises(ValueError, match="'openai' of tiny-vit-quickgelu bring their own mean: do not set it"):
        clip_backbone("tiny-vit-quickgelu", weights="hub", mean="0.5,0.5,0.5")
    x = picture(backbone)
    with torch.no_grad():
        assert torch.allclose(backbone(x), theirs.encode_image(x), atol=1e-5)


def test_a_model_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = whole_model("tiny-vit")
    saved(theirs, tmp_path / "open_clip_model.safetensors")
    config = {"model_cfg": _CONFIGS["tiny-vit"], "preprocess_cfg": {"mean": [0.1] * 3, "std": [0.2] * 3}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    monkeypatch.setattr(family, "hub_file", lambda repository, names, *, what: tmp_path / names[0])
    backbone = clip_backbone("hf-hub:owner/name", weights="hub")
    assert backbone.preprocessing.mean == (0.1, 0.1, 0.1)
    assert backbone.weights_note == "hub weights (owner/name)"
    x = picture(backbone)
    with torch.no_grad():
        assert torch.allclose(backbone(x), theirs.encode_image(x), atol=1e-5)
    local = clip_backbone(f"local-dir:{tmp_path}", weights="random", seed=2)
    assert local.preprocessing == backbone.preprocessing
    del config["preprocess_cfg"]["std"]
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"the std that .*config.json does not say it.*--set METHOD.std=R,G,B$"):
        clip_backbone(f"local-dir:{tmp_path}", weights="random")


@pytest.mark.slow
def test_vit_b_32(tmp_path: Path) -> None:
    theirs = whole_model("ViT-B-32-quickgelu")
    weights, files = as_file_weights(saved(theirs, tmp_path / "open_clip_model.safetensors"))
    backbone = clip_backbone("ViT-B-32-quickgelu", weights=weights, weight_files=files)
    assert (backbone.num_features, backbone.preprocessing.size) == (512, 224)
    x = picture(backbone, 2)
    with torch.no_grad():
        assert torch.allclose(backbone(x), theirs.encode_image(x), atol=1e-4)
        assert cam_activations(backbone, x)[2].shape == (2, 768, 7, 7)
