"""The parts of a report: what every part keeps to, and what each shows of conditions, training sets and the corpus."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import get_args

import pandas as pd
import pytest

import analysis.parts
from analysis.page import Block, Bullets, Fold, Folder, HeatMap, HeatMaps, Picture, Row, Section, Table, Text
from analysis.parts import Options, Part, Report, list_parts, register_part
from analysis.parts.audit import audit
from analysis.parts.cam import cam
from analysis.parts.limitations import limitations
from analysis.parts.published import published
from analysis.parts.robustness import robustness
from analysis.parts.runs import runs
from analysis.parts.summary import summary
from analysis.report import make_report
from data.audits import Finding
from data.conditions import get_condition
from data.verdict import Verdict
from grid import tracking
from grid.equal_size import EqualSize
from models.metrics import Metric, register_metric
from tests.analysis.grids import GENERATORS, Grid
from tests.grid.grids import fresh_store

PARTS = list_parts()
MakeReport = Callable[..., Report]


def everything(grid: Grid) -> None:
    """Of all that a part may meet, something."""
    conditions = ["jpeg-75", "paste-back"]
    grid.finish(*(grid.spec(train=name) for name in GENERATORS), grid.attribution(), conditions=conditions)
    fakes = grid.manifest.select("test", grid.manifest.generators).query("label == 1")["digest"]
    grid.tracker.record_areas({digest: number / len(fakes) for number, digest in enumerate(fakes)})
    grid.finish(grid.spec("clip_linear", train="lama+ldm"), grid.attribution("clip_linear", seed=1))
    grid.finish(grid.spec("xception_scratch", train="none"))
    grid.finish(grid.open_set(), grid.open_set(seed=1), grid.open_set(left_out="ldm"), conditions=["jpeg-75"])
    grid.plan(grid.spec("sam_linear"), grid.attribution("sam_linear"), grid.spec(train_condition="jpeg-95"))
    grid.plan(grid.open_set("sam_linear"))


def detection(grid: Grid) -> None:
    grid.finish(grid.spec())


def attribution(grid: Grid) -> None:
    grid.finish(grid.attribution())


GRIDS = [everything, detection, attribution]


@pytest.fixture(scope="module")
def grids(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Grid]:
    made = {}
    for fill in GRIDS:
        folder = tmp_path_factory.mktemp(fill.__name__)
        uri = fresh_store(tmp_path_factory.getbasetemp(), folder / "runs")
        made[fill.__name__] = Grid(uri, folder, num_each=12)
        fill(made[fill.__name__])
    return made


@pytest.fixture
def new_report(store: str, tmp_path: Path) -> MakeReport:
    """Fills a grid of this test alone, and begins a report on it."""

    def make(fill: Callable[[Grid], object], **named: object) -> Report:
        grid = Grid(store, tmp_path, num_each=12, **named)  # type: ignore[arg-type]
        fill(grid)
        return begun(grid, tmp_path / "out")

    return make


def begun(grid: Grid, out: Path) -> Report:
    return Report(grid.open(), Folder(out), Options(), [], lambda text: None)


def flat(blocks: Iterable[Block]) -> Iterator[Block]:
    """Blocks, and those within them."""
    for block in blocks:
        yield block
        yield from flat(block.blocks if isinstance(block, Fold) else block.pictures if isinstance(block, Row) else ())


def heat_maps(blocks: Iterable[Block]) -> list[HeatMap]:
    return [one for block in flat(blocks) if isinstance(block, HeatMaps) for one in block.maps]


def texts(table: Table) -> list[list[str]]:
    return [[cell.text for cell in row] for row in table.rows]


# What every part keeps to --------------------------------------------------------------------------------------------


def test_parts_have_names_titles_and_places_of_their_own() -> None:
    folder = Path(analysis.parts.__file__).parent
    assert {part.name for part in PARTS} == {path.stem for path in folder.glob("*.py")} - {"__init__"}
    assert all(part.title and part.title[0].isupper() for part in PARTS)
    for values in ([part.title for part in PARTS], [part.position for part in PARTS]):
        assert len(set(values)) == len(PARTS)
    assert [part.position for part in PARTS] == sorted(part.position for part in PARTS)


@pytest.mark.parametrize("fill", GRIDS)
@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_every_part_yields_blocks_or_nothing(
    grids: dict[str, Grid], tmp_path: Path, part: Part, fill: Callable[[Grid], None]
) -> None:
    report = begun(grids[fill.__name__], tmp_path / "out")
    blocks = list(part.blocks(report))
    for block in flat(blocks):
        assert isinstance(block, get_args(Block))
        if isinstance(block, Picture):
            assert (report.folder.path / "figures" / f"{block.name}.png").stat().st_size > 1000
            assert re.search(r"\d", block.alt)
        if isinstance(block, Table):
            assert all(len(row) == len(block.columns) for row in block.rows)
        if isinstance(block, Text):
            assert block.text
    page = report.folder.page(title="t", subtitle="s", sections=[Section(part.title, blocks)])
    assert page.is_file()


@pytest.mark.slow
@pytest.mark.long
def test_of_a_whole_grid_nearly_every_part_has_something_to_say(grids: dict[str, Grid], tmp_path: Path) -> None:
    report = begun(grids["everything"], tmp_path / "out")
    silent = {part.name for part in PARTS if not list(part.blocks(report))}
    # no two methods were named, no control was asked for, all training sets are alike, no other task was planned, and
    # no method has maps of its own
    assert silent == {"comparison", "controls", "maps", "strip", "tasks", "train_sets"}


@pytest.mark.usefixtures("own_registers")
def test_a_part_that_is_registered_is_in_the_report_at_its_place(grids: dict[str, Grid], tmp_path: Path) -> None:
    @register_part("toy", title="A toy", position=12)
    def toy(report: Report) -> Iterator[Block]:
        yield Text(f"there are {len(report.runs)} runs")

    @register_part("silent_toy", title="A silent toy", position=13)
    def silent(report: Report) -> Iterator[Block]:
        yield from ()

    with pytest.raises(ValueError, match="a part of a report named 'toy' is registered already"):
        register_part("toy", title="Another", position=1)(toy)
    page = make_report(grids["detection"].open(), tmp_path / "out", Options(cam=False, log=False)).read_text()
    headings = re.findall(r"<h2[^>]*>([^<]*)", page)
    assert headings[:3] == ["Summary", "A toy", "What this does not show"]
    assert "there are 1 runs" in page
    assert "silent" not in page


# Conditions ----------------------------------------------------------------------------------------------------------


def test_where_every_picture_was_clean_conditions_are_no_part(new_report: MakeReport) -> None:
    report = new_report(lambda grid: grid.finish(grid.spec(), grid.attribution()), conditions=["jpeg-75"])
    assert list(robustness(report)) == []


def scored(grid: Grid) -> None:
    """Two methods under different conditions, one under none, and one that is trained without fakes."""
    grid.finish(*(grid.spec(train=name) for name in GENERATORS), conditions=["jpeg-75", "jpeg-50"])
    grid.finish(grid.spec("clip_linear", train="lama"), conditions=["jpeg-75"])
    grid.finish(grid.spec("clip_linear", train="ldm"))
    grid.finish(grid.attribution("sam_linear"), conditions=["jpeg-75"])
    grid.finish(grid.spec("sam_linear"))
    grid.finish(grid.spec("xception_scratch", train="none"), conditions=["jpeg-50"])


def test_each_method_and_condition_has_a_row_and_matrices(new_report: MakeReport) -> None:
    report = new_report(scored)
    introduction, figure, means, table, *folds = robustness(report)
    assert isinstance(introduction, Text)
    for name in ("jpeg-50", "jpeg-75"):
        assert f"{name}: {get_condition(name).summary.rstrip('.')}" in introduction.text
    assert isinstance(table, Table)
    assert isinstance(figure, Picture)
    assert isinstance(means, Table)
    columns = [name for name in table.columns if name.endswith(("in-domain", "cross-generator"))]
    assert table.columns == ["method", "condition", *columns, "shift of real", "shift of fake", "trials"]
    assert len(columns) == 6
    rows = texts(table)
    assert [row[:2] + row[-1:] for row in rows] == [
        ["residual_linear", "clean", "3 of 3"],
        ["residual_linear", "jpeg-75", "3 of 3"],
        ["residual_linear", "jpeg-50", "3 of 3"],
        ["clip_linear", "clean", "2 of 2"],
        ["clip_linear", "jpeg-75", "1 of 2"],
        ["sam_linear", "clean", "1 of 1"],
        ["xception_scratch", "clean", "1 of 1"],
        ["xception_scratch", "jpeg-50", "1 of 1"],
    ]
    results = report.store.results()
    of_one = (results["variant"] == "residual_linear") & (results["condition"] == "jpeg-50")
    values = results[of_one & (results["metric"] == "accuracy")]
    in_domain = values["trained_on"] == values["tested_on"]
    means = [values.loc[chosen, "value"].mean() for chosen in (in_domain, ~in_domain)]
    assert [text.split()[0] for text in rows[2][2:4]] == [f"{mean:.3f}" for mean in means]
    assert [row[2] for row in rows[-2:]] == ["none", "none"]  # in-domain, of a method that is trained without fakes
    assert [fold.title for fold in folds if isinstance(fold, Fold)] == [
        f"{report.labelled(method)}: {condition}"
        for method, condition in (("residual_linear", "jpeg-75"), ("residual_linear", "jpeg-50"),
                                  ("clip_linear", "jpeg-75"), ("xception_scratch", "jpeg-50"))
    ]  # fmt: skip
    maps = heat_maps(folds)
    assert [one.caption[0].partition(": ")[2] for one in maps[2:4]] == [
        "accuracy at p = 0.5, jpeg-50",
        "AUROC, jpeg-50",
    ]
    assert len(maps) == 8
    written = pd.read_csv(report.folder.path / "tables" / "matrix-residual_linear-accuracy-jpeg-50.csv")
    both = written.merge(values, on=["tested_on", "trained_on"])
    assert both["mean"].tolist() == pytest.approx(both["value"].tolist())
    assert len(both) == 9


def test_the_other_parts_show_clean_pictures(new_report: MakeReport) -> None:
    report = new_report(scored)
    assert set(report.results["condition"]) == {"clean"}
    assert set(report.cells["condition"]) == {"clean"}


def test_training_conditions_are_shown_where_there_are_any(new_report: MakeReport) -> None:
    report = new_report(lambda grid: grid.finish(grid.spec(), grid.spec(train_condition="jpeg-95")))
    (table,) = (block for block in runs(report) if isinstance(block, Table))
    assert [row[list(table.columns).index("train condition")] for row in texts(table)] == ["clean", "jpeg-95"]
    rows = {row[0]: row for block in summary(report) if isinstance(block, Table) for row in texts(block)}
    assert set(rows) == {"residual_linear (train_condition=clean)", "residual_linear (train_condition=jpeg-95)"}


# Training sets -------------------------------------------------------------------------------------------------------


def test_the_summary_begins_with_what_carries_best(new_report: MakeReport) -> None:
    def fill(grid: Grid) -> None:
        learnt = [
            grid.spec(method, train=train) for method in ("residual_linear", "clip_linear") for train in ("lama", "ldm")
        ]
        grid.finish(*learnt, grid.spec("sam_linear", train="none"))

    report = new_report(fill)
    first, second, *rest = summary(report)
    labels = {"residual_linear": "residual_linear [random weights]"}
    labels["clip_linear"] = "clip_linear [demo-vit-64, random weights]"
    (table,) = (block for block in rest if isinstance(block, Table))
    carries = {row[0]: row[list(table.columns).index("AUROC, cross-generator")] for row in texts(table)}
    own = {row[0]: row[list(table.columns).index("AUROC, in-domain")] for row in texts(table)}
    best = max(("residual_linear", "clip_linear"), key=lambda name: float(carries[name].split()[0]))
    assert isinstance(first, Text)
    assert isinstance(second, Text)
    assert first.text.startswith(
        f"Of two methods that learn from fakes, {labels[best]} carries best: AUROC {carries[best]} on "
        f"generators that it never saw, {own[best]} on its own"
    )
    assert (
        second.text
        == f"sam_linear [demo, random weights]: AUROC {carries['sam_linear']} on generators that it never saw."
    )


def test_the_summary_says_none_where_nothing_can_be_in_domain(new_report: MakeReport) -> None:
    def fill(grid: Grid) -> None:
        grid.finish(grid.spec(train="none"), grid.spec("clip_linear"))
        grid.plan(grid.spec("sam_linear"))

    (table,) = (block for block in summary(new_report(fill)) if isinstance(block, Table))
    rows = {row[0]: dict(zip(table.columns, row, strict=True)) for row in texts(table)}
    of_reals, of_fakes, pending = (rows[name] for name in ("residual_linear", "clip_linear", "sam_linear"))
    for kind in ("in-domain", "gap"):
        assert of_reals[f"accuracy, {kind}"] == "none"
        assert of_fakes[f"accuracy, {kind}"].startswith(("0.", "-0."))
        assert pending[f"accuracy, {kind}"] == "missing"
    assert of_reals["accuracy, cross-generator"].startswith("0.")
    assert pending["accuracy, cross-generator"] == "missing"


# Metrics -------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("own_registers")
def test_a_metric_that_is_registered_later_is_shown_at_its_place(grids: dict[str, Grid], tmp_path: Path) -> None:
    register_metric(
        Metric(
            "toy_share", "toy share", lambda answers, weights=None: float((answers.answered == 1).mean()),
            task="binary", position=15,
        )
    )  # fmt: skip
    report = begun(grids["detection"], tmp_path / "out")
    assert report.metrics.index("toy_share") == report.metrics.index("accuracy") + 1
    (part,) = (part for part in PARTS if part.name == "matrices")
    maps = {one.caption[0]: one for one in heat_maps(part.blocks(report))}
    (toy,) = (one for title, one in maps.items() if ": toy share" in title)
    trained = [str(name) for name in toy.columns].index("lama")
    scores = report.store.scores(report.runs["run_id"].iloc[0])
    for generator in GENERATORS:
        cell = scores[(scores["generator"] == generator) | (scores["label"] == 0)]
        assert dict(toy.rows)[generator][trained].text == f"{(cell['score'] > 0).mean():.3f}"


def test_folded_matrices_are_pictures_only_where_that_is_asked_for(grids: dict[str, Grid], tmp_path: Path) -> None:
    (part,) = (part for part in PARTS if part.name == "matrices")
    drawn = {}
    for every in (False, True):
        report = begun(grids["detection"], tmp_path / f"{every}")
        report.options = dataclasses.replace(report.options, every_matrix=every)
        maps = heat_maps(part.blocks(report))
        drawn[every] = [one.picture.name for one in report.folder.begun()]
    assert {name.rpartition("-")[2] for name in drawn[False]} == {"accuracy", "auroc"}
    assert len(drawn[True]) == len(set(drawn[True])) == len(maps) > len(drawn[False])


# The corpus ----------------------------------------------------------------------------------------------------------


def test_values_and_order_come_from_the_corpus(new_report: MakeReport) -> None:
    def fill(grid: Grid) -> None:
        grid.finish(grid.spec("xception_scratch"), grid.attribution("xception_scratch"))

    report = new_report(fill, generators=("repaint", "pluralistic", "ldm", "lama"))
    assert report.generators == ["lama", "ldm", "repaint", "pluralistic"]
    assert any(isinstance(block, Table) for block in published(report))
    said = [item.text for block in limitations(report) for item in getattr(block, "items", ())]
    assert any("In LDM's images the whole picture passed" in text for text in said)


def test_a_corpus_without_facts_has_alphabetical_order_and_no_published_values(store: str, tmp_path: Path) -> None:
    generators = ("repaint", "pluralistic", "ldm", "lama")
    grid = Grid(store, tmp_path, generators=generators, num_each=12, corpus="folders", name="folders")
    grid.finish(grid.spec("xception_scratch"), grid.attribution("xception_scratch"))
    page = make_report(grid.open(), tmp_path / "out", Options(cam=False, log=False)).read_text()
    assert "Published" not in page
    assert "In LDM" not in page
    rows = pd.read_csv(tmp_path / "out/tables/matrix-xception_scratch-accuracy.csv")["tested_on"]
    assert rows.tolist() == sorted(generators)
    counts = pd.read_csv(tmp_path / "out/tables/confusion-xception_scratch.csv")
    assert counts.columns.tolist()[1:] == ["real", *sorted(generators)]


@pytest.mark.usefixtures("own_registers")
def test_a_part_that_fails_says_so_in_its_section_and_costs_no_other(
    grids: dict[str, Grid], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    @register_part("broken_toy", title="A broken toy", position=12)
    def broken(report: Report) -> Iterator[Block]:
        yield Text("half of it")
        raise ZeroDivisionError("the toy is broken")

    page = make_report(grids["detection"].open(), tmp_path / "out", Options(cam=False, log=False)).read_text()
    headings = re.findall(r"<h2[^>]*>([^<]*)", page)
    assert headings[:3] == ["Summary", "A broken toy", "What this does not show"]
    assert page.count("A broken toy could not be made: ZeroDivisionError") == 2  # there, and among the limitations
    assert "half of it" not in page
    assert "the part 'broken_toy' failed" in caplog.text


def test_fakes_without_a_mask_are_counted_in_the_report(
    grids: dict[str, Grid], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = grids["detection"]
    table = grid.manifest.table.copy()
    later = table.index[(table["label"] == 1) & (table["split"] != "train")]
    table["mask"] = pd.array(["mask.png"] * len(table), dtype="string")
    table.loc[later[:3], "mask"] = pd.NA
    table.loc[table.index[(table["label"] == 1) & (table["split"] == "train")][:5], "mask"] = pd.NA  # not measured on
    manifest = dataclasses.replace(grid.manifest, table=table)
    monkeypatch.setattr("analysis.cam.open_images", lambda store, **options: manifest)
    report = begun(grid, tmp_path / "out")
    words = [block.text for block in flat(cam(report)) if isinstance(block, Text)]
    sentence = f"3 of {len(later)} validation and test fakes have no mask; Grad-CAM is measured on the others."
    assert sentence in words
    assert sentence in [problem.text for problem in report.problems]


def test_training_sets_of_equal_size_and_of_several_generators_are_told(store: str, tmp_path: Path) -> None:
    grid = Grid(store, tmp_path, num_each=8)
    trials = [grid.spec(train=name) for name in ("lama", "ldm", "lama+ldm")]
    grid.finish(*(dataclasses.replace(spec, equal_size=EqualSize(8, 8)) for spec in trials))
    report = Report(grid.open(), Folder(tmp_path / "report"), Options(), [], lambda text: None)
    (part,) = (part for part in list_parts() if part.name == "train_sets")
    text, table = part.blocks(report)
    assert text.text == (
        "Every training set of residual_linear has 8 images of each class in training and 8 in validation "
        "(launch.py --equal-size)."
    )
    assert "one generator" in str(table)
    assert "several generators" in str(table)


# The audit -----------------------------------------------------------------------------------------------------------

FOUND = (
    Finding("counts", "note", "lama, test: 2 fakes against 3 real images", "read balanced accuracy"),
    Finding("headers", "fail", "fakes alone are PNG", "save all alike", ("a.png", "b.jpg"), (("lama: auroc", 1.0),)),
)


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Report:
    folder = tmp_path_factory.mktemp("audited")
    grid = Grid(fresh_store(tmp_path_factory.getbasetemp(), folder / "runs"), folder, num_each=4)
    grid.manifest = grid.manifest.with_findings(FOUND)
    grid.finish(grid.spec(), grid.attribution(), conditions=["jpeg-75"])
    verdict = Verdict(("copies", "counts", "headers"), FOUND, ("headers",))
    tracking.keep_verdict(grid.tracker.uri, grid.name, grid.manifest.digest, verdict)
    return begun(grid, folder / "out")


def test_the_audit_has_a_section_of_its_own(audited: Report) -> None:
    line, accepted, found, where, passed = audit(audited)
    assert line == Text("Audit of the data: 1 fail (headers, accepted), 1 note (counts), 1 pass.")
    assert isinstance(accepted, Text)
    assert accepted.text.endswith("(--accept-audit): headers.")
    assert isinstance(found, Bullets)
    assert [item.text for item in found.items] == [
        "fail (headers): fakes alone are PNG; save all alike (files: a.png, b.jpg)",
        "note (counts): lama, test: 2 fakes against 3 real images; read balanced accuracy",
    ]
    assert where == Text("The file tables/audit.csv has the numbers behind these sentences, and all files.")
    assert passed == Text("Nothing was found by: copies.")
    table = pd.read_csv(audited.folder.path / "tables" / "audit.csv").fillna("")
    assert table[["audit", "level", "files"]].to_numpy().tolist() == [
        ["headers", "fail", "a.png, b.jpg"], ["counts", "note", ""], ["copies", "pass", ""],
    ]  # fmt: skip


def test_the_verdict_stands_above_every_matrix(audited: Report) -> None:
    line = Text("Audit of the data: 1 fail (headers, accepted), 1 note (counts), 1 pass.", link="Audit")
    for name in ("matrices", "attribution", "summary"):
        (part,) = (part for part in PARTS if part.name == name)
        blocks = list(flat(part.blocks(audited)))
        values = [place for place, block in enumerate(blocks) if isinstance(block, Table | Picture | Row)]
        assert line in blocks[: values[0]], name


def test_the_limitations_have_one_line_on_the_audit_with_a_link(audited: Report) -> None:
    (bullets,) = limitations(audited)
    assert isinstance(bullets, Bullets)
    texts = [item.text for item in bullets.items]
    (line,) = (item for item in bullets.items if "audit" in item.text)
    assert line == Text("What the audit of the data found may explain values: headers (fail, 1 finding).", link="Audit")
    assert not any("fakes alone are PNG" in text or "2 fakes" in text for text in texts)  # the section Audit has them


def test_a_grid_of_before_says_that_its_audit_is_not_known(new_report: MakeReport) -> None:
    report = new_report(detection)
    (text,) = audit(report)
    assert isinstance(text, Text)
    assert text.text == "What audits say of the data is not kept with this grid; the next launch adds it."
    assert list(report.audit()) == []
