"""The other half of the Dolos archive: FFHQ faces, fully generated (p2) and inpainted (repaint-p2)."""

from __future__ import annotations

from pathlib import Path

from data.sources import dolos, register_source
from data.sources.base import Problem, Scan, relative, root_problems, subfolders

_LEVELS = 3  # how far below the data folder ffhq/ may be


def _found(root: Path) -> list[Path]:
    """The folders of the name ffhq: `root`, or those in its first levels."""
    if root.name == dolos.FFHQ:
        return [root]
    found, level = [], [root]
    for _ in range(_LEVELS):
        level = [folder for above in level for folder in subfolders(above)]
        found += [folder for folder in level if folder.name == dolos.FFHQ]
        level = [folder for folder in level if folder.name != dolos.FFHQ]
    return found


def looks_like(root: Path) -> bool:
    """Whether the folder holds ffhq/ in Dolos' layout."""
    return any(dolos.has_layout(folder) for folder in _found(root))


@register_source("dolos_ffhq", looks_like=looks_like, yields_to=("dolos", "manifest"))
def scan(root: Path, *, seed: int = 0) -> Scan:
    """The folder ffhq/ of the Dolos archive, or a folder that holds it.

        ffhq/real/{train,valid,test}/*.png
        ffhq/fake/repaint-p2/{images,masks}/{train,valid,test}/*.png
        ffhq/fake/p2/{train,valid,test}/*.png

    Images of p2 are fully generated: they have no original and no mask. Both generators take part.
    """
    problems = root_problems(root)
    if problems:
        return Scan(problems=problems)
    found = _found(root)
    if not found:
        remedy = "give the folder of the Dolos archive that holds ffhq/; for the other half, the experiment is dolos"
        return Scan(problems=[Problem(".", "no folder ffhq", remedy)])
    if len(found) > 1:
        names = ", ".join(relative(folder, root) for folder in found)
        return Scan(problems=[Problem(".", "several folders ffhq", "give one of them as --data", names)])
    (base,) = found
    result = Scan()
    dolos.scan_tree(base, root, result)
    for generator in sorted(result.on_request):
        result.add(result.on_request.pop(generator))
    if base != root:
        result.notes.append(f"{relative(base, root)} was read")
    return result
