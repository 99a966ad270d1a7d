"""Where the results come from: code, versions, weights, settings."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from importlib.metadata import version

import pandas as pd

from analysis.page import Block, Fold, Text, sentence_list
from analysis.parts import Report, register_part
from data.addresses import without_passwords
from grid import names
from grid.commit import git_state
from grid.datasets import list_data_sets
from grid.overview import seeds_in_words
from grid.plan import FINISHED


@register_part("provenance", title="Provenance", position=100, kept=False)
def provenance(report: Report) -> Iterator[Block]:
    """A table of facts, and each method's settings, folded."""
    store = report.store
    finished = report.runs[report.runs["state"] == FINISHED]
    (data,) = list_data_sets([store.parent], [])
    commit, changed_here = git_state() or ("not known: no git checkout", False)
    facts = {
        "MLflow": without_passwords(store.tracking_uri),
        "experiment": store.experiment,
        "grid's run": store.parent.info.run_id,
        "data set": f"{store.data} ({store.corpus}, {data.choice}, {data.num_images or 'an unknown number of'} images)",
        "seeds": seeds_in_words(sorted(report.runs["seed"].unique())),
        "commit of the runs": ", ".join(dict.fromkeys(finished["git_commit"].replace("", "not recorded"))),
        "commit of this report": commit + (", with changes that are not committed" if changed_here else ""),
        "versions here": f"Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in ("numpy", "scikit-learn", "matplotlib", "mlflow")),
    }
    changed: list[str] = []
    versions = dict[str, list[str]]()
    for variant, of_variant in finished.groupby("variant", sort=False):
        weights = "; ".join(dict.fromkeys(of_variant["weights"].replace("", "not recorded")))
        facts[f"weights of {variant}"] = weights
        tags = [store.tags(run_id) for run_id in of_variant["run_id"]]
        recorded = list(dict.fromkeys(each.get(names.VERSIONS, "{}") for each in tags))
        words = "; or ".join(
            ", ".join(f"{name} {number}" for name, number in json.loads(text).items()) for text in recorded
        )
        versions.setdefault(words, []).append(str(variant))
        if len(recorded) > 1:
            report.problem(f"The runs of {variant} were made by several versions of packages; see Provenance.")
        if any(each.get(names.GIT_CHANGED) == "true" for each in tags):
            changed.append(str(variant))
    for words, variants in versions.items():
        facts["versions of the runs" if len(versions) == 1 else f"versions of {sentence_list(variants)}"] = words
    if finished["git_commit"].nunique() > 1:
        report.problem("The runs were made by several commits; see Provenance.")
    command = report.options.command or "analysis.report.make_report"
    yield Text("This report was made by", command=command.replace(store.tracking_uri, str(facts["MLflow"])))
    yield report.folder.table(
        "provenance", pd.DataFrame(facts.items(), columns=["what", "value"]), caption="Where the values come from"
    )
    if changed:
        report.problem(f"The checkout differed from its commit when {', '.join(changed)} ran.")
    if launched := store.parent.data.tags.get(names.LAUNCH_FILE):
        yield Fold("The newest launch, as a file for launch.py --config", [Text("", command=launched)])
    configs = report.runs.drop_duplicates("variant").set_index("variant")["config"]
    settings = [
        Text(report.labelled(str(variant)), command=json.dumps(json.loads(config), indent=1, sort_keys=True))
        for variant, config in configs.items()
    ]
    yield Fold("Settings of each method", settings)
