"""The two ends of attached streams over channels of the store.

Messages of a channel are kept neither in memory nor in the append-only file: what travels costs the store a
window of output buffer per stream, and nothing on disk.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

import hiredis

from middleware.broker.message import JobMessage
from middleware.job.attachment import attached_mode
from middleware.job.base import Job
from middleware.job.keys import Keys
from middleware.streams.attached import Attach, Attached
from middleware.streams.frames import Frame, Kind, StreamId, encode_frame
from middleware.streams.link import Link, Transport
from ops.errors import JobRefused, StoreError, StoreUnreachable
from ops.store.channels import ChannelListener
from ops.store.client import Store
from ops.store.resp import as_error

_SESSION_BITS = 63
#: A worker repeats its greeting at this interval until the caller answers, in seconds.
_HELLO_S = 0.5


class ChannelTransport:
    """Publishes messages on a channel.

    Args:
        store: The store.
        channel: On which the other end listens.
    """

    def __init__(self, store: Store, channel: str) -> None:
        self._store = store
        self._channel = channel

    def send(self, messages: Sequence[bytes]) -> int:
        """See ``middleware.streams.link.Transport``."""
        replies = self._store.pipeline([("PUBLISH", self._channel, message) for message in messages])
        for reply in replies:
            if isinstance(reply, hiredis.ReplyError):
                raise as_error(reply)
        return min(int(reply) for reply in replies)


@contextlib.contextmanager
def _listening(
    store: Store, channel: str, link: Link, on_frame: Callable[[Frame], None], until: Callable[[], bool]
) -> Iterator[None]:
    """Pass what arrives on a channel to a link, across outages of the store, for the time of a block.

    The block begins when the store has confirmed the subscription, or when ``until`` returns True.

    Raises:
        StoreUnreachable: The store has refused the subscription, or was unavailable until the end.
    """
    problems: deque[StoreUnreachable | StoreError] = deque(maxlen=1)
    ready = threading.Event()

    def on_subscribed(_: str) -> None:
        ready.set()
        link.resume()

    def on_message(_: str, data: bytes) -> None:
        frame = link.handle(data)
        if frame is not None:
            on_frame(frame)

    listener = ChannelListener(
        store, on_message=on_message, on_subscribed=on_subscribed, on_outage=problems.append
    )
    listener.subscribe(channel)
    thread = listener.start("streams-in")
    link.start("streams-out")
    try:
        while not ready.is_set() and not until():
            link.wait(ready.is_set, _HELLO_S)
        if problems and not ready.is_set():
            raise problems[-1]
        yield
    finally:
        link.stop()
        listener.unsubscribe(channel)
        listener.stop()
        thread.join(1.0)


class WorkerAttach:
    """Connects commands to their callers, see ``Attach``.

    Args:
        store: The store.
        keys: Names of its channels.
    """

    def __init__(self, store: Store, keys: Keys) -> None:
        self._store = store
        self._keys = keys

    def of_delivery(self, message: JobMessage) -> Attach | None:
        """Return what connects the command of a delivery to its caller; None if it has none.

        A job that was retried by hand has none: the caller of its first attempts has left.
        """
        mode = attached_mode(message.job)
        if mode is None:
            return None
        if message.delivered.base_attempt > 0:
            return None if mode == "output" else refuse_without_input
        return self

    @contextlib.contextmanager
    def __call__(self, job: Job, until: Callable[[], bool]) -> Iterator[Attached]:
        """See ``Attach``."""
        has_input = attached_mode(job) == "stdin"
        link = worker_link(has_input=has_input)
        channel = self._keys.command_channel(job.job_id, link.session)
        link.transport = ChannelTransport(self._store, self._keys.caller_channel(job.job_id))
        answers: list[Kind] = []

        def on_frame(frame: Frame) -> None:
            if frame.session == link.session and frame.kind in {Kind.ACCEPT, Kind.REFUSE}:
                answers.append(frame.kind)
                link.wake()

        with _listening(self._store, channel, link, on_frame, until):
            greet(link, channel, answers, until)
            yield Attached(link, has_input=has_input)


def refuse_without_input(job: Job, until: Callable[[], bool]) -> NoReturn:
    """Refuse to run a command whose standard input came from a caller that has left.

    Raises:
        JobRefused: Always.
    """
    del job, until
    raise JobRefused(
        "The standard input of the command came from its caller, which has left.",
        remedy="Run it again with '3ox sh'.",
    )


def worker_link(*, has_input: bool) -> Link:
    """Return a worker's end for a new run.

    Args:
        has_input: Whether the caller passes its stdin on.
    """
    link = Link(writes=(StreamId.OUT, StreamId.ERR), reads=(StreamId.IN,) if has_input else ())
    link.session = secrets.randbits(_SESSION_BITS) + 1
    return link


def greet(link: Link, channel: str, answers: Sequence[Kind], until: Callable[[], bool]) -> None:
    """Have the caller accept a run; return when it has, when it is gone, or when ``until`` says so.

    Args:
        link: The worker's end.
        channel: On which the worker listens.
        answers: The caller's answers, as they come.
        until: Returns whether to give up.

    Raises:
        JobRefused: The caller has refused it.
    """
    while not answers and not link.gone and not until():
        link.send_first(Frame(Kind.HELLO, link.session, payload=channel.encode()))
        link.wait(lambda: answers or link.gone or until(), _HELLO_S)
    if Kind.REFUSE in answers:
        raise JobRefused(
            "The command was interrupted after a part of its input or output had been passed on; it is not"
            " started a second time.",
            remedy="Run it again.",
        )


class CallerEnd:
    """The caller's end: accepts the run of its command.

    Args:
        connect: Returns the transport to the channel of a worker.
        has_input: Whether stdin is passed on.

    Attributes:
        link: Its end of the streams.
    """

    def __init__(self, connect: Callable[[str], Transport], *, has_input: bool) -> None:
        self._connect = connect
        self.link = Link(writes=(StreamId.IN,) if has_input else (), reads=(StreamId.OUT, StreamId.ERR))

    def on_frame(self, frame: Frame) -> None:
        """Answer a worker's greeting.

        A second run is accepted only while no byte has been passed on in either direction.
        """
        if frame.kind != Kind.HELLO:
            return
        transport = self._connect(bytes(frame.payload).decode())
        link = self.link
        if frame.session != link.session and link.is_touched():
            transport.send([encode_frame(Frame(Kind.REFUSE, frame.session))])
            return
        link.accept_session(frame.session, transport)


@contextlib.contextmanager
def attached_caller(store: Store, keys: Keys, job_id: str, *, has_input: bool) -> Iterator[Link]:
    """Listen to the command of a job that will be submitted within this block.

    Args:
        store: The store.
        keys: Names of its channels.
        job_id: The job.
        has_input: Whether stdin is passed on.

    Raises:
        StoreUnreachable: The store does not confirm the subscription in time, or its user may not subscribe.
    """
    ends_s = time.monotonic() + store.timeout_s
    end = CallerEnd(lambda channel: ChannelTransport(store, channel), has_input=has_input)
    with _listening(
        store, keys.caller_channel(job_id), end.link, end.on_frame, lambda: time.monotonic() > ends_s
    ):
        yield end.link
