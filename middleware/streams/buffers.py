"""The two ends of one stream: what was written and not yet received, what was received and not yet taken."""

from __future__ import annotations

import itertools
from collections import deque

from middleware.streams.frames import Flags, Frame, Kind, StreamId

#: Maximum number of bytes of one stream between its writer and its reader: the bound of the memory that it
#: takes in each process, the store included. Over a connection with 10 ms of latency, 100 MB/s.
WINDOW_BYTES = 2 * 1024 * 1024
#: Maximum payload of one frame.
CHUNK_BYTES = 256 * 1024
#: Maximum number of frames between them, so that many small ones do not take much more memory than their
#: bytes.
_FRAMES_MAX = 64
#: Bytes that wait are joined up to this size.
_JOIN_BYTES = 4096
#: A reader reports what it has taken after this many bytes, and whenever it has taken all.
_REPORT_BYTES = WINDOW_BYTES // 4


class Outgoing:
    """A stream that this end writes; one thread at a time.

    Args:
        stream: Which.

    Attributes:
        written: Number of bytes written.
        finished: Whether nothing follows them.
        closed: Whether the reader takes no more; what is written then is dropped.
    """

    def __init__(self, stream: StreamId) -> None:
        self._stream = stream
        self._chunks: deque[tuple[int, bytes]] = deque()
        self._sent = 0
        self._taken = 0
        self._end_sent = False
        self.written = 0
        self.finished = False
        self.closed = False
        self._end_received = False

    @property
    def touched(self) -> bool:
        """Whether a byte was sent."""
        return self._sent > 0

    @property
    def is_complete(self) -> bool:
        """Whether the reader has received all bytes and the end, or has closed the stream."""
        return self._end_received or self.closed

    @property
    def room(self) -> int:
        """Number of bytes that can be written now."""
        return CHUNK_BYTES if self.closed else max(0, WINDOW_BYTES - (self.written - self._taken))

    def write(self, data: bytes) -> None:
        """Append bytes, at most ``room``."""
        if self.closed or not data:
            return
        if self._chunks and self._chunks[-1][0] >= self._sent:
            offset, waiting = self._chunks[-1]
            if len(waiting) + len(data) <= _JOIN_BYTES:
                self._chunks[-1] = (offset, waiting + data)
                self.written += len(data)
                return
        for start in range(0, len(data), CHUNK_BYTES):
            piece = data if len(data) <= CHUNK_BYTES else data[start : start + CHUNK_BYTES]
            self._chunks.append((self.written, piece))
            self.written += len(piece)

    @property
    def position(self) -> tuple[int, bool]:
        """Where sending goes on; ``rewind`` returns to it."""
        return self._sent, self._end_sent

    def rewind(self, position: tuple[int, bool]) -> None:
        """Send again from here on, if a later part was already sent."""
        self._sent = min(self._sent, position[0])
        self._end_sent = self._end_sent and position[1]

    def next_frame(self, session: int) -> Frame | None:
        """Return the next frame to send, which then counts as sent; None if there is nothing to send."""
        for offset, data in itertools.islice(self._chunks, _FRAMES_MAX):
            end = offset + len(data)
            if end > self._sent:
                skipped = max(0, self._sent - offset)
                payload = data if skipped == 0 else memoryview(data)[skipped:]
                self._sent = end
                self._end_sent = self.finished and end == self.written
                flags = Flags.END if self._end_sent else Flags.NONE
                return Frame(Kind.DATA, session, self._stream, flags, end - len(payload), 0, payload)
        if self.finished and not self._end_sent and self._sent == self.written:
            self._end_sent = True
            return Frame(Kind.DATA, session, self._stream, Flags.END, self.written)
        return None

    def learn(self, state: Frame) -> None:
        """Take a report of the reader."""
        self._taken = max(self._taken, min(state.taken, self.written))
        received = min(state.position, self.written)
        while self._chunks and self._chunks[0][0] + len(self._chunks[0][1]) <= received:
            self._chunks.popleft()
        if Flags.RESUMED in state.flags:
            self.rewind((received, Flags.END in state.flags))
        if Flags.END in state.flags:
            self._end_received = True
        if Flags.CLOSED in state.flags:
            self.closed = True
            self._chunks.clear()
            self._sent = self.written
            self._end_sent = True


class Incoming:
    """A stream that this end reads; one thread at a time.

    Args:
        stream: Which.

    Attributes:
        closed: Whether this end takes no more.
    """

    def __init__(self, stream: StreamId) -> None:
        self._stream = stream
        self._chunks: deque[memoryview] = deque()
        self._received = 0
        self._taken = 0
        self._reported = 0
        self._unreported_frames = 0
        self._end = False
        self.closed = False

    @property
    def touched(self) -> bool:
        """Whether a byte or the end was received."""
        return self._received > 0 or self._end

    @property
    def end_received(self) -> bool:
        """Whether all bytes of the stream have been received."""
        return self._end

    @property
    def is_report_due(self) -> bool:
        """Whether the writer should learn what was received, although nothing was taken."""
        return self._end or self.closed or self._unreported_frames >= _FRAMES_MAX // 2

    @property
    def has_ended(self) -> bool:
        """Whether all bytes have been taken, too."""
        return self._end and not self._chunks

    def peek(self) -> memoryview:
        """Return the next bytes; empty if none are there."""
        return self._chunks[0] if self._chunks else memoryview(b"")

    def take(self, size: int) -> bool:
        """Remove bytes from the front of ``peek``; return whether the writer should learn of it now."""
        first = self._chunks.popleft()
        if size < len(first):
            self._chunks.appendleft(first[size:])
        self._taken += size
        return self._taken - self._reported >= _REPORT_BYTES or not self._chunks

    def close(self) -> None:
        """Take no more; what has been received and what comes is dropped."""
        self.closed = True
        self._chunks.clear()
        self._taken = self._received

    def accept(self, data: Frame) -> bool:
        """Take a frame of data; return False if bytes before it are missing."""
        known = self._received - data.position
        if known < 0:
            return False
        fresh = memoryview(data.payload)[known:]
        if len(fresh) > 0:
            self._received += len(fresh)
            self._unreported_frames += 1
            if self.closed:
                self._taken = self._received
            elif self._chunks and len(self._chunks[-1]) + len(fresh) <= _JOIN_BYTES:
                self._chunks[-1] = memoryview(b"".join((self._chunks[-1], fresh)))
            else:
                self._chunks.append(fresh)
        if Flags.END in data.flags and data.position + len(data.payload) == self._received:
            self._end = True
        return True

    def state(self, session: int, *, resumed: bool) -> Frame:
        """Return a report for the writer."""
        flags = Flags.RESUMED if resumed else Flags.NONE
        flags |= Flags.END if self._end else Flags.NONE
        flags |= Flags.CLOSED if self.closed else Flags.NONE
        self._reported = self._taken
        self._unreported_frames = 0
        return Frame(Kind.STATE, session, self._stream, flags, self._received, self._taken)
