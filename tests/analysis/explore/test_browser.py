"""Real clicks and keys on the page of `explore`, in a headless browser, wide and narrow."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from analysis.cam import open_images
from analysis.store import Store
from tests.analysis.explore.server import Client
from tests.browser import opened

WIDE, NARROW = 1280, 390
VIEWS = ("#/matrices", "#/points", "#/score")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    yield from opened(tmp_path_factory.mktemp("profile"))


class Tab:
    """A browser with the page."""

    def __init__(self, browser: Any, page: Client) -> None:
        self.browser, self.page = browser, page

    def open(self, width: int, *, dark: bool = False) -> None:
        metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
        self.browser.get("about:blank")
        self.browser.get(self.page.address)
        self.until(lambda: self.all("#methods button.cell"))

    def until(self, what: Callable[[], Any], seconds: float = 60) -> Any:
        from selenium.common.exceptions import StaleElementReferenceException

        end = time.monotonic() + seconds
        while True:
            with suppress(StaleElementReferenceException):  # drawn anew meanwhile
                if found := what():
                    return found
            assert time.monotonic() < end, self.browser.find_element("tag name", "main").text
            time.sleep(0.05)

    def all(self, selector: str) -> list[Any]:
        return self.browser.find_elements("css selector", selector)

    def one(self, selector: str) -> Any:
        return self.browser.find_element("css selector", selector)

    def run(self, script: str, *arguments: Any) -> Any:
        return self.browser.execute_script(f"return {script}", *arguments)

    def keys(self, *keys: str) -> None:
        for key in keys:
            self.browser.switch_to.active_element.send_keys(key)

    def focused(self) -> str:
        return str(self.run("document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent"))

    def choose(self, form: str, name: str, value: str) -> None:
        from selenium.webdriver.support.select import Select

        Select(self.one(f"#{form} [name={name}]")).select_by_value(value)

    def tiles(self) -> list[str]:
        return [tile.text for tile in self.all("#tiles .tile")]

    def drawn(self, selector: str) -> Any:
        """Whether there are such pictures, and all are drawn."""
        return self.run(
            "((all) => all.length && all.every((one) => one.complete && one.naturalWidth))"
            "([...document.querySelectorAll(arguments[0])].filter((one) => one.src))", selector,
        )  # fmt: skip


@pytest.fixture
def tab(browser: Any, page: Client) -> Iterator[Tab]:
    yield Tab(browser, page)
    severe = [entry for entry in browser.get_log("browser") if "status of 4" not in entry["message"]]
    assert severe == []


def cell(method: str, trained_on: str, tested_on: str) -> str:
    return f"button[data-cell='{method}/{trained_on}/{tested_on}']"


def click_cell(tab: Tab, method: str = "xception_scratch", trained_on: str = "lama", tested_on: str = "ldm") -> None:
    tab.one(cell(method, trained_on, tested_on)).click()
    tab.until(lambda: tab.all("#tiles .tile"))


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_a_click_on_a_cell_shows_its_images_and_a_click_on_an_image_its_photograph(tab: Tab, width: int) -> None:
    tab.open(width)
    assert "token" not in tab.browser.current_url
    click_cell(tab)
    assert tab.one("#images-heading").text == "xception_scratch [test_resnet, random weights, small form]"
    assert "trained on lama, seed 0. An image counts as fake above log-odds 0" in tab.one("#images-run").text
    assert tab.one("#images-said").text == "6 of 12 answers are wrong. 12 images shown."
    assert len(tab.tiles()) == 12
    tab.until(lambda: tab.drawn("#tiles img"))
    wrong = ["✗" in text for text in tab.tiles()]
    assert wrong == sorted(wrong, reverse=True)
    tab.all("#tiles .tile")[0].click()
    tab.until(lambda: tab.run("document.getElementById('photograph').open"))
    captions = [one.text.split("\n")[0] for one in tab.all("#versions figcaption")]
    assert captions == ["real", "lama", "ldm"]
    tab.until(lambda: tab.drawn("#versions .slot:not(.map) img"))
    tab.until(lambda: len(tab.all("#scores tbody tr:not(.method)")) == 6)  # three methods, each with two training sets
    tab.until(lambda: len(tab.all("#versions .map img")) == 3)
    assert "Grad-CAM" in tab.one("#map-said").text
    tab.one("#photograph-close").click()
    assert not tab.run("document.getElementById('photograph').open")
    tab.all("#tiles .tile")[1].click()
    tab.until(lambda: tab.run("document.getElementById('photograph').open"))
    tab.browser.back()
    tab.until(lambda: tab.one("#matrices").is_displayed())
    assert not tab.run("document.getElementById('photograph').open")


BROKEN = """
const done = arguments[0];
import("/static/tools.js").then(({ name }) => {
  const broken = [];
  const long = () => name("patch_samples_of_autoencoders");
  for (const head of document.querySelectorAll("#methods th")) head.replaceChildren(long());
  for (const head of document.querySelectorAll("#matrices th")) {
    const walker = document.createTreeWalker(head, NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
      for (const { 0: word, index } of node.data.matchAll(/[^\\s_-]+/g)) {
        const range = document.createRange();
        range.setStart(node, index);
        range.setEnd(node, index + word.length);
        if (range.getClientRects().length > 1) broken.push(word);
      }
    }
  }
  done(broken);
});
"""


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_headings_are_not_broken_inside_a_word(tab: Tab, width: int) -> None:
    tab.open(width)
    tab.until(lambda: tab.all("#methods th"))
    assert tab.browser.execute_async_script(BROKEN) == []


FLAT = """
const done = arguments[0], own = window.fetch, canvas = document.createElement("canvas");
canvas.width = canvas.height = 40;
canvas.toBlob(async (blob) => {
  window.fetch = async () => new Response(blob, { headers: { "Explore-Map": "flat" } });
  const slot = document.querySelector("#tiles .slot"), { Maps } = await import("/static/tools.js");
  new Maps().add(slot, "/map", "map:");
  setTimeout(() => {
    window.fetch = own;
    const box = (selector) => slot.querySelector(selector).getBoundingClientRect();
    const [map, words] = [box("img"), box(".flat")];
    done([map.width, map.bottom, words.top, words.bottom, slot.getBoundingClientRect().bottom]);
  }, 500);
});
"""


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_that_a_map_is_flat_stands_below_it(tab: Tab, width: int) -> None:
    tab.open(width)
    click_cell(tab)
    tab.until(lambda: tab.drawn("#tiles img"))
    map_width, map_end, begin, end, slot_end = tab.browser.execute_async_script(FLAT)
    assert map_width > 60
    assert map_end <= begin + 1
    assert begin < end <= slot_end + 1


def test_filters_sort_and_show_masks_and_maps(tab: Tab) -> None:
    tab.open(WIDE)
    click_cell(tab)
    everything = tab.tiles()
    tab.choose("filters", "answer", "wrong")
    tab.until(lambda: len(tab.tiles()) == 6)
    assert tab.tiles() == everything[:6]
    tab.choose("filters", "answer", "")
    tab.choose("filters", "made_by", "ldm")
    tab.until(lambda: len(tab.tiles()) == 6 and all("made by ldm, 25 % edited" in text for text in tab.tiles()))
    tab.one("#filters [name=masks]").click()
    tab.one("#filters [name=maps]").click()
    tab.until(lambda: len(tab.all("#tiles .map img")) >= 3 and tab.drawn("#tiles img"))
    area = tab.one("#filters [name=from]")
    area.send_keys("90", "\ue007")
    tab.until(lambda: "No image fits these filters." in tab.one("#images-said").text)
    area.clear()
    area.send_keys("\ue007")
    tab.until(lambda: tab.tiles())
    tab.browser.refresh()  # the address holds the filters
    tab.until(lambda: len(tab.tiles()) == 6)
    assert tab.one("#filters [name=masks]").is_selected()
    tab.browser.back()
    tab.until(lambda: tab.one("#matrices").is_displayed())


def test_the_value_of_the_matrices_is_chosen_by_a_control(tab: Tab, page: Client) -> None:
    tab.open(WIDE)
    for metric in ("accuracy", "eer"):
        tab.choose("matrix-controls", "metric", metric)
        values = [one for one in page.json("/api/grid", metric=metric)["methods"] if one["variant"] == "clip_linear"]
        shown = f"{values[0]['values'][0][1]:.3f}"
        tab.until(lambda shown=shown: tab.one(cell("clip_linear", "ldm", "lama")).text == shown)
    assert "equal error rate" in str(tab.one(cell("clip_linear", "ldm", "lama")).get_attribute("aria-label"))


def test_everything_is_reached_by_keys(tab: Tab) -> None:
    down, right, left, escape, enter, tabulator = "\ue015", "\ue014", "\ue012", "\ue00c", "\ue007", "\ue004"
    tab.open(WIDE)
    for _ in range(12):
        tab.keys(tabulator)
        if "trained on lama, tested on lama" in tab.focused():
            break
    assert tab.focused().endswith("trained on lama, tested on lama: show its images")
    assert tab.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    tab.keys(right, down)
    assert tab.focused().endswith("trained on ldm, tested on ldm: show its images")
    tab.keys(left, enter)
    tab.until(lambda: tab.all("#tiles .tile"))
    assert tab.run("document.activeElement.id") == "images-heading"
    for _ in range(16):
        tab.keys(tabulator)
        if tab.run("document.activeElement.classList.contains('tile')"):
            break
    first = tab.focused()
    tab.keys(right)
    assert tab.focused() != first
    tab.keys(left, down)
    chosen = tab.focused()
    assert chosen != first
    tab.keys(enter)
    tab.until(lambda: tab.run("document.getElementById('photograph').open"))
    tab.keys(escape)
    tab.until(lambda: not tab.run("document.getElementById('photograph').open"))
    assert tab.focused() == chosen
    tab.keys(escape)
    tab.until(lambda: tab.one("#matrices").is_displayed())
    assert tab.focused().endswith("trained on lama, tested on ldm: show its images")


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_a_point_shows_its_picture(tab: Tab, width: int) -> None:
    tab.open(width)
    tab.one("nav a[data-view=points]").click()
    tab.until(lambda: tab.all("#legend li"))
    assert [one.text for one in tab.all("#legend li")] == ["real", "lama", "ldm"]
    tab.run("document.getElementById('canvas').focus()")
    tab.keys("\ue014")
    said = tab.one("#point-said").text
    tab.until(lambda: tab.drawn("#point-picture"))
    assert "photograph" in said
    tab.one("#canvas").click()
    tab.until(lambda: tab.run("document.getElementById('photograph').open"))
    assert tab.one("#photograph-heading").text.removeprefix("Photograph ") in tab.one("#point-said").get_attribute(
        "textContent"
    )
    tab.keys("\ue00c")
    assert tab.one("#points").is_displayed()


def test_a_picture_that_is_chosen_is_scored(tab: Tab, tracked: Store, tmp_path: Path) -> None:
    tab.open(WIDE)
    tab.one("nav a[data-view=score]").click()
    manifest = open_images(tracked)
    (picture,) = manifest.paths(manifest.table[manifest.table["split"] == "train"].iloc[[0]])
    noise = tmp_path / "noise.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(noise)
    (text := tmp_path / "notes.png").write_text("no picture")
    for number, path in enumerate((picture, noise), start=1):
        tab.one("#file").send_keys(str(path))
        tab.until(lambda number=number: len(tab.all("#answers article")) == number)
    newest, oldest = tab.all("#answers article")
    assert "no verdict" in newest.text
    assert "not like the training images" in newest.text
    assert "log-odds of fake" in oldest.text
    assert "xception_scratch [test_resnet, random weights, small form], trained on lama" in oldest.text
    tab.until(lambda: tab.drawn("#answers img"))
    tab.one("#file").send_keys(str(text))
    tab.until(lambda: "notes.png: this file cannot be used" in tab.one("#score-said").text)
    assert len(tab.all("#answers article")) == 2


DROP = """
fetch("/picture/0").then((answer) => answer.blob()).then((picture) => {
  const carried = new DataTransfer();
  carried.items.add(new File([picture], "dropped.png", { type: "image/png" }));
  document.getElementById("drop").dispatchEvent(new DragEvent("drop", { dataTransfer: carried, cancelable: true }));
})
"""


def test_a_picture_that_is_dropped_is_scored(tab: Tab) -> None:
    tab.open(NARROW)
    tab.one("nav a[data-view=score]").click()
    tab.run(DROP.strip())
    tab.until(lambda: tab.all("#answers article"))
    assert "dropped.png, 64 × 64" in tab.one("#answers").text


def test_a_click_on_a_class_shows_what_it_was_taken_for(tab: Tab) -> None:
    tab.open(WIDE)
    tab.one("button[data-cell='attribution/residual_linear/lama']").click()
    tab.until(lambda: len(tab.tiles()) == 6 and all("made by lama" in text for text in tab.tiles()))
    assert tab.one("#images-run").text.startswith("Attribution, trained on")
    assert all("answered" in text and "margin" in text for text in tab.tiles())
    assert not tab.one("#filters [name=maps]").is_enabled()


OUTSIDE = """
[...document.querySelectorAll("h1, h2, h3, p, label, select, input, button, li, nav, figure, img, canvas")]
  .filter((one) => one.checkVisibility() && !one.closest(".scroll") && !one.classList.contains("skip"))
  .filter((one) => one.getBoundingClientRect().right > innerWidth + 0.5).map((one) => one.outerHTML.slice(0, 80))
