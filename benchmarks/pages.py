"""The tables that pages quote from the file of results, and their way into the pages.

A page has a pair of comments, `<!-- NAME -->` and `<!-- /NAME -->`; what stands between them is the table's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks import abstain, comparisons, controls, coverage, heavy, no_generator, open_set, published
from benchmarks.gpu import table as gpu_table
from benchmarks.packing import FULL, name_of
from benchmarks.report import Results, markdown, where
from data.conditions import SETS
from grid.experiments.dolos import dolos
from grid.tasks import DETECTION
from models.open_set import UNKNOWN_SCORES
from models.registry import detector_info

CARDS_GB = (24, 40, 80)
NEIGHBOURS = FULL.neighbours
NOT_MEASURED = "not measured"


# Column -> options of `published.images`.
EXPERIMENTS: dict[str, dict[str, Any]] = {
    "one seed": {"seeds": [0]},
    "seeds 0, 1, 2": {},
    "one seed, 12 conditions": {"seeds": [0], "conditions": len(SETS["robustness"])},
    "leave-one-out, one seed": {"seeds": [0], "tasks": [DETECTION], "train_on": "each,all-but-one"},
}


@dataclass(frozen=True)
class Instance:
    """A kind of machine that can be rented.

    Attributes:
        name: the cloud's.
        gpu: its GPU, in words.
        words: what torch's name of that GPU has among its words, and that of no other.
        number: of GPUs.
        peaks: precision -> dense matrix products of one GPU, in 1e12 operations per second, by NVIDIA's data sheet:
            "mixed" 16 bits on tensor cores, "tf32" (absent: the GPU has none), "full" 32 bits.
    """

    name: str
    gpu: str
    words: frozenset[str]
    number: int
    peaks: Mapping[str, float]


# Data sheets: T4 (2019), L4 (2023), A100 (2020), H100 SXM (2023); where they give a value with sparsity, half of it.
INSTANCES = (
    Instance("AWS g4dn.12xlarge", "T4", frozenset({"T4"}), 4, {"mixed": 65, "full": 8.1}),
    Instance("Google g2-standard-48", "L4", frozenset({"L4"}), 4, {"mixed": 121, "tf32": 60, "full": 30.3}),
    Instance("AWS p4d.24xlarge", "A100 SXM", frozenset({"A100", "SXM4"}), 8, {"mixed": 312, "tf32": 156, "full": 19.5}),
    Instance("AWS p5.48xlarge", "H100 SXM", frozenset({"H100", "HBM3"}), 8, {"mixed": 989, "tf32": 495, "full": 67}),
)


# docs/performance.md -------------------------------------------------------------------------------------------------


def packing(results: Results) -> str:
    """Shares, memory and throughput of every registered method of the published experiment."""
    head = [
        "method",
        "share of a GPU",
        "trials on one GPU at once",
        "memory a trial takes",
        *(f"fit on {card} GB" for card in CARDS_GB),
        f"images/s of {', '.join(map(str, NEIGHBOURS))} at once",
    ]
    rows = []
    for method, methods in heavy.alike().items():
        share = detector_info(method).gpu_share
        cells = [", ".join(f"`{one}`" for one in methods), f"{share:g}", f"{1 / share:g}" if share else "any number"]
        if not share:
            rows.append([*cells, "none", *("any number" for _ in CARDS_GB), "no GPU"])
            continue
        memory = _packed(results, f"{method} memory")
        cells += [NOT_MEASURED if memory is None else f"{memory:.1f} GB"]
        cells += [NOT_MEASURED if memory is None else f"{int(card // memory)}" for card in CARDS_GB]
        rows.append([*cells, _throughputs(results, method)])
    return _table(head, rows, results, "packing", _on_a_card(results))


def _throughputs(results: Results, method: str) -> str:
    """Of one to four at once, the highest in bold; a dash where so many did not fit, or were not tried."""
    rates, best = _rates(results, method)
    if best is None:
        return NOT_MEASURED
    return ", ".join("–" if rate is None else f"**{_rate(rate)}**" if rate == best else _rate(rate) for rate in rates)


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def on_a_gpu(_: Results) -> str:
    """What benchmarks/gpu.sh found, from its own file."""
    return gpu_table.markdown(gpu_table.read())


# docs/cost.md --------------------------------------------------------------------------------------------------------


def arithmetic(results: Results) -> str:
    """Images and arithmetic of the whole experiment."""
    head = ["method", "trained on", "scored", "encoded", "arithmetic per image", "in all"]
    rows = []
    for alike, method in _methods():
        count = published.images(method)
        numbers = [f"{number:,}" if number else "" for number in (count.trained, count.scored, count.encoded)]
        total = total_pflop(results, alike)
        if not heavy.uses_gpu(method):
            each, whole = "not counted: no network", ""
        elif total is None:
            each = whole = NOT_MEASURED
        else:
            each, whole = f"{_median(results, 'cost', f'{alike} arithmetic'):.4g} GFLOP", f"{total:.3g} PFLOP"
            if count.scored:
                each += f", scored {_scored(results, alike):.4g}"
        rows.append([f"`{method}`", *numbers, each, whole])
    return _table(head, rows, results, "cost")


def on_cpus(results: Results) -> str:
    """Core-hours of the whole experiment on the CPU that the benchmark ran on."""
    head = ["method", "images/s", "core-seconds per image", "core-hours in all"]
    rows = []
    for alike, method in _methods():
        seconds = _median(results, "cost", f"{alike} time")
        cells = [NOT_MEASURED] * 3
        if seconds is not None:
            ((cores, rate),) = results["cost"]["figures"][f"{alike} time"]["parts"].items()
            hours = seconds * steps(results, alike) / 3600
            cells = [f"{rate['median']:.3g} {cores.partition(',')[0]}", f"{seconds:.3g}", f"{hours:,.3g}"]
        rows.append([f"`{method}`", *cells])
    return _table(head, rows, results, "cost")


def on_gpus(results: Results) -> str:
    """GPU-hours of the whole experiment: as measured, or the bound below them."""
    methods = [(alike, method) for alike, method in _methods() if heavy.uses_gpu(method)]
    head = ["machine", "GPUs", "peak of one", *(f"`{method}`" for _, method in methods)]
    rows = []
    for machine in INSTANCES:
        cells = [machine.name, f"{machine.number} × {machine.gpu}", _peaks(machine)]
        for alike, _ in methods:
            total, hours = total_pflop(results, alike), gpu_hours(results, alike, machine)
            cells.append(f"{NOT_MEASURED if hours is None else f'{hours:.3g} h'}; {_bounds(alike, total, machine)}")
        rows.append(cells)
    return _table(head, rows, results, "packing")


def on_one_gpu(results: Results) -> str:
    """Minutes of one GPU for experiments on the data set's images, at the throughput that benchmarks/gpu.sh found."""
    content = gpu_table.read()
    if not content:
        return gpu_table.NOT_MEASURED
    head = ["method", "precision", "images/s", *EXPERIMENTS]
    rows, sums = [], {precision: [0.0] * len(EXPERIMENTS) for precision in ("full", "tf32", "mixed")}
    for alike, method in _methods():
        if not heavy.uses_gpu(method):
            continue
        for precision in (str(heavy.settings(method)["precision"]),) if heavy.trains(method) else sums:
            if heavy.trains(method):
                rate = _rates(results, alike)[1]
            else:
                rate = gpu_table.found(content, "encoders", f"{alike}, {precision}: images/s from * files*")
            if not isinstance(rate, float):
                return NOT_MEASURED
            minutes = [steps(results, method, **options) / rate / 60 for options in EXPERIMENTS.values()]
            rows.append([f"`{method}`", precision, f"{rate:,.0f}", *(f"{one:.1f}" for one in minutes)])
            for which in sums if heavy.trains(method) else [precision]:
                sums[which] = [before + one for before, one in zip(sums[which], minutes, strict=True)]
    for precision, total in sums.items():
        rows.append(["all", f"frozen encoders: {precision}", "", *(f"**{one:.1f}**" for one in total)])
    return _with_place(head, rows, [f"`benchmarks/gpu.sh encoders at-once`: {gpu_table.place(content)}"])


