"""The audit of a data set, without a grid."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grid.command_line import on_stderr, print_json, print_wrapped
from grid.commands import BAD_INPUT, OK, BadInputError, Context, register_command
from grid.experiments import list_experiments
from grid.options import Launch, add_cache_options, add_data_options, resolve

if TYPE_CHECKING:
    from data.manifest import Manifest
    from data.verdict import Verdict

STATUSES = """\
exit status: 0 a grid may start; 1 an error that nobody expected;
2 an audit fails and is not accepted, or bad input; 130 interrupted: the same command goes on"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Which data."""
    parser.add_argument(
        "experiment", nargs="?",
        help=f"one of: {', '.join(list_experiments())}; default: what the folder looks like, the demo without --data",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the verdict and all findings as JSON, nothing else")
    add_data_options(parser)
    add_cache_options(parser, "what was measured is kept here")


@register_command("audit", add_options, statuses=STATUSES)
def audit(options: argparse.Namespace, context: Context) -> int:
    """Audit a data set before any training."""
    if not options.json:
        from grid.audit import print_verdict, refusal_of

        _, verdict = _audited(options, context)
        print_verdict(verdict, context.console)
        if refusal := refusal_of(verdict):
            print_wrapped(refusal, context.console)
    else:
        try:
            manifest, verdict = _audited(options, Context(on_stderr(), context.show_results))
        except BadInputError as error:
            print_json({"error": str(error)})
            return BAD_INPUT
        print_json(_in_plain_types(manifest, verdict))
    return BAD_INPUT if verdict.refused else OK


def _audited(options: argparse.Namespace, context: Context) -> tuple[Manifest, Verdict]:
    from grid.audit import audit as judged
    from grid.commands.run import read_data

    launch = _launch(options)
    manifest = read_data(launch, context.console)
    assert manifest is not None, "None is for plans alone"
    accepted = launch.options.accept_audit
    manifest, verdict, _ = judged(manifest, context.console, cache=launch.settings.cache, accepted=accepted)
    return manifest, verdict


def _launch(options: argparse.Namespace) -> Launch:
    """The launch of the experiment's default grid on these data, as `run` would make it."""
    from grid.commands.run import add_options as add_run_options

    parser = argparse.ArgumentParser()
    add_run_options(parser)
    named = {"experiment": options.experiment or _recognised(options.data), "local": True}
    return resolve(argparse.Namespace(**{**vars(parser.parse_args([])), **vars(options), **named}))


def _recognised(data: str | None) -> str:
    """The experiment that the data are for.

    Raises:
        BadInputError: that cannot be told; the message lists the experiments.
    """
    from data.addresses import is_url
    from data.sources import preferred

    if data is None:
        return "demo"
    names = [] if is_url(data) else preferred(Path(data).resolve())
    if len(names) != 1:
        listed = ", ".join(list_experiments())
        raise BadInputError(f"name the experiment: python launch.py audit NAME --data …; there are: {listed}")
    return names[0]


def _in_plain_types(manifest: Manifest, verdict: Verdict) -> dict[str, Any]:
    about = {
        "data": manifest.digest,
        "source": manifest.source,
        "folder": str(manifest.root),
        "images": len(manifest.table),
        "skipped": len(manifest.skipped),
        "verdict": verdict.worst,
        "refused": verdict.refused,
        "notes": list(manifest.notes),
    }
    return about | verdict.to_dict()
