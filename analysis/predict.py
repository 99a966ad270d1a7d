"""Real or fake? Classify one picture, several, or a folder of them with a tracked run.

python -m analysis predict face.png --best xception_pretrained
python -m analysis predict folder/ --run RUN_ID --json

A picture that is not like the training images gets no verdict.
Exit status: 0 every picture has a verdict; 1 a picture has no answer or no overlay, and stderr says why; 2 bad input;
3 at least one picture has no verdict, because it is not like the training images (also where others have no answer).
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.cam import NO_LAYER, explain
from analysis.controls import methods_alone
from analysis.detectors import check_device, load_detector, local_weights
from analysis.options import add_grid_options
from analysis.store import Store, StoreError, open_store
from analysis.verdicts import NOT_KNOWN, Judge
from data.conditions import CLEAN
from data.images import IMAGE_SUFFIXES, OTHER_SUFFIXES, OVERLAY
from data.sources.base import is_aside, shown_names
from grid import names
from grid.command_line import Parser, print_wrapped
from grid.plan import FINISHED
from grid.steps import step
from grid.tasks import ATTRIBUTION, DETECTION, REAL
from grid.train_sets import TrainSet
from grid.uris import store_variable
from models.detector import MemoryExhausted
from models.maps import may_have_maps
from models.registry import size_check

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

OK, SOME_WITHOUT, NO_VERDICT = 0, 1, 3
BATCH = 8


@dataclass(frozen=True)
class Found:
    """A picture to classify.

    Attributes:
        path: the picture.
        below: its path below the folder named on the command line; its name if the picture itself was named.
        folder: name of that folder, or of the folder that the named picture is in.
    """

    path: Path
    below: Path
    folder: str


@dataclass
class Answer:
    """The result for one picture.

    Attributes:
        path: the picture, as named on the command line.
        verdict: "real" or "fake"; None if there is no result, or the picture is not like the training images.
        reason: why there is no verdict for a picture that was read, or that it is not known whether it is like the
            training images, as of older runs.
        inside: whether the picture is like the training images; None: not known.
        distance: how far out it is: distance over limit, above 1 beyond the limit; None: not known, or it cannot be
            compared.
        label: the same as `verdict`.
        score: log-odds of "fake"; of a method whose score is no log-odds, that score.
        probability: probability of "fake", in [0, 1]; the detector's own, not calibrated. None without a verdict, and
            where the score is no log-odds.
        calibrated_probability: with the temperature from the validation split, and no nearer to 0 or 1 than 1 / (n + 2)
            for n validation images. None without a verdict, and where no temperature is known.
        attribution: the class with the highest probability, "real" or a generator; None without an attribution run.
        attribution_probabilities: class -> probability.
        cam: the overlay that was written.
        error: why there is no result, or no overlay.
    """

    path: str
    verdict: str | None = None
    reason: str | None = None
    inside: bool | None = None
    distance: float | None = None
    label: str | None = None
    score: float | None = None
    probability: float | None = None
    calibrated_probability: float | None = None
    attribution: str | None = None
    attribution_probabilities: dict[str, float] | None = None
    cam: str | None = None
    error: str | None = None


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line of `predict`; see `--help`."""
    parser = Parser(prog="python -m analysis predict", description=__doc__)
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="a picture, or a folder of pictures")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--run", metavar="RUN_ID", help="a finished detection run; the beginning of its id is enough")
    which.add_argument(
        "--best",
        metavar="METHOD",
        help="the method's detection run with the best mean validation AUROC over all generators",
    )
    add_grid_options(parser)
    parser.add_argument(
        "--weights", type=Path, action="append", default=[], metavar="FILE",
        help="weights of a frozen encoder, if they were a file",
    )  # fmt: skip
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: cpu")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for overlays; default: beside each picture")
    parser.add_argument("--no-cam", action="store_true", help="write no overlays")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_args(arguments)


