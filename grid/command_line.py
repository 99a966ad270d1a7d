"""What the command lines of this project share: short errors with near words, lists, the version, the exit statuses."""

from __future__ import annotations

import argparse
import difflib
import json
import logging
import re
import shutil
import sys
import textwrap
import tomllib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from rich.console import Console

STATUSES = """\
exit status: 0 done; 1 some trials failed, or an error that nobody expected;
2 bad input, nothing was started; 130 interrupted: the same command goes on"""
_ROOT = Path(__file__).resolve().parents[1]


# What a line with a command has in it; such a line is copied, so it stays whole.
_COMMANDS = ("python ", "launch.py ", "mlflow ", "pip ", "chmod ")
_UNBROKEN = "\N{NO-BREAK SPACE}"  # no place for `textwrap` to break a line
_fill = partial(textwrap.fill, break_on_hyphens=False, break_long_words=False)
ANALYSIS_COMMANDS = ("explore", "export", "predict", "verify")  # of `python -m analysis`; without one, a report is made


def of_analysis(word: str) -> str:
    """The end of a message about a word that is no command here, and is one of `python -m analysis`."""
    if word in ANALYSIS_COMMANDS:
        return f". `python -m analysis {word}` is the command"
    return ". `python -m analysis` makes the report" if word in ("report", "analysis") else ""


class _Help(argparse.RawDescriptionHelpFormatter):
    """Descriptions of paragraphs and of columns, which two spaces part, in the width of the terminal."""

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        """As of the other lists, which commas part: numbers may be parted by blanks, too."""
        return str(action.metavar) if isinstance(action, Numbers) else super()._format_args(action, default_metavar)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        filled = []
        for paragraph in text.strip("\n").split("\n\n"):
            lines = paragraph.split("\n")
            if any("  " in line or line.startswith("python ") for line in lines):
                for line in lines:
                    columns = list(re.finditer(r"(?<=\S) {2,}(?=\S)", line))
                    hanging = columns[0].end() if columns else 2
                    filled.append(_fill(line, width, subsequent_indent=" " * hanging) if line else "")
            else:
                filled.append(_fill(" ".join(lines), width))
            filled.append("")
        return "\n".join(indent + line for line in "\n".join(filled[:-1]).split("\n"))


class Parser(argparse.ArgumentParser):
    """A parser that names a mistake in one line, with a similar option where there is one."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(formatter_class=_Help, **arguments)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As the base class; words that are left over are an error that suggests an option."""
        found, extra = self.parse_known_args(args, namespace)
        if extra:
            known = [option for action in self._actions for option in action.option_strings]
            near = difflib.get_close_matches(extra[0].partition("=")[0], known, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            self.error(f"unrecognized arguments: {' '.join(extra)}{hint}")
        return found

    def error(self, message: str) -> NoReturn:
        """Print one line and end with status 2."""
        said = f"{self.prog}: error: {message}; {self.prog}{_UNBROKEN}--help lists the options"
        if sys.stderr.isatty():
            said = _fill(said, shutil.get_terminal_size().columns)
        print(said.replace(_UNBROKEN, " "), file=sys.stderr)
        raise SystemExit(2)


def print_error(message: str, console: Console) -> None:
    """Print `error: ` and the message, as `print_wrapped` does."""
    print_wrapped(f"error: {message}", console, first="bold red")


def print_wrapped(text: str, console: Console, *, style: str = "", first: str = "") -> None:
    """Print a text. On a terminal, a line breaks between words, unless it has a command or a long path.

    An option and its value stay on one line. A line that the terminal itself breaks is one line when it is copied.

    Args:
        text: without Rich's marks.
        console: where to.
        style: of the text.
        first: style of the first word.
    """
    from rich.text import Text

    broken = _wrapped(text, console.width) if console.is_terminal else text
    styled = Text(broken, style=style)
    styled.stylize(first, 0, len(text.partition(" ")[0]))
    console.print(styled, highlight=False, soft_wrap=True)


def _wrapped(text: str, width: int) -> str:
    """A text of which each line without a command or a long path is broken between words."""
    lines = []
    for line in text.split("\n"):
        words = line.split()
        if any(command in line for command in _COMMANDS) or max(map(len, words), default=0) > width:
            lines.append(line)
            continue
        parts = re.sub(r"(--[\w-]+) (?=[^-\s])", rf"\1{_UNBROKEN}", line)
        lines.append(_fill(parts, width).replace(_UNBROKEN, " "))
    return "\n".join(lines)


def add_version(parser: argparse.ArgumentParser) -> None:
    """Add `--version`."""
    parser.add_argument("--version", action=_Version, help="print the version and the commit of the code")


class _Version(argparse.Action):
    """Reads the version only where it is asked for."""

    def __init__(self, option_strings: list[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *arguments: Any) -> NoReturn:
        from grid.commit import git_state

        state = git_state()
        commit = "commit not known" if state is None else f"commit {state[0]}{', changed' if state[1] else ''}"
        print(f"inpaint-grid {version()}, {commit}")
        parser.exit()


def version() -> str:
    """The version of this project, from `pyproject.toml`."""
    with (_ROOT / "pyproject.toml").open("rb") as file:
        return str(tomllib.load(file)["project"]["version"])


class Numbers(argparse.Action):
    """Whole numbers, separated by commas or blanks: `--seeds 0,1,2` and `--seeds 0 1 2`."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Store the numbers."""
        words = [word for text in values for word in str(text).split(",")]
        try:
            numbers = [int(word) for word in words]
        except ValueError:
            wrong = " ".join(values)
            raise argparse.ArgumentError(self, f"wants whole numbers, as in 0,1,2; got {wrong!r}") from None
        setattr(namespace, self.dest, numbers)


def completes(action: argparse.Action, words: Callable[[], Sequence[str]]) -> None:
    """Let a shell complete the last of an option's words, which may be separated by commas."""

    def complete(prefix: str, **about: object) -> list[str]:
        before, comma, _ = prefix.rpartition(",")
        return [f"{before}{comma}{word}" for word in words()]

    action.completer = complete  # type: ignore[attr-defined]  # argcomplete reads it


def on_stderr() -> Console:
    """A console on standard error, where log messages go too from here on: standard output is left for JSON."""
    from rich.console import Console
    from rich.logging import RichHandler

    console = Console(stderr=True)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, RichHandler):
            handler.console = console
    return console


def print_json(content: Mapping[str, Any]) -> None:
    """Print to standard output, where nothing else is then printed."""
    print(json.dumps(content, indent=1))
