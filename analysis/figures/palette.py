"""One look per class in every figure: a colour, a marker and a dash, so that colour is never the only cue."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from grid.tasks import REAL

# Okabe and Ito (2008), distinguishable under every common kind of colour blindness; black is reserved for real images,
# and yellow comes last because it is faint on white.
_COLOURS = ("#e69f00", "#0072b2", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#f0e442")
_MARKERS = ("^", "s", "D", "v", "P", "X", "*", "<", ">")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1.5, 1, 1.5)), (0, (3, 1, 1, 1, 1, 1)))


@dataclass(frozen=True)
class Look:
    """How a class is drawn: matplotlib's colour, marker and line style."""

    colour: str
    marker: str
    dash: Any


def looks(classes: Iterable[str]) -> dict[str, Look]:
    """Class -> its look; "real" first if it is among them, then the others in the given order."""
    names = list(dict.fromkeys(classes))
    chosen = {REAL: Look("#000000", "o", "-")} if REAL in names else {}
    for number, name in enumerate(name for name in names if name != REAL):
        chosen[name] = Look(
            _COLOURS[number % len(_COLOURS)], _MARKERS[number % len(_MARKERS)], _DASHES[number % len(_DASHES)]
        )
    return chosen
