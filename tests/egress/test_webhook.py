"""Webhooks, against a real HTTP server."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from actors.egress import webhook
from actors.egress.retry_delay import RetryLater
from ops.errors import JobFailed, JobRefused
from tests.egress.conftest import JOB_ID, Configured, outcome
from tests.egress.receiver import Receiver
from tests.proxy import Proxy

SECRET = b"of the receiver and the bridge"


def settings_for(url: str, more: str = "") -> str:
    """Return 3ox.toml with one webhook."""
    return f'[[webhook]]\nname = "ci"\nurl = "{url}/hook?team=a"\ntimeout_s = 0.5\n{more}\n'


@pytest.fixture
def is_genuine() -> Callable[[dict[str, str], bytes, bytes], bool]:
    """The check that docs/how-to/destinations.md shows to receivers, as it stands there."""
    page = (Path(__file__).parents[2] / "docs/how-to/destinations.md").read_text()
    names: dict[str, Any] = {}
    exec(page.split("```python\n")[1].split("```")[0], names)  # noqa: S102 (our own page)
    found: Callable[[dict[str, str], bytes, bytes], bool] = names["is_genuine"]
    return found


@pytest.mark.parametrize("encoded", [False, True])
def test_a_signed_request_arrives(
    configured: Configured,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    is_genuine: Callable[[dict[str, str], bytes, bytes], bool],
    *,
    encoded: bool,
) -> None:
    """The job and its receipt as JSON, with a signature over id, time and body."""
    text = f"whsec_{base64.b64encode(SECRET).decode()}" if encoded else SECRET.decode()
    monkeypatch.setenv("HOOK_SECRET", text)
    loaded = configured(settings_for(receiver.url, 'secret_env = "HOOK_SECRET"'))
    assert webhook.deliver(outcome(), loaded, "ci").place == "127.0.0.1"
    taken = receiver.taken[0]
    assert taken.path == "/hook?team=a"
    assert taken.json["job"]["job_id"] == JOB_ID
    assert taken.json["receipt"]["receipt_id"] == f"r-{JOB_ID}"
    assert taken.headers["webhook-id"] == f"{JOB_ID}-1"
    assert abs(int(taken.headers["webhook-timestamp"]) - time.time()) < 10
    assert is_genuine(taken.headers, taken.body, SECRET)
    assert not is_genuine(taken.headers, taken.body + b" ", SECRET)
    assert not is_genuine(taken.headers, taken.body, b"another")
    assert not is_genuine({**taken.headers, "webhook-timestamp": "1"}, taken.body, SECRET)


@pytest.mark.parametrize("status", [500, 503, 408, 429])
def test_a_receiver_in_trouble_is_tried_again(
    configured: Configured, receiver: Receiver, status: int
) -> None:
    """Its answer is part of the reason."""
    receiver.status, receiver.answer = status, b"come back\nlater"
    with pytest.raises(JobFailed, match=f"webhook ci .* answered {status}: come back later") as raised:
        webhook.deliver(outcome(), configured(settings_for(receiver.url)), "ci")
    assert not isinstance(raised.value, JobRefused)


@pytest.mark.parametrize("status", [400, 401, 404, 410, 301, 308])
def test_a_receiver_that_never_takes_it_is_given_up(
    configured: Configured, receiver: Receiver, status: int
) -> None:
    """Redirects are not followed: they would send the result to another server."""
    receiver.status = status
    receiver.headers["Location"] = f"{receiver.url}/elsewhere"
    with pytest.raises(JobRefused, match=f"answered {status}"):
        webhook.deliver(outcome(), configured(settings_for(receiver.url)), "ci")
    assert len(receiver.taken) == 1


def test_a_receiver_says_when_to_come_back(configured: Configured, receiver: Receiver) -> None:
    """Retry-After is kept to, up to an hour."""
    receiver.status = 429
    receiver.headers["Retry-After"] = "7"
    with pytest.raises(RetryLater) as raised:
        webhook.deliver(outcome(), configured(settings_for(receiver.url)), "ci")
    assert raised.value.delay == 7000


def test_silence_and_absence_are_tried_again(configured: Configured, receiver: Receiver) -> None:
    """Each wait is bounded; the errors keep the path of the URL, which may be a secret, to themselves."""
    receiver.hang.clear()
    with pytest.raises(JobFailed, match=r"127\.0\.0\.1 did not answer within 0\.5 s"):
        webhook.deliver(outcome(), configured(settings_for(receiver.url)), "ci")
    with pytest.raises(JobFailed, match=r"127\.0\.0\.1 cannot be reached") as raised:
        webhook.deliver(outcome(), configured(settings_for("http://127.0.0.1:1")), "ci")
    assert "team" not in str(raised.value)


def test_a_proxy_and_a_password_in_the_url(
    configured: Configured, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request goes through HTTP_PROXY with Basic authentication; neither is in the result."""
    with Proxy(receiver.port) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://{proxy.place}")
        monkeypatch.setenv("NO_PROXY", "localhost,[::1]")
        loaded = configured(settings_for("http://user:p%40ss@hook.test"))
        assert webhook.deliver(outcome(), loaded, "ci").place == "hook.test"
        assert receiver.taken[0].headers["authorization"] == "Basic dXNlcjpwQHNz"
        assert [taken.target for taken in proxy.taken] == ["hook.test"]
        monkeypatch.setenv("HTTP_PROXY", "socks9://u:secret@p")
        with pytest.raises(JobRefused, match="HTTP_PROXY names a proxy with the unsupported") as raised:
            webhook.deliver(outcome(), loaded, "ci")
        assert "secret" not in str(raised.value)


@pytest.mark.parametrize("when", ["Fri, 31 Dec 2100 23:59:59 GMT", "999999"])
def test_a_receiver_names_a_distant_time(configured: Configured, receiver: Receiver, when: str) -> None:
    """Retry-After may be a date; at most an hour is waited."""
    receiver.status = 503
    receiver.headers["Retry-After"] = when
    with pytest.raises(RetryLater) as raised:
        webhook.deliver(outcome(), configured(settings_for(receiver.url)), "ci")
    assert raised.value.delay == 3_600_000


def test_what_is_not_configured_is_refused(
    configured: Configured, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A webhook that is gone, a secret that is missing: nothing is sent unsigned."""
    with pytest.raises(JobRefused, match="webhook 'ci' is not in"):
        webhook.deliver(outcome(), configured(""), "ci")
    loaded = configured(settings_for(receiver.url, 'secret_env = "HOOK_SECRET"'))
    with pytest.raises(JobRefused, match="HOOK_SECRET is not set"):
        webhook.deliver(outcome(), loaded, "ci")
    monkeypatch.setenv("HOOK_SECRET", "whsec_§")
    with pytest.raises(JobRefused, match="not valid Base64"):
        webhook.deliver(outcome(), loaded, "ci")
    assert receiver.taken == []
