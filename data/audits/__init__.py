"""What is looked for in a data set before anything is trained on it, one file per audit.

An audit takes a manifest and gives findings. They are shown before a grid starts and kept with its results.
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
    """Something that a reader of the results should know of the data.

    Attributes:
        audit: which audit found it.
        level: "note": no harm by itself; "warn": results may mean something else than they seem to; "fail": they do.
        text: what it is, in a sentence.
        remedy: what to do about it; may be empty.
    """

    audit: str
    level: Level
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.text}; {self.remedy}" if self.remedy else self.text


Audit = Callable[["Manifest"], Iterator[tuple[Level, str, str]]]  # yields (level, text, remedy)
_audits: Register[Audit] = Register("audit", __name__)


def register_audit(name: str) -> Callable[[Audit], Audit]:
    """Register the decorated audit under `name`. Raises `ValueError` where the name is taken."""

    def decorate(audit: Audit) -> Audit:
        _audits.add(name, audit)
        return audit

    return decorate


def list_audits() -> list[str]:
    """Names of all audits, in alphabetical order."""
    return _audits.names()


def run_audits(manifest: Manifest, names: Iterable[str] | None = None) -> list[Finding]:
    """Every finding of every audit.

    Args:
        manifest: of the data set.
        names: of the audits; None: all.

    Raises:
        KeyError: no such audit; lists what exists.
    """
    chosen = list_audits() if names is None else list(names)
    return [Finding(name, *finding) for name in chosen for finding in _audits.get(name)(manifest)]
