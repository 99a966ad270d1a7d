"""Everything that a paper would attach, as a folder that can be read, and verified, without this software.

python -m analysis export DIR                     the only grid of the store, with its report
python -m analysis export DIR --report FOLDER     with the report in this folder

`python -m analysis verify DIR` derives every number again from what is in the folder, also on another machine.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis.options import add_grid_options
from analysis.store import ROOT, Store, StoreError, open_store
from data.addresses import without_passwords
from data.manifest import Manifest
from grid import names
from grid.command_line import Parser, print_wrapped
from grid.controls import kind_of
from grid.plan import FINISHED
from grid.uris import sqlite_file
from models.registry import depends_on_seed

if TYPE_CHECKING:
    from rich.console import Console

OK = 0
FORMAT, FACTS, SUMS, TABLES = 1, "export.json", "SHA256SUMS", "tables"
GRID_RUN = "grid's run"  # in the report's table of provenance
_FACTS = ("MLflow", "experiment", GRID_RUN, "data set")  # without these, a report cannot be traced to its grid
TEMPLATE = Path(__file__).parent / "templates" / "export.md"
PACKAGES = ("numpy", "pandas", "scipy", "scikit-learn", "mlflow")
TRIAL_COLUMNS = [
    "key", "name", "task", "method", "kind", "depends_on_seed", "trained_on", "train_condition", "seed", "state",
    "run_id", "threshold", "conditions", "weights", "device", "seconds", "git_commit",
]  # fmt: skip
_ADDRESS = re.compile(r"\b(sqlite|file)(\+\w+)?:/+[^\s\"'`,;()<>|&{}]*?([^\s\"'`,;()<>|&{}/]*)(?=[\s\"'`,;()<>|&{}]|$)")
_PATH = re.compile(r"(?<![\w.:/~*#)-])(?:~|\.\.)?/(?:[^\s\"'`,;()<>|&{}/]+/)+([^\s\"'`,;()<>|&{}/]*)")


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """The command line of `export`; see `--help`."""
    parser = Parser(prog="python -m analysis export", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR", help="a folder that does not exist, or is empty")
    parser.add_argument(
        "--report", type=Path, metavar="FOLDER",
        help="the report; default: the folder report, or else the one that is kept with the grid's run",
    )  # fmt: skip
    add_grid_options(parser)
    parser.add_argument("--spec-version", type=int, metavar="N", help="version of the runs, if there are several")
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", help="the grid's cache, with the manifest; default: beside a local store"
    )
    return parser.parse_args(arguments)


def export(options: argparse.Namespace, console: Console) -> int:
    """Run the command line of `export`. Returns the exit status."""
    _check_empty(options.folder)
    store = open_store(
        options.experiment, tracking_uri=options.tracking_uri, data=options.data, spec_version=options.spec_version
    )
    with TemporaryDirectory() as scratch, console.status("") as status:
        report, note = find_report(store, options.report, Path(scratch))
        if note:
            print_wrapped(note, console)
        count = write_export(store, options.folder, report, cache=options.cache, say=status.update)
    words = f"{count} files are in {options.folder}; README.md there says what each is. This verifies it:"
    console.print(words, highlight=False, markup=False, soft_wrap=True)
    console.print(f"  python -m analysis verify {options.folder}", highlight=False, markup=False, soft_wrap=True)
    return OK


def find_report(store: Store, folder: Path | None, scratch: Path) -> tuple[Path, str]:
    """The folder of a grid's report, and a note on the choice.

    Args:
        store: an open grid.
        folder: named by the user; None: `report` here if it is of this grid, else the one kept in MLflow.
        scratch: an existing empty folder; the report kept in MLflow is copied there.

    Raises:
        StoreError: there is none.
    """
    here = Path("report") if folder is None else folder
    problem = _not_of_this_grid(store, here)
    if not problem:
        return here, ""
    if folder is not None:
        raise StoreError(f"--report {folder}: {problem}. `python -m analysis --out DIR` writes one")
    store.records.fetch_artifacts(store.parent, scratch, only=[names.REPORT])
    kept = scratch / names.REPORT
    if _not_of_this_grid(store, kept):
        raise StoreError(
            f"the folder {here}: {problem}; and no report is kept with the grid's run. `python -m analysis` writes one"
        )
    return kept, f"the report is the one that is kept with the grid's run (the folder {here}: {problem})"


def _not_of_this_grid(store: Store, folder: Path) -> str:
    """Why a folder is no report of this grid; "" if it is one."""
    facts = report_facts(folder)
    if not facts:
        return "no report is in it"
    if facts.get(GRID_RUN) != store.parent.info.run_id:
        return f"its report is of the grid's run {facts.get(GRID_RUN)}, not of {store.parent.info.run_id}"
    return ""


def report_facts(folder: Path) -> dict[str, str]:
    """What a report says about its grid; empty if the folder holds no report, or that table is damaged."""
    path = folder / TABLES / "provenance.csv"
    if not path.is_file():
        return {}
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        facts = dict(zip(table["what"], table["value"], strict=True))
    except (ValueError, KeyError):  # empty, no table, or another one
        return {}
    return facts if all(facts.get(name) for name in _FACTS) else {}


def evidence_of_report(
    report: Path, folder: Path, *, tracking_uri: str | None = None, cache: Path | None = None
) -> None:
    """Write the evidence of the grid that a report is of.

    Args:
        report: folder of the report.
        folder: an existing empty folder.
        tracking_uri: None: MLFLOW_TRACKING_URI, else the store that the report names.
        cache: the grid's cache folder; None: beside a local store.

    Raises:
        StoreError: the folder holds no report, or the store, the grid, its manifest or an artifact cannot be read.
    """
    facts = report_facts(report)
    if not facts:
        raise StoreError(
            f"{report} holds no report: tables/provenance.csv is missing or damaged; `python -m analysis` writes it"
        )
    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or facts["MLflow"]
    store = open_store(facts["experiment"], tracking_uri=uri, data=facts["data set"].split()[0])
    if problem := _not_of_this_grid(store, report):
        raise StoreError(f"{report} cannot be verified with {without_passwords(uri)}: {problem}")
    write_evidence(store, folder, find_manifest(store, cache), links=True)


def write_export(
    store: Store, folder: Path, report: Path, *, cache: Path | None = None, say: Callable[[str], None] = lambda _: None
) -> int:
    """Write the export of a grid, whole or not at all.

    Args:
        store: an open grid.
        folder: a folder that does not exist, or is empty.
        report: folder of the grid's report.
        cache: the grid's cache folder; None: beside a local store.
        say: called with each step, in words.

    Returns:
        the number of files.

    Raises:
        StoreError: `folder` is not empty, the manifest is not there, or something of a run cannot be read.
    """
    _check_empty(folder)
    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        manifest = find_manifest(store, cache)
        write_evidence(store, unfinished, manifest, say=say)
        say("the report's tables")
        (unfinished / "report").mkdir()
        shutil.copytree(report / TABLES, unfinished / "report" / TABLES)
        say("paths and passwords")
        known = _known_folders(store, manifest, report)
        changed = [path for path in _files(unfinished) if _clean(unfinished / path, known)]
        facts = json.loads((unfinished / FACTS).read_text(encoding="utf-8"))
        facts["without_paths"] = changed
        facts["specs_without_paths"] = [Path(path).stem for path in changed if path.startswith("specs/")]
        (unfinished / FACTS).write_text(json.dumps(facts, indent=1), encoding="utf-8")
        (unfinished / "README.md").write_text(_readme(store, changed), encoding="utf-8")
        say("digests")
        files = _files(unfinished)
        lines = [f"{hashlib.sha256((unfinished / path).read_bytes()).hexdigest()}  {path}\n" for path in files]
        (unfinished / SUMS).write_text("".join(lines), encoding="utf-8")
        unfinished.chmod(0o755)
        unfinished.replace(folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return len(files) + 1


def find_manifest(store: Store, cache: Path | None) -> Manifest:
    """The manifest of a grid's data set, as `launch.py` keeps it. Raises `StoreError` if it is not there."""
    file = sqlite_file(store.tracking_uri)
    if cache is None and file is not None:
        cache = file.parent / "cache"
    remedy = "name the grid's cache with --cache DIR; the launch command with --plan writes the manifest again"
    if cache is None:
        raise StoreError(f"the manifest of data set {store.data} is in the cache of the grid: {remedy}")
    folder = cache / "manifests" / store.data
    try:
        return Manifest.load(folder)
    except (OSError, ValueError, KeyError) as error:
        raise StoreError(
            f"the manifest of data set {store.data} cannot be read in {folder}: {error}\n{remedy}"
        ) from error


