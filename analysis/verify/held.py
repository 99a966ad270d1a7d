"""The evidence held against itself: files, the manifest and keys, and the rows of every trial."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.verify import estimates
from analysis.verify.evidence import CLEAN, OPEN_SET, ROW, SUMS, WHOLE, Difference, Evidence, manifest_digest


def check_sums(folder: Path, listed: Mapping[str, str]) -> Iterator[Difference]:
    """Files of an export that are not those that were exported, by `read_sums`."""
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {SUMS}
    for name in sorted(listed.keys() | present):
        if name not in present:
            yield Difference(SUMS, name, "sha256", listed[name], "the file is missing")
        elif name not in listed:
            yield Difference(SUMS, name, "sha256", "no line", "the file was not exported")
        elif (found := hashlib.sha256((folder / name).read_bytes()).hexdigest()) != listed[name]:
            yield Difference(SUMS, name, "sha256", listed[name], found)


def check_manifest(evidence: Evidence) -> Iterator[Difference]:
    """Whether the manifest is the data set of the grid and of its trials."""
    digest = manifest_digest(evidence.manifest)
    if digest != evidence.facts["data"]:
        yield Difference("manifest.csv", "all", "digest of the data set", evidence.facts["data"], digest)
    left_behind = {path.stem for path in (evidence.folder / "specs").glob("*.json")} | set(evidence.logged["key"])
    for key in sorted(left_behind - set(evidence.all_trials["key"])):
        yield Difference("trials.csv", WHOLE, "key", "no row", f"trial {key}, as in specs or metrics.csv")
    for key in evidence.all_trials["key"]:
        spec = evidence.spec(key)
        if spec["data"] != digest:
            yield Difference(f"specs/{key}.json", key, "data", str(spec["data"]), digest)
        if key in evidence.facts.get("specs_without_paths", ()):
            continue
        text = json.dumps({k: v for k, v in spec.items() if k != "key"}, sort_keys=True, separators=(",", ":"))
        derived = hashlib.sha256(text.encode()).hexdigest()[:16]
        if derived != key:
            yield Difference(f"specs/{key}.json", key, "key", key, derived)


def check_rows(evidence: Evidence, key: str, condition: str) -> Iterator[Difference]:
    """Whether a trial's rows are the test images of the manifest, and each score is the difference of its logits."""
    file, rows = f"scores/{key}/{condition}.parquet", evidence.scores(key, condition)
    classes = evidence.classes(key) or tuple(n.removeprefix("logit_") for n in rows.columns if n.startswith("logit_"))
    numbers = [f"logit_{name}" for name in classes]
    numbers += ["score"] if classes == ("real", "fake") else []
    if evidence.spec(key)["task"] == OPEN_SET:
        numbers += [str(name) for name in rows.columns if str(name).startswith("unknown_")]
    if absent := [name for name in ["trial", "condition", "path", *ROW, *numbers] if name not in rows.columns]:
        yield Difference(file, WHOLE, ", ".join(absent), "no such column", "a column")
        return
    for column, value in (("trial", key), ("condition", condition)):
        for other in sorted(set(rows[column].astype(str)) - {value}):
            yield Difference(file, "all", column, other, value)
    yield from _held_against(evidence, file, rows, "test")
    for column in numbers:
        bad = ~np.isfinite(pd.to_numeric(rows[column], errors="coerce").to_numpy(float))
        if bad.any():
            path = rows.loc[bad, "path"].iloc[0]
            yield Difference(file, WHOLE, column, f"{bad.sum()} values such as that of {path}", "finite numbers")
            return
    if "score" in numbers:
        derived = rows["logit_fake"] - rows["logit_real"]
        for index in np.flatnonzero(rows["score"].to_numpy() != derived.to_numpy()):
            shown = repr(float(rows["score"].iloc[index]))
            yield Difference(file, str(rows["path"].iloc[index]), "score", shown, repr(float(derived.iloc[index])))
    vectors = evidence.embeddings(key) if condition == CLEAN else None
    if vectors is None:
        return
    embedded, num_rows = evidence.embedded(key), len(rows)
    if embedded is not None:
        sample = estimates.sample(evidence.classes_of_images(key))
        num_rows = len(sample)
        if not np.array_equal(embedded, sample):
            words = f"{len(embedded)} rows", f"the sample of {len(sample)} rows with the same share of each class"
            yield Difference(f"embeddings/{key}-rows.npy", "all", "rows", *words)
    if len(vectors) != num_rows:
        yield Difference(f"embeddings/{key}.npy", "all", "rows", str(len(vectors)), str(num_rows))


def check_validation(evidence: Evidence, key: str) -> Iterator[Difference]:
    """Whether a trial's validation rows are the validation images of the manifest, under each training condition."""
    kept = evidence.validation(key)
    if kept is None:
        return
    file, rows = f"validation/{key}.parquet", kept[0]
    if absent := [name for name in ["path", *ROW, "score"] if name not in rows.columns]:
        yield Difference(file, WHOLE, ", ".join(absent), "no such column", "a column")
        return
    if bad := int((~np.isfinite(pd.to_numeric(rows["score"], errors="coerce").to_numpy(float))).sum()):
        yield Difference(file, WHOLE, "score", f"{bad} values that are not finite", "finite numbers")
        return
    under = rows["condition"].astype(str) if "condition" in rows.columns else pd.Series(CLEAN, index=rows.index)
    trained = str(evidence.spec(key).get("train_condition", CLEAN)).split("+")
    for other in sorted(set(under) - set(trained)):
        yield Difference(file, "all", "condition", other, ", ".join(trained))
    for condition in trained:
        yield from _held_against(evidence, file, rows[under == condition], "valid")


def _held_against(evidence: Evidence, file: str, rows: pd.DataFrame, split: str) -> Iterator[Difference]:
    """Whether rows are the images of a split of the manifest, each once, with its label, generator and source."""
    images = evidence.manifest[evidence.manifest["split"] == split]
    wanted, found = (_counted(table) for table in (images, rows))
    known = {identity[3]: identity for identity in wanted}
    for identity, count in found.items():
        if count <= wanted.get(identity, 0):
            continue
        path = str(rows.loc[rows["digest"] == identity[3], "path"].iloc[0])
        match = known.get(identity[3])
        if match is None or match == identity:
            yield Difference(file, path, "digest", identity[3], f"no such {split} image in the manifest")
            continue
        for column, shown, derived in zip(ROW, identity, match, strict=True):
            if shown != derived:
                yield Difference(file, path, column, str(shown), str(derived))
    digests = set(rows["digest"])
    for identity, count in wanted.items():
        if found.get(identity, 0) < count and (identity[3] not in digests or identity in found):
            path = str(images.loc[images["digest"] == identity[3], "path"].iloc[0])
            yield Difference(file, path, "all", "no row", f"a {split} image of the manifest")


def _counted(table: pd.DataFrame) -> dict[tuple[Any, ...], int]:
    rows = zip(table["label"].tolist(), *(table[name].astype(str) for name in ROW[1:]), strict=True)
    counts: dict[tuple[Any, ...], int] = {}
    for row in rows:
        counts[row] = counts.get(row, 0) + 1
    return counts
