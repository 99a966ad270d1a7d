"""Rows kept on disk: one file, and beside it the parts that were added since. What is lost costs only time."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kept:
    """Rows of which no two have one key.

    Attributes:
        file: the Parquet file.
        schema: its columns.
        key: names of the columns that are the key.
        lost: what happens to rows that cannot be read, for a warning.
        wealth: rows -> int (N,), how much each of them has: of rows with one key the one that has most is kept, and of
            equal ones the newest. None: the newest.
    """

    file: Path
    schema: pa.Schema
    key: Sequence[str]
    lost: str
    wealth: Callable[[pa.Table], np.ndarray] | None = None

    def read(self) -> pa.Table:
        """All rows."""
        return self._joined(self._parts())

    def add(self, rows: pa.Table) -> None:
        """Keep rows as a part of their own, which takes as long as these rows alone."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self.file.with_name(f"{self.file.stem}-{uuid.uuid4().hex}.part")) as temporary:
            pq.write_table(rows, temporary)

    def merge(self) -> None:
        """Put all parts into the one file."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{self.file}.lock"):
            parts = self._parts()
            others = [part for part in parts if part != self.file]
            if not others:
                return
            with replacing(self.file) as temporary:
                pq.write_table(self._joined(parts), temporary)
            for part in others:
                part.unlink(missing_ok=True)

    def _parts(self) -> list[Path]:
        """The file, if it exists, and then its parts from the oldest to the newest."""
        found = []
        for path in self.file.parent.glob(f"{self.file.stem}-*.part"):
            with suppress(FileNotFoundError):  # another process has just merged it
                found.append((path.stat().st_mtime_ns, path))
        return [*([self.file] if self.file.exists() else []), *(path for _, path in sorted(found))]

    def _joined(self, parts: list[Path]) -> pa.Table:
        tables = [table for part in parts if (table := self._read(part)) is not None]
        table = pa.concat_tables(tables) if tables else self.schema.empty_table()
        if len(tables) < 2:
            return table
        keys = table.select(list(self.key)).to_pandas()
        order = np.arange(len(table))
        if self.wealth is not None:
            order = np.argsort(self.wealth(table), kind="stable")
        last = np.sort(order[~keys.iloc[order].duplicated(keep="last").to_numpy()])
        return table if len(last) == len(table) else table.take(pa.array(last))

    def _read(self, part: Path) -> pa.Table | None:
        try:
            return pq.read_table(part).select(self.schema.names).cast(self.schema)
        except FileNotFoundError:  # another process has just merged it
            return None
        except (OSError, ValueError, KeyError) as error:  # Arrow's errors are among these
            logger.warning("%s cannot be read (%s); %s", part, error, self.lost)
            return None


@contextmanager
def replacing(path: Path, *, begins: str = "") -> Iterator[Path]:
    """A temporary file beside `path`, which replaces `path` if the block succeeds and is removed otherwise.

    Args:
        path: the file to write.
        begins: how the temporary name begins, so that what a killed process left is found; "": with `path`'s name.
    """
    temporary = path.with_name(f"{begins or f'.{path.name}.'}{uuid.uuid4().hex}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
