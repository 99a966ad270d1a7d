"""Faults that only pixels show are found by name, and sound data raise nothing but what is true of them."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data.audits import Evidence, Finding, run_audits
from data.audits.duplicates import hash_limit, same_pictures
from data.audits.masks import untrusted_masks
from data.demo.recipe import DemoRecipe, make_demo
from data.manifest import build_manifest
from data.measure import measure
from tests.corpora import write_dolos, write_folders
from tests.data import plants

REAL_FACES = os.environ.get("GRID_REAL_FACES", "")  # a folder of real photographs in the layout of Dolos
AUDITS = ["duplicates", "labels", "masks", "pixels"]
PASTE = ("fourier_fill", "patch_sample")  # the demo's generators that change nothing outside the mask
WHOLE = ("autoencoder", "renoise")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo of 22 faces."""
    recipe = DemoRecipe(size=64, train=14, valid=3, test=5, version=1)
    return make_demo(tmp_path_factory.mktemp("demo"), recipe, workers=1)


@pytest.fixture
def demo(drawn: Path, tmp_path: Path) -> Path:
    """A copy of it, to plant a fault in."""
    return shutil.copytree(drawn, tmp_path / "demo")


def audited(root: Path, source: str = "dolos") -> list[Finding]:
    cache = root.parent / f"cache of {root.name}"
    manifest = build_manifest(source, root, cache=cache, measured_per_group=1000)
    return run_audits(Evidence(manifest, measure(manifest, cache=cache)), AUDITS)


def of(findings: list[Finding], audit: str, level: str = "") -> list[str]:
    return [finding.text for finding in findings if finding.audit == audit and level in ("", finding.level)]


def only_true(findings: list[Finding]) -> bool:
    """Whether nothing is said but that the demo's two generators change the whole image."""
    texts = of(findings, "pixels", "warn")
    named = [text.partition(":")[0] for text in texts if "outside the mask differ from the original's" in text]
    return named == list(WHOLE) and len(findings) == len(texts) == 2


# Sound data


def test_of_the_demo_nothing_is_said_but_which_generators_change_the_whole_image(demo: Path) -> None:
    findings = audited(demo)
    assert only_true(findings)
    shown = {text.partition(":")[0]: text for text in of(findings, "pixels")}
    assert re.match(r"renoise: (99|100)% of the pixels .*, by [34](\.\d)? levels", shown["renoise"])
    assert re.match(r"autoencoder: [45]\d% of the pixels .*, by 0\.[3-7]\d* levels", shown["autoencoder"])
    assert not any("AUROC" in text for text in shown.values())  # blockiness and JPEG quality are at chance
    assert "--train-condition paste-back --conditions paste-back" in findings[0].remedy
    numbers = dict(findings[0].numbers)
    assert (numbers["pairs"], numbers["changed"], numbers["quality_auroc"]) == (22, 22, 0.5)
    assert 0.4 < numbers["share_outside"] < 0.6
    assert len(findings[0].files) == 20
    assert all(name.startswith("celebahq/fake/autoencoder/images/") for name in findings[0].files)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1, 6))
def test_of_another_demo_too(tmp_path: Path, seed: int) -> None:
    root = make_demo(tmp_path, DemoRecipe(size=64, train=40, valid=20, test=30, seed=seed, version=1), workers=1)
    assert only_true(audited(root))


def test_of_a_sound_tree_nothing_is_said(tmp_path: Path) -> None:
    root = write_dolos(tmp_path / "x", ["lama", "ldm"], {"train": 14, "valid": 6, "test": 6}, size=32)
    texts = [str(finding) for finding in audited(root)]
    assert texts == [f"{name}: all 26 masks are the same, and nothing else changed" for name in ("lama", "ldm")]


@pytest.mark.skipif(not REAL_FACES, reason="GRID_REAL_FACES names no folder of real photographs")
def test_of_real_photographs_nothing_is_said(tmp_path: Path) -> None:
    root = shutil.copytree(REAL_FACES, tmp_path / "faces")
    assert audited(root) == []


