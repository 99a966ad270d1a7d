"""Commands of the documentation held against the real parsers; nothing of them runs."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import re
from collections.abc import Callable
from typing import Any

import click
import mlflow.cli

import analysis.__main__
import launch
from benchmarks.registry import BENCHMARKS
from grid.commands import BadInputError
from tests.pages import OF_OTHERS, ROOT, Command

OPTION = re.compile(r"--[a-z][a-z-]*[a-z]")


def wrong(command: Command) -> str:
    """What a parser says against a command; "" if it takes the command."""
    words = [re.sub("…$", "", word) for word in command.words]
    program, rest = words[0].removeprefix(".venv/bin/"), words[1:]
    if program in OF_OTHERS:
        return ""
    if program == "python" and rest[:1] == ["launch.py"]:
        return _said(lambda: launch.parse_arguments(rest[1:]))
    if program == "python" and rest[:1] == ["-m"]:
        return _of_module(rest[1], rest[2:])
    if program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        unknown = {word for word in rest if "=" not in word} - set(targets)
        return f"no such target: {unknown}" if unknown else ""
    if program in ("mlflow", "ray"):
        return _of_click(program, rest)
    if program.startswith(("clusters/", "benchmarks/")):
        return "" if (ROOT / program).is_file() else "no such file"
    if program in ("mkdocs", "pre-commit"):
        return "" if importlib.util.find_spec(program.replace("-", "_")) else "is not installed"
    if program in ("sbatch", "docker", "eval"):
        return ""
    return f"nobody knows {program}"


def _of_module(module: str, words: list[str]) -> str:
    if module == "analysis":
        return _said(lambda: _analysis_parser(words)(words))
    if module == "pytest":
        paths = [word.partition("::")[0] for word in words if word.startswith("tests/")]
        return "" if all((ROOT / path).exists() for path in paths) else f"no such tests: {paths}"
    if module == "benchmarks":
        names = [word for word in words if not word.startswith("-") and not word.isdigit()]
        text = (ROOT / "benchmarks" / "__main__.py").read_text(encoding="utf-8")
        missing = {word for word in words if word.startswith("--") and f'"{word}"' not in text}
        return "" if set(names) <= set(BENCHMARKS) and not missing else f"no such benchmark: {names}, {missing}"
    return "" if importlib.util.find_spec(module) else f"no module {module}"


def _analysis_parser(words: list[str]) -> Callable[[list[str]], object]:
    """The parser of `python -m analysis`, or of its command; takes the command's name off the words."""
    if words and words[0] in re.findall(
        r"^python -m analysis ([a-z]\S*)", str(analysis.__main__.__doc__), re.MULTILINE
    ):
        name = words.pop(0)
        for module in (f"analysis.{name}", f"analysis.{name}.command", f"analysis.{name}.options"):
            if hasattr(found := importlib.import_module(module), "parse_arguments"):
                return found.parse_arguments
    return analysis.__main__.parse_arguments


def _of_click(program: str, words: list[str]) -> str:
    """Whether a command of MLflow or Ray exists, with these options."""
    if program == "ray":
        ray_cli = importlib.import_module("ray.scripts.scripts")
        found: Any = ray_cli.cli
    else:
        found = mlflow.cli.cli
    while isinstance(found, click.Group) and words and not words[0].startswith("-"):
        inner = found.get_command(click.Context(found), words[0])
        if inner is None:
            return f"{program} has no command {words[0]}"
        found, words = inner, words[1:]
    known = {name for parameter in found.params for name in parameter.opts}
    unknown = {option for word in words if " " not in word for option in OPTION.findall(word)} - known
    return f"{program} has no {unknown}" if unknown else ""


def _said(parse: Callable[[], object]) -> str:
    heard = io.StringIO()
    try:
        with contextlib.redirect_stderr(heard), contextlib.redirect_stdout(io.StringIO()):
            parse()
    except BadInputError as error:
        return str(error)
    except SystemExit as ended:
        return heard.getvalue() if ended.code else ""
    return ""
