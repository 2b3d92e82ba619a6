"""The frames that a caller and a worker exchange, one per message of a channel.

| offset | size | field |
| --- | --- | --- |
| 0 | 1 | kind: 1 hello, 2 accept, 3 refuse, 4 data, 5 state |
| 1 | 1 | stream: 0 stdin, 1 stdout, 2 stderr |
| 2 | 2 | flags, see below |
| 4 | 8 | session: the run of the command that the frame belongs to |
| 12 | 8 | data: offset of the payload in its stream; state: number of bytes received |
| 20 | 8 | state: number of bytes taken by the reader |
| 28 | | hello: name of the channel that the worker listens on; data: the bytes |
"""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag

from msgspec import Struct

_HEADER = struct.Struct("!BBHQQQ")


class Kind(IntEnum):
    """What a frame says."""

    HELLO = 1
    ACCEPT = 2
    REFUSE = 3
    DATA = 4
    STATE = 5


class Flags(IntFlag):
    """Properties of a frame.

    ``END``: data: the stream ends after the payload; state: the end has been received. ``CLOSED``: state: the
    reader takes no more. ``RESUMED``: state: send again what was not received. ``ASK``: state: messages to
    the sender may have been lost, report your state in turn.
    """

    NONE = 0
    END = 1
    CLOSED = 2
    RESUMED = 4
    ASK = 8


class StreamId(IntEnum):
    """A stream of a command."""

    IN = 0
    OUT = 1
    ERR = 2


class Frame(Struct, frozen=True, gc=False):
    """One frame; the fields are described at the top of this module."""

    kind: Kind
    session: int
    stream: StreamId = StreamId.IN
    flags: Flags = Flags.NONE
    position: int = 0
    taken: int = 0
    payload: bytes | memoryview = b""


def encode_frame(frame: Frame) -> bytes:
    """Return a frame as the content of a message."""
    header = _HEADER.pack(frame.kind, frame.stream, frame.flags, frame.session, frame.position, frame.taken)
    return b"".join((header, frame.payload))


def decode_frame(data: bytes) -> Frame:
    """Return the frame in a message; its payload is a view of ``data``.

    Raises:
        ValueError: It is not a frame of this version.
    """
    if len(data) < _HEADER.size:
        raise ValueError(f"a frame of {len(data)} bytes is shorter than its header")
    kind, stream, flags, session, position, taken = _HEADER.unpack_from(data)
    return Frame(
        Kind(kind), session, StreamId(stream), Flags(flags), position, taken, memoryview(data)[_HEADER.size :]
    )
