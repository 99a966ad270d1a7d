"""The report on a grid that was really run: what lies in the folder, in MLflow, and in a browser."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from mlflow.tracking import MlflowClient

import analysis.parts.cam
from analysis.__main__ import main
from analysis.answer import with_most_cells
from analysis.detectors import load_detector
from analysis.export import evidence_of_report
from analysis.figures.cam import cam_panel
from analysis.page import Folder, with_pictures_inside
from analysis.parts import Options, Report
from analysis.parts.cam import cam
from analysis.report import make_report
from analysis.store import Store, open_store
from analysis.verify.verify import verify
from data.audits import Finding
from data.manifest import Manifest
from grid import names
from tests.browser import opened

METHODS = ("xception_scratch", "clip_linear", "residual_linear")
SECTIONS = [
    "Summary", "One photograph", "What this does not show", "Audit", "Matrices", "Thresholds", "Edited area",
    "Published values", "Published values beside ours", "Comparison", "Attribution",
    "Grad-CAM", "Curves", "Runs", "Provenance",
]  # fmt: skip


@pytest.fixture(scope="module")
def report(tracked: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "report"
    arguments = ["--tracking-uri", tracked.tracking_uri, "--out", str(out), "--cam-images", "3"]
    assert main([*arguments, "--compare", "xception_scratch", "clip_linear"]) == 0
    return out


class Page(HTMLParser):
    """What a page holds, read without a browser."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.images: list[dict[str, str | None]] = []
        self.sources: list[str] = []
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "img":
            self.images.append(given)
        if given.get("id"):
            self.ids.add(str(given["id"]))
        if tag == "a":
            self.links.append(str(given["href"]))
        elif given.get("href") or given.get("src"):
            self.sources.append(str(given.get("src") or given.get("href")))


@pytest.fixture(scope="module")
def page(report: Path) -> Page:
    return Page((report / "index.html").read_text(encoding="utf-8"))


# Derived again --------------------------------------------------------------------------------------------------------


def test_every_table_is_derived_again_or_says_why_not(tracked: Store, report: Path, tmp_path: Path) -> None:
    """A new table of the report needs a rule in `analysis.verify.tables`, or a reason there."""
    evidence_of_report(report, tmp_path, tracking_uri=tracked.tracking_uri)
    result = verify(tmp_path, report)
    assert [str(difference) for difference in result.differences] == []
    lines = {line.file: line for line in result.report}
    assert {f"tables/{path.name}" for path in (report / "tables").iterdir()} <= set(lines)
    assert {file: line.unverified for file, line in lines.items() if "no rule" in str(line)} == {}
    for name in (
        "compare-xception_scratch-clip_linear-auroc-runs",
        "localisation",
        "localisation-clip_linear-iou",
        "published",
    ):
        assert lines[f"tables/{name}.csv"].agree > 0
    # of the images of Grad-CAM: which run, which image, and whether it was answered right; the maps need the images
    assert lines["tables/localisation-images.csv"].unverified.keys() == {"needs the images and the detector"}


CHANGES = [  # table, what stands there, what is written instead, what is said
    ("compare-xception_scratch-clip_linear-auroc-runs", "\nmean,detection,,,auroc,0.", "\nmean,detection,,,auroc,5.",
     "row mean detection   auroc, column a, this run: shown 5."),
    ("published", "detection,cell,clip_linear,lama,lama,0.", "detection,cell,clip_linear,lama,lama,6.",
     "row cell detection clip_linear lama lama, column ours: shown 6."),
    ("localisation-images", "True", "False", "column correct: shown False, derived True"),
    ("calibration", "demo-vit-64", "ViT-L-14", "row clip_linear, column backbone_and_weights: shown ViT-L-14"),
]  # fmt: skip


