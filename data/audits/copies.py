"""Files with equal bytes within one split. (The manifest refuses equal bytes in two splits, which would be a leak.)"""

from __future__ import annotations

from collections.abc import Iterator

from data.audits import Evidence, Level, register_audit
from data.sources.base import FAKE


@register_audit("copies")
def copies(evidence: Evidence) -> Iterator[tuple[Level, str, str]]:
    """Count copies within a split, and fakes that appear under two generators."""
    table = evidence.manifest.table
    num_copies = int(table.duplicated(["split", "label", "generator", "digest"]).sum())
    if num_copies:
        yield "note", f"{num_copies} files are copies of another file of the same split, and count twice", ""
    num_generators = table[table["label"] == FAKE].groupby("digest")["generator"].nunique()
    if shared := int((num_generators > 1).sum()):
        text = f"{shared} fakes have the same bytes under two generators"
        yield "warn", text, "attribution cannot tell them apart"
