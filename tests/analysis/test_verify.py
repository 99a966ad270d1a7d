"""Every number of a report is derived again; whatever is changed is found and named."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.__main__ import main
from analysis.intervals import Sources, average, difference, mean
from analysis.page import file_name
from analysis.verify import estimates
from analysis.verify.compare import Derived, compare_csv, compare_shown, read_latex, read_markdown
from analysis.verify.evidence import Evidence, EvidenceError, read_sums, slug
from analysis.verify.held import check_manifest, check_rows, check_sums, check_validation
from analysis.verify.tables import rule_for
from analysis.verify.verify import Result, verify
from models.metrics import get_metric
from tests.analysis.conftest import Exported

ROOT = Path(__file__).resolve().parents[2]
MATRIX = "matrix-residual_linear-accuracy"


@pytest.fixture
def own(exported: Exported, tmp_path: Path) -> Path:
    """The export, copied: what a test may change."""
    return Path(shutil.copytree(exported.export, tmp_path / "own"))


def renew_sums(folder: Path) -> None:
    """What somebody does who changes a file and hides it."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != "SHA256SUMS"]
    lines = [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(folder).as_posix()}\n" for p in paths]
    (folder / "SHA256SUMS").write_text("".join(sorted(lines)))


def said(result: Result) -> list[str]:
    return [str(difference) for difference in result.differences]


def edit(path: Path, change: Callable[[str], str]) -> None:
    text = path.read_text(encoding="utf-8")
    assert change(text) != text
    path.write_text(change(text), encoding="utf-8")


def trial(folder: Path, **facts: object) -> str:
    """The key of the only trial with these facts."""
    table = pd.read_csv(folder / "trials.csv")
    for name, value in facts.items():
        table = table[table[name] == value]
    (key,) = table["key"]
    return str(key)


# Nothing was changed -------------------------------------------------------------------------------------------------


def test_every_file_of_the_tables_has_a_line_and_a_rule_and_no_number_differs(exported: Exported) -> None:
    result = verify(exported.export)
    assert said(result) == []
    lines = {line.file: line for line in result.report}
    written = {f"tables/{path.name}" for path in (exported.export / "report" / "tables").iterdir()}
    assert set(lines) == written
    assert {reason for line in result.report for reason in line.unverified if "no rule" in reason} == set()
    # 2 x 2 cells with mean, number of seeds and both ends of two intervals; 2 of them with a deviation over two seeds
    assert str(lines[f"tables/{MATRIX}.csv"]) == f"tables/{MATRIX}.csv: 26 of 26 numbers agree"
    # without the number of seeds and the second interval, and with three means and their intervals in the caption
    assert lines[f"tables/{MATRIX}.md"].compared == lines[f"tables/{MATRIX}.tex"].compared == 14 + 9
    assert lines["tables/confusion-residual_linear.csv"].agree == 9
    assert lines["tables/history.csv"].compared == 0
    assert sum(lines["tables/history.csv"].unverified.values()) > 0
    assert result.counts["agree"] > 500
    assert result.counts["differ"] == 0


