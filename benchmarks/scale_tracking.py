"""Seconds of `launch.py --status`, and of a launch with nothing to run, with 100, 1,000 and 10,000 finished trials.

One seed's trials of a small corpus are recorded by the grid's own tracker, as if they had run; the others are copies of
their rows in the store's tables, with keys and seeds of their own. Beside the two commands stands one SQL join that
reads the state of every trial from the same file, which is the least that a look-up can take, and MLflow's own search,
which is how a look-up was made before. Every command is a new process; the seconds with 100 trials show what of them
is start-up.
"""

from __future__ import annotations

import math
import sqlite3
import tempfile
import uuid
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

from benchmarks.finished import open_grid, record
from benchmarks.grids import noise_manifest
from benchmarks.measure import Measured, Outcome, Target, column, in_new_process, interleave, peak_resident, timed
from benchmarks.relaunch import launch
from data.manifest import Manifest
from grid import names
from grid.options import resolve
from grid.records import open_records
from grid.settings import RunSettings
from grid.spec import TrialSpec
from launch import parse_arguments

EXPERIMENT, METHOD = "dolos", "xception_scratch"
PER_SEED = 5  # trials: four generators, and attribution
JOIN = """
    SELECT runs.run_uuid, runs.status, tags.value
    FROM runs JOIN tags ON tags.run_uuid = runs.run_uuid AND tags.key = ?
    WHERE runs.lifecycle_stage = 'active'
"""


