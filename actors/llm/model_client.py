"""The HTTP client of the model library: it sees each request and answer and puts right what servers do.

The library is given this client instead of its own. Imported with the library, since it costs start-up
time; see ``model_library.py``.
"""

from __future__ import annotations

import asyncio
import codecs
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2

from actors.llm.model_documents import AnswerDocuments
from actors.llm.model_failure import error_text
from actors.llm.model_library import NO_KEY
from actors.llm.model_server import ModelServer
from actors.llm.provider import ProviderUnavailable
from ops.errors import BridgeError, JobRefused

#: Connect timeout: a running server accepts in milliseconds, and a fallback must still have time to answer.
CONNECT_TIMEOUT_S = 10.0
#: Longest wait for what follows the end of an answer: its usage, and the end of the stream.
_TRAILER_S = 5.0
_EVENT_MAX_BYTES = 1_048_576
_DOCUMENT_MAX_BYTES = 8_388_608
#: Largest stream, reasoning included.
_STREAM_MAX_BYTES = 67_108_864
_ERROR_MAX_BYTES = 65_536
#: How often a request is sent again without what the server refuses.
_CHANGES_MAX = 3
_OK = 200
_EVENT_STREAM = "text/event-stream"
_REFUSALS = frozenset({400, 422})


class ModelClient(httpx2.AsyncClient):
    """A client for the requests of one answer.

    Args:
        server: The server.
        documents: Reads the answer.
        transport: Sends the requests.
        timeout: Connect and read timeout.

    Attributes:
        problem: Why the last request failed, where this client found it; the library wraps it.
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
        self.problem: BridgeError | None = None

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """Send a request, without what the server refuses, and return its answer as a stream of events."""
        options.update(stream=True, follow_redirects=False)
        for name in ("authorization", "x-api-key"):
            if request.headers.get(name, "").endswith(NO_KEY):
                del request.headers[name]
        for _ in range(_CHANGES_MAX):
            response = await super().send(request, **options)
            if response.status_code == _OK:
                return await self._answer(response)
            body = await _read(response, _ERROR_MAX_BYTES)
            if response.is_redirect:
                raise self._failed(self._redirected(response, body))
            changed = _without_refused(request, body) if response.status_code in _REFUSALS else None
            if changed is None:
                break
            request = changed
        return httpx2.Response(
            response.status_code, headers=_plain(response.headers), content=body, request=request
        )

    async def _answer(self, response: httpx2.Response) -> httpx2.Response:
        """Return an answer as a stream of events, whatever the server says that it is."""
        pieces = response.aiter_bytes()
        head = b""
        async for piece in pieces:
            head += piece
            if _begin(head) != b"":
                break
        begin = _begin(head)
        if begin[:1] == b"<":
            await response.aclose()
            raise self._failed(not_an_api(response.request.url, "a web page"))
        stream = _Events(self, response, _joined(head, pieces), self._documents, found=begin != b"")
        if begin[:1] in (b"{", b"["):
            stream.events = self._events_of(response, await self._collect(head, pieces))
        headers = {"content-type": _EVENT_STREAM}
        return httpx2.Response(_OK, headers=headers, stream=stream, request=response.request)

    async def _collect(self, head: bytes, pieces: AsyncIterator[bytes]) -> bytes:
        body = bytearray(head)
        async for piece in pieces:
            body += piece
            if len(body) > _DOCUMENT_MAX_BYTES:
                raise self._failed(self.too_large("an answer", _DOCUMENT_MAX_BYTES))
        return bytes(body)

    def _events_of(self, response: httpx2.Response, body: bytes) -> list[dict[str, Any]]:
        """Return the events of an answer that came as one document."""
        url = response.request.url
        document = _decoded(body.removeprefix(codecs.BOM_UTF8))
        if isinstance(document, str):
            raise self._failed(
                ProviderUnavailable(f"{self._server.address} sent a document that is not JSON.")
            )
        if isinstance(document, list) and len(document) == 1:
            document = document[0]
        if not isinstance(document, dict):
            raise self._failed(not_an_api(url, "another document"))
        if self._documents.is_answer(document):
            return self._documents.events_of(document)
        error = document.get("error")
        if isinstance(error, str) and "endpoint" not in error.lower():
            error = {"message": error}
        if not isinstance(error, dict):
            raise self._failed(not_an_api(url, f"{body[:100].decode('utf-8', 'replace')!r}"))
        return [{**document, "error": error}]

    def _redirected(self, response: httpx2.Response, body: bytes) -> JobRefused:
        target = response.headers.get("location", "")
        said = f"it redirects to {target!r}." if target else error_text(_decoded(body), self._server.key)
        return JobRefused(
            f"{self._server.address} answered {response.status_code}: {said}",
            remedy="Set the base URL to the URL that the server redirects to.",
        )

    def _failed(self, error: BridgeError) -> BridgeError:
        self.problem = error
        return error

    def not_understood(self, data: str) -> BridgeError:
        """Return the error for an event that is not JSON."""
        return ProviderUnavailable(f"{self._server.address} sent an event that is not JSON: {data[:80]!r}.")

    def too_large(self, what: str, limit_bytes: int) -> BridgeError:
        """Return the error for what is larger than it may be."""
        return ProviderUnavailable(f"{self._server.address} sent {what} of more than {limit_bytes} bytes.")

    def ended_early(self, url: httpx2.URL, *, is_api: bool) -> BridgeError:
        """Return the error for an answer without an end, and keep it as the problem."""
        if is_api:
            return self._failed(
                ProviderUnavailable(f"{self._server.address} ended its answer in the middle.")
            )
        return self._failed(not_an_api(url, "a text without events"))


class _Events(httpx2.AsyncByteStream):
    """The answer as the library reads it: events that it understands, up to the end.

    Attributes:
        events: The events, if the answer was one document; None if they are to be read.
    """

    def __init__(
        self,
        client: ModelClient,
        response: httpx2.Response,
        pieces: AsyncIterator[bytes],
        documents: AnswerDocuments,
        *,
        found: bool,
    ) -> None:
        self._client = client
        self._response = response
        self._pieces = pieces
        self._documents = documents
        self._found = found
        self.events: list[dict[str, Any]] | None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the events."""
        if self.events is not None:
            for event in self.events:
                yield _encoded(event)
            return
        documents, known, broken = self._documents, False, ""
        async for data in self._data():
            if broken != "":
                raise self._client.not_understood(broken)
            known = True
            marker = documents.end_marker
            if marker != "" and data.startswith(marker):
                documents.ended = True
                return
            document = _decoded(data)
            if isinstance(document, dict):
                yield _encoded(documents.clean(document))
            elif isinstance(document, str):
                broken = data  # what comes next tells whether the stream was cut off here
        if not documents.ended:
            raise self._client.ended_early(self._response.request.url, is_api=known or not self._found)

    async def _data(self) -> AsyncIterator[str]:
        """Yield the data of each event; the stream may end or break off once the answer has ended."""
        source = httpx2.Response(
            _OK,
            headers={"content-type": _EVENT_STREAM},
            stream=_Pieces(self._client, self._pieces),
            request=self._response.request,
        )
        events = aiter(httpx2.EventSource(source, max_event_size=_EVENT_MAX_BYTES))
        while True:
            ended = self._documents.ended
            try:
                async with asyncio.timeout(_TRAILER_S if ended else None):
                    event = await anext(events)
            except StopAsyncIteration:
                return
            except httpx2.SSEError as error:
                raise self._client.too_large("an event", _EVENT_MAX_BYTES) from error
            except (httpx2.TransportError, TimeoutError):
                if ended:
                    return
                raise
            if event.data != "":
                yield event.data

    async def aclose(self) -> None:
        """Close the connection."""
        await self._response.aclose()


