"""Which launch has a grid: what launches write into MLflow for each other, and whether one is still alive."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grid import names

if TYPE_CHECKING:
    from mlflow.entities import Run

ENDED = "ended"


@dataclass(frozen=True)
class Launch:
    """A launch of a grid, as MLflow has it.

    Attributes:
        number: from 1; 0: the grid was never launched.
        entry: facts about its process: user, host, pid, since, machine, started; empty if they cannot be read.
        sign: its newest sign of life, as text: another one each time; "": none yet; "ended".
    """

    number: int
    entry: dict[str, Any] = field(default_factory=dict)
    sign: str = ""

    @property
    def who(self) -> str:
        """Its user, machine, process and time, in words."""
        facts = {name: self.entry.get(name, "?") for name in ("user", "host", "pid", "since")}
        return f"{facts['user']} on {facts['host']} (process {facts['pid']}) since {facts['since']}"

    @property
    def has_ended(self) -> bool:
        """Whether it has ended, or has never been."""
        return self.number == 0 or self.sign == ENDED

    @property
    def is_here(self) -> bool:
        """Whether its process can be seen from this one."""
        return self.entry.get("machine") == machine()

    @property
    def is_gone(self) -> bool:
        """Whether it is certain that nobody runs the grid; a launch on another machine can only be watched."""
        if self.has_ended:
            return True
        return self.is_here and process_start(self.entry.get("pid")) != self.entry.get("started")


def newest_launch(run: Run) -> Launch:
    """The newest launch of a grid, from the grid's parent run."""
    number = sum(name.startswith(names.LAUNCH) for name in run.data.params)
    entry = None
    with suppress(ValueError):
        entry = json.loads(run.data.params.get(f"{names.LAUNCH}{number}", "{}"))
    beating, _, sign = run.data.tags.get(names.HEARTBEAT, "").partition(" ")
    # until its first sign of life, the tag has the one of the launch before it
    return Launch(number, entry if isinstance(entry, dict) else {}, sign if beating == str(number) else "")


def still_alive(
    launch: Launch, look: Callable[[], Launch], *, patience: float, wait: Callable[[float], object], step: float
) -> bool:
    """Whether a launch on another machine gives a sign of life while this process watches.

    No two clocks are compared: what counts is whether the sign changes within some seconds of this process' own.

    Args:
        launch: as it was seen first.
        look: reads the newest launch again.
        patience: seconds after which a launch without a new sign counts as dead.
        wait: sleeps for some seconds.
        step: seconds between two looks.
    """
    for _ in range(max(1, round(patience / step))):
        wait(step)
        now = look()
        if now.has_ended:
            return False
        if (now.number, now.sign) != (launch.number, launch.sign):
            return True
    return False


def machine() -> str:
    """The same text for two processes that see each other's process ids, and for no others."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    return f"{socket.gethostname()} {boot} {Path('/proc/self/ns/pid').readlink()}"


def process_start(pid: object) -> int | None:
    """When a process was started, in ticks since the machine's start, which no change of a clock moves.

    None if there is no such process. One that was killed and that its parent has not asked about (a zombie) is none.
    """
    with suppress(OSError, ValueError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return None if fields[0] in "ZX" else int(fields[19])
    return None
