"""What file headers give away, without a pixel: properties of files that differ between real and fake.

A detector could learn such a difference instead of a generator's traces. Three things are looked at, for each
generator's fakes against the real images that they are tested against, over all splits:

- each fact by itself: format, size, pixel type, JPEG quantisation, colour profile, metadata;
- a small decision tree on all these facts, cross-validated so that all versions of a photograph are in one fold;
- bytes per pixel, by themselves. They follow from what a picture shows, too, so they never make a "fail".

The bounds were chosen on clean data: the demo (460 photographs with 4 fakes each, 64 px) and 100 CelebA-HQ photographs
with regions repainted in four ways (256 px), as wholes and as five random halves each. Their facts are alike in all
files (AUROC .500). Of bytes per pixel the largest lower end of an interval was .861, by the demo's `renoise`, which
changes whole pictures; by any other generator it was .619. With "above .90" a "fail" of the tree takes at least 36
photographs: of fewer, even a perfect ranking has an interval that begins lower.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

from data.audits import Evidence, Found, Level, by_generator, register_audit
from data.separation import Separation, separation
from data.sources.base import FAKE

FACTS = {
    "format": "file format",
    "size": "image size",
    "mode": "pixel type on disk",
    "quantisation": "JPEG quantisation",
    "profile": "colour profile",
    "metadata": "metadata",
}
WITHIN_FORMATS = ("quantisation", "metadata")  # these follow from the format, so only equal formats are compared
SHARE_THAT_MATTERS = 0.05  # of the images; a smaller difference counts as chance
TIMES_CHANCE = 2  # a difference counts if it is so many times as large as the mean difference by chance

FAIL_ABOVE = 0.90  # lower end of the interval of the tree's AUROC
WARN_ABOVE = 0.60
BYTES_WARN_ABOVE = 0.90  # lower end of the interval of the AUROC of bytes per pixel
BYTES_NOTE_ABOVE = 0.70

ALIKE = "save real and fake alike, or give --equalise jpeg-95: both as JPEG, in training and in test"

MOST_IMAGES = 20_000  # of a class and generator that the tree and the AUROC see
FOLDS = 5
_MOST_VALUES = 20  # of a fact that the tree tells apart; the most frequent ones
_LEAVES, _LEAF = 16, 0.01  # leaves of the tree; share of the images in each at least
_SHOWN_VALUES, _SHOWN_FILES = 3, 5


@register_audit("headers")
def headers(evidence: Evidence) -> Iterator[Found]:
    """Compare each generator's fakes with the real images that they are tested against, and with other fakes."""
    table = _described(evidence.manifest.table)
    columns = [column for column in FACTS if column in table.columns and len(table[column].cat.categories) > 1]
    differences: dict[tuple[str, str], list[_One]] = {}
    by_tree: dict[Level, list[_One]] = {}
    by_bytes: dict[Level, list[_One]] = {}
    for generator, fakes, reals in by_generator(table):
        if fakes.empty or reals.empty:
            continue
        own = []
        for column in columns:
            if difference := _difference(fakes, reals, column):
                own.append(column)
                shown, files, share = difference
                numbers = {f"{generator}: share that differs": share}
                differences.setdefault((column, shown), []).append(_One(generator, files, numbers))
        rows = pd.concat([_sampled(fakes), _sampled(reals)])
        part = f" (of {MOST_IMAGES:,} images per class)" if max(len(fakes), len(reals)) > MOST_IMAGES else ""
        result = _tree(rows, columns)
        if result.low > WARN_ABOVE:
            which = f" by {', '.join(FACTS[column] for column in own)}" if own else ""
            one = _One(f"{generator}{which} {result}{part}", _examples(fakes, reals), _numbers(generator, result))
            by_tree.setdefault("fail" if result.low > FAIL_ABOVE else "warn", []).append(one)
        if not own and "num_bytes" in rows.columns:  # bytes per pixel follow from other facts that differ
            result = bytes_per_pixel(rows)
            medians = [
                f"{(each['num_bytes'] / (each['width'] * each['height'])).median():.3g}" for each in (fakes, reals)
            ]
            words = f"{generator} (median {medians[0]}, real {medians[1]}) {result}{part}"
            if result.low > BYTES_NOTE_ABOVE:
                level: Level = "warn" if result.low > BYTES_WARN_ABOVE else "note"
                by_bytes.setdefault(level, []).append(_One(words, [], _numbers(generator, result)))
    for (column, shown), those in differences.items():
        text = f"fakes of {_joined(those, ', ')} differ from real images in {FACTS[column]} ({shown})"
        yield "warn", text, f"a detector can learn that instead; {ALIKE}", *_evidence(those)
    for level, those in by_tree.items():
        text = f"file headers alone, without a pixel, tell fakes from real images: {_joined(those, '; ')}"
        yield level, text, ALIKE, *_evidence(those)
    for level, those in by_bytes.items():
        text = f"bytes per pixel alone tell fakes from real images: {_joined(those, '; ')}"
        remedy = "check that real and fake were saved by the same program with the same settings"
        yield level, text, remedy if level == "warn" else "", *_evidence(those)
    reported = {column for column, _ in differences}
    yield from _between_generators(table, [column for column in columns if column not in reported])


