from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from data.conditions import (
    CLEAN,
    Condition,
    Picture,
    get_condition,
    list_conditions,
    register_condition,
    register_conditions,
)
from tests.corpora import picture


def examples() -> list[str]:
    """Every condition; of a family its first and its last."""
    names = []
    for name in list_conditions():
        family, dots, last = name.partition("…")
        names += [family, f"{family.rpartition('-')[0]}-{last}"] if dots else [family]
    return names


def a_picture(name: str = "a", size: int = 40) -> Picture:
    mask = np.zeros((size, size), dtype=bool)
    mask[10:30, 5:20] = True
    return Picture(
        picture(name, size), digest=f"{name} digest", read_mask=lambda: mask, read_original=lambda: picture("b", size)
    )


# Every condition


@pytest.mark.parametrize("name", examples())
def test_a_picture_comes_out_as_a_picture(name: str) -> None:
    given = a_picture()
    before = given.pixels.copy()
    pixels = get_condition(name).apply(given)
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3
    np.testing.assert_array_equal(given.pixels, before)


@pytest.mark.parametrize("name", examples())
def test_it_depends_on_the_picture_alone(name: str) -> None:
    condition = get_condition(name)
    first = condition.apply(a_picture())
    np.random.seed(3)
    condition.apply(a_picture("another"))
    np.testing.assert_array_equal(condition.apply(a_picture()), first)


@pytest.mark.parametrize("name", examples())
def test_it_uses_only_what_it_says(name: str) -> None:
    def refuse() -> np.ndarray:
        raise AssertionError("read without being named in `uses`")

    condition, given = get_condition(name), a_picture()
    condition.apply(
        Picture(
            given.pixels,
            given.digest,
            given.read_mask if "mask" in condition.uses else refuse,
            given.read_original if "original" in condition.uses else refuse,
        )
    )


@pytest.mark.parametrize("name", examples())
def test_pictures_without_mask_and_original_are_accepted(name: str) -> None:
    assert get_condition(name).apply(Picture(picture("a", 40), "digest")).dtype == np.uint8


@pytest.mark.parametrize("name", examples())
def test_it_says_what_it_does(name: str) -> None:
    condition = get_condition(name)
    assert condition.name == name
    assert condition.summary
    assert condition.uses <= {"mask", "original"}


# The register


def test_clean_is_what_the_file_holds() -> None:
    given = a_picture()
    np.testing.assert_array_equal(get_condition(CLEAN).apply(given), given.pixels)


@pytest.mark.parametrize("name", ["jpeg", "jpeg-75-2", "jpeg-075", "jpeg-٧٥", "no-such-3", "clean-1", ""])
def test_one_that_is_not_there(name: str) -> None:
    with pytest.raises(KeyError, match=r"no condition named '.*'.*; there are: .*clean.*jpeg-1…100"):
        get_condition(name)


@pytest.mark.parametrize("name", ["jpeg-0", "jpeg-101"])
def test_a_level_that_a_family_lacks(name: str) -> None:
    with pytest.raises(KeyError, match=f"no condition named '{name}': jpeg has levels 1 to 100"):
        get_condition(name)


def test_a_picture_draws_one_stream_of_numbers_the_same_each_time() -> None:
    first, again, other = (Picture(picture("a", 40), digest=digest) for digest in ("one", "one", "two"))
    numbers = [first.rng.integers(1000) for _ in range(4)]
    assert len(set(numbers)) > 1
    assert [again.rng.integers(1000) for _ in range(4)] == numbers
    assert [other.rng.integers(1000) for _ in range(4)] != numbers


@pytest.fixture
def empty_register(monkeypatch: pytest.MonkeyPatch) -> None:
    import data.conditions

    entries = dict(data.conditions._conditions._entries)
    monkeypatch.setattr(data.conditions._conditions, "_entries", entries)


def test_one_more_is_a_function_of_a_picture(empty_register: None) -> None:
    @register_condition("mirror")
    def mirror(picture: Picture) -> np.ndarray:
        """Left and right exchanged.

        More of it.
        """
        return picture.pixels[:, ::-1]

    condition = get_condition("mirror")
    assert (condition.name, condition.summary) == ("mirror", "Left and right exchanged.")
    assert "mirror" in list_conditions()


def test_a_condition_may_not_have_the_name_of_a_level(empty_register: None) -> None:
    @register_condition("jpeg-75")
    def black(picture: Picture) -> np.ndarray:
        """Black."""
        return picture.pixels * 0

    with pytest.raises(ValueError, match="two conditions are named 'jpeg-75'"):
        get_condition("jpeg-75")


@pytest.mark.parametrize("uses", [["masks"], "mask", ["mask", "rng"]])
def test_what_a_condition_uses_is_a_mask_or_an_original(empty_register: None, uses: list[str]) -> None:
    with pytest.raises(ValueError, match="`uses` is a collection of 'mask' and 'original'"):
        register_condition("mirror", uses=uses)(lambda picture: picture.pixels)


def test_one_more_family(empty_register: None) -> None:
    @register_conditions("darker", levels=range(1, 4), uses=["mask"])
    def darker(picture: Picture, level: int) -> np.ndarray:
        """Darker."""
        return picture.pixels // (level + 1)

    assert get_condition("darker-3").apply(Picture(np.full((2, 2, 3), 200, np.uint8))).max() == 50
    assert get_condition("darker-3").uses == {"mask"}
    assert "darker-1…3" in list_conditions()


@pytest.mark.parametrize("name", ["Mirror", "mir ror", "a/b", "-a", "a--b", ""])
def test_names_that_could_not_be_typed_or_be_folders(name: str) -> None:
    with pytest.raises(ValueError, match="lower-case letters, digits and dashes"):
        register_condition(name)(lambda picture: picture.pixels)


def test_a_pictures_random_numbers_follow_from_its_file() -> None:
    first, again, other = (Picture(picture("a"), digest).rng.random(3) for digest in ("x", "x", "y"))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


# JPEG


def test_jpeg_is_pillows_with_its_quality() -> None:
    given = a_picture()
    buffer = io.BytesIO()
    Image.fromarray(given.pixels).save(buffer, "JPEG", quality=75, subsampling="4:2:0")
    np.testing.assert_array_equal(get_condition("jpeg-75").apply(given), np.array(Image.open(buffer)))


def test_a_lower_quality_changes_more() -> None:
    given = a_picture()

    def change(condition: Condition) -> float:
        return float(np.abs(condition.apply(given).astype(float) - given.pixels).mean())

    changes = [change(get_condition(f"jpeg-{quality}")) for quality in (95, 75, 40, 10)]
    assert changes == sorted(changes)
    assert 0 < changes[0] < 5
