"""How long a click takes on the page of `python -m analysis explore`, with 100,000 test images.

Writes two runs of one method into a temporary SQLite store, serves the page in a new process, and sends the requests of
a person: a cell, filters, orders, far pages, one photograph. A click is timed from the request to the last byte of the
answer, on loopback. The page reads scores ahead of clicks, one run after the other; how long that takes for a run is
shown apart, and is what a person waits who is quicker than it. There are no pictures: a page of thumbnails is loaded
after the click, as the browser comes to them.
"""

from __future__ import annotations

import http.client
import json
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import urlencode

from benchmarks.finished import finish
from benchmarks.grids import GENERATORS, SHARES, fresh_settings, paper_manifest
from benchmarks.measure import Measured, Outcome, Target, column, in_new_process, interleave
from grid.experiments import cross_generator_trials
from grid.tasks import DETECTION
from models.registry import resolve_config

EXPERIMENT = "explore"
METHOD = "residual_linear"
NUM_TESTED = 100_000
CLICK_SECONDS = 0.3
CLICKS = {
    "cell": {},
    "wrong answers": {"answer": "wrong"},
    "most certain first": {"sort": "right"},
    "one generator": {"made_by": GENERATORS[-1]},
    "last page": {"page": "last"},
    "all images": {"cell": "all", "sort": "unsure"},
    "another threshold": {"metric": "accuracy_valid_threshold"},
}


def run(repeats: int, *, toy: bool = False) -> Outcome:
    """Target: no click takes more than 0.3 s."""
    num_tested = 600 if toy else NUM_TESTED
    with tempfile.TemporaryDirectory() as name:
        manifest = paper_manifest(Path(name), round(num_tested / SHARES["test"]))
        settings = fresh_settings(Path(name), manifest)
        configs = {METHOD: resolve_config(METHOD)}
        every = cross_generator_trials(
            generators=GENERATORS, configs=configs, tasks=[DETECTION], seeds=[0], data=manifest.digest
        )
        trials = list(every)[:2]
        finish(trials, manifest, settings, EXPERIMENT)
        arguments = {"uri": settings.tracking_uri}
        found = interleave(
            repeats, {"page": lambda: dict[str, float](in_new_process("benchmarks.explore", "measure", arguments))}
        )["page"]
    setup = f"{len(manifest.select('test', manifest.generators)):,} test images, local store, no pictures"
    later = [*CLICKS, "photograph"]
    slowest = [max(each[name] for name in later) for each in found]
    parts = {f"{name}, s": column(found, name) for name in later}
    what = f"reading and checking the scores of a run, ahead of the clicks ({setup})"
    return Outcome(
        setup,
        {
            "click": Measured(
                f"the slowest of {len(later)} clicks ({setup})", "s", slowest, Target(CLICK_SECONDS), parts
            ),
            "reading": Measured(
                what, "s", column(found, "reading"), parts={"start of the page, s": column(found, "start")}
            ),
        },
    )


def measure(uri: str) -> dict[str, float]:
    """Seconds of each click, in this process."""
    from analysis.explore.command import listen, make_page, make_server, parse_arguments

    token, started = "token", time.perf_counter()
    page, listening = make_page(parse_arguments(["--tracking-uri", uri])), listen("127.0.0.1", 0)
    seconds = {"start": time.perf_counter() - started}
    server = make_server(page, token)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    port = listening.getsockname()[1]
    connection = http.client.HTTPConnection("127.0.0.1", port)

    def click(path: str, **words: object) -> tuple[float, dict[str, object]]:
        began = time.perf_counter()
        connection.request("GET", f"{path}?{urlencode(words)}", headers={"Cookie": f"explore-{port}={token}"})
        answer = connection.getresponse()
        content = answer.read()
        took = time.perf_counter() - began
        assert answer.status == 200, content
        return took, json.loads(content)

    began = time.perf_counter()
    _, grid = click("/api/grid")
    while click("/api/photograph/0")[1]["missing"]:
        time.sleep(0.01)
    columns = grid["methods"][0]["columns"]  # type: ignore[index]
    runs = [run["id"] for column in columns for run in column["runs"]]
    seconds["reading"] = (time.perf_counter() - began) / len(runs)
    first = runs[0]
    _, begun = click("/api/images", run=first, cell=GENERATORS[0])
    for name, words in CLICKS.items():
        asked = {"run": first, "cell": GENERATORS[0]} | words
        if words.get("page") == "last":
            asked["page"] = str(begun["pages"])
        seconds[name], _ = click("/api/images", **asked)
    seconds["photograph"], _ = click("/api/photograph/0")
    server.should_exit = True
    thread.join()
    return seconds
