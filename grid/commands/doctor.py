"""Whether this machine can run a grid: one line per fact, with the remedy where something is wrong."""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal, Protocol
from urllib.parse import urlparse

from rich.text import Text

from data.addresses import without_passwords
from grid.command_line import on_stderr, print_json, version
from grid.commands import BAD_INPUT, OK, Context, register_command
from grid.options import ROOT
from grid.steps import step
from grid.uris import sqlite_file, tracking_uri

GIB = 2**30
ENOUGH_MEMORY, ENOUGH_DISK, ENOUGH_SHM = 6 * GIB, 10 * GIB, 1 * GIB  # the demo: 2.5 GB of memory, .2 GB of disk
ANSWER_SECONDS = 3.0
HUBS = ("huggingface.co", "openaipublic.azureedge.net", "dl.fbaipublicfiles.com")
STATUSES = """\
exit status: 0 a grid can run here; 1 an error that nobody expected;
2 a grid cannot run here: what is wrong is marked "bad", with the remedy; or bad input"""
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  # where Linux has it
COLOURS = {"ok": "green", "note": "yellow", "bad": "red"}


@dataclass(frozen=True)
class Finding:
    """One fact.

    Attributes:
        what: what was looked at.
        level: "ok"; "note": something does not work, and a grid may not need it; "bad": a grid cannot run.
        said: what was found.
        remedy: what to do about it; "" where nothing is to do.
    """

    what: str
    level: Literal["ok", "note", "bad"]
    said: str
    remedy: str = ""


class Check(Protocol):
    """Looks at one thing; its name says at what."""

    __name__: str

    def __call__(self, options: argparse.Namespace) -> Iterator[Finding]:
        """What is found."""
        ...


def add_options(parser: argparse.ArgumentParser) -> None:
    """The folders of a grid."""
    parser.add_argument("--runs", type=Path, default=ROOT / "runs", metavar="DIR", help="as of the grid")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="as of the grid; default: RUNS/cache")
    parser.add_argument("--no-network", action="store_true", help="do not ask whether hubs and servers answer")
    parser.add_argument("--json", action="store_true", help="print JSON, and nothing else")


@register_command("doctor", add_options, statuses=STATUSES)
def doctor(options: argparse.Namespace, context: Context) -> int:
    """Check this machine: Python, packages, GPU, memory, disk, folders, servers."""
    options.cache = options.cache or options.runs / "cache"
    console = on_stderr() if options.json else context.console
    found: list[Finding] = []
    for check in CHECKS:
        with step(console, f"looking at {check.__name__.replace('_', ' ')}", in_logs=False):
            findings = list(check(options))
        found += findings
        for finding in [] if options.json else findings:
            remedy = f". {finding.remedy[0].upper()}{finding.remedy[1:]}" if finding.remedy else ""
            level = (f"{finding.level:<4}", COLOURS[finding.level])
            line = Text.assemble(level, " ", (finding.what, "bold"), f": {finding.said}{remedy}")
            console.print(line, soft_wrap=not console.is_terminal)  # a log file: one line each
    if options.json:
        print_json({"version": version(), "findings": [asdict(finding) for finding in found]})
    return BAD_INPUT if any(finding.level == "bad" for finding in found) else OK


def python(options: argparse.Namespace) -> Iterator[Finding]:
    """The interpreter."""
    yield Finding("Python", "ok", f"{platform.python_version()} ({sys.executable})")


def packages(options: argparse.Namespace) -> Iterator[Finding]:
    """The installed packages against the lock."""
    missing, other, count = [], [], 0
    for name, wanted, condition in locked((ROOT / "requirements.lock").read_text(encoding="utf-8")):
        if not applies(condition):
            continue
        count += 1
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            missing.append(name)
            continue
        if installed != wanted:
            other.append(f"{name} {installed} (locked: {wanted})")
    if missing:
        shown = ", ".join(missing[:5]) + (" …" if len(missing) > 5 else "")
        yield Finding("packages", "bad", f"{len(missing)} of {count} are missing: {shown}", "run make setup")
    if other:
        shown = ", ".join(other[:5]) + (" …" if len(other) > 5 else "")
        remedy = "make clean setup installs the locked versions; results of others may differ"
        yield Finding("packages", "note", f"{len(other)} of {count} have another version: {shown}", remedy)
    if not missing and not other:
        yield Finding("packages", "ok", f"{count}, all as locked")


def locked(text: str) -> Iterator[tuple[str, str, str]]:
    """(name, version, condition or "") of each package of a lock file."""
    for match in re.finditer(r"^([\w.-]+)(?:\[[^\]]*\])?==([^\s;\\]+)(?:\s*;\s*([^\\\n]+))?", text, flags=re.MULTILINE):
        yield match[1], match[2], (match[3] or "").strip()


def applies(condition: str) -> bool:
    """Whether a package of the lock is meant for this machine."""
    from packaging.markers import Marker

    return not condition or Marker(condition).evaluate()


def gpu(options: argparse.Namespace) -> Iterator[Finding]:
    """The GPU, and whether torch can use it."""
    from grid.devices import REMEDY, has_card, torch_problem

    problem, driver = torch_problem(), nvidia_driver()
    known = f", driver {driver}" if driver else ""
    if problem is None:
        import torch

        for number in range(torch.cuda.device_count()):
            card = torch.cuda.get_device_properties(number)
            yield Finding(
                "GPU", "ok", f"{card.name}, {card.total_memory / GIB:.0f} GiB, CUDA {torch.version.cuda}{known}"
            )
    elif has_card():
        yield Finding("GPU", "bad", f"there is one{known}, and torch cannot use it: {problem}", REMEDY)
    else:
        remedy = "the demo and small methods need none; for the published methods see docs/cost.md"
        yield Finding("GPU", "note", "none", remedy)


