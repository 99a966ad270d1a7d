"""The words for training sets: what each means, what is refused, how tables name and order them."""

from __future__ import annotations

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grid.train_sets import ALL_BUT, RESERVED, TrainSet, check_names, ordered, parse_train_sets

THREE = ("lama", "ldm", "repaint")
NAMES = st.text(string.ascii_lowercase + string.digits + "_-.: ", min_size=1, max_size=8).filter(
    lambda name: name == name.strip() and name not in RESERVED and not name.startswith(ALL_BUT)
)
GENERATORS = st.lists(NAMES, min_size=1, max_size=6, unique=True)


def sets_of(text: str, generators: tuple[str, ...] = THREE) -> list[str]:
    return [str(train) for train in parse_train_sets(text, generators)]


# The grammar ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("each", ["lama", "ldm", "repaint"]),
        ("all", ["lama+ldm+repaint"]),
        ("all-but-one", ["ldm+repaint", "lama+repaint", "lama+ldm"]),
        ("all-but-ldm", ["lama+repaint"]),
        ("ldm", ["ldm"]),
        ("repaint+lama", ["lama+repaint"]),
        ("lama+ldm+repaint", ["lama+ldm+repaint"]),
        ("none", ["none"]),
        ("ldm,lama", ["ldm", "lama"]),  # as they were asked for
        ("each,all", ["lama", "ldm", "repaint", "lama+ldm+repaint"]),
        (" each , all-but-one ", ["lama", "ldm", "repaint", "ldm+repaint", "lama+repaint", "lama+ldm"]),
        ("none,lama + ldm", ["none", "lama+ldm"]),
        ("all,all", ["lama+ldm+repaint"]),
        ("each,ldm", ["lama", "ldm", "repaint"]),  # each set once, where it is named first
        ("ldm,each", ["ldm", "lama", "repaint"]),
        ("lama+ldm,all-but-repaint,all-but-one", ["lama+ldm", "ldm+repaint", "lama+repaint"]),
        ("lama+lama", ["lama"]),
    ],
)
def test_the_words_of_the_command_line(text: str, expected: list[str]) -> None:
    assert sets_of(text) == expected


def test_the_order_and_repetition_of_the_datas_generators_do_not_matter() -> None:
    for text in ("each", "all", "all-but-one", "all-but-ldm"):
        assert sets_of(text, ("repaint", "ldm", "lama", "ldm")) == sets_of(text)


@pytest.mark.parametrize(("text", "expected"), [("each", ["lama"]), ("all", ["lama"]), ("none", ["none"])])
def test_one_generator_alone(text: str, expected: list[str]) -> None:
    assert sets_of(text, ("lama",)) == expected


@pytest.mark.parametrize("text", ["all-but-one", "all-but-lama"])
def test_of_one_generator_alone_none_can_be_left_out(text: str) -> None:
    with pytest.raises(ValueError, match=rf"--train-on {text}: the data have one generator, lama, so none is left"):
        sets_of(text, ("lama",))


WORDS = "other words are each, all, all-but-one, all-but-X and none"


@pytest.mark.parametrize(
    ("text", "word", "unknown", "near"),
    [
        ("lamma", "lamma", "lamma", "lama"),
        ("glide", "glide", "glide", ""),
        ("lama+reapint", "lama+reapint", "reapint", "repaint"),
        ("each,all-but-ldn", "all-but-ldn", "ldn", "ldm"),
        ("lama,,ldm", "", "", ""),
        ("lama+", "lama+", "", ""),
        ("", "", "", ""),
        ("all-but-", "all-but-", "", ""),
        ("All", "All", "All", ""),
        ("lama+all", "lama+all", "all", ""),  # a word among the generators of a union is none of them
        ("lama+none", "lama+none", "none", ""),
    ],
)
def test_an_unknown_generator_is_answered_with_those_that_exist(text: str, word: str, unknown: str, near: str) -> None:
    with pytest.raises(ValueError, match="no generator") as caught:
        sets_of(text)
    hint = f" (did you mean {near!r}?)" if near else ""
    assert str(caught.value) == (
        f"--train-on {word}: no generator named {unknown!r}{hint}; there are: lama, ldm, repaint; {WORDS}"
    )


# A set ---------------------------------------------------------------------------------------------------------------


def test_a_set_is_sorted_and_unique_and_knows_what_is_in_domain() -> None:
    train = TrainSet(("repaint", "lama", "repaint"))
    assert train.generators == ("lama", "repaint")
    assert train == TrainSet(("lama", "repaint"))
    assert len(train) == 2
    assert "lama" in train
    assert "ldm" not in train


def test_the_empty_set_has_a_word() -> None:
    assert str(TrainSet(())) == "none"
    assert TrainSet.parse("none") == TrainSet(())
    assert len(TrainSet(())) == 0
    assert "none" not in TrainSet(())


