"""open_clip's image towers, and OpenAI's own CLIP files."""

from __future__ import annotations

import contextlib
import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.backbones import register_family
from models.backbones.base import Backbone, BackboneRequest, Cam, TokenGrid, nearest, seeded, three
from models.backbones.timm import timm_cam
from models.detector import WeightsError
from models.preprocessing import Preprocessing
from models.weights import (
    WeightsSource,
    file_digest,
    hub_file,
    is_torchscript,
    load_strictly,
    local_source,
    read_state_dict,
    url_file,
    weights_note,
    without_prefix,
)

ARCHITECTURES = Path(__file__).parents[1] / "architectures"
# Instead of the architecture's own text tower, which would be built, filled with random numbers and thrown away.
_NO_TEXT = {"context_length": 1, "vocab_size": 1, "width": 8, "heads": 1, "layers": 1}
_OPENAI_ENTRIES = ("input_resolution", "context_length", "vocab_size")
_POLICIES = {"shortest": "crop", "squash": "squash", "longest": "pad"}


@register_family("open_clip")
def clip_backbone(request: BackboneRequest) -> Backbone:
    """The image tower of an open_clip model; features are `encode_image`, before L2 normalisation.

    Any architecture of open_clip works (vision transformers, ResNets, timm towers such as SigLIP), "hf-hub:owner/name"
    and "local-dir:folder" too, and "demo-vit-64", a small one that is shipped here. The default policy is the model's
    own `resize_mode`.

    OpenAI's weights were trained with QuickGELU. In the same architecture without it ("ViT-L-14") they load without an
    error and give wrong features, silently. So that combination is refused wherever it can be seen: a hub's tag says
    it, and OpenAI's own files are known by their content. A plain state dict does not say it; use the right name.

    Grad-CAM reads the first norm of the last block. Behind the last block only the class token is pooled, so there
    the patch tokens get no gradient at all; before the block's attention they do, through its keys and values.
    """
    import open_clip

    register_architectures()
    name, weights, size = request.name, request.weights, request.size
    source = local_source(weights, weight_files=request.weight_files, seed=request.seed)
    tag: Mapping[str, Any] = {}
    reference = name
    if name.startswith("hf-hub:"):
        if weights.startswith("hub:"):
            raise WeightsError(f"{name} names its weights itself, without a tag: use weights 'hub', not {weights!r}")
        reference, published = _fetch_folder(name, with_weights=source is None)
        if source is None:
            source = WeightsSource(published, file_digest(published), weights_note(f"hub:{name[len('hf-hub:') :]}"))
    elif not name.startswith("local-dir:") and open_clip.get_model_config(name) is None:
        raise ValueError(f"open_clip has no architecture {name!r}; {nearest(name, open_clip.list_models())}")
    if source is None:
        tag_name, tag = _tag(name, weights.partition(":")[2])
        refuse_other_activation(name, f"the weights {tag_name!r}", bool(tag.get("quick_gelu", False)))
        path = _hub_file(name, tag)
        source = WeightsSource(path, file_digest(path), weights_note(f"hub:{tag_name}"))

    is_timm = "timm_model_name" in (open_clip.get_model_config(reference) or {}).get("vision_cfg", {})
    with seeded(request.seed), _without_remarks():
        model = open_clip.create_model(
            reference,
            load_weights=False,
            pretrained_image=False,
            pretrained_text=False,
            force_image_size=None if is_timm else size,
            force_preprocess_cfg={key: value for key, value in tag.items() if key != "size"},
            text_cfg=_NO_TEXT,
        )
    tower = model.visual
    del model
    if source.path is not None:
        state = read_state_dict(source.path, trusted_archives=openai_archives())
        if is_torchscript(source.path) or all(entry in state for entry in _OPENAI_ENTRIES):
            refuse_other_activation(name, f"the file {source.path}, which is OpenAI's,", True)
        _load(tower, state, source.path, resized=size is not None)
    if is_timm and size is not None:
        tower.set_input_size(size)

    config = open_clip.get_model_preprocess_cfg(tower)
    side = config["size"]
    preprocessing = Preprocessing(
        size=size or (side if isinstance(side, int) else int(side[0])),
        mean=three(config["mean"]),
        std=three(config["std"]),
        interpolation=config["interpolation"],
        policy=request.policy or _POLICIES[config["resize_mode"]],
    )
    return Backbone(
        tower,
        family="open_clip",
        name=name,
        num_features=_width(tower, preprocessing.size),
        preprocessing=preprocessing,
        source=source,
        pool=_pooled_only,
        find_cam=_cam,
    )


@contextlib.contextmanager
def _without_remarks() -> Iterator[None]:
    """Keep open_clip from saying that no weights were loaded, just before they are.

    It speaks through the root logger itself, which would even install a handler there.
    """
    root, handler = logging.getLogger(), logging.NullHandler()

    def drop(record: logging.LogRecord) -> bool:
        return False

    root.addHandler(handler)
    root.addFilter(drop)
    try:
        yield
    finally:
        root.removeFilter(drop)
        root.removeHandler(handler)


def register_architectures() -> None:
    """Make the architectures of `models/architectures` known to open_clip, once per process."""
    import open_clip

    if "demo-vit-64" not in open_clip.list_models():
        open_clip.add_model_config(ARCHITECTURES)


