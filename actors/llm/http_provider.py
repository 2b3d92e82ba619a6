"""What the two HTTP providers share: send a request, stream the answer, collect its usage."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import ClassVar

from actors.llm.http_exchange import ModelServer, events, read_document
from actors.llm.http_stream import HttpStream
from actors.llm.provider import AskRequest, ProviderUnavailable, Usage


class UsageCollector:
    """Model, tokens and finish reason of one answer, collected while it is streamed.

    Args:
        model: The requested model; replaced by what the server reports.
    """

    def __init__(self, model: str) -> None:
        self.model = model
        self.tokens_in: int | None = None
        self.tokens_out: int | None = None
        self.finish_reason: str | None = None

    def update(
        self,
        *,
        model: str | None = None,
        tokens_in: int | None = None,
        tokens_out: int | None = None,
        finish_reason: str | None = None,
    ) -> None:
        """Set the values that a part of the answer reports; None reports nothing."""
        if model:
            self.model = model
        if tokens_in is not None:
            self.tokens_in = tokens_in
        if tokens_out is not None:
            self.tokens_out = tokens_out
        if finish_reason is not None:
            self.finish_reason = finish_reason

    def usage(self) -> Usage:
        """Return the usage collected so far."""
        return Usage(
            model=self.model,
            tokens_in=self.tokens_in,
            tokens_out=self.tokens_out,
            finish_reason=self.finish_reason,
        )


class HttpProvider(ABC):
    """Base of the providers that stream their answer as server-sent events.

    Parameters:
        server: The model server.
        model: Model to use when the request names none.
    """

    note = ""
    #: Whether a stream without an end marker is incomplete even if the server gave a finish reason.
    needs_end_marker: ClassVar[bool]

    def __init__(self, server: ModelServer, model: str) -> None:
        self.model = model
        self._server = server

    def stream(self, request: AskRequest) -> Iterator[str | Usage]:
        """Answer; see ``Provider.stream``."""
        usage = UsageCollector(self.model if request.model is None else request.model)
        with self._server.post(self._body(request), self._headers()) as http:
            yield from self._texts(http, usage)
        yield usage.usage()

    def _texts(self, http: HttpStream, usage: UsageCollector) -> Iterator[str]:
        """Yield the texts of the answer and collect its usage.

        Raises:
            ProviderUnavailable: The answer is incomplete.
        """
        document = read_document(http)
        if document is not None:
            text = self._document_text(document, usage)
            if text != "":
                yield text
            return
        for data in events(http):
            piece = self._event_text(data, usage)
            if piece is None:
                return
            if piece != "":
                yield piece
        if self.needs_end_marker or usage.finish_reason is None:
            raise ProviderUnavailable(f"{http.address} ended its answer in the middle.")

    @abstractmethod
    def _headers(self) -> Mapping[str, str]:
        """Return the request headers besides the usual ones."""

    @abstractmethod
    def _body(self, request: AskRequest) -> bytes:
        """Return the request body."""

    @abstractmethod
    def _document_text(self, data: bytes, usage: UsageCollector) -> str:
        """Return the text of an answer that is one document."""

    @abstractmethod
    def _event_text(self, data: str, usage: UsageCollector) -> str | None:
        """Return the text of one event, or None for the end marker."""
