"""One file an experiment; each says in its docstring what it costs and shows.

An experiment defines

SOURCE   name of its corpus in `data.sources`
METHODS  method -> overrides of that method's configuration
SEEDS    the seeds that it runs when none are asked for
trials   (generators, configs, tasks, seeds, data) -> the `TrialSpec`s
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol, cast

from grid.spec import Scalar, TrialSpec


class Experiment(Protocol):
    """What a module in this package defines."""

    SOURCE: str
    METHODS: Mapping[str, Mapping[str, Scalar]]
    SEEDS: Sequence[int]
    trials: Callable[..., Iterator[TrialSpec]]


def list_experiments() -> list[str]:
    """Names of all experiments."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load_experiment(name: str) -> Experiment:
    """Look an experiment up. Raises `KeyError` that lists what exists."""
    if name not in list_experiments():
        raise KeyError(f"no experiment named {name!r}; there are: {', '.join(list_experiments())}")
    return cast(Experiment, importlib.import_module(f"{__name__}.{name}"))