class _One(NamedTuple):
    """What a finding on several generators says of one of them."""

    words: str
    files: list[str]
    numbers: dict[str, float]


def _joined(those: list[_One], separator: str) -> str:
    return separator.join(one.words for one in those)


def _evidence(those: list[_One]) -> tuple[list[str], dict[str, float]]:
    """Files, in turn of each generator, and numbers of all."""
    turns = itertools.zip_longest(*(one.files for one in those))
    files = dict.fromkeys(file for turn in turns for file in turn if file is not None)
    return list(files), {name: value for one in those for name, value in one.numbers.items()}


def _numbers(generator: str, result: Separation) -> dict[str, float]:
    return {f"{generator}: {name}": value for name, value in result.numbers.items()}


def _described(table: pd.DataFrame) -> pd.DataFrame:
    """What is looked at, each fact as a category; no colour profile, or no metadata, is "none"."""
    columns = ["path", "label", "generator", "source_id", "width", "height", "num_bytes", *FACTS]
    described = table[[column for column in columns if column in table.columns]].copy()
    sizes = pd.MultiIndex.from_frame(table[["width", "height"]])
    numbers, unique = sizes.factorize(sort=True)
    names = pd.Index([f"{width} x {height}" for width, height in unique])
    described["size"] = pd.Categorical.from_codes(numbers, names)
    for column in FACTS.keys() & set(described.columns) - {"size"}:
        described[column] = described[column].astype("category")
        if column in ("profile", "metadata"):
            described[column] = described[column].cat.rename_categories({"": "none"})
    return described


def _difference(some: pd.DataFrame, others: pd.DataFrame, column: str) -> tuple[str, list[str], float] | None:
    """How the values of a fact differ between two groups of images; None: no more than by chance.

    Returns:
        the most frequent values of both groups, in words; files that have what the other group has less often; the
        share of the images that differs.
    """
    if column in WITHIN_FORMATS:
        formats = set(some["format"].unique()) & set(others["format"].unique())
        some, others = (rows[rows["format"].isin(formats)] for rows in (some, others))
    values = some[column].cat.categories
    counts = [np.bincount(rows[column].cat.codes, minlength=len(values)) * (values != "") for rows in (some, others)]
    totals = [int(count.sum()) for count in counts]
    if not all(totals):
        return None
    shares = [count / total for count, total in zip(counts, totals, strict=True)]
    more, pooled = shares[0] - shares[1], (shares[0] + shares[1]) / 2
    share = float(np.abs(more).sum() / 2)
    # the mean of |difference| of two shares of the same p is sqrt(2 / pi) standard errors
    chance = float(np.sqrt(2 / np.pi * pooled * (1 - pooled) * (1 / totals[0] + 1 / totals[1])).sum() / 2)
    if share <= SHARE_THAT_MATTERS or share <= TIMES_CHANCE * chance:
        return None
    shown = []
    for own in shares:
        first = [number for number in np.argsort(-own, kind="stable")[:_SHOWN_VALUES] if own[number] > 0]
        shown.append(", ".join(f"{values[number]} {own[number]:.0%}" for number in first))
    files = [
        str(path)
        for rows, sign in ((some, 1), (others, -1))
        for path in rows.loc[(sign * more > 0)[rows[column].cat.codes], "path"].head(_SHOWN_FILES)
    ]
    return " against ".join(shown), files, share


def _tree(rows: pd.DataFrame, columns: list[str]) -> Separation:
    """How well a tree on these facts separates fakes of photographs that it has not seen."""
    columns = [column for column in columns if rows[column].nunique() > 1]
    scores = _cross_validated(rows, columns) if columns else np.zeros(len(rows))
    return separation(scores, (rows["label"] == FAKE).to_numpy(), rows["source_id"].to_numpy())


