"""A grid with generators that are only tested: its values, its report, its export, and what verifies them."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

import launch
from analysis.__main__ import main
from analysis.cells import cell_table
from analysis.open_set import landing_table, open_set_tables
from analysis.store import Store, open_store
from analysis.verify.verify import verify
from tests.corpora import write_folders
from tests.grid.grids import SIDE

BOTH = ("0_real", "1_fake")


@pytest.fixture(scope="module")
def only_tested(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A grid that was really run: three generators with training images, two that are only tested."""
    folder = tmp_path_factory.mktemp("only-tested")
    trained = {f"{split}/{g}/{c}": 8 for split in ("train", "val", "test") for g in "abc" for c in BOTH}
    tested = {f"test/{g}/{c}": 6 for g in ("x", "y") for c in BOTH}
    root = write_folders(folder / "x", trained | tested, SIDE, restart=False)
    arguments = [
        "folders", f"--data={root}", f"--runs={folder / 'runs'}", "--local", "--methods=residual_linear",
        "--tasks=detection,attribution,open_set",
    ]  # fmt: skip
    assert launch.main(arguments) == 0
    return open_store("folders", tracking_uri=f"sqlite:///{folder / 'runs' / 'mlflow.db'}")


def test_they_are_rows_without_a_column_and_count_in_the_mean_over_unseen_ones(only_tested: Store) -> None:
    results = only_tested.results()
    accuracy = results[(results["task"] == "detection") & (results["metric"] == "accuracy")]
    accuracy = accuracy[accuracy["method"] == "residual_linear"]
    matrix = accuracy.pivot_table(index="tested_on", columns="trained_on", values="value")
    assert list(matrix.index) == ["a", "b", "c", "x", "y"]
    assert list(matrix.columns) == ["a", "b", "c"]
    assert not matrix.isna().any(axis=None)
    cells = cell_table(only_tested)
    of_method = (cells["variant"] == "residual_linear") & (cells["task"] == "detection")
    means = cells[of_method & (cells["metric"] == "accuracy")].set_index("kind")["mean"]
    unseen = [matrix.loc[row, column] for row in matrix.index for column in matrix.columns if row != column]
    assert len(unseen) == 12
    assert means["cross-generator mean"] == pytest.approx(sum(unseen) / 12)
    assert means["in-domain mean"] == pytest.approx(sum(matrix.loc[name, name] for name in "abc") / 3)


def test_attribution_has_no_class_of_them_and_open_set_has_their_images(only_tested: Store) -> None:
    results = only_tested.results()
    attribution = results[results["task"] == "attribution"]
    run_id = str(attribution["run_id"].iloc[0])
    logits = [name for name in only_tested.scores(run_id).columns if name.startswith("logit_")]
    assert logits == ["logit_real", "logit_a", "logit_b", "logit_c"]
    tables, _ = open_set_tables(only_tested)
    rows = tables[tables["score"] == "softmax"].set_index("left_out")
    assert rows["num_seeds"].to_dict() == dict.fromkeys("abcxy", 1)
    assert rows["run_ids"].map(len).to_dict() == {"a": 1, "b": 1, "c": 1, "x": 3, "y": 3}
    landed = landing_table(only_tested, "residual_linear").sum(axis=1)
    assert landed.to_dict() == {"a": 8, "b": 8, "c": 8, "x": 18, "y": 18}  # each training set answers each image


def test_the_report_and_every_number_of_its_export_are_derived_again(only_tested: Store, tmp_path: Path) -> None:
    grid = ["--experiment=folders", f"--tracking-uri={only_tested.tracking_uri}"]
    assert main([*grid, f"--out={tmp_path / 'report'}", "--no-log"]) == 0
    assert main(["export", str(tmp_path / "export"), *grid, f"--report={tmp_path / 'report'}"]) == 0
    checked = verify(tmp_path / "export")
    assert [str(difference) for difference in checked.differences] == []
    assert checked.counts["agree"] > 100


def test_a_command_for_what_is_missing_trains_on_the_default_sets(only_tested: Store) -> None:
    runs = only_tested.runs()
    for task in ("attribution", "open_set"):
        lines = only_tested.validation_command(runs.loc[runs["task"] == task, "run_id"]).splitlines()
        assert lines
        assert not any("--train-on" in shlex.split(line) for line in lines)
