"""Matrices and tables as CSV, Markdown and LaTeX."""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from analysis.cells import IntervalMatrix
from analysis.matrices import decimals, in_domain_cells, trained_on_label
from grid.overview import time_in_words
from models.metrics import in_words as metric_words

MISSING = "missing"
VALUES = ("mean", "std", "num_seeds", "low", "high", "one_more_low", "one_more_high")
# What stands in brackets in tables of several methods.
CONFIDENCE = (
    "95 % confidence intervals of the mean over seeds and source photographs; of methods with one seed, over "
    "photographs for that run alone"
)
# What stands in brackets where seeds are not part of the interval, however many there are.
PHOTOGRAPHS_ALONE = "95 % intervals over source photographs, for these runs: other seeds are not in them"
WORDS = {
    "std": "deviation over seeds",
    "num_seeds": "seeds",
    "low": "confidence interval of the mean: from",
    "high": "confidence interval of the mean: to",
    "one_more_low": "prediction interval of one more run: from",
    "one_more_high": "prediction interval of one more run: to",
}
PLAIN = {  # headings of columns, where the CSV's name is no plain word
    "ece": "calibration error",
    "ece_calibrated": "calibration error with the temperature",
    "num_seeds": "seeds",
    "num_images": "images",
    "num_fakes": "fakes",
    "low": "95 % interval: from",
    "high": "95 % interval: to",
    "variant": "method",  # with the settings that tell its variants apart, if there are several
}
Table = pd.DataFrame | IntervalMatrix

# Characters that pandas does not escape and that LaTeX's default font encoding prints as something else.
_LATEX = {"<": r"\textless{}", ">": r"\textgreater{}", "±": r"$\pm$"}


def to_csv(table: Table, *, transpose: bool = False) -> str:
    """CSV with full precision; an `IntervalMatrix` in long form, one row per cell.

    Args:
        table: a matrix, any other table, or a matrix with its intervals.
        transpose: swap rows and columns; without effect on the long form.
    """
    if isinstance(table, IntervalMatrix):
        return long_form(table).to_csv(index=False)
    table = table.T if transpose else table
    if not _has_index(table):
        return table.to_csv(index=False)
    return table.rename_axis(index=_corner(table), columns=None).to_csv(na_rep=MISSING)


def to_markdown(table: Table, *, caption: str = "", transpose: bool = False) -> str:
    """A Markdown table under its caption, which includes the orientation; in-domain cells are bold.

    Args:
        table: a matrix, any other table, or a matrix with its intervals.
        caption: the first line; the orientation and, for a matrix with intervals, its means are appended.
        transpose: swap rows and columns.
    """
    texts, bold = _texts(table, transpose=transpose)
    texts = texts.map(lambda text: text.replace("|", "\\|"))
    rows = texts.mask(bold, "**" + texts + "**").to_numpy().tolist()
    header = list(map(str, texts.columns))
    if _has_index(texts):
        header = [_corner(texts), *header]
        rows = [[str(name), *row] for name, row in zip(texts.index, rows, strict=True)]
    lines = ["| " + " | ".join(row) + " |" for row in [header, *rows]]
    lines.insert(1, "|" + "---|" * len(header))
    heading = caption_of(table, caption, transpose=transpose)
    return (f"{heading}\n\n" if heading else "") + "\n".join(lines) + "\n"


