"""What a shell is told to complete."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("line", "start", "wanted"),
    [
        ("launch.py dol", 1, {"dolos", "dolos_ffhq"}),
        ("./launch.py dolos --see", 1, {"--seeds"}),
        ("python launch.py doc", 2, {"doctor"}),
        ("launch.py status --j", 1, {"--json"}),
        (
            "launch.py dolos --methods clip_linear,xcept",
            1,
            {"clip_linear,xception_pretrained", "clip_linear,xception_scratch"},
        ),
    ],
)
def test_words_are_completed(line: str, start: int, wanted: set[str], tmp_path: Path) -> None:
    told = tmp_path / "told"
    asked = {
        "COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE": str(start), "_ARGCOMPLETE_IFS": "|",
        "_ARGCOMPLETE_COMP_WORDBREAKS": " ", "_ARGCOMPLETE_STDOUT_FILENAME": str(told),
    }  # fmt: skip
    subprocess.run([sys.executable, ROOT / "launch.py"], env={**os.environ, **asked}, check=True, timeout=60)
    assert {word.strip() for word in told.read_text().split("|")} == wanted


def test_the_script_says_that_it_can_complete_and_can_be_run_by_its_name() -> None:
    assert "PYTHON_ARGCOMPLETE_OK" in (ROOT / "launch.py").read_text()[:1024]
    assert os.access(ROOT / "launch.py", os.X_OK)
