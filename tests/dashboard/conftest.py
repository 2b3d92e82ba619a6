"""A bridge with worker, clock and dashboard that all tests share, and a browser that must not complain."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request

from ingress.dispatch import Bridge
from middleware.job.records import JobRecord
from middleware.job.schema import make_job
from ops.settings.load import load_settings
from ops.tokens import Scope
from tests.clock.conftest import running_clocks
from tests.dashboard.browser import running_browser
from tests.rest.conftest import Api, running_api
from tests.support import bridge_environ
from tests.workers import running_worker, sweep

SETTINGS = """
kill_grace_s = 0.5
progress_interval_s = 0.02

[projects.site]
path = "WORKDESK"
command = ["echo", "{task}"]

[[policy]]
source = "cli"
job_type = "shell.cmd"
command = "touch *"
effect = "approve"

[[schedule]]
id = "pulse"
every = "1s"
job = { job_type = "heartbeat" }

[[schedule]]
id = "nightly"
cron = "30 2 * * *"
job = { job_type = "heartbeat" }
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first of these tests may have to install a browser, which takes longer than any test may."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.timeout(900))


class DashboardClient:
    """The dashboard under test.

    Args:
        api: That serves it.
        browser: To look at it with.
    """

    def __init__(self, api: Api, browser: Browser) -> None:
        self.api = api
        self.bridge = api.bridge
        self._browser = browser
        self._complaints: list[str] = []
        self._contexts: list[BrowserContext] = []

    @property
    def url(self) -> str:
        """Where it is, without the last slash."""
        return self.api.url.rstrip("/")

    def token(self, scope: Scope = "admin") -> tuple[str, str]:
        """Make a token; gives its name and the token."""
        name = f"{scope}-{uuid.uuid4().hex[:6]}"
        return name, self.api.tokens.make(name, scope)

    def window(self, width: int = 1440, theme: Any = "light", **options: Any) -> BrowserContext:
        """Open a browser that knows nothing yet and is watched."""
        context = self._browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=theme, **options
        )
        context.set_default_timeout(10_000)
        context.on("console", self._hear)
        context.on("weberror", lambda error: self._complaints.append(f"thrown: {error.error}"))
        context.on("request", self._see)
        self._contexts.append(context)
        return context

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self._complaints.append(f"console: {message.text}")

    def _see(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if f"{parts.scheme}://{parts.netloc}" != self.url:
            self._complaints.append(f"another host: {request.url}")

    def expect_complaint(self, part: str) -> None:
        """Take back a complaint that belongs to the test."""
        kept = [text for text in self._complaints if part not in text]
        assert len(kept) < len(self._complaints), f"nothing says {part!r}: {self._complaints}"
        self._complaints = kept

    def enter(self, path: str = "/", scope: Scope = "admin", *, live: bool = True, **options: Any) -> Page:
        """Sign in and open a page; it is live when this returns, if it can be."""
        page = self.window(**options).new_page()
        page.goto(f"{self.url}{path}")
        page.get_by_label("API token").fill(self.token(scope)[1])
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_selector("header.top")
        if live and options.get("java_script_enabled", True):
            page.wait_for_selector('[data-live-state="on"]')
        return page

    def submit(self, *argv: str, **fields: Any) -> JobRecord:
        """Dispatch a command."""
        receipt = self.bridge.submit(make_job("shell.cmd", {"argv": list(argv)}, source="cli", **fields))
        return self.bridge.reader.job(receipt.job_id)

    def close(self) -> None:
        """Close all windows; fails if one of them complained."""
        for context in self._contexts:
            context.close()
        assert not self._complaints, self._complaints


def own_environ(store_url: str, home: Path) -> dict[str, str]:
    """Return the environment of a separate bridge with these settings."""
    return bridge_environ(home, store_url, SETTINGS)


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """A real Chromium."""
    with running_browser() as found:
        yield found


@pytest.fixture(scope="package")
def dashboard_api(valkey: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """The shared bridge: API, worker and clock."""
    environ = own_environ(valkey, tmp_path_factory.mktemp("dashboard"))
    with contextlib.ExitStack() as stack:
        stack.callback(sweep, environ)
        api = stack.enter_context(running_api(environ))
        bridge = Bridge(load_settings(environ=environ))
        stack.enter_context(running_worker(bridge, environ))
        stack.enter_context(running_clocks(environ, bridge))
        yield api


@pytest.fixture
def dashboard(dashboard_api: Api, browser: Browser) -> Iterator[DashboardClient]:
    """The shared dashboard; the test fails if a page of it complains or asks another host for anything."""
    assert dashboard_api.process is not None
    assert dashboard_api.process.poll() is None, dashboard_api.output.read_text()
    made = DashboardClient(dashboard_api, browser)
    yield made
    made.close()


@pytest.fixture
def open_dashboard(browser: Browser) -> Iterator[Callable[[Api], DashboardClient]]:
    """Makes the dashboard of a bridge of the test's own."""
    made: list[DashboardClient] = []

    def make(api: Api) -> DashboardClient:
        made.append(DashboardClient(api, browser))
        return made[-1]

    yield make
    for dashboard in made:
        dashboard.close()
