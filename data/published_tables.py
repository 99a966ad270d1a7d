"""The register of published tables: one CSV per table in `data/sources/published/tables`, named by its file."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pandas as pd

from data.register import no_entry
from data.sources import get_source, list_sources

FOLDER = Path(__file__).parent / "sources" / "published" / "tables"
COLUMNS = ("corpus", "method", "trained_on", "tested_on", "metric", "value", "source", "read", "note")
ORIGINAL, SECOND_HAND = "original", "second-hand"  # where a value was read: in the publication, or in another text
JOINED = "+"  # between generators of a training set


def list_tables() -> list[str]:
    """Names of all tables, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.csv"))


def read_table(name: str) -> pd.DataFrame:
    """One table.

    Returns:
        columns `COLUMNS`, one row per value: corpus (a name in `data.sources`), method, trained_on and tested_on (a
        generator, several joined by +, or words), metric, value (0–1), source, read ("original" or "second-hand") and
        note, which may be empty.

    Raises:
        KeyError: no such table; the message lists the tables.
        ValueError: the file has other columns, a value out of range, an unknown word in `read`, or several corpora.
    """
    if name not in list_tables():
        raise no_entry("published table", name, list_tables())
    texts = {column: str for column in COLUMNS if column != "value"}
    table = pd.read_csv(FOLDER / f"{name}.csv", dtype=texts, keep_default_na=False)
    if tuple(table.columns) != COLUMNS:
        raise ValueError(f"{name}.csv has the columns {', '.join(table.columns)}; it needs {', '.join(COLUMNS)}")
    table["value"] = pd.to_numeric(table["value"])
    problems = []
    if not table["value"].between(0, 1).all():
        problems.append("values are shares, from 0 to 1")
    if not table["read"].isin([ORIGINAL, SECOND_HAND]).all():
        problems.append(f"read is {ORIGINAL} or {SECOND_HAND}")
    if table["corpus"].nunique() != 1:
        problems.append("a table is of one corpus")
    if (table[[column for column in COLUMNS if column not in ("value", "note")]] == "").any(axis=None):
        problems.append("only a note may be empty")
    if table.duplicated(["method", "trained_on", "tested_on", "metric"]).any():
        problems.append("a value stands there twice")
    if problems:
        raise ValueError(f"{name}.csv: {'; '.join(problems)}")
    return table


def tables_of(corpus: str, generators: Collection[str]) -> dict[str, pd.DataFrame]:
    """Name -> table, of the tables of a corpus.

    A corpus that is a layout, such as plain folders, may be anybody's data. There a table counts if every generator of
    one of its training sets, or what one of its values was tested on, is a generator of the grid.

    Args:
        corpus: name of the corpus; one that this checkout lacks has no tables.
        generators: those of the grid.
    """
    if corpus not in list_sources():
        return {}
    found = {name: table for name in list_tables() if (table := read_table(name))["corpus"].iloc[0] == corpus}
    if not get_source(corpus).is_layout:
        return found
    known = set(generators)
    return {
        name: table
        for name, table in found.items()
        if any(set(text.split(JOINED)) <= known for text in {*table["trained_on"], *table["tested_on"]})
    }
