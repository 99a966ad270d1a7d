"""What the command line means, before any data are read; what it refuses is in test_launch.py."""

from __future__ import annotations

import argparse
import dataclasses
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest

from data.conditions import SETS, list_conditions
from grid.command_line import Parser
from grid.commands import (
    BadInputError,
    Context,
    get_command,
    list_commands,
    register_command,
)
from grid.experiments import PUBLISHED, list_experiments
from grid.options import Launch, resolve
from grid.tasks import ATTRIBUTION, DETECTION
from launch import parse_arguments
from models.registry import detector_info, is_small, resolve_config
from models.weights import file_digest
from tests.grid.grids import paper_manifest


@pytest.fixture(autouse=True)
def no_tracking_server(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


def launch(*arguments: str) -> Launch:
    return resolve(parse_arguments(list(arguments)))


def problems(*arguments: str) -> list[str]:
    with pytest.raises(BadInputError) as caught:
        launch(*arguments)
    return str(caught.value).splitlines()


# Methods and their settings ------------------------------------------------------------------------------------------


def test_the_published_experiment_is_every_method_as_it_is() -> None:
    resolved = launch("dolos")
    assert resolved.configs == {method: resolve_config(method) for method in PUBLISHED}
    assert resolved.tasks == [DETECTION, ATTRIBUTION]
    assert resolved.conditions == ["clean"]
    assert resolved.name == resolved.experiment.name == "dolos"
    assert resolved.settings.by_method == {}


def test_the_demo_has_the_small_configuration_of_every_method() -> None:
    small = {method: resolve_config(method, detector_info(method).small) for method in PUBLISHED}
    assert launch("demo1").configs == small
    changed = {"size", "epochs", "batch_size"}  # pictures of the second version are larger
    for method, config in launch("demo").configs.items():
        assert {name for name, value in config.items() if value != small[method][name]} <= changed


def test_a_method_that_the_experiment_does_not_name_can_be_asked_for() -> None:
    assert list(launch("dolos", "--methods", "sam_linear,clip_linear").configs) == ["sam_linear", "clip_linear"]


def test_a_family_of_methods_by_its_word() -> None:
    published = ["clip_linear", "sam_linear", "xception_pretrained", "xception_scratch"]
    assert list(launch("dolos", "--methods", "family:published").configs) == published
    assert list(launch("dolos", "--methods", "sam_linear,family:published").configs)[:2] == [
        "sam_linear",
        "clip_linear",
    ]
    baselines = {"effort", "ln_tuned", "residual_linear", "rine", "timm_linear"}
    assert baselines <= set(launch("dolos", "--methods", "family:baselines,-univfd").configs)


def test_a_method_may_be_left_out_of_a_family() -> None:
    names = list(launch("dolos", "--methods", "family:published,-sam_linear").configs)
    assert names == ["clip_linear", "xception_pretrained", "xception_scratch"]
    assert problems("dolos", "--methods", "clip_linear,-sam_linear") == [
        "--methods: -sam_linear leaves 'sam_linear' out, which no word before it names"
    ]


@pytest.mark.parametrize("family", ["published", "baselines"])
def test_every_method_in_its_small_form(family: str) -> None:
    resolved = launch("dolos", "--small", "--methods", f"family:{family}", "--set", "*.precision=tf32").configs
    for method, config in resolved.items():
        info = detector_info(method)
        changed = {"precision": "tf32"} if hasattr(info.config, "precision") else {}
        assert config == resolve_config(method, {**info.small, **changed})
        assert is_small(method, config) == bool(info.small)
        if not info.test_only:
            assert not is_small(method, resolve_config(method))


def test_a_method_that_comes_trained_needs_its_file(tmp_path: Path) -> None:
    (message,) = problems("dolos", "--methods", "family:baselines")
    assert message.startswith("univfd needs its published classifier, pretrained_weights/fc_weights.pth in https://")
    assert message.endswith("--weights univfd=FILE; or leave univfd out, --methods family:baselines,-univfd")
    assert problems("dolos", "--methods", "univfd", "--weights", f"univfd={tmp_path / 'a.pth'}")[0].startswith(
        f"--weights univfd={tmp_path / 'a.pth'}: the weights '{tmp_path / 'a.pth'}': this file does not exist"
    )
    (tmp_path / "a.pth").write_bytes(b"a")
    (tmp_path / "b.pth").write_bytes(b"b")
    words = ("--weights", f"univfd={tmp_path / 'a.pth'}", "--weights", f"univfd.backbone_weights={tmp_path / 'b.pth'}")
    resolved = launch("dolos", "--methods", "univfd", *words)
    digests = {file_digest(path): path for path in (tmp_path / "a.pth", tmp_path / "b.pth")}
    assert resolved.settings.weight_files == digests
    config = resolved.configs["univfd"]
    assert [config["weights"], config["backbone_weights"]] == [f"file:{digest}" for digest in digests]


def test_weights_of_a_method_without_any() -> None:
    assert problems("dolos", "--weights", "residual_linear=random") == [
        "--weights residual_linear=random: residual_linear has no setting 'weights'; for weights it has: none"
    ]
    assert problems("dolos", "--weights", "clip_linear.head=random") == [
        "--weights clip_linear.head=random: clip_linear has no setting 'head'; for weights it has: weights"
    ]


def test_an_unknown_family_is_refused_with_those_that_exist() -> None:
    found = problems("dolos", "--methods", "family:publish")
    assert found == [
        "--methods: no family of methods named 'publish'; there are: baselines, no-generator, published, training-free"
    ]


def test_a_setting_goes_before_the_small_configuration() -> None:
    config = launch("demo", "--set", "xception_scratch.epochs=3").configs["xception_scratch"]
    assert (config["epochs"], config["backbone"]) == (3, "test_resnet")


def test_of_two_settings_of_one_name_the_later_counts() -> None:
    config = launch("dolos", "--set", "*.resize=crop", "--set", "clip_linear.resize=pad").configs
    assert config["clip_linear"]["resize"] == "pad"
    assert config["xception_scratch"]["resize"] == "crop"


# What holds for the trials of one method -----------------------------------------------------------------------------


def test_what_a_method_needs_of_a_machine_is_no_part_of_its_configuration() -> None:
    plain = launch("dolos")
    asked = launch(
        "dolos", "--set", "clip_linear.gpus=0.5", "--set", "sam_linear.gpu_memory=12", "--set",
        "sam_linear.accelerator=A100", "--set", "xception_scratch.memory=40",
    )  # fmt: skip
    assert asked.configs == plain.configs
    clip, sam, scratch, other = (
        asked.settings.for_method(method)
        for method in ("clip_linear", "sam_linear", "xception_scratch", "residual_linear")
    )
    assert clip.gpus_per_trial == 0.5
    assert (sam.gpu_memory, sam.accelerator) == (12.0, "A100")
    assert scratch.memory_per_trial == 40.0
    for settings in (clip, sam, scratch, other):
        assert settings == dataclasses.replace(
            plain.settings,
            gpus_per_trial=0.5 if settings is clip else None,
            gpu_memory=12.0 if settings is sam else 0.0,
            accelerator="A100" if settings is sam else "",
            memory_per_trial=40.0 if settings is scratch else 0.0,
        )


def test_a_star_is_every_method_of_the_grid() -> None:
    settings = launch("dolos", "--methods", "sam_linear,clip_linear", "--set", "*.memory=4").settings
    assert settings.by_method.keys() == {"sam_linear", "clip_linear"}
    assert settings.memory_per_trial == 0  # what holds for all has an option of its own
    assert {settings.for_method(method).memory_per_trial for method in settings.by_method} == {4.0}


def test_what_is_said_for_a_method_goes_before_what_is_said_for_all() -> None:
    arguments = ("dolos", "--memory-per-trial", "6", "--gpus-per-trial", "0.25")
    settings = launch(*arguments, "--set", "*.memory=4", "--set", "sam_linear.memory=40").settings
    assert settings.for_method("sam_linear").memory_per_trial == 40.0
    assert settings.for_method("clip_linear").memory_per_trial == 4.0
    assert settings.for_method("clip_linear").gpus_per_trial == 0.25


@pytest.mark.parametrize("where", [("--local",), ("--device", "cpu"), ()])
def test_asking_for_no_gpu_memory_is_asking_for_no_certain_gpu(where: Sequence[str]) -> None:
    settings = launch("dolos", *where, "--set", "*.gpu_memory=0", "--set", "*.accelerator=").settings
    assert settings.for_method("residual_linear").gpu_memory == 0
    assert not settings.for_method("residual_linear").asks_for_gpu


def test_a_share_of_no_gpu_is_told_whose_it_is() -> None:
    assert problems("dolos", "--set", "residual_linear.gpu_memory=8") == [
        "--set residual_linear.gpu_memory=…: the method uses no GPU; give its trials a share with "
        "--set residual_linear.gpus=X, or leave it out"
    ]
    given = launch("dolos", "--set", "residual_linear.gpu_memory=8", "--set", "residual_linear.gpus=0.5").settings
    assert given.for_method("residual_linear").gpu_memory == 8


def test_every_mistake_about_machines_is_told_at_once() -> None:
    found = problems(
        "dolos", "--cpus-per-trial", "0", "--set", "sam_linear.gpus=2", "--set", "clip_linear.memory=much", "--set",
        "sam_linear.accelerator=A100 or H100",
    )  # fmt: skip
    assert sorted(re.split(r" (?:must|is) ", line)[0] for line in found) == [
        "--cpus-per-trial",
        "--set clip_linear.memory",
        "--set sam_linear.accelerator",
        "--set sam_linear.gpus",
    ]


# Conditions, seeds, names --------------------------------------------------------------------------------------------


def test_clean_is_always_scored_and_comes_first() -> None:
    assert launch("dolos", "--conditions", "jpeg-75,jpeg-50,jpeg-75").conditions == ["clean", "jpeg-75", "jpeg-50"]
    assert launch("dolos", "--conditions", "jpeg-75,clean").conditions == ["clean", "jpeg-75"]


def test_a_word_stands_for_a_set_of_conditions() -> None:
    published = list(SETS["robustness"])
    assert launch("dolos", "--conditions", "robustness,paste-back").conditions == ["clean", *published, "paste-back"]
    assert launch("dolos", "--train-condition", "robustness").train_conditions == ["+".join(sorted(published))]


def test_training_conditions_are_a_list_of_sets() -> None:
    assert launch("dolos").train_conditions == ["clean"]
    found = launch("dolos", "--train-condition", "jpeg-95,clean+jpeg-75,jpeg-75+clean").train_conditions
    assert found == ["jpeg-95", "clean+jpeg-75"]


def test_equalise_is_short_for_two_options() -> None:
    short = launch("dolos", "--equalise", "jpeg-95", "--conditions", "blur-1")
    long = launch("dolos", "--train-condition", "jpeg-95", "--conditions", "blur-1,jpeg-95")
    assert short.train_conditions == long.train_conditions == ["jpeg-95"]
    assert short.conditions == long.conditions == ["clean", "blur-1", "jpeg-95"]
    assert launch("dolos", "--equalise", "jpeg-95", "--train-condition", "jpeg-95").train_conditions == ["jpeg-95"]


@pytest.mark.parametrize(
    ("arguments", "splits"),
    [
        ((), ()),
        (("--conditions", "clean"), ()),
        (("--conditions", "jpeg-75"), ("test",)),
        (("--train-condition", "jpeg-75"), ("train", "valid")),
        (("--equalise", "jpeg-75"), ("train", "valid", "test")),
    ],
)
def test_pictures_that_are_read_under_several_conditions_are_kept(
    arguments: tuple[str, ...], splits: tuple[str, ...]
) -> None:
    assert launch("dolos", *arguments).settings.keep_decoded == splits


@pytest.mark.parametrize("option", ["--conditions", "--train-condition"])
@pytest.mark.parametrize("name", ["no-such", "jpeg", "jpeg-x", "clean-1"])
def test_an_unknown_condition_is_answered_with_those_that_exist(option: str, name: str) -> None:
    (line,) = problems("dolos", option, name)
    problem, _, names = line.partition("; there are: ")
    assert problem.partition(" (did you mean ")[0] == f"{option}: no condition named {name!r}"
    assert names == ", ".join([*list_conditions(), *SETS])


def test_a_level_that_a_condition_lacks_is_answered_with_those_that_it_has() -> None:
    assert problems("dolos", "--conditions", "jpeg-101") == [
        "--conditions: no condition named 'jpeg-101': jpeg has levels 1 to 100",
    ]


def test_every_unknown_name_of_a_list_is_told() -> None:
    found = problems("dolos", "--methods", "clip,residual_linear,sam", "--tasks", "detect", "--conditions", "a,b")
    assert [line.partition(";")[0] for line in found] == [
        "--tasks: no task named 'detect' (did you mean 'detection'?)",
        "--conditions: no condition named 'a'",
        "--conditions: no condition named 'b'",
        "no method named 'clip' (did you mean 'clip_linear'?)",
        "no method named 'sam' (did you mean 'sam_linear'?)",
    ]


def test_the_mlflow_experiment_may_have_another_name() -> None:
    resolved = launch("dolos", "--experiment-name", "tuesday")
    assert (resolved.name, resolved.experiment.name) == ("tuesday", "dolos")


# The trials ----------------------------------------------------------------------------------------------------------


def test_the_trials_are_of_the_data_that_take_part(tmp_path: Path) -> None:
    manifest = paper_manifest(tmp_path, ("lama", "ldm", "repaint"))
    resolved = launch("dolos", "--methods", "xception_scratch", "--seeds", "3", "4", "--train-on", "all-but-one,lama")
    trials = resolved.trials(manifest)
    assert {trial.data for trial in trials} == {manifest.digest}
    assert [(trial.task, str(trial.train_set), trial.seed) for trial in trials] == [
        (task, train, seed)
        for seed in (3, 4)
        for task, train in (
            ("detection", "ldm+repaint"),
            ("detection", "lama+repaint"),
            ("detection", "lama+ldm"),
            ("detection", "lama"),
            ("attribution", "lama+ldm+repaint"),
        )
    ]


def test_pictures_that_are_not_square_change_the_keys_of_sam_alone(tmp_path: Path) -> None:
    square = paper_manifest(tmp_path, ("lama", "ldm"))
    table = square.table.copy()
    table.loc[table.index[3], "height"] += 1
    for arguments, changed in (((), {"sam_linear"}), (("--set", "sam_linear.resize=squash"), set())):
        resolved = launch("dolos", *arguments)
        before, after = (resolved.trials(dataclasses.replace(square, table=rows)) for rows in (square.table, table))
        after = [dataclasses.replace(trial, data=square.digest) for trial in after]
        assert len(before) == len(after)
        assert {one.method for one, other in zip(before, after, strict=True) if one.key != other.key} == changed


def test_the_training_condition_is_that_of_every_trial(tmp_path: Path) -> None:
    manifest = paper_manifest(tmp_path)
    arguments = ("dolos", "--methods", "clip_linear")
    plain, jpeg = (launch(*arguments, *more).trials(manifest) for more in ((), ("--train-condition", "jpeg-95")))
    assert {trial.train_condition for trial in jpeg} == {"jpeg-95"}
    assert [dataclasses.replace(trial, train_condition="clean").key for trial in jpeg] == [one.key for one in plain]


@pytest.mark.parametrize(
    ("arguments", "generators", "message"),
    [
        (("--train-on", "lamma"), ("lama", "ldm"), "no generator named 'lamma' (did you mean 'lama'?)"),
        (("--train-on", ""), ("lama", "ldm"), "no generator named ''"),
        (("--train-on", "all-but-one"), ("lama",), "none is left to train on"),
        (("--train-on", "none"), ("lama", "ldm"), "these options leave no trial to run"),
        (
            ("--tasks", "detection,open_set"),
            ("lama", "ldm"),
            "needs at least 3 generators to train on; the data have 2: lama, ldm",
        ),
        ((), ("all", "ldm"), "rename these generators' folders: 'all'"),
        ((), ("sd (v1.5)",), "rename these generators' folders: 'sd (v1.5)'"),
        (("--seeds", "-1"), ("lama",), "a seed must not be negative, and below 2^63; got -1"),
    ],
)
def test_what_the_data_do_not_allow_is_refused(
    tmp_path: Path, arguments: tuple[str, ...], generators: tuple[str, ...], message: str
) -> None:
    resolved = launch("dolos", "--methods", "clip_linear", "--tasks", "detection", *arguments)
    with pytest.raises(BadInputError) as caught:
        resolved.trials(paper_manifest(tmp_path, generators))
    assert message in str(caught.value)


# What another launch of the same grid needs again --------------------------------------------------------------------


def test_a_plain_launch_needs_nothing_again() -> None:
    assert launch("dolos").repeated() == ""
    assert launch("demo").repeated() == ""


def test_what_chooses_trials_and_where_the_store_is_are_not_repeated() -> None:
    resolved = launch(
        "dolos", "--data", "/corpus", "--methods", "clip_linear", "--tasks", "detection", "--train-on", "all",
        "--seeds", "1", "--conditions", "jpeg-75", "--train-condition", "jpeg-95", "--weights", "clip_linear=random",
        "--set", "clip_linear.l2=0.1", "--experiment-name", "x", "--runs", "/runs", "--max-failures", "0", "--plan",
    )  # fmt: skip
    assert resolved.repeated() == ""


def test_each_option_is_repeated_as_it_was_typed() -> None:
    resolved = launch(
        "dolos", "--generators", "lama,ldm", "--limit", "50", "--split-seed", "3", "--skip-bad", "--cache", "/my cache",
        "--local-copies", "/scratch", "--device", "cuda", "--cpus-per-trial", "0.5", "--gpus-per-trial", "0.25",
        "--memory-per-trial", "8", "--accelerator", "T4", "--gpu-memory", "12", "--max-concurrent", "3", "--address",
        "10.0.0.1:6379", "--set", "sam_linear.gpus=1", "--set", "*.memory=4",
    )  # fmt: skip
    assert resolved.repeated() == (
        "--generators lama,ldm --limit 50 --split-seed 3 --skip-bad --cache '/my cache' --local-copies /scratch "
        "--device cuda --cpus-per-trial 0.5 --gpus-per-trial 0.25 --memory-per-trial 8.0 --accelerator T4 "
        "--gpu-memory 12.0 --max-concurrent 3 --address 10.0.0.1:6379 --set sam_linear.gpus=1 "
        "--set sam_linear.memory=4 --set xception_scratch.memory=4 --set xception_pretrained.memory=4 "
        "--set clip_linear.memory=4 --set residual_linear.memory=4"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--local", "--cache", "/my 'odd' cache", "--limit", "7"),
        ("--generators", "sd v1.5,lama", "--skip-bad"),
        ("--set", "sam_linear.gpus=0.5", "--set", "*.accelerator=A100", "--set", "residual_linear.gpus=0.1"),
        ("--gpus-per-trial", "0", "--device", "cpu", "--memory-per-trial", "2.5", "--local-copies", "/scratch"),
    ],
)
def test_a_launch_with_what_is_repeated_has_the_same_settings(arguments: tuple[str, ...]) -> None:
    first = launch("dolos", *arguments)
    again = launch("dolos", *shlex.split(first.repeated()))
    assert again.settings == first.settings
    for name in ("generators", "limit", "split_seed", "skip_bad", "local", "address"):
        assert getattr(again.options, name) == getattr(first.options, name)
    assert again.repeated() == first.repeated()


