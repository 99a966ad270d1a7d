"""Dolos: locally inpainted CelebA-HQ faces (Tantaru et al., arXiv 2311.04584), and any folder laid out like it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data.sources import Published, register_source
from data.sources.base import (
    FAKE,
    REAL,
    SHARED_REAL,
    SPLITS,
    Entry,
    Problem,
    Scan,
    folder_entries,
    images_by_stem,
    list_images,
    relative,
    root_problems,
    shown_names,
)

_SHORT_NAMES = {"repaint-p2-9k": "repaint"}  # folder -> name in the published tables
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


@register_source("dolos", order=("lama", "ldm", "repaint", "pluralistic"), caveats=CAVEATS, published=PUBLISHED)
def scan(root: Path, *, seed: int = 0) -> Scan:
    """The Dolos layout. The data folder is celebahq/ or its parent.

        celebahq/real/{train,valid,test}/*.png
        celebahq/fake/<generator>/images/{train,valid,test}/*.png
        celebahq/fake/<generator>/masks/{train,valid,test}/*.png      white = unchanged, black = fake; optional

    A file's stem names the photograph: an image, its mask and its original have the same stem.
    """
    result = Scan(problems=root_problems(root))
    if result.problems:
        return result
    base = root / "celebahq" if (root / "celebahq").is_dir() else root
    if _is_folder(base / "real", root, result):
        _scan_split_folders(base / "real", root, result, REAL, SHARED_REAL)
    if _is_folder(base / "fake", root, result):
        folders = _subfolders(base / "fake", root, result)
        if not folders:
            remedy = "put one folder per generator into it"
            result.problems.append(Problem(relative(base / "fake", root), "no generator in the folder", remedy))
        folder_of: dict[str, str] = {}
        for folder in folders:
            generator = _SHORT_NAMES.get(folder.name, folder.name)
            if generator in folder_of:
                what, remedy = "two folders for one generator", "rename one of them"
                detail = f"{folder_of[generator]} is also {generator}"
                result.problems.append(Problem(relative(folder, root), what, remedy, detail))
                continue
            folder_of[generator] = folder.name
            if _is_folder(folder / "images", root, result):
                _scan_split_folders(folder / "images", root, result, FAKE, generator, folder / "masks")
    return result


def _scan_split_folders(
    folder: Path, root: Path, result: Scan, label: int, generator: str, masks: Path | None = None
) -> None:
    """Add the images below `folder`/{train,valid,test} to `result`."""
    present = [path.name for path in _subfolders(folder, root, result)]
    if extra := [name for name in present if name not in SPLITS]:
        result.notes.append(f"folders that are no split were ignored in {relative(folder, root)}: {', '.join(extra)}")
    for split in SPLITS:
        if not _is_folder(folder / split, root, result, f"there are: {', '.join(present)}" if present else ""):
            continue
        images, stems = _images(folder / split, root, result)
        if not stems:
            remedy = "put the split's images there"
            result.problems.append(Problem(relative(folder / split, root), "no images in the folder", remedy))
            continue
        mask_of: dict[str, Path] = {}
        if masks is not None:
            if (masks / split).is_dir():
                mask_of = _match_masks(masks / split, root, result, stems)
            if num_missing := len(images.keys() - mask_of.keys()):
                counted = f"{num_missing} of {len(images)} fakes have no mask"
                result.notes.append(f"{generator}, {split}: {counted}; localisation leaves them out")
        for stem, path in images.items():
            result.entries.append(Entry(path, label, generator, stem, split, mask_of.get(stem)))


def _images(folder: Path, root: Path, result: Scan) -> tuple[dict[str, Path], set[str]]:
    """A folder's images by stem, and all stems in the folder, with those of refused files."""
    listing = list_images(folder, root)
    images = images_by_stem(listing, root)
    result.problems += listing.problems
    result.notes += listing.notes
    return images, images.keys() | {Path(problem.path).stem for problem in listing.problems}


def _match_masks(folder: Path, root: Path, result: Scan, stems: set[str]) -> dict[str, Path]:
    masks, _ = _images(folder, root, result)
    for stem in sorted(masks.keys() - stems):
        what, remedy = "a mask without an image", "bring back the image or remove the mask"
        result.problems.append(Problem(relative(masks[stem], root), what, remedy, skippable=True))
    return masks


def _is_folder(path: Path, root: Path, result: Scan, detail: str = "") -> bool:
    if path.is_dir():
        return True
    remedy = "restore it, or rename the folder that takes its place; the layout is below"
    result.problems.append(Problem(relative(path, root), "missing folder", remedy, detail))
    return False


def _subfolders(folder: Path, root: Path, result: Scan) -> list[Path]:
    entries = folder_entries(folder, root, result.problems)
    if files := [entry.name for entry in entries if not entry.is_dir()]:
        where = relative(folder, root)
        result.notes.append(f"files beside the folders were ignored in {where}: {shown_names(files)}")
    return [Path(entry.path) for entry in entries if entry.is_dir()]
