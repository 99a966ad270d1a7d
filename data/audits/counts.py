"""Numbers of images that make a metric lean to one class."""

from __future__ import annotations

from collections.abc import Iterator

from data.audits import Level, register_audit
from data.audits.shortcuts import by_generator
from data.manifest import Manifest


@register_audit("counts")
def counts(manifest: Manifest) -> Iterator[tuple[Level, str, str]]:
    """Compare the numbers of real and fake test images."""
    for generator, made, real in by_generator(manifest.table):
        num_made, num_real = (int((rows["split"] == "test").sum()) for rows in (made, real))
        if num_made != num_real:
            text = f"{generator}, test: {num_made} fakes against {num_real} real images"
            yield "note", text, "read balanced accuracy"
