"""Families of image encoders, one per file: timm, open_clip and segment-anything behind one type.

This module imports none of the three libraries (open_clip alone takes 11 s); building a backbone does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from models.register import Register

if TYPE_CHECKING:
    from models.backbones.base import Backbone, BackboneRequest

    Build = Callable[[BackboneRequest], Backbone]

_families: Register[Build] = Register("backbone family", __name__)
register_family = _families.register


def load_backbone(family: str, request: BackboneRequest) -> Backbone:
    """Build a frozen image encoder.

    Raises:
        KeyError: no such family; the message lists the families.
        ValueError: the family has no such architecture or resize policy.
        WeightsError: the weights cannot be had or do not fit.
    """
    return _families.get(family)(request)
