"""How the rooms of the house may know each other, and what importing them may do."""

from __future__ import annotations

import ast
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("analysis", "data", "grid", "models")
MODULES = [*sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py")), ROOT / "launch.py"]
REGISTERS = [path.parent for path in MODULES if path.name == "__init__.py" and "Register(" in path.read_text()]
REGISTERS.append(ROOT / "models" / "detectors")


def place(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module_name(path: Path) -> str:
    return place(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def typing_only(module: ast.Module) -> set[ast.AST]:
    """Everything under `if TYPE_CHECKING:`, which never runs."""
    blocks = [
        node
        for node in ast.walk(module)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    ]
    return {inner for block in blocks for statement in block.body for inner in ast.walk(statement)}


def imported(path: Path) -> Iterator[str]:
    """Full names of what a module imports when it runs, inside of functions too."""
    unreal = typing_only(tree(path))
    for node in ast.walk(tree(path)):
        if node in unreal:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{place(path)} has a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def importers(package: str) -> set[str]:
    return {
        place(path) for path in MODULES if any(name.split(".")[0] == package for name in imported(path))
    }  # fmt: skip


# Who knows whom ------------------------------------------------------------------------------------------------------


def test_the_only_ones_to_know_mlflow_are_its_writer_and_its_reader() -> None:
    assert importers("mlflow") == {"grid/records.py", "grid/local_runs.py", "grid/tracking.py"}
    of_local_runs = {place(path) for path in MODULES if "grid.local_runs.read_runs" in imported(path)}
    assert of_local_runs == {"grid/records.py"}  # it is a part of the reader


def test_the_only_ones_to_know_ray_are_the_cluster_and_the_executor() -> None:
    assert importers("ray") == {"grid/cluster.py", "grid/ray_executor.py"}


@pytest.mark.parametrize(
    ("package", "strangers"),
    [
        ("models", {"data", "grid", "analysis", "launch"}),
        ("data", {"models", "grid", "analysis", "launch", "torch"}),
        ("grid", {"analysis", "launch"}),
        ("analysis", {"launch"}),
    ],
)
def test_nothing_knows_what_is_built_on_it(package: str, strangers: set[str]) -> None:
    known = {
        (place(path), name)
        for path in MODULES
        if place(path).startswith(f"{package}/")
        for name in imported(path)
        if name.split(".")[0] in strangers
    }
    assert known == set()


# What may be imported before anything is decided: none of it imports torch, pandas, Ray or MLflow when it is imported
LIGHT = (
    "data.addresses",
    "data.conditions",
    "data.register",
    "data.sources",
    "models.validation",
    "pydantic",
    "filelock",
    "rich",
)


@pytest.mark.parametrize("path", ["spec", "settings", "plan", "names", "train_sets", "uris"])
def test_planning_needs_light_modules_only(path: str) -> None:
    allowed = (*sys.stdlib_module_names, "grid", *LIGHT)
    own = set(imported(ROOT / "grid" / f"{path}.py"))
    assert {name for name in own if not f"{name}.".startswith(tuple(f"{root}." for root in allowed))} == set()


def test_a_trial_knows_neither_scheduler_nor_tracker() -> None:
    strangers = r"(ray|mlflow|grid\.(cluster|ray_executor|tracking|runner))"
    assert not any(re.match(strangers, name) for name in imported(ROOT / "grid/trial.py"))


@pytest.mark.parametrize("path", sorted((ROOT / "grid" / "experiments").glob("[!_]*.py")), ids=lambda path: path.stem)
def test_an_experiment_knows_specs_only(path: Path) -> None:
    allowed = ("grid.experiments.", "grid.spec.", "__future__.")
    assert [name for name in imported(path) if not name.startswith(allowed)] == []


def test_the_page_on_architecture_names_every_file() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    modules = {path.name for path in MODULES if path.name != "__init__.py"}
    # the entries of a register may be more than the page has: a new one is a new file and nothing else
    entries = {path.name for path in MODULES if path.parent in REGISTERS}
    assert {name for name in modules - entries if f"{name}`" not in page} == set()
    assert {path.parent.name for path in MODULES[:-1] if f"{path.parent.name}/" not in page} == set()
    assert set(re.findall(r"`([a-z_]+\.py)`", page)) <= modules  # and none that is not there
    for package in PACKAGES:
        (section,) = re.findall(rf"^### `{package}/`.*?(?=^##)", page + "\n##", re.MULTILINE | re.DOTALL)
        own = {path.name for path in MODULES if path.is_relative_to(ROOT / package)}
        first = " ".join(re.findall(r"^\| (.*?) \|", section, re.MULTILINE))  # cells of the first column
        named = set(re.findall(r"`([a-z_]+\.py)`", first))
        assert named <= own, f"{package}/ has no {named - own}"


# What importing does -------------------------------------------------------------------------------------------------

IMPORT_ALL = """
import importlib, json, os, sys

first, rest = json.loads(sys.argv[1])
written = []

def watch(event, arguments):
    if event == "open":
        path, mode, flags = arguments
        writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if writes and isinstance(path, (str, bytes)):
            written.append(os.path.abspath(os.fsdecode(path)))
    elif event in ("os.mkdir", "os.rename", "os.remove"):
        written.append(os.path.abspath(os.fsdecode(arguments[0])))

sys.addaudithook(watch)
sys.path.insert(0, sys.argv[2])
for name in first:
    importlib.import_module(name)
early = sorted({"ray", "mlflow"} & sys.modules.keys())
for name in rest:
    importlib.import_module(name)
import torch

inside = [path for path in written if path.startswith((sys.argv[2] + os.sep, os.getcwd() + os.sep))]
facts = {"early": early, "cuda": torch.cuda.is_initialized(), "written": inside, "left": os.listdir()}
print("FACTS" + json.dumps(facts))
"""


@pytest.fixture(scope="module")
def imports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What is to be seen after every module was imported in a fresh process, `models` and `data` before the others."""
    names = [module_name(path) for path in MODULES]
    first = [name for name in names if name.split(".")[0] in ("models", "data")]
    rest = [name for name in names if name not in first]
    folder = tmp_path_factory.mktemp("elsewhere")
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("PYTHONPATH", None)
    command = [sys.executable, "-c", IMPORT_ALL, json.dumps([first, rest]), str(ROOT)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    facts: dict[str, Any] = json.loads(done.stdout.partition("FACTS")[2])
    return facts | {"printed": done.stdout.partition("FACTS")[0]}


def test_models_and_data_bring_neither_ray_nor_mlflow(imports: dict[str, Any]) -> None:
    assert imports["early"] == []


def test_importing_everything_writes_no_file_here(imports: dict[str, Any]) -> None:
    assert imports["written"] == []
    assert imports["left"] == []


def test_importing_everything_touches_no_gpu(imports: dict[str, Any]) -> None:
    assert imports["cuda"] is False


def test_importing_everything_prints_nothing(imports: dict[str, Any]) -> None:
    assert imports["printed"] == ""


# Files ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("package", [*PACKAGES, "tests"])
def test_every_folder_of_modules_is_a_package(package: str) -> None:
    folders = {path.parent for path in (ROOT / package).rglob("*.py")}
    assert sorted(place(folder) for folder in folders if not (folder / "__init__.py").is_file()) == []


@pytest.mark.parametrize("path", MODULES, ids=place)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(tree(path))


@pytest.mark.parametrize("path", MODULES, ids=place)
def test_no_function_outside_the_tests_has_the_name_of_a_test(path: Path) -> None:
    # pytest would collect it in every module of tests that imports it
    functions = [node.name for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef)]
    assert [name for name in functions if name.startswith("test_")] == []


def test_a_packages_init_does_nothing() -> None:
    # but for those that hold a register, or what all of their modules use
    own = {"analysis/figures/__init__.py", *(f"{place(folder)}/__init__.py" for folder in REGISTERS)}
    inits = [path for path in MODULES if path.name == "__init__.py" and place(path) not in own]
    assert [place(path) for path in inits if len(tree(path).body) > 1] == []


def without_encoding(path: Path) -> Iterator[int]:
    """Lines on which a module opens a file, or runs a program, for text and leaves the encoding to the locale."""
    for node in ast.walk(tree(path)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        named = {keyword.arg for keyword in node.keywords}
        modes = [str(one.value) for one in node.args[:2] if isinstance(one, ast.Constant)]
        opens = name == "open" and bool(modes or not node.args) and not any("b" in mode for mode in modes)
        runs = name in ("run", "Popen", "check_output") and bool({"text", "universal_newlines"} & named)
        if (name in ("read_text", "write_text") or opens or runs) and "encoding" not in named:
            yield node.lineno


@pytest.mark.parametrize("path", MODULES, ids=place)
def test_text_is_read_and_written_in_an_encoding_that_is_named(path: Path) -> None:
    assert [f"{place(path)}:{line}" for line in without_encoding(path)] == []


def test_the_check_of_encodings_sees_what_it_is_to_see(tmp_path: Path) -> None:
    lines = [
        "Path('a').write_text('x')", "open('a')", "open('a', 'w')", "path.open()", "path.open('r')",
        "subprocess.run(['a'], text=True)", "Path('a').read_text(errors='replace')",
        "open('a', 'rb')", "path.open('wb')", "store.open(keys)", "Path('a').read_text(encoding='utf-8')",
        "subprocess.run(['a'], encoding='utf-8')", "open('a', encoding='utf-8')",
    ]  # fmt: skip
    (tmp_path / "a.py").write_text("\n".join(lines), encoding="utf-8")
    assert sorted(without_encoding(tmp_path / "a.py")) == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")
def test_git_ignores_no_module_because_ray_would_leave_it_behind() -> None:
    paths = [place(path) for path in MODULES] + [f"{package}/a_new_module.py" for package in PACKAGES]
    command = ["git", "check-ignore", "--no-index", "--stdin"]
    done = subprocess.run(command, cwd=ROOT, input="\n".join(paths), capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")  # 1: none of them is ignored


def test_the_ignore_file_anchors_every_folder_at_the_root() -> None:
    lines = [line.strip() for line in (ROOT / ".gitignore").read_text().splitlines()]
    assert [line for line in lines if line.strip("/") in PACKAGES] == []


LOCKS = sorted(ROOT.glob("*.lock"))


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_the_lock_names_no_host(lock: Path) -> None:
    text = lock.read_text()
    assert not re.search(r"://|--(extra-)?index-url|--find-links|--trusted-host|^\S+ @ ", text, re.MULTILINE)


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_the_lock_pins_every_package_by_version_and_hash(lock: Path) -> None:
    text = re.sub(r"\s*#.*", "", lock.read_text())
    requirements = [line for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    assert requirements
    pinned = re.compile(r"[\w.\-]+(\[[\w,.\-]+\])?==\S+( *;.*?)?( +--hash=sha256:[0-9a-f]{64})+ *")
    assert [line[:80] for line in requirements if not pinned.fullmatch(line)] == []


def test_there_is_a_lock() -> None:
    assert (ROOT / "requirements.lock") in LOCKS


def test_the_lock_holds_every_dependency() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    names = {re.split(r"[\[><=!~; ]", line)[0].lower().replace("_", "-") for line in wanted}
    locked = {line.split("==")[0].split("[")[0] for line in (ROOT / "requirements.lock").read_text().splitlines()}
    assert names - locked == set()
