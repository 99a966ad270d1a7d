"""Tables as files (CSV, Markdown, LaTeX, the page) held against derived values, number by number.

The rule: a number agrees if the derived one, rounded to the decimals that are shown, is the shown one; in a CSV with
full precision, if it differs by at most 1e-9.
"""

from __future__ import annotations

import html.parser
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.verify.evidence import Difference

TOLERANCE = 1e-9
LEFT_OUT = "left out"
NOTHING = ("", "missing", "none")
ORIGIN = "backbone_and_weights"  # column of every CSV with values of methods
OF = "; of "  # in the first heading of the CSV of a matrix, before the method and its backbone and weights
# Columns with names of methods, beside which their backbone and weights may stand.
NAMED = ("method", "variant", "variants")
SPOKEN = {  # headings of Markdown, LaTeX and the page -> columns of the CSV
    "deviation over seeds": "std",
    "seeds": "num_seeds",
    "images": "num_images",
    "fakes": "num_fakes",
    "calibration error": "ece",
    "calibration error with the temperature": "ece_calibrated",
    "95 % interval: from": "low",
    "95 % interval: to": "high",
    "confidence interval of the mean: from": "low",
    "confidence interval of the mean: to": "high",
    "prediction interval of one more run: from": "one_more_low",
    "prediction interval of one more run: to": "one_more_high",
    "method": "variant",  # of both headings; no table for readers has two columns of it
    "95 % interval of the difference: from": "low",
    "95 % interval of the difference: to": "high",
}
METRICS = {  # a metric in words -> its name in a CSV
    "accuracy at p = 0.5": "accuracy",
    "accuracy at the threshold from validation": "accuracy_valid_threshold",
    "balanced accuracy at p = 0.5": "balanced_accuracy",
    "balanced accuracy at the threshold from validation": "balanced_accuracy_valid_threshold",
    "AUROC": "auroc",
    "average precision": "ap",
    "equal error rate (lower is better)": "eer",
    "macro F1 at p = 0.5": "macro_f1",
    "oracle accuracy, best threshold in hindsight": "oracle_accuracy",
    "TPR at 1 % FPR": "tpr_at_fpr_1",
    "TPR at 5 % FPR": "tpr_at_fpr_5",
    "IoU at the threshold from validation": "iou",
    "IoU at 0.5": "iou_fixed",
    "pointing game": "pointing",
    "CAM energy inside the mask": "energy",
    "average precision over pixels": "ap",
}
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[+-]?\d+)?(?![\w.])", re.IGNORECASE)


@dataclass(frozen=True)
class Between:
    """A number that is not unique: any value from `low` to `high` is right."""

    low: float
    high: float


@dataclass(frozen=True)
class Derived:
    """What a table holds, derived again.

    Attributes:
        frame: one row per row of the CSV, in any order. A cell is a number, a text, a tuple of the numbers in a text
            such as "0.912 [0.890, 0.930]", a `Between`, or None for an empty cell.
        keys: columns that name a row.
        unverified: column -> why it is not derived.
        shown: rows as in `frame`, as Markdown, LaTeX and the page show them; None: as in `frame`.
        wide: another table that Markdown, LaTeX and the page show instead; its index is their first column.
        caption: words -> the numbers that follow them in the caption.
        leave_out: a row of the CSV -> why it is not derived; "" for a row that is.
    """

    frame: pd.DataFrame
    keys: Sequence[str]
    unverified: dict[str, str] = field(default_factory=dict)
    shown: pd.DataFrame | None = None
    wide: pd.DataFrame | None = None
    caption: dict[str, tuple[float, ...]] = field(default_factory=dict)
    leave_out: Callable[[Mapping[Any, Any]], str] = lambda _: ""


class OfNothing(str):
    """Why a table is of no method, metric or condition of the evidence: a difference, and not left out."""


@dataclass
class Outcome:
    """What was found about one file.

    Attributes:
        file: relative to the report's folder.
        numbers: how many numbers it holds that were compared.
        agree: how many of them agree.
        differences: those that differ, and rows that are missing or too many.
        unverified: reason -> how many numbers were not compared for it.
    """

    file: str
    numbers: int = 0
    agree: int = 0
    differences: list[Difference] = field(default_factory=list)
    unverified: dict[str, int] = field(default_factory=dict)

    def leave_out(self, reason: str, count: int) -> None:
        """Count numbers that are not compared."""
        if count:
            self.unverified[reason] = self.unverified.get(reason, 0) + count


def numbers_in(text: str) -> list[str]:
    """The numbers of a text, as they stand there."""
    return [match[0] for match in _NUMBER.finditer(text)]


