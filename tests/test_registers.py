"""What all registers have in common; each has contract tests of its own beside what it registers."""

from __future__ import annotations

from pathlib import Path

import pytest

import data.register
import models.register

ROOT = Path(__file__).resolve().parents[1]
REGISTERS = [data.register.Register, models.register.Register]


def test_both_registers_are_one_text() -> None:
    ours, theirs = ((ROOT / name / "register.py").read_text() for name in ("data", "models"))
    assert ours.replace("models/register.py", "data/register.py") == theirs


@pytest.fixture(params=REGISTERS, ids=["data", "models"])
def register(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """A register of a package with two entries and a module that is none."""
    package = tmp_path / f"colours_of_{request.param.__module__.partition('.')[0]}"
    package.mkdir()
    base = f"from {request.param.__module__} import Register\nregister = Register('colour', __name__)\n"
    (package / "__init__.py").write_text(base)
    for number, name in enumerate(("red", "blue")):
        text = f"from {package.name} import register\nregister.add({name!r}, {number})\n"
        (package / f"{name}.py").write_text(text)
    (package / "_shared.py").write_text("raise RuntimeError('no entry')\n")
    monkeypatch.syspath_prepend(tmp_path)
    return __import__(package.name).register


def test_every_module_is_an_entry(register: data.register.Register[int]) -> None:
    assert register.names() == ["blue", "red"]
    assert register.get("red") == 0


def test_a_look_up_that_fails_lists_what_exists(register: data.register.Register[int]) -> None:
    with pytest.raises(KeyError, match=r"no colour named 'bleu' \(did you mean 'blue'\?\); there are: blue, red"):
        register.get("bleu")


def test_a_name_is_taken_once(register: data.register.Register[int]) -> None:
    register.add("green", 2)
    with pytest.raises(ValueError, match="a colour named 'green' is registered already"):
        register.add("green", 3)
