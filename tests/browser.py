"""A headless Chromium for the tests of pages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.needs import need_program


def opened(profile: Path) -> Iterator[Any]:
    """A browser with a new profile in this folder; skips the test, or fails where all must run, without one."""
    chromium, driver = need_program("chromium", "chromium"), need_program("chromedriver", "chromium-driver")
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    options = ChromeOptions()
    options.binary_location = chromium
    for argument in (
        "headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
        "disable-component-update", "disable-sync", "disable-dev-shm-usage", f"user-data-dir={profile}",
    ):  # fmt: skip
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driven = Chrome(options=options, service=Service(driver))
    yield driven
    driven.quit()
