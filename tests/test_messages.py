"""What the messages tell people to type: every option and every command in them exists, and names its store."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import mlflow.cli
import pytest

import launch
from analysis import __main__ as analysis_main
from analysis import export, predict
from analysis.explore import command as explore
from analysis.verify import command
from grid.commands import list_commands

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("analysis", "data", "grid", "models")
MODULES = [*sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py")), ROOT / "launch.py"]
OPTION = r"(?<![\w-])--[a-z][a-z-]*[a-z]"
# Of git, `ray job submit`, `ray start`, `mlflow ui` and the tables of pandas.
OTHERS = {"--porcelain", "--working-dir", "--labels", "--backend-store-uri", "--rwrap", "--shm-size"}


def texts(path: Path) -> Iterator[str]:
    """Every string of a module but its docstrings; what is filled in is between braces, as code."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    formatted = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
    others = {part for node in formatted for part in ast.walk(node)}
    others |= {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in formatted:
        parts = (part.value if isinstance(part, ast.Constant) else ast.unparse(part) for part in node.values)
        yield "".join(map(str, parts))
    for constant in ast.walk(tree):
        if isinstance(constant, ast.Constant) and isinstance(constant.value, str) and constant not in others:
            yield constant.value


MESSAGES = [(path.relative_to(ROOT).as_posix(), text) for path in MODULES for text in texts(path)]


def help_of(parse: Any, words: list[str], capsys: pytest.CaptureFixture[str]) -> set[str]:
    with pytest.raises(SystemExit):
        parse([*words, "--help"])
    return set(re.findall(OPTION, capsys.readouterr().out))


def mlflow_command(words: list[str]) -> tuple[click.Command, list[str]]:
    """A command of MLflow, and the words after its name."""
    found: click.Command = mlflow.cli.cli
    while isinstance(found, click.Group) and words and (inner := found.get_command(click.Context(found), words[0])):
        found, words = inner, words[1:]
    return found, words


def mlflow_options(text: str) -> set[str]:
    """The options of the commands of MLflow in a text."""
    commands = [mlflow_command(rest.split())[0] for rest in re.findall(r"(?<![\w-])mlflow ([a-z][^\n`;]*)", text)]
    return {name for command in commands for parameter in command.params for name in parameter.opts}


def test_every_option_in_a_message_exists(capsys: pytest.CaptureFixture[str]) -> None:
    own = set.union(
        *(help_of(launch.parse_arguments, name, capsys) for name in ([], *([name] for name in list_commands())))
    )
    parsers = (analysis_main, predict, export, command, explore)
    report = set.union(*(help_of(module.parse_arguments, [], capsys) for module in parsers))
    assert {"--runs", "--status", "--experiment-name"} <= own
    assert {"--tracking-uri", "--experiment", "--best"} <= report
    assert "--experiment" not in own
    wrong = []
    for place, text in MESSAGES:
        allowed = mlflow_options(text) | OTHERS
        if not place.startswith("analysis/") or "launch" in text or place == "analysis/commands.py":
            allowed |= own
        if place.startswith("analysis/") or "analysis" in text:
            allowed |= report
        wrong += [f"{place}: {option} in {text}" for option in re.findall(OPTION, text) if option not in allowed]
    assert "\n".join(wrong) == ""


def test_every_mlflow_command_in_a_message_exists_and_names_its_store() -> None:
    told = [(place, text) for place, text in MESSAGES if re.search(r"(?<![\w-])mlflow (runs|experiments|db|ui)", text)]
    assert len(told) >= 6
    for place, text in told:
        for before, rest in re.findall(r"(?:^|(\S+) )mlflow ((?:runs|experiments|db|ui)[^\n`;]*)", text):
            command, words = mlflow_command(rest.split())
            assert not isinstance(command, click.Group), (place, rest)
            options = {name for parameter in command.params for name in parameter.opts}
            assert {word.rstrip(")") for word in words if re.match(r"--?[a-z]", word)} <= options, (place, rest)
            assert "store_variable(" in text or "--backend-store-uri" in rest, (place, before, rest)


def test_every_command_of_this_project_in_a_message_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for place, text in MESSAGES:
        assert set(re.findall(r"`make ([a-z-]+)`", text)) <= targets, (place, text)
        assert set(re.findall(r"python ([a-z_]+\.py)", text)) <= {"launch.py"}, (place, text)
        assert set(re.findall(r"python -m ([a-z_]+)", text)) <= {"analysis"}, (place, text)
