"""Tables of detectors' own maps, derived again from the numbers of each picture that the trials kept.

The numbers of a picture need the picture and the detector; which pictures there are, and their edited areas, are held
against the manifest and the grid's run.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.verify import estimates
from analysis.verify.compare import TOLERANCE, Derived
from analysis.verify.estimates import Estimate, Piece
from analysis.verify.evidence import (
    CELL,
    CROSS,
    DETECTION,
    IN_DOMAIN,
    WHOLE,
    Difference,
    Evidence,
    EvidenceError,
    slug,
)
from analysis.verify.tables import columns_of, label_of, rule

_WORDS = {
    "iou_fixed": "IoU at log-odds 0",
    "iou_valid": "IoU at the threshold from validation",
    "iou_oracle": "IoU at the oracle's threshold, the best on these test fakes",
    "f1_fixed": "F1 at log-odds 0",
    "f1_valid": "F1 at the threshold from validation",
    "f1_oracle": "F1 at the oracle's threshold, the best on these test fakes",
    "ap": "average precision over pixels",
    "auroc": "AUROC over pixels",
}
_OF_AREA = ("iou_fixed", "iou_valid", "ap")
_THIRDS = ("smallest third", "middle third", "largest third")
_NOTHING = "no trial kept numbers of its own maps"
Where = tuple[str, str]  # trained on, tested on


@dataclass(frozen=True)
class _Cell:
    """The test fakes of a generator: one row each, means over the detectors of one training set."""

    images: pd.DataFrame
    num_seeds: int

    def estimate(self, metric: str, photographs: list[str]) -> Estimate:
        values = self.images[metric].to_numpy(float)
        numbers = {name: number for number, name in enumerate(photographs)}
        units = np.array([numbers[name] for name in self.images["source_id"]])
        moves = np.bincount(units, (values - values.mean()) / len(values), len(photographs))
        return Piece(1.0, float(values.mean()), moves, len(set(units.tolist())), None).estimate()

    def beside(self, metric: str) -> dict[str, float]:
        area = self.images["area"].to_numpy(float)
        everything = {"iou": area, "f1": 2 * area / (1 + area), "ap": area, "auroc": np.full(len(area), 0.5)}
        found = {"chance": float(everything[metric.partition("_")[0]].mean())}
        for name in ("mean_mask", "shuffled"):
            column = f"{name}_{metric}"
            found[name] = float(self.images[column].mean()) if column in self.images.columns else math.nan
        return found


def kept(evidence: Evidence, key: str) -> pd.DataFrame | None:
    """The numbers of a trial's own maps, one row per test fake; None if it kept none."""
    path = evidence.folder / "localisation" / f"{key}.parquet"
    if not path.is_file():
        return None
    try:
        return pd.read_parquet(path)
    except Exception as error:  # pyarrow raises many kinds
        raise EvidenceError(f"{path} cannot be read: {error}") from error


def _doubted(evidence: Evidence) -> set[str]:
    """Generators whose masks the audit doubts, unless the launch accepted it."""
    path = evidence.folder / "artifacts" / "audit.json"
    if not path.is_file():
        return set()
    try:
        verdict = json.loads(path.read_text(encoding="utf-8"))
        texts = [f["text"] for f in verdict["findings"] if f["audit"] == "masks" and f["level"] != "note"]
        return set() if "masks" in verdict["accepted"] else {str(text).partition(": ")[0] for text in texts}
    except (ValueError, KeyError, TypeError) as error:
        raise EvidenceError(f"{path} cannot be read: {error}") from error


def _cells(evidence: Evidence) -> dict[str, dict[Where, _Cell]]:
    """Variant -> cell -> its fakes."""
    without, found = _doubted(evidence), dict[str, dict[Where, list[pd.DataFrame]]]()
    trials = evidence.finished[evidence.finished["task"] == DETECTION]
    for key, variant, trained_on in trials[["key", "variant", "trained_on"]].itertuples(index=False):
        images = kept(evidence, str(key))
        for tested_on, rows in () if images is None else images.groupby("tested_on", sort=False):
            if tested_on not in without:
                found.setdefault(str(variant), {}).setdefault((str(trained_on), str(tested_on)), []).append(rows)
    cells: dict[str, dict[Where, _Cell]] = {}
    for variant, of_variant in found.items():
        for where, frames in of_variant.items():
            together = pd.concat(frames)
            numbers = [n for n in together.columns if n not in ("tested_on", "path", "digest", "source_id")]
            images = together.groupby("path")[numbers].mean()
            images["source_id"] = together.groupby("path")["source_id"].first()
            cells.setdefault(variant, {})[where] = _Cell(images, len(frames))
    return cells


