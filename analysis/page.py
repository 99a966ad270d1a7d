"""A report as a folder: pictures and tables as files, and one static page that holds them all."""

from __future__ import annotations

import base64
import io
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure
from PIL import Image

from analysis.cells import IntervalMatrix
from analysis.figures import style
from analysis.matrices import trained_on_label
from analysis.store import StoreError
from analysis.tables import MISSING, plain, to_csv, to_latex, to_markdown

TEMPLATES = Path(__file__).parent / "templates"
DPI = 144
_CSS_PIXELS = 96  # per inch
_PAGE, _FOLDERS, _UNFINISHED = "index.html", ("figures", "tables"), ".unfinished"
_MARK = '<meta name="generator" content="inpaint-grid">'


@dataclass(frozen=True)
class Text:
    """A paragraph; a `strong` one is highlighted, `command` is a command line shown below it."""

    text: str
    strong: bool = False
    command: str = ""


@dataclass(frozen=True)
class Bullets:
    """A list of sentences, each with an optional command."""

    items: Sequence[Text]


@dataclass(frozen=True)
class Picture:
    """A picture, embedded in the page.

    Attributes:
        name: of its files, without suffix.
        alt: description with its main numbers, for readers who cannot see it.
        source: a data URI.
        width, height: in CSS pixels.
    """

    name: str
    alt: str
    source: str
    width: int
    height: int


@dataclass(frozen=True)
class Row:
    """Pictures side by side if there is room."""

    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Cell:
    """A table cell: the text shown, the value to sort by, the link's target, and an anchor for its row."""

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


@dataclass(frozen=True)
class Fold:
    """Blocks below a heading, hidden until the reader opens it."""

    title: str
    blocks: Sequence[Block]


Block = Text | Bullets | Picture | Row | Table | Fold


@dataclass(frozen=True)
class Section:
    """A section of the page."""

    title: str
    blocks: Sequence[Block]

    @property
    def anchor(self) -> str:
        """The section's id in links."""
        return file_name(self.title)


class Folder:
    """The folder of a report: `figures/` as PNG and SVG, `tables/` as CSV, Markdown and LaTeX."""

    def __init__(self, path: Path) -> None:
        """Open the folder; files are written below `path`/.unfinished and moved into place with the page.

        Raises:
            StoreError: `path` holds anything but an earlier report, or cannot be written.
        """
        self.target, self.path = path, path / _UNFINISHED
        page = path / _PAGE
        if path.exists() and not path.is_dir():
            raise StoreError(f"--out {path} is a file; name a folder")
        try:
            holds = {entry.name for entry in path.iterdir()} - {_UNFINISHED} if path.exists() else set()
            if holds and not (page.is_file() and _MARK in page.read_text(encoding="utf-8", errors="replace")):
                raise StoreError(f"--out {path} is not empty and holds no report of this program; name a new folder")
            shutil.rmtree(self.path, ignore_errors=True)
            for name in _FOLDERS:
                (self.path / name).mkdir(parents=True)
        except OSError as error:
            raise StoreError(
                f"--out {path} cannot be written: {error.strerror or error}; name another folder"
            ) from error

    def drop(self) -> None:
        """Remove the unfinished report; an earlier one stays as it was."""
        shutil.rmtree(self.path, ignore_errors=True)
        with suppress(OSError):
            self.target.rmdir()  # only if it is empty

    def picture(self, name: str, figure: Figure, *, alt: str, photographs: bool = False) -> Picture:
        """Write a figure to files and embed it in the page, there in 256 colours or as JPEG to save space.

        Args:
            name: of its files, without suffix.
            figure: the figure to draw.
            alt: description with its main numbers.
            photographs: whether the figure shows photographs, which become JPEG.
        """
        name = file_name(name)
        buffer = io.BytesIO()
        with style():
            figure.savefig(buffer, format="png", dpi=DPI)
            figure.set_layout_engine("none")  # the layout is final; computing it again takes as long as the drawing
            figure.savefig(self.path / "figures" / f"{name}.svg", metadata={"Date": None})
        (self.path / "figures" / f"{name}.png").write_bytes(buffer.getvalue())
        image = Image.open(buffer).convert("RGB")
        width, height = (round(side * _CSS_PIXELS / DPI) for side in image.size)
        return Picture(name, alt, _data_uri(image, photographs=photographs), width, height)

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
        """Write a table to files and make a block of it.

        Args:
            name: of its files, without suffix.
            table: the whole table, for CSV.
            caption: above it.
            shown: the table on the page, in Markdown and LaTeX; None: `table`.
            links: column -> the link of each of its cells; "" for none.
            anchors: ids of the rows, for links to them.
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
        """Write a table to files alone: `table` as CSV, `shown` as Markdown and LaTeX."""
        stem = self.path / "tables" / file_name(name)
        text = table if shown is None else shown
        stem.with_name(f"{stem.name}.csv").write_text(to_csv(table, transpose=transpose), encoding="utf-8")
        stem.with_name(f"{stem.name}.md").write_text(
            to_markdown(text, caption=caption, transpose=transpose), encoding="utf-8"
        )
        latex = to_latex(text, caption=caption, label=f"tab:{stem.name}", transpose=transpose)
        stem.with_name(f"{stem.name}.tex").write_text(latex, encoding="utf-8")

    def page(self, *, title: str, subtitle: str, sections: Sequence[Section]) -> Path:
        """Write `index.html`, and replace an earlier report."""
        environment = Environment(
            loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
            lstrip_blocks=True,
        )  # fmt: skip
        text = environment.get_template("report.html").render(title=title, subtitle=subtitle, sections=sections)
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
    """A data frame as a table block; a named index becomes the first column."""
    if (table.index.name, table.columns.name) == ("tested on", "trained on"):
        generators = [str(name) for name in table.index]
        table = table.rename(columns=lambda name: trained_on_label(str(name), generators))
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
    """A text as lower-case letters, digits, dots, dashes and underscores, for files and anchors."""
    return re.sub(r"[^a-z0-9_.]+", "-", text.lower().replace("+", "-and-")).strip("-")


def sentence_list(words: Iterable[str]) -> str:
    """Words joined as in "a, b and c"."""
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
    if isinstance(value, pd.Timestamp):
        return Cell(f"{value:%Y-%m-%d %H:%M:%S}", value.isoformat(), link, anchor)
    text = plain(value)
    if text == MISSING:
        return Cell(text, "", link, anchor)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return Cell(text, value, link, anchor, numeric=True)
    number = re.fullmatch(r"(-?\d+(?:\.\d+)?)( ±.*)?( \[.*\])?", text)
    return Cell(text, float(number[1]) if number else text, link, anchor, numeric=number is not None)
