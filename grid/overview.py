"""A grid's trials in the terminal, grouped by method so that 80 columns are enough, and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from data.conditions import CLEAN
from grid.spec import TrialSpec
from grid.tasks import DETECTION, WHOLE, get_task, list_tasks

if TYPE_CHECKING:
    from rich.console import Console

MOST_FAILURES, MOST_ERRORS = 200, 20  # trials that failed, and errors of more of them, with a line each
OWN, UNSEEN = "own", "unseen"  # generators that a detector was trained on, and others
OVERALL = "overall"  # over all classes of a task with more than two
LEGEND = (
    "accuracy on clean test pictures: of detection at p = 0.5, as means over own / unseen generators; of attribution "
    "over all classes"
)


@dataclass(frozen=True)
class Row:
    """A trial with what is said about it.

    Attributes:
        trial: the trial.
        state: in words, such as "pending".
        accuracies: of a finished trial, by `accuracies_of`; the mean over the trials of a line is shown.
        latest: name of a metric -> the latest value, of a running trial; shown likewise.
    """

    trial: TrialSpec
    state: str
    accuracies: Mapping[str, float] = field(default_factory=dict)
    latest: Mapping[str, float] = field(default_factory=dict)


def print_rows(
    rows: Iterable[Row], console: Console, *, figures: bool = False, asks: Mapping[str, str] | None = None
) -> None:
    """Print a table per method; trials that differ only in their seed share a line.

    Args:
        rows: of one grid.
        console: where to.
        figures: show the accuracies of finished trials, which `LEGEND` explains, and under each table the latest values
            of running ones.
        asks: method -> what its trials ask for, in words.
    """
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    rows = list(rows)
    generators = sorted({name for row in rows for name in row.trial.train_generators})
    by_heading: dict[str, list[Row]] = {}
    for row in rows:
        by_heading.setdefault(heading(row.trial), []).append(row)
    for title, of_method in by_heading.items():
        console.print(f"[bold]{escape(title)}[/]", highlight=False)
        if asked := (asks or {}).get(of_method[0].trial.method):
            console.print(f"  {asked}", highlight=False)
        sizes = {row.trial.equal_size for row in of_method if row.trial.equal_size is not None}
        if len(sizes) == 1:
            console.print(f"  {sizes.pop().words} (--equal-size)", highlight=False)
        table = Table(box=box.SIMPLE_HEAD)
        running = list[str]()
        for column in ("task", "trained on", "seeds", "state", *(["accuracy"] if figures else [])):
            table.add_column(column, overflow="fold")
        for words, alike in _merged(of_method, generators, say_size=len(sizes) > 1).items():
            cells = [words[0], words[1], seeds_in_words([row.trial.seed for row in alike]), words[2]]
            if latest := _means([row.latest for row in alike]):
                running.append(f"{', '.join(cells)}: {', '.join(f'{name} {mean}' for name, mean in latest.items())}")
            table.add_row(*map(escape, cells), *([_accuracy_in_words(alike)] if figures else []))
        console.print(table)
        for line in running if figures else []:
            console.print(f"  {line}", highlight=False, markup=False)


def failures(failed: Sequence[tuple[TrialSpec, str]]) -> list[str]:
    """A line per failed trial with its error; of more than 200, a line per error, of at most 20 errors.

    Args:
        failed: trials with their errors.
    """
    from grid.controls import task_words

    named = [(f"{task_words(trial.task, trial.method)} {trial.name}", error) for trial, error in failed]
    if len(named) <= MOST_FAILURES:
        return [f"{name}: {error}" for name, error in named]
    by_error: dict[str, list[str]] = {}
    for name, error in named:
        by_error.setdefault(error, []).append(name)
    lines = [f"{len(trials):,} trials, such as {trials[0]}: {error}" for error, trials in by_error.items()]
    more = [f"{len(lines) - MOST_ERRORS:,} other errors; --json has all"] if len(lines) > MOST_ERRORS else []
    return lines[:MOST_ERRORS] + more


def label_of_trial(spec: TrialSpec) -> str:
    """The method with its backbone, the origin of its weights, and whether it is in small form."""
    from models.registry import is_small

    label = heading(spec)
    if not is_small(spec.method, dict(spec.config)):
        return label
    return f"{label[:-1]}, small form]" if label.endswith("]") else f"{label} [small form]"


def heading(trial: TrialSpec) -> str:
    """The method with its backbone and the origin of its weights: "xception_pretrained [xception41, hub weights]"."""
    from models.detector import WeightsError
    from models.weights import weights_note

    config = dict(trial.config)
    parts = [str(config["backbone"])] if config.get("backbone") else []
    if "weights" in config:
        try:
            parts.append(weights_note(str(config["weights"])))
        except WeightsError:  # of another checkout
            parts.append(str(config["weights"]))
    return f"{trial.method} [{', '.join(parts)}]" if parts else trial.method


def seeds_in_words(seeds: Sequence[int]) -> str:
    """Such as "0, 1, 2", or "one seed (0)", because "0" alone reads as "none"; of many "0 to 49 (50)"."""
    return f"one seed ({seeds[0]})" if len(seeds) == 1 else list_of_seeds(seeds)


def list_of_seeds(seeds: Sequence[int]) -> str:
    """Such as "0", "0, 1, 2", or of many "0 to 49 (50)"."""
    if len(seeds) > 10 and sorted(seeds) == list(range(min(seeds), max(seeds) + 1)):
        return f"{min(seeds)} to {max(seeds)} ({len(seeds):,})"
    return ", ".join(map(str, seeds))


def time_in_words(seconds: float, *, decimals: int = 0) -> str:
    """Such as "40 s", "1 min 25 s" or "2 h 05 min"; below a minute with so many decimals."""
    if round(seconds, decimals) < 60:
        return f"{seconds:.{decimals}f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def trained_in_words(trial: TrialSpec, generators: Sequence[str], *, say_size: bool = True) -> str:
    """What a trial is trained on: its training set, and what is special about it."""
    parts = [trial.train_set.label(generators)]
    parts += [f"under {trial.train_condition}"] if trial.train_condition != CLEAN else []
    parts += [f"{trial.equal_size.train} of each class"] if trial.equal_size and say_size else []
    return ", ".join(parts)


def as_json(trial: TrialSpec, **more: Any) -> dict[str, Any]:
    """A trial and what more is said about it, in plain JSON types."""
    return {
        "key": trial.key, "task": trial.task, "method": trial.method, "trained_on": list(trial.train_generators),
        "train_condition": trial.train_condition, "seed": trial.seed, "config": dict(trial.config), **more,
    }  # fmt: skip


def accuracies_of(metrics: Mapping[str, float], trial: TrialSpec) -> dict[str, float]:
    """A trial's accuracies on clean test pictures, in a few numbers.

    Of detection the means over its "own" generators and over "unseen" ones; of attribution the "overall" accuracy. Of
    other tasks there are none.
    """
    from grid.means import CROSS_GENERATOR, IN_DOMAIN, summary_of_trial
    from grid.names import metric_name, summary_metric

    if trial.task == DETECTION:
        found = summary_of_trial(trial.train_set, metrics)
        kinds = {OWN: summary_metric(IN_DOMAIN, "accuracy"), UNSEEN: summary_metric(CROSS_GENERATOR, "accuracy")}
    else:
        overall = {} if get_task(trial.task).is_binary else {OVERALL: metric_name(WHOLE, "accuracy")}
        found, kinds = dict(metrics), overall
    return {kind: found[name] for kind, name in kinds.items() if name in found}


def _merged(rows: Iterable[Row], generators: Sequence[str], *, say_size: bool) -> dict[tuple[str, str, str], list[Row]]:
    """(task, trained on, state), all in words -> the trials."""
    from grid.controls import task_words

    ranks = {task: number for number, task in enumerate(list_tasks())}
    merged: dict[tuple[str, str, str], list[Row]] = {}
    words: dict[tuple[object, ...], tuple[str, str]] = {}  # thousands of trials differ in their seed alone
    for row in sorted(rows, key=lambda row: ranks[row.trial.task]):
        trial = row.trial
        about = (trial.task, trial.method, trial.train_generators, trial.train_condition, trial.equal_size)
        if about not in words:
            trained = trained_in_words(trial, generators, say_size=say_size)
            words[about] = (task_words(trial.task, trial.method), trained)
        merged.setdefault((*words[about], row.state), []).append(row)
    return merged


def _accuracy_in_words(rows: Sequence[Row]) -> str:
    """Such as "0.940 / 0.793", own / unseen, or "0.482" of all classes; "" where there is none."""
    means = _means([row.accuracies for row in rows])
    if not means or OVERALL in means:
        return means.get(OVERALL, "")
    return " / ".join(means.get(kind, "–") for kind in (OWN, UNSEEN))


def _means(figures: Iterable[Mapping[str, float]]) -> dict[str, str]:
    """Name -> the mean, in words."""
    values: dict[str, list[float]] = {}
    for each in figures:
        for name, value in each.items():
            values.setdefault(name, []).append(value)
    return {name: f"{sum(found) / len(found):.3f}" for name, found in values.items()}
