"""Corpora from a bucket: file:// addresses, and a server that speaks S3 on loopback."""

from __future__ import annotations

import logging
import os
import shutil
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

import data.fetch
from data.addresses import is_url
from data.fetch import FetchError, fetch, local_folder
from data.manifest import build_manifest
from grid.commands import BadInputError
from grid.commands.run import read_data
from grid.options import resolve
from launch import parse_arguments
from tests.corpora import write_dolos


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    """A folder that stands for a bucket, with a Dolos tree."""
    return write_dolos(tmp_path / "bucket" / "dolos", ("lama",), {"train": 3, "valid": 2, "test": 2})


@pytest.fixture
def corpora(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "corpora"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def read(bucket: Path, corpora: Path) -> tuple[Path, list[tuple[int, int]]]:
    calls: list[tuple[int, int]] = []
    return fetch(bucket.as_uri(), corpora, progress=lambda *call: calls.append(call)), calls


@pytest.mark.parametrize(
    ("text", "expected"),
    [("s3://a/b", True), ("gs://a", True), ("file:///a", True), ("/a/b", False), ("a", False), ("./a://b", False)],
)
def test_an_address_is_told_from_a_path(text: str, expected: bool) -> None:
    assert is_url(text) == expected


def test_the_folder_depends_on_the_address_and_not_on_who_asks(corpora: Path) -> None:
    plain = local_folder("s3://bucket/faces/dolos", corpora)
    assert plain.parent == corpora
    assert plain.name.startswith("dolos-")
    for same in ("s3://bucket/faces/dolos/", "s3://KEY:SECRET@bucket/faces/dolos"):
        assert local_folder(same, corpora) == plain
    for other in ("s3://bucket/other/dolos", "s3://bucket/faces/dolos?region=eu-west-1"):
        assert local_folder(other, corpora) != plain
        assert local_folder(other, corpora).name.startswith("dolos-")
    assert local_folder("s3://bucket/..", corpora).parent == corpora


def test_everything_is_fetched_once(bucket: Path, corpora: Path) -> None:
    total = len(contents(bucket))
    folder, calls = read(bucket, corpora)
    assert folder == local_folder(bucket.as_uri(), corpora)
    assert calls == [(number, total) for number in range(1, total + 1)]
    assert contents(folder) == contents(bucket)
    assert read(bucket, corpora) == (folder, [])


def test_a_data_set_is_the_same_wherever_it_is_read_from(bucket: Path, corpora: Path, cache: Path) -> None:
    folder, _ = read(bucket, corpora)
    one, two = (build_manifest("dolos", root, cache=cache) for root in (bucket, folder))
    assert one.digest == two.digest


@pytest.mark.parametrize("change", ["size", "time"])
def test_what_has_changed_is_fetched_again(bucket: Path, corpora: Path, change: str) -> None:
    folder, _ = read(bucket, corpora)
    path = sorted(bucket.rglob("*.png"))[2]
    facts = path.stat()
    path.write_bytes(path.read_bytes()[::-1] + (b"x" if change == "size" else b""))
    os.utime(path, ns=(facts.st_mtime_ns, facts.st_mtime_ns + (0 if change == "size" else 2 * 10**9)))
    assert read(bucket, corpora)[1] == [(1, 1)]
    assert contents(folder) == contents(bucket)


def test_what_has_gone_from_the_bucket_is_removed_and_said(
    bucket: Path, corpora: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, _ = read(bucket, corpora)
    shutil.rmtree(bucket / "celebahq" / "real" / "test")
    read(bucket, corpora)
    assert contents(folder) == contents(bucket)
    assert not (folder / "celebahq" / "real" / "test").exists()
    assert f"2 files have gone from {bucket.as_uri()}" in caplog.text


def broken_after(monkeypatch: pytest.MonkeyPatch, num_files: int, error: BaseException) -> None:
    """The bucket gives half of the first block of the file after so many, and then this."""
    blocks = data.fetch._blocks
    started = 0

    def failing(filesystem: Any, path: str) -> Iterator[bytes]:
        nonlocal started
        started += 1
        if started <= num_files:
            yield from blocks(filesystem, path)
        else:
            content = next(blocks(filesystem, path))
            yield content[: len(content) // 2]
            raise error

    monkeypatch.setattr(data.fetch, "_blocks", failing)
    monkeypatch.setattr(data.fetch, "_THREADS", 1)


@pytest.mark.parametrize("error", [KeyboardInterrupt("Ctrl-C"), data.fetch._Unreadable("the line is dead")])
def test_an_interrupted_fetch_leaves_whole_files_and_goes_on_with_the_others(
    bucket: Path, corpora: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    expected, total = contents(bucket), len(contents(bucket))
    broken_after(monkeypatch, 4, error)
    with pytest.raises((KeyboardInterrupt, FetchError), match=str(error)):
        read(bucket, corpora)
    monkeypatch.undo()
    folder = local_folder(bucket.as_uri(), corpora)
    there = contents(folder)
    assert 4 <= len(there) < total
    assert there.items() <= expected.items()
    assert read(bucket, corpora)[1][-1] == (total - len(there), total - len(there))
    assert contents(folder) == expected


def test_what_a_killed_fetch_left_behind_is_removed(
    bucket: Path, corpora: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, _ = read(bucket, corpora)
    old, young = (folder / "celebahq" / f".fetching-{name}" for name in ("0123", "4567"))
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    read(bucket, corpora)
    assert not old.exists()
    assert young.exists()  # it may be another machine's
    young.unlink()
    assert contents(folder) == contents(bucket)
    assert caplog.text == ""


def test_a_file_that_comes_short_is_refused(bucket: Path, corpora: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data.fetch, "_blocks", lambda filesystem, path: [b"short"])
    with pytest.raises(FetchError, match=r"bytes, but 5 came.*\n.*the same command continues"):
        read(bucket, corpora)
    assert not contents(local_folder(bucket.as_uri(), corpora))


def test_what_cannot_be_read_is_said_with_a_remedy_and_without_the_secret(bucket: Path, corpora: Path) -> None:
    with pytest.raises(FetchError, match="check the address and whether the folder can be read"):
        fetch((bucket / "nowhere").as_uri(), corpora)
    with pytest.raises(FetchError, match="Unrecognized filesystem type"):
        fetch("nothing://a/b", corpora)
    with pytest.raises(FetchError, match="cannot read s3://faces/dolos") as caught:
        fetch("s3://KEY:SECRET@faces/dolos?scheme=http&endpoint_override=127.0.0.1:1&region=x", corpora)
    assert "SECRET" not in str(caught.value)
    assert "AWS_ACCESS_KEY_ID" in str(caught.value)
    assert not corpora.exists()


@pytest.mark.parametrize("secret", ["wJal/SEC+RET", "SEC%RET", "SEC RET", "SEC@RET/x", "SECRET%2Fx"])
def test_a_secret_is_never_shown(corpora: Path, secret: str) -> None:
    with pytest.raises(FetchError) as caught:
        fetch(f"s3://AKIAKEY:{secret}@faces/dolos?scheme=http&endpoint_override=127.0.0.1:1&region=x", corpora)
    told = "".join(traceback.format_exception(caught.value))
    assert "cannot read s3://faces/dolos" in str(caught.value)
    for part in (secret, "RET", "AKIAKEY"):
        assert part not in told.replace('fetch(f"s3://AKIAKEY:{secret}@faces', "")


def test_a_file_that_is_also_a_folder_is_refused(bucket: Path, corpora: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pyarrow.fs import FileType

    found = [SimpleNamespace(path=f"{bucket}/{name}", type=FileType.File, size=1) for name in ("a", "a/b")]

    class Store:
        def get_file_info(self, selector: object) -> list[SimpleNamespace]:
            return found

    monkeypatch.setattr("pyarrow.fs.FileSystem", SimpleNamespace(from_uri=lambda url: (Store(), str(bucket))))
    with pytest.raises(FetchError, match=r"rename them: a \(also a folder\)"):
        fetch("s3://faces/dolos", corpora)


def test_an_empty_bucket_removes_nothing(bucket: Path, corpora: Path) -> None:
    folder, _ = read(bucket, corpora)
    there = contents(folder)
    shutil.rmtree(bucket)
    bucket.mkdir()
    with pytest.raises(FetchError, match="there are no files"):
        read(bucket, corpora)
    assert contents(folder) == there


# An S3 server --------------------------------------------------------------------------------------------------------


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch, bucket: Path) -> Iterator[Any]:
    """A client of a server whose bucket `faces` holds `bucket` under `dolos/`; the environment names both."""
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    client = boto3.client("s3")
    client.create_bucket(Bucket="faces")
    for path in bucket.rglob("*.png"):
        client.upload_file(str(path), "faces", f"dolos/{path.relative_to(bucket)}")
    yield client
    client.close()
    server.stop()


def test_a_launch_reads_a_corpus_from_s3(
    s3: Any, bucket: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def look(address: str = "s3://faces/dolos") -> tuple[Any, str]:
        options = parse_arguments(["dolos", "--data", address, "--runs", str(tmp_path / "runs"), "--skip-bad"])
        console = Console(record=True, width=200)
        return read_data(resolve(options), console), console.export_text()

    total = len(contents(bucket))
    manifest, output = look()
    assert f"fetching files: {total}/{total}" in output
    assert contents(manifest.root) == contents(bucket)
    assert manifest.root.is_relative_to(tmp_path / "runs" / "cache" / "corpora")
    assert manifest.digest == build_manifest("dolos", bucket, cache=tmp_path / "other", skip_bad=True).digest

    again, output = look()
    assert "fetching files" not in output
    assert again.digest == manifest.digest

    gone = next(bucket.glob("celebahq/real/train/*.png")).relative_to(bucket)
    s3.delete_object(Bucket="faces", Key=f"dolos/{gone}")
    fewer, _ = look()
    assert not (fewer.root / gone).exists()
    assert "1 files have gone from s3://faces/dolos" in caplog.text

    with pytest.raises(BadInputError, match=r"cannot read s3://elsewhere/dolos(.|\n)*check the address"):
        look("s3://elsewhere/dolos")
