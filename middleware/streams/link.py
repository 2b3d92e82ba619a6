"""One end of the streams between a caller and its job: in order, complete, and bounded in memory.

Both ends run the same code over a transport that may lose messages and repeat them. A writer keeps what the
reader has not received and sends no more than ``WINDOW_BYTES`` ahead of what the reader has taken. After a
reconnection each end reports its state, and the other one sends again from there. Positions are offsets in
bytes, so what arrives twice is recognized.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from middleware.streams.buffers import CHUNK_BYTES, Incoming, Outgoing
from middleware.streams.frames import Flags, Frame, Kind, StreamId, decode_frame, encode_frame
from ops.errors import StoreError, StoreUnreachable
from ops.threads import start_duty

#: Interval at which each end reports its state, and so notices when the other one is gone.
PING_S = 2.0
#: Time without a listener at the other end after which it counts as gone. A caller whose connection to the
#: store broke is back within one second.
GONE_S = 5.0
_RETRY_S = 0.2
#: Frames that are sent in one round trip.
_BATCH = 4


class Transport(Protocol):
    """Takes messages to the other end; some may be lost."""

    def send(self, messages: Sequence[bytes]) -> int:
        """Send messages in order; return how many listeners the least noticed of them had.

        Raises:
            StoreUnreachable: Some or all may have been lost.
        """


class Link:
    """One end of the streams of one job.

    Args:
        writes: Streams that this end writes.
        reads: Streams that this end reads.

    Attributes:
        transport: Where messages go; None until the other end is known.
        session: Of the run of the command; 0 until it is known.
        gone: Whether the other end has had no listener for ``GONE_S``.
    """

    def __init__(self, *, writes: Iterable[StreamId], reads: Iterable[StreamId]) -> None:
        self.transport: Transport | None = None
        self.session = 0
        self.gone = False
        self._out = {stream: Outgoing(stream) for stream in writes}
        self._in = {stream: Incoming(stream) for stream in reads}
        self._changed = threading.Condition()
        self._listeners: list[Callable[[], None]] = []
        self._to_report: set[StreamId] = set()
        self._resumed = False
        self._asks = False
        self._first: list[Frame] = []
        self._alone_since_s: float | None = None
        self._ping_at_s = 0.0
        self._stopping = False
        self._sender: threading.Thread | None = None

    # What the program at this end does.

    def room(self, stream: StreamId) -> int:
        """Return how many bytes ``write`` takes now."""
        with self._changed:
            return self._out[stream].room

    def write(self, stream: StreamId, data: bytes) -> None:
        """Send bytes, at most ``room``; those of a closed stream are dropped."""
        with self._changed:
            self._out[stream].write(data)
            self._changed.notify_all()

    def end(self, stream: StreamId) -> None:
        """End a stream that this end writes."""
        with self._changed:
            self._out[stream].finished = True
            self._changed.notify_all()

    def is_closed(self, stream: StreamId) -> bool:
        """Return whether the reader of a stream that this end writes takes no more."""
        with self._changed:
            return self._out[stream].closed

    def is_complete(self) -> bool:
        """Return whether the other end has received all that this one writes, the ends included."""
        with self._changed:
            return all(stream.is_complete for stream in self._out.values())

    def peek(self, stream: StreamId) -> memoryview:
        """Return the next bytes of a stream that this end reads; empty if none are there."""
        with self._changed:
            return self._in[stream].peek()

    def take(self, stream: StreamId, size: int) -> None:
        """Remove bytes from the front of what ``peek`` returned."""
        with self._changed:
            if not self._in[stream].closed and self._in[stream].take(size):
                self._report(stream)

    def has_ended(self, stream: StreamId) -> bool:
        """Return whether a stream that this end reads has ended and all of it has been taken."""
        with self._changed:
            return self._in[stream].has_ended

    def end_received(self, stream: StreamId) -> bool:
        """Return whether the end of a stream that this end reads has been received."""
        with self._changed:
            return self._in[stream].end_received

    def close(self, stream: StreamId) -> None:
        """Take no more of a stream that this end reads; its writer learns of it."""
        with self._changed:
            self._in[stream].close()
            self._report(stream)

    def is_touched(self) -> bool:
        """Return whether a byte has been sent or received, or an end has been received."""
        with self._changed:
            return any(stream.touched for stream in self._in.values()) or any(
                stream.touched for stream in self._out.values()
            )

    def accept_session(self, session: int, transport: Transport) -> None:
        """Talk to a run of the command from now on; nothing was exchanged with an earlier one.

        Args:
            session: Of the run.
            transport: To its worker.
        """
        with self._changed:
            if session != self.session:
                for stream in self._out.values():
                    stream.rewind((0, False))
            self.transport, self.session, self.gone = transport, session, False
            self._alone_since_s = None
        self.send_first(Frame(Kind.ACCEPT, session))

    def wait(self, condition: Callable[[], object], timeout_s: float | None = None) -> bool:
        """Block until a condition is true, which is checked after every change; return whether it is.

        Args:
            condition: Reads this link.
            timeout_s: Limit, in seconds.
        """
        with self._changed:
            return bool(self._changed.wait_for(lambda: condition() or self._stopping, timeout_s)) and bool(
                condition()
            )

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` after every message, from another thread; it must return at once."""
        with self._changed:
            self._listeners.append(listener)

    def wake(self) -> None:
        """Have all conditions checked again."""
        with self._changed:
            self._changed.notify_all()

    # What the connection to the other end does.

    def start(self, name: str) -> None:
        """Start sending.

        Args:
            name: Name of the thread.
        """
        self._sender = start_duty(name, self._send_all, ended=lambda: self._stopping)

    def stop(self) -> None:
        """Stop sending; all that wait return."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._sender is not None:
            self._sender.join(PING_S)

    def send_first(self, frame: Frame) -> None:
        """Send a frame before all others."""
        with self._changed:
            self._first = [other for other in self._first if other.kind != frame.kind] + [frame]
            self._changed.notify_all()

    def resume(self) -> None:
        """Exchange the states of all streams, since messages to this end may have been lost."""
        with self._changed:
            self._ask()
            self._changed.notify_all()

    def _ask(self) -> None:
        self._asks = True
        self._report_all()

    def _report_all(self) -> None:
        self._resumed = True
        self._to_report.update(self._in)

    def handle(self, message: bytes) -> Frame | None:
        """Take a message from the other end; return its frame if it is not about the streams.

        Messages of another session are dropped, and those of an unknown kind.
        """
        try:
            frame = decode_frame(message)
        except ValueError:
            return None
        if frame.kind not in {Kind.DATA, Kind.STATE}:
            return frame
        with self._changed:
            if frame.session == self.session:
                self._take(frame)
                self._changed.notify_all()
            listeners = list(self._listeners)
        for listener in listeners:
            listener()
        return None

    def _take(self, frame: Frame) -> None:
        if frame.kind == Kind.STATE:
            if Flags.ASK in frame.flags:
                self._report_all()
            if frame.stream in self._out:
                self._out[frame.stream].learn(frame)
        elif frame.stream in self._in:
            stream = self._in[frame.stream]
            if not stream.accept(frame):
                self._resumed = True
                self._report(frame.stream)
            elif stream.is_report_due:
                self._report(frame.stream)

    def _report(self, stream: StreamId) -> None:
        self._to_report.add(stream)
        self._changed.notify_all()

    def _send_all(self) -> None:
        while not self._stopping:
            transport, frames, positions = self._next_frames()
            if transport is None:
                continue
            try:
                listeners = transport.send([encode_frame(frame) for frame in frames])
            except (StoreUnreachable, StoreError):
                # Unknown whether they arrived. An outage of the store does not make the other end gone.
                self._undo(frames, positions)
                self._pause()
                continue
            if listeners > 0:
                self._alone_since_s = None
                continue
            self._undo(frames, positions)
            self._note_absence()
            self._pause()

    def _next_frames(self) -> tuple[Transport | None, list[Frame], dict[StreamId, tuple[int, bool]]]:
        """Wait for something to send; every ``PING_S`` the states are exchanged."""
        with self._changed:
            while not self._stopping:
                left_s = self._ping_at_s - time.monotonic()
                if self.transport is not None:
                    if left_s <= 0:
                        self._ping_at_s = time.monotonic() + PING_S
                        self._ask()
                    positions = {name: stream.position for name, stream in self._out.items()}
                    frames = self._collect()
                    if frames:
                        return self.transport, frames, positions
                self._changed.wait(max(0.0, left_s) if self.transport is not None else None)
            return None, [], {}

    def _collect(self) -> list[Frame]:
        frames, self._first = self._first, []
        for stream in sorted(self._to_report):
            frames.append(self._in[stream].state(self.session, resumed=self._resumed))
        if self._asks:
            frames.append(Frame(Kind.STATE, self.session, next(iter(self._out or self._in)), Flags.ASK))
        self._to_report.clear()
        self._resumed = self._asks = False
        while len(frames) < _BATCH:
            fresh = [
                frame
                for stream in self._out.values()
                if (frame := stream.next_frame(self.session)) is not None
            ]
            if not fresh:
                break
            frames += fresh
        return frames

    def _undo(self, frames: list[Frame], positions: dict[StreamId, tuple[int, bool]]) -> None:
        """Have frames sent again, since they may not have arrived."""
        with self._changed:
            for stream, position in positions.items():
                self._out[stream].rewind(position)
            for frame in frames:
                if frame.kind == Kind.STATE and frame.stream in self._in:
                    self._to_report.add(frame.stream)
                elif frame.kind not in {Kind.DATA, Kind.STATE}:
                    self._first.append(frame)
                self._resumed = self._resumed or Flags.RESUMED in frame.flags
                self._asks = self._asks or Flags.ASK in frame.flags

    def _note_absence(self) -> None:
        now_s = time.monotonic()
        if self._alone_since_s is None:
            self._alone_since_s = now_s
        elif now_s - self._alone_since_s > GONE_S and not self.gone:
            with self._changed:
                self.gone = True
                self._changed.notify_all()
                listeners = list(self._listeners)
            for listener in listeners:
                listener()

    def _pause(self) -> None:
        ends_s = time.monotonic() + _RETRY_S
        with self._changed:
            while not self._stopping and (left_s := ends_s - time.monotonic()) > 0:
                self._changed.wait(left_s)


__all__ = ["CHUNK_BYTES", "Link", "Transport"]
