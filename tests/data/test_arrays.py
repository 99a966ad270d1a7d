"""Arrays in files that were damaged: one kind of error, whatever happened to them."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from data.arrays import load_array


@pytest.fixture
def file(tmp_path: Path) -> Path:
    np.save(tmp_path / "rows.npy", np.arange(60, dtype=np.float32).reshape(10, 6))
    return tmp_path / "rows.npy"


def test_a_sound_file_is_read_and_mapped(file: Path) -> None:
    for array in (load_array(file), load_array(file, mmap_mode="r")):
        assert array.tolist() == np.arange(60).reshape(10, 6).tolist()
    assert isinstance(load_array(file, mmap_mode="r"), np.memmap)


@pytest.mark.parametrize("mmap_mode", [None, "r"])
def test_a_broken_header_is_damage_and_nothing_else(file: Path, mmap_mode: object) -> None:
    content, generator = file.read_bytes(), np.random.default_rng(0)
    said: list[str] = []
    for number in range(100):
        changed, syntax = bytearray(content), list(b"()[]{},:'0 9<")
        for position in generator.integers(0, 128, size=1 + number % 4):
            changed[position] = generator.integers(0, 256) if number % 2 else generator.choice(syntax)
        file.write_bytes(bytes(changed))
        try:
            load_array(file, mmap_mode=mmap_mode)  # type: ignore[arg-type]
        except ValueError as error:  # and no other kind
            said.append(str(error))
    assert len(said) > 60
    assert {text.partition(": ")[0] for text in said} == {"rows.npy is damaged"}


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"PK\x03\x04", pickle.dumps([1]), b"<html>", b"\x80" * 200])
def test_another_kind_of_file_is_damage(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"rows\.npy is damaged"):
        load_array(file)


def test_python_objects_are_never_read(file: Path) -> None:
    np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="damaged"):
        load_array(file)


def test_a_file_that_is_not_there_is_not_damaged(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_array(tmp_path / "none.npy")
