"""What every registered metric promises."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from models.detector import DETECTION_CLASSES
from models.metrics import (
    AT_VALIDATION,
    Answers,
    Metric,
    get_metric,
    in_words,
    list_metrics,
    measure,
    metrics_for,
    register_metric,
    reported,
)

SEVERAL = ("real", "lama", "ldm")
NOT_SMOOTH = ("eer", "oracle_accuracy", "tpr_at_fpr_1", "tpr_at_fpr_5")  # they jump from one image to the next
ALL = [
    *((DETECTION_CLASSES, metric) for metric in metrics_for(DETECTION_CLASSES)),
    *((SEVERAL, metric) for metric in metrics_for(SEVERAL)),
]


def answers(classes: tuple[str, ...], num: int = 60, seed: int = 0) -> Answers:
    """Better than chance, with tied scores; the first images have every class."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(len(classes)), rng.integers(0, len(classes), num - len(classes))])
    if classes == DETECTION_CLASSES:
        return Answers.from_scores(labels, np.round(rng.normal(labels, 1.0), 1), threshold=0.4)
    return Answers.from_logits(labels, rng.normal(size=(num, len(classes))) + np.eye(len(classes))[labels], classes)


def repeated(given: Answers, counts: np.ndarray) -> Answers:
    """Each image as often as `counts` says."""
    index = np.repeat(np.arange(len(given.labels)), counts)
    scores = None if given.scores is None else given.scores[index]
    return Answers(given.labels[index], given.answered[index], given.classes, scores)


@pytest.fixture(params=ALL, ids=lambda case: f"{len(case[0])}-{case[1].name}")
def case(request: pytest.FixtureRequest) -> tuple[tuple[str, ...], Metric]:
    return request.param  # type: ignore[no-any-return]


# Every metric


def test_its_values_are_shares(case: tuple[tuple[str, ...], Metric]) -> None:
    classes, metric = case
    for seed in range(5):
        assert 0 <= metric.value(answers(classes, seed=seed)) <= 1


def test_right_answers_have_the_best_value(case: tuple[tuple[str, ...], Metric]) -> None:
    classes, metric = case
    labels = answers(classes).labels
    if classes == DETECTION_CLASSES:
        right = Answers.from_scores(labels, labels - 0.5)
        worst = metric.value(Answers.from_scores(labels, 0.5 - labels))
    else:
        right = Answers.from_logits(labels, np.eye(len(classes))[labels], classes)
        worst = metric.value(Answers.from_logits(labels, np.roll(np.eye(len(classes)), 1, axis=1)[labels], classes))
    best = metric.value(right)
    assert (worst < best) if metric.higher_is_better else (worst > best)


def test_a_weight_counts_an_image_more_than_once(case: tuple[tuple[str, ...], Metric]) -> None:
    classes, metric = case
    given, counts = answers(classes), np.random.default_rng(1).integers(0, 3, 60)
    counts[: len(classes)] = 1
    assert metric.value(given, counts) == pytest.approx(metric.value(repeated(given, counts)), abs=1e-12)


def test_influences_are_derivatives_of_its_value_by_the_weights(case: tuple[tuple[str, ...], Metric]) -> None:
    classes, metric = case
    if metric.influence is None or metric.name in NOT_SMOOTH:
        pytest.skip("it has no influence of its own, or is not smooth")
    given, step = answers(classes), 1e-5
    for image, influence in enumerate(metric.influences(given, np.arange(60))):
        change = step * (np.arange(60) == image)
        values = [metric.value(given, np.ones(60) + sign * change) for sign in (1, -1)]
        assert influence == pytest.approx((values[0] - values[1]) / (2 * step), abs=1e-7)


def test_leaving_out_a_source_moves_it_by_its_influence(case: tuple[tuple[str, ...], Metric]) -> None:
    classes, metric = case
    if metric.influence is None or metric.name in NOT_SMOOTH:
        pytest.skip("it has no influence of its own, or is not smooth")
    given, sources = answers(classes, num=400), np.arange(400) // 2
    found = np.bincount(sources, metric.influences(given, sources))
    left_out = dataclasses.replace(metric, influence=None).influences(given, sources)
    assert left_out[1::2].tolist() == [0.0] * 200  # a source's influence stands at its first image
    assert np.bincount(sources, left_out) == pytest.approx(found, abs=0.1 * np.abs(found).max())


