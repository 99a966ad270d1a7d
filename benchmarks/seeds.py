"""How often the value of another seed lies in the prediction interval of one more run, on the demo.

Six seeds of both methods that depend on the seed (`xception_scratch`, `xception_pretrained`, in their small forms) are
trained on each generator by `launch.py`, which keeps them in `runs/benchmark-seeds`: an interrupted benchmark goes on.
Each seed is held out in turn. The others, and three of them, give the prediction intervals of a report; the seed that
was held out gives the values. Width is over that of the interval over photographs of one of these runs alone.

The share inside is higher than .95 by construction: the seed that is held out was tested on the same photographs, and
the interval allows for others.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.cells import CELL, cell_table
from analysis.store import Store, open_store
from benchmarks.measure import ROOT, Measured, Outcome, Target, say
from grid.tasks import DETECTION
from grid.uris import STORE, sqlite_uri

METHODS = ("xception_scratch", "xception_pretrained")
METRICS = ("accuracy", "auroc")
SEEDS = range(6)
INSIDE, WIDTH = 0.9, 3.0
ALONE = "photographs alone"
_WHERE = ["variant", "trained_on", "tested_on", "metric"]


def train(runs: Path, *, toy: bool) -> Store:
    """Six seeds of the demo, or of few images of it and one method."""
    methods = METHODS[:1] if toy else METHODS
    command = [sys.executable, "launch.py", "demo1", "--runs", str(runs), "--tasks", DETECTION, "--device", "cpu"]
    command += ["--methods", ",".join(methods), "--seeds", *map(str, SEEDS)]
    command += ["--cache", str(ROOT / "runs" / "cache")]
    command += ["--local", "--limit", "6", "--generators", "autoencoder,renoise", "--set", "*.epochs=1"] if toy else []
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return open_store("demo1", tracking_uri=sqlite_uri(runs / STORE))


def held_out(store: Store, seed: int, num_others: int) -> pd.DataFrame:
    """The values of a seed beside the intervals of the seeds that follow it: columns of cells, `value`, `alone`."""
    others = [SEEDS[(seed + step) % len(SEEDS)] for step in range(1, num_others + 1)]
    runs = store.runs()

    def cells(seeds: list[int]) -> pd.DataFrame:
        left_out = runs.loc[~runs["seed"].isin(seeds) & (runs["run_id"] != ""), "run_id"]
        table = cell_table(store.without(left_out), metrics=METRICS)
        return table[(table["kind"] == CELL) & (table["task"] == DETECTION)].set_index(_WHERE)

    table, alone, own = cells(others), cells(others[:1]), cells([seed])
    return table.assign(value=own["mean"], low_alone=alone["low"], high_alone=alone["high"]).reset_index()


def run(repeats: int, *, toy: bool = False) -> Outcome:
    """Targets: .9 or more inside, at most 3 times as wide. The seeds take the place of repeats."""
    with tempfile.TemporaryDirectory() as folder:
        store = train(Path(folder) / "runs" if toy else ROOT / "runs" / "benchmark-seeds", toy=toy)
        inside: dict[str, list[float]] = defaultdict(list)
        widths: dict[str, list[float]] = defaultdict(list)
        parts: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for number in (len(SEEDS) - 1, 3):
            for seed in SEEDS:
                table = held_out(store, seed, number)
                is_in = table["value"].between(table["one_more_low"], table["one_more_high"])
                ratio = (table["one_more_high"] - table["one_more_low"]) / (table["high_alone"] - table["low_alone"])
                name = f"{number} other seeds"
                inside[name].append(float(is_in.mean()))
                widths[name].append(float(np.median(ratio)))
                for method, metric in sorted(set(zip(table["variant"], table["metric"], strict=True))):
                    own = (table["variant"] == method) & (table["metric"] == metric)
                    parts[f"inside, {name}"][f"{method}, {metric}, share"].append(float(is_in[own].mean()))
                    parts[f"width, {name}"][f"{method}, {metric}, ratio"].append(float(np.median(ratio[own])))
                if number == 3:
                    in_alone = table["value"].between(table["low_alone"], table["high_alone"])
                    inside[ALONE].append(float(in_alone.mean()))
                say(f"seed {seed} held out, {name}: {inside[name][-1]:.3f} inside, {widths[name][-1]:.2f} as wide")
        num_cells = len(table)
    why = "six seeds, each held out in turn, are one measurement"
    figures = {
        f"inside, {name}": Measured(
            f"share of a seed's values inside the 95 % prediction interval of one more run by {name}"
            if name != ALONE
            else "the same for the interval over photographs of one run",
            "ratio",
            [float(np.mean(shares))],
            None if name == ALONE else Target(INSIDE, at_least=True),
            {part: [float(np.mean(shares))] for part, shares in parts[f"inside, {name}"].items()},
            fewer_because=why,
        )
        for name, shares in inside.items()
    } | {
        f"width, {name}": Measured(
            f"width of that interval by {name} over that of photographs alone, median over cells",
            "ratio",
            [float(np.median(ratios))],
            Target(WIDTH),
            {part: [float(np.median(ratios))] for part, ratios in parts[f"width, {name}"].items()},
            fewer_because=why,
        )
        for name, ratios in widths.items()
    }
    return Outcome(
        f"demo, {', '.join(METHODS[:1] if toy else METHODS)}, six seeds, {num_cells} values of each", figures
    )
