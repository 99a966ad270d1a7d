"""Detectors' own maps beside the masks, as trials measured them: every cell with its interval, and by edited area.

A trial keeps one row of numbers per test fake (`grid.localisation`), so nothing here needs pictures or models. Numbers
are averaged over the seeds picture by picture. Intervals are over source photographs, for these detectors as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.areas import thirds
from analysis.cells import CELL
from analysis.intervals import Estimate, Part, mean
from analysis.store import Store
from grid.localisation import MEAN_MASK, SHUFFLED
from grid.means import CROSS_GENERATOR, IN_DOMAIN
from grid.train_sets import TrainSet
from models.localisation import BY_VALIDATION, FIXED, ORACLE, chance, metric_names

METRICS = ("iou_fixed", "iou_valid", "iou_oracle", "f1_fixed", "f1_valid", "f1_oracle", "ap", "auroc")
IN_WORDS = {
    "iou_fixed": "IoU at log-odds 0",
    "iou_valid": "IoU at the threshold from validation",
    "iou_oracle": "IoU at the oracle's threshold, the best on these test fakes",
    "f1_fixed": "F1 at log-odds 0",
    "f1_valid": "F1 at the threshold from validation",
    "f1_oracle": "F1 at the oracle's threshold, the best on these test fakes",
    "ap": "average precision over pixels",
    "auroc": "AUROC over pixels",
}
AREA_METRICS = ("iou_fixed", "iou_valid", "ap")
BESIDE = ("chance", MEAN_MASK, SHUFFLED)
COLUMNS = [
    "kind", "variant", "trained_on", "tested_on", "metric", "mean", "low", "high", *BESIDE, "flat", "num_images",
    "num_seeds",
]  # fmt: skip
AREA_BESIDE = ("chance", MEAN_MASK)  # other pictures' masks are of all areas
AREA_COLUMNS = [
    "kind", "variant", "trained_on", "tested_on", "metric", "third", "area_from", "area_to", "num_fakes", "mean", "low",
    "high", *AREA_BESIDE,
]  # fmt: skip
assert {*METRICS} == {*IN_WORDS} == {*metric_names([FIXED, BY_VALIDATION, ORACLE])}


@dataclass(frozen=True)
class MapCell:
    """The test fakes of a generator, with the maps of the detectors of one training set.

    Attributes:
        images: one row per fake: path, source_id, area, flat, and the numbers of `grid.localisation.Localised`, all of
            them means over the seeds.
        num_seeds: how many detectors.
    """

    images: pd.DataFrame
    num_seeds: int

    def metrics(self) -> list[str]:
        """Those that were measured; a trial without fakes has no threshold from validation."""
        return [name for name in METRICS if name in self.images.columns]

    def estimate(self, metric: str, photographs: pd.Index) -> Estimate:
        """The mean over the fakes, with its interval over source photographs."""
        values = self.images[metric].to_numpy(float)
        units = photographs.get_indexer(pd.Index(self.images["source_id"]))
        influence = np.bincount(units, (values - values.mean()) / len(values), minlength=len(photographs))
        return Part(1.0, float(values.mean()), influence, len(np.unique(units)), None).estimate()

    def beside(self, metric: str) -> dict[str, float]:
        """Chance, the mean mask and shuffled masks; NaN where there is none."""
        columns = {prefix: f"{prefix}_{metric}" for prefix in (MEAN_MASK, SHUFFLED)}
        means = {
            prefix: float(self.images[column].mean()) if column in self.images.columns else float("nan")
            for prefix, column in columns.items()
        }
        return {"chance": float(np.mean(chance(metric, self.images["area"].to_numpy(float)))), **means}


Cells = dict[tuple[str, str], MapCell]  # trained on, tested on


def map_cells(store: Store, run_ids: Sequence[str], *, leave_out: Sequence[str] = ()) -> Cells:
    """The cells of some finished runs of one variant; empty if none of them has maps.

    Args:
        store: the grid.
        run_ids: finished detection runs.
        leave_out: generators whose masks must not be used.

    Raises:
        StoreError: what a run measured cannot be read.
    """
    trained_on = store.runs().set_index("run_id")["trained_on"]
    frames: dict[tuple[str, str], list[pd.DataFrame]] = {}
    for run_id in run_ids:
        measured = store.localisation(run_id)
        if measured is None:
            continue
        for tested_on, rows in measured[0].groupby("tested_on", sort=False):
            if tested_on not in leave_out:
                frames.setdefault((str(trained_on[run_id]), str(tested_on)), []).append(rows)
    cells: Cells = {}
    for where, of_seeds in frames.items():
        together = pd.concat(of_seeds)
        numbers = together.select_dtypes(["number", "bool"]).columns
        of_picture = together.groupby("path", sort=False)
        images = of_picture[list(numbers)].mean().assign(source_id=of_picture["source_id"].first()).reset_index()
        cells[where] = MapCell(images, len(of_seeds))
    return cells


def map_table(cells: Mapping[str, Cells]) -> pd.DataFrame:
    """Every cell, and the in-domain and cross-generator means of each variant and metric.

    Args:
        cells: variant -> from `map_cells`.

    Returns:
        columns `COLUMNS`, values in [0, 1]; `kind` is "cell", "in-domain mean" or "cross-generator mean". `flat` is the
        share of constant maps.
    """
    photographs, rows = _photographs(cells), list[dict[str, Any]]()
    for variant, of_variant in cells.items():
        for metric in METRICS:
            rows += _rows(variant, metric, of_variant, photographs)
    return pd.DataFrame(rows, columns=COLUMNS)


def map_areas(cells: Mapping[str, Cells]) -> pd.DataFrame:
    """Every cell by terciles of the edited area of its fakes, and the means over cells.

    Fakes of equal areas stay together, so a third may be larger than the others, or empty.

    Returns:
        columns `AREA_COLUMNS`; kinds as in `map_table`.
    """
    photographs, rows = _photographs(cells), list[dict[str, Any]]()
    for variant, of_variant in cells.items():
        parts: dict[str, Cells] = {}
        for where, cell in of_variant.items():
            area = cell.images["area"].to_numpy(float)
            for third, chosen in thirds(area, np.ones(len(area), dtype=bool)).items():
                parts.setdefault(third, {})[where] = MapCell(cell.images[chosen], cell.num_seeds)
        for metric in AREA_METRICS:
            for third, of_third in parts.items():
                rows += [row | {"third": third} for row in _rows(variant, metric, of_third, photographs)]
    return pd.DataFrame(rows, columns=AREA_COLUMNS)


def _photographs(cells: Mapping[str, Cells]) -> pd.Index:
    sources = [cell.images["source_id"] for of_variant in cells.values() for cell in of_variant.values()]
    return pd.Index(pd.concat(sources).unique()).sort_values()


def _kinds(known: Mapping[tuple[str, str], MapCell]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Kind of mean -> its cells, for kinds that have some."""
    kinds = [
        (kind, [where for where in known if (where[1] in TrainSet.parse(where[0])) == inside])
        for kind, inside in ((IN_DOMAIN, True), (CROSS_GENERATOR, False))
    ]
    return [(kind, chosen) for kind, chosen in kinds if chosen]


