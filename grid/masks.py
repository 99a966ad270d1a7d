"""Which masks of a data set are used: by methods that learn from them, by conditions, for edited areas."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from grid.commands import BadInputError

if TYPE_CHECKING:
    import pandas as pd

    from data.manifest import Manifest
    from data.verdict import Verdict
    from grid.plan import Work
    from grid.spec import TrialSpec


def check_masks_to_learn(manifest: Manifest, verdict: Verdict, trials: Iterable[TrialSpec]) -> None:
    """Refuse trials of methods that learn from masks, on data without masks that they could learn from.

    Args:
        manifest: with the findings of the audits.
        verdict: on the same data.
        trials: that are to run.

    Raises:
        BadInputError: the message names methods and generators, and says what to do.
    """
    from data.conditions import get_condition
    from data.sources.base import FAKE
    from grid.plan import TRAIN, VALID
    from models.registry import reads_masks

    learning = [trial for trial in trials if reads_masks(trial.method, dict(trial.config))]
    if not learning:
        return
    fakes = manifest.table[manifest.table["label"] == FAKE]
    with_masks = fakes[fakes["mask"].notna()]
    masked = set(zip(with_masks["generator"], with_masks["split"], strict=True))
    untrusted = _untrusted(manifest, verdict)
    problems: dict[str, None] = {}
    for generator in dict.fromkeys(name for trial in learning for name in trial.train_generators):
        absent = [
            words for words, split in (("training", TRAIN), ("validation", VALID)) if (generator, split) not in masked
        ]
        if absent:
            problems[f"{generator}: no {' and no '.join(absent)} fake has a mask"] = None
        elif generator in untrusted:
            problems[f"{generator}: {untrusted[generator]}"] = None
    for condition in dict.fromkeys(name for trial in learning for name in trial.train_conditions):
        if get_condition(condition).moves:
            problems[f"under {condition}, masks do not fit the pictures any more"] = None
    if problems:
        methods = ", ".join(dict.fromkeys(trial.method for trial in learning))
        remedies = ["mend the masks", "choose other generators (--generators)", "leave the method out (--methods)"]
        if untrusted:
            remedies.append("give --accept-audit masks to learn from masks that the audit doubts")
        raise BadInputError("\n".join([
            f"{methods} {'learns' if ',' not in methods else 'learn'} from masks, and cannot be trained on these data:",
            *(f"  {problem}" for problem in problems),
            f"{'; or '.join(remedies)[0].upper()}{'; or '.join(remedies)[1:]}",
        ]))  # fmt: skip


def check_conditions(manifest: Manifest, verdict: Verdict, work: Iterable[Work]) -> None:
    """Refuse conditions that read masks, such as paste-back, where the audit does not trust the masks.

    Args:
        manifest: with the findings of the audits.
        verdict: on the same data.
        work: what is to run.

    Raises:
        BadInputError: the message has each generator with what is wrong with its masks, and the remedy.
    """
    from data.conditions import get_condition

    untrusted = _untrusted(manifest, verdict)
    if not untrusted:
        return
    named = dict.fromkeys(
        name for item in work for name in (*item.conditions, *(item.spec.train_conditions if item.fits else ()))
    )
    if reading := [name for name in named if "mask" in get_condition(name).uses]:
        names = ", ".join(reading)
        lines = [f"  {generator}: {what}" for generator, what in untrusted.items()]
        raise BadInputError(
            "\n".join(
                [
                    f"{names} reads masks, and the audit does not trust those of these generators:",
                    *lines,
                    f"Mend the masks, choose generators whose masks are sound (--generators), or leave {names} out. Or "
                    "give --accept-audit masks: the masks are used as they are",
                ]
            )
        )


def with_trusted_masks(manifest: Manifest, measured: pd.DataFrame, verdict: Verdict) -> pd.DataFrame:
    """What was measured, without the edited area (`mask_share`) of fakes whose masks the audit does not trust."""
    untrusted = manifest.table["generator"].isin(_untrusted(manifest, verdict)) & (manifest.table["label"] == 1)
    return measured.assign(mask_share=measured["mask_share"].mask(untrusted))


def _untrusted(manifest: Manifest, verdict: Verdict) -> dict[str, str]:
    """Generator -> what is wrong with its masks; empty where the audit of masks is accepted."""
    from data.audits.masks import untrusted_masks

    return {} if "masks" in verdict.accepted else untrusted_masks(manifest)


def edits_problems(methods: Collection[str], trained: Iterable[str]) -> list[str]:
    """Training conditions that read masks or originals of fakes, where a method learns from self-edited pictures."""
    from data.conditions import expand, get_condition, is_condition
    from models.registry import detector_info

    learners = [name for name in methods if detector_info(name).self_edits is not None]
    conditions = dict.fromkeys(name for text in trained for name in expand(text.split("+")) if is_condition(name))
    reading = [name for name in conditions if get_condition(name).uses]
    if not (learners and reading):
        return []
    return [
        f"--train-condition {', '.join(reading)} reads masks or originals of a data set's fakes, and "
        f"{' and '.join(learners)} {'learns' if len(learners) == 1 else 'learn'} from edited photographs instead: "
        "choose another condition, or other methods"
    ]
