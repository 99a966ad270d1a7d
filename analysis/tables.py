"""Matrices and tables as CSV, Markdown and LaTeX."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from analysis.cells import IntervalMatrix
from analysis.matrices import in_domain_cells, trained_on_label

MISSING = "missing"
Table = pd.DataFrame | IntervalMatrix

# What pandas does not escape and LaTeX's oldest fonts print as something else.
_LATEX = {"<": r"\textless{}", ">": r"\textgreater{}", "±": r"$\pm$"}


def to_csv(table: Table, *, transpose: bool = False) -> str:
    """As CSV with full precision; an `IntervalMatrix` in long form, one row a cell.

    Args:
        table: a matrix, any other table, or a matrix with its intervals.
        transpose: turn rows and columns; the long form has none to turn.
    """
    if isinstance(table, IntervalMatrix):
        return long_form(table).to_csv(index=False)
    turned = table.T if transpose else table
    if not _has_index(turned):
        return turned.to_csv(index=False)
    return turned.rename_axis(index=_corner(turned), columns=None).to_csv(na_rep=MISSING)


def to_markdown(table: Table, *, caption: str = "", transpose: bool = False, digits: int = 3) -> str:
    """As a Markdown table under its caption, which says the orientation; in-domain cells are bold.

    Args:
        table: a matrix, any other table, or a matrix with its intervals.
        caption: the first line; the orientation and, for a matrix with intervals, its means are added.
        transpose: turn rows and columns.
        digits: of every figure.
    """
    texts, bold = _texts(table, transpose=transpose, digits=digits)
    texts = texts.map(lambda text: text.replace("|", "\\|"))
    lines = [_markdown_row([_corner(texts), *texts.columns] if _has_index(texts) else [*texts.columns])]
    columns = len(texts.columns) + _has_index(texts)
    lines.append("|" + "---|" * columns)
    for name, row, marks in zip(texts.index, texts.to_numpy(), bold, strict=True):
        cells = [f"**{text}**" if mark else text for text, mark in zip(row, marks, strict=True)]
        lines.append(_markdown_row([str(name), *cells] if _has_index(texts) else cells))
    heading = caption_of(table, caption, transpose=transpose, digits=digits)
    return (f"{heading}\n\n" if heading else "") + "\n".join(lines) + "\n"


def to_latex(table: Table, *, caption: str = "", label: str = "", transpose: bool = False, digits: int = 3) -> str:
    r"""As a LaTeX table for \usepackage{booktabs}, the orientation in its caption; in-domain cells are bold.

    Args:
        table: a matrix, any other table, or a matrix with its intervals.
        caption: plain text; the orientation and, for a matrix with intervals, its means are added.
        label: for \ref.
        transpose: turn rows and columns.
        digits: of every figure.
    """
    texts, bold = _texts(table, transpose=transpose, digits=digits)
    alignment = "l" * _has_index(texts) + "".join("r" if _looks_numeric(texts[name]) else "l" for name in texts.columns)
    styler = _latex_styler(texts.rename_axis(index=None, columns=_corner(texts) or None))
    if not _has_index(texts):
        styler = styler.hide(axis="index")
    if any(map(any, bold)):
        marks = np.where(bold, "textbf: --rwrap", "")
        styler = styler.apply(lambda _: pd.DataFrame(marks, texts.index, texts.columns), axis=None)
    heading = caption_of(table, caption, transpose=transpose, digits=digits)
    # pandas escapes cells and headings but no caption, which is therefore written as the one cell of a table
    escaped = _latex_styler(pd.DataFrame([heading])).hide(axis="index").hide(axis="columns").to_string().strip()
    return styler.to_latex(
        hrules=True, column_format=alignment, position_float="centering", caption=escaped or None, label=label or None
    )


def long_form(matrix: IntervalMatrix) -> pd.DataFrame:
    """One row per cell: columns variant, metric, condition, tested_on, trained_on, mean, std, num_seeds, low, high."""
    rows = [
        {
            "variant": matrix.variant,
            "metric": matrix.metric,
            "condition": matrix.condition,
            "tested_on": row,
            "trained_on": column,
            **{name: getattr(matrix, name).loc[row, column] for name in ("mean", "std", "num_seeds", "low", "high")},
        }
        for row in matrix.mean.index
        for column in matrix.mean.columns
    ]
    return pd.DataFrame(rows)


def attribution_text(rows: pd.DataFrame, *, digits: int = 3) -> pd.DataFrame:
    """Attribution with its intervals as text: one row a method, one column a class.

    Args:
        rows: from `analysis.matrices.attribution_with_intervals`.
        digits: of every figure.
    """
    figures = zip(rows["mean"], rows["std"], rows["low"], rows["high"], strict=True)
    texts = rows.assign(text=[cell_text(*row, digits=digits) for row in figures])
    wide = texts.pivot_table(index="variant", columns="class", values="text", aggfunc="first")
    wide = wide.reindex(index=list(dict.fromkeys(rows["variant"])), columns=list(dict.fromkeys(rows["class"])))
    return wide.fillna(MISSING).rename_axis(index="method", columns="accuracy on")


def cell_text(mean: float, std: float, low: float, high: float, *, digits: int = 3) -> str:
    """Such as "0.912 ± 0.004 [0.890, 0.930]"; without what is NaN."""
    if math.isnan(mean):
        return MISSING
    spread = "" if math.isnan(std) else f" ± {std:.{digits}f}"
    interval = "" if math.isnan(low) else f" [{low:.{digits}f}, {high:.{digits}f}]"
    return f"{mean:.{digits}f}{spread}{interval}"


def orientation(matrix: pd.DataFrame) -> str:
    """Such as "rows: tested on, columns: trained on"; "" for a table whose axes have no names."""
    if matrix.index.name is None or matrix.columns.name is None:
        return ""
    return f"rows: {matrix.index.name}, columns: {matrix.columns.name}"


def caption_of(table: Table, caption: str, *, transpose: bool = False, digits: int = 3) -> str:
    """The caption with the orientation, and with a matrix' means."""
    values = table.mean if isinstance(table, IntervalMatrix) else table
    parts = [caption.rstrip(". ") or (f"{table.variant}, {table.metric}" if isinstance(table, IntervalMatrix) else "")]
    parts.append(orientation(values.T if transpose else values).capitalize())
    if isinstance(table, IntervalMatrix):
        nan = (float("nan"), float("nan"))
        words = [
            f"{name} {cell_text(value, float('nan'), *table.intervals.get(name, nan), digits=digits)}"
            for name, value in table.means.named(table.mean).items()
        ]
        parts.append(", ".join(words).capitalize())
        if not table.std.isna().all(axis=None):
            parts.append("± is the standard deviation over seeds")
        if not table.low.isna().all(axis=None):
            parts.append("In brackets 95 % bootstrap intervals over source images")
    return ". ".join(part for part in parts if part) + ("." if any(parts) else "")


