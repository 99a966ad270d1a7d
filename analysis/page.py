"""A report as a folder: figures and tables as files, and one static page that holds them all."""

from __future__ import annotations

import base64
import io
import math
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure
from PIL import Image

from analysis.cells import IntervalMatrix
from analysis.figures import style
from analysis.store import StoreError
from analysis.tables import MISSING, to_csv, to_latex, to_markdown

TEMPLATES = Path(__file__).parent / "templates"
DPI = 144
_CSS_PIXELS = 96  # to the inch
_PAGE, _FOLDERS, _UNFINISHED = "index.html", ("figures", "tables"), ".unfinished"
_MARK = '<meta name="generator" content="inpaint-grid">'


@dataclass(frozen=True)
class Text:
    """A paragraph; `strong` sets it off as something to take note of, `command` is a line for a terminal."""

    text: str
    strong: bool = False
    command: str = ""
    kind: str = field(default="text", init=False)


@dataclass(frozen=True)
class Bullets:
    """A list of sentences, each with an optional command."""

    items: Sequence[Text]
    kind: str = field(default="bullets", init=False)


@dataclass(frozen=True)
class Picture:
    """A figure, inlined.

    Attributes:
        name: of its files, without their endings.
        alt: for those who do not see it: what it is, and what it says in numbers.
        caption: below it.
        source: a data URI.
        width, height: in CSS pixels.
    """

    name: str
    alt: str
    caption: str
    source: str
    width: int
    height: int
    kind: str = field(default="picture", init=False)


@dataclass(frozen=True)
class Row:
    """Figures side by side where there is room."""

    pictures: Sequence[Picture]
    kind: str = field(default="row", init=False)


@dataclass(frozen=True)
class Cell:
    """A table's cell: what is shown, what it is sorted by, and where it leads."""

    text: str
    value: str | float = ""
    link: str = ""
    anchor: str = ""
    numeric: bool = False


