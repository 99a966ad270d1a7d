"""Traces of saving and resizing that differ between real and fake, outside the mask where there is an original."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from data.audits import Evidence, Found, Level, by_generator, register_audit
from data.audits.masks import wrong_masks
from data.laundering import AS_JPEG
from data.separation import Separation, separation
from data.sources.base import FAKE
from data.traces import NO_JPEG, at_period, strongest_period

SEPARATES = 0.95  # AUROC of one number alone, from which on it counts as a shortcut
# In two pairs, by the same process (docs/audit.md):
BY_JPEG = 0.2  # of the change is reproduced by saving as JPEG
EXACT = 0.98  # of the changed pixels are reproduced to 1 level
_CHANGED = 0.001  # of the pixels outside the mask; fewer count as none
_SOFT = 0.05  # likewise, in the median: so little is a soft border of the mask
_WRONG = 0.5  # of a generator's masks; where more are wrong, none says where pixels should be untouched
_WHOLE = 0.25  # of the pixels outside the mask; where fewer changed, the image was not resampled
_SAME_PERIOD = 0.8  # of the pairs (docs/audit.md)
_FEWEST = 10  # images per class, below which no AUROC is judged
_ALIKE = "save and resize real and fake in the same way, from the original files"
_PASTE = "put the original's pixels back outside the mask: --train-condition paste-back --conditions paste-back"
_ALONE = "how well this one number alone separates real from fake:"
_WHAT = {"blockiness": "blockiness at 8 px", "quality": "JPEG quality in the pixels"}

_Words = tuple[str, pd.DataFrame, Mapping[str, float]]  # what was found, the images that show it, its numbers


@register_audit("pixels", decodes=True)
def pixels(evidence: Evidence) -> Iterator[Found]:
    """Compare each generator's fakes with their originals, or with the real images that they are tested against."""
    if evidence.measured is None:
        return
    rows = evidence.manifest.table.join(evidence.measured)
    rows = rows[rows["measured"]]
    for generator, fakes, reals in by_generator(rows):
        paired, wrong = fakes[fakes["paired"]], wrong_masks(fakes[fakes["paired"]])
        paired = paired[~wrong & (wrong.mean() <= _WRONG)]  # the audit of masks says which are wrong
        others = fakes[~fakes["paired"] & fakes["traced"]]
        for level, text, *rest in (
            *_beside_originals(paired),
            *_over_whole_images(others, reals[reals["traced"]]),
        ):
            yield level, f"{generator}: {text}", *rest


def _beside_originals(pairs: pd.DataFrame) -> Iterator[Found]:
    equal = pairs[(pairs["changed_outside"].fillna(0) == 0) & (pairs["changed_inside"].fillna(0) == 0)]
    if len(equal):
        level: Level = "fail" if len(equal) > 0.05 * len(pairs) else "warn"
        text = f"{len(equal)} of {len(pairs)} fakes equal their original pixel by pixel"
        remedy = "find out which label is right, and remove the others"
        yield level, text, remedy, _files(equal), {"equal": len(equal), "pairs": len(pairs)}
    without_mask = pairs[pairs["mask"].isna()]
    if len(without_mask):
        share, amount = without_mask["changed_outside"].median(), without_mask["amount_outside"].median()
        text = f"{share:.0%} of all pixels differ from the original's, by {amount:.2g} levels on average (medians)"
        numbers = {"pairs": len(without_mask), "share": share, "levels": amount}
        why = "no masks, so nothing says which pixels should be the original's"
        yield "note", f"{why}; {text}{_each_alone(without_mask, numbers)}", "", _files(without_mask), numbers
        yield from _laundered(without_mask, "over the whole image, without masks", _ALIKE)
    changed = pairs[pairs["mask"].notna() & (pairs["changed_outside"] > _CHANGED)]
    if changed.empty:
        return
    share, amount = changed["changed_outside"].median(), changed["amount_outside"].median()
    words = f"{share:.0%} of the pixels outside the mask differ from the original's, by {amount:.2g} levels on average"
    numbers = {"pairs": len(pairs), "changed": len(changed), "share_outside": share, "levels_outside": amount}
    if 2 * len(changed) < len(pairs):
        text = f"in {len(changed)} of {len(pairs)} pairs, {words} (medians)"
        remedy = "look at these pictures: the mask, the original or the label may be of another picture"
        yield "warn", text, remedy, _files(changed), numbers
        return
    text = f"{words} (medians; {len(changed)} of {len(pairs)} pairs)"
    text += _each_alone(changed, numbers)
    remedy = f"a detector need not look at the region; {_PASTE}"
    yield ("note" if share < _SOFT else "warn"), text, remedy, _files(changed), numbers
    yield from _laundered(changed, "outside the mask", f"{_ALIKE}, or {_PASTE}")


