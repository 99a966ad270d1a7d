"""What the results do not show, derived from the data."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator

import pandas as pd

from analysis.controls import null_cells, null_sentences
from analysis.page import Block, Bullets, Text, sentence_list
from analysis.parts import AUDIT, Report, register_part
from analysis.store import Store, StoreError
from data.audits import Finding
from grid import names
from grid.plan import FINISHED, RUNNING
from grid.tasks import ATTRIBUTION, DETECTION, cell_rows, class_names, generators_of, get_task
from grid.train_sets import TrainSet
from models.registry import depends_on_seed

_SHOWN_TRIALS, _SHOWN_WARNINGS = 8, 5
_LOGGER = re.compile(r"^WARNING [\w.]+: ")  # who logged a line


@register_part("limitations", title="What this does not show", position=15, kept=False)
def limitations(report: Report) -> Iterator[Block]:
    """One sentence per limitation. Made last, because the other parts add the problems that they met."""
    first = report.finished(DETECTION)
    scores = report.store.scores(first["run_id"].iloc[0]) if len(first) else None
    verdict = report.store.verdict
    found = [] if verdict is None else verdict.findings
    notes = [note for note in report.store.notes if note not in set(map(str, found))]  # these have levels, see Audit
    yield Bullets(
        [
            *limits(report.store, report.results, scores, notes=notes, found=found),
            *_controls(report),
            *report.problems,
        ]
    )


def _controls(report: Report) -> Iterator[Text]:
    """Controls off chance, and methods that are not above the references."""
    cells = null_cells(report.whole)
    yield from (Text(f"Null control {sentence}") for sentence in null_sentences(cells, off_chance_only=True))
    yield from map(Text, report.beside.warnings(report.generators))


def limits(
    store: Store,
    results: pd.DataFrame,
    scores: pd.DataFrame | None,
    *,
    notes: Iterable[str] = (),
    found: Iterable[Finding] = (),
) -> Iterator[Text]:
    """Sentences for "What this does not show".

    Args:
        store: the grid.
        results: rows of `store.results()` on clean pictures.
        scores: scores of one finished detection run, to count test images; None: there is no such run.
        notes: remarks on the data set.
        found: findings of the audits; counted here, and in full in the section "Audit"; of those that are
            harmless by themselves nothing is said here.
    """
    runs = store.runs()
    yield from _missing(store, runs)
    yield from _unscored(store, runs)
    yield from _seeds(runs[runs["state"] == FINISHED])
    yield from _random_weights(runs)
    yield from _small_forms(runs)
    caveats = store.source.caveats
    yield from (Text(caveats[name]) for name in ("", *dict.fromkeys(results["tested_on"])) if name in caveats)
    if scores is not None:
        yield from _test_sets(scores)
    yield from _attribution_classes(store, runs)
    yield from _constant(results)
    yield from _inverted(results)
    yield from _warnings(store, runs)
    yield from (Text(f"The data set's own note: {note}") for note in notes)
    grave = Counter((finding.audit, finding.level) for finding in found if finding.level != "note")
    if grave:
        listed = sentence_list(
            f"{name} ({level}, {count} finding{'s' if count > 1 else ''})" for (name, level), count in grave.items()
        )
        yield Text(f"What the audit of the data found may explain values: {listed}.", link=AUDIT)
    skipped = store.parent.data.tags.get(names.SKIPPED, "0")
    if skipped != "0":
        yield Text(f"{skipped} bad files of the data set were left out.")
    yield Text(
        "A confidence interval of the mean says how far a value would move with other photographs of the same kind "
        "and, where there are several seeds, with other seeds. A prediction interval says where one more run would "
        "lie. Neither covers photographs and generators of another kind, or other training images. Of many intervals, "
        "some miss the truth by chance; nothing is corrected for their number."
    )


def _missing(store: Store, runs: pd.DataFrame) -> Iterator[Text]:
    unfinished = runs[runs["state"] != FINISHED]
    if unfinished.empty:
        return
    states = sentence_list(f"{count} {state}" for state, count in sorted(Counter(unfinished["state"]).items()))
    trials = [
        f"{variant}, {get_task(task).label(TrainSet.parse(trained_on), store.generators)} (seed {seed})"
        for variant, task, trained_on, seed in unfinished[["variant", "task", "trained_on", "seed"]].to_numpy().tolist()
    ]
    more = f" and {len(trials) - _SHOWN_TRIALS} more" if len(trials) > _SHOWN_TRIALS else ""
    command = store.missing_command() if (unfinished["state"] != RUNNING).any() else ""
    yield Text(
        f"{len(trials)} of {len(runs)} trials {'are' if len(trials) > 1 else 'is'} not finished ({states}): "
        f"{'; '.join(trials[:_SHOWN_TRIALS])}{more}. Their cells are missing, and means are over the other cells."
        + (" This runs them:" if command else ""),
        command=command,
    )


def _unscored(store: Store, runs: pd.DataFrame) -> Iterator[Text]:
    """Finished trials that lack a condition; one command scores these and runs the unfinished ones."""
    lacking = []
    for condition, run_ids in store.unscored.items():
        variants = dict.fromkeys(runs.loc[runs["run_id"].isin(run_ids), "variant"])
        lacking.append(f"{condition} ({len(run_ids)} of {sentence_list(map(str, variants))})")
    if not lacking:
        return
    text = f"Finished trials were not scored under {sentence_list(lacking)}: their means are over fewer cells."
    if (runs["state"] != FINISHED).any():
        yield Text(f"{text} The command above scores them too.")
    else:
        yield Text(f"{text} This scores them:", command=store.missing_command())


def _seeds(finished: pd.DataFrame) -> Iterator[Text]:
    first = finished.drop_duplicates("variant")
    configs = zip(first["variant"], first["method"], first["config"], strict=True)
    seeded = [name for name, method, config in configs if depends_on_seed(str(method), json.loads(str(config)))]
    seeds = finished[finished["variant"].isin(seeded)].groupby("variant", sort=False)["seed"].nunique()
    single = list(seeds[seeds == 1].index)
    if single:
        methods = "every method" if len(single) == len(first) else sentence_list(single)
        yield Text(
            f"There is one seed of {methods}: how much a value would change with another seed is not known. The "
            "intervals are over photographs, for these runs alone; there is no prediction interval."
        )
    if free := [str(name) for name in first["variant"] if name not in seeded]:
        does = "do" if len(free) > 1 else "does"
        of_free = finished[finished["variant"].isin(free)].groupby("variant")["seed"].nunique()
        ran = "and ran once" if (of_free == 1).all() else "so runs that differ in the seed alone are one run"
        yield Text(
            f"{sentence_list(free)} {does} not depend on the seed, {ran}: nothing there is left to chance. That "
            "says nothing about other training images."
        )


def _random_weights(runs: pd.DataFrame) -> Iterator[Text]:
    random = [
        str(run.variant)
        for run in runs.drop_duplicates("variant").itertuples()
        if json.loads(str(run.config)).get("weights") == "random" and not _random_by_design(str(run.method))
    ]
    if random:
        yield Text(
            f"{sentence_list(random)} {'start' if len(random) > 1 else 'starts'} from random weights in place of "
            "pretrained ones: these values say nothing about the method as published."
        )


def _small_forms(runs: pd.DataFrame) -> Iterator[Text]:
    from models.registry import is_small

    small = [
        str(run.variant)
        for run in runs.drop_duplicates("variant").itertuples()
        if is_small(str(run.method), json.loads(str(run.config)))
    ]
    if small:
        yield Text(
            f"{sentence_list(small)} {'are' if len(small) > 1 else 'is'} in small form, with a small network in place "
            "of the method's own: these values show that the grid works, and not how good the method is."
        )


def _random_by_design(method: str) -> bool:
    from models.registry import resolve_config

    try:
        return resolve_config(method, {}).get("weights") == "random"
    except (KeyError, ValueError):  # a method of another checkout
        return False


def _test_sets(scores: pd.DataFrame) -> Iterator[Text]:
    """The size of a cell, and unequal numbers of real and fake images, which bias accuracy to the larger class."""
    cells = {generator: scores[cell_rows(scores, generator)] for generator in generators_of(scores)}
    smallest = min(cells.values(), key=len)
    more = " or more" if any(len(cell) > len(smallest) for cell in cells.values()) else ""
    yield Text(
        f"Each cell rests on {len(smallest)} test images{more} of {smallest['source_id'].nunique()} source photographs."
    )
    counts = {generator: ((cell["label"] == 0).sum(), (cell["label"] == 1).sum()) for generator, cell in cells.items()}
    unequal = [f"{name} {real} real, {fake} fake" for name, (real, fake) in counts.items() if real != fake]
    if unequal:
        yield Text(
            f"Test sets have unequal numbers of real and fake images ({'; '.join(unequal)}): accuracy leans to the "
            "larger class; read balanced accuracy and AUROC beside it."
        )


def _attribution_classes(store: Store, runs: pd.DataFrame) -> Iterator[Text]:
    """Unequal numbers of test images per class of attribution, which bias accuracy to the largest class."""
    finished = runs[(runs["task"] == ATTRIBUTION) & (runs["state"] == FINISHED)]
    if finished.empty:
        return
    scores = store.scores(finished["run_id"].iloc[0], columns=["label", "generator"])
    counts = pd.Series(class_names(scores)).value_counts()
    if counts.min() < counts.max():
        listed = sentence_list(f"{count} of {name}" for name, count in counts.items())
        yield Text(
            f"Attribution's test images are {listed}: to call every image {counts.index[0]} is right for "
            f"{counts.max() / counts.sum():.0%} of them. Read the accuracy of each class beside the overall one."
        )


def _constant(results: pd.DataFrame) -> Iterator[Text]:
    """Detectors that give every image the same answer, which an accuracy of 0.5 hides."""
    cells = results[results["task"] == DETECTION]
    wide = cells.pivot_table(index=["variant", "run_id", "tested_on"], columns="metric", values="value")
    if not {"real_accuracy", "fake_accuracy"} <= set(wide.columns):
        return
    same = (wide["real_accuracy"] + wide["fake_accuracy"] == 1) & wide["real_accuracy"].isin([0, 1])
    shares = same.groupby("variant", sort=False).agg(["sum", "size"])
    listed = [f"{name} in {count} of {total} cells" for name, count, total in shares.itertuples(name=None) if count]
    if listed:
        yield Text(
            f"The same answer for every image at p = 0.5, by {sentence_list(listed)}: an accuracy of 0.5 is then no "
            "skill."
        )


def _inverted(results: pd.DataFrame) -> Iterator[Text]:
    low = results[(results["task"] == DETECTION) & (results["metric"] == "auroc") & (results["value"] < 0.4)]
    cells = len(low.drop_duplicates(["variant", "trained_on", "tested_on"]))
    if cells:
        yield Text(
            f"In {cells} {'cells' if cells > 1 else 'cell'} the AUROC is below 0.4: the detector ranks those fakes as "
            "more real than the real images. That is a finding about the detector, and by itself no sign of swapped "
            "labels."
        )


def _warnings(store: Store, runs: pd.DataFrame) -> Iterator[Text]:
    """Warnings that trials logged, each text once."""
    variants: dict[str, list[str]] = {}
    for run_id, variant in runs.loc[runs["run_id"] != "", ["run_id", "variant"]].to_numpy().tolist():
        try:
            text = store.artifact(run_id, names.WARNINGS).read_text(encoding="utf-8", errors="replace")
        except (StoreError, OSError):  # a trial without warnings has no such file
            continue
        for line in dict.fromkeys(filter(None, map(str.strip, text.splitlines()))):
            variants.setdefault(_LOGGER.sub("", line), []).append(variant)
    most = sorted(variants.items(), key=lambda item: -len(item[1]))
    for line, those in most[:_SHOWN_WARNINGS]:
        trials = f"{len(those)} {'trials' if len(those) > 1 else 'trial'} of {sentence_list(dict.fromkeys(those))}"
        yield Text(f"Warning of {trials}: {line[:400]}")
    if len(most) > _SHOWN_WARNINGS:
        yield Text(f"{len(most) - _SHOWN_WARNINGS} other warnings are in {names.WARNINGS} of their runs.")
