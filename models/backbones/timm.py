"""timm's networks, as frozen encoders and as classifiers that train in full."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from models.backbones import register_family
from models.backbones.base import Backbone, BackboneRequest, Cam, TokenGrid, nearest, seeded, three
from models.detector import WeightsError
from models.hubs import HubFile, cannot_fetch, hub_file, url_file
from models.preprocessing import Preprocessing
from models.weights import (
    PACKAGED,
    WeightsSource,
    load_strictly,
    local_source,
    read_state_dict,
    rename_by_order,
    without_wrappers,
)


def timm_files(name: str, weights: str) -> list[HubFile]:
    """The file of published weights; errors as of `load_backbone`."""
    return [_published(*_configuration(name, weights.partition(":")[2]))]


@register_family("timm", files=timm_files)
def timm_backbone(request: BackboneRequest) -> Backbone:
    """A timm network without its classifier: features are the classifier's input.

    The default policy is "squash": timm's evaluation crop (policy "crop") would cut off a repainted border.
    """
    network, preprocessing, source = _network(request, 0)
    return Backbone(
        network,
        family="timm",
        name=request.name,
        num_features=timm_num_features(network),
        preprocessing=preprocessing,
        source=source,
        pool=None,
        find_cam=timm_cam,
    )


def timm_classifier(request: BackboneRequest, num_classes: int) -> tuple[nn.Module, Preprocessing]:
    """A plain timm network with its own classifier, to train in full.

    Its state dict has timm's names, so `timm.create_model(name, num_classes=...)` loads a trained network. All
    pretrained weights are loaded except those of the classifier, which is new and depends on the seed. The errors are
    those of `load_backbone`; `timm_cam` finds the layers for Grad-CAM.

    Returns:
        the network, in training mode and with gradients, and the preprocessing of its pixels.
    """
    network, preprocessing, _ = _network(request, num_classes)
    return network, preprocessing


def timm_num_features(network: Any) -> int:
    """Number of features that the classifier of a timm network takes."""
    return int(getattr(network, "head_hidden_size", None) or network.num_features)


def classifier_names(name: str) -> tuple[str, str]:
    """The names of the weight and the bias of a network's classifier.

    Raises:
        ValueError: timm has no such network, or it has several classifiers.
    """
    import timm

    architecture = _existing(_current_name(name))
    config = timm.get_pretrained_cfg(architecture)
    classifier = None if config is None else config.classifier
    if not isinstance(classifier, str):
        raise ValueError(f"timm's {architecture} has no single classifier")
    return f"{classifier}.weight", f"{classifier}.bias"


def without_weights(request: BackboneRequest) -> BackboneRequest:
    """The same network and preprocessing with random weights, for a checkpoint that holds every tensor.

    A hub's tag determines the preprocessing too, so it stays in the network's name.
    """
    kind, _, tag = request.weights.partition(":")
    name = f"{request.name.partition('.')[0]}.{tag}" if kind == "hub" and tag else request.name
    return dataclasses.replace(request, name=name, weights="random")


def _network(request: BackboneRequest, num_classes: int) -> tuple[Any, Preprocessing, WeightsSource]:
    import timm

    source = local_source(request.weights, weight_files=request.weight_files, seed=request.seed)
    name, config = _configuration(request.name, request.weights.partition(":")[2] if source is None else "")
    architecture = name.partition(".")[0]
    if source is None:
        file = _published(name, config)
        path = hub_file(file.repository, file.names, what=name) if file.repository else url_file(file.url, what=name)
        source = WeightsSource(f"hub:{config.tag}" if config.tag else "hub", path)

    side = request.size or int(config.input_size[-1])
    options: dict[str, Any] = {"img_size": side} if config.fixed_input_size and side != config.input_size[-1] else {}
    with seeded(request.seed):
        network = timm.create_model(name, pretrained=False, num_classes=num_classes, **options)
    _check_side(name, network, side)
    if source.path is not None:
        state = (
            _packaged_state(architecture, source.path)
            if request.weights == PACKAGED
            else read_state_dict(source.path, averaged=source.averaged)
        )
        _load(network, state, source.path, config.classifier, resized=bool(options))

    policy = request.policy or "squash"
    preprocessing = Preprocessing(
        size=side,
        mean=three(config.mean),
        std=three(config.std),
        interpolation=config.interpolation,
        policy=policy,
        crop_fraction=float(config.crop_pct) if policy == "crop" else 1.0,
    )
    return network.to(memory_format=torch.channels_last), preprocessing, source


def _configuration(name: str, tag: str) -> tuple[str, Any]:
    """The present name of a network with the tag of its weights, and timm's facts about them; errors as `_network`."""
    import timm

    name = _current_name(f"{name.partition('.')[0]}.{tag}" if tag else name)
    architecture = _existing(name)
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError:  # no such tag
        config = None
    if config is None:
        tags = ", ".join(timm.list_pretrained(f"{architecture}.*")) or "none"
        raise WeightsError(f"timm publishes no weights {name!r}; there are: {tags}")
    return name, config


def _existing(name: str) -> str:
    """The architecture of a name. Raises `ValueError` if timm has none of that name."""
    import timm

    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        raise ValueError(f"timm has no network {architecture!r}; {nearest(architecture, timm.list_models())}")
    return architecture


