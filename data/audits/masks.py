"""Masks that do not say where an image is fake: saved as 0 and 1, empty, full, inverted, copies, of another picture."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from data.audits import Evidence, Finding, Found, Level, register_audit
from data.images import MASK_RULE
from data.sources import get_source, list_sources
from data.sources.base import FAKE, WHITE_FAKE

if TYPE_CHECKING:
    from data.manifest import Manifest

FEW = 0.05  # of a generator's masks; so many may be wrong before its localisation is
_ALIKE = 4  # masks, from which on it is said that all are the same
_ALL = 0.75  # share of the pixels; in a region that a generator made, more are changed
_REGION = 0.5  # share of the pixels outside the mask; where more are changed, it is the whole image
_INVERTED = 1 / 3  # share of the inside in (mean change inside + mean change outside), below which a mask is inverted
_AS_MUCH = 0.7
_SOFT = 0.05  # share of the pixels outside the mask; so little is a soft border of the mask
_HELD = 0.7  # share of the whole change that a mask must hold, where only a region changed


@register_audit("masks", decodes=True)
def masks(evidence: Evidence) -> Iterator[Found]:
    """Look at every mask, and, where there is an original, at whether the change lies in it."""
    if evidence.measured is None:
        return
    table = evidence.manifest.table
    rows = table.join(evidence.measured.drop(columns=["sample", "sample_mask", "sharpness"]))
    rows = rows[(rows["label"] == FAKE) & rows["mask_share"].notna()]
    pictures, source = set(table["digest"]), evidence.manifest.source
    can_say = source in list_sources() and "mask_white" in get_source(source).options
    for generator, of_generator in rows.groupby("generator"):
        for level, text, *rest in _of_generator(of_generator, pictures, can_say=can_say):
            yield level, f"{generator}: {text}", *rest


def untrusted_masks(manifest: Manifest) -> dict[str, str]:
    """The generators whose masks must not be used, by the findings that are stored with a manifest.

    Returns:
        generator -> what is wrong with its masks, in words.
    """
    return doubted(manifest.findings, manifest.generators)


def doubted(findings: Iterable[Finding], generators: Iterable[str]) -> dict[str, str]:
    """The same, by findings of all audits."""
    wrong = [finding.text for finding in findings if finding.audit == "masks" and finding.level != "note"]
    return {
        generator: text.removeprefix(f"{generator}: ")
        for generator in generators
        for text in reversed(wrong)
        if text.startswith(f"{generator}: ")
    }


def _of_generator(rows: pd.DataFrame, pictures: set[str], *, can_say: bool) -> Iterator[Found]:
    """Findings; with `can_say`, a user of the corpus says what white in a mask means."""
    total = len(rows)
    white = rows["mask_white"] == WHITE_FAKE if "mask_white" in rows else pd.Series(data=False, index=rows.index)
    fake, opposite, kept = ("white", "white", "black") if white.mean() > 0.5 else ("dark", "black", "white")
    full = rows["mask_share"] == 1
    dark = full & (rows["mask_highest"] == 1) & ~white
    copies = rows["mask_digest"].isin(pictures) | (rows["mask_pixels"] == rows["pixels"])
    kinds = (
        (dark, "saved with the levels 0 and 1 (so every pixel counts as fake)", "save them with the levels 0 and 255"),
        (full & ~dark & ~copies, "full: every pixel counts as fake", f"give masks {kept} where nothing changed"),
        (rows["mask_share"] == 0, "empty: no pixel counts as fake", f"give masks {fake} where the image is fake"),
        (copies, "copies of pictures", f"give masks {opposite} where the image is fake, {kept} elsewhere"),
    )  # fmt: skip
    for which, what, remedy in kinds:
        if which.any():
            yield _wrong(rows, which, what, remedy)
    if (ones := white & (rows["mask_highest"] == 1)).any():
        text = f"{ones.sum()} of {total} {'mask has' if total == 1 else 'masks have'} the levels 0 and 1"
        yield "note", text, "1 counts as white", _files(rows[ones]), {"masks": total, "ones": ones.sum()}
    rows = rows[~full & ~copies & (rows["mask_share"] > 0)]
    judged = rows[rows["paired"] & (rows["amount_inside"] + rows["amount_outside"] > 0)]
    inside, outside, held = judged["amount_inside"], judged["amount_outside"], _held(judged)
    inverted, elsewhere = _inverted(judged), _elsewhere(judged)
    if inverted.any():
        amounts = {"levels_inside": inside[inverted].mean(), "levels_outside": outside[inverted].mean()}
        shown = f"{amounts['levels_inside']:.2g} levels inside the mask and {amounts['levels_outside']:.2g} outside"
        what = f"inverted: on average, the pixels differ from the original's by {shown}"
        remedy = "invert them: white is unchanged, black is fake"
        if fake == "white":
            remedy = "say that white means kept (in a list: mask_white), or invert them: white is fake"
        elif can_say:
            remedy = f"say that white means fake (in a list: mask_white), or {remedy}"
        yield _wrong(judged, inverted, what, remedy, amounts)
    if elsewhere.any():
        share = held[elsewhere].mean()
        what = f"of another place: they hold {share:.0%} of the change on average"
        yield _wrong(judged, elsewhere, what, "give the masks that belong to the images", {"share_held": share})
    if total >= _ALIKE and rows["mask_digest"].nunique() == 1 and len(rows) == total:
        inside_alone = len(judged) > 0 and bool((judged["changed_outside"] == 0).all())
        words = "and nothing else changed" if inside_alone else "and nothing shows that the change lies in it"
        level: Level = "note" if inside_alone else "warn"
        remedy = "" if inside_alone else "give a mask for each image"
        yield level, f"all {total} masks are the same, {words}", remedy, _files(rows), {"masks": total}
    grey = rows["mask_levels"] > 2
    if grey.mean() > FEW:
        levels = rows.loc[grey, "mask_levels"].median()
        text = f"{grey.sum()} of {total} masks have grey levels ({levels:.0f} in the median)"
        numbers = {"masks": total, "grey": grey.sum(), "levels": levels}
        yield "note", text, MASK_RULE.rstrip("."), _files(rows[grey]), numbers


def _held(rows: pd.DataFrame) -> pd.Series:
    """The share of the whole change that lies in the mask."""
    inside, outside = rows["amount_inside"] * rows["mask_share"], rows["amount_outside"] * (1 - rows["mask_share"])
    return inside / (inside + outside)


def _inverted(rows: pd.DataFrame) -> pd.Series:
    inside, outside = rows["amount_inside"], rows["amount_outside"]
    return (inside / (inside + outside) < _INVERTED) & (rows["changed_outside"] > _ALL)


def _elsewhere(rows: pd.DataFrame) -> pd.Series:
    if rows["changed_outside"].median() >= _SOFT and (_held(rows) < _HELD).mean() < 0.5:
        # Most images changed outside of masks that are right, as laundered ones do: it says nothing of the others.
        return pd.Series(data=False, index=rows.index)
    region = (rows["changed_outside"] < _REGION) & (rows["changed_inside"] < _ALL)
    # The pixels that changed outside must have changed as much as those inside: saving as JPEG changes them less.
    sizes = [rows[f"amount_{where}"] / rows[f"changed_{where}"] for where in ("inside", "outside")]
    return region & (_held(rows) < _HELD) & ~(sizes[1] < _AS_MUCH * sizes[0])


def wrong_masks(rows: pd.DataFrame) -> pd.Series:
    """Which fakes have a mask that, beside the original, is wrong or says nothing: bool.

    Args:
        rows: rows of the manifest with the columns that `data.measure.measure` returns.
    """
    judged = rows["paired"] & (rows["amount_inside"] + rows["amount_outside"] > 0)
    meaningless = rows["mask_share"].isin([0.0, 1.0]) | (rows["mask_pixels"] == rows["pixels"])
    return meaningless | (judged & (_inverted(rows) | _elsewhere(rows)))


def _wrong(
    rows: pd.DataFrame, which: pd.Series, what: str, remedy: str, numbers: Mapping[str, float] | None = None
) -> Found:
    """The finding that some of these masks are wrong."""
    count, total = int(which.sum()), len(rows)
    text = f"{count} of {total} {'mask is' if total == 1 else 'masks are'} {what}"
    files = _files(rows[np.asarray(which)])
    return (
        "warn" if count > FEW * total else "note",
        text,
        remedy,
        files,
        {"masks": total, "wrong": count, **(numbers or {})},
    )


def _files(rows: pd.DataFrame) -> list[str]:
    return rows["mask"].tolist()
