from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd
from rich.console import Console

from analysis.matrices import ORIENTATION
from analysis.text import print_results
from tests.analysis import published
from tests.analysis.tables import Planned, detection, published_results, results, row


def printed(
    table: pd.DataFrame,
    generators: Iterable[str] = published.GENERATORS,
    trained_on: Iterable[str] | None = None,
) -> str:
    """What a terminal shows of results; `trained_on` are the planned training sets of detection."""
    console = Console(width=140, record=True, force_terminal=False, quiet=False)
    store: Any = Planned(table, generators, trained_on)
    with console.capture() as capture:
        print_results(table, console, store)
    return capture.get()


def section(text: str, method: str) -> str:
    """What is printed of one method's detection."""
    start = text.index(method)
    return text[start : text.index("seeds:", start)]


def test_every_matrix_says_its_orientation() -> None:
    assert printed(published_results()).count(ORIENTATION) == len(published.DETECTION)


def test_rows_are_tested_on_and_columns_trained_on() -> None:
    lines = section(printed(published_results()), "clip_linear").splitlines()
    header = next(line for line in lines if "lama" in line and "pluralistic" in line)
    assert header.split() == list(published.GENERATORS)
    (pluralistic,) = (line for line in lines if line.split()[:1] == ["pluralistic"])
    assert pluralistic.split()[1:] == ["0.765", "(0.755)", "0.951", "(0.941)", "0.880", "(0.870)", "0.992", "(0.982)"]


def test_beside_each_accuracy_stands_a_value_that_knows_no_threshold() -> None:
    text = section(printed(published_results()), "sam_linear")
    assert "accuracy (AUROC)" in text
    assert "0.870 (0.860)" in text


def test_the_means_are_printed_as_published() -> None:
    text = printed(published_results())
    for method, (in_domain, cross) in published.MEANS.items():
        expected = f"accuracy: in-domain mean {in_domain:.3f}, cross-generator mean {cross:.3f}, gap "
        assert expected in section(text, method)


def test_attribution_is_printed_with_every_class() -> None:
    text = printed(published_results()).partition("attribution")[2]
    for method, overall in published.OVERALL.items():
        (line,) = (line for line in text.splitlines() if line.split()[:1] == [method])
        classes = [published.ATTRIBUTION[method][name] for name in ("real", *published.GENERATORS)]
        assert line.split()[1:] == [f"{value:.3f}" for value in (overall, *classes)]


def some(**changes: Any) -> list[dict[str, Any]]:
    cells = {("lama", "lama"): 0.9, ("lama", "ldm"): 0.6}
    return [*detection(cells, **changes), *detection(cells, "auroc", **changes)]


def test_random_weights_are_named_at_the_method_in_both_tasks() -> None:
    rows = [*some(weights="random weights"), row("m", "lama", "all", "accuracy", 0.5, task="attribution")]
    rows[-1]["weights"] = "random weights"
    assert printed(results(rows)).count("m [random weights]") == 2


def test_different_weights_of_one_method_are_all_named() -> None:
    rows = [*some(weights="random weights"), *some(weights="hub weights (openai)", seed=1)]
    assert "m [random weights; hub weights (openai)]" in printed(results(rows))


def test_weights_that_are_not_known_leave_the_bare_name() -> None:
    assert printed(results(some())).startswith("m: accuracy")


def test_a_cell_that_is_not_there_is_called_missing() -> None:
    text = printed(results(some()), ["lama", "ldm"], ["lama", "ldm"])
    (line,) = (line for line in text.splitlines() if line.split()[:1] == ["ldm"])
    assert line.split() == ["ldm", "0.600", "(0.600)", "missing", "(missing)"]


def test_the_seeds_are_listed() -> None:
    assert "seeds: 0, 3" in printed(results([*some(seed=3), *some(seed=0)]))


def test_without_results_nothing_is_printed() -> None:
    assert printed(results([])) == ""


def test_without_attribution_no_table_of_it_is_printed() -> None:
    assert "attribution" not in printed(results(some()))
