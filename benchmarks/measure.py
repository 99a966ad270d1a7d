"""What a benchmark hands over, and what all of them measure with. Needs nothing but the standard library."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[1]
MIN_REPEATS = 5
_DIGITS = 4  # significant ones that are kept: more is noise


class NotHereError(RuntimeError):
    """The machine at hand cannot run the benchmark; the message says what it lacks."""


@dataclass(frozen=True)
class Target:
    """What the median should be: `limit` or more with `at_least`, else `limit` or less."""

    limit: float
    at_least: bool = False

    def is_met(self, value: float) -> bool:
        """Whether a median is on the right side, or on the line."""
        return value >= self.limit if self.at_least else value <= self.limit

    def to_dict(self) -> dict[str, float]:
        """{"at_least": limit} or {"at_most": limit}."""
        return {"at_least" if self.at_least else "at_most": self.limit}


@dataclass(frozen=True)
class Measured:
    """One measured quantity.

    Attributes:
        what: one line, with the sizes it was measured at.
        unit: "ratio", "s", "ms", "GB", "images/s", "core-s", "GFLOP".
        values: one per repeat.
        target: bound of the median; None: the quantity is there for information.
        parts: what the quantity is made of, such as the two sides of a ratio; one value per repeat, in the unit in the
            part's name.
        fewer_because: why fewer repeats than usual are enough; else empty.
    """

    what: str
    unit: str
    values: Sequence[float]
    target: Target | None = None
    parts: Mapping[str, Sequence[float]] = field(default_factory=dict)
    fewer_because: str = ""

    def to_dict(self, *, fewer_because: str = "") -> dict[str, Any]:
        """As plain JSON types, with median and range, and whether the target is met; the reason where one is due.

        The figure's own reason for fewer repeats goes before the one given.
        """
        spread = _spread(self.values)
        return {
            "what": self.what,
            "unit": self.unit,
            **spread,
            "repeats": len(self.values),
            "fewer_because": (self.fewer_because or fewer_because) if len(self.values) < MIN_REPEATS else "",
            "target": self.target.to_dict() if self.target else None,
            "met": self.target.is_met(spread["median"]) if self.target else None,
            "values": [_rounded(value) for value in self.values],
            "parts": {name: _spread(values) for name, values in self.parts.items()},
        }


@dataclass(frozen=True)
class Outcome:
    """What a benchmark found: how it was set up, in words, and its figures by name."""

    setup: str
    figures: Mapping[str, Measured]


def _spread(values: Sequence[float]) -> dict[str, float]:
    rounded = [_rounded(value) for value in values]
    return {"median": _rounded(median(rounded)), "min": min(rounded), "max": max(rounded)}


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def say(text: str) -> None:
    """A line for whoever waits."""
    print(f"  {text}", file=sys.stderr, flush=True)


def timed(work: Callable[[], object]) -> float:
    """Seconds of wall clock."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


class _Clock:
    """When to begin no further repeat, in `time.monotonic`'s seconds."""

    ends = float("inf")


def stop_after(minutes: float) -> None:
    """Begin no further repeat of anything after so many minutes from now; one repeat there is in any case."""
    _Clock.ends = time.monotonic() + 60 * minutes


def time_is_up() -> bool:
    """Whether no further repeat should begin."""
    return time.monotonic() >= _Clock.ends


def interleave(repeats: int, sides: Mapping[str, Callable[[], T]]) -> dict[str, list[T]]:
    """What each side returns, once a repeat, one after the other, in the reverse order every other time.

    So whatever else the machine does meanwhile disturbs all sides alike.
    """
    found: dict[str, list[T]] = {name: [] for name in sides}
    for repeat in range(repeats):
        if repeat and time_is_up():
            break
        for name in list(sides) if repeat % 2 == 0 else reversed(list(sides)):
            found[name].append(sides[name]())
            value = found[name][-1]
            shown = f"{value:.3g}" if isinstance(value, float) else ""
            say(f"repeat {repeat + 1} of {repeats}: {name} {shown}")
    return found


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Repeat by repeat."""
    return [a / b for a, b in zip(above, below, strict=True)]


def column(found: Sequence[Mapping[str, float]], what: str) -> list[float]:
    """The value of this name of each repeat, for a side that returns several."""
    return [one[what] for one in found]


def in_new_process(module: str, function: str, arguments: Mapping[str, Any], *, threads: int = 0) -> Any:
    """`module.function(**arguments)` in a Python of its own; arguments and result travel as JSON.

    Args:
        module: full name.
        function: of the module.
        arguments: plain JSON types.
        threads: of numerical libraries; 0: their own choice.

    Raises:
        RuntimeError: it failed; the message has the end of what it printed.
    """
    code = (
        "import importlib, json, sys; "
        "found = getattr(importlib.import_module(sys.argv[1]), sys.argv[2])(**json.loads(sys.argv[3])); "
        "print('FOUND' + json.dumps(found))"
    )
    environment = dict(os.environ) | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    command = [sys.executable, "-c", code, module, function, json.dumps(arguments)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, encoding="utf-8", errors="replace")
    if done.returncode:
        raise RuntimeError(f"{module}.{function} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.rpartition("FOUND")[2])


def peak_resident() -> float:
    """The most memory that this process has held at once since it began, in bytes.

    From the kernel's own high-water mark where there is one: `getrusage` counts what the parent held when it forked.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return _status_bytes(status.read_text(encoding="utf-8"), "VmHWM")
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))


class AnonymousPeak:
    """Watches, in a thread, the resident memory that is the process's own: without files that are mapped into it.

    The kernel keeps no high-water mark of it, so it is looked at every few milliseconds. Use it in a `with` block.
    """

    def __init__(self, *, every: float = 0.01) -> None:
        self.bytes = 0.0
        self._every = every
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> AnonymousPeak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @staticmethod
    def now() -> float:
        """What it is at this moment; 0 where the system does not say."""
        status = Path("/proc/self/status")
        return _status_bytes(status.read_text(encoding="utf-8"), "RssAnon") if status.exists() else 0.0

    def _watch(self) -> None:
        while not self._over.wait(self._every):
            self.bytes = max(self.bytes, self.now())


def _status_bytes(status: str, name: str) -> float:
    return next(float(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(f"{name}:"))
