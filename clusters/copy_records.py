"""Copy MLflow's SQLite file while a server may write to it: python copy_records.py FROM TO. TO appears whole or not."""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
import tempfile
from contextlib import closing
from pathlib import Path


def copy_records(source: Path, target: Path) -> None:
    """Copy a database; only this user may read the copy.

    Raises:
        OSError: a file cannot be read or written.
        sqlite3.Error: `source` is no sound database.
    """
    with tempfile.TemporaryDirectory() as name:  # on this machine's disk: the server waits until the copy is made
        snapshot = Path(name) / source.name
        records = sqlite3.connect(f"{source.resolve().as_uri()}?mode=ro", uri=True)
        with closing(records), closing(sqlite3.connect(snapshot)) as copy:
            records.backup(copy)
        new = target.with_name(f"{target.name}.new")
        new.unlink(missing_ok=True)
        new.touch(mode=0o600)
        with new.open("wb") as file, snapshot.open("rb") as whole:
            shutil.copyfileobj(whole, file)
            file.flush()
            os.fsync(file.fileno())
    new.replace(target)


if __name__ == "__main__":
    try:
        copy_records(Path(sys.argv[1]), Path(sys.argv[2]))
    except (OSError, sqlite3.Error) as error:
        sys.exit(f"MLflow's records were not copied from {sys.argv[1]} to {sys.argv[2]}: {error}")
