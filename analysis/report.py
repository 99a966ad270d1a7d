"""The whole report: every table and figure of a grid, from MLflow alone."""

from __future__ import annotations

import json
import logging
import platform
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.attribution import confusion_table
from analysis.curves import calibration_table
from analysis.detectors import check_device
from analysis.embeddings import EmbeddingError, class_names, project, separation
from analysis.figures.attribution import confusion_figure
from analysis.figures.curves import (
    precision_recall_figure,
    reliability_figure,
    roc_figure,
    score_figure,
    training_figure,
)
from analysis.figures.embeddings import embedding_figure
from analysis.figures.matrices import matrix_figure
from analysis.limits import limits
from analysis.matrices import (
    CROSS_GENERATOR,
    GAP,
    IN_DOMAIN,
    ORIENTATION,
    attribution_with_intervals,
    cell_table,
    compare,
    cross_generator_matrix,
    matrix_with_intervals,
    trained_on_label,
)
from analysis.page import Block, Bullets, Fold, Folder, Picture, Row, Section, Text, html_table
from analysis.published import beside_published, published_localisation
from analysis.store import Store, StoreError
from analysis.tables import attribution_text, cell_text, long_form
from data.manifest import Manifest
from grid import names
from grid.plan import FINISHED
from grid.tracking import TrackingError, git_state, keep_report

logger = logging.getLogger(__name__)

METRICS = ("accuracy", "auroc", "balanced_accuracy", "accuracy_valid_threshold", "ap", "eer")
IN_WORDS = {
    "accuracy": "accuracy at p = 0.5",
    "auroc": "AUROC",
    "balanced_accuracy": "balanced accuracy at p = 0.5",
    "accuracy_valid_threshold": "accuracy at the threshold from validation",
    "ap": "average precision",
    "eer": "equal error rate (lower is better)",
}
CAM_METRICS = {
    "iou": "IoU at the threshold from validation",
    "pointing": "pointing game",
    "iou_fixed": "IoU at 0.5",
    "energy": "CAM energy inside the mask",
    "ap": "average precision over pixels",
}
PANEL_IMAGES = 4
LOCAL_PAGE = "http://127.0.0.1:5000"  # where `mlflow ui` is by default
_MEANS = (IN_DOMAIN, CROSS_GENERATOR, GAP)


@dataclass(frozen=True)
class Options:
    """What a report is to hold.

    Attributes:
        compare: two variants, of which the first is held against the second.
        transpose: turn rows and columns of the matrices: rows trained on, columns tested on.
        cam: draw Grad-CAM and measure it, the one part that needs the images and runs models.
        images: where the data folder is now; None: where it was.
        cache: the grid's cache folder; None: beside a local store.
        cam_images: images a cell that CAMs are measured on.
        device: torch device string.
        weight_files: digest -> local file, for frozen encoders whose weights were one.
        projection: "tsne" or "umap".
        command: that makes this report, to be written into it.
        log: keep the report in MLflow too, as an artifact of the grid's run.
    """

    compare: tuple[str, str] | None = None
    transpose: bool = False
    cam: bool = True
    images: Path | None = None
    cache: Path | None = None
    cam_images: int = 16
    device: str = "cpu"
    weight_files: Mapping[str, Path] = field(default_factory=dict)
    projection: str = "tsne"
    command: str = ""
    log: bool = True


def make_report(
    store: Store, out: Path, options: Options | None = None, *, say: Callable[[str], None] = logger.info
) -> Path:
    """Write a report on a grid.

    Args:
        store: an open grid, finished or not.
        out: folder, made where it is not there; an earlier report in it is replaced.
        options: what it is to hold.
        say: told what is being done.

    Returns:
        the page, `out`/index.html.

    Raises:
        StoreError: no run's scores can be read; no such variant to compare; no such device; `out` holds something else,
            or cannot be written. An earlier report is then as it was. Runs whose scores cannot be read are left out,
            and a part that cannot be made says so in its place.
    """
    options = options or Options()
    if options.cam:
        check_device(options.device)
    say("reading the scores")
    store, problems = _readable(store)
    if options.compare:
        _check_compared(store.runs(), options.compare)
    folder = Folder(out)
    try:
        page = _make_page(_Report(store, folder, options, problems, say))
    except BaseException:
        folder.drop()
        raise
    if options.log:
        say("logging the report to MLflow")
        try:
            keep_report(store.tracking_uri, store.parent_run_id, out)
        except TrackingError as error:
            logger.warning("the report is in %s, but MLflow did not take it: %s", out, error)
    return page


