"""The folder for a paper: whole, without secrets, and readable without this software."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.__main__ import main
from analysis.export import find_manifest, find_report, without_paths, write_export
from analysis.store import Store, StoreError, open_store
from tests.analysis.conftest import Exported


@pytest.fixture(scope="module")
def store(exported: Exported) -> Store:
    return open_store(tracking_uri=exported.uri)


def test_it_holds_a_row_per_image_trial_and_condition(exported: Exported) -> None:
    trials = pd.read_csv(exported.export / "trials.csv", keep_default_na=False)
    assert trials["state"].tolist().count("finished") == 4
    for key, conditions, task in trials.loc[trials["state"] == "finished", ["key", "conditions", "task"]].itertuples(
        index=False
    ):
        for condition in conditions.split(","):
            rows = pd.read_parquet(exported.export / "scores" / key / f"{condition}.parquet")
            assert len(rows) == 36
            assert set(rows["trial"]) == {key}
            assert set(rows["condition"]) == {condition}
            logits = ["logit_real", "logit_fake", "score"] if task == "detection" else []
            assert {"path", "digest", "source_id", "generator", "label", *logits} <= set(rows.columns)
        assert np.load(exported.export / "embeddings" / f"{key}.npy").shape == (36, 2)
        spec = json.loads((exported.export / "specs" / f"{key}.json").read_text())
        assert spec["task"] == task
    assert len(pd.read_csv(exported.export / "manifest.csv")) == 108
    assert {path.suffix for path in (exported.export / "report" / "tables").iterdir()} == {".csv", ".md", ".tex"}


def test_the_digests_are_those_of_the_files(exported: Exported) -> None:
    done = subprocess.run(
        ["sha256sum", "-c", "--strict", "SHA256SUMS"], cwd=exported.export, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    files = {p.relative_to(exported.export).as_posix() for p in exported.export.rglob("*") if p.is_file()}
    assert len(done.stdout.splitlines()) == len(files) - 1


def test_the_readme_names_every_file_and_every_column(exported: Exported) -> None:
    readme = (exported.export / "README.md").read_text(encoding="utf-8")
    assert {path.name for path in exported.export.iterdir()} - {"README.md"} <= {
        name.split("/")[0] for name in re.findall(r"^\| `([^`]*)`", readme, re.MULTILINE)
    }
    words = set(re.findall(r"`([\w/]+)`", readme))
    for name in ("manifest.csv", "trials.csv"):
        assert set(pd.read_csv(exported.export / name).columns) <= words
    (scores, *_) = (exported.export / "scores").rglob("clean.parquet")
    assert {name for name in pd.read_parquet(scores).columns if not name.startswith("logit_")} <= words


def test_no_path_of_this_machine_is_in_it(exported: Exported, tmp_path: Path) -> None:
    found = []
    for path in exported.export.rglob("*"):
        if path.is_file() and re.search(rb"/tmp/|/home/|/root/|%s" % str(exported.runs).encode(), path.read_bytes()):
            found.append(path)
    assert found == []
    assert "PATH/mlflow.db" in (exported.export / "report" / "tables" / "provenance.csv").read_text()


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("error in /home/ann/data/x.png: bad", "error in PATH/x.png: bad"),
        ('{"a": "/mnt/b/c.pt"}', '{"a": "PATH/c.pt"}'),
        ("sqlite:////srv/runs/mlflow.db", "PATH/mlflow.db"),
        ("file:///srv/runs/artifacts 3", "PATH/artifacts 3"),
        ("http://ann:pw@host:5000/x", "http://host:5000/x"),
        ("s3://bucket/folder/x.png", "s3://bucket/folder/x.png"),
        ("--data=/data/dolos --set a=b", "--data=PATH/dolos --set a=b"),
        ("~/data/dolos", "PATH/dolos"),
        ("in /my data/x/y.png", "in PATH/x/y.png"),
        ("tested on / trained on, test/all/accuracy, 3/4, #/experiments/1/runs/2", None),
        ("celebahq/real/test/1.png, 2026/11/27, and/or, </td></tr>", None),
    ],
)
def test_of_a_path_the_last_part_stays(text: str, left: str | None) -> None:
    assert without_paths(text, ["/my data"]) == (text if left is None else left)


def test_what_the_grids_run_holds_is_copied_but_for_its_report(
    exported: Exported, store: Store, tmp_path: Path
) -> None:
    artifacts = exported.runs / "artifacts" / store.parent.info.run_id / "artifacts"
    (artifacts / "audit.json").write_text('{"where": "/data/secret/face.png"}')
    try:
        write_export(store, tmp_path / "out", exported.report)
    finally:
        (artifacts / "audit.json").unlink()
    names = {path.name for path in (tmp_path / "out" / "artifacts").iterdir()}
    assert names == {"audit.json", "plan.json", "manifest.txt", "notes.txt"}
    assert (tmp_path / "out" / "artifacts" / "audit.json").read_text() == '{"where": "PATH/face.png"}'
    assert "artifacts/audit.json" in (tmp_path / "out" / "README.md").read_text()


def test_a_folder_that_is_not_empty_is_refused(
    exported: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert main(["export", str(tmp_path), "--tracking-uri", exported.uri]) == 2
    assert "is not empty; name a new folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_it_is_written_whole_or_not_at_all(exported: Exported, store: Store, tmp_path: Path) -> None:
    run_id = store.runs().loc[store.runs()["task"] == "attribution", "run_id"].iloc[0]
    vectors = store.artifact(run_id, "embeddings.npy")
    vectors.rename(tmp_path / "away.npy")
    (tmp_path / "out").mkdir()
    try:
        with pytest.raises(StoreError, match=r"embeddings\.npy of run"):
            write_export(store, tmp_path / "out", exported.report)
    finally:
        (tmp_path / "away.npy").rename(vectors)
    assert list((tmp_path / "out").iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    write_export(store, tmp_path / "out", exported.report)  # into the empty folder
    assert (tmp_path / "out" / "SHA256SUMS").is_file()


def test_without_a_manifest_it_says_where_one_comes_from(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="name the grid's cache with --cache DIR"):
        find_manifest(store, tmp_path)


def test_the_report_is_that_of_the_grid(
    exported: Exported, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Path(shutil.copytree(exported.report, tmp_path / "other"))
    facts = other / "tables" / "provenance.csv"
    facts.write_text(facts.read_text().replace("grid's run,", "grid's run,f"))
    with pytest.raises(StoreError, match=r"other: its report is of the grid's run f\w+, not of "):
        find_report(store, other, tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scratch").mkdir()
    kept, note = find_report(store, None, tmp_path / "scratch")
    assert (kept / "tables" / "summary.csv").read_bytes() == (exported.report / "tables" / "summary.csv").read_bytes()
    assert note == "the report is the one that is kept with the grid's run (the folder report: no report is in it)"


def test_a_specification_with_a_path_is_said_to_be_changed(exported: Exported, store: Store, tmp_path: Path) -> None:
    """Its key cannot be derived any more, which is no difference."""
    key = str(store.runs()["key"].iloc[0])
    spec = store.artifact(str(store.runs()["run_id"].iloc[0]), "spec.json")
    text = spec.read_text()
    spec.write_text(json.dumps(json.loads(text) | {"note": "/data/weights/model.pt"}))
    try:
        write_export(dataclasses.replace(store), tmp_path / "out", exported.report)
    finally:
        spec.write_text(text)
    facts = json.loads((tmp_path / "out" / "export.json").read_text())
    assert facts["specs_without_paths"] == [key]
    assert main(["verify", str(tmp_path / "out")]) == 0


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "what,value\nMLflow,x\n"])
def test_a_damaged_table_of_provenance_is_no_report(
    text: str, exported: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = Path(shutil.copytree(exported.report, tmp_path / "report"))
    (report / "tables" / "provenance.csv").write_text(text)
    assert main(["verify", str(report)]) == 2
    assert "provenance.csv is missing or damaged; `python -m analysis` writes it" in capsys.readouterr().err
