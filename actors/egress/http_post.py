"""One HTTP POST to a destination, and what its response means for the next attempt."""

from __future__ import annotations

import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from actors.egress.retry_delay import RetryLater
from ops.errors import InvalidUrl, JobFailed, JobRefused, RequestFailed, SettingsError
from ops.http.client import HttpResponse, request

_EXCERPT_CHARS = 200
_OK, _REDIRECTED, _CLIENT_ERROR, _SERVER_ERROR = 200, 300, 400, 500
#: Client errors worth a retry: request timeout, conflict, too early, too many requests.
_TRANSIENT = frozenset({408, 409, 425, 429})
_RETRY_AFTER_MAX_S = 3600


def post(url: str, body: bytes, headers: Mapping[str, str], *, timeout_s: float) -> HttpResponse:
    """Send a POST request; redirects are not followed.

    Args:
        url: ``http://`` or ``https://``; errors name its host only, since the rest may hold a secret.
        body: Request body.
        headers: Request headers besides ``Host`` and ``Content-Length``.
        timeout_s: Timeout of each step: connect, send, receive.

    Raises:
        JobFailed: There was no response; worth a retry.
        JobRefused: The URL, or a proxy of the environment, is not valid.
    """
    try:
        return request("POST", url, headers=headers, body=body, timeout_s=timeout_s)
    except RequestFailed as error:
        raise JobFailed(error.message) from error
    except InvalidUrl as error:
        raise JobRefused(error.message, remedy=f"Correct it in 3ox.toml. {error.remedy}".strip()) from None
    except SettingsError as error:
        raise JobRefused(error.message, remedy=error.remedy) from error


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
        delay_s = retry_after_s(response)
        if delay_s is not None:
            raise RetryLater(message, delay_s=delay_s)
        raise JobFailed(message)
    remedy = (
        "Use the URL that it redirects to." if response.status < _CLIENT_ERROR else "Correct it in 3ox.toml."
    )
    raise JobRefused(message, remedy=remedy)


def retry_after_s(response: HttpResponse) -> float | None:
    """Return when the server wants the next attempt, in seconds from now and at most one hour.

    Args:
        response: Its header ``Retry-After`` is a number of seconds or a date; None without a valid one.
    """
    value = response.headers.get("retry-after", "").strip()
    if value.isascii() and value.isdecimal():
        return min(float(value[:10]), _RETRY_AFTER_MAX_S)
    try:
        seconds = parsedate_to_datetime(value).timestamp() - time.time()
    except (ValueError, OverflowError):
        return None
    return min(max(seconds, 0.0), _RETRY_AFTER_MAX_S)
