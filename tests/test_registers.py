"""What all registers have in common; each has contract tests of its own beside what it registers."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

import data.register
import models.register
from analysis.parts import list_parts
from data.audits import Evidence, list_audits, run_audits
from data.conditions import get_condition, list_conditions
from data.demo.inpainters import get_inpainter, list_inpainters
from data.edits import get_edit, list_edits
from data.manifest import Manifest
from data.sources import get_source, list_sources
from grid.commands import BadInputError, get_command, list_commands
from grid.experiments import list_experiments, load_experiment
from grid.tasks import get_task, list_tasks
from launch import parse_arguments
from models.backbones import load_backbone
from models.backbones.base import BackboneRequest
from models.metrics import get_metric, list_metrics
from models.registry import detector_info, list_detectors

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


# Every register ------------------------------------------------------------------------------------------------------

LISTS: dict[str, Callable[[], list[str]]] = {
    "audit": list_audits,
    "command": list_commands,
    "condition": list_conditions,
    "corpus": list_sources,
    "edit": list_edits,
    "experiment": list_experiments,
    "inpainter": list_inpainters,
    "method": list_detectors,
    "metric": list_metrics,
    "part of a report": lambda: [part.name for part in list_parts()],
    "task": list_tasks,
}
LOOK_UPS: dict[str, Callable[[str], object]] = {
    "audit": lambda name: run_audits(Evidence(cast(Manifest, None)), [name]),
    "backbone family": lambda name: load_backbone(name, cast(BackboneRequest, None)),
    "command": get_command,
    "condition": get_condition,
    "corpus": get_source,
    "edit": get_edit,
    "experiment": load_experiment,
    "inpainter": get_inpainter,
    "method": detector_info,
    "metric": get_metric,
    "task": get_task,
}


def test_this_list_has_every_register() -> None:
    made = {
        kind
        for package in ("analysis", "data", "grid", "models")
        for path in (ROOT / package).rglob("*.py")
        for kind in re.findall(r'= Register\("(.*?)"', path.read_text(encoding="utf-8"))
    }
    assert made
    assert made == LISTS.keys() | LOOK_UPS.keys()


@pytest.mark.parametrize("kind", LISTS)
def test_its_names_are_in_order_and_can_be_typed(kind: str) -> None:
    names = LISTS[kind]()
    assert names
    assert kind in ("part of a report", "task") or names == sorted(names)  # those two have an order of their own
    assert [name for name in names if not re.fullmatch(r"[a-z][a-z0-9_+]*(-\d+…\d+|/<class>|-\w+)*", name)] == []


@pytest.mark.parametrize("kind", LOOK_UPS)
def test_a_failed_look_up_lists_all_entries(kind: str) -> None:
    with pytest.raises(KeyError, match=f"no {kind} named 'nothing like it'.*; there are: ") as caught:
        LOOK_UPS[kind]("nothing like it")
    assert all(name in str(caught.value) for name in LISTS.get(kind, list)())


def test_no_command_has_the_name_of_an_experiment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not set(list_commands()) & set(list_experiments())
    monkeypatch.setattr("launch.list_experiments", lambda: ["demo", "status"])
    with pytest.raises(BadInputError, match="a command and an experiment are both named status; rename one of them"):
        parse_arguments(["demo"])
