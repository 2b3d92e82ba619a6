"""The HTTP client of the model library: it sees each request and answer and puts right what servers do.

The library is given this client instead of its own. Imported with the library, since it costs start-up
time; see ``model_library.py``.
"""

from __future__ import annotations

import asyncio
import codecs
import json
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import httpx2

from actors.llm.model_documents import AnswerDocuments
from actors.llm.model_failure import error_text
from actors.llm.model_library import NO_KEY
from actors.llm.model_server import ModelServer
from actors.llm.provider import ProviderUnavailable
from ops.errors import JobRefused

#: Connect timeout: a running server accepts in milliseconds, and a fallback must still have time to answer.
CONNECT_TIMEOUT_S = 10.0
#: Longest wait for what follows the end of an answer: its usage, and the end of the stream.
_TRAILER_S = 5.0
_EVENT_MAX_BYTES = 1_048_576
_DOCUMENT_MAX_BYTES = 8_388_608
#: Largest stream, reasoning included.
_STREAM_MAX_BYTES = 67_108_864
_ERROR_MAX_BYTES = 65_536
#: How often a request is sent without what the server has refused.
_CHANGES_MAX = 3
_OK = 200
_REFUSALS = frozenset({400, 422})
#: Headers that do not apply to a body that has been decoded.
_OF_ENCODING = frozenset({"content-encoding", "content-length", "transfer-encoding"})


class ModelClient(httpx2.AsyncClient):
    """A client for the requests of one answer.

    Args:
        server: The server.
        documents: Reads the answer.
        transport: Sends the requests.
        timeout: Connect and read timeout.
    """

    def __init__(
        self,
        server: ModelServer,
        documents: AnswerDocuments,
        *,
        transport: httpx2.AsyncBaseTransport,
        timeout: httpx2.Timeout,
    ) -> None:
        super().__init__(transport=transport, timeout=timeout)
        self._server = server
        self._documents = documents

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """Send a request, without what the server refuses, and return its answer as a stream of events.

        Our own errors are raised where the library reads the stream: it would wrap those raised here.
        """
        options.update(stream=True, follow_redirects=False)
        for name in ("authorization", "x-api-key"):
            if request.headers.get(name, "").endswith(NO_KEY):
                del request.headers[name]
        for _ in range(_CHANGES_MAX):
            # One connection for each request: a server may close one after an error without saying so.
            request.headers["connection"] = "close"
            response = await super().send(request, **options)
            if response.status_code == _OK or response.is_redirect:
                return _stream(self._events(response), response)
            body = await _beginning(response)
            changed = _without_refused(request, body) if response.status_code in _REFUSALS else None
            if changed is None:
                break
            request = changed
        headers = {name: value for name, value in response.headers.items() if name not in _OF_ENCODING}
        return httpx2.Response(response.status_code, headers=headers, content=body, request=request)

    async def _events(self, response: httpx2.Response) -> AsyncGenerator[bytes]:
        """Yield the events of an answer as the library understands them, whatever the server says it is.

        Raises:
            ProviderUnavailable: It has no end, or something else is wrong with it.
            JobRefused: It is not an answer of a model server's API.
        """
        if response.is_redirect:
            raise self._redirected(response, await _beginning(response))
        pieces = response.aiter_bytes()
        head = b""
        async for piece in pieces:
            head += piece
            if _without_bom(head).lstrip() != b"":
                break
        begin = _without_bom(head).lstrip()[:1]
        if begin == b"<":
            raise self._not_an_api("a web page")
        if begin in (b"{", b"["):
            body = b"".join([piece async for piece in self._bounded(head, pieces, _DOCUMENT_MAX_BYTES)])
            documents = aiter(self._document(_without_bom(body)))
        else:
            bounded = self._bounded(head, pieces, _STREAM_MAX_BYTES)
            documents = aiter(self._stream_documents(self._data(response, bounded), is_empty=begin == b""))
        async for event in documents:
            yield _encoded(event)

    async def _stream_documents(
        self, events: AsyncIterator[str], *, is_empty: bool
    ) -> AsyncIterator[dict[str, Any]]:
        """Yield the documents of a stream of events, and check that it is complete."""
        known, broken = False, ""
        async for data in events:
            if broken != "":
                raise self._unavailable(f"sent an event that is not JSON: {broken[:80]!r}")
            known = True
            marker = self._documents.end_marker
            if marker != "" and data.startswith(marker):
                return
            document = _decoded(data)
            if isinstance(document, dict):
                yield self._documents.clean(document)
            elif isinstance(document, str):
                broken = data  # what comes next tells whether the stream was cut off here
        if not is_empty and not known:
            raise self._not_an_api("a text without events")
        if not self._documents.ended:
            raise self._unavailable("ended its answer in the middle")

    async def _data(self, response: httpx2.Response, pieces: AsyncGenerator[bytes]) -> AsyncIterator[str]:
        """Yield the data of each event; the stream may stay open or break off once the answer has ended."""
        events = aiter(httpx2.EventSource(_stream(pieces, response), max_event_size=_EVENT_MAX_BYTES))
        while True:
            ended = self._documents.ended
            try:
                async with asyncio.timeout(_TRAILER_S if ended else None):
                    event = await anext(events)
            except StopAsyncIteration:
                return
            except httpx2.SSEError as error:
                raise self._unavailable(f"sent an event of more than {_EVENT_MAX_BYTES} bytes") from error
            except (httpx2.TransportError, TimeoutError):
                if ended:
                    return
                raise
            if event.data != "":
                yield event.data

    async def _bounded(
        self, head: bytes, pieces: AsyncIterator[bytes], limit_bytes: int
    ) -> AsyncGenerator[bytes]:
        """Yield the bytes of a body, and an empty line that ends its last event."""
        yield head
        size_bytes = len(head)
        async for piece in pieces:
            size_bytes += len(piece)
            if size_bytes > limit_bytes:
                raise self._unavailable(f"sent an answer of more than {limit_bytes} bytes")
            yield piece
        yield b"\n\n"

    async def _document(self, body: bytes) -> AsyncIterator[dict[str, Any]]:
        """Yield the events of an answer that came as one document."""
        document = _decoded(body)
        if isinstance(document, str):
            raise self._unavailable("sent a document that is not JSON")
        if isinstance(document, list) and len(document) == 1:
            document = document[0]
        if isinstance(document, dict) and self._documents.is_answer(document):
            for event in self._documents.events_of(document):
                yield event
            return
        error = document.get("error") if isinstance(document, dict) else None
        if isinstance(error, str) and "endpoint" not in error.lower():
            error = {"message": error}
        if not isinstance(document, dict) or not isinstance(error, dict):
            raise self._not_an_api(repr(body[:100].decode("utf-8", "replace").strip()))
        yield {**document, "error": error}

    def _redirected(self, response: httpx2.Response, body: bytes) -> JobRefused:
        target = response.headers.get("location", "")
        said = f"it redirects to {target!r}." if target else error_text(_decoded(body), self._server.key)
        return JobRefused(
            f"{self._server.address} answered {response.status_code}: {said}",
            remedy="Set the base URL to the URL that the server redirects to.",
        )

    def _unavailable(self, what: str) -> ProviderUnavailable:
        return ProviderUnavailable(f"{self._server.address} {what}.")

    def _not_an_api(self, found: str) -> JobRefused:
        return JobRefused(
            f"The address {self._server.shown_url!r} is not an API of a model server: it sent {found}.",
            remedy="Correct the base URL; those of OpenAI-compatible servers mostly end with /v1.",
        )


