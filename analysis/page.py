"""A report as a folder: pictures and tables as files, and one static page that holds them all."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import logging
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import ParamSpec, TypeVar

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from analysis.cells import IntervalMatrix
from analysis.drawing import Drawing, size_of
from analysis.matrices import trained_on_label
from analysis.store import StoreError
from analysis.tables import MISSING, long_form, plain, spoken, to_csv, to_latex, to_markdown
from analysis.variants import add_origins, label_rows

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")
TEMPLATES = Path(__file__).parent / "templates"
_LONGEST_NAME, _DIGITS = 200, 12  # of a file, without suffix; file systems take 255 bytes
_LONG_TEXT, _LONG_WORD = 40, 18  # characters
_WHOLE_IN_TABLE, _WHOLE_IN_TEXT = 12, 30  # characters; no shorter word is broken
_CARD_COLUMNS, _CARD_ROWS = 4, 24
PAGE, _FOLDERS, _UNFINISHED = "index.html", ("figures", "tables"), ".unfinished"
_LOCK = "lock"  # in the unfinished folder
BESIDE = "; pictures are files in the folder figures, beside this page"
_PICTURE = re.compile(r'(src|srcset)="(figures/[^"]+\.png)"')
_MARK = '<meta name="generator" content="inpaint-grid">'


@dataclass(frozen=True)
class Text:
    """A paragraph; a `strong` one is highlighted, `command` is a command line shown below it.

    `link` is the title of a section that says more; a link to it stands behind the text.
    """

    text: str
    strong: bool = False
    command: str = ""
    link: str = ""

    @property
    def target(self) -> str:
        """The address of the link."""
        return f"#{file_name(self.link)}"


@dataclass(frozen=True)
class Bullets:
    """A list of sentences, each with an optional command."""

    items: Sequence[Text]


@dataclass
class Picture:
    """A picture, which the page loads when the reader comes near it.

    Attributes:
        name: of its files, without suffix.
        alt: description with its main numbers, for readers who cannot see it.
        source: path of its PNG file, from the page; or a data URI.
        width, height: in CSS pixels; 0 until `Begun.wait`. They keep its place free on the page.
        narrow: the same in one column, for a phone; None: the picture is shrunk, or scrolls in its own box.
    """

    name: str
    alt: str
    source: str
    width: int = 0
    height: int = 0
    narrow: Picture | None = None


@dataclass(frozen=True)
class Begun:
    """A picture that may still be drawn."""

    picture: Picture
    size: Future[tuple[int, int]]

    def wait(self) -> None:
        """Wait until it is drawn, and set its size. Raises what `size_of` raises."""
        self.picture.width, self.picture.height = size_of(self.size)


@dataclass(frozen=True)
class Row:
    """Pictures side by side if there is room, all on one scale."""

    pictures: Sequence[Picture]

    @property
    def widest(self) -> int:
        """The width of the widest picture, in CSS pixels, which decides the scale of all."""
        return max((picture.width for picture in self.pictures), default=0)


@dataclass(frozen=True)
class HeatCell:
    """A cell of a heat map.

    Attributes:
        text: its value.
        note: lines below it, such as the interval.
        background, ink: colours of the cell and of its letters; "" if it has no value.
        mark: "in-domain", which is outlined; "missing", which is hatched; or "".
    """

    text: str
    note: str = ""
    background: str = ""
    ink: str = ""
    mark: str = ""


@dataclass(frozen=True)
class HeatMap:
    """A matrix whose cells are coloured by their values, as a table of the page.

    Attributes:
        name: of the files of its table, without suffix.
        caption: lines above it.
        down, across: what the rows and the columns are.
        columns: their names.
        rows: the name of each row, and its cells.
        legend: what is coloured.
        colours: some of the colours, from the first to the last.
        ticks: values from that of the first colour to that of the last, evenly apart.
    """

    name: str
    caption: Sequence[str]
    down: str
    across: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[HeatCell]]]
    legend: str
    colours: Sequence[str]
    ticks: Sequence[str]


@dataclass(frozen=True)
class HeatMaps:
    """Heat maps side by side, as many as there is room for."""

    maps: Sequence[HeatMap]


@dataclass(frozen=True)
class Cell:
    """A table cell: its text, the value to sort by, the link's target, an anchor for its row, and a note below."""

    text: str
    value: str | float = ""
    link: str = ""
    anchor: str = ""
    numeric: bool = False
    note: str = ""

    @property
    def lines(self) -> tuple[str, str]:
        """What stands on the first line, and below it in small letters: an interval, or the note."""
        if self.numeric and " [" in self.text:
            first, _, rest = self.text.partition(" [")
            return first, f"[{rest}"
        return self.text, self.note

    @property
    def kind(self) -> str:
        """How its column is laid out: a number stays on one line, a word such as a digest may be broken anywhere."""
        longest = max(map(len, re.split(r"\s|(?<=[_/])", self.text)), default=0)
        if self.numeric:
            return "number"
        return "long anywhere" if longest > _LONG_WORD else "long" if len(self.text) > _LONG_TEXT else ""