@given(GENERATORS)
@settings(deadline=None)
def test_a_set_survives_the_trip_through_a_table(generators: list[str]) -> None:
    train = TrainSet(tuple(generators))
    assert TrainSet.parse(str(train)) == train
    assert {name for name in generators if name in train} == set(generators)


@given(GENERATORS)
@settings(deadline=None)
def test_each_set_as_text_is_a_word_of_the_command_line(generators: list[str]) -> None:
    several = len(generators) > 1
    for word in ("each", "all", "none", *(["all-but-one"] if several else [])):
        for train in parse_train_sets(word, generators):
            assert parse_train_sets(str(train), generators) == [train]


@given(GENERATORS)
@settings(deadline=None)
def test_leaving_one_out_is_all_without_it(generators: list[str]) -> None:
    if len(generators) == 1:
        return
    everything = set(generators)
    assert [everything - set(train.generators) for train in parse_train_sets("all-but-one", generators)] == [
        {name} for name in sorted(everything)
    ]
    for name in generators:
        (train,) = parse_train_sets(f"all-but-{name}", generators)
        assert set(train.generators) == everything - {name}


# In tables -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("generators", "own", "label"),
    [
        (THREE, (), "no generator"),
        (THREE, ("ldm",), "ldm"),
        (THREE, ("lama", "repaint"), "all but ldm"),
        (THREE, THREE, "all"),
        ((*THREE, "pluralistic"), ("lama", "ldm"), "lama + ldm"),
        ((*THREE, "pluralistic"), ("lama", "ldm", "repaint"), "all but pluralistic"),
        (("lama", "ldm"), ("lama",), "lama"),  # of two, one is not "all but the other"
        (("lama", "ldm"), ("lama", "ldm"), "lama + ldm"),  # and both are short enough to name
        (("lama",), ("lama",), "lama"),
        (THREE, ("glide", "lama", "ldm", "repaint"), "glide + lama + ldm + repaint"),  # of data that had one more
        (THREE, ("glide", "lama"), "glide + lama"),
    ],
)
def test_a_heading_is_short(generators: tuple[str, ...], own: tuple[str, ...], label: str) -> None:
    assert TrainSet(own).label(generators) == label


def test_columns_are_ordered_by_size_then_as_the_rows_then_by_name() -> None:
    rows = ("repaint", "lama", "ldm")
    texts = ["lama+ldm+repaint", "lama+repaint", "ldm", "glide", "none", "lama", "lama+ldm", "repaint", "ldm"]
    assert [str(train) for train in ordered(map(TrainSet.parse, texts), rows)] == [
        "none",
        "repaint",
        "lama",
        "ldm",
        "glide",  # no row has it
        "lama+ldm",
        "lama+repaint",
        "lama+ldm+repaint",
    ]


@given(st.lists(GENERATORS.map(lambda names: TrainSet(tuple(names))), max_size=8), GENERATORS, st.randoms())
@settings(deadline=None)
def test_the_order_of_columns_does_not_depend_on_that_of_the_results(
    train_sets: list[TrainSet], rows: list[str], random: object
) -> None:
    shuffled = list(train_sets)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert ordered(shuffled, rows) == ordered(train_sets, rows)
    assert set(ordered(train_sets, rows)) == set(train_sets)


# Names of generators -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "real",
        "fake",
        "none",
        "each",
        "all",
        "all-but-one",
        "all-but-lama",
        "all-but-",
        "Real",
        "ALL",
        "no generator",
        "all but lama",
        " lama",
        "ldm ",
    ],
)
def test_a_generator_whose_name_means_something_else_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="rename these generators' folders") as caught:
        check_names(["lama", name])
    assert f"folders: {name!r}; in --train-on and in tables the words" in str(caught.value)


def test_every_such_generator_is_named_at_once() -> None:
    with pytest.raises(ValueError, match="'all', 'none'; in --train-on"):
        check_names(["all", "lama", "none"])


def test_other_names_pass() -> None:
    check_names(["lama", "allure", "reals", "nonesuch", "all_but_one", "each other"])


@pytest.mark.parametrize("text", ["a+b", "a,b"])
def test_a_generators_name_with_a_separator_would_be_read_as_two(text: str) -> None:
    # `grid.names.check_generators` refuses them: MLflow could not hold them either
    from grid.names import check_generators

    with pytest.raises(ValueError, match="rename these generators' folders"):
        check_generators(["lama", text])


def test_one_generator_alone_leaves_none_to_train_on_and_the_remedy_is_named() -> None:
    with pytest.raises(ValueError, match=r"add images of another generator, .* \(--train-on each\)"):
        parse_train_sets("all-but-one", ["lama"])
