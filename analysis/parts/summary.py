"""The means of each method, and the best methods."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence

import pandas as pd

from analysis.answer import METRIC, Standing, best_of, best_of_cells, standings
from analysis.cells import CELL, GAP
from analysis.figures.answer import answer_figure, fits_phone
from analysis.matrices import column_order
from analysis.page import Block, Text, sentence_list
from analysis.parts import Report, register_part
from analysis.tables import CONFIDENCE, MISSING, cell_text
from analysis.variants import ORIGIN
from grid.means import CROSS_GENERATOR, IN_DOMAIN
from grid.overview import seeds_in_words
from grid.plan import FINISHED
from grid.tasks import ATTRIBUTION, DETECTION
from grid.train_sets import TrainSet
from models.metrics import get_metric
from models.registry import depends_on_seed

LEARNT, WITHOUT = "that learn from fakes", "trained without a generator"
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
NOT_POSSIBLE = "none"  # such as the in-domain mean of a method that is trained without fakes


@register_part("summary", title="Summary", position=10)
def summary(report: Report) -> Iterator[Block]:
    """A sentence on the best methods, a figure of all methods, and a table of every method's means."""
    if report.runs.empty:
        yield Text("This grid has controls alone, and no results of a method.")
        return
    rows = []
    for variant in dict.fromkeys(report.runs["variant"]):
        row: dict[str, object] = {"method": variant}
        for metric in ("accuracy", "auroc"):
            for kind in (IN_DOMAIN, CROSS_GENERATOR, GAP) if metric == "accuracy" else (IN_DOMAIN, CROSS_GENERATOR):
                name = f"{get_metric(metric).words}, {kind.removesuffix(' mean')}"
                row[name] = mean_text(report, report.cells, variant, DETECTION, metric, kind)
        row["attribution, overall"] = mean_text(report, report.cells, variant, ATTRIBUTION, "accuracy", CELL)
        own = report.runs[report.runs["variant"] == variant]
        row["weights"] = "; ".join(report.weights(variant)) or "none"
        row["seeds"] = seeds_text(own)
        row["trials finished"] = f"{(own['state'] == FINISHED).sum()} of {len(own)}"
        rows.append(row)
    table = pd.DataFrame(rows)
    standing = standings(report.cells, report.generators)
    best = _best(report, standing)
    yield from map(Text, best)
    if not best and len(table) > 1:
        yield Text("No two methods have the same cells yet, so their means are not ranked.")
    yield from (Text(f"Warning: {sentence}", strong=True) for sentence in report.beside.warnings(report.generators))
    yield from report.audit()
    if standing:
        yield _figure(report, standing)
    yield report.folder.table(
        "summary", table, shown=table.drop(columns="weights"),
        caption="Means over the cells of each method's matrix, ± standard deviation over seeds where there are "
        f"several, in brackets {CONFIDENCE}",
    )  # fmt: skip


def seeds_text(runs: pd.DataFrame) -> str:
    """The seeds of a method's trials, or that it does not depend on the seed.

    Args:
        runs: rows of `Store.runs()` of one variant.
    """
    first = runs.iloc[0]
    if not depends_on_seed(str(first["method"]), json.loads(str(first["config"]))):
        return "does not depend on the seed"
    return seeds_in_words(sorted(runs["seed"].unique()))


def mean_text(report: Report, cells: pd.DataFrame, variant: str, task: str, metric: str, kind: str) -> str:
    """The first of a variant's values of a kind, with its interval; "missing", or "none" if it cannot have one.

    Args:
        report: the report.
        cells: rows of `cell_table`, of one condition.
        variant: variant of a method.
        task: "detection" or "attribution".
        metric: as logged.
        kind: as in `cell_table`.
    """
    rows = cells[
        (cells["variant"] == variant) & (cells["task"] == task) & (cells["metric"] == metric) & (cells["kind"] == kind)
    ]
    if len(rows):
        values = rows[["mean", "std", "low", "high"]].iloc[0].astype(float)
        return cell_text(*(values if rows["seeded"].iloc[0] else values.where(values.index != "std")))
    planned = report.runs[(report.runs["variant"] == variant) & (report.runs["task"] == task)]
    trained = [TrainSet.parse(str(text)) for text in planned["trained_on"]]
    can_have = any(train.generators for train in trained) if kind in (IN_DOMAIN, GAP) else bool(trained)
    can_have &= task != DETECTION or bool(report.metrics_of(variant, [metric]))
    return MISSING if can_have else NOT_POSSIBLE


