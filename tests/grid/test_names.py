"""Names in MLflow: written and read by the same contract."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid import names

WORDS = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
CONDITIONS = st.one_of(st.just("clean"), st.from_regex(r"[a-z][a-z0-9]{0,6}(-[a-z0-9]{1,4}){0,2}", fullmatch=True))


def test_names_of_metrics_by_hand() -> None:
    assert names.metric_name("lama", "accuracy") == "test/lama/accuracy"
    assert names.metric_name("all", "accuracy/lama") == "test/all/accuracy/lama"
    assert names.metric_name("lama", "auroc", "jpeg-75") == "test.jpeg-75/lama/auroc"
    assert names.parse_metric("test/lama/accuracy") == ("clean", "lama", "accuracy")
    assert names.parse_metric("test/all/accuracy/lama") == ("clean", "all", "accuracy/lama")
    assert names.parse_metric("test.jpeg-75/sd v1.5/auroc") == ("jpeg-75", "sd v1.5", "auroc")


@given(WORDS, WORDS, CONDITIONS)
def test_a_metrics_name_is_read_as_it_was_written(tested_on: str, metric: str, condition: str) -> None:
    assert names.parse_metric(names.metric_name(tested_on, metric, condition)) == (condition, tested_on, metric)


@pytest.mark.parametrize(
    "name", ["train/loss", "valid/threshold", "time/seconds", "test", "test/lama", "test./lama/auroc", "tests/a/b", ""]
)
def test_other_names_are_no_test_metrics(name: str) -> None:
    assert names.parse_metric(name) is None


def test_artifacts_of_clean_pictures_lie_where_they_always_did() -> None:
    assert names.condition_artifact("clean", names.SCORES) == "scores.parquet"
    assert names.condition_artifact("jpeg-75", names.SCORES) == "conditions/jpeg-75/scores.parquet"


@pytest.mark.parametrize("name", ["sd (v1.5)", "a+b", "a,b", "dall·e", "a/b", "", ".", ".."])
def test_generators_that_mlflow_could_not_hold_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="rename these generators' folders") as caught:
        names.check_generators(["lama", name])
    assert repr(name) in str(caught.value)
    assert "lama" not in str(caught.value)


def test_generators_that_it_holds_pass() -> None:
    names.check_generators(["lama", "sd v1.5", "repaint-p2-9k", "a_b:c"])
