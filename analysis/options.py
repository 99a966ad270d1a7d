"""The options that the commands of `python -m analysis` share."""

from __future__ import annotations

import argparse

from grid import names


def add_grid_options(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Add the options that say which grid: experiment, store and data set."""
    parser.add_argument("--experiment", metavar="NAME", help="MLflow experiment; default: the only one with a grid")
    parser.add_argument("--tracking-uri", metavar="URI", help="default: MLFLOW_TRACKING_URI, else runs/mlflow.db here")
    parser.add_argument(
        "--data", metavar="WORDS",
        help=f"data set, if there are several: {names.DATA_WORDS}; default: the newest with a finished trial",
    )  # fmt: skip
