"""benchmarks/gpu.sh: its toy form, what it does when checks fail or it is killed, and what it needs of a machine."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
import warnings
from collections.abc import Callable
from importlib.metadata import packages_distributions, requires
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from benchmarks.gpu import table as gpu_table
from benchmarks.gpu.__main__ import main
from benchmarks.gpu.checks import CHECKS
from benchmarks.gpu.findings import NEEDS_GPU, Finding, Place, Tell
from benchmarks.gpu.project import ENCODERS, TRAINED, hear_failures, waits
from benchmarks.gpu.running import Check, Child, ChildFailed, Record, run
from benchmarks.gpu.table import NOT_MEASURED, RESULTS, markdown, read
from benchmarks.gpu.training import EQUAL, difference
from models import training

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "benchmarks" / "gpu.sh"
CPU = Place("cpu", toy=True)
NAMES = [check.name for check in CHECKS]

# What a machine with a GPU has: what the page names, and what those packages need themselves.
THERE = {"torch", "torchvision", "timm", "scikit-learn", "pandas", "pyarrow"} | {
    "filelock", "huggingface-hub", "jinja2", "numpy", "pillow",
    "pyyaml", "safetensors", "scipy", "threadpoolctl", "tqdm",
}  # fmt: skip


def bare(requirement: str) -> str:
    """The name of a required package."""
    return re.split(r"[\[><=!~; ]", requirement)[0].lower().replace("_", "-")


(PACKAGES,) = re.findall(r"^packages='(.*)'$", SCRIPT.read_text(encoding="utf-8"), re.MULTILINE)
WHEELS = set(PACKAGES.split("|"))
DEPENDENCIES = {bare(name) for name in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]}
ABSENT = DEPENDENCIES - THERE - WHEELS

BLOCK = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {modules}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
"""

