"""Finished manifests, kept so that a launch on unchanged data reads no more than names, sizes and times of files."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa

from data.audits import audits_for
from data.kept import replacing
from data.parallel import parallel_map
from data.probes import PROBE_VERSION, Stamped, problem_of
from data.roots import Roots
from data.sources.base import Problem, Scan

if TYPE_CHECKING:
    from data.manifest import Manifest

logger = logging.getLogger(__name__)

MOST_KEPT = 4  # manifests per data folder
_JUDGED = "judged.json"
_PACKAGES = ("numpy", "pandas", "pyarrow", "scikit-learn", "scipy")

SizeCheck = Callable[[int, int], str]


class Unchanged:
    """The manifest of one listing of a data folder under one set of options.

    What a manifest follows from is hashed into its key: the listed images with sizes and times of their files, the
    other remarks of the scan, the options, and the code of `data`. Change any of it, and the manifest is made again.
    Two things are looked at again before a kept manifest is taken: what the size check says of the pictures' sizes, and
    what is wrong with the bad files. A file that could not be read may be readable now, with the same size and time.
    """

    def __init__(
        self, cache: Path, roots: Roots, table: pd.DataFrame, files: Stamped, scan: Scan, options: Mapping[str, Any]
    ) -> None:
        key = hashlib.sha256()
        remarks = [scan.problems, scan.all_notes(), scan.unread, scan.splits_by_chance]
        facts = (_code(), str(roots.main), dict(roots.named), sorted(options.items()), remarks)
        key.update(repr(facts).encode(errors="surrogatepass"))
        stamps = pa.table([files.paths, files.size, files.mtime_ns], ["path", "size", "mtime_ns"])
        for rows in (pa.Table.from_pandas(table), stamps):
            _hash_table(rows, key)
        self._roots, self._key = roots, key.hexdigest()[:32]
        self._all = cache / "listings" / hashlib.sha256(os.path.realpath(roots.main).encode()).hexdigest()[:16]

    def load(self, size_check: SizeCheck | None) -> Manifest | None:
        """The manifest, if it is kept, and the sizes of its pictures and its bad files are judged as they were."""
        from data.manifest import Manifest

        for folder in sorted(self._all.glob(f"{self._key}-*")):
            try:
                judged = json.loads((folder / _JUDGED).read_text(encoding="utf-8"))
                sizes, bad = judged["sizes"], [Problem(**facts) for facts in judged["bad"]]
                if sizes != _judged(size_check, [(width, height) for width, height, _ in sizes]):
                    continue
                if bad != list(parallel_map(self._problem_now, bad, workers=None, ahead=256)):
                    continue
                manifest = Manifest.load(folder)
                os.utime(folder)
            except FileNotFoundError:
                continue  # another process removed it, or has not finished it
            except (OSError, ValueError, KeyError, TypeError) as error:
                logger.warning("the manifest in %s cannot be read (%s); it is made again", folder, error)
                continue
            return manifest
        return None

    def _problem_now(self, problem: Problem) -> Problem | None:
        return problem_of(self._roots, problem.path)

    def keep(
        self, manifest: Manifest, sizes: pd.DataFrame, bad: Iterable[Problem], size_check: SizeCheck | None
    ) -> None:
        """Keep a manifest, and at most `MOST_KEPT` of the data folder.

        The folder's name says how sizes and files were judged, so a manifest never gets in the place of one that was
        judged otherwise.

        Args:
            manifest: the manifest.
            sizes: columns width and height, of all good pictures, also of those that the size check left out.
            bad: what is wrong with the bad files, which were left out.
            size_check: see `data.manifest.build_manifest`.
        """
        pairs = sizes[["width", "height"]].drop_duplicates().sort_values(["width", "height"]).to_numpy().tolist()
        judged = {"sizes": _judged(size_check, pairs), "bad": [asdict(problem) for problem in sorted(bad)]}
        text = json.dumps(judged)
        folder = self._all / f"{self._key}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        manifest.save(folder)
        with replacing(folder / _JUDGED) as temporary:
            temporary.write_text(text, encoding="utf-8")
        ages: dict[Path, int] = {}
        for other in self._all.iterdir():
            with suppress(FileNotFoundError):  # another process removed it
                ages[other] = other.stat().st_mtime_ns
        for other in sorted(ages, key=ages.__getitem__)[:-MOST_KEPT]:
            shutil.rmtree(other, ignore_errors=True)


def _judged(size_check: SizeCheck | None, sizes: Iterable[Sequence[int]]) -> list[list[Any]]:
    """[width, height, why this size cannot be used] of each size; "" if it can be."""
    return [[width, height, "" if size_check is None else size_check(width, height)] for width, height in sizes]


def _hash_table(table: pa.Table, key: hashlib._Hash) -> None:
    """Add all values of a table, whatever the pieces that it is held in."""
    for name in table.column_names:
        key.update(f"{name}:{table[name].type}:{len(table)};".encode())
        for start in range(0, len(table), 100_000):
            piece = pa.concat_arrays([pa.array([], table[name].type), *table[name].slice(start, 100_000).chunks])
            for buffer in piece.buffers():
                key.update(b"-" if buffer is None else buffer)


@cache
def _code() -> str:
    """A hash of the code that makes manifests, and the packages that it uses."""
    here = Path(__file__).parent
    digest = hashlib.sha256(repr([PROBE_VERSION, audits_for(measured=False), *map(version, _PACKAGES)]).encode())
    for file in sorted(here.rglob("*.py")):
        digest.update(file.relative_to(here).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()
