"""Tracking URIs, with options and odd paths in them."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from grid import uris


def test_a_file_becomes_a_uri_and_back() -> None:
    uri = uris.sqlite_uri(Path("/data/my runs/mlflow.db"))
    assert uri == "sqlite:////data/my runs/mlflow.db"
    assert uris.sqlite_file(uri) == Path("/data/my runs/mlflow.db")


@pytest.mark.parametrize("name", ["my%20runs", "100%", "a%2Fb"])
def test_a_percent_sign_in_a_path_stays_one(name: str, tmp_path: Path) -> None:
    file = tmp_path / name / "mlflow.db"
    file.parent.mkdir()
    uri = uris.sqlite_uri(file)
    assert uris.sqlite_file(uri) == file
    with create_engine(uri).connect() as connection:
        connection.execute(text("CREATE TABLE t (x int)"))
    assert file.stat().st_size > 0


@pytest.mark.parametrize("uri", ["sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite+pysqlite:////tmp/x.db"])
def test_a_store_that_other_processes_cannot_see_is_refused(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(ValueError, match=r"must name a file, as sqlite:///PATH/mlflow.db, or a server"):
        uris.tracking_uri(tmp_path)


def test_options_are_no_part_of_the_file() -> None:
    assert uris.sqlite_file("sqlite:////runs/mlflow.db?timeout=60") == Path("/runs/mlflow.db")
    assert uris.sqlite_file("sqlite:////runs/mlflow.db?timeout=60&cache=shared") == Path("/runs/mlflow.db")


@pytest.mark.parametrize("uri", ["http://host:5000", "postgresql://me@host/db", "/runs/mlruns", "file:///runs/mlruns"])
def test_other_stores_have_no_sqlite_file(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert uris.sqlite_file(uri) is None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert uris.tracking_uri(tmp_path) == uri


def test_a_question_mark_in_a_path_is_refused_with_what_to_do() -> None:
    with pytest.raises(ValueError, match="question mark") as caught:
        uris.sqlite_uri(Path("/data/q?x/mlflow.db"))
    assert "/data/q?x/mlflow.db" in str(caught.value)
    assert "--runs" in str(caught.value)


def test_a_relative_file_becomes_absolute_and_keeps_its_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for named, absolute in (
        ("sqlite:///mlflow.db", f"sqlite:///{tmp_path}/mlflow.db"),
        ("sqlite:///mlflow.db?timeout=60", f"sqlite:///{tmp_path}/mlflow.db?timeout=60"),
        (f"sqlite:///{tmp_path}/x.db?a=1", f"sqlite:///{tmp_path}/x.db?a=1"),
    ):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", named)
        assert uris.tracking_uri(tmp_path / "elsewhere") == absolute


def test_the_store_is_the_one_of_the_environment_else_the_one_in_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert uris.tracking_uri(tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    assert uris.tracking_uri(tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////elsewhere/x.db?timeout=60")
    assert uris.tracking_uri(tmp_path) == "sqlite:////elsewhere/x.db?timeout=60"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000")
    assert uris.tracking_uri(tmp_path / "q?x") == "http://host:5000"  # nothing is kept in that folder


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("file:///runs/my%20artifacts", Path("/runs/my artifacts")),
        ("/runs/artifacts", Path("/runs/artifacts")),
        ("mlflow-artifacts:/0/abc", None),
        ("s3://bucket/x", None),
    ],
)
def test_what_lies_on_this_machine_has_a_path(uri: str, path: Path | None) -> None:
    assert uris.local_path(uri) == path