def best_run(store: Store, method: str) -> tuple[str, str]:
    """The finished detection run of a method, or variant, that is best on the validation images of all generators.

    Runs are ranked by the mean of their validation AUROCs, one per generator, seen in training or not. A run scores its
    validation images under the condition of its training, so only runs of one condition are ranked: of clean pictures,
    as pictures come in, if there is such a run with these values; else of the condition with most such runs, of equal
    ones the first in the alphabet. If one of these runs was trained on several generators, only such runs are ranked.
    Of equal runs the first counts. The test split is not used.

    Returns:
        its id, and the reason in words.

    Raises:
        StoreError: no such method, it has no finished run, or no run has scored the validation images of all
            generators.
    """
    runs = _finished(methods_alone(store), DETECTION)
    of_method = runs[(runs["variant"] == method) | (runs["method"] == method)]
    if of_method.empty:
        known = ", ".join(dict.fromkeys(runs["variant"])) or "none"
        raise StoreError(f"{method!r} has no finished detection run in {store.experiment!r}; there are: {known}")
    validated = {str(run_id): store.validation(str(run_id)) for run_id in of_method["run_id"]}
    lacking = [run_id for run_id, values in validated.items() if not values]
    lost = [run_id for run_id in lacking if store.tags(run_id).get(names.VALIDATED) == names.NEVER]
    rest = [run_id for run_id in lacking if run_id not in lost]
    add = [f"This adds it, from the checkpoints:\n{store.validation_command(rest)}"] if rest else []
    if lost:
        add += ["A run without a checkpoint cannot get it: delete the run, and launch the grid again:"]
        add += [f"{store_variable(store.tracking_uri)} mlflow runs delete --run-id {run_id}" for run_id in lost]
    joined = "\n".join(add)
    if len(lacking) == len(validated):
        raise StoreError(
            f"no run of {method!r} has scored the validation images of every generator. Runs cannot be compared "
            "without these scores: on its own validation images, the run with the easiest generator looks best. "
            f"{joined}\nOr name a run with --run"
        )
    with_values = of_method[~of_method["run_id"].isin(lacking)]
    counts = Counter(map(str, with_values["train_condition"]))
    condition = CLEAN if CLEAN in counts else min(counts, key=lambda name: (-counts[name], name))
    alike = with_values[with_values["train_condition"] == condition]
    trained = [TrainSet.parse(str(text)).generators for text in alike["trained_on"]]
    several = alike[[len(generators) > 1 for generators in trained]]
    ranked = several if len(several) else alike
    means = [float(np.mean(list(validated[str(run_id)].values()))) for run_id in ranked["run_id"]]
    best = ranked.iloc[int(np.argmax(means))]
    generators = sorted(validated[str(best["run_id"])])
    on = "" if condition == CLEAN else f" on {condition} pictures"
    which = f"the best of {len(ranked)} runs" if len(ranked) > 1 else "the only run"
    if len(several):
        which += f" that {'were' if len(ranked) > 1 else 'was'} trained on several generators"
    words = (
        f"mean validation AUROC {max(means):.3f}{on} over the generators {', '.join(generators)}, seen in training or "
        f"not: {which}; trained on {best['trained_on']}"
    )
    if condition != CLEAN:
        words += f"; no run was trained on clean pictures and has this value, so runs under {condition} were compared"
    if others := [f"{number} under {name}" for name, number in sorted(counts.items()) if name != condition]:
        words += f"; runs of other training conditions were not compared: {', '.join(others)}"
    if lacking:
        one = len(lacking) == 1
        runs_lack, were = ("run lacks", "was") if one else ("runs lack", "were")
        words += f"; {len(lacking)} older {runs_lack} this value and {were} not compared. {joined}"
    return str(best["run_id"]), words


def find_run(store: Store, text: str) -> str:
    """The finished detection run whose id begins with `text`. Raises `StoreError` that lists what exists."""
    runs = _finished(store, DETECTION)
    matches = [run_id for run_id in runs["run_id"] if text and run_id.startswith(text)]
    if len(matches) != 1:
        lines = [
            f"  {run.run_id}  {run.variant}, trained on {run.trained_on}, seed {run.seed}" for run in runs.itertuples()
        ]
        what = "several finished detection runs" if matches else "no finished detection run"
        raise StoreError("\n".join([f"{what} with the id {text!r} in {store.experiment!r}; there are:", *lines]))
    return str(matches[0])