def _readable(store: Store) -> tuple[Store, list[Text]]:
    """The grid without the runs whose scores cannot be read, and what is wrong with those."""
    broken, problems = list[str](), list[Text]()
    runs = store.runs()
    finished = runs.loc[runs["state"] == FINISHED, "run_id"]
    for run_id in finished:
        try:
            store.scores(run_id)
        except StoreError as error:
            if len(broken) + 1 == len(finished):
                raise
            first, _, rest = str(error).partition("\n")
            broken.append(run_id)
            problems.append(Text(f"Left out: {first}", command=rest.strip()))
            logger.warning("%s", error)
    return (store.without(broken) if broken else store), problems


def _make_page(report: _Report) -> Path:
    store, say = report.store, report.say
    parts: list[tuple[str, Callable[[], Iterator[Block]]]] = [
        ("Summary", report.summary),
        ("Matrices", report.matrices),
        ("Published figures", report.published),
        ("Comparison", report.comparison),
        ("Attribution", report.attribution),
        ("Embeddings", report.embeddings),
        ("Grad-CAM", report.cam),
        ("Curves", report.curves),
        ("Runs", report.runs_table),
        ("Provenance", report.provenance),
    ]
    sections = []
    for title, part in parts:
        say(title)
        blocks = list(part())
        if blocks:
            sections.append(Section(title, blocks))
    lacking = Section("What this does not show", [Bullets([*report.limits, *report.problems])])
    sections.insert(1, lacking)
    finished = int((report.runs["state"] == FINISHED).sum())
    return report.folder.page(
        title=f"{store.experiment}: detection across generators, and attribution",
        subtitle=f"{finished} of {len(report.runs)} trials finished; data set {store.data} ({store.corpus}); "
        f"written {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        sections=sections,
    )


def with_most_cells(cells: pd.DataFrame) -> list[str]:
    """The variants that have the same cells, and as many as any: only their means can be ranked.

    Args:
        cells: columns variant, tested_on, trained_on.
    """
    held = {
        str(variant): frozenset(zip(rows["tested_on"], rows["trained_on"], strict=True))
        for variant, rows in cells.groupby("variant", sort=False)
    }
    together = Counter(held.values())
    most = max(together, key=lambda one: (len(one), together[one]), default=frozenset())
    return [variant for variant, one in held.items() if one == most]


