"""Pictures in formats that are not read, such as .tif: how many there are of each class, and whether that matters."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

from data.sources.base import FAKE, REAL, SHARED_REAL, Entry, Problem, relative

DIFFERENCE = 0.05  # of the images of a class; as much as the audit of headers takes for chance


def note_on(unread: Iterable[Entry]) -> list[str]:
    """One sentence that counts them per class, split and suffix; empty if there are none."""
    counts = Counter((_class_name(entry), entry.split, entry.path.suffix.lower()) for entry in unread)
    groups = [f"{name}, {split}: {count} {suffix}" for (name, split, suffix), count in sorted(counts.items())]
    if not groups:
        return []
    return [f"{counts.total()} pictures in formats that are not read were left aside ({'; '.join(groups)})"]


def unbalanced(entries: list[Entry], unread: list[Entry], root: Path) -> list[Problem]:
    """The unread pictures of a generator's fakes, and of their real images, where the shares of both differ.

    The shares of unread pictures may differ by `DIFFERENCE` in a split. A class of which all pictures are unread is a
    problem too, which leaving them out does not solve.

    Args:
        entries: the pictures that are read.
        unread: the pictures that are not.
        root: the data folder.
    """
    if not unread:
        return []
    totals = Counter((entry.generator, entry.split, entry.label) for entry in [*entries, *unread])
    unread_in: defaultdict[tuple[str, str, int], list[Entry]] = defaultdict(list)
    for entry in unread:
        unread_in[entry.generator, entry.split, entry.label].append(entry)
    with_reals = {generator for generator, _, label in totals if label == REAL}
    problems: dict[Path, Problem] = {}
    for generator, split in sorted({(generator, split) for generator, split, label in totals if label == FAKE}):
        fakes = generator, split, FAKE
        reals = generator if generator in with_reals else SHARED_REAL, split, REAL
        shares = [len(unread_in[group]) / max(1, totals[group]) for group in (fakes, reals)]
        if abs(shares[0] - shares[1]) <= DIFFERENCE and 1 not in shares:
            continue
        what = "in a format that is not read, which unbalances the classes"
        remedy = "convert such files to PNG, real and fake alike, or take their counterparts of the other class out too"
        detail = f"{generator}, {split}: {shares[0]:.0%} of the fakes and {shares[1]:.0%} of the real images"
        for entry in unread_in[fakes] + unread_in[reals]:
            path = relative(entry.path, root)
            problems.setdefault(entry.path, Problem(path, what, remedy, detail, skippable=1 not in shares))
    return list(problems.values())


def _class_name(entry: Entry) -> str:
    return f"{entry.generator} (real)" if entry.label == REAL and entry.generator != SHARED_REAL else entry.generator
