"""Data sets in words: what tells them from each other, and which one is meant."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest

from grid import names
from grid.datasets import DataSet, choose, data_options

OLD = DataSet("a" * 16, datetime(2026, 11, 23, 9, 5, tzinfo=UTC), 2, 18, 2)
NEW = DataSet("b" * 16, datetime(2026, 11, 24, 9, 30, tzinfo=UTC), 1, 36)
PART = DataSet("c" * 16, datetime(2026, 11, 24, 8, 0, tzinfo=UTC), 0, 36, None, ("lama", "ldm"))
LOST = DataSet("ad" * 8, datetime(2026, 11, 24, 8, 0, tzinfo=UTC), 3)


def test_a_data_set_in_words() -> None:
    assert [str(data) for data in (OLD, NEW, PART, LOST)] == [
        "limit 2 (18 images, launched 2026-11-23 09:05 UTC, 2 finished trials)",
        "no limit (36 images, launched 2026-11-24 09:30 UTC, 1 finished trial)",
        "no limit, only lama, ldm (36 images, launched 2026-11-24 08:00 UTC, 0 finished trials)",
        "no limit (launched 2026-11-24 08:00 UTC, 3 finished trials)",
    ]


def test_the_words_that_tell_a_data_set_from_others() -> None:
    assert OLD.words_among([OLD, NEW]) == "limit=2"
    assert NEW.words_among([OLD, NEW]) == "limit=none"
    assert PART.words_among([OLD, NEW, PART]) == "generators=lama+ldm"
    assert NEW.words_among([OLD, NEW, PART]) == NEW.digest  # nothing else is its alone
    for data in (OLD, NEW, PART):
        assert choose([NEW, PART, OLD], data.words_among([OLD, NEW, PART]), unfinished=True) == (data, "")


@pytest.mark.parametrize(
    ("asked", "found", "words"),
    [
        (None, NEW, "4 data sets; this is the newest: no limit (36 images, "),
        ("limit=2", OLD, ""),
        ("limit=none", NEW, "3 data sets; this is the newest: no limit (36"),
        ("images=36", NEW, "2 data sets; this is the newest: no limit (36"),
        ("date=2026-11-23", OLD, ""),
        ("limit=none, date=2026-11-24, images=36", NEW, "2 data sets; "),
        ("generators=ldm+lama", PART, ""),
        ("aa", OLD, ""),
        (LOST.digest, LOST, ""),
    ],
)
def test_the_newest_data_set_that_fits_is_read_and_the_others_are_named(
    asked: str | None, found: DataSet, words: str
) -> None:
    chosen, said = choose([NEW, PART, OLD, LOST], asked)
    assert chosen == found
    assert said.startswith(words)
    assert bool(said) == bool(words)


def test_every_other_data_set_is_named_with_the_words_that_choose_it() -> None:
    _, said = choose([NEW, OLD], None)
    assert said == f"2 data sets; this is the newest: {NEW}. --data limit=2 for {OLD}"


def test_while_the_newest_has_no_finished_trial_the_one_before_it_is_read() -> None:
    chosen, said = choose([PART, OLD], None)
    assert chosen == OLD
    assert said == f"2 data sets; this is the newest with a finished trial: {OLD}. --data limit=none for {PART}"
    assert choose([PART, OLD], None, unfinished=True)[0] == PART
    assert choose([PART, OLD], "limit=none") == (PART, "")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("limit=3", "no data set 'limit=3'; there are: limit=none: no limit (36"),
        ("zzz", "no data set 'zzz'; there are: limit=none"),
        ("a", "more than one data set 'a'; there are: "),
        *[(words, "give limit=20, limit=none, images=540") for words in ("size=3", "limit=", "limit=2,images", "=2")],
    ],
)
def test_what_does_not_fit_is_answered_with_what_there_is(asked: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        choose([NEW, OLD, LOST] if asked == "a" else [NEW, OLD], asked)
    assert str(OLD) in str(caught.value)


@pytest.mark.parametrize("tag", [names.OPTIONS, names.DATA_OPTIONS])
def test_the_options_that_chose_the_images(tag: str) -> None:
    typed = "--limit 16 --skip-bad --generators lama,ldm --names-per-split --local --set clip_linear.memory=2 --cpus 3"
    options = data_options({tag: typed})
    assert (options.limit, options.generators, options.names_per_split, options.split_seed) == (
        16,
        ["lama", "ldm"],
        True,
        0,
    )
    assert data_options({}).limit is None


@pytest.mark.parametrize("typed", ["--limit x", "--generators", "--generators 'lama", "--limit", "--split-seed 1e400"])
def test_damaged_options_are_told_with_their_tag(typed: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"its tag {names.OPTIONS} is {typed!r} (")):
        data_options({names.OPTIONS: typed})


def test_a_request_for_help_in_a_tag_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert data_options({names.OPTIONS: "-h --limit 3"}).limit == 3
    assert capsys.readouterr().out == ""
