"""Where the files of a list are, and which images show one photograph: what users' own lists do."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from data.manifest import build_manifest
from data.roots import Roots, parse_roots
from data.sources import recognise
from data.sources.base import Scan
from grid.names import check_generators
from tests.corpora import write_csv
from tests.data.test_lists import FULL, groups, rows_with, scan, sound, touch, whats, write_files


def ids(found: Scan) -> dict[str, str]:
    """File -> source id."""
    return {entry.path.as_posix().split("/x/")[-1]: entry.source_id for entry in found.entries}


def row(path: str, label: int, split: str = "test", **more: Any) -> dict[str, Any]:
    return {"path": path, "label": label, "split": split, **more}


# Columns --------------------------------------------------------------------------------------------------------------


def test_a_column_that_begins_late_is_read(tmp_path: Path) -> None:
    names = [f"{number}.png" for number in range(150)]
    touch(tmp_path, *names, "masks/149.png")
    lines: list[dict[str, Any]] = [row(name, int(name == "149.png")) for name in names]
    lines[-1] |= {"mask": "masks/149.png", "generator": "lama", "prompt": "a dog"}
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, lines)))
    found = sound(scan(tmp_path))
    assert [(entry.generator, entry.mask) for entry in found.entries if entry.label] == [
        ("lama", tmp_path / "masks/149.png")
    ]
    assert "columns that are not read: prompt" in found.notes


def test_a_row_without_a_path_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "1.png")
    write_csv(tmp_path / "list.csv", [row("1.png", 0), row("", 1)])
    (problem,) = scan(tmp_path).problems
    assert (problem.path, problem.what) == ("list.csv, row 2", "a row without a path")


# Paths ----------------------------------------------------------------------------------------------------------------


def test_a_missing_file_is_never_replaced_by_another_one(tmp_path: Path) -> None:
    touch(tmp_path, "real/train/1.png", "fake/train/1.png", "train/2.png", "1.png", "masks/1.png")
    rows = [
        row("real/train/1.png", 0, mask=""), row("fake/train/1.png", 1, mask="gone/masks/1.png"),
        row("fake/train/2.png", 1, mask=""),
    ]  # fmt: skip
    write_csv(tmp_path / "list.csv", rows)
    found = scan(tmp_path)
    assert {(problem.path, problem.what) for problem in found.problems} == {
        ("fake/train/2.png", "a listed file is not there"), ("gone/masks/1.png", "a listed file is not there"),
    }  # fmt: skip
    assert {entry.mask for entry in found.entries} == {None}


def test_the_same_folders_are_dropped_in_all_rows_and_never_all_of_them(tmp_path: Path) -> None:
    touch(tmp_path, "train/a/1.png", "train/b/2.png", "b/3.png", "4.png")
    paths = ["/data/set/train/a/1.png", "/data/set/train/b/2.png", "/data/set/train/b/3.png", "/data/set/4.png"]
    write_csv(tmp_path / "list.csv", [row(path, 0) for path in paths])
    found = scan(tmp_path)
    assert sorted(problem.path for problem in found.problems) == ["/data/set/4.png", "/data/set/train/b/3.png"]
    assert (
        "list.csv: 2 paths were found without their first folders: data/set, as in /data/set/train/a/1.png"
        in found.notes
    )


def test_a_named_folder_counts_only_with_its_name(tmp_path: Path) -> None:
    touch(tmp_path, "coco/1.png", "x/2.png")
    write_csv(tmp_path / "x/list.csv", [row("1.png", 0), row("2.png", 1)])
    further = parse_roots([f"coco={tmp_path / 'coco'}"])
    assert [problem.path for problem in scan(tmp_path / "x", further=further).problems] == ["1.png"]


@pytest.mark.parametrize("part", ["mask", "original"])
def test_an_image_that_is_its_own_mask_or_original_is_refused(tmp_path: Path, part: str) -> None:
    touch(tmp_path, "1.png", "2.png")
    write_csv(tmp_path / "list.csv", [row("1.png", 0, **{part: ""}), row("2.png", 1, **{part: "2.png"})])
    assert whats(scan(tmp_path)) == [f"the {part} of an image is the image itself"]


def test_a_name_that_reads_as_a_further_folder_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "x/coco:1.png", "x/2.png", "coco/1.png")
    write_csv(tmp_path / "x/list.csv", [row("./coco:1.png", 1), row("2.png", 0)])
    further = parse_roots([f"coco={tmp_path / 'coco'}"])
    assert whats(scan(tmp_path / "x", further=further)) == ["a name that reads as a further folder"]
    with pytest.raises(ValueError, match="reads as a path below coco"):
        Roots(tmp_path / "x", further).stored(tmp_path / "x/coco:1.png")


def test_lists_outside_of_the_folder_and_of_other_programs_are_not_read(tmp_path: Path) -> None:
    touch(tmp_path, "x/1.png", "x/2.png")
    write_csv(tmp_path / "outside.csv", [row("1.png", 0)])
    refused = scan(tmp_path / "x", lists="../outside.csv")
    assert whats(refused) == ["--list outside.csv with .."]
    (tmp_path / "x/metadata.csv").symlink_to(tmp_path / "outside.csv")
    assert whats(scan(tmp_path / "x"))[0].startswith("the list metadata.csv is outside of the data folder")
    (tmp_path / "x/metadata.csv").unlink()
    for folder in (".cache", "__MACOSX"):
        write_csv(tmp_path / "x" / folder / "metadata.csv", [row("1.png", 1)])
    write_csv(tmp_path / "x/sub/metadata.csv", [row("1.png", 0)])
    assert set(groups(sound(scan(tmp_path / "x")))) == {("real", "test", 0)}


def test_a_folder_is_no_list(tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    (problem,) = scan(tmp_path, lists="lists").problems
    assert (problem.what, problem.remedy) == ("lists is a folder", "name the file that lists the images: --list FILE")


# Photographs ----------------------------------------------------------------------------------------------------------


def test_the_stated_original_decides_which_photograph_it_is(tmp_path: Path) -> None:
    touch(tmp_path, "x/real/a.png", "x/lama/f1.png", "x/mat/f2.png")
    rows = [
        row("real/a.png", 0, image_id=1, original=""), row("lama/f1.png", 1, image_id=2, original="real/a.png"),
        row("mat/f2.png", 1, image_id=3, original="real/a.png"),
    ]  # fmt: skip
    write_csv(tmp_path / "x/list.csv", rows)
    found = sound(scan(tmp_path / "x"))
    assert set(ids(found).values()) == {"a"}
    assert any("image_id differs between images of one original" in note for note in found.notes)
    write_csv(tmp_path / "x/list.csv", [{**each, "source_id": each["image_id"]} for each in rows])
    (problem,) = scan(tmp_path / "x").problems
    assert (problem.path, problem.what, problem.detail) == ("real/a.png", "two source ids for one original", "1, 2, 3")


def test_an_image_id_that_numbers_the_rows_does_not_part_pairs(tmp_path: Path) -> None:
    paths = [f"{kind}/{number}.png" for number in range(3) for kind in ("real", "lama")]
    touch(tmp_path / "x", *paths)
    rows = [row(path, int("lama" in path), image_id=number) for number, path in enumerate(paths)]
    write_csv(tmp_path / "x/list.csv", rows)
    found = sound(scan(tmp_path / "x"))
    assert ids(found) == {path: Path(path).stem for path in paths}
    assert any("image_id is another one in each row" in note for note in found.notes)
    write_csv(tmp_path / "x/list.csv", [{**each, "image_id": 10 + number // 2} for number, each in enumerate(rows)])
    assert set(ids(sound(scan(tmp_path / "x"))).values()) == {"10", "11", "12"}


def test_originals_of_one_name_that_are_no_images_of_the_list_are_two_photographs(tmp_path: Path) -> None:
    touch(tmp_path / "x", "o/a/1.png", "o/b/1.png", "lama/f1.png", "lama/f2.png", "real/9.png")
    rows = [row("lama/f1.png", 1, original="o/a/1.png"), row("lama/f2.png", 1, original="o/b/1.png")]
    write_csv(tmp_path / "x/list.csv", [*rows, row("real/9.png", 0, original="")])
    assert ids(sound(scan(tmp_path / "x"))) == {"lama/f1.png": "o/a/1", "lama/f2.png": "o/b/1", "real/9.png": "9"}


def test_an_original_that_is_not_there_still_says_which_photograph_it_is(tmp_path: Path) -> None:
    touch(tmp_path, "x/lama/f1.png", "x/mat/f2.png", "x/real/b.png")
    rows = [row(path, 1, original="real/a.png") for path in ("lama/f1.png", "mat/f2.png")]
    write_csv(tmp_path / "x/list.csv", [*rows, row("real/b.png", 0, original="")])
    found = scan(tmp_path / "x")
    assert whats(found) == ["a listed file is not there"]
    assert found.problems[0].skippable
    assert ids(found) == {"lama/f1.png": "a", "mat/f2.png": "a", "real/b.png": "b"}


def br_gen(root: Path, number: int = 3) -> None:
    pairs = []
    for n in range(number):
        for gen in ("MAT", "LaMa"):
            for kind in ("Stuff", "Background"):
                pairs.append([f"Tp/{gen}_{kind}_COCO_{n}.png", f"Gt/{gen}_{kind}_COCO_{n}_mask.png"])
        pairs.append([f"Au/COCO_{n}.png", "Negative"])
    touch(root, *(path for pair in pairs for path in pair if "/" in path))
    (root / "br-gen_train.json").write_text(json.dumps(pairs))


@pytest.mark.parametrize("source", ["", r"(COCO_\d+)"])
def test_the_fakes_of_br_gen_are_of_the_photograph_with_whose_name_theirs_ends(tmp_path: Path, source: str) -> None:
    br_gen(tmp_path / "x")
    found = sound(scan(tmp_path / "x", generator_from="^([^_]+)_", source_from=source))
    assert len(found.entries) == 3 * 5
    assert all(source_id == Path(path).stem[-len("COCO_0") :] for path, source_id in ids(found).items())
    assert any("12 fakes were taken for edits of the real image" in note for note in found.notes) is not bool(source)


def test_an_id_that_is_not_in_the_name(tmp_path: Path) -> None:
    br_gen(tmp_path / "x", 1)
    refused = scan(tmp_path / "x", generator_from="^([^_]+)_", source_from=r"(ADE_\d+)")
    assert set(whats(refused)) == {"no id of a photograph in the file's name"}
    assert whats(scan(tmp_path / "x", source_from="COCO")) == ["--source-from COCO has no group"]


def test_one_name_that_repeats_does_not_part_the_others(tmp_path: Path) -> None:
    paths = ["train/real/1.png", "train/lama/1.png", "train/real/2.png", "train/lama/2.png", "test/real/1.png"]
    touch(tmp_path / "x", *paths, "test/lama/1.png")
    rows = [{"path": path, "label": int("lama" in path), "generator": "lama"} for path in [*paths, "test/lama/1.png"]]
    write_csv(tmp_path / "x/list.csv", rows)
    found = sound(scan(tmp_path / "x"))
    assert ids(found) == {
        **{f"{split}/{name}/1.png": f"{split}/1" for split in ("train", "test") for name in ("real", "lama")},
        "train/real/2.png": "2", "train/lama/2.png": "2",
    }  # fmt: skip
    assert any("1 names repeat: there a photograph is known by its path" in note for note in found.notes)


def test_no_split_by_chance_while_it_is_not_known_which_fakes_belong_together(tmp_path: Path) -> None:
    paths = ["photos/2021/1.png", "photos/2022/1.png", "out/a/1.png", "out/b/1.png"]
    touch(tmp_path, *paths)
    rows = [{"path": path, "label": int("out" in path)} for path in paths]
    write_csv(tmp_path / "list.csv", rows)
    (problem,) = scan(tmp_path).problems
    assert "no split is named" in problem.what
    assert "--source-from REGEX" in problem.remedy
    write_csv(tmp_path / "list.csv", [{**each, "split": "test"} for each in rows])
    sound(scan(tmp_path))


def test_ids_that_a_table_keeps_as_numbers(tmp_path: Path) -> None:
    touch(tmp_path / "x", "1.png", "2.png", "3.png")
    rows = [row("1.png", 0, coco_id=17), row("2.png", 1, coco_id=17.0), row("3.png", 0, coco_id=None)]
    pd.DataFrame(rows).to_parquet(tmp_path / "x/list.parquet")
    assert ids(sound(scan(tmp_path / "x"))) == {"1.png": "17", "2.png": "17", "3.png": "3"}
    write_csv(
        tmp_path / "x/mine.csv", [{**row("1.png", 0), "source_id": "17"}, {**row("2.png", 1), "source_id": "17.0"}]
    )
    assert ids(sound(scan(tmp_path / "x", lists="mine.csv"))) == {"1.png": "17", "2.png": "17"}


def test_a_split_by_chance_knows_a_name_however_it_is_written(tmp_path: Path) -> None:
    names = [f"\u00e9{number}" for number in range(60)]
    paths = [f"real/{name}.png" for name in names]
    paths += [f"fake/e\u0301{number:05}.png" for number in range(60)]
    touch(tmp_path / "x", *paths)
    write_csv(tmp_path / "x/list.csv", [{"path": path, "label": int(path[0] == "f")} for path in paths])
    splits = [entry.split for entry in sound(scan(tmp_path / "x")).entries]
    assert splits[:60] == splits[60:]
    assert set(splits) == {"train", "valid", "test"}


# Rows that say different things ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "change", "difference"),
    [
        (0, {"split": "test"}, "splits"),
        (1, {"split": "test"}, "splits"),
        (1, {"generator": "mat"}, "generators"),
        (1, {"mask": "masks/train/1.png"}, "masks"),
        (1, {"mask": ""}, "masks"),
        (1, {"mask_white": "kept"}, "masks"),
    ],
)
def test_two_rows_of_one_image_that_do_not_agree(
    tmp_path: Path, number: int, change: dict[str, str], difference: str
) -> None:
    changes: list[dict[str, str]] = [{}] * len(FULL)
    changes[number + 2] = {**FULL[number], **change}
    found = rows_with(tmp_path, *changes)
    (problem,) = found.problems
    assert (problem.what, problem.skippable) == (f"one image with two {difference}", True)
    assert problem.path == FULL[number]["path"]
    assert len(found.entries) == len(FULL) - 2


# Labels, generators and splits from names -----------------------------------------------------------------------------


def deepfakebench(root: Path, *names: str, masks: int = 1) -> Scan:
    content: dict[str, Any] = {"Set": {}}
    for name in names:
        video = {"frames": [f"{name}/1.png"], "masks": [f"{name}/m{n}.png" for n in range(masks)]}
        content["Set"][name] = {"test": {"v": video}}
        touch(root, f"{name}/1.png", f"{name}/m0.png")
    (root / "set.json").write_text(json.dumps(content))
    return scan(root)


def test_labels_of_deepfakebench_are_whole_words(tmp_path: Path) -> None:
    fakes = ["WhichFaceIsReal_Fake", "surreal_Fake", "RealVisXL"]
    found = sound(deepfakebench(tmp_path, *fakes, "YouTube", "original", "FF-real"))
    assert {entry.path.parent.name for entry in found.entries if entry.label} == set(fakes)
    (note,) = [note for note in found.notes if note.startswith("labels were read from names")]
    assert "RealVisXL is fake" in note
    assert "YouTube is real" in note


def test_frames_and_masks_of_different_number_are_refused(tmp_path: Path) -> None:
    assert whats(deepfakebench(tmp_path, "FF-F2F", masks=2)) == ["video v of FF-F2F has 1 frames and 2 masks"]


def test_lists_by_split_are_no_generators(tmp_path: Path) -> None:
    content = {split: [{"path": f"{n}.png", "label": int(n % 2)} for n in numbers]
               for split, numbers in {"train": (0, 1), "val": (2, 3), "test": (4, 5)}.items()}  # fmt: skip
    touch(tmp_path, *(f"{number}.png" for number in range(6)))
    (tmp_path / "sdxl.json").write_text(json.dumps(content))
    found = sound(scan(tmp_path))
    assert not found.splits_by_chance
    splits = ("train", "valid", "test")
    assert groups(found) == {("real", s, 0): 1 for s in splits} | {("sdxl", s, 1): 1 for s in splits}


@pytest.mark.parametrize(
    ("names", "generator"),
    [
        (("train.json", "val.json", "test.json"), "fake"),
        (("lists/train.json", "lists/val.json", "lists/test.json"), "lists"),
        (("br-gen_train.json", "br-gen_val.json", "br-gen_test.json"), "br-gen"),
        (("Train_SDXL.json", "Val_SDXL.json", "Test_SDXL.json"), "SDXL"),
    ],
)
def test_a_split_in_a_lists_name_is_no_generator(tmp_path: Path, names: tuple[str, ...], generator: str) -> None:
    touch(tmp_path, "i/1.png", "i/2.png", "i/3.png")
    for number, name in enumerate(names, 1):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps([{"path": f"i/{number}.png", "label": 1}]))
    found = sound(scan(tmp_path, lists=",".join(names)))
    assert groups(found) == {(generator, split, 1): 1 for split in ("train", "valid", "test")}


def test_the_name_of_a_list_says_the_split_before_folders_do(tmp_path: Path) -> None:
    touch(tmp_path, "coco/train/2.png", "x/a/1.png", "x/train/3.png")
    further = parse_roots([f"coco={tmp_path / 'coco'}"])
    rows = [{"path": "coco:train/2.png", "label": 0}, {"path": "a/1.png", "label": 1}]
    write_csv(tmp_path / "x/list_train.csv", rows)
    assert {e.split for e in sound(scan(tmp_path / "x", lists="list_train.csv", further=further)).entries} == {"train"}
    write_csv(tmp_path / "x/all.csv", [{**rows[0]}, {"path": "train/3.png", "label": 1}])
    assert {e.split for e in sound(scan(tmp_path / "x", lists="all.csv", further=further)).entries} == {"train"}
    write_csv(tmp_path / "x/test.csv", rows)
    (problem,) = scan(tmp_path / "x", lists="test.csv", further=further).problems
    assert (problem.path, problem.what) == ("coco:train/2.png", "the list's name and the folder name two splits")
    assert problem.detail == "the list: test, the folder: train"


def test_images_that_are_their_own_original_are_real(tmp_path: Path) -> None:
    rows = [
        {"img_path": f"c/{name}", "src_path": "c/original/1.png", "split": "test", "inpainting_model": "brushnet"}
        for name in ("original/1.png", "inpainted/1.png")
    ]
    touch(tmp_path / "x", *(each["img_path"] for each in rows))
    write_csv(tmp_path / "x/sagid.csv", rows)
    found = sound(scan(tmp_path / "x"))
    assert sorted((entry.label, entry.generator, entry.source_id) for entry in found.entries) == [
        (0, "brushnet", "1"), (1, "brushnet", "1"),
    ]  # fmt: skip


def test_a_list_of_a_benchmarks_test_set_is_not_split(tmp_path: Path) -> None:
    rows = [{"real": f"real/a_{n}.png", "fake": f"fake/glide_{n}.png"} for n in range(40)]
    for folder in ("CocoGlide", "my-testset"):
        touch(tmp_path / folder, *(path for each in rows for path in each.values()))
        write_csv(tmp_path / folder / "table.csv", rows)
        found = sound(scan(tmp_path / folder))
        assert {entry.split for entry in found.entries} == {"test"}
        assert (
            f"the list is of a benchmark's test set (its name is {folder!r}): its images are only tested" in found.notes
        )


# Texts ----------------------------------------------------------------------------------------------------------------


def test_separators_of_lines_inside_of_texts(tmp_path: Path) -> None:
    touch(tmp_path, "1.png", "2.png")
    lines = [row("1.png", 0, prompt="a\u2028b"), row("2.png", 1, prompt="c\u0085d")]
    (tmp_path / "list.jsonl").write_text("\n".join(json.dumps(each, ensure_ascii=False) for each in lines))
    assert len(sound(scan(tmp_path)).entries) == 2
    (tmp_path / "list.jsonl").unlink()
    write_csv(tmp_path / "list.csv", [*lines, row("1.png", 0, prompt="two\nlines")])
    assert len(sound(scan(tmp_path)).entries) == 2


def test_pictures_in_a_table_are_seen_before_any_is_read(tmp_path: Path) -> None:
    pd.DataFrame({"image_data": [b"x", None], "label": [1, 0]}).to_parquet(tmp_path / "list.parquet")
    assert whats(scan(tmp_path)) == ["list.parquet holds pictures in its column image_data"]


def test_a_list_is_recognised_wherever_it_is_read(tmp_path: Path, cache: Path) -> None:
    root = write_files(tmp_path / "x", FULL)
    write_csv(root / "index.csv", FULL)
    assert recognise(root) == ["manifest"]
    (root / "index.csv").rename(root / "lama" / "metadata.csv")
    assert recognise(root) == ["manifest"]
    assert build_manifest("manifest", root, cache=cache).generators == ("lama",)
    (root / "lama" / "metadata.csv").unlink()
    write_csv(root / "results.csv", [{"method": "ours", "auc": 0.9}])
    assert recognise(root) == []
    assert re.search("no column for the path", " ".join(whats(scan(root))))


def test_a_test_sets_own_list_beside_another_list_is_only_tested(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{c}/{s}{n}.png" for c in ("real", "fake") for s in ("train", "valid") for n in range(2)))
    rows = [
        {"path": f"{c}/{s}{n}.png", "label": c, "split": s}
        for c in ("real", "fake") for s in ("train", "valid") for n in range(2)
    ]  # fmt: skip
    write_csv(tmp_path / "list.csv", rows)
    touch(tmp_path / "CocoGlide", "real/7.png", "fake/7.png", "mask/7.png")
    write_csv(tmp_path / "CocoGlide/table.csv", [{"real": "real/7.png", "fake": "fake/7.png", "mask": "mask/7.png"}])
    found = sound(scan(tmp_path, lists="list.csv,CocoGlide/table.csv"))
    splits = {(entry.generator, entry.split): 0 for entry in found.entries}
    assert set(splits) == {
        ("list", "train"), ("list", "valid"), ("real", "train"), ("real", "valid"), ("table", "test"), ("real", "test"),
    }  # fmt: skip
    note = "table.csv is of a benchmark's test set (its name is 'CocoGlide'): its images are only tested"
    assert any(text.startswith(note) for text in found.notes)


# Lists of lines -------------------------------------------------------------------------------------------------------


def lines_of(root: Path, *lines: str, files: Sequence[str] = ()) -> Scan:
    touch(root, *files)
    (root / "mine.txt").write_text("\r\n".join(lines))
    return scan(root, lists="mine.txt")


@pytest.mark.parametrize(
    "lines",
    [
        ("tp/1.png gt/1.png 1", "au/2.jpg None 0"),
        ("tp/1.png,gt/1.png", "au/2.jpg,None"),
        ("tp/1.png\tgt/1.png\tfake", "au/2.jpg\tNone\treal"),
        ("tp/1.png gt/1.png 1", "", "au/2.jpg 0"),
    ],
)
def test_lines_of_image_mask_and_label(tmp_path: Path, lines: tuple[str, ...]) -> None:
    found = lines_of(tmp_path, *lines, files=["tp/1.png", "gt/1.png", "au/2.jpg"])
    by_name = {entry.path.name: (entry.label, entry.mask and entry.mask.parent.name) for entry in found.entries}
    assert by_name == {"1.png": (1, "gt"), "2.jpg": (0, None)}
    assert "mine.txt was read as a list of the form TruFor" in found.notes
    assert found.problems == []


def test_names_with_blanks_in_lines(tmp_path: Path) -> None:
    name, mask = "sd2 sp/hair drier/1_mask_bbox.png_sd2_0.png", "masks/hair drier/1_mask_bbox.png"
    found = lines_of(tmp_path, f"{name} {mask} 1", "orig/hair drier/1.png None 0",
                     files=[name, mask, "orig/hair drier/1.png"])  # fmt: skip
    assert {entry.path.relative_to(tmp_path).as_posix() for entry in sound(found).entries} == {
        name, "orig/hair drier/1.png",
    }  # fmt: skip
    assert [entry.mask for entry in found.entries if entry.label] == [tmp_path / mask]


def test_a_blank_behind_a_suffix_is_told_by_what_exists_or_refused(tmp_path: Path) -> None:
    line = "a.png b.png c.png 1"
    found = lines_of(tmp_path, line, files=["a.png b.png", "c.png"])
    assert [entry.path.name for entry in sound(found).entries] == ["a.png b.png"]
    touch(tmp_path, "a.png", "b.png c.png")
    found = scan(tmp_path, lists="mine.txt")
    assert whats(found) == ["mine.txt, line 1: it is not clear where the name of the image ends"]
    assert found.problems[0].remedy == "give a table with the columns path,mask,label: list.csv"
    assert whats(lines_of(tmp_path, "image mask label", line)) == [
        "mine.txt, line 1: it is not clear where the name of the image ends"
    ]
    assert whats(lines_of(tmp_path, "a.png,b.png,c.png", "a.png,b.png")) == [
        "mine.txt, line 1: it is not clear where the name of the image ends"
    ]


def test_a_comma_in_a_name_and_a_path_of_windows(tmp_path: Path) -> None:
    found = lines_of(
        tmp_path, "\ufefftp/a,b.png gt/a,b.png 1", "C:\\x\\au\\c d.PNG NONE 0", files=["tp/a,b.png", "gt/a,b.png"]
    )
    assert [entry.path.name for entry in found.entries] == ["a,b.png"]
    assert [(problem.path, problem.what) for problem in found.problems] == [
        ("C:/x/au/c d.PNG", "a listed file is not there")
    ]


def test_a_pair_without_its_real_image_is_still_fake(tmp_path: Path) -> None:
    touch(tmp_path, "f1.png", "f2.png", "r1.png")
    write_csv(tmp_path / "list.csv", [{"fake": "f1.png", "real": "r1.png"}, {"fake": "f2.png", "real": ""}])
    assert {entry.path.name: entry.label for entry in sound(scan(tmp_path)).entries} == {
        "f1.png": 1, "f2.png": 1, "r1.png": 0,
    }  # fmt: skip


def test_a_list_names_the_generators_that_share_a_real_image(tmp_path: Path) -> None:
    touch(tmp_path, "r.png", "q.png", "a.png", "b.png", "c.png")
    rows = [row(f"{name}.png", 1, generator=name) for name in "abc"]
    rows += [row("r.png", 0, generator="a"), row("r.png", 0, generator="b"), row("q.png", 0, generator="c+a")]
    write_csv(tmp_path / "list.csv", rows)
    found = sound(scan(tmp_path))
    assert {entry.path.name: entry.generator for entry in found.entries if not entry.label} == {
        "r.png": "a+b", "q.png": "a+c",
    }  # fmt: skip


def test_a_text_file_is_a_list_only_if_it_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "readme.txt", "list.txt")
    assert recognise(tmp_path) == []
    write_csv(tmp_path / "list.csv", [row("1.png", 0)])
    touch(tmp_path, "1.png")
    assert len(sound(scan(tmp_path)).entries) == 1


# What white means -----------------------------------------------------------------------------------------------------


def test_the_command_line_says_what_white_means_where_the_list_does_not(tmp_path: Path) -> None:
    touch(tmp_path, "0.png", "1.png", "2.png", "m.png")
    rows = [row("0.png", 0, mask="", mask_white=""), row("1.png", 1, mask="m.png", mask_white=""),
            row("2.png", 1, mask="m.png", mask_white="fake")]  # fmt: skip
    write_csv(tmp_path / "list.csv", rows)
    found = sound(scan(tmp_path, mask_white="kept"))
    assert {entry.path.name: entry.mask_white for entry in found.entries if entry.label} == {
        "1.png": "kept", "2.png": "fake",
    }  # fmt: skip
    assert "the list does not say what white in a mask means (mask_white); by --mask-white it means kept" in found.notes
    write_csv(tmp_path / "list.csv", rows[::2])
    (problem,) = scan(tmp_path, mask_white="kept").problems
    assert problem.what == "--mask-white kept, and no mask of which the list does not say what white means"


@pytest.mark.parametrize("with_real", [True, False])
def test_an_edit_of_an_edit_is_of_the_first_photograph(tmp_path: Path, with_real: bool) -> None:
    root = tmp_path / "x"
    touch(root, "real/1.png", "first/1_a.png", "second/1_a_b.png", "third/1_a_b_c.png")
    rows = [
        row("third/1_a_b_c.png", 1, original="second/1_a_b.png"), row("first/1_a.png", 1, original="real/1.png"),
        row("second/1_a_b.png", 1, original="first/1_a.png"), row("real/1.png", 0, original=""),
    ]  # fmt: skip
    write_csv(root / "list.csv", rows if with_real else rows[:-1])
    found = ids(sound(scan(root)))
    assert found == {line["path"]: "1" for line in rows}
    assert [entry.path.parent.name for entry in scan(root).entries if not entry.label] == ["real"]


def test_two_edits_that_are_each_others_original_are_one_photograph(tmp_path: Path) -> None:
    root = tmp_path / "x"
    touch(root, "1.png", "2.png", "3.png", "r.png")
    originals = {"1.png": "2.png", "2.png": "1.png", "3.png": "2.png"}
    rows = [row(name, 1, original=original) for name, original in originals.items()]
    write_csv(root / "list.csv", [*rows, row("r.png", 0, original="")])
    found = ids(sound(scan(root)))
    assert (found["1.png"], found["2.png"], found["3.png"]) == ("1", "1", "1")


# Texts that no disk and no table can have -----------------------------------------------------------------------------


def test_a_path_that_is_too_long_is_a_missing_file(tmp_path: Path) -> None:
    touch(tmp_path, "1.png", "2.png")
    write_csv(tmp_path / "list.csv", [row("1.png", 0), row("2.png", 1), row(f"{'x' * 5000}.png", 1)])
    assert whats(scan(tmp_path)) == ["a listed file is not there"]
    (tmp_path / "lines.txt").write_text(f"1.png None 0\n2.png {'x' * 5000}.png 1\n")
    assert whats(scan(tmp_path, lists="lines.txt")) == ["a listed file is not there"]


@pytest.mark.parametrize("column", ["path", "generator", "source_id"])
@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_half_a_letter_is_refused(tmp_path: Path, column: str, suffix: str) -> None:
    touch(tmp_path, "1.png")
    text = json.dumps(row("1.png", 1, generator="a", source_id="1") | {column: "\ud800"})
    (tmp_path / f"list.{suffix}").write_text(text if suffix == "jsonl" else f"[{text}]")
    (what,) = whats(scan(tmp_path))
    assert "surrogates not allowed" in what


# Names of generators --------------------------------------------------------------------------------------------------


def test_names_that_no_metric_can_have_are_written_otherwise_and_said(tmp_path: Path) -> None:
    """Community Forensics names its generators as Hugging Face does."""
    touch(tmp_path, "1.png", "2.png", "3.png", "4.png")
    write_csv(
        tmp_path / "list.csv",
        [
            row("1.png", 1, generator="org/model v1"), row("2.png", 1, generator="DALL·E 3"),
            row("3.png", 0, generator=" DALL·E 3 + org/model v1 "), row("4.png", 0, generator="org/model v1"),
        ],
    )  # fmt: skip
    found = sound(scan(tmp_path))
    assert [entry.generator for entry in found.entries] == [
        "org_model v1", "DALL_E 3", "DALL_E 3+org_model v1", "org_model v1",
    ]  # fmt: skip
    words = "characters that a generator's name cannot have were replaced by _"
    assert f"{words}: 'DALL·E 3' is DALL_E 3, 'org/model v1' is org_model v1" in found.notes
    check_generators(entry.generator for entry in found.entries if entry.label)


def test_two_names_that_would_become_one_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "1.png", "2.png")
    write_csv(tmp_path / "list.csv", [row("1.png", 1, generator="a/b"), row("2.png", 1, generator="a_b")])
    (problem,) = scan(tmp_path).problems
    assert (problem.path, problem.what) == ("a_b", "several generators with one name")
    assert problem.detail == "'a/b', 'a_b'"
