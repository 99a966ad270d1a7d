"""Lists of images: the columns, the forms of the field's projects, and defects that users meet."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from data.manifest import DataProblems, Manifest, build_manifest
from data.roots import Roots, parse_roots
from data.sources import get_source, recognise
from data.sources.base import Scan
from tests.corpora import picture, write_csv, write_image

Rows = Sequence[Mapping[str, Any]]


def touch(root: Path, *paths: str) -> None:
    """Empty files: a scan opens none."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


def scan(root: Path, **options: Any) -> Scan:
    return get_source("manifest").scan(root, **options)


def sound(found: Scan) -> Scan:
    assert found.problems == []
    return found


def whats(found: Scan) -> list[str]:
    return [problem.what for problem in found.problems]


def groups(found: Scan) -> dict[tuple[str, str, int], int]:
    return dict(Counter((entry.generator, entry.split, entry.label) for entry in found.entries))


def full(split: str, number: int) -> Rows:
    """A real image and its edited version."""
    name = f"{split}/{number}.png"
    return [
        {"path": f"real/{name}", "label": "real", "generator": "", "split": split, "source_id": f"{split}{number}",
         "mask": "", "original": "", "mask_white": ""},
        {"path": f"lama/{name}", "label": "fake", "generator": "lama", "split": split, "source_id": f"{split}{number}",
         "mask": f"masks/{name}", "original": f"real/{name}", "mask_white": "fake"},
    ]  # fmt: skip


FULL = [row for split in ("train", "valid", "test") for number in range(2) for row in full(split, number)]


def write_files(root: Path, rows: Rows) -> Path:
    """The pictures of rows with the columns of `FULL`; the middle of each fake is edited and white in its mask."""
    for row in rows:
        real = picture(str(row["source_id"]))
        mask = np.zeros((16, 16), dtype=np.uint8)
        if row["label"] == "fake":
            real[4:12, 4:12] = picture(str(row["path"]))[4:12, 4:12]
            mask[4:12, 4:12] = 255
            write_image(root / str(row["mask"]), mask)
        write_image(root / str(row["path"]), real)
    return root


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".json", ".jsonl", ".parquet"])
def test_a_whole_list_in_every_format(tmp_path: Path, cache: Path, suffix: str) -> None:
    root = write_files(tmp_path / "x", FULL)
    file = root / f"list{suffix}"
    if suffix in (".csv", ".tsv"):
        write_csv(file, FULL, separator="\t" if suffix == ".tsv" else ",")
    elif suffix == ".parquet":
        pd.DataFrame(FULL).to_parquet(file)
    else:
        lines = [json.dumps(row) for row in FULL]
        file.write_text("\n".join(lines) if suffix == ".jsonl" else f"[{','.join(lines)}]")
    manifest = build_manifest("manifest", root, cache=cache)
    assert manifest.notes == ("white means fake in 6 masks",)
    counts = manifest.table.groupby(["generator", "split", "label"]).size()
    assert counts.to_dict() == {
        (g, s, int(g == "lama")): 2 for g in ("lama", "real") for s in ("train", "valid", "test")
    }
    assert manifest.table["mask"].notna().sum() == manifest.table["original"].notna().sum() == 6
    assert manifest.digest == build_manifest("manifest", root, cache=cache).digest
    assert recognise(root) == ["manifest"]


def test_a_list_of_paths_and_labels_alone_and_every_guess_is_a_note(tmp_path: Path) -> None:
    paths = [f"{name}/{number}.png" for name in ("a", "b") for number in range(30)]
    touch(tmp_path, *paths)
    write_csv(tmp_path / "mine.csv", [{"file_name": path, "label": int(path[0] == "b"), "age": 3} for path in paths])
    found = sound(scan(tmp_path))
    assert found.splits_by_chance
    assert {entry.generator for entry in found.entries} == {"real", "mine"}
    assert {entry.split for entry in found.entries} == {"train", "valid", "test"}
    assert found.notes == [
        "the list names no splits; images were split 80/10/10 by source id with seed 0",
        "no source ids: a photograph is known by its original's or its own name",
        "columns that are not read: age",
        "no generator is named; it was taken from the list's name: mine (30 times)",
    ]


