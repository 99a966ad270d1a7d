from __future__ import annotations

import os
import tempfile
from itertools import count, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from data.parallel import Pool, parallel_map


class Made(NamedTuple):
    number: int
    process: int
    small: np.ndarray
    large: np.ndarray
    turned: np.ndarray
    none: np.ndarray


def make(number: int) -> Made:
    large = np.full((3, 50, 40), number, dtype=np.float32)
    return Made(number, os.getpid(), np.array([number]), large, large[::-1, ::2].T, np.empty((0, 2)))


def make_but_seven(number: int) -> int:
    if number == 7:
        raise ValueError("seven is refused")
    return number


class Unknown:
    """What a process cannot unpickle."""

    def __call__(self, item: Any) -> Any:
        return item

    def __reduce__(self) -> tuple[Any, ...]:
        return _fail, ()


def _fail() -> None:
    raise LookupError("there is none of this name here")


@pytest.mark.parametrize("processes", [False, True])
def test_results_come_in_order_with_their_arrays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: bool
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with Pool(make, workers=2, processes=processes) as pool:
        for numbers in (range(11), range(100, 103)):  # the same workers take one series after the other
            found = list(pool.map(numbers, ahead=3))
            assert [one.number for one in found] == list(numbers)
            assert all((one.process != os.getpid()) == processes for one in found)
            for one in found:
                expected = make(one.number)
                for array, wanted in zip(one[2:], expected[2:], strict=True):
                    np.testing.assert_array_equal(array, wanted)
                    assert array.dtype == wanted.dtype
                one.large[:] = 0  # a result belongs to the consumer
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("processes", [False, True])
def test_an_error_comes_at_its_items_turn(processes: bool) -> None:
    results = parallel_map(make_but_seven, range(20), workers=2, ahead=8, processes=processes)
    assert list(islice(results, 7)) == list(range(7))
    with pytest.raises(ValueError, match="seven is refused"):
        next(results)


def test_a_function_that_a_process_cannot_have_is_an_error_with_its_reason() -> None:
    with pytest.raises(LookupError, match="none of this name"):
        list(parallel_map(Unknown(), [1], workers=1, ahead=1, processes=True))


class TwoWordsError(Exception):
    """Cannot be unpickled."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__(f"{one} {other}")


def refuse_three(number: int) -> np.ndarray:
    if number == 3:
        raise TwoWordsError("is", "refused")
    return np.full(1000, number)


def test_an_error_that_cannot_be_sent_keeps_its_words_and_the_results_before_it() -> None:
    results = parallel_map(refuse_three, range(5), workers=1, ahead=1, processes=True)
    assert [int(one[0]) for one in islice(results, 3)] == [0, 1, 2]
    with pytest.raises(RuntimeError, match="TwoWordsError: is refused"):
        next(results)


def test_a_temporary_folder_that_takes_no_files_is_named_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with Pool(make, workers=1, processes=True) as pool:
        (folder,) = tmp_path.iterdir()
        folder.rename(tmp_path / "gone")
        with pytest.raises(RuntimeError, match=rf"temporary folder {folder}: No such file.*TMPDIR"):
            list(pool.map(range(3), ahead=3))
        (tmp_path / "gone").rename(folder)


@pytest.mark.parametrize("processes", [False, True])
def test_closing_drops_what_has_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: bool) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    numbers = count(1)
    results = parallel_map(make, numbers, workers=2, ahead=8, processes=processes)
    assert next(results).number == 1
    results.close()
    assert next(numbers) <= 10
    assert list(tmp_path.iterdir()) == []
