"""The audit of file headers: each plant is found by name, and clean data pass."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from data.audits import Evidence, Finding, run_audits
from data.audits.headers import ALIKE, FAIL_ABOVE, MOST_IMAGES
from data.images import probe
from data.manifest import Manifest, build_manifest
from data.separation import Separation, separation
from tests.corpora import picture, save_as_jpeg, write_dolos, write_image

REAL_FACES = os.environ.get("GRID_REAL_FACES", "")  # a folder of real photographs in the layout of Dolos
ALONE = "file headers alone, without a pixel, tell fakes from real images: "
BYTES = "bytes per pixel alone tell fakes from real images: "
ENOUGH = {"train": 30, "valid": 5, "test": 5}  # photographs: "fail" takes 36 of them


def headers(root: Path, cache: Path) -> list[Finding]:
    return run_audits(Evidence(build_manifest("dolos", root, cache=cache)), ["headers"])


def levels(found: list[Finding]) -> list[str]:
    return [finding.level for finding in found]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """One generator, 40 photographs."""
    return write_dolos(tmp_path / "corpus", ["lama"], ENOUGH)


def fakes(root: Path, generator: str = "lama") -> list[Path]:
    return sorted((root / "celebahq/fake" / generator / "images").rglob("*.png"))


def reals(root: Path) -> list[Path]:
    return sorted((root / "celebahq/real").rglob("*.png"))


# Plants --------------------------------------------------------------------------------------------------------------


def test_jpeg_reals_and_png_fakes(corpus: Path, cache: Path) -> None:
    for path in reals(corpus):
        save_as_jpeg(path)
    warned, failed = headers(corpus, cache)
    assert warned.text == "fakes of lama differ from real images in file format (PNG 100% against JPEG 100%)"
    assert warned.remedy == f"a detector can learn that instead; {ALIKE}"
    assert {Path(name).suffix for name in warned.files} == {".png", ".jpg"}
    assert (warned.level, failed.level) == ("warn", "fail")
    assert failed.text.startswith(f"{ALONE}lama by file format AUROC 1.000 [0.9")
    assert (
        failed.remedy
        == ALIKE
        == "save real and fake alike, or give --equalise jpeg-95: both as JPEG, in training and in test"
    )
    assert dict(failed.numbers)["lama: auroc"] == 1
    assert dict(failed.numbers)["lama: low"] > FAIL_ABOVE


def test_what_several_generators_have_in_common_is_said_once(tmp_path: Path, cache: Path) -> None:
    root = write_dolos(tmp_path / "x", ["lama", "ldm", "repaint"], ENOUGH)
    for path in [*fakes(root, "lama"), *fakes(root, "repaint")]:
        save_as_jpeg(path)
    warned, failed = (finding for finding in headers(root, cache) if not finding.text.startswith(BYTES))
    assert warned.text == "fakes of lama, repaint differ from real images in file format (JPEG 100% against PNG 100%)"
    assert re.findall(r"(\w+) by file format AUROC 1\.000", failed.text) == ["lama", "repaint"]
    assert {Path(name).parts[2] for name in failed.files if "fake" in name} == {"lama", "repaint"}


def test_quality_90_against_95(corpus: Path, cache: Path) -> None:
    for paths, quality in ((reals(corpus), 95), (fakes(corpus), 90)):
        for path in paths:
            save_as_jpeg(path, quality)
    found = headers(corpus, cache)
    assert found[0].text.startswith("fakes of lama differ from real images in JPEG quantisation (")
    assert found[1].text.startswith(f"{ALONE}lama by JPEG quantisation AUROC 1.000")
    assert levels(found) == ["warn", "fail"]


def test_a_colour_profile_in_one_class(corpus: Path, cache: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for path in fakes(corpus):
        Image.open(path).save(path, icc_profile=profile)
    found = headers(corpus, cache)
    digest = probe(fakes(corpus)[0]).profile
    assert len(digest) == 8
    assert found[0].text == f"fakes of lama differ from real images in colour profile ({digest} 100% against none 100%)"
    assert found[1].text.startswith(f"{ALONE}lama by colour profile AUROC 1.000")
    assert levels(found) == ["warn", "fail"]


def test_texts_of_the_program_that_made_the_fakes(corpus: Path, cache: Path) -> None:
    for path in fakes(corpus)[::2]:
        texts = PngImagePlugin.PngInfo()
        texts.add_text("parameters", "a face")
        Image.open(path).save(path, pnginfo=texts)
    found = headers(corpus, cache)
    assert found[0].text == (
        "fakes of lama differ from real images in metadata (none 50%, parameters 50% against none 100%)"
    )
    assert found[0].numbers == (("lama: share that differs", 0.5),)
    # half of the fakes are known at sight: AUROC .75; the others and the real images, in a random order
    assert found[1].text.startswith(f"{ALONE}lama by metadata AUROC 0.7")
    assert levels(found) == ["warn", "warn"]


def test_size_and_pixel_type(dolos: Path, cache: Path) -> None:
    for path in (dolos / "celebahq/fake/lama/images").glob("*/*"):
        Image.open(path).resize((20, 16)).convert("L").save(path.with_suffix(".jpg"))
        path.unlink()
    for path in (dolos / "celebahq/fake/lama/masks").glob("*/*"):
        write_image(path, np.zeros((16, 20), dtype=np.uint8))
    differences = [finding.text for finding in headers(dolos, cache) if "differ from" in finding.text]
    assert differences == [
        "fakes of lama differ from real images in file format (JPEG 100% against PNG 100%)",
        "fakes of lama differ from real images in image size (20 x 16 100% against 16 x 16 100%)",
        "fakes of lama differ from real images in pixel type on disk (L 100% against RGB 100%)",
    ]


def test_a_few_photographs_warn_and_do_not_fail(dolos: Path, cache: Path) -> None:
    for path in fakes(dolos):
        save_as_jpeg(path)
    assert "fail" not in levels(headers(dolos, cache))  # 9 photographs: the interval begins at .66


def test_generators_that_differ_from_each_other_alone(tmp_path: Path, cache: Path) -> None:
    root = tmp_path / "x"
    for generator, side in (("a", 16), ("b", 24)):
        for kind in ("0_real", "1_fake"):
            for split in ("train", "valid", "test"):
                for number in range(6):
                    pixels = picture(f"{generator}{kind}{split}{number}", side)
                    write_image(root / generator / split / kind / f"{generator}{split}{number}.png", pixels)
    found = run_audits(Evidence(build_manifest("folders", root, cache=cache)), ["headers"])
    assert [(finding.level, finding.text) for finding in found if "bytes" not in finding.text] == [
        (
            "note",
            "generators differ in image size (a, b; the first against the others: 16 x 16 100% against 24 x 24 100%)",
        )
    ]


# What is no finding --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("num", "shown"), [(1, 0), (3, 1)])
def test_a_few_odd_files_are_no_shortcut(tmp_path: Path, cache: Path, num: int, shown: int) -> None:
    # 1 and 3 of 40: SHARE_THAT_MATTERS is 5 %
    root = write_dolos(tmp_path / "x", ["lama"], {"train": 20, "valid": 10, "test": 10})
    for path in sorted((root / "celebahq/fake/lama/images/train").iterdir())[:num]:
        save_as_jpeg(path)
    assert len([finding for finding in headers(root, cache) if "format" in finding.text]) == shown


def table_of(num: int, **columns: Callable[[np.random.Generator, np.ndarray], object]) -> Manifest:
    """A manifest of `num` real photographs, and as many fakes of other photographs, that are nowhere.

    `columns`: name -> (random numbers, bool of what is fake) -> values.
    """
    rng, fake = np.random.default_rng(0), np.arange(2 * num) >= num
    table = pd.DataFrame({"path": [f"{n}.png" for n in range(2 * num)], "label": fake.astype(int)})
    table = table.assign(
        generator=np.where(fake, "lama", "real"), source_id=table["path"], split="train", digest=table["path"],
        width=64, height=64, format="PNG", mode="RGB", quantisation="", profile="", metadata="",
        num_bytes=rng.integers(5000, 6000, 2 * num),
    )  # fmt: skip
    return Manifest(Path(), "dolos", table.assign(**{name: make(rng, fake) for name, make in columns.items()}))


def test_sizes_that_vary_alike_in_both_classes() -> None:
    """Hardly any size occurs in both classes, and that is chance."""
    vary = table_of(300, width=lambda rng, fake: rng.integers(200, 2000, len(fake)))
    assert run_audits(Evidence(vary), ["headers"]) == []


def test_sizes_that_vary_about_another_mean() -> None:
    def widths(rng: np.random.Generator, fake: np.ndarray) -> np.ndarray:
        return rng.integers(200, 2000, len(fake)) + 1600 * fake

    found = run_audits(Evidence(table_of(300, width=widths)), ["headers"])
    assert levels(found) == ["fail", "warn"]
    assert found[0].text.startswith(f"{ALONE}lama AUROC 0.9")
    assert found[1].text.startswith(f"{BYTES}lama (median 0.")


def test_bytes_per_pixel_warn_and_never_fail() -> None:
    def sizes(shift: int) -> Callable[[np.random.Generator, np.ndarray], np.ndarray]:
        return lambda rng, fake: rng.integers(5000, 6000, len(fake)) - shift * fake

    for shift, expected in ((0, []), (200, []), (500, ["note"]), (900, ["warn"]), (5000, ["warn"])):
        found = run_audits(Evidence(table_of(200, num_bytes=sizes(shift))), ["headers"])
        assert levels(found) == expected, shift
        assert all(finding.text.startswith(f"{BYTES}lama (median ") for finding in found)


def test_of_many_images_a_part_is_looked_at_and_that_is_said() -> None:
    many = table_of(MOST_IMAGES + 5, format=lambda rng, fake: np.where(fake, "PNG", "JPEG"))
    warned, failed = run_audits(Evidence(many), ["headers"])
    assert warned.text == "fakes of lama differ from real images in file format (PNG 100% against JPEG 100%)"
    assert failed.text.endswith("(of 20,000 images per class)")


def test_a_manifest_of_an_older_version_has_fewer_facts() -> None:
    older = table_of(40, format=lambda rng, fake: np.where(fake, "PNG", "JPEG"))
    table = older.table.drop(columns=["num_bytes", "profile", "metadata"])
    found = run_audits(Evidence(dataclasses.replace(older, table=table)), ["headers"])
    assert levels(found) == ["warn", "fail"]


@pytest.mark.skipif(not REAL_FACES, reason="GRID_REAL_FACES names no folder of real photographs")
def test_real_photographs_with_repainted_regions_pass(cache: Path) -> None:
    manifest = build_manifest("dolos", Path(REAL_FACES), cache=cache)
    assert manifest.findings == ()
    sources = np.array(sorted(set(manifest.table["source_id"])))
    for seed in range(5):
        half = set(np.random.default_rng(seed).permutation(sources)[: len(sources) // 2])
        rows = manifest.table[manifest.table["source_id"].isin(half)]
        assert run_audits(Evidence(dataclasses.replace(manifest, table=rows)), ["headers"]) == []


# Facts ---------------------------------------------------------------------------------------------------------------


def test_what_a_file_carries(tmp_path: Path) -> None:
    image, exif = Image.fromarray(picture("a")), Image.Exif()
    exif[0x010E] = "a face"
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Software\x07", "x")
    texts.add_itxt("k" * 60, "y")
    texts.add(b"tEXt", b"behind\0the pixels", after_idat=True)
    for name, options, metadata in (
        ("plain.png", {}, ""),
        ("texts.png", {"pnginfo": texts, "dpi": (72, 72)}, f"Software?, behind, dpi, {'k' * 40}"),
        ("exif.png", {"exif": exif}, "exif"),
        ("plain.jpg", {}, "jfif, subsampling 4:2:0"),
        ("full.jpg", {"subsampling": 0, "progressive": True}, "jfif, progressive, subsampling 4:4:4"),
        ("exif.webp", {"exif": exif}, "exif"),
        ("plain.webp", {}, ""),
    ):
        image.save(tmp_path / name, **options)
        facts = probe(tmp_path / name)
        assert (facts.metadata, facts.profile) == (metadata, ""), name
        assert facts.num_bytes == (tmp_path / name).stat().st_size


# An AUROC with its interval -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_the_interval_is_that_of_a_detectors_scores(seed: int) -> None:
    from analysis.intervals import Sources, average

    rng = np.random.default_rng(seed)
    labels, sources = rng.integers(0, 2, 80), rng.integers(0, 30, 80).astype(str)
    scores = np.round(rng.normal(size=80) + labels * (1 + seed), 1)  # with ties
    frame = pd.DataFrame({"source_id": sources, "generator": "lama", "label": labels, "score": scores})
    expected = average([Sources([frame]).cell(frame).parts("auroc")])
    assert separation(scores, labels == 1, sources) == pytest.approx((expected.value, *expected.interval), abs=1e-12)


def test_a_perfect_ranking_has_an_interval() -> None:
    fake = np.repeat([False, True], 50)
    result = separation(fake.astype(float), fake, np.tile(np.arange(50), 2))
    assert result == pytest.approx((1, 0.025 ** (1 / 50), 1))
    assert separation(-fake.astype(float), fake, np.tile(np.arange(50), 2)).directed == pytest.approx(result)
    assert str(Separation(0.75, 0.7, 0.8)) == "AUROC 0.750 [0.700, 0.800]"


def test_one_class_alone_cannot_be_separated() -> None:
    with pytest.raises(ValueError, match="both real images and fakes"):
        separation(np.zeros(3), np.zeros(3, dtype=bool), np.arange(3))