def test_without_masks_the_pixels_that_differ_are_a_note(demo: Path) -> None:
    for folder in demo.glob("celebahq/fake/*/masks"):
        shutil.rmtree(folder)
    found = [finding for finding in audited(demo) if finding.audit == "pixels"]
    assert [finding.level for finding in found] == ["note"] * 4
    for finding, generator in zip(found, sorted([*PASTE, *WHOLE]), strict=True):
        words = f"{generator}: no masks, so nothing says which pixels should be the original's; "
        assert re.match(rf"{words}\d+% of all pixels differ", finding.text)
        for column, words in (("blockiness", "blockiness at 8 px there"), ("quality", "JPEG quality")):
            assert (words in finding.text) == (dict(finding.numbers)[f"{column}_low"] > 0.5)
        assert (dict(finding.numbers)["share"] > 0.4) == (generator in WHOLE)


# Saved or resized


def laundered(findings: list[Finding]) -> dict[str, str]:
    return {
        text.partition(": ")[0]: text for text in of(findings, "pixels", "fail") if "laundered outside the mask" in text
    }


def test_fakes_that_were_jpeg_once_or_resized_and_back_are_found(demo: Path) -> None:
    for generator in PASTE[1:] + WHOLE:
        plants.change(plants.fakes(demo, generator), plants.as_jpeg(90))
    plants.change(plants.fakes(demo, PASTE[0]), plants.resized)
    found = laundered(audited(demo))
    assert set(found) == {*PASTE, *WHOLE}
    resized = "the originals, resized from 64 x 64 to 62 x 62 px and back (bicubic), give 100% of what differs there"
    assert f"{resized} (9 of 9 pairs tried)" in found[PASTE[0]]
    assert "the originals, saved as JPEG of quality 90, give" in found[PASTE[1]]
    assert all("saved as JPEG of quality 90 (median)" in found[generator] for generator in PASTE[1:] + WHOLE)


@pytest.mark.long
def test_fakes_that_were_jpeg_once_are_found(demo: Path) -> None:
    plants.change(plants.fakes(demo), plants.as_jpeg(90))
    findings = audited(demo)
    found = laundered(findings)
    assert set(found) == {*PASTE, *WHOLE}
    failed = [finding for finding in findings if finding.level == "fail"]
    assert all(dict(finding.numbers)["jpeg_quality"] in range(85, 95) for finding in failed)
    assert all((demo / name).is_file() for finding in failed for name in finding.files)
    for generator in PASTE:
        assert "the originals, saved as JPEG of quality 90, give" in found[generator]
        assert "9 of 9 pairs tried" in found[generator]
    for text in found.values():
        assert "saved as JPEG of quality 90 (median), which the originals were not; this one number alone" in text
        assert re.search(r"AUROC (0\.9[5-9]|1\.00)", text)


@pytest.mark.long
def test_only_the_generator_that_was_jpeg_is_named(demo: Path) -> None:
    plants.change(plants.fakes(demo, "patch_sample"), plants.as_jpeg(95))
    assert set(laundered(audited(demo))) == {"patch_sample"}


@pytest.mark.long
def test_fakes_that_were_resized_and_back_are_found(demo: Path) -> None:
    plants.change(plants.fakes(demo), plants.resized)
    found = laundered(audited(demo))
    assert set(PASTE) <= set(found)
    for generator in PASTE:
        assert "resized from 64 x 64 to 62 x 62 px and back (bicubic)" in found[generator]


@pytest.mark.long
def test_real_and_fake_saved_alike_are_not_laundered(demo: Path) -> None:
    plants.change([*plants.fakes(demo), *sorted(demo.glob("celebahq/real/*/*.png"))], plants.as_jpeg(90))
    assert laundered(audited(demo)) == {}