def _rows(variant: str, metric: str, cells: Cells, photographs: pd.Index) -> list[dict[str, Any]]:
    """A row per cell in which the metric was measured, then the means over the cells of each kind."""
    known = {where: cell for where, cell in cells.items() if metric in cell.metrics()}
    found = {where: cell.estimate(metric, photographs) for where, cell in known.items()}
    own = {where: _row(variant, metric, where, found[where], cell) for where, cell in known.items()}
    rows = list(own.values())
    for kind, chosen in _kinds(known):
        part, together = pd.DataFrame([own[where] for where in chosen]), mean([found[where] for where in chosen])
        rows.append(
            {"kind": kind, "variant": variant, "trained_on": "", "tested_on": "", "metric": metric,
             "mean": together.value, "low": together.interval.low, "high": together.interval.high,
             **{name: part[name].mean(skipna=False) for name in (*BESIDE, "flat")},
             "num_images": part["num_images"].sum(), "num_fakes": part["num_fakes"].sum(),
             "num_seeds": part["num_seeds"].min(), "area_from": part["area_from"].min(),
             "area_to": part["area_to"].max()}
        )  # fmt: skip
    return rows


def _row(variant: str, metric: str, where: tuple[str, str], found: Estimate, cell: MapCell) -> dict[str, Any]:
    return {
        "kind": CELL, "variant": variant, "trained_on": where[0], "tested_on": where[1], "metric": metric,
        "mean": found.value, "low": found.interval.low, "high": found.interval.high, **cell.beside(metric),
        "flat": float(cell.images["flat"].mean()), "num_images": len(cell.images), "num_fakes": len(cell.images),
        "num_seeds": cell.num_seeds, "area_from": cell.images["area"].min(), "area_to": cell.images["area"].max(),
    }  # fmt: skip
