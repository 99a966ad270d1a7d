"""Everything that can be verified of a report: the evidence itself, then every file of its tables, then its page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.verify import believe, maps, open_set  # noqa: F401 (their rules are registered)
from analysis.verify.compare import (
    NAMED,
    ORIGIN,
    TOLERANCE,
    Derived,
    OfNothing,
    Outcome,
    PageTable,
    compare_csv,
    compare_shown,
    numbers_in,
    read_csv,
    read_latex,
    read_markdown,
    read_page,
    without_origin,
)
from analysis.verify.evidence import (
    CELL,
    DETECTION,
    FINISHED,
    SUMS,
    WHOLE,
    Difference,
    Evidence,
    EvidenceError,
    read_sums,
)
from analysis.verify.held import check_manifest, check_rows, check_sums, check_validation
from analysis.verify.tables import RECORDED, label_of, rule_for

PAGE, TABLES = "index.html", "tables"
NO_RULE = "no rule for this table"
THRESHOLD = "valid/threshold"
SUMMARY = "summary"  # begins the names of means over cells
# A network scores an image in 32 bits; beside other images of a batch, the last bits of the score may differ. Trials
# choose the threshold on their own validation images, and keep the scores of those of all generators.
OTHER_BATCHES = 1e-5
PUBLISHED = "Each value, ours and published", "Means, ours and published"
# tables of the page of which nothing is derived, by their captions
COPIED = dict.fromkeys(["For comparison of the shape only", "Published: "], "copied from a paper")
EVERY_CELL = ", every cell; intervals are 95 % intervals"
READERS = {".md": read_markdown, ".tex": read_latex}
RUNS_BEHIND = "The runs behind the columns of "


@dataclass(frozen=True)
class Line:
    """What was verified of one file, or of one kind of evidence.

    Attributes:
        file: its name.
        what: what is counted, such as "numbers".
        agree: how many agree.
        compared: how many were compared.
        unverified: reason -> how many numbers were not compared.
        differences: what differs.
    """

    file: str
    what: str
    agree: int
    compared: int
    unverified: dict[str, int]
    differences: list[Difference]

    def __str__(self) -> str:
        parts = [f"{self.agree} of {self.compared} {self.what} agree"] if self.compared or not self.unverified else []
        parts += [f"{count} not verified: {reason}" for reason, count in self.unverified.items()]
        return f"{self.file}: {'; '.join(parts)}"


@dataclass(frozen=True)
class Result:
    """Of all files.

    Attributes:
        evidence: lines about the evidence: scores, manifest, specifications.
        report: lines about the report's files.
    """

    evidence: list[Line]
    report: list[Line]

    @property
    def differences(self) -> list[Difference]:
        """All of them; those of the evidence first."""
        return [difference for line in [*self.evidence, *self.report] for difference in line.differences]

    @property
    def counts(self) -> dict[str, int]:
        """Of the report's numbers: how many agree, differ, and are not verified."""
        agree, compared = sum(line.agree for line in self.report), sum(line.compared for line in self.report)
        unverified = sum(sum(line.unverified.values()) for line in self.report)
        return {"agree": agree, "differ": compared - agree, "not_verified": unverified}

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {
            "counts": self.counts,
            "evidence": list(map(asdict, self.evidence)),
            "report": list(map(asdict, self.report)),
        }


def verify(folder: Path, report: Path | None = None, *, say: Callable[[str], None] = lambda _: None) -> Result:
    """Derive every number of a report again.

    Args:
        folder: an export.
        report: the report's folder, with `tables`; None: the one in the export.
        say: called with each step, in words.

    Raises:
        EvidenceError: the export cannot be read.
    """
    is_export, report = report is None, folder / "report" if report is None else report
    if not (report / TABLES).is_dir():
        raise EvidenceError(f"{report / TABLES} is missing; export the grid again")
    tables = {path.stem: _table(path) for path in sorted((report / TABLES).glob("*.csv"))}
    evidence = Evidence(folder, tables)
    lines = list(_evidence(evidence, say, is_export=is_export))
    if any(difference.row == WHOLE for line in lines for difference in line.differences):
        return Result(lines, [Line("the report", "numbers", 0, 0, {"the evidence cannot be used": 0}, [])])
    say("tables")
    return Result([*lines, _logged(evidence)], list(_report(evidence, report)))