@dataclass(frozen=True)
class Table:
    """A table whose columns can be sorted."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    kind: str = field(default="table", init=False)


@dataclass(frozen=True)
class Fold:
    """Blocks behind a heading that opens them."""

    title: str
    blocks: Sequence[Block]
    open: bool = False
    kind: str = field(default="fold", init=False)


Block = Text | Bullets | Picture | Row | Table | Fold


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    title: str
    blocks: Sequence[Block]

    @property
    def anchor(self) -> str:
        """For links to it."""
        return file_name(self.title)


class Folder:
    """Where a report is written: `figures/` as PNG and SVG, `tables/` as CSV, Markdown and LaTeX."""

    def __init__(self, path: Path) -> None:
        """Everything is written below `path`/.unfinished, and takes its place when the page is done.

        Raises:
            StoreError: `path` holds something else than an earlier report, or cannot be written.
        """
        self.target, self.path = path, path / _UNFINISHED
        page = path / _PAGE
        if path.exists() and not path.is_dir():
            raise StoreError(f"--out {path} is a file; name a folder")
        try:
            holds = {entry.name for entry in path.iterdir()} - {_UNFINISHED} if path.exists() else set()
            if holds and not (page.is_file() and _MARK in page.read_text(errors="replace")):
                raise StoreError(f"--out {path} is not empty and holds no report of ours; name a new folder")
            shutil.rmtree(self.path, ignore_errors=True)
            for name in _FOLDERS:
                (self.path / name).mkdir(parents=True)
        except OSError as error:
            raise StoreError(
                f"--out {path} cannot be written: {error.strerror or error}; name another folder"
            ) from error

    def drop(self) -> None:
        """Remove what is unfinished; an earlier report stays as it was."""
        shutil.rmtree(self.path, ignore_errors=True)
        with suppress(OSError):
            self.target.rmdir()  # only if it is empty

    def picture(self, name: str, figure: Figure, *, alt: str, caption: str = "", photographs: bool = False) -> Picture:
        """Write a figure to files and keep it for the page.

        The page has it smaller than the file: in 256 colours, or as JPEG.

        Args:
            name: of its files, without their endings.
            figure: to be drawn.
            alt: what it says, in words.
            caption: below it.
            photographs: it shows some.
        """
        name = file_name(name)
        buffer = io.BytesIO()
        with style():
            figure.savefig(buffer, format="png", dpi=DPI)
            figure.set_layout_engine("none")  # where everything lies is settled, and settling it again takes as long
            figure.savefig(self.path / "figures" / f"{name}.svg", metadata={"Date": None})
        (self.path / "figures" / f"{name}.png").write_bytes(buffer.getvalue())
        image = Image.open(buffer).convert("RGB")
        width, height = (round(side * _CSS_PIXELS / DPI) for side in image.size)
        return Picture(name, alt, caption, _data_uri(image, photographs=photographs), width, height)

    def table(
        self,
        name: str,
        table: pd.DataFrame,
        *,
        caption: str,
        shown: pd.DataFrame | None = None,
        links: Mapping[str, Sequence[str]] | None = None,
        anchors: Sequence[str] = (),
    ) -> Table:
        """Write a table to files and keep it for the page.

        Args:
            name: of its files, without their endings.
            table: with everything.
            caption: above it.
            shown: what the page, Markdown and LaTeX have of it; None: all.
            links: column -> where each of its cells leads; "" for nowhere.
            anchors: of the rows, for links to them.
        """
        self.files(name, table, caption=caption, shown=shown)
        return html_table(table if shown is None else shown, caption, links=links, anchors=anchors)

    def files(
        self,
        name: str,
        table: pd.DataFrame | IntervalMatrix,
        *,
        caption: str,
        shown: pd.DataFrame | None = None,
        transpose: bool = False,
    ) -> None:
        """Write a table to files alone: all of it as CSV, what is `shown` for people to read."""
        stem = self.path / "tables" / file_name(name)
        text = table if shown is None else shown
        stem.with_name(f"{stem.name}.csv").write_text(to_csv(table, transpose=transpose))
        stem.with_name(f"{stem.name}.md").write_text(to_markdown(text, caption=caption, transpose=transpose))
        latex = to_latex(text, caption=caption, label=f"tab:{stem.name}", transpose=transpose)
        stem.with_name(f"{stem.name}.tex").write_text(latex)

    def page(self, *, title: str, subtitle: str, sections: Sequence[Section]) -> Path:
        """Write `index.html`, and put everything in the place of an earlier report."""
        environment = Environment(
            loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
            lstrip_blocks=True,
        )  # fmt: skip
        # our own files, of which nothing may be escaped
        own = {name: (TEMPLATES / name).read_text() for name in ("report.css", "report.js")}
        text = environment.get_template("report.html").render(
            title=title, subtitle=subtitle, sections=sections, css=own["report.css"], js=own["report.js"]
        )
        (self.path / _PAGE).write_text(text, encoding="utf-8")
        for name in _FOLDERS:
            shutil.rmtree(self.target / name, ignore_errors=True)
        for name in (*_FOLDERS, _PAGE):
            (self.path / name).replace(self.target / name)
        self.path.rmdir()
        return self.target / _PAGE


def html_table(
    table: pd.DataFrame,
    caption: str,
    *,
    links: Mapping[str, Sequence[str]] | None = None,
    anchors: Sequence[str] = (),
) -> Table:
    """A data frame as a table of the page; a named index becomes the first column."""
    if table.index.name is not None:
        table = table.reset_index()
    columns = [str(name) for name in table.columns]
    rows = []
    for number, values in enumerate(table.itertuples(index=False, name=None)):
        cells = []
        for index, (column, value) in enumerate(zip(columns, values, strict=True)):
            link = links[column][number] if links and column in links else ""
            anchor = anchors[number] if anchors and index == 0 else ""
            cells.append(_cell(value, link, anchor))
        rows.append(cells)
    return Table(caption, [name.replace("_", " ") for name in columns], rows)


def file_name(text: str) -> str:
    """Letters, digits, dots, dashes and underscores of a text, for files and anchors."""
    return re.sub(r"[^a-z0-9_.]+", "-", text.lower().replace("+", "-and-")).strip("-")


def sentence_list(words: Iterable[str]) -> str:
    """Such as "a, b and c"."""
    *most, last = list(words)
    return f"{', '.join(most)} and {last}" if most else last


def _data_uri(image: Image.Image, *, photographs: bool) -> str:
    buffer = io.BytesIO()
    if photographs:
        image.save(buffer, "JPEG", quality=85, optimize=True)
    else:
        image.quantize(256, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return f"data:image/{'jpeg' if photographs else 'png'};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _cell(value: object, link: str, anchor: str) -> Cell:
    if value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and math.isnan(value)):
        return Cell(MISSING, "", link, anchor)
    if isinstance(value, bool):
        answer = "yes" if value else "no"
        return Cell(answer, answer, link, anchor)
    if isinstance(value, int):
        return Cell(str(value), value, link, anchor, numeric=True)
    if isinstance(value, float):
        return Cell(f"{value:.3f}", value, link, anchor, numeric=True)
    if isinstance(value, pd.Timestamp):
        return Cell(f"{value:%Y-%m-%d %H:%M:%S}", value.isoformat(), link, anchor)
    text = str(value)
    if text == MISSING:
        return Cell(text, "", link, anchor)
    number = re.match(r"-?\d+(\.\d+)?", text)
    leading = bool(number) and bool(re.fullmatch(r"-?[\d.]+( ±.*)?( \[.*\])?", text))
    return Cell(text, float(number.group()) if number and leading else text, link, anchor, numeric=leading)
