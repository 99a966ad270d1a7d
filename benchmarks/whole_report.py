"""Seconds of the whole report, with its pictures: made for the first time, and again when nothing has changed.

The grid is the built-in demo's, 25 trials. It is finished because records like those of finished trials were written.
Such trials leave no detector behind, so Grad-CAM is left out. Every report is a new process, timed from its start to
its end. Before each first report, what was kept of the last one is deleted.
"""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.finished import finished_demo
from benchmarks.measure import ROOT, Measured, Outcome, Target, column, interleave


def run(repeats: int, *, toy: bool = False) -> Outcome:
    """Targets: 15 s for the first report, 8 s for the second."""
    with tempfile.TemporaryDirectory() as name:
        settings, _, trials = finished_demo(Path(name), toy=toy)
        cache, out = Path(name) / "kept", Path(name) / "report"

        def first() -> dict[str, float]:
            shutil.rmtree(cache, ignore_errors=True)
            return make(settings.tracking_uri, cache, out)

        found = interleave(repeats, {"first": first, "second": lambda: make(settings.tracking_uri, cache, out)})
        page = (out / "index.html").stat().st_size / 1e6
    setup = f"demo grid of {len(trials)} finished trials, without Grad-CAM, local store"
    figures = {
        side: Measured(
            what, "s", column(found[side], "seconds"), Target(target), {"CPU, s": column(found[side], "cpu")}
        )
        for side, what, target in (
            ("first", f"the report with its pictures ({setup})", 15.0),
            ("second", "the same again, nothing changed", 8.0),
        )
    }
    return Outcome(setup, {**figures, "page": Measured("its page, without pictures", "MB", [page] * repeats)})


def make(uri: str, cache: Path, out: Path) -> dict[str, float]:
    """Make the report in a new process.

    Returns:
        seconds, processor seconds, and the most memory of one of its processes in GB.

    Raises:
        RuntimeError: it fails.
    """
    command = [sys.executable, "-m", "analysis", f"--tracking-uri={uri}", f"--cache={cache}", f"--out={out}"]
    before, started = _processor_seconds(), time.perf_counter()
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
        process = subprocess.Popen([*command, "--no-cam", "--no-log"], cwd=ROOT, stdout=said, stderr=said)
        peak = 0.0
        while process.poll() is None:
            peak = max(peak, _largest(process.pid))
            time.sleep(0.05)
        seconds = time.perf_counter() - started
        if process.returncode:
            said.seek(0)
            raise RuntimeError(f"the report failed:\n{said.read()[-4000:]}")
    return {"seconds": seconds, "cpu": _processor_seconds() - before, "peak_gb": peak / 1e9}


def _largest(pid: int) -> float:
    """Resident bytes of the largest of a process and those that it started."""
    try:
        process = psutil.Process(pid)
        return max(float(each.memory_info().rss) for each in (process, *process.children(recursive=True)))
    except psutil.Error:  # it has ended meanwhile
        return 0.0


def _processor_seconds() -> float:
    """Of all processes that were started here and have ended, and of those that they started."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    for figure in run(3).figures.values():
        print(f"{figure.what}: {sorted(figure.values)} {figure.unit}, {figure.parts}")
