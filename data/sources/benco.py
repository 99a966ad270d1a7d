"""Folders Au, Tp and Gt: BR-Gen, and the classic sets of image manipulation as IMDL-BenCo reads them."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from data.sources import register_source
from data.sources._lists import SPLITS as SPLIT_WORDS
from data.sources._photographs import ending
from data.sources._tree import why_test_set
from data.sources.base import (
    FAKE,
    REAL,
    SHARED_REAL,
    WHITE_FAKE,
    Entry,
    Problem,
    Scan,
    images_by_stem,
    list_images,
    relative,
    root_problems,
    subfolders,
)

_AUTHENTIC, _TAMPERED, _MASKS = "au", "tp", "gt"
_LEVELS = 3  # how far below the data folder the folders are looked for
_BR_GEN = re.compile(r"(?P<generator>[^_]+)_(?P<kind>Stuff|Background)_(?P<rest>.+)")
_MASK_ENDS = ("", "_mask", "_gt", "_groundtruth")  # what a mask's name may have behind that of its image
_HASH = re.compile(r"-[0-9a-f]{12}$")  # the end of a fetched folder's name


@dataclass
class _Set:
    """One folder that holds Tp.

    Attributes:
        folder: that folder.
        name: for the generator, where names of images have none.
        split: that its name, or that of a folder above it, names; "".
        tampered, masks, authentic: stem -> file.
        is_br_gen: all names of its tampered images are as in BR-Gen.
        generators: of its tampered images.
    """

    folder: Path
    name: str
    split: str
    tampered: dict[str, Path] = field(default_factory=dict)
    masks: dict[str, Path] = field(default_factory=dict)
    authentic: dict[str, Path] = field(default_factory=dict)
    is_br_gen: bool = False
    generators: set[str] = field(default_factory=set)


def looks_like(root: Path) -> bool:
    """Whether Tp beside Gt or Au is in the first levels."""
    return any({_TAMPERED} < names for names in _found(root).values())


def _found(root: Path) -> dict[Path, set[str]]:
    """Folders with Tp, in the first levels -> which of Au, Tp and Gt they hold."""
    found, level = {}, [root]
    for _ in range(_LEVELS):
        below = {folder: subfolders(folder) for folder in level}
        for folder, inside in below.items():
            names = {path.name.lower() for path in inside} & {_AUTHENTIC, _TAMPERED, _MASKS}
            if _TAMPERED in names:
                found[folder] = names
        level = [path for folder, inside in below.items() if folder not in found for path in inside]
    return found


@register_source("benco", looks_like=looks_like, yields_to=("manifest",))
def scan(root: Path, *, seed: int = 0) -> Scan:
    """Au (authentic), Tp (tampered) and Gt (masks) in the data folder, or in each of its folders.

        Au/COCO_00000000520.png                              CASIA/Au/*.jpg
        Tp/MAT_Stuff_COCO_00000000520.png                    CASIA/Tp/*.tif
        Gt/MAT_Stuff_COCO_00000000520_mask.png               CASIA/Gt/*.png        white = fake

    An image and its mask have the same name; the mask's may end with _mask or _gt. As in BR-Gen, a name can begin with
    a generator and Stuff or Background; else the folder above Tp is the generator. The rest of a name is the
    photograph: that of the image in Au with whose name it ends, if there is one. Originals are optional. A folder's
    name with train, val or test names the split; without such names, images are split 80/10/10 by photograph and seed.
    """
    result = Scan(problems=root_problems(root))
    if result.problems:
        return result
    found = _found(root)
    if not found:
        return Scan(problems=[Problem(".", "no folder Tp", "give the folder that holds Tp, Gt and Au")])
    sets = [_read(folder, root, result) for folder in sorted(found)]
    if not any(each.authentic for each in sets):
        remedy = "put real images into Au beside Tp; or give a list (manifest), which can name images of other folders"
        result.problems.append(Problem(".", "no real images in a folder Au", remedy))
    _name_splits(sets, root, result, seed)
    _add(sets, result, seed)
    result.notes.append(
        "images and masks were paired by their names; IMDL-BenCo's own ManiDataset pairs them by their order, so one "
        "missing file there shifts all pairs"
    )
    return result


def _read(folder: Path, root: Path, result: Scan) -> _Set:
    """The files of one folder."""
    own, images = _Set(folder, _name(folder, root), _split_of(folder, root)), dict[str, dict[str, Path]]()
    for path in subfolders(folder):
        name = path.name.lower()
        if name not in (_AUTHENTIC, _TAMPERED, _MASKS):
            continue
        if name in images:
            what, remedy = "two folders whose names differ in capitals alone", "keep one of them"
            result.problems.append(Problem(relative(path, root), what, remedy))
            continue
        listing = list_images(path, root)
        images[name] = images_by_stem(listing, root)
        result.add_remarks(listing)
        if name != _MASKS:
            label, generator = (REAL, SHARED_REAL) if name == _AUTHENTIC else (FAKE, own.name)
            result.unread += [Entry(file, label, generator, file.stem, own.split or "train") for file in listing.unread]
    own.tampered, own.authentic = images.get(_TAMPERED, {}), images.get(_AUTHENTIC, {})
    own.masks = _masks(images.get(_MASKS, {}), own.tampered, root, result)
    names = [_BR_GEN.fullmatch(stem) for stem in own.tampered]
    own.is_br_gen = bool(names) and all(names)
    own.generators = {match["generator"] for match in names if match} if own.is_br_gen else {own.name}
    return own


def _split_of(folder: Path, root: Path) -> str:
    """The split that the names of the folders below the data folder name; ""."""
    found = {word for part in folder.relative_to(root).parts for word in _words(part) if word in SPLIT_WORDS}
    splits = {SPLIT_WORDS[word] for word in found}
    return splits.pop() if len(splits) == 1 else ""


def _name(folder: Path, root: Path) -> str:
    """The name of a set: those of its folders, without the words for splits."""
    parts = folder.relative_to(root).parts
    names = [re.sub(rf"(?i)[_\-. ]*(?<![a-z])({'|'.join(SPLIT_WORDS)})(?![a-z])", "", part) for part in parts]
    return "-".join(name for name in names if name) or _HASH.sub("", root.resolve().name) or "fake"


def _words(name: str) -> list[str]:
    return re.split(r"[^a-z]+", name.lower())


def _masks(masks: dict[str, Path], tampered: dict[str, Path], root: Path, result: Scan) -> dict[str, Path]:
    """Stem of a tampered image -> its mask."""
    found: dict[str, Path] = {}
    small = {stem.lower(): stem for stem in tampered}
    for stem, path in masks.items():
        lower = stem.lower()
        ends = [end for end in _MASK_ENDS if lower.endswith(end) and lower.removesuffix(end) in small]
        owner = small[lower.removesuffix(ends[0])] if ends else None
        if owner is None:
            what, remedy = "a mask without an image", "bring back the image or remove the mask"
            result.problems.append(Problem(relative(path, root), what, remedy, skippable=True))
        elif owner in found:
            what, remedy = "two masks of one image", "keep the one that belongs to it"
            detail = f"also {relative(found[owner], root)}"
            result.problems.append(Problem(relative(path, root), what, remedy, detail, skippable=True))
        else:
            found[owner] = path
    return found


def _name_splits(sets: list[_Set], root: Path, result: Scan, seed: int) -> None:
    """What the names of all folders say of the splits."""
    splits = {each.split for each in sets}
    if "" in splits and len(splits) > 1:
        what, remedy = (
            "no split in the folder's name, while others have one",
            "name all with train, val or test, or none",
        )
        result.problems += [Problem(relative(each.folder, root), what, remedy) for each in sets if not each.split]
    elif splits == {""}:
        generators = {name for each in sets for name in each.generators}
        if why := why_test_set(root.resolve().name, generators):
            result.notes.append(f"the folder is a benchmark's test set ({why}): its images are only tested")
            for each in sets:
                each.split = "test"
        else:
            result.splits_by_chance = True
            result.notes.append(
                f"the folders name no splits; images were split 80/10/10 by photograph with seed {seed}"
            )
    elif splits <= {"train", "valid"} and "valid" in splits:
        result.notes.append("no folder names a test split: the validation images are the test images")
        for each in sets:
            each.split = "test" if each.split == "valid" else each.split


def _add(sets: list[_Set], result: Scan, seed: int) -> None:
    """Add the images of all folders."""
    from data.splits import split_by_chance  # not at the top: it imports pandas

    all_generators = {name for each in sets for name in each.generators}
    own_reals = len(all_generators) > 1 and all(len(each.generators) == 1 and each.authentic for each in sets)
    if len(sets) > 1 and len(all_generators) > 1 and not own_reals:
        result.notes.append("the real images of all folders Au are shared by all generators")
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for each in sets:
        before = "" if each.is_br_gen or len(sets) == 1 else f"{each.name}/"
        for stem, path in each.authentic.items():
            generator = next(iter(each.generators)) if own_reals else SHARED_REAL
            source = f"{before}{stem}"
            split = each.split or split_by_chance(source, seed=seed)
            result.entries.append(Entry(path, REAL, generator, source, split))
        for stem, path in each.tampered.items():
            match = _BR_GEN.fullmatch(stem) if each.is_br_gen else None
            generator = match["generator"] if match else each.name
            rest = match["rest"] if match else stem
            original = rest if rest in each.authentic else ending(rest, each.authentic)
            source = f"{before}{original or rest}"
            mask = each.masks.get(stem)
            counts[generator].update(all=1, mask=mask is None, original=not original)
            split = each.split or split_by_chance(source, seed=seed)
            result.entries.append(Entry(path, FAKE, generator, source, split, mask, WHITE_FAKE))
    for generator, count in sorted(counts.items()):
        if count["mask"]:
            words = "fakes have no mask in Gt; localisation leaves them out"
            result.notes.append(f"{generator}: {count['mask']} of {count['all']} {words}")
        if count["original"]:
            words = "fakes have no original in Au by their names"
            also = "; a photograph and its fake may then come into two splits" if result.splits_by_chance else ""
            result.notes.append(f"{generator}: {count['original']} of {count['all']} {words}{also}")
