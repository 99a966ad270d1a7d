"""Checks of a data set before anything is trained on it, one audit per file.

An audit takes the evidence and yields findings. The launch shows them before a grid starts and keeps them with its
results. Audits of file headers alone run whenever a folder is read; audits that look at pixels or masks run before a
grid starts, and by `launch.py audit`. `data.verdict` says what all of them come to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from data.register import Register
from data.sources.base import FAKE, REAL, rows_of_cells

if TYPE_CHECKING:
    import pandas as pd

    from data.manifest import Manifest

Level = Literal["note", "warn", "fail"]
LEVELS: tuple[Level, ...] = ("note", "warn", "fail")
MOST_FILES = 20  # that a finding names


@dataclass(frozen=True, order=True)
class Finding:
    """A property of the data that a reader of the results should know.

    Attributes:
        audit: name of the audit that yielded it.
        level: "note": harmless by itself; "warn": it may make results misleading; "fail": it makes results misleading.
        text: the finding, in one sentence.
        remedy: what to do about it; may be empty.
        files: names of files that show it, relative to the data folder, at most `MOST_FILES`.
        numbers: (name, value) of the numbers that it rests on.
    """

    audit: str
    level: Level
    text: str
    remedy: str = ""
    files: tuple[str, ...] = ()
    numbers: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise ValueError(f"the level of a finding is one of {', '.join(LEVELS)}; got {self.level!r}")

    def __str__(self) -> str:
        return f"{self.text}; {self.remedy}" if self.remedy else self.text

    def to_dict(self) -> dict[str, Any]:
        """As plain types, for JSON."""
        return asdict(self) | {"files": list(self.files), "numbers": dict(self.numbers)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Finding:
        """The inverse of `to_dict`; findings of an older version have neither files nor numbers."""
        files, numbers = tuple(fields.get("files", ())), tuple(dict(fields.get("numbers", {})).items())
        return cls(**{**fields, "files": files, "numbers": numbers})


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


# (level, text, remedy), then maybe names of files, then maybe name -> number
Found = (
    tuple[Level, str, str]
    | tuple[Level, str, str, Sequence[str]]
    | tuple[Level, str, str, Sequence[str], Mapping[str, float]]
)
Audit = Callable[[Evidence], Iterator[Found]]


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


def audits_for(*, measured: bool) -> list[str]:
    """Names of the audits that evidence with, or without, `Evidence.measured` is enough for."""
    return [name for name in list_audits() if measured or not _audits.get(name).decodes]


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
    for name in audits_for(measured=evidence.measured is not None) if names is None else names:
        registered = _audits.get(name)
        try:
            findings += [_finding(name, *found) for found in registered.audit(evidence)]
        except Exception as error:
            raise RuntimeError(f"the audit {name!r} failed: {error!r}") from error
    return findings


def by_generator(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, pd.DataFrame]]:
    """For each generator: (its name, its fakes, the real images that it is trained and tested against)."""
    for generator in sorted(set(table.loc[table["label"] == FAKE, "generator"])):
        cell = table[rows_of_cells(table, [generator])]
        yield str(generator), cell[cell["label"] == FAKE], cell[cell["label"] == REAL]


def _finding(
    audit: str,
    level: Level,
    text: str,
    remedy: str,
    files: Sequence[str] = (),
    numbers: Mapping[str, float] | None = None,
) -> Finding:
    values = tuple((name, float(value)) for name, value in (numbers or {}).items())
    return Finding(audit, level, text, remedy, tuple(map(str, files[:MOST_FILES])), values)
