"""The edits of the demo's second version: one part of a drawn face, drawn anew, and the region that changes with it.

A part has each of its two forms in half of the faces, and an edit gives it the other form. So no part tells edited
faces from others: only the traces of a generator do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import scipy  # imports its subpackages on first use: planning a grid draws nothing
from numpy.typing import NDArray

from data.demo.faces import NUM_HAIR_COLOURS, PARTS, Look, draw_parts

# Kind of edit -> the parts that are drawn anew; hair gets another colour instead.
KINDS: dict[str, tuple[str, ...]] = {"hair": (), "eyes": ("eyes", "glasses"), "mouth": ("mouth",), "beard": ("beard",)}
_SMALLEST, _LARGEST = 0.04, 0.6  # share of the picture that an edit changes
_CHANGED = 8 / 255  # so much a pixel of the region changes
_VISIBLE = 20 / 255  # so much these pixels change on average; a person sees it
_MARGIN = 1 / 14  # of the picture's side, around what changes


def draw_look(rng: np.random.Generator) -> Look:
    """A face's long or short hair and its colour, teeth, beard and glasses: each in half of the faces."""
    long_hair, teeth, beard, glasses = (bool(number) for number in rng.integers(2, size=4))
    return Look(long_hair, int(rng.integers(NUM_HAIR_COLOURS)), teeth, beard, glasses)


def edit_look(look: Look, kind: str, rng: np.random.Generator) -> Look:
    """The look after an edit of one of `KINDS`: other hair, glasses taken off, a smile, a beard, and so on.

    `rng` draws the colour of the hair.
    """
    if kind == "hair":
        step = int(rng.integers(1, NUM_HAIR_COLOURS))
        colour = ((look.hair_colour or 0) + step) % NUM_HAIR_COLOURS
        return dataclasses.replace(look, hair_colour=colour)
    name = {"eyes": "glasses", "mouth": "teeth"}.get(kind, kind)
    return dataclasses.replace(look, **{name: not getattr(look, name)})


def draw_edit(
    rng_for: Callable[[str], np.random.Generator], size: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """Draw a face, and the same face with one part drawn anew.

    Args:
        rng_for: purpose -> new random numbers, always the same for the same purpose.
        size: side of the pictures in pixels.

    Returns:
        The face and the edited face, both (size, size, 3) float32 sRGB in [0, 1], and the mask of what changes,
        (size, size) bool with a margin around it. The edit is the first of the kinds, in a random order, that a person
        sees and whose region is neither too small nor too large; where none is, the one that changes most.
    """
    look = draw_look(rng_for("look"))
    streams = {part: f"face {part}" for part in PARTS}
    face = draw_parts({part: rng_for(purpose) for part, purpose in streams.items()}, size, look)
    rng = rng_for("edit")
    edits = []
    for kind in rng.permutation(list(KINDS)):
        redrawn = streams | {part: f"edit {part}" for part in KINDS[kind]}
        other = draw_parts(
            {part: rng_for(purpose) for part, purpose in redrawn.items()}, size, edit_look(look, str(kind), rng)
        )
        change = np.abs(other - face).max(axis=2)
        changed = change > _CHANGED
        mask = _region(changed)
        strength = float(change[changed].mean()) if changed.any() else 0.0
        if _SMALLEST <= mask.mean() <= _LARGEST and strength >= _VISIBLE:
            return face, other, mask
        edits.append((strength, other, mask))
    _, other, mask = max(edits, key=lambda edit: edit[0])
    return face, other, mask


def _region(changed: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Changed pixels without specks and holes, and with a margin."""
    margin = max(2, round(_MARGIN * len(changed)))
    disc = np.hypot(*np.ogrid[-margin : margin + 1, -margin : margin + 1]) <= margin
    without_specks = scipy.ndimage.binary_opening(changed, np.ones((2, 2), bool))
    grown = scipy.ndimage.binary_dilation(without_specks, disc)
    return scipy.ndimage.binary_fill_holes(grown)
