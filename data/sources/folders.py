"""Plain folders, the most common layout in the field: per generator, a folder 0_real and a folder 1_fake."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Mapping
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
    shown_names,
    subfolders,
)

_LABELS = {"0_real": REAL, "1_fake": FAKE}
_SPLIT_NAMES = {"train": "train", "valid": "valid", "val": "valid", "test": "test"}
_NO_SAMPLES = ("mask", "masks", "thumbnails", "thumbs")  # lower case
_TRAIN_SHARE, _VALID_SHARE = 0.8, 0.1
_MAX_DEPTH, _MAX_FOLDERS = 5, 1000  # how far `looks_like` looks


def looks_like(root: Path) -> bool:
    """Whether a class folder, 0_real or 1_fake, is among the first folders in `root`."""
    level = [root]
    for _ in range(_MAX_DEPTH):
        level = [inside for folder in level for inside in subfolders(folder)][:_MAX_FOLDERS]
        if any(folder.name in _LABELS for folder in level):
            return True
    return False


@register_source("folders", looks_like=looks_like)
def scan(root: Path, *, seed: int = 0) -> Scan:
    """Plain folders. The data folder holds one folder per generator.

        <generator>/0_real/*.png                    <generator>/1_fake/*.png
        <generator>/<category>/0_real/*.png         <generator>/<category>/1_fake/*.png

    A level named train, valid (or val) or test may be anywhere in the paths, of all images or of none. Without it the
    images are split 80/10/10 by name and seed; images with the same name come into the same split. If the names restart
    in each split, so that the same name in two splits is two photographs, give --names-per-split.
    """
    result = Scan(problems=root_problems(root))
    if result.problems:
        return result
    listing = list_images(root, root, recursive=True)
    result.add_remarks(listing)
    folders: defaultdict[Path, list[Path]] = defaultdict(list)
    for path in listing.images:
        folders[path.parent].append(path)
    result.notes += _take_out_no_samples(folders, root)

    split_of: dict[Path, str | None] = {}
    categories: defaultdict[str, set[str]] = defaultdict(set)
    for folder, paths in sorted(folders.items()):
        meaning = _meaning(folder.relative_to(root).parts)
        if isinstance(meaning, Problem):
            result.problems.append(meaning)
            continue
        label, generator, category, split = meaning
        categories[generator].update(category)
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
        parts = path.parent.relative_to(root).parts
        if isinstance(meaning := _meaning(parts), Problem) or _are_no_samples(parts):
            astray += 1
            continue
        label, generator, category, split = meaning
        source_id = "/".join([*category, path.stem])
        split = split or _split_by_chance(source_id, seed=seed)
        result.unread.append(Entry(path, label, generator, source_id, split))
    if astray:
        result.notes.append(f"{astray} pictures in formats that are not read were ignored: they are no samples")

    no_split = [folder for folder, split in split_of.items() if split is None]
    if no_split and len(no_split) < len(split_of):
        what, remedy = "no split level, while other folders have one", "give every folder a split or none of them"
        result.problems += [Problem(relative(folder, root), what, remedy) for folder in no_split]
    elif no_split:
        result.notes.append(f"the folders name no splits; images were split 80/10/10 by name with seed {seed}")
    result.notes += _category_notes(categories, split_of, root)
    result.problems += _one_class_problems(result.entries + result.unread)
    if not folders and not listing.unread and not result.problems:
        result.problems.append(Problem(".", "no images in the folder", "give the folder that holds the generators"))
    return result


def _are_no_samples(parts: tuple[str, ...]) -> bool:
    """Whether a folder is for masks or thumbnails.

    A folder of such a name above a class folder is a category, such as ImageNet's "mask".
    """
    above = next((number for number, part in enumerate(parts) if part in _LABELS), 0)
    return any(part.lower() in _NO_SAMPLES for part in parts[above:])


def _take_out_no_samples(folders: dict[Path, list[Path]], root: Path) -> list[str]:
    """Take out the folders of masks and thumbnails; a note that counts them."""
    taken: dict[str, int] = {}
    for folder in list(folders):
        parts = folder.relative_to(root).parts
        if _are_no_samples(parts):
            taken["/".join(parts)] = len(folders.pop(folder))
    if not taken:
        return []
    what = "1 folder of masks or thumbnails was"
    if len(taken) > 1:
        what = f"{len(taken)} folders of masks or thumbnails were"
    return [f"{what} left aside, with {sum(taken.values())} images: {shown_names(sorted(taken))}"]


def _category_notes(categories: Mapping[str, set[str]], folders: Collection[Path], root: Path) -> list[str]:
    """What a reader should check where folders were taken for categories."""
    notes = []
    if len(categories) == 1:
        ((generator, names),) = categories.items()
        if len(names) > 1:
            words = f"the only generator is {generator}, with the categories {shown_names(sorted(names))}"
            notes.append(f"{words}; if these are generators, give the folder {generator} as --data")
    below: set[str] = set()
    for folder in folders:
        parts = folder.relative_to(root).parts
        label = next(number for number, part in enumerate(parts) if part in _LABELS)
        below.update(part for part in parts[label + 1 :] if part.lower() not in _SPLIT_NAMES)
    if below:
        words = "folders below 0_real or 1_fake were read as categories of images"
        notes.append(f"{words}: {shown_names(sorted(below))}; move them out of the data folder if they are no samples")
    return notes


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
