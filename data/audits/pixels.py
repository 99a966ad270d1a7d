"""Traces of saving and resizing that differ between real and fake, outside the mask where there is an original."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from data.audits import Evidence, Level, by_generator, register_audit
from data.audits._words import auroc, names, separation
from data.audits.masks import wrong_masks
from data.laundering import AS_JPEG
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


@register_audit("pixels", decodes=True)
def pixels(evidence: Evidence) -> Iterator[tuple[Level, str, str]]:
    """Compare each generator's fakes with their originals, or with the real images that they are tested against."""
    if evidence.measured is None:
        return
    rows = evidence.manifest.table.join(evidence.measured)
    rows = rows[rows["measured"]]
    for generator, fakes, reals in by_generator(rows):
        paired, wrong = fakes[fakes["paired"]], wrong_masks(fakes[fakes["paired"]])
        paired = paired[~wrong & (wrong.mean() <= _WRONG)]  # the audit of masks says which are wrong
        for level, text, remedy in _beside_originals(paired):
            yield level, f"{generator}: {text}", remedy
        others = fakes[~fakes["paired"] & fakes["traced"]]
        for level, text, remedy in _over_whole_images(others, reals[reals["traced"]]):
            yield level, f"{generator}: {text}", remedy


def _beside_originals(pairs: pd.DataFrame) -> Iterator[tuple[Level, str, str]]:
    equal = pairs[(pairs["changed_outside"].fillna(0) == 0) & (pairs["changed_inside"].fillna(0) == 0)]
    if len(equal):
        level: Level = "fail" if len(equal) > 0.05 * len(pairs) else "warn"
        text = f"{len(equal)} of {len(pairs)} fakes equal their original pixel by pixel ({names(equal)})"
        yield level, text, "find out which label is right, and remove the others"
    without_mask = pairs[pairs["mask"].isna()]
    if len(without_mask):
        yield from _laundered(without_mask, "over the whole image, without masks")
    changed = pairs[pairs["mask"].notna() & (pairs["changed_outside"] > _CHANGED)]
    if changed.empty:
        return
    share, amount = changed["changed_outside"].median(), changed["amount_outside"].median()
    numbers = (
        f"{share:.0%} of the pixels outside the mask differ from the original's, by {amount:.2g} levels on average"
    )
    if 2 * len(changed) < len(pairs):
        text = f"in {len(changed)} of {len(pairs)} pairs, {numbers} (medians; {names(changed)})"
        yield "warn", text, "look at these pictures: the mask, the original or the label may be of another picture"
        return
    text = f"{numbers} (medians; {len(changed)} of {len(pairs)} pairs){_alone(changed)}"
    remedy = "a detector need not look at the region; paste the original's pixels back outside the mask"
    yield ("note" if share < _SOFT else "warn"), text, remedy
    yield from _laundered(changed, "outside the mask")


def _alone(pairs: pd.DataFrame) -> str:
    """How well each number, measured outside the mask, separates the fakes from their originals."""
    words = []
    for column, what in (("blockiness", "blockiness at 8 px"), ("quality", "JPEG quality")):
        both = pairs[[column, f"{column}_original"]].dropna()
        if len(both) >= _FEWEST:
            words.append(f"{what} {separation(both[column], both[f'{column}_original']):.2f}")
    return f"; AUROC of one number alone there, fakes against originals: {', '.join(words)}" if words else ""


