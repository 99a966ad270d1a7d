"""The images of a cell: filtered, sorted and cut into pages; and one photograph under all methods."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.explore.live import Snapshot, plain, seeds_of
from analysis.explore.refusals import unknown
from analysis.explore.scores import Images, Scores, Shelf
from analysis.matrices import column_order
from analysis.store import Store
from data.conditions import CLEAN
from grid.plan import FINISHED
from grid.tasks import ATTRIBUTION, DETECTION, REAL, WHOLE
from grid.train_sets import TrainSet
from models.metrics import AT_VALIDATION
from models.registry import gives_log_odds

PAGE_SIZE = 48
MISTAKES, RIGHT_FIRST, UNSURE, HIGHEST, LOWEST, SMALLEST, LARGEST, BY_NAME = (
    "mistakes", "right", "unsure", "highest", "lowest", "smallest", "largest", "name",
)  # fmt: skip
SORTS = (MISTAKES, RIGHT_FIRST, UNSURE, HIGHEST, LOWEST, SMALLEST, LARGEST, BY_NAME)


@dataclass(frozen=True)
class Filter:
    """Which images of a run are shown, and in which order.

    Attributes:
        cell: a generator, for its fakes and their real images; "all": every image.
        made_by: "", or a generator, or "real": these images alone.
        answer: "", "right" or "wrong".
        area_from, area_to: edited area in [0, 1]; None: any. With one of them, images without a mask are left out.
        sort: one of `SORTS`.
        page: from 1.
    """

    cell: str = WHOLE
    made_by: str = ""
    answer: str = ""
    area_from: float | None = None
    area_to: float | None = None
    sort: str = MISTAKES
    page: int = 1


class Rows:
    """The images of a grid with their scores. Each call gets the newest reading of the grid.

    Attributes:
        shelf: the scores that were read so far.
    """

    def __init__(self) -> None:
        self.shelf = Shelf()

    def page(self, snapshot: Snapshot, run_id: str, condition: str, metric: str, chosen: Filter) -> dict[str, Any]:
        """One page of images.

        Args:
            snapshot: the grid.
            run_id: of a finished run of detection or attribution.
            condition: of the test pictures.
            metric: as logged; at the threshold from validation, that threshold says what is right.
            chosen: which images.

        Raises:
            Refused: an unknown run, condition, generator, order or page.
        """
        run = snapshot.finished(run_id, DETECTION, ATTRIBUTION)
        images = self.shelf.images(snapshot)
        names = images.classes
        if chosen.cell != WHOLE and chosen.cell not in names - {REAL}:
            raise unknown("generator", repr(chosen.cell))
        if chosen.made_by and chosen.made_by not in names:
            raise unknown("generator", repr(chosen.made_by))
        scores = self.shelf.scores(snapshot, run, condition)
        threshold, words = threshold_of(snapshot.store, run, metric)
        right, margin = scores.right(images, threshold), scores.margin(images, threshold)
        keep = images.cell(chosen.cell) & np.isfinite(scores.score)
        if chosen.made_by:
            keep = keep & (images.made_by == chosen.made_by)
        if chosen.area_from is not None or chosen.area_to is not None:
            low = 0.0 if chosen.area_from is None else chosen.area_from
            high = 1.0 if chosen.area_to is None else chosen.area_to
            keep = keep & (images.area >= low) & (images.area <= high)
        mistakes, counted = int((keep & ~right).sum()), int(keep.sum())
        if chosen.answer:
            keep = keep & (right if chosen.answer == "right" else ~right)
        found = np.flatnonzero(keep)
        found = found[_order(found, images, scores.score, margin, chosen.sort)]
        pages = max(1, math.ceil(len(found) / PAGE_SIZE))
        if not 1 <= chosen.page <= pages:
            raise unknown("page", chosen.page)
        part = found[(chosen.page - 1) * PAGE_SIZE : chosen.page * PAGE_SIZE]
        return {
            "run": _run_words(snapshot, run),
            "condition": condition,
            "conditions": snapshot.store.scored(run_id),
            "threshold": words,
            "total": len(found),
            "mistakes": mistakes,
            "counted": counted,
            "page": chosen.page,
            "pages": pages,
            "made_by": [name for name in [REAL, *snapshot.store.ordered(names - {REAL})] if name in names],
            "has_areas": bool(np.isfinite(images.area).any()),
            "images": [_image(images, scores, right, int(row)) for row in part],
        }

    def photograph(self, snapshot: Snapshot, image: int, condition: str, metric: str) -> dict[str, Any]:
        """The versions of the photograph behind an image, with every method's score of each.

        Of several seeds, the first finished one that was scored under the condition. `missing` is the number of runs
        whose scores are still being read: ask again.

        Raises:
            Refused: no such image, or no such condition.
        """
        images = self.shelf.images(snapshot)
        if not 0 <= image < len(images):
            raise unknown("image", image)
        store, source = snapshot.store, images.source[image]
        order = [REAL, *store.ordered(images.classes - {REAL})]
        versions = sorted(
            map(int, images.by_source[source]), key=lambda row: (order.index(str(images.made_by[row])), row)
        )
        runs = snapshot.runs[(snapshot.runs["task"] == DETECTION) & (snapshot.runs["state"] == FINISHED)]
        methods, missing = [], 0
        for variant, of_variant in runs.groupby("variant", sort=False):
            of_variant = of_variant[[condition in store.scored(run_id) for run_id in of_variant["run_id"]]]
            columns = column_order(of_variant["trained_on"], snapshot.generators)
            of_variant = of_variant.sort_values("seed", kind="stable").drop_duplicates("trained_on")
            of_variant = of_variant.sort_values("trained_on", key=lambda text: text.map(columns.index), kind="stable")
            rows = []
            for run in of_variant.to_dict("records"):
                scores = self.shelf.known(snapshot, run, condition)
                if isinstance(scores, str):
                    rows.append(_without_scores(snapshot, run, scores))
                    continue
                if scores is None:
                    missing += 1
                    continue
                threshold, _ = threshold_of(store, run, metric)
                right = scores.right(images, threshold)
                train = TrainSet.parse(str(run["trained_on"]))
                rows.append(
                    _without_scores(snapshot, run, "")
                    | {
                        "scores": [plain(float(scores.score[row])) for row in versions],
                        "right": [bool(right[row]) for row in versions],
                        "own": [str(images.made_by[row]) in train for row in versions],
                    }
                )
            if rows:
                name = snapshot.labels[str(variant)]
                methods.append({"variant": str(variant), "label": name, "rows": rows})
        return {
            "source": str(source),
            "condition": condition,
            "versions": [_facts(images, row) for row in versions],
            "chosen": versions.index(image),
            "methods": methods,
            "missing": missing,
        }


def threshold_of(store: Store, run: Mapping[Any, Any], metric: str) -> tuple[float, str]:
    """Above which score an image counts as fake, and that in words."""
    if run["task"] != DETECTION:
        return 0.0, "The answer is the class with the highest logit."
    log_odds = gives_log_odds(str(run["method"]))
    if log_odds and not metric.endswith(AT_VALIDATION):
        return 0.0, "An image counts as fake above log-odds 0, which is p = 0.5."
    logged = store.threshold(str(run["run_id"]))
    if math.isnan(logged):
        return 0.0, "An image counts as fake above 0: this run logged no threshold from validation."
    what = "log-odds" if log_odds else "a score of"
    return logged, f"An image counts as fake above {what} {logged:+.3f}, the threshold from validation."


def _order(found: np.ndarray, images: Images, score: np.ndarray, margin: np.ndarray, sort: str) -> np.ndarray:
    """Positions within `found` in the order that was asked for; of equal images, the first comes first."""
    keys = {
        MISTAKES: lambda: margin[found],
        RIGHT_FIRST: lambda: -margin[found],
        UNSURE: lambda: np.abs(margin[found]),
        HIGHEST: lambda: -score[found],
        LOWEST: lambda: score[found],
        SMALLEST: lambda: images.area[found],
        LARGEST: lambda: -images.area[found],
    }
    if sort == BY_NAME:
        return np.arange(len(found))
    if sort not in keys:
        raise unknown("order", repr(sort))
    return np.argsort(keys[sort](), kind="stable")


def _facts(images: Images, row: int) -> dict[str, Any]:
    return {
        "id": row,
        "source": str(images.source[row]),
        "made_by": str(images.made_by[row]),
        "area": plain(float(images.area[row])),
    }


def _image(images: Images, scores: Scores, right: np.ndarray, row: int) -> dict[str, Any]:
    answer = str(scores.classes[scores.answer[row]]) if len(scores.answer) else ""
    return _facts(images, row) | {
        "score": plain(float(scores.score[row])), "right": bool(right[row]), "answer": answer,
    }  # fmt: skip


def _without_scores(snapshot: Snapshot, run: Mapping[Any, Any], problem: str) -> dict[str, Any]:
    """A run's row in the table of a photograph; `problem` says why it has no scores."""
    return {
        "run": run["run_id"], "trained_on": snapshot.trained_on(run), "seed": int(run["seed"]), "problem": problem,
        "scores": [], "right": [], "own": [],
    }  # fmt: skip


def _run_words(snapshot: Snapshot, run: Mapping[Any, Any]) -> dict[str, Any]:
    own = snapshot.runs[(snapshot.runs["task"] == run["task"]) & (snapshot.runs["variant"] == run["variant"])]
    same = own[own["trained_on"] == run["trained_on"]]
    return {
        "id": run["run_id"],
        "task": run["task"],
        "label": snapshot.label(run),
        "trained_on": snapshot.trained_on(run),
        "seed": int(run["seed"]),
        "log_odds": gives_log_odds(str(run["method"])),
        "seeds": seeds_of(same),
    }


def condition_of(text: str | None) -> str:
    """A condition's name in a request; none is clean."""
    return text or CLEAN
