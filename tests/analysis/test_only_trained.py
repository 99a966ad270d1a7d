"""A grid with a generator that is only trained on: a column of each matrix, and no row of it has a value."""

from __future__ import annotations

import shlex
from pathlib import Path

import pandas as pd
import pytest

import launch
from analysis.__main__ import main
from analysis.cells import cell_table
from analysis.store import Store, open_store
from analysis.verify.verify import verify
from tests.corpora import write_folders
from tests.grid.grids import SIDE

BOTH = ("0_real", "1_fake")


@pytest.fixture(scope="module")
def only_trained(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """As AIGIBench: `sd` has no test images, `x` no training images; `a` and `b` have both."""
    folder = tmp_path_factory.mktemp("only-trained")
    folders = {f"{split}/{g}/{c}": 8 for split in ("train", "val") for g in ("a", "b", "sd") for c in BOTH}
    folders |= {f"test/{g}/{c}": 6 for g in ("a", "b", "x") for c in BOTH}
    root = write_folders(folder / "y", folders, SIDE, restart=False)
    arguments = [
        "folders", f"--data={root}", f"--runs={folder / 'runs'}", "--local", "--methods=residual_linear,real_only",
        "--tasks=detection,attribution,shuffled_labels", "--train-on=each,all",
    ]  # fmt: skip
    assert launch.main(arguments) == 0
    return open_store("folders", tracking_uri=f"sqlite:///{folder / 'runs' / 'mlflow.db'}")


def test_it_is_a_column_without_a_row_and_its_in_domain_value_does_not_exist(only_trained: Store) -> None:
    assert "only trained on, because they have no test images: sd" in only_trained.notes
    assert only_trained.generators == ["a", "b", "x"]
    results = only_trained.results()
    accuracy = results[(results["task"] == "detection") & (results["metric"] == "accuracy")]
    accuracy = accuracy[accuracy["method"] == "residual_linear"]
    matrix = accuracy.pivot_table(index="tested_on", columns="trained_on", values="value")
    assert (list(matrix.index), list(matrix.columns)) == (["a", "b", "x"], ["a", "a+b+sd", "b", "sd"])
    assert not matrix.isna().any(axis=None)
    cells = cell_table(only_trained)
    of_method = (cells["variant"] == "residual_linear") & (cells["task"] == "detection")
    means = cells[of_method & (cells["metric"] == "accuracy")].set_index("kind")["mean"]
    assert means["in-domain mean, trained on one generator"] == pytest.approx(
        (matrix.loc["a", "a"] + matrix.loc["b", "b"]) / 2
    )
    unseen = [matrix.loc[row, column] for row in matrix.index for column in ("a", "b", "sd") if row != column]
    assert len(unseen) == 7
    assert means["cross-generator mean, trained on one generator"] == pytest.approx(sum(unseen) / 7)


def test_it_is_no_class_of_attribution_and_takes_part_in_the_control(only_trained: Store) -> None:
    runs = only_trained.runs().set_index("task")["trained_on"]
    assert runs["attribution"] == "a+b"
    whole = open_store("folders", tracking_uri=only_trained.tracking_uri).results()
    control = whole[whole["task"] == "shuffled_labels"]
    assert set(control["trained_on"]) == {"a+b+sd"}
    assert set(control["tested_on"]) == {"a", "b", "x"}


def test_no_row_of_the_report_is_missing_and_every_number_is_derived_again(only_trained: Store, tmp_path: Path) -> None:
    grid = ["--experiment=folders", f"--tracking-uri={only_trained.tracking_uri}"]
    assert main([*grid, f"--out={tmp_path / 'report'}", "--no-log"]) == 0
    matrix = pd.read_csv(tmp_path / "report/tables/matrix-residual_linear-accuracy.csv")
    assert (len(matrix), matrix["mean"].isna().sum()) == (3 * 4, 0)
    assert main(["export", str(tmp_path / "export"), *grid, f"--report={tmp_path / 'report'}"]) == 0
    checked = verify(tmp_path / "export")
    assert [str(difference) for difference in checked.differences] == []
    assert checked.counts["agree"] > 100


def test_commands_for_what_is_missing_train_on_the_same_sets(only_trained: Store) -> None:
    runs = only_trained.runs()
    (line,) = only_trained.validation_command(runs.loc[runs["task"] == "attribution", "run_id"]).splitlines()
    assert "--train-on" not in shlex.split(line)
    of_one = runs[(runs["task"] == "detection") & (runs["trained_on"] == "sd")]
    (line,) = only_trained.validation_command(of_one["run_id"]).splitlines()
    assert shlex.split(line)[-2:] == ["--train-on", "sd"]


def test_with_one_tested_generator_left_open_set_is_refused_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = {f"{split}/{g}/{c}": 4 for split in ("train", "val") for g in ("a", "b", "sd") for c in BOTH}
    root = write_folders(tmp_path / "y", folders | {f"test/a/{c}": 4 for c in BOTH}, SIDE, restart=False)
    words = ["folders", f"--data={root}", f"--runs={tmp_path}", "--local", "--methods=residual_linear", "--plan"]
    assert launch.main([*words, "--tasks=open_set"]) == 2
    said = " ".join(capsys.readouterr().out.split())
    assert "needs at least 3 generators to train on; the data have 1: a." in said
    assert "without test images, so only trained on, and no class of attribution and open_set: b, sd" in said
    assert launch.main(words) == 0
    assert "4 trials" in capsys.readouterr().out
