"""Files with equal bytes within one split. (The manifest refuses equal bytes in two splits, which would be a leak.)"""

from __future__ import annotations

from collections.abc import Iterator

from data.audits import Evidence, Found, register_audit
from data.sources.base import FAKE


@register_audit("copies")
def copies(evidence: Evidence) -> Iterator[Found]:
    """Count copies within a split, and fakes that appear under two generators."""
    table = evidence.manifest.table
    copied = table[table.duplicated(["split", "label", "generator", "digest"])]
    if len(copied):
        text = f"{len(copied)} files are copies of another file of the same split, and count twice"
        yield "note", text, "", copied["path"].tolist(), {"copies": len(copied)}
    fakes = table[table["label"] == FAKE]
    shared = fakes[fakes.groupby("digest")["generator"].transform("nunique") > 1].sort_values(["digest", "generator"])
    if number := shared["digest"].nunique():
        text = f"{number} fakes have the same bytes under two generators"
        yield "warn", text, "attribution cannot tell them apart", shared["path"].tolist(), {"fakes": number}
