"""The methods that can be trained, with their settings."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text

from grid.command_line import print_json
from grid.commands import OK, BadInputError, Context, register_command


def add_options(parser: argparse.ArgumentParser) -> None:
    """Which method."""
    parser.add_argument("method", nargs="?", help="its settings, with defaults; default: a list of all methods")
    parser.add_argument("--json", action="store_true", help="print JSON, and nothing else")


@register_command("methods", add_options)
def methods(options: argparse.Namespace, context: Context) -> int:
    """List the methods, or the settings of one."""
    from models.registry import detector_info, list_detectors

    try:
        names = list_detectors() if options.method is None else [detector_info(options.method).name]
    except KeyError as error:
        raise BadInputError(str(error.args[0])) from error
    found = [facts(name) for name in names]
    if options.json:
        print_json({"methods": found})
        return OK
    console = context.console
    if options.method is None:
        for family in sorted({each["family"] for each in found}, key=lambda family: (family == "", family)):
            heading = f"family:{family}" if family else "of no family"
            console.print(f"[bold]{heading}[/]", highlight=False)
            lines = Table.grid(Column(min_width=21, no_wrap=True), Column(), padding=(0, 1, 0, 0))
            for each in found:
                if each["family"] == family:
                    lines.add_row(f"  {each['name']}", each["summary"])
            console.print(lines, highlight=False, markup=False)
        _print_weights(console)
        console.print("\npython launch.py methods METHOD lists a method's settings", highlight=False)
        return OK
    (only,) = found
    console.print(f"[bold]{only['name']}[/]  {only['summary']}", highlight=False)
    console.print(f"  {only['needs']}", highlight=False, markup=False)
    for held in only["weights"]:
        words = ": ".join(filter(None, ("weights", held["what"], held["said"])))
        console.print(Padding(Text(words), (0, 0, 0, 2)))
    console.print("\nsettings, with their defaults and the values of the small form (--set METHOD.NAME=VALUE):")
    for name, value in only["settings"].items():
        small = f"   small: {only['small'][name]}" if name in only["small"] else ""
        console.print(f"  {name:<16} {value}{small}", highlight=False, markup=False)
    if only["settings_explained"]:
        console.print()
        for entry in re.split(r"^    (?=\w)", only["settings_explained"], flags=re.MULTILINE)[1:]:
            console.print(Padding(Text(" ".join(entry.split())), (0, 0, 0, 2)))
    return OK


def _print_weights(console: Console) -> None:
    """Where the weights of each method are, with its own settings."""
    from models.published import default_config, grouped, weights_held
    from models.registry import list_detectors

    console.print("[bold]weights[/]", highlight=False)
    for held, names in grouped({name: weights_held(name, default_config(name)) for name in list_detectors()}).items():
        what = f"{held.what}: " if held.what else ""
        console.print(Padding(Text(f"{', '.join(names)}: {what}{held.said}"), (0, 0, 0, 2)))


def facts(name: str) -> dict[str, Any]:
    """A method in plain JSON types."""
    from models.published import default_config, weights_held
    from models.registry import detector_info

    info = detector_info(name)
    config = {field.name: getattr(info.config, field.name) for field in dataclasses.fields(info.config)}
    needs = "learns from real images and fakes" if info.needs_fakes else "learns without fakes of any generator"
    gpu = f"asks for {info.gpu_share:g} of a GPU by default" if info.gpu_share else "needs no GPU"
    return {
        "name": name, "family": info.family, "summary": info.summary, "reference": info.reference,
        "gpu_share": info.gpu_share, "needs_fakes": info.needs_fakes, "needs": f"{needs}; {gpu}", "settings": config,
        "small": dict(info.small), "settings_explained": _explained(type(info.config)),
        "weights": [
            {"what": held.what, "state": held.state, "said": held.said, "num_bytes": held.num_bytes}
            for held in weights_held(name, default_config(name))
        ],
    }  # fmt: skip


def _explained(config: type) -> str:
    """What a configuration's docstring, and those of the classes that it extends, say of the settings."""
    parts = []
    for each in reversed(config.__mro__):
        text = inspect.cleandoc(each.__doc__ or "")
        if dataclasses.is_dataclass(each) and "Attributes:" in text:
            parts.append(text[text.index("Attributes:") + len("Attributes:") :].strip("\n"))
    return "\n".join(parts)
