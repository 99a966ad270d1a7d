"""The commands of `launch.py`, one file per command.

`python launch.py NAME …` runs a command, and `python launch.py EXPERIMENT …` is short for `run EXPERIMENT …`; so no
command has the name of an experiment.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from data.register import Register

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

OK, SOME_FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


class BadInputError(Exception):
    """A mistake in what the user gave; the message says how to mend it."""


def print_any_text() -> None:
    """Let this process print every name, as an escape where the terminal's encoding lacks a letter of it."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


@dataclass(frozen=True)
class Context:
    """What `launch.py` gives to a command.

    Attributes:
        console: the terminal.
        show_results: (tracking URI, MLflow experiment, digest of the data, keys of trials, cache) -> prints their
            tables, and the commands that come next.
    """

    console: Console
    show_results: Callable[[str, str, str, Collection[str], Path], None]


@dataclass(frozen=True)
class Command:
    """A command of `launch.py`.

    Attributes:
        name: as on the command line.
        add_options: adds the command's options to a parser.
        run: runs the command; returns the exit status: 0, 1 some trials failed, 2 bad input, 130 interrupted.
        summary: one line for `--help`.
        statuses: what each exit status means, for `--help`; "": as of most commands.
    """

    name: str
    add_options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace, Context], int]
    summary: str
    statuses: str = ""


_commands: Register[Command] = Register("command", __name__)


def register_command(
    name: str, add_options: Callable[[argparse.ArgumentParser], None], *, statuses: str = ""
) -> Callable[[Callable[[argparse.Namespace, Context], int]], Callable[[argparse.Namespace, Context], int]]:
    """Register the decorated function under `name`; its docstring's first line becomes the summary.

    The arguments are fields of `Command`.

    Raises:
        ValueError: the name is taken.
    """

    def decorate(run: Callable[[argparse.Namespace, Context], int]) -> Callable[[argparse.Namespace, Context], int]:
        summary = (run.__doc__ or "").strip().partition("\n")[0]
        _commands.add(name, Command(name, add_options, run, summary, statuses))
        return run

    return decorate


def list_commands() -> list[str]:
    """Names of all commands, in alphabetical order."""
    return _commands.names()


def get_command(name: str) -> Command:
    """Look a command up. Raises `KeyError`, which lists all commands."""
    return _commands.get(name)