def attribution_run(store: Store, run: Mapping[Any, Any]) -> str | None:
    """A finished attribution run of the same variant, with the same seed if there is one."""
    runs = _finished(store, ATTRIBUTION)
    same = runs[runs["variant"] == run["variant"]].set_index("run_id")
    return None if same.empty else str((same["seed"] != run["seed"]).sort_values(kind="stable").index[0])


def _finished(store: Store, task: str) -> pd.DataFrame:
    runs = store.runs()
    return runs[(runs["task"] == task) & (runs["state"] == FINISHED)]


def find_pictures(named: Sequence[Path]) -> list[Found]:
    """Every picture once; folders are searched recursively, without the overlays of earlier calls.

    Hidden names, and files and folders of other programs, are left aside. Raises `StoreError` for a folder without
    pictures.
    """
    pictures: dict[Path, Found] = {}
    for argument in named:
        if not argument.is_dir():
            pictures.setdefault(argument, Found(argument, Path(argument.name), argument.absolute().parent.name))
            continue
        inside = [
            path
            for path in sorted(argument.rglob("*"))
            if path.suffix.lower() in IMAGE_SUFFIXES
            and not path.name.endswith(OVERLAY)
            and not any(map(is_aside, path.relative_to(argument).parts))
            and (path.is_file() or path.is_symlink())
        ]
        if not inside:
            raise StoreError(f"no picture in the folder {argument}; these are read: {', '.join(IMAGE_SUFFIXES)}")
        for path in inside:
            pictures.setdefault(path, Found(path, path.relative_to(argument), argument.resolve().name))
    return list(pictures.values())


def left_aside(named: Sequence[Path]) -> list[Path]:
    """The pictures in formats that are not read in these folders, sorted."""
    return sorted(
        {
            path
            for argument in named
            if argument.is_dir()
            for path in argument.rglob("*")
            if path.suffix.lower() in OTHER_SUFFIXES and path.is_file()
        }
    )


def overlay_paths(pictures: Sequence[Found], out: Path | None) -> list[Path]:
    """Where the overlay of each picture is written: never onto another overlay, and never onto an input.

    The shortest free name: without the picture's suffix; with it; in a subfolder of `out` named like the picture's
    folder; with a number.
    """
    names = []
    uses = Counter(picture.path.resolve() for picture in pictures)
    for picture in pictures:
        path = picture.path if out is None else out / picture.below
        within = picture.path if out is None else out / picture.folder / picture.below
        whole = [base.with_name(base.name + OVERLAY) for base in (path, within)]
        names.append([path.with_suffix(OVERLAY), *whole])
        uses.update({name.resolve() for name in names[-1]})
    overlays = []
    for number, (picture, choices) in enumerate(zip(pictures, names, strict=True), start=1):
        numbered = (choices[-1].with_name(f"{picture.path.name}.{number}-{k}{OVERLAY}") for k in itertools.count(1))
        free = [name for name in choices if uses[name.resolve()] == 1]
        overlays.append(free[0] if free else next(name for name in numbered if not uses[name.resolve()]))
    return overlays


