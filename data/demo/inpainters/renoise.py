"""`renoise`: the mechanism of RePaint, a diffusion that starts from noise and is reminded of the known pixels."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import scipy  # loads its parts when they are used: planning a grid draws nothing
from numpy.typing import NDArray

from data.demo.faces import to_bytes
from data.demo.inpainters import register_inpainter
from data.demo.inpainters._prior import COLOURS, face_space

_NOISE = np.geomspace(90, 2.5, 12)  # levels, from the first step to the last
_LEFT_OVER = 2.0  # levels of noise in the state that is returned
_NUM_RESAMPLINGS = 2  # RePaint's jumps back: each step is done so often


@register_inpainter("renoise")
def renoise(image: NDArray[np.uint8], mask: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Sample the fill from noise, putting the noised known pixels back before each step.

    At noise s: put `known + s * noise` outside the mask, denoise, add noise of the next level, and do each level
    twice. The denoiser is the linear minimum-mean-square-error one for a face of the linear face model plus a texture
    of given power spectrum (Wiener's filter in the cosine domain). The last state is returned whole.

    Like RePaint (Lugmayr et al. 2022): start from noise, re-noise and resample to reconcile fill and surroundings, and
    nearly every known pixel ends about 2 levels off (97 % in RePaint's published outputs), since the output is the
    sampler's own last state, in which a little noise is left.
    Unlike RePaint: the denoiser is linear, so texture is Gaussian and contours soft, and the steps are 24 instead
    of thousands.

    Args:
        image: (H, W, 3) uint8, not read under the mask.
        mask: (H, W) bool, True = repaint.
        rng: all noise.

    Returns:
        (H, W, 3) uint8; outside the mask off by a few levels.
    """
    hidden = mask[..., None]
    visible = np.where(hidden, np.uint8(0), image).astype(np.float32)
    mean, _, _ = face_space(*mask.shape)
    state = mean + _NOISE[0] * rng.standard_normal(visible.shape, np.float32)
    clean = mean
    for level, following in zip(_NOISE, [*_NOISE[1:], _LEFT_OVER], strict=True):
        for again in reversed(range(_NUM_RESAMPLINGS)):
            noise = rng.standard_normal(visible.shape, np.float32)
            reminded = np.where(hidden, state, visible + np.float32(level) * noise)
            clean = _denoise(reminded, float(level))
            onward = level if again else following
            state = clean + np.float32(onward) * rng.standard_normal(visible.shape, np.float32)
    return to_bytes(state)


def _denoise(noisy: NDArray[np.float32], level: float) -> NDArray[np.float32]:
    """Expectation of the clean picture, (H, W, 3) levels, given it with white noise of `level` levels."""
    height, width, _ = noisy.shape
    mean, components, energy = _space(height, width)
    flat = components.reshape(len(components), -1)
    weights = (flat @ (noisy - mean).reshape(-1)) / (energy + level**2)
    face = mean + (weights @ flat).reshape(mean.shape)
    power = _texture_power(height, width)
    spectrum = scipy.fft.dctn((noisy - face) @ COLOURS.T, axes=(0, 1), norm="ortho")
    return face + scipy.fft.idctn(spectrum * (power / (power + level**2)), axes=(0, 1), norm="ortho") @ COLOURS


@lru_cache(maxsize=8)
def _space(height: int, width: int) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """The face model with each component's energy |c|**2; resizing leaves them orthogonal to a good approximation."""
    mean, components, _ = face_space(height, width)
    energy = (components.reshape(len(components), -1) ** 2).sum(axis=1)
    return mean, components, energy


@lru_cache(maxsize=8)
def _texture_power(height: int, width: int) -> NDArray[np.float32]:
    """Expected squared cosine coefficient of what the face model leaves, (H, W, 3) levels**2, planes as in `COLOURS`.

    The fall with frequency (in units of Nyquist's) was fitted to photographed drawings at 64 px; the floor is fine
    texture and sensor noise.
    """
    rows, columns = np.ogrid[:height, :width]
    fall = np.exp(-6.4 * np.hypot(rows / height, columns / width))[..., None]
    return (np.array([4000, 250, 250]) * fall + np.array([6, 5, 5])).astype(np.float32)
