"""Subscriptions to the channels of the store: one connection each, reconnected by ``ChannelListener``.

A message that is published without a subscriber is lost. So every user subscribes first, waits for the
confirmation and then reads the state that the messages are about.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Literal, Self

import hiredis
from msgspec import Struct

from ops.backoff import Backoff
from ops.errors import StoreError, StoreTimeout, StoreUnreachable
from ops.store.client import Store
from ops.store.resp import as_error
from ops.threads import start_duty

#: A connection without messages is checked with a PING after this time.
SILENCE_S = 5.0


class ChannelMessage(Struct, frozen=True):
    """What a subscription receives.

    Attributes:
        kind: ``subscribed`` confirms a channel, ``message`` carries data, ``other`` is any other reply.
        channel: Name of the channel; empty for ``other``.
        data: What was published.
    """

    kind: Literal["subscribed", "message", "other"]
    channel: str = ""
    data: bytes = b""


class Subscription:
    """One connection that receives what is published on some channels.

    One thread receives; any thread may add and remove channels.

    Args:
        store: The store to connect to.
        channels: Channels to subscribe to at once.

    Raises:
        StoreUnreachable: The connection could not be opened.
    """

    def __init__(self, store: Store, channels: Iterable[str] = ()) -> None:
        self._timeout_s = store.timeout_s
        self._link = store.connect()
        self._sending = threading.Lock()
        try:
            self.add(channels)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, channels: Iterable[str]) -> None:
        """Subscribe to more channels; each is confirmed by a ``subscribed`` message."""
        self._send("SUBSCRIBE", channels)

    def remove(self, channels: Iterable[str]) -> None:
        """Unsubscribe from channels."""
        self._send("UNSUBSCRIBE", channels)

    def ping(self) -> None:
        """Send a PING, whose reply is received as a message of kind ``other``."""
        with self._sending:
            self._link.send([("PING",)])

    def _send(self, verb: str, channels: Iterable[str]) -> None:
        names = tuple(channels)
        if names:
            with self._sending:
                self._link.send([(verb, *names)])

    def receive(self, timeout_s: float) -> ChannelMessage | None:
        """Return the next message, or None if there was none in time.

        Args:
            timeout_s: How long to wait; 0 takes only what has arrived.

        Raises:
            StoreUnreachable: The connection is lost.
            StoreError: The store refused a subscription.
        """
        try:
            reply = self._link.read(timeout_s)
        except TimeoutError:
            return None
        if isinstance(reply, hiredis.ReplyError):
            raise as_error(reply)
        if not isinstance(reply, list) or reply[0] not in {b"subscribe", b"message"}:
            return ChannelMessage("other")
        if reply[0] == b"subscribe":
            return ChannelMessage("subscribed", reply[1].decode())
        return ChannelMessage("message", reply[1].decode(), reply[2])

    def receive_soon(self) -> ChannelMessage:
        """Return the next message after a command that the store answers.

        Raises:
            StoreTimeout: Nothing came within the store's timeout.
            StoreUnreachable: The connection is lost.
        """
        message = self.receive(self._timeout_s)
        if message is None:
            raise StoreTimeout(
                f"The store did not answer within {self._timeout_s:g} s.",
                remedy="Check whether it is paused or overloaded.",
            )
        return message

    def close(self) -> None:
        """Close the connection."""
        self._link.close()


class ChannelListener:
    """Receives messages in a thread of its own and reconnects with backoff after an outage.

    Without channels it holds no connection. After each (re)connection every channel is confirmed again, which
    tells the user to read the state that it may have missed.

    Args:
        store: The store to connect to.
        on_message: Called with a channel and what was published on it.
        on_subscribed: Called with a channel as soon as its messages are received.
        on_silence: Called after 5 s without a message; for state that should be checked again now and then.
        on_outage: Called with the first error of an outage.

    All callbacks run in the listener's thread. If one raises ``StoreUnreachable`` or ``StoreError``, the
    listener reconnects.
    """

    def __init__(
        self,
        store: Store,
        *,
        on_message: Callable[[str, bytes], None],
        on_subscribed: Callable[[str], None],
        on_silence: Callable[[], None] | None = None,
        on_outage: Callable[[StoreUnreachable | StoreError], None] | None = None,
    ) -> None:
        self._store = store
        self._on_message = on_message
        self._on_subscribed = on_subscribed
        self._on_silence = on_silence
        self._on_outage = on_outage
        self._channels: set[str] = set()
        self._subscription: Subscription | None = None
        # Guards the two above; wakes a thread that has no channels.
        self._changed = threading.Condition()
        self._stopping = threading.Event()

    def start(self, name: str) -> threading.Thread:
        """Start the thread.

        Args:
            name: Name of the thread.
        """
        return start_duty(name, self._run, ended=self._stopping.is_set)

    def stop(self) -> None:
        """Stop; the thread ends within 5 s."""
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()

    def subscribe(self, *channels: str) -> None:
        """Receive from these channels too, once the store is reachable."""
        with self._changed:
            self._channels.update(channels)
            self._send(Subscription.add, channels)
            self._changed.notify_all()

    def unsubscribe(self, *channels: str) -> None:
        """Receive from these channels no longer."""
        with self._changed:
            self._channels.difference_update(channels)
            self._send(Subscription.remove, channels)

    def _send(self, command: Callable[[Subscription, Iterable[str]], None], channels: Iterable[str]) -> None:
        if self._subscription is None:
            return
        try:
            command(self._subscription, channels)
        except StoreUnreachable:
            # The receiving thread reconnects and subscribes to all channels.
            self._subscription = None

    def _run(self) -> None:
        backoff = Backoff()
        while self._wait_for_channels():
            try:
                with Subscription(self._store) as subscription:
                    self._adopt(subscription)
                    while self._receive(subscription):
                        backoff.reset()
            except (StoreUnreachable, StoreError) as error:
                if backoff.failures == 0 and self._on_outage is not None:
                    self._on_outage(error)
                backoff.wait(self._stopping)
            finally:
                with self._changed:
                    self._subscription = None

    def _wait_for_channels(self) -> bool:
        """Block until there are channels; return False when stopping."""
        with self._changed:
            self._changed.wait_for(lambda: self._channels or self._stopping.is_set())
        return not self._stopping.is_set()

    def _adopt(self, subscription: Subscription) -> None:
        with self._changed:
            self._subscription = subscription
            self._send(Subscription.add, sorted(self._channels))

    def _receive(self, subscription: Subscription) -> bool:
        """Handle the next message or the lack of one; return False when the connection is to be closed."""
        message = subscription.receive(SILENCE_S)
        if message is None:
            if self._on_silence is not None:
                self._on_silence()
            subscription.ping()
            message = subscription.receive_soon()
        if message.kind == "message":
            self._on_message(message.channel, message.data)
        elif message.kind == "subscribed":
            self._on_subscribed(message.channel)
        with self._changed:
            if self._stopping.is_set() or not self._channels:
                # Under the lock, so that a channel that is added now finds no connection and wakes the loop.
                self._subscription = None
            return self._subscription is subscription