def _table(path: Path) -> pd.DataFrame:
    try:
        return read_csv(path)
    except ValueError as error:  # of pandas: empty, or no table
        raise EvidenceError(f"{path} is damaged: {error}; write the report again") from error


# Evidence ------------------------------------------------------------------------------------------------------------


def _evidence(evidence: Evidence, say: Callable[[str], None], *, is_export: bool) -> Iterator[Line]:
    if is_export:
        say("digests")
        sums = read_sums(evidence.folder)
        yield _checked(SUMS, "files", len(sums), check_sums(evidence.folder, sums))
    count = 1 + len(evidence.all_trials)
    yield _checked("manifest.csv", "data sets and keys of trials", count, check_manifest(evidence))
    yield _counts_of_manifest(evidence)
    found, rows = list[Difference](), 0
    for key in evidence.all_trials.loc[evidence.all_trials["state"] == FINISHED, "key"]:
        for condition in evidence.conditions(key):
            say(f"scores of {key}, {condition}")
            found += check_rows(evidence, key, condition)
            rows += len(evidence.scores(key, condition))
    yield _checked("scores", "rows", rows, iter(found))
    kept = {key: scores[0] for key in evidence.all_trials["key"] if (scores := evidence.validation(key)) is not None}
    say("scores of validation images")
    differences = (difference for key in kept for difference in check_validation(evidence, key))
    yield _checked("validation", "rows", sum(map(len, kept.values())), differences)
    keys = evidence.all_trials.loc[evidence.all_trials["state"] == FINISHED, "key"]
    with_maps = {str(key): images for key in keys if (images := maps.kept(evidence, str(key))) is not None}
    if with_maps:
        of_maps = (difference for key in with_maps for difference in maps.check_maps(evidence, key))
        yield _checked("localisation", "rows", sum(map(len, with_maps.values())), of_maps)


def _checked(file: str, what: str, count: int, differences: Iterator[Difference]) -> Line:
    found = list(differences)
    return Line(file, what, max(count - len({(d.file, d.row) for d in found}), 0), count, {}, found)


def _counts_of_manifest(evidence: Evidence) -> Line:
    """The counts of manifest.txt, which the launch wrote: images per generator and split."""
    file = "artifacts/manifest.txt"
    path = evidence.folder / file
    if not path.is_file():
        return Line(file, "numbers", 0, 0, {"the grid's run has no such file": 0}, [])
    table, outcome = evidence.manifest, Outcome(file)
    shared = (table["label"] == 1) | (table["generator"] == "real")
    named = table.assign(name=table["generator"].where(shared, table["generator"] + " (real)"))
    found = {(str(name), str(split)): len(rows) for (name, split), rows in named.groupby(["name", "split"])}
    header, *lines = path.read_text(encoding="utf-8").splitlines()
    splits = header.split()
    shown = {" ".join(line.split()[: -len(splits)]): line.split()[-len(splits) :] for line in lines}
    for name in sorted(shown.keys() | {name for name, _ in found}):
        for split, text in zip(splits, shown.get(name, ["no row"] * len(splits)), strict=True):
            derived = found.get((name, split), 0)
            outcome.numbers += 1
            outcome.agree += text == str(derived)
            if text != str(derived):
                outcome.differences.append(Difference(file, name, split, text, str(derived)))
    return _line(outcome)


def _logged(evidence: Evidence) -> Line:
    """Values that trials logged, against those that follow from their scores."""
    outcome = Outcome("metrics.csv")
    for key, name, text in evidence.logged[["key", "metric", "value"]].itertuples(index=False):
        if name == THRESHOLD:
            of_trial = evidence.threshold(str(key))  # as it follows from the validation images, if they are known
            shown = str(evidence.all_trials.loc[evidence.all_trials["key"] == key, "threshold"].iloc[0])
            same = of_trial is None or abs(of_trial - float(text)) <= OTHER_BATCHES * max(1.0, abs(of_trial))
            derived_text = shown if same else repr(of_trial)
            outcome.numbers += 1
            outcome.agree += text == derived_text
            if text != derived_text:
                outcome.differences.append(Difference(outcome.file, str(key), name, str(text), derived_text))
            continue
        test, _, rest = str(name).partition("/")
        tested_on, _, metric = rest.partition("/")
        if test.startswith("valid."):
            found = evidence.validation_auroc(str(key), test.removeprefix("valid."))
            if found is None:
                outcome.leave_out("on validation images, whose scores this trial did not keep", 1)
                continue
            _compare(outcome, str(key), str(name), str(text), found)
            continue
        if test == "maps":
            found = maps.logged(evidence, str(key), str(name))
            if found is None:
                outcome.numbers += 1
                outcome.differences.append(Difference(outcome.file, str(key), str(name), str(text), "no such maps"))
            else:
                _compare(outcome, str(key), str(name), str(text), found)
            continue
        if test == SUMMARY and (mean := evidence.mean_of_trial(str(key), *rest.split("/"))) is not None:
            _compare(outcome, str(key), str(name), str(text), mean)
            continue
        if not test.startswith("test"):
            outcome.leave_out(RECORDED, 1)
            continue
        condition = test.partition(".")[2] or "clean"
        derived = evidence.of_trial(str(key), condition).get((tested_on, metric))
        if derived is None:
            outcome.leave_out(f"no rule for the metric {metric}", 1)
            continue
        _compare(outcome, str(key), str(name), str(text), derived[0])
    return _line(outcome)


