"""Listeners of channels and of the event stream, across an outage of a real store."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from middleware.job.follow import Follower
from middleware.job.reader import Reader
from middleware.job.records import JobEvent
from ops.errors import StoreUnreachable
from ops.store.channels import ChannelListener
from ops.store.client import Store
from ops.threads import start_duty
from tests.support import RunningValkey, eventually


class Heard:
    """Collects what a listener reports."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, bytes]] = []
        self.subscribed: list[str] = []
        self.outages: list[Exception] = []

    def listener(self, store: Store) -> ChannelListener:
        """Return a listener that reports here."""
        return ChannelListener(
            store,
            on_message=lambda channel, data: self.messages.append((channel, data)),
            on_subscribed=self.subscribed.append,
            on_outage=self.outages.append,
        )


@pytest.fixture
def store(own_store: RunningValkey) -> Iterator[Store]:
    """A client of a store that the test may stop."""
    made = Store(own_store.url, timeout_s=2.0)
    yield made
    made.close()


def restart(server: RunningValkey) -> None:
    """Kill the store and start it again."""
    server.kill()
    server.start()


def test_each_channel_is_confirmed_again_after_an_outage(own_store: RunningValkey, store: Store) -> None:
    """The confirmation tells the user to read the state that it may have missed."""
    heard = Heard()
    listener = heard.listener(store)
    listener.subscribe("one", "two")
    thread = listener.start("test-listener")
    eventually(lambda: sorted(heard.subscribed) == ["one", "two"])
    restart(own_store)
    eventually(lambda: sorted(heard.subscribed) == ["one", "one", "two", "two"])
    assert len(heard.outages) == 1
    store.call("PUBLISH", "two", "hello")
    eventually(lambda: heard.messages == [("two", b"hello")])
    listener.unsubscribe("one", "two")
    listener.stop()
    thread.join(10.0)
    assert not thread.is_alive()


def test_a_listener_without_channels_holds_no_connection(store: Store) -> None:
    """It connects for its first channel, hangs up after its last and connects again for the next."""
    heard = Heard()
    listener = heard.listener(store)
    listener.start("test-listener")

    def subscribers() -> int:
        return int(store.call("INFO", "clients").decode().partition("pubsub_clients:")[2].split()[0])

    assert subscribers() == 0
    listener.subscribe("one")
    eventually(lambda: heard.subscribed == ["one"])
    assert subscribers() == 1
    listener.unsubscribe("one")
    eventually(lambda: subscribers() == 0)
    listener.subscribe("two")
    eventually(lambda: heard.subscribed == ["one", "two"])
    store.call("PUBLISH", "two", "hello")
    eventually(lambda: heard.messages == [("two", b"hello")])
    listener.stop()


def test_events_of_an_outage_are_handled_after_it(own_store: RunningValkey, store: Store) -> None:
    """The loop continues after the last event it handled; a handler that fails gets the same event again."""
    follower = Follower(store, Reader(store, "t:"))
    stopping = threading.Event()
    handled: list[str] = []
    connections: list[None] = []
    failing = threading.Event()

    def handle(events: list[JobEvent]) -> None:
        if failing.is_set():
            failing.clear()
            raise StoreUnreachable
        handled.extend(event.job_id for event in events)

    def add(jobs: str) -> None:
        store.call("XADD", "t:events", "*", "job", jobs, "status", "queued")

    thread = start_duty(
        "test-events",
        lambda: follower.watch_events(
            handle, stopping=stopping, idle_s=0.1, on_connected=lambda: connections.append(None)
        ),
        ended=stopping.is_set,
    )
    eventually(lambda: len(connections) == 1)
    add("first")
    eventually(lambda: handled == ["first"])
    failing.set()
    add("second,third")
    eventually(lambda: handled == ["first", "second", "third"])
    own_store.kill()
    own_store.start()
    add("fourth")
    eventually(lambda: handled == ["first", "second", "third", "fourth"])
    assert len(connections) >= 2
    stopping.set()
    thread.join(10.0)
    assert not thread.is_alive()
