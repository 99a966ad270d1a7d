"""The splits of a table of images: which generators can be trained on, validation images, leaks, limits."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Collection

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from data.sources.base import FAKE, REAL, SHARED_REAL, SPLITS, Problem, owner_of_reals, owners_of_reals

TRAIN, VALID, TEST = SPLITS
VALID_SHARE = 0.1  # of the photographs, where they are split by chance or validation is taken from training images
_TRAIN_SHARE = 0.8  # of the photographs that are split by chance
_LEADING_ZEROS = re.compile(r"(?<![\d.])0+(?=\d)")  # not behind a point: x1.05 and x1.5 are two numbers
_LEADING_ZEROS_RE2 = r"(^|[^\d.])0+(\d)"  # the same for ASCII, without looking behind or ahead

Group = tuple[str, str, int]  # generator, split, label


def groups_of(table: pd.DataFrame) -> set[Group]:
    """The groups (generator, split, label) that have an image."""
    groups = table[["generator", "split", "label"]].drop_duplicates()
    return set(zip(groups["generator"], groups["split"], groups["label"].tolist(), strict=True))


def sizes_of_groups(table: pd.DataFrame) -> dict[Group, int]:
    """The number of images of each group that has one."""
    sizes = table.groupby(["generator", "split", "label"]).size().reset_index(name="size")
    columns = (sizes[name].tolist() for name in ("generator", "split", "label"))
    return dict(zip(zip(*columns, strict=True), sizes["size"].tolist(), strict=True))


def trained_on(table: pd.DataFrame) -> set[str]:
    """The generators with fakes in training and in validation: a detector can be trained on these."""
    groups = groups_of(table)
    return {name for name, split, label in groups if (split, label) == (TRAIN, FAKE) and (name, VALID, FAKE) in groups}


def tested_on(table: pd.DataFrame) -> set[str]:
    """The generators with fakes in the test split."""
    return {name for name, split, label in groups_of(table) if (split, label) == (TEST, FAKE)}


def without_training(table: pd.DataFrame) -> tuple[str, ...]:
    """The generators with test fakes and without training fakes, sorted."""
    groups = groups_of(table)
    return tuple(sorted(name for name in tested_on(table) if (name, TRAIN, FAKE) not in groups))


def without_tests(table: pd.DataFrame) -> tuple[str, ...]:
    """The generators with training fakes and without test fakes, sorted; empty if no generator has test fakes."""
    trained = {name for name, split, label in groups_of(table) if (split, label) == (TRAIN, FAKE)}
    tested = tested_on(table)
    return tuple(sorted(trained - tested)) if tested else ()


def take_validation(table: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Take validation images from the training images of generators that have none, and of their real images.

    A hash of the source id says which: about `VALID_SHARE` of the photographs, at least one. All training images of
    such a photograph move, so that it is in one split.

    Args:
        table: columns label, generator, source_id and split.

    Returns:
        the table with new splits; and a note that counts them, if there are any.
    """
    groups = groups_of(table)
    fakes = {name for name, split, label in groups if (split, label) == (TRAIN, FAKE)}
    in_training = {name for name, split, label in groups if (split, label) == (TRAIN, REAL)}
    needed = {(name, FAKE) for name in fakes}
    for name in fakes:
        owner = owner_of_reals(name, {owner for owner, _, label in groups if label == REAL})
        needed |= {(one, REAL) for one in ([owner] if owner in in_training else owners_of_reals(name, in_training))}
    lacking = sorted((name, label) for name, label in needed if (name, VALID, label) not in groups)
    if not lacking:
        return table, []
    in_train = table["split"] == TRAIN
    keys = _photographs(table["source_id"])
    chosen: set[str] = set()
    for name, label in lacking:
        own = keys[in_train & (table["generator"] == name) & (table["label"] == label)].unique()
        ranked = sorted(own, key=_share)
        chosen.update([key for key in ranked if _share(key) < VALID_SHARE] or ranked[:1])
    moved = in_train & keys.isin(chosen)
    if not moved.any():
        return table, []
    words = ", ".join(f"{name} (real)" if label == REAL and name != SHARED_REAL else name for name, label in lacking)
    note = (
        f"no validation images of {words}: {int(moved.sum())} training images became validation images, "
        f"about {VALID_SHARE:.0%} of the photographs, chosen by a hash of the source id"
    )
    return table.assign(split=table["split"].where(~moved, VALID)), [note]


def move_copies(table: pd.DataFrame, taken: Collection[str]) -> tuple[pd.DataFrame, list[str]]:
    """Move the copies of images that `take_validation` took: equal bytes stay in one split, and so do photographs.

    Args:
        table: columns source_id, split and digest.
        taken: the source ids of the images that were taken.

    Returns:
        the table with new splits; and a note that counts the copies, if there are any.
    """
    keys, chosen = _photographs(table["source_id"]), {photograph_key(source_id) for source_id in taken}
    split = table["split"]
    while chosen:
        digests = table.loc[keys.isin(chosen) & (split == VALID), "digest"]
        more = (split == TRAIN) & (keys.isin(chosen) | table["digest"].isin(digests))
        if not more.any():
            break
        chosen |= set(keys[more])
        split = split.where(~more, VALID)
    num_moved = int((split != table["split"]).sum())
    if not num_moved:
        return table, []
    return table.assign(split=split), [f"{num_moved} training images became validation images as copies of such images"]


def split_by_chance(key: str, *, seed: int) -> str:
    """One of the splits, by key and seed alone: train for 80 % of the keys, valid and test for 10 % each."""
    composed = unicodedata.normalize("NFC", key)  # a name is one name, however its letters are written
    digest = hashlib.sha256(f"{seed}:{composed}".encode()).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    if share < _TRAIN_SHARE:
        return TRAIN
    return VALID if share < _TRAIN_SHARE + VALID_SHARE else TEST


