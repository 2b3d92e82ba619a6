"""Standard input: whether there is any, and reading it whole. Nothing here takes time to import."""

from __future__ import annotations

import os
import stat
import sys
from typing import IO, Any

from ingress.core.terminal import note
from ops.errors import UsageProblem

_DEV_NULL = (1, 3)
#: Input that has not begun after this time gets a note, in milliseconds.
_NOTE_AFTER_MS = 800
_READ_BYTES = 65_536


def descriptor_of(stream: IO[Any] | None) -> int | None:
    """Return the descriptor of a standard stream, None if it was closed when this process started.

    The number of a closed one may belong to a connection by now.
    """
    if stream is None:
        return None
    try:
        fd = stream.fileno()
        os.fstat(fd)
    except (OSError, ValueError):
        return None
    return fd


def has_input() -> bool:
    """Return whether stdin is a pipe, a file or a socket: not closed, no terminal and not /dev/null."""
    fd = descriptor_of(sys.__stdin__)
    if fd is None or os.isatty(fd):
        return False
    status = os.fstat(fd)
    device = (os.major(status.st_rdev), os.minor(status.st_rdev))
    return not (stat.S_ISCHR(status.st_mode) and device == _DEV_NULL)


def read_input(limit_bytes: int, what: str) -> bytes:
    """Return all of stdin.

    Args:
        limit_bytes: Its maximum size.
        what: What it is, for errors: ``the task``.

    Raises:
        UsageProblem: It is larger, or cannot be read.
    """
    fd = descriptor_of(sys.__stdin__)
    if fd is None:
        raise UsageProblem(f"{what[:1].upper()}{what[1:]} cannot be read: stdin is closed.")
    _note_silence(fd)
    pieces: list[bytes] = []
    size_bytes = 0
    try:
        while size_bytes <= limit_bytes and (piece := os.read(fd, _READ_BYTES)):
            pieces.append(piece)
            size_bytes += len(piece)
    except OSError as error:
        raise UsageProblem(
            f"{what[:1].upper()}{what[1:]} cannot be read from stdin: {error.strerror}."
        ) from error
    if size_bytes > limit_bytes:
        raise UsageProblem(
            f"{what[:1].upper()}{what[1:]} on stdin has more than {limit_bytes} bytes.",
            remedy="Put it into a file and pass its path, or raise payload_max_bytes.",
        )
    return b"".join(pieces)


def read_text(limit_bytes: int, what: str) -> str:
    """Return all of stdin as text, without line ends at its end; see ``read_input``.

    Raises:
        UsageProblem: It is larger, cannot be read, or is not UTF-8.
    """
    try:
        return read_input(limit_bytes, what).decode().rstrip("\n")
    except UnicodeDecodeError as error:
        raise UsageProblem(
            f"{what[:1].upper()}{what[1:]} on stdin is not valid UTF-8.", remedy="Convert it to UTF-8 first."
        ) from error


def _note_silence(fd: int) -> None:
    """Say that stdin is read if nothing arrives for a moment."""
    if os.isatty(fd):
        return
    import select

    poll = select.poll()
    poll.register(fd, select.POLLIN)
    if not poll.poll(_NOTE_AFTER_MS):
        note("reading stdin up to its end; '< /dev/null' passes none.")
