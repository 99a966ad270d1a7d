"""`renoise`: the mechanism of RePaint, a diffusion from noise that re-imposes the known pixels before each step."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import scipy  # imports its subpackages on first use: planning a grid draws nothing
from numpy.typing import NDArray

from data.demo.faces import to_bytes
from data.demo.inpainters import register_inpainter
from data.demo.inpainters._prior import COLOURS, face_space

_NOISE = np.geomspace(90, 2.5, 12)  # levels, from the first step to the last
_FINAL_NOISE = 2.0  # levels of noise in the returned state
_NUM_RESAMPLINGS = 2  # repetitions of each step (RePaint's jumps back)


@register_inpainter("renoise")
def renoise(image: NDArray[np.uint8], mask: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Sample the fill from noise, putting the known pixels with noise back before each step.

    At noise s: put `known + s * noise` outside the mask, denoise, add noise of the next level; do each level twice.
    The denoiser has the least mean square error of all linear ones for a face of the linear face model plus a texture
    with a given power spectrum (Wiener's filter in the cosine domain). The whole last state is returned.

    Like RePaint (Lugmayr et al. 2022): start from noise, re-noise and resample to reconcile fill and surroundings.
    Nearly every known pixel ends about 2 levels off (97 % in RePaint's published outputs), because the output is the
    sampler's last state, which still has a little noise. Unlike RePaint: the denoiser is linear, so texture is Gaussian
    and contours are soft, and there are 24 steps instead of thousands.

    `rng` draws all noise.
    """
    hidden = mask[..., None]
    visible = np.where(hidden, np.uint8(0), image).astype(np.float32)
    mean, _, _ = face_space(*mask.shape)
    state = mean + _NOISE[0] * rng.standard_normal(visible.shape, np.float32)
    for level, next_level in zip(_NOISE, [*_NOISE[1:], _FINAL_NOISE], strict=True):
        for repetitions_left in reversed(range(_NUM_RESAMPLINGS)):
            noise = rng.standard_normal(visible.shape, np.float32)
            noisy = np.where(hidden, state, visible + np.float32(level) * noise)
            clean = _denoise(noisy, float(level))
            new_level = level if repetitions_left else next_level
            state = clean + np.float32(new_level) * rng.standard_normal(visible.shape, np.float32)
    return to_bytes(state)


def _denoise(noisy: NDArray[np.float32], level: float) -> NDArray[np.float32]:
    """Expected clean picture, (H, W, 3) levels, given the picture with white noise of `level` levels."""
    height, width, _ = noisy.shape
    mean, components, _ = face_space(height, width)
    flat = components.reshape(len(components), -1)
    energy = (flat**2).sum(axis=1)  # resized components are still nearly orthogonal
    weights = (flat @ (noisy - mean).reshape(-1)) / (energy + level**2)
    face = mean + (weights @ flat).reshape(mean.shape)
    power = _texture_power(height, width)
    spectrum = scipy.fft.dctn((noisy - face) @ COLOURS.T, axes=(0, 1), norm="ortho")
    return face + scipy.fft.idctn(spectrum * (power / (power + level**2)), axes=(0, 1), norm="ortho") @ COLOURS


@lru_cache(maxsize=8)
def _texture_power(height: int, width: int) -> NDArray[np.float32]:
    """Expected squared cosine coefficients of the face model's residual, (H, W, 3) levels**2, planes as in `COLOURS`.

    The fall with frequency (in units of Nyquist's) was fitted to drawings with sensor noise at 64 px; the floor is
    fine texture and sensor noise.
    """
    rows, columns = np.ogrid[:height, :width]
    fall = np.exp(-6.4 * np.hypot(rows / height, columns / width))[..., None]
    return (np.array([4000, 250, 250]) * fall + np.array([6, 5, 5])).astype(np.float32)
