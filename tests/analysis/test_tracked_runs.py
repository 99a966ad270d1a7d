"""A tracked run's detector, loaded again: its logits, its maps, its answers for pictures of anybody's."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import launch
from analysis.__main__ import main
from analysis.cam import ReadOnce, choose_images, image_maps, open_images, read_images
from analysis.detectors import load_detector
from analysis.localisation import localise_run
from analysis.predict import Answer, Predictor, find_pictures, overlay_paths
from analysis.store import Store
from analysis.verdicts import validation_scores
from grid import names
from models.detector import MemoryExhausted


@pytest.mark.parametrize("method", ["xception_scratch", "clip_linear"])
def test_a_loaded_detector_gives_the_logits_that_were_logged(tracked: Store, method: str, tmp_path: Path) -> None:
    runs = tracked.runs()
    run_id = runs.loc[runs["method"] == method, "run_id"].iloc[0]
    detector, _ = load_detector(tracked, run_id)
    manifest = open_images(tracked)
    rows = choose_images(manifest, "lama", 4)
    logits = detector.predict(detector.inputs(read_images(manifest, rows))).logits
    logged = tracked.scores(run_id).set_index("path").loc[rows["path"], ["logit_real", "logit_fake"]]
    np.testing.assert_allclose(logits, logged.to_numpy(), atol=1e-4)


def test_a_run_is_localised_on_every_generator(tracked: Store) -> None:
    runs = tracked.runs()
    run = runs[(runs["method"] == "xception_scratch") & (runs["trained_on"] == "lama")].iloc[0]
    manifest = open_images(tracked)
    found = localise_run(
        tracked, run["run_id"], ReadOnce(manifest), *load_detector(tracked, run["run_id"]), images_per_cell=3
    )
    assert found.groupby("tested_on").size().to_dict() == {"lama": 3, "ldm": 3}
    assert found[["iou", "iou_fixed", "pointing", "energy", "ap"]].stack().between(0, 1).all()
    assert found["chance"].to_numpy() == pytest.approx(0.25)  # the middle quarter of every picture was repainted


def test_what_was_trained_without_fakes_has_no_threshold_to_be_localised_with(tracked: Store) -> None:
    run = tracked.runs().query("method == 'xception_scratch' and task == 'detection'").iloc[0]
    detector, spec = load_detector(tracked, run["run_id"])
    of_reals = dataclasses.replace(spec, train_generators=())
    with pytest.raises(ValueError, match="trained without fakes, so there is no validation fake"):
        localise_run(tracked, run["run_id"], ReadOnce(open_images(tracked)), detector, of_reals, images_per_cell=3)


def test_maps_have_the_size_of_their_pictures(tracked: Store) -> None:
    runs = tracked.runs()
    detector, _ = load_detector(tracked, runs.loc[runs["method"] == "clip_linear", "run_id"].iloc[0])
    pictures = [np.zeros((50, 70, 3), np.uint8), np.zeros((64, 64, 3), np.uint8)]
    assert [cam.shape for cam in image_maps(detector, pictures)] == [(50, 70), (64, 64)]


def test_predict_answers_as_the_run_did_and_goes_on_after_a_bad_file(
    tracked: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = open_images(tracked)
    rows = choose_images(manifest, "lama", 2)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for path in manifest.paths(rows):
        shutil.copy(path, folder)
    (folder / "broken.png").write_bytes(manifest.paths(rows)[0].read_bytes()[:200])
    run = tracked.runs().query("method == 'xception_scratch' and trained_on == 'lama'").iloc[0]
    arguments = ["predict", str(folder), "--run", run["run_id"], "--tracking-uri", tracked.tracking_uri, "--json"]
    assert main(arguments) == 1  # one of them could not be read
    said = json.loads(capsys.readouterr().out)
    answers = {Path(one["path"]).name: one for one in said["images"]}
    logged = tracked.scores(run["run_id"]).set_index("path")["score"]
    for path in rows["path"]:
        answer = answers[Path(path).name]
        assert answer["score"] == pytest.approx(logged[path], abs=1e-4)
        assert answer["label"] == ("fake" if answer["score"] > tracked.threshold(run["run_id"]) else "real")
        assert (folder / f"{Path(path).stem}.cam.png").is_file()
    assert answers["broken.png"]["error"]


def test_predict_answers_for_all_pictures_but_those_that_it_names(
    tracked: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = open_images(tracked)
    (good,) = manifest.paths(choose_images(manifest, "lama", 1))
    sizes = {"tiny": (8, 8), "thin": (2, 3000), "cursed": (40, 40), "blessed": (41, 40)}
    for name, size in sizes.items():
        Image.new("RGB", size).save(tmp_path / f"{name}.png")
    shutil.copy(good, tmp_path / "good.png")
    for name in ("a.avif", "b.HEIC", "notes.txt"):
        (tmp_path / name).touch()
    arguments = ["--tracking-uri", tracked.tracking_uri, "--json", "--no-cam", "--best"]

    def predicted(method: str) -> tuple[dict[str, float], dict[str, str], str]:
        """Scores, errors, and what was said beside. Pictures of one colour get a score and no verdict."""
        assert main(["predict", str(tmp_path), *arguments, method]) == 3
        said = capsys.readouterr()
        images = {Path(one["path"]).stem: one for one in json.loads(said.out)["images"]}
        labels = {name: one["score"] for name, one in images.items() if one["score"] is not None}
        return labels, {name: one["error"] for name, one in images.items() if one["error"]}, said.err

    labels, errors, beside = predicted("residual_linear")
    assert set(labels) == {"cursed", "blessed", "good"}
    reason = "a side of less than 16 pixels, which residual_linear cannot take"
    assert errors == {"tiny": f"8 x 8 pixels: {reason}", "thin": f"2 x 3000 pixels: {reason}"}
    assert f"{tmp_path / 'tiny.png'}: 8 x 8 pixels" in beside
    assert f"2 pictures in formats that are not read have no answer: {tmp_path / 'a.avif'}" in beside

    labels, errors, _ = predicted("clip_linear")
    assert set(labels) == {"tiny", "cursed", "blessed", "good"}
    assert errors == {"thin": "2 x 3000 pixels: one side more than 50 times the other, which clip_linear cannot take"}

    answer = Predictor.answer
    raised: Iterator[Exception]

    def cursed(predictor: Predictor, answers: list[Answer], images: list[np.ndarray]) -> None:
        if any(image.shape == (40, 40, 3) for image in images):
            raise next(raised)
        answer(predictor, answers, images)

    monkeypatch.setattr(Predictor, "answer", cursed)
    for error in (
        MemoryExhausted("not even one image"),
        RuntimeError("CUDA out of memory"),
        MemoryError("not even one"),
    ):
        raised = itertools.repeat(error)
        labels, errors, _ = predicted("residual_linear")
        assert set(labels) == {"blessed", "good"}
        assert errors["cursed"] == f"memory ran out: {error}"

    bugs = iter([RuntimeError("no such kernel")])  # an error of the program is not tried again with each picture
    raised = bugs
    assert main(["predict", str(tmp_path), *arguments, "residual_linear"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "an error that this program does not expect: RuntimeError: no such kernel" in said.err
    assert next(bugs, None) is None


def test_an_overlay_that_fails_costs_no_answer(
    tracked: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = open_images(tracked)
    (path,) = manifest.paths(choose_images(manifest, "lama", 1))
    for name, side in (("a", 60), ("b", 61)):  # pictures of one colour would get no verdict, and so no overlay
        Image.open(path).crop((0, 0, side, side)).save(tmp_path / f"{name}.png")
    overlays = Predictor.overlays

    def failing(predictor: Predictor, images: list[np.ndarray]) -> list[np.ndarray]:
        if any(len(image) == 60 for image in images):
            raise MemoryError("no map")
        return overlays(predictor, images)

    monkeypatch.setattr(Predictor, "overlays", failing)
    uri = ["--tracking-uri", tracked.tracking_uri, "--json"]
    assert main(["predict", str(tmp_path), "--best", "xception_scratch", *uri]) == 1
    first, second = json.loads(capsys.readouterr().out)["images"]
    assert first["label"] in ("real", "fake")
    assert (first["cam"], first["error"]) == (None, "there is no overlay: memory ran out: no map")
    assert (second["cam"], second["error"]) == (str(tmp_path / "b.cam.png"), None)


@pytest.mark.parametrize("method", ["xception_scratch", "clip_linear", "residual_linear"])
def test_the_best_run_is_the_best_on_the_validation_images_of_all_generators(
    tracked: Store, method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = open_images(tracked)
    picture = manifest.paths(choose_images(manifest, "ldm", 1))[0]
    arguments = ["predict", str(picture), "--tracking-uri", tracked.tracking_uri, "--json", "--no-cam"]
    assert main([*arguments, "--best", method]) == 0
    said = json.loads(capsys.readouterr().out)

    runs = tracked.runs().query("task == 'detection' and method == @method")["run_id"]
    means = {run_id: np.mean(list(tracked.validation(run_id).values())) for run_id in runs}
    assert all(set(tracked.validation(run_id)) == {"lama", "ldm"} for run_id in runs)
    assert said["run_id"] == max(means, key=means.__getitem__)
    assert f"mean validation AUROC {max(means.values()):.3f} over the generators lama, ldm" in said["chosen_by"]
    assert f"the best of {len(means)} runs" in said["chosen_by"]
    attributing = tracked.runs().query("task == 'attribution' and method == @method")["run_id"].tolist()
    assert [said["attribution_run_id"]] == attributing
    answer = said["images"][0]
    assert sum(answer["attribution_probabilities"].values()) == pytest.approx(1, abs=1e-4)
    assert set(answer["attribution_probabilities"]) == {"real", "lama", "ldm"}


def test_the_best_of_an_unknown_method_is_refused(
    tracked: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = open_images(tracked)
    picture = manifest.paths(choose_images(manifest, "ldm", 1))[0]
    assert main(["predict", str(picture), "--tracking-uri", tracked.tracking_uri, "--best", "vgg"]) == 2
    assert "'vgg' has no finished detection run" in capsys.readouterr().err


# Where overlays go ----------------------------------------------------------------------------------------------------


def places(named: list[Path], out: Path | None = None) -> list[Path]:
    return overlay_paths(find_pictures(named), out)


@pytest.fixture
def two_folders(tmp_path: Path) -> tuple[Path, Path]:
    for folder in (tmp_path / "A", tmp_path / "B"):
        folder.mkdir()
        (folder / "x.png").touch()
    (tmp_path / "A" / "y.png").touch()
    return tmp_path / "A", tmp_path / "B"


def test_pictures_of_one_name_get_an_overlay_each(two_folders: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "o"
    wanted = [out / "A/x.png.cam.png", out / "y.cam.png", out / "B/x.png.cam.png"]
    assert places(list(two_folders), out) == wanted
    named = [folder / "x.png" for folder in two_folders]
    assert places(named, out) == [out / "A/x.png.cam.png", out / "B/x.png.cam.png"]
    assert places(named) == [folder / "x.cam.png" for folder in two_folders]


def test_folders_of_one_name_and_one_picture_named_twice_are_told_apart(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder / "A").mkdir(parents=True)
        (tmp_path / folder / "A" / "x.png").touch()
    found = places([tmp_path / "one" / "A", tmp_path / "two" / "A"], tmp_path / "o")
    assert len(set(found)) == 2
    again = tmp_path / "one" / ".." / "one" / "A" / "x.png"
    found = places([tmp_path / "one" / "A" / "x.png", again])
    assert len({place.resolve() for place in found}) == 2


def test_an_overlay_never_replaces_a_picture_that_was_named(tmp_path: Path) -> None:
    for name in ("x.png", "x.jpg", "x.cam.png", "x.png.cam.png"):
        (tmp_path / name).touch()
    picture, other = tmp_path / "x.png", tmp_path / "x.cam.png"
    assert places([picture, other]) == [tmp_path / "x.png.cam.png", tmp_path / "x.cam.cam.png"]
    assert places([picture, other], tmp_path)[0] != other
    named = [tmp_path / name for name in ("x.png", "x.jpg", "x.cam.png", "x.png.cam.png")]
    found = places(named)
    assert len({*found, *named}) == 8


def test_both_inputs_are_still_there_after_predict(tracked: Store, tmp_path: Path) -> None:
    manifest = open_images(tracked)
    paths = manifest.paths(choose_images(manifest, "lama", 2))
    named = [tmp_path / "x.png", tmp_path / "x.cam.png"]
    for path, place in zip(paths, named, strict=True):
        shutil.copy(path, place)
    assert (
        main(["predict", *map(str, named), "--best", "xception_scratch", "--tracking-uri", tracked.tracking_uri]) == 0
    )
    assert [place.read_bytes() for place in named] == [path.read_bytes() for path in paths]
    assert len(list(tmp_path.glob("*.png"))) == 4


def test_answers_are_printed_as_they_are_known(
    tracked: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = open_images(tracked)
    paths = manifest.paths(choose_images(manifest, "lama", 3))
    monkeypatch.setattr("analysis.predict.BATCH", 1)
    import data.images

    decode = data.images.decode
    printed = []

    def listening(path: Path) -> np.ndarray:
        printed.append(capsys.readouterr().out.count("log-odds of fake"))
        return decode(path)

    monkeypatch.setattr(data.images, "decode", listening)
    arguments = ["--best", "residual_linear", "--tracking-uri", tracked.tracking_uri]
    assert main(["predict", *map(str, paths), *arguments]) == 0
    assert printed == [0, 1, 1]


def test_a_threshold_that_was_not_logged_is_called_so(own_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with closing(sqlite3.connect(own_copy / "mlflow.db")) as database, database:
        for table in ("metrics", "latest_metrics"):
            database.execute(f"DELETE FROM {table} WHERE key = ?", (names.THRESHOLD,))
    uri = f"sqlite:///{own_copy / 'mlflow.db'}"
    assert main(["predict", "nowhere.png", "--best", "residual_linear", "--tracking-uri", uri]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "fake above log-odds 0, as the run logged no threshold" in said


def test_how_many_real_validation_images_are_above_the_threshold_is_said(
    tracked: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--best", "residual_linear", "--tracking-uri", tracked.tracking_uri, "--no-cam"]
    (picture,) = open_images(tracked).paths(choose_images(open_images(tracked), "lama", 1))
    assert main(["predict", str(picture), *arguments, "--json"]) in (0, 3)
    told = json.loads(capsys.readouterr().out)
    scores = validation_scores(tracked, told["run_id"])
    assert scores is not None
    reals = scores.loc[scores["label"] == 0, "score"]
    assert told["real_validation_images"] == len(reals) > 0
    assert told["real_validation_images_above"] == (reals > told["threshold"]).sum()
    assert main(["predict", str(picture), *arguments]) in (0, 3)
    assert f"of {len(reals)} real validation images" in " ".join(capsys.readouterr().err.split())


def test_a_link_to_a_picture_that_is_gone_has_no_answer(
    tracked: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    arguments = ["--best", "residual_linear", "--tracking-uri", tracked.tracking_uri, "--no-cam"]
    assert main(["predict", str(tmp_path), *arguments]) == 1
    assert "gone.png: no answer" in capsys.readouterr().out


# In a locale without UTF-8 --------------------------------------------------------------------------------------------


ASCII = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}


def in_ascii(*arguments: str) -> tuple[int, bytes, bytes]:
    """Status, output and errors of `python -m analysis` in a locale that knows ASCII alone."""
    command = [sys.executable, "-m", "analysis", *arguments]
    done = subprocess.run(command, env={**os.environ, **ASCII}, cwd=Path(launch.__file__).parent, capture_output=True)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.long
def test_the_report_is_utf8_whatever_the_locale(tracked: Store, tmp_path: Path) -> None:
    uri = ["--tracking-uri", tracked.tracking_uri, "--no-cam", "--no-log"]
    status, _, errors = in_ascii(*uri, "--out", str(tmp_path / "ascii"))
    assert (status, b"Traceback" in errors) == (0, False)
    assert main([*uri, "--out", str(tmp_path / "utf8")]) == 0
    tables = sorted((tmp_path / "utf8" / "tables").iterdir())
    assert len(tables) > 10
    for table in tables:
        assert (tmp_path / "ascii" / "tables" / table.name).read_bytes() == table.read_bytes()
    assert any(not table.read_bytes().isascii() for table in tables)


@pytest.mark.long
def test_a_name_that_cannot_be_printed_is_escaped(tracked: Store, tmp_path: Path) -> None:
    picture = tmp_path / "Ren\u00e9.png"
    Image.new("RGB", (40, 40)).save(picture)
    arguments = ["--best", "residual_linear", "--tracking-uri", tracked.tracking_uri]
    status, output, errors = in_ascii("predict", str(picture), *arguments)
    assert (status, b"Traceback" in errors) == (3, False)  # a picture of one colour gets no verdict
    assert output.startswith(str(tmp_path).encode() + b"/Ren")
    assert b"NO VERDICT" in output
