"""The audit of a data set before a grid: run it, print it, and stop a grid that it refuses."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from grid.command_line import print_wrapped
from grid.commands import BadInputError

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from data.manifest import Manifest
    from data.verdict import Verdict

STYLES = {"note": "yellow", "warn": "yellow", "fail": "bold red"}
_SHOWN_FILES = 3


def audit(
    manifest: Manifest, console: Console, *, cache: Path, accepted: Iterable[str] = (), decode: bool = True
) -> tuple[Manifest, Verdict, pd.DataFrame | None]:
    """Judge a data set: the manifest with all findings, the verdict, and what was measured on pixels.

    Args:
        manifest: from `build_manifest`, with the findings of the audits that decode nothing.
        console: shows the progress of decoding.
        cache: numbers measured on pixels are kept here; for the same images nothing is decoded twice.
        accepted: names of audits whose "fail" does not stop a grid.
        decode: also run the audits that look at pixels.

    Raises:
        BadInputError: a file is gone, has changed or cannot be decoded any more.
    """
    from data.pictures import FileError
    from data.verdict import judge
    from grid.progress import counting

    measured = None
    if decode:
        from data.measure import measure

        with counting(console) as count:
            try:
                measured = measure(manifest, cache=cache, progress=partial(count, "measuring pixels"))
            except FileError as error:
                raise BadInputError(str(error)) from error
    verdict = judge(manifest, measured, accepted=accepted)
    return manifest.with_findings(verdict.findings), verdict, measured


def print_verdict(verdict: Verdict, console: Console) -> None:
    """Print every finding with some of its files, then the verdict in one line."""
    from data.audits import LEVELS

    for finding in sorted(verdict.findings, key=lambda finding: LEVELS.index(finding.level)):
        print_wrapped(f"{finding.level}: {finding}", console, style=STYLES[finding.level])
        if finding.files:
            files = ", ".join(finding.files[:_SHOWN_FILES])
            print_wrapped(f"      such as {files}", console)
    print_wrapped(f"audit: {verdict}", console)


def check_verdict(verdict: Verdict) -> None:
    """Refuse to start a grid on these data if an audit fails and is not accepted.

    Raises:
        BadInputError: the message names the audits, and the option that accepts them.
    """
    if refusal := refusal_of(verdict):
        raise BadInputError(refusal)


def refusal_of(verdict: Verdict) -> str:
    """Why no grid starts on these data, and what to do; "" if one does."""
    if not verdict.refused:
        return ""
    return (
        f"the audit of the data fails ({', '.join(verdict.refused)}, see above): results on them would mislead\n"
        f"Mend the data. Or give --accept-audit {','.join(verdict.refused)}: the grid runs, and every table says so"
    )
