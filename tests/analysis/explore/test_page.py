"""What the page of `explore` shows: the numbers of the store, the images of a cell in order, pictures and points."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from analysis.cam import explain, open_images, read_images, read_masks
from analysis.detectors import load_detector
from analysis.embeddings import project
from analysis.explore import live
from analysis.explore.pictures import THUMBNAIL
from analysis.explore.rows import PAGE_SIZE
from analysis.predict import Answer, Predictor
from analysis.store import Store
from grid.tasks import cell_rows
from tests.analysis.explore.server import Client, cache_of, served
from tests.analysis.grids import THRESHOLD, Grid
from tests.grid.grids import fresh_store


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Grid:
    """Scores made by hand, without pictures: one method with two seeds, conditions, and a trial that is still to do."""
    folder = tmp_path_factory.mktemp("scored")
    made = Grid(fresh_store(tmp_path_factory.getbasetemp(), folder / "runs"), folder / "runs", num_each=60)
    made.finish(made.spec(train="lama"), conditions=["jpeg-75"])
    made.finish(made.spec(train="lama", seed=1), made.spec("clip_linear", train="ldm"), made.attribution())
    made.plan(made.spec(train="repaint"))
    return made


@pytest.fixture(scope="module")
def scored(grid: Grid) -> Any:
    with served(grid.tracker.uri) as client:
        yield client


def until(ask: Callable[[], Any], fits: Callable[[Any], object]) -> Any:
    """The first answer that fits."""
    end = time.monotonic() + 300  # the first UMAP of a process compiles for 17 s of a quiet core
    while not fits(answer := ask()):
        assert time.monotonic() < end, answer
        time.sleep(0.1)
    return answer


def method(overview: Any, variant: str) -> Any:
    return next(one for one in overview["methods"] if one["variant"] == variant)


def run_of(client: Client, variant: str, trained_on: str, seed: int = 0) -> str:
    columns = {column["trained_on"]: column for column in method(client.json("/api/grid"), variant)["columns"]}
    return str(next(run["id"] for run in columns[trained_on]["runs"] if run["seed"] == seed))


def every_image(client: Client, **words: object) -> list[Any]:
    first = client.json("/api/images", **words)
    pages = [first, *(client.json("/api/images", page=page, **words) for page in range(2, first["pages"] + 1))]
    images = [image for page in pages for image in page["images"]]
    assert len(images) == first["total"] == len({image["id"] for image in images})
    assert all(len(page["images"]) == PAGE_SIZE for page in pages[:-1])
    return images


# Matrices ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["auroc", "accuracy", "accuracy_valid_threshold"])
def test_matrices_hold_the_means_over_seeds_of_what_was_logged(grid: Grid, scored: Client, metric: str) -> None:
    overview, results = scored.json("/api/grid", metric=metric), grid.open().results()
    assert overview["generators"] == ["lama", "ldm", "repaint"]
    shown = method(overview, "residual_linear")
    assert [column["trained_on"] for column in shown["columns"]] == ["lama", "repaint"]
    assert [len(column["runs"]) for column in shown["columns"]] == [2, 0]
    assert [column["state"] for column in shown["columns"]] == ["", "pending"]
    for row, tested_on in enumerate(overview["generators"]):
        logged = results[
            (results["variant"] == "residual_linear") & (results["tested_on"] == tested_on)
            & (results["metric"] == metric) & (results["condition"] == "clean") & (results["trained_on"] == "lama")
        ]["value"]  # fmt: skip
        assert len(logged) == 2
        assert shown["values"][row] == [pytest.approx(logged.mean()), None]


def test_a_condition_has_matrices_of_its_own(grid: Grid, scored: Client) -> None:
    overview, results = scored.json("/api/grid", condition="jpeg-75"), grid.open().results()
    assert overview["conditions"] == ["clean", "jpeg-75"]
    logged = results[(results["condition"] == "jpeg-75") & (results["metric"] == "auroc")].set_index("tested_on")
    values = [row[0] for row in method(overview, "residual_linear")["values"]]
    assert values == pytest.approx([logged["value"][name] for name in overview["generators"]])
    assert method(overview, "clip_linear")["values"] == [[None], [None], [None]]


def test_trials_and_names_are_those_of_the_report(scored: Client, page: Client) -> None:
    trials = scored.json("/api/grid")["trials"]
    assert (trials["finished"], trials["total"], trials["pending"], trials["running"]) == (4, 5, 1, 0)
    labels = [one["label"] for one in page.json("/api/grid")["methods"]]
    assert "clip_linear [demo-vit-64, random weights, small form]" in labels
    assert "residual_linear [weight-free]" in labels


def test_a_method_has_one_name_whichever_of_its_trials_are_finished(grid: Grid) -> None:
    runs = pd.DataFrame({"task": ["detection", "attribution"], "variant": "clip_linear", "weights": ["", "hub weights"],
                         "config": '{"backbone": "ViT-L-14"}'})  # fmt: skip
    assert live.Snapshot(grid.open(), runs, runs, 0).labels == {"clip_linear": "clip_linear [ViT-L-14, hub weights]"}


def test_attribution_has_a_row_per_method(grid: Grid, scored: Client) -> None:
    (shown,) = scored.json("/api/grid")["attribution"]
    assert [one["name"] for one in shown["classes"]] == ["overall", "real", "lama", "ldm", "repaint"]
    results = grid.open().results()
    logged = results[(results["task"] == "attribution") & (results["metric"] == "accuracy")]["value"]
    assert shown["classes"][0]["value"] == pytest.approx(logged.item())


# The images of a cell ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("metric", "threshold"), [("auroc", 0.0), ("accuracy_valid_threshold", THRESHOLD)])
def test_the_most_confident_mistakes_come_first(grid: Grid, scored: Client, metric: str, threshold: float) -> None:
    run = run_of(scored, "residual_linear", "lama", seed=1)
    images = every_image(scored, run=run, cell="ldm", metric=metric)
    scores = grid.open().scores(run)
    cell = scores[cell_rows(scores, "ldm")]
    margin = np.where(cell["label"] == 1, cell["score"] - threshold, threshold - cell["score"])
    expected = cell.iloc[np.argsort(margin, kind="stable")]
    assert [image["source"] for image in images] == expected["source_id"].tolist()
    assert [image["score"] for image in images] == pytest.approx(expected["score"].tolist(), abs=1e-6)
    right = ((expected["score"] > threshold) == (expected["label"] == 1)).tolist()
    assert [image["right"] for image in images] == right
    first = scored.json("/api/images", run=run, cell="ldm", metric=metric)
    assert (first["mistakes"], first["counted"]) == (right.count(False), len(cell))


def test_the_share_of_right_answers_is_the_cells_accuracy(scored: Client) -> None:
    run, overview = run_of(scored, "clip_linear", "ldm"), scored.json("/api/grid", metric="accuracy")
    for row, tested_on in enumerate(overview["generators"]):
        found = scored.json("/api/images", run=run, cell=tested_on, metric="accuracy")
        accuracy = 1 - found["mistakes"] / found["counted"]
        assert accuracy == pytest.approx(method(overview, "clip_linear")["values"][row][0])


def test_filters_leave_exactly_what_they_name(scored: Client) -> None:
    words = {"run": run_of(scored, "residual_linear", "lama"), "cell": "lama"}
    everything = {image["id"]: image for image in every_image(scored, **words)}
    for answer in ("right", "wrong"):
        found = every_image(scored, **words, answer=answer)
        expected = {key for key, image in everything.items() if image["right"] == (answer == "right")}
        assert {image["id"] for image in found} == expected
        assert expected
    for made_by in ("real", "lama"):
        found = every_image(scored, **words, made_by=made_by)
        assert {image["id"] for image in found} == {k for k, i in everything.items() if i["made_by"] == made_by}
    assert scored.json("/api/images", **words, made_by="ldm")["total"] == 0


def test_orders_do_what_they_say(scored: Client) -> None:
    words = {"run": run_of(scored, "residual_linear", "lama"), "cell": "all"}
    by = {sort: [image["score"] for image in every_image(scored, **words, sort=sort)] for sort in ("highest", "lowest")}
    assert by["highest"] == sorted(by["highest"], reverse=True)
    assert by["lowest"] == sorted(by["highest"])
    unsure = [abs(image["score"]) for image in every_image(scored, **words, sort="unsure")]
    assert unsure == sorted(unsure)
    by_name = [image["id"] for image in every_image(scored, **words, sort="name")]
    assert by_name == sorted(by_name)
    right = every_image(scored, **words, sort="right")
    assert right[0]["right"]
    assert not right[-1]["right"]


def test_the_edited_area_is_a_filter(page: Client, tracked: Store) -> None:
    run = run_of(page, "residual_linear", "lama")
    areas = tracked.edited_areas
    fakes = every_image(page, run=run, cell="lama", made_by="lama")
    assert {round(image["area"], 6) for image in fakes} <= {round(area, 6) for area in areas.values()}
    share = fakes[0]["area"]
    assert share == pytest.approx(0.25)  # the corpus edits the middle of every photograph
    around = every_image(page, run=run, cell="lama", **{"from": share - 0.01, "to": share + 0.01})
    assert {image["id"] for image in around} == {image["id"] for image in fakes}
    assert page.json("/api/images", run=run, cell="lama", **{"from": share + 0.01})["total"] == 0


def test_attribution_shows_what_was_answered(grid: Grid, scored: Client) -> None:
    ((run,),) = ([one["id"] for one in method["runs"]] for method in scored.json("/api/grid")["attribution"])
    scores = grid.open().scores(run)
    logits = scores[["logit_real", "logit_lama", "logit_ldm", "logit_repaint"]].to_numpy()
    answered = np.array(["real", "lama", "ldm", "repaint"])[logits.argmax(axis=1)]
    images = sorted(every_image(scored, run=run, cell="all"), key=lambda image: image["id"])
    assert [image["answer"] for image in images] == answered.tolist()
    truth = np.where(scores["label"] == 1, scores["generator"], "real")
    assert [image["right"] for image in images] == (answered == truth).tolist()
    wrong = scored.json("/api/images", run=run, cell="all", answer="wrong")
    assert wrong["images"][0]["score"] == min(image["score"] for image in images)


# One photograph ------------------------------------------------------------------------------------------------------


def test_a_photograph_has_every_version_and_every_detectors_score(page: Client, tracked: Store) -> None:
    image = page.json("/api/images", run=run_of(page, "residual_linear", "ldm"), cell="ldm", made_by="ldm")["images"][0]
    found = until(lambda: page.json(f"/api/photograph/{image['id']}"), lambda read: not read["missing"])
    assert [version["made_by"] for version in found["versions"]] == ["real", "lama", "ldm"]
    assert {version["source"] for version in found["versions"]} == {image["source"]}
    assert found["versions"][found["chosen"]]["id"] == image["id"]
    runs = tracked.runs()
    detection = runs[(runs["task"] == "detection") & (runs["state"] == "finished")]
    rows = [row for one in found["methods"] for row in one["rows"]]
    assert {row["run"] for row in rows} == set(detection["run_id"])
    for row in rows:
        scores = tracked.scores(row["run"])
        own = scores[scores["source_id"] == image["source"]].set_index(["label", "generator"])["score"]
        expected = [own[0].iloc[0], own[1, "lama"], own[1, "ldm"]]
        assert row["scores"] == pytest.approx(expected, abs=1e-6)
        assert row["right"] == [expected[0] <= 0, expected[1] > 0, expected[2] > 0]


# Pictures ------------------------------------------------------------------------------------------------------------


def opened(body: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(body)))


def test_pictures_and_masks_are_those_of_the_image(page: Client, tracked: Store) -> None:
    manifest = open_images(tracked)
    image = page.json("/api/images", run=run_of(page, "residual_linear", "lama"), cell="lama", made_by="lama")[
        "images"
    ][1]
    table = manifest.table
    rows = table[(table["split"] == "test") & (table["generator"] == "lama") & (table["source_id"] == image["source"])]
    (pixels,), (mask,) = read_images(manifest, rows), read_masks(manifest, rows)
    large = page.get(f"/picture/{image['id']}")
    assert large.headers["content-type"] == "image/png"
    assert np.array_equal(opened(large.body), pixels)
    assert np.array_equal(opened(page.get(f"/mask/{image['id']}").body) > 0, mask)
    small = page.get(f"/thumbnail/{image['id']}")
    assert small.headers["content-type"] == "image/webp"
    assert small.headers["cache-control"].startswith("private")
    assert max(opened(small.body).shape) <= THUMBNAIL
    assert np.abs(opened(small.body).astype(int) - pixels).mean() < 8


def test_a_thumbnail_is_made_once_below_the_grids_cache(page: Client, tracked: Store) -> None:
    first = page.get("/thumbnail/3").body
    kept = [
        path for path in (cache_of(tracked.tracking_uri) / "thumbnails-1").rglob("*.webp") if path.read_bytes() == first
    ]
    assert len(kept) == 1
    when = kept[0].stat().st_mtime_ns
    assert page.get("/thumbnail/3").body == first
    assert kept[0].stat().st_mtime_ns == when


def test_a_real_image_has_no_mask(page: Client) -> None:
    image = page.json("/api/images", run=run_of(page, "residual_linear", "lama"), cell="lama", made_by="real")[
        "images"
    ][0]
    answer = page.get(f"/mask/{image['id']}")
    assert (answer.status, answer.error) == (404, "this image has no mask")


def test_without_the_pictures_the_numbers_are_shown_and_the_remedy(scored: Client) -> None:
    said = scored.json("/api/grid")["pictures"]
    assert said.startswith("No pictures: ")
    assert "--images DIR" in said
    answer = scored.get("/thumbnail/0")
    assert (answer.status, answer.error) == (409, said)


def test_maps_are_drawn_for_methods_that_have_some(page: Client, tracked: Store) -> None:
    network, statistics = run_of(page, "xception_scratch", "lama"), run_of(page, "residual_linear", "lama")
    assert page.json(f"/api/maps/{network}")["kind"] == "Grad-CAM"
    drawn = page.get(f"/map/{network}/1")
    assert drawn.headers["content-type"] == "image/webp"
    assert opened(drawn.body).shape == (64, 64, 3)
    (over,) = explain(load_detector(tracked, network)[0], [opened(page.get("/picture/1").body)]).maps
    assert drawn.headers["explore-map"] == ("flat" if over.min() == over.max() else "uneven")
    assert not np.array_equal(opened(drawn.body), opened(page.get("/thumbnail/1").body))
    assert page.json(f"/api/maps/{statistics}") == {
        "kind": "", "note": "This method has neither maps of its own nor a layer for Grad-CAM.",
    }  # fmt: skip
    assert page.get(f"/map/{statistics}/1").status == 409


# Points and pictures that are sent -----------------------------------------------------------------------------------


def test_points_are_the_reports(page: Client, tracked: Store) -> None:
    run = page.json("/api/grid")["attribution"][0]["runs"][0]["id"]
    found = until(lambda: page.json(f"/api/points/{run}"), lambda read: read["state"] == "ready")
    projection, scores = project(tracked.embeddings(run)), tracked.scores(run)
    assert found["note"] == projection.note
    middle = (projection.points.min(axis=0) + projection.points.max(axis=0)) / 2
    scaled = 0.5 + (projection.points - middle) / np.ptp(projection.points, axis=0).max()
    assert found["x"] == pytest.approx(scaled[:, 0].tolist(), abs=1e-4)
    assert found["y"] == pytest.approx((1 - scaled[:, 1]).tolist(), abs=1e-4)
    classes = [found["classes"][number] for number in found["numbers"]]
    assert classes == np.where(scores["label"] == 1, scores["generator"], "real").tolist()
    assert len(list(cache_of(tracked.tracking_uri).glob(f"points-*/{run}-tsne.npz"))) == 1


@pytest.mark.long
def test_points_by_umap_are_asked_for_kept_and_said(page: Client, tracked: Store) -> None:
    run = page.json("/api/grid")["attribution"][0]["runs"][0]["id"]
    found = until(lambda: page.json(f"/api/points/{run}?by=umap"), lambda read: read["state"] == "ready")
    projection = project(tracked.embeddings(run), kind="umap")
    assert (found["kind"], found["note"]) == ("umap", projection.note)
    middle = (projection.points.min(axis=0) + projection.points.max(axis=0)) / 2
    scaled = 0.5 + (projection.points - middle) / np.ptp(projection.points, axis=0).max()
    assert found["x"] == pytest.approx(scaled[:, 0].tolist(), abs=1e-4)
    assert len(list(cache_of(tracked.tracking_uri).glob(f"points-*/{run}-umap.npz"))) == 1
    assert page.send(f"/api/points/{run}?by=pca").status == 404


def test_a_picture_that_is_sent_is_answered_as_predict_answers(page: Client, tracked: Store) -> None:
    run = run_of(page, "xception_scratch", "ldm")
    manifest = open_images(tracked)
    rows = manifest.table[manifest.table["split"] == "test"].iloc[[0, -1]]
    predictor = Predictor(tracked, run, device="cpu", weight_files={})
    for path, pixels in zip(manifest.paths(rows), read_images(manifest, rows), strict=True):
        expected = Answer("")
        predictor.answer([expected], [pixels])
        answer = page.send(f"/api/score/{run}", method="POST", body=Path(path).read_bytes())
        assert answer.status == 200, answer.body
        for name in ("verdict", "score", "inside", "reason", "probability", "attribution"):
            value = getattr(expected, name)
            assert answer.json[name] == (pytest.approx(value, abs=1e-5) if isinstance(value, float) else value)
        assert (answer.json["width"], answer.json["height"]) == (64, 64)


# Mistakes ------------------------------------------------------------------------------------------------------------


def test_what_does_not_exist_is_refused_in_words(page: Client) -> None:
    run = run_of(page, "residual_linear", "lama")
    unknown = [
        "/api/grid?metric=beauty", "/api/grid?condition=../x", "/api/images", "/api/images?run=none",
        f"/api/images?run={run}&cell=real", f"/api/images?run={run}&made_by=sdxl", f"/api/images?run={run}&sort=x",
        f"/api/images?run={run}&page=99", f"/api/images?run={run}&page=0", "/api/photograph/99999",
        "/thumbnail/99999", "/picture/99999", "/mask/99999", f"/map/{run}/99999", "/map/none/0", "/api/maps/none",
        "/api/points/none", f"/api/points/{run}", "/static/none.js", "/thumbnail/0?condition=nonsense",
    ]  # fmt: skip
    for address in unknown:
        answer = page.send(address)
        assert (answer.status, address) == (404, address)
        assert len(answer.error) > 10
    for address in (f"/api/images?run={run}&page=x", f"/api/images?run={run}&from=2", f"/api/images?run={run}&to=nan",
                    f"/api/images?run={run}&answer=maybe"):  # fmt: skip
        assert page.send(address).status == 400
    assert "was not scored under the condition" in page.get("/api/images", run=run, condition="jpeg-75").error


# A grid that runs ----------------------------------------------------------------------------------------------------


def test_matrices_fill_up_while_the_grid_runs(tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "PAUSE", 0.0)
    monkeypatch.setattr(live, "TIMES", 0.0)
    grid = Grid(store, tmp_path / "runs", generators=("lama", "ldm"), num_each=12)
    first, second = grid.spec(train="lama"), grid.spec(train="ldm")
    grid.plan(first, second)
    with served(store) as client:
        begun = client.json("/api/grid")
        assert begun["trials"] | {"pending": 2, "finished": 0, "total": 2} == begun["trials"]
        assert method(begun, "residual_linear")["values"] == [[None, None], [None, None]]
        answer = client.get("/thumbnail/0")
        assert (answer.status, answer.error) == (
            409,
            "no trial is finished yet: wait until the first matrix has a value",
        )
        (run,) = grid.finish(first)
        half = until(lambda: client.json("/api/grid"), lambda read: read["version"] > begun["version"])
        assert half["trials"]["finished"] == 1
        values = method(half, "residual_linear")["values"]
        assert [(row[0] is None, row[1] is None) for row in values] == [(False, True), (False, True)]
        assert client.json("/api/images", run=run, cell="lama")["total"] == 24
        grid.finish(second)
        whole = until(lambda: client.json("/api/grid"), lambda read: read["trials"]["finished"] == 2)
        assert all(None not in row for row in method(whole, "residual_linear")["values"])
        assert client.json("/api/grid")["version"] == whole["version"]
        (tmp_path / "runs" / "mlflow.db").rename(tmp_path / "away.db")
        # A reading that had begun before says it in other words.
        gone = until(lambda: client.json("/api/grid"), lambda read: "no MLflow store at" in (read["problem"] or ""))
        assert gone["methods"] == whole["methods"]


def test_a_score_that_is_no_log_odds_is_held_against_the_threshold_from_validation(tmp_path: Path, store: str) -> None:
    grid = Grid(store, tmp_path / "runs", generators=("lama", "ldm"), num_each=12)
    (run,) = grid.finish(grid.spec("real_only", train="none"))
    with served(store) as client:
        at_half = method(client.json("/api/grid", metric="accuracy"), "real_only")
        assert at_half["values"] == [[None], [None]]
        assert at_half["note"] == "The score of this method is no log-odds, so it has no value at p = 0.5."
        found = client.json("/api/images", run=run, cell="lama", metric="auroc")
        assert found["threshold"] == "An image counts as fake above a score of +0.250, the threshold from validation."
        for image in found["images"]:
            assert image["right"] == ((image["score"] > THRESHOLD) == (image["made_by"] == "lama"))
