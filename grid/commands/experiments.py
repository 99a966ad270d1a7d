"""The experiments that can be launched."""

from __future__ import annotations

import argparse
import inspect
from pathlib import Path
from typing import Any

from rich.padding import Padding
from rich.text import Text

from grid.command_line import print_json
from grid.commands import OK, Context, register_command
from grid.experiments import list_experiments, load_experiment
from grid.options import ROOT
from grid.overview import seeds_in_words


def add_options(parser: argparse.ArgumentParser) -> None:
    """The form, and where images that are made would be."""
    parser.add_argument("--runs", type=Path, default=ROOT / "runs", metavar="DIR", help="as of the grid")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="as of the grid; default: RUNS/cache")
    parser.add_argument("--json", action="store_true", help="print JSON, and nothing else")


@register_command("experiments", add_options)
def experiments(options: argparse.Namespace, context: Context) -> int:
    """List the experiments: corpus, methods, tasks, seeds, and what is on this machine already."""
    cache = (options.cache or options.runs / "cache").resolve()
    found = [facts(name, cache) for name in list_experiments()]
    if options.json:
        print_json({"experiments": found})
        return OK
    for each in found:
        data = "needs --data DIR"
        if each["makes_images"]:
            made = "they are there" if each["images_made"] else "not made yet"
            data = f"makes its own images ({made})"
        context.console.print(f"[bold]{each['name']}[/]  {data}", highlight=False)
        _indented(context, str(each["summary"]))
        small = ", small configurations" if each["small"] else ""
        _indented(context, f"methods: {', '.join(each['methods'])}{small}")
        for method, said in each["weights"].items():
            if said:
                _indented(context, f"weights of {method}: {'; '.join(said)}")
        _indented(context, f"tasks: {', '.join(each['tasks'])}; seeds: {seeds_in_words(each['seeds'])}\n")
    return OK


def _indented(context: Context, words: str) -> None:
    context.console.print(Padding(Text(words), (0, 0, 0, 2), expand=False))


def facts(name: str, cache: Path) -> dict[str, Any]:
    """An experiment in plain JSON types; `cache` is the folder in which images are made."""
    from data.sources import get_source
    from models.published import default_config, weights_held
    from models.registry import detector_info

    experiment = load_experiment(name)
    source = get_source(experiment.source)
    weights = {}
    for method, changes in experiment.methods.items():
        small = detector_info(method).small if experiment.small else {}
        config = {**default_config(method), **small, **changes}
        weights[method] = [held.said for held in weights_held(method, config) if held.state != "none"]
    summary = (inspect.getdoc(source.scan) or "").partition("\n")[0]
    return {
        "name": name, "summary": summary, "makes_images": source.drawn is not None,
        "images_made": source.drawn is not None and source.drawn.folder(cache).exists(), "weights": weights,
        "methods": list(experiment.methods), "small": experiment.small, "tasks": list(experiment.tasks),
        "seeds": list(experiment.seeds),
    }  # fmt: skip
