"""The command line refuses bad input, with the remedy and before any work."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from mlflow.tracking import MlflowClient
from PIL import Image

import launch
from grid import names, runner
from grid.options import resolve
from models.registry import list_detectors
from models.weights import file_digest
from tests.corpora import write_dolos, write_folders
from tests.grid.command import Command, mlflow_runs
from tests.grid.grids import SIDE

pytestmark = pytest.mark.usefixtures("nothing_from_outside")

ROOT = Path(launch.__file__).parent
TINY = ("--set", "xception_scratch.backbone=test_resnet", "--set", f"xception_scratch.size={SIDE}")


@pytest.fixture
def images(obvious: Path) -> Path:
    return obvious


BAD: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "experiment": (
        ("doloss",),
        ("no experiment named 'doloss' (did you mean 'dolos'?)", "demo, demo1, dolos, dolos_ffhq"),
    ),
    "command of python -m analysis": (("explore",), ("`python -m analysis explore` is the command",)),
    "report": (("report",), ("`python -m analysis` makes the report",)),
    "experiment that is a corpus": (("foldrs",), ("(did you mean 'folders'?); there are: benco, demo, demo1, dolos",)),
    "method": (("dolos", "--methods", "clip"), ("no method named 'clip'", "there are:", "clip_linear")),
    "task": (("dolos", "--tasks", "detect"), ("--tasks: no task named 'detect'", "there are: attribution, detection")),
    "condition": (
        ("dolos", "--conditions", "jpeg-75,blur"),
        ("--conditions: no condition named 'blur' (did you mean 'blur-1…10'?); there are: blur-1…10, clean",),
    ),
    "level of a condition": (("dolos", "--conditions", "jpeg-101"), ("--conditions: no condition named 'jpeg-101'",)),
    "training condition": (
        ("dolos", "--train-condition", "jpeg"),
        ("--train-condition: no condition named 'jpeg' (did you mean 'jpeg-1…100'?); there are: blur-1…10, clean",),
    ),
    "set without method": (("dolos", "--set", "epochs=2"), ("--set wants METHOD.NAME=VALUE, got 'epochs=2'",)),
    "set without value": (("dolos", "--set", "sam_linear.l2"), ("--set wants METHOD.NAME=VALUE",)),
    "set of another method": (
        ("dolos", "--methods", "sam_linear", "--set", "clip_linear.l2=1"),
        ("no method 'clip_linear' in this grid; there are: sam_linear",),
    ),
    "setting of no method": (("dolos", "--set", "*.nonsense=1"), ("no method of this grid has a setting 'nonsense'",)),
    "setting": (("dolos", "--set", "sam_linear.flip=true"), ("sam_linear has no setting 'flip'; it has:", "l2")),
    "setting that is nearly one": (
        ("dolos", "--set", "xception_scratch.epoch=3"),
        ("xception_scratch has no setting 'epoch' (did you mean 'epochs'?)",),
    ),
    "type of a setting": (("dolos", "--set", "sam_linear.l2=low"), ("sam_linear.l2 must be a number; got 'low'",)),
    "value of a setting": (
        ("dolos", "--set", "xception_scratch.epochs=0"),
        ("xception_scratch.epochs must be at least 1; got '0'",),
    ),
    "choice of a setting": (
        ("dolos", "--set", "clip_linear.solver=sgd"),
        ("clip_linear.solver must be one of 'lbfgs', 'adam'; got 'sgd'",),
    ),
    "no data": (("dolos",), ("dolos needs --data DIR, the folder of the corpus",)),
    "no such folder": (("dolos", "--data", "/nowhere/at/all"), ("does not exist", "remedy: check the path")),
    "weights of another method": (("dolos", "--weights", "clip=random"), ("METHOD of xception_scratch",)),
    "weights without a value": (("dolos", "--weights", "clip_linear"), ("--weights wants METHOD=W",)),
    "weights file": (("dolos", "--weights", "clip_linear=/no/x.pt"), ("this file does not exist", "'hub:TAG'")),
    "weights misspelt": (("dolos", "--weights", "clip_linear=ranodm"), ("'ranodm'", "Give a file, 'random', 'hub'")),
    "weights of a method without": (("dolos", "--weights", "residual_linear=random"), ("no setting 'weights'",)),
    "cores": (("dolos", "--cpus-per-trial", "-1"), ("--cpus-per-trial must be above 0; got -1",)),
    "gpus": (
        ("dolos", "--gpus-per-trial", "1.5"),
        ("--gpus-per-trial is a share of one GPU, 0 to 1, because a trial computes on one GPU; got 1.5",),
    ),
    "gpus of a method": (
        ("dolos", "--set", "sam_linear.gpus=1.5"),
        ("--set sam_linear.gpus is a share of one GPU, 0 to 1,",),
    ),
    "memory of another method": (
        ("dolos", "--methods", "sam_linear", "--set", "clip_linear.memory=8"),
        ("--set clip_linear.memory=8: no method 'clip_linear' in this grid; there are: sam_linear",),
    ),
    "memory of no number": (
        ("dolos", "--set", "sam_linear.gpu_memory=much"),
        ("sam_linear.gpu_memory must be a number; got 'much'",),
    ),
    "memory of all": (("dolos", "--set", "*.memory=-4"), (".memory must be at least 0; got '-4'",)),
    "accelerators": (("dolos", "--accelerator", "A100,H100"), ("one of Ray's names", "got 'A100,H100'")),
    "accelerators of a method": (("dolos", "--set", "sam_linear.accelerator=A100,H100"), ("one of Ray's names",)),
    "two training conditions": (
        ("dolos", "--equalise", "jpeg-95", "--train-condition", "clean,jpeg-75"),
        ("--train-condition clean,jpeg-75 contradicts it", "--train-condition clean,jpeg-75,jpeg-95"),
    ),
    "clean training that was asked for": (
        ("dolos", "--equalise", "jpeg-95", "--train-condition", "clean"),
        ("--equalise jpeg-95 trains under jpeg-95, and --train-condition clean contradicts it",),
    ),
    "nothing to equalise by": (("dolos", "--equalise", "clean"), ("wants one condition that changes pictures",)),
    "equalise what changes fakes alone": (
        ("dolos", "--equalise", "paste-back"),
        ("does not make real and fake alike", "--train-condition paste-back --conditions paste-back"),
    ),
    "several to equalise by": (
        ("dolos", "--equalise", "robustness"),
        ("wants one condition that changes pictures", "--train-condition A,B --conditions A,B"),
    ),
    "equalise by what is not there": (("dolos", "--equalise", "jpg-95"), ("--equalise: no condition", "jpeg-1…100")),
    "a set with what is not there": (
        ("dolos", "--train-condition", "clean+jpg-95"),
        ("--train-condition: no condition named 'jpg-95' (did you mean 'jpeg-95'?)", "webp-1…100"),
    ),
    "a word that is not there": (("dolos", "--conditions", "robustnes"), ("did you mean 'robustness'?",)),
    "GPU of a method without": (
        ("dolos", "--set", "residual_linear.accelerator=T4"),
        ("the method uses no GPU", "--set residual_linear.gpus=X"),
    ),
    "GPU on the CPU": (("dolos", "--gpu-memory", "8", "--device", "cpu"), ("leave it out with --device cpu",)),
    "cores of no number": (("dolos", "--num-cpus", "-3"), ("--num-cpus must not be negative",)),
    "Ray in this process": (
        ("dolos", "--local", "--address", "auto", "--num-gpus", "1"),
        ("--address is about Ray; leave it out with --local", "--num-gpus is about Ray"),
    ),
    "GPUs of somebody else's Ray": (
        ("dolos", "--address", "10.0.0.1:6379", "--num-gpus", "1"),
        ("--num-gpus is for a local Ray, not for the cluster at 10.0.0.1:6379",),
    ),
    "Ray Client": (("dolos", "--address", "ray://10.0.0.1:10001"), ("launch on a node of the cluster",)),
    "GPU in this process": (("dolos", "--accelerator", "T4", "--local"), ("leave it out with --local",)),
    "GPU of a method in this process": (
        ("dolos", "--set", "sam_linear.accelerator=T4", "--local"),
        ("--accelerator chooses among the GPUs of a cluster; leave it out with --local",),
    ),
}


@pytest.mark.parametrize(("arguments", "said"), BAD.values(), ids=BAD.keys())
def test_bad_input_gives_status_2_and_a_message_with_its_remedy(
    command: Command, runs: Path, arguments: tuple[str, ...], said: tuple[str, ...]
) -> None:
    outcome = command(*arguments)
    assert outcome.status == 2
    assert outcome.text.count("error:") == 1
    assert "Traceback" not in outcome.text
    for part in said:
        assert part in outcome.text
    assert not (runs / "mlflow.db").exists()


def test_several_mistakes_are_told_at_once(command: Command) -> None:
    outcome = command(
        "dolos", "--tasks", "detect", "--set", "epochs=2", "--set", "sam_linear.flip=true",
        "--set", "clip_linear.l2=low", "--weights", "clip_linear=ranodm", "--gpus-per-trial", "1.5",
        "--set", "clip.memory=4", "--set", "sam_linear.gpu_memory=much", "--conditions", "blur",
        "--train-condition", "noise", "--limit", "0", "--num-gpus", "-1",
    )  # fmt: skip
    assert outcome.status == 2
    parts = ["'detect'", "'epochs=2'", "no setting 'flip'", "clip_linear.l2 must be a number", "'ranodm'", "got 1.5"]
    parts += ["no method 'clip'", "sam_linear.gpu_memory must be a number", "'blur'", "'noise'", "at least 1, got 0"]
    parts += ["--num-gpus must not be negative"]
    assert [part for part in parts if part not in outcome.text] == []


def test_an_unknown_method_is_answered_with_every_method(command: Command) -> None:
    text = command("dolos", "--methods", "nonsense").text
    assert [name for name in list_detectors() if name not in text] == []


def test_an_unknown_generator_is_answered_with_those_in_the_data(command: Command, images: Path) -> None:
    outcome = command("dolos", "--data", images, "--generators", "lama,glide", "--plan")
    assert outcome.status == 2
    assert "--generators: no generator glide in the data; there are: lama, ldm" in outcome.text


@pytest.mark.parametrize("option", ["--tasks", "--methods", "--generators", "--conditions"])
def test_an_empty_list_of_names_is_not_taken_for_all_of_them(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        launch.main(["dolos", option, "", "--plan"])
    assert end.value.code == 2
    assert "name at least one" in capsys.readouterr().err


def test_a_server_that_does_not_answer_is_bad_input(
    command: Command, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{closed.getsockname()[1]}")
        outcome = command("dolos", "--data", images, "--plan")
    assert outcome.status == 2
    assert "cannot read MLflow at http://127.0.0.1" in outcome.text


@pytest.mark.parametrize("options", [(), ("--plan",), ("--cache", "CACHE")])
def test_folders_that_cannot_be_written_are_told_before_any_image_is_read(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    (tmp_path / "file").write_text("not a folder")
    wrong = tmp_path / "file" / "below"
    runs, chosen = (tmp_path, [str(wrong) if one == "CACHE" else one for one in options])
    status = launch.main(
        ["dolos", "--data", str(images), "--runs", str(runs if chosen[:1] == ["--cache"] else wrong), *chosen]
    )
    said = " ".join(capsys.readouterr().out.split())
    assert status == 2
    assert "cannot be written to (Not a directory); --runs and --cache choose the folders" in said
    assert "lama" not in said  # nothing of the corpus


def test_a_relative_store_is_the_one_in_this_folder_for_trials_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    settings = resolve(launch.parse_arguments(["demo"])).settings
    assert settings.tracking_uri == f"sqlite:///{tmp_path / 'mlflow.db'}"


def test_checkpoints_of_trials_that_finished_in_a_launch_that_was_killed_are_removed(
    dolos: Command, runs: Path
) -> None:
    arguments = ("--methods", "residual_linear", "--tasks")
    assert dolos(*arguments, "attribution").status == 0
    (parent,) = mlflow_runs(runs, "grid")
    (trial,) = mlflow_runs(runs, "trial")
    left, unfinished, foreign = (
        runs / "tune" / grid / "20260101-000000-1" / key
        for grid, key in (
            (parent.info.run_id, trial.data.tags[names.KEY]),
            (parent.info.run_id, "f" * 16),
            ("another", trial.data.tags[names.KEY]),
        )
    )
    for folder in (left, unfinished, foreign):
        (folder / "checkpoint_000000").mkdir(parents=True)
    assert dolos(*arguments, "attribution,detection").status == 0
    assert [folder.exists() for folder in (left, unfinished, foreign)] == [False, True, True]


def test_a_setting_of_all_methods_is_of_those_that_have_it() -> None:
    configs = resolve(launch.parse_arguments(["dolos", "--set", "*.resize=crop"])).configs
    assert {method: config.get("resize") for method, config in configs.items()} == {
        "xception_scratch": "crop",
        "xception_pretrained": "crop",
        "clip_linear": "crop",
        "sam_linear": "crop",
        "residual_linear": None,
    }


@pytest.mark.parametrize(("policy", "said"), [("crop", True), ("squash", False)])
def test_a_method_that_does_not_see_whole_images_is_named(
    command: Command, store: str, tmp_path: Path, policy: str, said: bool
) -> None:
    root = write_dolos(tmp_path / "dolos", size=SIDE)
    for path in (root / "celebahq").rglob("*.png"):
        with Image.open(path) as image:
            image.resize((SIDE, 2 * SIDE)).save(path)
    outcome = command(
        "dolos", "--data", root, "--local", "--methods", "residual_linear,xception_scratch", "--tasks", "attribution",
        *TINY, "--set", f"*.resize={policy}",
    )  # fmt: skip
    assert outcome.status == 0
    assert ("only the middle of them is seen by xception_scratch" in outcome.text) == said
    assert ("to show all of them: --set METHOD.resize=squash" in outcome.printed.splitlines()) == said


def test_a_deleted_experiment_is_bad_input(dolos: Command, store: str) -> None:
    client = MlflowClient(tracking_uri=store)
    client.delete_experiment(client.create_experiment("dolos"))
    outcome = dolos("--plan")
    assert outcome.status == 2
    assert "mlflow experiments restore" in outcome.text


def test_a_gpu_that_is_not_there_is_bad_input(dolos: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    outcome = dolos("--methods", "residual_linear", "--device", "cuda")
    assert outcome.status == 2
    assert "or compute on the CPU with --device cpu" in outcome.text


def test_an_image_that_fits_into_no_memory_is_bad_input(dolos: Command) -> None:
    def refuse(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if isinstance(module, torch.nn.Conv2d):
            raise torch.OutOfMemoryError("CUDA out of memory.")

    small = ("--set", "clip_linear.backbone=demo-vit-64", "--weights", "clip_linear=random")
    with torch.nn.modules.module.register_module_forward_pre_hook(refuse):
        outcome = dolos("--methods", "clip_linear", *small)
    assert outcome.status == 2
    assert "not even one image fits into the device's memory" in outcome.text


@pytest.mark.parametrize(
    ("size", "methods", "said"),
    [
        ((8, 8), "residual_linear", "a side of less than 16 pixels, which residual_linear cannot take (1)"),
        ((1, 400_000), "clip_linear", "one side more than 50 times the other, which clip_linear cannot take (1)"),
        (
            (3000, 1),
            "xception_scratch,sam_linear",
            "which xception_scratch, sam_linear cannot take (1)",
        ),
        ((8, 8), "clip_linear", ""),
    ],
)
def test_a_picture_that_a_method_cannot_take_is_named_before_anything_runs(
    command: Command, tmp_path: Path, size: tuple[int, int], methods: str, said: str
) -> None:
    root = write_dolos(tmp_path / "dolos", size=32)
    bad = root / "celebahq/real/train/00001.png"
    Image.new("RGB", size).save(bad)
    arguments = ("dolos", "--data", root, "--methods", methods, "--plan")
    outcome = command(*arguments)
    if not said:
        assert outcome.status == 0
        return
    assert outcome.status == 2
    assert said in outcome.text
    assert f"celebahq/real/train/00001.png ({size[0]} x {size[1]} pixels)" in outcome.text
    assert "choose methods that can take it (--methods)" in outcome.text
    without = command(*arguments, "--skip-bad")
    assert without.status == 0
    assert "left out: 1 bad files" in without.text
    assert ["real", "3", "2", "3"] in [line.split() for line in without.printed.splitlines()]


def test_weights_that_are_not_finite_are_blamed_before_anything_is_trained(dolos: Command, tmp_path: Path) -> None:
    state = timm.create_model("test_resnet", num_classes=2).state_dict()
    next(iter(state.values())).fill_(float("nan"))
    torch.save({"model": state}, tmp_path / "weights.pt")
    tiny = [word.replace("xception_scratch", "xception_pretrained") for word in TINY]
    outcome = dolos(
        "--methods", "xception_pretrained", *tiny, "--weights", f"xception_pretrained={tmp_path}/weights.pt"
    )
    assert outcome.status == 2
    assert f"the weights in {tmp_path}/weights.pt hold NaN or infinity in 1 of" in outcome.text
    assert "--weights xception_pretrained=FILE" in outcome.text
    assert "learning_rate" not in outcome.text


def test_that_averaged_weights_are_taken_is_said(dolos: Command, tmp_path: Path) -> None:
    state = timm.create_model("test_resnet", num_classes=2).state_dict()
    file = tmp_path / "weights.pt"
    torch.save({"state_dict": state, "state_dict_ema": state}, file)
    tiny = [word.replace("xception_scratch", "xception_pretrained") for word in TINY]
    arguments = ["--methods", "xception_pretrained", *tiny, "--weights", f"xception_pretrained={file}"]
    outcome = dolos(*arguments, "--plan")
    assert outcome.status == 0
    assert "xception_pretrained holds raw and averaged (EMA) weights; the averaged ones are taken" in outcome.text
    launched = resolve(launch.parse_arguments(["dolos", *arguments]))
    digest = file_digest(file)
    assert launched.configs["xception_pretrained"]["weights"] == f"file:{digest}:ema"
    assert launched.settings.weight_files == {digest: file}
    torch.save({"state_dict": state}, file)
    assert "averaged" not in dolos(*arguments, "--plan").text


UNCAUGHT: dict[str, tuple[tuple[str, ...], str]] = {
    "limit": (("--limit", "0"), "limit must be at least 1"),
    "seed": (("--methods", "residual_linear", "--seeds", "-1"), "seed"),
    "backbone": (("--methods", "xception_scratch", "--set", "xception_scratch.backbone=nonsense"), "no network"),
    "infinite share": (("--methods", "residual_linear", "--gpus-per-trial", "inf"), "--gpus-per-trial"),
    "no share": (("--methods", "residual_linear", "--gpus-per-trial", "nan"), "--gpus-per-trial"),
    "no cores": (("--methods", "residual_linear", "--cpus-per-trial", "nan"), "--cpus-per-trial"),
    "infinite cores": (("--methods", "residual_linear", "--cpus-per-trial", "inf"), "--cpus-per-trial"),
    "concurrency": (("--methods", "residual_linear", "--max-concurrent", "-1"), "--max-concurrent"),
    "failures": (("--methods", "residual_linear", "--max-failures", "-5"), "--max-failures"),
    "checkpoints": (("--methods", "residual_linear", "--checkpoint-seconds", "nan"), "--checkpoint-seconds"),
}


@pytest.mark.parametrize(("arguments", "said"), UNCAUGHT.values(), ids=UNCAUGHT.keys())
def test_numbers_and_names_that_cannot_work_are_bad_input_too(
    dolos: Command, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.setattr(runner, "execute", lambda *arguments, **named: None)
    outcome = dolos("--tasks", "attribution", *arguments)
    assert outcome.status == 2
    assert said in outcome.text


@pytest.mark.parametrize("name", ["sd (v1.5)", "a+b", "dall·e@3"])
def test_a_generator_whose_name_mlflow_cannot_hold_is_refused_before_any_work(
    command: Command, store: str, tmp_path: Path, name: str
) -> None:
    root = write_folders(tmp_path / "folders", {f"{name}/0_real": 30, f"{name}/1_fake": 30}, size=32)
    outcome = command("folders", "--data", root, "--local", "--methods", "residual_linear", "--tasks", "detection")
    assert outcome.status == 2
    assert "rename" in outcome.text
