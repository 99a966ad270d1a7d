"""The data sets of an experiment in words: a launch with --limit makes another data set than one without."""

from __future__ import annotations

import argparse
import json
import shlex
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from grid import names
from grid.plan import FINISHED
from grid.records import speaking_runs, state_of

if TYPE_CHECKING:
    from mlflow.entities import Run


@dataclass(frozen=True)
class DataSet:
    """One data set of an experiment.

    Attributes:
        digest: 16 hexadecimal digits.
        launched: time of the newest launch on it, in UTC.
        num_finished: number of finished trials.
        num_images: number of images; None: not known.
        limit: `--limit` of the newest launch; None: all images.
        generators: `--generators` of the newest launch; empty: the default.
    """

    digest: str
    launched: datetime
    num_finished: int
    num_images: int | None = None
    limit: int | None = None
    generators: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Such as "limit 20 (540 images, launched 2026-11-24 09:30 UTC, 25 finished trials)"."""
        images = "" if self.num_images is None else f"{self.num_images} images, "
        trials = f"{self.num_finished} finished trial{'' if self.num_finished == 1 else 's'}"
        return f"{self.choice} ({images}launched {self.launched:%Y-%m-%d %H:%M} UTC, {trials})"

    @property
    def choice(self) -> str:
        """Which of the corpus' images, such as "limit 20, only lama, ldm"."""
        limit = "no limit" if self.limit is None else f"limit {self.limit}"
        return limit + (f", only {', '.join(self.generators)}" if self.generators else "")

    @property
    def facts(self) -> dict[str, str]:
        """Name -> value of each fact by which the data set can be asked for, as typed."""
        facts = {"limit": "none" if self.limit is None else str(self.limit)}
        if self.num_images is not None:
            facts["images"] = str(self.num_images)
        if self.generators:
            facts["generators"] = "+".join(sorted(self.generators))
        return facts | {"date": f"{self.launched:%Y-%m-%d}"}

    def words_among(self, others: Sequence[DataSet]) -> str:
        """The fact that tells the data set from these others, as typed; its digest if there is no such fact."""
        for name, value in self.facts.items():
            if all(other.facts.get(name) != value for other in others if other.digest != self.digest):
                return f"{name}={value}"
        return self.digest


def list_data_sets(parents: Sequence[Run], trials: Sequence[Run]) -> list[DataSet]:
    """The data sets of an experiment, the newest launch first.

    Args:
        parents: the grids' runs, the oldest first; of several on one data set the newest counts.
        trials: the trials' runs, the oldest first.
    """
    parent_of = {run.data.tags[names.DATA]: run for run in parents}
    trials_of: defaultdict[str, list[Run]] = defaultdict(list)
    for run in trials:
        trials_of[run.data.tags[names.DATA]].append(run)
    found = []
    for digest in dict.fromkeys([*parent_of, *trials_of]):
        finished = [run for run in speaking_runs(trials_of[digest]).values() if state_of(run) == FINISHED]
        if digest not in parent_of:  # the grid's run was deleted
            launched = max(run.info.start_time for run in trials_of[digest]) / 1000
            found.append(DataSet(digest, datetime.fromtimestamp(launched, UTC), len(finished)))
            continue
        parent = parent_of[digest]
        options = data_options(parent.data.tags)
        inputs = parent.inputs.dataset_inputs if parent.inputs else []
        profile = json.loads(inputs[0].dataset.profile or "{}") if inputs else {}
        launched = datetime.fromtimestamp(_newest_launch(parent), UTC)
        generators = tuple(options.generators or ())
        found.append(DataSet(digest, launched, len(finished), profile.get("num_rows"), options.limit, generators))
    return sorted(found, key=lambda data: data.launched)[::-1]


def data_options(tags: Mapping[str, str]) -> argparse.Namespace:
    """The options that chose a grid's images (see `grid.options.add_data_options`), from the tags of its run."""
    from grid.options import add_data_options

    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_data_options(parser)
    return parser.parse_known_args(shlex.split(tags.get(names.OPTIONS) or tags.get(names.DATA_OPTIONS, "")))[0]


def choose(data_sets: Sequence[DataSet], asked: str | None, *, unfinished: bool = False) -> tuple[DataSet, str]:
    """The newest data set that was asked for and has a finished trial.

    Args:
        data_sets: all of an experiment, the newest first.
        asked: see `names.DATA_WORDS`; None: all fit.
        unfinished: also without a finished trial.

    Returns:
        the data set; and which one it is and how to ask for the others, in words, where several fit, else "".

    Raises:
        ValueError: none fits, several have this beginning of a digest, or other words. The message lists what there is.
    """
    listed = "; ".join(f"{data.words_among(data_sets)}: {data}" for data in data_sets)
    wanted = _facts_of(asked or "")
    if wanted is None:
        raise ValueError(f"no data set {asked!r}; give {names.DATA_WORDS}; there are: {listed}")
    is_digest = not wanted
    if is_digest:
        fitting = [data for data in data_sets if data.digest.startswith(asked or "")]
    else:
        fitting = [data for data in data_sets if wanted.items() <= data.facts.items()]
    if not fitting or (asked and is_digest and len(fitting) > 1):
        raise ValueError(f"{'more than one' if fitting else 'no'} data set {asked!r}; there are: {listed}")
    chosen = next((data for data in fitting if data.num_finished or unfinished), fitting[0])
    if len(fitting) == 1:
        return chosen, ""
    reason = "the newest" if chosen is fitting[0] else "the newest with a finished trial"
    others = "; ".join(f"--data {data.words_among(data_sets)} for {data}" for data in fitting if data is not chosen)
    return chosen, f"{len(fitting)} data sets; this is {reason}: {chosen}. {others}"


def _facts_of(asked: str) -> dict[str, str] | None:
    """Name -> value of the facts that were asked for; empty for a digest; None if it is neither."""
    if "=" not in asked:
        return {}
    pairs = [[part.strip() for part in word.split("=")] for word in asked.split(",")]
    if any(len(pair) != 2 or pair[0] not in ("limit", "images", "date", "generators") or not pair[1] for pair in pairs):
        return None
    facts = dict(pairs)
    if "generators" in facts:
        facts["generators"] = "+".join(sorted(facts["generators"].split("+")))
    return facts


def _newest_launch(parent: Run) -> float:
    """Seconds since 1970 of the newest launch."""
    number = sum(name.startswith(names.LAUNCH) for name in parent.data.params)
    entry = json.loads(parent.data.params.get(f"{names.LAUNCH}{number}", "{}"))
    return float(entry.get("time", parent.info.start_time / 1000))
