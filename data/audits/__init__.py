"""Checks of a data set before anything is trained on it, one audit per file.

An audit takes the evidence and yields findings. The launch shows them before a grid starts and keeps them with its
results. Audits of file headers alone run whenever a folder is read; audits that look at pixels or masks run before a
grid starts, and by `launch.py audit`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from data.register import Register

if TYPE_CHECKING:
    import pandas as pd

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


@dataclass(frozen=True)
class Evidence:
    """What audits look at.

    Attributes:
        manifest: describes the data set.
        measured: one row per image that was decoded, with the index of the manifest's rows; columns as `data.measure`
            says. None: nothing was decoded.
    """

    manifest: Manifest
    measured: pd.DataFrame | None = None


Audit = Callable[[Evidence], Iterator[tuple[Level, str, str]]]  # yields (level, text, remedy)


@dataclass(frozen=True)
class _Registered:
    audit: Audit
    decodes: bool


_audits: Register[_Registered] = Register("audit", __name__)
list_audits = _audits.names


def register_audit(name: str, *, decodes: bool = False) -> Callable[[Audit], Audit]:
    """Register the decorated audit.

    Args:
        name: as in findings and on the command line.
        decodes: whether it needs `Evidence.measured`.

    Raises:
        ValueError: the name is taken.
    """

    def decorate(audit: Audit) -> Audit:
        _audits.add(name, _Registered(audit, decodes))
        return audit

    return decorate


def run_audits(evidence: Evidence, names: Iterable[str] | None = None) -> list[Finding]:
    """Run audits; return all findings.

    Args:
        evidence: what they look at.
        names: the audits to run; None: all that the evidence is enough for.

    Raises:
        KeyError: no such audit; the message lists the audits.
        RuntimeError: an audit failed; the message names it.
    """
    findings = []
    for name in list_audits() if names is None else names:
        registered = _audits.get(name)
        if names is None and registered.decodes and evidence.measured is None:
            continue
        try:
            findings += [Finding(name, *finding) for finding in registered.audit(evidence)]
        except Exception as error:
            raise RuntimeError(f"the audit {name!r} failed: {error!r}") from error
    return findings
