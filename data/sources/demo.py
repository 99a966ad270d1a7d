"""The built-in demo as a corpus; `data.demo.recipe` draws it."""

from __future__ import annotations

from pathlib import Path

from data.sources import Drawn, Progress, dolos, register_source
from data.sources.base import Scan

CAVEATS = {
    "": "The data are the built-in demo: drawn faces, repainted by simple stand-ins, seen by small backbones. They "
    "show that the grid works; they show nothing about real photographs or real generators."
}


def _folder(cache: Path) -> Path:
    from data.demo.recipe import DemoRecipe

    return cache / "demo" / DemoRecipe().key


def _make(cache: Path, progress: Progress) -> Path:
    from data.demo.recipe import make_demo

    return make_demo(cache / "demo", progress=progress)


def is_one(root: Path) -> bool:
    """Whether a folder is a demo of any version."""
    from data.demo.recipe import is_demo

    return is_demo(root)


def generators() -> list[str]:
    """The generators of every version."""
    from data.demo.inpainters import list_inpainters

    return list_inpainters()


def _num_images() -> dict[str, int]:
    from data.demo.recipe import DemoRecipe

    return DemoRecipe().splits


def _size() -> tuple[int, int]:
    from data.demo.recipe import DemoRecipe

    return DemoRecipe().size, DemoRecipe().size


@register_source("demo", caveats=CAVEATS, drawn=Drawn(_folder, _make, is_one, generators, _num_images, _size))
def scan(root: Path, *, seed: int = 0) -> Scan:
    """The built-in demo, in the layout of Dolos; it is drawn if no folder is given.

        celebahq/real/{train,valid,test}/*.png
        celebahq/fake/<stand-in>/{images,masks}/{train,valid,test}/*.png

    Masks are white where the picture is unchanged.
    """
    return dolos.scan(root, seed=seed)
