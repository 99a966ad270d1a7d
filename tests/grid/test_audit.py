"""The audit on the command line: by itself, before a grid, and kept with it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import data.audits
from analysis.store import open_store
from data.audits import Evidence, Finding, Found, register_audit
from data.verdict import Verdict
from grid import names, tracking
from grid.records import open_records
from tests.corpora import save_as_jpeg, write_dolos
from tests.grid.command import Command, mlflow_runs
from tests.grid.grids import make_spec, open_grid, paper_manifest

pytestmark = pytest.mark.usefixtures("nothing_from_outside")

CHEAP = ("--local", "--methods", "residual_linear", "--tasks", "attribution")


@pytest.fixture(scope="session")
def shortcut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 real photographs as PNG, their fakes as JPEG."""
    root = write_dolos(tmp_path_factory.mktemp("shortcut"), ["lama"], {"train": 30, "valid": 5, "test": 5})
    for path in list((root / "celebahq/fake/lama/images").rglob("*.png")):
        save_as_jpeg(path)
    return root


@pytest.fixture
def own_audits(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it."""
    data.audits.list_audits()
    monkeypatch.setattr(data.audits._audits, "_entries", dict(data.audits._audits._entries))


# launch.py audit -----------------------------------------------------------------------------------------------------


def test_a_sound_data_set_passes(command: Command, obvious: Path) -> None:
    outcome = command("audit", "--data", obvious)
    assert outcome.status == 0
    assert " pass" in outcome.printed.splitlines()[-1]
    assert "fail" not in outcome.text


def test_a_shortcut_fails_with_its_name_and_the_remedy(command: Command, shortcut: Path) -> None:
    outcome = command("audit", "dolos", "--data", shortcut)
    assert outcome.status == 2
    assert "warn: fakes of lama differ from real images in file format (JPEG 100% against PNG 100%)" in outcome.text
    assert "fail: file headers alone, without a pixel, tell fakes from real images: lama by file format" in outcome.text
    assert "such as celebahq/fake/lama/images/" in outcome.text
    assert "audit: 1 fail (headers)" in outcome.text
    whole = "Mend the data. Or give --accept-audit headers: the grid runs, and every table says so"
    assert whole in outcome.printed.splitlines()  # a line with an option is copied
    accepted = command("audit", "--data", shortcut, "--accept-audit", "headers")
    assert accepted.status == 0
    assert "audit: 1 fail (headers, accepted)" in accepted.text


def test_findings_as_json(command: Command, shortcut: Path) -> None:
    outcome = command("audit", "--data", shortcut, "--json")
    assert outcome.status == 2
    found = json.loads(outcome.printed)  # nothing else is printed
    assert (found["source"], found["images"], found["verdict"], found["refused"]) == ("dolos", 80, "fail", ["headers"])
    assert found["audits"]["headers"] == "fail"
    failed = next(finding for finding in found["findings"] if finding["level"] == "fail")
    assert failed.keys() == {"audit", "level", "text", "remedy", "files", "numbers"}
    assert failed["numbers"]["lama: auroc"] == 1
    assert all((shortcut / name).is_file() for name in failed["files"])


def test_bad_files_as_json(command: Command, tmp_path: Path) -> None:
    root = write_dolos(tmp_path / "x")
    next((root / "celebahq/real/train").iterdir()).write_bytes(b"no picture")
    outcome = command("audit", "--data", root, "--json")
    assert outcome.status == 2
    assert "1 problem in " in json.loads(outcome.printed)["error"]


def test_a_folder_of_no_known_layout_needs_a_name(command: Command, tmp_path: Path) -> None:
    outcome = command("audit", "--data", tmp_path)
    assert outcome.status == 2
    assert "name the experiment: python launch.py audit NAME --data …; there are: " in outcome.text


@pytest.mark.usefixtures("own_audits")
def test_audits_of_pixels_get_what_was_measured(command: Command, obvious: Path, runs: Path) -> None:
    @register_audit("toy", decodes=True)
    def toy(evidence: Evidence) -> Iterator[Found]:
        assert evidence.measured is not None
        assert evidence.measured.index.equals(evidence.manifest.table.index)
        yield "warn", f"{evidence.measured['measured'].sum()} images are zero", "look again"

    outcome = command("audit", "--data", obvious)
    assert "warn: 60 images are zero; look again" in outcome.text
    assert list((runs / "cache" / "measured").iterdir())


# Before a grid -------------------------------------------------------------------------------------------------------


def test_a_failed_audit_stops_a_grid_before_anything_is_trained(command: Command, shortcut: Path, runs: Path) -> None:
    outcome = command("dolos", "--data", shortcut, *CHEAP)
    assert outcome.status == 2
    assert "error: the audit of the data fails (headers, see above)" in outcome.text
    assert mlflow_runs(runs, "grid") == []
    plan = command("dolos", "--data", shortcut, *CHEAP, "--plan")
    assert plan.status == 0
    assert "a launch without --plan stops: the audit of the data fails (headers, see above)" in plan.text


def test_an_accepted_audit_is_kept_with_the_grid_and_said_above_every_table(
    command: Command, shortcut: Path, runs: Path, new_store: Callable[[Path], str]
) -> None:
    uri = new_store(runs)
    outcome = command("dolos", "--data", shortcut, *CHEAP, "--accept-audit", "counts,headers")
    assert outcome.status == 0
    line = "audit: 1 fail (headers, accepted)"
    assert outcome.text.count(line) == 2  # before the grid, and above its table
    (grid,) = mlflow_runs(runs, "grid")
    assert "--accept-audit counts,headers" in grid.data.tags[names.OPTIONS]
    verdict = open_store("dolos", tracking_uri=uri).verdict
    assert verdict is not None
    assert (verdict.accepted, verdict.levels["headers"]) == (("counts", "headers"), "fail")
    # A finished grid starts nothing, so nothing has to be accepted again; what was accepted stays so.
    again = command("dolos", "--data", shortcut, *CHEAP)
    assert again.status == 0
    assert "nothing to run" in again.text
    assert line in again.text.partition("nothing to run")[2]


def test_a_name_that_is_no_audit_is_refused(command: Command, obvious: Path) -> None:
    outcome = command("dolos", "--data", obvious, *CHEAP, "--accept-audit", "header")
    assert outcome.status == 2
    assert "--accept-audit: no audit named 'header' (did you mean 'headers'?); there are: " in outcome.text


@pytest.mark.usefixtures("own_audits")
def test_audits_of_pixels_run_before_a_grid_and_not_for_a_plan(dolos: Command, runs: Path) -> None:
    @register_audit("toy", decodes=True)
    def toy(evidence: Evidence) -> Iterator[Found]:
        yield "fail", "all images are zero", "look again"

    options = ("--methods", "residual_linear", "--tasks", "attribution")
    assert "zero" not in dolos(*options, "--plan").text
    assert not (runs / "cache" / "measured").exists()
    outcome = dolos(*options)
    assert outcome.status == 2
    assert "the audit of the data fails (toy, see above)" in outcome.text
    assert list((runs / "cache" / "measured").iterdir())
    assert mlflow_runs(runs, "trial") == []


# In the store --------------------------------------------------------------------------------------------------------


def test_what_was_accepted_once_stays_accepted(store: str, tmp_path: Path) -> None:
    manifest = paper_manifest(tmp_path / "images")
    spec = make_spec(manifest.digest)
    found = Finding("headers", "fail", "fakes alone are PNG", "save all of them as PNG", ("a.png",), (("auroc", 1.0),))
    first = Verdict(("counts", "headers"), (found,), ("headers",))
    tracker = tracking.find_grid(store, "dolos", manifest, tmp_path / "artifacts")
    tracker.record_launch(manifest, [spec], verdict=first)
    assert open_store("dolos", tracking_uri=store, unfinished=True).verdict == first
    second = Verdict(("counts", "headers", "pixels"), (found,))
    tracking.keep_verdict(store, "dolos", manifest.digest, second)
    kept = open_store("dolos", tracking_uri=store, unfinished=True).verdict
    assert kept == Verdict(second.audits, second.findings, ("headers",))


def test_a_grid_of_before_has_no_verdict(store: str, tmp_path: Path) -> None:
    manifest = paper_manifest(tmp_path / "images")
    open_grid(store, "dolos", manifest, [make_spec(manifest.digest)], tmp_path / "artifacts")
    assert open_store("dolos", tracking_uri=store, unfinished=True).verdict is None
    tracking.keep_verdict(store, "another", manifest.digest, Verdict((), ()))
    assert open_records(store, "another") is None  # nothing is made for it
