"""How a grid is run on the machines at hand. Nothing here changes what a result means, so none of it is in a key."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from grid.names import PER_METHOD
from grid.uris import sqlite_file
from models.validation import in_words


class InfeasibleError(ValueError):
    """No machine at hand can do what the settings ask for; the message says what they ask for and what there is."""


class ClusterError(RuntimeError):
    """The cluster cannot be used as it is; the message says what to do."""


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError(f"must be an absolute path; got {path}")
    return path


def _absolute_store(uri: str) -> str:
    file = sqlite_file(uri)
    if file is not None:
        _absolute(file)
    return uri


def _one_gpu(share: float) -> float:
    if not 0 <= share <= 1:
        raise ValueError(f"is a share of one GPU, 0 to 1, because a trial computes on one GPU; got {share:g}")
    return share


def _gpu_type(name: str) -> str:
    if name and not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        raise ValueError(f"is one of Ray's names, such as T4, A10G or A100; got {name!r}")
    return name


Folder = Annotated[Path, AfterValidator(_absolute)]
Gigabytes = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class RunSettings:
    """Paths, devices and shares; every path is absolute, because Ray trials run in a folder of their own.

    Attributes:
        cache: manifests, decoded pixels and features; may be deleted at any time between runs.
        runs: MLflow's local store, checkpoints of unfinished trials.
        tracking_uri: of MLflow.
        device: "auto", "cpu" or "cuda"; auto takes the GPU where a trial has a share of one.
        cpus_per_trial: CPU cores that a trial asks Ray for and computes with (at least one thread).
        gpus_per_trial: share of one GPU, 0 to 1; None: the method's own share.
        memory_per_trial: host memory that a trial asks Ray for, in GB (10^9 bytes); 0: no request.
        accelerator: type of GPU, by Ray's name (T4, A10G, A100), for trials with a share of a GPU; "": any.
        gpu_memory: GPU memory a trial needs, in GB, counted as its share of the card; 0: no requirement.
        by_method: method -> those of the settings `PER_METHOD` that differ for it.
        max_concurrent: trials at once; 0: as many as the resources allow.
        max_failures: retries of a trial, each from its last checkpoint.
        checkpoint_seconds: wall clock between checkpoints within an epoch.
        weight_files: digest -> local weights file.
        local_copies: a folder on each node's own disk, to which pixels and features are copied before a trial reads
            them; None: they are read from the cache.
    """

    cache: Folder
    runs: Folder
    tracking_uri: Annotated[str, AfterValidator(_absolute_store)]
    device: Literal["auto", "cpu", "cuda"] = "auto"
    cpus_per_trial: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    gpus_per_trial: Annotated[float, AfterValidator(_one_gpu)] | None = None
    memory_per_trial: Gigabytes = 0.0
    accelerator: Annotated[str, AfterValidator(_gpu_type)] = ""
    gpu_memory: Gigabytes = 0.0
    by_method: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    max_concurrent: Annotated[int, Field(ge=0)] = 0
    max_failures: Annotated[int, Field(ge=0)] = 2
    checkpoint_seconds: Annotated[float, Field(ge=0)] = 60.0
    weight_files: Mapping[str, Path] = dataclasses.field(default_factory=dict)
    local_copies: Folder | None = None

    def __post_init__(self) -> None:
        for method, changes in self.by_method.items():
            if unknown := sorted(set(changes) - set(PER_METHOD.values())):
                raise ValueError(f"{method}: not a setting of a method: {', '.join(unknown)}")
            try:
                self.for_method(method)
            except ValidationError as error:
                raise ValueError("; ".join(in_words(error, method))) from None

    @property
    def manifests(self) -> Path:
        """Folder of saved manifests, one folder per digest."""
        return self.cache / "manifests"

    def checkpoints(self, grid: str) -> Path:
        """Folder below which the unfinished trials of a grid, by its parent run's id, keep their checkpoints.

        Each grid has its own: the trials of two, in experiments of different names, may have the same keys.
        """
        return self.runs / "tune" / grid

    def for_method(self, method: str) -> RunSettings:
        """These settings with the method's overrides applied."""
        return dataclasses.replace(self, **self.by_method.get(method, {}), by_method={})

    @property
    def asks_for_gpu(self) -> bool:
        """Whether the user asked for a GPU, or for a kind of GPU."""
        return self.device == "cuda" or bool(self.gpus_per_trial or self.accelerator or self.gpu_memory)

    def gpu_share(self, method_share: float, *, gpus_available: float) -> float:
        """The share of a GPU that a trial asks for: the override, else the method's own where there is a GPU."""
        if self.device == "cpu" or not gpus_available:
            return 0.0
        return method_share if self.gpus_per_trial is None else self.gpus_per_trial

    def to_json(self) -> str:
        """For the trip to another process."""
        return TypeAdapter(RunSettings).dump_json(self).decode()

    @classmethod
    def from_json(cls, text: str) -> RunSettings:
        """The inverse of `to_json`."""
        return TypeAdapter(RunSettings).validate_json(text)
