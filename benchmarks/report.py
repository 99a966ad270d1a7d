"""The file of results, and the tables that are made of it and of nothing else."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

from benchmarks.machine import load_average, machine, versions
from benchmarks.measure import Outcome
from benchmarks.registry import BENCHMARKS

RESULTS = Path(__file__).resolve().parent / "results.json"

Results = dict[str, dict[str, Any]]


def read(path: Path) -> Results:
    """Benchmark -> its entry, in the registry's order; empty where there is no file."""
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return {name: found[name] for name in BENCHMARKS if name in found}


def merge(
    path: Path, name: str, outcome: Outcome, *, load_before: float, seconds: float, fewer_because: str = ""
) -> Results:
    """Put a benchmark's outcome in the place of its last one: the whole file, as it then is."""
    entry = {
        "what": BENCHMARKS[name].what,
        "setup": outcome.setup,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine(),
        "versions": versions(),
        "load_average": {"before": load_before, "after": load_average()},
        "seconds": round(seconds),
        "figures": {key: figure.to_dict(fewer_because=fewer_because) for key, figure in outcome.figures.items()},
    }
    results = {
        known: entry if known == name else read(path)[known]
        for known in BENCHMARKS
        if known == name or known in read(path)
    }
    path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return results


def markdown(results: Results) -> str:
    """Every figure of every benchmark; of one that has a page of its own, that page."""
    lines = ["| benchmark | what | median (range) | target | met |", "|---|---|---|---|---|"]
    for name, benchmark in BENCHMARKS.items():
        if name not in results or benchmark.page:
            said = f"`{benchmark.page}`" if name in results else "not measured"
            lines.append(f"| `{name}` | {benchmark.what} | {said} | | |")
            continue
        for figure in results[name]["figures"].values():
            judged = "|" if figure["target"] is None else f"{_target(figure)} | {'yes' if figure['met'] else '**no**'}"
            lines.append(f"| `{name}` | {figure['what']} | {_measured(figure)} | {judged} |")
    return "\n".join([*lines, "", *where(results)])


def plain(results: Results, names: list[str]) -> str:
    """Every figure of these benchmarks with its parts, for a terminal."""
    lines = []
    for name in names:
        entry = results[name]
        lines.append(f"{name}: {entry['setup']}")
        for key, figure in entry["figures"].items():
            wanted = f", wanted {_target(figure)}: {'met' if figure['met'] else 'NOT met'}" if figure["target"] else ""
            lines.append(f"  {key:<22} {_measured(figure)}{wanted}")
            lines += [f"      {part}: {_range(spread)}" for part, spread in figure["parts"].items()]
    return "\n".join(lines)


def _measured(figure: dict[str, Any]) -> str:
    repeats = "" if figure["repeats"] >= 5 else f", {figure['repeats']} repeats"
    unit = "" if figure["unit"] == "ratio" else f" {figure['unit']}"
    return f"{_range(figure)}{unit}{repeats}"


def _range(spread: dict[str, Any]) -> str:
    return f"{_short(spread['median'])} ({_short(spread['min'])} – {_short(spread['max'])})"


def _short(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def _target(figure: dict[str, Any]) -> str:
    ((side, limit),) = figure["target"].items()
    unit = "" if figure["unit"] == "ratio" else f" {figure['unit']}"
    return f"{'≥' if side == 'at_least' else '≤'} {limit:g}{unit}"


def where(results: Results) -> list[str]:
    """One line for each machine and date, in Markdown."""
    places: dict[str, list[str]] = {}
    loads: dict[str, list[float]] = {}
    for name, entry in results.items():
        facts = entry["machine"]
        parts = (facts["cpu"], f"{facts['cores']} cores", f"{facts['memory_gb']:g} GB", facts["gpu"] or "no GPU")
        place = f"{', '.join(parts)}; {entry['date']}"
        places.setdefault(place, []).append(f"`{name}`")
        loads.setdefault(place, []).extend(entry["load_average"].values())
    return [
        f"{', '.join(names)}: {place}; load average {min(loads[place]):.1f} to {max(loads[place]):.1f}."
        for place, names in places.items()
    ]
