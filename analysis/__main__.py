"""Rebuild every table and picture of a grid from MLflow, as one page for a browser.

python -m analysis                           the grid in runs/mlflow.db -> report/index.html
python -m analysis --experiment dolos --compare clip_linear sam_linear
python -m analysis predict IMAGE… --best METHOD     real or fake? (see: python -m analysis predict --help)
python -m analysis explore                   a page to click in (see: python -m analysis explore --help)
python -m analysis export DIR                what a paper would attach (see: python -m analysis export --help)
python -m analysis verify                    derive the report's numbers again (see: python -m analysis verify --help)
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import logging
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.options import add_grid_options
from grid.command_line import ANALYSIS_COMMANDS, Parser, add_version, print_error
from grid.commands import print_any_text
from grid.garbage import search_less_often

if TYPE_CHECKING:
    from rich.console import Console

STATUSES = "exit status: 0 done; 1 an error that nobody expected; 2 bad input"
OK, UNEXPECTED, BAD_INPUT = 0, 1, 2  # `predict` has one more, see `analysis.predict`


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line of the report; see `--help`."""
    parser = Parser(prog="python -m analysis", description=__doc__, epilog=STATUSES)
    add_version(parser)
    grid = parser.add_argument_group("which grid")
    add_grid_options(grid)
    grid.add_argument("--spec-version", type=int, metavar="N", help="version of the runs, if there are several")
    report = parser.add_argument_group("what the report holds")
    report.add_argument("--out", type=Path, default=Path("report"), metavar="DIR", help="default: report")
    report.add_argument("--compare", nargs=2, metavar=("A", "B"), help="a paired test of one method against another")
    report.add_argument("--transpose", action="store_true", help="matrices with rows trained on, columns tested on")
    report.add_argument(
        "--every-matrix", action="store_true",
        help="draw the matrices that are folded as PNG and SVG too; default: only those that stand open",
    )  # fmt: skip
    report.add_argument("--projection", choices=("tsne", "umap"), default="tsne", help="umap needs umap-learn")
    report.add_argument("--no-log", dest="log", action="store_false", help="do not keep the report in MLflow")
    report.add_argument(
        "--one-file",
        action="store_true",
        help="put the pictures into index.html, to send the page alone; default: the page shows the files in "
        "DIR/figures, so send the whole folder",
    )
    speed = parser.add_argument_group("how it is made")
    speed.add_argument(
        "--processes",
        type=_positive,
        metavar="N",
        help="processes that draw pictures; default: one per core, at most 8",
    )
    speed.add_argument(
        "--anew",
        dest="keep",
        action="store_false",
        help="make every part anew; default: parts are kept in the folder report of the grid's cache, and taken from "
        "there while runs, options, code and packages are the same. The folder may be deleted",
    )
    cam = parser.add_argument_group("Grad-CAM, the one part that needs the images")
    cam.add_argument("--no-cam", dest="cam", action="store_false", help="leave Grad-CAM out")
    cam.add_argument("--images", type=Path, metavar="DIR", help="data folder; default: its path when the grid ran")
    cam.add_argument(
        "--cache", type=Path, metavar="DIR", help="the grid's cache, with the manifest; default: beside a local store"
    )
    cam.add_argument("--cam-images", type=_positive, default=16, metavar="N", help="images per cell; default: 16")
    cam.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: cpu")
    cam.add_argument(
        "--weights", dest="weight_files", type=Path, action="append", default=[], metavar="FILE",
        help="weights of a frozen encoder, if they were a file",
    )  # fmt: skip
    if arguments and not arguments[0].startswith("-"):
        word = arguments[0]
        near = difflib.get_close_matches(word, [*ANALYSIS_COMMANDS, "report"], n=1)
        hint = f" (did you mean {near[0]}?)" if near and near[0] != "report" else ""
        there = ", ".join(ANALYSIS_COMMANDS)
        parser.error(f"no command {word!r}{hint}; there are: {there}; without one, a report is made")
    options = parser.parse_args(arguments)
    if options.processes is None:
        options.processes = _one_per_core()
    options.command = shlex.join(["python", "-m", "analysis", *arguments])
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit status: 0, 1 an error that nobody expected, 2 bad input.

    For `predict` and `verify` 1 has a second meaning, see there.
    """
    print_any_text()
    search_less_often()
    words = list(sys.argv[1:] if arguments is None else arguments)
    from rich.console import Console

    from grid.steps import step

    console = Console(stderr=True)
    if words[:1] == ["predict"]:
        with step(console, "loading torch and the readers of pictures", in_logs=False):  # takes seconds
            from analysis import predict

        run, options = predict.predict, predict.parse_arguments(words[1:])
    elif words[:1] == ["export"]:
        from analysis import export

        run, options = export.export, export.parse_arguments(words[1:])
    elif words[:1] == ["verify"]:
        from analysis.verify import command

        run, options = command.run, command.parse_arguments(words[1:])
    elif words[:1] == ["explore"]:
        from analysis.explore.command import explore
        from analysis.explore.command import parse_arguments as parse

        run, options = explore, parse(words[1:])
    else:
        run, options = _report, parse_arguments(words)
    from rich.logging import RichHandler

    from data.addresses import without_passwords
    from grid.faults import fault, keep_traceback
    from grid.local_store import StoreError  # not from a module that brings MLflow, which an export does not need

    logging.basicConfig(
        level=logging.WARNING, format="%(message)s", handlers=[RichHandler(console=console, show_path=False)]
    )
    try:
        return run(options, console)
    except Exception as error:
        said = str(error) if isinstance(error, StoreError) else fault(error, where="")
        message = without_passwords(said) if said is not None else keep_traceback(error)
        print_error(message, console)
        return BAD_INPUT if said is not None else UNEXPECTED


def _report(options: argparse.Namespace, console: Console) -> int:
    from rich.console import Console

    from grid.steps import step

    said = Console()
    with step(said, "reading the MLflow store", in_logs=False):  # imports take seconds
        from analysis.commands import explore_command
        from analysis.detectors import local_weights
        from analysis.parts import Options
        from analysis.report import make_report
        from analysis.store import open_store

        options.weight_files = local_weights(options.weight_files)
        store = open_store(
            options.experiment, tracking_uri=options.tracking_uri, data=options.data, spec_version=options.spec_version
        )
    chosen = Options(**{field.name: getattr(options, field.name) for field in dataclasses.fields(Options)})
    if said.is_terminal:
        with said.status("") as status:
            page = make_report(store, options.out, chosen, say=lambda text: status.update(text.strip()))
    else:
        page = make_report(store, options.out, chosen, say=lambda text: print(text.strip(), flush=True))
    said.print(f"the report is in {page}", highlight=False, markup=False, soft_wrap=True)
    said.print(f"a page to click in: {explore_command(options)}", highlight=False, markup=False, soft_wrap=True)
    return OK


def _one_per_core() -> int:
    """As many processes as this one may use cores, at most 8: more than that the rest of a report cannot keep busy."""
    return min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return number


if __name__ == "__main__":
    sys.exit(main())
