"""Failures of the local Bot API server."""

from __future__ import annotations

from typing import NamedTuple

#: Status that cuts the connection.
CUT = 0
#: Telegram's description of 409.
TERMINATED = (
    "Conflict: terminated by other getUpdates request; make sure that only one bot instance is running"
)


class Fault(NamedTuple):
    """How a call fails.

    Attributes:
        status: HTTP status; 0 cuts the connection.
        description: Telegram's description of the error.
        retry_after_s: Wait that 429 demands, in seconds.
        after: Whether the method is executed first, so that only its answer is lost.
    """

    status: int
    description: str = ""
    retry_after_s: int = 0
    after: bool = False


def flood(retry_after_s: int) -> Fault:
    """Return a failure with 429."""
    return Fault(429, f"Too Many Requests: retry after {retry_after_s}", retry_after_s)


def broken(status: int = 502) -> Fault:
    """Return a failure with a server error."""
    return Fault(status, "Bad Gateway" if status == 502 else "Internal Server Error")  # noqa: PLR2004


def dropped(*, after: bool = False) -> Fault:
    """Return a cut connection, before or after the method has been executed."""
    return Fault(CUT, after=after)


def conflict() -> Fault:
    """Return a failure with 409, as if another program polled."""
    return Fault(409, TERMINATED)


class ApiError(Exception):
    """An error answer of a method."""

    def __init__(self, code: int, description: str, retry_after_s: int = 0, *, later: int = 0) -> None:
        super().__init__(description)
        self.code = code
        self.retry_after_s = retry_after_s
        #: The id of the supergroup that the chat has become.
        self.later = later