def test_what_is_changed_is_found(tracked: Store, report: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(report, tmp_path / "own"))
    for name, old, new, _ in CHANGES:
        path = own / "tables" / f"{name}.csv"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new, 1))
    before, mark, after = (own / "index.html").read_text(encoding="utf-8").partition('"matrix-clip_linear-auroc"')
    after = re.sub(r"in-domain \d\.\d{3}", "in-domain 8.888", after, count=1)
    after = re.sub(r"(<td[^>]*>)\d\.\d{3}", r"\g<1>7.777", after, count=1)
    after = after.replace('"matrix-clip_linear-eer"', '"matrix-nothing-eer"')
    (own / "index.html").write_text(before + mark + after, encoding="utf-8")
    (tmp_path / "evidence").mkdir()
    evidence_of_report(own, tmp_path / "evidence", tracking_uri=tracked.tracking_uri)
    found = [str(difference) for difference in verify(tmp_path / "evidence", own).differences]
    for name, _, _, where in CHANGES:
        assert any(text.startswith(f"tables/{name}.csv, ") and where in text for text in found)
    of_page = [text for text in found if text.startswith("index.html, matrix-clip_linear-auroc, ")]
    assert len(of_page) == 2
    assert "shown 8.888" in of_page[0]
    assert "row lama, column lama: shown 7.777" in of_page[1]
    assert any(text.startswith("index.html, matrix-nothing-eer, ") for text in found)


# In the folder -------------------------------------------------------------------------------------------------------


def test_every_method_has_its_matrices_as_tables_and_pictures(report: Path) -> None:
    for method in METHODS:
        for metric in ("accuracy", "auroc", "balanced_accuracy", "accuracy_valid_threshold", "ap", "eer"):
            files = [f"tables/matrix-{method}-{metric}.{kind}" for kind in ("csv", "md", "tex")]
            drawn = [f"figures/matrix-{method}-{metric}.{kind}" for kind in ("png", "svg")]
            assert all((report / name).stat().st_size > 0 for name in files)
            assert {(report / name).exists() for name in drawn} == {metric in ("accuracy", "auroc")}
    assert "Rows: tested on, columns: trained on" in (report / "tables/matrix-clip_linear-accuracy.md").read_text()


def test_cells_are_the_logged_values(tracked: Store, report: Path) -> None:
    logged = tracked.results()
    logged = logged[logged["task"] == "detection"]
    for method in METHODS:
        cells = pd.read_csv(report / f"tables/matrix-{method}-auroc.csv")
        of_method = logged[(logged["method"] == method) & (logged["metric"] == "auroc")]
        both = cells.merge(of_method, on=["tested_on", "trained_on"])
        assert len(both) == 4
        assert both["mean"].to_numpy() == pytest.approx(both["value"].to_numpy(), abs=0)


@pytest.mark.parametrize(
    "name",
    [
        "roc-clip_linear", "precision-recall-clip_linear", "reliability-clip_linear", "scores-clip_linear",
        "training-xception_scratch", "confusion-residual_linear", "embeddings-residual_linear",
        "cam-xception_scratch-lama", "cam-clip_linear-ldm", "localisation-clip_linear-iou",
    ],
)  # fmt: skip
def test_pictures_of_everything_else(report: Path, name: str) -> None:
    files = sorted((report / "figures").glob(f"{name}.*"))
    kinds = [".png"] if name.startswith("cam-") else [".png", ".svg"]  # an SVG file of photographs is no sharper
    assert [path.suffix for path in files] == kinds
    assert all(path.stat().st_size > 1000 for path in files)


def test_localisation_is_split_by_right_and_wrong(report: Path) -> None:
    table = pd.read_csv(report / "tables/localisation.csv")
    assert set(table["variant"]) == {"xception_scratch", "clip_linear"}  # the third has no layers
    whole = table[(table["metric"] == "iou") & (table["subset"] == "all")].set_index(
        ["variant", "trained_on", "tested_on"]
    )
    parts = table[(table["metric"] == "iou") & (table["subset"] != "all")]
    assert set(parts["subset"]) <= {"correct", "wrong"}
    counts = parts.groupby(["variant", "trained_on", "tested_on"])["num_images"].sum()
    assert len(whole) == 8
    assert counts.to_dict() == whole["num_images"].to_dict()
    assert whole["chance"].to_numpy() == pytest.approx(0.25)  # a quarter of every picture was repainted


