"""What changes is seen without loading the page again."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from ingress.core import control
from tests.dashboard.conftest import DashboardClient

#: Notes when each row came to be in the page, by the clock of this machine.
_WATCH = """() => {
  window.seen = {};
  new MutationObserver(() => {
    for (const row of document.querySelectorAll("tr[data-key]")) seen[row.dataset.key] ??= Date.now();
  }).observe(document.body, {subtree: true, childList: true});
}"""
_LIMIT_MS = 200


def stays(page: Page) -> None:
    """Mark the page, so that a reload would be seen."""
    page.evaluate("() => { window.untouched = true; }")


def stayed(page: Page) -> bool:
    """Return whether the page was not reloaded."""
    return bool(page.evaluate("() => window.untouched === true"))


def delays_ms(dashboard: DashboardClient, page: Page, count: int = 5) -> list[float]:
    """Dispatch jobs and give how long each took to appear."""
    page.evaluate(_WATCH)
    delays = []
    for number in range(count):
        began_ms = time.time() * 1000
        job = dashboard.submit("echo", f"appear {number}")
        page.wait_for_function("id => window.seen[id] !== undefined", arg=job.job_id)
        delays.append(page.evaluate("id => window.seen[id]", job.job_id) - began_ms)
    return delays


@pytest.mark.serial
def test_job_appears_in_the_list(dashboard: DashboardClient) -> None:
    """A submitted job is in the list within 200 ms, without a reload."""
    page = dashboard.enter("/jobs")
    stays(page)
    delays = delays_ms(dashboard, page)
    assert statistics.median(delays) < _LIMIT_MS, delays
    assert stayed(page)


@pytest.mark.serial
def test_job_appears_on_the_overview(dashboard: DashboardClient) -> None:
    """The same on the first page."""
    page = dashboard.enter("/")
    stays(page)
    delays = delays_ms(dashboard, page)
    assert statistics.median(delays) < _LIMIT_MS, delays
    assert stayed(page)


def test_output_grows_and_cancel(dashboard: DashboardClient, tmp_path: Path) -> None:
    """Output is appended as it is written; the button stops the job; the focus stays where it was."""
    flag = tmp_path / "flag"
    script = 'echo first; echo second >&2; while [ ! -e "$0" ]; do sleep 0.05; done; echo third; sleep 60'
    job = dashboard.submit("sh", "-c", script, str(flag))
    page = dashboard.enter(f"/jobs/{job.job_id}")
    stays(page)
    output = page.locator("[data-output]")
    expect(output).to_contain_text("first")
    expect(output.locator(".err")).to_have_text("second\n")
    assert "third" not in output.inner_text()
    cancel = page.get_by_role("button", name="Cancel")
    cancel.focus()
    flag.touch()
    expect(output).to_contain_text("third")
    assert output.inner_text().count("first") == 1
    expect(cancel).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator('[data-part="head"] .state')).to_have_text("cancelled")
    expect(page.get_by_role("button", name="Retry")).to_be_visible()
    assert dashboard.bridge.reader.job(job.job_id).status == "cancelled"
    assert "dashboard:admin" in dashboard.bridge.reader.job(job.job_id).reason
    assert stayed(page)


def test_hidden_page_loses_no_output(dashboard: DashboardClient, tmp_path: Path) -> None:
    """A tab in the background closes its stream and goes on after the last piece that it has."""
    flag = tmp_path / "flag"
    job = dashboard.submit(
        "sh", "-c", 'echo one; while [ ! -e "$0" ]; do sleep 0.05; done; echo two', str(flag)
    )
    page = dashboard.enter(f"/jobs/{job.job_id}")
    output = page.locator("[data-output]")
    expect(output).to_have_text("one\n")
    hide = "hidden => { Object.defineProperty(document, 'hidden', {value: hidden, configurable: true});"
    hide += " document.dispatchEvent(new Event('visibilitychange')); }"
    page.evaluate(hide, True)
    flag.touch()
    dashboard.bridge.follower.wait(job.job_id, timeout_s=10.0)
    page.evaluate(hide, False)
    expect(output).to_have_text("one\ntwo\n")
    expect(page.locator('[data-part="head"] .state')).to_have_text("completed")


def test_approve_and_deny(dashboard: DashboardClient, tmp_path: Path) -> None:
    """Held jobs are on the overview, and are approved or denied with a click."""
    wanted, unwanted = tmp_path / "wanted", tmp_path / "unwanted"
    page = dashboard.enter("/")
    stays(page)
    jobs = [dashboard.submit("touch", str(path)) for path in (wanted, unwanted)]
    for job, name, status in ((jobs[0], "Approve", "completed"), (jobs[1], "Deny", "cancelled")):
        line = page.locator(f'.approvals li[data-key="{job.job_id}"]')
        line.get_by_role("button", name=name).click()
        expect(line).to_have_count(0)
        expect(page.locator(f'tr[data-key="{job.job_id}"]')).to_have_attribute("data-status", status)
    assert wanted.exists()
    assert not unwanted.exists()
    assert stayed(page)


def test_retry(dashboard: DashboardClient) -> None:
    """A failed job is retried with a click, and its timeline shows both attempts."""
    job = dashboard.submit("sh", "-c", "exit 3", max_retries=0)
    dashboard.bridge.follower.wait(job.job_id, timeout_s=10.0)
    page = dashboard.enter(f"/jobs/{job.job_id}")
    expect(page.locator(".fault")).to_contain_text("exit status 3")
    page.get_by_role("button", name="Retry").click()
    expect(page.locator(".timeline li.s-failed")).to_have_count(2)


def test_proof_comes_by_itself(dashboard: DashboardClient) -> None:
    """When a job has finished, its page shows that all state changes match the signed ledger."""
    job = dashboard.submit("echo", "sealed")
    page = dashboard.enter(f"/jobs/{job.job_id}")
    expect(page.locator(".proof.good")).to_contain_text("All 3 state changes")
    page.get_by_role("button", name="Verify").click()
    expect(page.locator(".proof.good")).to_contain_text("All 3 state changes")


def test_overview_tells_of_the_bridge(dashboard: DashboardClient) -> None:
    """Workers with what they run, daemons, schedules with next and last run, charts."""
    dashboard.bridge.follower.wait(dashboard.submit("true").job_id, timeout_s=10.0)
    job = dashboard.submit("sleep", "30")
    page = dashboard.enter("/")
    expect(page.locator(".worker .runs")).to_contain_text("sleep 30")
    expect(page.locator(".worker")).to_contain_text("just now")
    for name in ("rest", "clock"):
        expect(page.locator("section", has=page.locator("#h-daemons"))).to_contain_text(name)
    pulse = page.locator('.schedules li[data-key="pulse"]')
    expect(pulse.locator("time")).to_have_count(2)
    expect(pulse.locator("a")).to_be_visible()
    expect(page.locator('.schedules li[data-key="nightly"]')).to_contain_text("not yet")
    expect(page.locator(".plot svg rect.done").first).to_be_attached(timeout=20_000)
    expect(page.locator(".plot svg path.run").first).to_be_attached()
    control.cancel(dashboard.bridge, job.job_id, "the test is over")


def test_text_of_a_job_is_only_text(dashboard: DashboardClient) -> None:
    """Markup and terminal codes of a job change nothing on the page."""
    evil = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    job = dashboard.submit("printf", "%b", f"{evil} \\033[31mred\\033[0m \\342\\200\\256turned\\n")
    page = dashboard.enter(f"/jobs/{job.job_id}")
    output = page.locator("[data-output]")
    expect(output).to_contain_text(f"{evil} red")
    assert "\x1b" not in output.inner_text()
    assert "\u202e" not in output.inner_text()
    assert page.locator("main img, main script").count() == 0
