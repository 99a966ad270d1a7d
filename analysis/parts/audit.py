"""What the audits say of the data set that all results rest on."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from analysis.page import Block, Bullets, Text
from analysis.parts import AUDIT, Report, register_part
from data.audits import LEVELS, Finding
from data.verdict import PASS

_COLUMNS = ["audit", "level", "text", "remedy", "numbers", "files"]
_SHOWN_FILES = 2


@register_part("audit", title=AUDIT, position=17)
def audit(report: Report) -> Iterator[Block]:
    """The verdict, and every finding with some of its files; the gravest first. A table has all numbers and files."""
    verdict = report.store.verdict
    if verdict is None:
        yield Text("What audits say of the data is not kept with this grid; the next launch adds it.")
        return
    yield from report.audit(here=True)
    if verdict.accepted:
        yield Text(f"Accepted by whoever launched it (--accept-audit): {', '.join(verdict.accepted)}.", strong=True)
    found = sorted(verdict.findings, key=lambda finding: -LEVELS.index(finding.level))
    if found:
        yield Bullets([Text(_in_words(finding)) for finding in found])
        yield Text("The file tables/audit.csv has the numbers behind these sentences, and all files.")
    passed = [name for name, level in verdict.levels.items() if level == PASS]
    if passed:
        yield Text(f"Nothing was found by: {', '.join(passed)}.")
    rows = [{**finding.to_dict(), "numbers": _numbers(finding), "files": ", ".join(finding.files)} for finding in found]
    rows += [{**dict.fromkeys(_COLUMNS, ""), "audit": name, "level": PASS} for name in passed]
    table = pd.DataFrame(rows, columns=_COLUMNS)
    report.folder.files("audit", table, caption="Audit of the data")


def _in_words(finding: Finding) -> str:
    files, more = ", ".join(finding.files[:_SHOWN_FILES]), len(finding.files) - _SHOWN_FILES
    shown = f" (files: {files}" + (f" and {more} more)" if more > 0 else ")") if files else ""
    return f"{finding.level} ({finding.audit}): {finding}{shown}"


def _numbers(finding: Finding) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in finding.numbers)
