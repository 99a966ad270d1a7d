"""The register of methods. Reading it imports no torch: a method's heavy imports happen when it is built."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from models.detector import BuildContext, Detector
from models.register import Register

Build = Callable[[Any, BuildContext], Detector]


@dataclass(frozen=True)
class DetectorInfo:
    """One registered method.

    Attributes:
        name: as on the command line and in every table.
        config: the frozen dataclass instance that holds every hyper-parameter's default; values are str, int, float
            or bool, so that the resolved configuration can be hashed, logged and read back.
        gpu_share: fraction of one GPU that a trial asks for by default; 1/n, or 0 for a method that uses none.
        build: (config, context) -> Detector; imports what is heavy inside.
        summary: one line for `--help` and tables.
    """

    name: str
    config: Any
    gpu_share: float
    build: Build
    summary: str


_detectors: Register[DetectorInfo] = Register("method", "models.detectors")


def register_detector(name: str, *, config: Any, gpu_share: float) -> Callable[[Build], Build]:
    """Register the decorated builder under `name`; its docstring's first line becomes the summary.

    Raises:
        ValueError: the name is taken, or `config` is not an instance of a frozen dataclass.
    """

    def decorate(build: Build) -> Build:
        params = getattr(type(config), "__dataclass_params__", None)
        if params is None or not params.frozen:
            raise ValueError(f"the configuration of {name!r} must be an instance of a frozen dataclass")
        summary = (build.__doc__ or "").strip().splitlines()[0] if build.__doc__ else ""
        _detectors.add(name, DetectorInfo(name, config, gpu_share, build, summary))
        return build

    return decorate


def list_detectors() -> list[str]:
    """Names of all registered methods, in alphabetical order."""
    return _detectors.names()


def detector_info(name: str) -> DetectorInfo:
    """Look a method up. Raises `KeyError` that lists what exists."""
    return _detectors.get(name)


def resolve_config(name: str, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The method's whole configuration as a plain dictionary, defaults included.

    Values are converted to the type of the default ("3" -> 3, "1e-4" -> 0.0001, "false" -> False).

    Raises:
        KeyError: no such method.
        ValueError: an unknown field (the message lists the fields) or a value of the wrong type.
    """
    config = detector_info(name).config
    fields = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    for key, value in (overrides or {}).items():
        if key not in fields:
            raise ValueError(f"{name} has no setting {key!r}; it has: {', '.join(sorted(fields))}")
        fields[key] = _convert(value, like=fields[key], what=f"{name}.{key}")
    dataclasses.replace(config, **fields)  # a configuration checks its own values
    return fields


def _convert(value: Any, *, like: Any, what: str) -> Any:
    wanted = type(like)
    try:
        if wanted is bool and isinstance(value, str):
            return {"true": True, "1": True, "false": False, "0": False}[value.lower()]
        if wanted is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if isinstance(value, str):
            return wanted(value)
    except (KeyError, ValueError):
        raise ValueError(f"{what} wants {wanted.__name__}, got {value!r}") from None
    if type(value) is not wanted:
        raise ValueError(f"{what} wants {wanted.__name__}, got {value!r}")
    return value


def create_detector(name: str, config: Mapping[str, Any], context: BuildContext) -> Detector:
    """Build a method from a resolved configuration.

    Raises:
        KeyError: no such method.
        WeightsError: pretrained weights cannot be had or do not fit.
    """
    info = detector_info(name)
    if context.classes[0] != "real" or len(context.classes) < 2 or len(set(context.classes)) != len(context.classes):
        raise ValueError(f"classes must be distinct, at least two, 'real' first; got {context.classes}")
    return info.build(dataclasses.replace(info.config, **config), context)
