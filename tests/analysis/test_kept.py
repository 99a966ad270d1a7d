"""Parts of a report that are kept, pictures that other processes draw, and how the page shows them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from mlflow.tracking import MlflowClient
from PIL import Image

import analysis.kept
from analysis.__main__ import main, parse_arguments
from analysis.kept import fingerprint
from analysis.page import Block, Text
from analysis.parts import Options, Part, Report, list_parts
from analysis.report import make_report
from analysis.store import StoreError, open_store
from grid import names
from tests.analysis.grids import Grid

OPTIONS = Options(cam=False, log=False, keep=True)
NEVER_KEPT = ["Provenance", "What this does not show"]


@pytest.fixture
def grid(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Grid:
    """A grid of two trials, whose report has few parts and, in place of the answer's figure, an empty one."""
    monkeypatch.setattr("analysis.parts.summary.answer_figure", lambda *_, **__: Figure(figsize=(1, 1)))
    few = [part for part in list_parts() if part.name in ("summary", "attribution", "limitations", "provenance")]
    monkeypatch.setattr("analysis.report.list_parts", lambda: few)
    made = Grid(store, tmp_path / "runs", generators=("lama", "ldm"), num_each=12)
    made.finish(made.spec(train="lama"), made.attribution())
    return made


def make(grid: Grid, out: Path, options: Options = OPTIONS) -> list[str]:
    """Make a report; titles of the parts that were made and not taken from those that are kept."""
    said: list[str] = []
    make_report(open_store(grid.name, tracking_uri=grid.tracker.uri), out, options, say=said.append)
    titles = {part.title for part in list_parts()} | {"Toy"}
    return [text for text in said if text in titles]


def content(report: Path) -> dict[str, bytes]:
    """Every file of a report; the page without the time at which it was written."""
    files = {path.relative_to(report).as_posix(): path.read_bytes() for path in report.rglob("*") if path.is_file()}
    files["index.html"] = re.sub(rb"written [-0-9: ]+ UTC", b"", files["index.html"])
    return files


def toy(monkeypatch: pytest.MonkeyPatch, blocks: Callable[[Report], Iterator[Block]]) -> None:
    """Let the report have this part, and the limitations."""
    last = [part for part in list_parts() if part.name == "limitations"]
    monkeypatch.setattr("analysis.report.list_parts", lambda: [Part("toy", "Toy", 1, blocks), *last])


# What is kept --------------------------------------------------------------------------------------------------------


def test_of_an_unchanged_grid_the_second_report_is_the_first_one(grid: Grid, tmp_path: Path) -> None:
    assert make(grid, tmp_path / "first") == ["Summary", "Attribution", *NEVER_KEPT]
    assert make(grid, tmp_path / "second") == NEVER_KEPT
    assert content(tmp_path / "second") == content(tmp_path / "first")
    assert "figures/confusion-residual_linear.svg" in content(tmp_path / "second")


@pytest.mark.parametrize("damage", ["", "[]", '{"files": {}}'])
def test_what_is_damaged_is_made_anew(grid: Grid, tmp_path: Path, damage: str) -> None:
    make(grid, tmp_path / "first")
    (folder,) = tmp_path.rglob(f"cache/{analysis.kept.FOLDER}")
    (kept,) = folder.rglob("attribution/part.json")
    kept.write_text(damage, encoding="utf-8")
    assert make(grid, tmp_path / "second") == ["Attribution", *NEVER_KEPT]
    assert content(tmp_path / "second") == content(tmp_path / "first")
    (figure, *_) = kept.parent.glob("figures/*.png")
    figure.write_bytes(b"cut off")
    assert make(grid, tmp_path / "third") == ["Attribution", *NEVER_KEPT]
    assert content(tmp_path / "third") == content(tmp_path / "first")


@pytest.mark.parametrize("lasting", [True, False])
def test_a_lasting_problem_is_kept_with_its_part(
    grid: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lasting: bool
) -> None:
    def blocks(report: Report) -> Iterator[Block]:
        yield report.problem("three fakes have no mask\npython launch.py", lasting=lasting)

    toy(monkeypatch, blocks)
    last = NEVER_KEPT[1:]
    assert make(grid, tmp_path / "first") == ["Toy", *last]
    assert make(grid, tmp_path / "second") == (last if lasting else ["Toy", *last])
    assert content(tmp_path / "second") == content(tmp_path / "first")
    assert content(tmp_path / "second")["index.html"].count(b"three fakes have no mask") == 2


def test_how_a_report_is_made_and_where_it_goes_changes_no_part(grid: Grid, tmp_path: Path) -> None:
    make(grid, tmp_path / "first")
    assert (
        make(grid, tmp_path / "b", Options(cam=False, log=True, keep=True, command="any", one_file=True)) == NEVER_KEPT
    )
    assert make(grid, tmp_path / "c") == NEVER_KEPT  # a report in the grid's run is no result of the grid