def to_latex(table: Table, *, caption: str = "", label: str = "", transpose: bool = False) -> str:
    r"""A LaTeX table for \usepackage{booktabs}, its caption includes the orientation; in-domain cells are bold.

    Args:
        table: a matrix, any other table, or a matrix with its intervals.
        caption: plain text; the orientation and, for a matrix with intervals, its means are appended.
        label: for \ref.
        transpose: swap rows and columns.
    """
    texts, bold = _texts(table, transpose=transpose)
    numeric = [texts[name].str.match(rf"-?\d|{MISSING}").all() for name in texts.columns]
    alignment = "l" * _has_index(texts) + "".join("r" if is_number else "l" for is_number in numeric)
    styler = _latex_styler(texts.rename_axis(index=None, columns=_corner(texts) or None))
    if not _has_index(texts):
        styler = styler.hide(axis="index")
    if bold.any(axis=None):
        styler = styler.apply(lambda _: bold.map(lambda mark: "textbf: --rwrap" if mark else ""), axis=None)
    heading = caption_of(table, caption, transpose=transpose)
    # pandas escapes cells and headings but not captions, so the caption is first written as the one cell of a table
    escaped = _latex_styler(pd.DataFrame([heading])).hide(axis="index").hide(axis="columns").to_string().strip()
    return styler.to_latex(
        hrules=True, column_format=alignment, position_float="centering", caption=escaped or None, label=label or None
    )


def long_form(matrix: IntervalMatrix) -> pd.DataFrame:
    """One row per cell: columns variant, metric, condition, tested_on, trained_on, and those of `VALUES`."""
    values = {name: getattr(matrix, name).stack() for name in VALUES}
    table = pd.DataFrame(values).rename_axis(["tested_on", "trained_on"]).reset_index()
    shared = {"variant": matrix.variant, "metric": matrix.metric, "condition": matrix.condition}
    return table.assign(**shared)[[*shared, *table.columns]]


def attribution_text(rows: pd.DataFrame) -> pd.DataFrame:
    """Attribution with its intervals as text: one row per variant, one column per class.

    Args:
        rows: from `analysis.cells.attribution_with_intervals`.
    """
    values = rows[["mean", "std", "low", "high"]].to_numpy(float).tolist()
    texts = rows.assign(text=[cell_text(*value) for value in values])
    wide = texts.pivot_table(index="variant", columns="class", values="text", aggfunc="first")
    wide = wide.reindex(index=list(dict.fromkeys(rows["variant"])), columns=list(dict.fromkeys(rows["class"])))
    return wide.fillna(MISSING).rename_axis(index="method", columns="accuracy on")


def cell_text(mean: float, std: float = math.nan, low: float = math.nan, high: float = math.nan) -> str:
    """Such as "0.912 ± 0.004 [0.890, 0.930]"; NaN parts are left out, and a NaN mean is "missing"."""
    if math.isnan(mean):
        return MISSING
    spread = "" if math.isnan(std) else f" ± {decimals(std)}"
    interval = "" if math.isnan(low) else f" [{decimals(low)}, {decimals(high)}]"
    return f"{decimals(mean)}{spread}{interval}"


def interval_words(matrix: IntervalMatrix) -> str:
    """What the intervals of a matrix are: "95 % confidence intervals of the mean …"."""
    seeds = matrix.num_seeds.to_numpy()
    seeds = seeds[seeds > 0]
    if not matrix.seeded:
        return "95 % confidence intervals over source photographs; the method does not depend on the seed"
    if (seeds < 2).all():
        return "95 % confidence intervals over source photographs, of these runs: another seed is not in them"
    rest = "; of cells with one seed over photographs alone" if (seeds < 2).any() else ""
    return f"95 % confidence intervals of the mean over seeds and source photographs{rest}"


def in_words(table: pd.DataFrame, generators: Collection[str]) -> pd.DataFrame:
    """A table for readers: training sets and bounds of intervals in words; without bounds that are all missing.

    A value of one seed has no deviation over seeds, and one of a single image no interval: "none", or no column where
    no value has any.

    Args:
        table: with columns of `analysis.cells.cell_table`.
        generators: all generators of the grid.
    """
    unknown = [name for name in WORDS if name in table.columns and table[name].isna().all()]
    shown = table.drop(columns=unknown)
    for value in {"mean", "value"} & set(shown.columns):
        for name in [name for name in ("std", "low", "high") if name in shown.columns]:
            cannot_be = shown[name].isna() & shown[value].notna()
            shown = shown.assign(**{name: shown[name].astype(object).mask(cannot_be, "none")})
    if "trained_on" in shown.columns:
        shown = shown.assign(trained_on=[trained_on_label(str(name), generators) for name in shown["trained_on"]])
    return shown.rename(columns=WORDS)


