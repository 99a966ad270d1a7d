"""Checks one after the other, each in a process of its own with a time limit, and the file that grows with them."""

from __future__ import annotations

import datetime
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gpu.findings import Place, Tell, in_words
from benchmarks.machine import versions
from benchmarks.measure import ROOT

RUNNING, DONE, FAILED, LATE, NOT_BEGUN = "running", "done", "failed", "out of time", "not begun: the time is up"
_LEAST_S = 1.0  # a check is not begun with less time than this
_PATIENCE_S = 5.0  # for a process that has told everything to end


class ChildFailed(RuntimeError):
    """The function of a child failed, or its process died.

    Attributes:
        where: the last lines of the project that the error passed through, innermost last.
    """

    def __init__(self, text: str, where: Sequence[str] = ()) -> None:
        super().__init__(text)
        self.where = list(where)


class Child:
    """A function in a process of its own.

    With "fork" the parent must neither have used CUDA nor computed with threads before.

    Args:
        start: "fork" or "spawn".
        function: of a module; called with the arguments and with `send`, which takes what is to be told.
        arguments: of the function.
        leads: whether all processes that the child starts end with it, and it ends when its parent dies.
    """

    def __init__(self, start: str, function: Callable[..., None], *arguments: Any, leads: bool = False) -> None:
        context: Any = multiprocessing.get_context(start)
        self._leads = leads
        self._receiver, sender = context.Pipe(duplex=False)
        self._process = context.Process(
            target=_work, args=(sender, function, arguments, os.getpid() if leads else None)
        )
        self._process.start()
        sender.close()

    def told(self, ends: float) -> Iterator[Any]:
        """What the function sends, as it comes, until it returns. The process has ended afterwards, however it went.

        Args:
            ends: when to end it, in `time.monotonic`'s seconds.

        Raises:
            ChildFailed: the function raised an error, or the process died.
            TimeoutError: the time is up.
        """
        try:
            while True:
                if not self._receiver.poll(min(0.2, max(0.0, ends - time.monotonic()))):
                    if time.monotonic() >= ends:
                        raise TimeoutError("the time is up")
                    if self._process.is_alive() or self._receiver.poll(0):
                        continue
                    raise self._death()
                try:
                    kind, value = self._receiver.recv()
                except EOFError:
                    self._process.join(_PATIENCE_S)
                    raise self._death() from None
                if kind == DONE:
                    self._process.join(_PATIENCE_S)
                    return
                if kind == FAILED:
                    raise ChildFailed(*value)
                yield value
        finally:
            self.stop()

    def answer(self, ends: float) -> Any:
        """The only thing that the function sends. Raises as `told`."""
        (value,) = self.told(ends)
        return value

    def stop(self) -> None:
        """End the process, and if it leads others, these too."""
        if self._leads:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        if self._process.is_alive():
            self._process.kill()
        self._process.join(_PATIENCE_S)
        self._receiver.close()

    def _death(self) -> ChildFailed:
        return ChildFailed(f"the process died (exit code {self._process.exitcode})")


def _work(sender: Any, function: Callable[..., None], arguments: Sequence[Any], parent: int | None) -> None:
    if parent is not None:
        os.setsid()
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    try:
        function(*arguments, lambda value: sender.send((None, value)))
    except BaseException as error:
        sender.send((FAILED, (in_words(error), _lines(error))))
    else:
        sender.send((DONE, None))


def _end_with(parent: int) -> None:
    """End this process and those that it started as soon as the parent is gone."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os.killpg(os.getpgrp(), signal.SIGKILL)


def _lines(error: BaseException) -> list[str]:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if is_ours(frame.filename)]
    return [f"{Path(frame.filename).relative_to(ROOT)}:{frame.lineno}" for frame in frames][-4:]


def is_ours(file: str) -> bool:
    """Whether a file is of this project's own code."""
    return file.startswith(f"{ROOT}{os.sep}") and "site-packages" not in file


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: as on the command line.
        what: what it shows; one line.
        function: (place, tell); in a process of its own, which has used no GPU yet.
        seconds: after which it is ended.
    """

    name: str
    what: str
    function: Callable[[Place, Tell], None]
    seconds: float


class Record:
    """The file of findings. It is whole at any time: each change is a new file in the place of the old one.

    Args:
        path: of the file.
        place: where the checks run.
        keep: whether checks that the file has stay in it, if they ran in such a place too, until they run again.
    """

    def __init__(self, path: Path, place: Place, *, keep: bool = False) -> None:
        self.path = path
        before = json.loads(path.read_text(encoding="utf-8")) if keep and path.exists() else {}
        alike = before.get("toy") == place.toy and before.get("device") == place.device
        self._content: dict[str, Any] = {
            "toy": place.toy,
            "device": place.device,
            "start": place.start,
            "versions": versions(),
            "checks": before["checks"] if alike else {},
        }
        self.write()

    def put(self, check: Check, **entry: Any) -> None:
        """Set entries of a check, and write the file."""
        self._content["checks"][check.name].update(entry)
        self.write()

    def begin(self, check: Check, state: str) -> None:
        """Put a check into the file, without findings; what it found before is gone."""
        date = datetime.datetime.now(datetime.UTC).date().isoformat()
        self._content["checks"][check.name] = {"what": check.what, "date": date, "findings": [], "state": state}
        self.write()

    def add(self, check: Check, finding: dict[str, Any]) -> None:
        """Add a finding of a check that was put, and write the file."""
        self._content["checks"][check.name]["findings"].append(finding)
        self.write()

    def write(self) -> None:
        """Write the file anew."""
        unfinished = self.path.with_name(f"{self.path.name}.part")
        unfinished.write_text(json.dumps(self._content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        unfinished.replace(self.path)


def run(checks: Sequence[Check], place: Place, record: Record, *, seconds: float) -> bool:
    """Run the checks in order; each finding is in the file as soon as it is told.

    A check that fails, dies or takes too long is recorded with the reason and with what it had told; the next one runs.

    Args:
        checks: in order.
        place: where.
        record: written to.
        seconds: for all of them. What has not begun by then does not begin.

    Returns:
        whether all came to their end.
    """
    ends = time.monotonic() + seconds
    whole = True
    for check in checks:
        left = ends - time.monotonic()
        if left < _LEAST_S:
            record.begin(check, NOT_BEGUN)
            print(f"{check.name}: {NOT_BEGUN}", file=sys.stderr, flush=True)
            whole = False
            continue
        print(f"{check.name}: {check.what}", file=sys.stderr, flush=True)
        record.begin(check, RUNNING)
        started = time.monotonic()
        state, reason = _run_one(check, place, record, started + min(check.seconds, left))
        taken = time.monotonic() - started
        record.put(check, state=state, seconds=round(taken, 1), **reason)
        print(f"  {state}, {taken:.1f} s {reason.get('error', '')}", file=sys.stderr, flush=True)
        whole = whole and state == DONE
    return whole


def _run_one(check: Check, place: Place, record: Record, ends: float) -> tuple[str, dict[str, Any]]:
    """The state in which a check ended, and why, if it failed."""
    try:
        for finding in Child(place.start, check.function, place, leads=True).told(ends):
            entry = finding.to_dict()
            record.add(check, entry)
            judged = {None: "", True: " (as wanted)", False: " (NOT as wanted)"}[entry["met"]]
            print(f"  {entry['name']}: {entry['value']}{judged}", file=sys.stderr, flush=True)
    except TimeoutError:
        return LATE, {}
    except ChildFailed as error:
        return FAILED, {"error": str(error), "where": error.where}
    return DONE, {}
