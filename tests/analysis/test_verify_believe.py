"""Verify on a grid with all that a result can be held against: seeds, conditions, thresholds, controls, open set."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.export import write_evidence
from analysis.intervals import Interval
from analysis.intervals import Spread as Theirs
from analysis.page import Folder, Picture
from analysis.parts import Options, list_parts
from analysis.report import make_report
from analysis.seeds import ONE_SEED, by_train_set, joined, of_sum, pooled
from analysis.verify import estimates, seeds
from analysis.verify.estimates import Spread
from analysis.verify.verify import Result, verify
from grid.controls import CELL_COLUMNS, References
from models.calibration import fit_temperature
from tests.analysis.grids import Grid
from tests.grid.grids import fresh_store, make_spec

GENERATORS = ("lama", "ldm", "repaint")
METHOD, OTHER = "xception_scratch", "residual_linear"
CONDITIONS = ["jpeg-75", "paste-back"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A report with pictures that are empty, and its evidence."""
    base = tmp_path_factory.mktemp("believe")
    grid = Grid(
        fresh_store(tmp_path_factory.getbasetemp(), base / "runs"), base / "runs", generators=GENERATORS, num_each=12
    )
    digest, everything = grid.manifest.digest, "+".join(GENERATORS)
    of_method = [grid.spec(METHOD, train=train, seed=seed) for train in ("lama", everything) for seed in (0, 1)]
    grid.finish(*of_method, grid.spec(OTHER, train="lama"), conditions=CONDITIONS)
    grid.finish(grid.spec(METHOD, train="ldm"))  # of one seed alone
    grid.finish(grid.attribution(METHOD), conditions=CONDITIONS)
    grid.finish(
        *(grid.open_set(METHOD, left_out=name, seed=seed) for name, seed in (("lama", 0), ("lama", 1), ("ldm", 0)))
    )
    grid.finish(
        grid.spec("mean_brightness", train="lama"),
        make_spec(digest, OTHER, task="shuffled_labels", train=GENERATORS, seed=1),
        make_spec(digest, OTHER, task="real_against_real", train=(), seed=1),
        validation={},
    )
    test = grid.manifest.select("test", GENERATORS)
    fakes = test.loc[test["label"] == 1, "digest"]
    grid.tracker.record_areas({digest: (number % 7 + 1) / 10 for number, digest in enumerate(fakes)})
    cell = test[test["generator"].isin(["real", "lama"])]
    scores = cell[["source_id", "generator", "label"]].assign(reference="headers_only", trained_on="lama")
    scores = scores.assign(tested_on="lama", score=np.arange(len(cell)) % 5 - 2.0)
    kept = References(scores, pd.DataFrame(columns=CELL_COLUMNS))
    client = grid.tracker.client
    (base / kept.file).write_bytes(kept.content)
    client.log_artifact(grid.tracker.parent_id, str(base / kept.file))
    client.log_dict(grid.tracker.parent_id, kept.to_dict(), "references.json")
    store = grid.open()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Folder, "picture", lambda self, name, figure, *, alt, **_: Picture(name, alt, "data:,", 1, 1))
        parts = [part for part in list_parts() if part.name != "curves"]  # many pictures
        patch.setattr("analysis.report.list_parts", lambda: parts)
        make_report(store, base / "report", Options(cam=False, compare=(METHOD, OTHER), log=False))
    (base / "evidence").mkdir()
    write_evidence(store, base / "evidence", grid.manifest)
    return base / "evidence", base / "report"


@pytest.fixture(scope="module")
def result(made: tuple[Path, Path]) -> Result:
    return verify(*made)


