"""Rebuild every table and figure of a grid from MLflow, as one page that a browser opens.

python -m analysis                           the grid in runs/mlflow.db -> report/index.html
python -m analysis --experiment dolos --compare clip_linear sam_linear
python -m analysis predict IMAGE… --best METHOD     real or fake? (see: python -m analysis predict --help)
"""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

OK, BAD_INPUT = 0, 2


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line of the report; see `--help`."""
    parser = argparse.ArgumentParser(
        prog="python -m analysis", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    which = parser.add_argument_group("which grid")
    which.add_argument(
        "--experiment", metavar="NAME", help="MLflow experiment; default: the only one that holds a grid"
    )
    which.add_argument("--tracking-uri", metavar="URI", help="default: MLFLOW_TRACKING_URI, else runs/mlflow.db here")
    which.add_argument("--data", metavar="DIGEST", help="of the data set, where the experiment holds several")
    which.add_argument("--spec-version", type=int, metavar="N", help="of the runs, where there are several")
    what = parser.add_argument_group("what the report holds")
    what.add_argument("--out", type=Path, default=Path("report"), metavar="DIR", help="default: report")
    what.add_argument(
        "--compare", nargs=2, metavar=("A", "B"), help="a paired bootstrap test of one method against another"
    )
    what.add_argument("--transpose", action="store_true", help="matrices with rows trained on, columns tested on")
    what.add_argument("--projection", choices=("tsne", "umap"), default="tsne", help="umap needs umap-learn")
    what.add_argument("--no-log", action="store_true", help="do not keep the report in MLflow")
    cam = parser.add_argument_group("Grad-CAM, the one part that needs the images")
    cam.add_argument("--no-cam", action="store_true", help="leave it out")
    cam.add_argument("--images", type=Path, metavar="DIR", help="the data folder; default: where the grid had it")
    cam.add_argument(
        "--cache", type=Path, metavar="DIR", help="the grid's cache, with the manifest; default: by the store"
    )
    cam.add_argument("--cam-images", type=_positive, default=16, metavar="N", help="images a cell; default: 16")
    cam.add_argument("--device", default="cpu", metavar="NAME", help="cpu (default) or cuda")
    cam.add_argument(
        "--weights", type=Path, action="append", default=[], metavar="FILE", help="a frozen encoder's, if it was a file"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says. Returns the exit status: 0, 2 bad input; of `predict`, its own."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["predict"]:
        from analysis import predict

        parser = argparse.ArgumentParser(
            prog="python -m analysis predict", description=predict.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        predict.add_arguments(parser)
        return predict.main(parser.parse_args(given[1:]))
    options = parse_arguments(given)
    from rich.console import Console
    from rich.logging import RichHandler

    from analysis.store import StoreError

    console = Console(stderr=True)
    logging.basicConfig(
        level=logging.WARNING, format="%(message)s", handlers=[RichHandler(console=console, show_path=False)]
    )
    try:
        page = _report(options, shlex.join(["python", "-m", "analysis", *given]), console)
    except StoreError as error:
        console.print(f"error: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        return BAD_INPUT
    console.print(f"the report is in {page}", highlight=False, markup=False, soft_wrap=True)
    return OK


def _report(options: argparse.Namespace, command: str, console: object) -> Path:
    from rich.console import Console

    from analysis.parts import Options
    from analysis.report import make_report
    from analysis.store import StoreError, open_store
    from models.detector import WeightsError
    from models.weights import parse_weights_argument

    assert isinstance(console, Console)
    weight_files = {}
    for path in options.weights:
        try:
            weights, files = parse_weights_argument(str(path))
        except WeightsError as error:
            raise StoreError(f"--weights {path}: {error}") from error
        if files is not None:
            weight_files[weights.removeprefix("file:")] = files.resolve()
    store = open_store(
        options.experiment, tracking_uri=options.tracking_uri, data=options.data, spec_version=options.spec_version
    )
    chosen = Options(
        compare=tuple(options.compare) if options.compare else None,
        transpose=options.transpose,
        cam=not options.no_cam,
        images=options.images,
        cache=options.cache,
        cam_images=options.cam_images,
        device=options.device,
        weight_files=weight_files,
        projection=options.projection,
        command=command,
        log=not options.no_log,
    )
    with console.status("") as status:
        return make_report(store, options.out, chosen, say=lambda text: status.update(text.strip()))


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return number


if __name__ == "__main__":
    sys.exit(main())