def test_the_generator_comes_from_the_files_names(tmp_path: Path) -> None:
    paths = ["train/LaMa_1.png", "train/SDXL_2.png", "train/3.png"]
    touch(tmp_path, *paths)
    rows = [{"path": path, "label": "real" if path.endswith("3.png") else "fake"} for path in paths]
    write_csv(tmp_path / "list.csv", rows)
    assert set(groups(sound(scan(tmp_path, generator_from="^([^_]+)_")))) == {
        ("LaMa", "train", 1), ("SDXL", "train", 1), ("real", "train", 0),
    }  # fmt: skip
    assert whats(scan(tmp_path, generator_from="^x(.)")) == ["no generator in the file's name"] * 2
    assert whats(scan(tmp_path, generator_from="^x")) == ["--generator-from ^x has no group"]
    assert "--generator-from (" in whats(scan(tmp_path, generator_from="("))[0]


# Forms that projects of the field use ------------------------------------------------------------------------------


def test_imdl_benco_pairs(tmp_path: Path) -> None:
    names = [f"{gen}_Stuff_COCO_{number}.png" for gen in ("MAT", "LaMa") for number in range(2)]
    pairs = [
        [f"/home/me/BRGen-Stuff-Val/Tp/{name}", f"/home/me/BRGen-Stuff-Val/Gt/{name[:-4]}_mask.png"] for name in names
    ]
    pairs += [[f"/home/me/BRGen-Stuff-Val/Au/COCO_{number}.png", "Negative"] for number in range(2)]
    touch(tmp_path, *(path.replace("/home/me/", "") for pair in pairs for path in pair if "/" in path))
    (tmp_path / "br-gen_val.json").write_text(json.dumps(pairs))
    refused = scan(tmp_path)
    assert whats(refused) == ["a list without generators"]
    assert refused.problems[0].remedy.endswith("--generator-from '^([^_]+)_'")
    assert refused.problems[0].detail == "that gives: LaMa, MAT"
    found = sound(scan(tmp_path, generator_from="^([^_]+)_"))
    assert groups(found) == {("MAT", "test", 1): 2, ("LaMa", "test", 1): 2, ("real", "test", 0): 2}
    assert all(entry.mask_white == "fake" for entry in found.entries if entry.mask)
    assert any("paths were found without their first folders: home/me" in note for note in found.notes)


