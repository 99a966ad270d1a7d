"""What the rows of a trial take of a node's memory, counted by hand."""

from __future__ import annotations

import pytest

from data.splits import Group
from grid.host_memory import memory_of_rows
from grid.spec import TrialSpec
from grid.tasks import DETECTION
from models.registry import resolve_config
from models.residuals import NUM_FEATURES

SIZES: dict[Group, int] = {
    ("real", "train", 0): 1000, ("real", "valid", 0): 100, ("real", "test", 0): 50,
    ("lama", "train", 1): 400, ("lama", "valid", 1): 40, ("lama", "test", 1): 30,
    ("own", "train", 0): 7, ("own", "train", 1): 8, ("own", "valid", 0): 2, ("own", "valid", 1): 3,
    ("own", "test", 0): 4, ("own", "test", 1): 9_000,
}  # fmt: skip


def memory(train: tuple[str, ...], method: str = "residual_linear", condition: str = "", **config: object) -> int:
    resolved = tuple(resolve_config(method, config).items())
    extra = {"train_condition": condition} if condition else {}
    return memory_of_rows(TrialSpec(DETECTION, method, resolved, train, 0, "d", **extra), SIZES)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("train", "fitted"),
    [
        (("lama",), 1000 + 100 + 400 + 40),  # with the shared real images
        (("own", "lama"), 1000 + 100 + 400 + 40 + 7 + 8 + 2 + 3),  # and its own
    ],
)
def test_features_of_a_fit_are_held_in_float32(train: tuple[str, ...], fitted: int) -> None:
    small = {group: size if group[2] == 0 or group[1] != "test" else 1 for group, size in SIZES.items()}
    resolved = tuple(resolve_config("residual_linear", {}).items())
    spec = TrialSpec(DETECTION, "residual_linear", resolved, train, 0, "d")
    assert memory_of_rows(spec, small) == 4 * NUM_FEATURES * fitted


def test_real_images_that_some_generators_share_are_those_of_each() -> None:
    sizes: dict[Group, int] = {
        ("lama+ldm", "train", 0): 5, ("lama", "train", 1): 2, ("ldm", "train", 1): 3, ("own", "train", 0): 100,
    }  # fmt: skip
    resolved = tuple(resolve_config("residual_linear", {}).items())
    spec = TrialSpec(DETECTION, "residual_linear", resolved, ("lama",), 0, "d")
    assert memory_of_rows(spec, sizes) == 4 * NUM_FEATURES * (5 + 2)


def test_all_test_images_are_scored_at_once() -> None:
    assert memory(("lama",)) == 6 * NUM_FEATURES * (50 + 30 + 4 + 9_000)


def test_a_method_whose_widths_are_not_known_asks_for_nothing() -> None:
    assert memory(("lama",), "mean_brightness") == 0