# The toy ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The file that the toy form writes on a machine without the packages that machines with a GPU lack."""
    folder = tmp_path_factory.mktemp("gpu")
    modules = {module for module, owners in packages_distributions().items() if {bare(one) for one in owners} & ABSENT}
    assert {"ray", "mlflow", "pytorch_grad_cam", "matplotlib"} <= modules
    (folder / "sitecustomize.py").write_text(BLOCK.format(modules=sorted(modules)))
    environment = os.environ | {"PYTHON": sys.executable, "PYTHONPATH": str(folder), "CUDA_VISIBLE_DEVICES": ""}
    out = folder / "found.json"
    command = ["bash", str(SCRIPT), "--toy", "--out", str(out)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return found


def findings(toy: dict[str, Any], check: str) -> dict[str, dict[str, Any]]:
    return {finding["name"]: finding for finding in toy["checks"][check]["findings"]}


@pytest.mark.slow
@pytest.mark.long
def test_the_toy_runs_every_check_to_its_end(toy: dict[str, Any]) -> None:
    assert {name: check["state"] for name, check in toy["checks"].items()} == dict.fromkeys(NAMES, "done")
    assert all(check["findings"] and check["seconds"] >= 0 for check in toy["checks"].values())
    assert (toy["toy"], toy["device"]) == (True, "cpu")
    assert "torch" in toy["versions"]


@pytest.mark.slow
@pytest.mark.long
def test_what_needs_a_gpu_says_so_and_is_never_met(toy: dict[str, Any]) -> None:
    needs = {
        (name, finding["name"]): finding["met"]
        for name, check in toy["checks"].items()
        for finding in check["findings"]
        if finding["value"] == NEEDS_GPU
    }
    assert set(needs.values()) == {None}
    every = {
        ("card", "nvidia-smi"),
        ("two-encoders", "both encode side by side"),
        ("waiting", "training, lines that wait in each step"),
        ("waiting", "clip_linear, waits of a batch"),
        ("limits", "limits under which it broke"),
        ("epoch", "throughput from the store over that in memory"),
        ("layouts", "channels last over contiguous, as trained"),
        ("encoders", "sam_linear, full: share of the time in which the card computes, from files"),
        ("numbers", f"{TRAINED}, full: largest difference of a score"),
        ("at-once", f"{TRAINED} × 2, images/s of all"),
        ("carried", "mixed: from the GPU to the CPU"),
        ("carried", "full: from the CPU to the GPU"),
    }
    assert every <= set(needs)


@pytest.mark.slow
@pytest.mark.long
def test_on_a_cpu_everything_that_can_be_judged_is_as_wanted(toy: dict[str, Any]) -> None:
    judged = [
        finding for check in toy["checks"].values() for finding in check["findings"] if finding["met"] is not None
    ]
    assert [finding for finding in judged if not finding["met"]] == []
    assert len(judged) > 20


@pytest.mark.slow
@pytest.mark.long
def test_on_a_cpu_a_resumed_training_equals_an_uninterrupted_one(toy: dict[str, Any]) -> None:
    found = findings(toy, "resumed")
    steps = [f"mixed: resumed from epoch {epoch}, step {step}" for epoch in (1, 2) for step in (1, 2, 3, 4)]
    between = ["mixed: resumed from epoch 2, step 0", "mixed: resumed from epoch 3, step 0"]
    whole = ["mixed: trained twice", "full: trained twice"]
    parts = ["full: resumed from epoch 1, step 2", "full: resumed from epoch 2, step 0"]
    assert set(found) == {*steps, *between, *whole, *parts}
    assert {finding["value"] for finding in found.values()} == {EQUAL}
    assert findings(toy, "carried")["full: from the CPU to the CPU"]["value"] == [EQUAL, EQUAL]


@pytest.mark.slow
@pytest.mark.long
def test_on_a_cpu_scores_and_gradients_are_right(toy: dict[str, Any]) -> None:
    found = findings(toy, "numbers")
    assert [found[f"{method}: the same on this CPU"]["value"] for method in (TRAINED, *ENCODERS)] == [0.0] * 3
    assert all(found[f"{method}: largest score on the CPU"]["value"] > 0 for method in (TRAINED, *ENCODERS))
    found = findings(toy, "grad-cam")
    assert [found[f"{method}: gradients at the layer after encoding"]["met"] for method in ENCODERS] == [True, True]


@pytest.mark.slow
@pytest.mark.long
def test_with_memory_enough_all_is_computed_whole(toy: dict[str, Any]) -> None:
    hows = [finding["value"]["how"] for name, finding in findings(toy, "limits").items() if "GiB" in name]
    assert hows == ["whole", "whole"]
    sides = [findings(toy, "two-encoders")[f"the {which} encoder"]["value"] for which in ("first", "second")]
    assert all("error" not in side and side["images/s"] > 0 for side in sides)


# When things go wrong -----------------------------------------------------------------------------------------------


def good(place: Place, tell: Tell) -> None:
    tell(Finding("device", place.device, "cpu", True))


def bad(place: Place, tell: Tell) -> None:
    tell(Finding("before", float("nan")))
    raise ValueError("so it is")


def killed(place: Place, tell: Tell) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def endless(place: Place, tell: Tell) -> None:
    tell(Finding("first", 1))
    Child(place.start, sleeping).answer(time.monotonic() + 600)


def sleeping(send: Callable[[Any], None]) -> None:
    time.sleep(600)


def checked(path: Path, *functions: Callable[[Place, Tell], None], seconds: float = 60, each: float = 30) -> Any:
    checks = [Check(one.__name__, "so", one, each) for one in functions]
    whole = run(checks, CPU, Record(path, CPU), seconds=seconds)
    return whole, json.loads(path.read_text(encoding="utf-8"))["checks"]


def test_a_check_that_fails_is_recorded_and_the_next_one_runs(tmp_path: Path) -> None:
    whole, found = checked(tmp_path / "f.json", bad, killed, good)
    assert not whole
    assert [found[name]["state"] for name in found] == ["failed", "failed", "done"]
    assert found["bad"]["error"] == "ValueError: so it is"
    assert found["bad"]["where"][-1].startswith("tests/test_gpu_benchmark.py:")
    assert found["bad"]["findings"] == [{"name": "before", "value": "nan", "wanted": "", "met": None}]
    assert "exit code -9" in found["killed"]["error"]
    assert found["good"]["findings"] == [{"name": "device", "value": "cpu", "wanted": "cpu", "met": True}]
    assert checked(tmp_path / "f.json", good)[0]


def test_a_check_that_takes_too_long_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    whole, found = checked(tmp_path / "f.json", endless, good, each=1.5)
    assert not whole
    assert [found[name]["state"] for name in found] == ["out of time", "done"]
    assert [finding["name"] for finding in found["endless"]["findings"]] == ["first"]
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before


def test_what_does_not_begin_in_time_is_named(tmp_path: Path) -> None:
    whole, found = checked(tmp_path / "f.json", good, seconds=0.5)
    assert (whole, found["good"]["state"]) == (False, "not begun: the time is up")


def test_a_run_that_is_killed_leaves_what_it_had(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    command = [sys.executable, "-m", "benchmarks.gpu", "--toy", "--out", str(out), "card", "resumed"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            checks = json.loads(out.read_text(encoding="utf-8"))["checks"] if out.exists() else {}
            if checks.get("resumed", {}).get("findings"):
                break
            time.sleep(0.02)
        started = psutil.Process(process.pid).children(recursive=True)
        process.kill()
    left = json.loads(out.read_text(encoding="utf-8"))["checks"]
    assert [left[name]["state"] for name in left] == ["done", "running"]
    assert left["card"]["findings"]
    assert left["resumed"]["findings"][0]["name"] == "mixed: trained twice"
    assert started
    assert psutil.wait_procs(started, timeout=10)[1] == []  # they do not go on without it


def test_a_child_that_says_nothing_is_no_answer() -> None:
    with pytest.raises(TimeoutError):
        Child("fork", sleeping).answer(time.monotonic() + 0.3)
    with pytest.raises(ChildFailed, match="TypeError"):
        Child("fork", sleeping, "too much").answer(time.monotonic() + 30)


@pytest.mark.parametrize("options", [["nonsense"], ["--toy"]])
def test_what_makes_no_sense_is_refused(options: list[str]) -> None:
    with pytest.raises(SystemExit):
        main(options)


def test_without_a_gpu_only_the_toy_runs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", "--out", str(tmp_path / "found.json")]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.returncode, (tmp_path / "found.json").exists()) == (2, False)
    reasons = re.findall(r"^torch cannot use the GPU \((fork|spawn)\): (.*)$", done.stderr, re.MULTILINE)
    assert [start for start, _ in reasons] == ["fork", "spawn"]
    assert reasons[0][1] == reasons[1][1] != ""  # torch's own


# What the checks are made of -----------------------------------------------------------------------------------------


def test_calls_that_wait_are_counted_by_line() -> None:
    with waits(CPU) as found:
        for _ in range(2):
            warnings.warn("called a synchronizing CUDA operation (as torch says)", stacklevel=1)
        warnings.warn("something else", stacklevel=1)
    ((line, times),) = found.items()
    assert line.startswith("tests/test_gpu_benchmark.py:")
    assert times == 2


def heard(send: Callable[[Any], None]) -> None:
    texts: list[str] = []
    hear_failures(texts)

    def compute() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.\nAnd much more")

    send([training.fits(compute), training.fits(lambda: None), texts])


def test_the_text_of_a_failure_is_heard_although_the_project_handles_it() -> None:
    found = Child("fork", heard).answer(time.monotonic() + 30)
    assert found == [False, True, ["OutOfMemoryError: CUDA out of memory."]]


def test_weights_are_equal_only_bit_by_bit() -> None:
    one = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([0.0])}
    assert difference(one, {name: tensor.clone() for name, tensor in one.items()}) == EQUAL
    other = one | {"a": torch.nextafter(one["a"], torch.tensor(9.0))}
    assert difference(one, other) == pytest.approx(1.2e-7, rel=0.1)
    assert difference(one, one | {"a": torch.tensor([1.0, 3.0])}) == 0.5


# What it needs of a machine ------------------------------------------------------------------------------------------


def test_the_wheels_are_in_the_lock_and_bring_what_they_need() -> None:
    locked = {bare(line) for line in (ROOT / "requirements.lock").read_text().splitlines() if line[:1].strip("# ")}
    assert locked >= WHEELS
    needed = {bare(one) for name in WHEELS for one in requires(name) or [] if "extra ==" not in one}
    assert needed <= THERE | WHEELS


def test_no_two_lists_of_what_is_missing() -> None:
    (modules,) = re.findall(r"^modules='(.*)'$", SCRIPT.read_text(encoding="utf-8"), re.MULTILINE)
    names = {name.replace("_", "-") for name in modules.split()}
    assert names == {name.removesuffix("-torch") for name in WHEELS}


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")
def test_git_ignores_the_wheels() -> None:
    command = ["git", "check-ignore", "-q", "benchmarks/wheels/some.whl"]
    assert subprocess.run(command, cwd=ROOT).returncode == 0


IMPORTS = """
import torch

def asked(*arguments):
    raise AssertionError("an import asks for a GPU, so that forked processes cannot use it")

torch._C._cuda_getDeviceCount = torch._C._cuda_init = torch.cuda.is_available = asked
import benchmarks.gpu.__main__
benchmarks.gpu.__main__.import_all()
"""


def test_imports_leave_the_gpu_to_forked_processes() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTS], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# The table -----------------------------------------------------------------------------------------------------------


def test_checks_that_run_again_replace_their_findings_and_leave_others(tmp_path: Path) -> None:
    path = tmp_path / "f.json"
    checked(path, bad, good)
    record = Record(path, CPU, keep=True)
    run([Check("bad", "so", good, 30)], CPU, record, seconds=60)
    found = json.loads(path.read_text(encoding="utf-8"))["checks"]
    assert [found[name]["state"] for name in found] == ["done", "done"]
    assert "error" not in found["bad"]
    assert Record(path, Place("cuda"), keep=True)._content["checks"] == {}  # what a CPU found is nothing beside a GPU's
    assert Record(path, CPU)._content["checks"] == {}


def content(**changes: Any) -> dict[str, Any]:
    found = {
        "findings": [
            {"name": "rate", "value": 0.91234, "wanted": "at least 0.9", "met": True},
            {"name": "texts", "value": ["a|b", {"c": 1234.5}], "wanted": "", "met": None},
        ]
    }
    checks = {
        "epoch": {"what": "an epoch", "state": "done", **found},
        "limits": {"what": "less memory", "state": "failed", "error": "so\nit is", "findings": []},
    }
    for check in checks.values():
        check["date"] = "2026-01-01"
    made_up = {"toy": False, "versions": {"torch": "2"}, "checks": checks}
    return made_up | changes


def test_without_a_file_nothing_is_measured(tmp_path: Path) -> None:
    assert markdown(read(tmp_path / "none.json")) == NOT_MEASURED


def test_each_finding_and_each_failure_has_a_row() -> None:
    lines = markdown(content()).splitlines()
    assert "| `epoch` | rate | 0.912 | at least 0.9 | yes |" in lines
    assert "| `epoch` | texts | a/b, c: 1,234 |  |  |" in lines
    assert "| `limits` | less memory | failed so it is |  | **no** |" in lines
    assert lines[-1] == "an unknown card; 2026-01-01; torch 2."


def test_findings_are_found_by_a_pattern() -> None:
    assert gpu_table.found(content(), "epoch", "rate") == 0.91234
    assert gpu_table.found(content(), "epoch", "ra*") == 0.91234
    assert gpu_table.found(content(), "epoch", "rat") is None
    assert gpu_table.found({}, "epoch", "rate") is None


def test_the_long_texts_of_failures_are_left_to_the_file() -> None:
    one = {"name": "2 GiB", "value": {"how": "whole", "failures": ["so long"]}, "wanted": "", "met": None}
    checks = {"limits": {"what": "x", "state": "done", "date": "2026-01-01", "findings": [one]}}
    assert "| `limits` | 2 GiB | how: whole |  |  |" in markdown(content(checks=checks))


def test_a_toy_has_no_table() -> None:
    with pytest.raises(ValueError, match="toy"):
        markdown(content(toy=True))


def test_the_committed_file_is_of_a_gpu() -> None:
    found = read(RESULTS)
    assert not found or (found["toy"], found["device"]) == (False, "cuda")


def test_the_folder_says_what_each_check_shows() -> None:
    text = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    assert [name for name in NAMES if f"| `{name}` |" not in text] == []
