"""Attached streams: complete and in order over a connection that loses messages, and bounded in memory."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence

import pytest

from middleware.job.attachment import attached_mode
from middleware.job.schema import make_job
from middleware.streams import link as link_module
from middleware.streams.buffers import CHUNK_BYTES, WINDOW_BYTES
from middleware.streams.channels import CallerEnd, greet, worker_link
from middleware.streams.frames import Flags, Frame, Kind, StreamId, decode_frame, encode_frame
from middleware.streams.link import Link
from ops.errors import JobRefused, StoreUnreachable
from tests.support import eventually

IN, OUT, ERR = StreamId


class Wire:
    """A transport to a link of this process that loses what ``losing`` says, as a broken connection does.

    Args:
        link: Of the other end.
        losing: Returns what happens to the next message: ``lost`` unnoticed, ``refused``, or ``passed``.
        on_frame: Takes frames that are not about the streams.
    """

    def __init__(
        self, link: Link, losing: Callable[[], str], on_frame: Callable[[Frame], None] = lambda _: None
    ) -> None:
        self._link = link
        self._losing = losing
        self._on_frame = on_frame
        self.listeners = 1
        self.frames = 0

    def send(self, messages: Sequence[bytes]) -> int:
        """See ``Transport``."""
        for message in messages if self.listeners else ():
            fate = self._losing()
            if fate == "refused":
                raise StoreUnreachable("The connection broke.", remedy="")
            if fate == "lost":
                # The other end notices that its connection broke, and reports its state on the next one.
                self._link.resume()
                continue
            self.frames += 1
            frame = self._link.handle(message)
            if frame is not None:
                self._on_frame(frame)
        return self.listeners


def joined(losing: Callable[[], str]) -> tuple[Link, Link]:
    """Connect a caller's and a worker's end."""
    caller = Link(writes=(IN,), reads=(OUT, ERR))
    worker = worker_link(has_input=True)
    caller.session = worker.session
    caller.transport, worker.transport = Wire(worker, losing), Wire(caller, losing)
    return caller, worker


@pytest.fixture
def started() -> Iterator[Callable[..., None]]:
    """Start links, and stop them after the test."""
    links: list[Link] = []

    def start(*new: Link) -> None:
        for each in new:
            links.append(each)
            each.start("streams")

    yield start
    for each in links:
        each.stop()


def write(link: Link, stream: StreamId, data: bytes, rng: random.Random) -> None:
    """Write data in pieces of random sizes, as there is room."""
    at = 0
    while at < len(data):
        assert link.wait(lambda: link.room(stream) > 0, 20.0)
        size = min(link.room(stream), rng.choice((1, 100, 5_000, 200_000)))
        link.write(stream, data[at : at + size])
        at += size
    link.end(stream)


def read(link: Link, stream: StreamId, rng: random.Random) -> bytes:
    """Read a stream to its end, in pieces of random sizes."""
    received = bytearray()
    while link.wait(lambda: len(link.peek(stream)) > 0 or link.has_ended(stream), 20.0):
        data = link.peek(stream)
        if len(data) == 0:
            return bytes(received)
        size = rng.randint(1, len(data))
        received += data[:size]
        link.take(stream, size)
    raise AssertionError("the stream has not ended")


@pytest.mark.parametrize("seed", range(3))
def test_streams_arrive_whole_over_connections_that_break(started: Callable[..., None], seed: int) -> None:
    """Messages are lost unnoticed or refused, in both directions; all streams arrive as they were sent."""
    rng, fates = random.Random(seed), random.Random(seed + 100)  # noqa: S311 (repeatable)
    caller, worker = joined(lambda: fates.choices(("passed", "lost", "refused"), (100, 6, 1))[0])
    started(caller, worker)
    sent = {stream: rng.randbytes(rng.randint(1, 3 * WINDOW_BYTES)) for stream in StreamId}
    received: dict[StreamId, bytes] = {}

    def receive(link: Link, stream: StreamId) -> None:
        received[stream] = read(link, stream, rng)

    threads = []
    for stream, source, target in ((IN, caller, worker), (OUT, worker, caller), (ERR, worker, caller)):
        threads.append(threading.Thread(target=write, args=(source, stream, sent[stream], rng), daemon=True))
        threads.append(threading.Thread(target=receive, args=(target, stream), daemon=True))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30.0)
    assert received == sent
    assert caller.wait(caller.is_complete, 5.0)
    assert worker.wait(worker.is_complete, 5.0)


def test_a_reader_that_is_slow_stops_the_writer(started: Callable[..., None]) -> None:
    """No more than the window is between them, in few frames, and reading makes room."""
    caller, worker = joined(lambda: "passed")
    started(caller, worker)
    for _ in range(20_000):
        worker.write(OUT, b"x")
    while (room := worker.room(OUT)) > 0:
        worker.write(OUT, bytes(min(room, CHUNK_BYTES)))
    wire = worker.transport
    assert isinstance(wire, Wire)
    assert wire.frames < 200
    assert caller.wait(lambda: len(caller.peek(OUT)) > 0, 5.0)
    while len(data := caller.peek(OUT)) > 0:
        caller.take(OUT, len(data))
    assert worker.wait(lambda: worker.room(OUT) > 0, 5.0)


def test_a_reader_that_closes_its_stream_stops_the_writer(started: Callable[..., None]) -> None:
    """The writer learns of it, what it writes then is dropped, and the stream counts as complete."""
    caller, worker = joined(lambda: "passed")
    started(caller, worker)
    worker.write(OUT, b"some")
    caller.close(OUT)
    assert worker.wait(lambda: worker.is_closed(OUT), 5.0)
    worker.write(OUT, bytes(10))
    worker.end(OUT)
    worker.end(ERR)
    assert worker.wait(worker.is_complete, 5.0)


def test_an_end_without_a_listener_is_gone(
    started: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only after a while, since it may be reconnecting; nothing that was written is lost until then."""
    monkeypatch.setattr(link_module, "GONE_S", 0.3)
    caller, worker = joined(lambda: "passed")
    wire = worker.transport
    assert isinstance(wire, Wire)
    wire.listeners = 0
    started(worker)
    worker.write(OUT, b"kept")
    assert worker.wait(lambda: worker.gone, 5.0)
    wire.listeners = 1
    started(caller)
    assert caller.wait(lambda: bytes(caller.peek(OUT)) == b"kept", 5.0)


