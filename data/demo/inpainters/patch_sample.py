"""`patch_sample`: the mechanism of Pluralistic, a plausible fill with texture from the visible part."""

from __future__ import annotations

import numpy as np
import scipy  # imports its subpackages on first use: planning a grid draws nothing
from numpy.typing import NDArray

from data.demo.faces import to_bytes
from data.demo.inpainters import Wish, register_inpainter
from data.demo.inpainters._prior import remembered_face

_PATCH = 8
_STRIDE = 6
_NUM_CANDIDATES = 500
_NUM_PLAUSIBLE = 4
_BLUR = 1.0  # pixels; of a wish, what is finer comes from patches


@register_inpainter("patch_sample")
def patch_sample(
    image: NDArray[np.uint8], mask: NDArray[np.bool_], rng: np.random.Generator, wish: Wish = None
) -> NDArray[np.uint8]:
    """Draw a plausible face from the album, then cover it with patches of the picture itself; paste exactly.

    Each 8 x 8 block that meets the mask gets one of the few fully visible patches (or their mirror images) that agree
    best with the drawn face. The patch's detail is added to the block's mean colour. Neighbouring patches are
    cross-faded where they overlap.

    Like Pluralistic (Zheng et al. 2019): each draw is another face, the texture attends to the visible part, nothing
    outside the mask changes, and patches repeat and meet in faint seams. Unlike Pluralistic: the face comes from
    an album instead of a learned latent, and the attention is a nearest-neighbour search (as in Criminisi et al.
    2004), so real sensor noise is copied along with the texture.

    With a wish, its coarse picture is kept, and patches of the picture's own fine texture, noise included, are laid
    over it.

    `rng` samples the face and the patches.
    """
    out = image.copy()
    if not mask.any():
        return out
    if wish is None:
        guess, source = remembered_face(image, mask, rng), image
        base = np.zeros_like(guess)
    else:
        wished = np.where(mask[..., None], wish, image).astype(np.float32)
        base = scipy.ndimage.gaussian_filter(wished, (_BLUR, _BLUR, 0), mode="nearest")
        guess = source = wished - base
    candidates = _visible_patches(source, mask, rng)
    height, width = mask.shape
    if not len(candidates):
        out[mask] = to_bytes((base + guess)[mask])
        return out
    corners = [(y, x) for y in _starts(height) for x in _starts(width) if mask[y : y + _PATCH, x : x + _PATCH].any()]
    targets = np.stack([guess[y : y + _PATCH, x : x + _PATCH] for y, x in corners])
    colour = targets.mean(axis=(1, 2), keepdims=True)
    detail = candidates - candidates.mean(axis=(1, 2), keepdims=True)
    # Squared distance in detail, plus a smaller one in mean colour, so that skin is covered with skin.
    target_rows, detail_rows = (targets - colour).reshape(len(targets), -1), detail.reshape(len(detail), -1)
    distance = (detail_rows**2).sum(axis=1) - 2 * target_rows @ detail_rows.T
    means = candidates.mean(axis=(1, 2))
    distance += 0.1 * _PATCH**2 * ((colour[:, 0, 0, None] - means) ** 2).sum(axis=-1)
    plausible = np.argsort(distance, axis=1, kind="stable")[:, :_NUM_PLAUSIBLE]
    chosen = plausible[np.arange(len(plausible)), rng.integers(plausible.shape[1], size=len(plausible))]

    ramp = np.minimum(np.arange(1, _PATCH + 1), np.arange(_PATCH, 0, -1)).clip(max=_PATCH - _STRIDE + 1)
    window = np.outer(ramp, ramp)[..., None].astype(np.float32)
    total, weight = np.zeros_like(guess), np.zeros((height, width, 1), np.float32)
    for (y, x), patch in zip(corners, colour + detail[chosen], strict=True):
        total[y : y + _PATCH, x : x + _PATCH] += window * patch
        weight[y : y + _PATCH, x : x + _PATCH] += window
    out[mask] = to_bytes(base[mask] + total[mask] / weight[mask])
    return out


def _starts(length: int) -> list[int]:
    """First pixels of the blocks that cover a side; the last block ends where the side ends."""
    last = max(length - _PATCH, 0)
    return sorted({*range(0, last, _STRIDE), last})


def _visible_patches(
    image: NDArray[np.uint8] | NDArray[np.float32], mask: NDArray[np.bool_], rng: np.random.Generator
) -> NDArray[np.float32]:
    """A sample of the patches that do not meet the mask, and their mirror images, (N, 8, 8, 3); N may be 0."""
    if min(mask.shape) < _PATCH:
        return np.empty((0, _PATCH, _PATCH, 3), np.float32)
    window = np.lib.stride_tricks.sliding_window_view
    free = np.argwhere(~window(mask, (_PATCH, _PATCH)).any(axis=(2, 3)))
    if len(free) > _NUM_CANDIDATES:
        free = free[rng.choice(len(free), _NUM_CANDIDATES, replace=False)]
    patches = window(image, (_PATCH, _PATCH), axis=(0, 1))[free[:, 0], free[:, 1]].transpose(0, 2, 3, 1)
    return np.concatenate([patches, patches[:, :, ::-1]]).astype(np.float32)