@dataclass(frozen=True)
class Table:
    """A table whose columns can be sorted."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    @property
    def groups(self) -> list[tuple[str, list[str]]]:
        """Neighbouring columns whose names begin alike, "accuracy, in-domain" and "accuracy, gap": (begin, the rest).

        A column that stands alone has an empty begin.
        """
        grouped = list[tuple[str, list[str]]]()
        for begin, names in groupby(self.columns, lambda name: name.rpartition(", ")[0]):
            own = list(names)
            if begin and len(own) > 1:
                grouped.append((begin, [name.rpartition(", ")[2] for name in own]))
            else:
                grouped += [("", [name]) for name in own]
        return grouped

    @property
    def layout(self) -> str:
        """Whether it becomes one block per row on a narrow screen, "cards", or stays a table, ""."""
        return "cards" if len(self.columns) >= _CARD_COLUMNS and len(self.rows) <= _CARD_ROWS else ""


@dataclass(frozen=True)
class Fold:
    """Blocks below a heading, hidden until the reader opens it."""

    title: str
    blocks: Sequence[Block]


Block = Text | Bullets | Picture | Row | HeatMaps | Table | Fold


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
    """The folder of a report: `figures/` as PNG and, but for photographs, SVG; `tables/` as CSV, Markdown and LaTeX.

    Attributes:
        origins: variant -> backbone and origin of its weights, which stand beside its name in every table.
        generators: their names, which stay as they are where they head a column.
    """

    def __init__(self, path: Path, drawing: Drawing | None = None) -> None:
        """Open the folder; files are written below `path`/.unfinished and moved into place with the page.

        Args:
            path: the folder.
            drawing: draws the figures; None: in this process.

        Raises:
            StoreError: `path` holds anything but an earlier report, or cannot be written; or another process writes a
                report to it.
        """
        self._lock: int | None = None
        self.target, self.path = path, path / _UNFINISHED
        self.origins: Mapping[str, str] = {}
        self.generators: Sequence[str] = ()
        self._drawing, self._begun, self._figures = drawing or Drawing(), list[Begun](), set[str]()
        page = path / PAGE
        if path.exists() and not path.is_dir():
            raise StoreError(f"--out {path} is a file; name a folder")
        try:
            holds = {entry.name for entry in path.iterdir()} - {_UNFINISHED} if path.exists() else set()
            if holds and not (page.is_file() and _MARK in page.read_text(encoding="utf-8", errors="replace")):
                raise StoreError(f"--out {path} is not empty and holds no report of this program; name a new folder")
            path.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(self.path)
            for name in _FOLDERS:
                shutil.rmtree(self.path / name, ignore_errors=True)  # of a report that was not finished
                (self.path / name).mkdir()
        except BlockingIOError as error:
            raise StoreError(
                f"another report is being written to --out {path}; wait until it is there, or name another folder"
            ) from error
        except OSError as error:
            self._unlock()
            raise StoreError(
                f"--out {path} cannot be written: {error.strerror or error}; name another folder"
            ) from error

    def drop(self) -> None:
        """Remove the unfinished report; an earlier one stays as it was."""
        shutil.rmtree(self.path, ignore_errors=True)
        with suppress(OSError):
            self.target.rmdir()  # only if it is empty
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def picture(
        self, name: str, figure: Figure, *, alt: str, narrow: Figure | None = None, vector: bool = True
    ) -> Picture:
        """Begin to draw a figure to files.

        Args:
            name: of its files, without suffix.
            figure: the figure to draw.
            alt: description with its main numbers.
            narrow: the same figure in one column; a phone shows it, and it is the file `name`-narrow.
            vector: whether it is an SVG file too; of photographs that file is larger than the PNG, and no sharper.
        """
        name = file_name(name)
        picture = Picture(name, alt, f"figures/{name}.png")
        self._begin(picture, figure, vector=vector)
        if narrow is not None:
            picture.narrow = self.picture(f"{name}-narrow", narrow, alt=alt)
        return picture

    def figure(self, name: str, figure: Figure) -> None:
        """Begin to draw a figure to files alone. Of two figures with one name, the first is drawn."""
        name = file_name(name)
        if name not in self._figures:
            self._figures.add(name)
            self._begin(Picture(name, "", f"figures/{name}.png"), figure)

    def _begin(self, picture: Picture, figure: Figure, *, vector: bool = True) -> None:
        stem = self.path / "figures" / picture.name
        begun = Begun(picture, self._drawing.start(figure, stem, vector=vector))
        self._begun.append(begun)
        if begun.size.done():  # always, where it is drawn in this process
            begun.wait()

    def compute(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Callable[[], T]:
        """Begin work where pictures are drawn, see `Drawing.compute`."""
        return self._drawing.compute(work, *args, **kwargs)

    def begun(self) -> list[Begun]:
        """The pictures that were begun since the last call."""
        begun, self._begun = self._begun, []
        return begun

    def tables(self) -> set[str]:
        """Names of the files of tables so far."""
        return {path.name for path in (self.path / "tables").iterdir()}

    def table(
        self,
        name: str,
        table: pd.DataFrame,
        *,
        caption: str,
        shown: pd.DataFrame | None = None,
        links: Mapping[str, Sequence[str]] | None = None,
        anchors: Sequence[str] = (),
        variant: str = "",
    ) -> Table:
        """Write a table to files and make a block of it.

        Args:
            name: of its files, without suffix.
            table: the whole table, for CSV.
            caption: above it.
            shown: the table on the page, in Markdown and LaTeX; None: `table`.
            links: column -> the link of each of its cells; "" for none.
            anchors: ids of the rows, for links to them.
            variant: as in `files`.
        """
        self.files(name, table, caption=caption, shown=shown, variant=variant)
        return self.block(table if shown is None else shown, caption, links=links, anchors=anchors)

    def block(
        self,
        table: pd.DataFrame,
        caption: str,
        *,
        links: Mapping[str, Sequence[str]] | None = None,
        anchors: Sequence[str] = (),
    ) -> Table:
        """A table for the page alone; names of variants have their origins below them."""
        block = html_table(table, caption, links=links, anchors=anchors, kept=self.generators)
        column = next((name for name in ("variant", "method") if name in block.columns), None)
        if column is None:
            return block
        place = list(block.columns).index(column)
        rows = [list(row) for row in block.rows]
        for row in rows:
            if origin := self.origins.get(row[place].text):
                row[place] = replace(row[place], note=f"[{origin}]")
        return replace(block, rows=rows)

    def files(
        self,
        name: str,
        table: pd.DataFrame | IntervalMatrix,
        *,
        caption: str,
        shown: pd.DataFrame | None = None,
        transpose: bool = False,
        variant: str = "",
    ) -> None:
        """Write a table to files alone: `table` as CSV, `shown` as Markdown and LaTeX.

        Args:
            name: of the files, without suffix.
            table: the whole table.
            caption: above it.
            shown: the table in Markdown and LaTeX; None: `table`.
            transpose: swap rows and columns.
            variant: the one variant that the table is of, where no column names it.
        """
        stem = self.path / "tables" / file_name(name)
        text = table if shown is None else shown
        long = long_form(table) if isinstance(table, IntervalMatrix) else table.T if transpose else table
        csv = to_csv(add_origins(long, self.origins, variant=variant))
        stem.with_name(f"{stem.name}.csv").write_text(csv, encoding="utf-8")
        if isinstance(text, pd.DataFrame):
            text = label_rows(spoken(text), self.origins)
        stem.with_name(f"{stem.name}.md").write_text(
            to_markdown(text, caption=caption, transpose=transpose), encoding="utf-8"
        )
        latex = to_latex(text, caption=caption, label=f"tab:{stem.name}", transpose=transpose)
        stem.with_name(f"{stem.name}.tex").write_text(latex, encoding="utf-8")

    def page(self, *, title: str, subtitle: str, sections: Sequence[Section], one_file: bool = False) -> Path:
        """Write `index.html`, and replace an earlier report.

        Args:
            title: heading.
            subtitle: below it.
            sections: in order; every picture is drawn.
            one_file: put the pictures into the page too, so that it can be sent alone.
        """
        environment = Environment(
            loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
            lstrip_blocks=True,
        )  # fmt: skip
        environment.filters |= {"broken": broken, "narrow": partial(broken, whole=_WHOLE_IN_TABLE)}
        text = environment.get_template("report.html").render(title=title, subtitle=subtitle, sections=sections)
        if one_file:
            text = with_pictures_inside(text, self.path)
        (self.path / PAGE).write_text(text, encoding="utf-8")
        for name in _FOLDERS:
            shutil.rmtree(self.target / name, ignore_errors=True)
        for name in (*_FOLDERS, PAGE):
            (self.path / name).replace(self.target / name)
        shutil.rmtree(self.path)
        self._unlock()
        return self.target / PAGE


def _locked(folder: Path) -> int | None:
    """Create a folder if needed, and hold it until the descriptor that is returned is closed, or the process ends.

    None: this disk has no locks, which is warned of.

    Raises:
        BlockingIOError: another process, or another report of this one, holds it.
        OSError: it cannot be created or written.
    """
    file = folder / _LOCK
    while True:
        folder.mkdir(exist_ok=True)
        try:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:  # the report that held it has just removed it
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if file.exists() and os.path.samestat(os.fstat(descriptor), file.stat()):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise
        except OSError as error:
            os.close(descriptor)
            logger.warning("%s cannot be locked (%s): make no second report there now", folder, error.strerror)
            return None
        os.close(descriptor)


def html_table(
    table: pd.DataFrame,
    caption: str,
    *,
    links: Mapping[str, Sequence[str]] | None = None,
    anchors: Sequence[str] = (),
    kept: Collection[str] = (),
) -> Table:
    """A data frame as a table block; a named index becomes the first column.

    Underscores in the names of columns become blanks, but for the names in `kept` and those of training sets.
    """
    of_sets = table.columns.name == "trained on"
    if (table.index.name, table.columns.name) == ("tested on", "trained on"):
        generators = [str(name) for name in table.index]
        table = table.rename(columns=lambda name: trained_on_label(str(name), generators))
    table = spoken(table)
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
    return Table(caption, [name if of_sets or name in kept else name.replace("_", " ") for name in columns], rows)


def file_name(text: str) -> str:
    """A text as lower-case letters, digits, dots, dashes and underscores, for files and anchors.

    The end of a text that is too long for a file becomes a digest: a method that is trained under many conditions is
    named by all of them.
    """
    name = re.sub(r"[^a-z0-9_.]+", "-", text.lower().replace("+", "-and-")).strip("-")
    digest = hashlib.sha256(name.encode()).hexdigest()[:_DIGITS]
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - _DIGITS - 1]}-{digest}"


def broken(text: str, *, whole: int = _WHOLE_IN_TEXT) -> Markup:
    """A text for the page, whose words of more than `whole` letters may be broken behind "_" and "/" alone."""
    return Markup("").join(
        Markup("<wbr>").join(re.split(r"(?<=[_/])(?=[^_/])", word)) if len(word) > whole else word
        for word in re.split(r"(\s+)", text)
    )


def sentence_list(words: Iterable[str]) -> str:
    """Words joined as in "a, b and c"."""
    *most, last = list(words)
    return f"{', '.join(most)} and {last}" if most else last


def with_pictures_inside(page: str, folder: Path) -> str:
    """The text of a page, with the pictures of its folder inside, for where it stands alone."""

    def inside(found: re.Match[str]) -> str:
        content = base64.b64encode((folder / found[2]).read_bytes()).decode()
        return f'{found[1]}="data:image/png;base64,{content}"'

    return _PICTURE.sub(inside, page.replace(BESIDE, ""))


def _cell(value: object, link: str, anchor: str) -> Cell:
    if isinstance(value, pd.Timedelta):
        return Cell(plain(value), value.total_seconds(), link, anchor, numeric=True)
    if isinstance(value, pd.Timestamp):
        return Cell(f"{value:%Y-%m-%d %H:%M:%S}", value.isoformat(), link, anchor)
    text = plain(value)
    if text == MISSING:
        return Cell(text, "", link, anchor)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return Cell(text, value, link, anchor, numeric=True)
    number = re.fullmatch(r"(-?\d+(?:\.\d+)?)( ±.*)?( \[.*\])?", text)
    return Cell(text, float(number[1]) if number else text, link, anchor, numeric=number is not None)