def compare_csv(file: str, table: pd.DataFrame, derived: Derived) -> tuple[Outcome, list[Any]]:
    """Hold a CSV against what was derived.

    Args:
        file: its name.
        table: its cells as text.
        derived: what was derived.

    Returns:
        the outcome, and the index in `derived.frame` of each row of the CSV; None for a row that follows from nothing,
        `LEFT_OUT` for one that is not derived.
    """
    outcome, keys = Outcome(file), list(derived.keys)
    if absent := [name for name in derived.frame.columns if name not in table.columns]:
        outcome.differences += [Difference(file, "header", name, "no such column", "a column") for name in absent]
        return outcome, []
    rows: dict[tuple[str, ...], list[Any]] = {}
    for index, values in zip(derived.frame.index, derived.frame[keys].astype(str).to_numpy().tolist(), strict=True):
        rows.setdefault(tuple(values), []).append(index)
    order: list[Any] = []
    for cells in table.to_dict("records"):
        if reason := derived.leave_out(cells):
            outcome.leave_out(reason, sum(len(numbers_in(str(text))) for text in cells.values()))
            order.append(LEFT_OUT)
            continue
        key = tuple(str(cells[name]) for name in keys)
        matches = rows.get(key, [])
        order.append(matches.pop(0) if matches else None)
        if order[-1] is None:
            outcome.differences.append(Difference(file, " ".join(key), "all", "a row", "no such row"))
            continue
        values = derived.frame.loc[order[-1]]
        for column, text in cells.items():
            name, row = str(column), " ".join(key)
            if name in keys:
                continue
            if name not in derived.frame.columns:
                if name == ORIGIN:  # held against the specifications for itself
                    continue
                reason = derived.unverified.get(name, "no rule for this column")
                outcome.leave_out(reason, len(numbers_in(str(text))))
                continue
            _compare_cell(outcome, row, name, str(text), values[name], exact=True)
    for key, left in rows.items():
        outcome.differences += [Difference(file, " ".join(key), "all", "no row", "a row")] * len(left)
    return outcome, order


def compare_shown(
    file: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    caption: str,
    derived: Derived,
    order: Sequence[Any],
) -> Outcome:
    """Hold a table as people read it against what was derived.

    Args:
        file: its name.
        header: the headings.
        rows: the cells as text.
        caption: text above the table.
        derived: what was derived.
        order: from `compare_csv`.
    """
    outcome = Outcome(file)
    for words, values in derived.caption.items():
        found = re.search(rf"{re.escape(words)} (-?\d\S*(?: ± \S+)?(?: \[[^\]]*\])?|missing)", caption, re.IGNORECASE)
        if found is None and all(math.isnan(value) for value in values):
            continue
        _compare_cell(outcome, "caption", words, found[1].rstrip(",.") if found else "nothing", values, exact=False)
    if derived.wide is not None:
        wide = derived.wide if _turned(header) == _turned([str(derived.wide.index.name)]) else derived.wide.T
        names = {_plain_heading(str(name)): name for name in wide.columns}
        frame, lines = wide, [(line[0], _row_of(wide, line[0])) for line in rows]
        if len(rows) != len(wide):
            outcome.differences.append(Difference(file, "all", "rows", str(len(rows)), str(len(wide))))
    else:
        frame = derived.frame if derived.shown is None else derived.shown
        names = {_plain_heading(str(name)): name for name in frame.columns}
        if len(rows) != len(order):
            outcome.differences.append(Difference(file, "all", "rows", str(len(rows)), str(len(order))))
        label = [name for name in derived.keys if name in frame.columns]
        lines = [
            ("?" if index in (None, LEFT_OUT) else " ".join(str(frame.loc[index, name]) for name in label), index)
            for index in list(order)[: len(rows)]
        ]
    for line, (row, index) in zip(rows, lines, strict=False):
        if index == LEFT_OUT:
            outcome.leave_out("a row that is not derived", sum(len(numbers_in(text)) for text in line))
            continue
        if index is None:
            outcome.differences.append(Difference(file, row, "all", "a row", "no such row"))
            continue
        if len(line) != len(header):
            outcome.differences.append(
                Difference(file, row, "all", f"{len(line)} cells", f"{len(header)} cells, as in the header")
            )
            continue
        first = 1 if derived.wide is not None else 0
        for heading, text in list(zip(header, line, strict=True))[first:]:
            name = names.get(_plain_heading(heading))
            if name is None:
                reason = derived.unverified.get(heading.replace(" ", "_"), derived.unverified.get(heading))
                outcome.leave_out(reason or "no rule for this column", len(numbers_in(text)))
                continue
            _compare_cell(outcome, row, heading, text, frame.loc[index, name], exact=False)
    return outcome


def _plain_heading(text: str) -> str:
    return SPOKEN.get(text, text).replace("_", " ")


def without_origin(text: str) -> str:
    """The name of a method, or names joined by " = ", without the backbone and weights in brackets behind each."""
    names = (name.partition(" [")[0] if name.endswith("]") else name for name in text.split(" = "))
    return " = ".join(names)


def _row_of(wide: pd.DataFrame, text: str) -> str | None:
    """The row of a table that is headed so; None if there is none."""
    named = without_origin(text) if wide.index.name in NAMED else text
    return next((name for name in (text, named) if name in wide.index), None)


def _turned(header: Sequence[str]) -> bool:
    return header[0].startswith("trained")


