"""Image encoders of timm, open_clip and segment-anything behind one type that carries its own preprocessing.

Importing this module imports none of the three (open_clip alone takes 11 s); building a backbone does.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import logging
import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from models.detector import WeightsError
from models.memory import in_batches
from models.preprocessing import Preprocessing
from models.weights import (
    PACKAGED,
    WeightsSource,
    cannot_fetch,
    file_digest,
    hub_file,
    is_torchscript,
    load_strictly,
    local_source,
    read_state_dict,
    rename_by_order,
    url_file,
    weights_note,
    without_prefix,
)

FAMILIES = ("timm", "open_clip", "sam")
ARCHITECTURES = Path(__file__).parent / "architectures"

Reshape = Callable[[torch.Tensor], torch.Tensor]
Cam = tuple[list[nn.Module], Reshape | None]


class Backbone(nn.Module):
    """A frozen image encoder: evaluation mode, no parameter asks for a gradient.

    For Grad-CAM, gradients still flow through it to whatever input asks for them: `x.requires_grad_()` is needed,
    because no parameter does.

    Attributes:
        family: "timm", "open_clip" or "sam".
        name: as that library calls the architecture.
        num_features: D.
        preprocessing: what the pixels must look like.
        weights_note: where the weights come from, in words for a table.
        weights_digest: "random-<seed>", or the digest of the file.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        family: str,
        name: str,
        num_features: int,
        preprocessing: Preprocessing,
        source: WeightsSource,
        pool: Reshape | None,
        find_cam: Callable[[nn.Module, int], Cam],
    ) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self.family = family
        self.name = name
        self.num_features = num_features
        self.preprocessing = preprocessing
        self.weights_note = source.note
        self.weights_digest = source.digest
        self._pool = pool
        self._find_cam = find_cam
        self._cam: Cam | None = None
        self.train(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalised (N, 3, S, S) -> features (N, D), S = `preprocessing.size`."""
        features = self.network(x)
        return features if self._pool is None else self._pool(features)

    def train(self, mode: bool = True) -> Backbone:
        """Stays in evaluation mode whatever is asked: a frozen backbone has no dropout and fixed statistics."""
        return super().train(False)

    def cam_layers(self) -> list[nn.Module]:
        """The layers whose activations Grad-CAM weights."""
        return self._found_cam()[0]

    @property
    def cam_reshape(self) -> Reshape | None:
        """Activations of those layers -> (N, channels, h, w); None where they already have that shape."""
        return self._found_cam()[1]

    def _found_cam(self) -> Cam:
        if self._cam is None:
            self._cam = self._find_cam(self.network, self.preprocessing.size)
        return self._cam


@dataclass(frozen=True)
class TokenGrid:
    """Tokens of a vision transformer -> (N, channels, h, w), h = w from the number of tokens.

    grad-cam's own `vit_reshape_transform` assumes 14 x 14 patches and one prefix token; this works for any.

    Attributes:
        num_prefix: tokens before the patches (class, registers).
        batch_first: whether tokens come as (N, L, channels); else (L, N, channels).
    """

    num_prefix: int
    batch_first: bool = True

    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        """(N, L, channels), or (L, N, channels) -> (N, channels, h, w).

        Raises:
            ValueError: the patches make no square.
        """
        if not self.batch_first:
            tokens = tokens.transpose(0, 1)
        patches = tokens[:, self.num_prefix :]
        side = math.isqrt(patches.shape[1])
        if side * side != patches.shape[1]:
            raise ValueError(f"{patches.shape[1]} patch tokens make no square (prefix of {self.num_prefix} tokens)")
        return patches.reshape(len(patches), side, side, -1).permute(0, 3, 1, 2)


def _channels_first(activations: torch.Tensor) -> torch.Tensor:
    return activations.permute(0, 3, 1, 2)


def _mean_over_positions(neck: torch.Tensor) -> torch.Tensor:
    return neck.mean(dim=(2, 3))


def _pooled_only(output: torch.Tensor | tuple[torch.Tensor, ...]) -> torch.Tensor:
    return output[0] if isinstance(output, tuple) else output


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Initial weights follow from `seed` alone, and the caller's generator is as it was before.

    Networks are built on the CPU, so only its generator is touched; `torch.manual_seed` would also reseed CUDA's.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def load_backbone(
    family: str,
    name: str,
    *,
    weights: str,
    weight_files: Mapping[str, Path] | None = None,
    seed: int = 0,
    policy: str | None = None,
    size: int | None = None,
) -> Backbone:
    """Build a frozen image encoder.

    Args:
        family: "timm", "open_clip" or "sam".
        name: as the family calls the architecture.
        weights: see `models.weights`.
        weight_files: digest -> local path, for "file:<digest>".
        seed: of random initial weights.
        policy: how pictures become square (see `Preprocessing`); None: the family's default.
        size: side of the input in pixels; None: the one that the weights were trained at.

    Raises:
        ValueError: no such family, architecture or policy.
        WeightsError: the weights cannot be had or do not fit.
    """
    build = {"timm": timm_backbone, "open_clip": clip_backbone, "sam": sam_backbone}.get(family)
    if build is None:
        raise ValueError(f"no backbone family {family!r}; there are: {', '.join(FAMILIES)}")
    return build(name, weights=weights, weight_files=weight_files, seed=seed, policy=policy, size=size)


# timm ----------------------------------------------------------------------------------------------------------------


def timm_backbone(
    name: str,
    *,
    weights: str,
    weight_files: Mapping[str, Path] | None = None,
    seed: int = 0,
    policy: str | None = None,
    size: int | None = None,
) -> Backbone:
    """A timm network without its classifier: features are what the classifier would see. Arguments: `load_backbone`.

    The default policy is "squash": timm's evaluation crop (policy "crop") would cut off a repainted border.
    """
    network, preprocessing, source = _timm_network(name, 0, weights, weight_files or {}, seed, policy, size)
    return Backbone(
        network,
        family="timm",
        name=name,
        num_features=int(getattr(network, "head_hidden_size", None) or network.num_features),
        preprocessing=preprocessing,
        source=source,
        pool=None,
        find_cam=timm_cam,
    )


def timm_classifier(
    name: str,
    num_classes: int,
    *,
    weights: str,
    weight_files: Mapping[str, Path] | None = None,
    seed: int = 0,
    policy: str | None = None,
    size: int | None = None,
) -> tuple[nn.Module, Preprocessing]:
    """A plain timm network with its own classifier, to train in full.

    Its state dict has timm's own names, so `timm.create_model(name, num_classes=...)` loads what was trained here.
    Pretrained weights are loaded completely, except for the classifier, which is new and follows from `seed`.
    Arguments and errors as in `load_backbone`; `timm_cam` finds its layers for Grad-CAM.

    Returns:
        the network, in training mode and with gradients, and what its pixels must look like.
    """
    network, preprocessing, _ = _timm_network(name, num_classes, weights, weight_files or {}, seed, policy, size)
    return network, preprocessing


def _timm_network(
    name: str,
    num_classes: int,
    weights: str,
    weight_files: Mapping[str, Path],
    seed: int,
    policy: str | None,
    size: int | None,
) -> tuple[Any, Preprocessing, WeightsSource]:
    import timm

    source = local_source(weights, weight_files=weight_files, seed=seed)
    tag = weights.partition(":")[2] if source is None else ""
    name = f"{name.partition('.')[0]}.{tag}" if tag else name
    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        raise ValueError(f"timm has no network {architecture!r}; {_nearest(architecture, timm.list_models())}")
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError:  # no such tag
        config = None
    if config is None:
        tags = ", ".join(timm.list_pretrained(f"{architecture}.*")) or "none"
        raise WeightsError(f"timm publishes no weights {name!r}; there are: {tags}")
    if source is None:
        path = _timm_hub_file(name, config)
        source = WeightsSource(path, file_digest(path), weights_note(f"hub:{config.tag}" if config.tag else "hub"))

    side = size or int(config.input_size[-1])
    options: dict[str, Any] = {"img_size": side} if config.fixed_input_size and side != config.input_size[-1] else {}
    with _seeded(seed):
        network = timm.create_model(name, pretrained=False, num_classes=num_classes, **options)
    if source.path is not None:
        state = _packaged_state(architecture, source.path) if weights == PACKAGED else read_state_dict(source.path)
        _load_timm(network, state, source.path, config.classifier, resized=bool(options))

    policy = "crop" if policy == "timm" else policy or "squash"
    preprocessing = Preprocessing(
        size=side,
        mean=_three(config.mean),
        std=_three(config.std),
        interpolation=config.interpolation,
        policy=policy,
        crop_fraction=float(config.crop_pct) if policy == "crop" else 1.0,
    )
    return network.to(memory_format=torch.channels_last), preprocessing, source


def _timm_hub_file(name: str, config: Any) -> Path:
    if config.hf_hub_id:
        repository = config.hf_hub_id if "/" in config.hf_hub_id else f"timm/{config.hf_hub_id}"
        names = [config.hf_hub_filename] if config.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]
        return hub_file(repository, names, what=name)
    if isinstance(config.url, str) and config.url and not config.custom_load:
        return url_file(config.url, what=name)
    raise cannot_fetch(name, "timm publishes none in a format that is read here")


def _packaged_state(architecture: str, path: Path) -> dict[str, torch.Tensor]:
    import timm

    if architecture != "tf_efficientnet_lite0":
        raise WeightsError(f"{PACKAGED} is for tf_efficientnet_lite0 only, not for {architecture}")
    with torch.device("meta"):
        names = timm.create_model(architecture, pretrained=False).state_dict()
    return rename_by_order(read_state_dict(path), names, source=path)


def _load_timm(
    network: nn.Module, state: dict[str, torch.Tensor], path: Path, classifier: Any, *, resized: bool
) -> None:
    """Load by timm's names. timm's own loader is strict only while the classifier is kept, so it is not used here.

    timm's converter for the architecture runs first: it knows older names, and fits position embeddings to another
    input size, which is allowed only where another size was asked for.
    """
    position = network.state_dict().get("pos_embed")
    published = state.get("pos_embed")
    if position is not None and published is not None and position.shape != published.shape and not resized:
        raise WeightsError(
            f"the weights in {path} are for another input size: pos_embed is {tuple(published.shape)}, not "
            f"{tuple(position.shape)}. Name the network of that size, or set the size to ask for a resized one"
        )
    convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if convert is not None:
        with contextlib.suppress(LookupError, RuntimeError, ValueError, AttributeError, AssertionError):
            state = convert(state, network)  # fails on a wrong file, which the comparison below describes better
    heads = [classifier] if isinstance(classifier, str) else list(classifier or ())
    load_strictly(network, state, source=path, ignore=[f"{head}." for head in heads])


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=6, cutoff=0.5)
    return f"near it: {', '.join(near)}" if near else "nothing is near it"


def timm_cam(network: nn.Module, size: int) -> Cam:
    """Layers and reshape for Grad-CAM on any timm network, with or without its classifier.

    A vision transformer: the last block's first norm, as for CLIP (see `clip_backbone`). Any other network: the module
    whose output is the feature map that is pooled, found by running the network once on zeros, (1, 3, size, size).

    Raises:
        ValueError: no module returns that feature map.
    """
    blocks = getattr(network, "blocks", None)
    num_prefix = getattr(network, "num_prefix_tokens", None)
    if isinstance(blocks, nn.Sequential | nn.ModuleList) and num_prefix is not None and hasattr(blocks[-1], "norm1"):
        norm: Any = blocks[-1].norm1
        return [norm], TokenGrid(int(num_prefix))

    runnable: Any = network
    returned: list[tuple[nn.Module, torch.Tensor]] = []

    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor):
            returned.append((module, output))

    handles = [module.register_forward_hook(note) for module in network.modules()]
    training = [module for module in network.modules() if module.training]
    parameter = next(network.parameters())
    try:
        network.eval()
        with torch.no_grad():
            picture = torch.zeros(1, 3, size, size, device=parameter.device, dtype=parameter.dtype)
            features = runnable.forward_features(picture)
    finally:
        for handle in handles:
            handle.remove()
        for module in training:
            module.training = True
    # the last to return it: nothing after it can have changed it in place
    layer = next((module for module, output in reversed(returned) if output is features), None)
    if layer is None:
        raise ValueError(f"no module of {type(network).__name__} returns the feature map that is pooled")
    if features.ndim == 3:
        return [layer], TokenGrid(int(num_prefix or 0))
    return [layer], _channels_first if getattr(network, "output_fmt", "NCHW") == "NHWC" else None


# open_clip -----------------------------------------------------------------------------------------------------------

# Instead of the architecture's own text tower, which would be built, filled with random numbers and thrown away.
_NO_TEXT = {"context_length": 1, "vocab_size": 1, "width": 8, "heads": 1, "layers": 1}
_OPENAI_ENTRIES = ("input_resolution", "context_length", "vocab_size")
_CLIP_POLICIES = {"shortest": "crop", "squash": "squash", "longest": "pad"}


def clip_backbone(
    name: str = "ViT-L-14-quickgelu",
    *,
    weights: str = "hub:openai",
    weight_files: Mapping[str, Path] | None = None,
    seed: int = 0,
    policy: str | None = None,
    size: int | None = None,
) -> Backbone:
    """The image tower of an open_clip model; features are `encode_image`, before L2 normalisation.

    Any architecture of open_clip works (vision transformers, ResNets, timm towers such as SigLIP), "hf-hub:owner/name"
    and "local-dir:folder" too, and "demo-vit-64", a small one that is shipped here. Arguments: `load_backbone`; the
    default policy is the model's own `resize_mode`.

    OpenAI's weights were trained with QuickGELU. In the same architecture without it ("ViT-L-14") they load without an
    error and give wrong features, silently. So that combination is refused wherever it can be seen: a hub's tag says
    it, and OpenAI's own files are known by their content. A plain state dict does not say it; use the right name.

    Grad-CAM reads the first norm of the last block. Behind the last block only the class token is pooled, so there
    the patch tokens get no gradient at all; before the block's attention they do, through its keys and values.
    """
    import open_clip

    _register_architectures()
    source = local_source(weights, weight_files=weight_files or {}, seed=seed)
    tag: Mapping[str, Any] = {}
    reference = name
    if name.startswith("hf-hub:"):
        if weights.startswith("hub:"):
            raise WeightsError(f"{name} names its weights itself, without a tag: use weights 'hub', not {weights!r}")
        reference, published = _fetch_clip_folder(name, with_weights=source is None)
        if source is None:
            source = WeightsSource(published, file_digest(published), weights_note(f"hub:{name[len('hf-hub:') :]}"))
    elif not name.startswith("local-dir:") and open_clip.get_model_config(name) is None:
        raise ValueError(f"open_clip has no architecture {name!r}; {_nearest(name, open_clip.list_models())}")
    if source is None:
        tag_name, tag = _clip_tag(name, weights.partition(":")[2])
        _refuse_other_activation(name, f"the weights {tag_name!r}", bool(tag.get("quick_gelu", False)))
        path = _clip_hub_file(name, tag)
        source = WeightsSource(path, file_digest(path), weights_note(f"hub:{tag_name}"))

    is_timm = "timm_model_name" in (open_clip.get_model_config(reference) or {}).get("vision_cfg", {})
    with _seeded(seed), _without_remarks():
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
        state = read_state_dict(source.path, trusted_archives=_openai_archives())
        if is_torchscript(source.path) or all(entry in state for entry in _OPENAI_ENTRIES):
            _refuse_other_activation(name, f"the file {source.path}, which is OpenAI's,", True)
        _load_clip(tower, state, source.path, resized=size is not None)
    if is_timm and size is not None:
        tower.set_input_size(size)

    config = open_clip.get_model_preprocess_cfg(tower)
    side = config["size"]
    preprocessing = Preprocessing(
        size=size or (side if isinstance(side, int) else int(side[0])),
        mean=_three(config["mean"]),
        std=_three(config["std"]),
        interpolation=config["interpolation"],
        policy=policy or _CLIP_POLICIES[config["resize_mode"]],
    )
    return Backbone(
        tower,
        family="open_clip",
        name=name,
        num_features=_clip_width(tower, preprocessing.size),
        preprocessing=preprocessing,
        source=source,
        pool=_pooled_only,
        find_cam=_clip_cam,
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


def _register_architectures() -> None:
    import open_clip

    if "demo-vit-64" not in open_clip.list_models():
        open_clip.add_model_config(ARCHITECTURES)


def _fetch_clip_folder(name: str, *, with_weights: bool) -> tuple[str, Path]:
    """Download a hub model's configuration, and its weights if asked for.

    Returns:
        "local-dir:..." of the configuration, and the path of the weights (else of the configuration).
    """
    repository = name.removeprefix("hf-hub:")
    path = hub_file(repository, ["open_clip_config.json"], what=name)
    folder = f"local-dir:{path.parent}"
    if with_weights:
        path = hub_file(repository, _CLIP_FILES, what=name)
    return folder, path


_CLIP_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


def _clip_tag(name: str, tag: str) -> tuple[str, Mapping[str, Any]]:
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model(name)
    if not tag:
        tag = "openai" if "openai" in tags else tags[0] if len(tags) == 1 else ""
    config = open_clip.get_pretrained_cfg(name, tag) if tag else {}
    if not config:
        asked = f"tag {tag!r}" if tag else "default among its tags; choose one with hub:TAG"
        raise WeightsError(f"open_clip's {name} has no {asked}; its tags are: {', '.join(tags) or 'none'}")
    return tag, config


def _clip_hub_file(name: str, tag: Mapping[str, Any]) -> Path:
    if not tag.get("hf_hub"):
        return url_file(tag["url"], what=name)
    repository, _, file = tag["hf_hub"].rpartition("/")
    safe = re.sub(r"\.(bin|pth)$", ".safetensors", file)
    return hub_file(repository, list(dict.fromkeys([safe, file])) if file else _CLIP_FILES, what=name)


def _openai_archives() -> frozenset[str]:
    """SHA-256 of every CLIP file that OpenAI published; their addresses, which open_clip lists, contain them."""
    import open_clip

    urls = [open_clip.get_pretrained_url(model, tag) for model, tag in open_clip.list_pretrained() if tag == "openai"]
    return frozenset(url.split("/")[-2] for url in urls if "openaipublic" in url)


def _refuse_other_activation(name: str, what: str, quick_gelu: bool) -> None:
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


def _load_clip(tower: nn.Module, state: dict[str, torch.Tensor], path: Path, *, resized: bool) -> None:
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


def _clip_width(tower: nn.Module, size: int) -> int:
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


def _clip_cam(tower: Any, size: int) -> Cam:
    if hasattr(tower, "transformer"):
        transformer = tower.transformer
        return [transformer.resblocks[-1].ln_1], TokenGrid(1, batch_first=getattr(transformer, "batch_first", False))
    if hasattr(tower, "trunk"):
        return timm_cam(tower.trunk, size)
    return [tower.layer4], None


# segment-anything ----------------------------------------------------------------------------------------------------

_SAM_URL = "https://dl.fbaipublicfiles.com/segment_anything/"
_SAM_FILES = {"vit_b": "sam_vit_b_01ec64.pth", "vit_l": "sam_vit_l_0b3195.pth", "vit_h": "sam_vit_h_4b8939.pth"}
SAM_NAMES = (*_SAM_FILES, "demo")


def sam_backbone(
    name: str = "vit_b",
    *,
    weights: str = "hub",
    weight_files: Mapping[str, Path] | None = None,
    seed: int = 0,
    policy: str | None = None,
    size: int | None = None,
) -> Backbone:
    """The image encoder of SAM: "vit_b", "vit_l", "vit_h", or "demo", a small one of the same kind at 64 pixels.

    Features are the neck's output, (N, 256, 64, 64), averaged over positions: (N, 256). The neck is what SAM's own
    mask decoder reads. A linear classifier on the average is the average of the same classifier at every position, so
    a CAM over the neck is exact: what it shows sums to the logit. Grad-CAM's layer is the neck's last one, whose output
    is (N, 256, 64, 64); that blocks before it work on windows and on channels-last tensors does not matter there.

    A file may hold a whole SAM, as published, or the encoder alone. Arguments: `load_backbone`. The default policy is
    "pad", SAM's own. At a `size` other than 1024, which must be a multiple of the patch, position embeddings are
    resized (bicubic); that is much cheaper, and not what SAM was trained at.
    """
    if name not in SAM_NAMES:
        raise ValueError(f"SAM has no encoder {name!r}; there are: {', '.join(SAM_NAMES)}")
    source = local_source(weights, weight_files=weight_files or {}, seed=seed)
    if source is None:
        if weights != "hub":
            raise WeightsError(f"SAM's weights have no tags: 'hub', not {weights!r}")
        if name not in _SAM_FILES:
            raise WeightsError(f"nobody publishes weights of SAM's {name!r}: use random weights, or vit_b")
        path = url_file(_SAM_URL + _SAM_FILES[name], what=f"SAM {name}")
        source = WeightsSource(path, file_digest(path), weights_note(weights))

    encoder: Any
    with _seeded(seed):
        encoder, mean, std = _demo_sam() if name == "demo" else _published_sam(name)
    if source.path is not None:
        state = without_prefix(read_state_dict(source.path), "image_encoder.")
        load_strictly(encoder, state, source=source.path)
    if size is not None and size != encoder.img_size:
        _resize_sam(encoder, size)
    preprocessing = Preprocessing(
        size=int(encoder.img_size),
        mean=mean,
        std=std,
        interpolation="bilinear",
        policy=policy or "pad",
    )
    return Backbone(
        encoder,
        family="sam",
        name=name,
        num_features=int(encoder.neck[0].out_channels),
        preprocessing=preprocessing,
        source=source,
        pool=_mean_over_positions,
        find_cam=_sam_cam,
    )


def _published_sam(name: str) -> tuple[nn.Module, tuple[float, float, float], tuple[float, float, float]]:
    from segment_anything import sam_model_registry

    sam = sam_model_registry[name]()
    mean, std = (sam.pixel_mean.flatten() / 255).tolist(), (sam.pixel_std.flatten() / 255).tolist()
    return sam.image_encoder, _three([round(v, 6) for v in mean]), _three([round(v, 6) for v in std])


def _demo_sam() -> tuple[nn.Module, tuple[float, float, float], tuple[float, float, float]]:
    from segment_anything.modeling import ImageEncoderViT

    encoder = ImageEncoderViT(
        img_size=64,
        patch_size=8,
        embed_dim=64,
        depth=3,
        num_heads=4,
        out_chans=64,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=3,  # does not divide the 8 x 8 grid, as 14 does not divide SAM's 64 x 64
        global_attn_indexes=(2,),
    )
    return encoder, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _resize_sam(encoder: Any, size: int) -> None:
    patch = encoder.patch_embed.proj.kernel_size[0]
    if size % patch:
        raise ValueError(f"SAM's input size must be a multiple of {patch}, got {size}")
    positions = encoder.pos_embed.detach().permute(0, 3, 1, 2)
    side = (size // patch, size // patch)
    resized = nn.functional.interpolate(positions, size=side, mode="bicubic", antialias=True, align_corners=False)
    encoder.pos_embed = nn.Parameter(resized.permute(0, 2, 3, 1).contiguous())
    encoder.img_size = size  # relative positions are resized by the encoder itself, in every forward


def _sam_cam(encoder: Any, size: int) -> Cam:
    return [encoder.neck[-1]], None


# Encoding ------------------------------------------------------------------------------------------------------------


class FrozenEncoder:
    """A backbone as an `Encoder`: pixels in, features out, nothing trains, so the features may be cached.

    Args:
        backbone: is moved to `device` when it is first needed there: with all features at hand, it never is.
        device: torch device string.
        batch_size: pictures a forward pass, as long as they fit.
        autocast: compute in bfloat16 where torch thinks it safe; faster on a GPU, and another `key`, because the
            features differ in their third digit.
    """

    def __init__(
        self, backbone: Backbone, *, device: str = "cpu", batch_size: int = 32, autocast: bool = False
    ) -> None:
        self.backbone = backbone
        self.device = device
        self.batch_size = batch_size
        self.autocast = autocast
        self.num_features = backbone.num_features
        self.geometry: Mapping[str, Any] | None = backbone.preprocessing.geometry
        self.key = encoder_key(backbone, autocast=autocast)

    def encode(self, pixels: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
        """uint8 (N, S, S, 3) -> float32 (N, D), S = the backbone's size. Fewer at once from where memory runs out.

        Raises:
            ValueError: the pixels have another type or size: a silent resize would change the features.
            MemoryExhausted: not one image fits into the device's memory.
        """
        size = self.backbone.preprocessing.size
        features = np.empty((len(pixels), self.num_features), dtype=np.float32)

        def encode(place: slice) -> None:
            batch = np.asarray(pixels[place])
            if batch.dtype != np.uint8 or batch.shape[1:] != (size, size, 3):
                raise ValueError(f"need uint8 (N, {size}, {size}, 3), got {batch.dtype} {batch.shape}")
            features[place] = self._encode_batch(batch)

        self.batch_size = in_batches(encode, len(pixels), self.batch_size)
        return features

    @torch.inference_mode()
    def _encode_batch(self, batch: np.ndarray) -> np.ndarray:
        x = self.backbone.preprocessing.normalise(torch.tensor(batch, device=self.device))
        device = torch.device(self.device).type
        # without TF32, to which torch by itself rounds on newer GPUs: features of all devices share a key
        exact = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
        with torch.autocast(device, dtype=torch.bfloat16, enabled=self.autocast), exact:
            return self.on_device()(x).float().cpu().numpy()

    def on_device(self) -> Backbone:
        """The backbone, where it computes."""
        return self.backbone.to(self.device)


def encoder_key(backbone: Backbone, *, autocast: bool = False) -> str:
    """Names all that features depend on: family, architecture, weights, preprocessing; <= 150 safe characters."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", backbone.name)
    if name != backbone.name or len(name) > 60:
        name = f"{name[:51]}-{hashlib.sha256(backbone.name.encode()).hexdigest()[:8]}"
    parts = [backbone.family, name, backbone.weights_digest, backbone.preprocessing.key]
    return "-".join(parts + (["bf16"] if autocast else []))
