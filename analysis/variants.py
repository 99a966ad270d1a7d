"""What stands behind the name of a variant: its backbone and the origin of its weights, in every title and table."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pandas as pd

ORIGIN = "backbone_and_weights"  # column of CSV tables
OF = "; of "  # between the first heading of a matrix in a CSV and the variant that it is of
_NAMES = ("variant", "method")  # columns with names of variants; of both, the first


def origin_of(rows: pd.DataFrame) -> str:
    """Backbone and origin of the weights of one variant: "xception41, hub weights"; "" where neither is known.

    Args:
        rows: rows of that variant with the columns config and weights.
    """
    backbones = [json.loads(str(config)).get("backbone", "") for config in rows["config"].unique()]
    parts = ("; ".join(filter(None, dict.fromkeys(map(str, part)))) for part in (backbones, rows["weights"].unique()))
    return ", ".join(filter(None, parts))


def label_of(variant: str, rows: pd.DataFrame) -> str:
    """A variant with its backbone and the origin of its weights: "xception_pretrained [xception41, hub weights]".

    Args:
        variant: name of a method's variant.
        rows: as in `origin_of`.
    """
    return with_origin(variant, {variant: origin_of(rows)})


def with_origin(variant: str, origins: Mapping[str, str]) -> str:
    """A variant with its origin in brackets, as in `label_of`; the variant alone where its origin is not known."""
    words = origins.get(variant, "")
    return f"{variant} [{words}]" if words else variant


def add_origins(table: pd.DataFrame, origins: Mapping[str, str], *, variant: str = "") -> pd.DataFrame:
    """A table for a CSV with one more column, `ORIGIN`: a comment would be a row to many readers of CSV.

    Args:
        table: a table with a column of `variant` names, or of one variant.
        origins: variant -> from `origin_of`.
        variant: the one variant that the whole table is of; "": see the table's column. In a matrix it stands with its
            origin in the first heading, behind `OF`: a further column would be a further class to its readers.
    """
    if not origins or ORIGIN in table.columns:
        return table
    if variant and table.index.name is not None:
        corner = " / ".join(str(name) for name in (table.index.name, table.columns.name) if name is not None)
        return table.rename_axis(index=f"{corner}{OF}{with_origin(variant, origins)}", columns=None)
    if variant:
        return table.assign(**{ORIGIN: origins.get(variant, "")})
    column = next((name for name in _NAMES if name in table.columns), None)
    if column is None and table.index.name != "method":
        return table
    named = table.index if column is None else table[column]
    return table.assign(**{ORIGIN: [origins.get(str(name), "") for name in named]})


def label_rows(table: pd.DataFrame, origins: Mapping[str, str]) -> pd.DataFrame:
    """A table for readers, each name of a variant with its origin, as in `label_of`."""
    if table.index.name == "method":
        table = table.rename(index=lambda name: with_origin(str(name), origins))
    column = next((name for name in _NAMES if name in table.columns), None)
    return table if column is None else table.assign(**{column: [with_origin(str(v), origins) for v in table[column]]})
