#!/usr/bin/env python
# PYTHON_ARGCOMPLETE_OK
"""Run, plan or follow an experiment grid.

python launch.py                      the built-in demo, nothing needed
python launch.py dolos --data DIR     the published experiment, on Dolos
python launch.py folders --data DIR   the same on <name>/0_real, <name>/1_fake
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from data.addresses import without_passwords
from grid.command_line import STATUSES, Parser, add_version, print_error
from grid.commands import (
    BAD_INPUT,
    INTERRUPTED,
    SOME_FAILED,
    BadInputError,
    Context,
    get_command,
    list_commands,
    print_any_text,
)
from grid.experiments import list_experiments
from grid.faults import keep_traceback

if TYPE_CHECKING:
    from rich.console import Console

RUN = "run"  # the command if the first word is no command


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; see `--help`. The command's name is in `command`.

    Raises:
        BadInputError: a command and an experiment have the same name.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if "_ARGCOMPLETE" in os.environ:  # a shell asks for completions; the line so far is in COMP_LINE
        line = os.environ.get("COMP_LINE", "").split()
        words = line[[Path(word).name for word in line].index(Path(__file__).name) + 1 :]
    commands = list_commands()
    if twice := set(commands) & set(list_experiments()):
        raise BadInputError(
            f"a command and an experiment are both named {', '.join(sorted(twice))}; rename one of them"
        )
    named = bool(words) and words[0] in commands
    name = words.pop(0) if named else RUN
    command = get_command(name)
    parser = Parser(prog=f"launch.py {name}", description=command.summary, epilog=command.statuses or STATUSES)
    if not named:
        listed = "".join(f"  {title:<14}  {get_command(title).summary}\n" for title in commands)
        parser.prog, parser.description = "launch.py", __doc__
        parser.epilog = f"commands (python launch.py COMMAND --help):\n{listed}\n{STATUSES}"
        add_version(parser)
    command.add_options(parser)
    parser.add_argument("--verbose", action="store_true", help="log what the parts do; full tracebacks")
    if "_ARGCOMPLETE" in os.environ:
        import argcomplete

        argcomplete.autocomplete(parser)
    parsed = parser.parse_args(words)
    as_yaml = ""
    if "config" in vars(parsed):  # a launch
        from grid.launch_file import as_file, words_of

        if parsed.config is not None:
            given = parsed.experiment != parser.get_default("experiment")
            parsed = parser.parse_args([*words_of(parsed.config, parser, named=given), *words])
        as_yaml = as_file(parsed, parser, command="" if name == RUN else name)
    return argparse.Namespace(**vars(parsed), command=name, as_yaml=as_yaml)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit status: 0, 1 some trials failed or an error that nobody expected, 2 bad input,
    130 interrupted.
    """
    print_any_text()
    try:
        options = parse_arguments(arguments)
    except BadInputError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    from rich.console import Console
    from rich.logging import RichHandler

    console = Console(width=None if sys.stdout.isatty() else 120)
    level = logging.INFO if options.verbose else logging.WARNING
    logging.basicConfig(level=level, format="%(message)s", handlers=[RichHandler(console=console, show_path=False)])
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell starts with SIGINT ignored
    signal.signal(signal.SIGTERM, lambda number, frame: signal.raise_signal(signal.SIGINT))

    try:
        return get_command(options.command).run(options, Context(console, partial(show_results, console)))
    except Exception as error:
        foreseen = isinstance(error, BadInputError)
        message = without_passwords(str(error)) if foreseen else keep_traceback(error)
        if options.verbose:
            console.print_exception()
        print_error(message, console)
        return BAD_INPUT if foreseen else SOME_FAILED
    except KeyboardInterrupt:
        console.print("\ninterrupted; the same command goes on from here")
        return INTERRUPTED


def show_results(console: Console, uri: str, experiment: str, data: str, keys: Collection[str], cache: Path) -> None:
    """Print the tables of the finished trials among these, and the commands for the report and the MLflow UI."""
    from grid.garbage import no_search_for_garbage
    from grid.steps import step

    with no_search_for_garbage(), step(console, "reading the results"):
        from analysis.commands import next_commands
        from analysis.controls import beside_references, methods_alone
        from analysis.store import open_store
        from analysis.text import PRINTED, print_controls, print_results

        store = open_store(experiment, tracking_uri=uri, data=data, unfinished=True)
        methods, beside = methods_alone(store), beside_references(store)
        results = methods.results(binary_metrics=PRINTED)
    asked = results["key"].isin(set(keys))
    print_results(results if asked.all() else results[asked], console, methods, beside)
    print_controls(store, beside, keys, console)
    for what, command in next_commands(uri, experiment, cache).items():
        console.print(f"{what:<10} {command}", highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
