"""One look for each class in every figure: a colour, a marker and a dash, so that colour is never alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

# Okabe and Ito (2008), told apart under every common kind of colour blindness; black is kept for real images, and
# yellow comes last because it is faint on white.
_COLOURS = ("#e69f00", "#0072b2", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#f0e442")
_MARKERS = ("^", "s", "D", "v", "P", "X", "*", "<", ">")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1.5, 1, 1.5)), (0, (3, 1, 1, 1, 1, 1)))
REAL = "real"


@dataclass(frozen=True)
class Look:
    """How a class is drawn: matplotlib's colour, marker and line style."""

    colour: str
    marker: str
    dash: Any


def looks(classes: Iterable[str]) -> dict[str, Look]:
    """Class -> its look; "real" is the first where it is there, the others come in the order that is given."""
    names = list(dict.fromkeys(classes))
    chosen = {REAL: Look("#000000", "o", "-")} if REAL in names else {}
    for number, name in enumerate(name for name in names if name != REAL):
        chosen[name] = Look(
            _COLOURS[number % len(_COLOURS)], _MARKERS[number % len(_MARKERS)], _DASHES[number % len(_DASHES)]
        )
    return chosen
