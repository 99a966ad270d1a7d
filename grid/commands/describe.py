"""What a data folder holds, as it was understood: no training, no experiment."""

from __future__ import annotations

import argparse
import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.sources import get_source, list_sources
from grid.command_line import on_stderr, print_json, print_wrapped
from grid.commands import BAD_INPUT, OK, BadInputError, Context, register_command
from grid.corpora import corpus_options, corpus_problems, unpacked
from grid.options import add_cache_options, add_data_options

if TYPE_CHECKING:
    from rich.console import Console

    from data.audits import Finding
    from data.manifest import DataProblems, Manifest

_WIDTH = 78
_WORDS = {"kept": "unchanged", "fake": "fake"}  # what white in a mask means


def add_options(parser: argparse.ArgumentParser) -> None:
    """Which data."""
    parser.add_argument("folder", nargs="?", metavar="DIR", help="the folder, or a list of images; the same as --data")
    parser.add_argument(
        "--corpus", metavar="NAME",
        help=f"read it as one of: {', '.join(_of_folders())}; default: what it looks like, a list before folders",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON, and nothing else")
    add_data_options(parser)
    add_cache_options(parser, "facts about files are kept here")


@register_command("describe", add_options)
def describe(options: argparse.Namespace, context: Context) -> int:
    """Print how a data folder is understood: groups, splits, masks, guesses; trains nothing."""
    if not options.json:
        _print(_described(options, context.console), context.console, given=str(options.data))
        return OK
    try:
        print_json(_described(options, on_stderr()))
    except BadInputError as error:
        print_json({"error": str(error)})
        return BAD_INPUT
    return OK


def _described(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Everything that is said about the data, in plain types.

    Raises:
        BadInputError: the corpus cannot be told, or the data have problems; the message has all of them.
    """
    from data.manifest import BadGeneratorsError, DataProblems, build_manifest
    from data.masks import check_sample
    from data.pictures import FileError
    from grid.commands.run import check_writable
    from grid.progress import counting

    if bool(options.folder) == bool(options.data):
        raise BadInputError("name one folder: python launch.py describe DIR")
    options.data = options.data or options.folder
    source = get_source(_corpus(options))
    if problems := corpus_problems(options, source):
        raise BadInputError("\n".join(problems))
    cache = options.cache or options.runs / "cache"
    check_writable(cache)
    with counting(console) as count:
        root = unpacked(Path(options.data).resolve(), source, options, cache, partial(count, "unpacking MiB"))
        try:
            manifest = build_manifest(
                source.name,
                root,
                cache=cache,
                seed=options.split_seed,
                skip_bad=options.skip_bad,
                limit=options.limit,
                generators=options.generators,
                names_per_split=options.names_per_split,
                progress=partial(count, "reading files"),
                **corpus_options(options),
            )
            num_pairs, findings = check_sample(manifest, cache=cache)
        except DataProblems as error:
            raise BadInputError("\n".join([str(error), *_understood(error)])) from error
        except FileError as error:
            raise BadInputError(str(error)) from error
        except BadGeneratorsError as error:
            raise BadInputError(f"--generators: {error}") from error
    return _facts(manifest, num_pairs, findings)


def _corpus(options: argparse.Namespace) -> str:
    """The name of the corpus that was asked for, or that the folder looks like."""
    from data.addresses import is_url
    from data.sources import preferred

    if is_url(options.data):
        raise BadInputError("describe reads a folder of this machine; copy a few files of the bucket, or use audit")
    path = Path(options.data)
    if options.corpus is not None:
        if options.corpus not in _of_folders():
            raise BadInputError(f"no corpus {options.corpus!r} of folders; there are: {', '.join(_of_folders())}")
        return str(options.corpus)
    if path.is_file() or options.list:
        return "manifest"
    names = preferred(path.resolve())
    if len(names) == 1:
        return names[0]
    if not path.is_dir():
        raise BadInputError(f"{options.data} does not exist or is not a folder; check the path")
    if not any(path.iterdir()):
        raise BadInputError(f"{options.data} is empty; check the path")
    words = f"looks like {' and '.join(names)}" if names else "has no layout that is recognised"
    listed = ", ".join(_of_folders())
    raise BadInputError(
        f"{options.data} {words}; say how to read it: --corpus NAME, one of {listed}. docs/data.md has the layouts; "
        "any other one can be given as a list of images (manifest)"
    )


def _of_folders() -> list[str]:
    """Every corpus but those that this software draws."""
    return [name for name in list_sources() if get_source(name).drawn is None]


def _understood(error: DataProblems) -> list[str]:
    """Lines on what was understood of data that have problems."""
    from data.sources.base import FAKE, SPLITS

    lines = ["", "What was understood, without regard to the problems:", ""] if error.counts or error.notes else []
    for generator, label in sorted({(generator, label) for generator, label, _ in error.counts}):
        numbers = ", ".join(f"{split} {error.counts.get((generator, label, split), 0)}" for split in SPLITS)
        lines.append(f"  {generator} ({'fake' if label == FAKE else 'real'}): {numbers}")
    return [*lines, *(f"  note: {note}" for note in error.notes)]


def _facts(manifest: Manifest, num_pairs: int, findings: list[Finding]) -> dict[str, Any]:
    from data.masks import meanings
    from data.sources.base import FAKE, REAL, SHARED_REAL, SPLITS

    table, groups = manifest.table, []
    for (generator, label), rows in table.groupby(["generator", "label"]):
        counts = rows["split"].value_counts()
        groups.append(
            {
                "generator": None if generator == SHARED_REAL and label == REAL else str(generator),
                "label": "fake" if label == FAKE else "real",
                "images": {split: int(counts.get(split, 0)) for split in SPLITS},
                "masks": int(rows["mask"].notna().sum()),
                "photographs": int(rows["source_id"].nunique()),
            }
        )
    return {
        "corpus": manifest.source,
        "folder": str(manifest.root),
        "further_folders": {name: str(folder) for name, folder in manifest.further.items()},
        "data": manifest.digest,
        "groups": groups,
        "trained_on": list(manifest.train_generators),
        "only_tested": sorted(set(manifest.generators) - set(manifest.train_generators)),
        "only_trained": sorted(set(manifest.generators) - set(manifest.tested_generators)),
        "white_means": meanings(manifest),
        "pairs_looked_at": num_pairs,
        "masks": [str(finding) for finding in findings],
        "notes": [*manifest.notes, *_refused_names(manifest)],
        "skipped": [f"{problem.path}: {problem.what}" for problem in manifest.skipped],
    }


def _refused_names(manifest: Manifest) -> list[str]:
    """Why a launch will refuse the generators' names, a sentence each."""
    from grid.names import check_generators
    from grid.train_sets import check_names

    found = []
    for check in (check_generators, check_names):
        try:
            check(manifest.generators)
        except ValueError as error:
            found.append(f"a launch refuses these names: {error}")
    return found


def _print(facts: dict[str, Any], console: Console, *, given: str) -> None:
    """Print `_facts`.

    Args:
        facts: what they are.
        console: where to.
        given: the folder or list as it was named on the command line.
    """
    import textwrap

    def say(text: str, indent: str = "") -> None:
        for line in textwrap.wrap(text, _WIDTH, subsequent_indent=indent, break_on_hyphens=False) or [""]:
            console.print(line, highlight=False, markup=False)

    say(f"read as {facts['corpus']}: {facts['folder']}", "  ")
    for name, folder in facts["further_folders"].items():
        say(f"{name}: is {folder}", "  ")
    say("")
    rows: list[tuple[str, ...]] = [("", "train", "valid", "test", "masks", "photographs")]
    for group in facts["groups"]:
        name = "real" if group["generator"] is None else group["generator"]
        name += " (real)" if group["generator"] is not None and group["label"] == "real" else ""
        counts = [*group["images"].values(), group["masks"], group["photographs"]]
        rows.append((name, *map(str, counts)))
    first = min(30, max(len(row[0]) for row in rows))
    for name, *numbers in rows:
        shown = name if len(name) <= first else f"{name[: first - 1]}…"
        say_row = f"{shown:<{first}}" + "".join(f"{number:>8}" for number in numbers[:-1]) + f"{numbers[-1]:>13}"
        console.print(say_row, highlight=False, markup=False)
    say("")
    say(f"can be trained on: {', '.join(facts['trained_on']) or 'none'}", "  ")
    if facts["only_tested"]:
        say(f"only tested: {', '.join(facts['only_tested'])}", "  ")
    if facts["only_trained"]:
        say(f"only trained on: {', '.join(facts['only_trained'])}", "  ")
    for white, count in facts["white_means"].items():
        say(f"masks: white means {_WORDS[white]} in {count}", "  ")
    if facts["white_means"]:
        pairs = facts["pairs_looked_at"]
        looked = (
            f"masks held against the originals of {pairs} fakes" if pairs else "masks of a sample, without originals"
        )
        say(f"{looked}: {'this was found' if facts['masks'] else 'nothing was found'}", "  ")
    for title, lines in (("", facts["masks"]), ("note", facts["notes"]), ("left out", facts["skipped"][:20])):
        for line in lines:
            say(f"{title}: {line}" if title else f"  {line}", "  ")
    if len(facts["skipped"]) > 20:
        say(f"... and {len(facts['skipped']) - 20} more files were left out")
    say("")
    same = f"{facts['corpus']} --data {shlex.quote(given)}"
    print_wrapped(f"to train on it: python launch.py {same}", console)
    print_wrapped(f"to look at its pixels: python launch.py audit {same}", console)
    say("Both take the options that were given here, too.")
