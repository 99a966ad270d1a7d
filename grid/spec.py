"""What a trial is, and its key. Imports nothing heavy, so that planning stays fast."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from data.conditions import CLEAN, members
from grid.equal_size import EqualSize
from grid.tasks import REAL, get_task
from grid.train_sets import TrainSet

SPEC_VERSION = 1
Scalar = str | int | float | bool


@dataclass(frozen=True)
class TrialSpec:
    """One detector, trained once, tested on every generator of the data set.

    Attributes:
        task: name in `grid.tasks`.
        method: name in `models.registry`.
        config: the method's whole resolved configuration, as sorted pairs; a mapping is accepted and sorted.
        train_generators: the generators whose fakes are trained on, sorted and unique; for attribution, all
            generators; empty for training without fakes.
        seed: of the initial weights and the data order.
        data: digest of the manifest.
        version: of what a spec means; results of another version are not reused.
        train_condition: name in `data.conditions`, applied to training and validation pictures; or several, sorted
            and joined by "+": each picture takes part once per condition.
        equal_size: images of each class in training and validation (see `grid.equal_size`); None: all images.
    """

    task: str
    method: str
    config: tuple[tuple[str, Scalar], ...]
    train_generators: tuple[str, ...]
    seed: int
    data: str
    version: int = SPEC_VERSION
    train_condition: str = CLEAN
    equal_size: EqualSize | None = None

    def __post_init__(self) -> None:
        try:
            task = get_task(self.task)
        except KeyError as error:
            raise ValueError(error.args[0]) from None
        if isinstance(self.train_generators, str):
            raise ValueError("train_generators is a collection of names, not one string")
        generators = TrainSet(tuple(self.train_generators)).generators
        if REAL in generators:
            raise ValueError(f"train_generators must not contain {REAL!r}; got {generators}")
        if task.needs_fakes and not generators:
            raise ValueError(f"{self.task} needs at least one generator to train on")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"a seed must not be negative, and below 2^63; got {self.seed}")
        config = dict(self.config)
        for name, value in config.items():
            if not isinstance(value, str | int | float | bool):
                raise ValueError(f"{self.method}.{name} must be a string, number or boolean, got {value!r}")
        conditions = members(self.train_condition)
        if list(conditions) != sorted(set(conditions)):
            raise ValueError(f"a set of training conditions is sorted, each named once; got {self.train_condition!r}")
        object.__setattr__(self, "train_generators", generators)
        object.__setattr__(self, "config", tuple(sorted(config.items())))

    @property
    def train_set(self) -> TrainSet:
        """The training set."""
        return TrainSet(self.train_generators)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the logits; "real" is always the first."""
        return get_task(self.task).classes(self.train_set)

    @property
    def train_conditions(self) -> tuple[str, ...]:
        """The conditions that the detector is trained under, sorted by name."""
        return members(self.train_condition)

    @cached_property
    def key(self) -> str:
        """The trial's identity: 16 hex digits, a hash of all fields."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def name(self) -> str:
        """A short name for display; trials that differ in their configuration alone share it."""
        parts = [self.method, get_task(self.task).trial_name(self.train_set)]
        parts += [self.train_condition] if self.train_condition != CLEAN else []
        parts += [f"{self.equal_size.train} of each class"] if self.equal_size else []
        return "/".join([*parts, f"seed{self.seed}"])

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types.

        A clean training condition is left out, and a size that nobody asked for: keys from before there were such
        settings stay valid.
        """
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        if self.train_condition == CLEAN:
            del fields["train_condition"]
        if self.equal_size is None:
            del fields["equal_size"]
        else:
            fields["equal_size"] = dataclasses.asdict(self.equal_size)
        return fields | {"config": dict(self.config), "train_generators": list(self.train_generators)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> TrialSpec:
        """The inverse of `to_dict`."""
        config = tuple(fields["config"].items())
        own: dict[str, Any] = {"config": config, "train_generators": tuple(fields["train_generators"])}
        if "equal_size" in fields:
            own["equal_size"] = EqualSize(**fields["equal_size"])
        return cls(**{**fields, **own})

    def params(self) -> dict[str, Scalar]:
        """The whole spec, flattened into parameters for MLflow."""
        flat: dict[str, Scalar] = {f"config.{name}": value for name, value in self.config}
        flat |= {name: getattr(self, name) for name in ("task", "method", "seed", "data")}
        flat |= {"train_condition": self.train_condition} if self.train_condition != CLEAN else {}
        flat |= {"equal_size": str(self.equal_size)} if self.equal_size else {}
        return flat | {"spec_version": self.version, "train_generators": str(self.train_set)}
