from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from data.conditions import (
    CLEAN,
    SETS,
    Condition,
    Picture,
    expand,
    get_condition,
    joined,
    list_conditions,
    members,
    register_condition,
    register_conditions,
    size_under,
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


# The other conditions


def changes(name: str, given: Picture) -> float:
    return float(np.abs(get_condition(name).apply(given).astype(float) - given.pixels).mean())


@pytest.mark.parametrize(
    "names",
    [
        ("webp-95", "webp-60", "webp-10"),
        ("resize-75", "resize-50", "resize-20"),
        ("blur-1", "blur-3"),
        ("noise-4", "noise-20"),
    ],
)
def test_a_harder_level_changes_more_and_keeps_the_size(names: tuple[str, ...]) -> None:
    given = a_picture()
    found = [changes(name, given) for name in names]
    assert found == sorted(found)
    assert found[0] > 0
    assert {get_condition(name).apply(given).shape for name in names} == {given.pixels.shape}


def test_blur_is_a_gaussian_with_the_deviation_in_its_name() -> None:
    point = np.zeros((41, 41, 3), dtype=np.uint8)
    point[20, 20] = 255
    blurred = get_condition("blur-1").apply(Picture(point))[:, :, 0]
    assert blurred[20, 20] == round(255 / (2 * np.pi))  # the density at 0 of a Gaussian with deviation 1
    assert blurred[20, 21] == round(255 / (2 * np.pi) * np.exp(-0.5))


def test_noise_has_the_deviation_in_its_name_and_follows_from_the_digest() -> None:
    grey = np.full((200, 200, 3), 128, dtype=np.uint8)
    noise = get_condition("noise-4").apply(Picture(grey, "a")).astype(float) - 128
    assert noise.std() == pytest.approx(4, abs=0.05)
    assert abs(noise.mean()) < 0.05
    assert (
        get_condition("noise-4").apply(Picture(grey, "b")) != get_condition("noise-4").apply(Picture(grey, "a"))
    ).any()


def test_a_crop_is_a_part_of_the_picture_at_a_place_that_follows_from_the_digest() -> None:
    rows, columns = np.mgrid[:50, :80].astype(np.uint8)
    pixels = np.stack([rows, columns, rows], axis=2)
    places = set()
    for digest in "abcdefgh":
        kept = get_condition("crop-90").apply(Picture(pixels, digest))
        assert kept.shape == (45, 72, 3)
        top, left = int(kept[0, 0, 0]), int(kept[0, 0, 1])
        np.testing.assert_array_equal(kept, pixels[top : top + 45, left : left + 72])
        places.add((top, left))
    assert len(places) > 4


@pytest.mark.parametrize(
    ("size", "after"), [((2000, 1000), (1280, 640)), ((1280, 900), (1280, 900)), ((90, 40), (90, 40))]
)
def test_a_messenger_shrinks_what_is_large_and_saves_all_as_jpeg(size: tuple[int, int], after: tuple[int, int]) -> None:
    pixels = np.array(Image.fromarray(picture("a", 64)).resize(size))
    delivered = get_condition("messenger").apply(Picture(pixels))
    assert delivered.shape == (after[1], after[0], 3)
    small = np.array(Image.fromarray(pixels).resize(after, Image.Resampling.BICUBIC)) if after != size else pixels
    np.testing.assert_array_equal(delivered, get_condition("jpeg-75").apply(Picture(small)))


@pytest.mark.parametrize(
    ("name", "size"), [("crop-10", (8, 4)), ("jpeg-75", (80, 40)), ("paste-back", (80, 40)), (CLEAN, (80, 40))]
)
def test_the_size_that_a_condition_gives_is_known_without_a_picture(name: str, size: tuple[int, int]) -> None:
    assert size_under(name, 80, 40) == size


def test_a_condition_that_fails_gives_no_size(empty_register: None) -> None:
    @register_condition("broken")
    def broken(picture: Picture) -> np.ndarray:
        """Fails."""
        raise RuntimeError

    assert size_under("broken", 80, 40) is None


def test_paste_back_takes_the_original_outside_the_mask_and_the_fake_inside() -> None:
    given = a_picture()
    pasted = get_condition("paste-back").apply(given)
    assert given.mask is not None
    assert given.original is not None
    np.testing.assert_array_equal(pasted[given.mask], given.pixels[given.mask])
    np.testing.assert_array_equal(pasted[~given.mask], given.original[~given.mask])
    real = Picture(picture("a", 40))
    np.testing.assert_array_equal(get_condition("paste-back").apply(real), real.pixels)


def test_paste_back_refuses_an_original_of_another_size() -> None:
    given = a_picture()
    other = Picture(given.pixels, "", given.read_mask, lambda: picture("b", 41))
    with pytest.raises(ValueError, match=r"differ in size: picture \(40, 40, 3\), original \(41, 41, 3\)"):
        get_condition("paste-back").apply(other)


# Sets


def test_each_word_for_a_set_stands_for_conditions_that_exist() -> None:
    for word, names in SETS.items():
        assert word not in list_conditions()
        assert [get_condition(name).name for name in names] == list(names)
        assert len(set(names)) == len(names)


def test_the_published_set_has_what_it_promises() -> None:
    assert set(SETS["robustness"]) == {
        "jpeg-95", "jpeg-85", "jpeg-75", "jpeg-60", "jpeg-30", "webp-80", "resize-75", "resize-50", "blur-1", "noise-4",
        "crop-90", "messenger",
    }  # fmt: skip


def test_words_become_their_members_each_once() -> None:
    assert expand(["clean", "jpeg-75", "robustness", "paste-back"]) == [
        "clean", "jpeg-75", *(name for name in SETS["robustness"] if name != "jpeg-75"), "paste-back",
    ]  # fmt: skip


def test_a_set_is_written_in_one_way() -> None:
    assert joined("jpeg-75+clean+jpeg-75") == "clean+jpeg-75"
    assert joined("clean") == "clean"
    assert members(joined("robustness")) == tuple(sorted(SETS["robustness"]))
    with pytest.raises(KeyError, match="no condition named 'jpeg-0'"):
        joined("clean+jpeg-0")


def test_no_condition_may_have_the_name_of_a_set(empty_register: None) -> None:
    with pytest.raises(ValueError, match="is the word for a set of conditions"):
        register_condition("robustness")(lambda picture: picture.pixels)


def test_a_set_is_suggested_like_a_condition() -> None:
    with pytest.raises(KeyError, match=r"no condition named 'robustnes' \(did you mean 'robustness'\?\)"):
        get_condition("robustnes")


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ("crop10", " (did you mean 'crop-10'?); there are: "),
        ("jpeg_75", " (did you mean 'jpeg-75'?); there are: "),
        ("JPEG-75", " (did you mean 'jpeg-75'?); there are: "),
        ("jpg-095", " (did you mean 'jpeg-95'?); there are: "),
        ("crop500", "; there are: "),
    ],
)
def test_a_member_of_a_family_is_suggested_by_its_level(wrong: str, hint: str) -> None:
    with pytest.raises(KeyError) as caught:
        get_condition(wrong)
    assert f"no condition named {wrong!r}{hint}" in caught.value.args[0]
