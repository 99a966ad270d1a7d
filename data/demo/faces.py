"""Drawn faces, sensor noise and inpainting masks: the raw material of the built-in demo.

All results depend only on the `numpy.random.Generator` that is passed in. Picture coordinates run from -1 to 1, x to
the right and y down; lengths below are in that unit (the picture is 2 wide) unless they say pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy  # imports its subpackages on first use: planning a grid draws nothing
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Floats = NDArray[np.floating[Any]]
Bytes = NDArray[np.uint8]
Bools = NDArray[np.bool_]

_OVERSAMPLING = 2

# Skin from light to dark, sRGB; one colour per Fitzpatrick type.
_SKIN = np.array(
    [[0.96, 0.82, 0.74], [0.92, 0.74, 0.62], [0.82, 0.62, 0.48], [0.68, 0.47, 0.34], [0.50, 0.33, 0.23],
     [0.34, 0.22, 0.16]], np.float32
)  # fmt: skip
_HAIR = np.array(
    [[0.09, 0.07, 0.06], [0.20, 0.13, 0.08], [0.36, 0.23, 0.13], [0.62, 0.46, 0.26], [0.48, 0.20, 0.09],
     [0.62, 0.60, 0.58]], np.float32
)  # fmt: skip
NUM_HAIR_COLOURS = len(_HAIR)
_IRIS = np.array([[0.25, 0.15, 0.08], [0.35, 0.24, 0.12], [0.30, 0.42, 0.50], [0.33, 0.42, 0.28]], np.float32)


# What is drawn from random numbers of its own: a part can be drawn anew while all others stay as they are.
PARTS = ("head", "backdrop", "strands", "hair", "body", "mouth", "skin", "beard", "eyes", "glasses", "lens")


@dataclass(frozen=True)
class Look:
    """What a face has. None: drawn with the rest.

    Attributes:
        long_hair: long hair, or short hair or none.
        hair_colour: which of the `NUM_HAIR_COLOURS` the hair of the head has, from 0; brows and beard keep theirs.
        teeth: a smile that shows the teeth, or a closed mouth.
        beard: a beard.
        glasses: glasses.
    """

    long_hair: bool | None = None
    hair_colour: int | None = None
    teeth: bool | None = None
    beard: bool | None = None
    glasses: bool | None = None


def draw_face(rng: np.random.Generator, size: int) -> Floats:
    """Draw one frontal face without noise; `rng` chooses everything. See `draw_parts`."""
    return draw_parts(dict.fromkeys(PARTS, rng), size)


def draw_parts(streams: Mapping[str, np.random.Generator], size: int, look: Look = Look()) -> Floats:
    """Draw one frontal face without noise.

    The head is a relief (an ellipsoid with bumps for nose, brow, cheeks, lips and hollows for the eyes) lit by one
    lamp with Lambert's law. Eyes, brows, lips and hair are painted on it with soft edges. The face is drawn at twice
    the size and averaged down.

    Args:
        streams: part -> random numbers that choose it, for all of `PARTS`. Pose, shape, colours and light belong to
            "head", pores and freckles to "skin".
        size: side of the picture in pixels.
        look: what the face has.

    Returns:
        (size, size, 3) float32, sRGB in [0, 1].
    """
    rng = streams["head"]
    side = _OVERSAMPLING * size
    axis = (np.arange(side, dtype=np.float32) + 0.5) / side * 2 - 1
    picture_y, picture_x = np.meshgrid(axis, axis, indexing="ij")

    skin = _pick(rng, _SKIN) * rng.uniform(0.95, 1.0, 3).astype(np.float32)
    darkness = 1 - float(skin.mean())
    hair = _HAIR[rng.choice(6, p=[0.3, 0.25, 0.17, 0.12, 0.06, 0.1])] if darkness < 0.5 else _HAIR[rng.integers(2)]
    brightness = rng.uniform(0.85, 1.2)
    hair = hair * brightness
    head_hair = hair if look.hair_colour is None else _HAIR[look.hair_colour] * brightness
    light = np.array([rng.uniform(-0.9, 0.9), rng.uniform(-0.8, 0.1), 1.0], np.float32)
    light /= np.sqrt((light**2).sum(), dtype=np.float32)

    # Pose: in-plane rotation, shift and scale of the head, and a yaw that moves the features over the relief.
    angle, scale = rng.normal(0, 0.07), rng.uniform(0.93, 1.1)
    shift_x, shift_y = rng.normal(0, 0.05), 0.06 + rng.normal(0, 0.04)
    cosine, sine = math.cos(angle) / scale, math.sin(angle) / scale
    x = (picture_x - shift_x) * cosine + (picture_y - shift_y) * sine
    y = (picture_y - shift_y) * cosine - (picture_x - shift_x) * sine
    yaw = rng.normal(0, 0.04)
    face_x = x - yaw * np.clip(1 - (x / 0.55) ** 2, 0, 1)

    half_width, half_height = rng.uniform(0.46, 0.56), rng.uniform(0.66, 0.76)
    taper = 1 - rng.uniform(0.08, 0.28) * np.clip(y / half_height, 0, 1) ** 2
    squareness = rng.uniform(2.0, 2.5)
    radius = np.abs(x / (half_width * taper)) ** squareness + np.abs(y / half_height) ** squareness
    radius **= 1 / squareness

    image = _background(streams["backdrop"], picture_x, picture_y)
    strands = _strands(streams["strands"], x, y)
    rng = streams["hair"]
    long_hair = _given(look.long_hair, rng.random() < 0.5)
    bald = not long_hair and rng.random() < 0.15
    hair_lit = (0.75 + 0.35 * light[0] * x + 0.2 * light[1] * y + 0.35 * strands)[..., None] * head_hair
    if long_hair:
        bottom, wide = rng.uniform(0.5, 1.2), rng.uniform(0.62, 0.76)
        crown = np.abs(x / wide) ** 2.3 + np.abs((y + 0.15) / 0.78) ** 2.3
        fall = (np.abs(x) / (wide + 0.08 * y)) ** 4 + np.clip((y + 0.15) / (bottom + 0.15), 0, None) ** 6
        drop = np.where(y > -0.15, fall, crown)
        _paint(image, _edge(1 - drop + 0.1 * strands, 0.12), hair_lit * 0.8)

    _body(streams["body"], image, x, y, skin, light)
    for side_sign in (-1, 1):  # ears
        ear = ((x - side_sign * half_width * 0.99) / 0.075) ** 2 + ((y - 0.02) / 0.15) ** 2
        _paint(image, _edge(1 - ear, 0.3), skin * (0.62 + 0.25 * side_sign * light[0]))

    # Relief and light.
    rng = streams["head"]
    eye_x, eye_y = rng.uniform(0.19, 0.225), rng.uniform(-0.12, -0.05)
    nose_y, mouth_y = eye_y + rng.uniform(0.25, 0.31), eye_y + rng.uniform(0.44, 0.5)
    nose_width = rng.uniform(0.055, 0.085)
    rng = streams["mouth"]
    mouth_width, smile = rng.uniform(0.15, 0.23), rng.uniform(-0.02, 0.07)
    lip = rng.uniform(0.035, 0.06)
    if look.teeth is not None:
        smile = 0.06 + 0.2 * smile if look.teeth else 0.4 * smile - 0.02
    relief = 0.5 * np.sqrt(np.clip(1 - radius**2, 0.02, 1))
    relief += 0.10 * _bump(face_x, y, 0, nose_y - 0.02, nose_width, 0.07)
    relief += 0.07 * _bump(face_x, y, 0, (eye_y + nose_y) / 2, nose_width * 0.55, 0.15)
    relief += 0.02 * _bump(face_x, y, 0, mouth_y, mouth_width * 0.8, 0.06)
    relief += 0.03 * _bump(face_x, y, 0, mouth_y + 0.2, 0.1, 0.07)
    for side_sign in (-1, 1):
        relief -= 0.05 * _bump(face_x, y, side_sign * eye_x, eye_y, 0.12, 0.07)
        relief += 0.03 * _bump(face_x, y, side_sign * 0.27, eye_y + 0.24, 0.12, 0.12)
        relief += 0.03 * _bump(face_x, y, side_sign * nose_width, nose_y + 0.02, 0.035, 0.03)
    slope_y, slope_x = np.gradient(relief, axis[1] - axis[0])
    lambert = (light[2] - slope_x * light[0] - slope_y * light[1]) / np.sqrt(1 + slope_x**2 + slope_y**2)
    rng = streams["skin"]
    shade = rng.uniform(0.28, 0.42) + 0.68 * np.clip(lambert, 0, 1)

    pores = scipy.ndimage.gaussian_filter(rng.standard_normal((side, side), dtype=np.float32), 0.7)
    blotches = _smooth_noise(rng, side, 9)
    albedo = np.broadcast_to(skin, image.shape) * (1 + 0.045 * pores + 0.02 * blotches)[..., None]
    flush = _bump(face_x, y, -0.28, eye_y + 0.24, 0.13, 0.11) + _bump(face_x, y, 0.28, eye_y + 0.24, 0.13, 0.11)
    albedo *= 1 - 0.14 * rng.random() * flush[..., None] * np.array([0, 1, 0.9], np.float32)
    if rng.random() < 0.25:
        spots = scipy.ndimage.gaussian_filter(rng.standard_normal((side, side), dtype=np.float32), 1.0) * 3.5 - 1.6
        freckles = np.clip(spots, 0, 1) * np.exp(-(((y - nose_y + 0.1) / 0.18) ** 2))
        albedo *= 1 - 0.35 * freckles[..., None]
    rng = streams["beard"]
    if _given(look.beard, not long_hair and rng.random() < 0.35):
        jaw = _edge(y - mouth_y + 0.10 - 0.9 * np.abs(face_x) ** 2 + 0.03 * strands, 0.1)
        around_mouth = _edge(0.75 - (face_x / mouth_width) ** 2 - ((y - mouth_y) / 0.09) ** 2, 0.5)
        _paint(albedo, rng.uniform(0.25, 0.85) * jaw * (1 - around_mouth), hair * (1 + 0.5 * pores)[..., None])

    _mouth(
        streams["mouth"], albedo, face_x, y, skin,
        mouth_y=mouth_y, width=mouth_width, lip=lip, smile=smile, teeth=look.teeth,
    )  # fmt: skip
    for side_sign in (-1, 1):  # nostrils
        _paint(albedo, 0.7 * _bump(face_x, y, side_sign * nose_width * 0.6, nose_y + 0.045, 0.025, 0.013), skin * 0.25)
    _eyes(streams["eyes"], albedo, face_x, y, skin, hair, eye_x=eye_x, eye_y=eye_y, strands=pores)
    _paint(image, _edge(1 - radius, 0.05), albedo * shade[..., None])

    rng = streams["hair"]
    if not bald:
        part, height = rng.uniform(-0.3, 0.3), rng.uniform(-0.52, -0.36)
        fringe = rng.uniform(0.0, 0.12) if rng.random() < 0.3 else 0.0
        hairline = height + fringe + rng.uniform(0.5, 1.6) * (face_x - part) ** 2 * (1 - 4 * fringe)
        cap = 1 - np.abs(x / (half_width + 0.07)) ** 2.3 - np.abs((y + 0.06) / (half_height + 0.06)) ** 2.3
        low = _edge(rng.uniform(0.0, 0.15) + (0.5 if long_hair else 0.0) - y, 0.1)
        _paint(image, _edge(hairline - y + 0.05 * strands, 0.05) * _edge(cap + 0.08 * strands, 0.12) * low, hair_lit)
    if _given(look.glasses, streams["glasses"].random() < 0.15):
        _glasses(streams["glasses"], image, face_x, y, eye_x=eye_x, eye_y=eye_y)

    rng = streams["lens"]
    focus = rng.uniform(0.3, 1.0)  # the lens, in pixels of the drawing
    image = scipy.ndimage.gaussian_filter(image * rng.uniform(0.85, 1.08), (focus, focus, 0))
    image = image.reshape(size, _OVERSAMPLING, size, _OVERSAMPLING, 3).mean(axis=(1, 3))
    return np.clip(image, 0, 1).astype(np.float32)


def add_sensor_noise(image: Floats, rng: np.random.Generator) -> Bytes:
    """Add sensor noise to a clean picture: Poisson-Gaussian noise on a Bayer mosaic, interpolated, then quantised.

    In linear light each photosite has variance `gain * signal + read**2` (Foi et al. 2008, "Practical
    Poissonian-Gaussian noise modeling"). Each channel's noise is drawn on that channel's sites of an RGGB mosaic of
    random phase and interpolated bilinearly to the other sites. So neighbours and channels are correlated as in a
    demosaiced photograph, and the picture itself stays sharp. `gain` differs between pictures, like ISO.

    Args:
        image: (H, W, 3) float32 sRGB in [0, 1].
        rng: chooses gain, mosaic phase and noise.

    Returns:
        (H, W, 3) uint8.
    """
    height, width, _ = image.shape
    gain = np.exp(rng.uniform(np.log(0.0001), np.log(0.0012)))
    read = rng.uniform(0.001, 0.004)
    linear = image.astype(np.float64) ** 2.2
    site_noise = rng.standard_normal((height, width))
    phase_y, phase_x = rng.integers(2, size=2)
    rows, columns = np.ogrid[:height, :width]
    odd_row, odd_column = (rows + phase_y) % 2 == 1, (columns + phase_x) % 2 == 1
    sites = (~odd_row & ~odd_column, odd_row ^ odd_column, odd_row & odd_column)
    cross = np.array([[0, 1, 0], [1, 4, 1], [0, 1, 0]]) / 4
    square = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 4
    for channel, (site, kernel) in enumerate(zip(sites, (square, cross, square), strict=True)):
        noise = scipy.ndimage.convolve(np.where(site, site_noise, 0.0), kernel, mode="mirror")
        linear[..., channel] += noise * np.sqrt(gain * linear[..., channel] + read**2)
    return to_bytes(np.clip(linear, 0, 1) ** (1 / 2.2) * 255)


def draw_mask(rng: np.random.Generator, size: int) -> Bools:
    """Draw the region to repaint, 15 to 45 % of the picture: half of a face, a box, or free-form brush strokes.

    Args:
        rng: chooses kind and shape.
        size: side in pixels, at least 8.

    Returns:
        (size, size) bool, True = repaint.
    """
    while True:
        kind = rng.choice(["half", "box", "strokes", "strokes"])
        canvas = Image.new("1", (size, size))
        pen = ImageDraw.Draw(canvas)
        if kind == "half":
            left, top, right, bottom = np.array([0.16, 0.12, 0.84, 0.92]) + rng.uniform(-0.06, 0.06, 4)
            halves = [(0.5, top, right, bottom), (left, top, 0.5, bottom)]
            halves += [(left, 0.52, right, bottom), (left, top, right, 0.52)]
            pen.rectangle([float(side * size) for side in halves[rng.integers(4)]], fill=1)
        elif kind == "box":
            centre, extent = rng.uniform(0.35, 0.65, 2), rng.uniform(0.38, 0.66, 2)
            low, high = np.clip(centre - extent / 2, 0, 1), np.clip(centre + extent / 2, 0, 1)
            pen.rectangle([*(low * size), *(high * size)], fill=1)
        else:
            for _ in range(rng.integers(1, 4)):
                points = [rng.uniform(0.3, 0.7, 2)]
                heading = rng.uniform(0, 2 * np.pi)
                for _ in range(rng.integers(3, 7)):
                    heading += rng.normal(0, 1.1)
                    step = rng.uniform(0.1, 0.25) * np.array([np.cos(heading), np.sin(heading)])
                    points.append(np.clip(points[-1] + step, 0.08, 0.92))
                brush = max(2, round(rng.uniform(0.12, 0.22) * size))
                path = [(float(px * size), float(py * size)) for px, py in points]
                pen.line(path, fill=1, width=brush, joint="curve")
                for px, py in path:
                    pen.ellipse([px - brush / 2, py - brush / 2, px + brush / 2, py + brush / 2], fill=1)
        mask = np.array(canvas, dtype=bool)
        if 0.15 <= mask.mean() <= 0.45:
            return mask


def to_bytes(levels: NDArray[np.floating]) -> Bytes:
    """Round levels of any shape to uint8, clipped to 0..255."""
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


def _given(wish: bool | None, drawn: bool | np.bool_) -> bool:
    return bool(drawn) if wish is None else wish


def _pick(rng: np.random.Generator, ramp: Floats) -> Floats:
    """Draw a colour (3,) between two neighbours of a ramp (n, 3)."""
    position = rng.uniform(0, len(ramp) - 1)
    below = int(position)
    return ramp[below] + (position - below) * (ramp[min(below + 1, len(ramp) - 1)] - ramp[below])


def _edge(inside: Floats, softness: float) -> Floats:
    """Coverage in [0, 1] of the region `inside > 0`, with a linear border of width `softness`."""
    return np.clip(0.5 + inside / softness, 0, 1)


def _bump(x: Floats, y: Floats, x0: float, y0: float, width: float, height: float) -> Floats:
    """A Gaussian hill of height 1."""
    return np.exp(-(((x - x0) / width) ** 2) - ((y - y0) / height) ** 2)


def _paint(image: Floats, coverage: Floats, colour: Floats) -> None:
    """Lay a colour, (3,) or (H, W, 3), over `image` in place."""
    image += coverage[..., None] * (colour - image)


def _smooth_noise(rng: np.random.Generator, side: int, cells: int) -> Floats:
    """(side, side) noise with unit variance at its knots, `cells` knots per side."""
    knots = rng.standard_normal((cells, cells), dtype=np.float32)
    positions = np.linspace(0, cells - 1, side)
    grid = np.meshgrid(positions, positions, indexing="ij")
    return scipy.ndimage.map_coordinates(knots, grid, order=3).astype(np.float32)


def _strands(rng: np.random.Generator, x: Floats, y: Floats) -> Floats:
    """Hair texture in -1..1: noise that is fine across, and long along, circles around the crown."""
    table = scipy.ndimage.gaussian_filter(rng.standard_normal((220, 24)), (0.9, 0.6), mode="wrap")
    table += 0.7 * scipy.ndimage.gaussian_filter(rng.standard_normal((220, 24)), (4, 1), mode="wrap") * 4
    across = (np.arctan2(x, 0.9 - 0.4 * y) / np.pi + 1 + 0.25 * np.hypot(x, y)) * 220
    along = (np.hypot(x, y + 0.4)) * 8
    noise = scipy.ndimage.map_coordinates(table, [across, along], order=1, mode="grid-wrap")
    return np.clip(noise / (2 * noise.std()), -1, 1).astype(np.float32)


def _background(rng: np.random.Generator, x: Floats, y: Floats) -> Floats:
    """A smooth two-colour backdrop with a few soft blotches, (H, W, 3)."""
    first, second = rng.uniform(0.1, 0.9, (2, 3)).astype(np.float32) * 0.6 + rng.uniform(0.0, 0.4)
    direction = rng.uniform(0, 2 * math.pi)
    ramp = 0.5 + 0.35 * (x * math.cos(direction) + y * math.sin(direction)) + 0.15 * _smooth_noise(rng, len(x), 6)
    return (first + np.clip(ramp, 0, 1)[..., None] * (second - first)).astype(np.float32)


def _body(rng: np.random.Generator, image: Floats, x: Floats, y: Floats, skin: Floats, light: Floats) -> None:
    neck = _edge(rng.uniform(0.22, 0.32) + 0.08 * np.clip(y - 0.7, 0, 1) - np.abs(x), 0.05) * _edge(y - 0.3, 0.1)
    shadow = 0.55 + 0.35 * np.clip((y - 0.6) / 0.4, 0, 1) + 0.3 * light[0] * x
    _paint(image, neck, shadow[..., None] * skin)
    cloth = rng.uniform(0.05, 0.85, 3).astype(np.float32)
    weave = 1 + 0.08 * np.sin(rng.uniform(20, 60) * x + rng.uniform(-30, 30) * y)
    collar = rng.uniform(0.85, 1.0)
    shoulders = _edge(y - collar + 0.35 * np.exp(-((np.abs(x) - 0.55) ** 2) / 0.05) * (np.abs(x) > 0.2) * 0.5
                      - 0.25 * np.clip(0.3 - np.abs(x), 0, 1), 0.05)  # fmt: skip
    _paint(image, shoulders, (weave * (0.8 + 0.3 * light[0] * x))[..., None] * cloth)


def _mouth(
    rng: np.random.Generator, skin_map: Floats, x: Floats, y: Floats, skin: Floats,
    *, mouth_y: float, width: float, lip: float, smile: float, teeth: bool | None,
) -> None:  # fmt: skip
    along = np.clip(1 - (x / width) ** 2, 0, 1)
    line = mouth_y - smile * (x / width) ** 2 + smile * 0.3
    gap = rng.uniform(0.02, 0.04) if _given(teeth, rng.random() < 0.35 + 2 * smile) else 0.0
    gap = gap if teeth is None else 1.4 * gap
    colour = skin * np.array([0.92, 0.62, 0.62], np.float32) * rng.uniform(0.85, 1.05)
    colour = colour + rng.random() * 0.35 * (np.array([0.62, 0.15, 0.2], np.float32) - colour)
    cupid = 1 - 0.3 * np.exp(-((x / 0.035) ** 2))
    upper = _edge(along * cupid * lip * 0.9 - np.abs(y - line + (lip * 0.45 + gap / 2) * along), 0.02)
    lower = _edge(along * lip * 1.0 - np.abs(y - line - (lip * 0.55 + gap) * along), 0.02)
    _paint(skin_map, upper * (along > 0), colour * 0.82)
    _paint(skin_map, lower * (along > 0), colour)
    opening = _edge(along * (gap + 0.012) - np.abs(y - line - gap * 0.3), 0.012) * (along > 0)
    between = np.array([0.88, 0.85, 0.8], np.float32) if gap else skin * 0.25
    _paint(skin_map, 0.9 * opening, between)


def _eyes(
    rng: np.random.Generator, skin_map: Floats, x: Floats, y: Floats, skin: Floats, hair: Floats,
    *, eye_x: float, eye_y: float, strands: Floats,
) -> None:  # fmt: skip
    width, opening = rng.uniform(0.095, 0.12), rng.uniform(0.035, 0.055)
    iris_colour = _IRIS[rng.integers(len(_IRIS))] if skin.mean() > 0.6 else _IRIS[0]
    gaze_x, gaze_y = rng.normal(0, 0.018), rng.normal(0, 0.006)
    brow_lift, brow_thick, brow_arch = rng.uniform(0.10, 0.135), rng.uniform(0.016, 0.032), rng.uniform(0.01, 0.05)
    brow_colour = np.minimum(hair, 0.45) * 0.75
    slant = rng.normal(0, 0.08)
    for side in (-1, 1):
        u = (x - side * eye_x) * side
        v = y - eye_y + slant * u
        along = np.clip(1 - (u / width) ** 2, 0, 1)
        top, bottom = opening * along**0.6, 0.8 * opening * along
        _paint(skin_map, 0.35 * _bump(u, v, 0, -0.02, width * 1.1, opening * 1.7), skin * 0.6)
        white = _edge(np.minimum(v + top, bottom - v), 0.012) * (along > 0)
        _paint(skin_map, white, np.array([0.9, 0.88, 0.86], np.float32))
        distance = np.hypot(x - side * eye_x - gaze_x, v - gaze_y)
        radius = opening * 1.02
        ring = iris_colour * (0.7 + 0.5 * np.clip(distance / radius, 0, 1))[..., None]
        _paint(skin_map, white * _edge(radius - distance, 0.015), ring)
        _paint(skin_map, white * _edge(radius * 0.45 - distance, 0.015), np.full(3, 0.03, np.float32))
        glint = np.hypot(x - side * eye_x - gaze_x + 0.012, v - gaze_y + 0.016)
        _paint(skin_map, white * _edge(0.010 - glint, 0.01), np.ones(3, np.float32))
        lash = _edge(0.011 - np.abs(v + top), 0.012) * (along > 0.02)
        _paint(skin_map, 0.85 * lash, brow_colour * 0.35)
        _paint(skin_map, 0.3 * _edge(0.007 - np.abs(v - bottom), 0.012) * (along > 0.02), skin * 0.4)
        arch = v + brow_lift + brow_arch * (1 - ((u - 0.02) / 0.14) ** 2)
        thick = brow_thick * np.clip(1.1 - 0.35 * (u / 0.14 + 1), 0.2, 1)
        brow = _edge(thick - np.abs(arch) + 0.006 * strands, 0.02) * _edge(0.14 - np.abs(u - 0.01), 0.03)
        _paint(skin_map, 0.85 * brow, brow_colour)


def _glasses(rng: np.random.Generator, image: Floats, x: Floats, y: Floats, *, eye_x: float, eye_y: float) -> None:
    frame = rng.uniform(0.02, 0.3, 3).astype(np.float32)
    power = rng.uniform(2, 4)
    wide, high, wire = rng.uniform(0.145, 0.175), rng.uniform(0.10, 0.14), rng.uniform(0.010, 0.02)
    for side in (-1, 1):
        rim = (np.abs((x - side * eye_x) / wide) ** power + np.abs((y - eye_y) / high) ** power) ** (1 / power) - 1
        _paint(image, _edge(wire - np.abs(rim) * min(wide, high), 0.012), frame)
    bridge = _edge(wire - np.abs(y - eye_y + 0.02), 0.012) * (np.abs(x) < eye_x - wide)
    temples = _edge(wire - np.abs(y - eye_y + 0.02), 0.012) * (np.abs(x) > eye_x + wide) * (np.abs(x) < 0.5)
    _paint(image, np.maximum(bridge, temples), frame)
