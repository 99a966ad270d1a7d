"""Pydantic's errors in plain words, one line per wrong setting."""

from __future__ import annotations

import math
from typing import Any

from pydantic import ValidationError

_TYPES = {"int": "a whole number", "float": "a number", "finite": "a finite number", "bool": "true or false"}
_BOUNDS = {"greater_than_equal": ("ge", "at least"), "greater_than": ("gt", "above")}
_BOUNDS |= {"less_than_equal": ("le", "at most"), "less_than": ("lt", "below")}


def in_words(error: ValidationError, owner: str = "") -> list[str]:
    """One line per wrong setting: its name, the allowed values, and the given value.

    Args:
        error: error of a pydantic class.
        owner: prefix of each name, such as "clip_linear".
    """
    lines = []
    for detail in error.errors():
        name = ".".join(filter(None, [owner, *map(str, detail["loc"])]))
        lines.append(f"{name} {_wrong(dict(detail))}" if detail["loc"] else _wrong(dict(detail)))
    return lines


def _wrong(error: dict[str, Any]) -> str:
    kind, context, value = str(error["type"]), error.get("ctx", {}), error.get("input")
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        what = f"one of {context['expected']}".replace(" or ", ", ")
    elif isinstance(value, float) and not math.isfinite(value):
        what = "a finite number"
    elif kind in _BOUNDS:
        bound, words = _BOUNDS[kind]
        what = f"{words} {context[bound]:g}"
    elif kind.partition("_")[0] in _TYPES:
        what = _TYPES[kind.partition("_")[0]]
    else:
        message = str(error["msg"])
        return f"is refused: {message[0].lower()}{message[1:]}; got {value!r}"
    return f"must be {what}; got {value!r}"