def _compare(outcome: Outcome, key: str, name: str, text: str, derived: float) -> None:
    """Count a logged value, and whether it is the derived one."""
    outcome.numbers += 1
    same = abs(float(text) - derived) <= TOLERANCE
    outcome.agree += same
    if not same:
        outcome.differences.append(Difference(outcome.file, key, name, text, repr(derived)))


# Report --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Known:
    """A table of the report that was derived, with its rows in the order of the CSV."""

    derived: Derived
    order: Sequence[Any]


def _report(evidence: Evidence, report: Path) -> Iterator[Line]:
    known, reasons = dict[str, _Known](), dict[str, str]()
    files = sorted(path for path in (report / TABLES).iterdir() if path.is_file())
    for path in sorted(files, key=lambda path: (path.stem, path.suffix != ".csv", path.name)):
        file, name = f"{TABLES}/{path.name}", path.stem
        if path.suffix == ".csv":
            table, rule = evidence.tables[name], rule_for(name)
            if differ := list(_origins(evidence, file, table)):
                yield Line(file, "backbones", 0, len(differ), {}, differ)
            derived = NO_RULE if rule is None else rule(evidence, name, table)
            if isinstance(derived, Derived):
                outcome, order = compare_csv(file, table, derived)
                known[name] = _Known(derived, order)
                yield _line(outcome)
            elif isinstance(derived, OfNothing):
                reasons[name] = derived
                yield _of_nothing(file, derived)
            else:
                reasons[name] = derived
                yield _left_out(file, derived, table.to_numpy().tolist())
        elif path.suffix in READERS:
            try:
                caption, header, rows = READERS[path.suffix](path.read_text(encoding="utf-8"))
            except ValueError as error:
                yield Line(file, "numbers", 0, 0, {}, [Difference(file, WHOLE, "all", str(error), "a table")])
                continue
            if name in known:
                yield _line(compare_shown(file, header, rows, caption, known[name].derived, known[name].order))
            elif name in reasons:
                yield _left_out(file, reasons[name], rows)
            else:
                yield _of_nothing(file, f"its CSV, {name}.csv, is missing")
        else:
            yield Line(file, "numbers", 0, 0, {f"no rule for {path.suffix} files": 0}, [])
    if (report / PAGE).is_file():
        yield from _page(evidence, report, known, reasons)


def _origins(evidence: Evidence, file: str, table: pd.DataFrame) -> Iterator[Difference]:
    """Rows whose backbone is not that of the specification; where the weights are from, was recorded."""
    column = next((name for name in NAMED[:2] if name in table.columns), None)
    if column is None or ORIGIN not in table.columns:
        return
    for variant, origin in dict.fromkeys(table[[column, ORIGIN]].itertuples(index=False, name=None)):
        expected = evidence.backbone(variant)
        if not origin.startswith(expected):
            yield Difference(file, variant, ORIGIN, origin or "nothing", expected)


