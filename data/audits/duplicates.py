"""The same picture under two source ids: across splits (a leak), across classes, or counted twice in a split.

Pictures are compared by the checksum of their pixels and by a perceptual hash. Images of one source id are not
compared: a fake always resembles its original.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data.audits import Evidence, Found, Level, register_audit
from data.sources.base import FAKE, REAL, SPLITS

FEW = 0.01  # of the photographs; CelebA-HQ has so many duplicates of its own
MANY = 0.05  # of the photographs of a split
MOST = 15  # bits of 256; one of the 16 parts of two hashes is equal where they differ in at most so many
_WINDOW = 300  # hashes with an equal part that one is compared with


@register_audit("duplicates", decodes=True)
def duplicates(evidence: Evidence) -> Iterator[Found]:
    """Find pairs of images of different photographs that show the same picture."""
    if evidence.measured is None:
        return
    rows = evidence.manifest.table.join(evidence.measured[["hash", "pixels"]])
    limit = hash_limit(rows)
    pairs = same_pictures(rows, limit)
    how = f"equal pixels, or perceptual hashes that differ in at most {limit} of 256 bits"
    yield from _leaks(rows, pairs, how)
    yield from _classes(rows, pairs, how)
    yield from _twice(rows, pairs, how)


def hash_limit(rows: pd.DataFrame) -> int:
    """The largest difference of perceptual hashes, in bits, at which two images count as the same picture.

    A quarter of the difference of the nearest pair of different validation reals with unequal hashes, at most `MOST`. A
    pair that a re-saved copy makes is at most a few bits apart, and different photographs some fifty; where validation
    reals hold such copies themselves, the nearest pair above `MOST` counts.

    Args:
        rows: columns label, split, source_id and hash.
    """
    valid = rows[(rows["label"] == REAL) & (rows["split"] == "valid")].drop_duplicates("hash").head(2000)
    bits = _bits(valid["hash"])
    if len(bits) < 2:
        return 0
    signs = bits.astype(np.float32) * 2 - 1
    distances = (bits.shape[1] - signs @ signs.T) / 2
    distances[distances <= MOST] = bits.shape[1]  # each with itself, and copies
    return int(min(MOST, distances.min() / 4))


def same_pictures(rows: pd.DataFrame, limit: int) -> pd.DataFrame:
    """Pairs of images of different photographs with equal pixels, or with hashes that differ in at most `limit` bits.

    Every pair is found whose hashes have an equal part (16 parts of 16 bits), but for parts that more than `_WINDOW`
    different hashes share: there only neighbours in the order of the hashes are compared.

    Args:
        rows: columns path, label, generator, source_id, split, hash and pixels.
        limit: bits, at most `MOST`.

    Returns:
        columns of both images with the endings _a and _b, and `bits`, by which the hashes differ.
    """
    hashes = sorted(set(rows["hash"]))
    near = _near_hashes(hashes, limit)
    same = pd.DataFrame({"hash_a": hashes, "hash_b": hashes, "bits": 0})
    links = pd.concat([same, pd.DataFrame(near, columns=["hash_a", "hash_b", "bits"])])
    columns = ["path", "label", "generator", "source_id", "split", "hash", "pixels"]
    several = rows[rows["hash"].isin({hash_ for one, other, _ in near for hash_ in (one, other)})]
    several = pd.concat([several, rows[rows.groupby("hash")["source_id"].transform("nunique") > 1]])
    several = several.loc[~several.index.duplicated(), columns]
    first = links.merge(several.add_suffix("_a"), on="hash_a")
    both = first.merge(several.add_suffix("_b"), on="hash_b")
    different = both["source_id_a"] != both["source_id_b"]
    once = (both["hash_a"] != both["hash_b"]) | (both["path_a"] < both["path_b"])
    return both[different & once].reset_index(drop=True)


def _bits(hashes: pd.Series | list[str]) -> NDArray[np.uint8]:
    """Hexadecimal hashes -> (N, bits) of 0 and 1."""
    digits = [bytes.fromhex(text) for text in hashes]
    return np.unpackbits(np.frombuffer(b"".join(digits), np.uint8).reshape(len(digits), -1), axis=1)


def _near_hashes(hashes: list[str], limit: int) -> list[tuple[str, str, int]]:
    """Pairs of different hashes that differ in at most `limit` bits."""
    if len(hashes) < 2 or limit < 1:
        return []
    bits = _bits(hashes)
    words = np.packbits(bits, axis=1).view(np.uint64)
    # The parts take turns, so that each has bits of low and of high frequencies.
    parts = np.stack([np.packbits(bits[:, part::16], axis=1).view(np.uint16)[:, 0] for part in range(16)], axis=1)
    found: dict[tuple[int, int], int] = {}
    for part in parts.T:
        order = np.argsort(part, kind="stable")
        starts = np.arange(len(order) - 1)
        for step in range(1, min(_WINDOW, len(order) - 1) + 1):
            starts = starts[starts + step < len(order)]
            starts = starts[part[order[starts]] == part[order[starts + step]]]
            if not len(starts):
                break
            one, other = order[starts], order[starts + step]
            differing = np.bitwise_count(words[one] ^ words[other]).sum(axis=1)
            for a, b, count in zip(
                *(values[differing <= limit].tolist() for values in (one, other, differing)), strict=True
            ):
                found[min(a, b), max(a, b)] = count
    return [(hashes[a], hashes[b], count) for (a, b), count in sorted(found.items())]


def _of_reals(pairs: pd.DataFrame) -> set[frozenset[str]]:
    """The photographs whose real images are the same picture, whose fakes then resemble each other too."""
    reals = pairs[(pairs["label_a"] == REAL) & (pairs["label_b"] == REAL)]
    return set(map(frozenset, zip(reals["source_id_a"], reals["source_id_b"], strict=True)))


def _files(pairs: pd.DataFrame) -> list[str]:
    """Both files of each pair, one behind the other."""
    return [path for two in zip(pairs["path_a"], pairs["path_b"], strict=True) for path in two]


def _once(pairs: pd.DataFrame) -> pd.DataFrame:
    """One pair of images for each pair of photographs, real images first."""
    ordered = pairs.assign(_fakes=pairs["label_a"] + pairs["label_b"]).sort_values(["_fakes", "path_a", "path_b"])
    both = [tuple(sorted(two)) for two in zip(ordered["source_id_a"], ordered["source_id_b"], strict=True)]
    return ordered[~pd.Series(both, index=ordered.index).duplicated()]


def _leaks(rows: pd.DataFrame, pairs: pd.DataFrame, how: str) -> Iterator[Found]:
    across = _once(pairs[pairs["split_a"] != pairs["split_b"]])
    if across.empty:
        return
    rank = {split: number for number, split in enumerate(SPLITS)}
    first_is_later = across["split_a"].map(rank) > across["split_b"].map(rank)
    later = pd.DataFrame(
        {
            "split": across["split_a"].where(first_is_later, across["split_b"]),
            "source_id": across["source_id_a"].where(first_is_later, across["source_id_b"]),
        }
    )
    in_split = rows.groupby("split")["source_id"].nunique()
    leaked = later.groupby("split")["source_id"].nunique()
    words = " and ".join(f"{leaked[split]} of {in_split[split]} photographs of {split}" for split in leaked.index)
    level: Level = "fail" if (leaked / in_split[leaked.index]).max() > FEW else "note"
    text = f"{words} are in a split before it too, under another name ({how})"
    numbers = {f"{split}: leaked": leaked[split] for split in leaked.index}
    yield level, text, "keep each photograph in one split", _files(across), numbers


def _classes(rows: pd.DataFrame, pairs: pd.DataFrame, how: str) -> Iterator[Found]:
    real_pairs = _of_reals(pairs)
    known = [frozenset(two) in real_pairs for two in zip(pairs["source_id_a"], pairs["source_id_b"], strict=True)]
    rest = pairs[~np.array(known, dtype=np.bool_)]
    mixed = rest[rest["label_a"] != rest["label_b"]]
    num_fakes = int((rows["label"] == FAKE).sum())
    is_equal = (mixed["hash_a"] == mixed["hash_b"]) & (mixed["pixels_a"] == mixed["pixels_b"])
    equal, near = _once(mixed[is_equal]), _once(mixed[~is_equal])
    if len(equal):
        text = (
            f"{_counted(len(equal), 'picture is', 'pictures are')} both real and fake, under two names (equal pixels)"
        )
        level: Level = "fail" if len(equal) > FEW * num_fakes else "warn"
        remedy = "find out which label is right, and remove the others"
        yield level, text, remedy, _files(equal), {"pictures": len(equal), "fakes": num_fakes}
    if len(near):
        text = f"{_counted(len(near), 'fake nearly equals', 'fakes nearly equal')} a real image of another name ({how})"
        remedy = "give a fake the name of its original; if it is a copy of a real image, remove it"
        yield "warn", text, remedy, _files(near), {"pictures": len(near), "fakes": num_fakes}
    fakes = rest[(rest["label_a"] == FAKE) & (rest["label_b"] == FAKE)]
    shared = _once(fakes[fakes["generator_a"] != fakes["generator_b"]])
    if len(shared):
        fakes_are = _counted(len(shared), "fake is", "fakes are")
        text = f"{fakes_are} in the folders of two generators, under two names ({how})"
        remedy = "find out which generator made them: attribution cannot tell them apart"
        yield "warn", text, remedy, _files(shared), {"pictures": len(shared), "fakes": num_fakes}


def _twice(rows: pd.DataFrame, pairs: pd.DataFrame, how: str) -> Iterator[Found]:
    same = (pairs["split_a"] == pairs["split_b"]) & (pairs["label_a"] == pairs["label_b"])
    inside = pairs[same & (pairs["generator_a"] == pairs["generator_b"])]
    for (split, generator, label), group in inside.groupby(["split_a", "generator_a", "label_a"]):
        class_rows = rows[(rows["split"] == split) & (rows["generator"] == generator) & (rows["label"] == label)]
        num = len(_extra(group))
        share = num / len(class_rows)
        kind = "real images" if label == REAL else f"fakes of {generator}"
        text = f"{num} of {len(class_rows)} {kind} of {split} ({share:.0%}) repeat another one ({how})"
        remedy = "keep one of each, or read intervals as too narrow"
        numbers = {"images": len(class_rows), "repeated": num}
        yield ("warn" if share > MANY else "note"), text, remedy, _files(group), numbers


def _extra(group: pd.DataFrame) -> set[str]:
    """The images that repeat an earlier one."""
    return set(np.maximum(group["path_a"].to_numpy(object), group["path_b"].to_numpy(object)))


def _counted(number: int, one: str, several: str) -> str:
    return f"{number} {one if number == 1 else several}"