def test_imdl_benco_lists_by_name(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", "a/1_gt.png", "b/2.png", "b/2_gt.png", "b/3.png")
    content = {"CASIA": [["a/1.png", "a/1_gt.png"]], "Columbia": [["b/2.png", "b/2_gt.png"], ["b/3.png", "Negative"]]}
    (tmp_path / "test_datasets.json").write_text(json.dumps(content))
    assert groups(sound(scan(tmp_path))) == {
        ("CASIA", "test", 1): 1,
        ("Columbia", "test", 1): 1,
        ("Columbia", "test", 0): 1,
    }


def test_forensichub(tmp_path: Path) -> None:
    touch(tmp_path, "images/1.png", "images/2.png")
    (tmp_path / "train.json").write_text(
        json.dumps([{"path": "images/1.png", "label": 0}, {"path": "images/2.png", "label": 1}])
    )
    assert groups(sound(scan(tmp_path))) == {("real", "train", 0): 1, ("fake", "train", 1): 1}


def test_hugging_face_metadata_in_each_split(tmp_path: Path) -> None:
    for split in ("train", "validation", "test"):
        touch(tmp_path / split, "1.png", "2.png", "masks/2.png")
        rows = [
            {"file_name": "1.png", "label": "real", "model": "", "mask_file_name": ""},
            {"file_name": "2.png", "label": "fake", "model": "sd", "mask_file_name": "masks/2.png"},
        ]
        write_csv(tmp_path / split / "metadata.csv", rows)
    found = sound(scan(tmp_path))
    splits = ("train", "valid", "test")
    assert groups(found) == {("real", s, 0): 1 for s in splits} | {("sd", s, 1): 1 for s in splits}
    assert {str(entry.mask.relative_to(tmp_path)) for entry in found.entries if entry.mask} == {
        f"{split}/masks/2.png" for split in ("train", "validation", "test")
    }


def test_sagi_d_with_backslashes_and_a_prefix(tmp_path: Path) -> None:
    rows = []
    for split in ("train", "val", "test"):
        names = [f"{split}/coco/{kind}/0.png" for kind in ("inpainted", "masks", "original")]
        touch(tmp_path, *names)
        image, mask, original = ("sagid\\" + name.replace("/", "\\") for name in names)
        rows.append(
            {"img_path": image, "mask_path": mask, "src_path": original, "split": split, "type": "sp",
             "inpainting_model": "brushnet,powerpaint" if split == "test" else "brushnet"}
        )  # fmt: skip
    write_csv(tmp_path / "sagid.csv", rows)
    found = sound(scan(tmp_path))
    splits = ("train", "valid", "test")
    assert groups(found) == {("real", split, 0): 1 for split in splits} | {
        ("brushnet", "train", 1): 1, ("brushnet", "valid", 1): 1, ("brushnet-then-powerpaint", "test", 1): 1,
    }  # fmt: skip
    ids = {entry.split: entry.source_id for entry in found.entries if entry.label}
    assert ids == {entry.split: entry.source_id for entry in found.entries if not entry.label}
    assert any("the 3 originals of its fakes are the real images" in note for note in found.notes)
    assert any("columns that are not read: type" in note for note in found.notes)


def test_cocoglide_with_its_mark_at_the_start_and_blanks_in_names(tmp_path: Path) -> None:
    rows = [
        {"real": f"real/dining table_{n}.png", "fake": f"fake/glide_inpainting_val2017_{n}_up.png",
         "mask": f"mask/dining table_{n}_mask.png", "prompt": "a table, round"}
        for n in range(3)
    ]  # fmt: skip
    touch(tmp_path / "CocoGlide", *(str(row[name]) for row in rows for name in ("real", "fake", "mask")))
    write_csv(tmp_path / "CocoGlide" / "table.csv", rows, start="\ufeff")
    found = sound(scan(tmp_path / "CocoGlide"))
    assert Counter((entry.label, bool(entry.mask), bool(entry.original)) for entry in found.entries) == {
        (0, False, False): 3, (1, True, True): 3,
    }  # fmt: skip
    assert len({entry.source_id for entry in found.entries}) == 3


def test_community_forensics_index(tmp_path: Path) -> None:
    rows = [
        {"ImagePath": f"{gen}/{kind}/1.png", "Label": int(kind == "fake"), "GeneratorName": gen}
        for gen in ("gen_a", "gen_b")
        for kind in ("real", "fake")
    ]
    touch(tmp_path, *(row["ImagePath"] for row in rows))
    write_csv(tmp_path / "index.csv", rows)
    found = sound(scan(tmp_path))
    assert {(entry.generator, entry.label) for entry in found.entries} == {
        ("gen_a", 0), ("gen_a", 1), ("gen_b", 0), ("gen_b", 1),
    }  # fmt: skip
    assert (
        any("path, because names repeat" in note for note in found.notes) is False
    )  # one name per class and generator


def test_deepfakebench_frames_of_a_video_are_one_photograph(tmp_path: Path) -> None:
    def video(name: str, *numbers: int) -> dict[str, Any]:
        return {"label": name, "frames": [f"FF\\{name}\\{number}.png" for number in numbers]}

    of_kind: dict[str, Any] = {}
    for name, letter, other in (("FF-real", "r", ""), ("FF-F2F", "f", "_9")):
        of_kind[name] = {
            "train": {"c23": {f"000{other}": video(f"{letter}000", 1, 2)}},
            "val": {"c23": {f"001{other}": video(f"{letter}001", 1)}},
            "test": {f"002{other}": video(f"{letter}002", 1)},
        }
    frames = {"000": (1, 2), "001": (1,), "002": (1,)}
    touch(tmp_path, *(f"FF/{k}{name}/{n}.png" for k in "rf" for name, numbers in frames.items() for n in numbers))
    content = {"FaceForensics++": of_kind}
    (tmp_path / "FF.json").write_text(json.dumps(content))
    found = sound(scan(tmp_path))
    assert groups(found) == {
        ("real", "train", 0): 2, ("real", "valid", 0): 1, ("real", "test", 0): 1,
        ("FF-F2F", "train", 1): 2, ("FF-F2F", "valid", 1): 1, ("FF-F2F", "test", 1): 1,
    }  # fmt: skip
    assert {entry.source_id for entry in found.entries if entry.label} == {"000_9", "001_9", "002_9"}


# Further folders -----------------------------------------------------------------------------------------------------


def test_files_in_a_further_folder_are_found_by_their_name(tmp_path: Path, cache: Path) -> None:
    rows = [{**row, "original": "", "path": row["path"].replace("real/", "coco:")} for row in FULL]
    root = write_files(tmp_path / "x", FULL)
    (root / "real").rename(tmp_path / "coco2017")
    write_csv(root / "list.csv", rows)
    further = parse_roots([f"coco={tmp_path / 'coco2017'}"])
    manifest = build_manifest("manifest", root, cache=cache, further=further)
    reals = manifest.table[manifest.table["label"] == 0]
    assert reals["path"].str.startswith("coco:").all()
    assert all(path.is_file() for path in manifest.paths(manifest.table))
    manifest.save(tmp_path / "saved")
    loaded = Manifest.load(tmp_path / "saved")
    assert loaded.paths(loaded.table) == manifest.paths(manifest.table)
    without = scan(root)
    assert whats(without) == ["paths below further folders that have no name here"]
    assert without.problems[0].remedy.endswith("--root coco=DIR")
    assert whats(scan(root, further={"coc": tmp_path / "coco2017"})) == whats(without)
    inside = write_files(tmp_path / "y", FULL)
    write_csv(inside / "list.csv", [{**row, "original": ""} for row in FULL])
    assert build_manifest("manifest", inside, cache=cache).digest == manifest.digest  # the place says nothing


def test_paths_and_folders_with_names(tmp_path: Path) -> None:
    roots = Roots(tmp_path / "x", {"coco": tmp_path / "c"})
    for path, stored in ((tmp_path / "x/a/b:c.png", "a/b:c.png"), (tmp_path / "c/1.png", "coco:1.png")):
        assert roots.stored(path) == stored
        assert roots.file(stored) == path
    with pytest.raises(ValueError, match="is outside of"):
        roots.stored(tmp_path / "elsewhere.png")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["coco"], "wants NAME=DIR"),
        (["=x"], "wants NAME=DIR"),
        (["a/b=."], "wants NAME=DIR"),
        (["coco=nowhere/at/all"], "does not exist or is not a folder"),
        (["coco=.", "coco=."], "is given twice"),
    ],
)
def test_words_that_name_no_folder(words: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_roots(words)


def test_another_corpus_takes_no_further_folders(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(ValueError, match="folders takes no further; the corpora that do: manifest"):
        build_manifest("folders", tmp_path, cache=cache, further={"coco": tmp_path})


# Defects -------------------------------------------------------------------------------------------------------------


def rows_with(root: Path, *changes: Mapping[str, str]) -> Scan:
    """The scan of the whole list, with changes to its first rows."""
    touch(root, *(str(row[name]) for row in FULL for name in ("path", "mask", "original") if row[name]))
    write_csv(
        root / "list.csv",
        [{**row, **dict(change)} for row, change in zip(FULL, [*changes, *[{}] * len(FULL)], strict=False)],
    )
    return scan(root)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"label": "maybe"}, "a label that is not known"),
        ({"label": ""}, "a label that is not known"),
        ({"split": "holdout"}, "a split that is not known"),
        ({"path": "../x.png"}, "a path with .."),
        ({"path": "real/train/gone.png"}, "a listed file is not there"),
    ],
)
def test_a_row_that_cannot_be_used_is_named_and_can_be_skipped(
    tmp_path: Path, change: dict[str, str], what: str
) -> None:
    found = rows_with(tmp_path, change)
    assert [(problem.what, problem.skippable) for problem in found.problems] == [(what, True)]
    assert len(found.entries) == len(FULL) - 1