def test_every_image_of_localisation_is_kept_and_answers_have_matrices(report: Path) -> None:
    table = pd.read_csv(report / "tables/localisation.csv")
    images = pd.read_csv(report / "tables/localisation-images.csv")
    whole = table[(table["metric"] == "iou") & (table["subset"] == "all")].set_index(["run_id", "tested_on"])
    means = images.groupby(["run_id", "tested_on"])["iou"].mean().loc[whole.index]
    assert whole["value"].to_numpy() == pytest.approx(means.to_numpy())
    assert (whole["low"] <= whole["value"] + 1e-9).all()
    assert (whole["high"] >= whole["value"] - 1e-9).all()
    found = table[table["variant"] == "xception_scratch"]["subset"].unique()
    for subset in set(found) - {"all"}:
        assert (report / f"tables/localisation-xception_scratch-iou-{subset}.csv").is_file()
    text = (report / "index.html").read_text(encoding="utf-8")
    assert "3 images per cell; shuffled" in text


def test_ece_and_purity_are_in_tables(report: Path) -> None:
    calibration = pd.read_csv(report / "tables/calibration.csv")
    assert len(calibration) == 12
    assert calibration["ece"].between(0, 1).all()
    embeddings = pd.read_csv(report / "tables/embeddings.csv")
    assert list(embeddings["method"]) == list(METHODS)
    assert {"silhouette", "10-NN purity", "chance"} <= set(embeddings)


def test_the_report_is_kept_in_mlflow(tracked: Store, report: Path, tmp_path: Path) -> None:
    client = MlflowClient(tracking_uri=tracked.tracking_uri)
    kept = Path(client.download_artifacts(tracked.parent.info.run_id, "report", str(tmp_path)))
    here = {path.relative_to(report) for path in report.rglob("*") if path.is_file()}
    assert {path.relative_to(kept) for path in kept.rglob("*") if path.is_file()} == here
    page = (kept / "index.html").read_text(encoding="utf-8")
    assert page == with_pictures_inside((report / "index.html").read_text(encoding="utf-8"), report)
    assert all(source.startswith("data:") for source in Page(page).sources)  # MLflow shows the page alone
    for path in here - {Path("index.html")}:
        assert (kept / path).read_bytes() == (report / path).read_bytes()


# Grad-CAM of runs that are not all sound ------------------------------------------------------------------------------


def cams(store: Store, out: Path, method: str = "xception_scratch") -> tuple[Report, pd.DataFrame | None]:
    """The part about Grad-CAM, of one method's runs alone."""
    runs = store.runs()
    others = store.without(runs.loc[runs["method"] != method, "run_id"])
    report = Report(others, Folder(out), Options(cam_images=2), [], lambda text: None)
    list(cam(report))
    table = report.folder.path / "tables" / "localisation.csv"
    return report, pd.read_csv(table) if table.is_file() else None


def problems(report: Report) -> str:
    return "\n".join(problem.text for problem in report.problems)


@pytest.mark.parametrize("first", [True, False])
def test_one_damaged_checkpoint_costs_its_own_column_alone(
    own_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: bool
) -> None:
    said = list[str]()

    def panel(*given: Any, **named: Any) -> Figure:
        figure = cam_panel(*given, **named)
        said.append(" ".join(text.get_text() for axes in figure.axes for text in axes.texts))
        return figure

    monkeypatch.setattr(analysis.parts.cam, "cam_panel", panel)
    store = open_store("dolos", tracking_uri=f"sqlite:///{own_copy / 'mlflow.db'}")
    runs = store.runs().query("method == 'xception_scratch' and task == 'detection'")
    damaged = runs.iloc[0 if first else 1]
    for file in store.checkpoint(damaged["run_id"]).iterdir():
        file.write_bytes(file.read_bytes()[:100])
    report, table = cams(store, tmp_path / "out")
    assert len(said) == 2
    assert all("cannot be" in text for text in said)
    assert table is not None
    assert set(table["trained_on"]) == set(runs["trained_on"]) - {damaged["trained_on"]}
    assert damaged["run_id"] in problems(report)
    assert len(report.problems) == 1


def test_a_column_whose_first_seed_is_not_finished_has_its_next_one(own_copy: Path, tmp_path: Path) -> None:
    uri = f"sqlite:///{own_copy / 'mlflow.db'}"
    (file,) = (own_copy / "artifacts").glob(f"*/artifacts/{names.PLAN}")
    plan = json.loads(file.read_text(encoding="utf-8"))
    for trial in plan["trials"]:
        if (trial["train_generators"], trial["task"]) == (["ldm"], "detection"):
            trial["seed"] = 1
    file.write_text(json.dumps(plan), encoding="utf-8")
    _, table = cams(open_store("dolos", tracking_uri=uri), tmp_path / "out")
    assert table is not None
    assert dict(zip(table["trained_on"], table["seed"], strict=True)) == {"lama": 0, "ldm": 1}


