"""The types that a corpus returns, and functions that list the images of a folder."""

from __future__ import annotations

import os
import re
import sys
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

SPLITS = ("train", "valid", "test")
REAL, FAKE = 0, 1
WHITE_KEPT, WHITE_FAKE = "kept", "fake"  # what white in a mask means
SHARED_REAL = "real"  # in the place of a generator, for real images that all generators share

JOINED = "+"  # between the names of generators, for real images that these generators alone share

# Folders and files that file managers, cloud disks and notebooks leave behind; hidden names are theirs too. Lower case.
OTHER_PROGRAMS = frozenset(
    {
        "@eadir", "__macosx", "#recycle", "#snapshot", "$recycle.bin", "lost+found", "system volume information",
        "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r",
    }
)  # fmt: skip
_SHOWN_NAMES = 5
UNNAMEABLE = re.compile(r"[^\w .:-]", re.ASCII)  # no generator's name has these: MLflow refuses them in a metric's name


@dataclass(frozen=True)
class Entry:
    """One image of a corpus.

    Attributes:
        path: the image file.
        label: 0 real, 1 fake.
        generator: the generator of a fake. For a real image, "real" if all generators share the real images, else the
            generator in whose folder the image is, or several that share it, as in "dalle+glide".
        source_id: identifies the photograph; a fake and its original have the same.
        split: "train", "valid" or "test".
        mask: the mask file, or None.
        mask_white: what white in the mask means: "kept" or "fake".
        original: the photograph that a fake was made from, where the source id does not say it; it need not be an image
            of the corpus. None: the real image with the same source id.
    """

    path: Path
    label: int
    generator: str
    source_id: str
    split: str
    mask: Path | None = None
    mask_white: str = WHITE_KEPT
    original: Path | None = None


@dataclass(frozen=True, kw_only=True)
class FolderEntries:
    """Many images of one folder, in columns: a million of them take a tenth of the time and memory of `Entry` objects.

    Attributes:
        folder: the folder that holds the files.
        names: names of the files.
        label, generator: as in `Entry`, of all images.
        source_ids: as in `Entry`, one per image.
        splits: as in `Entry`: one for all images, or a list with one per image.
        masks: the folder that holds the masks; None: no image has one.
        mask_names: names of the masks, None for an image without one; empty if `masks` is None.
        mask_white: as in `Entry`, of all masks.
    """

    folder: Path
    names: list[str]
    label: int
    generator: str
    source_ids: list[str]
    splits: str | list[str]
    masks: Path | None = None
    mask_names: list[str | None] = field(default_factory=list)
    mask_white: str = WHITE_KEPT

    def __post_init__(self) -> None:
        count = len(self.names)
        lengths = {len(self.source_ids)}
        if not isinstance(self.splits, str):
            lengths.add(len(self.splits))
        if self.masks is not None:
            lengths.add(len(self.mask_names))
        if lengths != {count}:
            raise ValueError(f"{self.folder}: give a source id, a split and a mask (or None) for each of {count} names")

    def __iter__(self) -> Iterator[Entry]:
        splits = repeat(self.splits) if isinstance(self.splits, str) else self.splits
        masks = repeat(None) if self.masks is None else self.mask_names
        for name, source_id, split, mask in zip(self.names, self.source_ids, splits, masks, strict=False):
            found = self.masks / mask if self.masks is not None and mask is not None else None
            white = self.mask_white if found else WHITE_KEPT
            yield Entry(self.folder / name, self.label, self.generator, source_id, split, found, white)


class Entries(Sequence[Entry]):
    """A list of images that may hold whole folders in columns. Reading it gives an `Entry` per image.

    A corpus adds an `Entry`, or a whole folder with `add_folder`.

    Attributes:
        parts: the folders, and lists of single images, in order.
    """

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self.parts: list[FolderEntries | list[Entry]] = []
        self.extend(entries)

    def append(self, entry: Entry) -> None:
        """Add one image."""
        if not self.parts or not isinstance(self.parts[-1], list):
            self.parts.append([])
        last = self.parts[-1]
        assert isinstance(last, list), "it was made above"
        last.append(entry)

    def extend(self, entries: Iterable[Entry]) -> None:
        """Add images; folders of other `Entries` stay in columns."""
        parts = entries.parts if isinstance(entries, Entries) else [list(entries)]
        self.parts += [list(part) if isinstance(part, list) else part for part in parts if part != []]

    def add_folder(self, folder: FolderEntries) -> None:
        """Add the images of a folder."""
        if folder.names:
            self.parts.append(folder)

    def of_generators(self, generators: Collection[str]) -> Entries:
        """The images of these generators, and the real images that one of them shares."""
        kept, wanted = Entries(), set(generators)
        for part in self.parts:
            if isinstance(part, list):
                kept.extend(entry for entry in part if not wanted.isdisjoint(owners_of(entry.generator)))
            elif not wanted.isdisjoint(owners_of(part.generator)):
                kept.add_folder(part)
        return kept

    def classes(self) -> set[tuple[str, int]]:
        """The pairs of generator and label that have an image."""
        return {
            (one.generator, one.label) for part in self.parts for one in (part if isinstance(part, list) else [part])
        }

    def __len__(self) -> int:
        return sum(len(part) if isinstance(part, list) else len(part.names) for part in self.parts)

    def __iter__(self) -> Iterator[Entry]:
        for part in self.parts:
            yield from part

    def __getitem__(self, index: Any) -> Any:
        return list(self)[index]

    def __iadd__(self, entries: Iterable[Entry]) -> Entries:
        self.extend(entries)
        return self

    def __add__(self, entries: Iterable[Entry]) -> list[Entry]:
        return [*self, *entries]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # it can change

    def __repr__(self) -> str:
        return f"Entries({list(self)!r})"