class Predictor:
    """A detection run, and the attribution run of the same variant if there is one.

    Args:
        store: an open grid.
        run_id: id of a finished detection run.
        device: torch device string.
        weight_files: digest -> path; see `load_detector`.

    Raises:
        StoreError: as `load_detector`.
    """

    def __init__(self, store: Store, run_id: str, *, device: str, weight_files: Mapping[str, Path]) -> None:
        self.run: dict[Any, Any] = next(run for run in store.runs().to_dict("records") if run["run_id"] == run_id)
        self.detector, spec = load_detector(store, run_id, device=device, weight_files=weight_files)
        specs = [spec]
        threshold = store.threshold(run_id)
        self.threshold_logged = not math.isnan(threshold)
        self.threshold = threshold if self.threshold_logged else 0.0
        self.judge = Judge(store, run_id)
        self.has_maps = may_have_maps(self.detector)
        self.has_cam = self.detector.cam_target() is not None
        self.attribution_id = attribution_run(store, self.run)
        if self.attribution_id is not None:
            self.attributor, spec = load_detector(store, self.attribution_id, device=device, weight_files=weight_files)
            self.classes = spec.classes
            specs.append(spec)
        self.size_check = size_check([(spec.method, dict(spec.config)) for spec in specs])

    def answer(self, answers: Sequence[Answer], images: Sequence[np.ndarray]) -> None:
        """Fill in the answers for these pictures, uint8 (H, W, 3) each."""
        from models.detector import fake_scores

        inputs = self.detector.inputs(images)
        prediction = self.detector.predict(inputs)
        scores, judgements = (
            fake_scores(prediction.logits).astype(float),
            self.judge.judge(images, prediction.embeddings),
        )
        for answer, score, judgement in zip(answers, scores, judgements, strict=True):
            answer.score = float(score)
            answer.inside, answer.reason = judgement.inside, judgement.reason or None
            answer.distance = None if judgement.distance == math.inf else judgement.distance
            if judgement.inside is False:
                continue
            answer.probability = float(1 / (1 + np.exp(-score))) if self.judge.log_odds else None
            if self.judge.temperature is not None:
                answer.calibrated_probability, _ = self.judge.probability(float(score))
            answer.verdict = answer.label = "fake" if score > self.threshold else "real"
        if self.attribution_id is not None:
            own, other = self.detector.encoder, self.attributor.encoder
            if own is None or other is None or own.key != other.key:  # else the features are the same
                inputs = self.attributor.inputs(images)
            logits = self.attributor.predict(inputs).logits.astype(float)
            odds = np.exp(logits - logits.max(axis=1, keepdims=True))
            for answer, row in zip(answers, odds / odds.sum(axis=1, keepdims=True), strict=True):
                if answer.verdict is None:
                    continue
                answer.attribution = self.classes[int(row.argmax())]
                answer.attribution_probabilities = dict(zip(self.classes, row.tolist(), strict=True))

    def overlays(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Each picture under the detector's own map, or that of Grad-CAM for "fake": uint8 (H, W, 3).

        Raises:
            ValueError: the method has neither.
        """
        from analysis.figures.cam import overlay

        found = explain(self.detector, images)
        if found is None:
            raise ValueError(NO_LAYER)
        return [overlay(image, cam) for image, cam in zip(images, found.maps, strict=True)]


def predict(options: argparse.Namespace, console: Console) -> int:
    """Classify the pictures: answers go to stdout, everything else to the console.

    Returns:
        the exit status: 0; 1 a picture has no answer or no overlay, and the console has the reason; 3 a picture has no
        verdict, because it is not like the training images.

    Raises:
        StoreError: bad input.
    """
    from rich.progress import Progress

    pictures = find_pictures(options.images)
    if aside := left_aside(options.images):
        names = shown_names([str(path) for path in aside])
        many = f"{len(aside)} pictures in formats that are not read have"
        has = "1 picture in a format that is not read has" if len(aside) == 1 else many
        note = f"note: {has} no answer: {names}"
        print_wrapped(note, console, style="yellow")
    weight_files = local_weights(options.weights)
    if options.out is not None and options.out.exists() and not options.out.is_dir():
        raise StoreError(f"--out {options.out} is a file; name a folder")
    check_device(options.device)
    with step(console, "reading the MLflow store", in_logs=False):
        store = open_store(options.experiment, tracking_uri=options.tracking_uri, data=options.data, run_id=options.run)
        run_id, why = (find_run(store, options.run), "") if options.run else best_run(store, options.best)
    with step(console, "loading the detector", in_logs=False):
        predictor = Predictor(store, run_id, device=options.device, weight_files=weight_files)
    with_cam = not options.no_cam and (predictor.has_maps or predictor.has_cam)
    if not options.json:
        _print_run(console, predictor, why, overlays=not options.no_cam)

    overlays = overlay_paths(pictures, options.out)
    answers: list[Answer] = []
    # Answers go to stdout. On a terminal they show by themselves how far it is, and a bar would break their paths.
    hidden = not console.is_terminal or sys.stdout.isatty() or len(pictures) == 1
    bars = Progress(console=console, disable=hidden, transient=True, redirect_stdout=False)
    with bars:
        task = bars.add_task("pictures", total=len(pictures))
        for start in range(0, len(pictures), BATCH):
            batch = [Answer(str(picture.path)) for picture in pictures[start : start + BATCH]]
            readable = list(_read(batch, overlays[start : start + BATCH], predictor))

            def classify(chosen: Sequence[Readable]) -> None:
                predictor.answer([readable.answer for readable in chosen], [readable.image for readable in chosen])

            def explain(chosen: Sequence[Readable]) -> None:
                maps = predictor.overlays([readable.image for readable in chosen])
                for readable, picture in zip(chosen, maps, strict=True):
                    _write(picture, readable.overlay, readable.answer)

            _together_or_alone(classify, readable, "")
            if with_cam:
                answered = [one for one in readable if one.answer.label is not None]
                _together_or_alone(explain, answered, "there is no overlay: ")
            answers += batch
            if not options.json:
                for answer in batch:
                    _print_answer(answer, predictor.judge)
            bars.update(task, advance=len(batch))

    if options.json:
        _print_json(predictor, why, answers)
    bad = [answer for answer in answers if answer.error]
    for answer in bad:
        console.print(f"{answer.path}: {answer.error}", style="red", highlight=False, markup=False, soft_wrap=True)
    if any(answer.inside is False for answer in answers):
        return NO_VERDICT
    return SOME_WITHOUT if bad else OK


@dataclass(frozen=True)
class Readable:
    """A picture that was read, uint8 (H, W, 3), its answer, and where its overlay goes."""

    answer: Answer
    overlay: Path
    image: np.ndarray


def _read(batch: Sequence[Answer], overlays: Sequence[Path], predictor: Predictor) -> Iterator[Readable]:
    """Decode pictures; the answer of one that cannot be used gets the reason."""
    from data.images import BadImage, decode

    for answer, overlay in zip(batch, overlays, strict=True):
        try:
            image = decode(Path(answer.path))
        except (BadImage, MemoryError) as error:
            answer.error = str(error) or "no memory to decode it"
            continue
        height, width, _ = image.shape
        if problem := predictor.size_check(width, height):
            answer.error = f"{width} x {height} pixels: {problem}"
        else:
            yield Readable(answer, overlay, image)


def _together_or_alone(work: Callable[[Sequence[Readable]], None], chosen: Sequence[Readable], what: str) -> None:
    """Do the work for all pictures at once; if there is no memory for it, for each by itself.

    A picture may be so large that memory runs out. Any other error is the program's, and not of one picture: it is
    raised, with its traceback.
    """
    if not chosen:
        return
    try:
        work(chosen)
    except (MemoryError, RuntimeError) as error:
        if not _is_exhaustion(error):
            raise
        if len(chosen) == 1:
            chosen[0].answer.error = f"{what}memory ran out: {str(error) or type(error).__name__}"
            return
    else:
        return
    for one in chosen:  # not in the handler, where the error still holds memory
        _together_or_alone(work, [one], what)


def _is_exhaustion(error: MemoryError | RuntimeError) -> bool:
    from models.memory import is_exhaustion

    return isinstance(error, MemoryError | MemoryExhausted) or is_exhaustion(error)


def _write(picture: np.ndarray, path: Path, answer: Answer) -> None:
    from PIL import Image

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path, format="PNG")
        answer.cam = str(path)
    except OSError as error:
        answer.error = (
            f"the overlay cannot be written to {path} ({error.strerror or error}): name a folder with --out DIR"
        )


def _print_run(console: Console, predictor: Predictor, why: str, *, overlays: bool) -> None:
    run = predictor.run
    lines = [
        f"run {run['run_id']}: {run['variant']}, trained on {run['trained_on']}, seed {run['seed']}, {run['weights']}"
    ]
    if why:
        lines.append(f"chosen by {why}")
    if predictor.threshold_logged:
        what = "log-odds" if predictor.judge.log_odds else "a score of"
        line = f"fake above {what} {predictor.threshold:+.3f}, the run's threshold from its validation split"
        probability, _ = predictor.judge.probability(predictor.threshold)
        if probability is not None and abs(probability - 0.5) >= 0.0005:
            line += f"; that is a probability of {probability:.3f}, and not 0.5"
        lines.append(line)
        if len(reals := predictor.judge.reals):
            above = int((reals > predictor.threshold).sum())
            lines.append(f"of {len(reals)} real validation images {above} {'lies' if above == 1 else 'lie'} above it")
    else:
        lines.append("fake above log-odds 0, as the run logged no threshold")
    if predictor.attribution_id is None:
        lines.append(f"{run['variant']} has no finished attribution run, so no generator is named")
    else:
        lines.append(f"attribution by run {predictor.attribution_id}")
    lines += _limits(predictor.judge)
    if overlays and predictor.has_maps:
        lines.append(f"overlays show the map of {run['method']} itself: the probability of fake of each place")
    elif overlays and not predictor.has_cam:
        lines.append(f"{run['method']} has no layer for Grad-CAM, so no overlay is written")
    print_wrapped("\n".join(lines), console)


def _limits(judge: Judge) -> list[str]:
    """How the run knows what its training images are like, or what to do where it does not."""
    lines = []
    for name, look in judge.looks.items():
        lines.append(f"no verdict beyond the limit of {name}: {look.facts['fitted']}")
    if judge.temperature is not None:
        fitted, why = judge.temperature, f": {judge.temperature.note}" if judge.temperature.note else ""
        lines.append(f"temperature {fitted.value:.3g} from {fitted.num_images} validation images{why}")
    lines += judge.notes
    if judge.command:
        lines.append(
            f"this run is older and keeps no limits: of every picture it is {NOT_KNOWN}. This adds it, from the "
            f"checkpoint, without training:\n{judge.command}"
        )
    return lines


def _print_answer(answer: Answer, judge: Judge) -> None:
    if answer.score is None:
        print(f"{answer.path}: no answer", flush=True)
        return
    if answer.verdict is None:
        print(f"{answer.path}: NO VERDICT: {answer.reason}", flush=True)
        return
    what = "log-odds of fake" if judge.log_odds else "score"
    line = f"{answer.path}: {answer.verdict}, {what} {answer.score:+.3f}, {judge.probability(answer.score)[1]}"
    line += f"; {answer.reason}" if answer.distance is None else f", distance {answer.distance:.2f} of the limit"
    if answer.attribution is not None and answer.attribution_probabilities is not None:
        line += f"; attribution {answer.attribution} {answer.attribution_probabilities[answer.attribution]:.3f}"
        if (answer.attribution == REAL) != (answer.verdict == "real"):
            line += ", against the verdict"
    print(line + (f"; overlay: {answer.cam}" if answer.cam else ""), flush=True)


def _print_json(predictor: Predictor, why: str, answers: list[Answer]) -> None:
    run = predictor.run
    result = {
        **{name: run[name] for name in ("run_id", "method", "variant")},
        "trained_on": list(TrainSet.parse(run["trained_on"]).generators),
        "seed": int(run["seed"]),
        "weights": run["weights"],
        "chosen_by": why or None,
        "threshold": predictor.threshold,
        "threshold_logged": predictor.threshold_logged,
        "real_validation_images": len(predictor.judge.reals),
        "real_validation_images_above": int((predictor.judge.reals > predictor.threshold).sum()),
        "temperature": None if predictor.judge.temperature is None else asdict(predictor.judge.temperature),
        "limits": {name: {"limit": look.limit, **look.facts} for name, look in predictor.judge.looks.items()},
        "notes": predictor.judge.notes,
        "adds_limits": predictor.judge.command or None,
        "attribution_run_id": predictor.attribution_id,
        "grad_cam": predictor.has_cam,
        "own_maps": predictor.has_maps,
        "images": [asdict(answer) for answer in answers],
    }
    print(json.dumps(result, indent=2))