@pytest.mark.slow
@pytest.mark.long
def test_nothing_differs_and_no_table_is_without_a_rule(result: Result) -> None:
    assert [str(difference) for difference in result.differences] == []
    lines = {line.file: line for line in [*result.evidence, *result.report]}
    assert {file: line.unverified for file, line in lines.items() if "no rule" in str(line)} == {}
    for name in (
        "training-sets", "conditions", "robustness", "conditions-attribution", "paste-back", "paste-back-attribution",
        f"paste-back-{METHOD}-auroc", "edited-area", "edited-area-cells", "thresholds", "temperatures",
        f"threshold-transfer-{METHOD}", f"threshold-transfer-{METHOD}-each", "controls", "references",
        f"references-{METHOD}", "beside-references", "open-set", "open-set-accuracy", f"landing-{METHOD}",
        f"compare-{METHOD}-{OTHER}-auroc", f"matrix-{METHOD}-tpr_at_fpr_5",
    ):  # fmt: skip
        for suffix in ("csv", "md", "tex"):
            assert lines[f"tables/{name}.{suffix}"].agree > 0, name
        assert lines[f"tables/{name}.csv"].unverified.keys() <= {
            "recorded while the trial ran; does not follow from its scores"
        }


@pytest.mark.long
def test_the_two_intervals_of_several_seeds_are_in_the_tables(made: tuple[Path, Path]) -> None:
    cells = pd.read_csv(made[1] / "tables" / f"matrix-{METHOD}-auroc.csv").set_index(["trained_on", "tested_on"])
    assert cells.loc[("lama", "ldm"), "one_more_low"] < cells.loc[("lama", "ldm"), "low"]
    assert pd.isna(cells.loc[("ldm", "ldm"), "one_more_low"])


