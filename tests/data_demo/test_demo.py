from __future__ import annotations

import hashlib
import multiprocessing
import os
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from data.demo import recipe
from data.demo.inpainters import list_inpainters
from data.demo.recipe import FIRST, DemoRecipe, is_demo, make_demo
from data.sources import get_source

REPO = Path(__file__).parents[2]
SMALL = DemoRecipe(size=32, train=3, valid=1, test=2, seed=5)
PASTED_EXACTLY = ("fourier_fill", "patch_sample")
# Of the pixels of test image 70000 of each version's whole demo, as it was drawn first: a version always draws these.
DRAWN_FIRST = {
    1: "73e45dfb9be7e5e9",
    2: "82e53ff7753c9de0",
}


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def read(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.array(image)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_demo(tmp_path_factory.mktemp("demo"), SMALL, workers=1)


def test_layout(made: Path) -> None:
    assert made.name == SMALL.key
    assert {path.name for path in made.iterdir()} == {"celebahq", "README.txt"}
    assert is_demo(made)
    assert not is_demo(made / "celebahq")
    assert {path.name for path in (made / "celebahq" / "fake").iterdir()} == set(list_inpainters())
    for split, count in (("train", 3), ("valid", 1), ("test", 2)):
        stems = {path.name for path in (made / "celebahq" / "real" / split).iterdir()}
        assert len(stems) == count
        for generator in list_inpainters():
            for kind in ("images", "masks"):
                folder = made / "celebahq" / "fake" / generator / kind / split
                assert {path.name for path in folder.iterdir()} == stems
    readme = (made / "README.txt").read_text(encoding="utf-8")
    assert "Synthetic" in readme
    assert all(name in readme for name in list_inpainters())


def test_real_fake_and_mask_are_the_same_kind_of_file(made: Path) -> None:
    for path in made.rglob("*.png"):
        with Image.open(path) as image:
            assert image.format == "PNG"
            assert image.size == (32, 32)
            assert image.mode == ("L" if "masks" in path.parts else "RGB")
            assert image.info == {}


@pytest.mark.parametrize("version", DRAWN_FIRST)
def test_a_version_draws_what_it_drew_first(version: int, tmp_path: Path) -> None:
    whole = FIRST if version == 1 else DemoRecipe()
    root = make_demo(tmp_path, replace(whole, train=1, valid=1, test=1), workers=1) / "celebahq"
    pixels = hashlib.sha256()
    for path in sorted(root.rglob("test/70000.png")):
        pixels.update(read(path).tobytes())
    assert pixels.hexdigest()[:16] == DRAWN_FIRST[version]


def test_the_first_version_is_found_where_earlier_checkouts_made_it() -> None:
    assert FIRST.key.rpartition("-")[0] == "demo-v1-size64-train300-valid60-test100-seed0"
    assert get_source("demo1").drawn.folder(Path("cache")) == Path("cache", "demo", FIRST.key)
    assert get_source("demo").drawn.folder(Path("cache")) == Path("cache", "demo", DemoRecipe().key)


def test_all_generators_repaint_the_same_region_of_a_face(made: Path) -> None:
    for real in (made / "celebahq" / "real").rglob("*.png"):
        split_and_name = Path(*real.parts[-2:])
        masks = [read(made / "celebahq" / "fake" / name / "masks" / split_and_name) for name in list_inpainters()]
        assert all((mask == masks[0]).all() for mask in masks)
        assert 0.01 < (masks[0] == 0).mean() < 0.7


@pytest.mark.parametrize("generator", PASTED_EXACTLY)
def test_masks_are_white_where_nothing_changed(made: Path, generator: str) -> None:
    for real_path in (made / "celebahq" / "real" / "train").iterdir():
        folder = made / "celebahq" / "fake" / generator
        real, fake = read(real_path), read(folder / "images" / "train" / real_path.name)
        mask = read(folder / "masks" / "train" / real_path.name)
        assert set(np.unique(mask)) == {0, 255}
        np.testing.assert_array_equal(fake[mask == 255], real[mask == 255])
        assert (fake != real).any(axis=-1)[mask == 0].mean() > 0.5


def test_the_reader_finds_everything(made: Path) -> None:
    found = get_source("demo").scan(made)
    assert not found.problems
    assert len(found.entries) == 6 * (1 + len(list_inpainters()))


def test_the_same_recipe_gives_the_same_bytes_in_one_process_or_several(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe, "PICTURES_PER_WORKER", 3)
    seen: list[tuple[int, int]] = []
    again = make_demo(tmp_path, SMALL, workers=2, progress=lambda done, total: seen.append((done, total)))
    assert contents(again) == contents(made)
    assert seen == [(done, 6) for done in range(1, 7)]


def test_a_picture_does_not_depend_on_which_others_are_made(made: Path, tmp_path: Path) -> None:
    fewer = contents(make_demo(tmp_path, replace(SMALL, train=1), workers=1))
    more = contents(made)
    shared = {name for name in fewer if name.endswith(".png")}
    assert shared < set(more)
    assert all(fewer[name] == more[name] for name in shared)


def test_another_seed_gives_other_pictures(made: Path, tmp_path: Path) -> None:
    other = contents(make_demo(tmp_path, DemoRecipe(size=32, train=1, valid=1, test=1, seed=6), workers=1))
    assert all(data != contents(made)[name] for name, data in other.items() if "real" in name)


def test_every_field_and_the_set_of_generators_change_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = {f.name: getattr(SMALL, f.name) + 1 for f in fields(SMALL)} | {"version": 1}
    keys = {SMALL.key} | {replace(SMALL, **{name: number}).key for name, number in numbers.items()}
    assert len(keys) == 1 + len(fields(SMALL))
    before = SMALL.key
    monkeypatch.setattr(recipe, "list_inpainters", lambda: ["another"])
    assert before != SMALL.key


def test_a_finished_folder_is_returned_at_once(made: Path) -> None:
    def refuse(done: int, total: int) -> None:
        raise AssertionError("nothing should be made")

    assert make_demo(made.parent, SMALL, workers=1, progress=refuse) == made


def test_an_interrupted_build_leaves_nothing_that_looks_finished(made: Path, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_demo(tmp_path, SMALL, workers=1, progress=interrupt)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    assert contents(make_demo(tmp_path, SMALL, workers=1)) == contents(made)


@pytest.mark.skipif(not hasattr(os, "kill"), reason="needs kill")
def test_a_killed_build_is_done_again(made: Path, tmp_path: Path) -> None:
    script = (
        "from pathlib import Path\n"
        "from data.demo.recipe import DemoRecipe, make_demo\n"
        f"touch = lambda done, total: Path({str(tmp_path / 'begun')!r}).touch()\n"
        f"make_demo(Path({str(tmp_path)!r}), DemoRecipe(size=32, train=3000, valid=1, test=2, seed=5), workers=1,"
        " progress=touch)\n"
    )
    builder = subprocess.Popen([sys.executable, "-c", script], cwd=REPO)
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "begun").exists() and time.monotonic() < deadline:
            assert builder.poll() is None
            time.sleep(0.02)
    finally:
        builder.kill()
        builder.wait()
    killed = replace(SMALL, train=3000).key
    assert (tmp_path / f".{killed}.building").is_dir()
    assert not (tmp_path / killed).exists()
    # The same build, made small enough to finish here, must clear the remains and not wait for the dead one's lock.
    os.rename(tmp_path / f".{killed}.building", tmp_path / f".{SMALL.key}.building")  # noqa: PTH104
    assert contents(make_demo(tmp_path, SMALL, workers=1)) == contents(made)


def _find_it_made(folder: Path) -> None:
    def refuse(done: int, total: int) -> None:
        raise AssertionError("the other builder was at it")

    (folder / "waiting").touch()
    make_demo(folder, SMALL, workers=1, progress=refuse)


def test_of_two_builders_at_once_the_second_waits_and_makes_nothing(made: Path, tmp_path: Path) -> None:
    second = multiprocessing.get_context("spawn").Process(target=_find_it_made, args=(tmp_path,))

    def start_the_second(done: int, total: int) -> None:
        if done > 1:
            return
        second.start()
        deadline = time.monotonic() + 60
        while not (tmp_path / "waiting").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.3)  # time enough to do harm
        assert second.is_alive()

    make_demo(tmp_path, SMALL, workers=1, progress=start_the_second)
    second.join(60)
    assert second.exitcode == 0
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == [tmp_path / SMALL.key]
    assert contents(tmp_path / SMALL.key) == contents(made)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 31}, "size must lie in 32 to 4096, got 31"),
        ({"train": 40_001}, "train must lie in 1 to 40000, got 40001"),
        ({"valid": 0}, "valid must lie in 1 to 30000, got 0"),
        ({"test": 30_001}, "test must lie in 1 to 30000, got 30001"),
        ({"seed": -1}, "seed must not be negative, got -1"),
        ({"version": 3}, "version must be one of 1, 2, got 3"),
    ],
)
def test_a_recipe_whose_splits_would_share_faces_is_refused(changes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DemoRecipe(**changes)