@dataclass(frozen=True, order=True)
class Problem:
    """A problem in the data that must be solved before any work starts.

    Attributes:
        path: the file or folder, relative to the root.
        what: the problem, in the same words for every file that has it.
        remedy: what to do about it.
        detail: details of this file; may be empty.
        skippable: whether leaving this file out solves the problem.
        generator: the only generator that the problem is about; "": the problem may be about others too.
    """

    path: str
    what: str
    remedy: str
    detail: str = ""
    skippable: bool = False
    generator: str = ""


@dataclass(kw_only=True)
class Remarks:
    """What was found beside the images.

    Attributes:
        problems: problems that must be solved; files of a skippable problem are not among the images.
        notes: harmless facts that a reader of the results should know.
        aside: files and folders with hidden names or of other programs, relative to the root; none was read.
    """

    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    aside: list[str] = field(default_factory=list)

    def add_remarks(self, other: Remarks) -> None:
        """Add the problems, the notes and the files left aside of another folder."""
        self.problems += other.problems
        self.notes += other.notes
        self.aside += other.aside


@dataclass(kw_only=True)
class Scan(Remarks):
    """The contents of a corpus' root folder.

    Attributes:
        entries: the images; none has been opened yet. A corpus may give a plain list.
        unread: pictures in formats that are not read, such as .gif.
        on_request: generator -> the contents of its folder, for generators that take part only if a launch names them.
        splits_by_chance: the images were split at random, because nothing names their splits. Then every generator
            needs images in every split; else one without training images is only tested.
        needed_by: real image that all generators share -> the generators whose fakes were made from it; where none of
            them is chosen (`--generators`), it is left out. Real images that are not here are needed by all.
    """

    entries: Entries | list[Entry] = field(default_factory=Entries)
    unread: list[Entry] = field(default_factory=list)
    on_request: dict[str, Scan] = field(default_factory=dict)
    splits_by_chance: bool = False
    needed_by: dict[Path, set[str]] = field(default_factory=dict)

    def add(self, other: Scan) -> None:
        """Add the images and the remarks of another folder."""
        self.entries.extend(other.entries)
        self.unread += other.unread
        self.add_remarks(other)

    def add_folder(self, folder: FolderEntries) -> None:
        """Add the images of a folder."""
        if isinstance(self.entries, Entries):
            self.entries.add_folder(folder)
        else:
            self.entries.extend(folder)

    def all_notes(self) -> list[str]:
        """The notes, and one that counts what was left aside."""
        if not self.aside:
            return list(self.notes)
        one = "1 file or folder with a hidden name or of another program was"
        many = f"{len(self.aside)} files and folders with hidden names or of other programs were"
        return [*self.notes, f"{one if len(self.aside) == 1 else many} left aside: {shown_names(sorted(self.aside))}"]


@dataclass(kw_only=True)
class Names(Remarks):
    """The names of images per folder, both sorted, and of pictures in formats that are not read, sorted by path."""

    folders: dict[Path, list[str]] = field(default_factory=dict)
    unread: list[Path] = field(default_factory=list)


@dataclass(kw_only=True)
class Listing(Remarks):
    """The images in a folder, sorted by path.

    `unread` has the pictures in formats that are not read, sorted by path.
    """

    images: list[Path] = field(default_factory=list)
    unread: list[Path] = field(default_factory=list)


def rows_of_cells(rows: pd.DataFrame, generators: Collection[str]) -> np.ndarray:
    """Which rows belong to cells: fakes of these generators, and real images that all share or theirs; bool (N,).

    Args:
        rows: columns label and generator, as in `Entry`.
        generators: names of generators.
    """
    reals, wanted = rows["label"] == REAL, {SHARED_REAL, *generators}
    owners = [name for name in rows.loc[reals, "generator"].unique() if not wanted.isdisjoint(owners_of(str(name)))]
    cell: np.ndarray = rows["generator"].isin(generators).mask(reals, rows["generator"].isin(owners)).to_numpy(bool)
    return cell


