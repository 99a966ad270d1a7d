from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import product
from typing import Any

import pandas as pd
from rich.console import Console

from analysis.matrices import ORIENTATION
from analysis.text import print_results
from data.audits import Finding
from data.verdict import Verdict
from tests.analysis import published
from tests.analysis.tables import Planned, detection, published_results, results, row


def printed(
    table: pd.DataFrame,
    generators: Iterable[str] = published.GENERATORS,
    trained_on: Iterable[str] | None = None,
    verdict: Verdict | None = None,
    *,
    width: int = 140,
) -> str:
    """What a terminal shows of results; `trained_on` are the planned training sets of detection."""
    console = Console(width=width, record=True, force_terminal=False, quiet=False)
    store: Any = Planned(table, generators, trained_on, verdict)
    with console.capture() as capture:
        print_results(table, console, store)
    return capture.get()


def section(text: str, method: str) -> str:
    """What is printed of one method's detection."""
    start = text.index(method)
    return text[start : re.compile(r"seeds: |one seed \(").search(text, start).start()]  # type: ignore[union-attr]


def test_every_matrix_says_its_orientation() -> None:
    assert printed(published_results()).count(ORIENTATION) == len(published.DETECTION)


def test_the_audit_stands_above_every_table() -> None:
    verdict = Verdict(("counts", "headers"), (Finding("headers", "fail", "fakes alone are PNG"),), ("headers",))
    text = printed(published_results(), verdict=verdict)
    lines = text.splitlines()
    headings = [line for line in lines if ORIENTATION in line or line.startswith("attribution")]
    assert len(headings) == len(published.DETECTION) + 1
    assert {lines[lines.index(heading) + 1] for heading in headings} == {"  audit: 1 fail (headers, accepted), 1 pass"}
    assert "audit" not in printed(published_results())  # an older grid


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


# Conditions ----------------------------------------------------------------------------------------------------------


def under(condition: str, less: float, method: str = "m") -> list[dict[str, Any]]:
    """A 2 x 2 matrix of a condition, every value lower than the clean one."""
    cells = {("lama", "lama"): 0.9, ("lama", "ldm"): 0.6, ("ldm", "lama"): 0.55, ("ldm", "ldm"): 0.8}
    lower = {place: value - less for place, value in cells.items()}
    own = {"method": method, "condition": condition}
    return [*detection(lower, **own), *detection(lower, "auroc", **own)]


def test_each_condition_has_a_matrix_clean_first() -> None:
    rows = [*under("jpeg-75", 0.2), *under("blur-1", 0.1), *under("clean", 0.0), *under("clean", 0.05, method="n")]
    text = printed(results(rows), ["lama", "ldm"])
    assert [line.partition(":")[0] for line in text.splitlines() if "accuracy (AUROC)" in line] == [
        "m", "m under blur-1", "m under jpeg-75", "n",
    ]  # fmt: skip
    for heading, lama in (
        ("m: ", "0.900"),
        ("m under blur-1", "0.800"),
        ("m under jpeg-75", "0.700"),
        ("n: ", "0.850"),
    ):
        _, line = (line for line in section(text, heading).splitlines() if line.split()[:1] == ["lama"])
        assert line.split()[1:3] == [lama, f"({lama})"]
    assert "accuracy: in-domain mean 0.650, cross-generator mean 0.375, gap 0.275" in section(text, "m under jpeg-75")


def test_attribution_is_printed_per_condition() -> None:
    rows = [row("m", "lama+ldm", "all", "accuracy", 0.5, task="attribution")]
    rows += [row("m", "lama+ldm", "all", "accuracy", 0.1, task="attribution", condition="jpeg-75")]
    text = printed(results(rows))
    lines = [line for line in text.splitlines() if line.split()[:1] == ["m"]]
    assert [line.split()[1] for line in lines] == ["0.500", "0.100"]
    assert text.index("attribution: ") < text.index("attribution under jpeg-75: ")


# Training sets -------------------------------------------------------------------------------------------------------