def _compare_cell(outcome: Outcome, row: str, column: str, text: str, value: Any, *, exact: bool) -> None:
    """Count the numbers of one cell, and record it if it differs."""
    if isinstance(value, str):
        said = without_origin(text) if column in NAMED else METRICS.get(text, text) if column == "metric" else text
        if value not in (text, said):
            outcome.differences.append(Difference(outcome.file, row, column, text, value))
        return
    numbers = value if isinstance(value, tuple) else (value,)
    numbers = tuple(n for n in numbers if n is not None and not (isinstance(n, float) and math.isnan(n)))
    shown = numbers_in(text)
    outcome.numbers += max(len(numbers), len(shown))
    printed = not exact or isinstance(value, tuple)
    same = [_same(text, number, printed) for text, number in zip(shown, numbers, strict=False)]
    outcome.agree += sum(same)
    if len(numbers) != len(shown) or not all(same) or (not numbers and text not in NOTHING):
        outcome.differences.append(Difference(outcome.file, row, column, text or "nothing", _words(value)))


def _same(shown: str, value: Any, printed: bool) -> bool:
    number, decimals = float(shown), max(0, -int(Decimal(shown).as_tuple().exponent))
    margin = TOLERANCE + (0.5 * 10**-decimals if printed and not isinstance(value, int) else 0.0)
    if isinstance(value, Between):
        return value.low - margin <= number <= value.high + margin
    return abs(number - float(value)) <= margin


def _words(value: Any) -> str:
    if isinstance(value, Between):
        return f"{value.low!r} to {value.high!r}"
    if isinstance(value, tuple):
        return ", ".join(str(v) if isinstance(v, int) else f"{v:.6f}" for v in value) or "missing"
    return "missing" if value is None or value != value else repr(float(value))


# Files ---------------------------------------------------------------------------------------------------------------


def read_csv(path: Path) -> pd.DataFrame:
    """A CSV with every cell as text."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    return table.rename(columns={table.columns[0]: str(table.columns[0]).partition(OF)[0]})


def read_markdown(text: str) -> tuple[str, list[str], list[list[str]]]:
    """Caption, headings and cells of a Markdown table."""
    lines = text.splitlines()
    table = [line for line in lines if line.startswith("| ")]
    caption = " ".join(line for line in lines if not line.startswith("|"))
    cells = [
        [
            cell.strip().removeprefix("**").removesuffix("**").replace("\\|", "|")
            for cell in re.split(r"(?<!\\)\|", line)
        ]
        for line in table
    ]
    rows = [row[1:-1] for row in cells]
    if not rows:
        raise ValueError("there is no table in it")
    return caption.strip(), rows[0], rows[1:]


def read_latex(text: str) -> tuple[str, list[str], list[list[str]]]:
    """Caption, headings and cells of a LaTeX table with booktabs."""
    found = re.search(r"\\caption\{(.*)\}$", text, re.MULTILINE)
    table = re.search(r"\\toprule\n(.*?)\\midrule\n(.*?)\\bottomrule", text, re.DOTALL)
    if table is None:
        raise ValueError("there is no table in it")
    header, body = table.groups()
    rows = [_latex_row(line) for line in [header, *body.splitlines()] if line.strip()]
    return _from_latex(found[1]) if found else "", rows[0], rows[1:]


def _latex_row(line: str) -> list[str]:
    cells = re.split(r"(?<!\\)&", line.strip().removesuffix(r"\\"))
    return [_from_latex(cell.strip()) for cell in cells]


def _from_latex(text: str) -> str:
    if bold := re.fullmatch(r"\\textbf\{(.*)\}", text):
        text = bold[1]
    for command, mark in ((r"$\pm$", "±"), (r"\textless{}", "<"), (r"\textgreater{}", ">"), (r"\textasciitilde ", "~"),
                          (r"\textasciicircum ", "^"), (r"\textbackslash ", "\\")):  # fmt: skip
        text = text.replace(command, mark)
    return re.sub(r"\\([_&%$#{}])", r"\1", text)


@dataclass
class PageTable:
    """A table of the page as text: caption, headings, cells, and for a matrix the name of its table's files."""

    caption: str = ""
    header: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    matrix: str = ""


class _Tables(html.parser.HTMLParser):
    """Every table of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: list[PageTable] = []
        self._inside, self._is_head = "", False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "table":
            self.tables.append(PageTable(matrix=given.get("data-matrix") or ""))
        elif tag == "tr" and self.tables:
            self.tables[-1].rows.append([])
        elif tag == "th" and self._is_head:  # one that heads several columns names none
            if (column := given.get("data-column")) is not None:
                self.tables[-1].header.append(column)
        elif tag == "thead":
            self._is_head = True
        elif tag == "caption" or (tag in ("td", "th") and not self._is_head):
            self._inside = tag
            if tag != "caption":
                self.tables[-1].rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == self._inside:
            self._inside = ""
        self._is_head &= tag != "thead"

    def handle_data(self, data: str) -> None:
        if self._inside == "caption":
            self.tables[-1].caption += data
        elif self._inside:
            self.tables[-1].rows[-1][-1] += data


def read_page(text: str) -> list[PageTable]:
    """Every table of the page."""
    parser = _Tables()
    parser.feed(text)
    for table in parser.tables:
        table.caption, table.rows = table.caption.strip(), [row for row in table.rows if row]
    return parser.tables