def _peaks(machine: Instance) -> str:
    return ", ".join(f"{precision} {peak:g}" for precision, peak in machine.peaks.items()) + " TFLOPS"


def _bounds(method: str, total: float | None, machine: Instance) -> str:
    """Hours at the peak: at the method's own precision first, and at the faster ones of a frozen encoder."""
    if total is None:
        return "bound not counted yet"
    own = str(heavy.settings(method)["precision"])
    precisions = [own] if heavy.trains(method) else [own, *(one for one in ("tf32", "mixed") if one != own)]
    hours = {one: f"{1e3 * total / machine.peaks[one] / 3600:.2g} h" for one in precisions if one in machine.peaks}
    return f"bound {hours.pop(own)}" + "".join(f", {one} {text}" for one, text in hours.items())


def total_pflop(results: Results, method: str) -> float | None:
    """Arithmetic of the whole experiment for one method, in 1e15 operations; None: not counted yet."""
    each = _median(results, "cost", f"{method} arithmetic")
    return None if each is None else each * steps(results, method) / 1e6


def steps(results: Results, method: str, **options: Any) -> float:
    """Images trained on or encoded, and those scored at their part of a training step's arithmetic.

    `options` are those of `published.images`.
    """
    count = published.images(method, **options)
    if not count.scored:
        return count.encoded
    alike = next(one for one, methods in heavy.alike().items() if method in methods)
    each = _median(results, "cost", f"{alike} arithmetic")
    assert each is not None
    return count.trained + count.scored * _scored(results, alike) / each