def owners_of(generator: str) -> list[str]:
    """The generators whose real image this is, from what stands in the place of its generator."""
    return generator.split(JOINED)


def names_to_refuse(entries: Iterable[Entry]) -> list[Problem]:
    """A problem per generator whose name has a "+": that is what `owners_of` tells several generators by."""
    classes = Entries(entries).classes()
    names = sorted({generator for generator, label in classes if label == FAKE and JOINED in generator})
    remedy = "rename these generators: + stands between the names of generators that share something"
    return [Problem(name, "a name of a generator with a +", remedy) for name in names]


def owners_of_reals(generator: str, owners: Collection[str]) -> list[str]:
    """Those of `owners`, sorted, that stand in the place of a generator in real images of this generator.

    These are its own ones, those that it shares with some, and those that all share.
    """
    return sorted(owner for owner in owners if not {generator, SHARED_REAL}.isdisjoint(owners_of(owner)))


def owner_of_reals(generator: str, owners: Collection[str]) -> str:
    """What stands in the place of a generator in real images of this generator alone, or of some; else "real".

    Args:
        generator: name of a generator.
        owners: what stands there in all real images.
    """
    return next((owner for owner in sorted(owners) if generator in owners_of(owner)), SHARED_REAL)


def relative(path: Path, root: Path) -> str:
    """`path` below `root` as a posix string; "." for the root itself."""
    return path.relative_to(root).as_posix()


def root_problems(root: Path) -> list[Problem]:
    """A problem if the root is not a folder; else empty."""
    if root.is_dir():
        return []
    if root.exists():
        return [Problem(str(root), "not a folder", "give the folder that holds the images")]
    return [Problem(str(root), "does not exist", "check the path; on a cluster it must exist on this machine")]