def photograph_key(source_id: str) -> str:
    """A source id without leading zeros in its numbers: 1 and 00001 are the same photograph."""
    return _LEADING_ZEROS.sub("", source_id)


def _photographs(source_ids: pd.Series[str]) -> pd.Series[str]:
    """Source ids without leading zeros in their numbers: 1 and 00001 are the same photograph."""
    names = pa.array(source_ids, pa.large_string())
    if not pc.all(pc.string_is_ascii(names)).as_py():  # Python knows further digits
        return source_ids.str.replace(_LEADING_ZEROS, "", regex=True)
    shorter = pc.replace_substring_regex(names, _LEADING_ZEROS_RE2, r"\1\2")
    return pd.Series(pd.array(shorter, dtype="str"), source_ids.index, name=source_ids.name)


def _share(key: str) -> float:
    """A number in [0, 1) that follows from the key alone."""
    return int.from_bytes(hashlib.sha256(f"valid:{key}".encode()).digest()[:8], "big") / 2**64


def limited(table: pd.DataFrame, n: int) -> pd.DataFrame:
    """See `data.manifest.Manifest.limit`."""
    if n < 1:
        raise ValueError(f"the limit must be at least 1, got {n}")
    rank = table["source_id"].map(lambda source_id: hashlib.sha256(source_id.encode()).hexdigest())
    order = rank.sort_values(kind="stable").index
    kept = table.loc[order].groupby(["split", "generator", "label"]).head(n).index
    return table.loc[sorted(kept)]


def leaks(table: pd.DataFrame, column: str) -> list[Problem]:
    """Images whose source id or bytes are also in a more held-out split.

    Source ids whose numbers differ only in leading zeros count as one: 1.png and 00001.png are the same photograph.
    """
    what, remedy, keys = "the same bytes in two splits", "keep it in one split", table[column]
    if column == "source_id":
        what = "one photograph in two splits"
        remedy += "; if names restart in each split and mean other photographs there, give --names-per-split"
        keys = _photographs(keys)
    rank = table["split"].map(SPLITS.index)
    max_rank = rank.groupby(keys).transform("max")
    leaked = rank < max_rank
    held_out = rank == max_rank
    held_out &= keys.isin(keys[leaked])
    kept = dict(zip(reversed(keys[held_out].tolist()), reversed(table.loc[held_out, "path"].tolist()), strict=True))
    return [
        Problem(path, what, remedy, f"also {kept[key]}", skippable=True)
        for path, key in zip(table.loc[leaked, "path"], keys[leaked], strict=True)
    ]


def empty_groups(
    table: pd.DataFrame,
    only: Collection[Group] | None,
    only_tested: Collection[str] = (),
    only_trained: Collection[str] = (),
    *,
    by_chance: bool = False,
) -> list[Problem]:
    """Empty groups: every split needs fakes of every generator, and real images for them, its own or shared ones.

    Args:
        table: columns label, generator and split.
        only: the result is about these groups alone; None: about all.
        only_tested: generators that need fakes and real images in the test split alone.
        only_trained: generators that need none in the test split.
        by_chance: the splits are random, so that another seed may help.
    """
    present = groups_of(table)
    groups = present | set(only or ())
    generators = {generator for generator, _, label in groups if label == FAKE}
    if SHARED_REAL in generators:
        return [Problem(SHARED_REAL, "a generator named 'real'", "rename it; the name means real images")]
    if not generators and only is None:
        return [Problem(".", "no fake images", "give a folder that holds fakes of at least one generator")]
    if only is None and not by_chance and all(split != TEST for _, split, _ in present):
        return [_untested(present)]
    with_reals = {generator for generator, _, label in groups if label == REAL}
    trained = generators - set(only_tested)
    needed = {(generator, split, FAKE) for generator in trained for split in SPLITS}
    needed |= {(generator, TEST, FAKE) for generator in generators}
    needed -= {(generator, TEST, FAKE) for generator in only_trained}
    for name, split in {(name, split) for name, split, _ in needed}:
        owners = [o for o in owners_of_reals(name, with_reals) if only is None or (o, split, REAL) in only]
        if not any((owner, split, REAL) in present for owner in owners):
            needed.add((owner_of_reals(name, owners), split, REAL))
    if not trained and only is None:
        lacking = {split for split in (TRAIN, VALID) if not any(s == split and not label for _, s, label in present)}
        if lacking:
            return [_untrained(lacking)]
    if only is not None:
        needed &= set(only)
    remedy = "add usable images for it, or leave the generator out: --generators names the others"
    if by_chance:
        remedy = "add usable images for it, or take another seed: --split-seed"
    return [
        Problem(generator, "a split without images", remedy, f"{split}, {'fake' if label == FAKE else 'real'}")
        for generator, split, label in sorted(needed - present)
    ]


def _untested(present: Collection[Group]) -> Problem:
    remedy = (
        "give test images too: a folder test/ beside the others, or rows of a list with split test. Where no folder "
        "and no row names a split, images are split at random"
    )
    splits = sorted({split for _, split, _ in present}, key=SPLITS.index)
    return Problem(".", "no test images", remedy, f"only: {', '.join(splits)}")


def _untrained(lacking: Collection[str]) -> Problem:
    remedy = (
        "give a folder that also holds training images (train/, beside test/), of real images at least: methods that "
        "need no fakes train on these. Test images are never split into training images without being asked for"
    )
    return Problem(".", "only test images", remedy, f"without: {', '.join(sorted(lacking, key=SPLITS.index))}")
