from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from grid.settings import RunSettings
from grid.spec import TrialSpec
from models.validation import in_words


@pytest.fixture
def plain(tmp_path: Path) -> RunSettings:
    return RunSettings(cache=tmp_path / "cache", runs=tmp_path / "runs", tracking_uri=f"sqlite:///{tmp_path / 'x.db'}")


def test_settings_survive_the_trip_to_another_process(tmp_path: Path) -> None:
    settings = RunSettings(
        cache=tmp_path / "a folder",
        runs=tmp_path / "runs",
        tracking_uri="http://localhost:5000",
        device="cpu",
        cpus_per_trial=0.5,
        gpus_per_trial=0.25,
        accelerator="A100",
        gpu_memory=12.5,
        by_method={"clip_linear": {"gpus_per_trial": 1.0, "accelerator": "T4"}},
        max_concurrent=3,
        max_failures=0,
        checkpoint_seconds=1.5,
        local_copies=tmp_path / "local",
        weight_files={"0123456789abcdef": tmp_path / "weights.pt"},
    )
    back = pickle.loads(pickle.dumps(settings))
    assert back == settings
    assert isinstance(back.cache, Path)
    assert isinstance(back.local_copies, Path)
    assert isinstance(back.weight_files["0123456789abcdef"], Path)


def test_the_defaults_survive_it_too(plain: RunSettings) -> None:
    assert pickle.loads(pickle.dumps(plain)) == plain


def test_everything_that_is_kept_lies_below_the_two_folders(plain: RunSettings) -> None:
    assert plain.manifests.is_relative_to(plain.cache)
    assert plain.checkpoints("0123").is_relative_to(plain.runs)


def test_grids_do_not_share_checkpoints(plain: RunSettings) -> None:
    one, other = plain.checkpoints("0123"), plain.checkpoints("4567")
    assert not one.is_relative_to(other)
    assert not other.is_relative_to(one)


def test_making_settings_makes_no_folder(plain: RunSettings) -> None:
    assert not plain.cache.exists()
    assert not plain.runs.exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"device": "gpu"}, "device must be one of 'auto', 'cpu', 'cuda'; got 'gpu'"),
        ({"cpus_per_trial": 0}, "cpus_per_trial must be above 0; got 0"),
        ({"cpus_per_trial": -1}, "cpus_per_trial must be above 0; got -1"),
        ({"cpus_per_trial": float("inf")}, "cpus_per_trial must be a finite number; got inf"),
        ({"gpus_per_trial": -0.5}, "gpus_per_trial is a share of one GPU, 0 to 1, because"),
        ({"memory_per_trial": float("inf")}, "memory_per_trial must be a finite number; got inf"),
        ({"gpu_memory": -1}, "gpu_memory must be at least 0; got -1"),
        ({"gpu_memory": float("nan")}, "gpu_memory must be"),
        ({"accelerator": "A100 or H100"}, "one of Ray's names, such as T4, A10G or A100; got 'A100 or H100'"),
        (
            {"by_method": {"sam_linear": {"gpus_per_trial": 1.5}}},
            "sam_linear.gpus_per_trial is a share of one GPU, 0 to 1, because a trial computes on one GPU; got 1.5",
        ),
        ({"by_method": {"sam_linear": {"memory_per_trial": "much"}}}, "sam_linear.memory_per_trial must be a number"),
        ({"gpus_per_trial": 2}, "because a trial computes on one GPU; got 2"),
        ({"gpus_per_trial": 1.5}, "a share of one GPU, 0 to 1, because a trial computes on one GPU; got 1.5"),
        ({"max_concurrent": 1.5}, "max_concurrent must be a whole number; got 1.5"),
        ({"max_failures": -1}, "max_failures must be at least 0; got -1"),
        ({"checkpoint_seconds": float("nan")}, "checkpoint_seconds must be"),
    ],
)
def test_what_cannot_work_is_refused_in_one_plain_line(
    plain: RunSettings, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        dataclasses.replace(plain, **changes)
    (line,) = in_words(caught.value)
    assert message in line


def test_every_wrong_setting_has_a_line_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(ValidationError) as caught:
        RunSettings(cache=tmp_path, runs=tmp_path, tracking_uri="", cpus_per_trial=0, max_failures=-2)
    assert in_words(caught.value) == [
        "cpus_per_trial must be above 0; got 0",
        "max_failures must be at least 0; got -2",
    ]


def test_a_number_as_text_is_taken_for_the_number(plain: RunSettings) -> None:
    settings = dataclasses.replace(plain, by_method={"sam_linear": {"gpus_per_trial": "0.5", "memory_per_trial": "4"}})
    own = settings.for_method("sam_linear")
    assert (own.gpus_per_trial, own.memory_per_trial) == (0.5, 4.0)


@pytest.mark.parametrize("share", [0, 0.1, 0.25, 1, 1.0])
def test_a_share_is_a_part_of_one_gpu(plain: RunSettings, share: float) -> None:
    assert dataclasses.replace(plain, gpus_per_trial=share).gpu_share(0.5, gpus_available=8) == share


def test_a_trial_asks_for_its_methods_share_where_there_is_a_gpu(plain: RunSettings) -> None:
    assert plain.gpu_share(0.25, gpus_available=1) == 0.25
    assert plain.gpu_share(0.25, gpus_available=0) == 0


def test_on_the_cpu_no_gpu_is_asked_for_whatever_was_said(plain: RunSettings) -> None:
    settings = dataclasses.replace(plain, device="cpu", gpus_per_trial=1)
    assert settings.gpu_share(0.25, gpus_available=4) == 0


def test_what_is_said_for_a_method_goes_before_what_is_said_for_all(plain: RunSettings) -> None:
    settings = dataclasses.replace(
        plain, memory_per_trial=4, gpu_memory=16, by_method={"sam_linear": {"memory_per_trial": 40}}
    )
    own, other = settings.for_method("sam_linear"), settings.for_method("clip_linear")
    assert (own.memory_per_trial, own.gpu_memory) == (40, 16)
    assert (other.memory_per_trial, other.gpu_memory) == (4, 16)


def test_no_setting_has_the_name_of_a_part_of_the_key() -> None:
    settings = {field.name for field in dataclasses.fields(RunSettings)}
    assert not settings & {field.name for field in dataclasses.fields(TrialSpec)}
