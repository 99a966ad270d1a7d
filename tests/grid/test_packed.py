"""Corpora in Parquet and tar files: a launch unpacks them into its cache first, and reads them as any other."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

import data.unpack
from tests.corpora import picture
from tests.grid.command import Command, mlflow_runs
from tests.grid.grids import SIDE
from tests.published import edited, encoded, write_opensdi, write_parquet, write_tar

pytestmark = pytest.mark.usefixtures("nothing_from_outside")

CHEAP = ("--methods", "residual_linear", "--local", "--tasks", "detection")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "x"


def write_tars(root: Path) -> Path:
    """A WebDataset with a tar file per split; each name once."""
    for split, number in (("train", 12), ("valid", 4), ("test", 4)):
        members: list[tuple[str, bytes]] = []
        for index in range(number):
            name = f"{split}{index:03d}"
            pixels, mask = edited(f"fake {name}", name, SIDE)
            facts = json.dumps({"generator": "lama", "source_id": name}).encode()
            members += [(f"r{name}.png", encoded(picture(name, SIDE))), (f"r{name}.cls", b"0")]
            members += [(f"r{name}.json", json.dumps({"source_id": name}).encode())]
            members += [(f"f{name}.png", encoded(pixels)), (f"f{name}.mask.png", encoded(mask)), (f"f{name}.cls", b"1")]
            members += [(f"f{name}.json", facts)]
        write_tar(root / f"{split}-00000-of-00001.tar", members)
    return root


def test_a_webdataset_is_described_planned_and_run_small(command: Command, runs: Path, store: str, root: Path) -> None:
    write_tars(root)
    outcome = command("describe", root, "--json")
    assert outcome.status == 0
    facts = json.loads(outcome.printed)
    assert (facts["corpus"], facts["trained_on"], facts["white_means"]) == ("manifest", ["lama"], {"fake": 20})
    assert Path(facts["folder"]).is_relative_to(runs / "cache/corpora")
    assert command("manifest", "--data", root, *CHEAP, "--limit", "4", "--plan").status == 0
    ran = command("manifest", "--data", root, *CHEAP, "--limit", "4")
    assert ran.status == 0, ran.printed
    assert {run.info.status for run in mlflow_runs(runs, "trial", "manifest")} == {"FINISHED"}
    again = command("manifest", "--data", root, *CHEAP, "--limit", "4")
    assert "are finished; nothing to run" in again.text
    assert "unpacking" not in again.text


def test_progress_is_shown_and_the_folder_in_the_cache_is_a_corpus_too(
    command: Command, runs: Path, root: Path
) -> None:
    write_opensdi(root, SIDE)
    first = command("describe", root)
    assert "unpacking MiB: 1/1" in first.text
    packed = json.loads(command("describe", root, "--json").printed)
    unpacked = json.loads(command("describe", packed["folder"], "--json").printed)
    assert Path(packed["folder"]).is_relative_to(runs / "cache/corpora")
    assert (unpacked["data"], unpacked["corpus"]) == (packed["data"], "opensdi")


def test_a_broken_file_is_one_message_and_exit_status_2(command: Command, root: Path) -> None:
    write_opensdi(root, SIDE)
    path = root / "OpenSDI_test/data/flux-00000-of-00001.parquet"
    path.write_bytes(path.read_bytes()[:500])
    for words in (("describe", root), ("opensdi", "--data", root, *CHEAP), ("audit", "opensdi", "--data", root)):
        outcome = command(*words)
        assert outcome.status == 2
        assert "the shard OpenSDI_test/data/flux-00000-of-00001.parquet in" in outcome.text
        assert "fetch the file again; shards that are unpacked stay; then the same command goes on" in outcome.text


def test_a_disk_that_fills_up_is_one_message(command: Command, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_opensdi(root, SIDE)

    def full(self: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    monkeypatch.setattr(data.unpack.Path, "write_bytes", full)
    for words in (("describe", root), ("opensdi", "--data", root, *CHEAP, "--plan")):
        outcome = command(*words)
        assert outcome.status == 2
        assert "a disk is full" in outcome.text


def test_a_list_that_is_named_is_read_as_it_is(command: Command, root: Path) -> None:
    write_parquet(root / "a.parquet", [{"image": encoded(picture("a"))}])
    outcome = command("describe", root / "a.parquet")
    assert outcome.status == 2
    write_tar(root / "b.tar", [("a.png", encoded(picture("a")))])
    assert "b.tar is a tar file, not a list (1); remedy: give its folder" in command("describe", root / "b.tar").text
    assert "a.parquet holds pictures in its column image (1); remedy: give its folder, without a list" in outcome.text


def test_archives_beside_what_was_extracted_change_nothing(command: Command, root: Path) -> None:
    from tests.corpora import write_dolos

    write_dolos(root, counts={"train": 3, "valid": 2, "test": 2}, size=SIDE)
    (root / "dolos.tar.gz").write_bytes(b"not looked at")
    assert json.loads(command("describe", root, "--json").printed)["corpus"] == "dolos"
