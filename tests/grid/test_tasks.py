"""The contract of every task, and both tasks by hand: a new file in `grid/tasks` is tested by being there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest

from grid.names import check_generators
from grid.spec import TrialSpec
from grid.tasks import (
    ATTRIBUTION,
    DETECTION,
    OPEN_SET,
    REAL,
    WHOLE,
    Task,
    cell_rows,
    class_names,
    generators_of,
    get_task,
    list_tasks,
    register_task,
)
from grid.tasks.attribution import Attribution
from grid.train_sets import TrainSet
from models.detector import DETECTION_CLASSES
from models.scoring import attribution_metrics, cell_metrics

GENERATORS = ("lama", "ldm", "repaint")


def rows_of(*rows: tuple[int, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["label", "generator"]).assign(source_id="only")


def table() -> pd.DataFrame:
    """Four shared reals, then three fakes of each generator, made of the first three of these."""
    rows = rows_of(*[(0, "real")] * 4, *[(1, name) for name in GENERATORS for _ in range(3)])
    return rows.assign(source_id=[*"0123", *"012" * len(GENERATORS)])


# Every task ----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=list_tasks())
def task(request: pytest.FixtureRequest) -> Task:
    return get_task(request.param, 0)


def test_the_two_tasks_of_the_publication_come_first() -> None:
    assert list_tasks()[:2] == [DETECTION, ATTRIBUTION]


def test_an_unknown_task_is_answered_with_those_that_exist() -> None:
    with pytest.raises(
        KeyError, match=r"no task named 'detect' \(did you mean 'detection'\?\); there are: .*detection"
    ):
        get_task("detect")


def test_its_name_and_heading_are_words(task: Task) -> None:
    assert type(get_task(task.name)) is type(task)
    check_generators([task.name])  # what MLflow takes in the name of a metric, it takes in a tag
    assert task.heading == task.heading.strip() != ""


def test_real_is_the_first_of_its_classes_and_each_is_there_once(task: Task) -> None:
    for train in task.train_sets(None, GENERATORS):
        classes = task.classes(train)
        assert classes[0] == REAL
        assert len(set(classes)) == len(classes) >= 2


def test_two_classes_named_real_and_fake_are_what_binary_means(task: Task) -> None:
    (train, *_) = task.train_sets(None, GENERATORS)
    assert task.is_binary == (task.classes(train) == DETECTION_CLASSES)


def test_its_own_training_sets_are_words_of_the_command_line_and_have_specs(task: Task) -> None:
    train_sets = task.train_sets(None, GENERATORS)
    assert train_sets == task.train_sets(task.train_on, GENERATORS)
    assert len(set(train_sets)) == len(train_sets) > 0
    for train in train_sets:
        spec = TrialSpec(task.name, "m", (), train.generators, 0, "d")
        assert spec.classes == task.classes(train)
        assert spec.name == f"m/{task.trial_name(train)}/seed0"


def test_without_fakes_a_spec_exists_exactly_where_the_task_can_do_without(task: Task) -> None:
    if task.needs_fakes:
        with pytest.raises(ValueError, match=f"{task.name} needs at least one generator to train on"):
            TrialSpec(task.name, "m", (), (), 0, "d")
    else:
        assert TrialSpec(task.name, "m", (), (), 0, "d").train_set == TrainSet(())


def test_the_classes_of_rows_are_numbers_of_its_classes_or_minus_one(task: Task) -> None:
    rows = pd.concat([table(), rows_of((0, "lama"), (1, "glide"))], ignore_index=True)
    for train in task.train_sets(None, GENERATORS):
        classes = task.classes(train)
        numbers = task.class_numbers(rows, classes)
        assert numbers.dtype == np.int64
        assert numbers.shape == (len(rows),)
        assert set(numbers.tolist()) <= {-1, *range(len(classes))}
        if not task.is_control:
            assert (numbers[rows["label"] == 0] == 0).all()
            assert (numbers[rows["label"] == 1] != 0).all()


def test_only_the_labels_of_a_control_follow_from_the_seed(task: Task) -> None:
    rows = table()
    for train in task.train_sets(None, GENERATORS):
        classes = task.classes(train)
        of_seeds = {tuple(get_task(task.name, seed).class_numbers(rows, classes)) for seed in range(8)}
        assert (len(of_seeds) > 1) == task.is_control
        shuffled = rows.sample(frac=1, random_state=0)
        again = pd.Series(task.class_numbers(shuffled, classes), index=shuffled.index)
        np.testing.assert_array_equal(again.sort_index(), task.class_numbers(rows, classes))


def test_every_row_that_has_a_class_is_in_a_cell_and_a_cell_has_every_class(task: Task) -> None:
    rows = table()
    for train in task.train_sets(None, GENERATORS):
        classes = task.classes(train)
        numbers, cells = task.class_numbers(rows, classes), task.cells(rows, classes)
        assert {cell.dtype for cell in cells.values()} == {np.dtype(bool)}
        in_some = np.logical_or.reduce(list(cells.values()))
        assert in_some[numbers >= 0].all()
        for cell in cells.values():
            assert set(numbers[cell].tolist()) - {-1} == set(range(len(classes)))


def test_its_cells_have_names_that_mlflow_takes(task: Task) -> None:
    (train, *_) = task.train_sets(None, GENERATORS)
    check_generators(task.cells(table(), task.classes(train)))


def test_right_answers_are_measured_in_every_cell(task: Task) -> None:
    rows = table()
    for train in task.train_sets(None, GENERATORS):
        classes = task.classes(train)
        logits = np.zeros((len(rows), len(classes)))
        numbers = task.class_numbers(rows, classes)
        known = numbers >= 0
        logits[np.flatnonzero(known), numbers[known]] = 2
        measured = task.measure(rows, logits, classes, 0.5 if task.is_binary else None)
        assert list(measured) == list(task.cells(rows, classes))
        for values in measured.values():
            assert values.get("accuracy", 1.0) == 1.0
            assert all(0 <= value <= 1 for value in values.values())


def test_a_trial_in_words_is_one_line(task: Task) -> None:
    for train in task.train_sets(None, GENERATORS):
        label = task.label(train, GENERATORS)
        assert label == label.strip() != ""
        assert "\n" not in label


# What tasks share ----------------------------------------------------------------------------------------------------


def test_a_rows_class_by_who_made_it() -> None:
    rows = rows_of((0, "real"), (0, "glide"), (1, "glide"), (1, "lama"))
    assert class_names(rows).tolist() == ["real", "real", "glide", "lama"]


def test_a_cell_holds_the_shared_reals_and_one_generators_fakes() -> None:
    rows = rows_of((0, "real"), (1, "lama"), (0, "real"), (1, "ldm"))
    assert cell_rows(rows, "lama").tolist() == [True, True, True, False]
    assert cell_rows(rows, "ldm").tolist() == [True, False, True, True]


def test_reals_that_came_with_a_generator_are_in_its_cell_alone() -> None:
    rows = rows_of((0, "progan"), (0, "glide"), (1, "progan"), (1, "glide"), (0, "real"))
    assert cell_rows(rows, "progan").tolist() == [True, False, True, False, True]
    assert cell_rows(rows, "glide").tolist() == [False, True, False, True, True]


def test_generators_are_named_in_the_order_of_their_fakes() -> None:
    assert generators_of(rows_of((0, "b"), (1, "c"), (1, "a"), (0, "d"), (1, "c"))) == ["c", "a"]
    assert generators_of(rows_of((0, "real"))) == []


# Detection -----------------------------------------------------------------------------------------------------------


def test_detection_by_hand() -> None:
    task = get_task(DETECTION)
    classes = task.classes(TrainSet(("lama",)))
    assert classes == ("real", "fake")
    rows = rows_of((0, "real"), (0, "real"), (1, "lama"), (1, "ldm"), (0, "ldm"))
    assert task.class_numbers(rows, classes).tolist() == [0, 0, 1, 1, 0]
    assert {name: cell.tolist() for name, cell in task.cells(rows, classes).items()} == {
        "lama": [True, True, True, False, False],
        "ldm": [True, True, False, True, True],
    }
    logits = np.array([[1, 0], [-1, 0], [0, 2], [2, 0], [3, 0]], dtype=float)  # log-odds of fake: -1, 1, 2, -2, -3
    measured = task.measure(rows, logits, classes, 1.5)
    assert measured["lama"]["accuracy"] == 2 / 3
    assert measured["ldm"]["accuracy"] == 2 / 4
    assert measured["lama"]["accuracy_valid_threshold"] == 1.0
    assert measured["ldm"]["accuracy_valid_threshold"] == 3 / 4
    assert measured["lama"]["auroc"] == 1.0
    assert measured["ldm"]["auroc"] == pytest.approx(1 / 3, abs=1e-15)  # of three reals, one scores below the fake
    assert measured["lama"] == cell_metrics(np.array([0, 0, 1]), np.array([-1.0, 1.0, 2.0]), 1.5)
    assert measured["ldm"] == cell_metrics(np.array([0, 0, 1, 0]), np.array([-1.0, 1.0, -2.0, -3.0]), 1.5)


def test_reals_that_came_with_one_generator_count_in_its_cell_alone() -> None:
    task = get_task(DETECTION)
    rows = rows_of((0, "progan"), (0, "glide"), (1, "progan"), (1, "glide"))
    scores = np.array([-1.0, 1.0, 2.0, 3.0])
    measured = task.measure(rows, np.stack([np.zeros(4), scores], axis=1), DETECTION_CLASSES, 0.0)
    assert measured["progan"]["real_accuracy"] == 1.0
    assert measured["glide"]["real_accuracy"] == 0.0


def test_a_cell_without_reals_is_refused() -> None:
    with pytest.raises(ValueError, match="no real image"):
        get_task(DETECTION).measure(rows_of((0, "lama"), (1, "lama"), (1, "ldm")), np.eye(3, 2), DETECTION_CLASSES, 0.0)


def test_detection_is_trained_on_each_generator_unless_somebody_asks_for_other_sets() -> None:
    task = get_task(DETECTION)
    assert task.train_sets(None, GENERATORS) == [TrainSet((name,)) for name in GENERATORS]
    assert task.train_sets("all-but-one", GENERATORS)[0] == TrainSet(("ldm", "repaint"))
    assert task.train_sets("none", GENERATORS) == [TrainSet(())]


def test_a_text_without_a_word_is_refused_and_not_taken_for_the_tasks_own() -> None:
    with pytest.raises(ValueError, match="no generator named ''"):
        get_task(DETECTION).train_sets("", GENERATORS)


def test_a_trial_of_detection_in_words() -> None:
    task = get_task(DETECTION)
    assert task.label(TrainSet(("lama",)), GENERATORS) == "trained on lama"
    assert task.label(TrainSet(("lama", "ldm")), GENERATORS) == "trained on all but repaint"
    assert task.label(TrainSet(()), GENERATORS) == "trained on no generator"
    assert task.trial_name(TrainSet(("ldm", "lama"))) == "lama+ldm"


# Attribution ---------------------------------------------------------------------------------------------------------


def test_attribution_by_hand() -> None:
    task = get_task(ATTRIBUTION)
    classes = task.classes(TrainSet(("ldm", "lama")))
    assert classes == ("real", "lama", "ldm")
    rows = rows_of((0, "real"), (1, "lama"), (1, "ldm"), (0, "ldm"), (1, "lama"))
    assert task.class_numbers(rows, classes).tolist() == [0, 1, 2, 0, 1]
    logits = np.eye(3)[[0, 1, 1, 2, 1]]
    measured = task.measure(rows, logits, classes)
    assert list(measured) == [WHOLE]
    assert measured[WHOLE]["accuracy"] == 3 / 5
    assert measured[WHOLE]["accuracy/real"] == 1 / 2
    assert measured[WHOLE]["accuracy/lama"] == 1.0
    assert measured[WHOLE]["accuracy/ldm"] == 0.0
    assert measured[WHOLE]["balanced_accuracy"] == 0.5
    assert measured[WHOLE] == attribution_metrics(np.array([0, 1, 2, 0, 1]), logits, classes)


def test_a_generator_that_is_no_class_is_left_out_without_an_exception() -> None:
    task = get_task(ATTRIBUTION)
    classes = ("real", "lama")
    rows = rows_of((0, "real"), (1, "glide"), (1, "lama"), (0, "glide"))
    assert task.class_numbers(rows, classes).tolist() == [0, -1, 1, 0]
    assert task.cells(rows, classes)[WHOLE].tolist() == [True, False, True, True]
    logits = np.array([[1, 0], [9, 9], [0, 1], [0, 1]], dtype=float)
    measured = task.measure(rows, logits, classes)[WHOLE]
    assert measured["accuracy"] == 2 / 3
    assert measured == attribution_metrics(np.array([0, 1, 0]), logits[[0, 2, 3]], classes)


def test_attribution_is_trained_on_all_generators_whatever_somebody_asks_for() -> None:
    task = get_task(ATTRIBUTION)
    for train_on in (None, "each", "lama", "none"):
        assert task.train_sets(train_on, GENERATORS) == [TrainSet(GENERATORS)]


def test_a_trial_of_attribution_in_words() -> None:
    task = get_task(ATTRIBUTION)
    assert task.label(TrainSet(GENERATORS), GENERATORS) == task.trial_name(TrainSet(GENERATORS)) == "attribution"


# Open set ------------------------------------------------------------------------------------------------------------


def test_open_set_by_hand() -> None:
    task = get_task(OPEN_SET)
    classes = task.classes(TrainSet(("ldm", "lama")))
    assert classes == ("real", "lama", "ldm")
    rows = rows_of((0, "real"), (1, "lama"), (1, "ldm"), (1, "repaint"), (1, "repaint"), (0, "repaint"), (0, "lama"))
    assert task.class_numbers(rows, classes).tolist() == [0, 1, 2, -1, -1, 0, 0]
    cells = task.cells(rows, classes)
    # a real image that came with the left-out generator is in no cell: nothing like it was trained on
    assert {name: cell.tolist() for name, cell in cells.items()} == {"repaint": [True] * 5 + [False, True]}
    logits = np.array([[4, 0, 0], [0, 2, 0], [0, 5, 3], [1, 0, 0], [0, 0, 3], [9, 0, 0], [6, 0, 0]], dtype=float)
    (measured,) = task.measure(rows, logits, classes).values()
    assert measured["accuracy"] == 3 / 4
    assert (measured["lands_on/real"], measured["lands_on/ldm"]) == (1 / 2, 1 / 2)
    # by certainty the known images have the places 1, 2, 4, 5 and the unknown ones 3 and 6, unless they are surer
    assert measured["unknown_auroc/softmax"] == 6 / 8
    assert {name for name in measured if name.startswith("oscr")} == {"oscr/softmax", "oscr/energy"}
    stored = rows.assign(unknown_knn=[0.1, 0.2, 0.3, 0.4, 0.5, 9.0, 0.6])
    assert task.measure(stored, logits, classes)["repaint"]["unknown_auroc/knn"] == 6 / 8
    assert task.measure(stored, logits, classes)["repaint"]["oscr/knn"] == 4 / 8


def test_open_set_leaves_each_generator_out_in_turn_or_those_that_are_asked_for() -> None:
    task = get_task(OPEN_SET)
    everything = [TrainSet(pair) for pair in (("ldm", "repaint"), ("lama", "repaint"), ("lama", "ldm"))]
    for train_on in (None, "each", "all", "none"):
        assert task.train_sets(train_on, GENERATORS) == everything
    assert task.train_sets("all-but-ldm", GENERATORS) == [TrainSet(("lama", "repaint"))]
    assert task.train_sets("each,lama+ldm", GENERATORS) == [TrainSet(("lama", "ldm"))]


def test_open_set_with_two_generators_is_refused_with_what_to_do() -> None:
    with pytest.raises(
        ValueError, match=r"needs at least 3 generators to train on; the data have 2: lama, ldm\. Leave"
    ):
        get_task(OPEN_SET).train_sets(None, ("lama", "ldm"))


def test_a_trial_of_the_open_set_in_words() -> None:
    task = get_task(OPEN_SET)
    assert task.label(TrainSet(("lama", "ldm")), GENERATORS) == "open_set, trained on all but repaint"
    assert task.trial_name(TrainSet(("ldm", "lama"))) == "open_set-lama+ldm"


# A task of somebody's own --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def family() -> type[Task]:
    """A third task, which stays registered: was the picture made by a diffusion model?"""

    @register_task
    class Family(Attribution):
        name = "toy_family"
        heading = "accuracy over families of generators"
        families: ClassVar[dict[str, str]] = {"lama": "feed-forward", "ldm": "diffusion", "repaint": "diffusion"}

        def classes(self, train: TrainSet) -> tuple[str, ...]:
            return (REAL, *sorted({self.families[name] for name in train.generators}))

        def class_numbers(self, rows: pd.DataFrame, classes: Sequence[str]) -> np.ndarray:
            number = {name: position for position, name in enumerate(classes)}
            families = [self.families.get(name, name) for name in class_names(rows)]
            return np.array([number.get(name, -1) for name in families], dtype=np.int64)

    return Family


def test_a_task_is_added_by_registering_it(family: type[Task]) -> None:
    assert list_tasks()[:2] == [DETECTION, ATTRIBUTION]
    assert "toy_family" in list_tasks()
    spec = TrialSpec("toy_family", "m", (), GENERATORS, 0, "d")
    assert spec.classes == ("real", "diffusion", "feed-forward")
    task = get_task(spec.task)
    rows = rows_of((0, "real"), (1, "lama"), (1, "ldm"), (1, "repaint"), (1, "glide"))
    assert task.class_numbers(rows, spec.classes).tolist() == [0, 2, 1, 1, -1]
    logits = np.eye(3)[[0, 2, 1, 2, 0]]
    assert task.measure(rows, logits, spec.classes)[WHOLE]["accuracy/diffusion"] == 0.5
    with pytest.raises(ValueError, match="a task named 'toy_family' is registered already"):
        register_task(family)


def test_detection_and_attribution_test_every_image_that_has_a_class() -> None:
    rows = table()
    for name in (DETECTION, ATTRIBUTION):
        task = get_task(name)
        for train in task.train_sets(None, GENERATORS):
            classes = task.classes(train)
            in_some = np.logical_or.reduce(list(task.cells(rows, classes).values()))
            np.testing.assert_array_equal(in_some, task.class_numbers(rows, classes) >= 0)
