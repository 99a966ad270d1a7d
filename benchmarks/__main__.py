"""Run benchmarks by name, all of them by default, and put what they find into one file.

python -m benchmarks                         all that this machine can run
python -m benchmarks frozen ray              these
python -m benchmarks training-gpu packing    on a machine with a GPU; need neither Ray nor MLflow
python -m benchmarks --tables                writes the tables of docs/, from results.json; runs nothing
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.registry import BENCHMARKS

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, write. Returns 0, or 2 where a benchmark that was asked for cannot run here."""
    from benchmarks import report
    from benchmarks.machine import load_average
    from benchmarks.measure import MIN_REPEATS, ROOT, NotHereError, say, stop_after

    epilog = "\n".join(f"{name:<13} {benchmark.what}" for name, benchmark in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all that this machine can run")
    parser.add_argument("--repeats", type=int, default=MIN_REPEATS, metavar="N", help=f"default: {MIN_REPEATS}")
    parser.add_argument(
        "--out", type=Path, default=report.RESULTS, metavar="FILE", help="merged into; default: results.json here"
    )
    parser.add_argument(
        "--minutes", type=float, default=0.0, metavar="M", help="of a benchmark, after which no further repeat begins"
    )
    parser.add_argument("--toy", action="store_true", help="tiny sizes, to see that the code runs; needs --out")
    parser.add_argument("--tables", action="store_true", help="write the tables of docs/ from results.json, and stop")
    options = parser.parse_args(arguments)
    if options.tables:
        from benchmarks import pages

        if options.out != report.RESULTS:
            parser.error("the pages quote the committed file: --tables goes without --out")
        for page in pages.TABLES:
            text = (ROOT / page).read_text(encoding="utf-8")
            (ROOT / page).write_text(pages.with_tables(text, page, report.read(options.out)), encoding="utf-8")
        return 0
    if unknown := [name for name in options.names if name not in BENCHMARKS]:
        parser.error(f"no benchmark named {', '.join(unknown)}; there are: {', '.join(BENCHMARKS)}")
    if options.repeats < 1:
        parser.error(f"--repeats must be at least 1, got {options.repeats}")
    if options.out == report.RESULTS and (options.toy or options.repeats < MIN_REPEATS):
        parser.error(f"toy sizes, and fewer than {MIN_REPEATS} repeats, do not go into the committed file; give --out")
    stopped = f"no further repeat began after {options.minutes:g} minutes" if options.minutes else ""
    status, measured = 0, []
    results = report.read(options.out)
    for name in options.names or list(BENCHMARKS):
        say(name)
        before, started = load_average(), time.perf_counter()
        stop_after(options.minutes or float("inf"))
        try:
            outcome = BENCHMARKS[name].load()(options.repeats, toy=options.toy)
        except NotHereError as error:
            print(f"{name}: not measured; {error}")
            status = 2 if options.names else 0
            continue
        seconds = time.perf_counter() - started
        results = report.merge(options.out, name, outcome, load_before=before, seconds=seconds, fewer_because=stopped)
        measured.append(name)
    print(report.plain(results, measured))
    return status


if __name__ == "__main__":
    sys.exit(main())
