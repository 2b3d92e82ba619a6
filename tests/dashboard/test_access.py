"""Who gets in, what they see, and what is refused."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from ingress.core import control
from ops.tokens import Scope
from tests.dashboard.conftest import DashboardClient


def post(page: Page, path: str, **form: str | float | bool) -> int:
    """Send a form as this page's session, and give the status."""
    base = page.url.split("/", 3)
    return page.request.post(f"{base[0]}//{base[2]}{path}", form=form, max_redirects=0).status


def csrf_of(page: Page) -> str:
    """Return the CSRF token of the session."""
    return str(page.locator('input[name="csrf"]').first.input_value())


def test_sign_in_and_out(dashboard: DashboardClient) -> None:
    """A wrong token is reported; no script or other site gets the cookie; signing out ends the session."""
    page = dashboard.window().new_page()
    page.goto(f"{dashboard.url}/jobs?type=heartbeat")
    expect(page.get_by_label("API token")).to_be_focused()
    page.get_by_label("API token").fill("3ox_wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("not valid")
    dashboard.expect_complaint("401")
    page.get_by_label("API token").fill(dashboard.token()[1])
    page.keyboard.press("Enter")
    page.wait_for_url("**/jobs?type=heartbeat")
    cookie = next(item for item in page.context.cookies() if item["name"] == "3ox_session")
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Strict"
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/sign-in")
    page.goto(f"{dashboard.url}/jobs")
    assert "/sign-in?next=/jobs" in page.url


def test_session_ends_with_its_token(dashboard: DashboardClient) -> None:
    """A revoked token ends the session, also of a page that is open."""
    name, token = dashboard.token()
    page = dashboard.window().new_page()
    page.goto(dashboard.url)
    page.get_by_label("API token").fill(token)
    page.keyboard.press("Enter")
    page.wait_for_selector('[data-live-state="on"]')
    dashboard.api.tokens.revoke(name)
    dashboard.submit("true")
    page.wait_for_url("**/sign-in**")
    dashboard.expect_complaint("401")


def test_headers(dashboard: DashboardClient) -> None:
    """Pages allow no inline code, no foreign content and no frame."""
    page = dashboard.enter("/")
    answer = page.request.get(f"{dashboard.url}/")
    policy = answer.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    source = answer.text()
    assert "style=" not in source
    assert " on" + "click" not in source


def test_forms_need_the_token_of_their_session(dashboard: DashboardClient) -> None:
    """Without the CSRF token of the session nothing is done."""
    job = dashboard.submit("sleep", "60")
    page = dashboard.enter(f"/jobs/{job.job_id}")
    assert post(page, f"/jobs/{job.job_id}/cancel") == 403
    assert post(page, f"/jobs/{job.job_id}/cancel", csrf="guessed") == 403
    assert not dashboard.bridge.reader.job(job.job_id).is_final
    assert post(page, f"/jobs/{job.job_id}/explode", csrf=csrf_of(page)) == 404
    assert post(page, f"/jobs/{job.job_id}/cancel", csrf=csrf_of(page)) == 303
    dashboard.bridge.follower.wait(job.job_id, timeout_s=10.0)


def test_the_cookie_commands_no_api(dashboard: DashboardClient) -> None:
    """The session counts for the dashboard's own pages only."""
    page = dashboard.enter("/")
    assert page.request.get(f"{dashboard.url}/v1/jobs").status == 401
    assert page.request.get(f"{dashboard.url}/ui/jobs").status == 200


@pytest.mark.parametrize("scope", ["view", "submit"])
def test_lower_scopes_only_look(dashboard: DashboardClient, scope: Scope) -> None:
    """View and submit see no buttons that act, and are refused if they send them all the same."""
    job = dashboard.submit("touch", "never")
    page = dashboard.enter("/", scope=scope)
    expect(page.locator(f'.approvals li[data-key="{job.job_id}"]')).to_be_visible()
    assert page.locator("[data-action]").count() == 0
    token = csrf_of(page)
    page.goto(f"{dashboard.url}/jobs/{job.job_id}")
    assert page.locator("[data-action]").count() == 0
    for act in ("approve", "deny", "cancel", "retry"):
        assert post(page, f"/jobs/{job.job_id}/{act}", csrf=token) == 403
    assert dashboard.bridge.reader.job(job.job_id).status == "held"
    control.deny(dashboard.bridge, job.job_id, "test")


def test_without_script(dashboard: DashboardClient) -> None:
    """Every page works by hand: sign in, filter, look, verify, act, choose a theme."""
    job = dashboard.submit("sleep", "61")
    page = dashboard.enter("/", java_script_enabled=False)
    page.get_by_role("link", name="Jobs", exact=True).click()
    page.get_by_label("Search").fill("sleep 61")
    page.get_by_label("Type").select_option("shell.cmd")
    page.get_by_role("button", name="Filter").click()
    assert page.locator("tbody tr").count() == 1
    page.get_by_role("link", name="sleep 61").click()
    page.get_by_role("button", name="Cancel").click()
    dashboard.bridge.follower.wait(job.job_id, timeout_s=10.0)
    page.reload()
    expect(page.locator('[data-part="head"] .state')).to_have_text("cancelled")
    page.get_by_role("button", name="Verify").click()
    expect(page.locator(".proof.good")).to_be_visible()
    page.get_by_role("button", name="theme").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "light")
    assert "verify=1" in page.url


def test_errors_are_pages(dashboard: DashboardClient) -> None:
    """An unknown job is an error page with a remedy."""
    page = dashboard.enter("/jobs/zzzzzzzz", live=False)
    expect(page.get_by_role("heading", level=1)).to_have_text("Not Found")
    expect(page.locator("main")).to_contain_text("Job 'zzzzzzzz' not found")
    dashboard.expect_complaint("404")
    page.goto(f"{dashboard.url}/jobs?day=yesterday")
    expect(page.get_by_role("alert")).to_contain_text("is not a valid day")
