"""Numbers on pixels: what they are, that each photograph is decoded once, and that nothing is decoded twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import data.measure
import data.probes
from data.images import read, read_mask
from data.manifest import Manifest, build_manifest
from data.measure import measure
from data.photographs import SAMPLE
from data.pictures import FileError
from data.traces import NO_JPEG
from tests.corpora import picture, write_dolos, write_folders, write_image
from tests.data.plants import as_jpeg

SIZE = 64


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_dolos(tmp_path / "dolos", size=SIZE)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were decoded."""
    names: list[str] = []

    def counting(path: Path) -> object:
        names.append(path.name)
        return read(path)

    monkeypatch.setattr(data.measure, "read", counting)
    monkeypatch.setattr(data.probes, "read", counting)
    return names


def built(root: Path, cache: Path, source: str = "dolos", measured: int = 1000) -> Manifest:
    return build_manifest(source, root, cache=cache, measured_per_group=measured)


def row_of(manifest: Manifest, measured: object, path: str) -> dict[str, object]:
    (index,) = manifest.table.index[manifest.table["path"] == path]
    return measured.loc[index].to_dict()  # type: ignore[attr-defined]


def test_the_first_reading_measures_and_nothing_is_decoded_again(root: Path, cache: Path, opened: list[str]) -> None:
    manifest = built(root, cache)
    assert sorted(opened) == sorted(path.name for path in root.rglob("*.png"))
    opened.clear()
    first = measure(manifest, cache=cache)
    assert measure(built(root, cache), cache=cache).equals(first)
    assert opened == []
    assert first.index.equals(manifest.table.index)


def test_without_it_every_photograph_is_decoded_once(
    root: Path, cache: Path, tmp_path: Path, opened: list[str]
) -> None:
    manifest = built(root, cache, measured=0)
    opened.clear()
    calls: list[tuple[int, int]] = []
    apart = measure(manifest, cache=cache, progress=lambda done, total: calls.append((done, total)))
    assert len(opened) == len(list(root.rglob("*.png"))) == calls[-1][0] == calls[-1][1]
    assert apart.equals(measure(built(root, tmp_path / "other"), cache=tmp_path / "other"))


def test_what_was_measured_before_an_interruption_is_kept(root: Path, cache: Path, opened: list[str]) -> None:
    manifest = built(root, cache, measured=0)

    def interrupt(done: int, total: int) -> None:
        if done >= 10:
            raise KeyboardInterrupt

    opened.clear()
    with pytest.raises(KeyboardInterrupt):
        measure(manifest, cache=cache, progress=interrupt)
    opened.clear()
    measure(manifest, cache=cache)
    assert 0 < len(opened) <= len(list(root.rglob("*.png"))) - 10


def test_a_file_that_changed_or_is_gone_is_named(root: Path, cache: Path) -> None:
    manifest = built(root, cache, measured=0)
    path = root / "celebahq/fake/lama/images/train/00001.png"
    write_image(path, picture("another", SIZE))
    with pytest.raises(FileError, match=r"00001\.png has changed since the manifest was built; repeat the command"):
        measure(manifest, cache=cache)
    path.unlink()
    with pytest.raises(FileError, match=r"00001\.png cannot be read any more"):
        measure(manifest, cache=cache)


def test_a_new_fake_is_measured_beside_its_original(root: Path, cache: Path, opened: list[str]) -> None:
    built(root, cache)
    write_image(root / "celebahq/fake/lama/images/train/00001.png", picture("another", SIZE))
    manifest = built(root, cache)
    opened.clear()
    row = row_of(manifest, measure(manifest, cache=cache), "celebahq/fake/lama/images/train/00001.png")
    assert sorted(set(opened)) == ["00001.png"]
    assert row["changed_outside"] > 0.9  # type: ignore[operator]


