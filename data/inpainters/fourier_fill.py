"""`fourier_fill`: the mechanism of LaMa, a receptive field as wide as the picture, obtained in the Fourier domain."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from data.faces import to_bytes
from data.inpainters import register_inpainter
from data.inpainters._prior import face_guess

_NUM_ROUNDS = 24


@register_inpainter("fourier_fill")
def fourier_fill(
    image: NDArray[np.uint8], mask: NDArray[np.bool_], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Continue the known pixels by the strongest frequencies of the whole picture; paste exactly.

    Papoulis-Gerchberg extrapolation with a shrinking threshold (Papoulis 1975; Guleryuz 2006, "Nonlinear
    approximation based image recovery"): transform, keep the coefficients above a threshold, transform back, put the
    known pixels back, lower the threshold. The cosine transform is the Fourier transform of the mirrored picture, so
    nothing wraps around.

    Like LaMa (Suvorov et al. 2022): every output pixel depends on every known one through a spectral step, repeating
    texture carries on, noise does not, nothing outside the mask changes. Unlike LaMa: nothing is learned but the linear
    face model of the first guess, and there is no adversarial loss that would sharpen the fill.

    Args:
        image: (H, W, 3) uint8, not read under the mask.
        mask: (H, W) bool, True = repaint.
        rng: unused; the fill is deterministic, as LaMa's is.

    Returns:
        (H, W, 3) uint8, equal to `image` outside the mask.
    """
    out = image.copy()
    if not mask.any():
        return out
    known = np.where(mask[..., None], np.uint8(0), image).astype(np.float32)
    current = face_guess(image, mask)
    for threshold in np.geomspace(120, 6, _NUM_ROUNDS, dtype=np.float32):
        spectrum = fft.dctn(current, axes=(0, 1), norm="ortho")
        spectrum[np.abs(spectrum) < threshold] = 0
        current = np.where(mask[..., None], fft.idctn(spectrum, axes=(0, 1), norm="ortho"), known)
    out[mask] = to_bytes(current[mask])
    return out
