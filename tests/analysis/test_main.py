"""`python -m analysis` on a grid of which nothing but MLflow is left, and what it refuses."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from analysis.__main__ import main
from analysis.explore.command import parse_arguments
from analysis.parts import list_parts
from tests.analysis.grids import GENERATORS, Grid
from tests.grid.grids import fresh_store

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Grid:
    folder = tmp_path_factory.mktemp("main")
    made = Grid(fresh_store(tmp_path_factory.getbasetemp(), folder / "runs"), folder)
    for method in ("residual_linear", "clip_linear"):
        made.finish(*(made.spec(method, train=generator) for generator in GENERATORS), made.attribution(method))
    made.plan(made.spec("sam_linear"))
    return made


@pytest.fixture(scope="module")
def written(grid: Grid, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "report"
    arguments = ["--tracking-uri", grid.tracker.uri, "--out", str(out), "--compare", "residual_linear", "clip_linear"]
    assert main([*arguments, "--no-log", "--transpose"]) == 0
    return out


def test_help_is_quick_because_it_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom analysis.__main__ import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as end: print('status', end.code)\n"
        "print('heavy', sorted({'torch', 'mlflow', 'numpy', 'pandas', 'sklearn', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "status 0\nheavy []" in done.stdout


def test_what_is_not_finished_is_missing_with_its_command(written: Path) -> None:
    text = (written / "index.html").read_text(encoding="utf-8")
    assert "8 of 9 trials finished" in text
    assert "1 of 9 trials is not finished (1 pending): sam_linear, trained on lama (seed 0)" in text
    assert "sam_linear: no detection trial is finished; this runs them:" in text
    assert "--methods sam_linear" in text


def test_the_data_set_is_described(grid: Grid, written: Path) -> None:
    provenance = (written / "tables" / "provenance.csv").read_text(encoding="utf-8")
    assert f"{grid.manifest.digest} (dolos, no limit, 360 images)" in provenance


def test_without_the_images_only_grad_cam_is_missing(written: Path) -> None:
    text = (written / "index.html").read_text(encoding="utf-8")
    assert "No Grad-CAM: " in text
    assert not list((written / "figures").glob("cam*"))
    for name in ("confusion-clip_linear", "embeddings-clip_linear", "roc-residual_linear"):
        assert (written / "figures" / f"{name}.png").is_file()


def test_matrices_turn(written: Path) -> None:
    assert "Rows: trained on, columns: tested on" in (written / "tables/matrix-clip_linear-accuracy.md").read_text()
    assert "rows: trained on, columns: tested on" in (written / "index.html").read_text(encoding="utf-8")


def test_the_comparison_holds_cells_and_means(written: Path) -> None:
    compared = pd.read_csv(written / "tables/compare-residual_linear-clip_linear-accuracy.csv")
    assert set(compared["kind"]) == {"cell", "mean", "in-domain mean", "cross-generator mean"}
    assert compared["p"].between(0, 1).all()


def test_the_last_line_is_the_command_of_the_page_to_click_in(
    grid: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("analysis.report.make_report", lambda store, out, *_, **__: out / "index.html")
    same = ["--tracking-uri", grid.tracker.uri, "--images", f"{tmp_path} 2", "--data", "limit=16"]
    monkeypatch.setattr("analysis.store.open_store", lambda *_, **__: None)
    assert main([*same, "--out", str(tmp_path / "report"), "--no-cam"]) == 0
    *_, report, explore = capsys.readouterr().out.splitlines()
    assert report == f"the report is in {tmp_path / 'report' / 'index.html'}"
    begin, _, command = explore.partition(": ")
    python, *words = shlex.split(command)
    assert (begin, words[:3]) == ("a page to click in", ["-m", "analysis", "explore"])
    assert Path(python).exists()
    assert parse_arguments(words[3:]) == parse_arguments(same)


@pytest.mark.long
def test_an_earlier_report_is_replaced_and_nothing_else_ever(
    grid: Grid, written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--tracking-uri", grid.tracker.uri, "--no-log", "--no-cam", "--out"]
    out = tmp_path / "report"
    shutil.copytree(written, out)
    stale = out / "figures" / "stale.png"
    stale.touch()
    assert main([*arguments, str(out)]) == 0
    assert not stale.exists()
    foreign = tmp_path / "thesis"
    foreign.mkdir()
    (foreign / "index.html").write_text("mine")
    assert main([*arguments, str(foreign)]) == 2
    assert "holds no report of this program" in capsys.readouterr().err
    assert [path.name for path in foreign.iterdir()] == ["index.html"]
    assert main([*arguments, str(foreign / "index.html")]) == 2
    assert "is a file" in capsys.readouterr().err
    assert (foreign / "index.html").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--experiment", "nonsense"], "nonsense"),
        (["--compare", "residual_linear", "vgg"], "vgg"),
        (["--data", "ffff"], "ffff"),
        (["--spec-version", "77"], "77"),
        (["--weights", "nowhere.pt"], "nowhere.pt"),
    ],
)
def test_bad_input_is_refused_and_nothing_is_written(
    grid: Grid, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    out = tmp_path / "report"
    assert main(["--tracking-uri", grid.tracker.uri, "--out", str(out), *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(("word", "hint"), [("predct", " (did you mean predict?)"), ("reprot", ""), ("report", "")])
def test_a_word_that_is_no_command_is_refused(word: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([word, "picture.png"])
    assert ended.value.code == 2
    there = "there are: explore, export, predict, verify; without one, a report is made"
    assert f"no command '{word}'{hint}; {there}" in capsys.readouterr().err


def test_a_number_of_images_is_positive(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--cam-images", "0"])
    assert "must be at least 1" in capsys.readouterr().err


def test_a_store_that_is_not_there_is_not_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--tracking-uri", f"sqlite:///{tmp_path / 'mlflow.db'}", "--out", str(tmp_path / "report")]) == 2
    assert "mlflow.db" in capsys.readouterr().err
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.long
def test_what_cannot_be_read_of_one_run_is_left_out_and_said(
    grid: Grid, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = grid.open().runs()
    run = runs[(runs["method"] == "clip_linear") & (runs["trained_on"] == "ldm")].iloc[0]
    place = grid.open().artifact(run["run_id"], "scores.parquet")
    whole = place.read_bytes()
    out = tmp_path / "report"
    try:
        place.write_bytes(whole[:100])
        assert main(["--tracking-uri", grid.tracker.uri, "--no-log", "--no-cam", "--out", str(out)]) == 0
    finally:
        place.write_bytes(whole)
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "Left out: " in page
    assert run["run_id"] in page
    assert "7 of 9 trials finished" in page
    cells = pd.read_csv(out / "tables/matrix-clip_linear-accuracy.csv")
    assert cells.loc[cells["trained_on"] == "ldm", "mean"].isna().all()
    assert cells.loc[cells["trained_on"] != "ldm", "mean"].notna().all()


def test_an_error_leaves_the_earlier_report_as_it_was(
    grid: Grid, written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report"
    shutil.copytree(written, out)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    few = [part for part in list_parts() if part.name in ("summary", "attribution", "limitations")]
    monkeypatch.setattr("analysis.report.list_parts", lambda: few)
    monkeypatch.setattr("analysis.parts.attribution.confusion_figure", full)
    assert main(["--tracking-uri", grid.tracker.uri, "--no-log", "--no-cam", "--anew", "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert "a disk is full: [Errno 28] No space left on device. Make space there; then give the same command" in said
    assert "Traceback" not in said
    here, before = ({path.relative_to(top) for path in top.rglob("*")} for top in (out, written))
    assert here == before
    assert (out / "index.html").read_bytes() == (written / "index.html").read_bytes()


def test_an_error_that_nobody_expected_is_one_line_and_a_file(
    grid: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a fault of this program")

    monkeypatch.setattr("analysis.report.make_report", broken)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert main(["--tracking-uri", grid.tracker.uri, "--out", str(tmp_path / "report")]) == 1
    said = capsys.readouterr().err
    (log,) = tmp_path.glob("inpaint-grid-*.log")
    assert said.strip() == (
        "error: an error that this program does not expect: ZeroDivisionError: a fault of this program. "
        f"The traceback is in {log}"
    )
    assert "in broken" in log.read_text()


def test_a_variable_that_names_no_store_is_bad_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///:memory:")
    assert main([]) == 2
    assert "MLFLOW_TRACKING_URI must name a file" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_named(grid: Grid, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--tracking-uri", grid.tracker.uri, "--no-log", "--no-cam", "--out", "/proc/nowhere"]) == 2
    assert "/proc/nowhere cannot be written" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_said_before_anything_else(
    grid: Grid, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report"
    assert main(["--tracking-uri", grid.tracker.uri, "--device", "cuda", "--out", str(out)]) == 2
    assert "torch sees no GPU" in capsys.readouterr().err
    assert not out.exists()
