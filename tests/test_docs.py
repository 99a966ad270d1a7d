"""The documentation: its site builds without a warning or a network, its links lead somewhere, its commands parse."""

from __future__ import annotations

import functools
import http.server
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from docs import hooks, pictures
from grid.commands import list_commands
from models.metrics import list_metrics
from tests.browser import opened
from tests.pages import ROOT, Command, inline, steps
from tests.parsers import wrong

DOCS = sorted((ROOT / "docs").rglob("*.md"))
BESIDE = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "examples/add_a_method.md")]
PAGES = [*BESIDE, *DOCS]
MAX_LINES = 200  # of the README


def place(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# Pages as text -------------------------------------------------------------------------------------------------------


def anchors(text: str) -> set[str]:
    """The anchors that a host gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", BESIDE, ids=place)
def test_links_of_a_page_beside_the_site_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    written = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    targets = [target for target in written if not target.startswith("https://")]
    wrong_links = []
    for target in targets:
        path, _, anchor = target.partition("#")
        found = page.parent / path if path else page
        if not found.exists() or (anchor and anchor not in anchors(found.read_text(encoding="utf-8"))):
            wrong_links.append(target)
    assert wrong_links == []


def test_the_readme_is_short_and_its_first_screen_has_the_question() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= MAX_LINES
    assert any("How far does a deepfake detector" in line for line in lines[:5])


# Pictures ------------------------------------------------------------------------------------------------------------


def test_the_first_pages_show_the_answer_and_a_photograph_in_small_files() -> None:
    for page in (ROOT / "README.md", ROOT / "docs" / "index.md"):
        shown = re.findall(r"images/([\w-]+\.png)", page.read_text(encoding="utf-8"))
        assert shown == [f"demo-{name}.png" for name in pictures.NAMES]
    for file in pictures.HERE.iterdir():
        with Image.open(file) as picture:
            assert picture.width >= 1500, "sharp where 900 pixels of a page are 1800 of a screen"
        assert file.stat().st_size <= pictures.MOST_BYTES


def test_pictures_of_a_report_are_kept_as_they_are_in_fewer_colours(tmp_path: Path) -> None:
    (tmp_path / "figures").mkdir()
    ramp = np.linspace(0, 255, 1600).astype(np.uint8)
    drawn = np.stack([ramp, ramp[::-1], np.full(1600, 40, np.uint8)], axis=1)[None].repeat(20, axis=0)
    for name in pictures.NAMES:
        Image.fromarray(drawn).save(tmp_path / "figures" / f"{name}.png")
    for file in pictures.keep_pictures(tmp_path, tmp_path):
        with Image.open(file) as kept:
            assert np.abs(np.asarray(kept, int) - drawn).max() <= 4
            assert len(np.unique(np.asarray(kept))) == pictures.LEVELS
    noise = np.random.default_rng(0).integers(0, 256, (700, 700, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "figures" / f"{pictures.NAMES[0]}.png")
    with pytest.raises(ValueError, match="more than 330,000"):
        pictures.keep_pictures(tmp_path, tmp_path)


# Commands ------------------------------------------------------------------------------------------------------------


COMMANDS = [
    (place(page), command.text, command)
    for page in PAGES
    for command in [*steps(page.read_text(encoding="utf-8")), *inline(page.read_text(encoding="utf-8"))]
    if isinstance(command, Command)
]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Ray's own command line
def test_every_command_of_every_page_is_taken_by_its_parser() -> None:
    assert len(COMMANDS) > 150
    faults = [f"{page}: {text}: {said}" for page, text, command in COMMANDS if (said := wrong(command))]
    assert "\n".join(faults) == ""


@pytest.mark.parametrize(
    "text",
    [
        "python launch.py dolos --data DIR --sedes 0",
        "python launch.py statsu dolos",
        "python -m analysis predict IMAGE",
        "python -m analysis verify --limit 3",
        "python -m analysis reprot",
        "python -m benchmarks nothing",
        "make demos",
        "mlflow ui --backend-stor-uri sqlite:///x.db",
        "ray attach --nothing",
        "clusters/upp.sh cluster.yaml",
    ],
)
def test_a_command_that_nothing_takes_is_found(text: str) -> None:
    assert wrong(Command(text)) != ""


def test_every_metric_is_on_its_page() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    names = {name for name in list_metrics() if f"`{name}`" not in page}
    assert names == set()


# The site ------------------------------------------------------------------------------------------------------------


class Resources(HTMLParser):
    """What a browser fetches to show a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in ("script", "img", "iframe", "source"):
            self.fetched += [str(given["src"])] if given.get("src") else []
        elif tag == "link" and given.get("rel") in ("stylesheet", "preload", "icon", "preconnect"):
            self.fetched.append(str(given["href"]))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; a warning, such as of a broken link, is an error."""
    folder = tmp_path_factory.mktemp("site")
    nowhere = "http://127.0.0.1:9"  # whatever asked for a page of the network would fail
    environment = os.environ | {"http_proxy": nowhere, "https_proxy": nowhere, "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout + done.stderr
    return folder


def test_every_page_is_built_and_fetches_nothing_from_elsewhere(site: Path) -> None:
    built = sorted(site.rglob("*.html"))
    assert {path.with_suffix("").relative_to(site) for path in built} >= {
        page.with_suffix("").relative_to(ROOT / "docs") for page in DOCS
    }
    for path in built:
        fetched = Resources(path.read_text(encoding="utf-8")).fetched
        assert fetched
        assert [address for address in fetched if address.startswith(("http:", "https:", "//"))] == []
        assert [
            one for one in fetched if not (path.parent / one.partition("?")[0]).exists() and path.stem != "404"
        ] == []


def test_the_reference_has_every_command_and_the_docstrings(site: Path) -> None:
    commands = (site / "reference" / "commands.html").read_text(encoding="utf-8")
    assert len(hooks.commands()) >= len(list_commands()) + 4
    for command in hooks.commands():
        assert f"<code>{command}</code></h2>" in re.sub(r'<a class="headerlink".*?</a>', "", commands)
    assert "usage: python -m analysis verify" in commands
    assert hooks.PLACE not in commands
    detectors = (site / "reference" / "models.html").read_text(encoding="utf-8")
    assert "The parts for Grad-CAM, or None for a method without a differentiable spatial layer." in detectors


def test_the_navigation_has_what_a_reader_looks_for() -> None:
    navigation = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    names = [name for entry in navigation for name in entry]
    assert names == ["Home", "Tutorial", "How-to", "Reference", "Explanation", "Operation", "Troubleshooting"]


# In a browser --------------------------------------------------------------------------------------------------------


class Silent(http.server.SimpleHTTPRequestHandler):
    """Serves the site and prints nothing."""

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    handler = functools.partial(Silent, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    yield from opened(tmp_path_factory.mktemp("profile"))


OVERFLOW = """
const root = document.documentElement;
const outside = [...document.querySelectorAll("article h1, article h2, article p, article li")]
  .filter((one) => !one.closest(".md-typeset__scrollwrap") && one.getBoundingClientRect().right > innerWidth + 0.5)
  .map((one) => one.outerHTML.slice(0, 120));
return JSON.stringify({page: root.scrollWidth, window: innerWidth, outside});
"""
SHOWN = ["index", "launch", "methods", "troubleshooting", "reference/models", "reference/commands"]


@pytest.mark.parametrize("width", [390, 1280])
def test_no_page_scrolls_sideways(browser: Any, address: str, width: int) -> None:
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    for page in SHOWN:
        browser.get(f"{address}/{page}.html")
        seen = json.loads(browser.execute_script(OVERFLOW))
        assert seen["outside"] == [], page
        assert seen["page"] <= seen["window"] == width, page


def test_the_console_is_silent_and_nothing_is_asked_of_the_network(browser: Any, address: str) -> None:
    browser.get(f"{address}/metrics.html")
    asked = browser.execute_script("return performance.getEntriesByType('resource').map((one) => one.name)")
    assert asked
    assert [name for name in asked if not name.startswith(address)] == []
    assert [line for line in browser.get_log("browser") if line["level"] == "SEVERE"] == []