class _Report:
    """The parts of a report; each method yields the blocks of its section."""

    def __init__(
        self, store: Store, folder: Folder, options: Options, problems: list[Text], say: Callable[[str], None]
    ) -> None:
        self.store, self.folder, self.options, self.say = store, folder, options, say
        self.runs, self.results = store.runs(), store.results()
        self.problems = problems  # what went wrong while the report was made
        self.manifest: Manifest | None = None

    @cached_property
    def cells(self) -> pd.DataFrame:
        """Every figure with its interval."""
        return cell_table(self.store, metrics=[name for name in METRICS if name in set(self.results["metric"])])

    @cached_property
    def generators(self) -> list[str]:
        """All that were trained or tested on."""
        trained = {name for text in self.runs["trained_on"] for name in str(text).split("+")}
        return sorted(trained | set(self.results["tested_on"]) - {names.ALL})

    @property
    def limits(self) -> list[Text]:
        """What the data say that the results do not show."""
        first = self.finished("detection")
        scores = self.store.scores(first["run_id"].iloc[0]) if len(first) else None
        return limits(self.store, self.results, scores, notes=self.store.notes)

    def variants(self, task: str) -> list[str]:
        """Variants of a task in the order of the plan, finished or not."""
        return list(dict.fromkeys(self.runs.loc[self.runs["task"] == task, "variant"]))

    def finished(self, task: str, variant: str | None = None) -> pd.DataFrame:
        """Runs of a task, and of a variant."""
        runs = self.runs[(self.runs["task"] == task) & (self.runs["state"] == FINISHED)]
        return runs if variant is None else runs[runs["variant"] == variant]

    def labelled(self, variant: str) -> str:
        """A variant with its weights, as they decide what its figures mean."""
        notes = self.weights(variant)
        return f"{variant} [{'; '.join(notes)}]" if notes else variant

    def weights(self, variant: str) -> list[str]:
        """Where a variant's pretrained weights come from, as its runs say."""
        notes = self.runs.loc[self.runs["variant"] == variant, "weights"]
        return [str(note) for note in dict.fromkeys(notes) if note not in ("", "none")]

    # Sections ---------------------------------------------------------------------------------------------------------

    def summary(self) -> Iterator[Block]:
        """Means of each method."""
        rows = []
        for variant in dict.fromkeys(self.runs["variant"]):
            row: dict[str, object] = {"method": variant}
            for metric, name in (("accuracy", "accuracy"), ("auroc", "AUROC")):
                for kind in _MEANS if metric == "accuracy" else _MEANS[:2]:
                    row[f"{name}, {kind.removesuffix(' mean')}"] = self._figure(variant, "detection", metric, kind)
            row["attribution, overall"] = self._figure(variant, "attribution", "accuracy", "cell")
            done = self.runs["variant"] == variant
            row["weights"] = "; ".join(self.weights(variant)) or "none"
            row["trials finished"] = f"{(self.runs[done]['state'] == FINISHED).sum()} of {done.sum()}"
            rows.append(row)
        table = pd.DataFrame(rows)
        best = self._best()
        if best:
            yield Text(best)
        elif len(table) > 1:
            yield Text("No two methods have the same cells yet, so their means are not ranked.")
        yield self.folder.table(
            "summary", table,
            caption="Means over the cells of each method's matrix, ± standard deviation over seeds where there are "
            "several, in brackets 95 % intervals over source images",
        )  # fmt: skip

    def matrices(self) -> Iterator[Block]:
        """Each method's cross-generator matrices: accuracy and AUROC in the open, the others folded."""
        if not self.variants("detection"):
            yield Text("This grid has no detection trials.")
            return
        turned = "rows: trained on, columns: tested on" if self.options.transpose else ORIENTATION
        yield Text(
            f"One matrix a method and metric; {turned}. Outlined cells are in-domain. Figures are means over seeds, "
            "accuracies stand beside an AUROC, which knows no threshold."
        )
        for variant in self.variants("detection"):
            if self.finished("detection", variant).empty:
                command = self.store.missing_command(task="detection", variant=variant)
                yield Text(f"{variant}: no detection trial is finished; this runs them:", strong=True, command=command)
                continue
            shown = [self._matrix(variant, metric) for metric in METRICS if metric in set(self.cells["metric"])]
            yield Row(shown[:2])
            blocks = [Row(shown[2:]), *self._runs_behind(variant)]
            yield Fold(f"{variant}: other metrics, and the runs behind each column", blocks)

    def published(self) -> Iterator[Block]:
        """Ours beside the published figures."""
        table = beside_published(self.store, cells=self.cells)
        if table.empty:
            yield Text(
                "The published figures (arXiv 2311.04584) are about the Dolos data set; nothing in this grid is about "
                "the same data and generators, so there is nothing to lay beside them."
            )
            return
        known = table[table["inside"].notna()]
        if len(known):
            inside = int(known["inside"].sum())
            yield Text(f"{inside} of {len(known)} published figures lie in our 95 % intervals.")
        means = table[table["kind"] != "cell"]
        rest = table[table["kind"] == "cell"].drop(columns="kind")
        self.folder.files("published", table, caption="Ours beside the published figures")
        if len(means):
            yield html_table(means.drop(columns=["tested_on", "trained_on", "task"]), "Means, ours and published")
        yield html_table(rest, "Each figure, ours and published; difference is ours minus published")

    def comparison(self) -> Iterator[Block]:
        """One method against another."""
        if self.options.compare is None:
            return
        a, b = self.options.compare
        for metric in ("accuracy", "auroc"):
            try:
                table = compare(self.store, a, b, metric)
            except StoreError:
                raise
            except ValueError as error:
                yield self._problem(f"{a} and {b} cannot be compared by {metric}: {error}")
                continue
            caption = (
                f"{a} minus {b}: {IN_WORDS[metric]}, on the same images; paired bootstrap over source images, 95 % "
                "interval and two-sided p (0.001 is the smallest that the resamples can give), not corrected for "
                "the number of rows"
            )
            yield self.folder.table(f"compare-{a}-{b}-{metric}", table, caption=caption)

    def attribution(self) -> Iterator[Block]:
        """Five-class accuracy and confusion."""
        if not self.variants("attribution"):
            yield Text("This grid has no attribution trials.")
            return
        rows = attribution_with_intervals(self.store, cells=self.cells)
        if len(rows):
            yield self.folder.table(
                "attribution", rows.drop(columns="run_ids"), shown=attribution_text(rows),
                caption="Accuracy over all classes and of each, in brackets 95 % intervals over source images",
            )  # fmt: skip
        for variant in self.variants("attribution"):
            runs = self.finished("attribution", variant)
            if runs.empty:
                command = self.store.missing_command(task="attribution", variant=variant)
                yield Text(f"{variant}: not finished; this runs it:", strong=True, command=command)
                continue
            tables = [confusion_table(self.store.scores(run_id)) for run_id in runs["run_id"]]
            counts = tables[0].copy()
            for other in tables[1:]:
                counts = counts.add(other, fill_value=0).astype(int).loc[tables[0].index, tables[0].columns]
            seeds = f", {len(tables)} seeds added up" if len(tables) > 1 else ""
            shares = counts.to_numpy(float) / np.maximum(counts.sum(axis=1).to_numpy(float)[:, None], 1)
            diagonal = ", ".join(f"{name} {shares[place, place]:.0%}" for place, name in enumerate(counts.index))
            self.folder.files(f"confusion-{variant}", counts, caption=f"{variant}: attribution, counts{seeds}")
            yield self.folder.picture(
                f"confusion-{variant}",
                confusion_figure(counts, title=f"{self.labelled(variant)}: attribution{seeds}"),
                alt=f"Confusion matrix of {variant}, rows true class, columns predicted class; right: {diagonal}.",
            )

    def embeddings(self) -> Iterator[Block]:
        """The plane, and numbers from the space itself."""
        if not self.variants("attribution"):
            return
        yield Text(
            "Test embeddings of each method's attribution run (the first finished seed). Distances between groups and "
            "their sizes mean nothing in such a picture; the numbers below are from the original space."
        )
        rows = []
        for variant in self.variants("attribution"):
            runs = self.finished("attribution", variant)
            if runs.empty:
                continue
            self.say(f"  {variant}")
            run_id = runs["run_id"].iloc[0]
            try:
                scores, vectors = self.store.scores(run_id), self.store.embeddings(run_id)
                if len(scores) != len(vectors):
                    raise EmbeddingError(f"run {run_id} has {len(vectors)} embeddings for {len(scores)} images")
                classes = class_names(scores)
                measured = separation(vectors, classes)
                projection = project(vectors, kind=self.options.projection)
            except (EmbeddingError, StoreError) as error:
                if self.options.projection == "umap" and "umap-learn" in str(error):
                    raise StoreError(str(error)) from error
                yield self._problem(f"{variant}: no picture of its embeddings: {error}")
                continue
            rows.append(
                {
                    "method": variant, "silhouette": measured.silhouette,
                    f"{measured.num_neighbours}-NN purity": measured.purity, "chance": measured.chance,
                    "dimensions": measured.num_dimensions, "projection": f"{projection.method}: {projection.note}",
                }
            )  # fmt: skip
            title = f"{self.labelled(variant)}: {projection.method} of {len(vectors)} test embeddings"
            yield self.folder.picture(
                f"embeddings-{variant}",
                embedding_figure(projection, classes, title=title, separation=measured),
                alt=f"{projection.method} of {variant}'s {len(vectors)} test embeddings, coloured by class. In the "
                f"original space: silhouette {measured.silhouette:.3f}, {measured.num_neighbours}-NN purity "
                f"{measured.purity:.3f} where chance is {measured.chance:.3f}.",
            )
        if rows:
            yield self.folder.table("embeddings", pd.DataFrame(rows), caption="How well the classes part")

    def cam(self) -> Iterator[Block]:
        """Where the evidence lies, as pictures and as numbers."""
        if not self.options.cam:
            yield Text("Left out (--no-cam).")
            return
        from analysis.cam import open_images

        try:
            self.manifest = open_images(self.store, root=self.options.images, cache=self.options.cache)
        except StoreError as error:
            yield self._problem(f"No Grad-CAM: {error}")
            return
        yield Text(
            "The same photographs for every method: input, mask, and what speaks for “fake” to each detector, by what "
            "it was trained on. Of several seeds, the first that is finished."
        )
        tables = []
        for variant in self.variants("detection"):
            if self.finished("detection", variant).empty:
                continue
            self.say(f"  {variant}")
            pictures, images = self._cam_of(variant)
            yield from pictures
            if images is not None:
                tables.append(images)
        if tables:
            from analysis.localisation import localisation_table

            rows = pd.concat(tables, ignore_index=True)
            shared = self.runs[["run_id", "variant", "trained_on", "seed"]]
            each = shared.merge(rows, on="run_id", how="right")
            (self.folder.path / "tables" / "localisation-images.csv").write_text(each.to_csv(index=False))
            yield from self._localisation(localisation_table(rows, self.runs))

    def curves(self) -> Iterator[Block]:
        """Curves of each method, folded, with the calibration error of every cell in one table."""
        history = self.store.history(self.runs.loc[self.runs["run_id"] != "", "run_id"])
        tables: list[pd.DataFrame] = []
        for variant in dict.fromkeys(self.runs["variant"]):
            self.say(f"  {variant}")
            blocks: list[Block] = []
            runs = self.finished("detection", variant)
            if len(runs):
                scores = pd.concat(
                    [
                        self.store.scores(run_id).assign(trained_on=trained_on, seed=seed)
                        for run_id, trained_on, seed in runs[["run_id", "trained_on", "seed"]].to_numpy().tolist()
                    ],
                    ignore_index=True,
                )
                table = calibration_table(scores)
                tables.append(table.assign(method=variant)[["method", "trained_on", "tested_on", "ece"]])
                blocks += self._score_figures(variant, scores, float(table["ece"].mean()))
            of_variant = history[history["variant"] == variant]
            figure = training_figure(of_variant, title=f"{variant}: training")
            if figure is not None:
                last = of_variant.sort_values("step").groupby("metric")["value"].last()
                end = ", ".join(f"{name} {value:.3f}" for name, value in last.items() if "/" in str(name))
                alt = f"Losses and accuracies of {variant} over epochs, one column a trial; one trial ends at {end}."
                blocks.append(self.folder.picture(f"training-{variant}", figure, alt=alt))
            elif len(of_variant):
                blocks.append(Text(f"{variant} is fitted in one step, so there is no curve of its training."))
            if blocks:
                yield Fold(self.labelled(variant), blocks)
        if tables:
            table = pd.concat(tables, ignore_index=True)
            caption = "Expected calibration error of each cell (Guo et al. 2017, 15 bins, probability of fake)"
            yield Fold("Calibration error of every cell", [self.folder.table("calibration", table, caption=caption)])
        if len(history):
            (self.folder.path / "tables" / "history.csv").write_text(history.to_csv(index=False))

    def runs_table(self) -> Iterator[Block]:
        """Every trial with its run."""
        server = self.store.tracking_uri.startswith("http")
        shown = self.runs[["run_id", "task", "variant", "trained_on", "seed", "state", "weights", "device", "seconds"]]
        shown = shown.assign(
            run_id=shown["run_id"].where(shown["run_id"] != "", "none yet"),
            trained_on=[trained_on_label(str(name), self.generators) for name in shown["trained_on"]],
            seconds=shown["seconds"].round(1),
            start=self.runs["start"],
            error=self.runs["error"].str.slice(0, 300),
        )
        if (shown["error"] == "").all():
            shown = shown.drop(columns="error")
        page = "" if server else f"{LOCAL_PAGE}/"
        links = {
            "run_id": [
                f"{page}{url}" if run_id else ""
                for url, run_id in zip(self.runs["url"], self.runs["run_id"], strict=True)
            ]
        }
        caption = "Every trial that was planned, with its run in MLflow"
        if not server:
            yield Text(
                f"This grid is in a local store; the links lead to MLflow's page at {LOCAL_PAGE}, which this starts:",
                command=f"mlflow ui --backend-store-uri {shlex.quote(self.store.tracking_uri)}",
            )
        yield self.folder.table(
            "runs", self.runs, caption=caption, shown=shown, links=links,
            anchors=[f"run-{key}" for key in self.runs["key"]],
        )  # fmt: skip

    def provenance(self) -> Iterator[Block]:
        """What made these results."""
        finished = self.runs[self.runs["state"] == FINISHED]
        facts = {
            "MLflow": names.without_password(self.store.tracking_uri),
            "experiment": self.store.experiment,
            "grid's run": self.store.parent_run_id,
            "data set": f"{self.store.data} ({self.store.corpus})",
            "seeds": ", ".join(map(str, sorted(self.runs["seed"].unique()))),
            "commit of the runs": ", ".join(dict.fromkeys(finished["git_commit"].replace("", "not recorded"))),
            "commit of this report": _commit(),
            "versions here": f"Python {platform.python_version()}, "
            + ", ".join(f"{name} {version(name)}" for name in ("numpy", "scikit-learn", "matplotlib", "mlflow")),
        }
        changed: list[str] = []
        for variant, of_variant in finished.groupby("variant", sort=False):
            weights = "; ".join(dict.fromkeys(of_variant["weights"].replace("", "not recorded")))
            facts[f"weights of {variant}"] = weights
            tags = [self.store.tags(run_id) for run_id in of_variant["run_id"]]
            recorded = list(dict.fromkeys(each.get(names.VERSIONS, "{}") for each in tags))
            facts[f"versions of {variant}"] = "; or ".join(
                ", ".join(f"{name} {number}" for name, number in json.loads(text).items()) for text in recorded
            )
            if len(recorded) > 1:
                self._problem(f"The runs of {variant} were made by several versions of packages; see Provenance.")
            if any(each.get(names.GIT_CHANGED) == "true" for each in tags):
                changed.append(str(variant))
        if finished["git_commit"].nunique() > 1:
            self._problem("The runs were made by several commits; see Provenance.")
        command = self.options.command or "analysis.report.make_report"
        yield Text("This report was made by", command=command.replace(self.store.tracking_uri, str(facts["MLflow"])))
        yield self.folder.table(
            "provenance", pd.DataFrame(facts.items(), columns=["what", "value"]), caption="Where the figures come from"
        )
        if changed:
            self._problem(f"The checkout differed from its commit when {', '.join(changed)} ran.")
        configs = self.runs.drop_duplicates("variant")
        yield Fold(
            "Settings of each method",
            [Text(str(run.variant), command=_pretty(str(run.config))) for run in configs.itertuples()],
        )

    # Parts of sections ------------------------------------------------------------------------------------------------

    def _problem(self, text: str) -> Text:
        """Say it here, and under what the report does not show."""
        first, _, rest = text.partition("\n")
        said = Text(first, strong=True, command=rest.strip())
        self.problems.append(Text(first, command=rest.strip()))
        return said

    def _figure(self, variant: str, task: str, metric: str, kind: str) -> str:
        cells = self.cells
        rows = cells[
            (cells["variant"] == variant)
            & (cells["task"] == task)
            & (cells["metric"] == metric)
            & (cells["kind"] == kind)
        ]
        if rows.empty:
            return "missing"
        row = rows.iloc[0]
        return cell_text(float(row["mean"]), float(row["std"]), float(row["low"]), float(row["high"]))

    def _best(self) -> str:
        """Which method comes first, in a sentence, of those that have the same cells as most."""
        of_accuracy = self.cells[(self.cells["metric"] == "accuracy") & (self.cells["task"] == "detection")]
        complete = with_most_cells(of_accuracy[of_accuracy["kind"] == "cell"])
        if len(complete) < 2 and self.runs["variant"].nunique() > 1:
            return ""
        means = of_accuracy[of_accuracy["variant"].isin(complete)]
        parts = []
        for kind in (IN_DOMAIN, CROSS_GENERATOR):
            rows = means[means["kind"] == kind]
            if len(rows):
                best = int(rows["mean"].to_numpy(float).argmax())
                parts.append(f"{rows['mean'].iloc[best]:.3f} {kind} ({rows['variant'].iloc[best]})")
        return f"Best mean accuracies: {', '.join(parts)}." if parts else ""

    def _matrix(self, variant: str, metric: str) -> Picture:
        matrix = matrix_with_intervals(self.store, variant, metric, cells=self.cells)
        words, turn = IN_WORDS.get(metric, metric), self.options.transpose
        name = f"matrix-{variant}-{metric}"
        self.folder.files(name, matrix, caption=f"{variant}: {words}", transpose=turn)
        figure = matrix_figure(
            matrix.mean, metric=metric, title=f"{self.labelled(variant)}: {words}", intervals=matrix, transpose=turn
        )
        alt = f"Cross-generator matrix of {variant}, {words}. " + _in_words(long_form(matrix))
        return self.folder.picture(name, figure, alt=alt)

    def _runs_behind(self, variant: str) -> Iterator[Block]:
        runs = self.runs[(self.runs["variant"] == variant) & (self.runs["task"] == "detection")]
        table = runs[["trained_on", "seed", "state", "run_id"]]
        table = table.assign(run_id=table["run_id"].where(table["run_id"] != "", "none yet"))
        links = {"run_id": [f"#run-{key}" for key in runs["key"]]}
        yield html_table(table, f"The runs behind the columns of {variant}", links=links)
        for metric in METRICS[:2]:
            cells = long_form(matrix_with_intervals(self.store, variant, metric, cells=self.cells))
            yield html_table(cells.drop(columns=["variant", "metric"]), f"{variant}: {IN_WORDS[metric]}, every cell")

    def _score_figures(self, variant: str, scores: pd.DataFrame, ece: float) -> Iterator[Picture]:
        own = self.results[(self.results["variant"] == variant) & (self.results["task"] == "detection")]
        lowest, highest = (own.groupby("metric")["value"].agg(kind) for kind in ("min", "max"))

        def spread(metric: str, words: str) -> str:
            return f"{words} from {lowest[metric]:.3f} to {highest[metric]:.3f} over the cells"

        for name, draw, words in (
            ("roc", roc_figure, f"ROC curves; {spread('auroc', 'AUROC')}"),
            (
                "precision-recall",
                precision_recall_figure,
                f"Precision and recall for fakes; {spread('ap', 'average precision')}",
            ),
            ("reliability", reliability_figure, f"Reliability diagrams; mean ECE over the cells {ece:.3f}"),
            ("scores", score_figure, f"Histograms of the scores by class; {spread('accuracy', 'accuracy at p = 0.5')}"),
        ):
            figure = draw(scores, title=f"{self.labelled(variant)}: {words.partition(';')[0]}")
            alt = f"{words}, of {variant}: one panel a thing it was trained on, in it each generator it is tested on."
            yield self.folder.picture(f"{name}-{variant}", figure, alt=alt)

    def _cam_of(self, variant: str) -> tuple[list[Block], pd.DataFrame | None]:
        from analysis.cam import RUN_ERRORS, make_panels
        from analysis.detectors import load_detector
        from analysis.figures.cam import cam_panel
        from analysis.localisation import localise_run

        assert self.manifest is not None
        options, blocks = self.options, list[Block]()
        try:
            panels = make_panels(
                self.store, self.manifest, variant, count=min(PANEL_IMAGES, options.cam_images), device=options.device,
                weight_files=options.weight_files,
            )  # fmt: skip
        except (ValueError, OSError) as error:
            return [self._problem(f"{variant}: no Grad-CAM: {error}")], None
        columns = panels[0].columns
        problems: list[Block] = [
            self._problem(
                f"{variant}, trained on {column.trained_on}: no Grad-CAM of run {column.run_id}: {column.problem}"
            )
            for column in columns
            if column.problem
        ]
        sound = [column for column in columns if not column.problem]
        if not any(column.maps for column in sound):
            if sound:
                problems.append(Text(f"{variant} has no spatial layer, so there is no Grad-CAM of it."))
            return problems, None
        for panel in panels:
            right = ", ".join(
                f"trained on {column.trained_on} "
                + (str(int(column.answers.correct.sum())) if column.answers is not None else "not known")
                for column in panel.columns
            )
            alt = (
                f"Grad-CAM of {variant} on {len(panel.images)} fakes of {panel.tested_on}: input, mask, and one "
                f"map for each thing it was trained on. Right answers of {len(panel.images)}: {right}."
            )
            name = f"cam-{variant}-{panel.tested_on}"
            blocks.append(self.folder.picture(name, cam_panel(panel), alt=alt, photographs=True))
        found = []
        for column in sound:
            run_id = column.run_id
            try:
                loaded = load_detector(self.store, run_id, device=options.device, weight_files=options.weight_files)
                images = localise_run(
                    self.store, run_id, self.manifest, images_per_cell=options.cam_images, device=options.device,
                    loaded=loaded,
                )  # fmt: skip
            except RUN_ERRORS as error:
                words = f"{variant}, trained on {column.trained_on}: no localisation of run {run_id}: "
                problems.append(self._problem(words + (str(error) or type(error).__name__)))
                continue
            found.append(images.assign(run_id=run_id))
        shown = [*_folded(variant, blocks), *problems]
        return shown, pd.concat(found, ignore_index=True) if found else None

    def _localisation(self, table: pd.DataFrame) -> Iterator[Block]:
        count = int(table.loc[table["subset"] == "all", "num_images"].max())
        yield Text(
            f"CAM against the masks, at most {count} fakes a cell. Shuffled is what the same maps get with the masks "
            "of other images of the cell; chance is the mask's share of the picture, which a flat map gets; prior is "
            "the mean of the validation masks, the same for every image: a CAM below it has found less than where "
            "masks usually lie."
        )
        whole = table[table["subset"] == "all"]
        for variant in dict.fromkeys(whole["variant"]):
            pictures = [self._localisation_matrix(table, variant, metric, "all") for metric in CAM_METRICS]
            answered = table.loc[table["variant"] == variant, "subset"]
            pictures += [
                self._localisation_matrix(table, variant, "iou", subset)
                for subset in ("correct", "wrong")
                if (answered == subset).any()
            ]
            yield Row(pictures[:2])
            yield Fold(f"{variant}: other figures of localisation", [Row(pictures[2:])])
        caption = "CAM against the masks, over all images of a cell and split by right and wrong answers"
        shown = table[
            [
                "variant",
                "trained_on",
                "tested_on",
                "subset",
                "metric",
                "value",
                "low",
                "high",
                "shuffled",
                "prior",
                "chance",
                "flat",
                "num_images",
            ]
        ]
        yield Fold(
            "Localisation, every figure", [self.folder.table("localisation", table, caption=caption, shown=shown)]
        )
        if self.store.corpus == "dolos":
            caption = (
                "For comparison of the shape only: IoU of DeCLIP (arXiv 2409.08849), a localiser trained with masks"
            )
            yield Fold("A published localiser", [html_table(published_localisation(), caption)])

    def _localisation_matrix(self, table: pd.DataFrame, variant: str, metric: str, subset: str) -> Picture:
        rows = table[(table["subset"] == subset) & (table["variant"] == variant)]
        matrix = cross_generator_matrix(rows, variant, metric)
        of_metric = rows[rows["metric"] == metric]
        words = CAM_METRICS[metric] + ("" if subset == "all" else f", {subset} answers")
        fewest, most = int(of_metric["num_images"].min()), int(of_metric["num_images"].max())
        count = f"{most} images a cell" if fewest == most else f"{fewest} to {most} images a cell"
        beside = f"{count}; shuffled {of_metric['shuffled'].mean():.3f}, prior {of_metric['prior'].mean():.3f}"
        name = f"localisation-{variant}-{metric}" + ("" if subset == "all" else f"-{subset}")
        self.folder.files(name, matrix, caption=f"{variant}: {words}", transpose=self.options.transpose)
        figure = matrix_figure(
            matrix, metric=f"CAM {metric}", title=f"{variant}: {words}\n{beside}", transpose=self.options.transpose
        )
        cells = of_metric[["tested_on", "trained_on", "value"]].rename(columns={"value": "mean"})
        alt = f"Localisation of {variant}, {words} ({beside}). " + _in_words(cells)
        return self.folder.picture(name, figure, alt=alt)