def test_of_a_report_the_evidence_is_read_from_mlflow_and_the_page_is_verified_too(
    exported: Exported, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert main(["verify", str(exported.report)]) == 0
    printed = capsys.readouterr().out
    assert "scores: 180 of 180 rows agree" in printed
    assert "table “residual_linear [random weights]: AUROC, every cell; interva”: 26 of 26 numbers agree" in printed
    assert "0 differ" in printed


def test_an_export_needs_neither_torch_nor_mlflow_nor_any_other_part_of_this_project(exported: Exported) -> None:
    script = (
        "import sys; from analysis.__main__ import main; status = main(sys.argv[1:]); "
        "print(sorted({'torch', 'mlflow', 'ray', 'models', 'analysis.store', 'analysis.cells'} & sys.modules.keys())); "
        "sys.exit(status)"
    )
    command = [sys.executable, "-c", script, "verify", str(exported.export)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_it_shares_no_function_with_the_report() -> None:
    own = sorted((ROOT / "analysis" / "verify").glob("*.py"))
    names = {path.name: imported(path) for path in own}
    outside = {"analysis", "data", "grid", "models", "launch"}
    foreign = {
        (file, name)
        for file, modules in names.items()
        for name in modules
        if name.split(".")[0] in outside and not f"{name}.".startswith("analysis.verify.")
    }
    assert foreign == {("command.py", "analysis.export")}  # which reads MLflow, of a report alone


def imported(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return plain | {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}


# Something was changed -----------------------------------------------------------------------------------------------


def test_one_number_in_a_csv(own: Path) -> None:
    path = own / "report" / "tables" / f"{MATRIX}.csv"
    table = pd.read_csv(path)
    before = float(table.loc[1, "low"])
    table.assign(low=table["low"].where(table.index != 1, before + 2e-9)).to_csv(path, index=False)
    renew_sums(own)
    (difference,) = said(verify(own))
    row = "residual_linear accuracy clean lama ldm"
    assert difference.startswith(
        f"tables/{MATRIX}.csv, row {row}, column low: shown {before + 2e-9!r}, derived {before}"[:-6]
    )


CHANGES = [  # file, what stands there, what is written instead, what is said
    (f"{MATRIX}.md", "generator mean 0.", "generator mean 9.", "row caption, column cross-generator mean: shown 9."),
    (f"{MATRIX}.tex", "\nlama & ", "\nlama & \\textbf{0.001} & ", "row lama, column all: shown 4 cells"),
    ("confusion-residual_linear.md", "\n| real | ", "\n| real | 1", "row real, column real: shown 1"),
    ("summary.csv", "4 of 5", "5 of 5", "row residual_linear, column trials finished: shown 5 of 5"),
    ("calibration.tex", " & 0.", " & 7.", "row residual_linear lama lama, column calibration error: shown 7."),
    ("embeddings.md", "| residual_linear [random weights] | ", "| residual_linear [random weights] | 3",
     "row residual_linear, column silhouette: shown 3"),
    ("runs.csv", "finished", "pending", "column state: shown pending, derived finished"),
    ("provenance.csv", "108 images", "109 images", "row data set, column value: shown "),
    ("conditions.md", "| jpeg-75 | 0.", "| jpeg-75 | 2.", "row residual_linear jpeg-75, column accuracy at p = 0.5, "),
    ("attribution.tex", "\nresidual\\_linear [random weights] & 0.", "\nresidual\\_linear [random weights] & 4.",
     "row residual_linear [random weights], column overall: shown 4."),
]  # fmt: skip


def test_one_number_in_each_of_the_other_files(own: Path) -> None:
    for name, old, new, _ in CHANGES:
        path = own / "report" / "tables" / name
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new, 1))
    renew_sums(own)
    differences = said(verify(own))
    for name, _, _, where in CHANGES:
        (of_file,) = (text for text in differences if text.startswith(f"tables/{name}, "))
        assert where in of_file
    assert len(differences) == len(CHANGES)


def test_another_best_method_and_another_mean_of_a_trial(own: Path) -> None:
    tables, logged = own / "report" / "tables", own / "metrics.csv"
    best = tables / "best-of-cells.csv"
    first = best.read_text(encoding="utf-8").splitlines()[1]
    assert first.split(",")[3] == "residual_linear"
    edit(best, lambda text: text.replace(first, first.replace(",residual_linear,", ",clip_linear,"), 1))
    line = next(text for text in logged.read_text().splitlines() if ",summary/cross-generator/auroc," in text)
    edit(logged, lambda text: text.replace(line, f"{line.rpartition(',')[0]},0.123456", 1))
    renew_sums(own)
    differences = said(verify(own))
    assert len(differences) == 2
    assert differences[0].startswith(f"metrics.csv, row {line.split(',')[0]}, column summary/cross-generator/auroc: ")
    assert differences[1].startswith("tables/best-of-cells.csv, row ")
    assert "shown clip_linear, derived residual_linear" in differences[1]


def test_one_number_of_the_page(exported: Exported, tmp_path: Path) -> None:
    report = Path(shutil.copytree(exported.report, tmp_path / "report"))
    edit(report / "index.html", lambda text: text.replace(">4 of 5<", ">3 of 5<", 1))
    (difference,) = said(verify(exported.export, report))
    assert difference.startswith("index.html, table “Means over the cells of each method's matrix")
    assert difference.endswith("row residual_linear, column trials finished: shown 3 of 5, derived 4, 5")


def changed_logit(folder: Path) -> tuple[str, str]:
    """Moves one logit; its file, and the image."""
    key = trial(folder, task="detection", trained_on="lama", seed=0)
    path = folder / "scores" / key / "jpeg-75.parquet"
    table = pd.read_parquet(path)
    table.loc[5, "logit_fake"] += np.float32(0.001)
    table.to_parquet(path, index=False)
    return f"scores/{key}/jpeg-75.parquet", str(table.loc[5, "path"])


def test_one_logit_is_seen_by_the_digest(own: Path) -> None:
    file, _ = changed_logit(own)
    (difference,) = check_sums(own, read_sums(own))
    assert str(difference).startswith(f"SHA256SUMS, row {file}, column sha256: shown ")


def test_one_logit_is_seen_with_renewed_digests_too(own: Path) -> None:
    file, image = changed_logit(own)
    renew_sums(own)
    assert said(verify(own))[0].startswith(f"{file}, row {image}, column score: shown ")


def test_one_logit_with_its_score_changes_the_calibration_error(own: Path) -> None:
    key = trial(own, task="detection", trained_on="lama", seed=0)
    path = own / "scores" / key / "clean.parquet"
    table = pd.read_parquet(path)
    table.loc[20, "logit_fake"] += np.float32(0.001)
    table["score"] = table["logit_fake"] - table["logit_real"]
    table.to_parquet(path, index=False)
    renew_sums(own)
    assert any(text.startswith("tables/calibration.csv, row residual_linear lama ") for text in said(verify(own)))


def test_one_label_in_the_manifest(own: Path) -> None:
    table = pd.read_csv(own / "manifest.csv", dtype=str, keep_default_na=False)
    index = table.index[(table["split"] == "test") & (table["label"] == "1")][0]
    table.loc[index, "label"] = "0"
    table.to_csv(own / "manifest.csv", index=False)
    renew_sums(own)
    differences = said(verify(own))
    assert differences[0].startswith("manifest.csv, row all, column digest of the data set: shown ")
    assert any(
        text.endswith(f"row {table.loc[index, 'path']}, column label: shown 1, derived 0") for text in differences
    )


def test_a_row_that_is_gone(own: Path) -> None:
    key = trial(own, task="attribution")
    path = own / "scores" / key / "clean.parquet"
    table = pd.read_parquet(path)
    table.drop(index=7).to_parquet(path, index=False)
    renew_sums(own)
    differences = said(verify(own))
    assert differences[0] == (
        f"scores/{key}/clean.parquet, row {table.loc[7, 'path']}, column all: shown no row, "
        "derived a test image of the manifest"
    )


def swapped(folder: Path, *, relabelled: bool) -> list[str]:
    """Swaps the scores of two trials; their keys."""
    keys = [trial(folder, task="detection", trained_on="lama", seed=seed) for seed in (0, 1)]
    paths = [folder / "scores" / key / "clean.parquet" for key in keys]
    tables = [pd.read_parquet(path) for path in paths]
    for path, key, table in zip(paths, keys, reversed(tables), strict=True):
        (table.assign(trial=key) if relabelled else table).to_parquet(path, index=False)
    renew_sums(folder)
    return keys


def test_swapped_scores_of_two_trials(own: Path) -> None:
    keys = swapped(own, relabelled=False)
    assert said(verify(own))[0] == (
        f"scores/{keys[0]}/clean.parquet, row all, column trial: shown {keys[1]}, derived {keys[0]}"
    )


def test_swapped_scores_under_the_other_trials_name(own: Path) -> None:
    keys = swapped(own, relabelled=True)
    differences = said(verify(own))
    assert differences[0].startswith(f"metrics.csv, row {keys[0]}, column test/")


def test_scores_of_another_task_end_the_verification(own: Path) -> None:
    keys = [trial(own, task="attribution"), trial(own, task="detection", trained_on="lama", seed=0)]
    shutil.copy(own / "scores" / keys[0] / "clean.parquet", own / "scores" / keys[1] / "clean.parquet")
    result = verify(own)
    assert any("column logit_fake, score: shown no such column" in text for text in said(result))
    assert [line.file for line in result.report] == ["the report"]


def test_another_manifest(own: Path) -> None:
    table = pd.read_csv(own / "manifest.csv", dtype=str, keep_default_na=False)
    table.assign(digest="f" + table["digest"]).to_csv(own / "manifest.csv", index=False)
    first, *_ = check_manifest(Evidence(own))
    assert str(first).startswith("manifest.csv, row all, column digest of the data set")
    rows = list(check_rows(Evidence(own), trial(own, task="attribution"), "clean"))
    assert [row.derived for row in rows].count("no such test image in the manifest") == 36


def test_another_specification(own: Path) -> None:
    key = trial(own, task="attribution")
    edit(own / "specs" / f"{key}.json", lambda text: text.replace('"seed": 0', '"seed": 3'))
    (difference,) = check_manifest(Evidence(own))
    assert str(difference).startswith(f"specs/{key}.json, row {key}, column key: shown {key}, derived ")


def test_names_of_files_are_the_same_on_both_sides_and_never_too_long() -> None:
    variant = f"xception_scratch (train_condition={'+'.join(f'jpeg-{level}' for level in range(20, 90))})"
    names = [f"reliability-calibrated-{variant}", f"matrix-{variant}-accuracy", f"matrix-{variant}-auroc"]
    for text in (*names, "paste-back-residual_linear-accuracy", "A+B (l2=0.1)"):
        assert file_name(text) == slug(text)
        assert len(file_name(text)) <= 200
    assert len({file_name(text) for text in names}) == 3
    assert file_name("A+B (l2=0.1)") == "a-and-b-l2-0.1"
    assert file_name("x" * 200) == "x" * 200


def test_a_file_more_or_less(own: Path) -> None:
    (own / "extra.txt").write_text("x")
    (own / "versions.csv").unlink()
    found = [(difference.row, difference.derived) for difference in check_sums(own, read_sums(own))]
    assert found == [("extra.txt", "the file was not exported"), ("versions.csv", "the file is missing")]


def test_another_validation_image_or_one_less(own: Path) -> None:
    key = trial(own, task="detection", trained_on="lama", seed=0)
    path = own / "validation" / f"{key}.parquet"
    table = pd.read_parquet(path)
    table.assign(digest=table["digest"].where(table.index > 0, "f" * 64)).to_parquet(path, index=False)
    first, second = check_validation(Evidence(own), key)
    assert (first.column, first.shown, first.derived) == ("digest", "f" * 64, "no such valid image in the manifest")
    assert (second.row, second.shown, second.derived) == (
        table.loc[0, "path"],
        "no row",
        "a valid image of the manifest",
    )
    table.drop(index=3).to_parquet(path, index=False)
    (difference,) = check_validation(Evidence(own), key)
    assert (difference.file, difference.row, difference.shown) == (
        path.relative_to(own).as_posix(),
        table.loc[3, "path"],
        "no row",
    )
    table.to_parquet(path, index=False)
    assert list(check_validation(Evidence(own), key)) == []


def test_a_trial_that_is_left_out(own: Path) -> None:
    key = trial(own, task="attribution")
    table = pd.read_csv(own / "trials.csv", dtype=str, keep_default_na=False)
    table[table["key"] != key].to_csv(own / "trials.csv", index=False)
    renew_sums(own)
    assert said(verify(own)) == [
        f"trials.csv, row (the whole file), column key: shown no row, derived trial {key}, as in specs or metrics.csv"
    ]


def test_a_table_without_its_csv_is_a_difference(own: Path) -> None:
    tables = own / "report" / "tables"
    (tables / "summary.csv").unlink()
    edit(tables / "summary.md", lambda text: text.replace("4 of 5", "5 of 5"))
    renew_sums(own)
    differences = said(verify(own))
    assert [text.split(",")[0] for text in differences] == ["tables/summary.md", "tables/summary.tex"]
    assert "its CSV, summary.csv, is missing" in differences[0]


def test_a_table_under_another_name_is_a_difference(own: Path) -> None:
    tables = own / "report" / "tables"
    shutil.copy(tables / f"{MATRIX}.csv", tables / "matrix-residual_linear-auroc.csv")
    (tables / "confusion-residual_linear.csv").rename(tables / "confusion-other.csv")
    renew_sums(own)
    shown = {difference.file: difference.shown for difference in verify(own).differences}
    assert shown == {
        "tables/confusion-other.csv": "its name does not say which method it is of",
        "tables/confusion-residual_linear.md": "its CSV, confusion-residual_linear.csv, is missing",
        "tables/confusion-residual_linear.tex": "its CSV, confusion-residual_linear.csv, is missing",
        "tables/matrix-residual_linear-auroc.csv": (
            "its rows are of residual_linear, accuracy, clean, which is not what its name says"
        ),
    }


def test_a_table_without_a_rule_is_not_verified_and_says_so(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (own / "report" / "tables" / "brand-new.csv").write_text("a,b\n1,2.5\n")
    renew_sums(own)
    assert main(["verify", str(own)]) == 0
    printed = capsys.readouterr().out
    assert "tables/brand-new.csv: 2 not verified: no rule for this table\n" in printed
    assert "Tables without a rule, so not verified: tables/brand-new.csv" in printed


def test_a_column_without_a_rule_is_not_verified_and_says_so(own: Path) -> None:
    path = own / "report" / "tables" / f"{MATRIX}.csv"
    pd.read_csv(path).assign(another=0.5).to_csv(path, index=False)
    renew_sums(own)
    result = verify(own)
    assert said(result) == []
    (line,) = (line for line in result.report if line.file == f"tables/{MATRIX}.csv")
    assert line.unverified == {"no rule for this column": 4}


def test_a_task_without_a_rule_is_not_verified(own: Path) -> None:
    key = trial(own, task="attribution")
    specification = json.loads((own / "specs" / f"{key}.json").read_text()) | {"task": "another"}
    text = json.dumps(specification, sort_keys=True, separators=(",", ":"))
    new = hashlib.sha256(text.encode()).hexdigest()[:16]
    for place in ("scores", "embeddings", "specs"):
        for path in (own / place).glob(f"{key}*"):
            path.rename(path.with_name(path.name.replace(key, new)))
    (own / "specs" / f"{new}.json").write_text(text)
    for name in ("trials.csv", "metrics.csv", "versions.csv", "report/tables/runs.csv"):
        (own / name).write_text((own / name).read_text().replace(key, new).replace(",attribution,", ",another,"))
    path = own / "scores" / new / "clean.parquet"
    pd.read_parquet(path).assign(trial=new).to_parquet(path, index=False)
    for table in (own / "report" / "tables").glob("*"):
        if not table.name.startswith(("matrix", "calibration", "runs.csv")):
            table.unlink()
    renew_sums(own)
    result = verify(own)
    assert said(result) == []
    logged = {reason for line in result.evidence for reason in line.unverified}
    assert "no rule for the metric macro_f1" in logged


def test_rows_of_a_task_without_a_rule_are_left_out() -> None:
    derived = Derived(pd.DataFrame({"k": ["a"], "v": [0.5]}), ["k"], leave_out=lambda row: "why" * (row["k"] == "b"))
    outcome, order = compare_csv("f", pd.DataFrame({"k": ["b", "a"], "v": ["0.7", "0.5"]}), derived)
    assert (outcome.differences, outcome.unverified, outcome.agree) == ([], {"why": 1}, 1)
    shown = compare_shown("f", ["k", "v"], [["b", "0.7"], ["a", "0.5"]], "", derived, order)
    assert (shown.differences, sum(shown.unverified.values()), shown.agree) == ([], 1, 1)


# The command ---------------------------------------------------------------------------------------------------------


def test_the_first_difference_is_said_and_the_exit_status_is_1(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = own / "report" / "tables" / "confusion-residual_linear.csv"
    edit(path, lambda text: text.replace("\nreal,", "\nreal,9", 1))
    renew_sums(own)
    assert main(["verify", str(own), "--json"]) == 1
    printed = capsys.readouterr()
    assert "differs: tables/confusion-residual_linear.csv, row real, column real: shown 9" in printed.err
    found = json.loads(printed.out)
    assert found["counts"]["differ"] == 1
    (line,) = (line for line in found["report"] if line["differences"])
    assert line["differences"][0]["column"] == "real"


def test_bad_input_says_what_to_do(tmp_path: Path, own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(tmp_path / "nothing")]) == 2
    assert "holds neither a report nor an export" in capsys.readouterr().err
    edit(own / "export.json", lambda text: text.replace('"format": 1', '"format": 9'))
    assert main(["verify", str(own)]) == 2
    assert "has format 9, this code reads 1" in capsys.readouterr().err
    (own / "SHA256SUMS").unlink()
    with pytest.raises(EvidenceError, match="SHA256SUMS cannot be read"):
        verify(own)


@pytest.mark.parametrize(
    ("file", "old", "new", "why"),
    [
        ("manifest.csv", ",1,lama,", ",7,lama,", "a label that is neither 0 nor 1"),
        ("trials.csv", "threshold", "bar", "trials.csv has no column threshold"),
        ("metrics.csv", "value", "bar", "metrics.csv has no column value"),
        ("export.json", '"data":', '"bar":', "export.json does not name the data set"),
    ],
)
def test_an_export_that_cannot_be_read_is_bad_input(own: Path, file: str, old: str, new: str, why: str) -> None:
    edit(own / file, lambda text: text.replace(old, new, 1))
    with pytest.raises(EvidenceError, match=why):
        verify(own)


def test_an_empty_specification_or_table_is_bad_input(own: Path) -> None:
    (own / "report" / "tables" / "summary.csv").write_text("")
    with pytest.raises(EvidenceError, match=r"summary.csv is damaged: .*write the report again"):
        verify(own)
    key = trial(own, task="attribution")
    (own / "specs" / f"{key}.json").write_text("{}")
    with pytest.raises(EvidenceError, match=f"specs/{key}.json does not say task, method"):
        Evidence(own).spec(key)


def test_an_export_without_tables_is_bad_input(own: Path) -> None:
    shutil.rmtree(own / "report")
    with pytest.raises(EvidenceError, match="tables is missing"):
        verify(own)


def test_a_report_of_another_grid_is_refused(
    exported: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = Path(shutil.copytree(exported.report, tmp_path / "report"))
    edit(report / "tables" / "provenance.csv", lambda text: text.replace("grid's run,", "grid's run,f"))
    assert main(["verify", str(report), "--tracking-uri", exported.uri]) == 2
    assert "its report is of the grid's run f" in capsys.readouterr().err


# Comparing -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shown", "value", "agree"),
    [
        ("0.123", 0.1234, True), ("0.123", 0.1236, False), ("0.123", 0.1225, True), ("12", 12, True), ("12", 13, False),
        ("missing", float("nan"), True), ("missing", 0.5, False), ("0.5", float("nan"), False),
        ("1.000", 0.99951, True),
        ("0.9 [0.8, 1.0]", (0.91, 0.76, 0.96), True), ("0.9 [0.8, 1.0]", (0.91, 0.74, 0.96), False),
        ("0.9", (0.91, 0.76, 0.96), False), ("x", "x", True), ("x", "y", False),
    ],
)  # fmt: skip
def test_a_shown_number_agrees_if_the_derived_one_rounds_to_it(shown: str, value: object, agree: bool) -> None:
    derived = Derived(pd.DataFrame({"k": ["a"], "v": [value]}), ["k"])
    outcome = compare_shown("f", ["k", "v"], [["a", shown]], "", derived, [0])
    assert (outcome.differences == []) is agree


def test_rows_of_a_csv_may_come_in_any_order_but_none_is_missing_or_twice() -> None:
    derived = Derived(pd.DataFrame({"k": ["a", "b"], "v": [0.1, 0.2]}), ["k"])
    outcome, order = compare_csv("f", pd.DataFrame({"k": ["b", "a"], "v": ["0.2", "0.1"]}), derived)
    assert (outcome.differences, outcome.agree, order) == ([], 2, [1, 0])
    outcome, order = compare_csv("f", pd.DataFrame({"k": ["b", "b"], "v": ["0.2", "0.2"]}), derived)
    assert [(d.row, d.shown) for d in outcome.differences] == [("b", "a row"), ("a", "no row")]


def test_marks_of_markdown_and_latex_are_read() -> None:
    caption, header, rows = read_markdown("A: b. 1.5\n\n| a\\|b | c_d |\n|---|---|\n| **0.5 ± 0.1** | x |\n")
    assert (caption, header, rows) == ("A: b. 1.5", ["a|b", "c_d"], [["0.5 ± 0.1", "x"]])
    text = (
        "\\caption{A \\% b}\n\\toprule\na\\_b & c\\&d \\\\\n"
        "\\midrule\n\\textbf{0.5 $\\pm$ 0.1} & \\textless{}x \\\\\n\\bottomrule"
    )
    assert read_latex(text) == ("A % b", ["a_b", "c&d"], [["0.5 ± 0.1", "<x"]])


def test_of_several_rules_the_longest_pattern_counts() -> None:
    assert rule_for("localisation-images") is not rule_for("localisation-a-iou")
    assert rule_for("conditions-attribution") is not rule_for("conditions")
    assert rule_for("something") is None


# Metrics and intervals, against the report's own ---------------------------------------------------------------------


def scored(kind: str, seed: int, classes: tuple[str, ...] = ("real", "fake")) -> pd.DataFrame:
    """Scores of 14 photographs, each real and with a fake per generator; some are missing."""
    rng = np.random.default_rng(seed)
    rows = [(f"s{number}", name) for number in range(14) for name in ("real", "lama", "ldm")[: max(2, len(classes))]]
    table = pd.DataFrame(rows, columns=["source_id", "generator"]).sample(frac=0.9, random_state=seed)
    fake = (table["generator"] != "real").to_numpy()
    table = table.assign(label=fake.astype(int))
    score = {
        "ties": rng.integers(-2, 3, len(table)) + fake, "perfect": np.where(fake, 3.0, -3.0) + rng.random(len(table)),
        "constant": np.ones(len(table)), "usual": rng.normal(size=len(table)) + 1.5 * fake,
        "reversed": rng.normal(size=len(table)) - 2.0 * fake,
    }[kind].astype(np.float64)  # fmt: skip
    if len(classes) == 2:
        return table.assign(score=score)
    for number, name in enumerate(classes):
        own = np.where(fake, table["generator"], "real") == name
        table[f"logit_{name}"] = own * 1.0 + np.roll(score, number)
    return table


def images_of(table: pd.DataFrame, classes: tuple[str, ...]) -> estimates.Images:
    sources = sorted(set(table["source_id"]))
    units = np.array([sources.index(name) for name in table["source_id"]])
    if len(classes) == 2:
        labels, scores = table["label"].to_numpy(), table["score"].to_numpy()
        return estimates.Images(labels, (scores > 0).astype(int), units, len(sources), classes, scores)
    names = np.where(table["label"] == 1, table["generator"], "real")
    labels = np.array([classes.index(name) for name in names])
    answers = table[[f"logit_{name}" for name in classes]].to_numpy().argmax(axis=1)
    return estimates.Images(labels, answers, units, len(sources), classes)


BINARY, SEVERAL = ("real", "fake"), ("real", "lama", "ldm")
CASES = [(BINARY, name) for name in estimates.BINARY]
CASES += [(SEVERAL, name) for name in ("accuracy", "balanced_accuracy", "macro_f1", "accuracy/ldm")]


@pytest.mark.parametrize("kind", ["ties", "perfect", "constant", "usual", "reversed"])
@pytest.mark.parametrize(("classes", "metric"), CASES)
def test_values_and_intervals_written_twice_agree(kind: str, classes: tuple[str, ...], metric: str) -> None:
    ours, theirs = [], []
    for seeds in ((0,), (1, 2), (3, 4, 5)):
        tables = [scored(kind, seeds[0], classes)]
        for seed in seeds[1:]:  # other answers to the same images
            numbers = scored(kind, seed, classes)[_numbers(classes)].to_numpy()
            tables.append(tables[0].assign(**dict(zip(_numbers(classes), numbers.T, strict=True))))
        cells = [Sources([tables[0]]).cell(table) for table in tables]
        images = [images_of(table, classes) for table in tables]
        ours.append(estimates.over_seeds([estimates.pieces(each, metric) for each in images]))
        theirs.append(average([cell.parts(metric) for cell in cells]))
        for cell, each in zip(cells, images, strict=True):
            assert estimates.metric(each, metric) == pytest.approx(get_metric(metric).value(cell.answers), abs=1e-12)
        assert (ours[-1].value, ours[-1].low, ours[-1].high) == pytest.approx(
            (theirs[-1].value, *theirs[-1].interval), abs=1e-10
        )
    same = [number for number, estimate in enumerate(ours) if len(estimate.moves) == len(ours[0].moves)]
    a, b = estimates.mean_of([ours[n] for n in same]), mean([theirs[n] for n in same])
    assert (a.value, a.low, a.high) == pytest.approx((b.value, *b.interval), abs=1e-10)
    assert estimates.difference(ours[0], ours[same[-1]]) == pytest.approx(
        difference(theirs[0], theirs[same[-1]]), abs=1e-10
    )


def _numbers(classes: tuple[str, ...]) -> list[str]:
    return ["score"] if len(classes) == 2 else [f"logit_{name}" for name in classes]
