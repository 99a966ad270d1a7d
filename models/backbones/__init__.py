"""Families of image encoders, one file per family: timm, open_clip, segment-anything behind one type.

Reading this imports none of the three libraries (open_clip alone takes 11 s); building a backbone does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from models.register import Register

if TYPE_CHECKING:
    from models.backbones.base import Backbone, BackboneRequest

    Build = Callable[[BackboneRequest], Backbone]

_families: Register[Build] = Register("backbone family", __name__)


def register_family(name: str) -> Callable[[Build], Build]:
    """Register the decorated builder under `name`.

    Raises:
        ValueError: the name is taken.
    """

    def decorate(build: Build) -> Build:
        _families.add(name, build)
        return build

    return decorate


def load_backbone(family: str, request: BackboneRequest) -> Backbone:
    """Build a frozen image encoder.

    Raises:
        KeyError: no such family.
        ValueError: no such architecture or policy.
        WeightsError: the weights cannot be had or do not fit.
    """
    return _families.get(family)(request)
