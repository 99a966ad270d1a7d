"""The committed figures: complete, honest about their targets, and the ones that the README quotes. And toy runs."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from benchmarks import __main__ as command
from benchmarks import report
from benchmarks.machine import load_average
from benchmarks.measure import Figure, Outcome, Target, in_new_process, interleave
from benchmarks.registry import BENCHMARKS

ROOT = Path(__file__).resolve().parents[1]
RESULTS = report.read(report.RESULTS)
FIGURES = [
    pytest.param(figure, id=f"{name}-{key}")
    for name, entry in RESULTS.items()
    for key, figure in entry["figures"].items()
]
EVERYWHERE = [name for name in BENCHMARKS if name != "training-gpu"]

# The committed file -------------------------------------------------------------------------------------------------


def test_everything_that_needs_no_gpu_was_measured() -> None:
    assert set(EVERYWHERE) <= set(RESULTS)


def test_the_file_holds_nothing_else() -> None:
    assert list(json.loads(report.RESULTS.read_text(encoding="utf-8"))) == list(RESULTS)


@pytest.mark.parametrize("name", RESULTS)
def test_an_entry_says_where_when_and_with_what(name: str) -> None:
    entry = RESULTS[name]
    assert {"cpu", "cores", "memory_gb", "gpu", "system"} == set(entry["machine"])
    assert {"python", "torch", "numpy"} <= set(entry["versions"])
    assert {"before", "after"} == set(entry["load_average"])
    assert len(entry["date"]) == len("2026-01-01")
    assert entry["setup"]
    assert entry["figures"]


@pytest.mark.parametrize("figure", FIGURES)
def test_a_figure_has_five_repeats_or_says_why_not(figure: dict[str, Any]) -> None:
    assert figure["repeats"] == len(figure["values"])
    assert figure["repeats"] >= 5 or figure["fewer_because"]


@pytest.mark.parametrize("figure", FIGURES)
def test_median_and_range_are_those_of_the_values(figure: dict[str, Any]) -> None:
    assert figure["median"] == pytest.approx(median(figure["values"]), rel=1e-3)
    assert (figure["min"], figure["max"]) == (min(figure["values"]), max(figure["values"]))


@pytest.mark.parametrize("figure", FIGURES)
def test_met_means_met(figure: dict[str, Any]) -> None:
    if figure["target"] is None:
        assert figure["met"] is None
    else:
        ((side, limit),) = figure["target"].items()
        assert figure["met"] == {"at_least": figure["median"] >= limit, "at_most": figure["median"] <= limit}[side]


def test_the_readme_quotes_the_file() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    _, found, rest = text.partition("<!-- benchmarks -->\n")
    quoted, found_end, _ = rest.partition("<!-- /benchmarks -->")
    assert found
    assert found_end
    assert quoted.strip() == report.markdown(RESULTS).strip(), "run: python -m benchmarks --table"


def test_the_folder_says_what_each_measures() -> None:
    text = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    assert [name for name in BENCHMARKS if f"| `{name}` |" not in text] == []


# The machinery ------------------------------------------------------------------------------------------------------


def figure(*values: float, target: Target | None = None) -> dict[str, Any]:
    return Figure("something", "ratio", values, target, {"one side, s": values}).to_dict()


def test_a_target_is_judged_by_the_median() -> None:
    assert figure(0.9, 1.0, 5.0, target=Target(1.0))["met"] is True
    assert figure(0.9, 1.01, 1.02, target=Target(1.0))["met"] is False
    assert figure(0.9, 0.95, 0.95, target=Target(0.95, at_least=True))["met"] is True
    assert figure(1.0, 0.9, 0.9, target=Target(0.95, at_least=True))["met"] is False


def test_sides_take_turns_in_turning_order() -> None:
    seen: list[str] = []
    found = interleave(3, {"a": lambda: seen.append("a"), "b": lambda: seen.append("b")})
    assert seen == ["a", "b", "b", "a", "a", "b"]
    assert [len(values) for values in found.values()] == [3, 3]


def test_an_entry_replaces_its_last_and_leaves_the_others(tmp_path: Path) -> None:
    def put(name: str, value: float) -> None:
        outcome = Outcome("so", {"it": Figure("it", "s", [value] * 5, Target(2.0))})
        report.merge(tmp_path / "r.json", name, outcome, load_before=load_average(), seconds=1.0)

    put("ray", 1.0)
    put("training", 1.0)
    put("ray", 3.0)
    results = report.read(tmp_path / "r.json")
    assert list(results) == ["training", "ray"]
    assert results["ray"]["figures"]["it"]["met"] is False
    table = report.markdown(results)
    assert "| `ray` | it | 3 (3 – 3) s | ≤ 2 s | **no** |" in table
    assert "| `training` | it | 1 (1 – 1) s | ≤ 2 s | yes |" in table
    assert f"| `frozen` | {BENCHMARKS['frozen'].what} | not measured | | |" in table


@pytest.mark.parametrize("options", [["nonsense"], ["--repeats", "2"], ["--toy"], ["--repeats", "0"]])
def test_what_does_not_belong_into_the_file_is_refused(options: list[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(options)


def test_the_table_is_printed_from_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--table"]) == 0
    assert capsys.readouterr().out.strip() == report.markdown(RESULTS).strip()


# Toys ---------------------------------------------------------------------------------------------------------------


def assert_whole(outcome: Outcome) -> None:
    assert outcome.setup
    assert outcome.figures
    for one in outcome.figures.values():
        assert one.to_dict()["repeats"] == 1
        assert min(one.values) > 0
        assert all(len(values) == 1 for values in one.parts.values())


@pytest.mark.parametrize("name", ["frozen", "memory", "growth", "analysis"])
def test_a_benchmark_runs_at_a_toy_size(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def here(module: str, function: str, arguments: dict[str, Any], *, threads: int = 0) -> Any:
        return json.loads(json.dumps(getattr(importlib.import_module(module), function)(**arguments)))

    for module in ("memory", "growth", "analysis_tables"):  # a process of its own is mostly imports
        monkeypatch.setattr(importlib.import_module(f"benchmarks.{module}"), "in_new_process", here)
    assert_whole(BENCHMARKS[name].load()(1, toy=True))


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", ["ray", "nodes", "relaunch"])
def test_a_benchmark_of_whole_launches_runs_at_a_toy_size(name: str) -> None:
    assert_whole(BENCHMARKS[name].load()(1, toy=True))


def test_a_new_process_hands_back_json_or_says_what_was_wrong() -> None:
    assert in_new_process("json", "dumps", {"obj": [1]}) == "[1]"
    with pytest.raises(RuntimeError, match=r"json\.loads failed"):
        in_new_process("json", "loads", {"s": "{"})


WITHOUT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("ray", "mlflow"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
from benchmarks.__main__ import main
sys.exit(main(["training", "training-gpu", "--toy", "--repeats", "1", "--out", sys.argv[1]]))
"""


def test_training_is_measured_where_there_is_neither_ray_nor_mlflow(tmp_path: Path) -> None:
    import torch

    out = tmp_path / "results.json"
    done = subprocess.run([sys.executable, "-c", WITHOUT, str(out)], cwd=ROOT, capture_output=True, text=True)
    if torch.cuda.is_available():
        assert (done.returncode, set(report.read(out))) == (0, {"training", "training-gpu"}), done.stderr
    else:
        assert (done.returncode, set(report.read(out))) == (2, {"training"}), done.stderr
        assert "training-gpu: not measured" in done.stdout