def _laundered(pairs: pd.DataFrame, where: str) -> Iterator[tuple[Level, str, str]]:
    """The ways of saving and resizing that all fakes of a generator went through."""
    tried = pairs[pairs["process"] != ""]
    # Nothing but JPEG changes pixels as JPEG does. A resize resembles any blur, so it must give the same pixels.
    as_jpeg = tried["process"].str.startswith(AS_JPEG) & (tried["reproduced"] >= BY_JPEG)
    hits = tried[as_jpeg | (tried["exact"] >= EXACT)]
    named = []
    if len(hits) and hits["process"].value_counts().iloc[0] > 1:
        process = hits["process"].mode().iloc[0]
        hits = hits[hits["process"] == process]
        found = f"the originals, {process}, give {hits['reproduced'].median():.0%} of what differs there"
        named.append(f"{found} ({len(hits)} of {len(tried)} pairs tried: {names(hits)})")
    both = pairs[["quality", "quality_original"]].dropna()
    traces = both[(both["quality"] < NO_JPEG) & (both["quality"] != both["quality_original"])]
    if len(both) >= _FEWEST and len(traces) and auroc(-both["quality"], -both["quality_original"]) >= SEPARATES:
        alone = auroc(-both["quality"], -both["quality_original"])
        quality = int(traces["quality"].median())
        words = f"the pixels there were saved as JPEG of quality {quality} (median), which the originals were not"
        named.append(f"{words}; this number alone separates real from fake with AUROC {alone:.2f}")
    periods = pairs.loc[pairs["changed_outside"] > _WHOLE, "frequency"].dropna()
    if len(periods) >= _FEWEST:
        values = periods.to_numpy(np.float64)
        one_step = 1.5 / float(pairs[["width", "height"]].to_numpy().min())
        shares = (np.abs(values[:, None] - values) < one_step).mean(axis=0)
        if shares.max() >= _SAME_PERIOD:
            period = 1 / values[shares.argmax()]
            words = f"sharpness there rises and falls every {period:.1f} px in {shares.max():.0%} of the pairs"
            named.append(f"{words}: the fakes were resampled")
    if named:
        yield (
            "fail",
            f"laundered {where}: {'; '.join(named)}",
            f"{_ALIKE}, or paste the original's pixels back",
        )


def _over_whole_images(fakes: pd.DataFrame, reals: pd.DataFrame) -> Iterator[tuple[Level, str, str]]:
    if fakes.empty:
        return
    yield "note", "no originals, so traces of saving and resizing are measured over whole images", ""
    for column, what in (("quality", "JPEG quality in the pixels"), ("blockiness", "blockiness at 8 px")):
        values = [rows[column].dropna() for rows in (fakes, reals)]
        if min(map(len, values)) < _FEWEST:
            continue
        alone = separation(*values)
        if alone >= SEPARATES:
            shown = [_shown(column, float(of_class.median())) for of_class in values]
            text = f"{what} alone separates real from fake with AUROC {alone:.2f} over whole images"
            # A generator has no trace of JPEG of its own; a grid of 8 px it may have.
            yield (
                "fail" if column == "quality" else "warn",
                f"{text} (medians: fake {shown[0]}, real {shown[1]}; {names(fakes)})",
                _ALIKE,
            )
    yield from _periodic(fakes, reals)


def _shown(column: str, value: float) -> str:
    return f"{value:.2f}" if column == "blockiness" else "none" if value == NO_JPEG else f"{value:.0f}"


def _periodic(fakes: pd.DataFrame, reals: pd.DataFrame) -> Iterator[tuple[Level, str, str]]:
    """A period that is chosen on training and validation images, and judged on test images."""
    both = pd.concat([fakes, reals])
    both = both[both["sharpness"].map(len) > 0]
    if both.empty:
        return
    sizes = both.groupby(["width", "height"]).size()
    width, height = sizes.index[int(sizes.to_numpy().argmax())]
    both = both[(both["width"] == width) & (both["height"] == height)]
    profiles = np.stack([np.frombuffer(profile, np.float16) for profile in both["sharpness"]]).astype(np.float64)
    is_fake, is_test = (both["label"] == 1).to_numpy(), (both["split"] == "test").to_numpy()
    parts = [profiles[(is_fake == fake) & (is_test == test)] for fake in (True, False) for test in (False, True)]
    if min(map(len, parts)) < _FEWEST:
        return
    fake, fake_test, real, real_test = parts
    frequency, _ = strongest_period(fake.mean(axis=0) - real.mean(axis=0), (width, height))
    wave = at_period((fake.mean(axis=0) - real.mean(axis=0))[None], (width, height), frequency)[0]
    along = [(at_period(some, (width, height), frequency) @ wave.conj()).real for some in (fake_test, real_test)]
    alone = auroc(*along)
    if alone >= SEPARATES:
        words = f"sharpness rises and falls every {1 / frequency:.1f} px, as after resizing"
        text = f"{words}; this number alone separates real from fake"
        yield (
            "warn",
            f"{text} with AUROC {alone:.2f} over whole test images of {width} x {height} px ({names(fakes)})",
            _ALIKE,
        )