def a_changed_metric(grid: Grid) -> None:
    run_id = grid.open().runs()["run_id"].iloc[0]
    MlflowClient(grid.tracker.uri).log_metric(run_id, names.metric_name("lama", "auroc"), 0.123)


def a_new_run(grid: Grid) -> None:
    grid.finish(grid.spec(train="ldm"))


def a_changed_file_of_a_run(grid: Grid) -> None:
    path = grid.artifact(grid.open().runs()["run_id"].iloc[0], names.SCORES)
    before = path.stat()
    path.write_bytes(path.read_bytes())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as a copy that keeps the times


@pytest.mark.parametrize("change", [a_changed_metric, a_new_run, a_changed_file_of_a_run])
def test_a_changed_grid_is_drawn_anew(grid: Grid, tmp_path: Path, change: Callable[[Grid], None]) -> None:
    make(grid, tmp_path / "first")
    change(grid)
    assert make(grid, tmp_path / "second") == ["Summary", "Attribution", *NEVER_KEPT]
    if change is a_changed_metric:
        assert b"0.123" in content(tmp_path / "second")["tables/summary.csv"]


def test_a_second_report_into_a_folder_that_is_being_written_is_refused(
    grid: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, refused = tmp_path / "report", list[str]()

    def blocks(report: Report) -> Iterator[Block]:
        if not refused:
            with pytest.raises(StoreError, match="another report is being written to --out") as caught:
                make(grid, out)
            refused.append(str(caught.value))
        yield Text("the first one")

    toy(monkeypatch, blocks)
    make(grid, out)
    assert refused
    assert "name another folder" in refused[0]
    assert b"the first one" in content(out)["index.html"]
    assert sorted(path.name for path in out.iterdir()) == ["figures", "index.html", "tables"]
    make(grid, out)  # nothing holds the folder any more


def test_what_a_killed_report_left_is_cleared(grid: Grid, tmp_path: Path) -> None:
    left = tmp_path / "report" / ".unfinished" / "figures"
    left.mkdir(parents=True)
    (left / "old.png").write_bytes(b"cut off")
    make(grid, tmp_path / "report")
    assert "figures/old.png" not in content(tmp_path / "report")


def test_a_changed_option_is_drawn_anew(grid: Grid, tmp_path: Path) -> None:
    make(grid, tmp_path / "first")
    turned = Options(cam=False, log=False, keep=True, transpose=True)
    assert make(grid, tmp_path / "second", turned) == ["Summary", "Attribution", *NEVER_KEPT]
    assert make(grid, tmp_path / "third", OPTIONS) == NEVER_KEPT  # both are kept


def test_a_changed_package_and_changed_code_are_drawn_anew(
    grid: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(grid, tmp_path / "first")
    place = tmp_path / "site" / "toy-99.0.dist-info"
    place.mkdir(parents=True)
    (place / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 99.0\n")
    with monkeypatch.context() as patch:
        patch.syspath_prepend(tmp_path / "site")
        assert "Attribution" in make(grid, tmp_path / "second")
    monkeypatch.setattr(analysis.kept, "CODE", (*analysis.kept.CODE, "examples"))
    assert "Attribution" in make(grid, tmp_path / "third")


@pytest.mark.long
def test_only_the_newest_are_kept_and_they_may_be_deleted(grid: Grid, tmp_path: Path) -> None:
    for count in range(1, 6):
        make(grid, tmp_path / f"{count}", Options(cam=False, log=False, keep=True, cam_images=count))
    (folder,) = tmp_path.rglob(f"cache/{analysis.kept.FOLDER}")
    kept = sorted(folder.iterdir())
    assert len(kept) == analysis.kept.NUM_FINGERPRINTS
    for path in [*kept[0].rglob("*.json"), *kept[1].rglob("*.png")]:
        path.unlink()
    for count in range(3, 6):
        make(grid, tmp_path / "again", Options(cam=False, log=False, keep=True, cam_images=count))
        assert content(tmp_path / "again").keys() == content(tmp_path / f"{count}").keys()


def test_without_keeping_every_part_is_made(grid: Grid, tmp_path: Path) -> None:
    make(grid, tmp_path / "first")
    assert make(grid, tmp_path / "second", Options(cam=False, log=False)) == ["Summary", "Attribution", *NEVER_KEPT]
    assert parse_arguments([]).keep
    assert not parse_arguments(["--anew"]).keep


@pytest.mark.parametrize("how", ["problem", "error", "the grid changes meanwhile"])
def test_what_may_be_otherwise_the_next_time_is_not_kept(
    grid: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    def part(report: Report) -> Iterator[Block]:
        if how == "problem":
            yield report.problem("the memory ran out")
        elif how == "error":
            raise ZeroDivisionError("by chance")
        else:
            a_changed_metric(grid)
            yield Text("made of values that were replaced")

    toy(monkeypatch, part)
    assert "Toy" in make(grid, tmp_path / "first")
    assert "Toy" in make(grid, tmp_path / "second")


def test_values_that_were_read_before_a_change_are_not_kept_as_those_after_it(grid: Grid, tmp_path: Path) -> None:
    early = grid.open()
    a_changed_metric(grid)
    make_report(early, tmp_path / "first", OPTIONS)
    assert "Summary" in make(grid, tmp_path / "second")
    assert b"0.123" in content(tmp_path / "second")["tables/summary.csv"]


def test_grad_cam_looks_at_the_pictures(grid: Grid, tmp_path: Path) -> None:
    store, cam = grid.open(), Options()
    assert fingerprint(store, cam) is None  # no manifest beside the store
    (folder,) = [Path(grid.tracker.uri.removeprefix("sqlite:///")).parent / "cache"]
    grid.manifest.save(folder / "manifests" / grid.manifest.digest)
    before = fingerprint(store, cam)
    assert before is not None
    assert before == fingerprint(store, cam)
    picture = grid.manifest.root / str(grid.manifest.table["path"].iloc[0])
    picture.parent.mkdir(parents=True)
    picture.touch()
    assert fingerprint(store, cam) not in (None, before)


# Drawn in other processes --------------------------------------------------------------------------------------------


class Unlucky(Artist):
    """Cannot be drawn."""

    def draw(self, renderer: object) -> None:
        raise ZeroDivisionError("the colour is missing")


class Killed(Artist):
    """Ends the process that draws it, as the system does where memory runs out."""

    def draw(self, renderer: object) -> None:
        os._exit(9)


def pictures_of(*artists: type[Artist]) -> Callable[[Report], Iterator[Block]]:
    """A part with a picture of a line and of each artist."""

    def part(report: Report) -> Iterator[Block]:
        for number, artist in enumerate((None, *artists)):
            figure = Figure(figsize=(3, 2), layout="constrained")
            figure.add_subplot().plot([0, 1], [1, number])
            if artist is not None:
                figure.add_artist(artist())
            yield report.folder.picture(f"line-{number}", figure, alt=f"line {number}")

    return part


@pytest.mark.parametrize("processes", [1, 2])
def test_a_picture_that_cannot_be_drawn_costs_its_part_alone(
    grid: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, processes: int
) -> None:
    toy(monkeypatch, pictures_of(Unlucky))
    make(grid, tmp_path / "out", Options(cam=False, log=False, processes=processes))
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    said = "Toy could not be made: ZeroDivisionError(&#39;the colour is missing&#39;)"
    assert page.count(said) == 2  # there, and among the limitations
    assert "line-0" not in page
    assert "the part 'toy' failed" in caplog.text
    assert "in draw" in caplog.text


def test_other_processes_draw_the_same_pictures(grid: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy(monkeypatch, pictures_of())
    for processes in (1, 2):
        make(grid, tmp_path / f"{processes}", Options(cam=False, log=False, processes=processes))
    assert content(tmp_path / "1") == content(tmp_path / "2")
    with Image.open(tmp_path / "2" / "figures" / "line-0.png") as picture:
        shown = f'width="{round(picture.width / 1.5)}" height="{round(picture.height / 1.5)}"'
    assert shown in (tmp_path / "2" / "index.html").read_text(encoding="utf-8")


def test_a_process_that_is_killed_is_named_with_the_remedy(
    grid: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy(monkeypatch, pictures_of(Killed))
    with pytest.raises(StoreError, match=r"a process that draws pictures was killed.*--processes 1"):
        make(grid, tmp_path / "out", Options(cam=False, log=False, processes=2))
    assert not (tmp_path / "out").exists()


# On the page ---------------------------------------------------------------------------------------------------------


def images(page: str) -> list[str]:
    return re.findall(r"<img[^>]*>", page)


def test_pictures_are_files_that_the_page_loads_late(grid: Grid, tmp_path: Path) -> None:
    make(grid, tmp_path / "out")
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert images(page)
    for image in images(page):
        assert 'loading="lazy"' in image
        assert re.search(r'width="[1-9]\d*" height="[1-9]\d*"', image)  # so that nothing moves when it comes
        source = re.search(r'src="([^"]*)"', image)
        assert source is not None
        assert (tmp_path / "out" / source[1]).is_file()
    assert all(len(data) < 1000 for data in re.findall(r"data:[^\"')]*", page))
    assert "pictures are files in the folder figures, beside this page" in page


def test_a_page_that_is_sent_alone_holds_its_pictures(grid: Grid, tmp_path: Path) -> None:
    arguments = ["--tracking-uri", grid.tracker.uri, "--no-cam", "--no-log", "--processes", "1", "--anew"]
    assert main([*arguments, "--one-file", "--out", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert images(page)
    assert all('src="data:image/png;base64,' in image for image in images(page))
    assert "beside this page" not in page
    assert list((tmp_path / "out" / "figures").glob("*.svg"))
