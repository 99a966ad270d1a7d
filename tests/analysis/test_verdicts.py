"""Predict abstains where a picture is not like the training images, and says how sure it is where it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.tracking import MlflowClient
from PIL import Image

from analysis.__main__ import main
from analysis.cam import choose_images, open_images
from analysis.store import Store, StoreError, open_store
from analysis.verdicts import NOT_KNOWN, Judge, validation_scores
from grid import names
from models.calibration import Temperature

METHODS = ("xception_scratch", "clip_linear", "residual_linear")


@pytest.fixture
def pictures(tracked: Store, tmp_path: Path) -> Path:
    """A picture of the data set, and one of noise."""
    manifest, folder = open_images(tracked), tmp_path / "pictures"
    folder.mkdir()
    (path,) = manifest.paths(choose_images(manifest, "lama", 1))
    shutil.copy(path, folder / "known.png")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "noise.png")
    return folder


def run_of(store: Store, method: str) -> str:
    runs = store.runs()
    return str(runs[(runs["method"] == method) & (runs["task"] == "detection")]["run_id"].iloc[0])


def predicted(store: Store, folder: Path, method: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, Any]:
    arguments = ["--run", run_of(store, method), "--tracking-uri", store.tracking_uri, "--no-cam", "--json"]
    status = main(["predict", str(folder), *arguments])
    return status, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("method", METHODS)
def test_noise_gets_no_verdict(tracked: Store, pictures: Path, method: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, said = predicted(tracked, pictures, method, capsys)
    known, noise = said["images"]
    assert status == 3
    assert noise["distance"] > 1
    assert noise["inside"] is False
    nothing = ("verdict", "label", "probability", "calibrated_probability", "attribution", "attribution_probabilities")
    assert [noise[name] for name in nothing] == [None] * len(nothing)
    assert "times as far from them as the limit" in noise["reason"]
    assert known["distance"] <= 1
    assert known["inside"] is True
    assert known["verdict"] == known["label"] in ("real", "fake")
    assert known["reason"] is None
    assert 0 < known["calibrated_probability"] < 1
    assert set(said["limits"]) == {"embeddings"} | ({"residuals"} if method != "residual_linear" else set())
    assert said["adds_limits"] is None
    (pictures / "noise.png").unlink()
    assert predicted(tracked, pictures, method, capsys)[0] == 0


def test_words_on_the_terminal(tracked: Store, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--run", run_of(tracked, "residual_linear"), "--tracking-uri", tracked.tracking_uri]
    assert main(["predict", str(pictures), *arguments]) == 3
    known, noise = capsys.readouterr().out.splitlines()
    assert "calibrated probability of fake" in known
    assert "of the limit" in known
    assert noise.startswith(f"{pictures / 'noise.png'}: NO VERDICT: it is not like the training images: ")
    assert "probability" not in noise


def test_an_older_run_says_that_it_does_not_know_and_what_adds_it(
    own_copy: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = f"sqlite:///{own_copy / 'mlflow.db'}"
    store = open_store("dolos", tracking_uri=uri)
    run_id = run_of(store, "residual_linear")
    MlflowClient(tracking_uri=uri).delete_tag(run_id, names.CALIBRATED)
    older = open_store("dolos", tracking_uri=uri)
    assert validation_scores(older, run_id) is None
    status, said = predicted(older, pictures, "residual_linear", capsys)
    assert status == 0
    assert {(one["inside"], one["distance"], one["reason"]) for one in said["images"]} == {(None, None, NOT_KNOWN)}
    assert "python launch.py dolos" in said["adds_limits"]
    assert main(["predict", str(pictures), "--run", run_id, "--tracking-uri", uri]) == 0
    out, beside = capsys.readouterr()
    assert all(NOT_KNOWN in line and "not calibrated" in line for line in out.splitlines())
    assert "This adds it, from the checkpoint, without training:\n" in beside
    assert "python launch.py dolos" in beside


def test_the_help_names_every_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["predict", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "Exit status: 0 every picture has a verdict; 1 a picture has no answer" in said
    assert "2 bad input; 3 at least one picture has no verdict" in said


def test_no_probability_goes_beyond_what_validation_images_can_show(tracked: Store) -> None:
    judge = Judge(tracked, run_of(tracked, "residual_linear"))
    judge.temperature = Temperature(2.0, 0.1, 0.1, 18)
    assert judge.probability(40.0) == (0.95, "calibrated probability of fake above 0.950")
    assert judge.probability(-40.0) == (0.05, "calibrated probability of fake below 0.050")
    assert judge.probability(2 * np.log(3))[0] == pytest.approx(0.75)
    judge.temperature = None
    assert judge.probability(0.0) == (0.5, "probability of fake 0.500, not calibrated")


def test_a_damaged_artifact_is_one_message(own_copy: Path) -> None:
    store = open_store("dolos", tracking_uri=f"sqlite:///{own_copy / 'mlflow.db'}")
    run_id = run_of(store, "residual_linear")
    path = store.artifact(run_id, names.novelty_artifact("embeddings"))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(StoreError, match=r"validation/novelty-embeddings\.npz of run .* is missing or cannot be read"):
        Judge(store, run_id)
    store.artifact(run_id, names.CALIBRATION).write_text("{}")
    with pytest.raises(StoreError, match=r"validation/calibration\.json of run"):
        Judge(store, run_id)