def _check_compared(runs: pd.DataFrame, compared: Sequence[str]) -> None:
    known = list(dict.fromkeys(runs.loc[(runs["task"] == "detection") & (runs["state"] == FINISHED), "variant"]))
    unknown = [variant for variant in compared if variant not in known]
    if unknown or compared[0] == compared[1]:
        wrong = f"no finished run of {' or '.join(unknown)}" if unknown else "a method is not compared with itself"
        raise StoreError(f"--compare: {wrong}; there are: {', '.join(known)}")


def _folded(variant: str, blocks: Sequence[Block]) -> list[Block]:
    return [Fold(f"Panels of {variant}", blocks)] if blocks else []


def _in_words(cells: pd.DataFrame) -> str:
    """A matrix as a sentence, for those who do not see it."""
    lines = [
        f"tested on {tested_on}: "
        + ", ".join(
            f"trained on {trained_on} {'missing' if np.isnan(mean) else format(mean, '.3f')}"
            for trained_on, mean in zip(row["trained_on"], row["mean"].astype(float), strict=True)
        )
        for tested_on, row in cells.groupby("tested_on", sort=False)
    ]
    return "; ".join(lines).capitalize() + "."


def _pretty(config: str) -> str:
    return json.dumps(json.loads(config), indent=1, sort_keys=True)


def _commit() -> str:
    checkout = git_state()
    if checkout is None:
        return "not known: no git checkout"
    commit, changed = checkout
    return f"{commit}, with changes that are not committed" if changed else commit
