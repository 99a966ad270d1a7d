"""Splits with so few images that a metric of them says little."""

from __future__ import annotations

from collections.abc import Iterator

from data.audits import Evidence, Found, register_audit

ENOUGH = 100  # the standard error of an accuracy of 0.5 is then 0.05


@register_audit("few_images")
def few_images(evidence: Evidence) -> Iterator[Found]:
    """Count the test images of each generator."""
    table = evidence.manifest.table
    test = table[table["split"] == "test"]
    counts = test.groupby("generator").size()
    if few := [f"{name} ({count})" for name, count in counts.items() if count < ENOUGH]:
        yield "note", f"fewer than {ENOUGH} test images of {', '.join(few)}", "read the intervals"
