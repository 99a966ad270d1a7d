"""Masks that are white where the image is fake, of levels 0 and 1, of another size; stated originals."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import data.manifest
from data.audits import Evidence, run_audits
from data.images import fits, read_mask
from data.manifest import DataProblems, Manifest, build_manifest
from data.masks import ManifestMasks
from data.measure import measure
from data.pictures import Pictures, pair_problems
from data.sources import Source, get_source
from data.sources.base import Entry, Scan
from tests.corpora import picture, write_csv, write_dolos, write_image
from tests.data.test_lists import FULL, write_files

Build = Callable[..., Manifest]
COUNTS = {"train": 2, "valid": 2, "test": 3}
SIZE = 16


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The layout of Dolos; the middle quarter of each fake is edited."""
    return write_dolos(tmp_path / "x", ["lama"], COUNTS, SIZE)


@pytest.fixture
def build(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Build:
    """The data set of `root`, as a corpus that changes what the scan of Dolos says of each image."""

    def make(change: Callable[[Entry], Entry], **options: object) -> Manifest:
        def scan(folder: Path, *, seed: int = 0) -> Scan:
            found = get_source("dolos").scan(folder, seed=seed)
            found.entries = [change(entry) for entry in found.entries]
            return found

        monkeypatch.setattr(data.manifest, "get_source", lambda name: Source(name, scan))
        return build_manifest("another", root, cache=cache, **options)  # type: ignore[arg-type]

    return make


def white_is_fake(entry: Entry) -> Entry:
    return Entry(entry.path, entry.label, entry.generator, entry.source_id, entry.split, entry.mask, "fake")


def as_it_is(entry: Entry) -> Entry:
    return entry


def masks_of(root: Path) -> list[Path]:
    return sorted(root.glob("celebahq/fake/*/masks/*/*.png"))


def save_masks(root: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    for path in masks_of(root):
        Image.fromarray(change(np.array(Image.open(path)))).save(path)


def marked(manifest: Manifest) -> list[np.ndarray]:
    rows = manifest.table[manifest.table["label"] == 1]
    return [mask for mask in ManifestMasks(manifest, rows)[np.arange(len(rows))] if mask is not None]


def said(manifest: Manifest, cache: Path) -> list[tuple[str, str]]:
    evidence = Evidence(manifest, measure(manifest, cache=cache))
    return [(finding.text, finding.remedy) for finding in run_audits(evidence, ["masks"])]


MIDDLE = np.zeros((SIZE, SIZE), dtype=bool)
MIDDLE[4:12, 4:12] = True


def test_white_that_means_fake_is_read_as_such(root: Path, build: Build, cache: Path) -> None:
    save_masks(root, lambda mask: 255 - mask)
    manifest = build(white_is_fake)
    assert len(marked(manifest)) == 7
    assert all((mask == MIDDLE).all() for mask in marked(manifest))
    assert measure(manifest, cache=cache)["mask_share"].dropna().tolist() == [0.25] * 7
    assert said(manifest, cache) == [("lama: all 7 masks are the same, and nothing else changed", "")]
    assert "white means fake in 7 masks" in manifest.notes


def test_the_digest_has_it_only_where_it_is_not_that_of_dolos(root: Path, build: Build, cache: Path) -> None:
    before = build_manifest("dolos", root, cache=cache)
    assert build(as_it_is).digest == before.digest
    assert "mask_white" not in before.table.columns
    assert build(white_is_fake).digest != before.digest
    manifest = build(white_is_fake)
    manifest.save(cache / "saved")
    loaded = Manifest.load(cache / "saved")
    assert loaded.table["mask_white"].dropna().tolist() == ["fake"] * 7
    vars(loaded).pop("digest")
    assert loaded.digest == manifest.digest


def test_what_was_measured_under_the_other_meaning_is_not_taken(root: Path, build: Build, cache: Path) -> None:
    assert measure(build(as_it_is), cache=cache)["mask_share"].dropna().unique().tolist() == [0.25]
    assert measure(build(white_is_fake), cache=cache)["mask_share"].dropna().unique().tolist() == [0.75]
    assert measure(build(as_it_is), cache=cache)["mask_share"].dropna().unique().tolist() == [0.25]


def test_features_under_a_condition_that_reads_masks_have_another_key(build: Build) -> None:
    keys = []
    for change in (as_it_is, white_is_fake):
        manifest = build(change)
        keys.append(Pictures(manifest, "paste-back").keys(manifest.select("test", ["lama"])))
    assert sum(one != other for one, other in zip(*keys, strict=True)) == 3  # the fakes; real images have no mask


def test_paste_back_keeps_the_region_that_the_mask_marks(root: Path, build: Build) -> None:
    save_masks(root, lambda mask: 255 - mask)
    for path in root.glob("celebahq/fake/lama/images/*/*.png"):  # the whole image changes
        Image.fromarray(np.array(Image.open(path)) // 2).save(path)
    manifest = build(white_is_fake)
    rows = manifest.table[manifest.table["label"] == 1].iloc[:1]
    pictures = Pictures(manifest, "paste-back")
    pasted = pictures.read(pictures.files(rows)[0])
    fake, real = (np.array(Image.open(root / path)) for path in (rows["path"].iloc[0], _real_of(manifest, rows)))
    np.testing.assert_array_equal(pasted[MIDDLE], fake[MIDDLE])
    np.testing.assert_array_equal(pasted[~MIDDLE], real[~MIDDLE])


def _real_of(manifest: Manifest, rows: pd.DataFrame) -> str:
    table, source = manifest.table, rows["source_id"].iloc[0]
    return str(table.loc[(table["label"] == 0) & (table["source_id"] == source), "path"].iloc[0])


@pytest.mark.parametrize(
    ("change", "white", "expected"),
    [
        (white_is_fake, False, "say that white means kept (in a list: mask_white), or invert them: white is fake"),
        (as_it_is, True, "invert them: white is unchanged, black is fake"),
    ],
)
def test_masks_of_the_other_meaning_are_found_beside_the_originals(
    root: Path, build: Build, cache: Path, change: Callable[[Entry], Entry], white: bool, expected: str
) -> None:
    if white:
        save_masks(root, lambda mask: 255 - mask)
    for path in root.glob("celebahq/fake/lama/images/*/*.png"):  # the whole image changes a little
        pixels = np.array(Image.open(path)).astype(int)
        outside = pixels + np.where(pixels < 250, 1, -1)
        Image.fromarray(np.where(MIDDLE[:, :, None], 255 - pixels, outside).astype(np.uint8)).save(path)
    found = dict(said(build(change), cache))
    (text,) = [text for text in found if "7 of 7 masks are inverted" in text]
    assert found[text] == expected


def test_in_a_list_masks_of_the_other_meaning_can_be_said_to_be_so(tmp_path: Path, cache: Path) -> None:
    root = write_files(tmp_path / "list", FULL)
    write_csv(root / "list.csv", [{**row, "mask_white": row["mask_white"] and "kept"} for row in FULL])
    found = dict(said(build_manifest("manifest", root, cache=cache), cache))
    (text,) = [text for text in found if "6 of 6 masks are inverted" in text]
    assert found[text].startswith("say that white means fake (in a list: mask_white), or invert them: white is unch")


def test_levels_0_and_1_are_read_where_white_means_fake_and_said(root: Path, build: Build, cache: Path) -> None:
    save_masks(root, lambda mask: (mask == 0).astype(np.uint8))
    manifest = build(white_is_fake)
    assert all((mask == MIDDLE).all() for mask in marked(manifest))
    assert ("lama: 7 of 7 masks have the levels 0 and 1", "1 counts as white") in said(manifest, cache)
    shutil.rmtree(cache)
    texts = [text for text, _ in said(build(as_it_is), cache)]
    assert any("saved with the levels 0 and 1 (so every pixel counts as fake)" in text for text in texts)


def test_grey_masks_are_cut_in_the_middle_where_white_means_fake(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", np.array([[0, 1, 127, 128, 254, 255]], dtype=np.uint8))
    assert read_mask(tmp_path / "a.png", white="fake").tolist() == [[False, False, False, True, True, True]]
    write_image(tmp_path / "b.png", np.array([[0, 1, 1]], dtype=np.uint8))
    assert read_mask(tmp_path / "b.png", white="fake").tolist() == [[False, True, True]]
    write_image(tmp_path / "c.png", np.zeros((1, 3), dtype=np.uint8))
    assert not read_mask(tmp_path / "c.png", white="fake").any()


# Another size --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mask", "image", "expected"),
    [
        ((8, 8), (16, 16), True), ((32, 32), (16, 16), True), ((512, 341), (768, 512), True),
        ((8, 8), (16, 12), False), ((640, 480), (480, 640), False), ((256, 256), (256, 258), False),
        ((512, 383), (2048, 1536), True), ((2048, 1536), (512, 383), True), ((512, 381), (2048, 1536), False),
    ],
)  # fmt: skip
def test_which_masks_have_the_shape_of_their_image(
    mask: tuple[int, int], image: tuple[int, int], expected: bool
) -> None:
    assert fits(mask, image) == expected


@pytest.mark.parametrize("side", [8, 32])
def test_a_mask_of_the_same_shape_is_resized_by_the_nearest_pixel(
    root: Path, build: Build, cache: Path, side: int
) -> None:
    for path in masks_of(root):
        Image.open(path).resize((side, side), Image.Resampling.NEAREST).save(path)
    manifest = build(as_it_is)
    assert manifest.skipped == ()
    assert "7 masks have the shape of their image and another size; they are resized, nearest pixel" in manifest.notes
    assert all((mask == MIDDLE).all() for mask in marked(manifest))
    assert measure(manifest, cache=cache)["mask_share"].dropna().tolist() == [0.25] * 7
    assert pair_problems(manifest, manifest.table, "paste-back") == ""
    measured = build(as_it_is, measured_per_group=10)  # on the way, with the pixels
    assert measured.digest == manifest.digest


def test_a_mask_of_another_shape_is_a_problem(root: Path, build: Build) -> None:
    write_image(masks_of(root)[0], np.zeros((8, 16), dtype=np.uint8))
    with pytest.raises(DataProblems, match="mask and image differ in size"):
        build(as_it_is)


# Originals that the corpus states ------------------------------------------------------------------------------------


def with_own_originals(entry: Entry) -> Entry:
    """The original beside the fake, under another source id than any real image's."""
    original = None
    if entry.label:
        original = Path(str(entry.path).replace("celebahq/fake/lama/images", "originals"))
    source = f"own-{entry.source_id}" if entry.label else entry.source_id
    return Entry(entry.path, entry.label, entry.generator, source, entry.split, entry.mask, "kept", original)


@pytest.fixture
def originals(root: Path) -> Path:
    """Other photographs than the corpus' real ones, which differ from each fake in its middle."""
    for path in root.glob("celebahq/fake/lama/images/*/*.png"):
        pixels = np.array(Image.open(path))
        pixels[MIDDLE] = picture(f"original {path.stem}", SIZE)[MIDDLE]
        write_image(root / "originals" / path.parent.name / path.name, pixels)
    return root


@pytest.mark.usefixtures("originals")
def test_pairs_paste_back_and_audits_use_the_stated_original(root: Path, build: Build, cache: Path) -> None:
    manifest = build(with_own_originals)
    fakes = manifest.table[manifest.table["label"] == 1]
    assert fakes["original"].str.startswith("originals/").all()
    assert pair_problems(manifest, manifest.table, "paste-back") == ""
    pictures = Pictures(manifest, "paste-back")
    files = pictures.files(fakes.iloc[:1])[0]
    assert files.original is not None
    assert files.original.path == root / str(fakes["original"].iloc[0])
    measured = measure(manifest, cache=cache).loc[fakes.index]
    assert measured["paired"].all()
    assert (measured["changed_outside"] == 0).all()
    assert (measured["changed_inside"] > 0).all()
    without = build(_without)
    assert without.digest != manifest.digest
    assert not measure(without, cache=cache).loc[without.table["label"] == 1, "paired"].any()


def _without(entry: Entry) -> Entry:
    changed = with_own_originals(entry)
    return Entry(changed.path, changed.label, changed.generator, changed.source_id, changed.split, changed.mask)


@pytest.mark.usefixtures("originals")
def test_an_original_that_is_gone_is_a_problem_and_one_of_another_size_a_note(root: Path, build: Build) -> None:
    (root / "originals/test/00004.png").unlink()
    with pytest.raises(DataProblems, match="cannot be opened") as caught:
        build(with_own_originals)
    assert [problem.path for problem in caught.value.problems] == ["originals/test/00004.png"]
    write_image(root / "originals/test/00004.png", picture("small", 8))
    manifest = build(with_own_originals)
    assert "1 originals have another size than their fake and are not used as its original" in manifest.notes
    assert manifest.table["original"].notna().sum() == 6
