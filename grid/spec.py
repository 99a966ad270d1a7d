"""What a trial is. Standard library only, so that planning needs nothing heavy."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

SPEC_VERSION = 1
DETECTION, ATTRIBUTION = "detection", "attribution"
TASKS = (DETECTION, ATTRIBUTION)
Scalar = str | int | float | bool


@dataclass(frozen=True)
class TrialSpec:
    """One cell's worth of work: one detector, trained once, tested on every generator of the data set.

    Attributes:
        task: "detection" (real or fake) or "attribution" (real, or which generator).
        method: name in the detector registry.
        config: the method's whole resolved configuration, as sorted pairs; a mapping is accepted and sorted.
        train_generators: the generators whose fakes are trained on, sorted and unique; for attribution, all classes.
        seed: initial weights and data order.
        data: digest of the manifest.
        version: of the meaning of a spec; results of another version are not reused.
    """

    task: str
    method: str
    config: tuple[tuple[str, Scalar], ...]
    train_generators: tuple[str, ...]
    seed: int
    data: str
    version: int = SPEC_VERSION

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise ValueError(f"no task named {self.task!r}; there are: {', '.join(TASKS)}")
        if isinstance(self.train_generators, str):
            raise ValueError("train_generators is a collection of names, not one string")
        generators = tuple(sorted(set(self.train_generators)))
        if not generators or "real" in generators:
            raise ValueError(f"train_generators names at least one generator and never 'real'; got {generators}")
        if self.seed < 0:
            raise ValueError(f"a seed must not be negative, got {self.seed}")
        config = dict(self.config)
        for name, value in config.items():
            if not isinstance(value, str | int | float | bool):
                raise ValueError(f"{self.method}.{name} must be a string, number or boolean, got {value!r}")
        object.__setattr__(self, "train_generators", generators)
        object.__setattr__(self, "config", tuple(sorted(config.items())))

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the logits; "real" is always 0."""
        return ("real", "fake") if self.task == DETECTION else ("real", *self.train_generators)

    @cached_property
    def key(self) -> str:
        """The trial's identity: 16 hex digits over everything above."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def name(self) -> str:
        """A short name for people; not unique across configurations."""
        trained_on = "+".join(self.train_generators) if self.task == DETECTION else ATTRIBUTION
        return f"{self.method}/{trained_on}/seed{self.seed}"

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return fields | {"config": dict(self.config), "train_generators": list(self.train_generators)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> TrialSpec:
        """The inverse of `to_dict`."""
        config = tuple(fields["config"].items())
        return cls(**{**fields, "config": config, "train_generators": tuple(fields["train_generators"])})

    def params(self) -> dict[str, Scalar]:
        """The whole spec, flattened for MLflow."""
        flat: dict[str, Scalar] = {f"config.{name}": value for name, value in self.config}
        flat |= {name: getattr(self, name) for name in ("task", "method", "seed", "data")}
        return flat | {"spec_version": self.version, "train_generators": "+".join(self.train_generators)}


def cross_generator_trials(
    *,
    generators: Iterable[str],
    configs: Mapping[str, Mapping[str, Scalar]],
    tasks: Iterable[str],
    seeds: Iterable[int],
    data: str,
) -> Iterator[TrialSpec]:
    """Every method trained on each generator alone, and every method once as attribution.

    Args:
        generators: all generators of the data set.
        configs: method -> its resolved configuration.
        tasks: of `TASKS`.
        seeds: one repetition of everything for each.
        data: the manifest's digest.
    """
    generators, tasks = sorted(generators), tuple(tasks)
    for seed in seeds:
        for method, config in configs.items():
            for task in tasks:
                train_sets = [[one] for one in generators] if task == DETECTION else [generators]
                for train_set in train_sets:
                    yield TrialSpec(task, method, tuple(config.items()), tuple(train_set), seed, data)
