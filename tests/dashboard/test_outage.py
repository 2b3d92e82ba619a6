"""The store fails and returns: an open page shows it, and recovers by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from middleware.job.schema import make_job
from ops.settings.load import load_settings
from tests.dashboard.conftest import DashboardClient, own_environ
from tests.rest.conftest import Api, running_api
from tests.support import RunningValkey
from tests.workers import sweep


@pytest.fixture
def own_store(tmp_path: Path) -> Iterator[RunningValkey]:
    """A store that the test may kill."""
    server = RunningValkey(load_settings(tmp_path / "store", environ={}))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def own_api(own_store: RunningValkey, tmp_path: Path) -> Iterator[Api]:
    """An API over it."""
    home = tmp_path / "own"
    home.mkdir()
    environ = own_environ(own_store.url, home)
    with running_api(environ) as api:
        yield api
    sweep(environ)


def test_page_outlives_the_store(
    own_store: RunningValkey, own_api: Api, open_dashboard: Callable[[Api], DashboardClient]
) -> None:
    """While the store is unavailable, the page says so and a new page is an error page; then both recover."""
    dashboard = open_dashboard(own_api)
    page = dashboard.enter("/")
    own_store.kill()
    expect(page.locator("[data-live-text]")).to_have_text("the store is unavailable", timeout=20_000)
    other = page.context.new_page()
    other.goto(f"{dashboard.url}/jobs")
    expect(other.get_by_role("heading", level=1)).to_have_text("Service Unavailable")
    own_store.start()
    expect(page.locator("[data-live-text]")).to_have_text("live", timeout=20_000)
    job = dashboard.bridge.submit(make_job("heartbeat", {"nonce": "back again"}, source="cli"))
    expect(page.locator(f'tr[data-key="{job.job_id}"]')).to_be_visible()
    other.get_by_role("link", name="Try again").click()
    expect(other.locator(f'tr[data-key="{job.job_id}"]')).to_be_visible()
    dashboard.expect_complaint("503")