def test_a_mask_whose_white_means_something_else(tmp_path: Path) -> None:
    assert whats(rows_with(tmp_path, {}, {"mask_white": "yes"})) == ["mask_white is neither fake nor kept"]
    kept = rows_with(tmp_path, {}, {"mask_white": "kept"})
    assert Counter(entry.mask_white for entry in kept.entries if entry.mask) == {"kept": 1, "fake": 5}


def test_one_image_with_two_labels_and_one_that_is_listed_twice(tmp_path: Path) -> None:
    found = rows_with(tmp_path, {"path": str(FULL[1]["path"])}, {})
    assert [(problem.path, problem.what) for problem in found.problems] == [
        ("lama/train/0.png", "one image with two labels")
    ]
    twice = rows_with(tmp_path, {}, {}, dict(FULL[0]))
    assert sound(twice).notes == ["1 row names an image that another row names too; each image counts once"]


def test_many_missing_files_are_one_problem_with_three_examples(tmp_path: Path) -> None:
    write_csv(tmp_path / "list.csv", FULL)
    (problem,) = scan(tmp_path).problems
    assert (problem.what, problem.skippable) == ("listed files are not there", False)
    assert problem.detail == "12 files of 12 rows, such as real/train/0.png, lama/train/0.png, real/train/1.png"


