"""The types that a corpus returns, and functions that list the images of a folder."""

from __future__ import annotations

import os
import sys
import unicodedata
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

SPLITS = ("train", "valid", "test")
REAL, FAKE = 0, 1
SHARED_REAL = "real"  # in the place of a generator, for real images that all generators share

# Folders and files that file managers, cloud disks and notebooks leave behind; hidden names are theirs too. Lower case.
OTHER_PROGRAMS = frozenset(
    {
        "@eadir", "__macosx", "#recycle", "#snapshot", "$recycle.bin", "lost+found", "system volume information",
        "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r",
    }
)  # fmt: skip
_SHOWN_NAMES = 5


@dataclass(frozen=True)
class Entry:
    """One image of a corpus.

    Attributes:
        path: the image file.
        label: 0 real, 1 fake.
        generator: the generator of a fake. For a real image, "real" if all generators share the real images, else the
            generator in whose folder the image is.
        source_id: identifies the photograph; a fake and its original have the same.
        split: "train", "valid" or "test".
        mask: the mask file, or None.
    """

    path: Path
    label: int
    generator: str
    source_id: str
    split: str
    mask: Path | None = None


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
        entries: the images; none has been opened yet.
        unread: pictures in formats that are not read, such as .tif.
        on_request: generator -> the contents of its folder, for generators that take part only if a launch names them.
    """

    entries: list[Entry] = field(default_factory=list)
    unread: list[Entry] = field(default_factory=list)
    on_request: dict[str, Scan] = field(default_factory=dict)

    def add(self, other: Scan) -> None:
        """Add the images and the remarks of another folder."""
        self.entries += other.entries
        self.unread += other.unread
        self.add_remarks(other)

    def all_notes(self) -> list[str]:
        """The notes, and one that counts what was left aside."""
        if not self.aside:
            return list(self.notes)
        one = "1 file or folder with a hidden name or of another program was"
        many = f"{len(self.aside)} files and folders with hidden names or of other programs were"
        return [*self.notes, f"{one if len(self.aside) == 1 else many} left aside: {shown_names(sorted(self.aside))}"]


@dataclass(kw_only=True)
class Listing(Remarks):
    """The images in a folder, sorted by path.

    `unread` has the pictures in formats that are not read, sorted by path.
    """

    images: list[Path] = field(default_factory=list)
    unread: list[Path] = field(default_factory=list)


def rows_of_cells(rows: pd.DataFrame, generators: Collection[str]) -> np.ndarray:
    """Which rows belong to cells: fakes of these generators, and real images that all share or their own; bool (N,).

    Args:
        rows: columns label and generator, as in `Entry`.
        generators: names of generators.
    """
    shared = (rows["label"] == REAL) & (rows["generator"] == SHARED_REAL)
    cell: np.ndarray = (rows["generator"].isin(generators) | shared).to_numpy()
    return cell


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
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        what, remedy = "the folder cannot be read", "check its permissions"
        remarks.problems.append(Problem(relative(folder, root), what, remedy, error.strerror or ""))
        return []
    remarks.aside += [_printable(folder / entry.name, root) for entry in found if is_aside(entry.name)]
    return [entry for entry in found if not is_aside(entry.name)]


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted by name, without those left aside; none if the folder cannot be read."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if not is_aside(entry.name) and entry.is_dir())
    except OSError:
        return []
    return [folder / name for name in names]


def list_images(folder: Path, root: Path, *, recursive: bool = False) -> Listing:
    """List the image files in `folder`, by suffix. No file is opened.

    Every ignored file is in a note, in a problem or, if it is a picture in another format, in `Listing.unread`.

    Hidden names, and files and folders of other programs, are left aside and counted. Links are followed if they stay
    inside `root` (which may be a link itself). A folder is read once, however many links lead to it. Links that leave
    `root` or lead nowhere are problems.
    """
    from data.images import (
        IMAGE_SUFFIXES,
        OTHER_SUFFIXES,
        OVERLAY,
    )  # not at the top: it imports NumPy, which naming corpora need not

    listing = Listing()
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
        others, subfolders = [], []
        for entry in folder_entries(current, root, listing):
            path = current / entry.name
            if problem := _name_or_link_problem(entry, path, root, inside):
                listing.problems.append(problem)
            elif entry.is_dir() and recursive:
                (links if entry.is_symlink() else folders).append(path)
            elif entry.is_dir():
                subfolders.append(entry.name)
            elif entry.is_file() and path.suffix.lower() in IMAGE_SUFFIXES and not entry.name.endswith(OVERLAY):
                listing.images.append(path)
            elif entry.is_file() and path.suffix.lower() in OTHER_SUFFIXES:
                listing.unread.append(path)
            else:
                others.append(entry.name)
        if others:
            what = "file that is not an image was" if len(others) == 1 else "files that are not images were"
            listing.notes.append(f"{len(others)} {what} ignored in {where}: {shown_names(others)}")
        if subfolders:
            what = "folder was" if len(subfolders) == 1 else "folders were"
            listing.notes.append(f"{len(subfolders)} {what} ignored in {where}: {shown_names(subfolders)}")
    listing.images.sort()
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
