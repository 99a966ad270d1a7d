"""Matrices as text: what stands in which cell, and that each says its orientation."""

from __future__ import annotations

import dataclasses
import io
import re

import pandas as pd
import pytest

from analysis.cells import IntervalMatrix
from analysis.matrices import cross_generator_matrix, matrix_means
from analysis.tables import attribution_text, cell_text, to_csv, to_latex, to_markdown
from tests.analysis.tables import detection, results

NAN = float("nan")
CELLS = {("lama", "lama"): 0.9, ("lama", "ldm_2"): 0.6, ("ldm_2", "ldm_2"): 0.8}
MATRIX = cross_generator_matrix(results(detection(CELLS)), "m")


def with_intervals(std: float = 0.01) -> IntervalMatrix:
    low, high = MATRIX - 0.05, MATRIX + 0.05
    counts = MATRIX.notna().astype(int) * 2
    return IntervalMatrix(
        "m_1", "accuracy", MATRIX, MATRIX * 0 + std, counts, low, high, matrix_means(MATRIX), {"gap": (0.1, 0.4)}
    )


def test_markdown_has_every_cell_in_its_place() -> None:
    assert to_markdown(MATRIX, caption="A method").splitlines() == [
        "A method. Rows: tested on, columns: trained on.",
        "",
        "| tested on / trained on | lama | ldm_2 |",
        "|---|---|---|",
        "| lama | **0.900** | missing |",
        "| ldm_2 | 0.600 | **0.800** |",
    ]


def test_markdown_turned() -> None:
    lines = to_markdown(MATRIX, transpose=True).splitlines()
    assert lines[0] == "Rows: trained on, columns: tested on."
    assert lines[2:] == [
        "| trained on / tested on | lama | ldm_2 |",
        "|---|---|---|",
        "| lama | **0.900** | 0.600 |",
        "| ldm_2 | missing | **0.800** |",
    ]


def test_intervals_and_means_are_said() -> None:
    text = to_markdown(with_intervals())
    assert "| lama | **0.900 ± 0.010 [0.850, 0.950]** | missing |" in text
    assert text.startswith("m_1, accuracy. Rows: tested on, columns: trained on. In-domain mean 0.850, ")
    assert "gap 0.250 [0.100, 0.400]" in text
    assert "± is the standard deviation over seeds" in text
    assert "95 % confidence intervals of the mean over seeds and source photographs" in text
    single = to_markdown(dataclasses.replace(with_intervals(), num_seeds=MATRIX * 0 + 1))
    assert "95 % confidence intervals over source photographs, of these runs: another seed is not in them" in single
    free = to_markdown(dataclasses.replace(with_intervals(), seeded=False))
    assert "95 % confidence intervals over source photographs; the method does not depend on the seed" in free
    assert "±" not in to_markdown(with_intervals(std=NAN))


def test_latex_is_booktabs_and_escaped() -> None:
    text = to_latex(with_intervals(), caption="50 % & more_", label="tab:m")
    assert r"\caption{50 \% \& more\_. Rows: tested on, columns: trained on." in text
    assert r"tested on / trained on & lama & ldm\_2 \\" in text
    assert r"lama & \textbf{0.900 $\pm$ 0.010 [0.850, 0.950]} & missing \\" in text
    for command in (r"\toprule", r"\midrule", r"\bottomrule", r"\label{tab:m}", r"\begin{tabular}{lrr}"):
        assert command in text
    turned = to_latex(MATRIX, transpose=True)
    assert "Rows: trained on, columns: tested on" in turned
    assert r"lama & \textbf{0.900} & 0.600 \\" in turned


@pytest.mark.parametrize("transpose", [False, True])
def test_csv_comes_back(transpose: bool) -> None:
    text = to_csv(MATRIX, transpose=transpose)
    assert text.startswith("trained on / tested on," if transpose else "tested on / trained on,")
    found = pd.read_csv(io.StringIO(text), index_col=0, na_values="missing")
    pd.testing.assert_frame_equal(found, MATRIX.T if transpose else MATRIX, check_names=False)


def test_csv_of_intervals_is_long() -> None:
    found = pd.read_csv(io.StringIO(to_csv(with_intervals())))
    assert list(found.columns) == [
        "variant", "metric", "condition", "tested_on", "trained_on", "mean", "std", "num_seeds", "low", "high",
        "one_more_low", "one_more_high",
    ]  # fmt: skip
    row = found.set_index(["tested_on", "trained_on"]).loc[("ldm_2", "lama")]
    assert (row["mean"], row["low"], row["num_seeds"]) == pytest.approx((0.6, 0.55, 2))
    assert len(found) == 4


