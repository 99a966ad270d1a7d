"""What CONTRIBUTING.md, the example of a method and the README tell a reader to do is done, word by word, in a copy."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from tests.corpora import picture, write_image
from tests.pages import ROOT, Command, File, steps
from tests.test_extending import PROJECT

CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
EXAMPLE = (ROOT / "examples" / "add_a_method.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
RECIPES = re.findall(r"^## Recipe \d: (.+)$", CONTRIBUTING, re.MULTILINE)


def recipe(number: int) -> list[File | Command]:
    """The steps of a recipe, from its heading to the next."""
    return steps(re.split(r"^## ", CONTRIBUTING.partition(f"## Recipe {number}:")[2], flags=re.MULTILINE)[0])


def copy_of_the_project(folder: Path) -> Path:
    """The project without its results, in a folder of its own."""
    ignored = shutil.ignore_patterns("__pycache__", ".*")
    for name in [*PROJECT, "examples"]:
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(
            source, folder / name, **({"ignore": ignored} if source.is_dir() else {})
        )
    return folder


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_of_the_project(tmp_path_factory.mktemp("recipes"))


@pytest.fixture(scope="module")
def by_maker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in the layout of recipe 2."""
    folder = tmp_path_factory.mktemp("by_maker")
    rng = np.random.default_rng(0)
    for number in range(60):
        real = picture(f"{number}", 32)
        write_image(folder / "real" / f"{number:03d}.png", real)
        noise = rng.integers(-20, 20, real.shape)
        for maker, change in (("noisy", noise), ("darker", -12 + noise // 4)):
            write_image(folder / maker / f"{number:03d}.png", (real + change).clip(0, 255).astype(np.uint8))
    return folder


def environment(project: Path) -> dict[str, str]:
    """That of a reader in the project's folder, with its environment activated."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW", "PYTEST"))}
    return kept | {"PATH": path, "PYTHONPATH": str(project), "COLUMNS": "120", "PYTHONDONTWRITEBYTECODE": "1"}


def give(command: Command, project: Path, data: Path | None = None, statuses: tuple[int, ...] = (0,)) -> str:
    """Give a command in the project's folder, with a folder for DIR; returns what it printed."""
    words = [str(data) if word == "DIR" else word for word in command.words]
    done = subprocess.run(
        words, cwd=project, env=environment(project), capture_output=True, text=True, check=False, encoding="utf-8"
    )
    assert done.returncode in statuses, f"{command.text}\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
    return done.stdout


def test_there_are_four_recipes_each_with_one_file_and_its_commands() -> None:
    assert RECIPES == ["a method", "a corpus", "a metric", "a condition"]
    for number in range(1, 5):
        kinds = [type(step) for step in recipe(number)]
        assert kinds[0] is File
        assert kinds.count(File) == 1
        assert kinds.count(Command) >= 2


@pytest.mark.parametrize("number", range(1, 5))
def test_the_file_of_a_recipe_is_new_and_passes_the_checks_of_the_project(number: int) -> None:
    (file,) = (step for step in recipe(number) if isinstance(step, File))
    assert not (ROOT / file.path).exists()
    for words in (["check"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *words, "--no-cache", "--stdin-filename", file.path, "-"]
        done = subprocess.run(command, cwd=ROOT, input=file.text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("number", range(1, 5))  # in this order: later recipes use what earlier ones made
def test_a_recipe_does_what_it_says(number: int, project: Path, by_maker: Path) -> None:
    for step in recipe(number):
        if isinstance(step, File):
            (project / step.path).write_text(step.text, encoding="utf-8")
            continue
        printed = give(step, project, by_maker)
        if step.words[:3] == ["python", "-m", "pytest"]:
            assert re.search(r"\d+ passed", printed)
            assert "failed" not in printed
    name = Path(next(step.path for step in recipe(number) if isinstance(step, File))).stem
    if number == 3:
        page = (project / "report" / "index.html").read_text(encoding="utf-8")
        assert "F1 of the fakes" in page
    else:
        assert name in printed


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_example_of_a_method_is_a_difference_that_git_applies(tmp_path: Path) -> None:
    project = copy_of_the_project(tmp_path)
    first, *others = (step for step in steps(EXAMPLE) if isinstance(step, Command))
    assert first.words == ["git", "apply", "examples/add_a_method.md"]
    before = set(project.rglob("*.py"))
    give(first, project)
    assert {path.relative_to(project).as_posix() for path in set(project.rglob("*.py")) - before} == {
        "models/detectors/spectrum_linear.py"
    }
    assert len(others) == 2
    printed = [give(command, project) for command in others]
    assert re.search(r"\d+ passed", printed[0])
    assert "spectrum_linear" in printed[1]


# The README ----------------------------------------------------------------------------------------------------------

# What a command needs that a test lacks, by its first words or by an option; the parsers of test_docs.py take them all.
A_DATA_SET, A_CLOUD, BY_THE_GATE = "a data set", "a cloud", "run by .ci/run itself, on a fresh clone"
NEEDS = {
    "make demo": BY_THE_GATE, "make test": BY_THE_GATE, "make test-all": "run by a workflow, on Mondays",
    "git clone": "the address of a host", "cd inpaint-grid": BY_THE_GATE, "source .venv/bin/activate": BY_THE_GATE,
    "python launch.py describe": A_DATA_SET, "python -m analysis explore": "a person; tests/analysis/explore has one",
    "clusters/up.sh": A_CLOUD, "ray attach": A_CLOUD, ".venv/bin/mkdocs serve": "built by test_docs.py",
}  # fmt: skip


def need(command: Command) -> str:
    """What a command of the README needs besides the checkout; "" if it needs nothing."""
    if {"dolos", "--data"} & set(command.words):
        return A_DATA_SET
    return next((what for start, what in NEEDS.items() if command.text.startswith(start)), "")


OF_THE_README = [step for step in steps(README) if isinstance(step, Command)]
RUN = [command for command in OF_THE_README if not need(command)]


def test_most_of_the_demo_s_commands_are_run() -> None:
    assert len(RUN) >= 8
    gate = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "make demo" in gate
    assert "make test\n" in gate
    assert "-m long tests/test_recipes.py tests/test_extending.py" in gate
    assert "make test-all" in (ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project in which a small part of the demo is finished."""
    project = copy_of_the_project(tmp_path_factory.mktemp("readme"))
    methods = "xception_pretrained,residual_linear"
    give(Command(f"python launch.py --methods {methods} --limit 24 --tasks detection --local"), project)
    return project


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("command", RUN, ids=lambda command: command.text)
def test_a_command_of_the_readme_runs(command: Command, demo: Path, tmp_path: Path) -> None:
    if command.words[:2] == ["mlflow", "ui"]:
        assert serves(command, demo)
        return
    picture_of_the_demo = str(next(demo.glob("runs/cache/**/celebahq/real/test/*.png")))
    given = Command(command.text.replace("IMAGE", picture_of_the_demo))
    statuses = (0,)
    if "doctor" in command.words:
        statuses = (0, 2)  # 2: this machine lacks something, and it says what
    if "predict" in command.words:
        statuses = (0, 3)  # 3: no verdict, which a detector of so few pictures may give
    printed = give(given, demo, tmp_path / "new", statuses)
    if "export" in command.words:
        assert (tmp_path / "new" / "README.md").is_file()
    else:
        assert printed


def serves(command: Command, project: Path) -> bool:
    """Whether a server starts and answers; it is ended afterwards."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [*command.words, "--port", str(port), "--workers", "1"]  # each imports all of MLflow
    with subprocess.Popen(
        words, cwd=project, env=environment(project), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as server:  # fmt: skip
        try:
            for _ in range(400):
                time.sleep(1)
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
                        return bool(answer.status == 200)
                except OSError:
                    assert server.poll() is None
            return False
        finally:
            os.killpg(server.pid, 15)
