"""A grid's trials in the terminal: thousands of them take few lines, and the JSON has each."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from grid import names
from grid.commands.status import print_status
from grid.overview import Row, failures, list_of_seeds, print_rows, seeds_in_words, time_in_words
from grid.spec import TrialSpec
from tests.grid.grids import FACTS, make_spec, open_grid, paper_manifest, planted_result


def trials(number: int, data: str = "data") -> list[TrialSpec]:
    return [replace(make_spec(data), seed=seed) for seed in range(number)]


@pytest.mark.parametrize(
    ("seeds", "listed", "in_words"),
    [
        ([3], "3", "one seed (3)"),
        ([0, 1, 2], "0, 1, 2", "0, 1, 2"),
        ([*range(2000)], "0 to 1999 (2,000)", "0 to 1999 (2,000)"),
        ([*range(0, 24, 2)], ", ".join(map(str, range(0, 24, 2))), ", ".join(map(str, range(0, 24, 2)))),
    ],
)
def test_seeds(seeds: list[int], listed: str, in_words: str) -> None:
    assert (list_of_seeds(seeds), seeds_in_words(seeds)) == (listed, in_words)


@pytest.mark.parametrize(
    ("seconds", "whole", "one_decimal"),
    [
        (2.44, "2 s", "2.4 s"), (59.96, "1 min 00 s", "1 min 00 s"), (84.5, "1 min 24 s", "1 min 24 s"),
        (119.7, "2 min 00 s", "2 min 00 s"), (7_500, "2 h 05 min", "2 h 05 min"),
    ],
)  # fmt: skip
def test_times(seconds: float, whole: str, one_decimal: str) -> None:
    assert (time_in_words(seconds), time_in_words(seconds, decimals=1)) == (whole, one_decimal)


def test_trials_that_differ_in_their_seed_share_a_line() -> None:
    console = Console(file=io.StringIO(), width=120, record=True)
    print_rows([Row(trial, "pending") for trial in trials(500)], console)
    text = console.export_text()
    assert "0 to 499 (500)" in text
    assert len(text.splitlines()) < 12


def test_up_to_200_failed_trials_have_a_line_each() -> None:
    failed = [(trial, f"error {trial.seed}") for trial in trials(200)]
    lines = failures(failed)
    assert len(lines) == 200
    assert lines[7] == f"detection {failed[7][0].name}: error 7"


def test_of_more_each_error_has_a_line() -> None:
    failed = [(trial, f"error {trial.seed % 3}") for trial in trials(301)]
    first = failed[0][0].name
    assert failures(failed)[0] == f"101 trials, such as detection {first}: error 0"
    assert len(failures(failed)) == 3
    lines = failures([(trial, f"error {trial.seed}") for trial in trials(301)])
    assert len(lines) == 21
    assert lines[-1] == "281 other errors; --json has all"


def test_a_status_of_many_trials_is_short_and_its_json_whole(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = paper_manifest(tmp_path / "images")
    planned = trials(300, manifest.digest)
    tracker = open_grid(store, "dolos", manifest, planned, tmp_path / "artifacts")
    run = tracker.open_trial(planned[0], FACTS)
    (tmp_path / "checkpoint").mkdir()
    planted_result(planned[0], {"lama": 0.9, "ldm": 0.6}).finish(run, tmp_path / "checkpoint")
    console = Console(file=io.StringIO(), width=120, record=True)
    print_status("dolos", store, console)
    text = console.export_text()
    assert "1 finished, 299 pending of 300" in text
    assert len(text.splitlines()) < 15
    print_status("dolos", store, console, in_json=True)
    (grid,) = json.loads(capsys.readouterr().out)["grids"]
    assert len(grid["trials"]) == 300
    assert set(grid["trials"][0]["figures"]) <= {"own", "unseen"}
    assert names.metric_name("lama", "accuracy") not in grid["trials"][0]["figures"]
