from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from data.manifest import DataProblems, build_manifest
from data.sources import get_source, list_sources, register_source
from data.sources.base import Entry, Listing, Problem, Scan, images_by_stem, list_images
from tests.corpora import picture, write_archive, write_dolos, write_image

ROOT = Path(__file__).parents[2]


def scan(root: Path) -> Scan:
    return get_source("dolos").scan(root)


def kinds(found: Scan | Listing) -> dict[str, str]:
    """Path -> what is wrong with it."""
    return {problem.path: problem.what for problem in found.problems}


def test_a_sound_tree(dolos: Path) -> None:
    found = scan(dolos)
    assert found.problems == []
    assert found.notes == []
    counts = Counter((entry.label, entry.generator, entry.split) for entry in found.entries)
    assert counts == {
        (label, generator, split): count
        for label, generator in ((0, "real"), (1, "lama"), (1, "ldm"))
        for split, count in (("train", 4), ("valid", 2), ("test", 3))
    }
    base = dolos / "celebahq"
    fake = base / "fake/lama/images/valid/00005.png"
    mask = base / "fake/lama/masks/valid/00005.png"
    assert Entry(fake, 1, "lama", "00005", "valid", mask) in found.entries
    assert Entry(base / "real/valid/00005.png", 0, "real", "00005", "valid", None) in found.entries


def test_the_root_may_be_celebahq_itself(dolos: Path) -> None:
    assert scan(dolos / "celebahq") == scan(dolos)


def test_the_published_folder_of_repaint_gets_its_short_name(tmp_path: Path) -> None:
    root = write_dolos(tmp_path, generators=["repaint-p2-9k"])
    assert {entry.generator for entry in scan(root).entries} == {"real", "repaint"}
    shutil.copytree(root / "celebahq/fake/repaint-p2-9k", root / "celebahq/fake/repaint")
    assert kinds(scan(root)) == {"celebahq/fake/repaint-p2-9k": "two folders for one generator"}


def test_masks_pair_by_stem_whatever_the_suffix(dolos: Path) -> None:
    image = dolos / "celebahq/fake/lama/images/test/00006.png"
    image.rename(image.with_suffix(".jpg"))
    entry = next(entry for entry in scan(dolos).entries if entry.path == image.with_suffix(".jpg"))
    assert entry.mask == dolos / "celebahq/fake/lama/masks/test/00006.png"


def test_everything_that_is_missing_is_said_at_once(dolos: Path) -> None:
    base = dolos / "celebahq"
    shutil.rmtree(base / "real/valid")
    (base / "real/val").mkdir()
    shutil.rmtree(base / "fake/lama/images")
    shutil.rmtree(base / "fake/ldm/images/test")
    (base / "fake/ldm/images/test").mkdir()
    found = scan(dolos)
    assert kinds(found) == {
        "celebahq/real/valid": "missing folder",
        "celebahq/fake/lama/images": "missing folder",
        "celebahq/fake/ldm/images/test": "no images in the folder",
    }
    assert not any(problem.skippable for problem in found.problems)
    assert all(problem.remedy for problem in found.problems)
    assert next(p for p in found.problems if p.path == "celebahq/real/valid").detail == "there are: test, train, val"


@pytest.mark.parametrize("folder", ["real", "fake"])
def test_a_missing_half(dolos: Path, folder: str) -> None:
    shutil.rmtree(dolos / "celebahq" / folder)
    assert kinds(scan(dolos)) == {f"celebahq/{folder}": "missing folder"}


def test_an_empty_folder_and_no_folder_at_all(tmp_path: Path) -> None:
    assert kinds(scan(tmp_path)) == {"real": "missing folder", "fake": "missing folder"}
    assert kinds(scan(tmp_path / "nowhere")) == {str(tmp_path / "nowhere"): "does not exist"}
    (tmp_path / "file").touch()
    assert kinds(scan(tmp_path / "file")) == {str(tmp_path / "file"): "not a folder"}
    (tmp_path / "real").mkdir()
    (tmp_path / "fake").mkdir()
    assert kinds(scan(tmp_path))["fake"] == "no generator in the folder"


def test_fakes_without_any_mask_are_one_line(dolos: Path) -> None:
    fake = dolos / "celebahq/fake"
    never = "no fake has a mask; localisation leaves them out"
    names = sorted(path.name for path in fake.iterdir())
    for name in names[:-1]:
        shutil.rmtree(fake / name / "masks")
    assert scan(dolos).notes == [f"{name}: {never}" for name in names[:-1]]
    shutil.rmtree(fake / names[-1] / "masks")
    assert scan(dolos).notes == [never]