def is_aside(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or was left behind by another program."""
    return name.startswith(".") or name.lower() in OTHER_PROGRAMS


def folder_entries(folder: Path, root: Path, remarks: Remarks) -> list[os.DirEntry[str]]:
    """The entries of a folder, sorted by name, without those left aside. An unreadable folder becomes a problem."""
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=attrgetter("name"))
    except OSError as error:
        what, remedy = "the folder cannot be read", "check its permissions"
        remarks.problems.append(Problem(relative(folder, root), what, remedy, error.strerror or ""))
        return []
    kept = [entry for entry in found if not is_aside(entry.name)]
    if len(kept) < len(found):
        remarks.aside += [_printable(folder / entry.name, root) for entry in found if is_aside(entry.name)]
    return kept


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted by name, without those left aside; none if the folder cannot be read."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if not is_aside(entry.name) and entry.is_dir())
    except OSError:
        return []
    return [folder / name for name in names]


def list_images(folder: Path, root: Path, *, recursive: bool = False) -> Listing:
    """List the image files in `folder`, by suffix. No file is opened. See `list_names`."""
    names = list_names(folder, root, recursive=recursive)
    images = sorted(folder / name for folder, inside in names.folders.items() for name in inside)
    listing = Listing(images=images, unread=names.unread)
    listing.add_remarks(names)
    return listing


def list_names(folder: Path, root: Path, *, recursive: bool = False) -> Names:
    """List the names of the image files in `folder`, by suffix. No file is opened.

    Every ignored file is in a note, in a problem or, if it is a picture in another format, in `Names.unread`.

    Hidden names, and files and folders of other programs, are left aside and counted. Links are followed if they stay
    inside `root` (which may be a link itself). A folder is read once, however many links lead to it. Links that leave
    `root` or lead nowhere are problems.
    """
    from data.images import (
        IMAGE_SUFFIXES,
        OTHER_SUFFIXES,
        OVERLAY,
    )  # not at the top: it imports NumPy, which naming corpora need not

    listing = Names()
    inside = os.path.realpath(root)
    seen: set[str] = set()
    folders: list[Path] = [folder]
    links: list[Path] = []  # read last, so that a folder is read under its own name
    while folders or links:
        current = folders.pop() if folders else links.pop(0)
        where = relative(current, root)
        real = os.path.realpath(current)
        if not _is_inside(real, inside):
            what, remedy = "a linked folder outside the data folder", "copy it in, or give the folder it leads to"
            listing.problems.append(Problem(where, what, remedy, f"leads to {real}"))
            continue
        if real in seen:
            listing.notes.append(f"{where} leads to a folder that was read already; ignored")
            continue
        seen.add(real)
        images, others, subfolders = [], [], []
        for entry in folder_entries(current, root, listing):
            name = entry.name
            is_plain = name.isascii() and not entry.is_symlink()
            if not is_plain and (problem := _name_or_link_problem(entry, current / name, root, inside)):
                listing.problems.append(problem)
                continue
            suffix = name[name.rfind(".") :].lower() if "." in name else ""
            if entry.is_file():
                if suffix in IMAGE_SUFFIXES and not name.endswith(OVERLAY):
                    images.append(name)
                elif suffix in OTHER_SUFFIXES:
                    listing.unread.append(current / name)
                else:
                    others.append(name)
            elif not entry.is_dir():
                others.append(name)
            elif recursive:
                (links if entry.is_symlink() else folders).append(current / name)
            else:
                subfolders.append(name)
        if images:
            listing.folders[current] = images
        if overlays := [name for name in others if name.endswith(OVERLAY)]:
            others = [name for name in others if name not in overlays]
            what = "overlay of `predict` was" if len(overlays) == 1 else "overlays of `predict` were"
            listing.notes.append(f"{len(overlays)} {what} ignored in {where}: {shown_names(overlays)}")
        if others:
            what = "file that is not an image was" if len(others) == 1 else "files that are not images were"
            listing.notes.append(f"{len(others)} {what} ignored in {where}: {shown_names(others)}")
        if subfolders:
            what = "folder was" if len(subfolders) == 1 else "folders were"
            listing.notes.append(f"{len(subfolders)} {what} ignored in {where}: {shown_names(subfolders)}")
    listing.folders = dict(sorted(listing.folders.items()))
    listing.unread.sort()
    return listing


def shown_names(names: list[str]) -> str:
    """The first few names, and the number of further names."""
    more = len(names) - _SHOWN_NAMES
    return ", ".join(names[:_SHOWN_NAMES]) + (f" and {more} more" if more > 0 else "")


def stem_of(path: Path) -> str:
    """The file's stem with composed letters (NFC): "é" may be one character or two, depending on who wrote the name."""
    return unicodedata.normalize("NFC", path.stem)


def images_by_stem(listing: Listing, root: Path) -> dict[str, Path]:
    """`stem_of` -> image. Files that share a stem are left out and become problems of the listing."""
    groups: defaultdict[str, list[Path]] = defaultdict(list)
    for path in listing.images:
        groups[stem_of(path)].append(path)
    for paths in groups.values():
        if len(paths) > 1:
            names = shown_names([path.name for path in paths])
            what, remedy = "several files with one stem in a folder", "keep the one that belongs to the photograph"
            listing.problems += [Problem(relative(p, root), what, remedy, names, skippable=True) for p in paths]
    return {stem: paths[0] for stem, paths in groups.items() if len(paths) == 1}


def names_by_stem(folder: Path, names: list[str], root: Path, remarks: Remarks) -> dict[str, str]:
    """`stem_of` -> name, of the images of one folder. Files that share a stem are left out and become problems."""
    stems = [name[: name.rfind(".")] for name in names]
    if not all(map(str.isascii, stems)):
        stems = [unicodedata.normalize("NFC", stem) for stem in stems]
    found = dict(zip(stems, names, strict=True))
    if len(found) == len(names):
        return found
    listing = Listing(images=[folder / name for name in names])
    images = images_by_stem(listing, root)
    remarks.problems += listing.problems
    return {stem: path.name for stem, path in images.items()}


def _name_or_link_problem(entry: os.DirEntry[str], path: Path, root: Path, inside: str) -> Problem | None:
    if not entry.name.isascii() and sys.getfilesystemencoding() != "utf-8":
        shown = os.fsencode(relative(path, root)).decode(errors="backslashreplace")
        return Problem(shown, "a name beyond ASCII, in a locale without UTF-8", "set PYTHONUTF8=1, or LC_ALL=C.UTF-8")
    try:
        entry.name.encode()
    except UnicodeEncodeError:
        return Problem(_printable(path, root), "the name is not valid UTF-8", "rename it", skippable=True)
    if not entry.is_symlink():
        return None
    if not path.exists():
        remedy = "remove the link or bring back what it leads to"
        return Problem(relative(path, root), "a link that leads nowhere", remedy, f"leads to {path.readlink()}", True)
    real = os.path.realpath(path)
    if entry.is_file() and not _is_inside(real, inside):
        what, remedy = "a link to a file outside the data folder", "copy the files in, or give the real folder"
        return Problem(relative(path, root), what, remedy, f"leads to {real}", True)
    return None


def _printable(path: Path, root: Path) -> str:
    """`path` below `root`; bytes that are not UTF-8 are escaped."""
    return os.fsencode(relative(path, root)).decode(errors="backslashreplace")


def _is_inside(real: str, folder: str) -> bool:
    return real == folder or real.startswith(folder.rstrip(os.sep) + os.sep)
