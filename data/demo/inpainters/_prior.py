"""The stand-ins' model of faces: an album of drawn faces and its principal components.

Real generators learned from photographs of the kind that they are tested on. The counterpart here is an album of drawn
faces, which no recipe's seed draws.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import scipy  # imports its subpackages on first use: planning a grid draws nothing
from numpy.typing import NDArray

from data.demo.faces import draw_face

Planes = NDArray[np.float32]

_NUM_FACES = 128
_NUM_COMPONENTS = 48
_NUM_PLAUSIBLE = 3  # best matches from which one is drawn
_DRAWN_SIZE = 64
_SEED = 0x0FACE5

# Luma, blue-yellow, red-green: orthonormal, so `@ COLOURS` reverses `planes @ COLOURS.T`.
COLOURS = (np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt([[3], [2], [6]])).astype(np.float32)


@lru_cache(maxsize=8)
def face_space(height: int, width: int) -> tuple[Planes, Planes, Planes]:
    """Mean and scaled principal components of drawn faces, resized to a picture's shape.

    Returns:
        mean (H, W, 3) in levels; components (K, H, W, 3), each times its standard deviation, so that a face is
        `mean + weights @ components` with weights of unit variance; the variance that the components do not explain,
        (H, W, 3) levels**2.
    """
    mean, components, rest = _drawn_space()
    zoom = (height / _DRAWN_SIZE, width / _DRAWN_SIZE, 1)
    options = {"order": 1, "mode": "nearest", "grid_mode": True}
    resized = np.stack([scipy.ndimage.zoom(c, zoom, **options) for c in components])
    return scipy.ndimage.zoom(mean, zoom, **options), resized, scipy.ndimage.zoom(rest, zoom, **options)


@lru_cache(maxsize=1)
def _drawn_faces() -> Planes:
    """The drawings and their mirror images, (N, 64, 64, 3) levels."""
    faces = np.stack([draw_face(np.random.default_rng([_SEED, i]), _DRAWN_SIZE) for i in range(_NUM_FACES)])
    return np.concatenate([faces, faces[:, :, ::-1]]) * np.float32(255)


@lru_cache(maxsize=1)
def _drawn_space() -> tuple[Planes, Planes, Planes]:
    faces = _drawn_faces()
    flat = faces.reshape(len(faces), -1)
    mean = flat.mean(axis=0)
    centred = flat - mean
    _, mixtures = np.linalg.eigh(centred @ centred.T)  # there are fewer faces than pixels, so this matrix is smaller
    scaled = mixtures[:, : -_NUM_COMPONENTS - 1 : -1].T @ centred / np.sqrt(len(faces), dtype=np.float32)
    rest = flat.var(axis=0) - (scaled**2).sum(axis=0)
    shape = faces.shape[1:]
    return mean.reshape(shape), scaled.reshape(-1, *shape), np.clip(rest, 1, None).reshape(shape)


def likely_face(image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> Planes:
    """The most likely face given the known pixels, over the whole picture.

    Its weights are the posterior mean given the known pixels (probabilistic PCA; Tipping and Bishop 1999).

    Args:
        image: (H, W, 3) uint8, not read under the mask.
        mask: (H, W) bool, True = unknown.

    Returns:
        (H, W, 3) float32 levels, mostly in [0, 255]; a soft picture that matches the known pixels only roughly.
    """
    visible = ~mask
    mean, components, rest = face_space(*mask.shape)
    residual = image[visible].astype(np.float32) - mean[visible]
    basis = components[:, visible].reshape(len(components), -1)
    # Neighbouring pixels have similar errors, so a block of 4 x 4 pixels counts as one observation.
    precision = 1 / (16 * rest[visible].reshape(-1))
    covariance = np.linalg.inv(basis * precision @ basis.T + np.eye(len(basis), dtype=np.float32))
    weights = covariance @ (basis @ (precision * residual.reshape(-1)))
    return mean + np.tensordot(weights, components, axes=1)


@lru_cache(maxsize=8)
def _album(height: int, width: int) -> Planes:
    """The drawn faces, resized to a picture's shape: (N, H, W, 3) levels."""
    zoom = (1, height / _DRAWN_SIZE, width / _DRAWN_SIZE, 1)
    return scipy.ndimage.zoom(_drawn_faces(), zoom, order=1, mode="nearest", grid_mode=True)


def remembered_face(image: NDArray[np.uint8], mask: NDArray[np.bool_], rng: np.random.Generator) -> Planes:
    """Fill the mask from a drawn face that resembles the known pixels near the mask. Known pixels stay.

    The fill is sharp, unlike `likely_face`: it is one face, not a mean of many. The mismatch at the mask's border is
    continued smoothly into the fill.

    Args:
        image: (H, W, 3) uint8, not read under the mask.
        mask: (H, W) bool, True = fill.
        rng: draws one of the three best matches.

    Returns:
        (H, W, 3) float32 levels in [0, 255].
    """
    hidden = mask[..., None]
    album = _album(*mask.shape)
    visible = np.where(hidden, 0, image).astype(np.float32)
    nearness = np.where(mask, 0, scipy.ndimage.gaussian_filter(mask.astype(np.float32), 0.08 * max(mask.shape)) + 0.02)
    distance = np.einsum("nhwc,hw->n", (album - visible) ** 2, nearness)
    best = np.argsort(distance, kind="stable")[:_NUM_PLAUSIBLE]
    face = album[rng.choice(best)]
    return np.clip(face + _diffuse(np.where(hidden, 0, visible - face), mask), 0, 255)


def _diffuse(planes: Planes, mask: NDArray[np.bool_]) -> Planes:
    """Continue known values smoothly into the mask by normalised convolution, fine scales first.

    Args:
        planes: (H, W, C); read outside the mask only.
        mask: (H, W) bool, True = unknown.

    Returns:
        (H, W, C) float32, equal to `planes` outside the mask; 0 everywhere if all pixels are unknown.
    """
    filled = np.where(mask[..., None], 0, planes).astype(np.float32)
    todo, sigma = mask.copy(), 1.0
    if mask.all():
        return filled
    while todo.any():
        weight = scipy.ndimage.gaussian_filter((~mask).astype(np.float32), sigma, mode="nearest")
        reached = todo & (weight > 0.1)
        if sigma > 2 * max(mask.shape):
            reached = todo
        blurred = scipy.ndimage.gaussian_filter(np.where(mask[..., None], 0, planes), (sigma, sigma, 0), mode="nearest")
        filled[reached] = blurred[reached] / np.maximum(weight[reached, None], 1e-6)
        todo &= ~reached
        sigma *= 1.6
    # The rings of different scales meet in small steps: a few rounds of Laplace's equation remove them.
    for _ in range(12):
        smooth = scipy.ndimage.uniform_filter(filled, (3, 3, 0), mode="nearest")
        filled[mask] = smooth[mask]
    return filled
