"""One detector at several thresholds: how much of a weak cell is a threshold that has moved."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from analysis.store import Store
from analysis.verdicts import validation_scores
from grid.tasks import cell_rows, generators_of
from models.metrics import Answers, get_metric
from models.scoring import choose_threshold

CHOSEN_ON, USED_ON = "threshold chosen on", "used on"


def transfer(valid: pd.DataFrame, test: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of one detector with the threshold of each generator's validation images, on each test cell.

    Args:
        valid: validation images: generator, label, score.
        test: test images: generator, label, score.

    Returns:
        columns chosen_on, used_on, accuracy. A generator whose validation images lack a class has no rows of its own.
    """
    rows = []
    cells = [(used_on, test[cell_rows(test, used_on)]) for used_on in generators_of(test)]
    tested = [(used_on, cell["label"].to_numpy(), cell["score"].to_numpy()) for used_on, cell in cells]
    for chosen_on in generators_of(valid):
        own = valid[cell_rows(valid, chosen_on)]
        if own["label"].nunique() < 2:
            continue
        threshold = choose_threshold(own["label"].to_numpy(), own["score"].to_numpy())
        for used_on, labels, scores in tested:
            answers = Answers.from_scores(labels, scores, threshold)
            rows.append((chosen_on, used_on, get_metric("accuracy").value(answers)))
    return pd.DataFrame(rows, columns=["chosen_on", "used_on", "accuracy"])


def transfer_table(store: Store, runs: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """`transfer` of every detector, averaged over seeds.

    Args:
        store: the grid.
        runs: finished detection runs of one variant, rows of `Store.runs`.

    Returns:
        columns trained_on, chosen_on, used_on, accuracy, num_seeds; and the ids of the runs that are left out, because
        they are older and keep no validation scores.

    Raises:
        StoreError: scores are missing or cannot be read.
    """
    frames, older = [], []
    for run_id, trained_on in runs[["run_id", "trained_on"]].to_numpy().tolist():
        valid = validation_scores(store, run_id)
        if valid is None:
            older.append(str(run_id))
            continue
        test = store.scores(run_id, ["generator", "label", "score"])
        frames.append(transfer(valid, test).assign(trained_on=trained_on))
    columns = ["trained_on", "chosen_on", "used_on"]
    if not frames:
        return pd.DataFrame(columns=[*columns, "accuracy", "num_seeds"]), older
    grouped = pd.concat(frames, ignore_index=True).groupby(columns, sort=False)["accuracy"]
    return grouped.agg(accuracy="mean", num_seeds="count").reset_index(), older


def transfer_matrix(table: pd.DataFrame, generators: Sequence[str]) -> pd.DataFrame:
    """The mean over detectors: rows used on, columns chosen on; NaN if missing.

    Args:
        table: from `transfer_table`.
        generators: the order of rows and columns; others, without test images, follow in alphabetical order.
    """
    matrix = table.pivot_table(index="used_on", columns="chosen_on", values="accuracy", aggfunc="mean")
    rows = [name for name in generators if name in matrix.index]
    columns = [name for name in generators if name in matrix.columns]
    columns += sorted(set(matrix.columns) - set(columns))
    return matrix.reindex(index=rows, columns=columns).rename_axis(index=USED_ON, columns=CHOSEN_ON)


def fewest_reals(store: Store, run_id: str) -> int:
    """The number of real images of the test cell that has the fewest. Raises `StoreError` as `Store.scores`."""
    scores = store.scores(run_id, ["generator", "label"])
    cells = [scores[cell_rows(scores, generator)] for generator in generators_of(scores)]
    return min((int((cell["label"] == 0).sum()) for cell in cells), default=0)