def _best(report: Report, standing: Sequence[Standing]) -> list[str]:
    """Which method carries best: a sentence on those that learn from fakes, and one on those that do not.

    Only methods with the same cells are ranked; where there are several and no two of them have, there is no sentence.
    """
    sentences = []
    for learns, words in ((True, LEARNT), (False, WITHOUT)):
        of_kind = [one for one in standing if one.learns == learns]
        ranked = [one for one in of_kind if one.ranked and one.unseen is not None]
        if ranked and not (len(ranked) == 1 and len(of_kind) > 1):
            left_out = [report.labelled(one.variant) for one in of_kind if one not in ranked]
            has = "has" if len(left_out) == 1 else "have"
            other = f" {sentence_list(left_out)} {has} other cells so far, and no place." if left_out else ""
            sentences.append(_sentence(report, ranked, words) + other)
    return sentences


def _sentence(report: Report, ranked: Sequence[Standing], words: str) -> str:
    """The best on unseen generators, with what it has on its own, and the best at home; the backbone of each."""
    best, home = best_of(ranked), best_of(ranked, "own")
    first = best[0]
    names = sentence_list(report.labelled(one.variant) for one in best)
    carry = "carry best alike" if len(best) > 1 else "carries best"
    begin = f"Of {_count(len(ranked))} methods {words}, {names} {carry}" if len(ranked) > 1 else names
    sentence = f"{begin}: AUROC {_auroc(report, first, CROSS_GENERATOR)} on generators that it never saw"
    if len(best) > 1:
        sentence = sentence.replace("it never", "they never")
    elif first.own is not None:
        sentence += f", {_auroc(report, first, IN_DOMAIN)} on its own"
    if home and first not in home:
        other = home[0]
        falls = other.unseen is not None and other.own is not None and other.unseen.value < other.own.value
        sentence += (
            f"; {report.labelled(other.variant)} is best at home, with {_auroc(report, other, IN_DOMAIN)}, and "
            f"{'falls to' if falls else 'has'} {_auroc(report, other, CROSS_GENERATOR)} on others"
        )
    close = [
        one for one in ranked if one not in best and first.unseen and one.unseen and one.unseen.high > first.unseen.low
    ]
    if close:
        others = sentence_list(one.variant for one in close)
        sentence += f". That it carries better than {others} is not certain: their intervals overlap"
    return f"{sentence}."


def _count(number: int) -> str:
    return _NUMBERS[number] if number < len(_NUMBERS) else str(number)


def _auroc(report: Report, one: Standing, kind: str) -> str:
    return mean_text(report, report.cells, one.variant, DETECTION, METRIC, kind)


def _figure(report: Report, standing: Sequence[Standing]) -> Block:
    """All methods at one look, and the best of each cell as a table file."""
    best = best_of_cells(standing, report.generators)
    order = column_order(best["trained_on"], report.generators)
    best = best.sort_values("trained_on", key=lambda names: names.map(order.index), kind="stable", ignore_index=True)
    holders = [sorted(map(str, variants)) for variants in best["variants"].tolist()]
    table = best.assign(variants=[" = ".join(names) for names in holders])
    caption = "The highest AUROC of each cell and the method that has it; methods with equal values are joined by ="
    origins = [" = ".join(report.origins.get(name, "") for name in names) for names in holders]
    shown = [" = ".join(map(report.labelled, names)) for names in holders]
    report.folder.files(
        "best-of-cells", table.assign(**{ORIGIN: origins}), caption=caption, shown=table.assign(variants=shown)
    )
    counts = Counter(name for names in holders for name in names)
    named = ", ".join(f"{name} in {count}" for name, count in counts.most_common())
    means = "; ".join(
        f"{report.labelled(one.variant)} {_auroc(report, one, CROSS_GENERATOR)} unseen, "
        f"{_auroc(report, one, IN_DOMAIN)} own"
        for one in standing
    )
    alt = f"AUROC of {len(standing)} methods, the highest mean first: {means}. Best of {len(best)} cells: {named}."
    narrow = None
    if fits_phone(standing, report.generators):  # else the wide one scrolls there
        narrow = answer_figure(standing, report.generators, labels=report.origins, narrow=True)
    wide = answer_figure(standing, report.generators, labels=report.origins)
    return report.folder.picture("answer", wide, alt=alt, narrow=narrow)