def test_a_mask_without_image_is_a_problem_and_a_fake_without_mask_a_note(dolos: Path) -> None:
    fake = dolos / "celebahq/fake"
    (fake / "lama/images/train/00001.png").unlink()
    (fake / "ldm/masks/train/00002.png").unlink()
    shutil.rmtree(fake / "ldm/masks/test")
    found = scan(dolos)
    assert [(p.path, p.what, p.skippable) for p in found.problems] == [
        ("celebahq/fake/lama/masks/train/00001.png", "a mask without an image", True)
    ]
    assert [note[: note.index(";")] for note in found.notes] == [
        "ldm, train: 1 of 4 fakes have no mask",
        "ldm, test: 3 of 3 fakes have no mask",
    ]
    assert sum(entry.mask is None for entry in found.entries if entry.generator == "ldm") == 4


def test_a_name_composed_or_decomposed_is_one_name(dolos: Path, tmp_path: Path) -> None:
    base = dolos / "celebahq"
    composed, decomposed = "Ren\u00e9", "Rene\u0301"
    (base / "real/test/00006.png").rename(base / f"real/test/{composed}.png")
    (base / "fake/lama/images/test/00006.png").rename(base / f"fake/lama/images/test/{decomposed}.png")
    (base / "fake/lama/masks/test/00006.png").rename(base / f"fake/lama/masks/test/{composed}.png")
    for kind in ("images", "masks"):
        (base / f"fake/ldm/{kind}/test/00006.png").rename(base / f"fake/ldm/{kind}/test/{decomposed}.png")
    found = scan(dolos)
    assert found.problems == []
    fakes = [entry for entry in found.entries if entry.path.stem == decomposed]
    assert [entry.mask.stem for entry in fakes if entry.mask] == [composed, decomposed]
    table = build_manifest("dolos", dolos, cache=tmp_path / "cache").table
    assert table.groupby("source_id")["path"].count()[composed] == 3
    write_image(base / f"real/test/{decomposed}.png", picture("other"))
    assert kinds(scan(dolos)) == {
        f"celebahq/real/test/{name}.png": "several files with one stem in a folder" for name in (composed, decomposed)
    }


def test_two_files_with_one_stem_are_both_left_out(dolos: Path) -> None:
    folder = dolos / "celebahq/fake/lama/images/train"
    write_image(folder / "00001.jpg", picture("x"))
    found = scan(dolos)
    assert set(kinds(found).values()) == {"several files with one stem in a folder"}
    assert {Path(path).name for path in kinds(found)} == {"00001.png", "00001.jpg"}
    assert "00001" not in {e.source_id for e in found.entries if e.generator == "lama"}


def test_nothing_is_left_aside_without_a_word(dolos: Path) -> None:
    train = dolos / "celebahq/real/train"
    for name in ("a.txt", "b.npy", "c", ".hidden.png", "Thumbs.db"):
        (train / name).touch()
    write_image(train / "more/x.png", picture("x"))
    (dolos / "celebahq/real/readme.md").touch()
    (dolos / "celebahq/fake/lama/images/extra").mkdir()
    found = scan(dolos)
    assert found.problems == []
    assert found.notes == [
        "files beside the folders were ignored in celebahq/real: readme.md",
        "3 files that are not images were ignored in celebahq/real/train: a.txt, b.npy, c",
        "1 folder was ignored in celebahq/real/train: more",
        "folders that are no split were ignored in celebahq/fake/lama/images: extra",
    ]
    assert found.all_notes()[4:] == [
        "2 files and folders with hidden names or of other programs were left aside: celebahq/real/train/.hidden.png, "
        "celebahq/real/train/Thumbs.db"
    ]


# Listing folders, for every source


