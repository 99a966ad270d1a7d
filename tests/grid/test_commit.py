"""The commit that runs name, in a checkout and in a copy of one without its .git."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from grid.commit import git_state, write_commit


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    for name in ("launch.py", "grid/plan.py", "models/architectures/a.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (folder / ".gitignore").write_text(".commit.json\n")
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", "first")
    return folder


def git(folder: Path, *command: str) -> str:
    return subprocess.run(["git", "-C", folder, *command], capture_output=True, text=True, check=True).stdout.strip()


def copy(checkout: Path) -> Path:
    """As `ray up` copies it."""
    target = checkout.parent / "copy"
    shutil.copytree(checkout, target, ignore=shutil.ignore_patterns(".git"), dirs_exist_ok=True)
    return target


def test_a_copy_without_git_names_the_commit_it_was_made_of(checkout: Path) -> None:
    commit = git(checkout, "rev-parse", "HEAD")
    assert git_state(checkout) == (commit, False)
    assert write_commit(checkout) == commit
    assert git_state(checkout) == (commit, False)  # the file itself is no change
    assert git_state(copy(checkout)) == (commit, False)


def test_a_copy_of_a_changed_checkout_says_so(checkout: Path) -> None:
    (checkout / "README.md").write_text("new")
    commit = write_commit(checkout)
    assert git_state(copy(checkout)) == (commit, True)


@pytest.mark.parametrize("name", ["grid/plan.py", "models/architectures/a.json", "data/new.py"])
def test_a_copy_with_other_code_than_its_commit_was_written_for_counts_as_changed(checkout: Path, name: str) -> None:
    commit = write_commit(checkout)
    (checkout / name).parent.mkdir(exist_ok=True)
    (checkout / name).write_text("something else")  # and the commit is not written again
    assert git_state(copy(checkout)) == (commit, True)


@pytest.mark.parametrize("text", [None, "", "[]", '{"commit": "abc"}', "{"])
def test_without_git_and_without_a_sound_file_the_commit_is_not_known(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / ".commit.json").write_text(text)
    assert git_state(tmp_path) is None
    assert write_commit(tmp_path) is None