@pytest.mark.parametrize("touched", [True, False])
def test_a_second_run_is_accepted_only_while_nothing_was_passed_on(
    started: Callable[..., None], touched: bool
) -> None:
    """A caller that has seen output of a first run refuses another one."""
    answers: dict[int, list[Kind]] = {}
    runs: dict[str, Link] = {}
    end = CallerEnd(lambda channel: Wire(runs[channel], lambda: "passed", answer), has_input=False)

    def answer(frame: Frame) -> None:
        answers.setdefault(frame.session, []).append(frame.kind)

    def run(channel: str) -> Link:
        link = runs[channel] = worker_link(has_input=False)
        link.transport = Wire(end.link, lambda: "passed", end.on_frame)
        started(link)
        greet(link, channel, answers.setdefault(link.session, []), lambda: False)
        return link

    started(end.link)
    first = run("first")
    if not touched:
        assert run("second").session == end.link.session
        return
    first.write(OUT, b"x")
    eventually(lambda: len(end.link.peek(OUT)) == 1)
    with pytest.raises(JobRefused, match="not started a second time"):
        run("second")


def test_only_a_caller_of_the_command_line_is_attached() -> None:
    """A client of REST cannot mark its job as attached, and other texts under the key mean nothing."""
    fields = {"metadata": {"attached": "stdin"}}
    assert attached_mode(make_job("shell.cmd", {"argv": ["true"]}, source="cli", **fields)) == "stdin"
    assert attached_mode(make_job("shell.cmd", {"argv": ["true"]}, source="rest", **fields)) is None
    other = make_job("shell.cmd", {"argv": ["true"]}, source="cli", metadata={"attached": "3 files"})
    assert attached_mode(other) is None


def test_frames_keep_their_fields() -> None:
    """What is encoded is decoded; what is too short is refused."""
    frame = Frame(Kind.DATA, 2**63, ERR, Flags.END | Flags.CLOSED, 2**40, 5, b"bytes\x00")
    assert decode_frame(encode_frame(frame)) == frame
    with pytest.raises(ValueError, match="shorter"):
        decode_frame(b"short")
