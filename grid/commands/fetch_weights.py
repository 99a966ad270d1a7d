"""Published weights in a folder, for machines without a network: fetched, checked, and listed with their checksums."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grid.command_line import on_stderr, print_json, print_wrapped
from grid.commands import BAD_INPUT, OK, BadInputError, Context, register_command
from grid.options import add_experiment, add_method_options, resolve_methods

if TYPE_CHECKING:
    from rich.console import Console

    from models.hubs import HubFile

STATUSES = """\
exit status: 0 done; 1 an error that nobody expected;
2 bad input, or files of the folder are missing or wrong; 130 interrupted: the same command goes on"""
SUMS = "checksums.sha256"  # as `sha256sum -c` reads it
_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")
_UNFINISHED = (".incomplete", ".partial", ".lock", ".metadata")


def add_options(parser: argparse.ArgumentParser) -> None:
    """The methods, as a launch chooses them, and the folder."""
    add_experiment(parser)
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="the folder; a second run goes on there")
    parser.add_argument(
        "--check", action="store_true", help="fetch nothing: check the files in DIR, and say which are missing"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, and nothing else")
    add_method_options(parser)


@register_command("fetch-weights", add_options, statuses=STATUSES)
def fetch_weights(options: argparse.Namespace, context: Context) -> int:
    """Fetch the weights of methods into a folder, for machines without a network; --check checks the folder."""
    console = on_stderr() if options.json else context.console
    configs, weight_files = resolve_methods(options)
    folder: Path = options.to.expanduser().resolve()
    if options.check and not folder.is_dir():
        raise BadInputError(f"--to {options.to} is no folder, so nothing can be checked there")
    wanted = published(configs, weight_files, console)
    report: dict[str, Any] = {"folder": str(folder), "variables": variables(folder)}
    report["files"] = [{"file": str(file), "methods": methods} for file, methods in wanted.items()]
    if options.check:
        report["problems"] = problems = [*_wrong(folder), *_missing(folder, wanted)]
    else:
        _fetch(folder, wanted, console)
        problems = []
    report["checksums"] = sums = read_sums(folder) if (folder / SUMS).is_file() else {}
    if options.json:
        print_json(report)
        return BAD_INPUT if problems else OK
    for problem in problems:
        console.print(f"[red]bad[/]  {problem}", highlight=False, soft_wrap=True)
    if problems:
        console.print(f"{len(problems)} problems in {folder}", highlight=False, soft_wrap=True)
        return BAD_INPUT
    if not wanted:
        console.print(f"no file of a hub is needed by {', '.join(configs)}", highlight=False)
        return OK
    console.print(
        f"{len(sums)} files in {folder}, listed with their SHA-256 in {SUMS}", highlight=False, soft_wrap=True
    )
    _print_remedy(folder, console)
    return OK


def variables(folder: Path) -> dict[str, str]:
    """The variables with which a machine without a network finds the files."""
    from models.hubs import HUGGING_FACE, TORCH

    return {"HF_HUB_CACHE": str(folder / HUGGING_FACE), "TORCH_HOME": str(folder / TORCH)}


def published(
    configs: Mapping[str, Mapping[str, Any]], weight_files: Mapping[str, Path], console: Console
) -> dict[HubFile, list[str]]:
    """The published files that methods load, each with the methods.

    Raises:
        BadInputError: a method names weights or a backbone that do not exist, or does not say what it loads.
    """
    import dataclasses

    from grid.steps import step
    from models.detector import WeightsError
    from models.registry import detector_info

    wanted: dict[HubFile, list[str]] = {}
    with step(console, f"looking up the files of {', '.join(configs)}"):
        from models.backbones import published_files

        for method, config in configs.items():
            info = detector_info(method)
            if info.pretrained is None:
                if str(config.get("weights", "")).startswith("hub"):
                    raise BadInputError(
                        f"{method} does not say which published files it loads (pretrained=… where it is registered); "
                        f"leave it out, with --methods …,-{method}"
                    )
                continue
            for needed in info.pretrained(dataclasses.replace(info.config, **config)):
                try:
                    for file in published_files(*needed):
                        wanted.setdefault(file, []).append(method)
                except (KeyError, ValueError, WeightsError) as error:
                    raise BadInputError(f"{method}: {error.args[0]}") from error
    return {file: list(dict.fromkeys(methods)) for file, methods in wanted.items()}


def _fetch(folder: Path, wanted: Mapping[HubFile, list[str]], console: Console) -> None:
    """Fetch what is missing, and write the checksums of all files of the folder.

    Raises:
        BadInputError: no network, too little space, or a file is not the published one.
    """
    from data.images import file_digest
    from grid.steps import step
    from models.detector import WeightsError
    from models.hubs import offline_variable
    from models.published import size_in_words
    from models.weights import OTHER_WEIGHTS

    missing = [file for file in wanted if file.cached(folder) is None]
    fetched = set[Path]()
    try:
        if missing and (variable := offline_variable()):
            raise BadInputError(f"{variable} forbids to ask a hub: unset {variable} to fetch weights")
        with step(console, f"asking for the sizes of {len(missing)} files"):
            sizes = {file: file.size() for file in missing}
        folder.mkdir(parents=True, exist_ok=True)
        known, free = sum(size or 0 for size in sizes.values()), shutil.disk_usage(folder).free
        if known > free:
            raise BadInputError(
                f"{folder} has {free / 1e9:.1f} GB free, and the missing files take {known / 1e9:.1f} GB: choose "
                "another folder with --to, or make space"
            )
        for number, (file, size) in enumerate(sizes.items(), start=1):
            with step(console, f"fetching {file} ({size_in_words(size)}), {number} of {len(sizes)}"):
                path = file.fetch(folder)
            if (digest := file.digest(path)) and not file_digest(path).startswith(digest):
                path.resolve().unlink()
                raise BadInputError(
                    f"{file} is not the published file (its digest differs), and was removed: try again"
                )
            fetched.add(path)
            console.print(
                f"fetched {file}, for {', '.join(wanted[file])}", highlight=False, markup=False, soft_wrap=True
            )
    except WeightsError as error:
        elsewhere = f"repeat it where the hubs answer, and copy {folder} from there"
        raise BadInputError(str(error).replace(OTHER_WEIGHTS, elsewhere)) from error
    except OSError as error:
        raise BadInputError(
            f"{folder} cannot be written to ({error.strerror or error}); choose another with --to"
        ) from error
    if wanted:
        with step(console, "computing checksums"):
            write_sums(folder, fetched)


def _missing(folder: Path, wanted: Mapping[HubFile, list[str]]) -> Iterator[str]:
    for file, methods in wanted.items():
        if file.cached(folder) is None:
            yield f"{file} is missing, for {', '.join(methods)}: run the same without --check where there is a network"


def _wrong(folder: Path) -> Iterator[str]:
    """One line per file of the list that is missing or has another content, and per file that is in no list."""
    from data.images import file_digest

    if not (folder / SUMS).is_file():
        yield f"there is no {SUMS} in {folder}: run the same without --check, which writes it"
        return
    listed = read_sums(folder)
    for name, digest in listed.items():
        if not (folder / name).is_file():
            yield f"{name} is listed in {SUMS}, and missing"
        elif file_digest(folder / name) != digest:
            yield f"{name} has another content than {SUMS} says: delete it, and run the same without --check"
    for path in _files(folder):
        if (name := path.relative_to(folder).as_posix()) not in listed:
            yield f"{name} is not listed in {SUMS}: run the same without --check"


def read_sums(folder: Path) -> dict[str, str]:
    """Path below the folder -> SHA-256, by the list. Raises `BadInputError` for a damaged list."""
    sums = {}
    for line in (folder / SUMS).read_text(encoding="utf-8").splitlines():
        match = _LINE.fullmatch(line)
        if match is None:
            raise BadInputError(f"{folder / SUMS} is damaged at {line[:80]!r}: delete it, and run this without --check")
        sums[match[2]] = match[1]
    return sums


def write_sums(folder: Path, fetched: Collection[Path] = ()) -> None:
    """List every file with its SHA-256. A listed file keeps its line: whether it is still that file, --check says.

    Files that were just fetched, and the names of revisions beside them, get new lines.
    """
    from data.images import file_digest

    before = read_sums(folder) if (folder / SUMS).is_file() else {}
    paths = list(_files(folder))
    for path in paths:
        if path in fetched or (fetched and "refs" in path.relative_to(folder).parts):
            before.pop(path.relative_to(folder).as_posix(), None)
    names = [path.relative_to(folder).as_posix() for path in paths]
    lines = [f"{before.get(name) or file_digest(folder / name)}  {name}\n" for name in names]
    partial = folder / f"{SUMS}.{os.getpid()}.partial"
    partial.write_text("".join(lines), encoding="utf-8")
    partial.replace(folder / SUMS)


def _files(folder: Path) -> Iterable[Path]:
    """What a launch reads: of Hugging Face's cache the snapshots and the names of revisions, of torch's all files."""
    from models.hubs import CHECKPOINTS, HUGGING_FACE, TORCH

    patterns = (
        f"{HUGGING_FACE}/*/snapshots/*/**/*",
        f"{HUGGING_FACE}/*/refs/**/*",
        "/".join((TORCH, *CHECKPOINTS, "*")),
    )
    found = {path for pattern in patterns for path in folder.glob(pattern)}
    return sorted(path for path in found if path.is_file() and path.suffix not in _UNFINISHED)


def _print_remedy(folder: Path, console: Console) -> None:
    """The two variables, and where they go."""
    exports = [f"export {name}={shlex.quote(value)}" for name, value in variables(folder).items()]
    console.print("\non a machine without a network, with this folder at the same path, before a launch:")
    for line in exports:
        console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)
    print_wrapped(
        "on a Ray cluster, every node needs the folder and the variables: put the folder on the shared disk, and the "
        "two lines into clusters/environment.sh, which the shells of all nodes read before Ray starts",
        console,
    )
    print_wrapped(f"check a copy: cd DIR && sha256sum -c {SUMS}, or this command with --check", console)