@pytest.mark.parametrize(("distance", "correlation"), [(1.5, 0.0), (1.5, 0.8), (4.0, 0.8)])
def test_the_influences_on_the_equal_error_rate_have_the_spread_of_its_values(
    distance: float, correlation: float
) -> None:
    assert predicted_over_seen("eer", distance, correlation) == pytest.approx(1, abs=0.12)


@pytest.mark.parametrize("name", [name for name in NOT_SMOOTH if name != "eer"])
def test_intervals_of_a_rate_at_a_chosen_threshold_are_not_too_short(name: str) -> None:
    assert 0.95 < predicted_over_seen(name, 1.5, 0.5, num=150) < 1.35


def predicted_over_seen(name: str, distance: float, correlation: float, num: int = 300) -> float:
    """The standard error of a metric by its influences, over the spread of its values in so many test sets."""
    metric, rng = get_metric(name), np.random.default_rng(0)
    labels, photographs, values, predicted = np.repeat([0, 1], 400), np.tile(np.arange(400), 2), [], []
    for _ in range(num):
        shared = np.sqrt(correlation) * np.tile(rng.normal(size=400), 2)
        given = Answers.from_scores(
            labels, shared + np.sqrt(1 - correlation) * rng.normal(size=800) + distance * labels
        )
        values.append(metric.value(given))
        summed = np.bincount(photographs, metric.influences(given, photographs))
        predicted.append(np.square(summed).sum())
    return float(np.sqrt(np.mean(predicted)) / np.std(values))


def test_influences_sum_to_zero(case: tuple[tuple[str, ...], Metric]) -> None:
    classes, metric = case
    if metric.shares is None:
        assert metric.influences(answers(classes), np.arange(60)).sum() == pytest.approx(0, abs=1e-12)


def test_leaving_out_the_only_image_of_a_class_gives_no_influence() -> None:
    metric = dataclasses.replace(get_metric("auroc"), influence=None)
    given = Answers.from_scores(np.array([0, 1, 1]), np.array([0.0, 1.0, 2.0]))
    assert np.isnan(metric.influences(given, np.arange(3))).any()


def test_guesses_have_its_value_of_chance(case: tuple[tuple[str, ...], Metric]) -> None:
    classes, metric = case
    if metric.chance is None or classes != DETECTION_CLASSES:
        pytest.skip("it depends")
    rng = np.random.default_rng(3)
    for share_of_fakes in (0.5, 0.2) if metric.chance_is_fixed else (0.5,):
        labels = (np.arange(20_000) < 20_000 * share_of_fakes).astype(int)
        value = metric.value(Answers.from_scores(labels, rng.normal(size=20_000)))
        assert value == pytest.approx(metric.chance, abs=0.02)  # 5 standard errors of the smaller class


def test_it_says_what_it_is(case: tuple[tuple[str, ...], Metric]) -> None:
    _, metric = case
    assert metric.words
    assert get_metric(metric.name).words == metric.words
    assert get_metric(metric.name + AT_VALIDATION).words == metric.words
    if metric.ranks:
        assert metric.task == "binary"  # several classes have no scores to rank
        assert metric.position_at_validation is None


def test_shares_add_up_to_its_value(case: tuple[tuple[str, ...], Metric]) -> None:
    classes, metric = case
    if metric.shares is None:
        pytest.skip("no shares")
    given = answers(classes)
    right = given.answered == given.labels
    shares = metric.shares(given)
    assert metric.value(given) == pytest.approx(sum(weight * right[images].mean() for weight, images in shares))
    assert sum(weight for weight, _ in shares) == pytest.approx(1)


# Golden values, by hand


def test_tpr_at_a_low_fpr() -> None:
    """100 reals score 0 .. 99: at most 1 of them may be above, so the threshold is 98; at most 5: 94."""
    labels = np.repeat([0, 1], [100, 4])
    given = Answers.from_scores(labels, np.concatenate([np.arange(100.0), [94.0, 94.5, 98.0, 98.5]]))
    assert get_metric("tpr_at_fpr_1").value(given) == 1 / 4  # 98.5 alone: a fake on the threshold is called real
    assert get_metric("tpr_at_fpr_5").value(given) == 3 / 4


def test_tpr_where_reals_tie_at_the_threshold() -> None:
    """The two highest of 100 reals tie: calling both fake would be 2 %, so neither is called."""
    scores = np.concatenate([np.arange(98.0), [200.0, 200.0], [150.0, 200.0, 201.0]])
    given = Answers.from_scores(np.repeat([0, 1], [100, 3]), scores)
    assert get_metric("tpr_at_fpr_1").value(given) == pytest.approx(1 / 3)
    assert get_metric("tpr_at_fpr_5").value(given) == 1.0  # 5 of 100 may be above: the threshold is 94