def _photographs(cells: Mapping[str, Mapping[Where, _Cell]]) -> list[str]:
    return sorted({name for of in cells.values() for cell in of.values() for name in cell.images["source_id"]})


def _kinds(known: Mapping[Where, _Cell]) -> Iterator[tuple[str, list[Where]]]:
    for kind, inside in ((IN_DOMAIN, True), (CROSS, False)):
        chosen = [where for where in known if (where[1] in where[0].split("+")) == inside]
        if chosen:
            yield kind, chosen


def _table(evidence: Evidence) -> pd.DataFrame | None:
    """Every cell and the means; None without maps."""
    cells = _cells(evidence)
    photographs, rows = _photographs(cells), list[dict[str, object]]()
    for variant, of_variant in cells.items():
        for metric in _WORDS:
            known = {where: cell for where, cell in of_variant.items() if metric in cell.images.columns}
            found = {where: cell.estimate(metric, photographs) for where, cell in known.items()}
            groups = [(CELL, *where, [where]) for where in known]
            groups += [(kind, "", "", chosen) for kind, chosen in _kinds(known)]
            for kind, trained_on, tested_on, chosen in groups:
                mean = estimates.mean_of([found[where] for where in chosen])
                beside = [known[where].beside(metric) for where in chosen]
                images = [known[where].images for where in chosen]
                rows.append(
                    {"kind": kind, "variant": variant, "trained_on": trained_on, "tested_on": tested_on,
                     "metric": metric, "mean": mean.value, "low": mean.low, "high": mean.high,
                     **{name: float(np.mean([each[name] for each in beside])) for name in beside[0]},
                     "flat": float(np.mean([frame["flat"].mean() for frame in images])),
                     "num_images": sum(map(len, images)),
                     "num_seeds": min(known[where].num_seeds for where in chosen)}
                )  # fmt: skip
    return pd.DataFrame(rows) if rows else None


def _shown(evidence: Evidence, frame: pd.DataFrame) -> pd.DataFrame:
    shown = frame.rename(columns={"metric": "measure"})
    labels = [label_of(evidence, text) if text else "" for text in frame["trained_on"]]
    return shown.assign(measure=frame["metric"].map(_WORDS), trained_on=labels)


@rule("maps")
def maps(evidence: Evidence, name: str, table: pd.DataFrame) -> Derived | str:
    """Every cell, and the means of each method."""
    frame = _table(evidence)
    if frame is None:
        return _NOTHING
    keys = ["kind", "variant", "trained_on", "tested_on", "metric"]
    return Derived(frame, keys, shown=_shown(evidence, frame))


@rule("maps-means")
def maps_means(evidence: Evidence, name: str, table: pd.DataFrame) -> Derived | str:
    """The means, with their intervals in brackets."""
    frame = _table(evidence)
    if frame is None:
        return _NOTHING
    means = frame[frame["kind"] != CELL]
    rows = [
        {"method": row["variant"], "mean": str(row["kind"]).removesuffix(" mean"), "measure": _WORDS[row["metric"]],
         "maps": (row["mean"], row["low"], row["high"]),
         **{name.replace("_", " "): () if math.isnan(row[name]) else (row[name],)
            for name in ("chance", "mean_mask", "shuffled")}}
        for row in means.to_dict("records")
    ]  # fmt: skip
    return Derived(pd.DataFrame(rows), ["method", "mean", "measure"])


@rule("maps-matrix-*")
def maps_matrix(evidence: Evidence, name: str, table: pd.DataFrame) -> Derived | str:
    """One measure of one method: rows tested on, columns trained on."""
    frame = _table(evidence)
    if frame is None:
        return _NOTHING
    names = {
        slug(f"maps-matrix-{variant}-{metric}"): (variant, metric)
        for variant, metric in frame[["variant", "metric"]].drop_duplicates().itertuples(index=False)
    }
    if name not in names:
        return "its name does not say which method and measure it is of"
    variant, metric = names[name]
    cells = frame[(frame["variant"] == variant) & (frame["metric"] == metric) & (frame["kind"] == CELL)]
    columns = columns_of(evidence, variant)
    values = cells.set_index(["tested_on", "trained_on"])["mean"].unstack()
    values = values.reindex(index=evidence.generators, columns=columns)
    first = str(table.columns[0])
    turned = first.startswith("trained")
    values = values.T if turned else values
    wide = values.rename_axis(index=first, columns=None).reset_index()
    labels = {trained_on: label_of(evidence, trained_on) for trained_on in columns}
    shown = wide.assign(**{first: wide[first].map(labels)}) if turned else wide.rename(columns=labels)
    return Derived(wide, [first], shown=shown)


