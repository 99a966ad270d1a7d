"""Grad-CAM is the library's own; localisation is what one computes by hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

import launch
from analysis.__main__ import main
from analysis.cam import NoCam, cam_maps, choose_images, image_maps, open_images, read_images, to_image
from analysis.detectors import load_detector, predict_images
from analysis.localisation import best_iou_threshold, localise, localise_run
from analysis.store import Store, open_store
from data.transforms import Geometry
from models.detector import FitSession
from tests.corpora import write_dolos
from tests.models.toys import ATTRIBUTION, DETECTION, examples, make_images, make_labels, small

WITH_CAM = ("clip_linear", "sam_linear", "xception_pretrained", "xception_scratch")


@pytest.mark.parametrize("classes", [DETECTION, ATTRIBUTION], ids=["detection", "attribution"])
@pytest.mark.parametrize("name", WITH_CAM)
def test_maps_are_those_of_a_direct_call_of_grad_cam(name: str, classes: tuple[str, ...]) -> None:
    detector = small(name, classes, **({"epochs": 1} if name.startswith("xception") else {}))
    detector.fit(examples(detector, 6, seed=1), examples(detector, 4, seed=2), FitSession())
    pixels = make_images(make_labels(2, 2, seed=3), seed=3)
    maps = cam_maps(detector, pixels, target_class=1)

    target = detector.cam_target()
    assert target is not None
    preprocessing = (
        detector.preprocessing if hasattr(detector, "preprocessing") else detector.encoder.backbone.preprocessing
    )
    batch = preprocessing.normalise(torch.from_numpy(pixels)).requires_grad_()
    direct = GradCAM(target.module, target.layers, target.reshape)(batch, [ClassifierOutputTarget(1)] * len(pixels))
    assert maps.shape == (4, 64, 64)
    assert maps.min() >= 0
    assert maps.max() <= 1
    np.testing.assert_allclose(maps, direct, atol=1e-5)


def test_a_method_without_layers_says_so() -> None:
    with pytest.raises(NoCam, match="no layer"):
        cam_maps(small("residual_linear"), np.zeros((1, 64, 64, 3), np.uint8))


@pytest.mark.parametrize("policy", ["squash", "pad", "crop"])
def test_a_map_comes_back_to_where_it_was_in_the_picture(policy: str) -> None:
    picture = np.zeros((40, 80, 3), np.uint8)
    picture[20:40, 30:50] = 255  # inside the centre crop
    geometry = Geometry(32, interpolation="bilinear", policy=policy)
    seen = geometry.apply(picture)[:, :, 0] / 255
    back = to_image(seen.astype(np.float32), geometry, (40, 80))
    assert back.shape == (40, 80)
    assert np.corrcoef(back.ravel(), picture[:, :, 0].ravel())[0, 1] > 0.9


# Localisation ---------------------------------------------------------------------------------------------------------


def masks() -> np.ndarray:
    mask = np.zeros((2, 4, 4), bool)
    mask[0, :2, :2] = True
    mask[1, 1:, 2:] = True
    return mask


def test_a_perfect_map_has_every_figure_at_one_and_an_inverted_one_at_none() -> None:
    perfect = localise(masks().astype(float), masks(), threshold=0.5)
    assert (perfect[["iou", "iou_fixed", "pointing", "energy", "ap"]] == 1).all(axis=None)
    inverted = localise((~masks()).astype(float), masks(), threshold=0.5)
    assert (inverted[["iou", "iou_fixed", "pointing", "energy"]] == 0).all(axis=None)
    assert perfect["chance"].tolist() == [4 / 16, 6 / 16]


def test_figures_by_hand() -> None:
    cam = np.zeros((1, 4, 4))
    cam[0, 0] = [0.9, 0.6, 0.6, 0.0]  # two of the mask's four pixels, one outside
    found = localise(cam, masks()[:1], threshold=0.6).iloc[0]
    assert found["iou"] == pytest.approx(2 / 5)
    assert found["pointing"] == 1
    assert found["energy"] == pytest.approx(1.5 / 2.1)
    # thresholds 0.9: precision 1, recall 1/4; 0.6: 2/3, 1/2; 0: 4/16, 1
    assert found["ap"] == pytest.approx(1 / 4 * 1 + 1 / 4 * 2 / 3 + 1 / 2 * 4 / 16)


def test_a_constant_map_is_at_chance_and_an_empty_mask_is_refused() -> None:
    found = localise(np.full((2, 4, 4), 0.3), masks(), threshold=0.5)
    for metric in ("pointing", "energy", "ap"):
        assert found[metric].to_numpy() == pytest.approx(found["chance"].to_numpy())
    with pytest.raises(ValueError, match="empty"):
        localise(np.zeros((1, 4, 4)), np.zeros((1, 4, 4), bool), threshold=0.5)


def test_the_best_threshold_is_the_one_with_the_best_mean_iou() -> None:
    cam = np.where(masks(), 0.8, 0.4)
    chosen = best_iou_threshold(cam, masks())
    assert 0.4 < chosen <= 0.8
    assert localise(cam, masks(), threshold=chosen)["iou"].tolist() == [1, 1]


# A tracked run --------------------------------------------------------------------------------------------------------


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


def test_the_same_pictures_are_chosen_every_time(store: Store) -> None:
    manifest = open_images(store)
    first, second = (choose_images(manifest, generator, 3, seed=0) for generator in ("lama", "ldm"))
    assert first["source_id"].tolist() == second["source_id"].tolist()
    assert set(first["split"]) == {"test"}


def test_a_run_is_localised_on_every_generator(store: Store) -> None:
    runs = store.runs()
    run = runs[(runs["method"] == "xception_scratch") & (runs["trained_on"] == "lama")].iloc[0]
    manifest = open_images(store)
    found = localise_run(store, run["run_id"], manifest, images_per_cell=3)
    assert found.groupby("tested_on").size().to_dict() == {"lama": 3, "ldm": 3}
    assert found[["iou", "iou_fixed", "pointing", "energy", "ap"]].stack().between(0, 1).all()
    assert found["chance"].to_numpy() == pytest.approx(0.25)  # the middle quarter of every picture was repainted


def test_the_command_draws_a_panel_for_every_method_and_generator(store: Store, tmp_path: Path) -> None:
    assert main(["--tracking-uri", store.tracking_uri, "--out", str(tmp_path), "--cam", "2"]) == 0
    drawn = {path.name for path in tmp_path.glob("cam_*.png")}
    assert drawn == {
        f"cam_{method}_{name}.png" for method in ("xception_scratch", "clip_linear") for name in ("lama", "ldm")
    }


def test_pictures_that_are_not_there_are_named(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--tracking-uri", store.tracking_uri, "--out", str(tmp_path), "--cam", "2"]
    assert main([*arguments, "--images", str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().out


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
