"""Seconds of the command line when there is nothing to run: the second launch of a finished grid, its plan, its help.

The grid is the built-in demo's, 25 trials, with all its images drawn and read once. It is finished because records
like those of finished trials were written; the launcher cannot tell. Every launch is a new process.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.finished import finished_demo
from benchmarks.measure import ROOT, Measured, Outcome, Target, interleave, timed


def run(repeats: int, *, toy: bool = False) -> Outcome:
    """Targets: 10 s for the launch, 3 s for the plan, 0.5 s for the help."""
    with tempfile.TemporaryDirectory() as name:
        settings, manifest, trials = finished_demo(Path(name), toy=toy)
        methods = dict.fromkeys(trial.method for trial in trials)
        chosen = ["demo1", f"--data={manifest.root}", f"--runs={settings.runs}", f"--methods={','.join(methods)}"]
        launch(chosen)  # the manifest of the launcher's own cache

        found = interleave(
            repeats,
            {
                "launch": lambda: timed(lambda: _expect("nothing to run", launch(chosen))),
                "plan": lambda: timed(lambda: _expect("0 to run", launch([*chosen, "--plan"]))),
                "help": lambda: timed(lambda: _expect("usage", launch(["--help"]))),
            },
        )
    setup = f"demo grid of {len(trials)} finished trials on {len(manifest.table)} images, local store"
    return Outcome(
        setup,
        {
            "launch": Measured(f"second launch of a finished grid ({setup})", "s", found["launch"], Target(10.0)),
            "plan": Measured("`launch.py --plan` of the same", "s", found["plan"], Target(3.0)),
            "help": Measured("`launch.py --help`", "s", found["help"], Target(0.5)),
        },
    )


def launch(options: Sequence[str]) -> str:
    """What `launch.py` prints. Raises `RuntimeError` where it fails."""
    command = [sys.executable, "launch.py", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", errors="replace")
    if done.returncode:
        raise RuntimeError(f"launch.py failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def _expect(words: str, output: str) -> None:
    if words not in output:
        raise RuntimeError(f"expected {words!r} of launch.py, got:\n{output[-2000:]}")