def _area_table(evidence: Evidence) -> pd.DataFrame | None:
    """Every cell and the means by thirds of the edited area of each generator's test fakes; None without maps."""
    cells = _cells(evidence)
    photographs, rows = _photographs(cells), list[dict[str, object]]()
    for variant, of_variant in cells.items():
        parts: dict[str, dict[Where, _Cell]] = {}
        for where, cell in of_variant.items():
            area = cell.images["area"].to_numpy(float)
            edges = [-math.inf, *np.quantile(area, [1 / 3, 2 / 3]), math.inf]
            for third, low, high in zip(_THIRDS, edges[:-1], edges[1:], strict=True):
                chosen_rows = (area > low) & (area <= high)
                if chosen_rows.any():
                    parts.setdefault(third, {})[where] = _Cell(cell.images[chosen_rows], cell.num_seeds)
        for metric in _OF_AREA:
            for third, of_third in parts.items():
                known = {where: cell for where, cell in of_third.items() if metric in cell.images.columns}
                found = {where: cell.estimate(metric, photographs) for where, cell in known.items()}
                groups = [(CELL, *where, [where]) for where in known]
                groups += [(kind, "", "", chosen) for kind, chosen in _kinds(known)]
                for kind, trained_on, tested_on, chosen in groups:
                    mean = estimates.mean_of([found[where] for where in chosen])
                    beside = [known[where].beside(metric) for where in chosen]
                    areas = np.concatenate([known[where].images["area"] for where in chosen])
                    rows.append(
                        {"kind": kind, "variant": variant, "trained_on": trained_on, "tested_on": tested_on,
                         "metric": metric, "third": third, "area_from": areas.min(), "area_to": areas.max(),
                         "num_fakes": len(areas), "mean": mean.value, "low": mean.low, "high": mean.high,
                         **{n: float(np.mean([each[n] for each in beside])) for n in ("chance", "mean_mask")}}
                    )  # fmt: skip
    return pd.DataFrame(rows) if rows else None


@rule("maps-areas")
def maps_areas(evidence: Evidence, name: str, table: pd.DataFrame) -> Derived | str:
    """Every cell by edited area, and the means."""
    frame = _area_table(evidence)
    if frame is None:
        return _NOTHING
    keys = ["kind", "variant", "trained_on", "tested_on", "metric", "third"]
    return Derived(frame, keys, shown=_shown(evidence, frame))


@rule("maps-areas-means")
def maps_areas_means(evidence: Evidence, name: str, table: pd.DataFrame) -> Derived | str:
    """The means by edited area, one column per third."""
    frame = _area_table(evidence)
    if frame is None:
        return _NOTHING
    rows: dict[tuple[str, str, str], dict[str, object]] = {}
    for row in frame[frame["kind"] != CELL].to_dict("records"):
        where = str(row["variant"]), str(row["kind"]).removesuffix(" mean"), _WORDS[row["metric"]]
        own = rows.setdefault(where, dict(zip(("method", "mean", "measure"), where, strict=True)))
        own[row["third"]] = (row["mean"], row["low"], row["high"])
    frame = pd.DataFrame([dict.fromkeys(_THIRDS, ()) | row for row in rows.values()])
    return Derived(frame[["method", "mean", "measure", *_THIRDS]], ["method", "mean", "measure"])


@rule("maps-published")
def maps_published(evidence: Evidence, name: str, table: pd.DataFrame) -> Derived | str:
    """Our IoU at log-odds 0 with its interval; the published values are copied, and only the difference is derived."""
    frame = _table(evidence)
    if frame is None:
        return _NOTHING
    cells = frame[(frame["metric"] == "iou_fixed") & (frame["kind"] == CELL)]
    own = {
        tuple(where): numbers
        for *where, numbers in zip(
            cells["variant"], cells["tested_on"], cells["trained_on"],
            cells[["mean", "low", "high"]].itertuples(index=False, name=None), strict=True,
        )
    }  # fmt: skip
    rows = []
    for row in table.to_dict("records"):
        where = row["variant"], row["tested_on"], row["trained_on"]
        if where in own:
            value, low, high = own[where]
            named = dict(zip(("variant", "tested_on", "trained_on"), where, strict=True))
            difference = value - float(row["published"])
            rows.append({**named, "ours": value, "low": low, "high": high, "difference": difference})
    derived = pd.DataFrame(rows)
    shown = derived.assign(trained_on=[label_of(evidence, text) for text in derived.get("trained_on", [])])
    unverified = dict.fromkeys(["published", "note"], "copied from a paper")
    return Derived(derived, ["variant", "tested_on", "trained_on"], unverified, shown=shown)


