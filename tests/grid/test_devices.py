"""Which device a trial computes on, and how much of a GPU's memory it may take; with stand-ins for the GPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from grid import devices
from grid.devices import check_here, choose_device, has_card, torch_problem, use_device
from grid.settings import InfeasibleError
from tests.grid.command import Command
from tests.grid.grids import make_settings

OLD_DRIVER = "The NVIDIA driver on your system is too old (found version 12020)."
Gpu = Callable[..., None]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    """Make this machine one with a card, or without; with what torch says about it."""

    def make(*, card: bool = True, problem: str | None = None) -> None:
        monkeypatch.setattr(devices, "has_card", lambda: card)
        monkeypatch.setattr(devices, "torch_problem", lambda: problem)

    return make


@pytest.mark.parametrize(
    ("device", "share", "card", "problem", "expected"),
    [
        ("auto", 0.25, True, None, "cuda"),
        ("auto", 0.0, True, None, "cpu"),
        ("auto", 0.25, False, "no driver", "cpu"),  # a share of a logical GPU
        ("auto", 0.0, True, OLD_DRIVER, "cpu"),
        ("cpu", 1.0, True, None, "cpu"),
        ("cpu", 1.0, True, OLD_DRIVER, "cpu"),
        ("cuda", 0.5, True, None, "cuda"),
        ("cuda", 0.0, True, None, "cpu"),
    ],
)
def test_a_trial_computes_on_the_gpu_that_it_has_a_share_of(
    tmp_path: Path, gpu: Gpu, device: str, share: float, card: bool, problem: str | None, expected: str
) -> None:
    gpu(card=card, problem=problem)
    assert choose_device(make_settings(tmp_path, device=device), share) == expected


def test_a_card_that_torch_cannot_use_is_refused_with_torchs_reason(tmp_path: Path, gpu: Gpu) -> None:
    gpu(problem=OLD_DRIVER)
    with pytest.raises(InfeasibleError, match=r"has a GPU, and torch cannot use it: .*too old.*\n.*--device cpu"):
        choose_device(make_settings(tmp_path, device="auto"), 0.5)


def test_cuda_without_a_gpu_is_refused_with_a_remedy(tmp_path: Path, gpu: Gpu) -> None:
    gpu(card=False, problem="Found no NVIDIA driver on your system.")
    with pytest.raises(InfeasibleError, match=r"torch sees no GPU: Found no NVIDIA driver.*\n.*--device cpu"):
        choose_device(make_settings(tmp_path, device="cuda"), 0.5)


@pytest.mark.parametrize(
    ("changes", "share"),
    [({"device": "cpu"}, 0.5), ({"gpus_per_trial": 0.0}, 0.5), ({}, 0.0)],
    ids=["on the CPU", "no share asked for", "a method without a share"],
)
def test_trials_that_need_no_gpu_run_beside_a_broken_one(
    tmp_path: Path, gpu: Gpu, changes: dict[str, object], share: float
) -> None:
    gpu(problem=OLD_DRIVER)
    check_here(make_settings(tmp_path, **{"device": "auto"} | changes), [("residual_linear", share)])


@pytest.mark.parametrize("more", [(), ("--plan",)])
def test_a_launch_and_its_plan_refuse_a_broken_gpu_before_any_image_is_read(
    dolos: Command, gpu: Gpu, more: tuple[str, ...]
) -> None:
    gpu(problem=OLD_DRIVER)
    outcome = dolos("--methods", "xception_scratch", *more)
    assert outcome.status == 2
    assert "torch cannot use it: The NVIDIA driver on your system is too old" in outcome.text
    assert "--device cpu" in outcome.text
    assert "reading files" not in outcome.text
    assert dolos("--methods", "xception_scratch", "--device", "cpu", "--plan").status == 0


@pytest.mark.parametrize(("visible", "expected"), [(None, True), ("0", True), ("", False), ("-1", False)])
def test_a_hidden_card_is_none(monkeypatch: pytest.MonkeyPatch, visible: str | None, expected: bool) -> None:
    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter([self / "nvidia0"]))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert has_card() is expected


def test_torch_says_itself_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError(f"{OLD_DRIVER}\nPlease update it.")

    monkeypatch.setattr(torch.cuda, "init", fail)
    assert torch_problem() == OLD_DRIVER


@pytest.mark.parametrize(("capability", "usable"), [((9, 0), True), ((7, 5), True), ((7, 0), False), ((12, 0), True)])
def test_a_card_older_than_torchs_kernels_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], usable: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_90", "sm_120", "compute_120"])
    problem = torch_problem()
    if usable:
        assert problem is None
    else:
        assert problem == "the GPU has compute capability 7.0, and this torch needs 7.5 or newer"


@pytest.mark.parametrize(
    ("gigabytes", "share", "expected"),
    [(80, 1.0, 1.0), (80, 0.5, 0.5 - 1 / 80), (24, 0.25, 0.25 - 1 / 24), (4, 0.25, 0.125)],
)
def test_a_share_bounds_the_memory_of_its_process(
    tmp_path: Path, gpu: Gpu, monkeypatch: pytest.MonkeyPatch, gigabytes: int, share: float, expected: float
) -> None:
    """One GiB per process stays outside of the bound, for CUDA's own needs; but never more than half of the share."""
    gpu()
    set_to: list[float] = []
    card = SimpleNamespace(total_memory=gigabytes << 30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", set_to.append)
    assert use_device(make_settings(tmp_path, device="auto"), share) == "cuda"
    assert set_to == [pytest.approx(expected)]
    assert use_device(make_settings(tmp_path, device="auto"), 0.0) == "cpu"
    assert len(set_to) == 1
