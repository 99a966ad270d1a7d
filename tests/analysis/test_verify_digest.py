"""The digest of a data set, derived again from an export's table, where the corpus states more than Dolos does."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from analysis.verify.evidence import manifest_digest
from data.manifest import build_manifest
from tests.corpora import write_csv
from tests.data.test_lists import FULL, write_files


@pytest.mark.parametrize("without", [(), ("mask_white",), ("original",), ("mask_white", "original")])
def test_masks_and_originals_that_the_corpus_states_are_in_the_digest(tmp_path: Path, without: tuple[str, ...]) -> None:
    rows = [{**row, **{name: "kept" if name == "mask_white" else "" for name in without if row[name]}} for row in FULL]
    write_csv(write_files(tmp_path / "x", FULL) / "list.csv", rows)
    manifest = build_manifest("manifest", tmp_path / "x", cache=tmp_path / "cache")
    optional = {"mask_white", "original"} & set(manifest.table.columns)
    assert optional == {"mask_white", "original"} - set(without)
    manifest.table.to_csv(tmp_path / "manifest.csv", index=False, lineterminator="\n")
    table = pd.read_csv(tmp_path / "manifest.csv", dtype=str, keep_default_na=False)
    assert manifest_digest(table.assign(label=table["label"].astype(int))) == manifest.digest
