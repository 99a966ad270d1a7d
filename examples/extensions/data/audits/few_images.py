"""Splits with so few images that a metric of them says little."""

from __future__ import annotations

from collections.abc import Iterator

from data.audits import Level, register_audit
from data.manifest import Manifest

ENOUGH = 100  # the standard error of an accuracy of 0.5 is then 0.05


@register_audit("few_images")
def few_images(manifest: Manifest) -> Iterator[tuple[Level, str, str]]:
    """Count the test images of each generator."""
    test = manifest.table[manifest.table["split"] == "test"]
    counts = test.groupby("generator").size()
    if few := [f"{name} ({count})" for name, count in counts.items() if count < ENOUGH]:
        yield "note", f"fewer than {ENOUGH} test images of {', '.join(few)}", "read the intervals"
