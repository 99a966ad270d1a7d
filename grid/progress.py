"""What a person sees while a grid runs: bars in a terminal, one line per finished trial in a log file."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from grid.plan import Work
from grid.runner import DONE, FAILED, REPORTED, STARTED, TrialEvent


@contextmanager
def counting(console: Console) -> Iterator[Counter]:
    """Bars for counted work before the trials: images read, decoded, encoded."""
    columns = (TextColumn("{task.description:<34}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        counter = Counter(console, bars)
        yield counter
    counter.summarise()


class Counter:
    """One bar for each thing that is counted."""

    def __init__(self, console: Console, bars: Progress) -> None:
        self._console, self._bars = console, bars
        self._tasks: dict[str, TaskID] = {}
        self._totals: dict[str, tuple[int, int]] = {}

    def __call__(self, what: str, done: int, total: int) -> None:
        """Show that `done` of `total` are done."""
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what, total=total)
        self._bars.update(self._tasks[what], completed=done, total=total)
        self._totals[what] = (done, total)

    def summarise(self) -> None:
        """Where there is no terminal: one line for each thing, at the end."""
        if not self._console.is_terminal:
            for what, (done, total) in self._totals.items():
                self._console.print(f"{what}: {done}/{total}")


class GridProgress:
    """Follows the events of a grid's trials.

    Args:
        console: where to.
        work: what is about to be done.
        finished: number of the grid's trials for which there is nothing to do.
    """

    def __init__(self, console: Console, work: Sequence[Work], *, finished: int) -> None:
        self._console = console
        self._names = {item.key: str(item) for item in work}
        self._before, self._total = finished, finished + len(work)
        self._running: dict[str, str] = {}
        self._started = time.monotonic()
        self.done: set[str] = set()
        self.failed: dict[str, str] = {}
        columns = (
            TextColumn("{task.description}"),
            BarColumn(20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
        )
        self._bars = Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
        self._bar = self._bars.add_task("trials", total=self._total, completed=finished, note="")

    def __enter__(self) -> GridProgress:
        self._bars.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._bars.stop()

    def __call__(self, event: TrialEvent) -> None:
        """Take an event in."""
        name = escape(self._names[event.key])
        if event.kind == STARTED:
            self._running.setdefault(event.key, "")
        elif event.kind == REPORTED:
            self._running[event.key] = _figures(event.metrics)
        elif event.kind == DONE:
            self._running.pop(event.key, None)
            self.done.add(event.key)
            self._line(f"[green]done[/]    {name}")
        elif event.kind == FAILED:
            self._running.pop(event.key, None)
            self.failed[event.key] = event.error
            self._line(f"[red]failed[/]  {name}: {escape(event.error)}")
        finished = self._before + len(self.done)
        latest = next((figures for figures in reversed(self._running.values()) if figures), "")
        note = f"{len(self._running)} running, {len(self.failed)} failed, {self._left()} left  {latest}"
        self._bars.update(self._bar, completed=finished, note=note)

    def _line(self, text: str) -> None:
        count = self._before + len(self.done) + len(self.failed)
        self._console.print(f"{count:>3}/{self._total}  {text}", highlight=False)

    def _left(self) -> str:
        ended = len(self.done) + len(self.failed)
        if not ended:
            return "unknown time"
        rest = self._total - self._before - ended
        seconds = (time.monotonic() - self._started) / ended * rest
        return f"{seconds // 60:.0f} min {seconds % 60:02.0f} s" if seconds >= 60 else f"{seconds:.0f} s"


def _figures(metrics: dict[str, float]) -> str:
    wanted = {"epoch": "epoch {:.0f}", "train/loss": "loss {:.3f}", "valid/accuracy": "valid accuracy {:.3f}"}
    return ", ".join(form.format(metrics[name]) for name, form in wanted.items() if name in metrics)
