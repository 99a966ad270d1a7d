"""The edits of the demo's second version."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np
import pytest

from data.demo.changes import KINDS, draw_edit, draw_look, edit_look
from data.demo.faces import PARTS, Look, draw_parts

SIZE = 64


def numbers(face: int) -> Callable[[str], np.random.Generator]:
    return lambda purpose: np.random.default_rng([face, zlib.crc32(purpose.encode())])


@pytest.mark.parametrize("kind", KINDS)
def test_an_edit_changes_one_thing_and_a_second_one_changes_it_back_or_on(kind: str) -> None:
    look = draw_look(np.random.default_rng(0))
    other = edit_look(look, kind, np.random.default_rng(0))
    changed = [name for name in vars(look) if getattr(look, name) != getattr(other, name)]
    assert len(changed) == 1
    if kind != "hair":
        assert edit_look(other, kind, np.random.default_rng(0)) == look


def test_no_part_tells_edited_faces_from_others() -> None:
    looks = [draw_look(np.random.default_rng(number)) for number in range(2000)]
    for name in ("teeth", "beard", "glasses", "long_hair"):
        assert 0.46 < np.mean([getattr(look, name) for look in looks]) < 0.54


def test_a_part_is_drawn_anew_while_all_others_stay() -> None:
    rng_for = numbers(3)
    plain, worn = (
        draw_parts({part: rng_for(part) for part in PARTS}, SIZE, Look(glasses=glasses)) for glasses in (False, True)
    )
    rows = np.flatnonzero((plain != worn).any(axis=(1, 2)))
    assert 0 < len(rows) < SIZE / 2
    assert rows.max() < 0.7 * SIZE  # the mouth is below


@pytest.mark.parametrize("face", range(8))
def test_only_the_region_changes_and_a_person_sees_it(face: int) -> None:
    real, edited, mask = draw_edit(numbers(face), SIZE)
    assert real.shape == edited.shape == (SIZE, SIZE, 3)
    assert real.dtype == edited.dtype == np.float32
    change = np.abs(edited - real).max(axis=2)
    assert change[~mask].mean() < 1 / 255
    assert change[mask].max() > 30 / 255
    again = draw_edit(numbers(face), SIZE)
    assert all((first == second).all() for first, second in zip((real, edited, mask), again, strict=True))


def test_every_kind_of_edit_is_drawn() -> None:
    places = {round(float(np.nonzero(draw_edit(numbers(face), SIZE)[2])[0].mean()) // 4) for face in range(16)}
    assert len(places) >= 3