def nvidia_driver(file: Path = Path("/proc/driver/nvidia/version")) -> str:
    """The version of NVIDIA's driver, as the kernel says it; "": there is none."""
    try:
        match = re.search(r"Kernel Module\D.*?(\d+\.\d+(?:\.\d+)?)", file.read_text(encoding="utf-8"))
    except OSError:
        return ""
    return match[1] if match else ""


def memory(options: argparse.Namespace) -> Iterator[Finding]:
    """Cores and memory."""
    import psutil

    total, free = psutil.virtual_memory().total, psutil.virtual_memory().available
    said = f"{os.cpu_count()} cores, {total / GIB:.1f} GiB of memory, {free / GIB:.1f} GiB free"
    if free < ENOUGH_MEMORY:
        remedy = "end other programs, or run with --local or --max-concurrent 1"
        yield Finding("memory", "note", said, remedy)
    else:
        yield Finding("memory", "ok", said)


def shared_memory(options: argparse.Namespace) -> Iterator[Finding]:
    """Where Ray keeps objects; small in many containers."""
    folder = SHARED_MEMORY
    if not folder.is_dir():
        return
    free = shutil.disk_usage(folder).free
    if free < ENOUGH_SHM:
        remedy = "give the container more (docker run --shm-size=2g), or run with --local"
        yield Finding(str(folder), "note", f"{free / GIB:.2f} GiB free, little for Ray", remedy)
    else:
        yield Finding(str(folder), "ok", f"{free / GIB:.1f} GiB free")


def folders(options: argparse.Namespace) -> Iterator[Finding]:
    """The folders of a grid: whether they can be written, and their space."""
    for option, folder in (("--runs", options.runs.resolve()), ("--cache", options.cache.resolve())):
        there = folder
        while not there.exists():
            there = there.parent
        try:
            with tempfile.TemporaryFile(dir=there) as file:
                file.write(b"?")
        except OSError as error:
            remedy = f"choose another folder with {option}, or give this user the permission"
            yield Finding(option, "bad", f"{folder} cannot be written: {error.strerror}", remedy)
            continue
        free = shutil.disk_usage(there).free
        said = f"{folder}, {free / GIB:.0f} GiB free"
        if free < ENOUGH_DISK:
            remedy = (
                f"make space, or choose another disk with {option} (docs/performance.md says how large caches grow)"
            )
            yield Finding(option, "note", said, remedy)
        else:
            yield Finding(option, "ok", said)


def temporary_folder(options: argparse.Namespace) -> Iterator[Finding]:
    """Whether Ray's sockets can have their names."""
    from grid.settings import long_temporary_folder

    if problem := long_temporary_folder():
        yield Finding("temporary folder", "note", problem)
    else:
        yield Finding("temporary folder", "ok", os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())


def store(options: argparse.Namespace) -> Iterator[Finding]:
    """The MLflow store."""
    try:
        uri = tracking_uri(options.runs.resolve())
    except ValueError as error:
        yield Finding("MLflow", "bad", str(error))
        return
    shown, file = without_passwords(uri), sqlite_file(uri)
    if file is not None:
        yield Finding("MLflow", "ok", f"{shown} ({'there' if file.exists() else 'made by the first launch'})")
    elif options.no_network:
        yield Finding("MLflow", "ok", f"{shown} (not asked)")
    elif problem := unreachable(uri):
        remedy = "start the server, or mend MLFLOW_TRACKING_URI"
        yield Finding("MLflow", "bad", f"{shown} does not answer: {problem}", remedy)
    else:
        yield Finding("MLflow", "ok", f"{shown} answers")


def hubs(options: argparse.Namespace) -> Iterator[Finding]:
    """Where published weights come from."""
    if options.no_network:
        return
    from models.hubs import offline_variable

    if variable := offline_variable():
        yield Finding("hubs", "ok", f"not asked, because {variable} is set")
        return
    away = [host for host in HUBS if unreachable(f"https://{host}")]
    if away:
        remedy = (
            "weights must be on this machine already (python launch.py fetch-weights EXPERIMENT --to DIR where there "
            "is a network), or be given with --weights METHOD=FILE; the demo needs none"
        )
        yield Finding("hubs", "note", f"no answer from {', '.join(away)}", remedy)
    else:
        yield Finding("hubs", "ok", f"{', '.join(HUBS)} answer")


def unreachable(address: str) -> str:
    """Why no connection can be made to the host of an address, in words; "" if one can."""
    parsed = urlparse(address)
    ports = {"https": 443, "http": 80, "postgresql": 5432, "mysql": 3306}
    try:
        port = parsed.port or ports.get(parsed.scheme.partition("+")[0], 0)
        socket.create_connection((parsed.hostname or "", port), ANSWER_SECONDS).close()
    except (OSError, ValueError) as error:
        return str(error) or type(error).__name__
    return ""


def weights(options: argparse.Namespace) -> Iterator[Finding]:
    """The published weights of the methods, in the caches of the hubs."""
    from models.published import default_config, grouped, weights_held
    from models.registry import list_detectors

    held = {name: weights_held(name, default_config(name)) for name in list_detectors()}
    for each, methods in grouped(held).items():
        if each.state in ("here", "fetch"):
            level: Literal["ok", "note"] = "ok" if each.state == "here" else "note"
            yield Finding(f"weights of {', '.join(methods)}", level, f"{each.what}: {each.said}")


CHECKS: tuple[Check, ...] = (
    python, packages, gpu, memory, shared_memory, folders, temporary_folder, store, hubs, weights,
)  # fmt: skip
