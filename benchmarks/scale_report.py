"""The whole report of 100, 300 and 1,000 runs, with its pictures: seconds, memory, disk, and how fast they grow.

The runs are written by `benchmarks.clones` (minutes, not counted). Each report is a new process, timed from its start
to its end. Beside the reports stands a plain script: it reads the scores of every run once, with pandas, and computes
the accuracy, the AUROC and the average precision of every cell with scikit-learn, without intervals and pictures. And
one cell of 500,000 images: every metric with its interval, beside the values alone by scikit-learn.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.clones import EXPERIMENT, Shape, write
from benchmarks.measure import Measured, Outcome, Target, column, in_new_process, interleave, peak_resident, ratios
from benchmarks.whole_report import make

SHAPES = (Shape(1, 4), Shape(1, 12), Shape(2, 20))
TOY_SHAPES = tuple(Shape(1, seeds, num_methods=1) for seeds in (1, 2, 3))
NUM_IMAGES, NUM_IN_CELL = 15_000, 500_000


def run(repeats: int, *, toy: bool = False) -> Outcome:
    """Targets: 60 s for 100 runs, 5 minutes and 50 MB for 1,000, and 10 s for the cell."""
    shapes = TOY_SHAPES if toy else SHAPES
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stores = write(folder / "grids", shapes, num_images=300 if toy else NUM_IMAGES)

        def report(uri: str) -> dict[str, float]:
            shutil.rmtree(folder / "kept", ignore_errors=True)
            found = make(uri, folder / "kept", folder / "report")
            return found | {"megabytes": _size(folder / "report") / 1e6}

        def plain(uri: str) -> dict[str, float]:
            started = time.perf_counter()
            in_new_process("benchmarks.scale_report", "plain", {"uri": uri})
            return {"seconds": time.perf_counter() - started}

        def cell() -> dict[str, float]:
            arguments = {"num_images": 2_000 if toy else NUM_IN_CELL}
            return dict[str, float](in_new_process("benchmarks.scale_report", "one_cell", arguments))

        sides = {f"report of {size:,}": partial(report, uri) for size, uri in stores.items()}
        sides |= {f"plain of {size:,}": partial(plain, uri) for size, uri in stores.items()}
        found = interleave(repeats, sides | {"cell": cell})
    sizes = list(stores)
    seconds = {size: column(found[f"report of {size:,}"], "seconds") for size in sizes}
    memory = {size: column(found[f"report of {size:,}"], "peak_gb") for size in sizes}
    simple = {size: column(found[f"plain of {size:,}"], "seconds") for size in sizes}
    largest, cells = sizes[-1], found["cell"]
    setup = f"{', '.join(f'{size:,}' for size in sizes)} runs, local store, without Grad-CAM"
    limits = {} if toy else {100: Target(60.0), 1_000: Target(300.0)}
    figures = {
        f"{size:,} runs": Measured(
            f"the whole report of {size:,} runs, with its pictures", "s", seconds[size], limits.get(size),
            {"CPU, s": column(found[f"report of {size:,}"], "cpu"), "plain script, s": simple[size]},
        )
        for size in sizes
    }  # fmt: skip
    figures |= {
        "growth": Measured(
            f"growth of its seconds: exponent over {setup}", "exponent", exponents(seconds),
            parts={"exponent of the plain script": exponents(simple)},
        ),
        "over plain": Measured(
            f"the report of {largest:,} runs over a plain script with pandas and scikit-learn, which reads the scores "
            "once and gives three metrics without intervals or pictures", "ratio",
            ratios(seconds[largest], simple[largest]),
        ),
        "memory": Measured(
            f"peak memory of the largest process of the report of {largest:,} runs", "GB", memory[largest],
            parts={f"{size:,} runs, GB": values for size, values in memory.items()},
        ),
        "memory growth": Measured(f"growth of that memory: exponent over {setup}", "exponent", exponents(memory)),
        "folder": Measured(
            f"folder of the report of {largest:,} runs", "MB", column(found[f"report of {largest:,}"], "megabytes"),
            None if toy else Target(50.0),
        ),
        "cell": Measured(
            f"every metric of a cell of {NUM_IN_CELL:,} images with its interval", "s", column(cells, "seconds"),
            Target(10.0), {"the values alone, by scikit-learn, s": column(cells, "plain")},
        ),
        "cell memory": Measured("peak memory of that process", "GB", column(cells, "peak_gb")),
    }  # fmt: skip
    return Outcome(setup, figures)


def exponents(values: Mapping[int, Sequence[float]]) -> list[float]:
    """Repeat by repeat, the slope of log(value) over log(size): 1 where twice the size takes twice as much."""
    sizes = np.log(list(values))
    return [float(np.polyfit(sizes, np.log(each), 1)[0]) for each in zip(*values.values(), strict=True)]


def plain(uri: str) -> int:
    """The plain script; returns the number of values."""
    from sklearn.metrics import accuracy_score, average_precision_score, roc_auc_score

    from analysis.store import open_store
    from grid.tasks import DETECTION

    store = open_store(EXPERIMENT, tracking_uri=uri)
    runs, values = store.runs(), []
    for run_id in runs.loc[runs["task"] == DETECTION, "run_id"]:
        scores = pd.read_parquet(store.artifact(run_id, "scores.parquet"))
        for generator in scores.loc[scores["label"] == 1, "generator"].unique():
            cell = scores[(scores["label"] == 0) | (scores["generator"] == generator)]
            labels, given = cell["label"].to_numpy(), cell["score"].to_numpy()
            values.append(accuracy_score(labels, given > 0))
            values += [metric(labels, given) for metric in (roc_auc_score, average_precision_score)]
    return len(values)


def one_cell(num_images: int) -> dict[str, float]:
    """Seconds of all metrics with their intervals and of the values alone, and peak memory in GB."""
    from sklearn.metrics import accuracy_score, average_precision_score, roc_auc_score, roc_curve

    from analysis.intervals import Sources, average
    from models.detector import DETECTION_CLASSES
    from models.metrics import metrics_for

    random, numbers = np.random.default_rng(0), np.arange(num_images)
    frame = pd.DataFrame({"source_id": [f"{number // 2:07d}" for number in numbers], "label": numbers % 2})
    frame = frame.assign(generator="lama", score=random.normal(frame["label"], 1.0))
    labels, scores = frame["label"].to_numpy(), frame["score"].to_numpy()
    accuracy_score(labels[:10], scores[:10] > 0)  # imports what it needs
    started = time.perf_counter()
    cell = Sources([frame]).cells(frame, labels, {"lama": np.ones(num_images, dtype=bool)})["lama"]
    for metric in metrics_for(DETECTION_CLASSES):
        average([cell.parts(metric.name)])
        if not metric.ranks:
            average([cell.parts(metric.name, 0.1)])
    seconds = time.perf_counter() - started
    started = time.perf_counter()
    accuracy_score(labels, scores > 0)
    for function in (roc_auc_score, average_precision_score, roc_curve):
        function(labels, scores)
    return {"seconds": seconds, "plain": time.perf_counter() - started, "peak_gb": peak_resident() / 1e9}


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
