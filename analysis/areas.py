"""Values by how large the edited area of the fakes is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from analysis.cells import CELL
from analysis.intervals import Part, Sources, average, mean
from analysis.store import Store
from grid.means import CROSS_GENERATOR, IN_DOMAIN
from grid.tasks import DETECTION, get_task
from grid.train_sets import TrainSet
from models.detector import DETECTION_CLASSES

THIRDS = ("smallest third", "middle third", "largest third")
COLUMNS = [
    "kind",
    "trained_on",
    "tested_on",
    "metric",
    "third",
    "area_from",
    "area_to",
    "num_fakes",
    "mean",
    "low",
    "high",
]


def area_table(
    store: Store, run_ids: Sequence[str], areas: Mapping[str, float], metrics: Sequence[str]
) -> pd.DataFrame:
    """Every cell by terciles of the edited area of its fakes, on clean pictures.

    The terciles are those of the generator's test fakes; fakes with equal areas stay together, so a third may be
    larger than the others, or empty. Each third has all the real images of the cell.

    Args:
        store: the grid.
        run_ids: finished detection runs of one variant.
        areas: digest of a fake's file -> share of its mask that is fake. Fakes that are not in it are left out.
        metrics: names of metrics with intervals, without the suffix for the validation threshold.

    Returns:
        columns `COLUMNS`: one row per cell, metric and third, and rows of the kinds "in-domain mean" and
        "cross-generator mean" over the cells that have the third. `low` and `high` are 95 % intervals over source
        photographs of the mean over seeds.

    Raises:
        StoreError: scores are missing or cannot be read.
    """
    runs = store.runs().set_index("run_id")
    columns = ["digest", "source_id", "generator", "label", "score"]
    task, sources = get_task(DETECTION), None
    parts: dict[tuple[str, str, str, str], list[list[Part]]] = {}
    facts: dict[tuple[str, str], tuple[float, float, int]] = {}
    for run_id in run_ids:
        scores = store.scores(run_id, columns=columns)
        sources = Sources([scores]) if sources is None else sources
        area = scores["digest"].map(areas).to_numpy(float)
        for tested_on, cell in task.cells(scores, DETECTION_CLASSES).items():
            fakes = cell & (scores["label"] == 1).to_numpy() & np.isfinite(area)
            reals = cell & (scores["label"] == 0).to_numpy()
            for third, chosen in thirds(area, fakes).items():
                facts[tested_on, third] = (float(area[chosen].min()), float(area[chosen].max()), int(chosen.sum()))
                images = sources.cell(scores[chosen | reals])
                for metric in metrics:
                    where = (str(runs.loc[run_id, "trained_on"]), tested_on, metric, third)
                    parts.setdefault(where, []).append(images.parts(metric))
    estimates = {where: average(of_seeds) for where, of_seeds in parts.items()}
    rows: list[list[object]] = []
    for (trained_on, tested_on, metric, third), estimate in estimates.items():
        values = [*facts[tested_on, third], estimate.value, *estimate.interval]
        rows.append([CELL, trained_on, tested_on, metric, third, *values])
    for metric in metrics:
        for third in THIRDS:
            for kind, in_domain in ((IN_DOMAIN, True), (CROSS_GENERATOR, False)):
                chosen_cells = [
                    (where, estimate)
                    for where, estimate in estimates.items()
                    if where[2:] == (metric, third) and (where[1] in TrainSet.parse(where[0])) == in_domain
                ]
                if chosen_cells:
                    known = [facts[where[1], third] for where, _ in chosen_cells]
                    over = mean([estimate for _, estimate in chosen_cells])
                    spread = [min(f[0] for f in known), max(f[1] for f in known), sum(f[2] for f in known)]
                    rows.append([kind, "", "", metric, third, *spread, over.value, *over.interval])
    return pd.DataFrame(rows, columns=COLUMNS)


def thirds(area: np.ndarray, fakes: np.ndarray) -> dict[str, np.ndarray]:
    """Third -> which rows, bool (N,), of those thirds that have a fake.

    Args:
        area: float (N,), the share of each fake's mask.
        fakes: bool (N,), the rows to split.
    """
    if not fakes.any():
        return {}
    low, high = np.quantile(area[fakes], [1 / 3, 2 / 3])
    split = {THIRDS[0]: area <= low, THIRDS[1]: (area > low) & (area <= high), THIRDS[2]: area > high}
    return {third: chosen & fakes for third, chosen in split.items() if (chosen & fakes).any()}