"""


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_no_page_scrolls_sideways_and_text_can_be_read(tab: Tab, width: int, dark: bool) -> None:
    tab.open(width, dark=dark)

    def check(where: str) -> None:
        assert (where, tab.run(OUTSIDE.strip())) == (where, [])
        assert tab.run("document.documentElement.scrollWidth") <= width
        assert tab.run("innerWidth") == width
        assert (where, tab.run(FAINT.strip())) == (where, [])

    for view in VIEWS:
        tab.run("location.hash = arguments[0]", view)
        tab.until(lambda view=view: tab.one(f"#{view[2:]}").is_displayed())
        check(view)
    tab.run("location.hash = '#/matrices'")
    tab.until(lambda: tab.one("#methods").is_displayed())
    click_cell(tab)
    check("images")
    tab.all("#tiles .tile")[0].click()
    tab.until(lambda: tab.run("document.getElementById('photograph').open") and tab.all("#scores td"))
    check("photograph")
    assert tab.run("((one) => one.scrollWidth <= one.clientWidth)(document.getElementById('photograph'))")


# Texts whose contrast with what is behind them is below 4.5 (WCAG 2.2, level AA).
FAINT = """
(() => {
  const pen = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    pen.clearRect(0, 0, 1, 1);
    pen.fillStyle = colour;
    pen.fillRect(0, 0, 1, 1);
    return pen.getImageData(0, 0, 1, 1).data;
  };
  const linear = (value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const behind = (one) => {
    const colour = one ? rgba(getComputedStyle(one).backgroundColor) : [255, 255, 255, 255];
    return colour[3] === 255 ? colour : behind(one.parentElement);
  };
  const contrast = (one) => {
    const [a, b] = [light(rgba(getComputedStyle(one).color)), light(behind(one))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  };
  const has_text = (one) => [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  return [...document.querySelectorAll("main *, header *, dialog *")]
    .filter((one) => one.checkVisibility() && !one.disabled && !one.closest(".slot") && has_text(one))
    .filter((one) => contrast(one) < 4.5).map((one) => one.outerHTML.slice(0, 100));
})()
"""


def test_nothing_comes_from_the_network_and_each_field_has_a_name(tab: Tab, page: Client) -> None:
    tab.open(WIDE)
    click_cell(tab)
    tab.until(lambda: tab.drawn("#tiles img"))
    names = tab.run("performance.getEntriesByType('resource').map((one) => one.name)")
    own = f"http://127.0.0.1:{page.port}/"
    assert len(names) > 10
    assert [name for name in names if not name.startswith((own, "blob:"))] == []
    unnamed = (
        "[...document.querySelectorAll('select, input')].filter((one) => !one.labels.length).map((one) => one.name)"
    )
    assert tab.run(unnamed) == []
    assert tab.run("[...document.images].filter((one) => !one.hasAttribute('alt')).length") == 0


def test_a_page_whose_command_has_ended_says_so(browser: Any, tracked: Store) -> None:
    from tests.analysis.explore.server import served

    with served(tracked.tracking_uri) as client:
        tab = Tab(browser, client)
        tab.open(WIDE)
    tab.one(cell("clip_linear", "lama", "lama")).click()
    tab.until(lambda: "it has ended. Start it again" in tab.one("#alert").text)
    browser.get("about:blank")
    browser.get_log("browser")