def test_masks_that_an_audit_found_wrong_are_not_used(own_copy: Path, tmp_path: Path) -> None:
    store = open_store("dolos", tracking_uri=f"sqlite:///{own_copy / 'mlflow.db'}")
    folder = own_copy / "cache" / "manifests" / store.data
    wrong = Finding("masks", "warn", "ldm: 9 of 9 masks are inverted", "invert them")
    few = Finding("masks", "note", "lama: 1 of 9 masks is empty", "")
    dataclasses.replace(Manifest.load(folder), findings=(wrong, few)).save(folder)
    report, table = cams(store, tmp_path / "out")
    assert table is not None
    assert set(table["tested_on"]) == set(table["trained_on"]) == {"lama"}
    said = problems(report)
    assert "Grad-CAM is not measured on the fakes of ldm: 9 of 9 masks are inverted" in said
    assert "no validation fake of ldm has a mask to choose a threshold with" in said
    assert "fakes of lama" not in said


@pytest.mark.parametrize("place", ["analysis.cam.image_maps", "analysis.localisation.image_maps"])
def test_a_device_without_memory_left_costs_one_run(
    tracked: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    import analysis.cam

    real, calls = analysis.cam.image_maps, []

    def out_of_memory_at_first(*given: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("CUDA out of memory")
        return real(*given, **named)

    monkeypatch.setattr(place, out_of_memory_at_first)
    report, table = cams(tracked, tmp_path / "out")
    assert table is not None
    assert len(set(table["run_id"])) == 1
    assert "CUDA out of memory" in problems(report)
    assert len(report.problems) == 1


def without_spatial_layer(self: Any) -> Any:
    return self.layers_that_were_renamed


@pytest.mark.long
def test_a_method_whose_layer_is_gone_costs_its_own_columns_and_never_the_report(
    tracked: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = tracked.runs().query("method == 'clip_linear' and task == 'detection'")
    detector, _ = load_detector(tracked, runs["run_id"].iloc[0])
    monkeypatch.setattr(type(detector), "cam_target", without_spatial_layer)
    others = tracked.runs().query("method == 'residual_linear' or task != 'detection'")["run_id"]
    store = tracked.without(others)
    page = make_report(store, tmp_path / "out", Options(cam_images=2, log=False))
    text = page.read_text(encoding="utf-8")
    for run in runs.itertuples():
        assert f"clip_linear, trained on {run.trained_on}: no Grad-CAM of run {run.run_id}: " in text
    # of two runs, in their place and under what is not shown; and so of the photograph beside the summary
    assert text.count("layers_that_were_renamed") == 6
    table = pd.read_csv(tmp_path / "out" / "tables" / "localisation.csv")
    assert set(table["variant"]) == {"xception_scratch"}
    assert list((tmp_path / "out" / "figures").glob("cam-xception_scratch-*.png"))
    assert not list((tmp_path / "out" / "figures").glob("cam-clip_linear-*.png"))
    assert (tmp_path / "out" / "figures" / "roc-clip_linear.png").is_file()


def test_so_does_a_method_of_which_no_panel_can_be_made(
    tracked: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = analysis.parts.cam.make_panels

    def failing(store: Store, manifest: Any, variant: str, **named: Any) -> Any:
        if variant == "clip_linear":
            raise AttributeError("'NoneType' object has no attribute 'shape'")
        return real(store, manifest, variant, **named)

    monkeypatch.setattr("analysis.parts.cam.make_panels", failing)
    report = Report(tracked, Folder(tmp_path / "out"), Options(cam_images=2), [], lambda text: None)
    list(cam(report))
    assert problems(report) == "clip_linear: no Grad-CAM: 'NoneType' object has no attribute 'shape'"
    table = pd.read_csv(report.folder.path / "tables" / "localisation.csv")
    assert set(table["variant"]) == {"xception_scratch"}


# On the page ---------------------------------------------------------------------------------------------------------


def test_the_page_needs_nothing_from_outside_its_folder(report: Path, page: Page) -> None:
    assert len(page.images) > 20
    files = [source for source in page.sources if not source.startswith("data:")]
    assert len(files) == len(page.images)
    assert all(source.startswith("figures/") and (report / source).is_file() for source in files)
    inside = [link for link in page.links if link.startswith("#")]
    assert all(link[1:] in page.ids for link in inside)
    outside = set(page.links) - set(inside)
    assert outside
    assert all(link.startswith("http://127.0.0.1:5000/#/experiments/") for link in outside)  # MLflow's own pages


def test_every_picture_says_in_words_what_it_shows(page: Page) -> None:
    for image in page.images:
        assert len(str(image["alt"])) > 60
        assert any(character.isdigit() for character in str(image["alt"]))


def test_what_it_does_not_show_comes_from_the_data(report: Path) -> None:
    text = (report / "index.html").read_text(encoding="utf-8")
    assert "There is one seed of xception_scratch" in text
    assert "clip_linear and residual_linear do not depend on the seed, and ran once" in text
    minus = "xception_scratch [test_resnet, random weights, small form] minus clip_linear [demo-vit-64, random weights"
    assert f"These two runs, not the two methods. {minus}" in text
    assert "p: these two runs differ" in text
    assert "clip_linear starts from random weights in place of pretrained ones" in text
    assert "xception_scratch starts from random weights" not in text  # as it should
    assert "In LDM&#39;s images the whole picture passed through the autoencoder" in text
    assert "built-in demo" not in text


def test_where_it_comes_from(tracked: Store, report: Path) -> None:
    text = (report / "index.html").read_text(encoding="utf-8")
    command, parent = "--compare xception_scratch clip_linear", tracked.parent.info.run_id
    for fact in (tracked.data, parent, command, "commit of the runs"):
        assert fact in text
    for run_id in tracked.runs()["run_id"]:
        assert run_id in text


# In a browser --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    yield from opened(tmp_path_factory.mktemp("profile"))


def show(browser: Any, report: Path, width: int) -> None:
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get((report / "index.html").as_uri())


OVERFLOW = """
for (const fold of document.querySelectorAll("details")) fold.open = arguments[0];
const root = document.documentElement;
const outside = [...document.querySelectorAll("h1, h2, p, li, summary, .scroll, pre, nav")]
  .filter((one) => one.getBoundingClientRect().right > innerWidth + 0.5).map((one) => one.outerHTML.slice(0, 80));
return JSON.stringify({page: root.scrollWidth, window: innerWidth, outside});
"""


@pytest.mark.parametrize("folds_open", [False, True])
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_scrolls_sideways_but_what_is_meant_to(
    browser: Any, report: Path, width: int, folds_open: bool
) -> None:
    show(browser, report, width)
    seen = json.loads(browser.execute_script(OVERFLOW, folds_open))
    assert seen["outside"] == []
    assert seen["page"] <= seen["window"] == width  # less by a scroll bar, where there is one


ANSWER = """
const box = document.querySelector("#fig-answer .scroll"), picture = box.querySelector("img");
picture.loading = "eager";
return picture.decode().then(() => [picture.currentSrc, box.scrollWidth - box.clientWidth]);
"""


@pytest.mark.parametrize(("width", "file"), [(390, "answer-narrow.png"), (1280, "answer.png")])
def test_the_figure_of_all_methods_fits_a_phone_and_a_screen(browser: Any, report: Path, width: int, file: str) -> None:
    show(browser, report, width)
    source, wider = browser.execute_script(ANSWER)
    assert source.endswith(f"/figures/{file}")
    assert wider <= 1


TOO_WIDE = """
for (const fold of document.querySelectorAll("details")) fold.open = true;
return [...document.querySelectorAll(".scroll:not(.picture)")]
  .filter((box) => box.scrollWidth > box.clientWidth + 1)
  .filter((box) => arguments[0] ? box.querySelectorAll("th[data-column]").length < 11 : box.querySelector(".cards"))
  .map((box) => box.getAttribute("aria-label") + " " + box.scrollWidth);
"""


@pytest.mark.parametrize("width", [390, 1280])
def test_tables_of_ten_columns_fit_a_screen_and_those_that_are_not_long_a_phone(
    browser: Any, report: Path, width: int
) -> None:
    show(browser, report, width)
    assert browser.execute_script(TOO_WIDE, width == 1280) == []


HINTS = """
for (const fold of document.querySelectorAll("details")) fold.open = true;
const boxes = [...document.querySelectorAll(".scroll")], done = arguments[0];
const said = (box) => getComputedStyle(box, "::before").content.includes("scrolls sideways");
setTimeout(() => done([
  boxes.filter((box) => box.scrollWidth > box.clientWidth + 1).length,
  boxes.filter((box) => (box.scrollWidth > box.clientWidth + 1) !== said(box)).map((box) => box.ariaLabel),
]), 300);
"""


def test_what_scrolls_sideways_on_a_phone_says_so(browser: Any, report: Path) -> None:
    show(browser, report, 390)
    count, wrong = browser.execute_async_script(HINTS)
    assert count
    assert wrong == []


SCALES = """
for (const fold of document.querySelectorAll("details")) fold.open = true;
return [...document.querySelectorAll(".row")].map((row) => [...row.querySelectorAll("img")]
  .map((one) => one.getBoundingClientRect().width / one.getAttribute("width")));
"""


@pytest.mark.parametrize("width", [390, 1280])
def test_pictures_side_by_side_are_on_one_scale(browser: Any, report: Path, width: int) -> None:
    show(browser, report, width)
    scales = browser.execute_script(SCALES)
    assert len(scales) >= len(METHODS)  # confusion matrix and t-SNE of each
    assert all(max(row) - min(row) < 0.01 for row in scales)


FITS = """
for (const fold of document.querySelectorAll("details")) fold.open = true;
return [...document.querySelectorAll(".heat")].map((table) => ({
  across: table.scrollWidth - table.parentElement.clientWidth, name: table.caption.textContent,
  letters: Math.min(
    ...[...table.querySelectorAll("td, td small")].map((each) => parseFloat(getComputedStyle(each).fontSize))),
  rows: [...table.tBodies[0].rows].map((row) => row.cells.length),
}));
"""


@pytest.mark.parametrize("width", [390, 1280])
def test_matrices_fit_and_can_be_read_without_zoom(browser: Any, report: Path, width: int) -> None:
    show(browser, report, width)
    maps = browser.execute_script(FITS)
    assert len(maps) >= len(METHODS) * 9
    assert [one["name"] for one in maps if one["across"] > 0] == []
    assert min(one["letters"] for one in maps) >= 10  # CSS pixels
    assert all(count == 3 for one in maps for count in one["rows"] if "AUROC" in one["name"])  # a name, two generators


BROKEN = """
for (const fold of document.querySelectorAll("details")) fold.open = true;
const broken = new Set();
for (const cell of document.querySelectorAll("td:not(.anywhere), th[data-column]")) {
  const walker = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    for (const { 0: word, index } of node.data.matchAll(/[^\\s_/-]+/g)) {
      const range = document.createRange();
      range.setStart(node, index);
      range.setEnd(node, index + word.length);
      if (new Set([...range.getClientRects()].map((box) => Math.round(box.top))).size > 1) broken.add(word);
    }
  }
}
return [...broken];
"""


@pytest.mark.parametrize("width", [390, 1280])
def test_no_name_in_a_table_is_broken_inside_a_word(browser: Any, report: Path, width: int) -> None:
    show(browser, report, width)
    assert browser.execute_script(BROKEN) == []


def test_an_interval_stands_below_its_value_and_two_rows_head_the_summary(browser: Any, report: Path) -> None:
    show(browser, report, 1280)
    places = browser.execute_script("""
const cell = document.querySelector("#summary td.number:has(small)");
const value = document.createRange();
value.selectNodeContents(cell.querySelector("span").firstChild);
const interval = cell.querySelector("small");
return [value.getBoundingClientRect().bottom, interval.getBoundingClientRect().top + 2, interval.innerText,
        [...document.querySelectorAll("#summary .groups th")].map((one) => one.innerText)];
""")
    assert places[0] <= places[1]
    assert places[2].startswith("[0.")
    assert places[3] == ["accuracy", "AUROC"]


def test_backbone_and_weights_stand_in_every_picture_table_and_file_of_a_method(report: Path) -> None:
    label = "clip_linear [demo-vit-64, random weights, small form]"
    pictures = [path for path in (report / "figures").glob("*clip_linear*.svg") if "xception" not in path.name]
    assert len(pictures) > 10
    for path in pictures:
        text = re.sub(r"<!--.*?-->|<[^>]*>", " ", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        assert label in " ".join(text.split()), path.name  # over several lines, if the title is wrapped
    for path in (report / "tables").iterdir():
        text = path.read_text(encoding="utf-8").replace("\\_", "_")
        if "clip_linear" in text and path.stem not in ("audit", "provenance", "runs"):
            assert "demo-vit-64, random weights" in text, path.name


DRAWN = """
const pictures = [...document.images], done = arguments[0];
for (const picture of pictures) picture.loading = "eager";
const whole = (picture) => picture.decode().then(() => picture.naturalWidth > 0, () => false);
Promise.all(pictures.map(whole)).then((drawn) => done(pictures.filter((_, at) => !drawn[at]).map((one) => one.src)));
"""


def test_the_console_is_silent_and_every_picture_is_drawn(browser: Any, report: Path) -> None:
    show(browser, report, 390)
    browser.set_script_timeout(60)
    assert browser.execute_async_script(DRAWN) == []
    loaded = browser.execute_script("return performance.getEntriesByType('resource').map((one) => one.name)")
    figures = f"{(report / 'figures').as_uri()}/"
    assert [name for name in loaded if not name.startswith(("data:", figures))] == []
    assert browser.get_log("browser") == []


def test_pictures_are_loaded_late_and_keep_their_place(browser: Any, report: Path, page: Page) -> None:
    show(browser, report, 390)
    loaded = "return [...document.images].filter((one) => one.naturalWidth > 0).length"
    places = "return JSON.stringify([...document.querySelectorAll('h2')].map((one) => one.offsetTop))"
    at_first, before = browser.execute_script(loaded), browser.execute_script(places)
    assert at_first < len(browser.execute_script("return [...document.images]")) / 2
    browser.set_script_timeout(60)
    assert browser.execute_async_script(DRAWN) == []
    moved = np.subtract(json.loads(browser.execute_script(places)), json.loads(before))
    assert np.abs(moved).max() <= len(page.images)  # less than a pixel each: their sizes are rounded


def test_every_section_is_there_and_can_be_gone_to(browser: Any, report: Path) -> None:
    show(browser, report, 390)
    assert browser.execute_script("return [...document.querySelectorAll('h2')].map((one) => one.innerText)") == SECTIONS
    reached = browser.execute_script(
        "return [...document.querySelectorAll('nav a')].map((one) => document.querySelector(one.hash).innerText)"
    )
    assert [text.splitlines()[0] for text in reached] == SECTIONS


def test_tables_are_sorted_by_a_click(browser: Any, report: Path) -> None:
    show(browser, report, 1280)
    column = """
const table = document.querySelector("#summary table");
const heads = [...table.querySelectorAll("thead th[data-column]")];
const place = heads.findIndex((one) => one.dataset.column === "accuracy, in-domain");
if (arguments[0]) heads[place].querySelector("button").click();
return [...table.tBodies[0].rows].map((row) => parseFloat(row.cells[place].innerText));
"""
    before = browser.execute_script(column, False)
    assert browser.execute_script(column, True) == sorted(before)
    assert browser.execute_script(column, True) == sorted(before, reverse=True)


def test_a_link_opens_the_fold_in_which_its_run_is(browser: Any, report: Path) -> None:
    show(browser, report, 1280)
    link = browser.execute_script("return [...document.querySelectorAll('#matrices td a')].map((one) => one.hash)[0]")
    assert link.startswith("#run-")
    browser.execute_script(f"location.hash = '{link}'")
    assert browser.execute_script(f"return document.querySelector('{link}').getBoundingClientRect().height > 0")


def test_only_means_over_the_same_cells_are_ranked() -> None:
    def cells(**held: str) -> pd.DataFrame:
        rows = [(name, tested_on, trained) for name, on in held.items() for trained in on for tested_on in "ab"]
        return pd.DataFrame(rows, columns=["variant", "tested_on", "trained_on"])

    assert with_most_cells(cells(one="a", other="b")) == ["one"]
    assert with_most_cells(cells(one="a", other="b", third="b")) == ["other", "third"]
    assert with_most_cells(cells(one="ab", other="b", third="ab")) == ["one", "third"]
    assert with_most_cells(cells()) == []
