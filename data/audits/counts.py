"""Unequal numbers of images, which make a detector or a metric lean to one class, or columns hard to compare."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from data.audits import Evidence, Found, by_generator, register_audit
from data.sources.base import REAL, SPLITS

TIMES = 2  # the larger of two numbers is at least so many times the smaller one: a finding for training and validation


@register_audit("counts")
def counts(evidence: Evidence) -> Iterator[Found]:
    """Compare the numbers of real and fake images per split, of the generators, and of attribution's classes."""
    table = evidence.manifest.table
    fakes_of: dict[str, int] = {}
    for generator, fakes, reals in by_generator(table):
        numbers = {split: [int((rows["split"] == split).sum()) for rows in (fakes, reals)] for split in SPLITS}
        if numbers["train"][0]:
            fakes_of[generator] = numbers["train"][0]
        for split, (num_fakes, num_reals) in numbers.items():
            if not num_fakes:
                continue  # it is only tested
            text = f"{generator}, {split}: {num_fakes} fakes against {num_reals} real images"
            both = {"fakes": num_fakes, "reals": num_reals}
            if split == "test" and num_fakes != num_reals:
                yield "note", text, "read balanced accuracy", [], both
            elif split != "test" and _unequal(num_fakes, num_reals):
                share = max(num_fakes, num_reals) / (num_fakes + num_reals)
                larger = "fake" if num_fakes > num_reals else "real"
                text += f", so the answer {larger!r} alone is right for {share:.0%} of them"
                yield "warn", text, "make both classes equal (--limit N takes at most N images of each)", [], both
    if fakes_of and _unequal(min(fakes_of.values()), max(fakes_of.values())):
        shown = ", ".join(f"{name} {count}" for name, count in fakes_of.items())
        text = f"training sets differ in size ({shown} fakes), so a generator's column shows that too"
        yield "warn", text, "make them equal (--limit N takes at most N images of each)", [], fakes_of
    yield from _of_attribution(table, fakes_of)


def _of_attribution(table: pd.DataFrame, fakes_of: dict[str, int]) -> Iterator[Found]:
    """Where each generator has real images of its own, attribution's class "real" has all of them."""
    num_reals = int(((table["split"] == "train") & (table["label"] == REAL)).sum())
    largest = max(fakes_of.values(), default=0)
    if len(fakes_of) > 1 and num_reals > largest and _unequal(largest, num_reals):
        text = f"attribution, train: {num_reals} real images against at most {largest} fakes of one generator"
        numbers = {"reals": num_reals, "fakes_of_largest": largest}
        yield "note", text, "read balanced accuracy, and the accuracy of each class", [], numbers


def _unequal(first: int, second: int) -> bool:
    small, large = sorted((first, second))
    return large >= TIMES * small