# The evidence itself -------------------------------------------------------------------------------------------------


def logged(evidence: Evidence, key: str, metric: str) -> float | None:
    """The value that a trial logged as `maps/GENERATOR/METRIC`, from its pictures; None if it kept none."""
    images, (_, generator, name) = kept(evidence, key), metric.split("/")
    if images is None or name not in images.columns or generator not in set(images["tested_on"]):
        return None
    return float(images.loc[images["tested_on"] == generator, name].mean())


def check_maps(evidence: Evidence, key: str) -> Iterator[Difference]:
    """Whether the pictures of a trial's maps are test fakes of the manifest, with the areas that the grid recorded."""
    images, file = kept(evidence, key), f"localisation/{key}.parquet"
    if images is None:
        return
    table = evidence.manifest
    fakes = table[(table["split"] == "test") & (table["label"] == 1)].set_index("path")
    path = evidence.folder / "artifacts" / "edited_areas.json"
    areas = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for row in images.to_dict("records"):
        if row["path"] not in fakes.index:
            yield Difference(file, str(row["path"]), "path", str(row["path"]), "no such test fake in the manifest")
            continue
        fake = fakes.loc[row["path"]]
        for column, derived in (("tested_on", "generator"), ("digest", "digest"), ("source_id", "source_id")):
            if row[column] != fake[derived]:
                yield Difference(file, str(row["path"]), column, str(row[column]), str(fake[derived]))
        area = areas.get(row["digest"])
        if area is not None and abs(float(area) - float(row["area"])) > TOLERANCE:
            yield Difference(file, str(row["path"]), "area", repr(row["area"]), repr(area))
    if images["path"].duplicated().any():
        yield Difference(file, WHOLE, "path", "a picture that is there twice", "each picture once")
    yield from _missing(evidence, key, images, fakes, areas)
    yield from _impossible(images, file)


def _impossible(images: pd.DataFrame, file: str) -> Iterator[Difference]:
    """Numbers of a picture that no map has: F1 follows from IoU, and the ranking of a constant map from the area."""
    for row in images.to_dict("records"):
        for name in [name for name in row if "f1_" in str(name)]:
            iou = float(row[str(name).replace("f1_", "iou_")])
            if 0 <= iou <= 1 and not abs(2 * iou / (1 + iou) - float(row[name])) <= TOLERANCE:
                yield Difference(file, str(row["path"]), str(name), repr(row[name]), repr(2 * iou / (1 + iou)))
        if row["flat"]:
            for name, constant in (("auroc", 0.5), ("ap", float(row["area"]))):
                if not abs(float(row[name]) - constant) <= TOLERANCE:
                    text = f"{constant!r}, because the map is constant"
                    yield Difference(file, str(row["path"]), name, repr(row[name]), text)
    means = images.groupby("tested_on", sort=False)[["iou_fixed", "iou_oracle"]].mean()
    for generator, at_zero, best in means.itertuples(name=None):
        if best < at_zero - TOLERANCE:
            yield Difference(
                file, str(generator), "iou_oracle", repr(best), f"at least {at_zero!r}, that at log-odds 0"
            )


def _missing(
    evidence: Evidence, key: str, images: pd.DataFrame, fakes: pd.DataFrame, areas: Mapping[str, float]
) -> Iterator[Difference]:
    """Test fakes of which the trial should have kept numbers and has none, and counts that do not add up."""
    file, found = f"localisation/{key}.parquet", set(images["path"])
    for path, digest in fakes["digest"].items():
        area = areas.get(str(digest))
        if path not in found and area is not None and 0 < float(area) < 1:
            yield Difference(file, str(path), "path", "no row", f"a row, because its mask covers {area:.3g}")
    path = evidence.folder / "localisation" / f"{key}.json"
    if not path.is_file():
        yield Difference(f"localisation/{key}.json", WHOLE, "left_out", "no such file", "how many fakes were left out")
        return
    left_out = json.loads(path.read_text(encoding="utf-8"))["left_out"]
    for generator, rows in fakes.groupby("generator", sort=False):
        shown = int((images["tested_on"] == generator).sum()) + sum(left_out.get(str(generator), {}).values())
        if shown != len(rows):
            text = f"{shown} fakes of {generator}, measured or left out"
            yield Difference(f"localisation/{key}.json", WHOLE, "left_out", text, f"{len(rows)} test fakes")
