"""Seeded damage: bytes, JSON, tables and texts as no program of ours writes them."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pandas as pd

ODD_VALUES: list[Any] = [
    None, True, -1, 0, 10**30, 0.5, float("nan"), float("inf"), "", "x", "../../etc/passwd", "é" * 300, "\x00", [], {},
    [1, [2]], {"a": {"b": None}},
]  # fmt: skip
ODD_TEXTS = [
    "",
    " ",
    "nan",
    "-1",
    "1e400",
    "[]",
    "{",
    "null",
    "é" * 300,
    "../../etc/passwd",
    "%s%n",
    "a=b=c",
    "\ufeff0",
]


def damaged_bytes(data: bytes, rng: np.random.Generator) -> bytes:
    """One to three of: flipped bits, a cut, a hole, a doubled or foreign stretch, zeros."""
    changed = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        if not changed:
            break
        start = int(rng.integers(0, len(changed)))
        stop = min(len(changed), start + int(rng.integers(1, 64)))
        kind = rng.integers(0, 6)
        if kind == 0:
            for place in rng.integers(0, len(changed), 8):
                changed[place] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1:
            del changed[start:]
        elif kind == 2:
            del changed[start:stop]
        elif kind == 3:
            changed[start:start] = changed[start:stop]
        elif kind == 4:
            changed[start:stop] = rng.bytes(stop - start)
        else:
            changed[start:stop] = bytes(stop - start)
    return bytes(changed)


def damaged_json(text: str, rng: np.random.Generator) -> str:
    """A value replaced by one of another kind, removed, or put under another name; sometimes no JSON at all."""
    if rng.integers(0, 5) == 0:
        return damaged_bytes(text.encode(), rng).decode("utf-8", errors="replace")
    content = copy.deepcopy(json.loads(text))
    places: list[tuple[Any, Any]] = []

    def visit(value: Any) -> None:
        for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
            places.append((value, key))
            visit(value[key])

    visit(content)
    if not places or rng.integers(0, 8) == 0:
        return json.dumps(_one_of(ODD_VALUES, rng))
    parent, key = places[int(rng.integers(0, len(places)))]
    if rng.integers(0, 4) == 0:
        del parent[key]
    elif isinstance(parent, dict) and rng.integers(0, 4) == 0:
        parent[str(_one_of(ODD_TEXTS, rng))] = parent.pop(key)
    else:
        parent[key] = _one_of(ODD_VALUES, rng)
    return json.dumps(content)


def damaged_table(table: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Rows dropped, doubled or exchanged; a column gone, of another name or type; odd values."""
    table = table.copy()
    kind, column = rng.integers(0, 8), str(rng.choice(table.columns))
    row = int(rng.integers(0, len(table)))
    if kind == 0:
        return table.drop(index=table.index[row]).reset_index(drop=True)
    if kind == 1:
        return pd.concat([table, table.iloc[[row]]], ignore_index=True)
    if kind == 2:
        return table.drop(columns=column)
    if kind == 3:
        return table.rename(columns={column: str(_one_of(ODD_TEXTS, rng))})
    if kind == 4:
        return table.assign(**{column: table[column].astype(str) + "x"})
    if kind == 5:
        return table.iloc[:0]
    if kind == 6:
        table[column] = table[column].sample(frac=1, random_state=int(rng.integers(0, 2**31))).to_numpy()
        return table
    values = table[column].astype(object)
    values.iloc[row] = _one_of([None, np.nan, np.inf, "x", -5], rng)
    # a file has one type per column: numbers, or text
    table[column] = pd.to_numeric(values, errors="coerce") if rng.integers(0, 2) else values.map(str)
    return table


def damaged_text(text: str, rng: np.random.Generator) -> str:
    """An odd text, or this one with a part cut out, doubled or exchanged."""
    kind = rng.integers(0, 4)
    if kind == 0 or not text:
        return str(_one_of(ODD_TEXTS, rng))
    start = int(rng.integers(0, len(text)))
    if kind == 1:
        return text[:start]
    if kind == 2:
        return text[:start] + text
    return text[:start] + str(_one_of(ODD_TEXTS, rng)) + text[start + 1 :]


def _one_of(values: list[Any], rng: np.random.Generator) -> Any:
    return values[int(rng.integers(0, len(values)))]
