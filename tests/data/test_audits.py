from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import data.audits
from data.audits import LEVELS, Evidence, Finding, list_audits, register_audit, run_audits
from data.manifest import Manifest, build_manifest
from tests.corpora import write_dolos, write_image


def findings(audit: str, root: Path, cache: Path, source: str = "dolos") -> list[Finding]:
    return run_audits(Evidence(build_manifest(source, root, cache=cache)), [audit])


def save_as_jpeg(path: Path, quality: int = 75) -> None:
    Image.open(path).save(path.with_suffix(".jpg"), quality=quality)
    path.unlink()


# Every audit


@pytest.mark.parametrize("name", list_audits())
def test_a_sound_data_set_gives_no_warning(name: str, dolos: Path, cache: Path) -> None:
    assert [finding for finding in findings(name, dolos, cache) if finding.level != "note"] == []


@pytest.fixture
def troubled(tmp_path: Path, cache: Path) -> Manifest:
    """A data set in which each audit of today finds something."""
    root = write_dolos(tmp_path / "troubled")
    for path in (root / "celebahq/fake/lama/images").glob("*/*.png"):
        save_as_jpeg(path)
    first = min((root / "celebahq/fake/lama/images/test").iterdir())
    shutil.copy(first, first.with_name("copy.jpg"))
    return build_manifest("dolos", root, cache=cache)


@pytest.mark.parametrize("name", list_audits())
def test_findings_say_who_found_what_and_leave_the_manifest_alone(name: str, troubled: Manifest) -> None:
    before = troubled.table.copy(deep=True)
    found = run_audits(Evidence(troubled), [name])
    assert found == run_audits(Evidence(troubled), [name])
    for finding in found:
        assert finding.audit == name
        assert finding.level in LEVELS
        assert finding.text
        assert not finding.text.endswith(".")  # a remedy or another finding follows it in one sentence
    assert troubled.table.equals(before)


def test_an_audit_that_is_not_there() -> None:
    with pytest.raises(
        KeyError, match=r"no audit named 'shortcut' \(did you mean 'shortcuts'\?\); there are: .*copies"
    ):
        run_audits(Evidence(Manifest(Path(), "dolos", None)), ["shortcut"])  # type: ignore[arg-type]


def test_all_of_them_run_on_every_manifest_and_are_kept_with_it(troubled: Manifest, tmp_path: Path) -> None:
    found = {("copies", "note"), ("counts", "note"), ("shortcuts", "warn")}
    assert found <= {(finding.audit, finding.level) for finding in troubled.findings}
    troubled.save(tmp_path / "saved")
    assert Manifest.load(tmp_path / "saved").findings == troubled.findings
    assert troubled.remarks == [*troubled.notes, *(str(finding) for finding in troubled.findings)]


def test_a_finding_reads_as_one_sentence() -> None:
    assert str(Finding("x", "warn", "all fakes are blue", "paint them")) == "all fakes are blue; paint them"
    assert str(Finding("x", "note", "all fakes are blue")) == "all fakes are blue"


# Each audit


def test_copies_beside_each_other_are_counted(dolos: Path, cache: Path) -> None:
    folder = dolos / "celebahq/fake/lama/images/test"
    first = min(folder.iterdir())
    shutil.copy(first, folder / "copy.png")
    assert list(map(str, findings("copies", dolos, cache))) == [
        "1 files are copies of another file of the same split, and count twice"
    ]


def test_two_generators_with_the_same_fakes(dolos: Path, cache: Path) -> None:
    shutil.copytree(dolos / "celebahq/fake/lama", dolos / "celebahq/fake/twin")
    assert findings("copies", dolos, cache) == [
        Finding(
            "copies", "warn", "9 fakes have the same bytes under two generators", "attribution cannot tell them apart"
        )
    ]


def test_facts_of_the_files_that_tell_the_classes_apart(dolos: Path, cache: Path) -> None:
    for path in (dolos / "celebahq/fake/lama/images").glob("*/*"):
        Image.open(path).resize((20, 16)).convert("L").save(path.with_suffix(".jpg"))
        path.unlink()
    for path in (dolos / "celebahq/fake/lama/masks").glob("*/*"):
        write_image(path, np.zeros((16, 20), dtype=np.uint8))
    assert [finding.text for finding in findings("shortcuts", dolos, cache)] == [
        "lama and real images differ in file format (JPEG 100% against PNG 100%)",
        "lama and real images differ in image size (20 x 16 100% against 16 x 16 100%)",
        "lama and real images differ in pixel type on disk (L 100% against RGB 100%)",
    ]


def test_jpeg_quality_as_a_shortcut(dolos: Path, cache: Path) -> None:
    for path in sorted((dolos / "celebahq").rglob("*.png")):
        if "masks" not in path.parts:
            save_as_jpeg(path, 95 if "ldm" in path.parts else 75)
    (found,) = findings("shortcuts", dolos, cache)
    assert found.level == "warn"
    assert found.text.startswith("ldm and real images differ in JPEG quantisation (")
    assert found.remedy == "a detector can learn that instead"


@pytest.mark.parametrize(("num", "shown"), [(1, 0), (3, 1)])
def test_a_few_odd_files_are_no_shortcut(tmp_path: Path, cache: Path, num: int, shown: int) -> None:
    # 1 and 3 of 40: SHARE_THAT_MATTERS is 5 %
    root = write_dolos(tmp_path / "x", ["lama"], {"train": 20, "valid": 10, "test": 10})
    for path in sorted((root / "celebahq/fake/lama/images/train").iterdir())[:num]:
        save_as_jpeg(path)
    texts = [finding.text for finding in findings("shortcuts", root, cache) if "format" in finding.text]
    assert len(texts) == shown


def test_unequal_numbers_of_test_images(dolos: Path, cache: Path) -> None:
    for folder in ("images", "masks"):
        (dolos / "celebahq/fake/ldm" / folder / "test/00006.png").unlink()
    assert list(map(str, findings("counts", dolos, cache))) == [
        "ldm, test: 2 fakes against 3 real images; read balanced accuracy"
    ]


def test_numbers_of_training_images_are_no_finding(dolos: Path, cache: Path) -> None:
    for folder in ("images", "masks"):
        (dolos / "celebahq/fake/ldm" / folder / "train/00000.png").unlink()
    assert findings("counts", dolos, cache) == []


def test_an_audit_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data.audits._audits, "_entries", {})

    @register_audit("toy")
    def broken(evidence: Evidence) -> Iterator[Any]:
        yield "note", "fine", ""
        raise ZeroDivisionError

    with pytest.raises(RuntimeError, match=r"the audit 'toy' failed: ZeroDivisionError\(\)"):
        run_audits(Evidence(Manifest(Path(), "dolos", None)), ["toy"])  # type: ignore[arg-type]


def test_a_level_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="the level of a finding is one of note, warn, fail; got 'critical'"):
        Finding("toy", "critical", "text")  # type: ignore[arg-type]
