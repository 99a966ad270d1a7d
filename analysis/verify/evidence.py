"""What the trials of a grid left behind, read from a folder of `python -m analysis export`, and held against itself."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.verify import estimates
from analysis.verify.estimates import Estimate, Images, Piece

FORMAT = 1
FACTS, SUMS = "export.json", "SHA256SUMS"
WHOLE = "(the whole file)"  # in the place of a row, where nothing of the file can be used
CLEAN, DETECTION, ATTRIBUTION, FINISHED = "clean", "detection", "attribution", "finished"
CELL, IN_DOMAIN, CROSS, GAP = "cell", "in-domain mean", "cross-generator mean", "gap"
_ROW = ["label", "generator", "source_id", "digest"]

Where = tuple[str, str, str, str]  # condition, trained on, tested on, metric


class EvidenceError(ValueError):
    """The folder cannot be read as an export; the message says what to do."""


@dataclass(frozen=True)
class Difference:
    """A value that is not what follows from the evidence.

    Attributes:
        file: the file with the value, relative to its folder.
        row, column: where it stands.
        shown: as it stands there.
        derived: as it follows.
    """

    file: str
    row: str
    column: str
    shown: str
    derived: str

    def __str__(self) -> str:
        return f"{self.file}, row {self.row}, column {self.column}: shown {self.shown}, derived {self.derived}"


@dataclass(frozen=True)
class Value:
    """A value as tables show it: its mean over seeds, their standard deviation, and its interval; NaN where unknown."""

    mean: float
    std: float
    num_seeds: int
    low: float
    high: float

    @property
    def shown(self) -> tuple[float, ...]:
        """The numbers of a cell such as "0.912 ± 0.004 [0.890, 0.930]"."""
        return tuple(v for v in (self.mean, self.std, self.low, self.high) if not np.isnan(v))


@dataclass
class Evidence:
    """An export.

    Attributes:
        folder: its folder.
        tables: the CSV tables of the report, as text, by their names.
    """

    folder: Path
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    _scores: dict[tuple[str, str], pd.DataFrame] = field(default_factory=dict)

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What export.json holds."""
        try:
            facts: dict[str, Any] = json.loads((self.folder / FACTS).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise EvidenceError(f"{self.folder / FACTS} cannot be read: {error}; export the grid again") from error
        if facts.get("format") != FORMAT:
            raise EvidenceError(
                f"the export in {self.folder} has format {facts.get('format')}, this code reads {FORMAT}: check out "
                f"the commit that it was made with"
            )
        return facts

    @cached_property
    def manifest(self) -> pd.DataFrame:
        """One row per image; every column is text but `label`."""
        table = _csv(self.folder / "manifest.csv", ["path", "split", "mask_digest", *_ROW])
        if not table["label"].isin(["0", "1"]).all():
            raise EvidenceError(f"{self.folder / 'manifest.csv'} has a label that is neither 0 nor 1")
        return table.assign(label=table["label"].astype(int))

    @cached_property
    def trials(self) -> pd.DataFrame:
        """One row per planned trial, with `variant`, from its specification."""
        table = _csv(self.folder / "trials.csv", ["key", "state", "run_id", "threshold", "conditions"])
        specs = [self.spec(key) for key in table["key"]]
        configs = [dict(spec["config"], train_condition=spec.get("train_condition", CLEAN)) for spec in specs]
        table["task"] = [spec["task"] for spec in specs]
        table["method"] = [spec["method"] for spec in specs]
        table["seed"] = [int(spec["seed"]) for spec in specs]
        table["trained_on"] = ["+".join(sorted(set(spec["train_generators"]))) or "none" for spec in specs]
        table["train_condition"] = [config["train_condition"] for config in configs]
        table["config"] = [json.dumps(spec["config"], sort_keys=True) for spec in specs]
        table["variant"] = _variants([spec["method"] for spec in specs], configs)
        return table

    @cached_property
    def finished(self) -> pd.DataFrame:
        """The finished trials."""
        return self.trials[self.trials["state"] == FINISHED]

    @cached_property
    def generators(self) -> list[str]:
        """Every generator that a trial was trained or tested on."""
        trained = {name for text in self.trials["trained_on"] for name in text.split("+")} - {"none"}
        test = self.manifest[(self.manifest["split"] == "test") & (self.manifest["label"] == 1)]
        has_tests = bool((self.finished["task"] == DETECTION).any())
        return sorted(trained | (set(test["generator"]) if has_tests else set()))

    @cached_property
    def logged(self) -> pd.DataFrame:
        """Values that the trials logged: key, metric, value."""
        return _csv(self.folder / "metrics.csv", ["key", "metric", "value"])

    def spec(self, key: str) -> dict[str, Any]:
        """A trial's specification."""
        try:
            spec: dict[str, Any] = json.loads((self.folder / "specs" / f"{key}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise EvidenceError(f"the specification of trial {key} cannot be read: {error}") from error
        return spec

    def conditions(self, key: str) -> list[str]:
        """The conditions that a trial was scored under."""
        text = str(self.trials.loc[self.trials["key"] == key, "conditions"].iloc[0])
        return text.split(",") if text else []

    def scores(self, key: str, condition: str = CLEAN) -> pd.DataFrame:
        """One row per test image."""
        if (key, condition) not in self._scores:
            path = self.folder / "scores" / key / f"{condition}.parquet"
            try:
                self._scores[key, condition] = pd.read_parquet(path)
            except Exception as error:  # pyarrow raises many kinds
                raise EvidenceError(f"{path} cannot be read: {error}") from error
        return self._scores[key, condition]

    def embeddings(self, key: str) -> np.ndarray | None:
        """Rows as in `scores`; None if none are stored."""
        path = self.folder / "embeddings" / f"{key}.npy"
        return np.load(path, allow_pickle=False) if path.is_file() else None

    def classes(self, key: str) -> tuple[str, ...]:
        """A trial's classes in the order of its logits; empty for a task without a rule."""
        spec = self.spec(key)
        of_task = {DETECTION: ("real", "fake"), ATTRIBUTION: ("real", *sorted(set(spec["train_generators"])))}
        return of_task.get(spec["task"], ())

    @cached_property
    def photographs(self) -> pd.Index:
        """The source photographs of the test set."""
        test = self.manifest.loc[self.manifest["split"] == "test", "source_id"]
        return pd.Index(sorted(set(test)))

    def images(self, key: str, condition: str = CLEAN) -> dict[str, Images]:
        """What a trial is tested on -> its scored images, answered at p = 0.5."""
        rows, classes = self.scores(key, condition), self.classes(key)
        rows = rows[rows["source_id"].isin(self.photographs)]
        logits = rows[[f"logit_{name}" for name in classes]].to_numpy()
        units = self.photographs.get_indexer(pd.Index(rows["source_id"]))
        fake, made_by = rows["label"].to_numpy() == 1, rows["generator"].to_numpy(object)
        found = {}
        if classes == ("real", "fake"):
            scores = (logits[:, 1] - logits[:, 0]).astype(np.float64)
            for generator in dict.fromkeys(made_by[fake]):
                cell = (made_by == generator) | (~fake & (made_by == "real"))
                labels, of_cell = fake[cell].astype(int), scores[cell]
                answers = (of_cell > 0).astype(int)
                found[str(generator)] = Images(labels, answers, units[cell], len(self.photographs), classes, of_cell)
            return found
        number = {name: position for position, name in enumerate(classes)}
        labels = np.array(
            [number.get(name if is_fake else "real", -1) for name, is_fake in zip(made_by, fake, strict=True)]
        )
        cell = labels >= 0
        answers = logits[cell].argmax(axis=1)
        found["all"] = Images(labels[cell], answers, units[cell], len(self.photographs), classes)
        return found

    # Values ----------------------------------------------------------------------------------------------------------

    @cached_property
    def _measured(self) -> dict[tuple[str, str], dict[tuple[str, str], tuple[float, list[Piece]]]]:
        return {}

    def of_trial(self, key: str, condition: str) -> dict[tuple[str, str], tuple[float, list[Piece]]]:
        """(tested on, metric) -> value and the pieces that it is the sum of; of every metric with a rule."""
        if not self.classes(key):
            return {}
        if (key, condition) not in self._measured:
            threshold = str(self.trials.loc[self.trials["key"] == key, "threshold"].iloc[0])
            values = {}
            for tested_on, images in self.images(key, condition).items():
                for name in estimates.metrics_of(images.classes):
                    plain = name.removesuffix(estimates.VALIDATION)
                    if plain == name:
                        at = images
                    elif threshold:
                        at = images.at(float(threshold))
                    else:
                        continue
                    values[tested_on, name] = estimates.metric(at, plain), estimates.pieces(at, plain)
            self._measured[key, condition] = values
        return self._measured[key, condition]

    @cached_property
    def _cells(self) -> dict[tuple[str, str, str], dict[Where, tuple[dict[int, float], Estimate]]]:
        return {}

    def cells(self, task: str, variant: str, condition: str = CLEAN) -> dict[Where, tuple[dict[int, float], Estimate]]:
        """Cell -> its value per seed, and the estimate of the mean over seeds."""
        key = task, variant, condition
        if key not in self._cells:
            trials = self.finished[(self.finished["task"] == task) & (self.finished["variant"] == variant)]
            values: dict[Where, dict[int, float]] = {}
            parts: dict[Where, list[list[Piece]]] = {}
            for trial, trained_on, seed in trials[["key", "trained_on", "seed"]].itertuples(index=False):
                if condition not in self.conditions(trial):
                    continue
                for (tested_on, name), (value, of_trial) in self.of_trial(trial, condition).items():
                    where = condition, trained_on, tested_on, name
                    values.setdefault(where, {})[int(seed)] = value
                    parts.setdefault(where, []).append(of_trial)
            self._cells[key] = {where: (values[where], estimates.over_seeds(parts[where])) for where in values}
        return self._cells[key]

    def value(self, task: str, variant: str, where: Where) -> Value | None:
        """A cell as tables show it; None if it is missing."""
        entry = self.cells(task, variant, where[0]).get(where)
        if entry is None:
            return None
        by_seed, estimate = entry
        values = list(by_seed.values())
        return Value(float(np.mean(values)), _std(values), len(values), estimate.low, estimate.high)

    def means(self, variant: str, metric: str, condition: str = CLEAN) -> dict[str, Value]:
        """In-domain mean, cross-generator mean and gap of a variant's matrix, as far as it has such cells."""
        cells = {w: entry for w, entry in self.cells(DETECTION, variant, condition).items() if w[3] == metric}
        found: dict[str, Value] = {}
        of_kind: dict[str, tuple[Estimate, dict[int, float]]] = {}
        for kind in (IN_DOMAIN, CROSS):
            chosen = [entry for w, entry in cells.items() if (w[2] in w[1].split("+")) == (kind == IN_DOMAIN)]
            if not chosen:
                continue
            estimate = estimates.mean_of([estimate for _, estimate in chosen])
            seeds = set.intersection(*(set(by_seed) for by_seed, _ in chosen))
            by_seed = {seed: float(np.mean([entry[0][seed] for entry in chosen])) for seed in sorted(seeds)}
            mean = float(np.mean([np.mean(list(entry[0].values())) for entry in chosen]))
            of_kind[kind] = estimate, by_seed
            found[kind] = Value(mean, _std(list(by_seed.values())), len(by_seed), estimate.low, estimate.high)
        if len(of_kind) == 2:
            (a, seeds_a), (b, seeds_b) = of_kind[IN_DOMAIN], of_kind[CROSS]
            _, low, high, _ = estimates.difference(a, b)
            gaps = [seeds_a[seed] - seeds_b[seed] for seed in seeds_a if seed in seeds_b]
            found[GAP] = Value(found[IN_DOMAIN].mean - found[CROSS].mean, _std(gaps), len(gaps), low, high)
        return found


# Held against itself -------------------------------------------------------------------------------------------------


def manifest_digest(manifest: pd.DataFrame) -> str:
    """16 hexadecimal digits of SHA-256 over the rows' content: the data set's digest."""
    columns = ["label", "generator", "source_id", "split", "digest", "mask_digest"]
    rows = manifest[columns].astype(object).to_numpy().tolist()
    lines = sorted(json.dumps([*row[:5], row[5] or None]) for row in rows)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def read_sums(folder: Path) -> dict[str, str]:
    """File -> its SHA-256 when it was exported."""
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
        return {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    except (OSError, ValueError) as error:
        raise EvidenceError(f"{folder / SUMS} cannot be read: {error}; export the grid again") from error


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
    for key in evidence.trials["key"]:
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
    if absent := [name for name in ["trial", "condition", "path", *_ROW, *numbers] if name not in rows.columns]:
        yield Difference(file, WHOLE, ", ".join(absent), "no such column", "a column")
        return
    for column, value in (("trial", key), ("condition", condition)):
        for other in sorted(set(rows[column].astype(str)) - {value}):
            yield Difference(file, "all", column, other, value)
    test = evidence.manifest[evidence.manifest["split"] == "test"]
    wanted, found = (_counted(table) for table in (test, rows))
    known = {identity[3]: identity for identity in wanted}
    for identity, count in found.items():
        if count <= wanted.get(identity, 0):
            continue
        path = str(rows.loc[rows["digest"] == identity[3], "path"].iloc[0])
        match = known.get(identity[3])
        if match is None or match == identity:
            yield Difference(file, path, "digest", identity[3], "no such test image in the manifest")
            continue
        for column, shown, derived in zip(_ROW, identity, match, strict=True):
            if shown != derived:
                yield Difference(file, path, column, str(shown), str(derived))
    digests = set(rows["digest"])
    for identity, count in wanted.items():
        if found.get(identity, 0) < count and (identity[3] not in digests or identity in found):
            path = str(test.loc[test["digest"] == identity[3], "path"].iloc[0])
            yield Difference(file, path, "all", "no row", "a test image of the manifest")
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
    if vectors is not None and len(vectors) != len(rows):
        yield Difference(f"embeddings/{key}.npy", "all", "rows", str(len(vectors)), str(len(rows)))


def _counted(table: pd.DataFrame) -> dict[tuple[Any, ...], int]:
    rows = zip(table["label"].tolist(), *(table[name].astype(str) for name in _ROW[1:]), strict=True)
    counts: dict[tuple[Any, ...], int] = {}
    for row in rows:
        counts[row] = counts.get(row, 0) + 1
    return counts


def _csv(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise EvidenceError(f"{path} cannot be read: {error}") from error
    if absent := [name for name in columns if name not in table.columns]:
        raise EvidenceError(f"{path} has no column {', '.join(absent)}; export the grid again")
    return table


def _std(values: list[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")


def _variants(methods: list[str], configs: list[dict[str, Any]]) -> list[str]:
    """A method's name; where it has several configurations, with the settings that differ."""
    variants = []
    for method, config in zip(methods, configs, strict=True):
        others = [other for name, other in zip(methods, configs, strict=True) if name == method]
        settings = sorted({setting for other in others for setting in other})
        differ = [name for name in settings if len({json.dumps(other.get(name)) for other in others}) > 1]
        words = ", ".join(f"{name}={config.get(name, 'unset')}" for name in differ)
        variants.append(f"{method} ({words})" if words else method)
    return variants


def slug(text: str) -> str:
    """A text as the name of a file of the report."""
    return re.sub(r"[^a-z0-9_.]+", "-", text.lower().replace("+", "-and-")).strip("-")
