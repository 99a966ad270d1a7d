"""Families of image encoders, one per file: timm, open_clip and segment-anything behind one type.

This module imports none of the three libraries (open_clip alone takes 11 s); building a backbone does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.register import Register

if TYPE_CHECKING:
    from models.backbones.base import Backbone, BackboneRequest
    from models.hubs import HubFile

    Build = Callable[[BackboneRequest], Backbone]
    Files = Callable[[str, str], Sequence[HubFile]]


@dataclass(frozen=True)
class Family:
    """One library's backbones.

    Attributes:
        build: request -> backbone.
        files: (architecture, weights string of a hub) -> the published files that `build` loads.
    """

    build: Build
    files: Files


_families: Register[Family] = Register("backbone family", __name__)


def register_family(name: str, *, files: Files) -> Callable[[Build], Build]:
    """Register the decorated function as the builder of a family; `files` as in `Family`."""

    def decorate(build: Build) -> Build:
        _families.add(name, Family(build, files))
        return build

    return decorate


def published_files(family: str, name: str, weights: str) -> list[HubFile]:
    """The published files that a backbone loads; none for weights that come from no hub. Asks no server.

    Raises:
        KeyError: no such family.
        ValueError: the family has no such architecture.
        WeightsError: there are no such weights.
    """
    if weights.partition(":")[0] != "hub":
        return []
    return list(_families.get(family).files(name, weights))


def load_backbone(family: str, request: BackboneRequest) -> Backbone:
    """Build a frozen image encoder.

    Raises:
        KeyError: no such family; the message lists the families.
        ValueError: the family has no such architecture or resize policy.
        WeightsError: the weights cannot be had or do not fit.
    """
    return _families.get(family).build(request)