class _Pieces(httpx2.AsyncByteStream):
    """The bytes of a stream, bounded, with an empty line at the end so that its last event is complete."""

    def __init__(self, client: ModelClient, pieces: AsyncIterator[bytes]) -> None:
        self._client = client
        self._pieces = pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the bytes."""
        size_bytes = 0
        async for piece in self._pieces:
            size_bytes += len(piece)
            if size_bytes > _STREAM_MAX_BYTES:
                raise self._client.too_large("an answer", _STREAM_MAX_BYTES)
            yield piece
        yield b"\n\n"


def not_an_api(url: httpx2.URL, found: str) -> JobRefused:
    """Return the error for an address that has no model server's API.

    Args:
        url: The address that was asked.
        found: What it sent.
    """
    shown = url.copy_with(username=None, password=None, query=None)
    return JobRefused(
        f"The address {str(shown)!r} is not an API of a model server: it sent {found}.",
        remedy="Correct the base URL; those of OpenAI-compatible servers mostly end with /v1.",
    )


def _without_refused(request: httpx2.Request, error: bytes) -> httpx2.Request | None:
    """Return a request without what the server's error names; None if that may not be left out."""
    body, text = json.loads(request.content), error.decode("utf-8", "replace").lower()
    if "stream_options" in text and "stream_options" in body:
        del body["stream_options"]
    elif "max_completion_tokens" in text and "max_tokens" in text and "max_tokens" in body:
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


async def _read(response: httpx2.Response, limit_bytes: int) -> bytes:
    """Return the beginning of a body, and close the response."""
    body = b""
    try:
        async for piece in response.aiter_bytes():
            body += piece
            if len(body) >= limit_bytes:
                break
    finally:
        await response.aclose()
    return body[:limit_bytes]


async def _joined(head: bytes, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield head
    async for piece in pieces:
        yield piece


def _begin(head: bytes) -> bytes:
    return head.removeprefix(codecs.BOM_UTF8).lstrip()


def _decoded(body: bytes | str) -> object:
    """Return the document in a body or an event, or its text."""
    try:
        return json.loads(body)
    except ValueError:
        return body if isinstance(body, str) else body.decode("utf-8", "replace")


def _plain(headers: httpx2.Headers) -> dict[str, str]:
    """Return the headers of a body that has been decoded."""
    gone = ("content-encoding", "content-length", "transfer-encoding")
    return {name: value for name, value in headers.items() if name not in gone}


def _encoded(event: dict[str, Any]) -> bytes:
    kind = event.get("type")
    name = f"event: {kind}\n" if isinstance(kind, str) else ""
    return f"{name}data: {json.dumps(event)}\n\n".encode()
