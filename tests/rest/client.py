"""A small HTTP client for the tests: one request, one connection, nothing hidden."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """Its body."""
        return json.loads(self.body)


class Client:
    """Calls one API.

    Args:
        url: Where it is.
        token: Sent as bearer; None for none.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        self.url = url
        self.token = token

    def __call__(
        self,
        method: str,
        path: str,
        document: Any = None,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 30.0,
    ) -> Answer:
        """Make a request."""
        connection = self._connect(timeout_s)
        try:
            connection.request(method, path, *self._outgoing(document, body, headers))
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read())
        finally:
            connection.close()

    def _connect(self, timeout_s: float) -> http.client.HTTPConnection:
        place = urlsplit(self.url)
        assert place.hostname is not None
        return http.client.HTTPConnection(place.hostname, place.port, timeout=timeout_s)

    def _outgoing(
        self, document: Any, body: bytes | None, headers: Mapping[str, str] | None
    ) -> tuple[bytes | None, dict[str, str]]:
        sent = {} if self.token is None else {"Authorization": f"Bearer {self.token}"}
        if document is not None:
            body, sent["Content-Type"] = json.dumps(document).encode(), "application/json"
        return body, {**sent, **({} if headers is None else headers)}

    def stream(
        self, path: str, *, headers: Mapping[str, str] | None = None, timeout_s: float = 15.0
    ) -> Iterator[dict[str, str]]:
        """Yield the events of a stream until it ends; comments and bare retries are left out."""
        connection = self._connect(timeout_s)
        try:
            connection.request("GET", path, *self._outgoing(None, None, headers))
            response = connection.getresponse()
            assert response.status == 200, response.read()
            event: dict[str, str] = {}
            deadline_s = time.monotonic() + timeout_s
            while line := response.readline():
                assert time.monotonic() < deadline_s, "the stream went on for too long"
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name in {"id", "event", "data"}:
                    event[name] = value
                elif not name and event:
                    yield event
                    event = {}
        finally:
            connection.close()
