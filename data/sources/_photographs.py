"""Which images of a list show one photograph. A photograph in two splits is a leak, so ids must be right."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from data.sources._tree import PAIRS
from data.sources.base import FAKE, REAL, Problem

_SEPARATORS = "_-"  # between what a tool puts before a name, and the name


@dataclass(frozen=True)
class Item:
    """One image of a list: an entry before its source id and its split are known.

    Attributes:
        key: its path as manifests keep it.
        split: "" if nothing names it.
        name: the stem of its file, without a generator that was read from it.
        given: the id that the list gives; "".
        is_weak: the id's column often numbers images, not photographs.
        original_key: as `key`, of the original that the list states, also if that file is missing; "".
    """

    path: Path
    key: str
    label: int
    generator: str
    split: str
    name: str
    given: str
    is_weak: bool
    mask: Path | None
    white: str
    original: Path | None
    original_key: str


@dataclass
class Ids:
    """The source ids of items, in their order; and what is to be said of them."""

    ids: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def source_ids(items: Sequence[Item], class_words: Collection[str], *, by_chance: bool) -> Ids:
    """The source id of each item: a fake and its original have the same.

    The original that a list states decides; then the id that it gives; then the name. A name that repeats within a
    class and a generator is not enough; there, the path without the folders of class and generator is the id.

    Args:
        items: the images.
        class_words: words that name a class, in small letters.
        by_chance: a split at random will follow from the ids.
    """
    result = Ids()
    key_of = {item.key: item for item in items}
    owner_of = {item.key: _owner(item, key_of) for item in items}
    given = _given_ids(items, owner_of, result)
    without_id = [item for item in items if not given[owner_of[item.key]]]
    own = [item for item in without_id if not item.original_key]
    unlisted = {owner_of[item.key] for item in without_id} - key_of.keys()
    owners = Counter((item.name, item.label, item.generator) for item in own)
    owners += Counter((PurePosixPath(key).stem, REAL, "") for key in unlisted)
    repeated = {name for (name, _, _), count in owners.items() if count > 1}
    words = {*class_words, *(name for pair in PAIRS for name in pair), *(item.generator.lower() for item in items)}
    real_names = {item.name for item in items if item.label == REAL}
    from_paths: defaultdict[str, set[int]] = defaultdict(set)
    paired = 0
    for item in items:
        key = owner_of[item.key]
        if given[key]:
            result.ids.append(given[key])
            continue
        name = item.name
        if item.original_key:
            name = key_of[key].name if key in key_of else PurePosixPath(key).stem
        elif item.label == FAKE and item.name != item.path.stem and name not in real_names:
            found = ending(name, real_names)
            paired += bool(found)
            name = found or name
        if name in repeated:
            name = _path_id(key, name, words)
            from_paths[name].add(item.label)
        result.ids.append(name)
    if without_id:
        result.notes.append("no source ids: a photograph is known by its original's or its own name")
    if paired:
        result.notes.append(f"{paired} fakes were taken for edits of the real image with whose name their name ends")
    if from_paths:
        words_ = "names repeat: there a photograph is known by its path, without the folders of class and generator"
        result.notes.append(f"{len(repeated)} {words_}")
    _refuse_chance(items, from_paths, result, by_chance=by_chance)
    return result


def _owner(item: Item, key_of: Mapping[str, Item]) -> str:
    """The key of the photograph: of the original that the list states, or of the original of that, if it is a fake."""
    keys: dict[str, None] = {}
    key = item.original_key or item.key
    while key not in keys:
        keys[key] = None
        key = key_of[key].original_key or key if key in key_of else key
    return min(keys) if key != next(reversed(keys)) else key  # the first case: each is the other's original


def _given_ids(items: Sequence[Item], owner_of: Mapping[str, str], result: Ids) -> dict[str, str]:
    """Key of a photograph -> the id that the list gives it, or ""."""
    stated: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for item in items:
        stated[owner_of[item.key]].update({item.given: None} if item.given else {})
    many = {key: list(ids) for key, ids in stated.items() if len(ids) > 1}
    with_id = [item for item in items if item.given]
    each_its_own = len({item.given for item in with_id}) == len(with_id) and {item.label for item in with_id} == {
        REAL,
        FAKE,
    }
    if (many or each_its_own) and all(item.is_weak for item in with_id):
        why = "differs between images of one original" if many else "is another one in each row"
        result.notes.append(f"image_id {why}, so it numbers images; it was not used as a source id")
        return dict.fromkeys(stated, "")
    remedy = "give the original and its fakes one id, or take the column out: the original decides"
    result.problems += [
        Problem(key, "two source ids for one original", remedy, ", ".join(ids[:3])) for key, ids in many.items()
    ]
    return {key: next(iter(ids), "") for key, ids in stated.items()}


def ending(name: str, reals: Collection[str]) -> str:
    """The longest end of a name, behind a separator, that is the name of a real image; ""."""
    ends = (name[number + 1 :] for number, letter in enumerate(name) if letter in _SEPARATORS)
    return next((end for end in ends if end in reals), "")


def _path_id(key: str, name: str, words: Collection[str]) -> str:
    folders = PurePosixPath(key).parts[:-1]
    return "/".join([*(part for part in folders if part.lower() not in words), name])


def _refuse_chance(items: Sequence[Item], from_paths: dict[str, set[int]], result: Ids, *, by_chance: bool) -> None:
    """Refuse a split at random where a fake and its original might come into two splits."""
    alone = sorted(name for name, labels in from_paths.items() if labels == {FAKE})
    if not (by_chance and alone and any(item.label == REAL for item in items)):
        return
    what = "names repeat, so it is not known which fakes belong to which real image, and no split is named"
    remedy = "add a column split, or source_id, or original; or say where the id is in a name: --source-from REGEX"
    result.problems.append(Problem(".", what, remedy, f"such as {alone[0]}"))
