"""The images of a training set of equal size, chosen by code of verify's own, against the launch's choice."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from analysis.export import write_evidence
from analysis.verify.evidence import Evidence
from analysis.verify.sizes import equal_rows
from grid.equal_size import EqualSize, choose
from grid.trial import training_rows
from tests.analysis.grids import THRESHOLD, Grid

GENERATORS = ("lama", "ldm", "repaint")


def rows_of(images: list[tuple[int, str, str]]) -> pd.DataFrame:
    """Label, generator and source of each image; digests from their names, so that they have no order of their own."""
    frame = pd.DataFrame(images, columns=["label", "generator", "source_id"])
    names = pd.Series(["/".join(map(str, image)) for image in images])
    digests = pd.util.hash_array(names.to_numpy(object))
    return frame.assign(digest=[f"{digest:016x}" for digest in digests])


def test_by_hand() -> None:
    """Photographs come as a, b, c; each gives one real image and one fake, of the generator that lacks most."""
    rows = pd.DataFrame(
        [
            (0, "real", "c", "3"), (0, "real", "a", "1"), (0, "real", "b", "2"),
            (1, "lama", "a", "9"), (1, "ldm", "a", "8"), (1, "lama", "b", "7"), (1, "ldm", "b", "6"),
            (1, "ldm", "c", "5"),
        ],
        columns=["label", "generator", "source_id", "digest"],
    )  # fmt: skip
    assert rows[equal_rows(rows, 2)]["digest"].tolist() == ["1", "2", "8", "7"]


def test_the_threshold_of_a_trial_follows_from_the_images_that_it_was_chosen_on(store: str, tmp_path: Path) -> None:
    grid = Grid(store, tmp_path, generators=GENERATORS, num_each=9)
    spec = dataclasses.replace(grid.spec(train="lama+ldm"), equal_size=EqualSize(6, 6))
    grid.finish(spec)
    (tmp_path / "evidence").mkdir()
    write_evidence(grid.open(), tmp_path / "evidence", grid.manifest)
    evidence = Evidence(tmp_path / "evidence")
    own = evidence.own_validation(spec.key)
    assert own is not None
    assert own["path"].tolist() == training_rows(spec, grid.manifest, "valid")["path"].tolist()
    assert own.groupby(["label", "generator"]).size().to_dict() == {(0, "real"): 6, (1, "lama"): 3, (1, "ldm"): 3}
    assert evidence.threshold(spec.key) == pytest.approx(THRESHOLD, abs=1e-9)


KINDS = [*((0, name) for name in GENERATORS), *((1, name) for name in GENERATORS)]
WHOLE = [(label, name, source) for source in "abcdefghijkl" for label, name in KINDS]


@given(st.sets(st.integers(0, len(WHOLE) - 1), max_size=20), st.booleans(), st.integers(1, 8), st.integers(1, 3))
def test_the_choice_written_twice_agrees(left_out: set[int], own_reals: bool, wanted: int, num_generators: int) -> None:
    images = [image for number, image in enumerate(WHOLE) if number not in left_out]
    images = [(label, name, source) for label, name, source in images if name in GENERATORS[:num_generators]]
    kept = {(label, name if label or own_reals else "real", source) for label, name, source in images}
    rows = rows_of(sorted(kept))
    num_groups = rows.groupby("label")["generator"].nunique()
    per_class = int(wanted * num_generators)
    smallest = rows.groupby(["label", "generator"]).size().groupby("label").min()
    assume(all(smallest[label] >= per_class // num_groups[label] for label in (0, 1)))
    expected = choose(rows, rows["label"].to_numpy("int64"), per_class)
    assert rows[equal_rows(rows, per_class)].index.tolist() == expected.index.tolist()
