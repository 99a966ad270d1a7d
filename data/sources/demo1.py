"""The first version of the built-in demo as a corpus: its images, and the digest of its manifest, stay as they were."""

from __future__ import annotations

from pathlib import Path

from data.sources import Drawn, Progress, demo, dolos, register_source
from data.sources.base import Scan


def _folder(cache: Path) -> Path:
    from data.demo.recipe import FIRST

    return cache / "demo" / FIRST.key


def _make(cache: Path, progress: Progress) -> Path:
    from data.demo.recipe import FIRST, make_demo

    return make_demo(cache / "demo", FIRST, progress=progress)


def _num_images() -> dict[str, int]:
    from data.demo.recipe import FIRST

    return FIRST.splits


def _size() -> tuple[int, int]:
    from data.demo.recipe import FIRST

    return FIRST.size, FIRST.size


_DRAWN = Drawn(_folder, _make, demo.is_one, demo.generators, _num_images, _size)


@register_source("demo1", caveats=demo.CAVEATS, drawn=_DRAWN)
def scan(root: Path, *, seed: int = 0) -> Scan:
    """The first version of the built-in demo, in the layout of Dolos; it is drawn if no folder is given.

        celebahq/real/{train,valid,test}/*.png
        celebahq/fake/<stand-in>/{images,masks}/{train,valid,test}/*.png

    Masks are white where the picture is unchanged.
    """
    return dolos.scan(root, seed=seed)