def write_evidence(
    store: Store, folder: Path, manifest: Manifest, *, links: bool = False, say: Callable[[str], None] = lambda _: None
) -> None:
    """Write what trials left behind: what every number of the report follows from.

    Args:
        store: an open grid.
        folder: an existing empty folder.
        manifest: of the grid's data set.
        links: link to embeddings instead of copying them.
        say: called with each step, in words.

    Raises:
        StoreError: an artifact of a run is missing or cannot be read.
    """
    manifest.table.to_csv(folder / "manifest.csv", index=False, lineterminator="\n")
    for name in ("specs", "scores", "validation", "embeddings", "localisation", "artifacts"):
        (folder / name).mkdir()
    runs, planned = store.runs(), store.records.plan(store.parent)
    trials, versions = [], []
    for run in runs.to_dict("records"):
        key, run_id, is_finished = str(run["key"]), str(run["run_id"]), run["state"] == FINISHED
        spec = store.spec(run_id) if run_id and (is_finished or key not in planned) else planned[key]
        _write_json(folder / "specs" / f"{key}.json", spec)
        conditions: list[str] = store.scored(run_id) if is_finished else []
        run |= {
            "kind": kind_of(run["task"], run["method"]) or "method",
            "depends_on_seed": depends_on_seed(run["method"], json.loads(run["config"])),
        }
        trials.append(
            run
            | {
                "name": f"{run['method']}/{run['task']}/{run['trained_on']}/seed{run['seed']}",
                "threshold": "" if pd.isna(store.threshold(run_id)) else repr(store.threshold(run_id)),
                "conditions": ",".join(conditions),
            }
            if is_finished
            else run | {"name": "", "threshold": "", "conditions": ""}
        )
        if not is_finished:
            continue
        say(f"scores of {run['variant']}, {run['task']}, trained on {run['trained_on']}")
        _write_scores(store, folder, key, run_id, conditions)
        if store.tags(run_id).get(names.CALIBRATED) == "true":
            for name in (names.VALIDATION_SCORES, names.CALIBRATION):
                shutil.copyfile(store.artifact(run_id, name), folder / "validation" / f"{key}{Path(name).suffix}")
        if store.metrics_of(run_id, names.MAPS):
            for name in (names.LOCALISATION, names.LOCALISATION_FACTS):
                shutil.copyfile(store.artifact(run_id, name), folder / "localisation" / f"{key}{Path(name).suffix}")
        num_embedded = store.tags(run_id).get(names.EMBEDDED)  # a large test set: a sample, or none
        if num_embedded is not None and num_embedded != "0":
            shutil.copyfile(store.artifact(run_id, names.EMBEDDED_ROWS), folder / "embeddings" / f"{key}-rows.npy")
        if num_embedded != "0":
            vectors = store.artifact(run_id, names.EMBEDDINGS)
            target = folder / "embeddings" / f"{key}.npy"
            target.symlink_to(vectors.resolve()) if links else shutil.copyfile(vectors, target)
        packages = json.loads(store.tags(run_id).get(names.VERSIONS, "{}"))
        versions += [(key, package, number) for package, number in packages.items()]
    pd.DataFrame(trials)[TRIAL_COLUMNS].to_csv(folder / "trials.csv", index=False, lineterminator="\n")
    pd.DataFrame(versions, columns=["key", "package", "version"]).to_csv(folder / "versions.csv", index=False)
    _logged(store, runs).to_csv(folder / "metrics.csv", index=False, lineterminator="\n")
    store.records.fetch_artifacts(store.parent, folder / "artifacts", leave_out=[names.REPORT])
    facts = {
        "format": FORMAT,
        "data": store.data,
        "corpus": store.corpus,
        "experiment": store.experiment,
        "grid_run": store.parent.info.run_id,
        "images": len(manifest.table),
        "trials": len(runs),
        "finished": int((runs["state"] == FINISHED).sum()),
        "written": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "versions_of_this_export": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
    }
    _write_json(folder / FACTS, facts)


