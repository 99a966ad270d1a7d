from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.conditions import Picture, get_condition
from data.manifest import Manifest, build_manifest
from data.pictures import File, PictureRows
from data.regions import any_region, blob, rectangle, strokes
from data.self_edited import RECIPES, SelfEdited, SelfEditedMasks, Version, edited
from tests.corpora import write_dolos

SHAPES = st.tuples(st.integers(16, 90), st.integers(16, 90))
MOST = {"train": 100, "valid": 100}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    folder = tmp_path_factory.mktemp("self-edited")
    return build_manifest("dolos", write_dolos(folder / "dolos", size=96), cache=folder / "cache")


def reals(manifest: Manifest, split: str = "train") -> pd.DataFrame:
    return manifest.select(split, ())


def make(
    manifest: Manifest, recipe: str = "blobs", *, seed: int = 0, versions: int = 3, **changes: object
) -> SelfEdited:
    return SelfEdited(manifest, recipe, **{"seed": seed, "versions": versions, "most": MOST, **changes})  # type: ignore[arg-type]


def test_pickled_they_read_the_same(manifest: Manifest) -> None:
    pictures = make(manifest, "regions", seed=3, condition="jpeg-60")
    copy = pickle.loads(pickle.dumps(pictures))
    assert copy.condition.name == pictures.condition.name
    for version in pictures.versions(reals(manifest))[:6]:
        np.testing.assert_array_equal(copy.read(pickle.loads(pickle.dumps(version))), pictures.read(version))


# Regions


@given(SHAPES, st.integers(0, 10_000))
@settings(max_examples=60)
def test_a_region_has_the_shape_of_the_picture_and_is_not_empty(shape: tuple[int, int], seed: int) -> None:
    mask = any_region(np.random.default_rng(seed), shape)
    assert mask.shape == shape
    assert mask.dtype == bool
    assert mask.any()


@given(st.integers(0, 10_000))
@settings(max_examples=30)
def test_areas_are_as_they_are_asked_for(seed: int) -> None:
    rng = np.random.default_rng(seed)
    assert 0 < blob(rng, (256, 256), (0.03, 0.4)).mean() <= 0.41
    assert 0.03 < rectangle(rng, (256, 256), (0.2, 0.8)).mean() < 0.65
    assert strokes(rng, (256, 256), (0.03, 0.6)).mean() <= 0.6


# Edits


@given(SHAPES, st.integers(0, 10_000), st.sampled_from(sorted(RECIPES)))
@settings(max_examples=60)
def test_nothing_changes_outside_of_the_region(shape: tuple[int, int], seed: int, recipe: str) -> None:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    mask = any_region(rng, shape)
    changed = edited(pixels, mask, rng, RECIPES[recipe])
    assert changed.dtype == np.uint8
    np.testing.assert_array_equal(changed[~mask], pixels[~mask])


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_a_version_follows_from_digest_seed_and_number(manifest: Manifest, recipe: str) -> None:
    rows = reals(manifest)
    first, again, other = make(manifest, recipe), make(manifest, recipe), make(manifest, recipe, seed=1)
    versions = [version for version in first.versions(rows) if version.edited]
    for version in versions:
        np.testing.assert_array_equal(first.read(version), again.read(version))
        np.testing.assert_array_equal(first.mask(version), again.mask(version))
    assert any(
        (first.mask(one).shape, first.mask(one).sum()) != (other.mask(one).shape, other.mask(one).sum())
        for one in versions
    )
    # neither does it depend on the other photographs, nor on how many versions there are
    alone = make(manifest, recipe, versions=2).versions(rows.tail(1))
    assert {version.key for version in alone} <= {version.key for version in first.versions(rows)}
    np.testing.assert_array_equal(make(manifest, recipe, versions=2).read(alone[-1]), first.read(alone[-1]))


@pytest.mark.parametrize(
    ("recipe", "number", "shape", "edited_pixels", "deviation"),
    [
        ("blobs", 1, (96, 96, 3), 507, 75.105),
        ("regions", 0, (82, 82, 3), 496, 42.209),
        ("regions", 1, (96, 96, 3), 3042, 57.919),
    ],
)
def test_a_version_is_the_same_as_ever(
    manifest: Manifest, recipe: str, number: int, shape: tuple[int, ...], edited_pixels: int, deviation: float
) -> None:
    """Increase `_VERSION` of `data.self_edited` together with these numbers."""
    pixels = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    image = File(manifest.root / "golden.png", "0" * 64)
    pictures, version = make(manifest, recipe), Version(image, None, None, number, True, (96, 96))
    changed = pictures.edit(pixels, version)
    assert changed.shape == shape
    assert pictures.mask(version).sum() == edited_pixels
    assert float(changed.astype(float).std()) == pytest.approx(deviation, rel=1e-3)


