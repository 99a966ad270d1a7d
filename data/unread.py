"""Pictures in formats that are not read, such as .gif: how many there are of each class, and whether that matters."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from data.sources.base import FAKE, REAL, SHARED_REAL, Entry, Problem, owners_of_reals, relative
from data.splits import sizes_of_groups

DIFFERENCE = 0.05  # of the images of a class; as much as the audit of headers takes for chance


def note_on(unread: Iterable[Entry]) -> list[str]:
    """One sentence that counts them per class, split and suffix; empty if there are none."""
    counts = Counter((_class_name(entry), entry.split, entry.path.suffix.lower()) for entry in unread)
    groups = [f"{name}, {split}: {count} {suffix}" for (name, split, suffix), count in sorted(counts.items())]
    if not groups:
        return []
    return [f"{counts.total()} pictures in formats that are not read were left aside ({'; '.join(groups)})"]


def unbalanced(table: pd.DataFrame, unread: list[Entry], root: Path) -> list[Problem]:
    """The unread pictures of a generator's fakes, and of their real images, where the shares of both differ.

    The shares of unread pictures may differ by `DIFFERENCE` in a split. A class of which all pictures are unread is a
    problem too, which leaving them out does not solve.

    Args:
        table: the pictures that are read; columns generator, split and label.
        unread: the pictures that are not.
        root: the data folder.
    """
    if not unread:
        return []
    totals = Counter(sizes_of_groups(table))
    totals.update((entry.generator, entry.split, entry.label) for entry in unread)
    unread_in: defaultdict[tuple[str, str, int], list[Entry]] = defaultdict(list)
    for entry in unread:
        unread_in[entry.generator, entry.split, entry.label].append(entry)
    with_reals = {generator for generator, _, label in totals if label == REAL}
    problems: dict[Path, Problem] = {}
    for generator, split in sorted({(generator, split) for generator, split, label in totals if label == FAKE}):
        reals = [(owner, split, REAL) for owner in owners_of_reals(generator, with_reals)]
        classes = [[(generator, split, FAKE)], reals]
        lost = [[entry for group in groups for entry in unread_in[group]] for groups in classes]
        numbers = [sum(totals[group] for group in groups) for groups in classes]
        shares = [len(some) / max(1, number) for some, number in zip(lost, numbers, strict=True)]
        if abs(shares[0] - shares[1]) <= DIFFERENCE and 1 not in shares:
            continue
        what = "in a format that is not read, which unbalances the classes"
        remedy = "convert such files to PNG, real and fake alike, or take their counterparts of the other class out too"
        detail = f"{generator}, {split}: {shares[0]:.0%} of the fakes and {shares[1]:.0%} of the real images"
        for entry in lost[0] + lost[1]:
            path = relative(entry.path, root)
            problems.setdefault(entry.path, Problem(path, what, remedy, detail, skippable=1 not in shares))
    return list(problems.values())


def _class_name(entry: Entry) -> str:
    return f"{entry.generator} (real)" if entry.label == REAL and entry.generator != SHARED_REAL else entry.generator
