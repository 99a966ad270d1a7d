"""Segment Anything's image encoders."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn

from models.backbones import register_family
from models.backbones.base import Backbone, BackboneRequest, seeded, three
from models.detector import WeightsError
from models.hubs import HubFile, url_file
from models.preprocessing import Preprocessing
from models.weights import (
    WeightsSource,
    load_strictly,
    local_source,
    read_state_dict,
    without_prefix,
    without_wrappers,
)

URL = "https://dl.fbaipublicfiles.com/segment_anything/"
FILES = {"vit_b": "sam_vit_b_01ec64.pth", "vit_l": "sam_vit_l_0b3195.pth", "vit_h": "sam_vit_h_4b8939.pth"}
NAMES = (*FILES, "demo")


def sam_files(name: str, weights: str) -> list[HubFile]:
    """The file of published weights; errors as of `load_backbone`."""
    if name not in NAMES:
        raise ValueError(f"SAM has no encoder {name!r}; there are: {', '.join(NAMES)}")
    if weights != "hub":
        raise WeightsError(f"SAM's weights have no tags: 'hub', not {weights!r}")
    if name not in FILES:
        raise WeightsError(f"there are no published weights of SAM's {name!r}: use random weights, or vit_b")
    return [HubFile(f"SAM {name}", url=URL + FILES[name])]


@register_family("sam", files=sam_files)
def sam_backbone(request: BackboneRequest) -> Backbone:
    """The image encoder of SAM: "vit_b", "vit_l", "vit_h", or "demo", a small encoder of the same kind at 64 pixels.

    Features are the neck's output, (N, 256, 64, 64), averaged over positions: (N, 256). SAM's own mask decoder reads
    the neck's output too. A linear classifier on the average equals the average of the classifier over positions, so
    a CAM over the neck is exact: its values sum to the logit.

    Pictures that are not square are filled up as by SAM's own predictor, with zeros after normalisation. The average
    leaves out what was filled up: each position counts by the share of its patch that the picture covers. Otherwise the
    aspect ratio would be a feature. With a square picture nothing is filled up.

    Grad-CAM's layer is the neck's last layer, with output
    (N, 256, 64, 64); the windows and channels-last tensors of earlier blocks do not matter there.

    A file may hold a whole SAM, as published, or only the encoder. The default policy is "pad", SAM's own. For a `size`
    other than 1024, which must be a multiple of the patch size, position embeddings are resized (bicubic). That is
    much cheaper, but SAM was not trained at that size.
    """
    name, weights, size = request.name, request.weights, request.size
    if name not in NAMES:
        raise ValueError(f"SAM has no encoder {name!r}; there are: {', '.join(NAMES)}")
    source = local_source(weights, weight_files=request.weight_files, seed=request.seed)
    if source is None:
        (file,) = sam_files(name, weights)
        source = WeightsSource("hub", url_file(file.url, what=file.what))

    encoder: Any
    with seeded(request.seed):
        encoder, mean, std = _demo() if name == "demo" else _published(name)
    if source.path is not None:
        state = read_state_dict(source.path, averaged=source.averaged)
        state = without_prefix(without_wrappers(state, encoder.state_dict(), source=source.path), "image_encoder.")
        load_strictly(encoder, state, source=source.path)
    if size is not None and size != encoder.img_size:
        _resize(encoder, size)
    for block in encoder.blocks:
        block.attn.forward = partial(_attend, block.attn)
    policy = request.policy or "pad"
    return Backbone(
        encoder,
        family="sam",
        name=name,
        num_features=int(encoder.neck[0].out_channels),
        preprocessing=Preprocessing(int(encoder.img_size), mean, std, "bilinear", policy),
        source=source,
        pool=_average,
        find_cam=lambda network, size: ([encoder.neck[-1]], None),
        alpha=policy == "pad",
        mark=f"padding-{request.padding}" if request.padding else "",
    )


def _attend(attention: Any, x: torch.Tensor) -> torch.Tensor:
    """segment_anything's `Attention.forward`, through torch's fused attention: (N, H, W, D) -> (N, H, W, D).

    To the product of a query q at (i, j) and a key at (k, l), SAM adds q . rel_h[i - k] + q . rel_w[j - l]. Here these
    numbers, for all k and all l, are further elements of the query, and the key has a 1 at its own k and its own l. The
    product of both is the same sum, so no matrix of all positions times all positions is in memory: at 1024 pixels a
    fifth of it, and on a GPU in 16 bits a third of the time (docs/performance.md).
    """
    n, height, width, _ = x.shape
    heads, places = attention.num_heads, height * width
    query, key, value = attention.qkv(x).reshape(n, places, 3, heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
    parts_of_query, parts_of_key = [query * attention.scale], [key]
    if attention.use_rel_pos:
        grid = query.reshape(n * heads, height, width, -1)
        rows = _relative(attention.rel_pos_h, height).to(query.dtype)
        columns = _relative(attention.rel_pos_w, width).to(query.dtype)
        to_rows = torch.einsum("nijc,ikc->nijk", grid, rows).reshape(n, heads, places, height)
        to_columns = torch.einsum("nijc,jlc->nijl", grid, columns).reshape(n, heads, places, width)
        parts_of_query += [to_rows.to(query.dtype), to_columns.to(query.dtype)]
        own_row = torch.eye(height, device=x.device, dtype=key.dtype)[:, None].expand(height, width, height)
        own_column = torch.eye(width, device=x.device, dtype=key.dtype)[None].expand(height, width, width)
        own = torch.cat([own_row, own_column], dim=-1).view(places, height + width)
        parts_of_key.append(own.expand(n, heads, places, height + width))
    query, key = (_filled_up(torch.cat(parts, dim=-1)) for parts in (parts_of_query, parts_of_key))
    out = nn.functional.scaled_dot_product_attention(query, key, value, scale=1.0)
    attended: torch.Tensor = attention.proj(out.transpose(1, 2).reshape(n, height, width, -1))
    return attended


def _relative(embeddings: torch.Tensor, size: int) -> torch.Tensor:
    """Embeddings of distances (2 L - 1, C) -> those of each pair of `size` positions (size, size, C), as SAM's own.

    The index is made on the embeddings' device: segment_anything makes it on the CPU, and a GPU waits for its copy.
    """
    if len(embeddings) != 2 * size - 1:
        resized = nn.functional.interpolate(embeddings.T[None], size=2 * size - 1, mode="linear")
        embeddings = resized[0].T
    positions = torch.arange(size, device=embeddings.device)
    return embeddings[positions[:, None] - positions[None, :] + size - 1]


def _filled_up(x: torch.Tensor) -> torch.Tensor:
    """With zeros to a multiple of eight elements, which fused attention in 16 bits needs; a product stays the same."""
    return nn.functional.pad(x, (0, -x.shape[-1] % 8))


def _average(neck: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor:
    """(N, D, h, w) -> (N, D), over the positions where the picture is."""
    if present is None:
        return neck.mean(dim=(2, 3))
    shares = nn.functional.adaptive_avg_pool2d(present, (neck.shape[2], neck.shape[3]))
    return (neck * shares).sum(dim=(2, 3)) / shares.sum(dim=(2, 3))


def _published(name: str) -> tuple[nn.Module, tuple[float, float, float], tuple[float, float, float]]:
    from segment_anything import sam_model_registry

    sam = sam_model_registry[name]()
    mean, std = (sam.pixel_mean.flatten() / 255).tolist(), (sam.pixel_std.flatten() / 255).tolist()
    return sam.image_encoder, three([round(v, 6) for v in mean]), three([round(v, 6) for v in std])


def _demo() -> tuple[nn.Module, tuple[float, float, float], tuple[float, float, float]]:
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


def _resize(encoder: Any, size: int) -> None:
    patch = encoder.patch_embed.proj.kernel_size[0]
    if size % patch:
        raise ValueError(f"SAM's input size must be a multiple of {patch}, got {size}")
    positions = encoder.pos_embed.detach().permute(0, 3, 1, 2)
    side = (size // patch, size // patch)
    resized = nn.functional.interpolate(positions, size=side, mode="bicubic", antialias=True, align_corners=False)
    encoder.pos_embed = nn.Parameter(resized.permute(0, 2, 3, 1).contiguous())
    encoder.img_size = size  # relative positions are resized in every forward pass
