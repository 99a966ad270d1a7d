"""Which test images keep their embeddings: all of a small test set, of a large one a sample for attribution alone."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data.conditions import CLEAN
from grid import names
from grid.samples import MOST_DRAWN, drawn_images, kept_embeddings
from grid.spec import TrialSpec
from grid.tasks import ATTRIBUTION, DETECTION, class_names, get_task, list_tasks
from grid.trial import Scored
from tests.grid.fitting import Bench, Result
from tests.grid.grids import make_spec, open_grid, paper_manifest


def rows(number: int) -> pd.DataFrame:
    label = np.arange(number) % 2
    return pd.DataFrame({"label": label, "generator": np.where(label == 1, "lama", "real")})


@pytest.mark.parametrize("task", list_tasks())
def test_up_to_5000_test_images_every_trial_keeps_all(task: str) -> None:
    assert MOST_DRAWN == 5000
    assert kept_embeddings(rows(5000), get_task(task, 0)) is None


@pytest.mark.parametrize("task", list_tasks())
def test_of_more_attribution_keeps_the_sample_that_a_report_shows_and_others_keep_none(task: str) -> None:
    kept = kept_embeddings(rows(5001), get_task(task, 0))
    assert kept is not None
    shown = drawn_images(class_names(rows(5001))) if task == ATTRIBUTION else np.arange(0)
    assert np.array_equal(kept, shown)


def test_a_trial_keeps_what_the_rule_says(
    bench: Bench,
    detection: tuple[TrialSpec, Result],
    attribution: tuple[TrialSpec, Result],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("grid.trial.kept_embeddings", partial(kept_embeddings, most=6))
    for spec, whole in (detection, attribution):
        scored = bench.score(spec, whole.fitted, CLEAN)
        assert scored.embedded is not None
        assert len(scored.scores) == len(whole.scores)
        np.testing.assert_array_equal(scored.embeddings, whole.embeddings[scored.embedded])
        assert (len(scored.embedded) == 0) == (spec.task == DETECTION)
        assert len(scored.embedded) < len(whole.scores)
    assert whole.scored.embedded is None


@pytest.mark.parametrize(
    ("embedded", "files", "tag"),
    [
        (None, {names.EMBEDDINGS}, None),
        (np.array([1, 2]), {names.EMBEDDINGS, names.EMBEDDED_ROWS}, "2"),
        (np.arange(0), set(), "0"),
    ],
)
def test_a_run_has_the_files_and_says_of_how_many_images(
    store: str, tmp_path: Path, embedded: np.ndarray | None, files: set[str], tag: str | None
) -> None:
    vectors = np.eye(4, dtype=np.float16)
    (tmp_path / "checkpoint").mkdir()
    manifest = paper_manifest(tmp_path / "images")
    spec = make_spec(manifest.digest)
    tracker = open_grid(store, "kept", manifest, [spec], tmp_path / "artifacts")
    run = tracker.open_trial(spec, {})
    kept = vectors if embedded is None else vectors[embedded]
    run.finish(Scored(CLEAN, {}, rows(4), kept, embedded), {}, {}, tmp_path / "checkpoint")
    present = {item.path for item in run.client.list_artifacts(run.run_id)}
    assert present & {names.EMBEDDINGS, names.EMBEDDED_ROWS} == files
    assert run.client.get_run(run.run_id).data.tags.get(names.EMBEDDED) == tag
    back = run.client.download_artifacts(run.run_id, "", str(tmp_path)) if files else ""
    if files:
        np.testing.assert_array_equal(np.load(Path(back) / names.EMBEDDINGS), kept)
