"""What fits on a card: the card itself, two large encoders side by side, less and less memory, trials at once."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks import heavy, packing
from benchmarks.gpu.findings import NEEDS_GPU, Finding, Place, Tell, in_words
from benchmarks.gpu.project import TRAINED, at_once, built, encode, encode_at_once, hear_failures, hold_share, neighbour
from benchmarks.gpu.running import Child, ChildFailed
from benchmarks.machine import cores, machine
from models.detector import FitSession, MemoryExhausted

GIB = 2**30
LIMITS_S, AT_ONCE_S = 85, 75  # for all parts of a check; what has not begun by then is named
LEAST_S = 8  # a part is not begun with less time than this
NOT_TRIED = "not tried: the time is up"
OLDEST_DRIVER = 580  # for the CUDA 13 that torch's wheels bring
_ASKED = "name,driver_version,memory.total,memory.used,compute_mode,mig.mode.current,utilization.gpu"


# The card ------------------------------------------------------------------------------------------------------------


def card(place: Place, tell: Tell) -> None:
    """Driver, memory, what torch says of the card, and whether it computes."""
    tell(Finding("machine", machine()))
    tell(Finding("cores that this process may use", cores()))
    tell(Finding("torch's CUDA and cuDNN", [torch.version.cuda, torch.backends.cudnn.version()]))
    asked = nvidia_smi(_ASKED)
    driver = asked.get("driver_version", "")
    new_enough = driver.partition(".")[0].isdigit() and int(driver.partition(".")[0]) >= OLDEST_DRIVER
    tell(place.on_card(Finding("nvidia-smi", asked, f"driver {OLDEST_DRIVER} or newer", new_enough)))
    tell(
        Finding(
            "TF32 by default in matrix products and convolutions",
            [torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32],
        )
    )
    if not place.on_gpu:
        tell(Finding("capability", NEEDS_GPU, "7.5 or newer"))
        tell(Finding("free and total memory, GiB", NEEDS_GPU))
        tell(Finding("computes in bfloat16 without emulation", NEEDS_GPU))
    else:
        capability = torch.cuda.get_device_capability()
        tell(Finding("capability", "{}.{}".format(*capability), "7.5 or newer", capability >= (7, 5)))
        tell(Finding("free and total memory, GiB", [value / GIB for value in torch.cuda.mem_get_info()]))
        tell(Finding("computes in bfloat16 without emulation", torch.cuda.is_bf16_supported(including_emulation=False)))
    x = torch.arange(6.0, device=place.device).view(2, 3)
    right = bool(((x @ x.T).cpu() == torch.tensor([[5.0, 14.0], [14.0, 50.0]])).all())
    tell(place.on_card(Finding("a small product is right", right, "right", right)))


def use_card(send: Callable[[Any], None]) -> None:
    """Name the card and compute something on it. Raises torch's own error where it cannot use one."""
    torch.cuda.init()
    send(f"{torch.cuda.get_device_name()}: 1 + 1 + 1 = {float(torch.ones(3, device='cuda').sum()):g}")


def nvidia_smi(fields: str) -> dict[str, str]:
    """What nvidia-smi says of the first card; {"problem": …} where it says nothing."""
    command = ["nvidia-smi", "--query-gpu=" + fields, "--format=csv,noheader,nounits", "-i", _first_card()]
    try:
        done = subprocess.run(command, capture_output=True, timeout=20, encoding="utf-8", errors="replace")
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"problem": in_words(error)}
    if done.returncode:
        return {"problem": (done.stderr or done.stdout).strip()[:300]}
    return dict(zip(fields.split(","), done.stdout.strip().split(", "), strict=False))


def _first_card() -> str:
    """For nvidia-smi's -i: the card that torch calls 0."""
    return os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0] or "0"