def test_without_originals_whole_images_are_compared_and_it_is_said(tmp_path: Path) -> None:
    folders = {f"gan/{split}/{name}": 12 for split in ("train", "val", "test") for name in ("0_real", "1_fake")}
    root = write_folders(tmp_path / "x", folders, size=64, restart=False)
    findings = audited(root, "folders")
    assert [str(finding) for finding in findings] == [
        "gan: no originals, so traces of saving and resizing are measured over whole images"
    ]
    plants.change(root.glob("gan/*/0_real/*.png"), plants.as_jpeg(85))
    (text,) = of(audited(shutil.copytree(root, tmp_path / "y"), "folders"), "pixels", "fail")
    assert (
        "JPEG quality in the pixels over whole images: how well this one number alone separates real from fake" in text
    )
    assert "(medians: fake none, real 8" in text


# Masks


def test_masks_that_mean_nothing_are_found_and_not_trusted(demo: Path) -> None:
    faults = {
        "autoencoder": (lambda a: 255 - a, r"22 of 22 masks are inverted: .* levels inside the mask and .* outside"),
        "fourier_fill": (lambda a: (a > 0).astype(np.uint8), r"22 of 22 masks are saved with the levels 0 and 1"),
        "patch_sample": (lambda a: a * 0, r"22 of 22 masks are full: every pixel counts as fake"),
        "renoise": (lambda a: a * 0 + 255, r"22 of 22 masks are empty: no pixel counts as fake"),
    }
    for generator, (function, _) in faults.items():
        plants.change(plants.masks(demo, generator), plants.levels(function))
    findings = audited(demo)
    texts = of(findings, "masks", "warn")
    assert of(findings, "pixels") == []  # nobody knows which pixels should be untouched
    assert len(texts) == len(faults)
    for text, (generator, (_, words)) in zip(texts, faults.items(), strict=True):
        assert re.match(f"{generator}: {words}", text)
    for finding, generator in zip((found for found in findings if found.audit == "masks"), faults, strict=True):
        assert all(name.startswith(f"celebahq/fake/{generator}/masks/") for name in finding.files)
        assert (dict(finding.numbers)["masks"], dict(finding.numbers)["wrong"]) == (22, 22)
    manifest = dataclasses.replace(build_manifest("dolos", demo, cache=demo / "c"), findings=tuple(findings))
    untrusted = untrusted_masks(manifest)
    assert all(re.match(words, untrusted[generator]) for generator, (_, words) in faults.items())


def test_masks_of_something_else_are_found_and_sound_ones_are_trusted(demo: Path) -> None:
    paths = plants.masks(demo, "patch_sample")
    contents = [path.read_bytes() for path in paths]
    for path, content in zip(paths, [*contents[1:], contents[0]], strict=True):
        path.write_bytes(content)
    for path in plants.masks(demo, "fourier_fill"):
        shutil.copy(path.parents[2] / "images" / path.parent.name / path.name, path)
    same = plants.masks(demo, "renoise")
    for path in same[1:]:
        shutil.copy(same[0], path)
    findings = audited(demo)
    found = {text.partition(": ")[0]: text for text in of(findings, "masks", "warn")}
    assert "22 of 22 masks are copies of pictures" in found["fourier_fill"]
    assert re.search(r"\d\d of 22 masks are of another place: they hold \d\d% of the change", found["patch_sample"])
    assert "all 22 masks are the same, and nothing shows that the change lies in it" in found["renoise"]
    manifest = dataclasses.replace(build_manifest("dolos", demo, cache=demo / "c"), findings=tuple(findings))
    assert sorted(untrusted_masks(manifest)) == ["fourier_fill", "patch_sample", "renoise"]


# Labels


REVERSE = "their distances from its other images, and how sharp they are, are the reverse of what is usual"


