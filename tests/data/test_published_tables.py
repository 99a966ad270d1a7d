"""Every published table: its columns, its range, its sources."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import data.published_tables
from data.published_tables import COLUMNS, ORIGINAL, SECOND_HAND, list_tables, read_table, tables_of
from data.sources import get_source, list_sources
from models.metrics import metrics_for

OF_PIXELS = {"iou"}


@pytest.mark.parametrize("name", list_tables())
def test_a_table_has_shares_sources_and_a_corpus(name: str) -> None:
    table = read_table(name)
    assert tuple(table.columns) == COLUMNS
    assert len(table) > 3
    assert table["value"].between(0, 1).all()
    assert table["value"].max() > 0.5  # shares, not hundredths of them
    assert set(table["corpus"]) <= set(list_sources())
    assert set(table["metric"]) <= {*(metric.name for metric in metrics_for(("real", "fake"))), *OF_PIXELS}
    assert table["source"].str.contains(r"arXiv|@[0-9a-f]{7}|commit [0-9a-f]{7}").all()


def test_what_was_read_in_the_original_and_what_was_not() -> None:
    read = {name: set(read_table(name)["read"]) for name in list_tables()}
    assert read == {
        "aigibench_setting2": {ORIGINAL},
        "declip_summary": {ORIGINAL, SECOND_HAND},
        "inpx_detectors": {ORIGINAL, SECOND_HAND},
        "ln_tuning_auroc": {SECOND_HAND},
        "sica_transfer_auroc": {SECOND_HAND},
    }


def test_tables_of_a_layout_count_where_their_generators_are() -> None:
    assert list(tables_of("dolos", [])) == ["declip_summary"]
    assert tables_of("folders", ["ProGAN", "midjourney"]) == {}
    assert list(tables_of("folders", ["ProGAN", "sdv1.4", "x"])) == ["aigibench_setting2"]
    assert list(tables_of("manifest", ["CDFv2"])) == ["ln_tuning_auroc"]
    assert tables_of("a corpus of another checkout", []) == {}
    assert [name for name in list_sources() if get_source(name).is_layout] == ["folders", "manifest"]


def test_a_table_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(KeyError, match="aigibench_setting2"):
        read_table("aigibench")


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("value", "81.6", "values are shares, from 0 to 1"),
        ("read", "primary", "read is original or second-hand"),
        ("corpus", "folders", "a table is of one corpus"),
        ("source", "", "only a note may be empty"),
        ("tested_on", "ldm", "a value stands there twice"),
    ],
)
def test_a_bad_table_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, column: str, value: str, said: str
) -> None:
    row = dict(zip(COLUMNS, ("dolos", "a", "lama", "lama", "auroc", "0.5", "arXiv 1", ORIGINAL, ""), strict=True))
    rows = [row, {**row, "tested_on": "ldm"}]
    monkeypatch.setattr(data.published_tables, "FOLDER", tmp_path)
    pd.DataFrame(rows).to_csv(tmp_path / "x.csv", index=False)
    assert len(read_table("x")) == 2
    rows[0][column] = value
    pd.DataFrame(rows).to_csv(tmp_path / "x.csv", index=False)
    with pytest.raises(ValueError, match=said):
        read_table("x")
    pd.DataFrame(rows).drop(columns="note").to_csv(tmp_path / "x.csv", index=False)
    with pytest.raises(ValueError, match=r"x.csv has the columns .*; it needs corpus, method"):
        read_table("x")
