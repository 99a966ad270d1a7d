"""The only reader of MLflow for tables and figures: tracked runs to tidy data frames."""

from __future__ import annotations

from typing import Any

import pandas as pd
from mlflow.tracking import MlflowClient

from grid import names

COLUMNS = [
    "run_id", "key", "task", "method", "trained_on", "seed", "data", "weights", "tested_on", "metric", "value",
]  # fmt: skip


def load_results(tracking_uri: str, experiment: str, *, data: str | None = None) -> pd.DataFrame:
    """Test figures of every finished trial, one row each.

    Args:
        tracking_uri: a local file or a server.
        experiment: name of the MLflow experiment.
        data: digest of the data set; None: the experiment holds one only.

    Returns:
        columns `COLUMNS`; empty when nothing is finished. `tested_on` is "all" for attribution. Where a trial has
        several finished runs, the first one counts.

    Raises:
        ValueError: no such experiment, or runs of several data sets and `data` does not choose.
    """
    client = MlflowClient(tracking_uri=tracking_uri)
    found = client.get_experiment_by_name(experiment)
    if found is None:
        known = sorted(one.name for one in client.search_experiments())
        raise ValueError(f"no MLflow experiment named {experiment!r} at {tracking_uri}; there are: {', '.join(known)}")
    query = f"tags.`{names.ROLE}` = 'trial' and attributes.status = 'FINISHED'"
    if data is not None:
        query += f" and tags.`{names.DATA}` = '{data}'"
    rows: list[dict[str, Any]] = []
    seen: set[str] = set()
    token = None
    while True:
        page = client.search_runs(
            [found.experiment_id], query, max_results=1000, order_by=["attributes.start_time ASC"], page_token=token
        )
        for run in page:
            tags = run.data.tags
            if tags[names.KEY] in seen:
                continue
            seen.add(tags[names.KEY])
            shared = {
                "run_id": run.info.run_id,
                "key": tags[names.KEY],
                "task": tags[names.TASK],
                "method": tags[names.METHOD],
                "trained_on": tags[names.TRAIN_GENERATORS],
                "seed": int(tags[names.SEED]),
                "data": tags[names.DATA],
                "weights": tags.get(names.WEIGHTS, ""),
            }
            for name, value in run.data.metrics.items():
                place, _, rest = name.partition("/")
                if place == "test":
                    tested_on, _, metric = rest.partition("/")
                    rows.append(shared | {"tested_on": tested_on, "metric": metric, "value": value})
        token = page.token
        if not token:
            break
    table = pd.DataFrame(rows, columns=COLUMNS)
    if table["data"].nunique() > 1:
        digests = ", ".join(sorted(table["data"].unique()))
        raise ValueError(f"{experiment!r} holds runs of several data sets ({digests}); choose one by its digest")
    return table
