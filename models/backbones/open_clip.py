"""open_clip's image towers, and OpenAI's own CLIP files."""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from models.backbones import register_family
from models.backbones.base import Backbone, BackboneRequest, Cam, TokenGrid, nearest, seeded, three
from models.backbones.timm import timm_cam
from models.configs import colours
from models.detector import WeightsError
from models.hubs import HubFile, hub_file, url_file
from models.preprocessing import Preprocessing
from models.weights import (
    WeightsSource,
    load_strictly,
    local_source,
    read_state_dict,
    without_prefix,
    without_wrappers,
)

ARCHITECTURES = Path(__file__).parents[1] / "architectures"
# A tiny text tower in place of the architecture's, which would be initialised and thrown away.
_NO_TEXT = {"context_length": 1, "vocab_size": 1, "width": 8, "heads": 1, "layers": 1}
_OPENAI_ENTRIES = ("input_resolution", "context_length", "vocab_size")  # only OpenAI's own files have these
_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_CONFIG = "open_clip_config.json"
_POLICIES = {"shortest": "crop", "squash": "squash", "longest": "pad"}
# open_clip's name of each part of a picture's preparation -> the setting that gives it, as in a message.
_PREPARATION = {
    "mean": "mean=R,G,B",
    "std": "std=R,G,B",
    "interpolation": "interpolation=bicubic|bilinear",
    "resize_mode": "resize=crop|squash|pad",
}
_OPENAI = {
    "mean": (0.48145466, 0.4578275, 0.40821073),
    "std": (0.26862954, 0.26130258, 0.27577711),
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}


def clip_files(name: str, weights: str) -> list[HubFile]:
    """The published files of an architecture; errors as of `load_backbone`."""
    import open_clip

    if name.startswith("hf-hub:"):
        repository = name.removeprefix("hf-hub:")
        return [HubFile(name, repository, (_CONFIG,)), HubFile(name, repository, _FILES)]
    if name.startswith("local-dir:"):
        raise ValueError(f"{name} has no weights of its own: give a file with --weights METHOD=FILE, or random")
    register_architectures()
    if open_clip.get_model_config(name) is None:
        raise ValueError(f"open_clip has no architecture {name!r}; {nearest(name, open_clip.list_models())}")
    return [_published(name, _tag(name, weights.partition(":")[2])[1])]


@register_family("open_clip", files=clip_files)
def clip_backbone(request: BackboneRequest) -> Backbone:
    """The image tower of an open_clip model; features are `encode_image`, before L2 normalisation.

    Any architecture of open_clip works (vision transformers, ResNets, timm towers such as SigLIP), as do
    "hf-hub:owner/name", "local-dir:folder", and "demo-vit-64", a small architecture of this project. The default policy
    is the model's own `resize_mode`.

    How pictures are prepared (mean, standard deviation, interpolation, policy) belongs to the weights. A hub's tag and
    a folder's configuration say it. For weights from a file and random weights it is what all published tags of the
    architecture agree on (`published_preparation`); what they do not agree on must be given. It is never guessed.

    OpenAI's weights were trained with QuickGELU. In the same architecture without it ("ViT-L-14") they load without an
    error and silently give wrong features. So this combination is refused where it can be detected: a hub's tag names
    the activation, and OpenAI's own files are recognised by their content. A plain state dict does not name it; there
    the user must choose the right architecture.

    Grad-CAM reads the first norm of the last block. After the last block only the class token is pooled, so patch
    tokens there get no gradient. Before the block's attention they do, through its keys and values.
    """
    tower, preprocessing, source = clip_tower(request)
    return Backbone(
        tower,
        family="open_clip",
        name=request.name,
        num_features=_width(tower, preprocessing.size),
        preprocessing=preprocessing,
        source=source,
        pool=_pooled_only,
        find_cam=tower_cam,
    )


