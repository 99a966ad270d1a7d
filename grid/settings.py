"""How a grid runs on the machines at hand. No setting changes a result, so none is part of a trial's key."""

from __future__ import annotations

import dataclasses
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError
from pydantic.dataclasses import dataclass

from models.validation import in_words


class InfeasibleError(ValueError):
    """No machine has what the settings ask for; the message lists what they ask for and what the machines have."""


class ClusterError(RuntimeError):
    """The cluster cannot be used; the message says why and what to do."""


SOCKET_BYTES = 107  # the longest path of a socket on Linux
_RAY_SOCKET = "ray/session_2026-01-01_00-00-00_000000_{}/sockets/plasma_store"  # in Ray's temporary folder


def long_temporary_folder() -> str | None:
    """Why a Ray of our own cannot start: the path of its temporary folder is too long. None: it is short enough."""
    folder = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    longest = SOCKET_BYTES - len(f"/{_RAY_SOCKET.format(os.getpid())}")
    if len(os.fsencode(folder)) <= longest:
        return None
    return (
        f"the temporary folder {folder} has too long a path for Ray ({len(os.fsencode(folder))} bytes, at most "
        f"{longest}): give Ray a short one, such as RAY_TMPDIR=/tmp, or run with --local"
    )


def _one_gpu(share: float) -> float:
    if not 0 <= share <= 1:
        raise ValueError(f"is a share of one GPU, 0 to 1, because a trial computes on one GPU; got {share:g}")
    return share


def _gpu_type(name: str) -> str:
    if name and not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        raise ValueError(f"is one of Ray's names, such as T4, A10G or A100; got {name!r}")
    return name


def _overrides(by_method: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Mapping[str, Any]]:
    problems = []
    for method, changes in by_method.items():
        try:
            RunSettings(cache=Path("/"), runs=Path("/"), tracking_uri="", **changes)
        except ValidationError as error:
            problems += in_words(error, method)
    if problems:
        raise ValueError("\n".join(problems))
    return by_method


Gigabytes = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class RunSettings:
    """Paths, devices and shares. Every path must be absolute, because each Ray trial runs in its own folder.

    Attributes:
        cache: folder of manifests, decoded pixels and features; may be deleted between runs.
        runs: folder of MLflow's local store and of the checkpoints of unfinished trials.
        tracking_uri: of MLflow.
        device: "auto", "cpu" or "cuda"; with "auto" a trial uses the GPU if it has a share of one.
        cpus_per_trial: CPU cores that a trial requests from Ray and computes with (at least one thread).
        gpus_per_trial: share of one GPU, 0 to 1; None: the method's own share.
        memory_per_trial: host memory that a trial requests from Ray, in GB (10^9 bytes); 0: no request.
        accelerator: GPU type that trials with a GPU share need, by Ray's name (T4, A10G, A100); "": any type.
        gpu_memory: GPU memory a trial needs, in GB, counted as its share of the card; 0: no requirement.
        by_method: method -> overrides for its trials, of the fields in `PER_METHOD`.
        max_concurrent: maximum number of trials at once; 0: as many as the resources allow.
        max_failures: retries per trial without a new epoch between them, each from its last checkpoint.
        checkpoint_seconds: seconds between checkpoints within an epoch.
        weight_files: digest -> local weights file.
        local_copies: folder on each node's own disk, to which trials copy the pixels and features that they read;
            None: they read the cache.
        keep_decoded: splits whose decoded pictures are kept in the cache, because they are read under several
            conditions (see `data.pictures.Decoded`).
    """

    cache: Path
    runs: Path
    tracking_uri: str
    device: Literal["auto", "cpu", "cuda"] = "auto"
    cpus_per_trial: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    gpus_per_trial: Annotated[float, AfterValidator(_one_gpu)] | None = None
    memory_per_trial: Gigabytes = 0.0
    accelerator: Annotated[str, AfterValidator(_gpu_type)] = ""
    gpu_memory: Gigabytes = 0.0
    by_method: Annotated[Mapping[str, Mapping[str, Any]], AfterValidator(_overrides)] = dataclasses.field(
        default_factory=dict
    )
    max_concurrent: Annotated[int, Field(ge=0)] = 0
    max_failures: Annotated[int, Field(ge=0)] = 2
    checkpoint_seconds: Annotated[float, Field(ge=0)] = 60.0
    weight_files: Mapping[str, Path] = dataclasses.field(default_factory=dict)
    local_copies: Path | None = None
    keep_decoded: tuple[str, ...] = ()

    @property
    def manifests(self) -> Path:
        """Folder of saved manifests, one folder per digest."""
        return self.cache / "manifests"

    def checkpoints(self, grid: str) -> Path:
        """Folder of the checkpoints of a grid's unfinished trials, by the id of the grid's parent run.

        One folder per grid, because grids in different MLflow experiments may have trials with the same key.
        """
        return self.runs / "tune" / grid

    def for_method(self, method: str) -> RunSettings:
        """These settings with the method's overrides applied."""
        return dataclasses.replace(self, **self.by_method.get(method, {}), by_method={})

    @property
    def asks_for_gpu(self) -> bool:
        """Whether the user asked for a GPU, for a GPU type or for GPU memory."""
        return self.device == "cuda" or bool(self.gpus_per_trial or self.accelerator or self.gpu_memory)

    def gpu_share(self, method_share: float, *, gpus_available: float) -> float:
        """The GPU share that a trial requests: 0 on the CPU, else `gpus_per_trial`, else the method's share."""
        if self.device == "cpu" or not gpus_available:
            return 0.0
        return method_share if self.gpus_per_trial is None else self.gpus_per_trial
