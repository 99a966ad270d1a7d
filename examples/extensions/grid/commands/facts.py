"""What the audits find in a data folder, without a grid."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from grid.commands import OK, BadInputError, Context, register_command


def add_options(parser: argparse.ArgumentParser) -> None:
    """Which corpus, and where."""
    parser.add_argument("source", help="name of the corpus")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="its folder")


@register_command("facts", add_options)
def facts(options: argparse.Namespace, context: Context) -> int:
    """Print what the audits find in a data folder."""
    from data.manifest import DataProblems, build_manifest

    with tempfile.TemporaryDirectory() as cache:
        try:
            manifest = build_manifest(options.source, options.data, cache=Path(cache))
        except (DataProblems, KeyError) as error:
            raise BadInputError(str(error)) from error
    for finding in manifest.findings:
        context.console.print(f"{finding.level}: {finding}", highlight=False, markup=False)
    return OK