def test_real_and_edited_versions_take_turns(manifest: Manifest) -> None:
    rows = reals(manifest)
    for recipe in RECIPES:
        pictures = make(manifest, recipe)
        labels = pictures.labels(rows)
        assert labels.tolist() == [0, 1] * 3 * len(rows)
        masks = SelfEditedMasks([pictures], rows)
        sizes = PictureRows(pictures, rows, None, workers=1)
        for number, label in enumerate(labels):
            mask = masks[np.array([number])][0]
            assert mask is not None
            assert mask.any() == bool(label)
            assert mask.shape == sizes[np.array([number])][0].shape[:2]


def test_a_real_version_is_the_photograph_where_nothing_is_processed(manifest: Manifest) -> None:
    rows = reals(manifest)
    pictures = make(manifest)
    real = [version for version in pictures.versions(rows) if not version.edited]
    np.testing.assert_array_equal(pictures.read(real[0]), real[0].image.pixels())
    assert len({version.key for version in real}) == len(rows)  # so its features are computed once
    processed = make(manifest, "regions")
    real = [version for version in processed.versions(rows) if not version.edited]
    assert len({version.key for version in real}) == 3 * len(rows)


def test_of_many_photographs_some_take_part_by_their_digests(manifest: Manifest) -> None:
    rows = reals(manifest)  # 4 photographs
    assert len(make(manifest, versions=3, most={"train": 8}).versions(rows)) == 2 * 8
    chosen = make(manifest, versions=3, most={"train": 2}).versions(rows)
    assert {version.image.digest for version in chosen} == set(sorted(rows["digest"])[:2])
    assert make(manifest, most={"train": 0}).versions(rows) == []


def test_photographs_with_one_version_take_turns_in_the_passes(manifest: Manifest) -> None:
    rows = reals(manifest)  # 4 photographs
    versions = make(manifest, "regions", versions=6, most={"train": 4}).versions(rows)
    assert [version.number for version in versions] == [0, 0, 1, 1, 0, 0, 1, 1]
    versions = make(manifest, "regions", versions=2, most={"train": 8}).versions(rows)
    assert [version.number for version in versions] == [0, 0, 1, 1] * 4


def test_another_operation_gives_the_features_another_store(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = make(manifest).condition.name
    monkeypatch.setattr("data.self_edited.list_edits", lambda: ["blur", "posterise"])
    assert make(manifest).condition.name != before


def test_of_large_photographs_fewer_take_part_but_enough_for_a_threshold(manifest: Manifest) -> None:
    rows = reals(manifest)
    many = 3200 // len(rows)
    large = rows.assign(width=1024, height=512)  # 8 times 256 x 256
    edits = make(manifest, versions=many, most={"train": many * len(rows)})
    assert len(edits.versions(rows)) == 2 * many * len(rows)
    assert len(edits.versions(large)) == 2 * (many * len(rows) // 8 // len(rows)) * len(rows)
    huge = edits.versions(rows.assign(width=6000, height=4000))
    assert len(huge) == 2 * (200 // len(rows)) * len(rows)
    assert {version.shape for version in huge} == {(1024, 1024)}
    assert len(make(manifest, versions=4, most={"train": 16}).versions(large)) == 2 * 16


def test_a_part_of_a_long_photograph_is_edited(manifest: Manifest) -> None:
    edits = make(manifest, versions=2)
    versions = edits.versions(reals(manifest).head(1).assign(width=1500, height=40))
    pixels = np.random.default_rng(0).integers(0, 256, (40, 1500, 3), dtype=np.uint8)
    parts = [edits.edit(pixels, version) for version in versions]
    assert {part.shape for part in parts} == {(40, 1024, 3)}
    windows = np.lib.stride_tricks.sliding_window_view(pixels, 1024, axis=1)
    for version, part in zip(versions, parts, strict=True):
        outside = ~edits.mask(version)
        equal = [(windows[:, place].transpose(0, 2, 1)[outside] == part[outside]).all() for place in range(477)]
        assert sum(equal) == 1  # it is the photograph's own part, at one place
        assert (edits.edit(pixels, version) == part).all()


def test_neither_fakes_nor_test_photographs_are_edited(manifest: Manifest) -> None:
    with pytest.raises(ValueError, match="only real photographs are edited"):
        make(manifest).versions(manifest.select("train", ["lama"]))
    with pytest.raises(ValueError, match="photographs of the split test are never edited"):
        make(manifest).versions(reals(manifest, "test"))


@pytest.mark.parametrize("condition", ["jpeg-60", "resize-50", "crop-90", "noise-4"])
def test_a_condition_comes_after_the_edit_and_moves_the_mask_with_it(manifest: Manifest, condition: str) -> None:
    rows = reals(manifest)
    plain, under = make(manifest), make(manifest, condition=condition)
    assert plain.condition.name != under.condition.name
    for version in plain.versions(rows)[:4]:
        expected = get_condition(condition).apply(Picture(plain.read(version), version.key))
        np.testing.assert_array_equal(under.read(version), expected)
        mask = under.mask(version)
        assert mask.shape == expected.shape[:2]
        assert mask.any() == version.edited
