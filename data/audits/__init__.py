"""Checks of a data set before anything is trained on it, one audit per file.

An audit takes a manifest and yields findings. The launch shows them before a grid starts and keeps them with its
results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from data.register import Register

if TYPE_CHECKING:
    from data.manifest import Manifest

Level = Literal["note", "warn", "fail"]
LEVELS: tuple[Level, ...] = ("note", "warn", "fail")


@dataclass(frozen=True, order=True)
class Finding:
    """A property of the data that a reader of the results should know.

    Attributes:
        audit: name of the audit that yielded it.
        level: "note": harmless by itself; "warn": it may make results misleading; "fail": it makes results misleading.
        text: the finding, in one sentence.
        remedy: what to do about it; may be empty.
    """

    audit: str
    level: Level
    text: str
    remedy: str = ""

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise ValueError(f"the level of a finding is one of {', '.join(LEVELS)}; got {self.level!r}")

    def __str__(self) -> str:
        return f"{self.text}; {self.remedy}" if self.remedy else self.text


Audit = Callable[["Manifest"], Iterator[tuple[Level, str, str]]]  # yields (level, text, remedy)
_audits: Register[Audit] = Register("audit", __name__)


register_audit, list_audits = _audits.register, _audits.names


def run_audits(manifest: Manifest, names: Iterable[str] | None = None) -> list[Finding]:
    """Run audits on a manifest; return all findings.

    Args:
        manifest: describes the data set.
        names: the audits to run; None: all.

    Raises:
        KeyError: no such audit; the message lists the audits.
        RuntimeError: an audit failed; the message names it.
    """
    findings = []
    for name in list_audits() if names is None else names:
        audit = _audits.get(name)
        try:
            findings += [Finding(name, *finding) for finding in audit(manifest)]
        except Exception as error:
            raise RuntimeError(f"the audit {name!r} failed: {error!r}") from error
    return findings
