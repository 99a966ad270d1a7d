"""Generators that are only tested: rows of the matrix without a column, in every task, plan and table."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.corpora import write_folders
from tests.grid.command import Command
from tests.grid.grids import SIDE

pytestmark = pytest.mark.usefixtures("nothing_from_outside")

BOTH = ("0_real", "1_fake")
CHEAP = ("--methods", "residual_linear", "--local")


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three generators with training images, two that are only tested; read it only."""
    trained = {f"{split}/{g}/{c}": 8 for split in ("train", "val", "test") for g in "abc" for c in BOTH}
    tested = {f"test/{g}/{c}": 6 for g in ("x", "y") for c in BOTH}
    return write_folders(tmp_path_factory.mktemp("benchmark") / "x", trained | tested, SIDE, restart=False)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--tasks", "detection"), ["a", "b", "c"]),
        (("--tasks", "attribution"), ["a+b+c"]),
        (("--tasks", "open_set"), ["a+b", "a+c", "b+c"]),
        (("--tasks", "shuffled_labels"), ["a+b+c"]),
        (("--tasks", "detection", "--train-on", "all,all-but-one"), ["a+b", "a+b+c", "a+c", "b+c"]),
        (("--tasks", "detection", "--train-on", "all", "--equal-size"), ["a+b+c"]),
    ],
)
def test_no_training_set_has_them(
    command: Command, benchmark: Path, words: tuple[str, ...], expected: list[str]
) -> None:
    planned = command("folders", "--data", benchmark, *CHEAP, *words, "--plan", "--json")
    assert planned.status == 0
    assert sorted("+".join(trial["trained_on"]) for trial in planned.trials) == expected


def test_leave_one_out_leaves_out_those_that_are_trained_on(command: Command, benchmark: Path) -> None:
    planned = command("leave-one-out", "folders", "--data", benchmark, *CHEAP, "--plan", "--json")
    found = sorted("+".join(trial["trained_on"]) for trial in planned.trials)
    assert found == ["a", "a+b", "a+c", "b", "b+c", "c"]


def test_to_train_on_them_is_refused_and_the_plan_says_so(command: Command, benchmark: Path) -> None:
    arguments = ("folders", "--data", benchmark, *CHEAP)
    asked = command(*arguments, "--train-on", "x", "--plan")
    assert asked.status == 2
    assert "without training images, so only tested: x, y" in asked.text
    plan = command(*arguments, "--plan")
    assert "note: only tested, because they have no training images: x, y" in plan.text
    few = command(*arguments, "--generators", "a,b,x,y", "--tasks", "open_set", "--plan")
    assert few.status == 2
    assert "needs at least 3 generators to train on; the data have 2: a, b." in few.text


def test_without_any_generator_to_train_on_only_methods_without_fakes_run(command: Command, tmp_path: Path) -> None:
    folders = {f"{split}/x/0_real": 4 for split in ("train", "val", "test")}
    root = write_folders(tmp_path / "x", folders | {"test/x/1_fake": 3}, SIDE, restart=False)
    alone = command("folders", "--data", root, *CHEAP, "--tasks", "detection,attribution", "--plan")
    assert alone.status == 2
    assert "methods that need no fakes can run on such data: --methods real_only" in alone.text
    planned = command("folders", "--data", root, "--methods", "real_only", "--local", "--plan", "--json")
    assert [trial["trained_on"] for trial in planned.trials] == [[]]