def test_a_link_out_of_the_folders_is_a_problem(tmp_path: Path) -> None:
    touch(tmp_path, "outside/1.png", "x/real/2.png")
    (tmp_path / "x" / "fake.png").symlink_to(tmp_path / "outside/1.png")
    write_csv(
        tmp_path / "x/list.csv",
        [{"path": "fake.png", "label": 1, "split": "test"}, {"path": "real/2.png", "label": 0, "split": "test"}],
    )
    assert whats(scan(tmp_path / "x")) == ["a file outside of the data folder"]
    write_csv(tmp_path / "x/list.csv", [{"path": str(tmp_path / "outside/1.png"), "label": 1, "split": "test"}])
    assert whats(scan(tmp_path / "x")) == ["a file outside of the data folder"]
    assert whats(scan(tmp_path / "x", further={"other": tmp_path / "outside"})) == []


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("list.json", "{", "list.json cannot be read"),
        ("list.json", '{"a": 1}', "list.json has no form that is known"),
        ("list.jsonl", '{"path": "a"}\n[1]', "list.jsonl, line 2 is no object"),
        ("list.csv", "path,label\na.png,fake,extra\n", "list.csv has rows with more values than columns"),
        ("list.csv", "name,label\na.png,fake\n", "no column for the path"),
        ("list.csv", "path,label\n", "a list without rows"),
        ("notes.txt", "", "no list of images in the folder"),
    ],
)
def test_a_list_that_cannot_be_read(tmp_path: Path, name: str, content: str, what: str) -> None:
    (tmp_path / name).write_text(content)
    found = scan(tmp_path)
    assert len(found.problems) == 1
    assert found.problems[0].what.startswith(what)
    assert found.problems[0].remedy


def test_pictures_inside_of_a_table_are_refused(tmp_path: Path) -> None:
    pd.DataFrame({"image": [{"bytes": b"x", "path": "1.png"}], "label": [1]}).to_parquet(tmp_path / "list.parquet")
    assert whats(scan(tmp_path)) == ["list.parquet holds pictures in its column image"]


def test_several_lists_and_the_one_that_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "1.png", "2.png")
    write_csv(tmp_path / "train_list.csv", [{"path": "1.png", "label": 0}])
    write_csv(tmp_path / "test_list.csv", [{"path": "2.png", "label": 0}])
    assert whats(scan(tmp_path)) == ["several lists in the folder: test_list.csv, train_list.csv"]
    found = sound(scan(tmp_path, lists="train_list.csv,test_list.csv"))
    assert groups(found) == {("real", "train", 0): 1, ("real", "test", 0): 1}
    (problem,) = scan(tmp_path, lists="gone.csv").problems
    assert problem.what == "gone.csv is not there"
    assert problem.remedy.endswith("there are: test_list.csv, train_list.csv")
    assert whats(scan(tmp_path, lists="gone/list.parquet")) == ["list.parquet is not there"]


def test_a_photograph_whose_original_is_in_another_split_is_a_leak(tmp_path: Path, cache: Path) -> None:
    rows = [dict(row) for row in FULL]
    rows[-1] |= {"source_id": "train0", "original": "real/train/0.png"}
    write_csv(write_files(tmp_path, FULL) / "list.csv", rows)
    with pytest.raises(DataProblems, match="one photograph in two splits"):
        build_manifest("manifest", tmp_path, cache=cache)
