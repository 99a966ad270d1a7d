"""The whole report with every part, from MLflow alone."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from analysis.controls import methods_alone
from analysis.detectors import check_device
from analysis.drawing import Drawing
from analysis.kept import Kept, Taken, open_kept
from analysis.page import BESIDE, PAGE, Begun, Block, Folder, Section, Text, with_pictures_inside
from analysis.parts import Options, Part, Report, list_parts
from analysis.store import SCORE_COLUMNS, Store, StoreError
from grid.plan import FINISHED
from grid.tasks import DETECTION
from grid.tracking import keep_report

logger = logging.getLogger(__name__)

LIMITATIONS = "limitations"  # made last, because the other parts add to it


def make_report(
    store: Store, out: Path, options: Options | None = None, *, say: Callable[[str], None] = logger.info
) -> Path:
    """Write a report on a grid.

    Runs whose scores cannot be read are left out, and a part that cannot be made says so in its section.

    Args:
        store: an open grid, finished or not.
        out: folder of the report, created if needed; an earlier report in it is replaced.
        options: options of the report; None: the defaults.
        say: called with each step, in words.

    Returns:
        the page, `out`/index.html.

    Raises:
        StoreError: no run's scores can be read; no such variant to compare; no such device; `out` holds anything but a
            report, or cannot be written. An earlier report is then unchanged.
    """
    options = options or Options()
    if options.cam:
        check_device(options.device)
    kept, problems = open_kept(store, options) if options.keep else None, list[Text]()
    if kept is None or not kept.is_there:  # else nothing has changed since they could all be read
        say("reading the scores")
        store, problems = _readable(store)
    if options.compare:
        _check_compared(methods_alone(store).runs(), options.compare)
    with Drawing(options.processes) as drawing:
        folder = Folder(out, drawing)
        try:
            page = _make_page(Report(store, folder, options, problems, say), None if problems else kept)
        except BaseException:
            folder.drop()
            raise
    if options.log:
        say("logging the report to MLflow")
        try:
            with TemporaryDirectory() as scratch:  # MLflow shows a page without the files beside it
                copy = Path(shutil.copytree(out, Path(scratch) / "report"))
                text = page.read_text(encoding="utf-8")
                (copy / PAGE).write_text(with_pictures_inside(text, copy), encoding="utf-8")
                keep_report(store.tracking_uri, store.parent.info.run_id, copy)
        except (StoreError, OSError) as error:
            logger.warning("the report is in %s, but could not be kept in MLflow: %s", out, error)
    return page


def _readable(store: Store) -> tuple[Store, list[Text]]:
    """The grid without the runs whose scores, under any condition, cannot be read, and the problems of those."""
    broken, problems = list[str](), list[Text]()
    runs = store.runs()
    finished = runs.loc[runs["state"] == FINISHED, "run_id"]
    for run_id in finished:
        try:
            for condition in store.scored(run_id):
                store.scores(run_id, SCORE_COLUMNS, condition=condition)
        except StoreError as error:
            if len(broken) + 1 == len(finished):
                raise
            first, _, rest = str(error).partition("\n")
            broken.append(run_id)
            problems.append(Text(f"Left out: {first}", command=rest.strip()))
            logger.warning("%s", error)
    return (store.without(broken) if broken else store), problems


@dataclass
class _Made:
    """A part of this report.

    Attributes:
        blocks: of its section.
        pictures: its pictures, which may still be drawn.
        tables: names of its files in the folder of tables.
        problems: lasting ones, which are kept with the part.
        sound: whether nothing went wrong, so that the part may be kept.
    """

    blocks: list[Block]
    pictures: list[Begun] = field(default_factory=list)
    tables: set[str] = field(default_factory=set)
    problems: list[Text] = field(default_factory=list)
    sound: bool = True


def _make_page(report: Report, kept: Kept | None) -> Path:
    store, parts = report.store, list_parts()
    first = [part for part in parts if part.name != LIMITATIONS]
    taken = {} if kept is None else {part.name: kept.take(part, report.folder.path) for part in first if part.kept}
    for part in first:
        if part.ahead is not None and taken.get(part.name) is None:
            with suppress(Exception):  # the part itself meets it again, and its section says so
                report.ahead[part.name] = part.ahead(report)
    made = dict[str, _Made]()
    for part in first:
        found = taken.get(part.name)
        if found is None:
            made[part.name] = _begin(report, part)
        else:
            report.problems += found.problems
    report.say("the last pictures")
    for part in first:
        if part.name in made:
            _end(report, part, made[part.name])
    for part in parts:
        if part.name == LIMITATIONS:
            made[part.name] = _begin(report, part)
            _end(report, part, made[part.name])
    blocks = {name: found.blocks for name, found in taken.items() if found is not None}
    blocks |= {name: each.blocks for name, each in made.items()}
    if kept is not None and kept.is_current():
        for part in first:
            if part.kept and part.name in made and made[part.name].sound:
                each = made[part.name]
                pictures = [one.picture.name for one in each.pictures]
                kept.keep(part, Taken(each.blocks, each.problems), report.folder.path, each.tables, pictures)
    sections = [Section(part.title, blocks[part.name]) for part in parts if blocks[part.name]]
    runs = report.whole.runs()
    finished = int((runs["state"] == FINISHED).sum())
    return report.folder.page(
        title=f"{store.experiment}: detection across generators, and attribution",
        subtitle=f"{finished} of {len(runs)} trials finished; data set {store.data} ({store.corpus}); "
        f"written {datetime.now(UTC):%Y-%m-%d %H:%M} UTC{BESIDE}",
        sections=sections,
        one_file=report.options.one_file,
    )


def _begin(report: Report, part: Part) -> _Made:
    """Make a part; its pictures may still be drawn afterwards."""
    report.say(part.title)
    before, num_problems, passing = report.folder.tables(), len(report.problems), report.passing
    try:
        blocks = list(part.blocks(report))
    except (StoreError, OSError):  # such as a full disk
        raise
    except Exception as error:
        return _Made([_failed(report, part, error)], report.folder.begun(), sound=False)
    tables, problems = report.folder.tables() - before, report.problems[num_problems:]
    return _Made(blocks, report.folder.begun(), tables, problems, sound=report.passing == passing)


def _end(report: Report, part: Part, made: _Made) -> None:
    """Wait for the part's pictures."""
    try:
        for each in made.pictures:
            each.wait()
    except (StoreError, OSError):
        raise
    except Exception as error:
        made.blocks, made.sound = [_failed(report, part, error)], False


def _failed(report: Report, part: Part, error: Exception) -> Text:
    logger.error("the part %r failed", part.name, exc_info=error)
    return report.problem(f"{part.title} could not be made: {error!r}")


def _check_compared(runs: pd.DataFrame, compared: Sequence[str]) -> None:
    variants = list(dict.fromkeys(runs.loc[(runs["task"] == DETECTION) & (runs["state"] == FINISHED), "variant"]))
    unknown = [variant for variant in compared if variant not in variants]
    if unknown or compared[0] == compared[1]:
        wrong = f"no finished run of {' or '.join(unknown)}" if unknown else "name two different methods"
        raise StoreError(f"--compare: {wrong}; there are: {', '.join(variants)}")
