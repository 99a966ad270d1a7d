"""Training sets: the generators whose fakes a detector is trained on, and the words for them.

On the command line a training set is one of

    each            a training set per generator
    all             every generator in one set
    all-but-one     a set per generator, which leaves that generator out
    all-but-X       every generator but X
    X, A+B          these generators in one set
    none            no fakes at all, for methods that need none

and a list of them is separated by commas.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

SEPARATOR = "+"
NONE, EACH, ALL, ALL_BUT_ONE, ALL_BUT = "none", "each", "all", "all-but-one", "all-but-"
NO_GENERATOR = "no generator"  # the set `none` in tables
RESERVED = ("real", "fake", NONE, EACH, ALL)  # what no generator may be called, besides what begins with ALL_BUT


@dataclass(frozen=True, order=True)
class TrainSet:
    """The generators whose fakes are trained on.

    Attributes:
        generators: sorted and unique; empty for a method that is trained without fakes.
    """

    generators: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "generators", tuple(sorted(set(self.generators))))

    @classmethod
    def parse(cls, text: str) -> TrainSet:
        """The inverse of `str`: as in the column `trained_on` of every table."""
        return cls(()) if text == NONE else cls(tuple(text.split(SEPARATOR)))

    def __str__(self) -> str:
        return SEPARATOR.join(self.generators) or NONE

    def __contains__(self, generator: str) -> bool:
        """Whether a test on this generator is in-domain."""
        return generator in self.generators

    def __len__(self) -> int:
        return len(self.generators)

    def label(self, generators: Collection[str]) -> str:
        """A short heading: the generator, "A + B", "all", "all but X" or "no generator".

        Args:
            generators: all generators of the data set.
        """
        everything, own = set(generators), set(self.generators)
        left_out = everything - own
        if not own:
            return NO_GENERATOR
        if len(everything) < 3 or len(own) < 2 or not own <= everything or len(left_out) > 1:
            return f" {SEPARATOR} ".join(self.generators)
        return f"all but {left_out.pop()}" if left_out else ALL


def parse_train_sets(text: str, generators: Iterable[str]) -> list[TrainSet]:
    """The training sets that a text names, each once, in its order.

    Args:
        text: see the module's docstring.
        generators: all generators of the data set.

    Raises:
        ValueError: a generator that does not exist, or a set that would be empty; the message lists what exists.
    """
    everything = sorted(set(generators))
    sets: dict[TrainSet, None] = {}
    for word in (part.strip() for part in text.split(",")):
        for names in _sets_of(word, everything):
            sets[TrainSet(tuple(names))] = None
    return list(sets)


def ordered(train_sets: Iterable[TrainSet], generators: Sequence[str]) -> list[TrainSet]:
    """Training sets in the order of a table's columns: no generator, single ones, then unions by their size.

    Args:
        train_sets: in any order.
        generators: all generators in the order of the rows.
    """
    rank = {name: number for number, name in enumerate(generators)}

    def key(train: TrainSet) -> tuple[int, int, str]:
        first = rank.get(train.generators[0], len(rank)) if len(train) == 1 else 0
        return len(train), first, str(train)

    return sorted(set(train_sets), key=key)


def check_names(generators: Iterable[str]) -> None:
    """Raise `ValueError` for generators whose names mean a training set."""
    bad = [name for name in generators if name in RESERVED or name.startswith(ALL_BUT)]
    if bad:
        raise ValueError(
            f"rename these generators' folders: {', '.join(map(repr, bad))}; in --train-on and in tables the words "
            f"{', '.join(RESERVED)} and all that begins with {ALL_BUT} mean something else"
        )


def _sets_of(word: str, everything: Sequence[str]) -> list[list[str]]:
    if word == EACH:
        return [[name] for name in everything]
    if word == ALL:
        return [list(everything)]
    if word == NONE:
        return [[]]
    if word == ALL_BUT_ONE:
        return [_without(name, everything, word) for name in everything]
    if word.startswith(ALL_BUT):
        return [_without(_known(word.removeprefix(ALL_BUT), everything, word), everything, word)]
    return [[_known(name.strip(), everything, word) for name in word.split(SEPARATOR)]]


def _known(name: str, everything: Sequence[str], word: str) -> str:
    if name in everything:
        return name
    near = difflib.get_close_matches(name, everything, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise ValueError(
        f"--train-on {word}: no generator {name!r} in the data{hint}; there are: {', '.join(everything)}; "
        f"besides, {EACH}, {ALL}, {ALL_BUT_ONE}, {ALL_BUT}X and {NONE}"
    )


def _without(name: str, everything: Sequence[str], word: str) -> list[str]:
    rest = [other for other in everything if other != name]
    if not rest:
        raise ValueError(f"--train-on {word}: the data have one generator, {name}, so nothing is left to train on")
    return rest
