"""What the results at hand do not show, said from the data."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator

import pandas as pd

from analysis.page import Block, Bullets, Text, sentence_list
from analysis.parts import Report, register_part
from analysis.store import Store, StoreError
from grid import names
from grid.plan import FINISHED, RUNNING
from grid.tasks import ATTRIBUTION, DETECTION, cell_rows, class_names, generators_of, get_task
from grid.train_sets import TrainSet

_SHOWN_WARNINGS = 5


@register_part("limitations", title="What this does not show", position=15)
def limitations(report: Report) -> Iterator[Block]:
    """What the data say that the results do not show. Made last: the other parts add what went wrong in them."""
    first = report.finished(DETECTION)
    scores = report.store.scores(first["run_id"].iloc[0]) if len(first) else None
    bullets = limits(report.store, report.results, scores, notes=report.store.notes)
    yield Bullets([*bullets, *report.problems])


def limits(
    store: Store, results: pd.DataFrame, scores: pd.DataFrame | None, *, notes: Iterable[str] = ()
) -> list[Text]:
    """Sentences for "What this does not show".

    Args:
        store: the grid.
        results: `store.results()`.
        scores: of one finished run, to count test images by; None where there are none.
        notes: what the manifest says that a reader should know.
    """
    runs = store.runs()
    bullets = [
        *_missing(store, runs),
        *_unscored(store, runs),
        *_seeds(runs),
        *_equal_seeds(results),
        *_weights(runs),
        *_data(store, results),
        *(_sizes(scores) if scores is not None else []),
        *(_counts(scores) if scores is not None else []),
        *_classes(store, runs),
        *_constant(results),
        *_inverted(results),
        *_warnings(store, runs),
        *(Text(f"The data set's own note: {note}") for note in notes),
    ]
    skipped = store.parent.data.tags.get(names.SKIPPED, "0")
    if skipped not in ("", "0"):
        bullets.append(Text(f"{skipped} bad files of the data set were left out."))
    bullets.append(
        Text(
            "Intervals come from resampling the source photographs of this test set, for the detectors as they were "
            "trained: another training run, and photographs or generators of another kind, are not in them. Where "
            "hardly any image is wrong, or right, accuracies have the exact binomial interval too; a perfect AUROC has "
            "no width. With many cells, some intervals miss the truth by chance; nothing is corrected for their number."
        )
    )
    return bullets


def _missing(store: Store, runs: pd.DataFrame) -> list[Text]:
    open_runs = runs[runs["state"] != FINISHED]
    if open_runs.empty:
        return []
    counts = Counter(open_runs["state"])
    states = sentence_list(f"{count} {state}" for state, count in sorted(counts.items()))
    lacking = open_runs[open_runs["state"] != RUNNING]
    first = open_runs.head(8)
    what = [
        f"{variant}, {get_task(task).label(TrainSet.parse(trained_on), store.generators)} (seed {seed})"
        for variant, task, trained_on, seed in first[["variant", "task", "trained_on", "seed"]].to_numpy().tolist()
    ]
    more = f" and {len(open_runs) - 8} more" if len(open_runs) > 8 else ""
    return [
        Text(
            f"{len(open_runs)} of {len(runs)} trials {'are' if len(open_runs) > 1 else 'is'} not finished ({states}): "
            f"{'; '.join(what)}{more}. Their cells are missing, and means are over what is there."
            + (" This runs them:" if len(lacking) else ""),
            command=store.missing_command() if len(lacking) else "",
        )
    ]


def _unscored(store: Store, runs: pd.DataFrame) -> list[Text]:
    """Finished trials that lack a condition; with one command for these and for the unfinished ones."""
    unscored, lacking = store.unscored, []
    for condition, run_ids in unscored.items():
        variants = dict.fromkeys(runs.loc[runs["run_id"].isin(run_ids), "variant"])
        lacking.append(f"{condition} ({len(run_ids)} of {sentence_list(map(str, variants))})")
    if not lacking:
        return []
    text = f"Finished trials were not scored under {sentence_list(lacking)}: their means are over fewer cells."
    if (runs["state"] != FINISHED).any():
        return [Text(f"{text} The command above does it too.")]
    return [Text(f"{text} This does it:", command=store.missing_command())]


def _seeds(runs: pd.DataFrame) -> list[Text]:
    finished = runs[runs["state"] == FINISHED]
    seeds = finished.groupby("variant", sort=False)["seed"].nunique()
    single = list(seeds[seeds == 1].index)
    if not single:
        return []
    who = "every method" if len(single) == len(seeds) else sentence_list(single)
    return [
        Text(
            f"There is one seed of {who}: how much a figure would move with another one is not known, and no interval "
            "here is over seeds."
        )
    ]


def _equal_seeds(results: pd.DataFrame) -> list[Text]:
    """Methods that are fitted to the optimum, where a seed changes nothing."""
    several = results.groupby("variant", sort=False).filter(lambda rows: rows["seed"].nunique() > 1)
    cells = several.groupby(["variant", "task", "trained_on", "tested_on", "metric"])["value"].nunique()
    widest = cells.groupby("variant").max()
    equal = [str(name) for name in dict.fromkeys(several["variant"]) if widest[name] == 1]
    if not equal:
        return []
    return [
        Text(
            f"All seeds of {sentence_list(equal)} gave the same figures: a standard deviation of 0 over seeds says "
            "that nothing there is left to chance, and nothing about other training images."
        )
    ]


def _weights(runs: pd.DataFrame) -> list[Text]:
    random = [
        str(run.variant)
        for run in runs.drop_duplicates("variant").itertuples()
        if json.loads(str(run.config)).get("weights") == "random" and not _random_by_design(str(run.method))
    ]
    if not random:
        return []
    verb = "start" if len(random) > 1 else "starts"
    return [
        Text(
            f"{sentence_list(random)} {verb} from random weights in place of pretrained ones: these figures say "
            "nothing of the method as published."
        )
    ]


def _random_by_design(method: str) -> bool:
    from models.registry import resolve_config

    try:
        return resolve_config(method, {}).get("weights") == "random"
    except (KeyError, ValueError):
        return False


def _data(store: Store, results: pd.DataFrame) -> list[Text]:
    """What the corpus says of itself."""
    caveats = store.source.caveats
    return [Text(caveats[name]) for name in ("", *dict.fromkeys(results["tested_on"])) if name in caveats]


def _sizes(scores: pd.DataFrame) -> list[Text]:
    """What a cell rests on."""
    cells = [scores[cell_rows(scores, generator)] for generator in generators_of(scores)]
    fewest = min(cells, key=len)
    more = "" if all(len(cell) == len(fewest) for cell in cells) else " or more"
    return [
        Text(
            f"Each cell rests on {len(fewest)} test images{more} of {fewest['source_id'].nunique()} source photographs."
        )
    ]


def _constant(results: pd.DataFrame) -> list[Text]:
    """Detectors that say the same of every image, which an accuracy of a half hides."""
    cells = results[results["task"] == DETECTION]
    wide = cells.pivot_table(index=["variant", "run_id", "tested_on"], columns="metric", values="value")
    if not {"real_accuracy", "fake_accuracy"} <= set(wide.columns):
        return []
    same = (wide["real_accuracy"] + wide["fake_accuracy"] == 1) & wide["real_accuracy"].isin([0, 1])
    shares = same.groupby("variant", sort=False).agg(["sum", "size"])
    shares = shares[shares["sum"] > 0]
    if shares.empty:
        return []
    who = sentence_list(f"{name} in {count} of {of} cells" for name, count, of in shares.itertuples(name=None))
    return [Text(f"The same answer for every image at p = 0.5, by {who}: an accuracy of a half is then no skill.")]


def _counts(scores: pd.DataFrame) -> list[Text]:
    """Unequal numbers of real and fake test images, with which accuracy leans to the larger class."""
    unequal = []
    for generator in generators_of(scores):
        labels = scores.loc[cell_rows(scores, generator), "label"]
        real, fake = int((labels == 0).sum()), int((labels == 1).sum())
        if real != fake:
            unequal.append(f"{generator} {real} real, {fake} fake")
    if not unequal:
        return []
    return [
        Text(
            f"Test sets have unequal numbers of real and fake images ({'; '.join(unequal)}): accuracy leans to the "
            "larger class; read balanced accuracy and AUROC beside it."
        )
    ]


def _classes(store: Store, runs: pd.DataFrame) -> list[Text]:
    """Classes of attribution with unequal numbers of test images, with which accuracy leans to the largest."""
    finished = runs[(runs["task"] == ATTRIBUTION) & (runs["state"] == FINISHED)]
    if finished.empty:
        return []
    try:
        scores = store.scores(finished["run_id"].iloc[0], columns=["label", "generator"])
    except StoreError:  # said elsewhere
        return []
    counts = pd.Series(class_names(scores)).value_counts()
    if counts.min() == counts.max():
        return []
    listed = sentence_list(f"{count} of {name}" for name, count in counts.items())
    return [
        Text(
            f"Attribution's test images are {listed}: to call every image {counts.index[0]} is right for "
            f"{counts.max() / counts.sum():.0%} of them. Read the accuracy of each class beside the one over all."
        )
    ]


def _inverted(results: pd.DataFrame) -> list[Text]:
    aurocs = results[results["metric"] == "auroc"]
    low = aurocs[aurocs["value"] < 0.4]
    if low.empty:
        return []
    cells = len(low.drop_duplicates(["variant", "trained_on", "tested_on"]))
    return [
        Text(
            f"In {cells} {'cells' if cells > 1 else 'cell'} the AUROC is below 0.4: the detector ranks those fakes as "
            "more real than the real images. That is a finding about the detector; by itself it is no sign of swapped "
            "labels."
        )
    ]


def _warnings(store: Store, runs: pd.DataFrame) -> list[Text]:
    """What trials logged as warnings, each text once."""
    counts: Counter[str] = Counter()
    for run_id in runs.loc[runs["run_id"] != "", "run_id"]:
        try:
            text = store.artifact(run_id, names.WARNINGS).read_text(errors="replace")
        except (StoreError, OSError):
            continue
        counts.update({line.strip() for line in text.splitlines() if line.strip()})
    bullets = [
        Text(f"Logged as a warning by {count} {'trials' if count > 1 else 'trial'}: {line[:400]}")
        for line, count in counts.most_common(_SHOWN_WARNINGS)
    ]
    if len(counts) > _SHOWN_WARNINGS:
        bullets.append(Text(f"{len(counts) - _SHOWN_WARNINGS} other warnings are in {names.WARNINGS} of their runs."))
    return bullets
