"""A whole launch as a YAML file: what the command line can say, and nothing else.

    experiment: dolos
    data: /corpora/dolos
    methods: [clip_linear, residual_linear]
    seeds: [0, 1, 2]
    set:
      residual_linear.l2: 0.01
    controls: true

Keys are the long options without dashes in front, and `experiment`. Paths are relative to the folder where the command
is given, as on the command line. Words of the command line come on top of the file's.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from data.register import no_entry
from grid.command_line import Numbers
from grid.commands import BadInputError

EXPERIMENT, CONFIG = "experiment", "config"
_NOT_OF_A_LAUNCH = ("help", "version", CONFIG)
_REPEATED = (argparse._AppendAction, argparse._ExtendAction)
_WITHOUT_VALUE = argparse._StoreConstAction  # of which `store_true` is a kind


def words_of(file: Path, parser: argparse.ArgumentParser, *, named: bool) -> list[str]:
    """The words of the command line that a file stands for.

    Args:
        file: the YAML file.
        parser: of the command.
        named: the command line itself names the experiment, so that the file's does not count.

    Raises:
        BadInputError: no such file, no YAML, an unknown key, or a value of the wrong kind.
    """
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(f"--config {file} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise BadInputError(f"--config {file} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, Mapping):
        raise BadInputError(f"--config {file} must hold lines such as `methods: [clip_linear]`")
    actions = _actions(parser)
    words: list[str] = []
    for key, value in content.items():
        name = str(key).replace("_", "-")
        if name == EXPERIMENT:
            words += [] if named else [str(value)]
            continue
        if name not in actions:
            problem = no_entry("option", name, [EXPERIMENT, *sorted(actions)]).args[0]
            raise BadInputError(f"--config {file}: {problem}")
        try:
            words += _words(actions[name], value)
        except ValueError as error:
            raise BadInputError(f"--config {file}: {name} {error}") from error
    return words


def as_file(options: argparse.Namespace, parser: argparse.ArgumentParser, *, command: str = "") -> str:
    """The file that stands for a parsed command line of a command, without what is as by default."""
    content: dict[str, Any] = {EXPERIMENT: options.experiment}
    for name, action in _actions(parser).items():
        value, default = getattr(options, action.dest), parser.get_default(action.dest)
        constant = isinstance(action, argparse._StoreConstAction)
        if value == default or (value != action.const if constant else value is None):
            continue
        if constant:
            content[name] = True
            continue
        content[name] = [*map(_plain, value)] if isinstance(value, list) else _plain(value)
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=10_000)
    return f"# {' '.join(filter(None, ('python launch.py', command, '--config FILE')))}\n{text}"


def _actions(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """Long option without its dashes -> the action."""
    return {
        action.option_strings[-1].removeprefix("--"): action
        for action in parser._actions
        if action.option_strings and action.option_strings[-1].removeprefix("--") not in _NOT_OF_A_LAUNCH
    }


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool) else str(value)


def _words(action: argparse.Action, value: Any) -> list[str]:
    option = action.option_strings[-1]
    if isinstance(action, _WITHOUT_VALUE):
        if not isinstance(value, bool):
            raise ValueError(f"wants true or false; got {value!r}")
        return [option] if value else []
    if value is True and action.nargs == "?":
        return [option]
    if value is None or isinstance(value, bool):
        raise ValueError(f"wants a value; got {value!r}")
    if isinstance(action, _REPEATED):
        return [f"{option}={text}" for text in _texts(value)]
    if isinstance(value, Mapping):
        raise ValueError(f"wants one value or a list; got {dict(value)!r}")
    separated = ",".join(_texts(value))
    return [option, separated] if isinstance(action, Numbers) else [f"{option}={separated}"]


def _texts(value: Any) -> Iterator[str]:
    """Each item of a list, of a mapping as NAME=VALUE; any other value alone."""
    if isinstance(value, Mapping):
        yield from (f"{name}={_text(each)}" for name, each in value.items())
    elif isinstance(value, list):
        yield from map(_text, value)
    else:
        yield _text(value)


def _text(value: Any) -> str:
    if isinstance(value, Mapping | list) or value is None:
        raise ValueError(f"has {value!r} where one value is wanted")
    return str(value).lower() if isinstance(value, bool) else str(value)