def clip_tower(request: BackboneRequest) -> tuple[Any, Preprocessing, WeightsSource]:
    """The image tower of a request with its weights, its preprocessing, and where the weights come from.

    The errors are those of `load_backbone`.
    """
    import open_clip

    register_architectures()
    name, weights, size = request.name, request.weights, request.size
    source = local_source(weights, weight_files=request.weight_files, seed=request.seed)
    given: dict[str, Any] = {
        field: colours(text) for field in ("mean", "std") if (text := getattr(request, field)) is not None
    }
    given |= {"interpolation": request.interpolation} if request.interpolation else {}
    known: Mapping[str, Any]
    reference = name
    if name.startswith(("hf-hub:", "local-dir:")):
        if weights.startswith("hub:"):
            raise WeightsError(f"{name} names its weights itself, without a tag: use weights 'hub', not {weights!r}")
        folder = Path(name.removeprefix("local-dir:"))
        if name.startswith("hf-hub:"):
            repository = name.removeprefix("hf-hub:")
            folder = hub_file(repository, [_CONFIG], what=name).parent
            reference = f"local-dir:{folder}"
            if source is None:
                source = WeightsSource(f"hub:{repository}", hub_file(repository, _FILES, what=name))
        known = _declared(folder)
    elif open_clip.get_model_config(name) is None:
        raise ValueError(f"open_clip has no architecture {name!r}; {nearest(name, open_clip.list_models())}")
    elif source is None:
        tag_name, known = _tag(name, weights.partition(":")[2])
        refuse_other_activation(name, f"the weights {tag_name!r}", bool(known.get("quick_gelu", False)))
        if given:
            raise ValueError(f"the weights {tag_name!r} of {name} bring their own {' and '.join(given)}: do not set it")
        file = _published(name, known)
        path = hub_file(file.repository, file.names, what=name) if file.repository else url_file(file.url, what=name)
        source = WeightsSource(f"hub:{tag_name}", path)
    else:
        known = published_preparation(name)
    preparation = {**known, **given}
    if request.policy is not None:
        preparation["resize_mode"] = request.policy
    if missing := [field for field in _PREPARATION if field not in preparation]:
        raise ValueError(_ask(name, missing))
    if source is None:
        raise ValueError(f"{name} has no weights of its own: give a file with --weights METHOD=FILE, or random")

    is_timm = "timm_model_name" in (open_clip.get_model_config(reference) or {}).get("vision_cfg", {})
    with seeded(request.seed), _without_warnings():
        model = open_clip.create_model(
            reference,
            load_weights=False,
            pretrained_image=False,
            pretrained_text=False,
            force_image_size=None if is_timm else size,
            text_cfg=_NO_TEXT,
        )
    tower = model.visual
    del model
    if source.path is not None:
        state = read_state_dict(source.path, trusted_archives=openai_archives(), averaged=source.averaged)
        if all(entry in state for entry in _OPENAI_ENTRIES):
            refuse_other_activation(name, f"the file {source.path}, which is OpenAI's,", True)
        _load(tower, state, source.path, resized=size is not None)
    if is_timm and size is not None:
        tower.set_input_size(size)

    side = open_clip.get_model_preprocess_cfg(tower)["size"]
    preprocessing = Preprocessing(
        size=size or (side if isinstance(side, int) else int(side[0])),
        mean=three(preparation["mean"]),
        std=three(preparation["std"]),
        interpolation=preparation["interpolation"],
        policy=request.policy or _POLICIES[preparation["resize_mode"]],
    )
    return tower, preprocessing, source


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Suppress open_clip's messages, such as its warning that no weights were loaded: they are loaded afterwards.

    It logs with `logging.warning`, which would also install a handler on the root logger if there is none.
    """
    root, handler, drop_all = logging.getLogger(), logging.NullHandler(), logging.Filter("no such logger")
    root.addHandler(handler)
    root.addFilter(drop_all)
    try:
        yield
    finally:
        root.removeFilter(drop_all)
        root.removeHandler(handler)


def register_architectures() -> None:
    """Add the architectures of `models/architectures` to open_clip, once per process."""
    import open_clip

    if "demo-vit-64" not in open_clip.list_models():
        open_clip.add_model_config(ARCHITECTURES)


def published_preparation(name: str) -> dict[str, Any]:
    """What all published weights of an architecture agree on, of `mean`, `std`, `interpolation` and `resize_mode`.

    Architectures of `models/architectures` have no published weights; they are prepared for as OpenAI's.
    """
    import open_clip

    if (ARCHITECTURES / f"{name}.json").is_file():
        return dict(_OPENAI)
    tags = [open_clip.get_pretrained_cfg(name, tag) for tag in open_clip.list_pretrained_tags_by_model(name)]
    values = {field: {tag[field] for tag in tags} for field in _PREPARATION}
    return {field: next(iter(several)) for field, several in values.items() if len(several) == 1}


def unlike_openai(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration (`models.configs.ClipConfig`) with the settings in which the architecture differs from OpenAI's.

    Args:
        config: with weights from a file, or random ones, for an architecture of open_clip; without settings that are
            None.

    Raises:
        ValueError: the published weights do not agree on a setting that is not given.
    """
    import open_clip

    register_architectures()
    name = str(config["backbone"])
    if open_clip.get_model_config(name) is None:
        return dict(config)  # refused with the nearest names when it is built
    published = published_preparation(name)
    given = {field for field in _PREPARATION if field in config}
    given |= {"resize_mode"} if config["resize"] != "own" else set()
    if missing := [field for field in _PREPARATION if field not in {*published, *given}]:
        raise ValueError(_ask(name, missing))
    added = {}
    for field in _PREPARATION:
        if field in given or published[field] == _OPENAI[field]:
            continue
        value = published[field]
        if field == "resize_mode":
            added["resize"] = _POLICIES[value]
        else:
            added[field] = value if isinstance(value, str) else ",".join(map(str, value))
    return {**config, **added}


