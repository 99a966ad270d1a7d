"""Masks of a manifest's rows: what they are for real pictures, for fakes, and for fakes without one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.manifest import Manifest, build_manifest
from data.masks import ManifestMasks
from data.pictures import FileError
from tests.corpora import write_dolos


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    root = write_dolos(tmp_path / "dolos", ("lama",), size=16)
    first = sorted((root / "celebahq/fake/lama/masks/train").iterdir())[0]
    first.unlink()
    return build_manifest("dolos", root, cache=tmp_path / "cache")


def test_masks_by_kind_of_picture(manifest: Manifest) -> None:
    rows = manifest.select("train", ("lama",))
    masks = ManifestMasks(manifest, rows)
    middle = np.zeros((16, 16), dtype=bool)
    middle[4:12, 4:12] = True
    assert len(masks) == 8
    missing = 0
    for row, mask in zip(rows.to_dict("records"), masks[np.arange(8)], strict=True):
        if row["label"] == 0:
            assert mask is not None
            assert mask.shape == (16, 16)
            assert not mask.any()
        elif mask is None:
            missing += 1
        else:
            np.testing.assert_array_equal(mask, middle)
    assert missing == 1


def test_copies_follow_one_another_and_an_index_is_answered_in_its_order(manifest: Manifest) -> None:
    rows = manifest.select("valid", ("lama",))
    once, thrice = ManifestMasks(manifest, rows), ManifestMasks(manifest, rows, copies=3)
    assert len(thrice) == 3 * len(once)
    order = np.array([2, 0, 3])
    for offset in (0, len(once), 2 * len(once)):
        for one, other in zip(once[order], thrice[order + offset], strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_mask_that_has_changed_is_refused(manifest: Manifest) -> None:
    rows = manifest.select("test", ("lama",))
    fakes = rows[rows["label"] == 1]
    path = manifest.root / str(fakes["mask"].iloc[0])
    Image.new("L", (16, 16), 255).save(path)
    with pytest.raises(FileError, match=f"{path.name} has changed"):
        ManifestMasks(manifest, fakes)[np.array([0])]