def test_images_are_listed_sorted_by_suffix_in_any_case(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpeg", "c.webp", "d.gif", "f.txt", "sub/e.bmp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [path.name for path in list_images(tmp_path, tmp_path).images] == ["a.jpeg", "b.PNG", "c.webp"]
    recursive = list_images(tmp_path, tmp_path, recursive=True)
    assert [path.name for path in recursive.images] == ["a.jpeg", "b.PNG", "c.webp", "e.bmp"]
    assert recursive.notes == ["1 file that is not an image was ignored in .: f.txt"]
    assert recursive.unread == [tmp_path / "d.gif"]


def test_links_are_followed_inside_the_root_only(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    image = write_image(root / "a/1.png", picture("1"))
    secret = write_image(outside / "2.png", picture("2"))
    (root / "a/inside.png").symlink_to(image)
    (root / "a/outside.png").symlink_to(secret)
    (root / "a/dangling.png").symlink_to(root / "nothing.png")
    (root / "a/self.png").symlink_to(root / "a/self.png")
    (root / "away").symlink_to(outside)
    found = list_images(root, root, recursive=True)
    assert [path.name for path in found.images] == ["1.png", "inside.png"]
    assert kinds(found) == {
        "a/outside.png": "a link to a file outside the data folder",
        "a/dangling.png": "a link that leads nowhere",
        "a/self.png": "a link that leads nowhere",
        "away": "a linked folder outside the data folder",
    }
    assert {p.path for p in found.problems if p.skippable} == {"a/outside.png", "a/dangling.png", "a/self.png"}


def test_a_name_that_only_starts_like_the_root_is_outside(tmp_path: Path) -> None:
    write_image(tmp_path / "root2/1.png", picture("1"))
    (tmp_path / "root").mkdir()
    (tmp_path / "root/1.png").symlink_to(tmp_path / "root2/1.png")
    assert list_images(tmp_path / "root", tmp_path / "root").images == []


def test_the_root_itself_may_be_a_link(dolos: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(dolos)
    found = scan(tmp_path / "link")
    assert found.problems == []
    assert len(found.entries) == 27
    assert all(entry.path.is_relative_to(tmp_path / "link") for entry in found.entries)


def test_linked_folders_are_read_once_under_their_own_name(tmp_path: Path) -> None:
    write_image(tmp_path / "z/1.png", picture("1"))
    (tmp_path / "a").mkdir()
    (tmp_path / "a/z").symlink_to(tmp_path / "z")
    (tmp_path / "a/loop").symlink_to(tmp_path)
    found = list_images(tmp_path, tmp_path, recursive=True)
    assert found.images == [tmp_path / "z/1.png"]
    assert found.problems == []
    assert sorted(note.split()[0] for note in found.notes) == ["a/loop", "a/z"]


def test_names_that_are_not_utf8_are_problems(tmp_path: Path) -> None:
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")).touch()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    found = list_images(tmp_path, tmp_path)
    assert found.images == []
    assert kinds(found) == {"\\xff.png": "the name is not valid UTF-8"}


def test_in_a_locale_without_utf8_a_name_beyond_ascii_says_what_to_set(tmp_path: Path) -> None:
    (tmp_path / "Ren\u00e9.png").touch()
    code = f"""
from pathlib import Path
from data.sources.base import list_images
root = Path({str(tmp_path)!r})
found = list_images(root, root)
print(ascii([found.images, [(p.path, p.what, p.remedy) for p in found.problems]]))
"""
    locale = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **locale}, capture_output=True, encoding="ascii", cwd=ROOT
    )
    words = "a name beyond ASCII, in a locale without UTF-8", "set PYTHONUTF8=1, or LC_ALL=C.UTF-8"
    assert (done.stderr, ast.literal_eval(done.stdout)) == ("", [[], [("Ren\u00e9.png", *words)]])


def test_stems_are_compared_within_one_listing(tmp_path: Path) -> None:
    listing = Listing(images=[tmp_path / "a.png", tmp_path / "b.png", tmp_path / "b.jpg"])
    assert images_by_stem(listing, tmp_path) == {"a": tmp_path / "a.png"}
    assert sorted(kinds(listing)) == ["b.jpg", "b.png"]
    assert {problem.detail for problem in listing.problems} == {"b.png, b.jpg"}


# The register


def test_sources_are_registered_by_name() -> None:
    assert {"dolos", "folders"} <= set(list_sources())
    with pytest.raises(ValueError, match="'dolos' is registered already"):
        register_source("dolos")(get_source("dolos").scan)
    with pytest.raises(KeyError, match=r"'dolls'.*there are: .*dolos.*folders"):
        get_source("dolls")


def test_problems_sort_and_do_not_change() -> None:
    problems = [Problem("b", "x", "y"), Problem("a", "x", "y", "detail", True), Problem("a", "x", "y")]
    assert [p.path for p in sorted(problems)] == ["a", "a", "b"]
    with pytest.raises(AttributeError):
        problems[0].path = "c"  # type: ignore[misc]


@pytest.mark.parametrize("inside", ["", "wacv_data", "archive/wacv_data"])
def test_the_ffhq_half_is_a_corpus_of_its_own(tmp_path: Path, cache: Path, inside: str) -> None:
    write_archive(tmp_path / "x" / inside)
    manifest = build_manifest("dolos_ffhq", tmp_path / "x", cache=cache)
    assert manifest.generators == manifest.train_generators == ("p2", "repaint-p2")
    assert manifest.table["path"].str.contains("ffhq/").all()
    counts = manifest.table.groupby(["generator", "label"]).size().to_dict()
    assert counts == {("p2", 1): 9, ("real", 0): 9, ("repaint-p2", 1): 9}
    masked = manifest.table[manifest.table["mask"].notna()]
    assert set(masked["generator"]) == {"repaint-p2"}
    own = build_manifest("dolos_ffhq", next((tmp_path / "x").rglob("ffhq")), cache=cache)
    assert own.digest == manifest.digest


def test_fully_generated_images_are_a_data_set_of_their_own(tmp_path: Path, cache: Path) -> None:
    manifest = build_manifest("dolos", write_archive(tmp_path / "x"), cache=cache, generators=["p2"])
    assert manifest.train_generators == ("p2",)
    assert manifest.table["mask"].isna().all()


def test_the_ffhq_half_is_missing(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(DataProblems, match="no folder ffhq"):
        build_manifest("dolos_ffhq", write_dolos(tmp_path / "x"), cache=cache)
