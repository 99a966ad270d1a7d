"""Files with equal bytes, where that is no leak between splits (which the manifest refuses)."""

from __future__ import annotations

from collections.abc import Iterator

from data.audits import Level, register_audit
from data.manifest import Manifest
from data.sources.base import FAKE


@register_audit("copies")
def copies(manifest: Manifest) -> Iterator[tuple[Level, str, str]]:
    """Count copies within a split, and fakes that two generators share."""
    table = manifest.table
    twice = int(table.duplicated(["split", "label", "generator", "digest"]).sum())
    if twice:
        yield "note", f"{twice} files have the bytes of another one beside them, and count twice", ""
    makers = table[table["label"] == FAKE].groupby("digest")["generator"].nunique()
    if shared := int((makers > 1).sum()):
        text = f"{shared} fakes have the same bytes under two generators"
        yield "warn", text, "attribution cannot tell them apart"
