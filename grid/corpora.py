"""The options of a launch that only some corpora take."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.roots import parse_roots
from data.sources import get_source, list_sources
from grid.commands import BadInputError
from grid.faults import fault

if TYPE_CHECKING:
    from data.manifest import Manifest
    from data.sources import Source

# What a corpus is asked (`data.sources.Source.options`) -> the option of a launch
_OPTIONS = {
    "lists": "list", "generator_from": "generator_from", "source_from": "source_from", "mask_white": "mask_white",
}  # fmt: skip
_WHY_NOT = {
    "further": "names no files outside of its folder; a list (manifest) can",
    "mask_white": "has no masks, or states itself what white in them means",
}


def add_corpus_options(group: argparse._ArgumentGroup) -> None:
    """Add the options that only some corpora take."""
    group.add_argument(
        "--root", action="append", default=[], metavar="NAME=DIR",
        help="a further folder with files of the corpus, for a list (manifest): its paths are written NAME:path",
    )  # fmt: skip
    group.add_argument("--list", default="", metavar="A,B", help="the files in DIR that list its images (manifest)")
    group.add_argument(
        "--generator-from", default="", metavar="REGEX",
        help="the generator is what the first group matches in a file's name, for a list without generators (manifest)",
    )  # fmt: skip
    group.add_argument(
        "--source-from", default="", metavar="REGEX",
        help="the photograph's id is what the first group matches in a file's name: real images and fakes of one "
        "photograph get the same id (manifest)",
    )  # fmt: skip
    group.add_argument(
        "--mask-white", choices=("fake", "kept"), default="",
        help="what white in a mask means, where the corpus does not say it: fake (the default) or kept (manifest)",
    )  # fmt: skip


def corpus_options(options: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `data.manifest.build_manifest` that only some corpora take, from the options of a launch."""
    further = parse_roots(options.root)
    asked = {name: getattr(options, option) for name, option in _OPTIONS.items()}
    return {"further": further, "asked": {name: value for name, value in asked.items() if value}}


def corpus_problems(options: argparse.Namespace, source: Source) -> list[str]:
    """What is wrong with these options for a corpus, in words. A list that is given as --data becomes --list."""
    if "lists" in source.options and options.data and Path(options.data).is_file() and not options.list:
        options.list, options.data = Path(options.data).name, str(Path(options.data).parent)
    problems = []
    for name, option in {"further": "root", **_OPTIONS}.items():
        if getattr(options, option) and name not in source.options:
            taking = [other for other in list_sources() if name in get_source(other).options]
            because = f", which {_WHY_NOT[name]}" if name in _WHY_NOT else ""
            problems.append(f"--{option.replace('_', '-')} is for {', '.join(taking)}, not for {source.name}{because}")
    try:
        parse_roots(options.root)
    except ValueError as error:
        problems.append(str(error))
    return problems


def unpacked(
    root: Path, source: Source, options: argparse.Namespace, cache: Path, progress: Callable[[int, int], None]
) -> Path:
    """The folder that the corpus is read from: `root`, or the pictures of its Parquet and tar files in the cache.

    Args:
        root: the data folder.
        source: the corpus.
        options: of the launch; a list that is named is read as it is.
        cache: the grid's cache.
        progress: called with (MiB of files done, MiB to do).

    Raises:
        BadInputError: the files cannot be unpacked, or a disk is full; the message has the remedy.
    """
    if options.list or source.is_packed is None or not source.is_packed(root):
        return root
    from data.unpack import UnpackError, unpack  # not at the top: a help page needs less

    try:
        return unpack(root, cache / "corpora", progress=progress)
    except UnpackError as error:
        raise BadInputError(str(error)) from error
    except OSError as error:
        said = fault(error, cache=cache)
        if said is None:
            raise
        raise BadInputError(said) from error


def only_tested(manifest: Manifest) -> str:
    """Lines on the generators without training images, and on those without test images; "" if there are none."""
    names = sorted(set(manifest.generators) - set(manifest.train_generators))
    untested = sorted(set(manifest.generators) - set(manifest.tested_generators))
    words = f"\nwithout training images, so only tested: {', '.join(names)}" if names else ""
    if names and len(names) == len(manifest.generators):
        words += "; methods that need no fakes can run on such data: --methods real_only, self_edited_linear"
    if untested:
        words += (
            f"\nwithout test images, so only trained on, and no class of attribution and open_set: "
            f"{', '.join(untested)}"
        )
    return words
