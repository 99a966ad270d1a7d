"""Trials that learn from self-edited photographs: what is edited, what is kept, and what a run has of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.pictures import File
from data.self_edited import SelfEdited
from grid import names
from grid.plan import Inputs, Work, distinct_inputs
from grid.trial import build, examples, fill_inputs, missing_inputs, recipes
from grid.validation import validate
from tests.grid.command import Command, mlflow_runs
from tests.grid.fitting import Bench, with_cache

SMALL: dict[str, dict[str, Any]] = {
    "self_edited_linear": {"edits": 2},
    "self_edited_windows": {"edits": 2, "whole_edits": 2, "epochs": 1, "hidden": 4},
}
METHODS = sorted(SMALL)


def spec_of(bench: Bench, method: str, **overrides: Any) -> Any:
    return bench.spec(method, train=(), **{**SMALL.get(method, {}), **overrides})


@pytest.mark.parametrize("method", [*METHODS, "real_only"])
def test_a_trial_sees_no_fake_and_edits_no_test_photograph(
    bench: Bench, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = with_cache(bench, tmp_path)
    edited, read = set[str](), set[str]()
    edit, decode = SelfEdited.edit, File.pixels

    def watched(self: SelfEdited, pixels: np.ndarray, version: Any) -> np.ndarray:
        edited.add(version.image.digest)
        return edit(self, pixels, version)

    def opened(self: File) -> np.ndarray:
        read.add(self.digest)
        return decode(self)

    monkeypatch.setattr(SelfEdited, "edit", watched)
    monkeypatch.setattr(File, "pixels", opened)
    spec = spec_of(bench, method)
    detector = build(spec, bench.settings, "cpu")
    if method == "real_only":
        assert recipes(spec) == ()
    for split in ("train", "valid"):
        given = examples(spec, detector, bench.manifest, bench.settings, split)
        given.inputs[np.arange(len(given.inputs))]
        assert given.labels.sum() * 2 == (0 if method == "real_only" else len(given.labels))
    table = bench.manifest.table
    of = {
        split: set(table.loc[(table["split"] == split) & (table["label"] == 0), "digest"])
        for split in set(table["split"])
    }
    assert edited == (set() if method == "real_only" else of["train"] | of["valid"])
    if method == "self_edited_windows":  # pictures are read where they are used, and nowhere else
        assert read == of["train"] | of["valid"]


@pytest.mark.parametrize("method", METHODS)
def test_other_seeds_make_other_edits(bench: Bench, method: str) -> None:
    def inputs(seed: int) -> Any:
        spec = spec_of(bench, method, seed=seed)
        given = examples(spec, build(spec, bench.settings, "cpu"), bench.manifest, bench.settings, "train")
        return given.inputs[np.flatnonzero(given.labels)[:4]]

    first, again, other = inputs(0), inputs(0), inputs(1)
    assert all(np.array_equal(one, two) for one, two in zip(first, again, strict=True))
    assert not all(np.array_equal(one, two) for one, two in zip(first, other, strict=True))


def test_features_of_edits_are_prepared_once(bench: Bench, tmp_path: Path) -> None:
    bench = with_cache(bench, tmp_path)
    spec = spec_of(bench, "self_edited_linear")
    (inputs,) = (one for one in distinct_inputs([Work(spec)], recipes) if one.recipe)
    assert inputs.name == "self_edited_linear, self-edited blobs"
    detector = build(spec, bench.settings, "cpu")
    reals = len(bench.manifest.select("train", ())) + len(bench.manifest.select("valid", ()))
    assert missing_inputs(detector, bench.manifest, bench.settings, inputs) == 3 * reals  # as it is, and 2 edits
    fill_inputs(detector, bench.manifest, bench.settings, inputs)
    assert missing_inputs(detector, bench.manifest, bench.settings, inputs) == 0
    other = spec_of(bench, "self_edited_linear", l2=0.5)  # another trial of the same pictures
    (shared,) = (one for one in distinct_inputs([Work(other)], recipes) if one.recipe)
    assert missing_inputs(detector, bench.manifest, bench.settings, shared) == 0
    assert (
        len(
            [
                one
                for one in distinct_inputs(
                    [Work(spec_of(bench, "self_edited_linear", seed=seed)) for seed in (0, 1)], recipes
                )
                if one.recipe
            ]
        )
        == 2
    )
    assert not [one for one in distinct_inputs([Work(bench.spec())], recipes) if one.recipe]


def test_pictures_of_native_size_are_not_stored(bench: Bench) -> None:
    spec = spec_of(bench, "self_edited_windows")
    assert missing_inputs(build(spec, bench.settings, "cpu"), bench.manifest, bench.settings, Inputs(spec)) == 0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("condition", ["clean", "jpeg-60+resize-75"])
def test_a_trial_runs_from_edits_to_scores(bench: Bench, method: str, condition: str) -> None:
    spec = spec_of(bench, method, train_condition=condition)
    result = bench.run(spec)
    assert result.fitted.threshold is not None
    assert np.isfinite(result.scores["score"]).all()
    validated = validate(spec, result.fitted.detector, bench.settings)
    assert validated.temperature is not None
    # 2 edits of 6 photographs and the 6 photographs, whatever the number of conditions and of copies of the real ones
    assert validated.temperature.num_images == 2 * 6 + 6
    assert "rest on 12 edits of 6 validation photographs" in " ".join(validated.notes)
    again = bench.run(spec)
    np.testing.assert_array_equal(again.scores["score"], result.scores["score"])


def test_a_training_free_trial_reads_validation_photographs_alone(bench: Bench) -> None:
    spec = spec_of(bench, "rigid")
    detector = build(spec, bench.settings, "cpu")
    assert len(examples(spec, detector, bench.manifest, bench.settings, "train").labels) == 0
    assert examples(spec, detector, bench.manifest, bench.settings, "valid").labels.sum() == 4 * 6
    result = bench.run(spec)
    assert np.isfinite(result.scores["score"]).all()
    assert validate(spec, result.fitted.detector, bench.settings).temperature is not None


def test_a_distance_has_no_temperature_and_no_values_at_p_one_half(bench: Bench) -> None:
    spec = spec_of(bench, "real_only")
    result = bench.run(spec)
    logged = {name.rpartition("/")[2] for name in result.scored.metrics}
    assert {"auroc", "accuracy_valid_threshold", "tpr_at_fpr_5"} <= logged
    assert not {"accuracy", "real_accuracy", "fake_accuracy", "balanced_accuracy"} & logged
    validated = validate(spec, result.fitted.detector, bench.settings)
    assert validated.temperature is None
    assert "no temperature: the score of real_only is no log-odds" in validated.notes
    assert names.TEMPERATURE not in validated.metrics


@pytest.mark.usefixtures("nothing_from_outside")
def test_a_condition_that_needs_fakes_is_refused_before_anything_runs(dolos: Command, runs: Path) -> None:
    outcome = dolos("--methods", "family:no-generator", "--train-condition", "jpeg-85,paste-back")
    assert outcome.status == 2
    assert "--train-condition paste-back reads masks or originals of a data set's fakes" in outcome.text
    assert "self_edited_linear and self_edited_windows learn from edited photographs instead" in outcome.text
    assert mlflow_runs(runs, "trial") == []
    assert dolos("--methods", "real_only", "--train-condition", "paste-back", "--plan").status == 0
