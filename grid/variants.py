"""Variants: the trials of one method that differ in their settings, and their names."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from data.conditions import CLEAN
from grid.equal_size import EqualSize

EQUAL_SIZE = "equal_size"


def variant_settings(table: pd.DataFrame) -> list[str]:
    """What tells variants of a method apart, as JSON per row.

    The equal size of a task's training sets does so only where trials of the method and task differ in it.
    """
    several = table.groupby(["method", "task"])["equal_size"].transform("nunique") > 1
    sizes = table["equal_size"].where(table["equal_size"] != "", "all images").where(several)
    settings = []
    for config, train_condition, size in zip(table["config"], table["train_condition"], sizes, strict=True):
        own = {"train_condition": train_condition} | ({EQUAL_SIZE: size} if isinstance(size, str) else {})
        settings.append(json.dumps(json.loads(config) | own, sort_keys=True))
    return settings


def variant_names(configs: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """(method, configuration as JSON) -> name of the variant.

    The name is the method alone if the method has one configuration, else with every setting that differs.
    """
    by_method: dict[str, dict[str, dict[str, Any]]] = {}
    for method, text in configs:
        by_method.setdefault(method, {})[text] = json.loads(text)
    variants = {}
    for method, of_method in by_method.items():
        settings = sorted({name for config in of_method.values() for name in config})
        differing = [name for name in settings if len({json.dumps(c.get(name)) for c in of_method.values()}) > 1]
        for text, config in of_method.items():
            # A task whose training sets do not differ in their equal size says nothing of it.
            named = [name for name in differing if name in config or name != EQUAL_SIZE]
            words = ", ".join(f"{name}={config.get(name, 'unset')}" for name in named)
            variants[method, text] = f"{method} ({words})" if words else method
    return variants


def variants_of(planned: Sequence[Mapping[str, Any]]) -> list[str]:
    """The name of each planned trial's variant, among these trials.

    Args:
        planned: fields of specifications, see `grid.spec.TrialSpec.to_dict`.
    """
    table = pd.DataFrame(
        {
            "method": [fields["method"] for fields in planned],
            "task": [fields["task"] for fields in planned],
            "config": [json.dumps(fields["config"], sort_keys=True) for fields in planned],
            "train_condition": [fields.get("train_condition", CLEAN) for fields in planned],
            "equal_size": [str(EqualSize(**size)) if (size := fields.get(EQUAL_SIZE)) else "" for fields in planned],
        }
    )
    if table.empty:
        return []
    configs = list(zip(table["method"], variant_settings(table), strict=True))
    found = variant_names(configs)
    return [found[method_and_config] for method_and_config in configs]
