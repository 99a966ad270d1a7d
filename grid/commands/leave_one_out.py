"""Leave one generator out: the grid of an experiment with each generator alone, and with all but one."""

from __future__ import annotations

import argparse

from grid.commands import Context, register_command
from grid.commands.run import add_options as add_run_options
from grid.commands.run import run
from grid.equal_size import SMALLEST
from grid.tasks import DETECTION
from grid.train_sets import ALL_BUT_ONE, EACH

EXPLAINED = f"""
Does a detector that saw several generators carry further to one that it never saw? Each method is trained on every
generator alone (columns "lama", …) and on all generators but one (columns "all but lama", …), and tested on all. The
column "all but lama" in the row "lama" is a generator that was left out; compare it with the other single columns of
that row.

Every training set has the same number of images (--equal-size), so that a difference between two columns comes from the
choice of generators, and not from more images. --all-images trains every set on all of its images instead: more images
and more generators at once, as a detector for use would be trained. Both can be in one report.

It is short for: run EXPERIMENT --tasks {DETECTION} --train-on {EACH},{ALL_BUT_ONE} --equal-size; all options of run
work.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Those of `run`, with other defaults."""
    parser.description = f"{parser.description}\n{EXPLAINED}"
    add_run_options(parser)
    parser.add_argument(
        "--all-images", dest="equal_size", action="store_const", const=None,
        help="train every set on all of its images, instead of on equally many",
    )  # fmt: skip
    parser.set_defaults(tasks=[DETECTION], train_on=f"{EACH},{ALL_BUT_ONE}", equal_size=SMALLEST)


@register_command("leave-one-out", add_options)
def leave_one_out(options: argparse.Namespace, context: Context) -> int:
    """Train on each generator, and on all but one."""
    return run(options, context)
