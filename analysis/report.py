"""The whole report with every part, from MLflow alone."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from analysis.controls import methods_alone
from analysis.detectors import check_device
from analysis.page import Block, Folder, Section, Text
from analysis.parts import Options, Report, list_parts
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
    say("reading the scores")
    store, problems = _readable(store)
    if options.compare:
        _check_compared(methods_alone(store).runs(), options.compare)
    folder = Folder(out)
    try:
        page = _make_page(Report(store, folder, options, problems, say))
    except BaseException:
        folder.drop()
        raise
    if options.log:
        say("logging the report to MLflow")
        try:
            keep_report(store.tracking_uri, store.parent.info.run_id, out)
        except StoreError as error:
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


def _make_page(report: Report) -> Path:
    store, parts = report.store, list_parts()
    blocks: dict[str, list[Block]] = {}
    for part in sorted(parts, key=lambda part: part.name == LIMITATIONS):
        report.say(part.title)
        try:
            blocks[part.name] = list(part.blocks(report))
        except (StoreError, OSError):  # such as a full disk
            raise
        except Exception as error:
            logger.exception("the part %r failed", part.name)
            blocks[part.name] = [report.problem(f"{part.title} could not be made: {error!r}")]
    sections = [Section(part.title, blocks[part.name]) for part in parts if blocks[part.name]]
    runs = report.whole.runs()
    finished = int((runs["state"] == FINISHED).sum())
    return report.folder.page(
        title=f"{store.experiment}: detection across generators, and attribution",
        subtitle=f"{finished} of {len(runs)} trials finished; data set {store.data} ({store.corpus}); "
        f"written {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        sections=sections,
    )


def _check_compared(runs: pd.DataFrame, compared: Sequence[str]) -> None:
    variants = list(dict.fromkeys(runs.loc[(runs["task"] == DETECTION) & (runs["state"] == FINISHED), "variant"]))
    unknown = [variant for variant in compared if variant not in variants]
    if unknown or compared[0] == compared[1]:
        wrong = f"no finished run of {' or '.join(unknown)}" if unknown else "name two different methods"
        raise StoreError(f"--compare: {wrong}; there are: {', '.join(variants)}")
