"""The built-in demo as a corpus; `data.demo.recipe` draws it."""

from __future__ import annotations

from pathlib import Path

from data.sources import dolos, register_source
from data.sources.base import Scan


@register_source("demo")
def scan(root: Path, *, seed: int = 0) -> Scan:
    """The built-in demo, laid out like Dolos; `make_demo` makes it.

        celebahq/real/{train,valid,test}/*.png
        celebahq/fake/<stand-in>/{images,masks}/{train,valid,test}/*.png

    Masks are white where the picture is unchanged.
    """
    return dolos.scan(root, seed=seed)
