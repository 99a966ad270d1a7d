"""How a grid is run on the machines at hand. Nothing here changes what a result means, so none of it is in a key."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grid.names import SQLITE

PER_METHOD = ("gpus_per_trial", "memory_per_trial", "accelerator", "gpu_memory")  # what may differ between methods


class InfeasibleError(ValueError):
    """No machine at hand can do what the settings ask for; the message says what they ask for and what there is."""


class ClusterError(RuntimeError):
    """The cluster cannot be used as it is; the message says what to do."""


@dataclass(frozen=True)
class RunSettings:
    """Paths, devices and shares; every path is absolute, because Ray trials run in a folder of their own.

    Attributes:
        cache: manifests, decoded pixels and features; may be deleted at any time between runs.
        runs: MLflow's local store, checkpoints of unfinished trials.
        local_copies: a folder on each node's own disk, to which pixels and features are copied before a trial reads
            them; None: they are read where the cache is.
        tracking_uri: of MLflow.
        device: "auto", "cpu" or "cuda"; auto takes the GPU where a trial has a share of one.
        cpus_per_trial: CPU cores that a trial asks Ray for and computes with (at least one thread).
        gpus_per_trial: share of one GPU, 0 to 1; None: the method's own share.
        memory_per_trial: host memory that a trial asks Ray for, in GB (10^9 bytes); 0: not asked about.
        accelerator: type of GPU, by Ray's name, that a trial with a share of one must run on; "": any.
        gpu_memory: of a GPU, in GB, that a trial must have: of a share of a GPU, that part of its memory; 0: not asked
            about.
        by_method: method -> those of the settings `PER_METHOD` that are others for it.
        max_concurrent: trials at once; 0: as many as the resources allow.
        max_failures: times that a trial is retried, going on from its last checkpoint.
        checkpoint_seconds: wall clock between checkpoints within an epoch.
        weight_files: digest -> local weights file.
    """

    cache: Path
    runs: Path
    tracking_uri: str
    device: str = "auto"
    cpus_per_trial: float = 1.0
    gpus_per_trial: float | None = None
    memory_per_trial: float = 0.0
    accelerator: str = ""
    gpu_memory: float = 0.0
    by_method: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    max_concurrent: int = 0
    max_failures: int = 2
    checkpoint_seconds: float = 60.0
    weight_files: Mapping[str, Path] = field(default_factory=dict)
    local_copies: Path | None = None

    def __post_init__(self) -> None:
        for name in ("cache", "runs", "local_copies"):
            path = getattr(self, name)
            if path is not None and not path.is_absolute():
                raise ValueError(f"{name} must be an absolute path, got {path}")
        if self.tracking_uri.startswith(SQLITE) and not Path(self.tracking_uri.removeprefix(SQLITE)).is_absolute():
            raise ValueError(f"the path in tracking_uri must be absolute, got {self.tracking_uri}")
        if self.device not in ("auto", "cpu", "cuda"):
            raise ValueError(f"device is one of auto, cpu, cuda; got {self.device!r}")
        if not 0 < self.cpus_per_trial < math.inf:
            raise ValueError(f"cpus_per_trial must be above 0, got {self.cpus_per_trial}")
        share = self.gpus_per_trial
        if share is not None and not 0 <= share <= 1:
            raise ValueError(f"gpus_per_trial is a share of one GPU, 0 to 1, as a trial computes on one; got {share}")
        for name in ("memory_per_trial", "gpu_memory", "max_concurrent", "max_failures", "checkpoint_seconds"):
            if not getattr(self, name) >= 0:  # not a number is not either
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        for name in ("memory_per_trial", "gpu_memory"):
            if getattr(self, name) == math.inf:
                raise ValueError(f"{name} must be a number of GB, got inf")
        if self.accelerator and not re.fullmatch(r"[A-Za-z0-9][\w.-]*", self.accelerator):
            raise ValueError(f"accelerator is one of Ray's names, as T4, A10G or A100; got {self.accelerator!r}")
        for method, changes in self.by_method.items():
            unknown = sorted(set(changes) - set(PER_METHOD))
            if unknown:
                raise ValueError(f"{method}: not a setting of a method: {', '.join(unknown)}")
            try:
                self.for_method(method)
            except ValueError as error:
                raise ValueError(f"{method}: {error}") from None

    @property
    def manifests(self) -> Path:
        """Folder of saved manifests, one folder a digest."""
        return self.cache / "manifests"

    def checkpoints(self, grid: str) -> Path:
        """Folder below which the unfinished trials of a grid, by its parent run's id, keep their checkpoints.

        Each grid has its own: the trials of two, in experiments of different names, may have the same keys.
        """
        return self.runs / "tune" / grid

    def for_method(self, method: str) -> RunSettings:
        """These settings with what is another for the trials of a method in the place of what holds for all."""
        return dataclasses.replace(self, **self.by_method.get(method, {}), by_method={})

    @property
    def asks_for_gpu(self) -> bool:
        """Whether a GPU, or a kind of it, is asked for in so many words."""
        return self.device == "cuda" or bool(self.gpus_per_trial or self.accelerator or self.gpu_memory)

    def gpu_share(self, method_share: float, *, gpus_available: float) -> float:
        """The share of a GPU that a trial asks for: the override, else the method's own where there is a GPU."""
        if self.device == "cpu" or not gpus_available:
            return 0.0
        return method_share if self.gpus_per_trial is None else self.gpus_per_trial

    def to_json(self) -> str:
        """For the trip to another process."""
        return json.dumps(dataclasses.asdict(self), default=str, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> RunSettings:
        """The inverse of `to_json`."""
        fields = json.loads(text)
        for name in ("cache", "runs", "local_copies"):
            fields[name] = fields[name] and Path(fields[name])
        fields["weight_files"] = {digest: Path(path) for digest, path in fields["weight_files"].items()}
        return cls(**fields)
