"""Training sets of equal size: the numbers, the images, the keys."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.manifest import Manifest
from grid import names
from grid.equal_size import EqualSize, check, choose, largest
from grid.plan import TRAIN, VALID
from grid.spec import TrialSpec
from grid.tasks import ATTRIBUTION, DETECTION
from grid.train_sets import TrainSet, parse_train_sets
from grid.trial import training_rows
from tests.grid.conftest import Command
from tests.grid.grids import make_spec, table_of
from tests.grid.test_launch import mlflow_runs

THREE = ("lama", "ldm", "repaint")
EACH_AND_REST = "each,all-but-one"


def manifest(counts: dict[str, int], *, valid: int = 8, own_reals: bool = False) -> Manifest:
    """Training images per class as given; `valid` of each in validation, and as many in the test."""
    generators = [name for name in counts if name != "real"]
    table = table_of(generators, max(*counts.values(), valid))
    number = table["source_id"].str.extract(r"(\d+)$")[0].astype(int)
    most = np.where(table["split"] == "train", table["generator"].map(counts), valid)
    table = table[number < most]
    if own_reals:  # each generator has real images of its own, as in plain folders
        real, fakes = table[table["label"] == 0], table[table["label"] == 1]
        copies = [
            real.assign(generator=name, digest=name + "-" + real["digest"], source_id=name + "-" + real["source_id"])
            for name in generators
        ]
        fakes = fakes.assign(source_id=fakes["generator"] + "-" + fakes["source_id"])
        table = pd.concat([*copies, fakes])
    return Manifest(Path("/nowhere"), "dolos", table.reset_index(drop=True))


def sets(text: str, generators: tuple[str, ...] = THREE) -> list[TrainSet]:
    return parse_train_sets(text, generators)


def counted(rows: pd.DataFrame) -> dict[str, int]:
    """Images per generator of the fakes, and "real" of all real images."""
    return dict(Counter(rows["generator"].where(rows["label"] == 1, "real")))


def spec_of(data: Manifest, train: TrainSet, size: EqualSize, task: str = DETECTION) -> TrialSpec:
    return dataclasses.replace(make_spec(data.digest, task=task, train=train.generators), equal_size=size)


# Numbers -------------------------------------------------------------------------------------------------------------


def test_the_smallest_set_decides_and_its_number_can_be_split_evenly() -> None:
    data = manifest({"real": 30, "lama": 25, "ldm": 30, "repaint": 30}, valid=9)
    assert largest(data, DETECTION, sets("each")) == EqualSize(25, 9)
    assert largest(data, DETECTION, sets(EACH_AND_REST)) == EqualSize(24, 8)  # 24 = 24 x 1 = 12 x 2
    assert largest(data, DETECTION, sets("each,all")) == EqualSize(24, 9)
    assert largest(data, DETECTION, sets("ldm,repaint")) == EqualSize(30, 9)
    assert largest(data, DETECTION, sets("all")) == EqualSize(30, 9)  # 10 of each, and 30 real images


def test_real_images_count_too() -> None:
    data = manifest({"real": 10, "lama": 30, "ldm": 30, "repaint": 30})
    assert largest(data, DETECTION, sets("each")).train == 10
    assert largest(data, DETECTION, [TrainSet(())]).train == 10


def test_attribution_gets_as_many_of_each_class_as_the_smallest_has() -> None:
    data = manifest({"real": 90, "lama": 25, "ldm": 30, "repaint": 30}, valid=8)
    assert largest(data, ATTRIBUTION, sets("all")) == EqualSize(25, 8)


@pytest.mark.parametrize("own_reals", [False, True], ids=["shared reals", "own reals"])
@pytest.mark.parametrize("split", [TRAIN, VALID])
def test_every_set_has_the_same_number_in_equal_parts(split: str, *, own_reals: bool) -> None:
    data = manifest({"real": 13, "lama": 13, "ldm": 20, "repaint": 20}, own_reals=own_reals)
    train_sets = sets("each,all-but-one,all")
    size = largest(data, DETECTION, train_sets)
    assert size == EqualSize(12, 6)
    for train in train_sets:
        rows = training_rows(spec_of(data, train, size), data, split)
        each = size.of(split) // len(train)
        assert counted(rows) == {"real": size.of(split), **dict.fromkeys(train.generators, each)}
        if own_reals:
            assert set(Counter(rows.loc[rows["label"] == 0, "generator"]).values()) == {each}
        fakes, reals = (set(rows.loc[rows["label"] == label, "source_id"]) for label in (1, 0))
        assert fakes == reals  # pairs stay together
        assert len(fakes) == size.of(split)  # as many photographs, however many generators


def test_attribution_keeps_whole_photographs() -> None:
    data = manifest({"real": 20, "lama": 9, "ldm": 20, "repaint": 20})
    (train,) = sets("all")
    rows = training_rows(spec_of(data, train, EqualSize(9, 8), ATTRIBUTION), data, TRAIN)
    assert counted(rows) == dict.fromkeys(("real", *THREE), 9)
    assert set(rows.groupby("source_id").size()) == {4}


@given(st.permutations(range(40)), st.integers(1, 6))
def test_the_choice_is_of_content_and_not_of_order(order: list[int], num_each: int) -> None:
    rows = manifest({"real": 13, "lama": 9, "ldm": 18}).select(TRAIN, ("lama", "ldm"))
    moved = rows.iloc[[place for place in order if place < len(rows)]]
    numbers, moved_numbers = (part["label"].to_numpy("int64") for part in (rows, moved))
    chosen = choose(rows, numbers, 2 * num_each)
    assert set(chosen["path"]) == set(choose(moved, moved_numbers, 2 * num_each)["path"])
    assert set(chosen["path"]) <= set(rows["path"])
    assert counted(chosen) == {"real": 2 * num_each, "lama": num_each, "ldm": num_each}


def test_without_pairs_the_numbers_are_the_same() -> None:
    rows = manifest({"real": 12, "lama": 12, "ldm": 12}).select(TRAIN, ("lama", "ldm"))
    rows = rows.assign(source_id=rows["generator"] + rows["source_id"])
    assert counted(choose(rows, rows["label"].to_numpy("int64"), 8)) == {"real": 8, "lama": 4, "ldm": 4}


# Refused -------------------------------------------------------------------------------------------------------------


def test_a_generator_that_is_too_small_is_named_with_its_number() -> None:
    data = manifest({"real": 20, "lama": 1, "ldm": 20, "repaint": 20})
    with pytest.raises(ValueError, match=r"lama has 1 train images of class fake, which is too few .*\(2 images"):
        largest(data, DETECTION, sets(EACH_AND_REST))


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (EqualSize(26, 8), "lama has 25 train images of class fake, and lama needs 26 of it"),
        (EqualSize(24, 10), "8 valid images of class .*, and .* needs 10 of it"),
        (EqualSize(7, 8), "7 train images of class fake cannot be split evenly over the 2 generators of"),
    ],
)
def test_numbers_that_no_set_can_have_are_refused(size: EqualSize, message: str) -> None:
    data = manifest({"real": 30, "lama": 25, "ldm": 30, "repaint": 30}, valid=8)
    with pytest.raises(ValueError, match=message):
        check(data, DETECTION, sets(EACH_AND_REST), size)


@pytest.mark.parametrize("text", ["", "24", "24,", "a,b", "0,8", "24,-8", "24,8,8", "dolos"])
def test_text_that_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"TRAIN,VALID, such as 24,8; got {re.escape(repr(text))}"):
        EqualSize.parse(text)


def test_its_text_can_be_read_back() -> None:
    assert EqualSize.parse(str(EqualSize(24, 8))) == EqualSize(24, 8)


# Keys ----------------------------------------------------------------------------------------------------------------


def test_without_it_a_spec_has_no_such_field() -> None:
    spec = make_spec("0123456789abcdef")
    assert "equal_size" not in spec.to_dict()
    assert "equal_size" not in spec.params()


def test_with_it_the_key_says_what_was_trained_on() -> None:
    spec = make_spec("0123456789abcdef")
    sized = dataclasses.replace(spec, equal_size=EqualSize(24, 8))
    assert sized.to_dict()["equal_size"] == {"train": 24, "valid": 8}
    assert sized.params()["equal_size"] == "24,8"
    assert "24 of each class" in sized.name
    assert TrialSpec.from_dict(sized.to_dict()) == sized
    assert len({spec.key, sized.key, dataclasses.replace(spec, equal_size=EqualSize(24, 9)).key}) == 3


# Launched ------------------------------------------------------------------------------------------------------------


def test_leave_one_out_trains_on_each_and_on_all_but_one(command: Command, runs: Path, tmp_path: Path) -> None:
    from tests.grid.grids import write_obvious

    root = write_obvious(tmp_path / "dolos", THREE)
    arguments = ("leave-one-out", "dolos", "--data", root, "--local", "--methods", "residual_linear")
    outcome = command(*arguments)
    assert outcome.status == 0
    found = {run.data.tags[names.TRAIN_GENERATORS]: run for run in mlflow_runs(runs, "trial")}
    assert set(found) == {*THREE, "lama+ldm", "lama+repaint", "ldm+repaint"}
    assert {run.data.tags[names.EQUAL_SIZE] for run in found.values()} == {"8,6"}
    heading = outcome.printed[outcome.printed.index("residual_linear [") :]
    for label in (*THREE, "all but lama", "all but ldm", "all but repaint"):
        assert label in " ".join(heading.split())
    assert "8 images of each class in training and 6 in validation" in outcome.text
    assert "does not depend on the seed" in outcome.text
    again = command(*arguments, "--plan")
    assert "6 trials, 6 finished before, 0 to run" in again.text
    assert "residual_linear" in again.text.partition("once, with one seed")[2]
    whole = command(*arguments, "--all-images", "--plan")
    assert "6 trials, 0 finished before, 6 to run" in whole.text
    asked = command(
        "dolos", "--data", root, "--methods", "residual_linear", "--equal-size", "8,6", "--tasks=detection", "--plan"
    )
    assert "3 trials, 3 finished before, 0 to run" in asked.text


def test_a_size_that_cannot_be_is_refused_before_training(dolos: Command) -> None:
    outcome = dolos("--methods", "residual_linear", "--equal-size", "9,6")
    assert outcome.status == 2
    assert "has 8 train images of class" in outcome.text
    assert dolos("--equal-size", "nine").status == 2
