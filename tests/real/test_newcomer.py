"""The first hour of a newcomer: commands typed into a terminal of 80 columns, and what its screen shows."""

from __future__ import annotations

import os
import re
import shlex
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pexpect
import psutil
import pyte
import pytest

from tests.grid.grids import write_obvious

ROOT = Path(__file__).resolve().parents[2]
ROWS, COLUMNS = 400, 80
# Seconds of work; of waiting, as many times more as a machine has more to do than cores. On a machine of its own no
# command is silent for 2 seconds; where other tests run, the same work has taken three times as long.
SILENCE = 6.0
LAUNCH = f"{sys.executable} launch.py"
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|\x1b[=>]")
# Lines that are copied as a whole, or end in a path that is, so the terminal breaks them and not the program.
COPIED = ("report:", "the report is in ", "a page to click in:", "MLflow UI:", "error:")


@dataclass
class Session:
    """What a command wrote to a terminal.

    Attributes:
        status: its exit status.
        screen: the terminal's rows at the end.
        lines: every line that was ever finished, without colours.
        errors: what it wrote to standard error.
        silences: (seconds, rows then on the screen) of the pauses in which nothing was written and work was done.
    """

    status: int = -1
    screen: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    errors: str = ""
    silences: list[tuple[float, list[str]]] = field(default_factory=list)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.screen).split())

    def copied(self, heading: str) -> str:
        """The command after a heading, as a person would mark it on the screen: over all the rows that it fills."""
        (start,) = [number for number, row in enumerate(self.screen) if row.startswith(heading)]
        command = self.screen[start].ljust(COLUMNS)
        for row in self.screen[start + 1 :]:
            if command.endswith(" ") or not row.strip():
                break
            command += row.ljust(COLUMNS)
        return command.removeprefix(heading).strip()


Type = Callable[..., Session]


