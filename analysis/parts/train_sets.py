"""Training on one generator beside training on several: what carries further?"""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from analysis.cells import ONE_GENERATOR, SEVERAL_GENERATORS
from analysis.page import Block, Text
from analysis.parts import Report, register_part
from analysis.parts.summary import mean_text
from analysis.tables import CONFIDENCE
from grid.equal_size import EqualSize
from grid.means import CROSS_GENERATOR, IN_DOMAIN
from grid.tasks import DETECTION
from models.metrics import in_words

METRICS = ("accuracy", "auroc")


@register_part("train_sets", title="Training sets", position=21)
def train_sets(report: Report) -> Iterator[Block]:
    """Empty unless there are training sets of one generator and of several, or of equal size."""
    runs = report.finished(DETECTION)
    for size in dict.fromkeys(runs["equal_size"]):
        if size:
            names = ", ".join(dict.fromkeys(runs.loc[runs["equal_size"] == size, "variant"]))
            yield Text(f"Every training set of {names} has {EqualSize.parse(size).words} (launch.py --equal-size).")
    cells = report.cells[report.cells["task"] == DETECTION]
    both = [name for name in report.variants(DETECTION) if _has_both(cells[cells["variant"] == name])]
    rows = []
    for variant in both:
        for ending in (ONE_GENERATOR, SEVERAL_GENERATORS):
            row: dict[str, object] = {"method": variant, "trained on": ending.removeprefix(", trained on ")}
            for metric in METRICS:
                for kind in (IN_DOMAIN, CROSS_GENERATOR):
                    name = f"{in_words(metric)}, {kind.removesuffix(' mean')}"
                    row[name] = mean_text(report, cells, variant, DETECTION, metric, kind + ending)
            rows.append(row)
    if rows:
        caption = f"Means over the columns of one generator, and over those of several; in brackets {CONFIDENCE}"
        yield report.folder.table("training-sets", pd.DataFrame(rows), caption=caption)


def _has_both(cells: pd.DataFrame) -> bool:
    return bool(cells["kind"].str.endswith(SEVERAL_GENERATORS).any())
