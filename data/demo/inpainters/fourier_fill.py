"""`fourier_fill`: the mechanism of LaMa, a receptive field that covers the whole picture, by way of the spectrum."""

from __future__ import annotations

import numpy as np
import scipy  # imports its subpackages on first use: planning a grid draws nothing
from numpy.typing import NDArray

from data.demo.faces import to_bytes
from data.demo.inpainters import Wish, register_inpainter
from data.demo.inpainters._prior import COLOURS, likely_face

_NUM_ROUNDS = 24
_FIRST, _LAST = 200, 15  # thresholds, levels of the orthonormal transform
_BY_COLOUR = np.array([1, 2, 2], np.float32)  # colour changes more slowly than brightness


@register_inpainter("fourier_fill")
def fourier_fill(
    image: NDArray[np.uint8], mask: NDArray[np.bool_], rng: np.random.Generator, wish: Wish = None
) -> NDArray[np.uint8]:
    """Continue the known pixels by the strongest frequencies of the whole picture; paste exactly.

    Papoulis-Gerchberg extrapolation with a shrinking threshold (Papoulis 1975; Guleryuz 2006, "Nonlinear
    approximation based image recovery") of the residual of a linear face model: transform, keep the coefficients above
    a threshold, transform back, put the known pixels back, lower the threshold. The cosine transform is the Fourier
    transform of the mirrored picture, so nothing wraps around.

    Like LaMa (Suvorov et al. 2022): every output pixel depends on every known pixel through a spectral step; repeating
    texture continues into the fill, noise does not; nothing outside the mask changes. Unlike LaMa: only the linear
    face model is learned, and no adversarial loss sharpens the fill.

    With a wish there is nothing to extrapolate: the wished picture in its surroundings is made of its strongest
    frequencies.

    `rng` is not used: the fill is deterministic, like LaMa's.
    """
    out = image.copy()
    if not mask.any():
        return out
    hidden = mask[..., None]
    if wish is not None:
        spectrum = scipy.fft.dctn(np.where(hidden, wish, image) @ COLOURS.T, axes=(0, 1), norm="ortho")
        spectrum -= np.clip(spectrum, -_LAST * _BY_COLOUR, _LAST * _BY_COLOUR)
        out[mask] = to_bytes((scipy.fft.idctn(spectrum, axes=(0, 1), norm="ortho") @ COLOURS)[mask])
        return out
    face = likely_face(image, mask)
    visible = np.where(hidden, 0, image - face) @ COLOURS.T
    texture = np.zeros_like(visible)
    for threshold in np.geomspace(_FIRST, _LAST, _NUM_ROUNDS)[:, None] * _BY_COLOUR:
        spectrum = scipy.fft.dctn(np.where(hidden, texture, visible), axes=(0, 1), norm="ortho")
        spectrum -= np.clip(spectrum, -threshold, threshold)
        texture = scipy.fft.idctn(spectrum, axes=(0, 1), norm="ortho")
    out[mask] = to_bytes((face + texture @ COLOURS)[mask])
    return out
