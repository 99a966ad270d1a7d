from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import data.audits
from data.audits import LEVELS, MOST_FILES, Evidence, Finding, audits_for, register_audit, run_audits
from data.manifest import Manifest, build_manifest
from data.sources.base import SPLITS
from tests.corpora import save_as_jpeg, write_dolos, write_folders


def findings(audit: str, root: Path, cache: Path, source: str = "dolos") -> list[Finding]:
    return run_audits(Evidence(build_manifest(source, root, cache=cache)), [audit])


# Every audit


@pytest.mark.parametrize("name", audits_for(measured=False))
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


@pytest.mark.parametrize("name", audits_for(measured=False))
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
    with pytest.raises(KeyError, match=r"no audit named 'header' \(did you mean 'headers'\?\); there are: .*copies"):
        run_audits(Evidence(Manifest(Path(), "dolos", None)), ["header"])  # type: ignore[arg-type]


def test_all_of_them_run_on_every_manifest_and_are_kept_with_it(troubled: Manifest, tmp_path: Path) -> None:
    found = {("copies", "note"), ("counts", "note"), ("headers", "warn")}
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
    (found,) = findings("copies", dolos, cache)
    assert str(found) == "1 files are copies of another file of the same split, and count twice"
    assert found.files in [(f"celebahq/fake/lama/images/test/{name}",) for name in (first.name, "copy.png")]
    assert found.numbers == (("copies", 1.0),)


def test_two_generators_with_the_same_fakes(dolos: Path, cache: Path) -> None:
    shutil.copytree(dolos / "celebahq/fake/lama", dolos / "celebahq/fake/twin")
    (found,) = findings("copies", dolos, cache)
    assert (found.level, str(found)) == (
        "warn", "9 fakes have the same bytes under two generators; attribution cannot tell them apart",
    )  # fmt: skip
    assert len(found.files) == 18
    assert {Path(name).parts[2] for name in found.files} == {"lama", "twin"}


def test_a_finding_names_no_more_files_than_a_reader_can_look_at(tmp_path: Path, cache: Path) -> None:
    root = write_dolos(tmp_path / "x", ["lama"], {"train": 30, "valid": 2, "test": 2})
    shutil.copytree(root / "celebahq/fake/lama", root / "celebahq/fake/twin")
    (found,) = findings("copies", root, cache)
    assert (len(found.files), found.numbers) == (MOST_FILES, (("fakes", 34.0),))


def take_out(root: Path, generator: str, split: str, keep: int) -> None:
    """Leave `keep` fakes of a generator in a split."""
    for folder in ("images", "masks"):
        for path in sorted((root / "celebahq/fake" / generator / folder / split).iterdir())[keep:]:
            path.unlink()


def test_unequal_numbers_of_test_images(dolos: Path, cache: Path) -> None:
    take_out(dolos, "ldm", "test", 2)
    assert list(map(str, findings("counts", dolos, cache))) == [
        "ldm, test: 2 fakes against 3 real images; read balanced accuracy"
    ]


def test_one_training_image_less_is_no_finding(dolos: Path, cache: Path) -> None:
    take_out(dolos, "ldm", "train", 3)
    assert findings("counts", dolos, cache) == []


def test_six_fakes_against_sixty_real_images(tmp_path: Path, cache: Path) -> None:
    root = write_dolos(tmp_path / "x", ["lama", "ldm"], {"train": 60, "valid": 2, "test": 2})
    take_out(root, "ldm", "train", 6)
    of_classes, of_generators = findings("counts", root, cache)
    assert (of_classes.level, of_generators.level) == ("warn", "warn")
    assert of_classes.text == (
        "ldm, train: 6 fakes against 60 real images, so the answer 'real' alone is right for 91% of them"
    )
    assert of_classes.numbers == (("fakes", 6.0), ("reals", 60.0))
    assert of_generators.text.startswith("training sets differ in size (lama 60, ldm 6 fakes)")


def test_one_validation_fake_against_two_real_images(dolos: Path, cache: Path) -> None:
    take_out(dolos, "lama", "valid", 1)
    (found,) = findings("counts", dolos, cache)
    assert (found.level, found.text.partition(",")[0]) == ("warn", "lama")
    assert "lama, valid: 1 fakes against 2 real images" in found.text


def test_real_images_of_every_generator_are_one_class_of_attribution(tmp_path: Path, cache: Path) -> None:
    folders = {f"{name}/{split}/{kind}": 4 for name in "ab" for split in SPLITS for kind in ("0_real", "1_fake")}
    root = write_folders(tmp_path / "x", folders, restart=False)
    assert findings("counts", root, cache, "folders") == [
        Finding(
            "counts", "note", "attribution, train: 8 real images against at most 4 fakes of one generator",
            "read balanced accuracy, and the accuracy of each class", (), (("reals", 8.0), ("fakes_of_largest", 4.0)),
        )
    ]  # fmt: skip


def test_an_audit_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data.audits._audits, "_entries", {})

    @register_audit("toy")
    def broken(evidence: Evidence) -> Iterator[Any]:
        yield "note", "fine", ""
        raise ZeroDivisionError

    with pytest.raises(RuntimeError, match=r"the audit 'toy' failed: ZeroDivisionError\(\)"):
        run_audits(Evidence(Manifest(Path(), "dolos", None)), ["toy"])  # type: ignore[arg-type]


def test_a_finding_survives_json() -> None:
    finding = Finding("x", "warn", "all fakes are blue", "paint them", ("a.png",), (("share", 0.5),))
    assert Finding.from_dict(json.loads(json.dumps(finding.to_dict()))) == finding
    assert Finding.from_dict({"audit": "x", "level": "note", "text": "of an older version", "remedy": ""}).files == ()


def test_a_level_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="the level of a finding is one of note, warn, fail; got 'critical'"):
        Finding("toy", "critical", "text")  # type: ignore[arg-type]
