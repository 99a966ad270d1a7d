"""The report on detectors' own maps: tables from a grid that was really run, and derived again."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient
from PIL import Image

import launch
from analysis.__main__ import main
from analysis.cam import OWN_MAP, make_panels, open_images
from analysis.detectors import load_detector
from analysis.export import find_manifest, write_evidence
from analysis.intervals import Part, mean
from analysis.maps import METRICS, MapCell, map_areas, map_cells, map_table
from analysis.page import Block, Fold, Folder, Picture, Table, Text
from analysis.parts import Options, Report
from analysis.parts.cam import cam
from analysis.parts.maps import maps
from analysis.published import localisation_beside_published
from analysis.store import Store, open_store
from analysis.verdicts import Judge
from analysis.verify.verify import verify
from data.audits import Finding
from data.verdict import Verdict
from grid import names
from models.localisation import chance
from tests.corpora import write_dolos

Build = Callable[[Store, Options], tuple[Report, list[Block]]]


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two seeds of a method that learns from masks, trained on one generator of two."""
    folder = tmp_path_factory.mktemp("mapped")
    corpus = write_dolos(folder / "corpus", ("lama", "ldm"), {"train": 12, "valid": 4, "test": 6}, size=64)
    for number, path in enumerate(sorted(corpus.glob("celebahq/fake/*/masks/*/*.png"))):  # masks of several areas
        mask = np.asarray(Image.open(path)).copy()
        mask[16 : 16 + 4 * (number % 4)] = 255
        Image.fromarray(mask).save(path)
    decoder = ("backbone=demo-vit-64", "channels=8", "convolutions=1", "epochs=2", "batch_size=8")
    arguments = [
        "dolos", f"--data={corpus}", f"--runs={folder / 'runs'}", "--local", "--seeds", "0", "1",
        "--methods=mask_decoder", "--weights=mask_decoder=random", "--tasks=detection", "--train-on=lama",
        *(f"--set=mask_decoder.{setting}" for setting in decoder),
    ]  # fmt: skip
    assert launch.main(arguments) == 0
    return open_store("dolos", tracking_uri=f"sqlite:///{folder / 'runs' / 'mlflow.db'}")


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Build:
    """Store, options -> the report and the blocks of its section on maps; pictures are not drawn."""
    monkeypatch.setattr(Folder, "picture", lambda self, name, figure, *, alt, **_: Picture(name, alt, "data:,", 1, 1))

    def made(store: Store, options: Options) -> tuple[Report, list[Block]]:
        report = Report(store, Folder(Path(mkdtemp(dir=tmp_path)) / "report"), options, [], lambda text: None)
        return report, list(maps(report))

    return made


def flattened(blocks: list[Block]) -> list[Block]:
    found: list[Block] = []
    for block in blocks:
        found += flattened(list(block.blocks)) if isinstance(block, Fold) else [block]
    return found


def said(blocks: list[Block]) -> str:
    return " ".join(block.text for block in flattened(blocks) if isinstance(block, Text))


def test_every_cell_is_the_mean_over_fakes_and_seeds(mapped: Store, build: Build) -> None:
    report, _ = build(mapped, Options(cam=False))
    table = pd.read_csv(report.folder.path / "tables" / "maps.csv", keep_default_na=False, na_values=[""])
    runs = mapped.runs()
    frames = []
    for run_id, trained_on in runs[["run_id", "trained_on"]].itertuples(index=False):
        (file,) = Path(mapped.tracking_uri.removeprefix("sqlite:///")).parent.glob(
            f"artifacts/{run_id}/**/maps/*.parquet"
        )
        frames.append(pd.read_parquet(file).assign(trained_on=trained_on))
    images = pd.concat(frames)
    cells = table[table["kind"] == "cell"]
    assert set(cells["metric"]) == set(METRICS)
    assert len(cells) == 2 * len(METRICS)
    for row in cells.to_dict("records"):
        own = images[(images["trained_on"] == row["trained_on"]) & (images["tested_on"] == row["tested_on"])]
        assert row["mean"] == pytest.approx(own[row["metric"]].mean())
        assert row["mean_mask"] == pytest.approx(own[f"mean_mask_{row['metric']}"].mean())
        assert row["shuffled"] == pytest.approx(own[f"shuffled_{row['metric']}"].mean())
        assert row["chance"] == pytest.approx(np.mean(chance(row["metric"], own["area"].to_numpy())))
        assert (row["num_images"], row["num_seeds"]) == (6, 2)
        assert row["low"] <= row["mean"] <= row["high"]
    assert list(table[table["kind"] != "cell"]["kind"].unique()) == ["in-domain mean", "cross-generator mean"]
    assert not table.drop(columns=["trained_on", "tested_on"]).isna().any(axis=None)


