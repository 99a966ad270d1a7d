"""What a check finds, and where it runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

NEEDS_GPU = "needs a GPU"
_LONGEST = 2000  # characters of an error's text


@dataclass(frozen=True)
class Finding:
    """One thing that a check found.

    Attributes:
        name: what it is, with its unit.
        value: of plain JSON types.
        wanted: what the value should be, in words; empty where nothing is wanted.
        met: whether it is as wanted; None where nothing is wanted, or where it could not be had.
    """

    name: str
    value: Any
    wanted: str = ""
    met: bool | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types; a number that is not finite becomes text."""
        return asdict(replace(self, value=_plain(self.value)))


Tell = Callable[[Finding], None]


@dataclass(frozen=True)
class Place:
    """Where checks run.

    Attributes:
        device: "cuda" or "cpu".
        toy: tiny networks and sizes.
        start: how a process of its own begins: "fork", which has all imports done, or "spawn".
    """

    device: str
    toy: bool = False
    start: str = "fork"

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a GPU."""
        return self.device == "cuda"

    def on_card(self, finding: Finding) -> Finding:
        """A finding that says something about GPUs alone: on a CPU it says that it needs one, and is never met."""
        return finding if self.on_gpu else replace(finding, value=NEEDS_GPU, met=None)


def in_words(error: BaseException) -> str:
    """The type of an error and its text, cut where it is long."""
    return f"{type(error).__name__}: {error}"[:_LONGEST]


@contextmanager
def part(tell: Tell, name: str, wanted: str = "") -> Iterator[None]:
    """A part of a check: if it fails, that is what was found, and the check goes on."""
    try:
        yield
    except Exception as error:
        tell(Finding(name, f"failed: {in_words(error)}", wanted, met=False))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.4g}") if math.isfinite(value) else str(value)
    return value