def _write_scores(store: Store, folder: Path, key: str, run_id: str, conditions: Iterable[str]) -> None:
    (folder / "scores" / key).mkdir()
    for condition in conditions:
        name = names.condition_artifact(condition, names.SCORES)
        try:
            table = pd.read_parquet(store.artifact(run_id, name))
        except StoreError:
            raise
        except Exception as error:  # pyarrow raises many kinds
            raise store.broken(run_id, name, error) from error
        if "condition" not in table.columns:  # older runs know no conditions
            table["condition"] = condition
        table.insert(0, "trial", key)
        table.to_parquet(folder / "scores" / key / f"{condition}.parquet", index=False)


def _logged(store: Store, runs: pd.DataFrame) -> pd.DataFrame:
    """Values that finished trials logged: key, metric (as in MLflow), value."""
    rows = [
        (key, names.metric_name(tested_on, metric, condition), value)
        for key, condition, tested_on, metric, value in store.results()[
            ["key", "condition", "tested_on", "metric", "value"]
        ].itertuples(index=False)
    ]
    for key, run_id in runs.loc[runs["state"] == FINISHED, ["key", "run_id"]].itertuples(index=False):
        rows += [(key, names.validation_metric(name), value) for name, value in store.validation(run_id).items()]
        for begin in (names.MAPS, names.SUMMARY):
            rows += [(key, name, value) for name, value in store.metrics_of(run_id, begin).items()]
        if not pd.isna(store.threshold(run_id)):
            rows.append((key, names.THRESHOLD, store.threshold(run_id)))
    return pd.DataFrame(rows, columns=["key", "metric", "value"])