def gpu_hours(results: Results, method: str, machine: Instance) -> float | None:
    """Hours of one GPU at the best throughput that was measured on it; None: none was, on such a GPU."""
    if "packing" not in results or "cost" not in results:
        return None
    if not machine.words <= set(re.split(r"[\s-]+", results["packing"]["machine"]["gpu"] or "")):
        return None
    _, best = _rates(results, method)
    return None if best is None else steps(results, method) / best / 3600


def _rates(results: Results, method: str) -> tuple[list[float | None], float | None]:
    """Images per second of one, two, … trials at once, None where so many do not fit; and the highest of them."""
    rates = [_packed(results, name_of(method, number)) for number in NEIGHBOURS]
    return rates, max((rate for rate in rates if rate is not None), default=None)


def _packed(results: Results, key: str) -> float | None:
    """A figure of `packing`; where that was not measured, what benchmarks/gpu.sh found of the same."""
    if "packing" in results:
        return _median(results, "packing", key)
    name = f"{key.removesuffix(' memory')}, GB that one trial holds" if key.endswith(" memory") else f"{key}, images/s*"
    value = gpu_table.found(gpu_table.read(), "at-once", name)
    return value if isinstance(value, float) else None


def _on_a_card(results: Results) -> str:
    """Where benchmarks/gpu.sh ran, if its findings stand for `packing`'s; else nothing."""
    content = gpu_table.read()
    return f"`benchmarks/gpu.sh at-once`: {gpu_table.place(content)}" if content and "packing" not in results else ""


def _methods() -> list[tuple[str, str]]:
    """(the method whose figures hold, the method) for each of the experiment."""
    same = {one: method for method, methods in heavy.alike().items() for one in methods}
    return [(same[method], method) for method in dolos.methods]


def _scored(results: Results, method: str) -> float:
    return float(results["cost"]["figures"][f"{method} arithmetic"]["parts"]["scored, GFLOP"]["median"])


def _median(results: Results, name: str, key: str) -> float | None:
    figure = results.get(name, {}).get("figures", {}).get(key)
    return None if figure is None else float(figure["median"])


