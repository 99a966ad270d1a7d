"""`describe`: what a folder is understood as."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from grid import names
from grid.options import resolve
from launch import parse_arguments
from tests.corpora import write_csv, write_folders
from tests.data.test_lists import FULL, write_files
from tests.grid.command import Command, mlflow_runs
from tests.grid.grids import SIDE
from tests.published import write_brgen, write_inpx, write_opensdi, write_tgif

pytestmark = pytest.mark.usefixtures("nothing_from_outside")

BOTH = ("0_real", "1_fake")
CHEAP = ("--methods", "residual_linear", "--local", "--tasks", "detection")


def write_benchmark(root: Path) -> None:
    folders = {f"{split}/{name}/{c}": 6 for split in ("train", "val") for name in ("car", "cat") for c in BOTH}
    write_folders(root, folders | {f"test/{g}/{c}": 3 for g in ("progan", "sd") for c in BOTH}, SIDE, restart=False)


def write_list(root: Path) -> None:
    write_csv(write_files(root, FULL) / "list.csv", FULL)
    for path in root.rglob("*.png"):
        Image.open(path).resize((SIDE, SIDE), Image.Resampling.NEAREST).save(path)


def write_of_br_gen(root: Path) -> None:
    for split, first, count in (("Train", 0, 8), ("Val", 10, 3), ("Test", 20, 3)):
        names = [f"COCO_{number:011d}" for number in range(first, first + count)]
        write_brgen(root / f"BRGen-Stuff-{split}", names, size=SIDE)


# Corpora with a reader of their own -> how they are drawn, what is trained on, and what is tested alone. The layouts of
# folders and lists are in test_layouts.py.
READ_BY_NAME: dict[str, tuple[Callable[[Path], object], list[str], list[str]]] = {
    "opensdi": (partial(write_opensdi, size=SIDE), ["sd15"], ["flux"]),
    "tgif": (partial(write_tgif, size=SIDE), ["ps-sp", "sd2-sp"], []),
    "inpx": (partial(write_inpx, models=["OpenJourney"], size=SIDE), ["OpenJourney", "OpenJourney-exchanged"], []),
    "benco": (write_of_br_gen, ["LaMa", "MAT"], []),
}


def described(command: Command, *words: str | Path) -> dict[str, Any]:
    outcome = command("describe", *words, "--json")
    assert outcome.status == 0, outcome.printed
    found: dict[str, Any] = json.loads(outcome.printed)
    return found


@pytest.mark.parametrize("corpus", READ_BY_NAME)
def test_a_corpus_with_a_reader_of_its_own_is_described_planned_and_run_small(
    command: Command, runs: Path, store: str, tmp_path: Path, corpus: str
) -> None:
    write, trained, tested = READ_BY_NAME[corpus]
    write(tmp_path / "x")
    facts = described(command, tmp_path / "x")
    assert (facts["corpus"], facts["trained_on"], facts["only_tested"]) == (corpus, trained, tested)
    plan = command(corpus, "--data", tmp_path / "x", *CHEAP, "--limit", "4", "--plan", "--json")
    assert plan.status == 0
    assert sorted("+".join(trial["trained_on"]) for trial in plan.trials) == trained
    ran = command(corpus, "--data", tmp_path / "x", *CHEAP, "--limit", "4")
    assert ran.status == 0, ran.printed
    assert {run.info.status for run in mlflow_runs(runs, "trial", corpus)} == {"FINISHED"}


def test_groups_and_splits_are_counted(command: Command, tmp_path: Path) -> None:
    write_benchmark(tmp_path / "x")
    facts = described(command, tmp_path / "x")
    counts = {(group["generator"], group["label"]): list(group["images"].values()) for group in facts["groups"]}
    assert counts == {
        ("progan", "real"): [12, 12, 3], ("progan", "fake"): [12, 12, 3], ("sd", "real"): [0, 0, 3],
        ("sd", "fake"): [0, 0, 3],
    }  # fmt: skip
    assert any("LSUN" in note for note in facts["notes"])


def test_names_that_a_launch_refuses_are_said(command: Command, tmp_path: Path) -> None:
    groups = {f"{g}/{split}/{c}": 3 for g in ("sd (v1.5)", "all") for split in ("train", "val", "test") for c in BOTH}
    write_folders(tmp_path / "x", groups, SIDE, restart=False)
    notes = described(command, tmp_path / "x")["notes"]
    refused = [note for note in notes if note.startswith("a launch refuses these names: ")]
    assert [name in note for name, note in zip(("'sd (v1.5)'", "'all'"), refused, strict=True)] == [True, True]


def test_what_is_understood_of_a_test_set_alone_is_said_beside_the_refusal(command: Command, tmp_path: Path) -> None:
    write_folders(tmp_path / "testset", {f"{g}/{c}": 3 for g in ("sd", "gan") for c in BOTH}, SIDE, restart=False)
    for words in ((), ("--json",)):
        outcome = command("describe", tmp_path / "testset", *words)
        assert outcome.status == 2
        said = json.loads(outcome.printed)["error"] if words else outcome.printed
        assert "only test images" in said
        for line in ("gan (fake): train 0, valid 0, test 3", "sd (real): train 0, valid 0, test 3"):
            assert line in said
        assert "note: the folder is a benchmark's test set" in " ".join(said.split())


def test_a_list_beside_a_tree_of_folders_is_read(command: Command, tmp_path: Path) -> None:
    write_list(tmp_path / "x")
    (tmp_path / "x/lama").rename(tmp_path / "x/fake")
    (tmp_path / "x/list.csv").rename(tmp_path / "x/table.csv")
    write_csv(tmp_path / "x/table.csv", [{**row, "path": row["path"].replace("lama/", "fake/")} for row in FULL])
    facts = described(command, tmp_path / "x")
    assert (facts["corpus"], facts["trained_on"], facts["white_means"]) == ("manifest", ["lama"], {"fake": 6})


def test_the_command_line_says_what_white_means_and_a_launch_repeats_it(
    command: Command, runs: Path, store: str, tmp_path: Path
) -> None:
    write_list(tmp_path / "x")
    write_csv(tmp_path / "x/list.csv", [{**row, "mask_white": ""} for row in FULL])
    assert described(command, tmp_path / "x")["white_means"] == {"fake": 6}
    facts = described(command, tmp_path / "x", "--mask-white", "kept")
    assert (facts["white_means"], facts["pairs_looked_at"]) == ({"kept": 6}, 6)
    assert facts["masks"] != []
    assert command("manifest", "--data", tmp_path / "x", *CHEAP, "--mask-white", "kept").status == 0
    (grid,) = mlflow_runs(runs, "grid", "manifest")
    assert "--mask-white kept" in grid.data.tags[names.OPTIONS]


def test_what_is_printed_fits_into_80_columns_and_nothing_is_trained(
    command: Command, runs: Path, tmp_path: Path
) -> None:
    write_benchmark(tmp_path / "x")
    outcome = command("describe", tmp_path / "x")
    assert outcome.status == 0
    lines = outcome.printed.splitlines()
    commands = [line for line in lines if "python launch.py" in line]  # these are copied
    assert max(map(len, (line for line in lines if line not in commands))) <= max(80, len(str(tmp_path)) + 20)
    assert commands == [
        f"to train on it: python launch.py folders --data {tmp_path / 'x'}",
        f"to look at its pixels: python launch.py audit folders --data {tmp_path / 'x'}",
    ]
    assert any(line.split() == ["progan", "12", "12", "3", "0", "27"] for line in lines)
    assert "can be trained on: progan" in outcome.text
    assert "only tested: sd" in outcome.text
    assert "note: only tested, because they have no training images: sd" in outcome.text
    assert not (runs / "mlflow.db").exists()


def test_the_meaning_of_white_is_said_and_held_against_the_originals(command: Command, tmp_path: Path) -> None:
    write_list(tmp_path / "x")
    facts = described(command, tmp_path / "x")
    assert facts["white_means"] == {"fake": 6}
    assert facts["pairs_looked_at"] == 6
    assert facts["masks"] == ["lama: all 6 masks are the same, and nothing else changed"]
    plan = command("manifest", "--data", tmp_path / "x", *CHEAP, "--plan")
    assert "masks of a sample (6 beside their originals): lama: all 6 masks are the same" in plan.text
    write_csv(tmp_path / "x/list.csv", [{**row, "mask_white": "kept" if row["mask"] else ""} for row in FULL])
    for path in (tmp_path / "x/lama").rglob("*.png"):  # all of the image changes, and the region more
        pixels, mask = (
            np.array(Image.open(path)).astype(int),
            np.array(Image.open(tmp_path / "x/masks" / "/".join(path.parts[-2:]))),
        )
        changed = np.where(mask[:, :, None] > 127, 255 - pixels, np.where(pixels < 250, pixels + 1, pixels - 1))
        Image.fromarray(changed.astype(np.uint8)).save(path)
    wrong = described(command, tmp_path / "x")
    assert wrong["white_means"] == {"kept": 6}
    assert any("6 of 6 masks are inverted" in text for text in wrong["masks"])
    plan = command("manifest", "--data", tmp_path / "x", *CHEAP, "--plan")
    assert "white means fake" not in plan.text
    text = command("describe", tmp_path / "x").text
    assert "masks: white means unchanged in 6" in text
    assert "masks held against the originals of 6 fakes: this was found" in text


def test_a_file_is_a_list_and_a_later_launch_finds_it_again(
    command: Command, runs: Path, store: str, tmp_path: Path
) -> None:
    write_list(tmp_path / "x")
    (tmp_path / "x/list.csv").rename(tmp_path / "x/mine.csv")
    (tmp_path / "x/other.csv").write_text("path,label\n")
    (tmp_path / "x/real").rename(tmp_path / "photographs")
    rows = [
        {**row, "path": row["path"].replace("real/", "own:"), "original": row["original"].replace("real/", "own:")}
        for row in FULL
    ]
    write_csv(tmp_path / "x/mine.csv", rows)
    root = f"own={tmp_path / 'photographs'}"
    assert described(command, tmp_path / "x/mine.csv", "--root", root)["further_folders"] == {
        "own": str(tmp_path / "photographs")
    }
    assert command("manifest", "--data", tmp_path / "x/mine.csv", "--root", root, *CHEAP).status == 0
    (grid,) = mlflow_runs(runs, "grid", "manifest")
    options = grid.data.tags[names.OPTIONS]
    assert options == f"--root {root} --list mine.csv --local"
    again = resolve(parse_arguments(["manifest", "--data", str(tmp_path / "x"), *options.split()]))
    assert again.repeated() == options
    finished = command("manifest", "--data", tmp_path / "x", *options.split(), *CHEAP)
    assert "are finished; nothing to run" in finished.text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "name one folder: python launch.py describe DIR"),
        (("nowhere",), "nowhere does not exist or is not a folder"),
        ((".", "--corpus", "imagenet"), "no corpus 'imagenet' of folders; there are: "),
        (
            (".", "--corpus", "folders", "--root", "a=."),
            "--root is for manifest, not for folders, which names no files",
        ),
        ((".", "--corpus", "folders", "--source-from", "(.)"), "--source-from is for manifest, not for folders"),
        (
            (".", "--corpus", "dolos", "--mask-white", "fake"),
            "not for dolos, which has no masks, or states itself what",
        ),
        ((".", "--corpus", "manifest", "--root", "coco"), "--root wants NAME=DIR"),
        (("s3://bucket/folder",), "describe reads a folder of this machine"),
    ],
)
def test_what_cannot_be_described_is_one_message(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = command("describe", *words)
    assert outcome.status == 2
    assert said in outcome.text
    in_json = command("describe", *words, "--json")
    assert in_json.status == 2
    assert said in json.loads(in_json.printed)["error"]


def test_a_folder_without_a_layout_is_told_of_lists(command: Command, tmp_path: Path) -> None:
    folder = tmp_path / "x"
    folder.mkdir()
    empty = command("describe", folder)
    assert empty.status == 2
    assert f"{folder} is empty; check the path" in empty.text
    (folder / "readme.txt").touch()
    outcome = command("describe", folder)
    assert outcome.status == 2
    assert "has no layout that is recognised; say how to read it: --corpus NAME" in outcome.text
    assert "demo" not in outcome.text  # which this software draws
    drawn = command("describe", folder, "--corpus", "demo")
    assert drawn.status == 2
    assert "no corpus 'demo' of folders; there are: " in drawn.text
