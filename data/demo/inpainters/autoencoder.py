"""`autoencoder`: the mechanism of LDM, a lossy autoencoder through which the whole picture passes."""

from __future__ import annotations

import numpy as np
import scipy  # imports its subpackages on first use: planning a grid draws nothing
from numpy.typing import NDArray

from data.demo.faces import to_bytes
from data.demo.inpainters import Wish, register_inpainter
from data.demo.inpainters._prior import COLOURS, remembered_face

_BLOCK = 8
_STRIDE = 4
_LEAK = 0.1  # share of the autoencoder's error that stays in the known pixels
_MAX_LEAK = 8  # levels, as measured on LDM's published outputs
_UNEVEN = 0.15  # unevenness of the overlap: it changes the brightness by up to 1 % per direction
_SAMPLING = 0.3  # standard deviation of the sampled latent, in quantisation steps

# Quantisation steps (3, 8, 8), in levels of the orthonormal transform; larger for high frequencies and for colour.
_FREQUENCY = np.hypot(*np.ogrid[:_BLOCK, :_BLOCK]).astype(np.float32)
_STEPS = (10 + 7 * _FREQUENCY) * np.array([1.0, 1.8, 1.8], np.float32)[:, None, None]


@register_inpainter("autoencoder")
def autoencoder(
    image: NDArray[np.uint8], mask: NDArray[np.bool_], rng: np.random.Generator, wish: Wish = None
) -> NDArray[np.uint8]:
    """Fill, encode and decode the whole picture, mix the known pixels back imperfectly.

    The latent consists of overlapping 8 x 8 cosine blocks, quantised more coarsely for higher frequencies and for
    colour, with a little noise, like a variational latent. Decoding adds up the overlapping blocks a little unevenly,
    as transposed convolutions do (Odena et al. 2016, "Deconvolution and checkerboard artifacts").

    Like LDM (Rombach et al. 2022): the fill exists only as a decoded latent, with ringing and a faint grid at the
    decoder's stride, and about half of the known pixels change, by at most 8 levels. Unlike LDM: the autoencoder is
    a fixed transform instead of a trained network, there is no diffusion in the latent, and the content comes
    from an album of drawn faces, or is a wish.

    `rng` samples the plausible face and the latent.
    """
    filled = remembered_face(image, mask, rng) if wish is None else np.where(mask[..., None], wish, image)
    decoded = _encode_decode(filled, rng)
    leak = np.clip(_LEAK * (decoded - filled), -_MAX_LEAK, _MAX_LEAK)
    return to_bytes(np.where(mask[..., None], decoded, filled + leak))


def _encode_decode(picture: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """(H, W, 3) levels -> decoded latent, (H, W, 3) levels."""
    height, width, _ = picture.shape
    pad_y, pad_x = (_STRIDE + (-n) % _STRIDE for n in (height, width))
    padded = np.pad(picture @ COLOURS.T, ((_STRIDE, pad_y), (_STRIDE, pad_x), (0, 0)), mode="symmetric")
    blocks = np.lib.stride_tricks.sliding_window_view(padded, (_BLOCK, _BLOCK), axis=(0, 1))[::_STRIDE, ::_STRIDE]
    latent = scipy.fft.dctn(blocks, axes=(-2, -1), norm="ortho") / _STEPS
    sampled = _SAMPLING * rng.standard_normal(latent.shape, np.float32) * (np.abs(latent) > 0.5)
    blocks = scipy.fft.idctn((np.rint(latent) + sampled) * _STEPS, axes=(-2, -1), norm="ortho")
    ramp = np.sin(np.pi * (np.arange(_BLOCK, dtype=np.float32) + 0.5) / _BLOCK)
    # Squared sines sum to 1 at half overlap; plain sines sum to 1 only on average.
    ramp = (1 - _UNEVEN) * ramp**2 + _UNEVEN * ramp * (_STRIDE / ramp.sum())
    window = np.outer(ramp, ramp)
    total = np.zeros_like(padded)
    for row in range(blocks.shape[0]):
        for column in range(blocks.shape[1]):
            y, x = row * _STRIDE, column * _STRIDE
            total[y : y + _BLOCK, x : x + _BLOCK] += (blocks[row, column] * window).transpose(1, 2, 0)
    return total[_STRIDE : _STRIDE + height, _STRIDE : _STRIDE + width] @ COLOURS
