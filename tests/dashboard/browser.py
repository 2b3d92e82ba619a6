"""A real Chromium: the system's, else Playwright's own, else one that is installed now."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Browser, Error, Playwright, sync_playwright

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
_NAMES = ("chromium", "chromium-browser", "google-chrome")
_INSTALL_S = 600.0
_REMEDY = "no Chromium: run 'apt-get install -y chromium' or 'playwright install --with-deps chromium'."


class NoBrowser(Exception):
    """There is none, and none can be installed."""


def find_chromium(playwright: Playwright) -> str:
    """Give the program of a browser, after installing one if there is none.

    Raises:
        NoBrowser: With the remedy, one line.
    """
    found = _present(playwright)
    if found is not None:
        return found
    ways = [[sys.executable, "-m", "playwright", "install", "chromium"]]
    if os.geteuid() == 0 and shutil.which("apt-get") is not None:
        install = ["apt-get", "install", "-y", "--no-install-recommends", "chromium"]
        # The lists of packages may be missing or old; fetching them is tried only if it does not go without.
        ways += [install, ["apt-get", "update"], install]
    for way in ways:
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(way, check=False, capture_output=True, timeout=_INSTALL_S)
        found = _present(playwright)
        if found is not None and _starts(playwright, found):
            return found
    raise NoBrowser(_REMEDY)


def _present(playwright: Playwright) -> str | None:
    for name in _NAMES:
        found = shutil.which(name)
        if found is not None:
            return found
    own = playwright.chromium.executable_path
    return own if Path(own).exists() else None


def _starts(playwright: Playwright, program: str) -> bool:
    """Tell whether a browser that was just put there has all it needs."""
    try:
        playwright.chromium.launch(executable_path=program, args=ARGUMENTS).close()
    except Error:
        return False
    return True


@contextlib.contextmanager
def running_browser() -> Iterator[Browser]:
    """Run a browser for the time of a block.

    Raises:
        NoBrowser: There is none.
    """
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(playwright), args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()
