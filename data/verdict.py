"""What the audits of a data set come to: pass, note, warn or fail for each audit, and whether a grid may start."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from data.audits import LEVELS, Evidence, Finding, audits_for, run_audits

if TYPE_CHECKING:
    import pandas as pd

    from data.manifest import Manifest

PASS = "pass"  # noqa: S105  # an audit without findings
FAIL = "fail"


@dataclass(frozen=True)
class Verdict:
    """What audits say of one data set.

    Attributes:
        audits: names of the audits that were run, in alphabetical order.
        findings: their findings.
        accepted: audits whose "fail" does not stop a grid (`--accept-audit`).
    """

    audits: tuple[str, ...]
    findings: tuple[Finding, ...]
    accepted: tuple[str, ...] = ()

    @property
    def levels(self) -> dict[str, str]:
        """Audit -> the gravest level of its findings; "pass" without findings."""
        levels = dict.fromkeys(self.audits, PASS)
        for finding in sorted(self.findings, key=lambda finding: LEVELS.index(finding.level)):
            levels[finding.audit] = finding.level
        return levels

    @property
    def worst(self) -> str:
        """The gravest level of all."""
        levels = self.levels.values()
        return next((level for level in reversed(LEVELS) if level in levels), PASS)

    @property
    def refused(self) -> list[str]:
        """Audits that fail and are not accepted: they stop a grid."""
        return [name for name, level in self.levels.items() if level == FAIL and name not in self.accepted]

    def __str__(self) -> str:
        """In one line, such as "1 fail (pixels, accepted), 2 warn (headers, masks), 3 pass"."""
        levels, words = self.levels, []
        for level in reversed(LEVELS):
            audits = [name for name in levels if levels[name] == level]
            shown = ", ".join(
                f"{name}, accepted" if level == FAIL and name in self.accepted else name for name in audits
            )
            words += [f"{len(audits)} {level} ({shown})"] if audits else []
        passed = list(levels.values()).count(PASS)
        return ", ".join([*words, f"{passed} pass"] if passed or not words else words)

    def to_dict(self) -> dict[str, Any]:
        """As plain types, for JSON."""
        return {
            "audits": self.levels,
            "accepted": list(self.accepted),
            "findings": [finding.to_dict() for finding in self.findings],
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Verdict:
        """The inverse of `to_dict`."""
        findings = tuple(map(Finding.from_dict, fields["findings"]))
        return cls(tuple(fields["audits"]), findings, tuple(fields["accepted"]))


def judge(manifest: Manifest, measured: pd.DataFrame | None = None, *, accepted: Iterable[str] = ()) -> Verdict:
    """Run the audits that need decoded pictures, and join their findings with the manifest's.

    Args:
        manifest: from `data.manifest.build_manifest`, which has run the audits that decode nothing.
        measured: from `data.measure`; None: only the manifest's findings count.
        accepted: names of audits whose "fail" does not stop a grid.

    Raises:
        RuntimeError: an audit failed; the message names it.
    """
    names = audits_for(measured=measured is not None)
    further = [name for name in names if name not in audits_for(measured=False)]
    findings = [finding for finding in manifest.findings if finding.audit not in further]
    findings += run_audits(Evidence(manifest, measured), further)
    return Verdict(tuple(names), tuple(findings), tuple(accepted))
