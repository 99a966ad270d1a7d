"""`renoise`: the mechanism of RePaint, a diffusion from noise that re-imposes the known pixels before each step."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import scipy  # imports its subpackages on first use: planning a grid draws nothing
from numpy.typing import NDArray

from data.demo.faces import to_bytes
from data.demo.inpainters import Wish, register_inpainter
from data.demo.inpainters._prior import COLOURS, face_space

_NOISE = np.geomspace(90, 2.5, 12)  # levels, from the first step to the last
_FINAL_NOISE = 2.0  # levels of noise in the returned state
_WISHED_LEVELS = 5  # with a wish the sampler starts from the wish with noise, at the fifth level from the end
_NUM_RESAMPLINGS = 2  # repetitions of each step (RePaint's jumps back)


@register_inpainter("renoise")
def renoise(
    image: NDArray[np.uint8], mask: NDArray[np.bool_], rng: np.random.Generator, wish: Wish = None
) -> NDArray[np.uint8]:
    """Sample the fill from noise, putting the known pixels with noise back before each step.

    At noise s: put `known + s * noise` outside the mask, denoise, add noise of the next level; do each level twice.
    The denoiser has the least mean square error of all linear ones for a face of the linear face model plus a texture
    with a given power spectrum (Wiener's filter in the cosine domain). The whole last state is returned.

    Like RePaint (Lugmayr et al. 2022): start from noise, re-noise and resample to reconcile fill and surroundings.
    Nearly every known pixel ends about 2 levels off (97 % in RePaint's published outputs), because the output is the
    sampler's last state, which still has a little noise. Unlike RePaint: the denoiser is linear, so texture is Gaussian
    and contours are soft, and there are 24 steps instead of thousands.

    With a wish, the sampler starts from it with some noise (Meng et al. 2022, "SDEdit"), and the denoiser expects it.

    `rng` draws all noise.
    """
    hidden = mask[..., None]
    visible = np.where(hidden, np.uint8(0), image).astype(np.float32)
    levels = _NOISE if wish is None else _NOISE[-_WISHED_LEVELS:]
    resamplings = _NUM_RESAMPLINGS if wish is None else 1
    start = face_space(*mask.shape)[0] if wish is None else wish
    state = start + levels[0] * rng.standard_normal(visible.shape, np.float32)
    for level, next_level in zip(levels, [*levels[1:], _FINAL_NOISE], strict=True):
        for repetitions_left in reversed(range(resamplings)):
            noise = rng.standard_normal(visible.shape, np.float32)
            noisy = np.where(hidden, state, visible + np.float32(level) * noise)
            clean = _denoise(noisy, float(level), wish)
            new_level = level if repetitions_left else next_level
            state = clean + np.float32(new_level) * rng.standard_normal(visible.shape, np.float32)
    return to_bytes(state)


def _denoise(noisy: NDArray[np.float32], level: float, wish: Wish) -> NDArray[np.float32]:
    """Expected clean picture, (H, W, 3) levels, given the picture with white noise of `level` levels."""
    height, width, _ = noisy.shape
    face = _expected_face(noisy, level) if wish is None else wish
    power = _texture_power(height, width)
    spectrum = scipy.fft.dctn((noisy - face) @ COLOURS.T, axes=(0, 1), norm="ortho")
    return face + scipy.fft.idctn(spectrum * (power / (power + level**2)), axes=(0, 1), norm="ortho") @ COLOURS


def _expected_face(noisy: NDArray[np.float32], level: float) -> NDArray[np.float32]:
    """The face of the linear face model that is in a picture with white noise of `level` levels, (H, W, 3) levels."""
    height, width, _ = noisy.shape
    mean, components, _ = face_space(height, width)
    flat = components.reshape(len(components), -1)
    energy = (flat**2).sum(axis=1)  # resized components are still nearly orthogonal
    weights = (flat @ (noisy - mean).reshape(-1)) / (energy + level**2)
    return mean + (weights @ flat).reshape(mean.shape)


@lru_cache(maxsize=8)
def _texture_power(height: int, width: int) -> NDArray[np.float32]:
    """Expected squared cosine coefficients of the face model's residual, (H, W, 3) levels**2, planes as in `COLOURS`.

    The fall with frequency (in units of Nyquist's) was fitted to drawings with sensor noise at 64 px; the floor is
    fine texture and sensor noise.
    """
    rows, columns = np.ogrid[:height, :width]
    fall = np.exp(-6.4 * np.hypot(rows / height, columns / width))[..., None]
    return (np.array([4000, 250, 250]) * fall + np.array([6, 5, 5])).astype(np.float32)
