"""What `launch.py methods`, `experiments` and `doctor` say."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from grid.commands.doctor import applies, locked, nvidia_driver, unreachable
from grid.experiments import list_experiments
from models.registry import detector_info, list_detectors, resolve_config
from tests.grid.command import Command


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Command:
    """`launch.py` for commands without a folder of runs."""
    import launch
    from tests.grid.command import Outcome

    def run(*arguments: str | Path) -> Outcome:
        capsys.readouterr()
        status = launch.main([*map(str, arguments)])
        return Outcome(status, capsys.readouterr().out)

    return run


def test_every_method_is_listed_with_its_summary(say: Command) -> None:
    text = say("methods").text
    for name in list_detectors():
        assert f"{name} {detector_info(name).summary}" in text
    assert "family:published" in text


@pytest.mark.parametrize("name", list_detectors())
def test_the_settings_of_a_method_are_its_own_and_each_is_explained(say: Command, name: str) -> None:
    (facts,) = json.loads(say("methods", name, "--json").printed)["methods"]
    given = {setting: value for setting, value in facts["settings"].items() if value is not None}
    resolve_config(name, {**given, **facts["small"]})  # every name and value is accepted
    assert facts["small"] == dict(detector_info(name).small)
    for setting in facts["settings"]:
        assert f"{setting}: " in facts["settings_explained"], setting
        assert setting in say("methods", name).printed


def test_an_unknown_method_is_refused_with_a_similar_name(say: Command) -> None:
    outcome = say("methods", "xception")
    assert outcome.status == 2
    assert "did you mean 'xception_pretrained'?" in outcome.text


def test_every_experiment_is_listed(say: Command) -> None:
    facts = {each["name"]: each for each in json.loads(say("experiments", "--json").printed)["experiments"]}
    assert list(facts) == list_experiments()
    assert facts["demo"]["makes_images"]
    assert not facts["dolos"]["makes_images"]
    assert facts["dolos"]["seeds"] == [0, 1, 2]
    text = say("experiments").text
    assert "dolos needs --data DIR" in text
    assert "weights of clip_linear: " in text
    assert facts["demo"]["weights"]["xception_pretrained"] == ["in a package"]
    assert "seeds: one seed (0)" in text


def test_the_doctor_finds_this_machine_sound(say: Command, runs: Path) -> None:
    outcome = say("doctor", "--runs", runs, "--no-network", "--json")
    findings = {each["what"]: each for each in json.loads(outcome.printed)["findings"]}
    assert outcome.status == 0
    assert {each["level"] for each in findings.values()} <= {"ok", "note"}
    assert findings["--runs"]["said"].startswith(str(runs))
    assert "made by the first launch" in findings["MLflow"]["said"]
    assert not runs.exists()
    lines = say("doctor", "--runs", runs, "--no-network").printed.splitlines()
    assert len(lines) == len(findings)


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\nGCC", "550.54.15"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build", "580.65.06"),
        ("something else", ""),
    ],
)
def test_the_driver_is_read_from_the_kernel(tmp_path: Path, said: str, version: str) -> None:
    assert nvidia_driver(tmp_path / "version") == ""
    (tmp_path / "version").write_text(said)
    assert nvidia_driver(tmp_path / "version") == version


def test_the_doctor_and_the_list_say_where_weights_are(
    say: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def finding() -> dict[str, str]:
        findings = json.loads(say("doctor", "--runs", tmp_path, "--no-network", "--json").printed)["findings"]
        (found,) = [each for each in findings if each["what"] == "weights of sam_linear"]
        return dict(found)

    assert finding()["level"] == "note"
    assert finding()["said"] == "vit_b, hub weights: not here; a launch fetches them (about 375 MB)"
    assert "sam_linear: vit_b, hub weights: not here; a launch fetches them (about 375 MB)" in say("methods").text
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "checkpoints" / "sam_vit_b_01ec64.pth").touch()
    assert (finding()["level"], finding()["said"]) == ("ok", "vit_b, hub weights: in the cache")
    assert "weights: vit_b, hub weights: in the cache" in say("methods", "sam_linear").text


def test_the_doctor_says_what_is_wrong_and_what_to_do(
    say: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:  # nobody listens there
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://user:secret@127.0.0.1:{port}")
    outcome = say("doctor", "--runs", tmp_path / "file" / "runs")
    assert outcome.status == 2
    assert "bad --runs: " in outcome.text
    assert "Choose another folder with --runs" in outcome.text
    assert "does not answer" in outcome.text
    assert "secret" not in outcome.printed


def test_a_server_that_listens_is_reachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert unreachable(f"http://127.0.0.1:{server.getsockname()[1]}") == ""
    assert unreachable("http://127.0.0.1:99999") != ""


def test_the_lock_is_read_with_its_conditions() -> None:
    text = (
        "a==1.0 \\\n    --hash=sha256:00\n"
        "b-c[x]==2.0 ; sys_platform == 'win32' \\\n    --hash=sha256:11\n    # via a==9\n"
    )
    assert list(locked(text)) == [("a", "1.0", ""), ("b-c", "2.0", "sys_platform == 'win32'")]
    assert applies("")
    assert not applies("sys_platform == 'win32'")
