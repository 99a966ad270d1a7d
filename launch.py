#!/usr/bin/env python
"""Run, plan or follow an experiment grid.

python launch.py                        the built-in demo, nothing needed
python launch.py dolos --data DIR       the published experiment on the Dolos data set
python launch.py folders --data DIR     the same on <generator>/0_real, <generator>/1_fake
"""

from __future__ import annotations

import argparse
import logging
import shlex
import signal
import sys
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from data.addresses import without_passwords
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
    commands = list_commands()
    if twice := set(commands) & set(list_experiments()):
        raise BadInputError(
            f"a command and an experiment are both named {', '.join(sorted(twice))}; rename one of them"
        )
    named = bool(words) and words[0] in commands
    name = words.pop(0) if named else RUN
    command = get_command(name)
    parser = argparse.ArgumentParser(
        prog=f"launch.py {name}", description=command.summary, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if not named:
        listed = "".join(f"  {title:<14} {get_command(title).summary}\n" for title in commands)
        parser.prog, parser.description = "launch.py", __doc__
        parser.epilog = f"commands (python launch.py COMMAND --help):\n{listed}"
    command.add_options(parser)
    parser.add_argument("--verbose", action="store_true", help="log what the parts do; full tracebacks")
    return argparse.Namespace(**vars(parser.parse_args(words)), command=name)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit status: 0, 1 some trials failed or an error that nobody expected, 2 bad input,
    130 interrupted.
    """
    print_any_text()
    try:
        options = parse_arguments(arguments)
    except BadInputError as error:
        print(error, file=sys.stderr)
        return BAD_INPUT
    from rich.console import Console
    from rich.logging import RichHandler
    from rich.markup import escape

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
        console.print(f"[bold red]error:[/] {escape(message)}", highlight=False, soft_wrap=True)
        return BAD_INPUT if foreseen else SOME_FAILED
    except KeyboardInterrupt:
        console.print("\ninterrupted; the same command goes on from here")
        return INTERRUPTED


def show_results(console: Console, uri: str, experiment: str, data: str, keys: Collection[str]) -> None:
    """Print the tables of the finished trials among these, and the address of the MLflow UI."""
    from analysis.controls import beside_references, methods_alone
    from analysis.store import open_store
    from analysis.text import print_controls, print_results

    store = open_store(experiment, tracking_uri=uri, data=data, unfinished=True)
    methods, beside = methods_alone(store), beside_references(store)
    results = methods.results()
    print_results(results[results["key"].isin(set(keys))], console, methods, beside)
    print_controls(store, beside, keys, console)
    mlflow = Path(sys.executable).with_name("mlflow")
    shown = without_passwords(uri)
    if not uri.startswith("http"):
        shown = shlex.join([str(mlflow), "ui", "--backend-store-uri", shown])
    console.print(f"\nMLflow UI:  {shown}", highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
