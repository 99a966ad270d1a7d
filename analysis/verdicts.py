"""Whether a run can judge a picture at all: is it like the training images, and how sure may the answer be?

A detector gives a number for any picture. For a photograph from another camera or another chain of programs that number
means nothing, and is often extreme. Beyond the limit there is no verdict.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import expit

from analysis.store import Store
from data.sources.base import REAL
from grid import names
from models.calibration import Temperature
from models.novelty import Novelty
from models.registry import gives_log_odds
from models.residuals import MIN_SIDE, ResidualEncoder

NOT_KNOWN = "not known whether this picture is like the training images"
_IN_WORDS = {names.OWN_LOOK: "by the detector's embedding", names.RESIDUAL_LOOK: "by the statistics of its residuals"}


@dataclass(frozen=True)
class Judgement:
    """How far out a picture is.

    Attributes:
        distance: distance over limit, the largest of all looks; infinite for a picture that cannot be compared. None:
            not known.
        reason: why there is no verdict, or why it is not known whether there should be one; "" for a picture inside.
    """

    distance: float | None
    reason: str = ""

    @property
    def inside(self) -> bool | None:
        """Whether the picture is like the training images; None: not known."""
        return None if self.distance is None else self.distance <= 1


class Judge:
    """What a detection run knows of its training images.

    Args:
        store: an open grid.
        run_id: id of a finished detection run.

    Attributes:
        temperature: None for an older run, and for one without fakes among its validation images.
        looks: name in `grid.names.LOOKS` -> what the training images are like; empty for an older run.
        command: for an older run, the command after which it knows; else "".
        notes: why a look or the temperature is missing, in words.
        log_odds: whether the run's scores are log-odds of fake; if not, there is no probability.
        reals: scores of the real validation images, float64 (N,), once per training condition; empty for an older run.

    Raises:
        StoreError: an artifact is missing or cannot be read.
    """

    def __init__(self, store: Store, run_id: str) -> None:
        self.temperature: Temperature | None = None
        self.looks: dict[str, Novelty] = {}
        self.command, self.notes = "", list[str]()
        self.log_odds = gives_log_odds(store.tags(run_id)[names.METHOD])
        self.reals = np.empty(0)
        if store.tags(run_id).get(names.CALIBRATED) != "true":
            if store.tags(run_id).get(names.VALIDATED) == names.NEVER:
                self.notes.append("its checkpoint is lost")
            else:
                self.command = store.validation_command([run_id])
            return
        self.temperature, listed, self.notes = _calibration(store, run_id)
        if (scores := validation_scores(store, run_id)) is not None:
            self.reals = scores.loc[scores["label"] == REAL, "score"].to_numpy(float)
        for name in listed:
            artifact = names.novelty_artifact(name)
            try:
                self.looks[name] = Novelty.load(store.artifact(run_id, artifact))
            except (OSError, ValueError) as error:
                raise store.broken(run_id, artifact, error) from error

    def judge(self, images: Sequence[np.ndarray], embeddings: np.ndarray) -> list[Judgement]:
        """How far out each picture is.

        Args:
            images: uint8 (H, W, 3) each, of native size.
            embeddings: (N, D), of the run's detector.
        """
        if not self.looks:
            return [Judgement(None, NOT_KNOWN)] * len(images)
        ratios = {names.OWN_LOOK: self.looks[names.OWN_LOOK].ratios(embeddings)} if names.OWN_LOOK in self.looks else {}
        if names.RESIDUAL_LOOK in self.looks:
            look, large = self.looks[names.RESIDUAL_LOOK], [min(image.shape[:2]) >= MIN_SIDE for image in images]
            ratios[names.RESIDUAL_LOOK] = np.full(len(images), np.inf)
            if any(large):
                chosen = [image for image, is_large in zip(images, large, strict=True) if is_large]
                ratios[names.RESIDUAL_LOOK][np.array(large)] = look.ratios(ResidualEncoder().encode(chosen))
        table = pd.DataFrame(ratios).fillna(np.inf)
        return [_judgement(float(row.max()), str(row.idxmax())) for _, row in table.iterrows()]

    def probability(self, score: float) -> tuple[float | None, str]:
        """(calibrated probability of fake, in words) of a picture that is inside. Without a temperature, the own one.

        None for a score that is no log-odds.

        No probability goes further than the validation images can show: of n images that are all right, the next is
        wrong with a probability of 1 / (n + 2) (Laplace's rule of succession).
        """
        if not self.log_odds:
            return None, "no probability, because the score is no log-odds"
        if self.temperature is None:
            probability = float(expit(score))
            return probability, f"probability of fake {probability:.3f}, not calibrated"
        probability = float(expit(self.temperature.calibrated(np.array([score]))[0]))
        least = 1 / (self.temperature.num_images + 2)
        if probability > 1 - least:
            return 1 - least, f"calibrated probability of fake above {np.floor(1000 * (1 - least)) / 1000:.3f}"
        if probability < least:
            return least, f"calibrated probability of fake below {np.ceil(1000 * least) / 1000:.3f}"
        return probability, f"calibrated probability of fake {probability:.3f}"


def temperature_of(store: Store, run_id: str) -> Temperature | None:
    """The temperature of a detection run; None for an older run, and for one without fakes among its validation images.

    Raises:
        StoreError: it is missing or cannot be read.
    """
    return _calibration(store, run_id)[0] if store.tags(run_id).get(names.CALIBRATED) == "true" else None


def validation_scores(store: Store, run_id: str) -> pd.DataFrame | None:
    """One row per validation image of every generator: path, digest, source_id, generator, label, score; None: older.

    Raises:
        StoreError: they are missing or cannot be read.
    """
    if store.tags(run_id).get(names.CALIBRATED) != "true":
        return None
    path = store.artifact(run_id, names.VALIDATION_SCORES)
    try:
        return pd.read_parquet(path, columns=["source_id", "generator", "label", "score"])
    except Exception as error:  # pyarrow raises many kinds
        raise store.broken(run_id, names.VALIDATION_SCORES, error) from error


def _calibration(store: Store, run_id: str) -> tuple[Temperature | None, list[str], list[str]]:
    """(temperature, names of its looks, notes)."""
    path = store.artifact(run_id, names.CALIBRATION)
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        fitted, looks = facts["temperature"], [name for name in names.LOOKS if name in facts["looks"]]
        return None if fitted is None else Temperature(**fitted), looks, list(map(str, facts["notes"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise store.broken(run_id, names.CALIBRATION, error) from error


def _judgement(ratio: float, look: str) -> Judgement:
    if ratio <= 1:
        return Judgement(ratio)
    if np.isinf(ratio):
        return Judgement(ratio, f"it cannot be compared with the training images: a side is below {MIN_SIDE} pixels")
    return Judgement(
        ratio, f"it is not like the training images: {ratio:.2f} times as far from them as the limit, {_IN_WORDS[look]}"
    )