def _page(evidence: Evidence, report: Path, known: Mapping[str, _Known], reasons: Mapping[str, str]) -> Iterator[Line]:
    """The tables of the page, by their captions; its sentences and pictures are not read."""
    captions = list[tuple[str, str]]()
    for path in (report / TABLES).glob("*.md"):
        first, *_ = path.read_text(encoding="utf-8").splitlines() or [""]
        captions.append((first, path.stem))
    for page_table in read_page((report / PAGE).read_text(encoding="utf-8")):
        caption, header, rows = page_table.caption, page_table.header, page_table.rows
        if page_table.matrix:
            yield _of_matrix(page_table, known, reasons)
            continue
        file = f"{PAGE}, table “{caption[:60]}”"
        table = _of_page(evidence, caption, captions, known)
        if table is None:
            reason = next((words for begin, words in COPIED.items() if caption.startswith(begin)), NO_RULE)
            yield _left_out(file, reason, rows)
        else:
            yield _line(compare_shown(file, header, rows, "", table.derived, table.order))
    reason = "sentences and pictures are not read; the tables beside them have the same numbers"
    yield Line(PAGE, "numbers", 0, 0, {reason: 0}, [])


def _of_matrix(page_table: PageTable, known: Mapping[str, _Known], reasons: Mapping[str, str]) -> Line:
    """A matrix of the page, with the means above it, held against what was derived for its table's files."""
    name = page_table.matrix
    file = f"{PAGE}, {name}"
    if name in reasons and not isinstance(reasons[name], OfNothing):
        return _left_out(file, reasons[name], page_table.rows)
    if name not in known:
        return _of_nothing(file, reasons.get(name, f"its CSV, {name}.csv, is missing"))
    derived, order = known[name].derived, known[name].order
    rows, reason, left_out = page_table.rows, "", 0
    if derived.wide is None:  # its files have values alone
        rows = [[cell.partition(" [")[0] for cell in row] for row in rows]
        intervals = [cell.partition(" [")[2] for row in page_table.rows for cell in row]
        reason = "intervals of cells, and the lines above the matrix: the table of every value has them"
        left_out = sum(len(numbers_in(text)) for text in [*intervals, *page_table.caption.splitlines()[1:]])
    means = {words.removesuffix(" mean"): values[:1] for words, values in derived.caption.items()}
    outcome = compare_shown(file, page_table.header, rows, page_table.caption, replace(derived, caption=means), order)
    if left_out:
        outcome.leave_out(reason, left_out)
    return _line(outcome)


def _of_page(
    evidence: Evidence, caption: str, captions: Sequence[tuple[str, str]], known: Mapping[str, _Known]
) -> _Known | None:
    """A table of the page; None if it follows from no table in a file."""
    if caption.startswith(RUNS_BEHIND):
        own = evidence.trials[evidence.trials["variant"] == without_origin(caption.removeprefix(RUNS_BEHIND))]
        own = own[own["task"] == DETECTION][["trained_on", "seed", "state", "run_id"]]
        own = own.assign(
            run_id=own["run_id"].where(own["run_id"] != "", "none yet"),
            trained_on=[label_of(evidence, text) for text in own["trained_on"]],
        )
        return _Known(Derived(own, ["trained_on", "seed"]), list(own.index))
    if caption.startswith(PUBLISHED) and "published" in known:
        table, are_cells = known["published"], caption.startswith(PUBLISHED[0])
        derived = table.derived
        frame = derived.frame if derived.shown is None else derived.shown
        own_rows = [index for index in table.order if index is not None and (frame["kind"][index] == CELL) == are_cells]
        return _Known(
            Derived(frame.drop(columns="kind") if are_cells else frame, derived.keys, derived.unverified), own_rows
        )
    words, every = caption.rstrip(". ").removesuffix(EVERY_CELL), caption.endswith(EVERY_CELL)
    names = [name for text, name in captions if text == f"{words}." or text.startswith(f"{words}. Rows:")]
    if len(names) != 1 or names[0] not in known:
        return None
    table = known[names[0]]
    if not every:
        return table
    frame = table.derived.frame.drop(columns=["variant", "metric"])
    frame = frame.assign(trained_on=[label_of(evidence, text) for text in frame["trained_on"]])
    return _Known(Derived(frame, ["condition", "tested_on", "trained_on"]), table.order)


def _of_nothing(file: str, why: str) -> Line:
    return Line(file, "numbers", 0, 0, {}, [Difference(file, WHOLE, "all", why, "a table of this grid")])


def _left_out(file: str, reason: str, rows: Iterable[Iterable[object]]) -> Line:
    count = sum(len(numbers_in(str(cell))) for row in rows for cell in row)
    return Line(file, "numbers", 0, 0, {reason: count}, [])


def _line(outcome: Outcome) -> Line:
    return Line(outcome.file, "numbers", outcome.agree, outcome.numbers, outcome.unverified, outcome.differences)