def _declared(folder: Path) -> dict[str, Any]:
    """The preparation in the configuration of a model's folder; the last two have a default in open_clip's format."""
    path = folder / _CONFIG
    try:
        declared = dict(json.loads(path.read_text(encoding="utf-8")).get("preprocess_cfg", {}))
    except (OSError, ValueError, AttributeError) as error:
        raise WeightsError(f"{path} cannot be read as an open_clip configuration: {error}") from error
    defaults = {field: _OPENAI[field] for field in ("interpolation", "resize_mode")}
    return {field: value for field, value in {**defaults, **declared}.items() if field in _PREPARATION}


def _ask(name: str, missing: list[str]) -> str:
    """The message that asks for a preparation that is not known."""
    import open_clip

    if name.startswith(("hf-hub:", "local-dir:")):
        why = f"its {_CONFIG} does not say it"
    else:
        published = open_clip.list_pretrained_tags_by_model(name)
        why = "its published weights differ in it" if published else "none of its weights are published"
    settings = " ".join(f"--set METHOD.{_PREPARATION[field]}" for field in missing)
    what = " and ".join(_PREPARATION[field].partition("=")[0] for field in missing)
    return (
        f"{name}: the {what} that these weights were trained with must be given, because {why}, and another value "
        f"gives wrong features without any error: {settings}"
    )


def _tag(name: str, tag: str) -> tuple[str, Mapping[str, Any]]:
    """The tag, or the architecture's default tag if it is empty, and open_clip's facts about it."""
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model(name)
    if not tag:
        tag = "openai" if "openai" in tags else tags[0] if len(tags) == 1 else ""
    config = open_clip.get_pretrained_cfg(name, tag) if tag else {}
    if not tags:
        raise WeightsError(f"open_clip's {name} has no published weights; give it a file, or random ones")
    if not config:
        problem = f"tag {tag!r}" if tag else "default among its tags; choose one with hub:TAG"
        raise WeightsError(f"open_clip's {name} has no {problem}; its tags are: {', '.join(tags) or 'none'}")
    return tag, config


