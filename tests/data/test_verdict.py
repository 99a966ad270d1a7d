"""What findings come to: a level per audit, one line, and whether a grid may start."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

import data.audits
from data.audits import Evidence, Finding, Found, register_audit
from data.manifest import Manifest
from data.verdict import Verdict, judge

NOTE, WARN, FAIL = Finding("a", "note", "x"), Finding("a", "warn", "y"), Finding("b", "fail", "z", "mend it")


@pytest.mark.parametrize(
    ("findings", "accepted", "levels", "refused", "line"),
    [
        ((), (), ["pass", "pass", "pass"], [], "3 pass"),
        ((NOTE,), (), ["note", "pass", "pass"], [], "1 note (a), 2 pass"),
        ((WARN, NOTE), (), ["warn", "pass", "pass"], [], "1 warn (a), 2 pass"),
        ((NOTE, WARN, FAIL), (), ["warn", "fail", "pass"], ["b"], "1 fail (b), 1 warn (a), 1 pass"),
        ((FAIL,), ("b",), ["pass", "fail", "pass"], [], "1 fail (b, accepted), 2 pass"),
        ((FAIL,), ("a",), ["pass", "fail", "pass"], ["b"], "1 fail (b), 2 pass"),
    ],
)
def test_a_level_for_each_audit(
    findings: tuple[Finding, ...], accepted: tuple[str, ...], levels: list[str], refused: list[str], line: str
) -> None:
    verdict = Verdict(("a", "b", "c"), findings, accepted)
    assert list(verdict.levels.values()) == levels
    assert verdict.worst == max(levels, key=["pass", "note", "warn", "fail"].index)
    assert verdict.refused == refused
    assert str(verdict) == line
    assert Verdict.from_dict(json.loads(json.dumps(verdict.to_dict()))) == verdict


@pytest.fixture
def manifest(monkeypatch: pytest.MonkeyPatch) -> Manifest:
    """With a finding of an audit that decodes nothing; the register has that audit and one that decodes."""
    monkeypatch.setattr(data.audits._audits, "_entries", {})
    monkeypatch.setattr(data.audits._audits, "_complete", True)

    @register_audit("plain")
    def plain(evidence: Evidence) -> Iterator[Found]:
        raise AssertionError("it has run already")

    @register_audit("seeing", decodes=True)
    def seeing(evidence: Evidence) -> Iterator[Found]:
        assert evidence.measured is not None
        yield "fail", f"{len(evidence.measured)} images are blue", "paint them", ["a.png"], {"blue": 1}

    return Manifest(Path(), "dolos", pd.DataFrame(), findings=(Finding("plain", "note", "few images"),))


def test_without_pixels_the_manifests_findings_count(manifest: Manifest) -> None:
    verdict = judge(manifest)
    assert (verdict.audits, verdict.findings, str(verdict)) == (("plain",), manifest.findings, "1 note (plain)")


def test_audits_of_pixels_are_added_once(manifest: Manifest) -> None:
    verdict = judge(manifest, pd.DataFrame({"blue": [1.0, 1.0]}))
    assert verdict.audits == ("plain", "seeing")
    found = Finding("seeing", "fail", "2 images are blue", "paint them", ("a.png",), (("blue", 1.0),))
    assert verdict.findings == (*manifest.findings, found)
    assert verdict.refused == ["seeing"]
    again = judge(dataclasses.replace(manifest, findings=verdict.findings), pd.DataFrame({"blue": [1.0, 1.0]}))
    assert again.findings == verdict.findings


def test_a_manifest_with_other_findings_is_the_same_data_set(manifest: Manifest) -> None:
    columns = ["label", "generator", "source_id", "split", "digest", "mask_digest"]
    own = dataclasses.replace(manifest, table=pd.DataFrame(columns=columns))
    assert own.with_findings([WARN]).findings == (WARN,)
    assert own.with_findings([WARN]).digest == own.digest