def _table(head: list[str], rows: list[list[str]], results: Results, name: str, place: str = "") -> str:
    said = where({name: results[name]}) if name in results else [place or f"`{name}`: {NOT_MEASURED} yet."]
    return _with_place(head, rows, said)


def _with_place(head: list[str], rows: list[list[str]], place: list[str]) -> str:
    """A table in Markdown, and below it where its values were measured."""
    return "\n".join([*(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)), "", *place])


# docs/numbers.md -----------------------------------------------------------------------------------------------------


def held(results: Results) -> str:
    """The share of intervals that hold the truth, per case and quantity: the median over repeats."""
    head = ["AUROC", "photographs", "correlation", *(f"{name}" for name in coverage.QUANTITIES)]
    rows = []
    for case in coverage.FULL:
        shares = [
            results["coverage"]["figures"][name]["parts"][f"{case}, share"]["median"] if "coverage" in results else None
            for name in coverage.QUANTITIES
        ]
        cells = [NOT_MEASURED if share is None else f"{share:.3f}" for share in shares]
        rows.append([f"{case.auroc:g}", f"{case.num_photographs}", f"{case.correlation:g}", *cells])
    return _table(head, rows, results, "coverage")


def rejections(results: Results) -> str:
    """The share of comparisons that are wrong, per case: the median over repeats."""
    what = [(metric, known) for metric in comparisons.METRICS for known in (comparisons.ONE, comparisons.FOUR)]
    what += [(metric, comparisons.WITHOUT) for metric in comparisons.METRICS]
    head = ["deviation by seeds", "photographs", *(f"{metric}, {known}" for metric, known in what)]
    rows = []
    for case in comparisons.FULL:
        shares = [
            results["comparisons"]["figures"][f"{metric}, {known}"]["parts"][f"{case}, share"]["median"]
            if "comparisons" in results
            else None
            for metric, known in what
        ]
        cells = [NOT_MEASURED if share is None else f"{share:.3f}" for share in shares]
        rows.append([f"{case.deviation:g}", f"{case.num_photographs}", *cells])
    return _table(head, rows, results, "comparisons")


def other_seeds(results: Results) -> str:
    """How often a held-out seed is inside, and how wide the interval is."""
    head = ["what", "value", "wanted"]
    figures = results.get("seeds", {}).get("figures", {})
    rows = [[figure["what"], f"{figure['median']:.3g}", _wanted(figure["target"])] for figure in figures.values()]
    return _table(head, rows, results, "seeds")


def _wanted(target: Mapping[str, float] | None) -> str:
    if target is None:
        return ""
    return f"{target['at_least']:g} or more" if "at_least" in target else f"{target['at_most']:g} or less"


# docs/believe/thresholds.md -----------------------------------------------------------------------------------------


def no_verdict(results: Results) -> str:
    """Per kind of picture: what is flagged of pictures that are known, and who is not accused of the others."""
    columns = [(data, method) for data in (abstain.DEMO, abstain.REAL_FACES) for method in abstain.METHODS]
    head = ["pictures", "share", *(f"{data}, `{method}`" for data, method in columns)]
    rows = []
    for number, kind in enumerate(abstain.KINDS):
        shares = [_median(results, "abstain", f"{data}, {method}, {kind}") for data, method in columns]
        cells = [NOT_MEASURED if share is None else f"{share:.2f}" for share in shares]
        rows.append([kind, "no verdict" if number < abstain.NUM_KNOWN else "not accused", *cells])
    return _table(head, rows, results, "abstain")


# docs/believe/open-set.md ---------------------------------------------------------------------------------------------


def unknown(results: Results) -> str:
    """AUROC of unknown against known images by each score: the median over repeats, and the range of several."""
    columns = [*UNKNOWN_SCORES, "accuracy", open_set.LANDED]
    words = [score.words for score in UNKNOWN_SCORES.values()]
    head = ["images", "method", "left out", *words, "accuracy on known", "called real"]
    rows = []
    for name, figure in results.get("open-set", {}).get("figures", {}).items():
        data, method = name.split(", ")
        for left_out in dict.fromkeys(part.partition(":")[0] for part in figure["parts"]):
            parts = [figure["parts"][open_set.part_name(left_out, column)] for column in columns]
            rows.append([data, f"`{method}`", left_out, *map(_spread, parts)])
    return _table(head, rows, results, "open-set")


