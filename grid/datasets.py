"""The data sets of an experiment in words: a launch with --limit makes another data set than one without."""

from __future__ import annotations

import argparse
import json
import shlex
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NoReturn

from grid import names
from grid.launches import newest_launch
from grid.local_store import StoreError
from grid.plan import FINISHED, TEST, TRAIN
from grid.records import speaking_runs, state_of
from grid.uris import local_path

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

    Raises:
        StoreError: what MLflow has of a grid's options or images is damaged.
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
        try:
            options = data_options(parent.data.tags)
        except ValueError as error:
            raise StoreError(
                f"the run {parent.info.run_id} ({parent.info.run_name}) of a grid in MLflow is damaged: {error}\n"
                "Mend the tag in the MLflow UI, or launch the grid again, which writes it"
            ) from error
        number = data_profile(parent).get("num_rows")
        generators = tuple(options.generators or ())
        found.append(DataSet(digest, _launched(parent), len(finished), number, options.limit, generators))
    return sorted(found, key=lambda data: data.launched)[::-1]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def data_options(tags: Mapping[str, str]) -> argparse.Namespace:
    """The options that chose a grid's images (see `grid.options.add_data_options`), from the tags of its run.

    Raises:
        ValueError: they are damaged; the message names the tag.
    """
    from grid.options import add_data_options

    tag = names.OPTIONS if tags.get(names.OPTIONS) else names.DATA_OPTIONS
    text = tags.get(tag, "")
    parser = _Parser(allow_abbrev=False, add_help=False)
    add_data_options(parser)
    try:
        return parser.parse_known_args(shlex.split(text))[0]
    except ValueError as error:
        raise ValueError(f"its tag {tag} is {text!r} ({error})") from error


def data_profile(parent: Run) -> dict[str, Any]:
    """What MLflow has of the data set of a grid's run; empty if the launch died before it was logged.

    `num_rows` (images), `generators` (names), and `images` (class -> split -> number), which older grids lack.

    Raises:
        StoreError: it is damaged.
    """
    return _input_of(parent, "profile", {"num_rows": int, "generators": list, "images": dict})


def train_generators(profile: Mapping[str, Any]) -> list[str]:
    """The generators of a data set that can be trained on, from `data_profile`; empty if that lacks its generators."""
    images = profile.get("images", {})
    return [name for name in profile.get("generators", ()) if TRAIN in images.get(name, (TRAIN,))]


def untested_generators(profile: Mapping[str, Any]) -> list[str]:
    """The generators of a data set without test images, from `data_profile`; empty if that lacks its generators."""
    images = profile.get("images", {})
    return [name for name in profile.get("generators", ()) if TEST not in images.get(name, (TEST,))]


def data_folder(parent: Run) -> str:
    """The data folder of a grid's run, or its address; "DIR" if the launch died before it was logged.

    Raises:
        StoreError: it is damaged.
    """
    uri: str = _input_of(parent, "source", {"uri": str}).get("uri") or "DIR"
    return str(local_path(uri) or uri)


def _input_of(parent: Run, name: str, kinds: Mapping[str, type]) -> dict[str, Any]:
    """One field of the data set that was logged as an input of the run: an object with values of these kinds."""
    inputs = parent.inputs.dataset_inputs if parent.inputs else []
    text = getattr(inputs[0].dataset, name) or "{}" if inputs else "{}"
    with suppress(ValueError, RecursionError):
        found = json.loads(text)
        if isinstance(found, dict) and all(isinstance(found.get(key, kind()), kind) for key, kind in kinds.items()):
            return found
    raise StoreError(
        f"the {name} of the data set of run {parent.info.run_id} ({parent.info.run_name}) in MLflow is damaged: "
        f"{text[:100]!r}. Restore the store from a copy, or launch the grid under another --experiment-name"
    )


def _launched(parent: Run) -> datetime:
    """The time of the newest launch, in UTC; that of the first where the newest has none that can be read."""
    with suppress(KeyError, TypeError, ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(float(newest_launch(parent).entry["time"]), UTC)
    return datetime.fromtimestamp(parent.info.start_time / 1000, UTC)


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