def _current_name(name: str) -> str:
    """The present name of a network whose name timm has changed: "legacy_xception" for "xception"."""
    import timm

    architecture, _, tag = name.partition(".")
    renamed = timm.models.get_deprecated_models()
    if architecture not in renamed:
        return name
    if renamed[architecture] is None:
        raise ValueError(f"timm has removed the network {architecture!r}; {nearest(architecture, timm.list_models())}")
    current, _, own_tag = str(renamed[architecture]).partition(".")
    return ".".join(filter(None, [current, tag or own_tag]))


def _published(name: str, config: Any) -> HubFile:
    if config.hf_hub_id:
        repository = config.hf_hub_id if "/" in config.hf_hub_id else f"timm/{config.hf_hub_id}"
        names = (config.hf_hub_filename,) if config.hf_hub_filename else ("model.safetensors", "pytorch_model.bin")
        return HubFile(name, repository, names)
    if isinstance(config.url, str) and config.url and not config.custom_load:
        return HubFile(name, url=config.url)
    raise cannot_fetch(name, "timm publishes none in a format that this project reads")


def _packaged_state(architecture: str, path: Path) -> dict[str, torch.Tensor]:
    import timm

    if architecture != "tf_efficientnet_lite0":
        raise WeightsError(f"{PACKAGED} is for tf_efficientnet_lite0 only, not for {architecture}")
    with torch.device("meta"):
        names = timm.create_model(architecture, pretrained=False).state_dict()
    return rename_by_order(read_state_dict(path), names, source=path)


def _check_side(name: str, network: Any, side: int) -> None:
    """Raise `ValueError` if a transformer's patches do not fit into pictures of this side, in pixels."""
    embed = getattr(network, "patch_embed", None)
    patch = max(getattr(embed, "patch_size", None) or (1,))
    any_side = getattr(embed, "strict_img_size", True) or getattr(embed, "dynamic_img_pad", False)
    if side < patch or (side % patch and not any_side):
        nearest = max(1, round(side / patch)) * patch
        raise ValueError(
            f"{name} cuts pictures into patches of {patch} pixels: set size to a multiple, such as {nearest}"
        )


def _load(network: nn.Module, state: dict[str, torch.Tensor], path: Path, classifier: Any, *, resized: bool) -> None:
    """Load by timm's names. This does not use timm's own loader, which is strict only if the classifier is kept.

    timm's converter for the architecture runs first: it renames tensors of older files and resizes position embeddings
    for another input size. Resizing is allowed only if the request names another size.
    """
    state = without_wrappers(state, network.state_dict(), source=path)
    position = network.state_dict().get("pos_embed")
    published = state.get("pos_embed")
    if position is not None and published is not None and position.shape != published.shape and not resized:
        raise WeightsError(
            f"the weights in {path} are for another input size: pos_embed is {tuple(published.shape)}, not "
            f"{tuple(position.shape)}. Name the network of that size, or set the size to have it resized"
        )
    convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if convert is not None:
        with contextlib.suppress(LookupError, RuntimeError, ValueError, AttributeError, AssertionError):
            state = convert(state, network)  # fails on a wrong file, which `load_strictly` describes better
    heads = [classifier] if isinstance(classifier, str) else list(classifier or ())
    load_strictly(network, state, source=path, ignore=[f"{head}." for head in heads])


_feature_layers: WeakKeyDictionary[nn.Module, tuple[int, Cam]] = WeakKeyDictionary()  # network -> size and answer


def timm_cam(network: nn.Module, size: int) -> Cam:
    """Layers and reshape function for Grad-CAM on any timm network, with or without its classifier.

    For a vision transformer, the layer is the last block's first norm, as for CLIP (see `clip_backbone`). For any other
    network, it is the module that returns the feature map before pooling; running the network once on zeros,
    (1, 3, size, size), finds it, and later calls for the same network and size remember it.

    Raises:
        ValueError: no module returns that feature map.
    """
    blocks = getattr(network, "blocks", None)
    num_prefix = getattr(network, "num_prefix_tokens", None)
    if isinstance(blocks, nn.Sequential | nn.ModuleList) and num_prefix is not None and hasattr(blocks[-1], "norm1"):
        norm: Any = blocks[-1].norm1
        return [norm], TokenGrid(int(num_prefix))

    known_size, known = _feature_layers.get(network, (0, None))
    if known is not None and known_size == size and any(module is known[0][0] for module in network.modules()):
        return known
    runnable: Any = network
    outputs: list[tuple[nn.Module, Any]] = []
    handles = [
        module.register_forward_hook(lambda module, inputs, output: outputs.append((module, output)))
        for module in network.modules()
    ]
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
    # the last module that returns it: no later module can have changed it in place
    layer = next((module for module, output in reversed(outputs) if output is features), None)
    if layer is None:
        raise ValueError(f"no module of {type(network).__name__} returns the feature map before pooling")
    reshape: Any = None
    if features.ndim == 3:
        reshape = TokenGrid(int(num_prefix or 0))
    elif getattr(network, "output_fmt", "NCHW") == "NHWC":
        reshape = _channels_first
    _feature_layers[network] = size, ([layer], reshape)
    return [layer], reshape


def _channels_first(activations: torch.Tensor) -> torch.Tensor:
    return activations.permute(0, 3, 1, 2)
