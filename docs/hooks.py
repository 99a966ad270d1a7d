"""Hook of mkdocs: the reference of the command lines is what `--help` of each command prints."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PLACE = "<!-- what --help of every command prints -->"


def on_page_markdown(markdown: str, **about: Any) -> str:
    """Put the help of all commands into the place for it."""
    if PLACE not in markdown:
        return markdown
    sections = [f"## `{command}`\n\n```text\n{help_of(command)}\n```" for command in commands()]
    return markdown.replace(PLACE, "\n\n".join(sections))


def commands() -> list[str]:
    """Every command of the project, such as `python launch.py status`."""
    _find_the_project()
    import analysis.__main__
    from grid.commands import list_commands

    words = re.findall(r"^python -m analysis ([a-z][\w-]*)", str(analysis.__main__.__doc__), re.MULTILINE)
    launches = [f"python launch.py {name}" for name in list_commands() if name != "run"]  # `run` is the bare launch.py
    return ["python launch.py", *launches, "python -m analysis", *(f"python -m analysis {word}" for word in words)]


def help_of(command: str) -> str:
    """What a command prints with `--help`, 90 columns wide."""
    _find_the_project()
    import analysis.__main__
    import launch

    main, words = launch.main, command.removeprefix("python launch.py").split()
    if command.startswith("python -m analysis"):
        main, words = analysis.__main__.main, command.removeprefix("python -m analysis").split()
    printed, columns = io.StringIO(), os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "90"
    try:
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            main([*words, "--help"])
    finally:
        os.environ.pop("COLUMNS")
        if columns is not None:
            os.environ["COLUMNS"] = columns
    return printed.getvalue().strip()


def _find_the_project() -> None:
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