def test_the_page_says_the_threshold_of_each_run(mapped: Store, build: Build) -> None:
    _, blocks = build(mapped, Options(cam=False))
    measured = [mapped.localisation(str(run_id)) for run_id in mapped.runs()["run_id"]]
    for seed, found in enumerate(measured):
        assert found is not None
        assert f"trained on lama, seed {seed}: {found[1]['threshold']:+.2f}" in said(blocks)


def test_every_table_is_derived_again(mapped: Store, build: Build, tmp_path: Path) -> None:
    report, _ = build(mapped, Options(cam=False))
    (tmp_path / "evidence").mkdir()
    write_evidence(mapped, tmp_path / "evidence", find_manifest(mapped, None))
    result = verify(tmp_path / "evidence", report.folder.path)
    assert [str(difference) for difference in result.differences] == []
    lines = {line.file: line for line in [*result.report, *result.evidence]}
    assert lines["localisation"].agree == 2 * 12  # test fakes of each trial
    for name in ("maps", "maps-means", "maps-areas", "maps-areas-means", "maps-published"):
        assert lines[f"tables/{name}.csv"].agree > 0
        assert set(lines[f"tables/{name}.csv"].unverified) <= {"copied from a paper"}
    assert lines["tables/maps-matrix-mask_decoder-iou_valid.csv"].agree == 2
    assert not any("no rule" in str(line) for line in result.report)


def test_what_is_changed_is_found(mapped: Store, build: Build, tmp_path: Path) -> None:
    report, _ = build(mapped, Options(cam=False))
    path = report.folder.path / "tables" / "maps.csv"
    path.write_text(path.read_text().replace(",iou_fixed,0.", ",iou_fixed,0.9", 1))
    evidence = tmp_path / "evidence"
    evidence.mkdir()
    write_evidence(mapped, evidence, find_manifest(mapped, None))
    (first, *_) = sorted((evidence / "localisation").glob("*.parquet"))
    images = pd.read_parquet(first)
    images.loc[0, "area"] = 0.99
    images.to_parquet(first, index=False)
    found = [str(difference) for difference in verify(evidence, report.folder.path).differences]
    assert any(text.startswith("tables/maps.csv") and "column mean: shown 0.9" in text for text in found)
    assert any(text.startswith(f"localisation/{first.name}") and "column area: shown 0.99" in text for text in found)


def test_fakes_that_are_missing_from_a_trials_maps_are_found(mapped: Store, build: Build, tmp_path: Path) -> None:
    report, _ = build(mapped, Options(cam=False))
    evidence = tmp_path / "evidence"
    evidence.mkdir()
    write_evidence(mapped, evidence, find_manifest(mapped, None))
    (first, *_) = sorted((evidence / "localisation").glob("*.parquet"))
    images = pd.read_parquet(first)
    images.iloc[1:].to_parquet(first, index=False)
    found = [str(difference) for difference in verify(evidence, report.folder.path).differences]
    assert any(str(images["path"][0]) in text and "shown no row" in text for text in found)
    generator = str(images["tested_on"][0])
    assert any(f"5 fakes of {generator}, measured or left out" in text for text in found)


