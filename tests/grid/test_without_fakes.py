"""A method that is trained without fakes, from the command line to its tables."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from analysis.__main__ import main
from analysis.store import open_store
from grid import names
from grid.tasks import DETECTION
from models.detector import BuildContext, Detector, Examples, FitSession, Prediction, Rows
from models.registry import register_detector
from models.residuals import ResidualEncoder
from tests.grid.command import Command, mlflow_runs

pytestmark = pytest.mark.usefixtures("nothing_from_outside")


class OneClass(Detector):
    """Calls fake what is further from the mean of the real training images than any of the real validation images."""

    weights_note = "weight-free"

    def __init__(self, context: BuildContext) -> None:
        self.classes = context.classes
        self.encoder = ResidualEncoder()
        self.geometry = self.encoder.geometry

    def fit(self, train: Examples, valid: Examples, session: FitSession) -> None:
        """Raises where it is handed a fake."""
        if train.labels.any() or valid.labels.any():
            raise AssertionError("it was handed a fake")
        rows = train.inputs[np.arange(len(train.inputs))]
        self._set(rows.mean(axis=0), 1 / (rows.std(axis=0) + 1e-3))
        session.on_epoch(1, {"train/images": float(len(train.labels)), "valid/images": float(len(valid.labels))})
        self.threshold = float(self._distance(valid.inputs).max())

    def predict(self, inputs: Rows) -> Prediction:
        """The distance is the log-odds."""
        distance = self._distance(inputs)
        logits = np.stack([np.zeros_like(distance), distance], axis=1)
        return Prediction(logits.astype(np.float32), inputs[np.arange(len(inputs))])

    def save(self, folder: Path) -> None:
        """As tensors."""
        torch.save({"mean": torch.from_numpy(self._mean), "scale": torch.from_numpy(self._scale)}, folder / "one.pt")

    def load(self, folder: Path) -> None:
        """The same."""
        state = torch.load(folder / "one.pt", weights_only=True)
        self._set(state["mean"].numpy(), state["scale"].numpy())

    def _set(self, mean: np.ndarray, scale: np.ndarray) -> None:
        self._mean, self._scale = mean, scale

    def _distance(self, inputs: Rows) -> np.ndarray:
        rows = inputs[np.arange(len(inputs))]
        return np.linalg.norm((rows - self._mean) * self._scale, axis=1)


@dataclass(frozen=True)
class OneClassConfig:
    scale: float = 1.0


@pytest.fixture(scope="module", autouse=True)
def registered() -> None:
    """The method `toy_one_class`, which stays registered."""

    @register_detector("toy_one_class", config=OneClassConfig(), gpu_share=0.0, needs_fakes=False)
    def build(config: OneClassConfig, context: BuildContext) -> Detector:
        """Distance from the real training images; a toy of the tests."""
        return OneClass(context)


def test_a_method_that_needs_no_fakes_is_trained_once_and_has_its_own_threshold(dolos: Command, runs: Path) -> None:
    outcome = dolos("--methods", "toy_one_class,residual_linear", "--seeds", "0", "1")
    assert outcome.status == 0
    assert "5 trials, 0 finished before, 5 to run" in outcome.text  # the toy with two seeds, three of the other once
    own = [run for run in mlflow_runs(runs, "trial") if run.data.tags[names.METHOD] == "toy_one_class"]
    assert sorted((run.data.tags[names.SEED], run.data.tags[names.TRAIN_GENERATORS]) for run in own) == [
        ("0", "none"),
        ("1", "none"),
    ]
    assert {run.data.tags[names.TASK] for run in own} == {DETECTION}
    opened = open_store("dolos", tracking_uri=f"sqlite:///{runs / 'mlflow.db'}")
    for run in own:
        assert run.info.run_name == f"toy_one_class/none/seed{run.data.tags[names.SEED]}"
        assert (run.data.metrics["train/images"], run.data.metrics["valid/images"]) == (8, 6)  # every real image
        threshold = run.data.metrics[names.THRESHOLD]
        scores = opened.scores(run.info.run_id)
        assert len(scores) == 18
        assert (
            run.data.metrics["test/lama/fake_accuracy_valid_threshold"]
            == (scores.query("label == 1 and generator == 'lama'")["score"] > threshold).mean()
        )
        assert (
            run.data.metrics["test/ldm/real_accuracy_valid_threshold"]
            == (scores.query("label == 0")["score"] <= threshold).mean()
        )
        assert run.data.metrics["test/ldm/auroc"] == 1.0
    table = outcome.printed[outcome.printed.index("toy_one_class [weight-free]") :]
    assert "no generator" in table.splitlines()[3]
    assert "in-domain" not in table.partition("AUROC:")[0]
    assert "toy_one_class" not in outcome.printed[outcome.printed.index("attribution: accuracy") :]


def test_its_threshold_holds_under_conditions_too(dolos: Command, runs: Path) -> None:
    arguments = ("--methods", "toy_one_class", "--tasks", "detection")
    dolos(*arguments)
    outcome = dolos(*arguments, "--conditions", "jpeg-50")
    assert "1 trials, 1 finished before, 0 to run, 1 to score under further conditions" in outcome.text
    (run,) = mlflow_runs(runs, "trial")
    opened = open_store("dolos", tracking_uri=f"sqlite:///{runs / 'mlflow.db'}")
    scores = opened.scores(run.info.run_id, condition="jpeg-50").query("label == 1 and generator == 'lama'")["score"]
    assert (
        run.data.metrics["test.jpeg-50/lama/fake_accuracy_valid_threshold"]
        == (scores > run.data.metrics[names.THRESHOLD]).mean()
    )


def test_it_is_trained_without_fakes_whatever_training_sets_are_asked_for(dolos: Command, runs: Path) -> None:
    outcome = dolos("--methods", "toy_one_class", "--train-on", "all,lama")
    assert "1 trials, 0 finished before, 1 to run" in outcome.text
    (run,) = mlflow_runs(runs, "trial")
    assert run.data.tags[names.TRAIN_GENERATORS] == "none"
    assert "all 1 trials are finished" in dolos("--methods", "toy_one_class", "--train-on", "none").text


def test_a_method_that_needs_fakes_is_not_trained_on_none(dolos: Command) -> None:
    outcome = dolos("--methods", "residual_linear", "--tasks", "detection", "--train-on", "none")
    assert outcome.status == 2
    assert "these options leave no trial to run" in outcome.text


def test_methods_that_a_choice_of_training_sets_leaves_out_are_named(dolos: Command) -> None:
    outcome = dolos("--methods", "residual_linear", "--train-on", "none", "--plan")
    assert outcome.status == 0
    assert "note: no detection trial of residual_linear with these training sets" in outcome.text
    assert dolos("--methods", "toy_one_class", "--tasks", "attribution").status == 2


@pytest.mark.long
def test_nothing_shows_a_probability_of_a_score_that_is_no_log_odds(
    dolos: Command, runs: Path, tmp_path: Path, obvious: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = dolos("--methods", "real_only,self_edited_linear", "--conditions", "jpeg-50")
    assert "real_only [weight-free]: accuracy at the threshold from validation (AUROC)" in outcome.text
    uri = f"sqlite:///{runs / 'mlflow.db'}"
    assert main(["--tracking-uri", uri, "--out", str(tmp_path / "report"), "--no-log", "--no-cam"]) == 0
    tables = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "report" / "tables").glob("*.csv")}
    figures = {path.name for path in (tmp_path / "report" / "figures").iterdir()}
    assert not {name for name in figures if name.startswith("reliability") and "real_only" in name}
    assert "real_only" not in tables["calibration.csv"] + tables["temperatures.csv"]
    assert "self_edited_linear" in tables["temperatures.csv"]
    assert not {name for name in tables if name.startswith("matrix-real_only-accuracy.")}
    assert {name for name in figures if name.startswith("scores-real_only")}
    report = str(tmp_path / "report")
    assert main(["verify", "--tracking-uri", uri, "--cache", str(runs / "cache"), report]) == 0
    picture = next((obvious / "celebahq" / "real" / "test").iterdir())
    capsys.readouterr()
    main(["predict", str(picture), "--best", "real_only", "--tracking-uri", uri, "--no-cam"])
    captured = capsys.readouterr()
    printed = captured.out + captured.err
    assert "fake above a score of" in printed
    assert "log-odds of fake" not in printed
    assert "calibrated" not in printed
    assert "no temperature: the score of real_only is no log-odds" in printed
    main(["predict", str(picture), "--best", "real_only", "--tracking-uri", uri, "--no-cam", "--json"])
    (answer,) = json.loads(capsys.readouterr().out)["images"]
    assert answer["score"] > 0
    assert answer["probability"] is answer["calibrated_probability"] is None
