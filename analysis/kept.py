"""Parts of a report that are kept for the next report on the same grid, so that unchanged ones are not made again.

They lie in `report` in the grid's cache, in a folder per fingerprint, and may be deleted at any time. A part is taken
from there only if nothing has changed that it could depend on: see `fingerprint`. A part that met a problem is not
kept, because the problem may be gone the next time; a lasting one, such as fakes without a mask, is kept with the part.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import platform
import shutil
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import matplotlib as mpl
import numpy as np

import analysis.page
from analysis.page import Block, Text
from analysis.parts import Options, Part
from analysis.store import Store
from data.manifest import Manifest
from grid import names
from grid.local_store import artifact_folder
from grid.uris import sqlite_file

logger = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[1]
CODE = ("analysis", "data", "grid", "models")
FOLDER = "report"  # in the grid's cache
NUM_FINGERPRINTS = 3  # so many are kept, the newest: a report with Grad-CAM, one without, and one more
NOT_OF_PARTS = ("command", "log", "one_file", "processes", "keep")  # options on which no kept part depends
_PART = "part.json"


def fingerprint(store: Store, options: Options) -> str | None:
    """A digest of everything that a kept part could depend on; None if some of it cannot be looked at.

    It covers the runs as they were read, and the content of the store's database as it is now; name, size and times of
    every file of a run and, for Grad-CAM, of every picture and mask; the manifest; the options; the code; the versions
    of all packages; matplotlib's settings; and the current folder, which commands name. A server's files cannot be
    looked at without reading them all, so a server's grid has no fingerprint, and neither has Grad-CAM without a
    manifest in the grid's cache.

    Args:
        store: an open grid.
        options: options of the report.
    """
    file = sqlite_file(store.tracking_uri)
    runs = (store.parent, *store.records.trials(params=False, metrics=()))
    folders = [artifact_folder(store.tracking_uri, run.info.artifact_uri) for run in runs]
    if file is None or None in folders:
        return None
    digest = hashlib.sha256()

    def add(*facts: object) -> None:
        digest.update(json.dumps([str(fact) for fact in facts]).encode())

    add(store.tracking_uri, store.experiment, store.parent.info.run_id, store.data, Path.cwd(), sys.version)
    add(store.runs().to_csv(), *(run.to_dictionary() for run in (store.parent, *store.entities())))
    add(platform.platform(), *sorted(_packages()), *(f"{name}: {value}" for name, value in mpl.rcParams.items()))
    for field in dataclasses.fields(options):
        if field.name not in NOT_OF_PARTS:
            add(field.name, getattr(options, field.name))
    for path in _code():
        add(path, hashlib.sha256(path.read_bytes()).hexdigest())
    for path in (file, file.with_name(f"{file.name}-wal")):
        add(path, hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "none")
    for folder in filter(None, folders):
        for path in sorted(_files(folder, leave_out=names.REPORT)):
            add(*_look(path))
    for path in options.weight_files.values():
        add(*_look(path))
    if options.cam:
        pictures = _pictures(store, options, file)
        if pictures is None:
            return None
        for path in pictures:
            add(*_look(path))
    return digest.hexdigest()[:32]


def _code() -> list[Path]:
    """This project's own files: code, templates, published values."""
    inside = (path.relative_to(ROOT) for name in CODE for path in (ROOT / name).rglob("*") if path.is_file())
    hidden = ("__pycache__", ".")
    return sorted(ROOT / path for path in inside if not any(part.startswith(hidden) for part in path.parts))


def _packages() -> set[str]:
    """Names and versions of all installed packages."""
    found = (path.name for folder in sys.path if Path(folder).is_dir() for path in Path(folder).glob("*.dist-info"))
    return set(found)


def _files(folder: Path, *, leave_out: str) -> Iterator[Path]:
    """Every file below a folder, without one of its folders."""
    for place, inner, files in os.walk(folder):
        if Path(place) == folder and leave_out in inner:
            inner.remove(leave_out)
        yield from (Path(place) / name for name in files)


def _look(path: Path) -> tuple[object, ...]:
    """Size and times of a file: whoever changes its content changes the last one."""
    try:
        seen = path.stat()
    except OSError:
        return path, "missing"
    return path, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns


def _pictures(store: Store, options: Options, file: Path) -> list[Path] | None:
    """The manifest's own files, and every picture and mask of it; None without a manifest."""
    folder = _cache(options, file) / "manifests" / store.data
    try:
        manifest = Manifest.load(folder)
    except (OSError, ValueError, KeyError):  # the part itself says what is wrong
        return None
    if options.images is not None:
        manifest = dataclasses.replace(manifest, root=options.images)
    inside = [*manifest.table["path"], *manifest.table["mask"].dropna()]
    return [*sorted(folder.iterdir()), *(manifest.file(str(path)) for path in inside)]