def test_numbers_that_no_map_has_are_found(mapped: Store, build: Build, tmp_path: Path) -> None:
    report, _ = build(mapped, Options(cam=False))
    evidence = tmp_path / "evidence"
    evidence.mkdir()
    write_evidence(mapped, evidence, find_manifest(mapped, None))
    (first, second, *_) = sorted((evidence / "localisation").glob("*.parquet"))
    images = pd.read_parquet(first)
    images["flat"], images["shuffled_f1_fixed"] = True, 0.001
    images["iou_oracle"] = -1.0
    images.to_parquet(first, index=False)
    images = pd.read_parquet(second)
    gone = str(images["tested_on"][0])
    images[images["tested_on"] != gone].to_parquet(second, index=False)
    facts = json.loads(second.with_suffix(".json").read_text(encoding="utf-8"))
    facts["left_out"][gone] = {"without a mask": int((images["tested_on"] == gone).sum())}
    second.with_suffix(".json").write_text(json.dumps(facts), encoding="utf-8")
    found = [str(difference) for difference in verify(evidence, report.folder.path).differences]
    for text in ("because the map is constant", "shuffled_f1_fixed", "at least", f"maps/{gone}/", "no such maps"):
        assert any(text in line for line in found), text


def test_published_values_stand_beside_ours_with_what_differs(mapped: Store) -> None:
    cells = {"mask_decoder": map_cells(mapped, list(mapped.runs()["run_id"]))}
    table = localisation_beside_published(mapped, map_table(cells)).set_index(["tested_on", "trained_on"])
    assert table.loc[("ldm", "lama"), "published"] == pytest.approx(0.216)
    assert len(table) == 2
    note = str(table.loc[("ldm", "lama"), "note"])
    assert "another localiser: mask_decoder, not DeCLIP" in note
    assert "random weights" in note
    assert "6 real test images instead of 900" in note


