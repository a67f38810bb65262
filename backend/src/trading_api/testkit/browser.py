"""A headless Chromium for tests, driven over WebDriver."""

import contextlib
import os
import shutil
from collections.abc import Iterator

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.chrome.webdriver import WebDriver

_ARGUMENTS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1200,900")


@contextlib.contextmanager
def open_browser() -> Iterator[WebDriver]:
    """Open a browser that notes every request and every line of its console.

    Where none is installed the test is skipped, in CI it fails.
    """
    program = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        if os.environ.get("CI"):
            pytest.fail("no browser: install chromium and chromium-driver")
        pytest.skip("no browser: install chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in _ARGUMENTS:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    made = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield made
    finally:
        made.quit()
