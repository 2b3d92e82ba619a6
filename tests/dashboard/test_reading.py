"""The pages can be read and used: by eye in both themes, by keyboard, on a phone, by a screen reader."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from ingress.core import control
from middleware.job.schema import make_job
from tests.dashboard.conftest import DashboardClient
from tests.rest.conftest import Api

AUDIT = (Path(__file__).parent / "audit.js").read_text()
#: The background of the page.
GROUND = "() => getComputedStyle(document.documentElement).backgroundColor"


@pytest.fixture(scope="module")
def places(dashboard_api: Api, browser: Browser) -> Iterator[list[str]]:
    """The pages with something of everything on them."""
    dashboard = DashboardClient(dashboard_api, browser)
    failed = dashboard.submit("sh", "-c", "echo out; echo err >&2; exit 3", max_retries=0)
    done = dashboard.submit("echo", "fine")
    running = dashboard.submit("sh", "-c", "echo working; exec sleep 90")
    held = dashboard.submit("touch", "held")
    late = dashboard.submit("true", depends_on=[running.job_id])
    for job in (failed, done):
        dashboard.bridge.follower.wait(job.job_id, timeout_s=10.0)
    dashboard.bridge.scripts.cancel(dashboard.submit("touch", "gone").job_id, "by the test")
    yield ["/", "/jobs", *(f"/jobs/{job.job_id}" for job in (failed, done, running, held, late))]
    for job in (late, running, held):
        control.cancel(dashboard.bridge, job.job_id, "the test is over")


def test_names_headings_contrast(dashboard: DashboardClient, places: list[str]) -> None:
    """Every control has a name, headings go down by one, every text has a contrast of AA, in both themes."""
    page = dashboard.enter("/")
    for place in ["/sign-in", *places]:
        page.goto(f"{dashboard.url}{place}")
        if place != "/sign-in":
            page.wait_for_selector('[data-live-state="on"]')
        for details in page.locator("details").all():
            details.evaluate("node => { node.open = true; }")
        grounds = []
        for theme in ("light", "dark"):
            page.emulate_media(color_scheme=theme)
            grounds.append(page.evaluate(GROUND))
            assert page.evaluate(AUDIT) == [], (place, theme)
        assert grounds[0] != grounds[1]


def test_audit_finds_faults(dashboard: DashboardClient) -> None:
    """The audit itself sees a control without a name, a pale text and a heading out of order."""
    page = dashboard.enter("/jobs")
    page.evaluate(
        """() => document.querySelector("main").insertAdjacentHTML("beforeend",
        "<button></button><p class='pale'>pale</p><h4>deep</h4>")"""
    )
    page.evaluate("() => { document.querySelector('.pale').style.color = 'rgb(190, 190, 190)'; }")
    found = " ".join(page.evaluate(AUDIT))
    for fault in ("no name", "contrast 1", "leaves out a level"):
        assert fault in found


def test_nothing_sticks_out_and_fingers_can_hit(dashboard: DashboardClient, places: list[str]) -> None:
    """No page has to be scrolled sideways; on a phone everything that acts is large enough for a finger."""
    page = dashboard.enter("/")
    for place in places:
        page.goto(f"{dashboard.url}{place}")
        for width in (1440, 768, 390):
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate("() => document.documentElement.scrollWidth") <= width, (place, width)
        small = page.locator("button, select, input:not([type=hidden]), .top nav a").evaluate_all(
            "nodes => nodes.filter(n => n.checkVisibility() && n.getBoundingClientRect().height < 38)"
            ".map(n => n.outerHTML.slice(0, 90))"
        )
        assert small == [], place


def test_the_percentage_stays_in_one_line(dashboard: DashboardClient) -> None:
    """Beside a long message, on a phone."""
    task = {"task": "::progress 99 step 99 of what takes so many steps that its message is long"}
    job = dashboard.bridge.submit(make_job("task.custom", task, project="site", source="cli"))
    dashboard.bridge.follower.wait(job.job_id, timeout_s=10.0)
    page = dashboard.enter(f"/jobs/{job.job_id}", width=390)
    number = page.locator(".job-progress .num")
    expect(number).to_have_text("100 %")
    lines = "node => node.getClientRects()[0].height / parseFloat(getComputedStyle(node).lineHeight)"
    assert number.evaluate(lines) < 1.5


def focused(page: Page) -> str:
    """Say what has the focus, and fail if it is not seen."""
    found = page.evaluate(
        """() => { const node = document.activeElement; const style = getComputedStyle(node);
        return [node.textContent.trim() || node.name, style.outlineStyle,
        parseFloat(style.outlineWidth)]; }"""
    )
    assert found[1] == "solid", found
    assert found[2] >= 2, found
    return str(found[0])


def test_keyboard(dashboard: DashboardClient) -> None:
    """Tab leads through the page in order, visibly; / leads to the search; Enter opens a job."""
    job = dashboard.submit("echo", "by keyboard")
    dashboard.bridge.follower.wait(job.job_id, timeout_s=10.0)
    page = dashboard.enter("/jobs")
    order = []
    for _ in range(6):
        page.keyboard.press("Tab")
        order.append(focused(page))
    assert order[:4] == ["Skip to content", "CMD.BRIDGE", "Overview", "Jobs"]
    page.keyboard.press("/")
    expect(page.get_by_label("Search")).to_be_focused()
    page.keyboard.type("keyboard")
    # The only one: others of this bridge come into the list until the search has taken effect.
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.locator("tbody tr")).to_contain_text("by keyboard")
    page.locator("tbody a").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/jobs/{job.job_id}")


def test_theme_is_kept(dashboard: DashboardClient) -> None:
    """The switch changes the theme at once, and the next page has it from its first byte."""
    page = dashboard.enter("/", theme="light")
    before = page.evaluate(GROUND)
    switch = page.get_by_role("button", name="theme")
    switch.click()
    expect(page.locator("html")).to_have_attribute("data-theme", "light")
    switch.click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    assert page.evaluate(GROUND) != before
    assert 'data-theme="dark"' in page.request.get(f"{dashboard.url}/jobs").text()
