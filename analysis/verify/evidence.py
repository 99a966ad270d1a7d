"""What the trials of a grid left behind, read from a folder of `python -m analysis export`."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.verify import estimates, seeds
from analysis.verify.estimates import Estimate, Images, Piece
from analysis.verify.seeds import Seeds
from analysis.verify.sizes import equal_rows

FORMAT = 1
FACTS, SUMS = "export.json", "SHA256SUMS"
WHOLE = "(the whole file)"  # in the place of a row, where nothing of the file can be used
CLEAN, PASTED, FINISHED = "clean", "paste-back", "finished"
DETECTION, ATTRIBUTION, OPEN_SET = "detection", "attribution", "open_set"
SHUFFLED, REAL_ALONE = "shuffled_labels", "real_against_real"  # controls, whose labels follow from the seed
METHOD, CONTROL, REFERENCE = "method", "control", "reference"
CELL, IN_DOMAIN, CROSS, GAP = "cell", "in-domain mean", "cross-generator mean", "gap"
ONE_GENERATOR, SEVERAL_GENERATORS = ", trained on one generator", ", trained on several generators"
ROW = ["label", "generator", "source_id", "digest"]
_SPEC = ("task", "method", "seed", "train_generators", "config", "data")

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
    """A value as tables show it, NaN where unknown.

    Attributes:
        mean, std, num_seeds: over seeds.
        low, high: the confidence interval of the mean.
        one_more_low, one_more_high: the prediction interval of one more run.
        depends_on_seed: whether the method does.
    """

    mean: float
    std: float
    num_seeds: int
    low: float
    high: float
    one_more_low: float
    one_more_high: float
    depends_on_seed: bool

    @property
    def shown(self) -> tuple[float, ...]:
        """The numbers of a cell such as "0.912 ± 0.004 [0.890, 0.930]"."""
        return tuple(v for v in (self.mean, self.std, self.low, self.high) if not np.isnan(v))

    @property
    def in_brief(self) -> tuple[float, ...]:
        """The same in a table of several methods: without a deviation over seeds that change nothing."""
        values = (self.mean, self.std if self.depends_on_seed else np.nan, self.low, self.high)
        return tuple(v for v in values if not np.isnan(v))


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
        if not isinstance(facts.get("data"), str):
            raise EvidenceError(f"{self.folder / FACTS} does not name the data set; export the grid again")
        return facts

    @cached_property
    def manifest(self) -> pd.DataFrame:
        """One row per image; every column is text but `label`."""
        table = _csv(self.folder / "manifest.csv", ["path", "split", "mask_digest", *ROW])
        if not table["label"].isin(["0", "1"]).all():
            raise EvidenceError(f"{self.folder / 'manifest.csv'} has a label that is neither 0 nor 1")
        return table.assign(label=table["label"].astype(int))

    @cached_property
    def all_trials(self) -> pd.DataFrame:
        """One row per planned trial, with `variant`, from its specification; `kind` is method, reference or control."""
        columns = ["key", "kind", "depends_on_seed", "state", "run_id", "threshold", "conditions"]
        table = _csv(self.folder / "trials.csv", columns)
        specs = [self.spec(key) for key in table["key"]]
        table["task"] = [spec["task"] for spec in specs]
        table["method"] = [spec["method"] for spec in specs]
        table["seed"] = [int(spec["seed"]) for spec in specs]
        table["trained_on"] = ["+".join(sorted(set(spec["train_generators"]))) or "none" for spec in specs]
        table["train_condition"] = [spec.get("train_condition", CLEAN) for spec in specs]
        sizes = [spec.get("equal_size") for spec in specs]
        table["equal_size"] = ["" if size is None else f"{size['train']},{size['valid']}" for size in sizes]
        table["config"] = [json.dumps(spec["config"], sort_keys=True) for spec in specs]
        table["depends_on_seed"] = table["depends_on_seed"] == "True"
        table["variant"] = _variants(table)
        return table

    def of_kind(self, kind: str) -> pd.DataFrame:
        """The trials of a kind; what tells variants of a method apart is what differs among them."""
        table = self.all_trials[self.all_trials["kind"] == kind]
        return table.assign(variant=_variants(table))

    @cached_property
    def trials(self) -> pd.DataFrame:
        """The trials of methods."""
        return self.of_kind(METHOD)

    @cached_property
    def finished(self) -> pd.DataFrame:
        """The finished trials of methods."""
        return self.trials[self.trials["state"] == FINISHED]

    def runs(self, task: str, variant: str, *conditions: str) -> pd.DataFrame:
        """The finished trials of a variant that were scored under each of the conditions."""
        found = self.finished[(self.finished["task"] == task) & (self.finished["variant"] == variant)]
        return found[np.array([set(conditions) <= set(self.conditions(key)) for key in found["key"]], dtype=bool)]

    @cached_property
    def generators(self) -> list[str]:
        """Every generator that a trial was trained or tested on, as far as it has test images."""
        trained = {name for text in self.trials["trained_on"] for name in text.split("+")} - {"none"}
        fakes = self.manifest[(self.manifest["split"] == "test") & (self.manifest["label"] == 1)]
        tested, has_tests = set(fakes["generator"]), bool((self.finished["task"] == DETECTION).any())
        return sorted(tested if has_tests else trained & tested)

    @cached_property
    def logged(self) -> pd.DataFrame:
        """Values that the trials logged: key, metric, value."""
        return _csv(self.folder / "metrics.csv", ["key", "metric", "value"])

    def backbone(self, variant: str) -> str:
        """The backbones of a variant's specifications, joined by "; "; "" for a method without a backbone."""
        configs = [rows.loc[rows["variant"] == variant, "config"] for rows in (self.all_trials, self.trials)]
        named = [json.loads(text).get("backbone", "") for own in configs for text in own]
        return "; ".join(filter(None, dict.fromkeys(map(str, named))))

    def gives_log_odds(self, key: str) -> bool:
        """Whether a trial's score is a log-odds of fake; one that is none has logged no accuracy at p = 0.5."""
        own = self.logged.loc[self.logged["key"] == key, "metric"].astype(str).str.rpartition("/")[2]
        return not (own.eq("accuracy" + estimates.VALIDATION).any() and not own.eq("accuracy").any())

    def spec(self, key: str) -> dict[str, Any]:
        """A trial's specification."""
        try:
            spec: dict[str, Any] = json.loads((self.folder / "specs" / f"{key}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise EvidenceError(f"the specification of trial {key} cannot be read: {error}") from error
        if absent := [name for name in _SPEC if name not in spec]:
            raise EvidenceError(f"specs/{key}.json does not say {', '.join(absent)}; export the grid again")
        return spec

    def conditions(self, key: str) -> list[str]:
        """The conditions that a trial was scored under."""
        text = str(self._fact(key, "conditions"))
        return text.split(",") if text else []

    def _fact(self, key: str, column: str) -> Any:
        return self.all_trials.loc[self.all_trials["key"] == key, column].iloc[0]

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
        """Rows as in `scores`, or those that `embedded` names; None if none are stored."""
        path = self.folder / "embeddings" / f"{key}.npy"
        return np.load(path, allow_pickle=False) if path.is_file() else None

    def embedded(self, key: str) -> np.ndarray | None:
        """Which rows of `scores` have embeddings, where a trial keeps a sample; None: all have."""
        path = self.folder / "embeddings" / f"{key}-rows.npy"
        return np.load(path, allow_pickle=False) if path.is_file() else None

    def classes_of_images(self, key: str) -> np.ndarray:
        """Who made each image of `scores`, or "real": object (N,)."""
        scores = self.scores(key)
        return np.where(scores["label"].to_numpy() == 1, scores["generator"].to_numpy(object), "real")

    def validation(self, key: str) -> tuple[pd.DataFrame, dict[str, Any]] | None:
        """The scores of a trial's validation images and its calibration; None if the trial kept none."""
        scores, facts = (self.folder / "validation" / f"{key}{suffix}" for suffix in (".parquet", ".json"))
        if not scores.is_file() or not facts.is_file():
            return None
        try:
            return pd.read_parquet(scores), json.loads(facts.read_text(encoding="utf-8"))
        except Exception as error:  # pyarrow raises many kinds
            raise EvidenceError(f"{scores} or {facts.name} cannot be read: {error}") from error

    def own_validation(self, key: str) -> pd.DataFrame | None:
        """The validation rows of a detection trial's own training set; None where they are not kept, or have no fakes.

        Of a training set of equal size, the images follow from the digests of the files.
        """
        kept, spec = self.validation(key), self.spec(key)
        if kept is None or spec["task"] != DETECTION or not spec["train_generators"]:
            return None
        own = kept[0][np.any([cell_rows(kept[0], name) for name in spec["train_generators"]], axis=0)]
        if spec.get("equal_size") is not None:
            once = own.drop_duplicates("path")  # without the copies under further training conditions
            own = own[own["path"].isin(once.loc[equal_rows(once, spec["equal_size"]["valid"]), "path"])]
        return own if own["label"].nunique() == 2 else None

    def threshold(self, key: str) -> float | None:
        """The threshold that follows from a trial's own validation images; None where they are not known."""
        own = self.own_validation(key)
        if own is None:
            return None
        return estimates.validation_threshold(own["label"].to_numpy(), own["score"].to_numpy(float))

    def validation_auroc(self, key: str, generator: str) -> float | None:
        """On the validation images of a generator; None where they are not known."""
        kept = self.validation(key)
        if kept is None:
            return None
        task, rows = self.spec(key)["task"], kept[0]
        own = rows[rows["label"] == 0] if task == REAL_ALONE else rows[cell_rows(rows, generator)]
        labels, scores = own["label"].to_numpy(), own["score"].to_numpy(float)
        if task in (SHUFFLED, REAL_ALONE):
            labels = labels ^ self._coins(key, own)
        blank = np.zeros(len(own), dtype=int)
        return estimates.metric(estimates.Images(labels, blank, blank, 1, ("real", "fake"), scores), "auroc")

    def classes(self, key: str) -> tuple[str, ...]:
        """A trial's classes in the order of its logits; empty for a task without a rule."""
        spec = self.spec(key)
        if spec["task"] in (DETECTION, SHUFFLED, REAL_ALONE):
            return "real", "fake"
        return ("real", *sorted(set(spec["train_generators"]))) if spec["task"] in (ATTRIBUTION, OPEN_SET) else ()

    @cached_property
    def photographs(self) -> pd.Index:
        """The source photographs of the test set."""
        test = self.manifest.loc[self.manifest["split"] == "test", "source_id"]
        return pd.Index(sorted(set(test)))

    def images(self, key: str, condition: str = CLEAN) -> dict[str, Images]:
        """What a trial is tested on -> its scored images, answered at p = 0.5; of no known class: label -1."""
        rows, classes, task = self.scores(key, condition), self.classes(key), self.spec(key)["task"]
        rows = rows[rows["source_id"].isin(self.photographs)]
        fake, made_by = rows["label"].to_numpy() == 1, rows["generator"].to_numpy(object)
        generators = list(dict.fromkeys(made_by[fake]))
        if task in (ATTRIBUTION, OPEN_SET):
            number = {name: position for position, name in enumerate(classes)}
            names = np.where(fake, made_by, "real")
            labels = np.array([number.get(str(name), -1) for name in names])
            if task == ATTRIBUTION:
                cells = {"all": labels >= 0}
            else:
                known = made_for(fake, made_by, classes[1:])
                cells = {name: known | (fake & (made_by == name)) for name in generators if name not in classes}
        else:
            labels = fake.astype(int)
            cells = {name: made_for(fake, made_by, {name}) for name in generators}
        if task == SHUFFLED:
            labels = labels ^ self._coins(key, rows)
        elif task == REAL_ALONE:
            labels, cells = labels ^ self._coins(key, rows), {"all": ~fake}
        logits = rows[[f"logit_{name}" for name in classes]].to_numpy()
        scores = (logits[:, 1] - logits[:, 0]).astype(np.float64) if classes == ("real", "fake") else None
        answers = logits.argmax(axis=1) if scores is None else (scores > 0).astype(int)
        units, num_units = self.photographs.get_indexer(pd.Index(rows["source_id"])), len(self.photographs)
        return {
            str(name): Images(
                labels[cell], answers[cell], units[cell], num_units, classes, None if scores is None else scores[cell]
            )
            for name, cell in cells.items()
        }

    def _coins(self, key: str, rows: pd.DataFrame) -> np.ndarray:
        """A control's label of each photograph: one bit of SHA-256 over task, seed and photograph."""
        spec = self.spec(key)
        texts = [f"{spec['task']}\n{spec['seed']}\n{source}" for source in rows["source_id"]]
        return np.array([hashlib.sha256(text.encode()).digest()[0] % 2 for text in texts], dtype=int)

    # Values ----------------------------------------------------------------------------------------------------------

    @cached_property
    def _measured(self) -> dict[tuple[str, str], dict[tuple[str, str], tuple[float, list[Piece]]]]:
        return {}

    def of_trial(self, key: str, condition: str) -> dict[tuple[str, str], tuple[float, list[Piece]]]:
        """(tested on, metric) -> value and the pieces that it is the sum of; of every metric with a rule."""
        if not self.classes(key):
            return {}
        if (key, condition) not in self._measured:
            threshold, values = str(self._fact(key, "threshold")), {}
            for tested_on, images in self.images(key, condition).items():
                if (images.labels < 0).any():
                    for name, measured in self._open_set(key, condition, tested_on, images).items():
                        values[tested_on, name] = measured
                    known = images.labels >= 0
                    images = Images(images.labels[known], images.answers[known], images.units[known],
                                    images.num_units, images.classes)  # fmt: skip
                names = estimates.metrics_of(images.classes)
                if not self.gives_log_odds(key):
                    names = [name for name in names if name + estimates.VALIDATION not in names]
                for name in names:
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

    def mean_of_trial(self, key: str, kind: str, metric: str) -> float | None:
        """A trial's mean on clean pictures over its "in-domain" or "cross-generator" cells; None if it has none."""
        own = set(self.spec(key)["train_generators"])
        values = [
            value
            for (tested_on, name), (value, _) in self.of_trial(key, CLEAN).items()
            if name == metric and (tested_on in own) == (kind == "in-domain")
        ]
        return float(np.mean(values)) if values else None

    def _open_set(
        self, key: str, condition: str, left_out: str, images: Images
    ) -> dict[str, tuple[float, list[Piece]]]:
        """Metrics of each score of "unknown", and the share of the unknown images that each class is given."""
        rows, classes = self.scores(key, condition), self.classes(key)
        rows = rows[rows["source_id"].isin(self.photographs)]
        made_by, fake = rows["generator"], rows["label"] == 1
        known = (~fake & (made_by == "real")) | made_by.isin(classes[1:])
        cell = rows[known | (fake & (made_by == left_out))]
        logits = cell[[f"logit_{name}" for name in classes]].to_numpy(float)
        scores = {"softmax": estimates.softmax_unknown(logits), "energy": estimates.energy_unknown(logits)}
        scores |= {
            str(name).removeprefix("unknown_"): cell[name].to_numpy(float)
            for name in cell.columns
            if str(name).startswith("unknown_")
        }
        found = {
            f"{name}/{score}": measured
            for score, values in scores.items()
            for name, measured in estimates.open_set_pieces(images, values).items()
        }
        answers = images.answers[images.labels == -1]
        shares = {f"lands_on/{name}": float(np.mean(answers == n)) for n, name in enumerate(classes)}
        return found | {name: (share, []) for name, share in shares.items()}

    def estimates(self, trials: pd.DataFrame, condition: str = CLEAN) -> dict[Where, Estimate]:
        """Cell -> the mean over seeds of these trials, over photographs alone."""
        parts: dict[Where, list[list[Piece]]] = {}
        for key, trained_on in trials[["key", "trained_on"]].itertuples(index=False):
            for (tested_on, name), (_, of_trial) in self.of_trial(key, condition).items():
                parts.setdefault((condition, trained_on, tested_on, name), []).append(of_trial)
        return {where: estimates.over_seeds(of_seeds) for where, of_seeds in parts.items() if of_seeds[0]}

    @cached_property
    def _cells(self) -> dict[tuple[str, str, str], dict[Where, tuple[dict[int, float], Estimate]]]:
        return {}

    def cells(self, task: str, variant: str, condition: str = CLEAN) -> dict[Where, tuple[dict[int, float], Estimate]]:
        """Cell -> its value per seed, and the estimate of the mean over seeds, over photographs alone."""
        name = task, variant, condition
        if name not in self._cells:
            trials = self.runs(task, variant, condition)
            values: dict[Where, dict[int, float]] = {}
            for key, trained_on, seed in trials[["key", "trained_on", "seed"]].itertuples(index=False):
                for (tested_on, metric), (value, _) in self.of_trial(key, condition).items():
                    values.setdefault((condition, trained_on, tested_on, metric), {})[int(seed)] = value
            self._cells[name] = {
                where: (values[where], estimate) for where, estimate in self.estimates(trials, condition).items()
            }
        return self._cells[name]

    def depends_on_seed(self, task: str, variant: str) -> bool:
        """Whether a variant's method does."""
        return bool(self.runs(task, variant)["depends_on_seed"].any())

    def seeds(self, task: str, variant: str, weights: Mapping[Where, float]) -> Seeds | None:
        """What the seeds do to a sum over cells of a variant; None: not known."""
        if not self.depends_on_seed(task, variant):
            return seeds.FIXED
        cells = self.cells(task, variant, next(iter(weights))[0])
        first = next(iter(weights))
        alike = list(weights)
        if len(weights) == 1:  # the accuracies of all classes count as one metric
            family = first[3].partition("/")[0] + "/"
            alike = [w for w in cells if w[3] == first[3] or ("/" in first[3] and w[3].startswith(family))]
        by_set: dict[str, dict[Where, dict[int, float]]] = {}
        for where in alike:
            by_set.setdefault(where[1], {})[where] = cells[where][0]
        if len(weights) == 1:
            values = list(cells[first][0].values())
            return seeds.of_cell(float(np.mean(values)), len(values), by_set.values())
        return seeds.of_sum([(own, {w: weights[w] for w in own}) for own in by_set.values()])

    def _value(
        self, task: str, variant: str, mean: float, by_seed: list[float], num_seeds: int,
        photographs: tuple[float, float], weights: Mapping[Where, float], least: float = 0.0,
    ) -> Value:  # fmt: skip
        spread, one_more = self.seeds(task, variant, weights), (np.nan, np.nan)
        low, high = photographs
        if spread is not None and not np.isnan(low):
            one_more = seeds.joined(mean, low, high, spread.one_more, least)
            low, high = seeds.joined(mean, low, high, spread.of_mean, least)
        seeded = self.depends_on_seed(task, variant)
        return Value(mean, _std(by_seed), num_seeds, low, high, *one_more, seeded)

    def value(self, task: str, variant: str, where: Where) -> Value | None:
        """A cell as tables show it; None if it is missing."""
        entry = self.cells(task, variant, where[0]).get(where)
        if entry is None:
            return None
        by_seed, estimate = entry
        values = list(by_seed.values())
        ends = estimate.low, estimate.high
        return self._value(task, variant, float(np.mean(values)), values, len(values), ends, {where: 1.0})

    def means(self, variant: str, metric: str, condition: str = CLEAN, ending: str = "") -> dict[str, Value]:
        """In-domain mean, cross-generator mean and gap of a variant's matrix, as far as it has such cells.

        Args:
            variant: of detection.
            metric: as logged.
            condition: of the test pictures.
            ending: `ONE_GENERATOR` or `SEVERAL_GENERATORS`: of those training sets alone.
        """
        cells = {
            w: entry
            for w, entry in self.cells(DETECTION, variant, condition).items()
            if w[3] == metric and (not ending or ("+" in w[1]) == (ending == SEVERAL_GENERATORS))
        }
        found: dict[str, Value] = {}
        of_kind: dict[str, tuple[Estimate, dict[int, float], dict[Where, float]]] = {}
        num_seeds = min((len(by_seed) for by_seed, _ in cells.values()), default=0)
        for kind in (IN_DOMAIN, CROSS):
            chosen = {w: entry for w, entry in cells.items() if (w[2] in w[1].split("+")) == (kind == IN_DOMAIN)}
            if not chosen:
                continue
            estimate = estimates.mean_of([estimate for _, estimate in chosen.values()])
            common = set.intersection(*(set(by_seed) for by_seed, _ in chosen.values()))
            by_seed = {seed: float(np.mean([e[0][seed] for e in chosen.values()])) for seed in sorted(common)}
            mean = float(np.mean([np.mean(list(entry[0].values())) for entry in chosen.values()]))
            weights = dict.fromkeys(chosen, 1 / len(chosen))
            of_kind[kind] = estimate, by_seed, weights
            ends = estimate.low, estimate.high
            found[kind] = self._value(DETECTION, variant, mean, list(by_seed.values()), num_seeds, ends, weights)
        if len(of_kind) == 2:
            (a, seeds_a, weights_a), (b, seeds_b, weights_b) = of_kind[IN_DOMAIN], of_kind[CROSS]
            _, low, high, _ = estimates.difference(a, b)
            gaps = [seeds_a[seed] - seeds_b[seed] for seed in seeds_a if seed in seeds_b]
            weights = weights_a | {where: -weight for where, weight in weights_b.items()}
            mean = found[IN_DOMAIN].mean - found[CROSS].mean
            found[GAP] = self._value(DETECTION, variant, mean, gaps, num_seeds, (low, high), weights, -1.0)
        return found


# Held against itself -------------------------------------------------------------------------------------------------


def manifest_digest(manifest: pd.DataFrame) -> str:
    """16 hexadecimal digits of SHA-256 over the rows' content: the data set's digest."""
    columns = ["label", "generator", "source_id", "split", "digest", "mask_digest"]
    columns += [name for name in ("mask_white", "original_digest") if name in manifest.columns]
    rows = manifest[columns].astype(object).to_numpy().tolist()
    lines = sorted(json.dumps([*row[:5], *(value or None for value in row[5:])]) for row in rows)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def read_sums(folder: Path) -> dict[str, str]:
    """File -> its SHA-256 when it was exported."""
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
        return {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    except (OSError, ValueError) as error:
        raise EvidenceError(f"{folder / SUMS} cannot be read: {error}; export the grid again") from error


def cell_rows(rows: pd.DataFrame, generator: str) -> np.ndarray:
    """Which rows are the fakes of a generator, or real images that are shared or its own: bool (N,)."""
    return made_for(rows["label"].to_numpy() == 1, rows["generator"].to_numpy(object), {generator})


def made_for(fake: np.ndarray, made_by: np.ndarray, generators: Collection[str]) -> np.ndarray:
    """Fakes of these generators, and real images that all share or theirs: bool (N,).

    Real images that some generators share have their names, joined by "+", in the place of a generator.
    """
    chosen = {"real", *generators}
    known = {name: not chosen.isdisjoint(str(name).split("+")) for name in set(made_by.tolist())}
    of_real = np.array([known[name] for name in made_by], dtype=bool)
    return np.asarray(np.where(fake, np.isin(made_by, list(generators)), of_real), dtype=bool)


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


def _variants(trials: pd.DataFrame) -> list[str]:
    """A method's name; where it has several configurations, with the settings that differ.

    The equal size of training sets counts where trials of a method and task differ in it.
    """
    facts = trials[["method", "task", "config", "train_condition", "equal_size"]].to_dict("records")
    settings: list[dict[str, Any]] = []
    for fact in facts:
        sizes = {o["equal_size"] for o in facts if (o["method"], o["task"]) == (fact["method"], fact["task"])}
        own = {"equal_size": fact["equal_size"] or "all images"} if len(sizes) > 1 else {}
        settings.append(json.loads(fact["config"]) | {"train_condition": fact["train_condition"]} | own)
    variants = []
    for fact, own in zip(facts, settings, strict=True):
        others = [other for name, other in zip(facts, settings, strict=True) if name["method"] == fact["method"]]
        names = sorted({name for other in others for name in other})
        differ = [name for name in names if len({json.dumps(other.get(name)) for other in others}) > 1]
        differ = [name for name in differ if name in own or name != "equal_size"]
        words = ", ".join(f"{name}={own.get(name, 'unset')}" for name in differ)
        variants.append(f"{fact['method']} ({words})" if words else fact["method"])
    return variants


def slug(text: str) -> str:
    """A text as the name of a file of the report; of a long text, the first 187 characters and 12 of a digest."""
    name = re.sub(r"[^a-z0-9_.]+", "-", text.lower().replace("+", "-and-")).strip("-")
    return name if len(name) <= 200 else f"{name[:187]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"