def _each_alone(pairs: pd.DataFrame, numbers: dict[str, float]) -> str:
    """In words, which number by itself separates the fakes from their originals; adds each of them to `numbers`."""
    text = ""
    for column, what in _WHAT.items():
        if alone := _alone(pairs, column):
            numbers |= _numbers(column, alone.directed)
            if alone.directed.low > 0.5:
                text += f"; {what} there: {_ALONE} {alone.directed}"
    return text


def _alone(pairs: pd.DataFrame, column: str) -> Separation | None:
    """How well a number, measured outside the mask, separates the fakes from their originals; None: too few pairs."""
    both = pairs[[column, f"{column}_original", "source_id"]].dropna()
    if len(both) < _FEWEST:
        return None
    values = np.concatenate([both[column], both[f"{column}_original"]])
    return separation(values, np.arange(len(values)) < len(both), np.tile(both["source_id"], 2))


def _laundered(pairs: pd.DataFrame, where: str, remedy: str) -> Iterator[Found]:
    """The ways of saving and resizing that all fakes of a generator went through."""
    named = [*_reproduced(pairs), *_saved_as_jpeg(pairs), *_resampled(pairs)]
    if named:
        files = dict.fromkeys(path for _, images, _ in named for path in _files(images))
        numbers = {name: value for _, _, those in named for name, value in those.items()}
        yield "fail", f"laundered {where}: {'; '.join(words for words, _, _ in named)}", remedy, list(files), numbers


def _reproduced(pairs: pd.DataFrame) -> Iterator[_Words]:
    """A way of saving or resizing that, applied to the originals, gives the fakes."""
    tried = pairs[pairs["process"] != ""]
    # Nothing but JPEG changes pixels as JPEG does. A resize resembles any blur, so it must give the same pixels.
    as_jpeg = tried["process"].str.startswith(AS_JPEG) & (tried["reproduced"] >= BY_JPEG)
    hits = tried[as_jpeg | (tried["exact"] >= EXACT)]
    counts = hits["process"].value_counts()
    if len(counts) and counts.iloc[0] > 1:
        hits = hits[hits["process"] == counts.index[0]]
        share, exact = hits["reproduced"].median(), hits["exact"].median()
        gives = f"{share:.0%} of what differs" if share >= BY_JPEG else f"{exact:.0%} of the changed pixels to 1 level"
        words = f"the originals, {counts.index[0]}, give {gives} there ({len(hits)} of {len(tried)} pairs tried)"
        numbers = {"tried": len(tried), "reproduced": len(hits), "share_reproduced": share, "share_exact": exact}
        yield words, hits, numbers


def _saved_as_jpeg(pairs: pd.DataFrame) -> Iterator[_Words]:
    """A trace of JPEG that the fakes have and their originals have not."""
    traces = pairs[(pairs["quality"] < NO_JPEG) & (pairs["quality"] != pairs["quality_original"])]
    alone = _alone(pairs, "quality")
    if len(traces) and alone and alone.auroc <= 1 - SEPARATES:  # the fakes have the lower qualities
        quality = traces["quality"].median()
        words = f"the pixels there were saved as JPEG of quality {quality:.0f} (median), which the originals were not"
        numbers = {"jpeg_quality": quality} | _numbers("quality", alone.directed)
        yield f"{words}; {_ALONE} {alone.directed}", traces, numbers


