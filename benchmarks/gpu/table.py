"""The table of docs/performance.md that the file of findings makes."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results.json"
NOT_MEASURED = "Not measured: nothing of this software has run on a GPU yet."
_LONGEST = 240  # characters of a cell; the file has all
_MET = {None: "", True: "yes", False: "**no**"}


def read(path: Path = RESULTS) -> dict[str, Any]:
    """The file of findings; empty where there is none."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return content


def found(content: dict[str, Any], check: str, pattern: str) -> Any:
    """The value of the first finding whose name matches a pattern with `*`; None where there is none."""
    findings = content.get("checks", {}).get(check, {}).get("findings", [])
    return next((one["value"] for one in findings if fnmatchcase(one["name"], pattern)), None)


def place(content: dict[str, Any]) -> str:
    """The card, the dates and the versions, in one line."""
    versions = ", ".join(f"{name} {version}" for name, version in content["versions"].items())
    dates = ", ".join(sorted({check["date"] for check in content["checks"].values()}))
    machine = found(content, "card", "machine") or {"gpu": "an unknown card"}
    return f"{machine['gpu']}; {dates}; {versions}."


def markdown(content: dict[str, Any]) -> str:
    """One row per finding, and one per check that did not come to its end.

    Raises:
        ValueError: the findings are those of a toy, which say nothing about a GPU.
    """
    if not content:
        return NOT_MEASURED
    if content["toy"]:
        raise ValueError("the findings are those of a toy, which say nothing about a GPU")
    lines = ["| check | what | found | wanted | met |", "|---|---|---|---|---|"]
    for name, check in content["checks"].items():
        for finding in check["findings"]:
            cells = [f"`{name}`", finding["name"], _text(finding["value"]), finding["wanted"], _MET[finding["met"]]]
            lines.append(f"| {' | '.join(map(_cell, cells))} |")
        if check["state"] != "done":
            cells = [f"`{name}`", check["what"], f"{check['state']} {check.get('error', '')}".strip(), "", _MET[False]]
            lines.append(f"| {' | '.join(map(_cell, cells))} |")
    return "\n".join([*lines, "", place(content)])


def _text(value: Any) -> str:
    if isinstance(value, dict):
        value = {name: item for name, item in value.items() if name != "failures"}  # long, and all of them come last
        return "; ".join(f"{name}: {_text(item)}" for name, item in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(_text, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return "none" if value is None else str(value)


def _cell(text: str) -> str:
    text = text.replace("|", "/").replace("\n", " ")
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"
