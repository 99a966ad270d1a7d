"""Tables and heat maps of a grid, rebuilt from MLflow alone.

python -m analysis                        the only grid of the local store, into report/
python -m analysis --experiment dolos --metric auroc --compare clip_linear sam_linear
python -m analysis predict --help         real or fake? one picture, several, or a folder of them
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from rich.console import Console
from rich.markup import escape

from analysis import predict
from analysis.attribution import confusion_table
from analysis.cam import make_panels, open_images
from analysis.embeddings import class_names, project, separation
from analysis.figures.attribution import confusion_figure
from analysis.figures.cam import cam_panel
from analysis.figures.curves import (
    precision_recall_figure,
    reliability_figure,
    roc_figure,
    score_figure,
    training_figure,
)
from analysis.figures.embeddings import embedding_figure
from analysis.figures.matrices import matrix_figure
from analysis.matrices import attribution_with_intervals, cell_table, compare, matrix_with_intervals
from analysis.published import beside_published
from analysis.store import Store, open_store
from analysis.tables import Table, attribution_text, to_csv, to_latex, to_markdown
from grid.plan import FINISHED

OK, BAD_INPUT = 0, 2
METRICS = ("accuracy", "auroc")
CURVES = {
    "roc": roc_figure,
    "precision_recall": precision_recall_figure,
    "reliability": reliability_figure,
    "score_histograms": score_figure,
}


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; see `--help`."""
    parser = argparse.ArgumentParser(
        prog="python -m analysis", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--experiment", metavar="NAME", help="of the MLflow experiment; default: the only one")
    parser.add_argument("--tracking-uri", metavar="URI", help="default: MLFLOW_TRACKING_URI, else runs/mlflow.db")
    parser.add_argument("--data", metavar="DIGEST", help="which data set, where the experiment holds several")
    parser.add_argument("--out", type=Path, default=Path("report"), metavar="DIR", help="default: report")
    parser.add_argument(
        "--metric", action="append", metavar="NAME", help=f"as logged; default: {' and '.join(METRICS)}"
    )
    parser.add_argument("--compare", nargs=2, metavar=("A", "B"), help="paired bootstrap test of method A against B")
    parser.add_argument(
        "--cam", type=int, default=0, metavar="N", help="Grad-CAM panels of N test pictures a generator"
    )
    parser.add_argument("--images", type=Path, metavar="DIR", help="the corpus' folder for --cam, where it has moved")
    parser.add_argument("--transpose", action="store_true", help="rows trained on, columns tested on")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write everything into `--out`, or answer `predict`. Returns the exit status: 0, or 2 for bad input."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["predict"]:
        parser = argparse.ArgumentParser(
            prog="python -m analysis predict",
            description=predict.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        predict.add_arguments(parser)
        return predict.main(parser.parse_args(words[1:]))
    options = parse_arguments(words)
    console = Console(width=None if sys.stdout.isatty() else 120)
    try:
        store = open_store(options.experiment, tracking_uri=options.tracking_uri, data=options.data)
        metrics = options.metric or METRICS
        written = write_tables(store, options.out, metrics, compared=options.compare, transpose=options.transpose)
        written += write_figures(store, options.out)
        if options.cam:
            written += write_panels(store, options.out, options.cam, images=options.images)
    except ValueError as error:  # a StoreError is one
        console.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        return BAD_INPUT
    console.print(f"{len(written)} files in {options.out}", highlight=False, markup=False, soft_wrap=True)
    missing = store.missing_command()
    if missing:
        console.print("not everything is finished; this runs what is missing:")
        console.print(missing, highlight=False, markup=False, soft_wrap=True)
    return OK


def write_tables(
    store: Store, out: Path, metrics: Sequence[str], *, compared: Sequence[str] | None = None, transpose: bool = False
) -> list[Path]:
    """Matrices, attribution and the published figures beside ours: CSV, Markdown, LaTeX; each matrix as PNG and SVG.

    Args:
        store: the grid.
        out: folder, made where it is not there.
        metrics: of the matrices, as logged.
        compared: two variants of methods for a paired test, or None.
        transpose: turn the matrices.

    Returns:
        what was written.

    Raises:
        StoreError: a run's scores are missing or cannot be read.
        ValueError: no such metric or variant.
    """
    results = store.results()
    unknown = sorted(set(metrics) - set(results["metric"]))
    if unknown:
        known = ", ".join(sorted(set(results["metric"])))
        raise ValueError(f"no finished run has logged {', '.join(unknown)}; there are: {known}")
    differences = compare(store, *compared) if compared else None
    cells = cell_table(store, metrics=list(dict.fromkeys([*metrics, "accuracy"])))
    out.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []

    def write(name: str, table: Table, caption: str, *, turned: bool = False) -> None:
        texts = {
            "csv": to_csv(table, transpose=turned),
            "md": to_markdown(table, caption=caption, transpose=turned),
            "tex": to_latex(table, caption=caption, label=f"tab:{name}", transpose=turned),
        }
        for kind, text in texts.items():
            written.append(out / f"{name}.{kind}")
            written[-1].write_text(text, encoding="utf-8")

    runs = store.runs()
    for variant, of_variant in runs[runs["task"] == "detection"].groupby("variant", sort=False):
        weights = ", ".join(sorted(set(of_variant["weights"]) - {""})) or "nothing finished"
        for metric in metrics:
            matrix = matrix_with_intervals(store, str(variant), metric, cells=cells)
            name, title = f"matrix_{_slug(str(variant))}_{_slug(metric)}", f"{variant} ({weights}): {metric}"
            write(name, matrix, title, turned=transpose)
            figure = matrix_figure(matrix.mean, metric=metric, title=title, intervals=matrix, transpose=transpose)
            for kind in ("png", "svg"):
                written.append(out / f"{name}.{kind}")
                figure.savefig(written[-1])
    attribution = attribution_with_intervals(store, cells=cells)
    if not attribution.empty:
        write("attribution", attribution_text(attribution), "Attribution accuracy, 95 % intervals over source images")
    published = beside_published(store, cells=cells)
    if not published.empty:
        write("published", published, "Accuracy beside the published figures")
    if differences is not None and compared:
        a, b = compared
        caption = f"{a} minus {b}: paired bootstrap over source images, p not corrected for the number of tests"
        write(f"compare_{_slug(a)}_{_slug(b)}", differences, caption)
    return written


def write_figures(store: Store, out: Path) -> list[Path]:
    """Curves of every detection method; confusion matrix and t-SNE of every attribution method; losses over epochs.

    Confusion matrix and t-SNE are of the first seed.

    Args:
        store: the grid.
        out: folder, made where it is not there.

    Returns:
        what was written.

    Raises:
        StoreError: a run's scores or embeddings are missing or cannot be read.
    """
    out.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []

    def write(name: str, variant: str, figure: Figure | None) -> None:
        if figure is None:
            return
        for kind in ("png", "svg"):
            written.append(out / f"{name}_{_slug(variant)}.{kind}")
            figure.savefig(written[-1])

    runs = store.runs()
    runs = runs[runs["state"] == FINISHED]
    history = store.history()
    for name, of_variant in runs.groupby("variant", sort=False):
        variant = str(name)
        detection = of_variant[of_variant["task"] == "detection"]
        if not detection.empty:
            whose = zip(detection["run_id"], detection["trained_on"], detection["seed"], strict=True)
            scores = pd.concat(store.scores(run).assign(trained_on=trained, seed=seed) for run, trained, seed in whose)
            for kind, draw in CURVES.items():
                write(kind, variant, draw(scores, title=f"{variant}: {kind.replace('_', ' ')}"))
        for run_id in of_variant.loc[of_variant["task"] == "attribution"].sort_values("seed")["run_id"].head(1):
            scores, embeddings = store.scores(run_id), store.embeddings(run_id)
            write("confusion", variant, confusion_figure(confusion_table(scores), title=f"{variant}: attribution"))
            classes = class_names(scores)
            title = f"{variant}: test embeddings"
            parted = separation(embeddings, classes)
            write("tsne", variant, embedding_figure(project(embeddings), classes, title=title, separation=parted))
        of_these = history[history["run_id"].isin(of_variant["run_id"])]
        write("training", variant, training_figure(of_these, title=f"{variant}: training"))
    return written


def write_panels(store: Store, out: Path, count: int, *, images: Path | None = None) -> list[Path]:
    """Grad-CAM of every method that has one: a picture for each test generator, a column for each train-generator.

    Args:
        store: the grid.
        out: folder, made where it is not there.
        count: test pictures a panel, the same ones for every method and generator.
        images: the corpus' folder; None: where it was when the grid ran.

    Returns:
        what was written.

    Raises:
        StoreError: the pictures are not there, or a run's checkpoint or weights cannot be had.
        ValueError: `count` is not positive.
    """
    if count < 1:
        raise ValueError(f"--cam wants a positive number of pictures, got {count}")
    manifest = open_images(store, root=images)
    runs = store.runs()
    finished = runs[(runs["task"] == "detection") & (runs["state"] == FINISHED)]
    out.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for variant in dict.fromkeys(finished["variant"]):
        for panel in make_panels(store, manifest, variant, count=count):
            if all(column.maps is None for column in panel.columns):
                continue  # a method without layers, such as one on statistics of the whole picture
            for kind in ("png", "svg"):
                written.append(out / f"cam_{_slug(variant)}_{_slug(panel.tested_on)}.{kind}")
                cam_panel(panel).savefig(written[-1])
    return written


def _slug(text: str) -> str:
    """As part of a file's name."""
    return re.sub(r"[^A-Za-z0-9.=-]+", "_", text).strip("_")


if __name__ == "__main__":
    sys.exit(main())
