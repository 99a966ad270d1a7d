from __future__ import annotations

import json
import logging
import pickle
from pathlib import Path

import pytest
import torch

from data.images import file_digest
from grid.checkpoints import latest_state, read_state, remove_states, write_state

KEY = "0123456789abcdef"


def write(root: Path, launch: str, number: int, *, order: int, key: str = KEY) -> Path:
    folder = root / launch / key / f"checkpoint_{number:06d}"
    folder.mkdir(parents=True)
    write_state(folder, {"epoch": order, "weights": torch.full((3,), float(order))}, order=order)
    return folder


def truncate(folder: Path) -> None:
    file = folder / "state.pt"
    file.write_bytes(file.read_bytes()[:-7])


def epoch(root: Path) -> tuple[int | None, int]:
    state, order = latest_state(root, KEY)
    return (None if state is None else state["epoch"]), order


def test_a_state_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    state = read_state(write(tmp_path, "local", 0, order=4))
    assert state["epoch"] == 4
    assert torch.equal(state["weights"], torch.full((3,), 4.0))


def test_without_checkpoints_a_trial_starts_anew(tmp_path: Path) -> None:
    assert latest_state(tmp_path / "never made", KEY) == (None, 0)
    write(tmp_path, "local", 0, order=1, key="f" * 16)  # another trial's
    assert latest_state(tmp_path, KEY) == (None, 0)


def test_the_newest_one_wins(tmp_path: Path) -> None:
    for number, order in enumerate((1, 2, 3)):
        write(tmp_path, "local", number, order=order)
    assert epoch(tmp_path) == (3, 3)


def test_the_newest_one_wins_over_several_launches_whatever_they_are_called(tmp_path: Path) -> None:
    write(tmp_path, "20260101-000000", 5, order=6)
    write(tmp_path, "20250101-000000", 0, order=11)
    write(tmp_path, "local", 9, order=10)
    assert epoch(tmp_path) == (11, 11)


def test_a_truncated_one_is_passed_over_with_a_warning_that_names_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, "local", 0, order=1)
    write(tmp_path, "local", 1, order=2)
    newest = write(tmp_path, "local", 2, order=3)
    truncate(newest)
    with caplog.at_level(logging.WARNING):
        assert epoch(tmp_path) == (2, 2)
    assert f"{newest} is truncated or incomplete; going back to the one before it" in caplog.text


def test_several_damaged_ones_are_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, "local", 0, order=1)
    truncate(write(tmp_path, "local", 1, order=2))
    (write(tmp_path, "local", 2, order=3) / "state.pt").unlink()
    assert epoch(tmp_path) == (1, 1)
    assert len(caplog.records) == 2


def test_when_none_is_sound_the_trial_starts_anew(tmp_path: Path) -> None:
    truncate(write(tmp_path, "local", 0, order=1))
    assert latest_state(tmp_path, KEY) == (None, 0)


# of other types than a seal's: text, no object, numbers that are none
SEALS = ["", "{", "[]", "3", "null", '{"order": 9}', '{"sha256": "x"}', '{"sha256": 3, "order": 9}', "[" * 100_000]
SEALS += [f'{{"sha256": "x", "order": {order}}}' for order in ('"9"', "null", "[9]", "9.5", "true", "{}")]


@pytest.mark.parametrize("seal", [*SEALS, None])
def test_one_without_a_sound_seal_was_never_finished_and_is_ignored(tmp_path: Path, seal: str | None) -> None:
    write(tmp_path, "local", 0, order=1)
    newest = write(tmp_path, "local", 1, order=2)
    (newest / "seal.json").unlink()
    if seal is not None:
        (newest / "seal.json").write_text(seal)
    assert epoch(tmp_path) == (1, 1)
    with pytest.raises(ValueError, match="truncated or incomplete"):
        read_state(newest)


def test_a_changed_byte_is_noticed(tmp_path: Path) -> None:
    folder = write(tmp_path, "local", 0, order=1)
    content = bytearray((folder / "state.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "state.pt").write_bytes(bytes(content))
    with pytest.raises(ValueError, match=r"checkpoint_000000 is truncated or incomplete"):
        read_state(folder)


def test_a_state_is_read_without_running_any_code_in_it(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (str(tmp_path / "ran"),)

    folder = tmp_path / "local" / KEY / "checkpoint_000000"
    folder.mkdir(parents=True)
    write_state(folder, {"epoch": Harmful()}, order=1)
    with pytest.raises(Exception, match=r"weights_only|Weights only"):
        read_state(folder)
    assert not (tmp_path / "ran").exists()


def seal(folder: Path, order: int) -> None:
    """Make a seal for whatever content the state has."""
    (folder / "seal.json").write_text(json.dumps({"sha256": file_digest(folder / "state.pt"), "order": order}))


@pytest.mark.parametrize("content", [b"", b"no state", pickle.dumps({"epoch": 9}), b"PK\x03\x04" + bytes(100)])
def test_a_sealed_state_that_torch_refuses_is_passed_over_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    write(tmp_path, "local", 0, order=1)
    newest = write(tmp_path, "local", 1, order=2)
    (newest / "state.pt").write_bytes(content)
    seal(newest, order=2)
    assert epoch(tmp_path) == (1, 1)
    assert f"the checkpoint {newest} cannot be read by torch" in caplog.text


@pytest.mark.parametrize("state", [3, [1], {1: "a"}])
def test_a_sealed_file_that_holds_no_state_is_passed_over(tmp_path: Path, state: object) -> None:
    write(tmp_path, "local", 0, order=1)
    newest = write(tmp_path, "local", 1, order=2)
    torch.save(state, newest / "state.pt")
    seal(newest, order=2)
    assert epoch(tmp_path) == (1, 1)


def test_removing_a_trials_checkpoints_leaves_those_of_others(tmp_path: Path) -> None:
    write(tmp_path, "local", 0, order=1)
    write(tmp_path, "20260101-000000", 0, order=2)
    other = write(tmp_path, "local", 0, order=3, key="f" * 16)
    remove_states(tmp_path, {KEY})
    assert latest_state(tmp_path, KEY) == (None, 0)
    assert other.is_dir()
    remove_states(tmp_path, {KEY})  # and again, where there is nothing left
