"""The published values of a corpus, and ours beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis.cells import CELL, CROSS_GENERATOR, IN_DOMAIN, cell_table
from analysis.matrices import class_of, cross_generator_matrix, matrix_means, of_condition
from data.conditions import CLEAN
from data.sources import Published
from grid.plan import FINISHED
from grid.tasks import ATTRIBUTION, DETECTION
from grid.train_sets import ALL, TrainSet

if TYPE_CHECKING:
    from analysis.store import Store

COLUMNS = [
    "task", "kind", "variant", "tested_on", "trained_on", "ours", "low", "high", "num_seeds", "published", "difference",
    "inside", "comparable", "note",
]  # fmt: skip


def published_localisation(published: Published) -> pd.DataFrame:
    """A localiser that was trained with masks: columns tested_on, trained_on, iou (0–1)."""
    assert published.localisation is not None
    table = pd.read_csv(published.localisation)
    return table.assign(iou=table["iou_percent"] / 100).drop(columns="iou_percent")


def beside_published(store: Store, *, cells: pd.DataFrame | None = None) -> pd.DataFrame:
    """Our accuracies beside the published ones, as far as they are about the same generators.

    Args:
        store: the grid.
        cells: from `analysis.cells.cell_table` with the metric "accuracy", if that is there already.

    Returns:
        columns `COLUMNS`; empty unless the corpus has published values of some of the generators. `kind` is "cell", or
        "in-domain mean" and "cross-generator mean" where all published cells are there. For attribution, `tested_on` is
        the class and `trained_on` is "all". `inside` says whether the published value lies in our interval: pandas'
        nullable boolean, missing where there is no interval or the set-up is not the published one (`comparable` is
        False; `note` says what differs).

    Raises:
        StoreError: as `cell_table`.
    """
    published = store.source.published
    if published is None:
        return pd.DataFrame(columns=COLUMNS)
    if cells is None:
        cells = cell_table(store)
    cells = of_condition(cells, CLEAN)
    cells = cells[cells["metric"].str.match("accuracy(/|$)")]
    values, generators = _published_values(published), _generators(published)
    runs = store.runs().drop_duplicates("variant").set_index("variant")
    small, fewer = _small_test_set(store, published), _fewer_images(store, published)
    rows = []
    for cell in cells.to_dict("records"):
        run = runs.loc[cell["variant"]]
        where = _where(cell, cells, generators)
        if where is None or (run["method"], *where) not in values:
            continue
        differs = setup_differences(published, run["method"], json.loads(run["config"])) + fewer
        if run["train_condition"] != CLEAN:
            differs.append(f"trained under {run['train_condition']}")
        value = values[run["method"], *where]
        comparable = not differs and cell["low"] == cell["low"]
        rows.append(
            {
                "task": cell["task"],
                "kind": cell["kind"],
                "variant": cell["variant"],
                "tested_on": where[1],
                "trained_on": where[2],
                "ours": cell["mean"],
                "low": cell["low"],
                "high": cell["high"],
                "num_seeds": cell["num_seeds"],
                "published": value,
                "difference": cell["mean"] - value,
                "inside": bool(cell["low"] <= value <= cell["high"]) if comparable else pd.NA,
                "comparable": not differs,
                "note": _note(differs, run["weights"], small),
            }
        )
    return pd.DataFrame(rows, columns=COLUMNS).astype({"inside": "boolean", "comparable": "bool"})


def setup_differences(published: Published, method: str, config: Mapping[str, Any]) -> list[str]:
    """In words, what of a configuration is not the published set-up; weights from a file are taken at their word."""
    differs = []
    for setting, accepted in published.setup.get(method, {}).items():
        value = config.get(setting)
        if value not in accepted and not (setting == "weights" and str(value).startswith("file:")):
            differs.append(f"{setting} {value} instead of {accepted[0]}")
    return differs


def _note(differs: list[str], weights: str, small: str) -> str:
    parts = [f"not the published set-up: {', '.join(differs)}"] if differs else []
    if weights.startswith("weights from"):
        parts.append(f"{weights}, taken to be the published ones")
    return "; ".join([*parts, small] if small else parts)


def _generators(published: Published) -> set[str]:
    return set(pd.read_csv(published.detection)["tested_on"])


def _published_values(published: Published) -> dict[tuple[str, str, str, str], float]:
    """(method, kind, tested on, trained on) -> accuracy."""
    detection, attribution = pd.read_csv(published.detection), pd.read_csv(published.attribution)
    values = {
        (str(row.method), CELL, str(row.tested_on), str(row.trained_on)): float(str(row.accuracy))
        for row in detection.itertuples()
    }
    for method in dict.fromkeys(detection["method"]):
        long = detection.rename(columns={"accuracy": "value"}).assign(task=DETECTION, metric="accuracy")
        means = matrix_means(cross_generator_matrix(long, method))
        values[method, IN_DOMAIN, "", ""] = means.in_domain
        values[method, CROSS_GENERATOR, "", ""] = means.cross_generator
    for row in attribution.to_dict("records"):
        values[str(row["method"]), CELL, str(row["class"]), ALL] = float(row["accuracy"])
    return values


def _where(cell: Mapping[Any, Any], cells: pd.DataFrame, generators: set[str]) -> tuple[str, str, str] | None:
    """(kind, tested on, trained on) in the published tables; None where the value is about something else."""
    if cell["task"] == ATTRIBUTION:
        same = set(TrainSet.parse(str(cell["trained_on"])).generators) == generators
        return (CELL, class_of(str(cell["metric"])), ALL) if same else None
    if cell["kind"] == CELL:
        return CELL, str(cell["tested_on"]), str(cell["trained_on"])
    of_variant = cells[(cells["variant"] == cell["variant"]) & (cells["task"] == DETECTION) & (cells["kind"] == CELL)]
    there = set(zip(of_variant["tested_on"], of_variant["trained_on"], strict=True))
    planned = {(tested_on, trained_on) for tested_on in generators for trained_on in generators}
    return (str(cell["kind"]), "", "") if there == planned else None


def _fewer_images(store: Store, published: Published) -> list[str]:
    """In words, that the data set is not the published one in size; nothing where it is, or is not known.

    A hundredth may lack, as `--skip-bad` leaves bad files out.
    """
    profile = store.data_profile
    if not profile:
        return []
    num_rows, num_published = profile["num_rows"], published.num_images * (1 + len(profile["generators"]))
    return [f"{num_rows} images instead of {num_published} or more"] if num_rows < 0.99 * num_published else []


def _small_test_set(store: Store, published: Published) -> str:
    runs = store.runs()
    run_id = runs.loc[runs["state"] == FINISHED, "run_id"].iloc[0]
    count = int((store.scores(run_id, columns=["label"])["label"] == 0).sum())
    num_published = published.num_test_images
    return "" if count >= num_published else f"{count} real test images instead of {num_published}"
