"""Every trial with its run in MLflow."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import pandas as pd

from analysis.matrices import trained_on_label
from analysis.page import Block, Text
from analysis.parts import Report, register_part
from data.addresses import without_passwords
from data.conditions import CLEAN
from grid.controls import task_words

LOCAL_PAGE = "http://127.0.0.1:5000"  # default address of `mlflow ui`


@register_part("runs", title="Runs", position=90)
def runs(report: Report) -> Iterator[Block]:
    """One row per planned trial, with a link to its run."""
    store, table = report.whole, report.whole.runs()
    server = store.tracking_uri.startswith("http")
    table = table.assign(task=list(map(task_words, table["task"], table["method"])))
    shown = table[["run_id", "task", "variant", "trained_on", "seed", "state", "weights", "device"]]
    shown = shown.assign(
        run_id=shown["run_id"].where(shown["run_id"] != "", "none yet"),
        trained_on=[trained_on_label(str(name), report.generators) for name in shown["trained_on"]],
        time=pd.to_timedelta(table["seconds"], unit="s"),
        start=table["start"],
        error=table["error"].str.slice(0, 300),
    )
    if (table["train_condition"] != CLEAN).any():
        shown.insert(4, "train_condition", table["train_condition"])
    if (table["equal_size"] != "").any():
        sizes = table["equal_size"].where(table["equal_size"] != "", "all")
        shown.insert(4, "images of each class (train, valid)", sizes)
    if (shown["error"] == "").all():
        shown = shown.drop(columns="error")
    page = "" if server else f"{LOCAL_PAGE}/"
    links = {
        "run_id": [f"{page}{url}" if run_id else "" for url, run_id in zip(table["url"], table["run_id"], strict=True)]
    }
    if not server:
        yield Text(
            f"This grid is in a local store; the links lead to the MLflow UI at {LOCAL_PAGE}, which this starts:",
            command=f"mlflow ui --backend-store-uri {shlex.quote(without_passwords(store.tracking_uri))}",
        )
    yield report.folder.table(
        "runs", table, caption="Every planned trial, with its run in MLflow", shown=shown, links=links,
        anchors=[f"run-{key}" for key in table["key"]],
    )  # fmt: skip