def test_a_union_has_a_short_heading() -> None:
    cells = {("a+b", name): 0.5 for name in "abc"}
    text = to_markdown(cross_generator_matrix(results(detection(cells)), "m"))
    assert "| a | b | c | all but c |" in text
    assert "| a | missing | missing | missing | **0.500** |" in text


def test_a_plain_table_keeps_its_columns() -> None:
    table = pd.DataFrame({"name": ["a|b"], "value": [0.5], "count": [3], "yes": [True], "none": [None]})
    assert to_markdown(table).splitlines() == [
        "| name | value | count | yes | none |",
        "|---|---|---|---|---|",
        "| a\\|b | 0.500 | 3 | yes | missing |",
    ]
    assert r"\begin{tabular}{lrrlr}" in to_latex(table)
    assert to_csv(table).splitlines()[0] == "name,value,count,yes,none"


def test_row_numbers_that_are_left_of_a_longer_table_are_no_column() -> None:
    table = pd.DataFrame({"method": ["m", "m", "n"], "value": [0.25, 0.5, 0.75]})
    table = table[table["value"] > 0.3]
    assert to_csv(table) == "method,value\nm,0.5\nn,0.75\n"
    assert to_markdown(table) == "| method | value |\n|---|---|\n| m | 0.500 |\n| n | 0.750 |\n"
    assert "method & value" in to_latex(table)


def test_attribution_as_text() -> None:
    columns = ["variant", "class", "mean", "std", "num_seeds", "low", "high"]
    rows = [
        ("n", "overall", 0.5, NAN, 1, 0.4, 0.6),
        ("n", "real", 0.7, 0.1, 2, NAN, NAN),
        ("m", "overall", 0.1, NAN, 1, 0.0, 0.2),
    ]
    table = attribution_text(pd.DataFrame(rows, columns=columns))
    assert table.loc["n"].tolist() == ["0.500 [0.400, 0.600]", "0.700 ± 0.100"]
    assert table.loc["m"].tolist() == ["0.100 [0.000, 0.200]", "missing"]
    assert to_markdown(table).startswith("Rows: method, columns: accuracy on.")


def test_a_cell_that_is_not_there_is_missing() -> None:
    assert cell_text(NAN, NAN, NAN, NAN) == "missing"


def test_latex_prints_every_character_as_it_is() -> None:
    table = pd.DataFrame({"settings": [r'{"a_b": ~1 ^ 2} < > \ ± %']})
    printed = r'\{"a\_b": \textasciitilde 1 \textasciicircum \space 2\} \textless{} \textgreater{} '
    printed += r"\textbackslash \space $\pm$ \%"
    text = to_latex(table, caption=table.loc[0, "settings"])
    assert f"{printed} \\\\\n" in text
    assert rf"\caption{{{printed}.}}" in text


@pytest.mark.parametrize("caption", ["", "50 % of {a_b} & #1 ± <2>"])
def test_latex_is_balanced_and_each_row_has_every_column(caption: str) -> None:
    plain = pd.DataFrame({"a_b & c": ["1 & 2 \\\\", "100 %"], "#": [0.5, 1.5]})
    for table in (with_intervals(), MATRIX, plain):
        text = to_latex(table, caption=caption, label="tab:m")
        opened, closed = re.findall(r"\\begin\{(\w+)", text), re.findall(r"\\end\{(\w+)", text)
        assert opened == closed[::-1] == ["table", "tabular"]
        bare = re.sub(r"\\[\\{}%&_#$]", "", text)  # without line ends and escaped characters
        assert bare.count("{") == bare.count("}")
        assert bare.count("$") % 2 == 0
        assert not set(bare) & set("%_#±<>")
        alignment = re.search(r"\\begin\{tabular\}\{(\w+)", text)[1]
        body = bare.split(r"\toprule")[1].split(r"\bottomrule")[0].replace(r"\midrule", "").strip().splitlines()
        assert [line.count("&") + 1 for line in body if line] == [len(alignment)] * (len(table_rows(table)) + 1)


def table_rows(table: pd.DataFrame | IntervalMatrix) -> pd.Index:
    return table.mean.index if isinstance(table, IntervalMatrix) else table.index


def test_without_generators_the_heading_says_so_and_no_in_domain_mean_is_missed() -> None:
    matrix = cross_generator_matrix(results(detection({("none", "lama"): 0.9, ("none", "ldm"): 0.6})), "m", planned=[])
    nothing = matrix * NAN
    counts = matrix.notna().astype(int)
    text = to_markdown(
        IntervalMatrix("m", "accuracy", matrix, nothing, counts, nothing, nothing, matrix_means(matrix), {})
    )
    assert text.splitlines() == [
        "m, accuracy. Rows: tested on, columns: trained on. Cross-generator mean 0.750.",
        "",
        "| tested on / trained on | no generator |",
        "|---|---|",
        "| lama | 0.900 |",
        "| ldm | 0.600 |",
    ]
