"""The published figures on the Dolos data set, and ours beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis.matrices import (
    CELL,
    CROSS_GENERATOR,
    IN_DOMAIN,
    PUBLISHED_ORDER,
    cell_table,
    cross_generator_matrix,
    matrix_means,
)

if TYPE_CHECKING:
    from analysis.store import Store

REFERENCE = Path(__file__).parent / "reference"
CORPUS = "dolos"
NUM_TEST_IMAGES = 900  # a class
NUM_IMAGES = 9_900  # a class, of training and testing; how many were for validation was not published
COLUMNS = [
    "task", "kind", "variant", "tested_on", "trained_on", "ours", "low", "high", "num_seeds", "published", "difference",
    "inside", "comparable", "note",
]  # fmt: skip

_WHOLE: dict[str, tuple[Any, ...]] = {"size": (0,)}
_TRAINED: dict[str, tuple[Any, ...]] = {"size": (0, 299), "epochs": (1,), "flip": (False,)}
# method -> setting -> the values that mean the published set-up. Learning rate and batch size were not published.
_SETUP: dict[str, dict[str, tuple[Any, ...]]] = {
    "xception_scratch": {"backbone": ("xception41",), "weights": ("random",), **_TRAINED},
    "xception_pretrained": {"backbone": ("xception41.tf_in1k", "xception41"), "weights": ("hub",), **_TRAINED},
    "clip_linear": {"backbone": ("ViT-L-14-quickgelu", "ViT-L-14"), "weights": ("hub:openai",), **_WHOLE},
    "sam_linear": {"backbone": ("vit_b",), "weights": ("hub",), **_WHOLE},
}


def published_detection() -> pd.DataFrame:
    """Columns method, tested_on, trained_on, accuracy (0–1)."""
    return pd.read_csv(REFERENCE / "seed_detection.csv")


def published_attribution() -> pd.DataFrame:
    """Columns method, class ("overall", "real", then the generators), accuracy (0–1)."""
    return pd.read_csv(REFERENCE / "seed_attribution.csv")


def published_localisation() -> pd.DataFrame:
    """DeCLIP (arXiv 2409.08849), a localiser trained with masks: columns tested_on, trained_on, iou (0–1)."""
    table = pd.read_csv(REFERENCE / "declip_localisation.csv")
    return table.assign(iou=table["iou_percent"] / 100).drop(columns="iou_percent")


def beside_published(store: Store, *, cells: pd.DataFrame | None = None) -> pd.DataFrame:
    """Our accuracies beside the published ones, as far as they are about the same generators.

    Args:
        store: the grid.
        cells: from `analysis.matrices.cell_table` with the metric "accuracy", if that is there already.

    Returns:
        columns `COLUMNS`; empty unless the corpus is Dolos and has published generators. `kind` is "cell", or
        "in-domain mean" and "cross-generator mean" where all sixteen cells are there. For attribution, `tested_on` is
        the class and `trained_on` is "all". `inside` says whether the published value lies in our interval: pandas'
        nullable boolean, missing where there is no interval or the set-up is not the published one (`comparable` is
        False; `note` says what differs).

    Raises:
        StoreError: as `cell_table`.
    """
    if store.corpus != CORPUS:
        return pd.DataFrame(columns=COLUMNS)
    if cells is None:
        cells = cell_table(store)
    cells = cells[cells["metric"].str.match("accuracy(/|$)")]
    published = _published_figures()
    runs = store.runs().drop_duplicates("variant").set_index("variant")
    small, fewer = _small_test_set(store), _fewer_images(store)
    rows = []
    for cell in cells.to_dict("records"):
        run = runs.loc[cell["variant"]]
        place = _place(cell, cells)
        if place is None or (run["method"], *place) not in published:
            continue
        differs = setup_differences(run["method"], json.loads(run["config"])) + fewer
        figure = published[run["method"], *place]
        known = not differs and cell["low"] == cell["low"]
        rows.append(
            {
                "task": cell["task"],
                "kind": cell["kind"],
                "variant": cell["variant"],
                "tested_on": place[1],
                "trained_on": place[2],
                "ours": cell["mean"],
                "low": cell["low"],
                "high": cell["high"],
                "num_seeds": cell["num_seeds"],
                "published": figure,
                "difference": cell["mean"] - figure,
                "inside": bool(cell["low"] <= figure <= cell["high"]) if known else pd.NA,
                "comparable": not differs,
                "note": _note(differs, run["weights"], small),
            }
        )
    return pd.DataFrame(rows, columns=COLUMNS).astype({"inside": "boolean", "comparable": "bool"})


def setup_differences(method: str, config: Mapping[str, Any]) -> list[str]:
    """In words, what of a configuration is not the published set-up; weights from a file are taken at their word."""
    differs = []
    for setting, accepted in _SETUP.get(method, {}).items():
        value = config.get(setting)
        if value not in accepted and not (setting == "weights" and str(value).startswith("file:")):
            differs.append(f"{setting} {value} instead of {accepted[0]}")
    return differs


def _note(differs: list[str], weights: str, small: str) -> str:
    parts = [f"not the published set-up: {', '.join(differs)}"] if differs else []
    if weights.startswith("weights from"):
        parts.append(f"{weights}, taken to be the published ones")
    return "; ".join([*parts, small] if small else parts)


def _published_figures() -> dict[tuple[str, str, str, str], float]:
    """(method, kind, tested on, trained on) -> accuracy."""
    detection, attribution = published_detection(), published_attribution()
    figures = {
        (str(row.method), CELL, str(row.tested_on), str(row.trained_on)): float(str(row.accuracy))
        for row in detection.itertuples()
    }
    for method in dict.fromkeys(detection["method"]):
        long = detection.rename(columns={"accuracy": "value"}).assign(task="detection", metric="accuracy")
        means = matrix_means(cross_generator_matrix(long, method))
        figures[method, IN_DOMAIN, "", ""] = means.in_domain
        figures[method, CROSS_GENERATOR, "", ""] = means.cross_generator
    for row in attribution.itertuples():
        # "class" is a keyword, so pandas calls the field by its place
        figures[str(row.method), CELL, str(row[2]), "all"] = float(str(row.accuracy))
    return figures


def _place(cell: Mapping[Any, Any], cells: pd.DataFrame) -> tuple[str, str, str] | None:
    """(kind, tested on, trained on) in the published tables; None where the figure is about something else."""
    if cell["task"] == "attribution":
        same = set(str(cell["trained_on"]).split("+")) == set(PUBLISHED_ORDER)
        return (CELL, str(cell["metric"]).partition("/")[2] or "overall", "all") if same else None
    if cell["kind"] == CELL:
        return CELL, str(cell["tested_on"]), str(cell["trained_on"])
    of_variant = cells[(cells["variant"] == cell["variant"]) & (cells["task"] == "detection") & (cells["kind"] == CELL)]
    there = set(zip(of_variant["tested_on"], of_variant["trained_on"], strict=True))
    wanted = {(tested_on, trained_on) for tested_on in PUBLISHED_ORDER for trained_on in PUBLISHED_ORDER}
    return (str(cell["kind"]), "", "") if there == wanted else None


def _fewer_images(store: Store) -> list[str]:
    """In words, that the data set is not the published one in size; nothing where it is, or is not known.

    A hundredth may lack, as `--skip-bad` leaves bad files out.
    """
    profile = store.data_profile
    if not profile:
        return []
    found, wanted = profile["num_rows"], NUM_IMAGES * (1 + len(profile["generators"]))
    return [f"{found} images instead of {wanted} or more"] if found < 0.99 * wanted else []


def _small_test_set(store: Store) -> str:
    runs = store.runs()
    run_id = runs.loc[runs["state"] == "finished", "run_id"].iloc[0]
    count = int((store.scores(run_id, columns=["label"])["label"] == 0).sum())
    return "" if count >= NUM_TEST_IMAGES else f"{count} real test images instead of {NUM_TEST_IMAGES}"