def fitted_scores(table: pd.DataFrame, fitted_on: np.ndarray) -> np.ndarray:
    """Log-odds of fake for every image by a tree on the facts of file headers and bytes per pixel: float64 (N,).

    Both classes weigh the same. A share of fakes counts as at least 1 % and at most 99 %.

    Args:
        table: of a manifest.
        fitted_on: bool (N,), the images that the tree is fitted on; real and fake.
    """
    from sklearn.tree import DecisionTreeClassifier

    rows = _described(table)
    columns = [column for column in FACTS if column in rows.columns and rows[column].nunique() > 1]
    parts = [(rows["num_bytes"] / (rows["width"] * rows["height"])).to_numpy(np.float32)[:, None]]
    if columns:
        numbers, features = _grouped(rows, columns)
        parts.append(features[numbers])
    facts, fake = np.concatenate(parts, axis=1), (rows["label"] == FAKE).to_numpy()
    tree = DecisionTreeClassifier(
        max_leaf_nodes=_LEAVES, min_weight_fraction_leaf=_LEAF, class_weight="balanced", random_state=0
    )
    tree.fit(facts[fitted_on], fake[fitted_on])
    share = tree.predict_proba(facts)[:, 1].clip(0.01, 0.99)
    return np.log(share / (1 - share))


def bytes_per_pixel(rows: pd.DataFrame) -> Separation:
    """How well bytes per pixel separate fakes from real images, in whichever direction: an AUROC of at least 0.5."""
    values = (rows["num_bytes"] / (rows["width"] * rows["height"])).to_numpy(dtype=np.float64)
    return separation(values, (rows["label"] == FAKE).to_numpy(), rows["source_id"].to_numpy()).directed


def _between_generators(table: pd.DataFrame, columns: list[str]) -> Iterator[Found]:
    """Facts that tell generators apart though each generator has them in common with its own real images."""
    fakes = table[table["label"] == FAKE]
    generators = sorted(fakes["generator"].unique())
    for column in columns:
        differences = {}
        for generator in generators:
            own = fakes["generator"] == generator
            if difference := _difference(fakes[own], fakes[~own], column):
                differences[str(generator)] = difference
        if differences:
            shown, files, share = next(iter(differences.values()))
            listed = ", ".join(differences)
            text = f"generators differ in {FACTS[column]} ({listed}; the first against the others: {shown})"
            yield "note", text, "attribution can learn that instead", files, {"share that differs": share}


def _sampled(rows: pd.DataFrame) -> pd.DataFrame:
    """At most `MOST_IMAGES` of these, by a hash of the photograph: a fake and its original are chosen together."""
    if len(rows) <= MOST_IMAGES:
        return rows
    return rows.iloc[np.argsort(_hashed(rows["source_id"]), kind="stable")[:MOST_IMAGES]]


def _examples(fakes: pd.DataFrame, reals: pd.DataFrame) -> list[str]:
    return [*fakes["path"].head(_SHOWN_FILES), *reals["path"].head(_SHOWN_FILES)]


def _hashed(names: pd.Series[str]) -> np.ndarray:
    """Uint64 (N,), the same on every machine."""
    hashes: np.ndarray = pd.util.hash_array(names.to_numpy(dtype=object))
    return hashes


def _cross_validated(rows: pd.DataFrame, columns: list[str]) -> np.ndarray:
    """Float (N,): the share of fakes in an image's leaf of a tree that saw no image of its photograph.

    Images with the same facts are one row for the tree, with their number as its weight; both classes weigh the same.
    Each fold has a tree of its own, whose shares differ a little, which makes the AUROC of few images a little too low.
    """
    from sklearn.tree import DecisionTreeClassifier

    numbers, features = _grouped(rows, columns)
    fake, fold = (rows["label"] == FAKE).to_numpy(), (_hashed(rows["source_id"]) % FOLDS).astype(int)
    shares = np.full((FOLDS, len(features)), 0.5)
    for number in range(FOLDS):
        seen = fold != number
        counts = [np.bincount(numbers[seen & (fake == label)], minlength=len(features)) for label in (False, True)]
        if not all(count.any() for count in counts):
            continue
        weights = np.concatenate([count / count.sum() for count in counts])
        tree = DecisionTreeClassifier(max_leaf_nodes=_LEAVES, min_weight_fraction_leaf=_LEAF, random_state=0)
        labels = np.repeat([False, True], len(features))
        tree.fit(np.concatenate([features, features])[weights > 0], labels[weights > 0], weights[weights > 0])
        shares[number] = tree.predict_proba(features)[:, 1]
    return shares[fold, numbers]


def _grouped(rows: pd.DataFrame, columns: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """(int (N,), float32 (G, F)): each image's group of equal facts, and the facts of each group as numbers."""
    codes = np.stack([rows[column].cat.codes for column in columns], axis=1)
    _, first, numbers = np.unique(codes, axis=0, return_index=True, return_inverse=True)
    groups = rows.iloc[first]
    features = [groups["width"], groups["height"]]
    for column in columns:
        if column != "size":
            values = rows[column].value_counts().index[:_MOST_VALUES]
            features += [groups[column] == value for value in values]
    return numbers.reshape(-1), np.stack(features, axis=1).astype(np.float32)
