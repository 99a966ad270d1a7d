"""Derive every number of a report again.

It is derived from the scores, embeddings and manifest that trials left behind.

python -m analysis verify          the report in the folder report
python -m analysis verify FOLDER   a report, or a folder of the export

An export needs neither MLflow nor the images. A report's evidence is read from
MLflow and from the grid's cache.
The exit status is 0 if no number differs, 1 if one does, 2 for bad input.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from analysis.verify.evidence import FACTS, EvidenceError
from analysis.verify.verify import TABLES, Result, verify

if TYPE_CHECKING:
    from rich.console import Console

AGREE, DIFFER, BAD_INPUT = 0, 1, 2
_SHOWN = 5  # differences per file


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """The command line of `verify`; see `--help`."""
    parser = argparse.ArgumentParser(
        prog="python -m analysis verify", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folder", nargs="?", type=Path, default=Path("report"), metavar="FOLDER",
        help="a report or an export; default: report",
    )  # fmt: skip
    parser.add_argument(
        "--tracking-uri", metavar="URI", help="of a report; default: MLFLOW_TRACKING_URI, else the one that it names"
    )
    parser.add_argument(
        "--cache", type=Path, metavar="DIR",
        help="of a report: the grid's cache, with the manifest; default: beside a local store",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace, console: Console) -> int:
    """Run the command line of `verify`. Returns the exit status."""
    try:
        with console.status("") as status:
            if (options.folder / FACTS).is_file():
                result = verify(options.folder, say=status.update)
            else:
                result = _verify_report(options)
    except EvidenceError as error:
        console.print(f"error: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        return BAD_INPUT
    if options.json:
        print(json.dumps(result.to_dict(), indent=1))
    else:
        _print(result)
    if result.differences:
        first = result.differences[0]
        console.print(f"differs: {first}", style="red", highlight=False, markup=False, soft_wrap=True)
        return DIFFER
    return AGREE


def _verify_report(options: argparse.Namespace) -> Result:
    """The evidence of a report is exported to a scratch folder first, which needs MLflow."""
    from analysis.export import evidence_of_report

    if not (options.folder / TABLES).is_dir():
        raise EvidenceError(
            f"{options.folder} holds neither a report nor an export; `python -m analysis` writes a report, "
            "`python -m analysis export DIR` an export"
        )
    with TemporaryDirectory() as scratch:
        evidence_of_report(options.folder, Path(scratch), tracking_uri=options.tracking_uri, cache=options.cache)
        return verify(Path(scratch), options.folder)


def _print(result: Result) -> None:
    for line in [*result.evidence, *result.report]:
        sys.stdout.write(f"{line}\n")
        for difference in line.differences[:_SHOWN]:
            sys.stdout.write(f"  differs: {difference}\n")
        if len(line.differences) > _SHOWN:
            sys.stdout.write(f"  and {len(line.differences) - _SHOWN} more; --json lists all\n")
    counts = result.counts
    total = sum(counts.values())
    share = f"{counts['agree'] / total:.1%}" if total else "none"
    sys.stdout.write(
        f"\n{counts['agree']} of {total} numbers of the report agree ({share}), {counts['not_verified']} are not "
        f"verified, {counts['differ']} differ\n"
    )
    without = [
        line.file for line in result.report if any(r.startswith("no rule for this table") for r in line.unverified)
    ]
    if without:
        sys.stdout.write(f"Tables without a rule, so not verified: {', '.join(without)}\n")
