"""Unequal numbers of real and fake images, which make some metrics lean to one class."""

from __future__ import annotations

from collections.abc import Iterator

from data.audits import Evidence, Level, register_audit
from data.audits.shortcuts import by_generator


@register_audit("counts")
def counts(evidence: Evidence) -> Iterator[tuple[Level, str, str]]:
    """Compare the numbers of real and fake test images."""
    for generator, fakes, reals in by_generator(evidence.manifest.table):
        num_fakes, num_reals = (int((rows["split"] == "test").sum()) for rows in (fakes, reals))
        if num_fakes != num_reals:
            text = f"{generator}, test: {num_fakes} fakes against {num_reals} real images"
            yield "note", text, "read balanced accuracy"
