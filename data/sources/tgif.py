"""TGIF and TGIF2 (IDLabMedia/tgif-dataset): photographs of COCO, inpainted; pasted back (sp) and regenerated (fr)."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data.sources import register_source
from data.sources._tree import SPLIT_NAMES
from data.sources.base import (
    FAKE,
    REAL,
    SHARED_REAL,
    WHITE_FAKE,
    Entry,
    Problem,
    Scan,
    list_images,
    relative,
    root_problems,
    shown_names,
    subfolders,
)

_SPLITS = ("training", "validation", "testing")
_NAME = re.compile(
    r"(?P<id>\d+)_mask_(?P<kind>bbox|segm|random)\.png(_ps_mask\.png)?_(?P<tool>[^_]+)_(?P<number>[^_]+)"
)
_PASTED_MASK = re.compile(r"\d+_mask_(bbox|segm|random)\.png_ps_mask")
_SIZE = re.compile(r"-(512|1024)$")
_VARIANT = re.compile(r"(?<![a-z])(sp|fr)(?![a-z])")
_LEVELS = 3  # how far below the data folder the folders of the tools are looked for

_Place = tuple[str, str, str]  # split, category, stem
_Files = dict[_Place, Path]


@dataclass(frozen=True)
class _Image:
    """An image file.

    Attributes:
        tool: the folder above the split.
        place: split, category and stem.
    """

    path: Path
    tool: str
    place: _Place


def looks_like(root: Path) -> bool:
    """Whether a folder such as sd2-sp, or orig beside masks, has folders of splits, in the first levels."""
    level = [root]
    for _ in range(_LEVELS):
        for folder in level:
            tools = {path.name.lower() for path in subfolders(folder) if _has_splits(path)}
            if any(_VARIANT.search(name) for name in tools) or {"orig", "masks"} <= tools:
                return True
        level = [below for folder in level for below in subfolders(folder)]
    return False


def _has_splits(folder: Path) -> bool:
    return any((folder / split).is_dir() for split in _SPLITS)


@register_source("tgif", looks_like=looks_like, yields_to=("manifest",))
def scan(root: Path, *, seed: int = 0) -> Scan:
    """TGIF and TGIF2, their archives extracted into one folder.

        orig/{training,validation,testing}/<category>/<COCO id>_orig.png           also _orig_512.png, _orig_1024.png
        masks/{training,validation,testing}/<category>/<COCO id>_mask_bbox.png     and more; white = fake
        <tool>-sp/{training,validation,testing}/<category>/*.png                   pasted back: sd2-sp, ps-sp
        <tool>-fr/{training,validation,testing}/<category>/*.png                   regenerated: sd2-fr, sdxl-fr
        original-flux/, masks-flux/                                                of the regenerated images of Flux

    Each folder of a tool is a generator of its own. The COCO id is the photograph. What an image was made from follows
    from its name: of a pasted-back image <id>_orig.png and the mask _ps_mask.png, of a regenerated one the original and
    the mask of its size. The real images are the originals that the fakes were made from.
    """
    result = Scan(problems=root_problems(root))
    if result.problems:
        return result
    originals: dict[bool, _Files] = {False: {}, True: {}}
    masks: dict[bool, _Files] = {False: {}, True: {}}
    fakes: list[_Image] = []
    for image in _images(root, result):
        tool = image.tool.lower()
        if tool.startswith("orig"):
            originals["flux" in tool][image.place] = image.path
        elif tool.startswith("mask") or _PASTED_MASK.fullmatch(image.place[-1]):
            masks["flux" in tool][image.place] = image.path
        else:
            fakes.append(image)
    if not fakes:
        if not result.problems:
            remedy = "extract the archives (tar -xzf orig_training.tar.gz) into one folder, and give that folder"
            result.problems.append(Problem(".", "no images in the layout of TGIF", remedy))
        return result
    if not any(originals.values()):
        remedy = "extract the orig archives beside it: TGIF's own originals, as those of COCO have other sizes"
        result.problems.append(Problem(".", "no folder orig with originals", remedy))
    reader = _Reader(root, originals, masks, result)
    for image in fakes:
        reader.read(image)
    reader.finish()
    return result


def _images(root: Path, result: Scan) -> Iterator[_Image]:
    """The images that lie below a folder of a tool and one of a split."""
    listing = list_images(root, root, recursive=True)
    result.add_remarks(listing)
    astray: list[str] = []
    for path in listing.images:
        parts = path.relative_to(root).parts[:-1]
        number = next((number for number, part in enumerate(parts) if part.lower() in _SPLITS), None)
        if number is None:
            astray.append(relative(path, root))
        elif not number:
            what, remedy = "no folder of a tool above the split", "give the folder that holds orig, masks and the tools"
            result.problems.append(Problem(parts[0], what, remedy))
            return
        else:
            category = unicodedata.normalize("NFC", "/".join(parts[number + 1 :]))
            yield _Image(path, parts[number - 1], (SPLIT_NAMES[parts[number].lower()], category, path.stem))
    if astray:
        words = "images outside of training/, validation/ and testing/ were ignored"
        result.notes.append(f"{len(astray)} {words}: {shown_names(astray)}")


class _Reader:
    """Finds the original and the mask of each fake, and counts those that are not there."""

    def __init__(self, root: Path, originals: dict[bool, _Files], masks: dict[bool, _Files], result: Scan) -> None:
        self._root, self._originals, self._masks, self._result = root, originals, masks, result
        self._total: Counter[str] = Counter()
        self._without: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._sizes: defaultdict[str, set[str]] = defaultdict(set)
        self._reals: dict[Path, Entry] = {}

    def read(self, image: _Image) -> None:
        """Add one fake."""
        split, category, stem = image.place
        match = _NAME.fullmatch(stem)
        if match is None:
            remedy = "restore the published name, as the original and the mask follow from it"
            self._skip(image.path, "a name that is not of TGIF", remedy)
            return
        found = _SIZE.search(match["tool"])
        size = f"_{found[1]}" if found else ""
        variant = _VARIANT.search(image.tool.lower())
        if variant is not None and (variant[1] == "fr") != bool(size):
            what = "a pasted-back image in a folder of regenerated ones, or the reverse"
            self._skip(image.path, what, "put it into the folder of its own archive", image.tool)
            return
        is_flux = "flux" in f"{image.tool} {match['tool']}".lower()
        own = f"{match['id']}_mask_{match['kind']}"
        names = [f"{own}{size}"] if size else [f"{own}.png_ps_mask"]
        names += [own] if is_flux or (match["kind"] == "random" and not size) else []
        mask = _first(self._masks[is_flux], split, category, names)
        names = [f"{match['id']}_orig{size}", *([f"{match['id']}_orig"] if is_flux else [])]
        original = _first(self._originals[is_flux], split, category, names)
        generator = image.tool
        self._total[generator] += 1
        self._without["mask"][generator] += mask is None
        self._without["original"][generator] += original is None
        self._sizes[f"{size.strip('_') or 'its own'} size{' (Flux)' if is_flux else ''}"].add(generator)
        entry = Entry(image.path, FAKE, generator, match["id"], split, mask, WHITE_FAKE, original)
        self._result.entries.append(entry)
        if original is not None:
            self._reals.setdefault(original, Entry(original, REAL, SHARED_REAL, match["id"], split))
            self._result.needed_by.setdefault(original, set()).add(generator)

    def _skip(self, path: Path, what: str, remedy: str, detail: str = "") -> None:
        self._result.problems.append(Problem(relative(path, self._root), what, remedy, detail, skippable=True))

    def finish(self) -> None:
        """Add the real images, and what is to be said of all."""
        notes = self._result.notes
        self._result.entries.extend(self._reals.values())
        for generator, total in sorted(self._total.items()):
            if number := self._without["mask"][generator]:
                words = "fakes have no mask of their size; localisation leaves them out"
                notes.append(f"{generator}: {number} of {total} {words}{_hint(generator)}")
            if number := self._without["original"][generator]:
                notes.append(f"{generator}: {number} of {total} fakes have no original of their size")
        unused = sum(map(len, self._originals.values())) - len(self._reals)
        if unused:
            notes.append(f"{unused} originals in sizes that no fake here was made from were left out")
        if len(self._sizes) > 1:
            groups = "; ".join(f"{size}: {','.join(sorted(names))}" for size, names in sorted(self._sizes.items()))
            notes.append(
                "the fakes were made from originals of several sizes, which all generators share as real images, so "
                f"size may tell real from fake; generators of one size alone can be named by --generators ({groups})"
            )


def _hint(generator: str) -> str:
    if "flux" in generator.lower():
        return "; they lie in masks-flux"
    found = _VARIANT.search(generator.lower())
    pasted = "; those of all pasted-back sets lie in the masks archives of the first TGIF"
    return pasted if found is not None and found[1] == "sp" else ""


def _first(files: _Files, split: str, category: str, stems: list[str]) -> Path | None:
    return next((files[place] for stem in stems if (place := (split, category, stem)) in files), None)
