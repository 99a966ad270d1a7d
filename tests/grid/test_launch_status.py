"""The command line's plan, status and progress."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from data.sources import get_source
from grid import names
from grid.progress import GridProgress
from grid.runner import DONE, FAILED, REPORTED, STARTED, TrialEvent
from grid.spec import TrialSpec
from grid.tracking import Tracker
from tests.grid.command import Command, mlflow_runs
from tests.grid.grids import COUNTS, SIDE, make_spec, open_grid, paper_manifest, work_of

pytestmark = pytest.mark.usefixtures("nothing_from_outside")

TINY = ("--set", "xception_scratch.backbone=test_resnet", "--set", f"xception_scratch.size={SIDE}")


@pytest.fixture
def images(obvious: Path) -> Path:
    return obvious


# Planning and following ----------------------------------------------------------------------------------------------


def test_a_plan_lists_every_trial_and_starts_nothing(dolos: Command, runs: Path) -> None:
    outcome = dolos("--plan")
    assert outcome.status == 0
    assert "15 trials, 0 finished before, 15 to run" in outcome.text
    assert outcome.printed.count("pending") == 15
    assert not (runs / "cache" / "pixels").exists()
    assert not (runs / "cache" / "features").exists()
    assert not (runs / "tune").exists()
    assert not (runs / "artifacts").exists()
    assert mlflow_runs(runs, "grid") == mlflow_runs(runs, "trial") == []


def test_a_plan_shows_what_each_trial_would_ask_for(command: Command, images: Path) -> None:
    arguments = ("dolos", "--data", images, "--plan", "--tasks", "attribution")

    def asked(*more: str) -> dict[str, str]:
        return {trial["method"]: ", ".join(trial["asks_for"]) for trial in command(*arguments, "--json", *more).trials}

    two = ("--methods", "residual_linear,clip_linear")
    assert asked(*two) == {
        "residual_linear": "no GPU, 1 CPU core",
        "clip_linear": "GPU share 0.25, 1 CPU core",
    }
    assert "residual_linear no GPU, 1 CPU core" in command(*arguments, *two).text
    assert asked(
        "--methods", "residual_linear,clip_linear,sam_linear", "--memory-per-trial", "6", "--set",
        "sam_linear.memory=40", "--accelerator", "T4", "--set", "sam_linear.accelerator=A100", "--set",
        "clip_linear.gpu_memory=4", "--set", "sam_linear.gpus=1", "--cpus-per-trial", "2",
    ) == {
        "residual_linear": "no GPU, 2 CPU cores, 6 GB of memory",
        "clip_linear": "GPU share 0.25, on T4, 4 GB of GPU memory, 2 CPU cores, 6 GB of memory",
        "sam_linear": "GPU share 1, on A100, 2 CPU cores, 40 GB of memory",
    }  # fmt: skip


def test_a_plan_says_what_a_launch_needs(dolos: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    arguments = ("--plan", "--methods", "sam_linear,residual_linear", "--device", "cpu")
    plan = json.loads(dolos(*arguments, "--json").printed)
    (held,) = plan["weights"]["sam_linear"]
    assert (held["state"], held["num_bytes"]) == ("fetch", 374_942_912)
    assert held["files"] == ["https://dl.fbaipublicfiles.com/segment_anything/sam_vit_b_01ec64.pth"]
    assert plan["weights"]["residual_linear"] == []
    assert plan["missing"] == [
        "weights of sam_linear (vit_b, hub weights): not here; a launch fetches them (about 375 MB)"
    ]
    images = sum(COUNTS.values()) * 3  # real, lama, ldm
    assert plan["disk"]["stores"] == {
        "features of vit_b, own": images * (4 * 256 + 65), "features of residuals": images * (4 * 1056 + 65)
    }  # fmt: skip
    assert plan["time"]["stated_core_seconds"] == pytest.approx(images * (25.9 + 0.008632))
    text = dolos(*arguments).text
    assert "weights: not here; a launch fetches them (about 375 MB)" in text
    assert "missing: weights of sam_linear (vit_b" in text
    assert "core-hours for 6 trials on a CPU (docs/cost.md)" in text
    assert "disk: about" in text


def test_a_plan_takes_the_time_of_finished_trials_of_the_same_kind(dolos: Command, runs: Path) -> None:
    grid = ("--methods", "xception_scratch", *TINY, "--tasks", "detection", "--train-on", "lama")
    assert dolos(*grid, "--seeds", "0", "--local").status == 0
    (trial,) = mlflow_runs(runs, "trial")
    plan = json.loads(dolos(*grid, "--seeds", "0,1,2", "--plan", "--json").printed)
    seconds = trial.data.metrics[names.SECONDS]
    assert plan["time"]["measured_trials"] == 2
    assert plan["time"]["measured_seconds"] == pytest.approx(2 * seconds)
    assert plan["time"]["unknown_trials"] == {}
    other = dolos("--methods", "xception_scratch", *TINY, "--tasks", "detection", "--train-on", "ldm,all", "--plan")
    assert "for 1 trial, as trials of their kinds took here" in other.text  # ldm alone is as large as lama
    assert "time: not known for 1 of xception_scratch: no trial of this kind has finished here" in other.text


def test_a_plan_names_backbone_and_weights_and_merges_seeds(command: Command, images: Path) -> None:
    plan = command(
        "dolos", "--data", images, "--plan", "--methods", "xception_scratch", "--seeds", "0,1", "--tasks=attribution"
    )
    assert "xception_scratch [xception41, random weights]" in plan.text
    assert "attribution lama + ldm 0, 1 pending" in plan.text
    one = command(
        "dolos", "--data", images, "--plan", "--methods", "xception_scratch", "--seeds", "0", "--tasks=attribution"
    )
    assert "attribution lama + ldm one seed (0) pending" in one.text


def test_json_is_all_that_a_plan_prints_and_its_errors_are_json_too(command: Command, images: Path) -> None:
    outcome = command("dolos", "--data", images, "--plan", "--json", "--methods", "residual_linear")
    assert json.loads(outcome.printed)["to_run"] == len(outcome.trials) == 3
    assert {len(trial["key"]) for trial in outcome.trials} == {16}
    refused = command("dolos", "--plan", "--json")
    assert (refused.status, json.loads(refused.printed)) == (
        2,
        {"error": "dolos needs --data DIR, the folder of the corpus"},
    )
    assert "--json is for --plan and --status" in command("dolos", "--data", images, "--json").text


def test_a_plan_makes_no_store(command: Command, images: Path, runs: Path) -> None:
    assert command("dolos", "--data", images, "--plan").status == 0
    assert not (runs / "mlflow.db").exists()


@pytest.mark.parametrize("demo", ["demo", "demo1"])
@pytest.mark.parametrize("plan", [(), ("--plan",)], ids=["launch", "plan"])
def test_conditions_too_small_for_a_demo_are_refused_before_it_is_drawn(
    command: Command, runs: Path, demo: str, plan: tuple[str, ...]
) -> None:
    (side,) = set(get_source(demo).drawn.size())  # type: ignore[union-attr]  # both are drawn
    outcome = command(demo, *plan, "--conditions", "crop-10")
    assert outcome.status == 2
    assert not runs.exists()  # nor its cache, where faces would be
    assert (
        f"crop-10 makes pictures of {round(side / 10)} x {round(side / 10)} pixels from those of {side} x {side}"
        in (outcome.text)
    )
    assert command(demo, "--plan", "--conditions", "crop-90").status == 0


def test_a_plan_of_a_demo_that_is_not_drawn_draws_nothing(command: Command, runs: Path) -> None:
    outcome = command("--plan")
    assert outcome.status == 0
    assert "a launch without --plan makes them" in outcome.text
    assert "25 trials, 0 finished before, 25 to run" in outcome.text
    assert outcome.printed.count("pending") == 25
    assert "xception_pretrained [tf_efficientnet_lite0, ImageNet (packaged)]" in outcome.text
    assert "A launch says the time that is left once its first trial has finished" in outcome.text
    assert "disk: about 210 MB, less what is there already: pixels, 112 px" in outcome.text
    assert not runs.exists()
    listed = command("--plan", "--json", "--generators", "renoise", "--tasks", "detection").trials
    assert {(*trial["trained_on"], trial["state"], trial["key"]) for trial in listed} == {("renoise", "pending", None)}
    few = json.loads(command("--plan", "--json", "--limit", "8", "--generators", "renoise").printed)["disk"]["stores"]
    assert few["features of residuals"] == 2 * 3 * 8 * (4 * 1056 + 65)  # real and one generator, three splits
    assert not runs.exists()


def test_a_plan_knows_what_is_finished(dolos: Command) -> None:
    dolos("--methods", "residual_linear", "--tasks", "attribution")
    outcome = dolos("--methods", "residual_linear", "--plan")
    assert "3 trials, 1 finished before, 2 to run" in outcome.text
    states = [trial["state"] for trial in dolos("--methods", "residual_linear", "--plan", "--json").trials]
    assert (states.count("finished"), states.count("pending")) == (1, 2)


def test_the_status_counts_what_is_finished_failed_and_pending(dolos: Command, command: Command) -> None:
    arguments = ("--methods", "residual_linear,xception_scratch", "--tasks", "attribution", *TINY)
    dolos(*arguments, "--set", "xception_scratch.learning_rate=1e30", "--set", "xception_scratch.epochs=2")
    outcome = command("dolos", "--status")  # no data folder is needed for that
    assert outcome.status == 0
    assert "accuracy on clean test pictures" in outcome.text
    assert re.search(r"attribution .+ finished +[01]\.\d{3} *$", outcome.printed, re.MULTILINE)
    assert "1 failed, 1 finished of 2" in outcome.text
    assert "TrainingDiverged" in outcome.text


def test_the_status_shows_the_latest_figures_of_what_is_running(
    dolos: Command, command: Command, store: str, runs: Path
) -> None:
    dolos("--methods", "residual_linear", "--tasks", "attribution")
    (grid,) = mlflow_runs(runs, "grid")
    tracker = Tracker(store, grid.info.experiment_id, grid.info.run_id, {})
    planned = [TrialSpec.from_dict(fields) for fields in tracker.records.plan(grid).values()]
    other = make_spec(planned[0].data, seed=7)
    tracker.client.log_dict(
        grid.info.run_id,
        {"trials": [spec.to_dict() | {"key": spec.key} for spec in (*planned, other)]},
        names.PLAN,
    )
    tracker.open_trial(other, {}).log_epoch(3, {"train/loss": 0.25, "learning_rate": 1e-3})
    with tracker.claim():
        outcome = command("dolos", "--status")
    assert "1 finished, 1 running of 2" in outcome.text
    assert re.search(r"detection +lama +one seed \(7\) +running *$", outcome.printed, re.MULTILINE)
    assert "detection, lama, one seed (7), running: train/loss 0.250" in outcome.text
    # its launch has ended and left it so, as one does that was killed
    assert "1 finished, 1 interrupted of 2" in command("dolos", "--status").text


def test_a_data_set_whose_launch_has_ended_says_nothing_of_another_that_still_runs(
    command: Command, store: str, tmp_path: Path
) -> None:
    grids = {}
    for name, generators in {"older": ("lama",), "newer": ("lama", "ldm")}.items():
        manifest = paper_manifest(tmp_path / name, generators)
        spec = make_spec(manifest.digest)
        grids[name] = open_grid(store, "dolos", manifest, [spec], tmp_path / "runs" / "artifacts")
        grids[name].open_trial(spec, {})
    with grids["newer"].claim():
        pass
    with grids["older"].claim():
        said = command("dolos", "--status").text
    newer, _, older = said.partition("1 interrupted of 1")
    assert "running" not in newer
    assert "1 running of 1" in older
    assert "interrupted" not in older


def test_a_damaged_plan_is_told_by_the_status_and_written_again_by_a_launch(
    dolos: Command, command: Command, runs: Path
) -> None:
    arguments = ("--methods", "residual_linear", "--tasks")
    dolos(*arguments, "attribution")
    (grid,) = mlflow_runs(runs, "grid")
    plan = runs / "artifacts" / grid.info.run_id / "artifacts" / names.PLAN
    whole = json.loads(plan.read_text())["trials"][0]
    damages: list[bytes] = [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"trials": [{"key": 3}]}']
    for name, value in (("seed", "a"), ("train_generators", [3]), ("config", []), ("task", None), ("seed", -1)):
        damages.append(json.dumps({"trials": [whole | {name: value}]}).encode())
    for content in damages:
        plan.write_bytes(content)
        outcome = command("dolos", "--status")
        assert outcome.status == 2
        assert f"plan.json of the grid's run {grid.info.run_id} is damaged" in outcome.text
        assert "Launching the grid again writes it" in outcome.text
    assert dolos(*arguments, "attribution,detection").status == 0
    assert "3 finished of 3" in command("dolos", "--status").text


@pytest.mark.parametrize("arguments", [("folders", "--status"), ("status", "folders")])
def test_the_status_of_what_was_never_launched_is_bad_input(
    command: Command, store: str, arguments: tuple[str, ...]
) -> None:
    outcome = command(*arguments)
    assert outcome.status == 2
    assert "no MLflow experiment named 'folders'" in outcome.text
    assert "nothing was launched there yet" in outcome.text


def test_the_status_is_a_command_of_its_own_with_the_name_of_the_mlflow_experiment(
    dolos: Command, command: Command, runs: Path
) -> None:
    dolos("--methods", "residual_linear", "--tasks", "attribution", "--experiment-name", "tuesday")
    said = command("status", "dolos", "--experiment-name", "tuesday")
    assert said.status == 0
    assert "1 finished of 1" in said.text
    assert said.text == command("dolos", "--status", "--experiment-name", "tuesday").text
    assert command("status", "dolos").status == 2


def test_run_is_the_command_that_a_bare_experiment_is_short_for(command: Command, images: Path, store: str) -> None:
    arguments = ("--data", images, "--methods", "residual_linear", "--plan")
    command("dolos", *arguments)  # reads the images, and says so
    assert command("run", "dolos", *arguments).text == command("dolos", *arguments).text


# Progress ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def watched() -> tuple[GridProgress, Console, list[TrialSpec]]:
    console = Console(width=200, record=True, force_terminal=False)
    trials = [make_spec("0" * 16, seed=seed) for seed in (0, 1)]
    return GridProgress(console, work_of(trials), finished=3), console, trials


def test_each_trial_that_ends_is_one_line_that_counts_those_before_it(
    watched: tuple[GridProgress, Console, list[TrialSpec]],
) -> None:
    progress, console, (first, second) = watched
    with progress:
        for event in (
            TrialEvent(first.key, STARTED),
            TrialEvent(first.key, DONE),
            TrialEvent(second.key, STARTED),
            TrialEvent(second.key, FAILED, error="ValueError: no such thing"),
        ):
            progress(event)
    lines = [" ".join(line.split()) for line in console.export_text().splitlines() if line.strip()]
    assert lines == [
        "4/5 done detection residual_linear/lama/seed0",
        "5/5 failed detection residual_linear/lama/seed1: ValueError: no such thing",
    ]
    assert progress.done == {first.key}
    assert progress.failed == {second.key: "ValueError: no such thing"}


@pytest.mark.parametrize(("width", "shows_epoch"), [(80, False), (120, True)])
def test_the_line_of_a_running_grid_fits_the_terminal(width: int, shows_epoch: bool) -> None:
    screen = io.StringIO()
    console = Console(file=screen, width=width, force_terminal=True, color_system=None)
    work = work_of([make_spec("0" * 16, seed=seed) for seed in range(1250)])
    with GridProgress(console, work, finished=10) as progress:
        for item in work[:12]:
            progress(TrialEvent(item.key, STARTED))
        values = {"epoch": 4, "train/loss": 0.635, "valid/accuracy": 0.812}
        progress(TrialEvent(work[0].key, REPORTED, values))
    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue()).replace("\r", "\n").split("\n")
    line = [line for line in last if "running" in line][-1]
    assert re.match(r"trials +10/1260 12 running, 0 failed, unknown time left", line)
    assert "…" not in line
    assert ("epoch 4, loss 0.635, valid accuracy 0.812" in line) == shows_epoch
    assert len(line.rstrip()) <= width


@pytest.mark.parametrize("error", ["ValueError: no [lama] here", "OSError: cannot read [/data/x.png]"])
def test_a_message_with_brackets_is_shown_as_it_is(
    watched: tuple[GridProgress, Console, list[TrialSpec]], error: str
) -> None:
    progress, console, (first, _) = watched
    with progress:
        progress(TrialEvent(first.key, FAILED, error=error))
    assert error in console.export_text()