# Paths and passwords -------------------------------------------------------------------------------------------------


def without_paths(text: str, known: Iterable[str] = ()) -> str:
    """A text without absolute paths and passwords: of a path only its last part stays, as in PATH/face.png.

    Args:
        text: any text.
        known: folders of this machine, which may have blanks in their names.
    """
    text = without_passwords(text)
    for folder in sorted(known, key=len, reverse=True):
        text = re.sub(rf"{re.escape(folder)}(?![\w.-])", "/PATH/", text)
    text = _ADDRESS.sub(r"PATH/\3", text)
    return re.sub(r"/?PATH/+", "PATH/", _PATH.sub(r"PATH/\1", text))


def _known_folders(store: Store, manifest: Manifest, report: Path) -> set[str]:
    file = sqlite_file(store.tracking_uri)
    folders = {manifest.root, *manifest.further.values(), report.resolve(), ROOT, Path.home(), Path.cwd()} | (
        {file.parent} if file else set()
    )
    return {str(folder) for folder in folders if len(folder.parts) > 1}


def _clean(path: Path, known: Iterable[str]) -> bool:
    """Take paths and passwords out of a text file; whether there were any. A file that is no text is left alone."""
    if path.suffix in (".parquet", ".npy") or path.name == "manifest.csv":
        return False
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        return False
    cleaned = without_paths(text, known)
    if cleaned != text:
        path.write_bytes(cleaned.encode("utf-8"))
    return cleaned != text


# Files ---------------------------------------------------------------------------------------------------------------


def _check_empty(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise StoreError(f"{folder} is a file; name a folder")
    if folder.is_dir() and any(folder.iterdir()):
        raise StoreError(f"{folder} is not empty; name a new folder")


def _files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")


def _readme(store: Store, changed: list[str]) -> str:
    listed = "".join(f"- `{path}`\n" for path in changed) or "- none\n"
    return TEMPLATE.read_text(encoding="utf-8").format(
        experiment=store.experiment, corpus=store.corpus, data=store.data, run=store.parent.info.run_id, changed=listed
    )
