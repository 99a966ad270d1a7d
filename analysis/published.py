"""Our values compared with the published ones of a corpus."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis.cells import CELL
from analysis.matrices import class_of, matrix_means, pivot
from data.conditions import CLEAN
from data.sources import Published
from grid.equal_size import EqualSize
from grid.means import CROSS_GENERATOR, IN_DOMAIN
from grid.plan import FINISHED
from grid.tasks import ATTRIBUTION, DETECTION, REAL
from grid.train_sets import ALL, TrainSet

if TYPE_CHECKING:
    from analysis.store import Store

_SOUND = 0.99  # the share of the published images that makes a data set whole
_SHOWN = 2
COLUMNS = [
    "task", "kind", "variant", "tested_on", "trained_on", "ours", "num_seeds", "low", "high", "one_more_low",
    "one_more_high", "published", "difference", "inside", "comparable", "note",
]  # fmt: skip


def published_localisation(published: Published) -> pd.DataFrame:
    """Published IoU of a localiser trained with masks: columns tested_on, trained_on, iou (0–1)."""
    assert published.localisation is not None
    table = pd.read_csv(published.localisation)
    return table.assign(iou=table["iou_percent"] / 100).drop(columns="iou_percent")


def localisation_beside_published(store: Store, cells: pd.DataFrame) -> pd.DataFrame:
    """IoU of our maps beside that of the published localiser, of the generators that both have.

    Args:
        store: the grid.
        cells: from `analysis.maps.map_table`.

    Returns:
        columns variant, tested_on, trained_on, ours, low, high, published, difference, note; empty unless the corpus
        has published values of localisation for some of the cells. Ours are IoU at log-odds 0, as the published values
        are at p = 0.5. The note says how the set-up differs: it always does.
    """
    published = store.source.published
    columns = ["variant", "tested_on", "trained_on", "ours", "low", "high", "published", "difference", "note"]
    if published is None or published.localisation is None:
        return pd.DataFrame(columns=columns)
    theirs = published_localisation(published).set_index(["tested_on", "trained_on"])["iou"].to_dict()
    small, fewer = _small_test_set(store, published), _fewer_images(store, published)
    configs = store.runs().drop_duplicates("variant").set_index("variant")
    rows = []
    for cell in cells[(cells["kind"] == CELL) & (cells["metric"] == "iou_fixed")].to_dict("records"):
        where = cell["tested_on"], cell["trained_on"]
        if where in theirs:
            other = f"another localiser: {cell['variant']}, not {published.localiser}"
            note = "; ".join(filter(None, [other, configs.loc[cell["variant"], "weights"], *fewer, small]))
            row = {name: cell[name] for name in ("variant", "tested_on", "trained_on", "low", "high")}
            value = theirs[where]
            rows.append(
                row | {"ours": cell["mean"], "published": value, "difference": cell["mean"] - value, "note": note}
            )
    return pd.DataFrame(rows, columns=columns)


def beside_published(store: Store, cells: pd.DataFrame) -> pd.DataFrame:
    """Our accuracies beside the published ones of the same generators.

    Args:
        store: the grid.
        cells: from `analysis.cells.cell_table` with the metric "accuracy".

    Returns:
        columns `COLUMNS`; empty unless the corpus has published values of some of the generators. `kind` is "cell", or
        "in-domain mean" and "cross-generator mean" if all published cells are there. For attribution, `tested_on` is
        the class and `trained_on` is "all". `inside` says whether the published value, which is of one run, lies in our
        prediction interval of one more run: pandas' nullable boolean, missing if there is no such interval, as with one
        seed, or the set-up differs from the published one (`comparable` is False; `note` says what differs).
    """
    published = store.source.published
    if published is None:
        return pd.DataFrame(columns=COLUMNS)
    cells = cells[(cells["condition"] == CLEAN) & cells["metric"].str.match("accuracy(/|$)")]
    values, generators = _published_values(published), set(pd.read_csv(published.detection)["tested_on"])
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
        if run["equal_size"]:
            differs.append(f"trained on {EqualSize.parse(run['equal_size']).words}")
        value = values[run["method"], *where]
        has_interval = bool(cell["one_more_low"] == cell["one_more_low"])  # not NaN
        rows.append(
            cell
            | {
                "tested_on": where[1],
                "trained_on": where[2],
                "ours": cell["mean"],
                "published": value,
                "difference": cell["mean"] - value,
                "inside": bool(cell["one_more_low"] <= value <= cell["one_more_high"])
                if has_interval and not differs
                else pd.NA,
                "comparable": not differs,
                "note": _note(differs, run["weights"], small),
            }
        )
    return pd.DataFrame(rows, columns=COLUMNS).astype({"inside": "boolean", "comparable": "bool"})


def setup_differences(published: Published, method: str, config: Mapping[str, Any]) -> list[str]:
    """Settings that differ from the published set-up, in words; weights from a file are taken to be the published."""
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


def _published_values(published: Published) -> dict[tuple[str, str, str, str], float]:
    """(method, kind, tested on, trained on) -> accuracy."""
    values = {}
    for method, rows in pd.read_csv(published.detection).groupby("method", sort=False):
        for tested_on, trained_on, accuracy in rows[["tested_on", "trained_on", "accuracy"]].to_numpy().tolist():
            values[str(method), CELL, tested_on, trained_on] = accuracy
        means = matrix_means(pivot(rows, "accuracy"))
        values[str(method), IN_DOMAIN, "", ""] = means.in_domain
        values[str(method), CROSS_GENERATOR, "", ""] = means.cross_generator
    attribution = pd.read_csv(published.attribution)
    for method, name, accuracy in attribution[["method", "class", "accuracy"]].to_numpy().tolist():
        values[method, CELL, name, ALL] = accuracy
    return values


def _where(cell: Mapping[Any, Any], cells: pd.DataFrame, generators: set[str]) -> tuple[str, str, str] | None:
    """(kind, tested on, trained on) in the published tables; None if they have no such value."""
    if cell["task"] == ATTRIBUTION:
        same = set(TrainSet.parse(str(cell["trained_on"])).generators) == generators
        return (CELL, class_of(str(cell["metric"])), ALL) if same else None
    if cell["task"] != DETECTION:
        return None
    if cell["kind"] == CELL:
        return CELL, str(cell["tested_on"]), str(cell["trained_on"])
    of_variant = cells[(cells["variant"] == cell["variant"]) & (cells["task"] == DETECTION) & (cells["kind"] == CELL)]
    present = set(zip(of_variant["tested_on"], of_variant["trained_on"], strict=True))
    planned = {(tested_on, trained_on) for tested_on in generators for trained_on in generators}
    return (str(cell["kind"]), "", "") if present == planned else None


def _fewer_images(store: Store, published: Published) -> list[str]:
    """In words, that the data set is smaller than the published one; empty if it is not, or a size is unknown.

    Of a class in a split one in a hundred images may be missing, as `--skip-bad` leaves bad files out.
    """
    profile = store.data_profile
    if not profile:
        return []
    classes = [REAL, *profile["generators"]]
    known = {name: published.num_images[name] for name in classes if name in published.num_images}
    if "images" not in profile:  # an older grid, of which the sum alone is known
        num_published = sum(sum(splits.values()) for splits in known.values())
        fewer = profile["num_rows"] < _SOUND * num_published
        return [f"{profile['num_rows']} images instead of {num_published} or more"] if fewer else []
    short = [
        f"{count} {split} images of {name} instead of {expected}"
        for name, splits in known.items()
        for split, expected in splits.items()
        if (count := profile["images"].get(name, {}).get(split, 0)) < _SOUND * expected
    ]
    return short[:_SHOWN] + ([f"and so {len(short) - _SHOWN} more"] if len(short) > _SHOWN else [])


def _small_test_set(store: Store, published: Published) -> str:
    runs = store.runs()
    run_id = runs.loc[runs["state"] == FINISHED, "run_id"].iloc[0]
    count = int((store.scores(run_id, columns=["label"])["label"] == 0).sum())
    num_published = published.num_test_images
    return "" if count >= num_published else f"{count} real test images instead of {num_published}"