def _spread(part: Mapping[str, float]) -> str:
    if part["min"] == part["max"]:
        return f"{part['median']:.3f}"
    return f"{part['median']:.3f} ({part['min']:.3f}–{part['max']:.3f})"


# docs/methods.md -----------------------------------------------------------------------------------------------------


def without_generator(results: Results) -> str:
    """Every value of the methods without a generator, one row per quantity and one column per generator."""
    figures = results.get("no-generator", {}).get("figures", {})
    generators = list(next(iter(figures.values()))["parts"]) if figures else []
    rows = []
    for name, figure in figures.items():
        method, _, what = name.partition(": ")
        if what == no_generator.JPEG_ALL:
            continue  # the mean of the row before it, which has its own target
        parts = [_spread(figure["parts"][one]) if one in figure["parts"] else "" for one in generators]
        if not any(parts):
            parts[0] = f"{figure['median']:.3g} {figure['unit']}"
        wanted = _judged(figure)
        if what == no_generator.JPEG_LOWEST:
            mean = figures[f"{method}: {no_generator.JPEG_ALL}"]
            wanted = f"{wanted}; mean {_judged(mean)}" if wanted else ""
        rows.append([f"`{method}`", what.removeprefix("lowest "), *parts, wanted])
    return _table(["method", "what", *generators, "wanted"], rows, results, "no-generator")


def _judged(figure: Mapping[str, Any]) -> str:
    """The target of a figure with its answer; empty without one."""
    if figure["target"] is None:
        return ""
    ((side, limit),) = figure["target"].items()
    return f"{'≥' if side == 'at_least' else '≤'} {limit:g}: {'met' if figure['met'] else '**not met**'}"


# docs/believe/controls.md --------------------------------------------------------------------------------------------


def at_chance(results: Results) -> str:
    """The share of 99 % intervals that leave out chance, per rule: the largest of the cases; and of trials."""
    rows = []
    for name in (*controls.RULES, controls.OVER_IMAGES, "demo"):
        share = _median(results, "controls", name)
        words = "trials of both controls on the demo" if name == "demo" else f"simulation: {name}"
        rows.append([words, NOT_MEASURED if share is None else f"{share:.3f}"])
    return _table(["99 % intervals that leave out .5", "share"], rows, results, "controls")


# Into the pages ------------------------------------------------------------------------------------------------------

TABLES: dict[str, dict[str, Callable[[Results], str]]] = {
    "docs/performance.md": {"packing": packing, "gpu": on_a_gpu, "measured": markdown},
    "docs/cost.md": {
        "cost-arithmetic": arithmetic,
        "cost-cpu": on_cpus,
        "cost-one-gpu": on_one_gpu,
        "cost-gpu": on_gpus,
    },
    "docs/numbers.md": {"coverage": held, "comparisons": rejections, "seeds": other_seeds},
    "docs/believe/thresholds.md": {"abstain": no_verdict},
    "docs/believe/open-set.md": {"open-set": unknown},
    "docs/methods.md": {"no-generator": without_generator},
    "docs/believe/controls.md": {"controls": at_chance},
}


def with_tables(text: str, page: str, results: Results) -> str:
    """The text of a page of `TABLES` with its tables made anew.

    Raises:
        ValueError: the text has no place for one of them.
    """
    for name, table in TABLES[page].items():
        begin, end = f"<!-- {name} -->\n\n", f"\n\n<!-- /{name} -->"
        before, found, rest = text.partition(begin)
        _, found_end, after = rest.partition(end)
        if not found or not found_end:
            raise ValueError(f"{page} has no place <!-- {name} --> … <!-- /{name} -->")
        text = before + begin + table(results) + end + after
    return text
