"""A real Chromium: the system's, else Playwright's own, else one that is installed now."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Browser, Error, Playwright, sync_playwright

from ops.errors import StartFailed
from tests.tools import apt_install, find_tool, remedy, require_library

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
_NAMES = ("chromium", "chromium-browser", "google-chrome")
_INSTALL_S = 600
_VERSION_WITHIN_S = 30


def find_chromium(playwright: Playwright) -> str:
    """Return the path of a browser; installs one if needed.

    Raises:
        StartFailed: There is none, and none can be installed; the remedy is a command.
    """
    found = _present(playwright)
    if found is not None:
        return found
    with contextlib.suppress(subprocess.TimeoutExpired):
        way = [sys.executable, "-m", "playwright", "install", "chromium"]
        subprocess.run(way, check=False, capture_output=True, timeout=_INSTALL_S)
    found = _present(playwright)
    # One that was just put there may lack libraries of the system.
    if found is not None and _starts(playwright, found):
        return found
    said = apt_install("chromium", timeout_s=_INSTALL_S)
    found = _present(playwright)
    if found is None or not _starts(playwright, found):
        raise StartFailed(f"there is no Chromium that starts{said}.", remedy=remedy("chromium"))
    return found


def _present(playwright: Playwright) -> str | None:
    for name in _NAMES:
        found = find_tool(name)
        if found is not None:
            return found
    own = playwright.chromium.executable_path
    return own if Path(own).exists() else None


def _starts(playwright: Playwright, program: str) -> bool:
    """Return whether an installed browser has all its libraries."""
    try:
        playwright.chromium.launch(executable_path=program, args=ARGUMENTS).close()
    except Error:
        return False
    return True


def _driver_starts() -> bool:
    way = [sys.executable, "-m", "playwright", "--version"]
    return subprocess.run(way, check=False, capture_output=True, timeout=_VERSION_WITHIN_S).returncode == 0


@contextlib.contextmanager
def running_browser() -> Iterator[Browser]:
    """Run a browser for the time of a block.

    Raises:
        StartFailed: There is none.
    """
    if not _driver_starts():
        require_library("libatomic.so.1")  # all that its Node.js expects of the system beside the C library
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(playwright), args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()