def test_without_generators_there_is_a_cross_generator_mean_alone() -> None:
    cells = {("none", "lama"): 0.9, ("none", "ldm"): 0.6}
    text = printed(results([*detection(cells), *detection(cells, "auroc")]), ["lama", "ldm"])
    header, lama, ldm = (line for line in text.splitlines()[1:] if line.split()[:1] in (["no"], ["lama"], ["ldm"]))
    assert header.split() == ["no", "generator"]
    assert (lama.split(), ldm.split()) == (["lama", "0.900", "(0.900)"], ["ldm", "0.600", "(0.600)"])
    assert "  accuracy: cross-generator mean 0.750\n" in text
    assert "  AUROC: cross-generator mean 0.750\n" in text
    assert "in-domain" not in text
    assert "gap" not in text


def test_unions_follow_single_generators_under_their_own_names() -> None:
    cells = {(trained, "lama"): 0.5 for trained in ("ldm+repaint", "none", "repaint", "lama")}
    text = printed(results([*detection(cells), *detection(cells, "auroc")]), ["repaint", "lama", "ldm"])
    header = next(line for line in text.splitlines()[1:] if "all but lama" in line)
    assert header.split() == ["no", "generator", "repaint", "lama", "all", "but", "lama"]


def test_a_narrow_terminal_shows_every_training_set_in_words_and_every_value_whole() -> None:
    rest = ["lama+ldm+pluralistic", "lama+ldm+repaint", "lama+pluralistic+repaint", "ldm+pluralistic+repaint"]
    cells = {
        (trained, tested): 0.1 + 0.01 * number
        for number, (trained, tested) in enumerate(product([*published.GENERATORS, *rest], published.GENERATORS))
    }
    table = results([*detection(cells), *detection(cells, "auroc")])
    text = printed(table, sorted(published.GENERATORS), width=80)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    words = " ".join(text.split())
    for label in ("lama", "ldm", "pluralistic", "repaint"):
        assert label in words
    # the words of a heading stand below each other
    headings = [line.split() for line in lines if "but" in line.split()]
    assert sum(line.count("but") for line in headings) == 4
    for value in cells.values():
        assert f"{value:.3f} ({value:.3f})" in text
    assert "accuracy, trained on one generator: in-domain mean" in words
    assert "AUROC, trained on several generators: in-domain mean" in words


def test_a_method_that_does_not_depend_on_the_seed_is_marked() -> None:
    text = printed(results(some(method="residual_linear")))
    assert "one seed (0); the method does not depend on the seed" in text
    text = printed(results(some(method="residual_linear", config='{"solver": "adam"}')))
    assert "does not depend" not in text


def test_equal_sizes_are_named() -> None:
    text = printed(results(some(equal_size="24,8")))
    assert (
        "every training set: 24 images of each class in training and 8 in validation (launch.py --equal-size)" in text
    )


def test_rows_and_classes_come_in_the_order_of_the_corpus() -> None:
    table = published_results()
    table = table[table["method"] == "clip_linear"]
    for order in (["repaint", "lama", "pluralistic", "ldm"], sorted(published.GENERATORS)):
        text = printed(table, order)
        lines = section(text, "clip_linear").splitlines()
        assert [line.split()[0] for line in lines if line.split()[:1] and line.split()[0] in order][-4:] == order
        header = next(line for line in text.partition("attribution")[2].splitlines() if "overall" in line)
        assert header.split() == ["method", "overall", "real", *order]


def test_at_80_columns_no_name_and_no_number_is_broken() -> None:
    table = published_results()
    lines = printed(table, width=80).splitlines()
    assert max(map(len, lines)) <= 80
    words = {word for line in lines for word in line.split()}
    assert {*published.GENERATORS, *published.DETECTION} <= words
    numbers = [word for word in words if word.startswith(("0.", "(0."))]
    assert numbers
    assert all(re.fullmatch(r"0\.\d{3},?|\(0\.\d{3}\)", word) for word in numbers)
