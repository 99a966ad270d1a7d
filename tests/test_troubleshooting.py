"""Every message that the page on troubleshooting quotes is one that the code prints."""

from __future__ import annotations

import re

import pytest

from tests.pages import ROOT
from tests.test_messages import MESSAGES

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
QUOTED = re.findall(r"^### `(.+)`$", PAGE, re.MULTILINE)
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def one_line(text: str) -> str:
    """A message as a reader sees it, without marks of colour and line breaks; "…" where something is filled in."""
    filled = re.sub(r"\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}|%[sd]|`[^`]*`", "…", text)
    return " ".join(re.sub(r"\[/?[a-z ]*\]", "", filled).split())


TEXTS = [one_line(text) for _, text in MESSAGES] + [MAKEFILE]


def is_said(quoted: str) -> bool:
    """Whether some text of the code has all parts of a quoted message, in their order."""
    parts = [re.escape(part.strip()) for part in quoted.split("…") if part.strip()]
    pattern = re.compile(".*".join(parts))
    return any(pattern.search(text) for text in TEXTS)


def test_the_page_quotes_many_messages() -> None:
    assert len(QUOTED) == len(set(QUOTED)) >= 30
    assert [quoted for quoted in QUOTED if len(re.sub(r"[…\W]", "", quoted)) < 12] == []  # else any text would fit


@pytest.mark.parametrize("quoted", QUOTED)
def test_a_quoted_message_is_in_the_code(quoted: str) -> None:
    assert is_said(quoted)


def test_a_message_that_nobody_prints_is_found() -> None:
    assert not is_said("the disk has … bytes too many")
    assert not is_said("Make space …: a disk is full")  # the right words in another order