CHANGES = [  # table, the row by its first columns, column, what is added
    (f"matrix-{METHOD}-auroc", 0, "one_more_low", 1e-8), ("paste-back-xception_scratch-auroc", 1, "low", 1e-8),
    ("edited-area-cells", 3, "mean", 1e-8), (f"threshold-transfer-{METHOD}-each", 2, "accuracy", 1e-3),
    ("controls", 0, "low", 1e-8), ("references", 1, "high", 1e-8), ("beside-references", 2, "difference", 1e-8),
    ("open-set", 2, "oscr_high", 1e-8), ("open-set-accuracy", 1, "low", 1e-8), (f"landing-{METHOD}", 0, "real", 1),
    ("temperatures", 1, "ECE before", 1e-8), ("temperatures", 0, "temperature", 1e-3),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.long
def test_one_number_in_each_table(made: tuple[Path, Path], tmp_path: Path) -> None:
    own = Path(shutil.copytree(made[1], tmp_path / "own"))
    for name, row, column, added in CHANGES:
        path = own / "tables" / f"{name}.csv"
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        table.loc[row, column] = repr(float(table.loc[row, column]) + added)
        table.to_csv(path, index=False)
    texts = {
        "conditions.md": " | 0.00 | 0.00 |",
        "thresholds.md": "| 0.",
        "paste-back.md": "[-0.",
        "robustness.tex": "& 0.",
    }
    for name, text in texts.items():
        path = own / "tables" / name
        assert text in path.read_text()
        path.write_text(path.read_text().replace(text, text.replace("0.", "3.", 1), 1))
    found = verify(made[0], own).differences
    assert sorted({difference.file for difference in found}) == sorted(
        {f"tables/{name}.csv" for name, *_ in CHANGES} | {f"tables/{name}" for name in texts}
    )
    assert len(found) == len(CHANGES) + len(texts)


@pytest.mark.long
def test_a_threshold_or_a_control_that_does_not_follow_is_seen(made: tuple[Path, Path], tmp_path: Path) -> None:
    own = Path(shutil.copytree(made[0], tmp_path / "own"))
    trials = pd.read_csv(own / "trials.csv", dtype=str, keep_default_na=False)
    detection, control = (
        trials.loc[trials["task"] == task, "key"].iloc[0] for task in ("detection", "shuffled_labels")
    )
    path = own / "validation" / f"{detection}.parquet"
    scores = pd.read_parquet(path)
    scores.assign(score=scores["score"] + 0.001).to_parquet(path, index=False)
    path = own / "specs" / f"{control}.json"  # another seed, and so other labels
    path.write_text(path.read_text().replace('"seed": 1', '"seed": 2'))
    said = [str(difference) for difference in verify(own, made[1]).differences]
    assert any(text.startswith(f"metrics.csv, row {detection}, column valid/threshold: shown 0.25") for text in said)
    assert any(text.startswith("tables/controls.csv, row ") and "column value" in text for text in said)


@pytest.mark.long
@pytest.mark.parametrize(
    ("column", "change", "said"),
    [
        ("label", lambda column: column.where(column.index != 3, 1 - column), "column label: shown "),
        ("source_id", lambda column: column.where(column.index != 3, "somebody"), "column source_id: shown somebody"),
        ("digest", lambda column: column.where(column.index != 3, "0" * 64), "no such valid image in the manifest"),
        ("score", lambda column: column.where(column.index != 3, np.nan), "column score: shown 1 values that are not"),
    ],
)
def test_validation_rows_that_are_not_those_of_the_manifest(
    made: tuple[Path, Path], tmp_path: Path, column: str, change: Callable[[pd.Series], pd.Series], said: str
) -> None:
    own = Path(shutil.copytree(made[0], tmp_path / "own"))
    path = sorted((own / "validation").glob("*.parquet"))[0]
    rows = pd.read_parquet(path)
    rows.assign(**{column: change(rows[column])}).to_parquet(path, index=False)
    found = [str(difference) for difference in verify(own, made[1]).differences]
    assert any(text.startswith(f"validation/{path.name}, row ") and said in text for text in found)


@pytest.mark.long
def test_rows_of_the_manifest_are_the_rows_of_each_trials_validation(result: Result) -> None:
    (line,) = [line for line in result.evidence if line.file == "validation"]
    assert line.compared == line.agree > 0


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.02, 1.0, 40.0]))
@settings(deadline=None, max_examples=30)
def test_temperatures_written_twice_agree(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    labels = np.concatenate([[0, 1], rng.integers(0, 2, int(rng.integers(2, 60)))])
    scores = scale * rng.normal(rng.uniform(-1, 3) * (labels - 0.5), rng.uniform(0.1, 3))
    assert estimates.temperature(labels, scores) == pytest.approx(fit_temperature(labels, scores).value, rel=1e-5)


# Seeds, against the report's own -------------------------------------------------------------------------------------

values = st.floats(0.05, 0.95)


@given(
    st.lists(st.tuples(st.integers(1, 4), st.lists(values, min_size=8, max_size=8)), min_size=1, max_size=3),
    values,
    st.integers(1, 4),
)
def test_seed_variances_written_twice_agree(sets: list[tuple[int, list[float]]], value: float, num_seeds: int) -> None:
    cells = {
        (f"t{number}", cell): {seed: of_set[2 * seed + cell] for seed in range(count)}
        for number, (count, of_set) in enumerate(sets)
        for cell in (0, 1)
    }
    theirs = by_train_set(cells)
    ours = {name: {c: v for (n, c), v in cells.items() if n == name} for name in theirs}
    pool, found = pooled(theirs.values()).of(value, num_seeds), seeds.of_cell(value, num_seeds, ours.values())
    same(found, pool)
    weights = {name: {0: 0.25, 1: -0.5} for name in theirs}
    same(
        seeds.of_sum([(ours[name], weights[name]) for name in ours]),
        of_sum((theirs[name], weights[name]) for name in theirs),
    )


def same(ours: seeds.Seeds | None, theirs: object) -> None:
    if ours is None:
        assert theirs == ONE_SEED
        return
    for own, other in zip(dataclasses.astuple(ours), dataclasses.astuple(theirs), strict=True):  # type: ignore[call-overload]
        assert own == pytest.approx(other, rel=1e-9, abs=1e-15)


@given(
    values, st.floats(0, 0.3), st.floats(0, 0.3), st.floats(0, 0.01), st.integers(1, 6), st.sampled_from([0.0, -1.0])
)
def test_joined_intervals_written_twice_agree(
    value: float, below: float, above: float, variance: float, degrees: int, least: float
) -> None:
    interval = Interval(value - below, value + above)
    ours = seeds.joined(value, *interval, Spread(variance, degrees), least)
    assert ours == pytest.approx(joined(value, interval, Theirs(variance, degrees), least=least), abs=1e-12)


def test_a_high_temperature_is_known_less_exactly() -> None:
    scores = np.array([-1.0, 1.0])
    assert estimates.flatness(scores, 1e4) == pytest.approx(2 * np.sqrt(np.finfo(float).eps / 0.25e-8), rel=1e-6)
    assert estimates.flatness(scores, 1.0) < 1e-7
    assert estimates.flatness(np.zeros(3), 1.0) == np.inf
