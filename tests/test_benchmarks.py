"""The committed figures: complete, honest about their targets, and the ones that the pages quote. And toy runs."""

from __future__ import annotations

import importlib
import json
import math
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import abstain, cost, coverage, heavy, packing, pages, published, report, scale_data
from benchmarks.gpu import table as gpu_table
from benchmarks.machine import load_average
from benchmarks.measure import Measured, NotHereError, Outcome, Target, in_new_process, interleave
from benchmarks.registry import BENCHMARKS
from models.backbones.base import Backbone
from models.open_set import UNKNOWN_SCORES

ROOT = Path(__file__).resolve().parents[1]
RESULTS = report.read(report.RESULTS)
FIGURES = [
    pytest.param(figure, id=f"{name}-{key}")
    for name, entry in RESULTS.items()
    for key, figure in entry["figures"].items()
]
EVERYWHERE = [name for name, benchmark in BENCHMARKS.items() if not benchmark.needs_gpu]

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


@pytest.mark.parametrize("page", pages.TABLES)
def test_a_page_quotes_the_file(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert text == pages.with_tables(text, page, RESULTS), "run: python -m benchmarks --tables"


def test_a_benchmark_with_a_page_of_its_own_is_quoted_there() -> None:
    assert {one.page for one in BENCHMARKS.values() if one.page} == set(pages.TABLES)


def test_the_folder_says_what_each_measures() -> None:
    text = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    assert [name for name in BENCHMARKS if f"| `{name}` |" not in text] == []


# The machinery ------------------------------------------------------------------------------------------------------


def figure(*values: float, target: Target | None = None) -> dict[str, Any]:
    return Measured("something", "ratio", values, target, {"one side, s": values}).to_dict()


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
        outcome = Outcome("so", {"it": Measured("it", "s", [value] * 5, Target(2.0))})
        report.merge(tmp_path / "r.json", name, outcome, load_before=load_average(), seconds=1.0)

    put("ray", 1.0)
    put("training", 1.0)
    put("ray", 3.0)
    report.merge(
        tmp_path / "r.json",
        "nodes",
        Outcome("so", {"so": Measured("untold", "GB", [5.0])}),
        load_before=0.0,
        seconds=1.0,
    )
    results = report.read(tmp_path / "r.json")
    assert list(results) == ["training", "ray", "nodes"]
    assert results["ray"]["figures"]["it"]["met"] is False
    table = report.markdown(results)
    assert "| `ray` | it | 3 (3 – 3) s | ≤ 2 s | **no** |" in table
    assert "| `training` | it | 1 (1 – 1) s | ≤ 2 s | yes |" in table
    assert "| `nodes` | untold | 5 (5 – 5) GB, 1 repeats | | |" in table
    assert f"| `frozen` | {BENCHMARKS['frozen'].what} | not measured | | |" in table


@pytest.mark.parametrize(
    "options", [["nonsense"], ["--repeats", "2"], ["--toy"], ["--repeats", "0"], ["--tables", "--out", "other.json"]]
)
def test_what_does_not_belong_into_the_file_is_refused(options: list[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(options)


def test_figures_on_a_page_of_their_own_are_not_in_the_table(tmp_path: Path) -> None:
    outcome = Outcome("so", {"it": Measured("a figure", "GFLOP", [1.0], fewer_because="exact")})
    results = report.merge(tmp_path / "r.json", "cost", outcome, load_before=0.0, seconds=1.0, fewer_because="late")
    assert results["cost"]["figures"]["it"]["fewer_because"] == "exact"
    assert f"| `cost` | {BENCHMARKS['cost'].what} | `docs/cost.md` | | |" in report.markdown(results)
    assert "a figure" not in report.markdown(results)


# Pages --------------------------------------------------------------------------------------------------------------


def made_up(gpu: str) -> report.Results:
    """Figures that can be reckoned with in one's head."""
    packed: dict[str, float] = {"xception_scratch memory": 10.5}
    packed |= {f"xception_scratch × {number}": rate for number, rate in [(1, 100.0), (2, 150.0), (3, 120.0)]}
    figures = {
        "packing": {key: Measured(key, "", [value] * 5).to_dict() for key, value in packed.items()},
        "cost": {
            "xception_scratch arithmetic": Measured("", "GFLOP", [60.0], parts={"scored, GFLOP": [20.0]}).to_dict(),
            "clip_linear arithmetic": Measured("", "GFLOP", [100.0]).to_dict(),
            "clip_linear time": Measured("", "core-s", [2.0] * 5, parts={"on 2 cores, images/s": [1.0] * 5}).to_dict(),
        },
        "abstain": {
            f"{data}, {method}, {kind}": Measured(kind, "ratio", [0.125]).to_dict()
            for data in (abstain.DEMO, abstain.REAL_FACES)
            for method in abstain.METHODS
            for kind in abstain.KINDS
        },
        "coverage": {
            name: Measured(name, "ratio", [0.9], parts={f"{case}, share": [0.9] for case in coverage.FULL}).to_dict()
            for name in coverage.QUANTITIES
        },
        "open-set": {
            "demo, xception_pretrained": Measured(
                "",
                "generators",
                [1.0, 2.0, 2.0],
                parts={f"renoise: {name}": [0.25, 0.5, 0.75] for name in [*UNKNOWN_SCORES, "accuracy", "called real"]},
            ).to_dict()
        },
        "no-generator": {
            "self_edited_windows: lowest AUROC": Measured(
                "", "AUROC", [0.75], Target(0.97, at_least=True), {"lama": [0.75], "ldm": [1.0]}
            ).to_dict()
        },
        "controls": {"swap": Measured("", "ratio", [0.012]).to_dict(), "demo": Measured("", "ratio", [0.0]).to_dict()},
    }
    place = {"cpu": "a CPU", "cores": 2, "memory_gb": 8.0, "gpu": gpu, "system": "Linux"}
    return {
        name: {
            "machine": place,
            "date": "2026-01-01",
            "load_average": {"before": 0.0, "after": 0.0},
            "figures": found,
        }
        for name, found in figures.items()
    }


def row(table: str, first: str) -> list[str]:
    (found,) = [line for line in table.splitlines() if line.startswith(f"| {first}")]
    return found.strip("| ").split(" | ")


def test_the_open_set_has_a_row_per_left_out_generator_with_the_range_of_several_seeds() -> None:
    cells = row(pages.unknown(made_up("NVIDIA L4")), "demo")
    assert cells == ["demo", "`xception_pretrained`", "renoise", *["0.500 (0.250–0.750)"] * 6]


def test_methods_without_a_generator_have_a_row_per_quantity_with_what_was_wanted() -> None:
    cells = row(pages.without_generator(made_up("NVIDIA L4")), "`self_edited_windows`")
    assert cells == ["`self_edited_windows`", "AUROC", "0.750", "1.000", "≥ 0.97: **not met**"]


def test_how_often_controls_are_off_chance() -> None:
    table = pages.at_chance(made_up("NVIDIA L4"))
    assert row(table, "simulation: swap |")[1] == "0.012"
    assert row(table, "simulation: per image")[1] == "not measured"
    assert row(table, "trials of both controls on the demo")[1] == "0.000"


def test_how_many_trials_a_card_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    table = pages.packing(made_up("NVIDIA L4"))
    cells = row(table, "`xception_scratch`, `xception_pretrained`")
    assert cells[3:] == ["10.5 GB", "2", "3", "7", "100, **150**, –"]
    assert row(table, "`clip_linear`")[3] == "not measured"
    assert row(table, "`residual_linear`")[3:] == ["none", *["any number"] * 3, "no GPU"]
    assert "NVIDIA L4" in table
    monkeypatch.setattr(gpu_table, "read", dict)
    assert row(pages.packing({}), "`xception_scratch`")[3:] == ["not measured"] * 5
    assert pages.on_one_gpu({}) == gpu_table.NOT_MEASURED
    monkeypatch.setattr(gpu_table, "read", found_on_a_card)
    cells = row(pages.packing({}), "`xception_scratch`, `xception_pretrained`")
    assert cells[3:] == ["10.0 GB", "2", "4", "8", "300, **600**, –"]


def found_on_a_card() -> dict[str, Any]:
    """What benchmarks/gpu.sh might find: one trial of the Xceptions trains 300 images a second, two 600."""
    alone = {"xception_scratch × 1, images/s of all": 300.0, "xception_scratch × 2, images/s of all": 600.0}
    encoders = {f"{method}, {precision}: images/s from {number} files, without the first quarter": rate
                for method, number in (("clip_linear", 900), ("sam_linear", 90))
                for precision, rate in (("full", 100.0), ("tf32", 150.0), ("mixed", 300.0))}  # fmt: skip
    encoders = {"clip_linear, full: images/s from pixels in memory": 999.0, **encoders}
    checks = {"at-once": {**alone, "xception_scratch, GB that one trial holds": 10.0}, "encoders": encoders}
    return {
        "toy": False,
        "versions": {"torch": "2"},
        "checks": {
            check: {
                "date": "2026-01-01",
                "state": "done",
                "what": check,
                "findings": [{"name": name, "value": value} for name, value in values.items()],
            }
            for check, values in checks.items()
        },
    }


def test_minutes_of_one_card_follow_from_images_and_throughput(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_table, "read", found_on_a_card)
    results = made_up("NVIDIA L4")  # scoring takes a third of a training step's arithmetic
    del results["packing"]
    table = pages.on_one_gpu(results)
    # 117,000 images trained on with one seed, 69,400 scored; each of twelve conditions scores 4,500 more in five trials
    seed = (117_000 + 69_400 / 3) / 600 / 60
    conditions = seed + 12 * 5 * 4_500 / 3 / 600 / 60
    # each and all but one: 4 × 18,000 and 4 × 36,000 images; of 1 or 3 generators and the reals, 2 × 1,800 or 2 × 3,600
    scored = 4 * (3_600 + 7_200) + 8 * (4_500 + 4_500 + 2_500)
    left_out = (4 * 18_000 + 4 * 36_000 + scored / 3) / 600 / 60
    wanted = [f"{minutes:.1f}" for minutes in (seed, 3 * seed, conditions, left_out)]
    assert row(table, "`xception_pretrained`") == ["`xception_pretrained`", "mixed", "600", *wanted]
    encoded = [54_000 / 300 / 60, 54_000 / 300 / 60, 108_000 / 300 / 60, 54_000 / 300 / 60]
    assert row(table, "`clip_linear` | mixed")[3:] == [f"{minutes:.1f}" for minutes in encoded]
    assert row(table, "`clip_linear` | full")[2] == "100"  # from files, not from memory
    both = 2 * seed + 2 * encoded[0]
    assert row(table, "all | frozen encoders: mixed")[3] == f"**{both:.1f}**"


def test_images_of_the_published_experiment() -> None:
    trained = 4 * 18_000 + 45_000
    scored = 4 * (2 * 1_800 + 4_500 + 4_500 + 2_500) + 4_500 + 4_500
    assert published.images("xception_pretrained") == published.Images(3 * trained, 3 * scored)  # three seeds
    assert published.images("sam_linear") == published.Images(encoded=54_000)


def test_cost_follows_from_images_and_figures() -> None:
    results = made_up("NVIDIA L4")
    steps = 351_000 + 208_200 / 3
    assert pages.total_pflop(results, "xception_scratch") == pytest.approx(steps * 60e9 / 1e15)
    assert row(pages.arithmetic(results), "`xception_pretrained`")[1:3] == ["351,000", "208,200"]
    assert row(pages.arithmetic(results), "`clip_linear`")[-1] == "5.4 PFLOP"
    assert row(pages.on_cpus(results), "`clip_linear`")[1:] == ["1 on 2 cores", "2", "30"]
    assert row(pages.on_cpus(results), "`xception_scratch`")[1:] == ["not measured"] * 3
    hours = row(pages.on_gpus(results), "Google g2-standard-48")
    assert hours[3] == f"{steps / 150 / 3600:.3g} h; bound {steps * 60e9 / 121e12 / 3600:.2g} h"
    bounds = {precision: f"{5.4e15 / peak / 3600:.2g} h" for precision, peak in (("full", 30.3e12), ("tf32", 60e12))}
    bounds["mixed"] = f"{5.4e15 / 121e12 / 3600:.2g} h"
    assert hours[5] == f"not measured; bound {bounds['full']}, tf32 {bounds['tf32']}, mixed {bounds['mixed']}"
    of_t4 = row(pages.on_gpus(results), "AWS g4dn.12xlarge")
    assert of_t4[2] == "mixed 65, full 8.1 TFLOPS"
    assert of_t4[3].startswith("not measured; bound ")
    assert "tf32" not in of_t4[5]  # it has none


@pytest.mark.parametrize(
    ("gpu", "found"),
    [
        ("Tesla T4", "T4"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40S", ""),
        ("NVIDIA A100-SXM4-40GB", "A100 SXM"),
        ("NVIDIA A100-PCIE-40GB", ""),
        ("NVIDIA H100 80GB HBM3", "H100 SXM"),
        ("NVIDIA H100 PCIe", ""),
    ],
)
def test_hours_are_given_for_the_gpu_that_was_measured_and_no_other(gpu: str, found: str) -> None:
    results = made_up(gpu)
    given = [one.gpu for one in pages.INSTANCES if pages.gpu_hours(results, "xception_scratch", one) is not None]
    assert given == ([found] if found else [])


@pytest.mark.parametrize("page", pages.TABLES)
def test_tables_are_put_into_their_pages(page: str) -> None:
    results = {**RESULTS, **made_up("NVIDIA L4")}
    old = (ROOT / page).read_text(encoding="utf-8")
    new = pages.with_tables(old, page, results)
    assert new != old
    for table in pages.TABLES[page].values():
        assert table(results) in new
    assert pages.with_tables(new, page, RESULTS) == old
    with pytest.raises(ValueError, match="no place"):
        pages.with_tables("a page", page, results)


# What is measured ---------------------------------------------------------------------------------------------------


def test_methods_that_differ_in_weights_alone_are_measured_once() -> None:
    assert list(heavy.alike().values()) == [
        ["xception_scratch", "xception_pretrained"],
        ["clip_linear"],
        ["sam_linear"],
        ["residual_linear"],
    ]
    assert list(cost.FULL) == list(heavy.alike())
    assert list(packing.FULL.changes) == [method for method in heavy.alike() if heavy.uses_gpu(method)]


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_operations_of_a_convolution_and_its_gradients(groups: int) -> None:
    layer = torch.nn.Conv2d(6, 12, 3, stride=2, groups=groups, bias=False)
    x = torch.randn(2, 6, 9, 9, requires_grad=True)
    forward = 2 * 2 * (4 * 4) * 12 * (6 // groups) * 9
    assert cost.operations(lambda: layer(x)) == forward
    assert cost.operations(lambda: layer(x).sum().backward()) == 3 * forward
    assert cost.operations(lambda: layer(x.detach()).sum().backward()) == 2 * forward


def test_operations_of_attention_are_counted_without_gradients_too() -> None:
    layer = torch.nn.MultiheadAttention(8, 2, bias=False, batch_first=True).eval().requires_grad_(False)
    x = torch.randn(3, 5, 8)
    products = 3 * 5 * 8 * 8 * 4 + 2 * 3 * 5 * 5 * 8  # three projections in and one out; scores and their sums
    with torch.inference_mode():
        assert cost.operations(lambda: layer(x, x, x, need_weights=False)) == 2 * products


class Alone:
    """A barrier for one."""

    waited = 0
    aborted = False

    def wait(self, timeout: float | None = None) -> int:
        self.waited += 1
        return 0

    def abort(self) -> None:
        self.aborted = True


@pytest.mark.parametrize("when", ["before the others are ready", "later"])
def test_a_neighbour_without_memory_does_not_fit(when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(method: str, config: Any, device: str, num_images: int, go_on: Any) -> bool:
        if when == "later":
            assert go_on()
        raise torch.OutOfMemoryError("out of memory")

    barrier = Alone()
    monkeypatch.setattr(packing.meeting, "barrier", barrier)
    monkeypatch.setattr(heavy, "work", work)
    assert not packing.neighbour("sam_linear", packing.TOY, "cpu", 0.0, 1.0).fits
    assert (barrier.waited, barrier.aborted) == (1, False)


def test_a_neighbour_that_fails_lets_the_others_go(monkeypatch: pytest.MonkeyPatch) -> None:
    barrier = Alone()
    monkeypatch.setattr(packing.meeting, "barrier", barrier)
    monkeypatch.setattr(heavy, "work", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        packing.neighbour("sam_linear", packing.TOY, "cpu", 0.0, 1.0)
    assert barrier.aborted


def test_too_many_neighbours_have_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    def together(method: str, number: int, size: packing.Size, device: str) -> list[packing.Found]:
        return [packing.Found(method != "sam_linear" or number == 1, 2.0, 3.0)] * number

    monkeypatch.setattr(packing, "together", together)
    outcome = packing.run(1, toy=True)
    assert set(outcome.figures) == {
        "xception_scratch memory", "xception_scratch × 1", "xception_scratch × 2", "sam_linear memory", "sam_linear × 1"
    }  # fmt: skip
    assert outcome.figures["xception_scratch × 2"].values == [4.0]
    assert "did not fit: sam_linear × 2" in outcome.setup


def test_halved_batches_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = Backbone.forward

    def two_at_most(self: Backbone, batch: torch.Tensor) -> torch.Tensor:
        if len(batch) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return forward(self, batch)

    config = heavy.settings("sam_linear", packing.TOY.changes["sam_linear"])
    assert heavy.work("sam_linear", config, "cpu", 4, lambda: False)
    monkeypatch.setattr(Backbone, "forward", two_at_most)
    assert not heavy.work("sam_linear", config, "cpu", 4, lambda: False)


# Toys ---------------------------------------------------------------------------------------------------------------


def assert_whole(outcome: Outcome) -> None:
    assert outcome.setup
    assert outcome.figures
    for one in outcome.figures.values():
        assert one.to_dict()["repeats"] == 1
        none_is_best = "leave out .5" in one.what or "outside the 99 % interval" in one.what
        if one.unit == "exponent" or "without its start-up" in one.what:
            assert all(map(math.isfinite, one.values))  # a toy's time says nothing of growth, nor of more than start-up
        else:
            assert min(one.values) > 0 or (none_is_best and min(one.values) == 0)
        assert all(len(values) == 1 for values in one.parts.values())


def in_this_process(module: str, function: str, arguments: dict[str, Any], *, threads: int = 0) -> Any:
    return json.loads(json.dumps(getattr(importlib.import_module(module), function)(**arguments)))


LONG = ("conditions", "growth", "analysis", "controls", "scale-data")


def toys(*names: str) -> list[Any]:
    """Some of these are long: a toy that starts, fits or draws much."""
    return [pytest.param(name, marks=pytest.mark.long) if name in LONG else name for name in names]


@pytest.mark.parametrize(
    "name", toys("frozen", "conditions", "growth", "analysis", "cost", "coverage", "controls", "audit")
)
def test_a_benchmark_runs_at_a_toy_size(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("growth", "analysis_tables"):  # a process of its own is mostly imports
        monkeypatch.setattr(importlib.import_module(f"benchmarks.{module}"), "in_new_process", in_this_process)
    assert_whole(BENCHMARKS[name].load()(1, toy=True))


@pytest.mark.parametrize("name", toys("scale-data", "scale-probe"))
def test_scale_runs_at_a_toy_size(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module(BENCHMARKS[name].module)
    monkeypatch.setattr(module, "in_new_process", in_this_process)  # a process of its own is mostly imports
    assert_whole(BENCHMARKS[name].load()(1, toy=True))


def test_every_benchmark_of_scale_is_registered() -> None:
    """The toy form of `scale-report` runs in test_scale_benchmark.py, that of `scale-ray` with those of processes."""
    modules = {f"benchmarks.{path.stem}" for path in (ROOT / "benchmarks").glob("scale*.py")}
    assert modules - {benchmark.module for benchmark in BENCHMARKS.values()} == {"benchmarks.scale_report"}  # a part


def test_a_growth_exponent_is_the_slope_of_logarithms() -> None:
    assert scale_data.exponent((10, 100, 1000), (3.0, 30.0, 300.0)) == pytest.approx(1)
    assert scale_data.exponent((10, 100, 1000), (1.0, 100.0, 10_000.0)) == pytest.approx(2)


def test_comparisons_are_simulated_at_a_toy_size() -> None:
    outcome = BENCHMARKS["comparisons"].load()(1, toy=True)
    assert len(outcome.figures) == 6
    for name, figure in outcome.figures.items():
        assert 0 <= figure.values[0] <= 0.5
        assert (figure.target is None) == name.endswith("without the seeds")


def test_the_open_set_runs_at_a_toy_size() -> None:
    outcome = BENCHMARKS["open-set"].load()(1, toy=True)
    (figure,) = outcome.figures.values()
    assert 0 <= figure.values[0] <= 4
    assert figure.target == Target(3, at_least=True)
    assert len(figure.parts) == 4 * 6  # left-out generators; four scores, called real, accuracy
    assert all(0 <= value <= 1 for (value,) in figure.parts.values())


def test_the_open_set_at_its_full_size_needs_photographs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRID_REAL_FACES", raising=False)
    with pytest.raises(NotHereError, match="GRID_REAL_FACES names no folder of photographs"):
        BENCHMARKS["open-set"].load()(1)


def test_methods_without_a_generator_run_at_a_toy_size() -> None:
    outcome = BENCHMARKS["no-generator"].load()(1, toy=True)
    aurocs = [figure for figure in outcome.figures.values() if figure.unit == "AUROC" and "pixels" not in figure.what]
    assert len(aurocs) == 3 * 3  # lowest, lowest and mean under JPEG; of three methods
    for figure in aurocs:
        assert len(figure.parts) == 4
        assert all(0 <= value <= 1 for (value,) in figure.parts.values())
    lowest = outcome.figures["self_edited_windows: lowest AUROC"]
    assert lowest.values[0] == min(value for (value,) in lowest.parts.values())
    assert lowest.target == Target(0.97, at_least=True)
    times = [figure for figure in outcome.figures.values() if figure.unit in ("ms", "min")]
    assert len(times) == 2 * 3
    assert min(figure.values[0] for figure in times) > 0


def test_methods_without_a_generator_at_full_size_need_photographs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRID_REAL_FACES", raising=False)
    with pytest.raises(NotHereError, match="GRID_REAL_FACES names no folder of photographs"):
        BENCHMARKS["no-generator"].load()(1)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    "name", ["seeds", "ray", "nodes", "relaunch", "packing", "memory", "scale-tracking", "scale-ray", "report"]
)
def test_a_benchmark_of_several_processes_runs_at_a_toy_size(name: str) -> None:
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
sys.exit(main(["training", "training-gpu", "cost", "--toy", "--repeats", "1", "--out", sys.argv[1]]))
"""


@pytest.mark.long
def test_training_is_measured_where_there_is_neither_ray_nor_mlflow(tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    done = subprocess.run([sys.executable, "-c", WITHOUT, str(out)], cwd=ROOT, capture_output=True, text=True)
    if torch.cuda.is_available():
        assert (done.returncode, set(report.read(out))) == (0, {"training", "training-gpu", "cost"}), done.stderr
    else:
        assert (done.returncode, set(report.read(out))) == (2, {"training", "cost"}), done.stderr
        assert "training-gpu: not measured" in done.stdout