def run(repeats: int, *, toy: bool = False) -> Outcome:
    """Targets with 10,000 trials: 4 s for the status, 6 s for the launch."""
    sizes = (5, 10) if toy else (100, 1_000, 10_000)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest = noise_manifest(folder, {"train": 4, "valid": 4, "test": 4}, side=32)
        stores = {size: filled(folder / str(size), manifest, size // PER_SEED) for size in sizes}
        for options in stores.values():
            launch(options)  # reads the images, whose facts are kept
        sides: dict[str, Callable[[], dict[str, float]]] = {}
        for size, options in stores.items():
            expected = f"{size} finished of {size}"
            sides[f"status {size}"] = partial(_seconds, [*options, "--status"], expected)
            sides[f"launch {size}"] = partial(_seconds, options, "nothing to run")
            store = {"uri": resolve(parse_arguments(options)).settings.tracking_uri}
            for function in ("join", "search", "look_up"):
                sides[f"{function} {size}"] = partial(in_new_process, "benchmarks.scale_tracking", function, store)
        found = interleave(repeats, sides)

    def seconds(what: str) -> dict[int, list[float]]:
        return {size: column(found[f"{what} {size}"], "seconds") for size in sizes}

    def parts(what: str) -> dict[str, list[float]]:
        return {f"{size:,} trials, s": values for size, values in seconds(what).items()}

    most, before = sizes[-1], sizes[-2]
    above_start = {
        what: [
            (last - first) / (most - sizes[0]) * 1000
            for last, first in zip(seconds(what)[most], seconds(what)[sizes[0]], strict=True)
        ]
        for what in ("status", "launch")
    }
    grown = [
        math.log(last / middle) / math.log(most / before)
        for last, middle in zip(seconds("look_up")[most], seconds("look_up")[before], strict=True)
    ]
    figures = {
        "status": Measured(
            f"seconds of `--status` with {most:,} finished trials, local store", "s", seconds("status")[most],
            None if toy else Target(4.0), parts=parts("status"),
        ),
        "launch": Measured(
            f"seconds of a launch with nothing to run and {most:,} finished trials, local store", "s",
            seconds("launch")[most], None if toy else Target(6.0), parts=parts("launch"),
        ),
        "per trial": Measured(
            "milliseconds of such a launch per trial, without its start-up", "ms", above_start["launch"],
            parts={"of the status, ms": above_start["status"]},
        ),
        "look-up": Measured(
            f"seconds to look up the states of {most:,} trials", "s", seconds("look_up")[most],
            parts={
                **parts("look_up"),
                **{f"one SQL join, {name}": values for name, values in parts("join").items()},
                **{f"MLflow's search, {name}": values for name, values in parts("search").items()},
            },
        ),
        "growth": Measured(
            f"exponent of the look-up's growth from {before:,} to {most:,} trials (1: in proportion)", "exponent", grown
        ),
        "memory": Measured(
            f"peak memory of such a look-up, {most:,} trials", "GB", column(found[f"look_up {most}"], "peak_gb"),
            parts={"MLflow's search, GB": column(found[f"search {most}"], "peak_gb")},
        ),
    }  # fmt: skip
    return Outcome(f"finished trials of {METHOD} on {len(manifest.table)} images, one SQLite file", figures)


def filled(folder: Path, manifest: Manifest, num_seeds: int) -> list[str]:
    """The options of a launch whose store, below `folder`, says that all its trials have finished."""
    folder.mkdir()
    options = [
        EXPERIMENT, f"--data={manifest.root}", f"--runs={folder / 'runs'}", f"--cache={folder.parent / 'cache'}",
        f"--methods={METHOD}", f"--seeds={','.join(map(str, range(num_seeds)))}", "--device=cpu",
    ]  # fmt: skip
    planned = resolve(parse_arguments(options))
    settings = planned.settings
    settings.runs.mkdir()
    manifest.save(settings.manifests / manifest.digest)
    trials = planned.trials(manifest)
    first = [trial for trial in trials if trial.seed == 0]
    tracker = open_grid(settings, EXPERIMENT, manifest, trials)
    for number, trial in enumerate(first):
        record(tracker, trial, manifest, number)
    copy_rows(settings, first, [trial for trial in trials if trial.seed != 0])
    tracker.close_grid(complete=True)
    return options


def copy_rows(settings: RunSettings, recorded: Sequence[TrialSpec], others: Sequence[TrialSpec]) -> None:
    """Finish the other trials by copies of the rows of recorded ones, which differ from them in the seed alone."""
    records = open_records(settings.tracking_uri, EXPERIMENT)
    assert records is not None
    run_of = {spec.key: records.runs_of(spec.key)[0].info.run_id for spec in recorded}
    alike = {(spec.task, spec.train_generators): run_of[spec.key] for spec in recorded}
    with closing(sqlite3.connect(settings.runs / "mlflow.db")) as connection, connection:
        columns = {
            table: [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            for table in ("runs", "tags", "params", "metrics", "latest_metrics")
        }
        for spec in others:
            run_id, like = uuid.uuid4().hex, alike[spec.task, spec.train_generators]
            for table, of_table in columns.items():
                taken = ", ".join("?" if name == "run_uuid" else name for name in of_table)
                into = f"INSERT INTO {table} ({', '.join(of_table)}) "  # names of tables and columns: no values
                copy = into + f"SELECT {taken} FROM {table} WHERE run_uuid = ?"  # noqa: S608
                connection.execute(copy, (run_id, like))
            for name, value in ((names.KEY, spec.key), (names.SEED, str(spec.seed)), ("mlflow.runName", spec.name)):
                connection.execute("UPDATE tags SET value = ? WHERE run_uuid = ? AND key = ?", (value, run_id, name))
            own = (str(spec.seed), run_id)
            connection.execute("UPDATE params SET value = ? WHERE run_uuid = ? AND key = 'seed'", own)


def _seconds(options: Sequence[str], expected: str) -> dict[str, float]:
    printed = ""

    def once() -> None:
        nonlocal printed
        printed = launch(options)

    seconds = timed(once)
    if expected not in printed:
        raise RuntimeError(f"expected {expected!r} of launch.py, got:\n{printed[-2000:]}")
    return {"seconds": seconds}


def join(uri: str) -> dict[str, float]:
    """Seconds of the least that a look-up can take."""
    found: list[tuple[str, str, str]] = []

    def once() -> None:
        with closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as connection:
            found.extend(connection.execute(JOIN, (names.KEY,)))

    return {"seconds": timed(once), "rows": len(found)}


def look_up(uri: str) -> dict[str, float]:
    """Seconds and peak memory of our look-up of all states."""
    records = open_records(uri, EXPERIMENT)
    assert records is not None
    (grid,) = records.grids()
    planned = records.plan(grid)
    seconds = timed(lambda: records.states(planned))
    return {"seconds": seconds, "peak_gb": peak_resident() / 1e9}


def search(uri: str) -> dict[str, float]:
    """The same of MLflow's own search for the runs of all trials."""
    records = open_records(uri, EXPERIMENT)
    assert records is not None

    def once() -> None:
        token = None
        while True:
            page = records.client.search_runs([records.experiment_id], max_results=1000, page_token=token)
            token = page.token
            if not token:
                return

    return {"seconds": timed(once), "peak_gb": peak_resident() / 1e9}