def _resampled(pairs: pd.DataFrame) -> Iterator[_Words]:
    """A period of sharpness that nearly all fakes have in common beside their originals."""
    known = pairs[(pairs["changed_outside"] > _WHOLE) & pairs["frequency"].notna()]
    if len(known) < _FEWEST:
        return
    values = known["frequency"].to_numpy(np.float64)
    one_step = 1.5 / float(pairs[["width", "height"]].to_numpy().min())
    near = np.abs(values[:, None] - values) < one_step
    shares = near.mean(axis=0)
    if shares.max() >= _SAME_PERIOD:
        period, share = 1 / values[shares.argmax()], shares.max()
        words = f"sharpness there rises and falls every {period:.1f} px in {share:.0%} of the pairs"
        numbers = {"period": period, "share_with_period": share}
        yield f"{words}: the fakes were resampled", known[near[shares.argmax()]], numbers


def _over_whole_images(fakes: pd.DataFrame, reals: pd.DataFrame) -> Iterator[Found]:
    if fakes.empty:
        return
    yield "note", "no originals, so traces of saving and resizing are measured over whole images", ""
    both = pd.concat([fakes, reals])
    for column in ("quality", "blockiness"):
        rows = both[both[column].notna()]
        fake = (rows["label"] == FAKE).to_numpy()
        if min(fake.sum(), (~fake).sum()) < _FEWEST:
            continue
        alone = separation(rows[column].to_numpy(), fake, rows["source_id"].to_numpy()).directed
        if alone.auroc >= SEPARATES:
            medians = [float(rows.loc[which, column].median()) for which in (fake, ~fake)]
            shown = [_shown(column, median) for median in medians]
            text = f"{_WHAT[column]} over whole images: {_ALONE} {alone} (medians: fake {shown[0]}, real {shown[1]})"
            numbers = {"median_of_fakes": medians[0], "median_of_reals": medians[1]} | _numbers(column, alone)
            # A generator has no trace of JPEG of its own; a grid of 8 px it may have.
            yield "fail" if column == "quality" else "warn", text, _ALIKE, _files(rows[fake]), numbers
    yield from _periodic(both[both["sharpness"].map(len) > 0])


def _periodic(both: pd.DataFrame) -> Iterator[Found]:
    """A period that is chosen on training and validation images, and judged on test images."""
    if both.empty:
        return
    sizes = both.groupby(["width", "height"]).size()
    size = width, height = sizes.index[int(sizes.to_numpy().argmax())]
    both = both[(both["width"] == width) & (both["height"] == height)]
    profiles = np.stack([np.frombuffer(profile, np.float16) for profile in both["sharpness"]]).astype(np.float64)
    fake, test = (both["label"] == FAKE).to_numpy(), (both["split"] == "test").to_numpy()
    if min(int((fake_or_real & some).sum()) for fake_or_real in (fake, ~fake) for some in (test, ~test)) < _FEWEST:
        return
    difference = profiles[fake & ~test].mean(axis=0) - profiles[~fake & ~test].mean(axis=0)
    frequency, _ = strongest_period(difference, size)
    wave = at_period(difference[None], size, frequency)[0]
    along = (at_period(profiles[test], size, frequency) @ wave.conj()).real
    alone = separation(along, fake[test], both.loc[test, "source_id"].to_numpy())
    if alone.auroc >= SEPARATES:
        words = (
            f"over whole test images of {width} x {height} px, sharpness rises and falls every {1 / frequency:.1f} px"
        )
        text = f"{words}, as after resizing: {_ALONE} {alone}"
        yield "warn", text, _ALIKE, _files(both[fake & test]), {"period": 1 / frequency} | _numbers("period", alone)


def _shown(column: str, value: float) -> str:
    return f"{value:.2f}" if column == "blockiness" else "none" if value == NO_JPEG else f"{value:.0f}"


def _files(rows: pd.DataFrame) -> list[str]:
    return rows["path"].tolist()


def _numbers(name: str, alone: Separation) -> dict[str, float]:
    return {f"{name}_{key}": value for key, value in alone.numbers.items()}
