"""How texts are printed at the width of a terminal, and into a log."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from grid.command_line import print_error, print_wrapped

LONG = "crop-10 makes pictures of 11 x 11 pixels from those of 112 x 112: too small for residual_linear"


def console(*, terminal: bool) -> tuple[Console, io.StringIO]:
    said = io.StringIO()
    return Console(file=said, width=40, force_terminal=terminal, no_color=True, color_system=None), said


def test_a_terminal_gets_lines_that_break_between_words() -> None:
    to, said = console(terminal=True)
    print_error(f"{LONG}\nLeave it out", to)
    lines = said.getvalue().splitlines()
    assert [line.rstrip() for line in lines] == [
        "error: crop-10 makes pictures of 11 x 11", "pixels from those of 112 x 112: too", "small for residual_linear",
        "Leave it out",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "line",
    [
        *(
            f"{LONG}: {command}"
            for command in (
                "python launch.py --methods sam_linear",
                "pip install umap-learn",
                "mlflow db upgrade URI",
                "chmod 600 FILE",
            )
        ),
        f"{LONG}: {'/very/long/path' * 4}/picture.png",
    ],
)
def test_what_is_copied_from_a_terminal_is_one_line(line: str) -> None:
    to, said = console(terminal=True)
    print_wrapped(line, to)
    assert said.getvalue() == f"{line}\n"


def test_an_option_and_its_value_stay_on_one_line() -> None:
    to, said = console(terminal=True)
    print_wrapped("choose others for all of these with --methods sam_linear,clip_linear or --plan to see", to)
    assert said.getvalue().splitlines() == [
        "choose others for all of these with", "--methods sam_linear,clip_linear or", "--plan to see",
    ]  # fmt: skip


def test_a_log_gets_every_line_whole_and_no_marks_are_read_in_it() -> None:
    to, said = console(terminal=False)
    print_error(f"[bold]{LONG}[/]\n\nend", to)
    assert said.getvalue() == f"error: [bold]{LONG}[/]\n\nend\n"
