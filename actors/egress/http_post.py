"""One HTTP POST, with a bound on everything; what its answer means for the next attempt."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Mapping
from urllib.parse import urlsplit

from msgspec import Struct

from actors.egress.retry_delay import ComeBack
from ops.errors import JobFailed, JobRefused

#: Of an answer, so much is read; it is only there to say what was wrong.
_ANSWER_MAX_BYTES = 65_536
_SAID_MAX = 200
_OK, _REDIRECTED, _CLIENT_ERROR, _SERVER_ERROR = 200, 300, 400, 500
#: Answers of the 400s that another attempt may change: timeout, conflict, too early, too many requests.
_PASSING = frozenset({408, 409, 425, 429})
_RETRY_AFTER_MAX_S = 3600


class Answer(Struct, frozen=True):
    """What a server answered.

    Attributes:
        status: HTTP status.
        body: At most 64 KiB of it.
        retry_after_s: When to come back, in seconds, if it said so; an hour at most.
    """

    status: int
    body: bytes
    retry_after_s: int | None = None


def post(url: str, body: bytes, headers: Mapping[str, str], *, timeout_s: float) -> Answer:
    """Post to an address; redirects are not followed, since they would carry the body somewhere else.

    Args:
        url: ``http://`` or ``https://``; what it holds besides the host is kept out of errors.
        body: What is sent.
        headers: Besides ``Host`` and ``Content-Length``.
        timeout_s: Bound on each step: to connect, to send, to hear the answer.

    Raises:
        JobFailed: Nobody answered; worth another attempt.
        JobRefused: The address is none.
    """
    parts = urlsplit(url)
    host = parts.hostname
    if parts.scheme not in {"http", "https"} or host is None:
        raise JobRefused("the address is no http:// or https:// URL.", remedy="Correct it in 3ox.toml.")
    connection: http.client.HTTPConnection
    try:
        if parts.scheme == "https":
            connection = http.client.HTTPSConnection(
                host, parts.port, timeout=timeout_s, context=ssl.create_default_context()
            )
        else:
            connection = http.client.HTTPConnection(host, parts.port, timeout=timeout_s)
    except (ValueError, http.client.InvalidURL) as error:
        raise _not_an_address() from error
    target = f"{parts.path if parts.path else '/'}{f'?{parts.query}' if parts.query else ''}"
    try:
        connection.request("POST", target, body=body, headers=dict(headers))
        response = connection.getresponse()
        return Answer(
            response.status, response.read(_ANSWER_MAX_BYTES), _seconds(response.getheader("Retry-After"))
        )
    except (http.client.InvalidURL, UnicodeError):
        # What it says holds the whole path, and that of a bot its token: not even as the cause of ours.
        raise _not_an_address() from None
    except TimeoutError as error:
        raise JobFailed(f"{host} did not answer within {timeout_s:g} s.") from error
    except socket.gaierror as error:
        raise JobFailed(f"{host} is not known: {error.strerror}.") from error
    except (OSError, http.client.HTTPException) as error:
        raise JobFailed(f"{host} cannot be reached: {error}.") from error
    finally:
        connection.close()


def _not_an_address() -> JobRefused:
    return JobRefused(
        "the address is no URL: a port that is no number, a blank or a letter beyond ASCII in it.",
        remedy="Correct it in 3ox.toml; letters beyond ASCII are written as %XX.",
    )


def require_taken(answer: Answer, who: str) -> None:
    """Return if the receiver has taken it.

    Args:
        answer: Of the receiver.
        who: Names it, without secrets.

    Raises:
        ComeBack: It says when.
        JobFailed: It may take it later.
        JobRefused: It will never take it.
    """
    if _OK <= answer.status < _REDIRECTED:
        return
    said = " ".join(answer.body[:_SAID_MAX].decode(errors="replace").split())
    message = f"{who} answered {answer.status}{f': {said}' if said else ''}."
    if answer.status >= _SERVER_ERROR or answer.status in _PASSING:
        if answer.retry_after_s is not None:
            raise ComeBack(message, delay_s=answer.retry_after_s)
        raise JobFailed(message)
    remedy = (
        "Write the address that it redirects to." if answer.status < _CLIENT_ERROR else "Correct 3ox.toml."
    )
    raise JobRefused(message, remedy=remedy)


def _seconds(header: str | None) -> int | None:
    if header is None or not header.strip().isdecimal():
        return None
    return min(int(header), _RETRY_AFTER_MAX_S)
