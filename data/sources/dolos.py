"""Dolos: locally inpainted CelebA-HQ faces (Tantaru et al., arXiv 2311.04584), and any folder laid out like it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

from data.sources import Published, register_source
from data.sources._tree import SPLIT_NAMES
from data.sources.base import (
    FAKE,
    REAL,
    SHARED_REAL,
    SPLITS,
    Entry,
    FolderEntries,
    Names,
    Problem,
    Scan,
    folder_entries,
    list_names,
    names_by_stem,
    relative,
    root_problems,
    shown_names,
    stem_of,
    subfolders,
)

_SHORT_NAMES = {"repaint-p2-9k": "repaint"}  # folder -> name in the published tables
_FULLY_GENERATED = "p2"  # its folder has no images/ level
# Generators of the archive outside of the published experiment. repaint-p2 is left out only beside repaint.
_ON_REQUEST: dict[str, frozenset[str]] = {"p2": frozenset(), "repaint-p2": frozenset({"repaint"})}
FFHQ = "ffhq"  # the folder of the other half of the archive: `data.sources.dolos_ffhq`
_MAX_DEPTH = 4  # levels of folders that hold one folder each, above the tree
_TABLES = Path(__file__).parent / "published"
_TRAINED: dict[str, tuple[Any, ...]] = {"size": (0, 299), "epochs": (1,), "flip": (False,)}
_FROZEN: dict[str, tuple[Any, ...]] = {"size": (0,)}

PUBLISHED = Published(
    paper="arXiv 2311.04584",
    detection=_TABLES / "seed_detection.csv",
    attribution=_TABLES / "seed_attribution.csv",
    localisation=_TABLES / "declip_localisation.csv",
    localiser="DeCLIP (arXiv 2409.08849)",
    # learning rate and batch size were not published
    setup={
        "xception_scratch": {"backbone": ("xception41",), "weights": ("random",), **_TRAINED},
        "xception_pretrained": {"backbone": ("xception41.tf_in1k", "xception41"), "weights": ("hub",), **_TRAINED},
        "clip_linear": {"backbone": ("ViT-L-14-quickgelu", "ViT-L-14"), "weights": ("hub:openai",), **_FROZEN},
        "sam_linear": {"backbone": ("vit_b",), "weights": ("hub",), **_FROZEN},
    },
    num_test_images=900,
    # Second-hand; of the folder repaint-p2-9k the training images are by its name, and its validation images not known.
    num_images={
        **{name: {"train": 9_000, "valid": 900, "test": 900} for name in ("real", "ldm", "lama", "pluralistic")},
        "repaint": {"train": 9_000, "test": 900},
    },
)
CAVEATS = {
    "ldm": "In LDM's images the whole picture passed through the autoencoder, so a detector can recognise them without "
    "looking at the repainted region; the values do not show how much of a detector's success rests on that."
}


def find_tree(root: Path) -> Path | None:
    """The folder with real/ and fake/: `root`, celebahq/ in it, or either of them in an only folder; or None."""
    folder = root
    for _ in range(_MAX_DEPTH):
        for candidate in (folder / "celebahq", folder):
            if (candidate / "real").is_dir() and (candidate / "fake").is_dir():
                return candidate
        inside = subfolders(folder)
        if len(inside) != 1:
            break
        folder = inside[0]
    return None


def looks_like(root: Path) -> bool:
    """Whether the folder has this layout: not real/ and fake/ alone, which other corpora have too."""
    base = find_tree(root)
    if base is None or base.name == FFHQ:
        return False
    return has_layout(base)


def has_layout(base: Path) -> bool:
    """Whether a generator in fake/ has a folder images/, or real/ a folder of a split and fake/ has none."""
    inside = subfolders(base / "fake")
    splits = any((base / "real" / split).is_dir() for split in SPLITS)
    splits = splits and not any(folder.name.lower() in SPLIT_NAMES for folder in inside)
    return splits or any((folder / "images").is_dir() for folder in inside)


@register_source(
    "dolos",
    order=("lama", "ldm", "repaint", "pluralistic"),
    caveats=CAVEATS,
    published=PUBLISHED,
    looks_like=looks_like,
    yields_to=("manifest",),
)
def scan(root: Path, *, seed: int = 0) -> Scan:
    """The Dolos layout. The data folder is celebahq/ or a folder above it, such as wacv_data/.

        celebahq/real/{train,valid,test}/*.png
        celebahq/fake/<generator>/images/{train,valid,test}/*.png
        celebahq/fake/<generator>/masks/{train,valid,test}/*.png      white = unchanged, other = fake; optional
        celebahq/fake/p2/{train,valid,test}/*.png      fully generated; only with --generators

    A file's stem names the photograph: an image, its mask and its original have the same stem. repaint-p2-9k is called
    repaint; repaint-p2 beside it takes part only with --generators.
    """
    result = Scan(problems=root_problems(root))
    if result.problems:
        return result
    base = find_tree(root)
    if base is not None and base.name == FFHQ:
        remedy = "its experiment is dolos_ffhq; for the published experiment, give the folder that holds celebahq/"
        return Scan(problems=[Problem(relative(base, root), "the other half of the archive, ffhq/", remedy)])
    base = base or (root / "celebahq" if (root / "celebahq").is_dir() else root)
    for folder in (base, *base.parents):
        folder_entries(folder, root, result)  # counts what is left aside
        if folder == root:
            break
    if base != root and (others := [folder.name for folder in subfolders(base.parent) if folder != base]):
        where = relative(base, root)
        result.notes.append(
            f"only {where} was read, not the folders beside it: {shown_names(others)}; to read one, give it as --data"
        )
    scan_tree(base, root, result)
    return result


def scan_tree(base: Path, root: Path, result: Scan) -> None:
    """Add the images of a folder that holds real/ and fake/ to `result`."""
    if _is_folder(base / "real", root, result):
        _scan_split_folders(base / "real", root, result, REAL, SHARED_REAL)
    if _is_folder(base / "fake", root, result):
        _scan_generators(base / "fake", root, result)


def _scan_generators(folder: Path, root: Path, result: Scan) -> None:
    """Add the generators' images to `result`; those outside of the published experiment to `result.on_request`."""
    found = _subfolders(folder, root, result)
    if not found:
        remedy = "put one folder per generator into it"
        result.problems.append(Problem(relative(folder, root), "no generator in the folder", remedy))
    names = {_SHORT_NAMES.get(path.name, path.name) for path in found}
    on_request = {name for name, beside in _ON_REQUEST.items() if beside <= names and names != {name}}
    folder_of: dict[str, str] = {}
    lacking: list[_Lacking] = []
    for path in found:
        generator = _SHORT_NAMES.get(path.name, path.name)
        part = Scan()
        if generator in folder_of:
            what, remedy = "two folders for one generator", "rename one of them"
            detail = f"{folder_of[generator]} is also {generator}"
            part.problems.append(Problem(relative(path, root), what, remedy, detail))
        elif path.name == _FULLY_GENERATED and not (path / "images").is_dir():
            _scan_split_folders(path, root, part, FAKE, generator, own_ids=True)
            words = "fully generated images, which have no originals and no masks; localisation leaves them out"
            part.notes.append(f"{generator}: {words}")
        elif _is_folder(path / "images", root, part):
            of_masks = _scan_split_folders(path / "images", root, part, FAKE, generator, path / "masks")
            if generator in on_request:
                part.notes += _without_masks(of_masks)
            else:
                lacking += of_masks
        folder_of.setdefault(generator, path.name)
        part.problems = [dataclasses.replace(problem, generator=generator) for problem in part.problems]
        if generator in on_request:
            result.on_request[generator] = part
        else:
            result.add(part)
    result.notes += _without_masks(lacking)


class _Lacking(NamedTuple):
    """How many of a generator's fakes in a split have no mask."""

    generator: str
    split: str
    missing: int
    number: int


def _without_masks(lacking: list[_Lacking]) -> list[str]:
    """What to say of fakes without masks: in one line where none has a mask, or none of a generator."""
    never = "no fake has a mask; localisation leaves them out"
    by_generator = {one.generator: [other for other in lacking if other.generator == one.generator] for one in lacking}
    without = {name for name, parts in by_generator.items() if all(part.missing == part.number for part in parts)}
    if len(without) == len(by_generator) > 1:
        return [never]
    notes = []
    for name, parts in by_generator.items():
        counted = [
            f"{name}, {part.split}: {part.missing} of {part.number} fakes have no mask; localisation leaves them out"
            for part in parts
            if part.missing
        ]
        notes += [f"{name}: {never}"] if name in without else counted
    return notes


def _scan_split_folders(
    folder: Path,
    root: Path,
    result: Scan,
    label: int,
    generator: str,
    masks: Path | None = None,
    *,
    own_ids: bool = False,
) -> list[_Lacking]:
    """Add the images below `folder`/{train,valid,test} to `result`.

    With `own_ids`, a stem names no photograph: every image has a source id of its own.

    Returns:
        of each split with images, how many masks are missing; empty without `masks`.
    """
    lacking: list[_Lacking] = []
    present = [path.name for path in _subfolders(folder, root, result)]
    if extra := [name for name in present if name not in SPLITS]:
        result.notes.append(f"folders that are no split were ignored in {relative(folder, root)}: {', '.join(extra)}")
    for split in SPLITS:
        if not _is_folder(folder / split, root, result, f"there are: {', '.join(present)}" if present else ""):
            continue
        listing, images, stems = _images(folder / split, root, result)
        result.unread += [Entry(path, label, generator, path.stem, split) for path in listing.unread]
        if not stems:
            remedy = "put the split's images there"
            result.problems.append(Problem(relative(folder / split, root), "no images in the folder", remedy))
            continue
        mask_of: dict[str, str] = {}
        if masks is not None:
            if (masks / split).is_dir():
                mask_of = _match_masks(masks / split, root, result, stems)
            lacking.append(_Lacking(generator, split, len(images.keys() - mask_of.keys()), len(images)))
        names = [name[: name.rfind(".")] for name in images.values()]
        entries = FolderEntries(
            folder=folder / split,
            names=list(images.values()),
            label=label,
            generator=generator,
            source_ids=[f"{generator}/{split}/{name}" for name in names] if own_ids else names,
            splits=split,
            masks=masks / split if masks is not None and mask_of else None,
            mask_names=[mask_of.get(stem) for stem in images] if mask_of else [],
        )
        result.add_folder(entries)
    return lacking


def _images(folder: Path, root: Path, result: Scan) -> tuple[Names, dict[str, str], set[str]]:
    """A folder's files, the names of its images by stem, and all stems in the folder, with those of refused files."""
    listing = list_names(folder, root)
    images = names_by_stem(folder, listing.folders.get(folder, []), root, listing)
    result.add_remarks(listing)
    refused = [Path(problem.path) for problem in listing.problems]
    return listing, images, images.keys() | {stem_of(path) for path in [*refused, *listing.unread]}


def _match_masks(folder: Path, root: Path, result: Scan, stems: set[str]) -> dict[str, str]:
    listing, masks, _ = _images(folder, root, result)
    if listing.unread:
        names = shown_names([path.name for path in listing.unread])
        where = relative(folder, root)
        result.notes.append(
            f"{len(listing.unread)} masks in formats that are not read were ignored in {where}: {names}"
        )
    for stem in sorted(masks.keys() - stems):
        what, remedy = "a mask without an image", "bring back the image or remove the mask"
        result.problems.append(Problem(relative(folder / masks[stem], root), what, remedy, skippable=True))
    return masks


def _is_folder(path: Path, root: Path, result: Scan, detail: str = "") -> bool:
    if path.is_dir():
        return True
    remedy = "restore it, or rename the folder that takes its place; the layout is below"
    result.problems.append(Problem(relative(path, root), "missing folder", remedy, detail))
    return False


def _subfolders(folder: Path, root: Path, result: Scan) -> list[Path]:
    entries = folder_entries(folder, root, result)
    if files := [entry.name for entry in entries if not entry.is_dir()]:
        where = relative(folder, root)
        result.notes.append(f"files beside the folders were ignored in {where}: {shown_names(files)}")
    return [Path(entry.path) for entry in entries if entry.is_dir()]
