"""Real or fake? One picture, several, or a folder of them, by a tracked run.

python -m analysis predict face.png --best xception_pretrained
python -m analysis predict folder/ --run RUN_ID --json
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.detectors import check_device
from analysis.store import Store, StoreError, open_store
from data.images import OVERLAY
from grid.plan import FINISHED
from grid.spec import TrialSpec
from grid.tasks import ATTRIBUTION, DETECTION
from grid.train_sets import TrainSet

if TYPE_CHECKING:
    from rich.console import Console

    from models.detector import Detector

OK, SOME_UNREADABLE, BAD_INPUT = 0, 1, 2
BATCH = 8


@dataclass(frozen=True)
class Found:
    """A picture to be read.

    Attributes:
        path: where it is.
        place: below the folder that was named; of a picture that was named itself, its name.
        folder: name of the folder that was named, or that the picture lies in.
    """

    path: Path
    place: Path
    folder: str


@dataclass
class Answer:
    """What is said about one picture.

    Attributes:
        path: the picture, as it was named.
        label: "real" or "fake"; None where the picture cannot be read.
        score: log-odds of "fake".
        probability: of "fake", in [0, 1]; the detector's own, not calibrated.
        attribution: the class with the highest probability, "real" or a generator; None without an attribution run.
        attribution_probabilities: class -> probability.
        cam: the overlay that was written.
        error: why there is no answer, or no overlay.
    """

    path: str
    label: str | None = None
    score: float | None = None
    probability: float | None = None
    attribution: str | None = None
    attribution_probabilities: dict[str, float] | None = None
    cam: str | None = None
    error: str | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare everything that `main` reads."""
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="a picture, or a folder of them")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--run", metavar="RUN_ID", help="a finished detection run; the beginning of its id will do")
    which.add_argument("--best", metavar="METHOD", help="the method's detection run that did best on validation")
    parser.add_argument("--experiment", metavar="NAME", help="default: the only one that holds a grid")
    parser.add_argument("--tracking-uri", metavar="URI", help="default: MLFLOW_TRACKING_URI, else runs/mlflow.db here")
    parser.add_argument("--data", metavar="DIGEST", help="of the data set, where the experiment holds several")
    parser.add_argument("--weights", type=Path, action="append", default=[], metavar="FILE", help="a frozen encoder's")
    parser.add_argument("--device", default="cpu", metavar="NAME", help="cpu (default) or cuda")
    parser.add_argument("--out", type=Path, metavar="DIR", help="for the overlays; default: beside each picture")
    parser.add_argument("--no-cam", action="store_true", help="write no overlays")
    parser.add_argument("--json", action="store_true", help="print JSON")


