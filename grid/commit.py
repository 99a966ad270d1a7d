"""The commit that a run is made with, also in a copy of a checkout without its `.git`.

`python -m grid.commit` writes the commit beside the code, where copies take it along; `clusters/up.sh` does.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CODE = ("launch.py", "grid", "models", "data", "analysis")  # the part of the checkout that results depend on
FILE = ".commit.json"


def git_state(root: Path = ROOT) -> tuple[str, bool] | None:
    """A checkout's commit, and whether files differ from it.

    Args:
        root: a checkout, or a copy of one with the file that `write_commit` made. A copy counts as changed where its
            code is not the code that the file was written for.

    Returns:
        None where neither git nor that file is there.
    """
    if not (root / ".git").exists():
        with suppress(OSError, ValueError, KeyError, TypeError):
            written = json.loads((root / FILE).read_text(encoding="utf-8"))
            return str(written["commit"]), bool(written["changed"]) or written["code"] != code_digest(root)
    git = ["git", "-C", str(root)]
    with suppress(OSError, subprocess.CalledProcessError):
        commit = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, encoding="utf-8", check=True
        ).stdout.strip()
        changed = subprocess.run(
            [*git, "status", "--porcelain"], capture_output=True, encoding="utf-8", check=True
        ).stdout
        return commit, bool(changed.strip())
    return None


def write_commit(root: Path = ROOT) -> str | None:
    """Write the commit into a file that a copy of the checkout takes along: the commit; None where it is not known."""
    state = git_state(root)
    if state is None:
        return None
    written = {"commit": state[0], "changed": state[1], "code": code_digest(root)}
    (root / FILE).write_text(json.dumps(written) + "\n", encoding="utf-8")
    return state[0]


def code_digest(root: Path) -> str:
    """SHA-256 of the code files' names and contents."""
    digest = hashlib.sha256()
    files = [path for name in CODE for path in sorted([root / name, *(root / name).rglob("*")])]
    for path in files:
        if path.is_file() and path.suffix in (".py", ".json"):
            digest.update(f"{path.relative_to(root).as_posix()}\0{path.stat().st_size}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


if __name__ == "__main__":
    if write_commit() is None:
        sys.exit("the commit is not known: this is no git checkout, so runs on the cluster will not name one")
