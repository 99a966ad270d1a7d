"""Training sets: the generators whose fakes a detector is trained on, and their names.

The command line takes a list of these words, separated by commas:

    each            one training set per generator
    all             one set with every generator
    all-but-one     one set per generator, with all other generators
    all-but-X       one set with every generator except X
    X, A+B          one set with these generators
    none            no fakes, for methods that need none
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from data.register import no_entry

SEPARATOR = "+"
NONE, EACH, ALL, ALL_BUT_ONE, ALL_BUT = "none", "each", "all", "all-but-one", "all-but-"
NO_GENERATOR = "no generator"  # label of the set `none` in tables
# No generator may have these names, in capital letters or small ones, or a name that starts with ALL_BUT.
RESERVED = ("real", "fake", NONE, EACH, ALL, NO_GENERATOR)


@dataclass(frozen=True, order=True)
class TrainSet:
    """The generators whose fakes a detector is trained on.

    Attributes:
        generators: sorted and unique; empty for training without fakes.
    """

    generators: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "generators", tuple(sorted(set(self.generators))))

    @classmethod
    def parse(cls, text: str) -> TrainSet:
        """The inverse of `str`; tables have this text in the column `trained_on`."""
        return cls(()) if text == NONE else cls(tuple(text.split(SEPARATOR)))

    def __str__(self) -> str:
        return SEPARATOR.join(self.generators) or NONE

    def __contains__(self, generator: str) -> bool:
        """Whether the generator is in the set, so that a test on it is in-domain."""
        return generator in self.generators

    def __len__(self) -> int:
        return len(self.generators)

    def label(self, generators: Collection[str]) -> str:
        """A short heading: the generator's name, "A + B", "all", "all but X" or "no generator".

        `generators` are all generators of the data set.
        """
        everything, trained = set(generators), set(self.generators)
        left_out = everything - trained
        if not trained:
            return NO_GENERATOR
        if len(everything) < 3 or len(trained) < 2 or not trained <= everything or len(left_out) > 1:
            return f" {SEPARATOR} ".join(self.generators)
        return f"all but {left_out.pop()}" if left_out else ALL


def parse_train_sets(text: str, generators: Iterable[str]) -> list[TrainSet]:
    """The training sets that a text names, in its order, without duplicates.

    Args:
        text: see the module's docstring.
        generators: all generators of the data set.

    Raises:
        ValueError: a generator that does not exist, with the list of those that do; or a set that would be empty.
    """
    everything = sorted(set(generators))
    words = [word.strip() for word in text.split(",")]
    return list(dict.fromkeys(TrainSet(tuple(names)) for word in words for names in _sets_of(word, everything)))


def ordered(train_sets: Iterable[TrainSet], generators: Sequence[str]) -> list[TrainSet]:
    """Training sets in the order of a table's columns: no generator, single generators, then unions by size.

    Single generators are in the order of `generators`, which is that of the table's rows, and so are the generators
    that sets of all but one leave out.
    """
    rank = {name: number for number, name in enumerate(generators)}

    def key(train: TrainSet) -> tuple[int, int, str]:
        left_out = rank.keys() - set(train.generators)
        alone = train.generators if len(train) == 1 else tuple(left_out) if len(left_out) == 1 else ()
        return len(train), rank.get(alone[0], len(rank)) if alone else 0, str(train)

    return sorted(set(train_sets), key=key)


def check_names(generators: Iterable[str]) -> None:
    """Raise `ValueError` for generators whose names have another meaning."""
    words = {name: name.lower().replace(" ", "-") for name in generators}
    bad = [name for name, word in words.items() if name.lower() in RESERVED or word.startswith(ALL_BUT)]
    bad += [name for name in words if name != name.strip()]
    if bad:
        raise ValueError(
            f"rename these generators' folders: {', '.join(map(repr, bad))}; in --train-on and in tables the words "
            f"{', '.join(RESERVED)} and every word that starts with {ALL_BUT} have another meaning, and blanks "
            "around a name are lost"
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
        return [_without(_existing(word.removeprefix(ALL_BUT), everything, word), everything, word)]
    return [[_existing(name.strip(), everything, word) for name in word.split(SEPARATOR)]]


def _existing(name: str, everything: Sequence[str], word: str) -> str:
    if name in everything:
        return name
    problem = no_entry("generator", name, everything).args[0]
    raise ValueError(
        f"--train-on {word}: {problem}; other words are {EACH}, {ALL}, {ALL_BUT_ONE}, {ALL_BUT}X and {NONE}"
    )


def _without(name: str, everything: Sequence[str], word: str) -> list[str]:
    rest = [other for other in everything if other != name]
    if not rest:
        raise ValueError(
            f"--train-on {word}: the data have one generator, {name}, so none is left to train on; add images of "
            f"another generator, or train on {name} alone (--train-on {EACH})"
        )
    return rest
