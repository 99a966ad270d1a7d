"""Pictures of a trial for MLflow's UI: cells, ROC curves and worst mistakes of detection, answers of attribution.

They are drawn with Pillow alone, in milliseconds: a worker needs no matplotlib for them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont, ImageOps

from data.images import BadImage, decode
from data.manifest import Manifest
from grid import names
from grid.confusion import confusion_table
from grid.means import CROSS_GENERATOR, IN_DOMAIN, summary_of_trial
from grid.overview import label_of_trial, trained_in_words
from grid.settings import RunSettings
from grid.spec import TrialSpec
from grid.tasks import ATTRIBUTION, DETECTION, cell_rows, generators_of
from grid.trial import Scored
from models.registry import gives_log_odds

MOST_MISTAKES = 12
_ACROSS, _SIDE, _MARGIN = 6, 160, 16  # pictures side by side; pixels
_INK, _FAINT, _PAPER = "#1b1b1b", "#8a8a8a", "#ffffff"
_PURPLE, _ORANGE, _BLUE = np.array([63, 0, 125]), np.array([179, 88, 6]), np.array([8, 48, 107])
# Okabe and Ito (2008): distinguishable under every common kind of colour blindness.
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#000000")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Previews:
    """Pictures by their file names."""

    pictures: Mapping[str, Image.Image]

    def write(self, folder: Path) -> None:
        """Write them as PNG below `folder`, where MLflow keeps them."""
        (folder / names.PREVIEW).mkdir(parents=True)
        for name, picture in self.pictures.items():
            picture.save(folder / names.PREVIEW / f"{name}.png")


def make_previews(
    spec: TrialSpec, scored: Scored, settings: RunSettings, *, threshold: float | None = None
) -> Previews | None:
    """The pictures of a finished trial of detection or attribution; None for another task.

    A test picture that cannot be read any more is left out of the worst mistakes, with a warning.

    Args:
        spec: the trial.
        scored: its scores on clean pictures.
        settings: the manifest of `spec.data` is in `settings.manifests`.
        threshold: what a score that is no log-odds is held against; None: there are no mistakes to show of such one.
    """
    if spec.task == ATTRIBUTION:
        title = f"{label_of_trial(spec)}, attribution, seed {spec.seed}"
        return Previews({"confusion": _confusion(title, scored.scores)})
    if spec.task != DETECTION:
        return None
    title = f"{label_of_trial(spec)}, trained on {trained_in_words(spec, ())}, seed {spec.seed}"
    pictures = {"cells": _cells(title, spec, scored), "roc": _roc(title, scored.scores)}
    limit = 0.0 if gives_log_odds(spec.method) else threshold
    if limit is not None:
        manifest = Manifest.load(settings.manifests / spec.data)
        rows = worst_mistakes(scored.scores, MOST_MISTAKES, threshold=limit)
        kind = "log-odds of fake" if gives_log_odds(spec.method) else f"score; fake above {limit:+.2f}"
        pictures["worst_mistakes"] = _mistakes(title, manifest, rows.assign(fake=rows["score"] > limit), kind)
    return Previews(pictures)


def worst_mistakes(scores: pd.DataFrame, count: int, *, threshold: float = 0.0) -> pd.DataFrame:
    """The rows that are wrong at a threshold and furthest from it, the worst first; equal ones by digest.

    Args:
        scores: columns label, score and digest.
        count: at most so many.
        threshold: above it the answer is "fake".
    """
    wrong = scores[(scores["score"] > threshold) != (scores["label"] == 1)]
    order = wrong.assign(far=-(wrong["score"] - threshold).abs()).sort_values(["far", "digest"], kind="stable")
    return wrong.loc[order.index].iloc[:count]


def roc_points(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """False and true positive rates at every threshold, from (0, 0) to (1, 1): float (N, 2).

    Args:
        labels: (N,), 1 fake, 0 real, both present.
        scores: (N,), higher is more likely fake; equal scores are called alike.
    """
    order = np.argsort(-scores, kind="stable")
    fakes, reals = np.cumsum(labels[order] == 1), np.cumsum(labels[order] == 0)
    last = np.append(np.diff(scores[order]) != 0, True)
    points = np.stack([reals[last] / max(reals[-1], 1), fakes[last] / max(fakes[-1], 1)], axis=1)
    return np.concatenate([[[0.0, 0.0]], points])


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _sheet(title: str, width: int, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw, int]:
    """A white picture with the title in as many lines as it needs; and where the space below begins."""
    lines, font = _wrapped(title, width - 2 * _MARGIN), _font(16)
    top = _MARGIN + 22 * len(lines) + 12
    sheet = Image.new("RGB", (width, top + height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(lines):
        draw.text((_MARGIN, _MARGIN + 22 * number), line, _INK, font)
    return sheet, draw, top


def _wrapped(text: str, width: int) -> list[str]:
    lines, font = [""], _font(16)
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _cells(title: str, spec: TrialSpec, scored: Scored) -> Image.Image:
    """A row per test generator, its AUROC and accuracy; then the means."""
    tested = list(generators_of(scored.scores))
    metrics = [metric for metric in ("auroc", "accuracy") if names.metric_name(tested[0], metric) in scored.metrics]
    words, tall, wide, left = {"auroc": "AUROC", "accuracy": "accuracy"}, 44, 130, 250
    sheet, draw, top = _sheet(title, max(left + wide * len(metrics) + _MARGIN, 560), tall * (len(tested) + 1) + 80)
    for column, metric in enumerate(metrics):
        draw.text((left + wide * column + wide / 2, top + 20), words[metric], _INK, _font(15), anchor="mm")
    for row, name in enumerate(tested):
        middle = top + tall * (row + 1) + tall / 2
        own = " (trained on it)" if name in spec.train_set else ""
        draw.text((_MARGIN, middle), f"{name}{own}", _INK, _font(15), anchor="lm")
        for column, metric in enumerate(metrics):
            value = scored.metrics[names.metric_name(name, metric)]
            box = (
                left + wide * column + 2,
                middle - tall / 2 + 2,
                left + wide * (column + 1) - 2,
                middle + tall / 2 - 2,
            )
            far = min(1.0, abs(value - 0.5) * 2)
            colour = 255 + far * ((_PURPLE if value >= 0.5 else _ORANGE) - 255)
            draw.rectangle(box, tuple(int(each) for each in colour), _INK if own else None, 2)
            ink = "#ffffff" if far > 0.55 else _INK
            draw.text(((box[0] + box[2]) / 2, middle), f"{value:.3f}", ink, _font(16), anchor="mm")
    below = top + tall * (len(tested) + 1) + 14
    means = summary_of_trial(spec.train_set, scored.metrics)
    for row, metric in enumerate(metrics):
        of_kind = {kind: means.get(names.summary_metric(kind, metric)) for kind in (IN_DOMAIN, CROSS_GENERATOR)}
        text = ", ".join(f"{kind} {value:.3f}" for kind, value in of_kind.items() if value is not None)
        draw.text((_MARGIN, below + 22 * row), f"{words[metric]}: {text}", _INK, _font(14))
    return sheet


def _confusion(title: str, scores: pd.DataFrame) -> Image.Image:
    """A row per true class, a column per answer: images, and their share of the class."""
    table = confusion_table(scores)
    classes, counts = list(map(str, table.index)), table.to_numpy()
    side, font = 64, _font(14)
    longest = int(max(font.getlength(name) for name in classes))
    left, head = max(longest + 2 * _MARGIN, 110), longest + 44
    words = f"{title}: {np.trace(counts)} of {counts.sum()} right"
    width, height = max(left + side * len(classes) + _MARGIN, 560), head + side * len(classes) + _MARGIN
    sheet, draw, top = _sheet(words, width, height)
    draw.text((left, top), "answered with", _FAINT, font)
    draw.text((_MARGIN, top + head - 12), "true class", _FAINT, font, anchor="lb")
    for number, name in enumerate(classes):
        upright = Image.new("RGB", (longest + 4, 20), _PAPER)
        ImageDraw.Draw(upright).text((0, 10), name, _INK, font, anchor="lm")
        sheet.paste(upright.rotate(90, expand=True), (left + side * number + side // 2 - 10, top + head - longest - 10))
        draw.text((_MARGIN, top + head + side * number + side / 2), name, _INK, font, anchor="lm")
    for (row, column), count in np.ndenumerate(counts):
        share = count / max(int(counts[row].sum()), 1)
        colour = 255 + share * (_BLUE - 255)
        across, down = left + side * column, top + head + side * row
        box = (across + 1, down + 1, across + side - 2, down + side - 2)
        draw.rectangle(box, tuple(int(each) for each in colour), _INK if row == column else None, 2)
        ink = _PAPER if share > 0.55 else _INK
        draw.text((across + side / 2, down + 22), f"{share:.0%}", ink, _font(16), anchor="mm")
        draw.text((across + side / 2, down + 44), str(count), ink, _font(12), anchor="mm")
    return sheet


def _roc(title: str, scores: pd.DataFrame) -> Image.Image:
    side, left = 420, 60
    generators = generators_of(scores)
    sheet, draw, top = _sheet(title, left + side + 300, side + 70)
    draw.rectangle((left, top, left + side, top + side), None, _FAINT, 1)
    draw.line((left, top + side, left + side, top), _FAINT, 1)
    for number, name in enumerate(generators):
        rows = scores[cell_rows(scores, name)]
        points = roc_points(rows["label"].to_numpy(), rows["score"].to_numpy(float))
        line = [(left + side * x, top + side * (1 - y)) for x, y in points]
        colour = _COLOURS[number % len(_COLOURS)]
        draw.line(line, colour, 3, joint="curve")
        area = float(np.trapezoid(points[:, 1], points[:, 0]))
        at = top + 14 + 26 * number
        draw.line((left + side + 16, at, left + side + 46, at), colour, 4)
        draw.text((left + side + 54, at), f"{name}: AUROC {area:.3f}", _INK, _font(14), anchor="lm")
    draw.text((left + side / 2, top + side + 30), "false positive rate", _INK, _font(14), anchor="mm")
    upright = Image.new("RGB", (side, 20), _PAPER)
    ImageDraw.Draw(upright).text((side / 2, 10), "true positive rate", _INK, _font(14), anchor="mm")
    sheet.paste(upright.rotate(90, expand=True), (left - 40, top))
    for share in (0.0, 0.5, 1.0):
        draw.text((left + side * share, top + side + 12), f"{share:g}", _INK, _font(12), anchor="mm")
        draw.text((left - 6, top + side * (1 - share)), f"{share:g}", _INK, _font(12), anchor="rm")
    return sheet


def _mistakes(title: str, manifest: Manifest, rows: pd.DataFrame, kind: str) -> Image.Image:
    """The pictures, each with what it is, what it was called (column `fake`), and its score."""
    shown: list[tuple[Image.Image, Sequence[str]]] = []
    columns = ["path", "generator", "label", "score", "fake"]
    for path, generator, label, score, fake in rows[columns].itertuples(index=False):
        try:
            picture = Image.fromarray(decode(manifest.file(str(path))))
        except (BadImage, OSError) as error:
            log.warning("%s is not among the pictures of the worst mistakes: %s", path, error)
            continue
        picture = ImageOps.contain(picture, (_SIDE, _SIDE))
        truth = f"fake by {generator}" if label == 1 else "real"
        shown.append((picture, (truth, f"called {'fake' if fake else 'real'}, {score:+.2f}")))
    what = "no mistake" if rows.empty else f"the most certain mistakes on test pictures ({kind})"
    if unread := len(rows) - len(shown):
        what += f"; {unread} of {len(rows)} pictures could not be read"
    step, tall = _SIDE + _MARGIN, _SIDE + 52
    lines = -(-len(shown) // _ACROSS)
    sheet, draw, top = _sheet(f"{title}: {what}", _MARGIN + step * _ACROSS, tall * lines + _MARGIN)
    for number, (picture, below) in enumerate(shown):
        left, down = _MARGIN + step * (number % _ACROSS), top + tall * (number // _ACROSS)
        sheet.paste(picture, (left, down))
        for row, text in enumerate(below):
            draw.text((left, down + _SIDE + 4 + 17 * row), text, _INK, _font(13))
    return sheet
