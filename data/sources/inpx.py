"""INP-X (emirhanbilgic/INP-X): three models' inpaintings, plain, and pasted into the photograph again (exchanged)."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from data.sources import register_source
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

_SPLITS = {"train-data": "train", "test-data": "test"}
_MODELS = ("Kandinsky_2_2", "OpenJourney", "StableDiffusion_v4")
EXCHANGED = "-exchanged"
_EDITS = {"standard_inpainting": "", "inpainting_exchange": EXCHANGED}  # folder -> end of the generator's name
_ORIGINALS = "originals"
_SIMPLE = "_simple"  # end of the name of a pasted-back edit
_DATA_SETS = ("CelebAHQ", "CityScapes", "OpenImages", "SUN_RGBD")
_LEVELS = 4  # how far below the data folder train-data/ may be; it depends on where the archive was mounted


def looks_like(root: Path) -> bool:
    """Whether train-data/ or test-data/ with INP-X's folders of edits is in the first levels."""
    return any((folder / "data" / edits).is_dir() for folder in _found(root) for edits in _EDITS)


def _found(root: Path) -> list[Path]:
    """The folders train-data and test-data: `root`, or those in its first levels."""
    if root.name.lower() in _SPLITS:
        return [root]
    found, level = [], [root]
    for _ in range(_LEVELS):
        level = [folder for above in level for folder in subfolders(above)]
        found += [folder for folder in level if folder.name.lower() in _SPLITS]
        level = [folder for folder in level if folder.name.lower() not in _SPLITS]
    return sorted(found)


@register_source(
    "inpx",
    order=(*_MODELS, *(f"{model}{EXCHANGED}" for model in _MODELS)),
    caveats={
        "": "Second-hand of INP-X: all its files are JPEG, so outside of the mask an exchanged image equals its "
        "original only nearly."
    },
    looks_like=looks_like,
    yields_to=("manifest",),
)
def scan(root: Path, *, seed: int = 0) -> Scan:
    """INP-X, in a folder of any name.

        {train-data,test-data}/data/originals/<data set>/*.jpg
        {train-data,test-data}/data/standard_inpainting/<data set>/<id>_<part>_<data set>_<model>.jpg
        {train-data,test-data}/data/inpainting_exchange/<data set>/<id>_<part>_<data set>_<model>_simple.jpg
        {train-data,test-data}/masks/<data set>_masks/<id>_<part>.jpg              white = fake

    The data sets are CelebAHQ, CityScapes, OpenImages and SUN_RGBD. Each model is a generator, and its exchanged images
    (pasted into the photograph again) are another one, such as OpenJourney-exchanged. A photograph is known by its data
    set and id. There is no validation split: a tenth of the training photographs becomes it.
    """
    result = Scan(problems=root_problems(root))
    if result.problems:
        return result
    folders = _found(root)
    if not folders:
        remedy = "give the folder that holds them; on Kaggle it lies below /kaggle/input"
        return Scan(problems=[Problem(".", "no folder train-data or test-data", remedy)])
    for split in _SPLITS.values():
        same = [folder for folder in folders if _SPLITS[folder.name.lower()] == split]
        if len(same) > 1:
            names = ", ".join(relative(folder, root) for folder in same)
            what = "several folders of one split"
            return Scan(problems=[Problem(".", what, "give the folder of one copy as --data", names)])
    for folder in folders:
        _Split(folder, root, _SPLITS[folder.name.lower()], result).read()
    return result


class _Split:
    """Reads one split."""

    def __init__(self, folder: Path, root: Path, split: str, result: Scan) -> None:
        self._folder, self._root, self._split, self._result = folder, root, split, result
        self._lacking: Counter[str] = Counter()

    def read(self) -> None:
        """Add the images of all data sets."""
        data = self._folder / "data"
        for name in (_ORIGINALS, *_EDITS):
            if not (data / name).is_dir():
                remedy = "extract the whole archive; the layout is below"
                self._result.problems.append(Problem(relative(data / name, self._root), "missing folder", remedy))
        present = {path.name for name in (_ORIGINALS, *_EDITS) for path in subfolders(data / name)}
        for unknown in sorted(present - set(_DATA_SETS)):
            remedy = f"there are {', '.join(_DATA_SETS)}; take it out, or give a list (manifest)"
            where = relative(data, self._root)
            self._result.problems.append(Problem(where, "a data set that is not of INP-X", remedy, unknown))
        for name in _DATA_SETS:
            originals = self._add_originals(data / _ORIGINALS / name, name)
            masks = self._images(self._folder / "masks" / f"{name}_masks")
            used = {
                stem
                for edits, end in _EDITS.items()
                for stem in self._add_edits(data / edits / name, name, end, originals, masks)
            }
            self._lacking["masks belong to no image, and were left out"] += len(masks.keys() - used)
        for what, number in self._lacking.items():
            if number:
                self._result.notes.append(f"{self._split}: {number} {what}")

    def _images(self, folder: Path) -> dict[str, Path]:
        if not folder.is_dir():
            return {}
        listing = list_images(folder, self._root)
        images = images_by_stem(listing, self._root)
        self._result.add_remarks(listing)
        return images

    def _add_originals(self, folder: Path, data_set: str) -> set[str]:
        images = self._images(folder)
        for stem, path in images.items():
            self._result.entries.append(Entry(path, REAL, SHARED_REAL, f"{data_set}/{stem}", self._split))
        return set(images)

    def _add_edits(
        self, folder: Path, data_set: str, end: str, originals: set[str], masks: dict[str, Path]
    ) -> set[str]:
        """Add the edits of a folder; the stems of their masks."""
        used = set()
        for stem, path in self._images(folder).items():
            match = re.fullmatch(rf"(.+)_{data_set}_(.+?)({_SIMPLE})?", stem)
            if match is None:
                what, remedy = "a name that is not of INP-X", "restore the published name: it names the photograph"
                self._skip(path, what, remedy, f"without _{data_set}_<model>")
            elif match[3] and not end:
                what = "an exchanged image among the plain ones"
                self._skip(path, what, "put it into inpainting_exchange", f"its name ends with {_SIMPLE}")
            else:
                source = _original_of(match[1], data_set)
                mask = masks.get(match[1])
                used.add(match[1])
                self._lacking["fakes have no original"] += source not in originals
                self._lacking["fakes have no mask; localisation leaves them out"] += mask is None
                generator = f"{match[2]}{end}"
                entry = Entry(path, FAKE, generator, f"{data_set}/{source}", self._split, mask, WHITE_FAKE)
                self._result.entries.append(entry)
        return used

    def _skip(self, path: Path, what: str, remedy: str, detail: str) -> None:
        self._result.problems.append(Problem(relative(path, self._root), what, remedy, detail, skippable=True))


def _original_of(name: str, data_set: str) -> str:
    """The stem of the original of a mask."""
    if data_set == "CelebAHQ":
        return name.partition("_")[0]
    if data_set == "CityScapes":
        return name.partition("_instance")[0]
    return name[:16] if data_set == "OpenImages" else name.rpartition("_")[0] or name