def _fetch_folder(name: str, *, with_weights: bool) -> tuple[str, Path]:
    """Download a hub model's configuration, and its weights if asked for.

    Returns:
        "local-dir:..." of the configuration, and the path of the weights (else of the configuration).
    """
    repository = name.removeprefix("hf-hub:")
    path = hub_file(repository, ["open_clip_config.json"], what=name)
    folder = f"local-dir:{path.parent}"
    if with_weights:
        path = hub_file(repository, _FILES, what=name)
    return folder, path


_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


def _tag(name: str, tag: str) -> tuple[str, Mapping[str, Any]]:
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model(name)
    if not tag:
        tag = "openai" if "openai" in tags else tags[0] if len(tags) == 1 else ""
    config = open_clip.get_pretrained_cfg(name, tag) if tag else {}
    if not config:
        asked = f"tag {tag!r}" if tag else "default among its tags; choose one with hub:TAG"
        raise WeightsError(f"open_clip's {name} has no {asked}; its tags are: {', '.join(tags) or 'none'}")
    return tag, config


def _hub_file(name: str, tag: Mapping[str, Any]) -> Path:
    if not tag.get("hf_hub"):
        return url_file(tag["url"], what=name)
    repository, _, file = tag["hf_hub"].rpartition("/")
    safe = re.sub(r"\.(bin|pth)$", ".safetensors", file)
    return hub_file(repository, list(dict.fromkeys([safe, file])) if file else _FILES, what=name)


def openai_archives() -> frozenset[str]:
    """SHA-256 of every CLIP file that OpenAI published; their addresses, which open_clip lists, contain them."""
    import open_clip

    urls = [open_clip.get_pretrained_url(model, tag) for model, tag in open_clip.list_pretrained() if tag == "openai"]
    return frozenset(url.split("/")[-2] for url in urls if "openaipublic" in url)


def refuse_other_activation(name: str, what: str, quick_gelu: bool) -> None:
    """Refuse weights that were trained with another activation than the architecture has.

    Args:
        name: of the architecture.
        what: the weights, in words for the message.
        quick_gelu: whether they were trained with QuickGELU.

    Raises:
        WeightsError: the architecture has the other activation.
    """
    import open_clip

    config = open_clip.get_model_config(name) if not name.startswith(("hf-hub:", "local-dir:")) else None
    vision = (config or {}).get("vision_cfg", {})
    if config is None or "timm_model_name" in vision or not isinstance(vision.get("layers"), int):
        return  # the activation of ResNets and of timm towers does not depend on it
    if bool(config.get("quick_gelu", False)) != quick_gelu:
        other = f"{name}-quickgelu" if quick_gelu else name.removesuffix("-quickgelu")
        remedy = (
            f"use {other!r}" if other in open_clip.list_models() else "use an architecture that has it the same way"
        )
        raise WeightsError(
            f"{what} {'needs' if quick_gelu else 'must not have'} QuickGELU, {name} has "
            f"{'another activation' if quick_gelu else 'it'}: the features would be wrong without any error; {remedy}"
        )


def _load(tower: nn.Module, state: dict[str, torch.Tensor], path: Path, *, resized: bool) -> None:
    state = without_prefix(state, "visual.")
    positions, grid = state.get("positional_embedding"), getattr(tower, "grid_size", None)
    if resized and grid is not None and positions is not None and positions.ndim == 2:
        state = {**state, "positional_embedding": _resized_positions(positions, grid)}
    load_strictly(tower, state, source=path)


def _resized_positions(positions: torch.Tensor, grid: Sequence[int]) -> torch.Tensor:
    """(1 + h * w, width) -> (1 + grid, width), bicubic, as open_clip does it when it loads at another size."""
    side = math.isqrt(len(positions) - 1)
    if (side, side) == tuple(grid) or side * side != len(positions) - 1:
        return positions
    picture = positions[1:].float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
    picture = nn.functional.interpolate(picture, size=tuple(grid), mode="bicubic", antialias=True, align_corners=False)
    return torch.cat([positions[:1].float(), picture.permute(0, 2, 3, 1).flatten(0, 2)])


def _width(tower: nn.Module, size: int) -> int:
    """D; ResNet and timm towers do not all say it in one place, so they are asked with a picture (no data is moved)."""
    width = getattr(tower, "output_dim", None)
    if isinstance(width, int):
        return width
    head = getattr(tower, "head", None)
    for module in reversed(list(head.modules()) if head is not None else []):
        if isinstance(module, nn.Linear):
            return module.out_features
    training = tower.training
    with torch.inference_mode():
        features = _pooled_only(tower.eval()(torch.zeros(1, 3, size, size)))
    tower.train(training)
    return features.shape[-1]


def _cam(tower: Any, size: int) -> Cam:
    if hasattr(tower, "transformer"):
        transformer = tower.transformer
        return [transformer.resblocks[-1].ln_1], TokenGrid(1, batch_first=getattr(transformer, "batch_first", False))
    if hasattr(tower, "trunk"):
        return timm_cam(tower.trunk, size)
    return [tower.layer4], None


def _pooled_only(output: torch.Tensor | tuple[torch.Tensor, ...]) -> torch.Tensor:
    return output[0] if isinstance(output, tuple) else output
