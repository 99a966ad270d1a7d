"""What a person sees while a grid runs: bars in a terminal, one line per finished trial in a log file."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TimeElapsedColumn

from grid.foresight import in_hours
from grid.plan import Work
from grid.runner import DONE, FAILED, REPORTED, STARTED, TrialEvent

# What the note of the bar says about a running trial: metric -> form.
_SHOWN = {"epoch": "epoch {:.0f}", "train/loss": "loss {:.3f}", "valid/accuracy": "valid accuracy {:.3f}"}
_BESIDE_NOTE = 20  # columns: "trials", the bar, what parts them, and the slash between two numbers


@contextmanager
def counting(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """Show work before the trials, such as images read or encoded: one bar per item; without a terminal, a line each.

    Yields:
        a function that takes (name of the item, done, total).
    """
    columns = ("{task.description:<34}", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:

        def count(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name)
            bars.update(tasks[name], completed=done, total=total)

        yield count
    if not console.is_terminal:
        for task in bars.tasks:
            console.print(f"{task.description}: {task.completed:.0f}/{task.total:.0f}")


class GridProgress:
    """Follows the events of a grid's trials.

    Args:
        console: the terminal.
        work: the work that is about to start.
        finished: number of the grid's other trials, which need no work.

    Attributes:
        done: keys of the trials that finished.
        failed: key -> error of the trials that failed.
    """

    def __init__(self, console: Console, work: Sequence[Work], *, finished: int) -> None:
        self._console = console
        self._names = {item.key: str(item) for item in work}
        self._before, self._total = finished, finished + len(work)
        self._methods = {item.key: (item.spec.task, item.spec.method, item.fits) for item in work}
        self._running: dict[str, str] = {}
        self._begun: dict[str, float] = {}
        self._seconds: dict[tuple[str, str, bool], list[float]] = {}  # of trials that ended, by what they are
        self._at_once = 1
        self.done: set[str] = set()
        self.failed: dict[str, str] = {}
        columns = ("{task.description}", BarColumn(10), MofNCompleteColumn(), "{task.fields[note]}")
        self._bars = Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
        self._bar = self._bars.add_task("trials", total=self._total, completed=finished, note="starting workers")

    def __enter__(self) -> GridProgress:
        self._bars.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._bars.stop()

    def __call__(self, event: TrialEvent) -> None:
        """Show an event."""
        name = escape(self._names[event.key])
        if event.kind == STARTED:
            self._running.setdefault(event.key, "")
            self._begun.setdefault(event.key, time.monotonic())
            self._at_once = max(self._at_once, len(self._running))
        elif event.kind == REPORTED:
            shown = [form.format(event.metrics[metric]) for metric, form in _SHOWN.items() if metric in event.metrics]
            self._running[event.key] = ", ".join(shown)
        elif event.kind == DONE:
            self._ended(event.key)
            self.done.add(event.key)
            self._line(f"[green]done[/]    {name}")
        elif event.kind == FAILED:
            self._ended(event.key)
            self.failed[event.key] = event.error
            self._line(f"[red]failed[/]  {name}: {escape(event.error)}")
        latest = next((text for text in reversed(self._running.values()) if text), "")
        note = f"{len(self._running)} running, {len(self.failed)} failed, {self._left()} left"
        room = self._console.width - _BESIDE_NOTE - 2 * len(str(self._total))
        self._bars.update(
            self._bar,
            completed=self._before + len(self.done),
            note=f"{note}  {latest}" if len(note) + len(latest) + 2 <= room else note,
        )

    def _line(self, text: str) -> None:
        count = self._before + len(self.done) + len(self.failed)
        self._console.print(f"{count:>3}/{self._total}  {text}", highlight=False)

    def _ended(self, key: str) -> None:
        self._running.pop(key, None)
        if key in self._begun:
            self._seconds.setdefault(self._methods[key], []).append(time.monotonic() - self._begun[key])

    def _left(self) -> str:
        """The time that the rest takes: each trial as long as the mean of its kind, or else of all that ended."""
        if not self._seconds:
            return "unknown time"
        everything = [seconds for of_kind in self._seconds.values() for seconds in of_kind]
        left, longest = 0.0, 0.0
        for key, kind in self._methods.items():
            if key in self.done or key in self.failed:
                continue
            of_kind = self._seconds.get(kind, everything)
            expected = sum(of_kind) / len(of_kind)
            if key in self._running and key in self._begun:
                expected = max(expected - (time.monotonic() - self._begun[key]), 0.0)
            left, longest = left + expected, max(longest, expected)
        return in_hours(max(left / self._at_once, longest))