def spoken(table: pd.DataFrame) -> pd.DataFrame:
    """A table for readers: names of columns and of registered metrics in plain words."""
    if "metric" in table.columns:
        words = {name: metric_words(name) for name in set(map(str, table["metric"])) if "/" not in name}
        table = table.assign(metric=[words.get(str(name), name) for name in table["metric"]])
    if table.index.name is not None:
        return table
    return table.rename(columns={name: words for name, words in PLAIN.items() if words not in table.columns})


def caption_of(table: Table, caption: str, *, transpose: bool = False) -> str:
    """The caption with the orientation and, for a matrix with intervals, its means."""
    matrix = table.mean if isinstance(table, IntervalMatrix) else table
    matrix = matrix.T if transpose else matrix
    parts = [caption.rstrip(". ")]
    if matrix.index.name is not None and matrix.columns.name is not None:
        parts.append(f"Rows: {matrix.index.name}, columns: {matrix.columns.name}")
    if isinstance(table, IntervalMatrix):
        parts[0] = parts[0] or f"{table.variant}, {table.metric}"
        means = table.means.named(table.mean)
        words = [
            f"{name} {cell_text(mean, math.nan, *table.intervals.get(name, (math.nan, math.nan)))}"
            for name, mean in means.items()
        ]
        parts.append(", ".join(words).capitalize())
        if not table.std.isna().all(axis=None):
            parts.append("± is the standard deviation over seeds")
        if not table.low.isna().all(axis=None):
            parts.append(f"In brackets {interval_words(table)}")
    return ". ".join(part for part in parts if part) + ("." if any(parts) else "")


def _texts(table: Table, *, transpose: bool) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every cell as text, and bool: whether it is in-domain."""
    if isinstance(table, IntervalMatrix):
        values = [getattr(table, name).to_numpy(float) for name in ("mean", "std", "low", "high")]
        texts = pd.DataFrame(np.vectorize(cell_text, otypes=[object])(*values)).set_axis(table.mean.index)
        texts = texts.set_axis(table.mean.columns, axis="columns")
    else:
        texts = table.astype(object).map(plain)
    bold = pd.DataFrame(False, index=texts.index, columns=texts.columns)
    if (texts.index.name, texts.columns.name) == ("tested on", "trained on"):
        bold[:] = in_domain_cells(texts) & (texts != MISSING).to_numpy()
        generators = [str(row) for row in texts.index]
        labels = [trained_on_label(str(name), generators) for name in texts.columns]
        texts.columns = bold.columns = pd.Index(labels, name=texts.columns.name)
    return (texts.T, bold.T) if transpose else (texts, bold)


def plain(value: object) -> str:
    """One value of a table as text: floats with three digits, times as "1 min 25 s", "yes" or "no", "missing"."""
    if value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and math.isnan(value)):
        return MISSING
    if isinstance(value, pd.Timedelta):
        return time_in_words(value.total_seconds(), decimals=1)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return decimals(value) if isinstance(value, float) else str(value)


def _has_index(table: pd.DataFrame) -> bool:
    """Whether the index says something; the numbers of rows, such as those left of a longer table, do not."""
    return table.index.name is not None or not pd.api.types.is_integer_dtype(table.index.dtype)


def _corner(table: pd.DataFrame) -> str:
    return " / ".join(str(name) for name in (table.index.name, table.columns.name) if name is not None)


def _latex_styler(texts: pd.DataFrame) -> Styler:
    """The table with every character escaped that LaTeX would read as a command."""

    def printed(text: object) -> str:
        marked = str(text)
        for mark, command in _LATEX.items():
            marked = marked.replace(mark, command)
        return marked

    styler = texts.style
    styler.format(printed, escape="latex")
    styler.format_index(printed, axis="index", escape="latex")
    styler.format_index(printed, axis="columns", escape="latex")
    styler.format_index_names(printed, axis="columns", escape="latex")
    return styler
