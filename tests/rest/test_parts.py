"""Parts of the API that need no server: rate limit, stream limit, bounds of the event broadcast, socket."""

from __future__ import annotations

import asyncio
import socket

import pytest

from ingress.core.api_address import bind_api, url_of
from ingress.core.http.event_broadcast import BEHIND, QUEUE_MAX, Subscription
from ingress.core.http.problems import ApiProblem
from ingress.core.http.stream_limit import StreamLimit
from ingress.rest.rate_limit import RateLimit
from middleware.job.records import JobEvent
from ops.errors import StartFailed
from ops.settings.load import Settings


def test_a_bucket_fills_again() -> None:
    """The burst at once, then as many as the rate allows, each caller by itself."""
    now_s = [0.0]
    rates = RateLimit(2.0, 4, clock_s=lambda: now_s[0])
    assert [rates.take("a") for _ in range(5)] == [0, 0, 0, 0, 1]
    assert rates.take("b") == 0
    now_s[0] = 1.0
    assert [rates.take("a") for _ in range(3)] == [0, 0, 1]
    assert [RateLimit(0, 1).take("a") for _ in range(100)] == [0] * 100


def test_a_slot_comes_back() -> None:
    """By closing it, once; or with the response that held it and was never sent."""
    slots = StreamLimit(2)
    first, second = slots.take(), slots.take()
    with pytest.raises(ApiProblem, match="2 event streams"):
        slots.take()
    first.close()
    first.close()
    assert slots.taken == 1

    async def never_begun(held: object) -> None:
        del held

    coroutine = never_begun(second)
    del second
    coroutine.close()
    del coroutine
    assert slots.taken == 0


def test_a_stream_that_falls_behind_is_told() -> None:
    """It gets what it can hold, then the word that it is behind, and nothing after that."""

    async def run() -> None:
        heard = Subscription(None)
        for number in range(QUEUE_MAX + 10):
            heard.put([JobEvent(f"{number}-0", "j", "state", "queued")])
        items = [await heard.next(0.0) for _ in range(QUEUE_MAX + 2)]
        assert items[-2] is BEHIND
        assert items[-1] is None
        assert all(isinstance(item, list) for item in items[:-2])

    asyncio.run(run())


def test_the_socket_knows_its_protocol() -> None:
    """Or asyncio would not set TCP_NODELAY, and every answer on a kept connection came 40 ms late."""
    listening = bind_api(Settings(api_port=0))
    assert listening.proto == socket.IPPROTO_TCP
    port = listening.getsockname()[1]
    with pytest.raises(StartFailed, match="cannot listen"):
        bind_api(Settings(api_port=port))
    listening.close()
    bind_api(Settings(api_port=port)).close()


def test_addresses_are_shown_as_they_are_called() -> None:
    """Where it listens on all addresses, the local one is shown."""
    assert url_of(Settings(api_host="0.0.0.0"), 80) == "http://127.0.0.1:80/"  # noqa: S104 (shown only)
    assert url_of(Settings(api_host="::1"), 80) == "http://[::1]:80/"
    assert url_of(Settings(api_host="box"), 80) == "http://box:80/"