def main(options: argparse.Namespace) -> int:
    """Do what the command line says.

    Returns:
        the exit status: 0; 1 some picture could not be read, or its overlay not written; 2 bad input.
    """
    from rich.console import Console

    console = Console(stderr=True)
    try:
        return _predict(options, console)
    except StoreError as error:
        console.print(f"error: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        return BAD_INPUT


def best_run(store: Store, method: str) -> tuple[str, str]:
    """The finished detection run of a method, or variant, that did best on its own validation split.

    By accuracy, of equal ones by loss, at the epoch that the run kept. The test split is not looked at.

    Returns:
        its id, and why, in words.

    Raises:
        StoreError: no such method, or nothing of it is finished.
    """
    runs = store.runs()
    runs = runs[(runs["task"] == DETECTION) & (runs["state"] == FINISHED)]
    mine = runs[(runs["variant"] == method) | (runs["method"] == method)]
    if mine.empty:
        names = ", ".join(dict.fromkeys(runs["variant"])) or "none"
        raise StoreError(f"{method!r} has no finished detection run in {store.experiment!r}; there are: {names}")
    history = store.history(mine["run_id"])
    ranked = []
    for run in mine.itertuples():
        epochs = history[history["run_id"] == run.run_id].pivot_table(index="step", columns="metric", values="value")
        if not {"valid/accuracy", "valid/loss"} <= set(epochs.columns):
            continue
        keeps_last = json.loads(str(run.config)).get("select") == "last"
        losses = epochs["valid/loss"].to_numpy()
        kept = len(losses) - 1 if keeps_last else int(losses.argmin())
        accuracy, loss = float(epochs["valid/accuracy"].iloc[kept]), float(losses[kept])
        ranked.append((-accuracy, loss, str(run.run_id), str(run.trained_on)))
    if not ranked:
        raise StoreError(f"no run of {method!r} has logged its validation accuracy; name a run with --run")
    negative, loss, run_id, trained_on = min(ranked, key=lambda entry: entry[:2])
    words = (
        f"validation accuracy {-negative:.3f}, loss {loss:.3f}: the best of {len(ranked)} runs; trained on {trained_on}"
    )
    if len({entry[3] for entry in ranked}) > 1:
        words += "; each run was validated on fakes of the generator that it was trained on: --run names another one"
    return run_id, words


def find_run(store: Store, text: str) -> str:
    """The finished detection run whose id begins with `text`. Raises `StoreError` that lists what exists."""
    runs = store.runs()
    runs = runs[(runs["task"] == DETECTION) & (runs["state"] == FINISHED)]
    matches = [run_id for run_id in runs["run_id"] if text and run_id.startswith(text)]
    if len(matches) != 1:
        lines = [
            f"  {run.run_id}  {run.variant}, trained on {run.trained_on}, seed {run.seed}" for run in runs.itertuples()
        ]
        what = "several finished detection runs" if matches else "no finished detection run"
        raise StoreError("\n".join([f"{what} with the id {text!r} in {store.experiment!r}; there are:", *lines]))
    return str(matches[0])


def attribution_run(store: Store, run_id: str) -> str | None:
    """A finished attribution run of the same variant, of the same seed if there is one."""
    runs = store.runs().set_index("run_id")
    me = runs.loc[run_id]
    same = runs[(runs["task"] == ATTRIBUTION) & (runs["state"] == FINISHED) & (runs["variant"] == me["variant"])]
    if same.empty:
        return None
    return str((same["seed"] != me["seed"]).sort_values(kind="stable").index[0])


def find_pictures(named: Sequence[Path]) -> list[Found]:
    """Every picture once; folders are searched to the bottom.

    Overlays of an earlier call are passed over in folders. Raises `StoreError` for a folder without pictures.
    """
    from data.images import IMAGE_SUFFIXES

    pictures: dict[Path, Found] = {}
    for argument in named:
        if not argument.is_dir():
            pictures.setdefault(argument, Found(argument, Path(argument.name), argument.absolute().parent.name))
            continue
        inside = [
            path
            for path in sorted(argument.rglob("*"))
            if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.endswith(OVERLAY) and path.is_file()
        ]
        if not inside:
            raise StoreError(f"no picture in the folder {argument}; these are read: {', '.join(IMAGE_SUFFIXES)}")
        for path in inside:
            pictures.setdefault(path, Found(path, path.relative_to(argument), argument.resolve().name))
    return list(pictures.values())


class Predictor:
    """A detection run, with the attribution run of the same variant where there is one.

    Args:
        store: an open grid.
        run_id: of a finished detection run.
        device: torch device string.
        weight_files: digest -> path; see `load_detector`.

    Raises:
        StoreError: as `load_detector`.
    """

    def __init__(self, store: Store, run_id: str, *, device: str, weight_files: dict[str, Path]) -> None:
        from analysis.detectors import load_detector

        self.detector, self.spec = load_detector(store, run_id, device=device, weight_files=weight_files)
        threshold = store.threshold(run_id)
        self.threshold_logged = not math.isnan(threshold)
        self.threshold = threshold if self.threshold_logged else 0.0
        self.attribution_id = attribution_run(store, run_id)
        self._attribution: tuple[Detector, TrialSpec] | None = None
        if self.attribution_id is not None:
            self._attribution = load_detector(store, self.attribution_id, device=device, weight_files=weight_files)
        self.has_cam = self.detector.cam_target() is not None

    def answer(self, answers: Sequence[Answer], images: Sequence[np.ndarray]) -> None:
        """Fill in what is said about these pictures, uint8 (H, W, 3) each."""
        from models.detector import fake_scores

        inputs = self.detector.inputs(images)
        scores = fake_scores(self.detector.predict(inputs).logits).astype(float)
        for answer, score in zip(answers, scores, strict=True):
            answer.score = float(score)
            answer.probability = float(1 / (1 + np.exp(-score)))
            answer.label = "fake" if score > self.threshold else "real"
        if self._attribution is not None:
            detector, spec = self._attribution
            shared = self.detector.encoder is not None and detector.encoder is not None
            if not shared or self.detector.encoder.key != detector.encoder.key:  # type: ignore[union-attr]
                inputs = detector.inputs(images)
            logits = detector.predict(inputs).logits.astype(float)
            odds = np.exp(logits - logits.max(axis=1, keepdims=True))
            for answer, row in zip(answers, odds / odds.sum(axis=1, keepdims=True), strict=True):
                answer.attribution = spec.classes[int(row.argmax())]
                answer.attribution_probabilities = dict(zip(spec.classes, row.tolist(), strict=True))

    def overlays(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Each picture under the Grad-CAM of "fake": uint8 (H, W, 3). Raises `NoCam`."""
        from analysis.cam import image_maps
        from analysis.figures.cam import overlay

        return [overlay(image, cam) for image, cam in zip(images, image_maps(self.detector, images), strict=True)]


def _predict(options: argparse.Namespace, console: Console) -> int:
    from data.images import BadImage, decode
    from models.weights import file_digest

    pictures = find_pictures(options.images)
    for path in options.weights:
        if not path.is_file():
            raise StoreError(f"--weights {path}: there is no such file")
    if options.out is not None and options.out.exists() and not options.out.is_dir():
        raise StoreError(f"--out {options.out} is a file; name a folder")
    check_device(options.device)
    store = open_store(options.experiment, tracking_uri=options.tracking_uri, data=options.data)
    run_id, why = (find_run(store, options.run), "") if options.run else best_run(store, options.best)
    weight_files = {file_digest(path): path for path in options.weights}
    predictor = Predictor(store, run_id, device=options.device, weight_files=weight_files)
    run = next(row for row in store.runs().to_dict("records") if row["run_id"] == run_id)
    with_cam = not options.no_cam and predictor.has_cam
    if not options.json:
        _say_run(console, run_id, run, predictor, why, with_cam or options.no_cam)

    overlays = _overlay_places(pictures, options.out)
    answers: list[Answer] = []
    with _progress(console) as bars:
        task = bars.add_task("pictures", total=len(pictures))
        for start in range(0, len(pictures), BATCH):
            batch = [Answer(str(source.path)) for source in pictures[start : start + BATCH]]
            readable: list[tuple[Answer, np.ndarray, Path]] = []
            for answer, overlay in zip(batch, overlays[start : start + BATCH], strict=True):
                try:
                    readable.append((answer, decode(Path(answer.path)), overlay))
                except BadImage as error:
                    answer.error = str(error)
            if readable:
                chosen, images = [entry[0] for entry in readable], [entry[1] for entry in readable]
                predictor.answer(chosen, images)
                drawn = predictor.overlays(images) if with_cam else []
                for (answer, _, overlay), picture in zip(readable, drawn, strict=False):
                    _write(picture, overlay, answer)
            answers += batch
            if not options.json:
                for answer in batch:
                    _print_line(answer)
            bars.update(task, advance=len(batch))

    if options.json:
        _print_json(run_id, run, predictor, why, answers)
    bad = [answer for answer in answers if answer.error]
    for answer in bad:
        console.print(f"{answer.path}: {answer.error}", style="red", highlight=False, markup=False, soft_wrap=True)
    return SOME_UNREADABLE if bad else OK


def _overlay_places(pictures: Sequence[Found], out: Path | None) -> list[Path]:
    """Where each overlay goes: never onto another one, and never onto a picture that was named.

    The shortest name that is free: without the picture's ending; with it; below `out`, in a folder called as the one
    that was named; with a number.
    """
    inputs = {picture.path.resolve() for picture in pictures}
    choices = []
    for picture in pictures:
        below = picture.path if out is None else out / picture.place
        within = picture.path if out is None else out / picture.folder / picture.place
        whole = [overlay.with_name(overlay.name + OVERLAY) for overlay in (below, within)]
        choices.append([below.with_suffix(OVERLAY), *whole])
    level = [0] * len(pictures)
    while True:
        overlays = [names[step] for names, step in zip(choices, level, strict=True)]
        ends = [overlay.resolve() for overlay in overlays]
        counts = Counter(ends)
        taken = [number for number, end in enumerate(ends) if counts[end] > 1 or end in inputs]
        if not taken:
            return overlays
        for number in taken:
            level[number] += 1
            if level[number] == len(choices[number]):
                whole_name = pictures[number].path.name
                choices[number].append(overlays[number].with_name(f"{whole_name}.{number + 1}-{level[number]}{OVERLAY}"))


def _write(picture: np.ndarray, overlay: Path, answer: Answer) -> None:
    from PIL import Image

    try:
        overlay.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(overlay, format="PNG")
        answer.cam = str(overlay)
    except OSError as error:
        answer.error = (
            f"the overlay cannot be written to {overlay} ({error.strerror or error}): name a folder with --out DIR"
        )


def _progress(console: Console) -> Any:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    # answers go to stdout; rich would send them to the console, which is stderr
    onto_terminal = sys.stdout.isatty()
    return Progress(
        *columns, console=console, disable=not console.is_terminal, transient=True, redirect_stdout=onto_terminal
    )


def _say_run(
    console: Console, run_id: str, run: dict[Any, Any], predictor: Predictor, why: str, cam_as_asked: bool
) -> None:
    lines = [f"run {run_id}: {run['variant']}, trained on {run['trained_on']}, seed {run['seed']}, {run['weights']}"]
    if why:
        lines.append(f"chosen by {why}")
    if predictor.threshold_logged:
        lines.append(f"fake above log-odds {predictor.threshold:+.3f}, the run's threshold from its validation split")
    else:
        lines.append("fake above log-odds 0, as the run logged no threshold")
    if predictor.attribution_id is None:
        lines.append(f"no finished attribution run of {run['variant']}, so none is named")
    else:
        lines.append(f"attribution by run {predictor.attribution_id}")
    if not cam_as_asked:
        lines.append(f"{run['method']} has no layer for Grad-CAM, so no overlay is written")
    console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)


def _print_line(answer: Answer) -> None:
    if answer.label is None:
        print(f"{answer.path}: unreadable", flush=True)
        return
    line = f"{answer.path}: {answer.label}, log-odds of fake {answer.score:+.3f}, probability {answer.probability:.3f}"
    if answer.attribution is not None and answer.attribution_probabilities is not None:
        line += f"; attribution {answer.attribution} {answer.attribution_probabilities[answer.attribution]:.3f}"
    print(line + (f"; {answer.cam}" if answer.cam else ""), flush=True)


def _print_json(run_id: str, run: dict[Any, Any], predictor: Predictor, why: str, answers: list[Answer]) -> None:
    facts = {
        "run_id": run_id,
        "method": run["method"],
        "variant": run["variant"],
        "trained_on": list(TrainSet.parse(run["trained_on"]).generators),
        "seed": int(run["seed"]),
        "weights": run["weights"],
        "chosen_by": why or None,
        "threshold": predictor.threshold,
        "threshold_logged": predictor.threshold_logged,
        "attribution_run_id": predictor.attribution_id,
        "grad_cam": predictor.has_cam,
        "images": [asdict(answer) for answer in answers],
    }
    json.dump(facts, sys.stdout, indent=2)
    print()