@pytest.fixture
def type_in(tmp_path: Path) -> Type:
    """Runs a command line in a terminal of 80 columns, in the project's folder."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW", "RAY_", "HF_"))}
    environment |= {"TERM": "xterm-256color", "HF_HOME": str(tmp_path / "hf"), "TORCH_HOME": str(tmp_path / "torch")}

    def run(line: str) -> Session:
        screen = pyte.Screen(COLUMNS, ROWS)
        stream = pyte.Stream(screen)
        errors = tmp_path / "stderr"
        child = pexpect.spawn(
            "/bin/bash", ["-c", f"{line} 2>{shlex.quote(str(errors))}"], cwd=str(ROOT), env=environment,
            dimensions=(ROWS, COLUMNS), encoding="utf-8", timeout=240,
        )  # fmt: skip
        session, written, last, worked_before = Session(), "", time.monotonic(), 0.0
        while True:
            try:
                part = child.read_nonblocking(65536, timeout=1)
            except pexpect.TIMEOUT:
                assert time.monotonic() - last < 120, f"{line} hangs:\n" + "\n".join(screen.display)
                continue
            except pexpect.EOF:
                break
            now, cpu = time.monotonic(), worked(child.pid)
            busy = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
            if now - last > SILENCE and (cpu - worked_before > SILENCE or now - last > SILENCE * busy):
                session.silences.append((now - last, [row.rstrip() for row in screen.display if row.strip()][-3:]))
            stream.feed(part)
            written, last, worked_before = written + part, now, cpu
        child.close()
        session.status = child.exitstatus if child.exitstatus is not None else -1
        session.screen = [row.rstrip() for row in screen.display]
        while session.screen and not session.screen[-1]:
            session.screen.pop()
        plain = ESCAPES.sub("", written).replace("\r\n", "\n")
        session.lines = [line.rpartition("\r")[2].rstrip() for line in plain.split("\n")]
        session.errors = errors.read_text()
        return session

    return run


def worked(pid: int) -> float:
    """CPU seconds of a process and of those that it started, as far as they live."""
    seconds = 0.0
    with suppress(psutil.Error):
        for each in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
            with suppress(psutil.Error):
                seconds += sum(each.cpu_times()[:2])
    return seconds


def check(session: Session, *, status: int = 0) -> None:
    """What holds of every command: its exit status, no line over 80 columns, nothing cut, no silence, no errors."""
    assert session.status == status, session.text
    too_long = [line for line in session.lines if len(line) > COLUMNS and not line.startswith(COPIED)]
    assert too_long == []
    assert [line for line in session.lines if re.search(r"\w…", line)] == []
    assert session.silences == []
    assert session.errors == ""


@contextmanager
def served(command: str, address: str, folder: Path) -> Iterator[None]:
    """Run a server as typed, until it answers; afterwards its processes are ended."""
    with (folder / "server.txt").open("w") as log:
        process = psutil.Popen(shlex.split(command), cwd=ROOT, stdout=log, stderr=log)
    try:
        end = time.monotonic() + 120
        while True:
            with suppress(OSError):
                urllib.request.urlopen(address, timeout=2).close()
                break
            assert process.poll() is None, (folder / "server.txt").read_text()
            assert time.monotonic() < end
            time.sleep(0.5)
        yield
    finally:
        for each in [*process.children(recursive=True), process]:
            with suppress(psutil.NoSuchProcess):
                each.kill()
        process.wait(30)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_the_first_hour(type_in: Type, tmp_path: Path, free_port: int) -> None:
    runs = f"--runs {tmp_path / 'r'}"

    # What is there?
    shown = type_in(f"{LAUNCH} --help")
    check(shown)
    assert "exit status: 0 done; 1 some trials failed" in shown.text
    assert "2 bad input" in shown.text
    for command in ("methods", "experiments", "doctor", "fetch-weights"):
        assert re.search(rf"^  {command}  ", "\n".join(shown.screen), re.MULTILINE)
    shown = type_in(f"{LAUNCH} methods")
    check(shown)
    assert (
        "xception_pretrained: xception41.tf_in1k, hub weights: not here; a launch fetches them (about 108 MB)"
        in shown.text
    )
    shown = type_in(f"{LAUNCH} experiments")
    check(shown)
    assert "dolos needs --data DIR" in shown.text
    shown = type_in(f"{LAUNCH} doctor --no-network {runs}")
    check(shown)
    assert f"ok --runs: {tmp_path / 'r'}" in shown.text
    assert "weights of xception_pretrained: xception41.tf_in1k" in shown.text

    # Near misses
    shown = type_in(f"{LAUNCH} xception {runs}")
    check(shown, status=2)
    assert "--methods xception_pretrained,xception_scratch" in "\n".join(shown.lines)
    shown = type_in(f"{LAUNCH} doloss {runs}")
    check(shown, status=2)
    assert "did you mean 'dolos'?" in "\n".join(shown.lines)

    # What would happen?
    shown = type_in(f"{LAUNCH} --plan {runs}")
    check(shown)
    assert "25 trials, 0 finished before, 25 to run" in shown.text
    for name in ("xception_pretrained [tf_efficientnet_lite0, ImageNet (packaged)]", "one seed (0)", "time: not known"):
        assert name in shown.text
    assert not (tmp_path / "r" / "mlflow.db").exists()

    # The smallest grid
    data = write_obvious(tmp_path / "data")
    smallest = f"dolos --data {data} --methods residual_linear --tasks detection --train-on lama --seeds 0"
    shown = type_in(f"{LAUNCH} {smallest} {runs} --num-cpus 1")
    check(shown)
    assert "1/1 done" in shown.text
    report, served_at = shown.copied("report:"), shown.copied("MLflow UI:")
    shown = type_in(f"{LAUNCH} dolos --status {runs}")
    check(shown)
    assert "1 finished of 1" in shown.text
    shown = type_in(f"{LAUNCH} {smallest} {runs} --num-cpus 1")
    check(shown)
    assert "all 1 trials are finished; nothing to run" in shown.text

    # The two next commands, copied from the screen; the folder and the port are a test's own
    shown = type_in(f"{report} --out {tmp_path / 'report'} --no-cam")
    check(shown)
    assert (tmp_path / "report" / "index.html").is_file()
    with served(f"{served_at} --port {free_port}", f"http://127.0.0.1:{free_port}", tmp_path):
        pass


@pytest.fixture
def free_port() -> int:
    """A port of loopback on which nobody listens now."""
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
