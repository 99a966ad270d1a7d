"""Everything that only a GPU can show, the most valuable first, into one file that grows: at most 8 minutes.

Start it with benchmarks/gpu.sh, which installs what is missing. Paths are seen from the checkout.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from benchmarks.gpu import memory
from benchmarks.gpu.checks import CHECKS
from benchmarks.gpu.findings import Place
from benchmarks.gpu.running import Child, ChildFailed, Record, run
from benchmarks.gpu.table import RESULTS

_PROBE_S = 60.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the checks. Returns 0, 1 if one did not come to its end, 2 if nothing could run here."""
    names = [check.name for check in CHECKS]
    parser = argparse.ArgumentParser(
        prog="benchmarks/gpu.sh",
        description=__doc__,
        epilog="\n".join(f"{check.name:<13} {check.what}" for check in CHECKS),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="these alone; others stay in the file")
    parser.add_argument(
        "--out", type=Path, default=RESULTS, metavar="FILE", help="default: benchmarks/gpu/results.json"
    )
    parser.add_argument("--minutes", type=float, default=7.5, metavar="M", help="for all checks; default: 7.5")
    parser.add_argument("--toy", action="store_true", help="tiny networks on the CPU: shows that the code runs")
    parser.add_argument(
        "--wheels", action="store_true", help="only fetch what the machine with the GPU lacks, and stop"
    )
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.names if name not in names]:
        parser.error(f"no check named {', '.join(unknown)}; there are: {', '.join(names)}")
    if options.toy and options.out == RESULTS:
        parser.error("a toy says nothing about a GPU and does not go into the committed file: give --out")
    begun = time.monotonic()
    import_all()
    place = Place("cpu", toy=True)
    if options.toy:
        one_thread()
    else:
        start = how_to_start()
        if start is None:
            return 2
        place = Place("cuda", start=start)
    checks = [check for check in CHECKS if not options.names or check.name in options.names]
    record = Record(options.out, place, keep=bool(options.names))
    whole = run(checks, place, record, seconds=60 * options.minutes - (time.monotonic() - begun))
    print(f"findings: {options.out}", file=sys.stderr)
    return 0 if whole else 1


def import_all() -> None:
    """Import what the checks need, so that processes that are forked have it already. What is missing shows there."""
    for name in ("timm", "open_clip", "segment_anything", "sklearn.linear_model", "torch.profiler"):
        with suppress(ImportError):
            __import__(name)


def one_thread() -> None:
    """Compute with one thread here and in forked processes: threads of tiny networks only wait for each other."""
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(1)
    threadpool_limits(1)


def how_to_start() -> str | None:
    """How a process must begin so that torch can use the GPU in it; None, with the reason printed, if it cannot."""
    for start in ("fork", "spawn"):
        try:
            print(Child(start, memory.use_card).answer(time.monotonic() + _PROBE_S), file=sys.stderr)
        except (ChildFailed, TimeoutError) as error:
            print(f"torch cannot use the GPU ({start}): {error}", file=sys.stderr)
        else:
            return start
    return None


if __name__ == "__main__":
    sys.exit(main())