@pytest.mark.parametrize(
    "generator", ["patch_sample", *(pytest.param(n, marks=pytest.mark.long) for n in ("fourier_fill", *WHOLE))]
)
def test_real_images_and_fakes_with_each_others_label_are_found(demo: Path, generator: str) -> None:
    names = plants.swap(demo, "real", generator)
    (finding,) = (found for found in audited(demo) if found.audit == "labels")
    words = f"in 5 photographs the real image and the fake of {generator} may have each other's label"
    assert (finding.level, finding.text) == ("fail", f"{words}: {REVERSE}")
    fake = f"celebahq/fake/{generator}/images/train"
    assert list(finding.files) == [f"{folder}/{name}" for name in names for folder in ("celebahq/real/train", fake)]
    assert dict(finding.numbers) == {"photographs": 22, "swapped": 5}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(one, other, marks=() if (one, other) == ("patch_sample", "renoise") else pytest.mark.long)
        for one, other in combinations(sorted([*PASTE, *WHOLE]), 2)
    ],
)
def test_fakes_of_two_generators_with_each_others_label_are_found(demo: Path, one: str, other: str) -> None:
    names = plants.swap(demo, one, other)
    (finding,) = (found for found in audited(demo) if found.audit == "labels")
    words = f"in 5 photographs the fakes of {one} and {other} may have each other's label"
    assert (finding.level, finding.text) == ("fail", f"{words}: {REVERSE}")
    assert {Path(name).name for name in finding.files} == set(names)


# Duplicates


@pytest.mark.parametrize("quality", [pytest.param(0, marks=pytest.mark.long), 75], ids=["PNG", "JPEG"])
def test_pictures_under_two_names_are_found(demo: Path, quality: int) -> None:
    copy = demo / "celebahq/real/test/98765.png"
    plants.saved_again(demo / "celebahq/real/train/00003.png", copy)
    if quality:
        plants.change([copy], plants.as_jpeg(quality))
    folder = demo / "celebahq/fake/renoise"
    plants.saved_again(demo / "celebahq/real/train/00004.png", folder / "images/train/98766.png")
    shutil.copy(folder / "masks/train/00004.png", folder / "masks/train/98766.png")
    for path in sorted((demo / "celebahq/real/train").iterdir())[5:11]:
        plants.saved_again(path, path.with_name(f"9{path.name}"))
    leaked, mixed, repeated = (finding for finding in audited(demo) if finding.audit == "duplicates")
    assert leaked.text.startswith("1 of 6 photographs of test are in a split before it too, under another name")
    assert leaked.level == "fail"
    assert set(leaked.files) == {"celebahq/real/test/98765.png", "celebahq/real/train/00003.png"}
    assert mixed.text.startswith("1 picture is both real and fake, under two names")
    assert mixed.level == "fail"
    assert set(mixed.files) == {"celebahq/real/train/00004.png", "celebahq/fake/renoise/images/train/98766.png"}
    assert repeated.text.startswith("6 of 20 real images of train (30%) repeat another one")
    assert repeated.level == "warn"
    assert dict(repeated.numbers) == {"images": 20, "repeated": 6}
    assert len(repeated.files) == 12


def test_the_distance_comes_from_validation_reals_and_near_hashes_are_all_found() -> None:
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2, (3000, 256), dtype=np.uint8)
    for copy, flips in enumerate((1, 7, 15, 16)):  # each a copy of the image before it, in the other split
        bits[2 * copy + 1] = bits[2 * copy]
        bits[2 * copy + 1, rng.choice(256, flips, replace=False)] ^= 1
    rows = pd.DataFrame(
        {
            "path": [f"{number}.png" for number in range(3000)],
            "label": 0,
            "generator": "real",
            "source_id": [str(number) for number in range(3000)],
            "split": ["valid" if number % 3 == 2 and number > 8 else "train" for number in range(3000)],
            "hash": [np.packbits(row).tobytes().hex() for row in bits],
            "pixels": "",
        }
    )
    assert hash_limit(rows) == 15
    found = same_pictures(rows, 15)
    assert sorted(found["bits"]) == [1, 7, 15]
    assert {frozenset(two) for two in zip(found["source_id_a"], found["source_id_b"], strict=True)} == {
        frozenset({"0", "1"}), frozenset({"2", "3"}), frozenset({"4", "5"})
    }  # fmt: skip
    near = rows.assign(split="valid").head(8)
    assert hash_limit(near.iloc[6:8]) == 16 // 4  # the nearest pair of different photographs: 16 bits
