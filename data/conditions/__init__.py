"""Changes made to a picture before a detector sees it, one file per condition or family of conditions.

A condition is a function of one picture. `--conditions` scores trained detectors under conditions, without training
again; `--train-condition` trains under one, or under a set of them, written `A+B`. Features and results are kept under
a condition's name: give a condition whose pixels change another name.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING

from data.register import Register, no_entry

if TYPE_CHECKING:
    import numpy as np

CLEAN = "clean"
PASTE_BACK = "paste-back"
# A word for several conditions. Members are named in the order of tables; a test holds that each of them exists.
SETS = {
    "robustness": (
        "jpeg-95", "jpeg-85", "jpeg-75", "jpeg-60", "jpeg-30", "webp-80", "resize-75", "resize-50", "blur-1", "noise-4",
        "crop-90", "messenger",
    ),
}  # fmt: skip
_MEANT = re.compile(r"(?P<family>.+?)[-_ =:]?(?P<level>[0-9]+)")
_NUMBERED = re.compile(r"(?P<family>.+)-(?P<level>0|[1-9][0-9]*)")  # one way to write each level


@dataclass(frozen=True)
class Picture:
    """One picture, as passed to a condition.

    Attributes:
        pixels: uint8 (H, W, 3), RGB.
        digest: SHA-256 of the picture's file.
        read_mask: reads the picture's mask; None if it has no mask.
        read_original: reads the photograph that a fake was made from; None for a real picture, or if it is missing.
    """

    pixels: np.ndarray
    digest: str = ""
    read_mask: Callable[[], np.ndarray] | None = field(default=None, repr=False)
    read_original: Callable[[], np.ndarray] | None = field(default=None, repr=False)

    @cached_property
    def mask(self) -> np.ndarray | None:
        """Bool (H, W), True where the picture is fake; None if the picture has no mask."""
        return None if self.read_mask is None else self.read_mask()

    @cached_property
    def original(self) -> np.ndarray | None:
        """uint8 (H, W, 3): the photograph that a fake was made from; None if there is none."""
        return None if self.read_original is None else self.read_original()

    @cached_property
    def rng(self) -> np.random.Generator:
        """A random generator seeded by the digest: the condition of a picture always draws the same numbers."""
        import numpy as np

        return np.random.default_rng(int.from_bytes(hashlib.sha256(self.digest.encode()).digest()[:8], "big"))


@dataclass(frozen=True)
class Condition:
    """One condition.

    Attributes:
        name: as on the command line and in every table.
        apply: a picture -> changed pixels, uint8 (H, W, 3) of any size.
        summary: one line for the report.
        uses: "mask", "original": what else the result depends on, besides the picture.
        needs_pairs: a launch refuses fakes without a mask, or without an original of the same size.
        moves: what a place of the picture shows, another place shows afterwards, so that the picture's mask does not
            fit any more. Making the whole picture smaller or larger does not count.
    """

    name: str
    apply: Callable[[Picture], np.ndarray]
    summary: str = ""
    uses: frozenset[str] = frozenset()
    needs_pairs: bool = False
    moves: bool = False


@dataclass(frozen=True)
class _Family:
    """Conditions of one kind that differ in an integer level, such as JPEG quality."""

    function: Callable[[Picture, int], np.ndarray]
    levels: range
    condition: Condition

    def at(self, level: int) -> Condition:
        apply = partial(_at_level, self.function, level)
        return replace(self.condition, name=f"{self.condition.name}-{level}", apply=apply)


_conditions: Register[Condition | _Family] = Register("condition", __name__)


def register_condition(
    name: str, *, uses: Collection[str] = (), needs_pairs: bool = False, moves: bool = False
) -> Callable[[Callable[[Picture], np.ndarray]], Callable[[Picture], np.ndarray]]:
    """Register the decorated function of a picture under `name`; its docstring's first line becomes the summary.

    Args:
        name: lower-case letters, digits and dashes.
        uses: "mask", "original": what else the result depends on, besides the picture.
        needs_pairs: a launch refuses fakes without a mask, or without an original of the same size.
        moves: see `Condition`.

    Raises:
        ValueError: the name is taken or has other characters, or `uses` has another word.
    """

    def decorate(function: Callable[[Picture], np.ndarray]) -> Callable[[Picture], np.ndarray]:
        condition = Condition(name, function, _summary(function), _checked_uses(uses), needs_pairs, moves)
        _conditions.add(_checked(name), condition)
        return function

    return decorate


def register_conditions(
    family: str, *, levels: range, uses: Collection[str] = (), moves: bool = False
) -> Callable[[Callable[[Picture, int], np.ndarray]], Callable[[Picture, int], np.ndarray]]:
    """Register the decorated function of a picture and a level: one condition `<family>-<level>` per level.

    Arguments and errors are those of `register_condition`.
    """

    def decorate(function: Callable[[Picture, int], np.ndarray]) -> Callable[[Picture, int], np.ndarray]:
        uses_checked = _checked_uses(uses)
        whole = Condition(family, lambda picture: picture.pixels, _summary(function), uses_checked, moves=moves)
        _conditions.add(_checked(family), _Family(function, levels, whole))
        return function

    return decorate


def list_conditions() -> list[str]:
    """Names of all conditions in alphabetical order; a family as `jpeg-1…100`."""
    names = []
    for name in _conditions.names():
        entry = _conditions.get(name)
        names.append(f"{name}-{entry.levels[0]}…{entry.levels[-1]}" if isinstance(entry, _Family) else name)
    return names


def get_condition(name: str) -> Condition:
    """Look a condition up.

    Raises:
        KeyError: no such condition; the message lists all conditions.
        ValueError: a condition has the name of another family's member.
    """
    names = _conditions.names()
    alone = _conditions.get(name) if name in names else None
    numbered = _NUMBERED.fullmatch(name)
    if numbered and numbered["family"] in names:
        entry = _conditions.get(numbered["family"])
        if isinstance(entry, _Family):
            if alone is not None:
                raise ValueError(f"two conditions are named {name!r}, one of them by its level; rename the other")
            if int(numbered["level"]) in entry.levels:
                return entry.at(int(numbered["level"]))
            lowest, highest = entry.levels[0], entry.levels[-1]
            raise KeyError(f"no condition named {name!r}: {numbered['family']} has levels {lowest} to {highest}")
    if isinstance(alone, Condition):
        return alone
    families = {other: entry for other in names if isinstance(entry := _conditions.get(other), _Family)}
    near = ""
    if meant := _MEANT.fullmatch(name.lower()):
        level = int(meant["level"])
        similar = difflib.get_close_matches(meant["family"], families, n=1)
        near = "".join(f"{family}-{level}" for family in similar if level in families[family].levels)
    raise no_entry("condition", name, [*list_conditions(), *SETS], near=near)


def expand(names: Iterable[str]) -> list[str]:
    """Each name once, in the order given; a word of `SETS` becomes its members. Does not look the names up."""
    return list(dict.fromkeys(member for name in names for member in SETS.get(name, (name,))))


def joined(text: str) -> str:
    """A set of conditions `A+B` as it is written in specs: words of `SETS` replaced, sorted by name, each once.

    Raises:
        KeyError: no such condition; the message lists all conditions.
    """
    names = sorted(expand(text.split("+")))
    for name in names:
        get_condition(name)
    return "+".join(names)


def members(text: str) -> tuple[str, ...]:
    """The conditions of a set `A+B` as it is written in specs; one condition is a set of its own."""
    return tuple(text.split("+"))


def is_condition(name: str) -> bool:
    """Whether this checkout has the condition."""
    try:
        get_condition(name)
    except KeyError:
        return False
    return True


def size_under(name: str, width: int, height: int) -> tuple[int, int] | None:
    """The (width, height) that a condition gives a picture of this size, tried on a grey one.

    None if the condition fails on that: what fails on pictures of a data set, a trial says with the picture's name.
    """
    import numpy as np

    grey = np.full((height, width, 3), 128, np.uint8)
    picture = Picture(grey, "", lambda: np.zeros((height, width), bool), lambda: grey)
    try:
        changed = get_condition(name).apply(picture)
        return int(changed.shape[1]), int(changed.shape[0])
    except Exception:
        return None


def _at_level(function: Callable[[Picture, int], np.ndarray], level: int, picture: Picture) -> np.ndarray:
    return function(picture, level)


def _checked(name: str) -> str:
    if name in SETS:
        raise ValueError(f"{name!r} is the word for a set of conditions; give the condition another name")
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise ValueError(f"a condition's name has lower-case letters, digits and dashes; got {name!r}")
    return name


def _checked_uses(uses: Collection[str]) -> frozenset[str]:
    if isinstance(uses, str) or not set(uses) <= {"mask", "original"}:
        raise ValueError(f"`uses` is a collection of 'mask' and 'original'; got {uses!r}")
    return frozenset(uses)


def _summary(function: Callable[..., object]) -> str:
    return (function.__doc__ or "").strip().partition("\n")[0]