def test_change_inside_and_outside_of_the_mask(root: Path, cache: Path) -> None:
    where = "celebahq/fake/lama/images/train/00001.png"
    real = np.array(Image.open(root / "celebahq/real/train/00001.png"))
    mask = read_mask(root / where.replace("images", "masks"))
    fake = np.array(Image.open(root / where))
    fake[:4, :, 1] = np.where(real[:4, :, 1] > 100, real[:4, :, 1] - 10, real[:4, :, 1] + 10)
    write_image(root / where, fake)
    manifest = built(root, cache)
    row = row_of(manifest, measure(manifest, cache=cache), where)
    difference = np.abs(fake.astype(int) - real).max(axis=2)
    assert row["mask_share"] == mask.mean() == 0.25
    assert (row["mask_levels"], row["mask_highest"]) == (2, 255)
    assert row["changed_outside"] == pytest.approx(4 * SIZE / (~mask).sum())
    assert row["amount_outside"] == pytest.approx(10 * 4 * SIZE / (~mask).sum())
    assert row["changed_inside"] == pytest.approx((difference[mask] > 0).mean())
    assert row["amount_inside"] == pytest.approx(difference[mask].mean())
    assert len(row["sample"]) == len(row["sample_mask"]) == 3 * SAMPLE  # type: ignore[arg-type]
    assert row["quality"] == row["quality_original"] == NO_JPEG
    untouched = row_of(manifest, measure(manifest, cache=cache), "celebahq/fake/ldm/images/train/00001.png")
    assert untouched["changed_outside"] == untouched["amount_outside"] == 0
    assert np.isnan(untouched["blockiness"])  # type: ignore[call-overload]


def test_an_original_of_another_size_is_none(root: Path, cache: Path) -> None:
    write_image(root / "celebahq/real/train/00001.png", picture("larger", SIZE + 8))
    manifest = built(root, cache)
    measured = measure(manifest, cache=cache)
    fakes = manifest.table["label"] == 1
    assert set(manifest.table.loc[fakes & ~measured["paired"], "source_id"]) == {"00001"}


def test_pixel_statistics_are_limited_and_hashes_are_not(root: Path, cache: Path) -> None:
    manifest = built(root, cache)
    measured = measure(manifest, cache=cache, per_group=1)
    counts = measured["measured"].groupby([manifest.table[name] for name in ("generator", "split")]).sum()
    assert set(counts) == {1}
    assert manifest.table.loc[measured["measured"]].groupby("split")["source_id"].nunique().eq(1).all()
    assert measured["hash"].str.len().eq(64).all()
    assert measured.loc[~measured["measured"], "changed_inside"].isna().all()
    other = cache.with_name("other")
    assert measured.equals(measure(built(root, other, measured=1), cache=other, per_group=1))


def test_traces_over_whole_images_without_originals(tmp_path: Path, cache: Path) -> None:
    folders = {f"gan/{split}/{name}": 2 for split in ("train", "val", "test") for name in ("0_real", "1_fake")}
    root = write_folders(tmp_path / "x", folders, size=SIZE, restart=False)
    noisy = np.random.default_rng(0).normal(0, 6, (SIZE, SIZE, 3))
    for path in root.glob("gan/*/0_real/*.png"):
        pixels = np.clip(np.array(Image.open(path)) + noisy, 0, 255).astype(np.uint8)
        as_jpeg(80)(Image.fromarray(pixels)).save(path)
    manifest = built(root, cache, "folders")
    measured = measure(manifest, cache=cache)
    assert measured["traced"].all()
    assert not measured["paired"].any()
    by_label = measured.groupby(manifest.table["label"])
    assert by_label["quality"].median().tolist() == [80, NO_JPEG]
    assert by_label["blockiness"].median()[0] > 1.1


def test_numbers_that_cannot_be_read_are_measured_again(
    root: Path, cache: Path, caplog: pytest.LogCaptureFixture, opened: list[str]
) -> None:
    manifest = built(root, cache)
    (file,) = (cache / "measured").glob("*.parquet")
    file.write_bytes(b"nothing")
    opened.clear()
    measure(manifest, cache=cache)
    assert "every file is measured again" in caplog.text
    assert len(opened) == len(list(root.rglob("*.png")))


def test_numbers_that_pandas_wrote_are_read(root: Path, cache: Path, opened: list[str]) -> None:
    manifest = built(root, cache)
    before = measure(manifest, cache=cache)
    (file,) = (cache / "measured").glob("*.parquet")
    pd.read_parquet(file).to_parquet(file, index=False)
    opened.clear()
    pd.testing.assert_frame_equal(measure(manifest, cache=cache), before)
    assert opened == []