def _cache(options: Options, file: Path) -> Path:
    return options.cache if options.cache is not None else file.parent / "cache"


@dataclass(frozen=True)
class Taken:
    """A kept part: its blocks, and its lasting problems, which "What this does not show" lists."""

    blocks: list[Block]
    problems: list[Text]


@dataclass(frozen=True)
class Kept:
    """The kept parts of one fingerprint.

    Attributes:
        store: the grid.
        options: options of the report.
        folder: of the parts, a folder per part; it may not be there yet.
    """

    store: Store
    options: Options
    folder: Path

    @property
    def is_there(self) -> bool:
        """Whether parts were kept, which means that every run could be read."""
        return self.folder.is_dir()

    def is_current(self) -> bool:
        """Whether the grid is still what it was: a grid that runs meanwhile must not leave its older values."""
        return fingerprint(self.store, self.options) == self.folder.name

    def take(self, part: Part, report: Path) -> Taken | None:
        """Copy a part's files into a report's folder; None if it was not kept, or not all is left."""
        folder = self.folder / part.name
        try:
            kept = json.loads((folder / _PART).read_text(encoding="utf-8"))
            found = Taken(_block(kept["blocks"]), _block(kept["problems"]))
            if any((folder / name).stat().st_size != size for name, size in kept["files"].items()):
                raise ValueError("a file is not whole")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            logger.warning("%s is made anew, because what was kept of it is damaged: %s", part.title, error)
            return None
        for name in kept["files"]:
            shutil.copyfile(folder / name, report / name)
        return found

    def keep(self, part: Part, found: Taken, report: Path, tables: Iterable[str], pictures: Iterable[str]) -> None:
        """Keep a part, whole or not at all; a folder that cannot be written is warned of.

        Args:
            part: the part.
            found: its blocks and problems.
            report: where its files lie, in `figures` and `tables`.
            tables: names of its files of tables.
            pictures: names of its pictures, without suffix.
        """
        drawn = [f"{name}.{kind}" for name in pictures for kind in ("png", "svg")]
        figures = [name for name in drawn if name.endswith(".png") or (report / "figures" / name).is_file()]
        files = [*(f"figures/{name}" for name in figures), *(f"tables/{name}" for name in sorted(tables))]
        target = self.folder / part.name
        try:
            sizes = {name: (report / name).stat().st_size for name in files}
            text = json.dumps({"blocks": _plain(found.blocks), "problems": _plain(found.problems), "files": sizes})
            self.folder.mkdir(parents=True, exist_ok=True)
            unfinished = Path(mkdtemp(prefix=f".{part.name}.", dir=self.folder))
            try:
                for name in ("figures", "tables"):
                    (unfinished / name).mkdir()
                for name in files:
                    shutil.copyfile(report / name, unfinished / name)
                (unfinished / _PART).write_text(text, encoding="utf-8")
                unfinished.chmod(0o755)
                shutil.rmtree(target, ignore_errors=True)
                unfinished.rename(target)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
        except OSError as error:
            logger.warning("%s is not kept for the next report: %s", part.title, error)


def open_kept(store: Store, options: Options) -> Kept | None:
    """The kept parts of a grid as it is now; None where there can be none (see `fingerprint`).

    Parts of other fingerprints are deleted, but for the newest ones.
    """
    file, found = sqlite_file(store.tracking_uri), fingerprint(store, options)
    if file is None or found is None:
        return None
    folder = _cache(options, file) / FOLDER
    try:
        others = [path for path in folder.iterdir() if path.name != found] if folder.is_dir() else []
        for old in sorted(others, key=lambda path: path.stat().st_mtime_ns, reverse=True)[NUM_FINGERPRINTS - 1 :]:
            shutil.rmtree(old)
    except FileNotFoundError:  # another report tidies at the same time
        pass
    except OSError as error:
        logger.warning("%s, where parts of reports are kept, cannot be tidied: %s", folder, error)
    return Kept(store, options, folder / found)


# Blocks as JSON ------------------------------------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    """A block as plain types."""
    if dataclasses.is_dataclass(value):
        inside = {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"kind": type(value).__name__} | inside
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value.item() if isinstance(value, np.generic) else value


def _block(plain: Any) -> Any:
    """The block of `_plain`."""
    if isinstance(plain, dict):
        kind = getattr(analysis.page, plain["kind"])
        return kind(**{name: _block(value) for name, value in plain.items() if name != "kind"})
    return [_block(each) for each in plain] if isinstance(plain, list) else plain