def _published(name: str, tag: Mapping[str, Any]) -> HubFile:
    if not tag.get("hf_hub"):
        return HubFile(name, url=tag["url"])
    repository, _, file = tag["hf_hub"].rpartition("/")
    safe = re.sub(r"\.(bin|pth)$", ".safetensors", file)
    return HubFile(name, repository, tuple(dict.fromkeys([safe, file])) if file else _FILES)


def openai_archives() -> frozenset[str]:
    """SHA-256 of every CLIP file that OpenAI published, read off the files' addresses, which open_clip lists."""
    import open_clip

    urls = [open_clip.get_pretrained_url(model, tag) for model, tag in open_clip.list_pretrained() if tag == "openai"]
    return frozenset(url.split("/")[-2] for url in urls if "openaipublic" in url)


def refuse_other_activation(name: str, what: str, quick_gelu: bool) -> None:
    """Refuse weights that were trained with another activation than the architecture's.

    Args:
        name: the architecture.
        what: the weights, in words for the message.
        quick_gelu: whether the weights were trained with QuickGELU.

    Raises:
        WeightsError: the architecture has another activation.
    """
    import open_clip

    config = open_clip.get_model_config(name) if not name.startswith(("hf-hub:", "local-dir:")) else None
    vision = (config or {}).get("vision_cfg", {})
    if config is None or "timm_model_name" in vision or not isinstance(vision.get("layers"), int):
        return  # ResNets and timm towers do not use QuickGELU
    if bool(config.get("quick_gelu", False)) != quick_gelu:
        other = f"{name}-quickgelu" if quick_gelu else name.removesuffix("-quickgelu")
        remedy = f"use {other!r}" if other in open_clip.list_models() else "use an architecture with their activation"
        raise WeightsError(
            f"{what} {'needs' if quick_gelu else 'must not have'} QuickGELU, {name} has "
            f"{'another activation' if quick_gelu else 'it'}: the features would be wrong without any error; {remedy}"
        )


def _load(tower: nn.Module, state: dict[str, torch.Tensor], path: Path, *, resized: bool) -> None:
    from open_clip.model import resize_pos_embed

    state = without_prefix(without_wrappers(state, tower.state_dict(), source=path), "visual.")
    if resized and "positional_embedding" in state:
        positions = {"visual.positional_embedding": state["positional_embedding"].float()}
        # Fails on a wrong file, which `load_strictly` describes better.
        with contextlib.suppress(RuntimeError), _without_warnings():
            resize_pos_embed(positions, SimpleNamespace(visual=tower))
        state = {**state, "positional_embedding": positions["visual.positional_embedding"]}
    load_strictly(tower, state, source=path)


def _width(tower: nn.Module, size: int) -> int:
    """D. A timm tower does not tell, so it encodes one picture."""
    width = getattr(tower, "output_dim", None)
    if isinstance(width, int):
        return width
    with torch.inference_mode():
        return _pooled_only(tower.eval()(torch.zeros(1, 3, size, size))).shape[-1]


def tower_cam(tower: Any, size: int) -> Cam:
    """Layers and reshape function for Grad-CAM on an image tower (see `clip_backbone`)."""
    if hasattr(tower, "transformer"):
        transformer = tower.transformer
        return [transformer.resblocks[-1].ln_1], TokenGrid(1, batch_first=getattr(transformer, "batch_first", False))
    if hasattr(tower, "trunk"):
        return timm_cam(tower.trunk, size)
    return [tower.layer4], None


def _pooled_only(output: torch.Tensor | tuple[torch.Tensor, ...], present: torch.Tensor | None = None) -> torch.Tensor:
    return output[0] if isinstance(output, tuple) else output
