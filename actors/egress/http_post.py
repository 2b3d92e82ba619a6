"""One bounded HTTP POST, and what its response means for the next attempt."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Mapping
from urllib.parse import urlsplit

from msgspec import Struct

from actors.egress.retry_delay import RetryLater
from ops.errors import JobFailed, JobRefused

#: Bytes of a response body that are read; it only serves to explain an error.
_BODY_MAX_BYTES = 65_536
_EXCERPT_CHARS = 200
_OK, _REDIRECTED, _CLIENT_ERROR, _SERVER_ERROR = 200, 300, 400, 500
#: Client errors worth a retry: request timeout, conflict, too early, too many requests.
_TRANSIENT = frozenset({408, 409, 425, 429})
_RETRY_AFTER_MAX_S = 3600


class HttpResponse(Struct, frozen=True):
    """A server's response.

    Attributes:
        status: HTTP status.
        body: At most its first 64 KiB.
        retry_after_s: ``Retry-After`` in seconds, at most one hour; None without the header.
    """

    status: int
    body: bytes
    retry_after_s: int | None = None


def post(url: str, body: bytes, headers: Mapping[str, str], *, timeout_s: float) -> HttpResponse:
    """Send a POST request; redirects are not followed, because they would send the body to another server.

    Args:
        url: ``http://`` or ``https://``; errors name its host only, since the rest may hold a secret.
        body: Request body.
        headers: Request headers besides ``Host`` and ``Content-Length``.
        timeout_s: Timeout of each step: connect, send, receive.

    Raises:
        JobFailed: There was no response; worth a retry.
        JobRefused: The URL is not valid.
    """
    parts = urlsplit(url)
    host = parts.hostname
    if parts.scheme not in {"http", "https"} or host is None:
        raise JobRefused("The URL must begin with http:// or https://.", remedy="Correct it in 3ox.toml.")
    connection: http.client.HTTPConnection
    try:
        if parts.scheme == "https":
            connection = http.client.HTTPSConnection(
                host, parts.port, timeout=timeout_s, context=ssl.create_default_context()
            )
        else:
            connection = http.client.HTTPConnection(host, parts.port, timeout=timeout_s)
    except (ValueError, http.client.InvalidURL) as error:
        raise _invalid_url() from error
    target = f"{parts.path if parts.path else '/'}{f'?{parts.query}' if parts.query else ''}"
    try:
        connection.request("POST", target, body=body, headers=dict(headers))
        response = connection.getresponse()
        return HttpResponse(
            response.status, response.read(_BODY_MAX_BYTES), _seconds(response.getheader("Retry-After"))
        )
    except (http.client.InvalidURL, UnicodeError):
        # Their messages quote the whole path, which for a bot contains the token: not even kept as the cause.
        raise _invalid_url() from None
    except TimeoutError as error:
        raise JobFailed(f"{host} did not answer within {timeout_s:g} s.") from error
    except socket.gaierror as error:
        raise JobFailed(f"The host {host} cannot be resolved: {error.strerror}.") from error
    except (OSError, http.client.HTTPException) as error:
        raise JobFailed(f"{host} cannot be reached: {error}.") from error
    finally:
        connection.close()


def _invalid_url() -> JobRefused:
    return JobRefused(
        "The URL is not valid: the port must be a number, spaces and non-ASCII characters are not allowed.",
        remedy="Correct it in 3ox.toml; write non-ASCII characters as %XX.",
    )


def require_success(response: HttpResponse, destination: str) -> None:
    """Return if the receiver accepted the request (2xx).

    Args:
        response: The receiver's response.
        destination: Its name in messages, without secrets.

    Raises:
        RetryLater: It named the time of the next attempt.
        JobFailed: The failure may pass; worth a retry.
        JobRefused: It will never accept this request.
    """
    if _OK <= response.status < _REDIRECTED:
        return
    excerpt = " ".join(response.body[:_EXCERPT_CHARS].decode(errors="replace").split())
    message = f"{destination} answered {response.status}{f': {excerpt}' if excerpt else ''}."
    if response.status >= _SERVER_ERROR or response.status in _TRANSIENT:
        if response.retry_after_s is not None:
            raise RetryLater(message, delay_s=response.retry_after_s)
        raise JobFailed(message)
    remedy = (
        "Use the URL that it redirects to." if response.status < _CLIENT_ERROR else "Correct it in 3ox.toml."
    )
    raise JobRefused(message, remedy=remedy)


def _seconds(header: str | None) -> int | None:
    if header is None or not header.strip().isdecimal():
        return None
    return min(int(header), _RETRY_AFTER_MAX_S)
