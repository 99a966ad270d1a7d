"""What goes on, in a line. Imports nothing heavy, so that the line is there while heavy packages are imported."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape


@contextmanager
def step(console: Console, words: str, *, in_logs: bool = True) -> Iterator[None]:
    """Say what goes on during a block: a moving line in a terminal, a line in a log file unless `in_logs` is False."""
    if console.is_terminal:
        with console.status(escape(words)):
            yield
    else:
        if in_logs:
            console.print(words, highlight=False, markup=False)
        yield
