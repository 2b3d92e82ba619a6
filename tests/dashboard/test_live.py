"""What changes is seen without loading the page again."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from ingress.core import control
from tests.dashboard.conftest import Desk

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
    """Tell whether it is still the same page."""
    return bool(page.evaluate("() => window.untouched === true"))


def delays_ms(desk: Desk, page: Page, count: int = 5) -> list[float]:
    """Dispatch jobs and give how long each took to appear."""
    page.evaluate(_WATCH)
    delays = []
    for number in range(count):
        began_ms = time.time() * 1000
        job = desk.submit("echo", f"appear {number}")
        page.wait_for_function("id => window.seen[id] !== undefined", arg=job.job_id)
        delays.append(page.evaluate("id => window.seen[id]", job.job_id) - began_ms)
    return delays


@pytest.mark.serial
def test_job_appears_in_the_list(desk: Desk) -> None:
    """A dispatched job stands in the list within 200 ms, without a reload."""
    page = desk.enter("/jobs")
    stays(page)
    delays = delays_ms(desk, page)
    assert statistics.median(delays) < _LIMIT_MS, delays
    assert stayed(page)


@pytest.mark.serial
def test_job_appears_on_the_overview(desk: Desk) -> None:
    """The same on the first page."""
    page = desk.enter("/")
    stays(page)
    delays = delays_ms(desk, page)
    assert statistics.median(delays) < _LIMIT_MS, delays
    assert stayed(page)


def test_output_grows_and_cancel(desk: Desk, tmp_path: Path) -> None:
    """Output is appended as it is written; the button stops the job; the focus stays where it was."""
    flag = tmp_path / "flag"
    script = 'echo first; echo second >&2; while [ ! -e "$0" ]; do sleep 0.05; done; echo third; sleep 60'
    job = desk.submit("sh", "-c", script, str(flag))
    page = desk.enter(f"/jobs/{job.job_id}")
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
    assert desk.bridge.reader.job(job.job_id).status == "cancelled"
    assert "dashboard:admin" in desk.bridge.reader.job(job.job_id).reason
    assert stayed(page)


def test_hidden_page_loses_no_output(desk: Desk, tmp_path: Path) -> None:
    """A tab in the background closes its stream and goes on after the last piece that it has."""
    flag = tmp_path / "flag"
    job = desk.submit("sh", "-c", 'echo one; while [ ! -e "$0" ]; do sleep 0.05; done; echo two', str(flag))
    page = desk.enter(f"/jobs/{job.job_id}")
    output = page.locator("[data-output]")
    expect(output).to_have_text("one\n")
    hide = "hidden => { Object.defineProperty(document, 'hidden', {value: hidden, configurable: true});"
    hide += " document.dispatchEvent(new Event('visibilitychange')); }"
    page.evaluate(hide, True)
    flag.touch()
    desk.bridge.follower.wait(job.job_id, timeout_s=10.0)
    page.evaluate(hide, False)
    expect(output).to_have_text("one\ntwo\n")
    expect(page.locator('[data-part="head"] .state')).to_have_text("completed")


def test_approve_and_deny(desk: Desk, tmp_path: Path) -> None:
    """What waits for approval stands on the first page, and goes on or ends at a click."""
    wanted, unwanted = tmp_path / "wanted", tmp_path / "unwanted"
    page = desk.enter("/")
    stays(page)
    jobs = [desk.submit("touch", str(path)) for path in (wanted, unwanted)]
    for job, name, status in ((jobs[0], "Approve", "completed"), (jobs[1], "Deny", "cancelled")):
        line = page.locator(f'.approvals li[data-key="{job.job_id}"]')
        line.get_by_role("button", name=name).click()
        expect(line).to_have_count(0)
        expect(page.locator(f'tr[data-key="{job.job_id}"]')).to_have_attribute("data-status", status)
    assert wanted.exists()
    assert not unwanted.exists()
    assert stayed(page)


def test_retry(desk: Desk) -> None:
    """A job that failed runs again at a click, and its timeline tells of both."""
    job = desk.submit("sh", "-c", "exit 3", max_retries=0)
    desk.bridge.follower.wait(job.job_id, timeout_s=10.0)
    page = desk.enter(f"/jobs/{job.job_id}")
    expect(page.locator(".fault")).to_contain_text("exit status 3")
    page.get_by_role("button", name="Retry").click()
    expect(page.locator(".timeline li.s-failed")).to_have_count(2)


def test_proof_comes_by_itself(desk: Desk) -> None:
    """When a job has ended, its page says that every transition stands in the signed ledger."""
    job = desk.submit("echo", "sealed")
    page = desk.enter(f"/jobs/{job.job_id}")
    expect(page.locator(".proof.good")).to_contain_text("All 3 state changes")
    page.get_by_role("button", name="Verify").click()
    expect(page.locator(".proof.good")).to_contain_text("All 3 state changes")


def test_overview_tells_of_the_bridge(desk: Desk) -> None:
    """Workers with what they run, daemons, schedules with next and last run, charts."""
    desk.bridge.follower.wait(desk.submit("true").job_id, timeout_s=10.0)
    job = desk.submit("sleep", "30")
    page = desk.enter("/")
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
    control.cancel(desk.bridge, job.job_id, "the test is over")


def test_text_of_a_job_is_only_text(desk: Desk) -> None:
    """Markup and terminal codes of a job change nothing on the page."""
    evil = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    job = desk.submit("printf", "%b", f"{evil} \\033[31mred\\033[0m \\342\\200\\256turned\\n")
    page = desk.enter(f"/jobs/{job.job_id}")
    output = page.locator("[data-output]")
    expect(output).to_contain_text(f"{evil} red")
    assert "\x1b" not in output.inner_text()
    assert "\u202e" not in output.inner_text()
    assert page.locator("main img, main script").count() == 0