class Utilisation:
    """Samples nvidia-smi's utilisation within a `with` block; `percent` is its mean, None where there is none."""

    def __init__(self) -> None:
        self.percent: float | None = None
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Utilisation:
        command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "100"]
        with suppress(OSError):
            self._process = subprocess.Popen(
                [*command, "-i", _first_card()], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8"
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is None:
            return
        self._process.terminate()
        lines, _none = self._process.communicate()
        samples = [float(line) for line in lines.split() if line.isdigit()]
        self.percent = sum(samples) / len(samples) if samples else None


# Two encoders on one card --------------------------------------------------------------------------------------------


def two_encoders(place: Place, tell: Tell) -> None:
    """Two SAM encoders, each with half of the card: the second begins when the first has taken what it wants."""
    context: Any = multiprocessing.get_context(place.start)
    ready, over = context.Event(), context.Event()
    ends = time.monotonic() + 70
    children = [Child(place.start, _beside, place, first, ready, over) for first in (True, False)]
    found = list(_answers(children, ends))
    for which, one in zip(("first", "second"), found, strict=True):
        tell(Finding(f"the {which} encoder", one))
    good = not any("error" in one for one in found)
    tell(place.on_card(Finding("both encode side by side", good, "both", good)))
    tell(place.on_card(Finding("images/s of both", sum(one.get("images/s", 0.0) for one in found))))


def _beside(place: Place, first: bool, ready: Any, over: Any, send: Callable[[Any], None]) -> None:
    """Encode until both have done it for a while; what this process found."""
    found: dict[str, Any] = {}
    number, seconds = (4, 0.1) if place.toy else (32, 5.0)
    try:
        hold_share(place, 0.5)
        detector = built(place, "sam_linear")
        pixels = heavy.noise(detector, number)
        found["images at once, asked for"] = at_once(detector)
        if not first:
            ready.wait(60)
        encode(detector, pixels)
        encode(detector, pixels)
        ready.set()
        rounds, started = 0, time.monotonic()
        while not over.is_set() and time.monotonic() - started < (60 if first else seconds):
            encode(detector, pixels)
            rounds += 1
        found["images at once"] = at_once(detector)
        found["images/s"] = number * rounds / (time.monotonic() - started)
    except (MemoryExhausted, RuntimeError) as error:
        found["error"] = in_words(error)
    finally:
        ready.set()
        if not first:
            over.set()
    found["most reserved, GiB"] = torch.cuda.max_memory_reserved() / GIB if place.on_gpu else NEEDS_GPU
    send(found)


def _answers(children: Sequence[Child], ends: float) -> Iterator[dict[str, Any]]:
    """What each child found, or its error."""
    for child in children:
        try:
            yield child.answer(ends)
        except (ChildFailed, TimeoutError) as error:
            yield {"error": in_words(error)}


# Less and less memory ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Squeeze:
    """A limit of memory under which something is computed.

    Attributes:
        method: trained, or its encoder used.
        gib: of the card's memory.
        by: "limit": torch's own allocator is bounded; "neighbour": another tensor holds all the rest of the card, so
            that CUDA's libraries find none for themselves either.
    """

    method: str
    gib: float
    by: str

    @property
    def name(self) -> str:
        """For the file of findings."""
        return f"{self.method}, {self.gib:g} GiB ({self.by})"


def _squeezes(method: str, limits: Sequence[float], left: Sequence[float]) -> list[Squeeze]:
    return [Squeeze(method, gib, "limit") for gib in limits] + [Squeeze(method, gib, "neighbour") for gib in left]


SQUEEZES = (
    *_squeezes(TRAINED, (6, 4, 3, 2, 1.5, 1, 0.5, 0.1), (2, 1, 0.5)),
    *_squeezes("sam_linear", (8, 4, 2, 1), (4, 1)),
    *_squeezes("clip_linear", (2, 1.4, 0.8), (1,)),
)
TOY_SQUEEZES = (Squeeze(TRAINED, 1, "limit"), Squeeze("sam_linear", 1, "neighbour"))
BESIDE = 3  # processes at once, where each is bounded
CLEAR = "ended clearly"


def limits(place: Place, tell: Tell) -> None:
    """Training and encoding with less and less memory: whole, in smaller batches, or ended, and every error's text."""
    ends = time.monotonic() + LIMITS_S
    jobs = TOY_SQUEEZES if place.toy else SQUEEZES
    bounded = [job for job in jobs if job.by == "limit"]
    groups = [bounded[start : start + BESIDE] for start in range(0, len(bounded), BESIDE)]
    unclear, texts, late = [], set[str](), []
    for group in [*groups, *([job] for job in jobs if job.by != "limit")]:
        if time.monotonic() > ends - LEAST_S:
            late += [job.name for job in group]
            continue
        children = [Child(place.start, _squeezed, place, job) for job in group]
        for job, found in zip(group, _answers(children, ends), strict=True):
            if "error" in found:
                found = {"how": "the process ended", **found}
            tell(Finding(job.name, found))
            texts.update(found.get("failures", ()))
            if found["how"] not in ("whole", "smaller batches", CLEAR):
                unclear.append(job.name)
    if late:
        tell(Finding(NOT_TRIED, late))
    tell(place.on_card(Finding("different texts of failures", sorted(texts))))
    good = not unclear
    wanted = "none that neither went on nor ended clearly"
    tell(place.on_card(Finding("limits under which it broke", unclear, wanted, good)))


def _squeezed(place: Place, job: Squeeze, send: Callable[[Any], None]) -> None:
    """Compute under a limit: how that went, and the texts of all failures that were seen on the way."""
    failures: list[str] = []
    hear_failures(failures)
    held = None
    try:
        if place.on_gpu:
            free, total = torch.cuda.mem_get_info()
            if job.by == "limit":
                torch.cuda.set_per_process_memory_fraction(min(1.0, job.gib * GIB / total))
            else:
                held = torch.empty(max(1, int(free - job.gib * GIB)), dtype=torch.uint8, device=place.device)
        how = "whole" if _is_whole(place, job.method) else "smaller batches"
    except MemoryExhausted as error:
        how = CLEAR
        failures.append(in_words(error)[:400])
    except Exception as error:
        how = "broke"
        failures.append(in_words(error)[:400])
    del held
    send({"how": how, "failures": list(dict.fromkeys(failures))})


def _is_whole(place: Place, method: str) -> bool:
    """Train or encode; whether memory was enough for whole batches."""
    if heavy.trains(method):
        detector = built(place, method, epochs=1, batch_size=4 if place.toy else 32)
        images = heavy.noise(detector, 8 if place.toy else 64)
        detector.fit(heavy.examples(images), heavy.examples(images[:2]), FitSession())
        return not detector.batch_halved
    detector = built(place, method)
    number = min(32, at_once(detector)) if method == "clip_linear" else 4
    encode_at_once(detector, number)
    encode(detector, heavy.noise(detector, number))
    return at_once(detector) == number


# Trials at once ------------------------------------------------------------------------------------------------------


def trials_at_once(place: Place, tell: Tell) -> None:
    """Equal trials at once on one card, each with its share of the memory: images per second of all."""
    if place.toy:
        jobs = [(TRAINED, 1), (TRAINED, 2)]
        size = packing.TOY
    else:
        numbers = {"sam_linear": (1, 2), TRAINED: (4, 2, 1), "clip_linear": (1, 4)}
        jobs = [(method, number) for method in numbers for number in numbers[method]]
        changes = {method: packing.FULL.changes[method] for method in numbers}
        size = packing.Size(changes, trained=512, encoded=32, seconds=3.0)
    context: Any = multiprocessing.get_context(place.start)
    last, late = time.monotonic() + AT_ONCE_S, []
    for method, number in jobs:
        if time.monotonic() > last - LEAST_S:
            late.append(packing.name_of(method, number))
            continue
        free = nvidia_smi("memory.free").get("memory.free", "") if place.on_gpu else ""
        before = float(free) * 2**20 if free.isdigit() else 0.0
        barrier = context.Barrier(number)
        arguments = (place, method, size, barrier, before, 1 / number)
        children = [Child(place.start, _neighbour, *arguments) for _ in range(number)]
        found = list(_answers(children, last))
        name = f"{packing.name_of(method, number)}, images/s of all"
        errors = [one["error"] for one in found if "error" in one]
        if errors:
            tell(Finding(name, errors, "", met=False))
        elif not all(one["fits"] for one in found):
            tell(Finding(name, "does not fit: batches had to be smaller"))
        else:
            tell(place.on_card(Finding(name, sum(one["rate"] for one in found))))
        if number == 1 and not errors and before:
            tell(Finding(f"{method}, GB that one trial holds", found[0]["memory_gb"]))
    if late:
        tell(Finding(NOT_TRIED, late))


def _neighbour(
    place: Place,
    method: str,
    size: packing.Size,
    barrier: Any,
    free_before: float,
    share: float,
    send: Callable[[Any], None],
) -> None:
    packing.meeting.barrier = barrier
    found = neighbour(place, method, size, free_before, share)
    send({"fits": found.fits, "rate": found.rate, "memory_gb": found.memory_gb})
