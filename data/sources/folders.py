"""Plain folders, the most common layout in the field: per generator, a folder 0_real and a folder 1_fake."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path

from data.sources import register_source
from data.sources._tree import PAIRS, SPLIT_NAMES, Place, Tree, class_level, class_names, read_tree
from data.sources.base import (
    FAKE,
    REAL,
    SHARED_REAL,
    Entries,
    Entry,
    FolderEntries,
    Problem,
    Scan,
    list_names,
    names_by_stem,
    owners_of,
    relative,
    root_problems,
    shown_names,
    subfolders,
)
from data.sources.dolos import find_tree, has_layout

_DERIVED = ("recons", "dire")  # made from the images beside them, in DiffusionForensics
_NO_SAMPLES = ("mask", "masks", "thumbnails", "thumbs")  # lower case
_MAX_DEPTH, _MAX_FOLDERS = 5, 1000  # how far `looks_like` looks


def looks_like(root: Path) -> bool:
    """Whether class folders are among the first folders in `root`.

    These are 0_real or 1_fake, or both of another pair, or real beside generators below a split (DiffusionForensics).
    """
    base = find_tree(root)
    if base is not None and has_layout(base):
        return False  # Dolos has folders real and fake, too
    level = [root]
    for _ in range(_MAX_DEPTH):
        below = {folder: subfolders(folder) for folder in level}
        for above, inside in below.items():
            names = {folder.name.lower() for folder in inside}
            if names & set(PAIRS[0]) or any(set(pair) <= names for pair in PAIRS[1:]):
                return True
            of_split = any(part.lower() in SPLIT_NAMES for part in above.relative_to(root).parts)
            if of_split and "real" in names and names - {"real", *_NO_SAMPLES}:
                return True
        level = [folder for inside in below.values() for folder in inside][:_MAX_FOLDERS]
    return False


@register_source("folders", looks_like=looks_like, yields_to=("manifest",), is_layout=True)
def scan(root: Path, *, seed: int = 0) -> Scan:
    """Plain folders. The data folder holds one folder per generator.

        <generator>/0_real/*.png                    <generator>/1_fake/*.png
        <generator>/<category>/0_real/*.png         <generator>/<category>/1_fake/*.png
        <real images>/0_real/*.png                  <generator>/1_fake/*.png

    The class folders are 0_real and 1_fake, or nature and ai, or real and fake. A level named train, valid or test (or
    training, val, validation, testing) may be anywhere in the paths, of all images or of none. Without it the images
    are split 80/10/10 by name and seed; images with the same name come into the same split. A benchmark's test set is
    not split: its images are only tested. A generator without training images is only tested. If the names restart in
    each split, so that the same name in two splits is two photographs, give --names-per-split.
    """
    result = Scan(problems=root_problems(root))
    if result.problems:
        return result
    listing = list_names(root, root, recursive=True)
    result.add_remarks(listing)
    folders = dict(listing.folders)
    parts_of = {folder: folder.relative_to(root).parts for folder in {*folders, *(p.parent for p in listing.unread)}}
    derived = {folder for folder, parts in parts_of.items() if _are_derived(parts, parts_of.values())}
    result.notes += _take_out(folders, derived, root, "reconstructions beside images/")
    pair = class_names(parts for folder, parts in parts_of.items() if folder not in derived)
    masks = {folder for folder, parts in parts_of.items() if _are_no_samples(parts, pair)} - derived
    result.notes += _take_out(folders, masks, root, "masks or thumbnails")
    aside = derived | masks
    tree = read_tree((parts for folder, parts in parts_of.items() if folder not in aside), root.resolve().name)
    result.notes += tree.notes

    split_of: dict[Path, str | None] = {}
    categories: defaultdict[str, set[str]] = defaultdict(set)
    for folder, names in sorted(folders.items()):
        place = tree.places[parts_of[folder]]
        if isinstance(place, Problem):
            result.problems.append(place)
            continue
        categories[place.generator].update(place.category)
        split_of[folder] = place.split
        kept = list(names_by_stem(folder, names, root, result).values())
        result.add_folder(_folder_entries(folder, kept, place, seed))

    astray = 0
    for path in listing.unread:
        place = Problem("", "", "") if path.parent in aside else tree.places[parts_of[path.parent]]
        if isinstance(place, Problem):
            astray += 1
        else:
            result.unread.append(_entry(path, place, seed))
    if astray:
        result.notes.append(f"{astray} pictures in formats that are not read were ignored: they are no samples")

    no_split = [folder for folder, split in split_of.items() if split is None]
    if no_split and len(no_split) < len(split_of):
        what, remedy = "no split level, while other folders have one", "give every folder a split or none of them"
        result.problems += [Problem(relative(folder, root), what, remedy) for folder in no_split]
    elif no_split:
        result.splits_by_chance = True
        result.notes.append(f"the folders name no splits; images were split 80/10/10 by name with seed {seed}")
    result.notes += _category_notes(categories, tree, pair)
    result.problems += _one_class_problems(Entries(result.entries).classes() | Entries(result.unread).classes())
    if not folders and not listing.unread and not result.problems:
        result.problems.append(Problem(".", "no images in the folder", "give the folder that holds the generators"))
    return result


def _entry(path: Path, place: Place, seed: int) -> Entry:
    from data.splits import split_by_chance  # not at the top: it imports pandas

    source_id = "/".join([*place.category, path.stem])
    return Entry(path, place.label, place.generator, source_id, place.split or split_by_chance(source_id, seed=seed))


def _folder_entries(folder: Path, names: list[str], place: Place, seed: int) -> FolderEntries:
    from data.splits import split_by_chance  # not at the top: it imports pandas

    before = "".join(f"{part}/" for part in place.category)
    source_ids = [before + name[: name.rfind(".")] for name in names]
    splits = place.split or [split_by_chance(source_id, seed=seed) for source_id in source_ids]
    return FolderEntries(
        folder=folder, names=names, label=place.label, generator=place.generator, source_ids=source_ids, splits=splits
    )


def _are_no_samples(parts: tuple[str, ...], pair: tuple[str, str]) -> bool:
    """Whether a folder is for masks or thumbnails.

    A folder of such a name above a class folder is a category, such as ImageNet's "mask".
    """
    above = class_level(parts, pair) or 0
    return any(part.lower() in _NO_SAMPLES for part in parts[above:])


def _are_derived(parts: tuple[str, ...], of_all: Collection[tuple[str, ...]]) -> bool:
    """Whether a folder is below one of `_DERIVED` that has a folder images/ beside it."""
    above = {parts[:number] for number, part in enumerate(parts) if part.lower() in _DERIVED}
    return any(
        len(other) > len(base) and other[: len(base) + 1] == (*base, "images") for base in above for other in of_all
    )


def _take_out(folders: dict[Path, list[str]], aside: Collection[Path], root: Path, what: str) -> list[str]:
    """Take out folders that hold no samples; a note that counts them."""
    taken = {relative(folder, root): len(folders.pop(folder)) for folder in list(folders) if folder in aside}
    if not taken:
        return []
    words = f"1 folder of {what} was" if len(taken) == 1 else f"{len(taken)} folders of {what} were"
    return [f"{words} left aside, with {sum(taken.values())} images: {shown_names(sorted(taken))}"]


def _category_notes(categories: Mapping[str, set[str]], tree: Tree, pair: tuple[str, str]) -> list[str]:
    """What a reader should check where folders were taken for categories."""
    notes = []
    if len(categories) == 1:
        ((generator, names),) = categories.items()
        if len(names) > 1:
            words = f"the only generator is {generator}, with the categories {shown_names(sorted(names))}"
            notes.append(f"{words}; if these are generators, give the folder {generator} as --data")
    if below := {name for place in tree.sound.values() for name in place.below}:
        words = f"folders below {pair[0]} or {pair[1]} were read as categories of images"
        notes.append(f"{words}: {shown_names(sorted(below))}; move them out of the data folder if they are no samples")
    return notes


def _one_class_problems(classes: Collection[tuple[str, int]]) -> list[Problem]:
    """Problems of generators that have only one class, from the pairs of generator and label that have an image."""
    labels: defaultdict[str, set[int]] = defaultdict(set)
    for generator, label in classes:
        for name in owners_of(generator):
            labels[name].add(label)
    shared = bool(labels.pop(SHARED_REAL, None))
    remedy = "a generator needs both; add images of the other class or remove the folder"
    if any(len(present) == 2 for present in labels.values()) and not shared:
        remedy += "; where only some generators share real images, a list (manifest) can say which"
    return [
        Problem(generator, f"no {'fake' if present == {REAL} else 'real'} images", remedy)
        for generator, present in sorted(labels.items())
        if len(present) == 1 and not (shared and present == {FAKE})
    ]