# Commands ------------------------------------------------------------------------------------------------------------


def test_seeds_are_separated_by_commas_or_blanks() -> None:
    assert launch("dolos", "--seeds", "0,1,2").options.seeds == launch("dolos", "--seeds", "0", "1", "2").options.seeds
    assert launch("dolos", "--seeds", "7").options.seeds == [7]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "--seeds 0,1,2 training seeds"),
        ((), "exit status: 0 done; 1 some trials failed"),
        (("doctor",), "exit status: 0 a grid can run here; 1 an error that nobody expected; 2 a grid cannot run here"),
        (("audit",), "2 an audit fails and is not accepted, or bad input"),
        (("fetch-weights",), "2 bad input, or files of the folder are missing or wrong"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_help_shows_lists_with_commas_and_what_each_exit_status_means(
    words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse_arguments([*words, "--help"])
    assert said in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--seeds", "0,x"), "launch.py: error: argument --seeds: wants whole numbers, as in 0,1,2; got '0,x'; "),
        (("--sedes", "1"), "launch.py: error: unrecognized arguments: --sedes (did you mean --seeds?); "),
        (("status", "--jsn"), "launch.py status: error: unrecognized arguments: --jsn (did you mean --json?); "),
    ],
)
def test_a_wrong_command_line_is_one_line(
    words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        parse_arguments(words)
    told = capsys.readouterr()
    assert (end.value.code, told.out) == (2, "")
    assert told.err.startswith(said)
    assert told.err.count("\n") == 1
    assert "--help lists the options" in told.err


def test_the_version_is_that_of_the_project_with_the_commit(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        parse_arguments(["--version"])
    assert end.value.code == 0
    assert re.fullmatch(
        r"inpaint-grid \d+\.\d+\.\d+, commit (not known|[0-9a-f]{40}(, changed)?)\n", capsys.readouterr().out
    )


def test_help_says_what_the_exit_statuses_mean(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_arguments(["--help"])
    assert "exit status: 0 done; 1 some trials failed" in capsys.readouterr().out


def test_no_command_has_the_name_of_an_experiment() -> None:
    assert {"run", "status"} <= set(list_commands())
    assert not set(list_commands()) & set(list_experiments())


@pytest.mark.parametrize("name", list_commands())
def test_every_command_has_a_summary_and_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = get_command(name)
    assert command.name == name
    assert command.summary
    with pytest.raises(SystemExit) as end:
        parse_arguments([name, "--help"])
    assert end.value.code == 0
    assert "usage: launch.py" in capsys.readouterr().out


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_arguments(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    for name in list_commands():
        assert f"{name} {get_command(name).summary}" in said


@pytest.mark.parametrize("words", [[], *([name] for name in list_commands())], ids=" ".join)
@pytest.mark.parametrize("columns", [80, 120])
def test_help_fits_the_terminal(
    words: list[str], columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit):
        parse_arguments([*words, "--help"])
    said = capsys.readouterr().out
    assert [line for line in said.splitlines() if len(line) > columns] == []
    assert "exit status: 0 " in said


def test_a_line_of_two_columns_hangs_under_the_second_and_a_command_stays_whole() -> None:
    parser = Parser(prog="x", description="Two words.\n\npython x.py A   first second third\npython x.py B   fourth")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "30")
        said = parser.format_help()
    assert "python x.py A   first second\n                third\npython x.py B   fourth\n" in said


def test_a_bare_experiment_is_short_for_run() -> None:
    for arguments in ([], ["dolos"], ["dolos", "--limit", "3"]):
        assert parse_arguments(arguments) == parse_arguments(["run", *arguments])
    assert parse_arguments([]).command == "run"
    assert parse_arguments(["status", "dolos"]).command == "status"
    assert parse_arguments(["status"]).experiment == "demo"


def test_an_unknown_command_is_answered_with_those_that_exist() -> None:
    with pytest.raises(KeyError, match=r"no command named 'stauts' \(did you mean 'status'\?\); there are: ") as caught:
        get_command("stauts")
    assert caught.value.args[0].endswith(", ".join(list_commands()))


def test_a_command_is_registered_once() -> None:
    def again(options: argparse.Namespace, context: Context) -> int:
        """Nothing."""
        return 0

    with pytest.raises(ValueError, match="a command named 'run' is registered already"):
        register_command("run", lambda parser: None)(again)