def test_tpr_of_few_reals_lets_none_of_them_above() -> None:
    given = Answers.from_scores(np.array([0, 0, 0, 1, 1]), np.array([-1.0, 0.0, 5.0, 4.0, 6.0]))
    assert get_metric("tpr_at_fpr_1").value(given) == get_metric("tpr_at_fpr_5").value(given) == 0.5


@pytest.mark.parametrize(
    ("reals", "fakes", "best"),
    [
        ([0.0, 1.0], [2.0, 3.0], 1.0),  # any threshold from 1 to below 2
        ([0.0, 2.0], [2.0, 3.0], 0.75),  # one real and one fake tie at 2: above 0 or above 2, one of four is wrong
        ([1.0, 1.0, 1.0], [1.0], 0.75),  # all tie: everything is real
        ([1.0], [1.0, 1.0, 1.0], 0.75),  # all tie: everything is fake
        ([5.0, 6.0], [1.0, 2.0], 0.5),  # the wrong way round: no threshold turns it
    ],
)
def test_oracle_accuracy(reals: list[float], fakes: list[float], best: float) -> None:
    labels = np.repeat([0, 1], [len(reals), len(fakes)])
    assert get_metric("oracle_accuracy").value(Answers.from_scores(labels, np.array(reals + fakes))) == best


def test_the_oracle_is_named_so_and_ranks_nothing() -> None:
    metric = get_metric("oracle_accuracy")
    assert "oracle" in metric.words
    assert "hindsight" in metric.words
    assert metric.position is None  # so no report shows it among the metrics that methods are ranked by


# The register


def test_all_of_them_are_measured() -> None:
    assert measure(answers(SEVERAL)).keys() == {metric.name for metric in metrics_for(SEVERAL)}
    names = {metric.name for metric in metrics_for(DETECTION_CLASSES)}
    at_validation = {m.name + AT_VALIDATION for m in metrics_for(DETECTION_CLASSES) if not m.ranks}
    assert measure(answers(DETECTION_CLASSES)).keys() == names
    assert measure(answers(DETECTION_CLASSES), threshold=1.0).keys() == names | at_validation


def test_each_threshold_has_values_of_its_own() -> None:
    given = Answers.from_scores(np.array([0, 0, 1, 1]), np.array([-1.0, 2.0, 1.0, 3.0]))
    values = measure(given, threshold=2.5)
    assert (values["accuracy"], values["accuracy_valid_threshold"]) == (0.75, 0.75)
    assert (values["fake_accuracy"], values["fake_accuracy_valid_threshold"]) == (1.0, 0.5)
    assert (values["real_accuracy"], values["real_accuracy_valid_threshold"]) == (0.5, 1.0)


def test_which_a_report_shows_in_which_order() -> None:
    logged = ["eer", "accuracy_valid_threshold", "real_accuracy", "auroc", "accuracy", "something"]
    assert reported(logged) == ["accuracy", "auroc", "accuracy_valid_threshold", "eer"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("auroc", "AUROC"),
        ("accuracy", "accuracy at p = 0.5"),
        ("accuracy_valid_threshold", "accuracy at the threshold from validation"),
        ("eer", "equal error rate (lower is better)"),
        ("of_another_checkout", "of another checkout"),
    ],
)
def test_words_for_headings(name: str, words: str) -> None:
    assert in_words(name) == words


def test_one_that_is_not_there() -> None:
    with pytest.raises(KeyError, match=r"no metric named 'aurok' \(did you mean 'auroc'\?\); there are: accuracy, "):
        get_metric("aurok")


def test_a_metric_of_each_class() -> None:
    names = [metric.name for metric in metrics_for(SEVERAL)]
    assert {"accuracy/real", "accuracy/lama", "accuracy/ldm"} <= set(names)
    assert not {"real_accuracy", "fake_accuracy", "auroc"} & set(names)
    assert "accuracy/<class>" in list_metrics()
    given = Answers(np.array([0, 1, 1, 2]), np.array([0, 1, 2, 1]), SEVERAL)
    assert [get_metric(f"accuracy/{name}").value(given) for name in SEVERAL] == [1.0, 0.5, 0.0]


@pytest.mark.parametrize("name", ["bad name @(1)", "AUROC", "a/b", ""])
def test_a_name_that_mlflow_could_not_hold_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="a metric's name has small letters, digits and _"):
        register_metric(dataclasses.replace(get_metric("accuracy"), name=name))