class _Stream(httpx2.AsyncByteStream):
    """A body that is generated while it is read; closing it closes the response that it is made from."""

    def __init__(self, pieces: AsyncGenerator[bytes], response: httpx2.Response) -> None:
        self._pieces = pieces
        self._response = response

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._pieces

    async def aclose(self) -> None:
        """Close both."""
        await self._pieces.aclose()
        await self._response.aclose()


def _stream(pieces: AsyncGenerator[bytes], response: httpx2.Response) -> httpx2.Response:
    headers = {"content-type": "text/event-stream"}
    return httpx2.Response(_OK, headers=headers, stream=_Stream(pieces, response), request=response.request)


def _without_refused(request: httpx2.Request, error: bytes) -> httpx2.Request | None:
    """Return a request without what the server's error names; None if that may not be left out."""
    body, text = json.loads(request.content), error.decode("utf-8", "replace").lower()
    if "stream_options" in text and "stream_options" in body:
        del body["stream_options"]
    elif "max_completion_tokens" in text and "max_tokens" in body:
        body["max_completion_tokens"] = body.pop("max_tokens")
    elif "max_tokens" in text and "max_completion_tokens" in body:
        body["max_tokens"] = body.pop("max_completion_tokens")
    elif "stream" in text and body.get("stream"):
        del body["stream"]
        body.pop("stream_options", None)
    else:
        return None
    headers = {name: value for name, value in request.headers.items() if name != "content-length"}
    return httpx2.Request(
        request.method, request.url, headers=headers, json=body, extensions=request.extensions
    )


async def _beginning(response: httpx2.Response) -> bytes:
    """Return the beginning of the body of an error, and close the response."""
    body = b""
    try:
        async for piece in response.aiter_bytes():
            body += piece
            if len(body) >= _ERROR_MAX_BYTES:
                break
    finally:
        await response.aclose()
    return body[:_ERROR_MAX_BYTES]


def _without_bom(body: bytes) -> bytes:
    return body.removeprefix(codecs.BOM_UTF8)


def _decoded(body: bytes | str) -> object:
    """Return the document in a body or an event, or its text."""
    try:
        return json.loads(body)
    except ValueError:
        return body if isinstance(body, str) else body.decode("utf-8", "replace")


def _encoded(event: dict[str, Any]) -> bytes:
    kind = event.get("type")
    name = f"event: {kind}\n" if isinstance(kind, str) else ""
    return f"{name}data: {json.dumps(event)}\n\n".encode()
