"""A launch from a file means what the same words on the command line mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from grid.commands import BadInputError
from launch import parse_arguments

WHOLE = """
experiment: dolos
data: /corpora/dolos
methods: [clip_linear, residual_linear]
tasks: detection
seeds: [0, 1]
limit: 6
equal-size: true
set:
  residual_linear.l2: 0.01
  "*.memory": 4
weights: {clip_linear: random}
accept_audit: [headers]
controls: true
skip-bad: false
"""
WORDS = (
    "dolos", "--data", "/corpora/dolos", "--methods", "clip_linear,residual_linear", "--tasks", "detection", "--seeds",
    "0,1", "--limit", "6", "--equal-size", "--set", "residual_linear.l2=0.01", "--set", "*.memory=4", "--weights",
    "clip_linear=random", "--accept-audit", "headers", "--controls",
)  # fmt: skip


def parsed(file: Path, text: str, *more: str) -> dict[str, Any]:
    file.write_text(text)
    options = vars(parse_arguments([*more, "--config", str(file)]))
    return {name: value for name, value in options.items() if name not in ("config", "as_yaml")}


def by_words(*words: str) -> dict[str, Any]:
    return {name: value for name, value in vars(parse_arguments(words)).items() if name not in ("config", "as_yaml")}


def test_a_file_means_what_the_words_mean(tmp_path: Path) -> None:
    assert parsed(tmp_path / "grid.yaml", WHOLE) == by_words(*WORDS)


def test_words_of_the_command_line_come_on_top(tmp_path: Path) -> None:
    found = parsed(tmp_path / "grid.yaml", WHOLE, "folders", "--limit", "3", "--set", "clip_linear.l2=1")
    assert (found["experiment"], found["limit"], found["seeds"]) == ("folders", 3, [0, 1])
    assert found["set"] == ["residual_linear.l2=0.01", "*.memory=4", "clip_linear.l2=1"]


def test_a_launch_is_written_as_a_file_that_means_the_same(tmp_path: Path) -> None:
    for words in (
        WORDS,
        (),
        ("leave-one-out", "dolos", "--all-images", "--local"),
        ("--runs", "/x", "--num-gpus", "0"),
    ):
        text = parse_arguments(words).as_yaml
        command = ("leave-one-out",) if words[:1] == ("leave-one-out",) else ()
        assert text.startswith(f"# python launch.py{' leave-one-out' if command else ''}")
        assert parsed(tmp_path / "again.yaml", text, *command) == by_words(*words)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("metods: [a]", "no option named 'metods' (did you mean 'methods'?)"),
        ("controls: maybe", "controls wants true or false; got 'maybe'"),
        ("methods: [[a]]", "methods has ['a'] where one value is wanted"),
        ("limit: true", "limit wants a value; got True"),
        ("data: {a: b}", "data wants one value or a list; got {'a': 'b'}"),
        ("- methods", "must hold lines such as"),
        ("a: [", "is no YAML"),
        ("config: other.yaml", "no option named 'config'"),
    ],
)
def test_what_a_file_cannot_say_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(BadInputError) as refused:
        parsed(tmp_path / "grid.yaml", text)
    assert said in str(refused.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="cannot be read"):
        parse_arguments(["--config", str(tmp_path / "none.yaml")])
