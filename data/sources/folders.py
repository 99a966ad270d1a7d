"""Plain folders, the most common layout in the field: per generator, a folder 0_real and a folder 1_fake."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import defaultdict
from pathlib import Path

from data.sources import register_source
from data.sources.base import (
    FAKE,
    REAL,
    Entry,
    Listing,
    Problem,
    Scan,
    images_by_stem,
    list_images,
    relative,
    root_problems,
)

_LABELS = {"0_real": REAL, "1_fake": FAKE}
_SPLIT_NAMES = {"train": "train", "valid": "valid", "val": "valid", "test": "test"}
_TRAIN_SHARE, _VALID_SHARE = 0.8, 0.1


@register_source("folders")
def scan(root: Path, *, seed: int = 0) -> Scan:
    """Plain folders. The data folder holds one folder per generator.

        <generator>/0_real/*.png                    <generator>/1_fake/*.png
        <generator>/<category>/0_real/*.png         <generator>/<category>/1_fake/*.png

    A level named train, valid (or val) or test may be anywhere in the paths, of all images or of none. Without it the
    images are split 80/10/10 by name and seed; images with the same name come into the same split.
    """
    result = Scan(problems=root_problems(root))
    if result.problems:
        return result
    listing = list_images(root, root, recursive=True)
    result.problems += listing.problems
    result.notes += listing.notes
    folders: defaultdict[Path, list[Path]] = defaultdict(list)
    for path in listing.images:
        folders[path.parent].append(path)

    split_of: dict[Path, str | None] = {}
    for folder, paths in sorted(folders.items()):
        meaning = _meaning(folder.relative_to(root).parts)
        if isinstance(meaning, Problem):
            result.problems.append(meaning)
            continue
        label, generator, category, split = meaning
        split_of[folder] = split
        in_folder = Listing(images=paths)
        for path in images_by_stem(in_folder, root).values():
            source_id = "/".join([*category, path.stem])
            result.entries.append(
                Entry(path, label, generator, source_id, split or _split_by_chance(source_id, seed=seed))
            )
        result.problems += in_folder.problems

    astray = 0
    for path in listing.unread:
        meaning = _meaning(path.parent.relative_to(root).parts)
        if isinstance(meaning, Problem):
            astray += 1
            continue
        label, generator, category, split = meaning
        source_id = "/".join([*category, path.stem])
        split = split or _split_by_chance(source_id, seed=seed)
        result.unread.append(Entry(path, label, generator, source_id, split))
    if astray:
        result.notes.append(f"{astray} pictures in formats that are not read were ignored outside 0_real and 1_fake")

    no_split = [folder for folder, split in split_of.items() if split is None]
    if no_split and len(no_split) < len(split_of):
        what, remedy = "no split level, while other folders have one", "give every folder a split or none of them"
        result.problems += [Problem(relative(folder, root), what, remedy) for folder in no_split]
    elif no_split:
        result.notes.append(f"the folders name no splits; images were split 80/10/10 by name with seed {seed}")
    result.problems += _one_class_problems(result.entries + result.unread)
    if not folders and not listing.unread and not result.problems:
        result.problems.append(Problem(".", "no images in the folder", "give the folder that holds the generators"))
    return result


def _meaning(parts: tuple[str, ...]) -> tuple[int, str, list[str], str | None] | Problem:
    """A folder's path below the root -> label, generator, category levels, split (None if the path names none)."""
    where = "/".join(parts) or "."
    splits = [_SPLIT_NAMES[part.lower()] for part in parts if part.lower() in _SPLIT_NAMES]
    if len(splits) > 1:
        return Problem(where, "two split levels in one path", "keep one of them")
    names = [part for part in parts if part.lower() not in _SPLIT_NAMES]
    classes = [part for part in names if part in _LABELS]
    if len(classes) != 1:
        what = "images neither under 0_real nor under 1_fake" if not classes else "two class levels in one path"
        return Problem(where, what, "move them into a class folder or out of the data folder")
    if names[0] in _LABELS:
        return Problem(where, "no generator level above the class folder", "give the folder above, or add the level")
    category = [part for part in names[1:] if part not in _LABELS]
    return _LABELS[classes[0]], names[0], category, splits[0] if splits else None


def _split_by_chance(source_id: str, *, seed: int) -> str:
    composed = unicodedata.normalize("NFC", source_id)  # a name is one name, however its letters are written
    digest = hashlib.sha256(f"{seed}:{composed}".encode()).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    if share < _TRAIN_SHARE:
        return "train"
    return "valid" if share < _TRAIN_SHARE + _VALID_SHARE else "test"


def _one_class_problems(entries: list[Entry]) -> list[Problem]:
    labels: defaultdict[str, set[int]] = defaultdict(set)
    for entry in entries:
        labels[entry.generator].add(entry.label)
    remedy = "a generator needs both; add images of the other class or remove the folder"
    return [
        Problem(generator, f"no {'fake' if present == {REAL} else 'real'} images", remedy)
        for generator, present in sorted(labels.items())
        if len(present) == 1
    ]
