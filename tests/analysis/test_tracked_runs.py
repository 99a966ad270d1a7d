"""A tracked run's detector, loaded again: its logits, its maps, its answers for pictures of anybody's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import launch
from analysis.__main__ import main
from analysis.cam import choose_images, image_maps, open_images, read_images
from analysis.detectors import load_detector, predict_images
from analysis.localisation import localise_run
from analysis.store import Store, open_store
from tests.corpora import write_dolos


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("tracked")
    corpus = write_dolos(folder / "corpus", ("lama", "ldm"), {"train": 12, "valid": 4, "test": 6}, size=64)
    arguments = [
        "dolos", f"--data={corpus}", f"--runs={folder / 'runs'}", "--local",
        "--methods=xception_scratch,clip_linear", "--tasks=detection",
        "--set=xception_scratch.backbone=test_resnet", "--set=xception_scratch.size=64",
        "--set=clip_linear.backbone=demo-vit-64", "--weights=clip_linear=random",
    ]  # fmt: skip
    assert launch.main(arguments) == 0
    return open_store("dolos", tracking_uri=f"sqlite:///{folder / 'runs' / 'mlflow.db'}")


@pytest.mark.parametrize("method", ["xception_scratch", "clip_linear"])
def test_a_loaded_detector_gives_the_logits_that_were_logged(store: Store, method: str, tmp_path: Path) -> None:
    runs = store.runs()
    run_id = runs.loc[runs["method"] == method, "run_id"].iloc[0]
    detector, _ = load_detector(store, run_id)
    manifest = open_images(store)
    rows = choose_images(manifest, "lama", 4, seed=0)
    logits = predict_images(detector, read_images(manifest, rows)).logits
    logged = store.scores(run_id).set_index("path").loc[rows["path"], ["logit_real", "logit_fake"]]
    np.testing.assert_allclose(logits, logged.to_numpy(), atol=1e-4)


def test_a_run_is_localised_on_every_generator(store: Store) -> None:
    runs = store.runs()
    run = runs[(runs["method"] == "xception_scratch") & (runs["trained_on"] == "lama")].iloc[0]
    manifest = open_images(store)
    found = localise_run(store, run["run_id"], manifest, images_per_cell=3)
    assert found.groupby("tested_on").size().to_dict() == {"lama": 3, "ldm": 3}
    assert found[["iou", "iou_fixed", "pointing", "energy", "ap"]].stack().between(0, 1).all()
    assert found["chance"].to_numpy() == pytest.approx(0.25)  # the middle quarter of every picture was repainted


def test_maps_have_the_size_of_their_pictures(store: Store) -> None:
    runs = store.runs()
    detector, _ = load_detector(store, runs.loc[runs["method"] == "clip_linear", "run_id"].iloc[0])
    pictures = [np.zeros((50, 70, 3), np.uint8), np.zeros((64, 64, 3), np.uint8)]
    assert [cam.shape for cam in image_maps(detector, pictures)] == [(50, 70), (64, 64)]


def test_predict_answers_as_the_run_did_and_goes_on_after_a_bad_file(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = open_images(store)
    rows = choose_images(manifest, "lama", 2, seed=0)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for path in manifest.paths(rows):
        shutil.copy(path, folder)
    (folder / "broken.png").write_bytes(manifest.paths(rows)[0].read_bytes()[:200])
    run = store.runs().query("method == 'xception_scratch' and trained_on == 'lama'").iloc[0]
    arguments = ["predict", str(folder), "--run", run["run_id"], "--tracking-uri", store.tracking_uri, "--json"]
    assert main(arguments) == 1  # one of them could not be read
    said = json.loads(capsys.readouterr().out)
    answers = {Path(one["path"]).name: one for one in said["images"]}
    logged = store.scores(run["run_id"]).set_index("path")["score"]
    for path in rows["path"]:
        answer = answers[Path(path).name]
        assert answer["score"] == pytest.approx(logged[path], abs=1e-4)
        assert answer["label"] == ("fake" if answer["score"] > store.threshold(run["run_id"]) else "real")
        assert (folder / f"{Path(path).stem}.cam.png").is_file()
    assert answers["broken.png"]["error"]