def test_masks_that_the_audit_doubts_show_no_maps(mapped: Store, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Finding("masks", "warn", "ldm: 9 of 9 masks are inverted", "invert them")
    monkeypatch.setitem(mapped.__dict__, "verdict", Verdict(("masks",), (wrong,)))
    report, blocks = build(dataclasses.replace(mapped), Options(cam=False))
    monkeypatch.setitem(report.store.__dict__, "verdict", Verdict(("masks",), (wrong,)))
    blocks = list(maps(report))
    assert "Maps are not shown on the fakes of ldm: 9 of 9 masks are inverted" in said(blocks)
    assert set(pd.read_csv(report.folder.path / "tables" / "maps.csv")["tested_on"].dropna()) == {"lama"}


def test_a_run_whose_numbers_are_gone_is_said(mapped: Store, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = mapped.broken(str(mapped.runs()["run_id"].iloc[0]), names.LOCALISATION, "it is gone")

    def fail(self: Store, run_id: str) -> None:
        raise lost

    monkeypatch.setattr(Store, "localisation", fail)
    report, blocks = build(mapped, Options(cam=False))
    assert "mask_decoder: no localisation: maps/localisation.parquet of run" in said(blocks)
    assert len(report.problems) == 1


def test_a_grid_without_maps_has_no_such_section(tracked: Store, build: Build) -> None:
    _, blocks = build(tracked, Options(cam=False))
    assert blocks == []


# By hand --------------------------------------------------------------------------------------------------------------


def cell(values: list[float], areas: list[float], sources: list[str]) -> MapCell:
    frame = pd.DataFrame({"path": sources, "source_id": sources, "area": areas, "flat": False, "ap": values})
    return MapCell(frame.assign(mean_mask_ap=0.3), 1)


def test_means_and_intervals_are_over_photographs() -> None:
    cells = {"a": {("x", "x"): cell([0.2, 0.4, 0.9], [0.1, 0.2, 0.3], ["p", "q", "r"])}}
    cells["a"]["x", "y"] = cell([0.5, 0.7], [0.5, 0.1], ["p", "r"])
    table = map_table(cells).set_index(["kind", "trained_on", "tested_on"])
    assert table.loc[("cell", "x", "x"), "mean"] == pytest.approx(0.5)
    assert table.loc[("cell", "x", "x"), "chance"] == pytest.approx(0.2)
    assert np.isnan(table.loc[("cell", "x", "x"), "shuffled"])
    influence = np.array([-0.1, -0.1 / 3, 0.4 / 3])
    expected = Part(1.0, 0.5, influence, 3, None).estimate()
    assert tuple(table.loc[("cell", "x", "x"), ["low", "high"]]) == pytest.approx(expected.interval)
    together = mean([expected])
    assert tuple(table.loc[("in-domain mean", "", ""), ["low", "high"]]) == pytest.approx(together.interval)
    assert table.loc[("cross-generator mean", "", ""), "mean"] == pytest.approx(0.6)


def test_thirds_are_of_the_fakes_of_each_generator() -> None:
    areas = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    table = map_areas({"a": {("x", "x"): cell([0, 0.2, 0.4, 0.6, 0.8, 1], areas, list("pqrstu"))}})
    cells = table[table["kind"] == "cell"].set_index("third")
    assert cells["mean"].to_dict() == pytest.approx({"smallest third": 0.1, "middle third": 0.5, "largest third": 0.9})
    assert cells["num_fakes"].tolist() == [2, 2, 2]
    assert cells["area_to"].tolist() == pytest.approx([0.2, 0.4, 0.6])


# Panels and predict ---------------------------------------------------------------------------------------------------


def test_panels_show_the_maps_of_the_detectors_themselves(mapped: Store, tmp_path: Path) -> None:
    panels = make_panels(mapped, open_images(mapped), "mask_decoder", count=2)
    for panel in panels:
        for column in panel.columns:
            assert (column.kind, column.grid, column.problem) == (OWN_MAP, (16, 16), "")
            assert column.maps is not None
            run = column.run_id
            detector, _ = load_detector(mapped, run)
            embeddings = detector.predict(detector.inputs(panel.images)).embeddings
            judged = Judge(mapped, run).judge(panel.images, embeddings)
            assert list(column.distances) == [each.distance for each in judged]
            assert len(column.distances) == 2
            for image, found in zip(panel.images, column.maps, strict=True):
                assert found.shape == image.shape[:2]
                assert 0 <= found.min() <= found.max() <= 1
    report = Report(mapped, Folder(tmp_path / "report"), Options(cam_images=2), [], lambda text: None)
    blocks = list(cam(report))
    assert "mask_decoder has maps of its own; the section Localisation holds them against the masks." in said(blocks)
    (alt,) = (b.alt for b in flattened(blocks) if isinstance(b, Picture) and b.name == "cam-mask_decoder-lama")
    assert alt.startswith("Maps of mask_decoder [demo-vit-64, random weights, small form] on 2 fakes of lama")
    assert not any(isinstance(block, Table) for block in flattened(blocks))  # Grad-CAM is not measured


def test_predict_writes_the_map_over_the_picture(
    mapped: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = open_images(mapped)
    picture = manifest.paths(manifest.select("test", ("lama",)))[0]
    run_id = str(mapped.runs()["run_id"].iloc[0])
    arguments = ["predict", str(picture), "--run", run_id, "--tracking-uri", mapped.tracking_uri]
    assert main([*arguments, "--out", str(tmp_path)]) in (0, 3)
    assert "overlays show the map of mask_decoder itself" in capsys.readouterr().err
    main([*arguments, "--out", str(tmp_path), "--json"])
    answer = json.loads(capsys.readouterr().out)
    assert (answer["own_maps"], answer["grad_cam"]) == (True, False)
    if answer["images"][0]["verdict"] is not None:
        assert np.asarray(Image.open(answer["images"][0]["cam"])).shape == (64, 64, 3)


def test_values_per_epoch_and_values_of_maps_are_kept_apart(mapped: Store) -> None:
    history = mapped.history()
    assert {"valid/iou", "train/loss"} <= set(history["metric"])
    assert not history["metric"].str.startswith("maps/").any()
    run_id = str(mapped.runs()["run_id"].iloc[0])
    logged = MlflowClient(tracking_uri=mapped.tracking_uri).get_run(run_id).data.metrics
    assert mapped.metrics_of(run_id, names.MAPS) == {name: v for name, v in logged.items() if name.startswith("maps/")}
