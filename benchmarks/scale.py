"""What a large grid costs: each part is a module with a `run` of its own, and its figures stand here under its name."""

from __future__ import annotations

import importlib

from benchmarks.measure import Measured, Outcome

PARTS = {"report": "benchmarks.scale_report"}  # name -> module


def run(repeats: int, *, toy: bool = False) -> Outcome:
    """Every part after the other; the targets are those of the parts."""
    setups, figures = list[str](), dict[str, Measured]()
    for name, module in PARTS.items():
        outcome: Outcome = importlib.import_module(module).run(repeats, toy=toy)
        setups.append(f"{name}: {outcome.setup}")
        figures |= {f"{name}: {key}": figure for key, figure in outcome.figures.items()}
    return Outcome("; ".join(setups), figures)