def _texts(table: Table, *, transpose: bool, digits: int) -> tuple[pd.DataFrame, list[list[bool]]]:
    """Every cell as text, and which ones are in-domain."""
    if isinstance(table, IntervalMatrix):
        texts = pd.DataFrame(
            [
                [
                    cell_text(*(float(getattr(table, name).iloc[i, j]) for name in ("mean", "std", "low", "high")),
                              digits=digits)
                    for j in range(table.mean.shape[1])
                ]
                for i in range(table.mean.shape[0])
            ],
            index=table.mean.index,
            columns=table.mean.columns,
        )  # fmt: skip
    else:
        texts = pd.DataFrame(
            [[_plain(value, digits) for value in row] for row in table.itertuples(index=False, name=None)],
            index=table.index,
            columns=table.columns,
        )
    bold = pd.DataFrame(False, index=texts.index, columns=texts.columns)
    if (texts.index.name, texts.columns.name) == ("tested on", "trained on"):
        bold[:] = in_domain_cells(texts) & (texts != MISSING).to_numpy()
        texts.columns = pd.Index(
            [trained_on_label(str(name), [str(row) for row in texts.index]) for name in texts.columns],
            name=texts.columns.name,
        )
    if transpose:
        texts, bold = texts.T, bold.T
    return texts, bold.to_numpy().tolist()


def _plain(value: object, digits: int) -> str:
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)


def _has_index(table: pd.DataFrame) -> bool:
    return not (isinstance(table.index, pd.RangeIndex) and table.index.name is None)


def _corner(table: pd.DataFrame) -> str:
    names = [str(name) for name in (table.index.name, table.columns.name) if name is not None]
    return " / ".join(names)


def _looks_numeric(column: pd.Series[str]) -> bool:
    return bool(column.str.match(rf"-?\d|{MISSING}").all())


def _markdown_row(cells: list[str]) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def _latex_styler(texts: pd.DataFrame) -> Styler:
    """The table with everything escaped that LaTeX would read as a command."""

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
