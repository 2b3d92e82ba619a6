"""The provider for every server that speaks the Anthropic messages protocol, streamed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from actors.llm.http_exchange import ModelServer, decode, events, read_document
from actors.llm.http_stream import HttpStream
from actors.llm.provider import AskRequest, ProviderUnavailable, Usage

OFFICIAL_BASE_URL = "https://api.anthropic.com"
#: The version of the protocol that is spoken here.
PROTOCOL = "2023-06-01"
#: Its words for why an answer ended, as everybody else says them.
_FINISH = {"end_turn": "stop", "stop_sequence": "stop", "tool_use": "stop", "max_tokens": "length"}
#: The model is made to call a tool of this name whose input is the document that is wanted.
_TOOL = "answer"


class _Tokens(Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None


class _Block(Struct):
    type: str = ""
    text: str | None = None
    input: Any = None


class _Message(Struct):
    """The message of a ``message_start``, or a whole answer."""

    model: str | None = None
    usage: _Tokens | None = None
    content: list[_Block] = []
    stop_reason: str | None = None


class _Delta(Struct):
    text: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None


class _Event(Struct):
    """What we need of an event of the stream; the rest is ignored."""

    type: str = ""
    message: _Message | None = None
    delta: _Delta | None = None
    usage: _Tokens | None = None
    error: Any = None


_Read = TypeVar("_Read", _Message, _Event)


class _Tally:
    """What the events of one answer have said about it so far."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._tokens_in: int | None = None
        self._tokens_out: int | None = None
        self._finish_reason: str | None = None

    def take(self, event: _Event) -> str:
        """Take an event and give the text in it."""
        if event.message is not None:
            self.take_message(event.message)
        if event.usage is not None:
            self._count(event.usage)
        if event.delta is None:
            return ""
        self._finish(event.delta.stop_reason)
        text = event.delta.text if event.delta.text is not None else event.delta.partial_json
        return "" if text is None else text

    def take_message(self, message: _Message) -> None:
        """Take what a message says about itself."""
        if message.model:
            self._model = message.model
        if message.usage is not None:
            self._count(message.usage)
        self._finish(message.stop_reason)

    def _count(self, tokens: _Tokens) -> None:
        parts = (tokens.input_tokens, tokens.cache_creation_input_tokens, tokens.cache_read_input_tokens)
        if any(part is not None for part in parts):
            self._tokens_in = sum(part for part in parts if part is not None)
        if tokens.output_tokens is not None:
            self._tokens_out = tokens.output_tokens

    def _finish(self, reason: str | None) -> None:
        if reason is not None:
            self._finish_reason = _FINISH.get(reason, reason)

    def usage(self) -> Usage:
        return Usage(
            model=self._model,
            tokens_in=self._tokens_in,
            tokens_out=self._tokens_out,
            finish_reason=self._finish_reason,
        )


class AnthropicProvider:
    """Asks a server that speaks Anthropic's protocol.

    Parameters:
        base_url: Without ``/v1``; with it is understood too.
        model: Used when the request names none.
        key: Sent as ``x-api-key``; empty sends none. Never in an error or log.
        silence_s: Bound on each wait for the server, in seconds.
        answer_max_tokens: The protocol demands a bound on every answer: this one when the request has none.
        key_variable: Where the user sets the key, for remedies.
    """

    name = "anthropic"
    free = False
    note = ""

    def __init__(
        self,
        *,
        base_url: str,
        model: str,
        key: str,
        silence_s: float,
        answer_max_tokens: int,
        key_variable: str = "ANTHROPIC_API_KEY",
    ) -> None:
        self.model = model
        self.answer_max_tokens: int | None = answer_max_tokens
        self._default_max_tokens = answer_max_tokens
        self._server = ModelServer(
            f"{base_url.rstrip('/').removesuffix('/v1')}/v1/messages",
            key=key,
            key_variable=key_variable,
            silence_s=silence_s,
        )

    def stream(self, request: AskRequest) -> Iterator[str | Usage]:
        """Answer; see ``Provider.stream``."""
        headers = {"anthropic-version": PROTOCOL}
        if self._server.key != "":
            headers["x-api-key"] = self._server.key
        with self._server.post(self._body(request), headers) as http:
            yield from self._answer(http, request)

    def _body(self, request: AskRequest) -> bytes:
        body: dict[str, object] = {
            "model": self.model if request.model is None else request.model,
            "max_tokens": self._default_max_tokens if request.max_tokens is None else request.max_tokens,
            "messages": [{"role": item.role, "content": item.content} for item in request.messages],
            "stream": True,
        }
        if request.system is not None:
            body["system"] = request.system
        if request.schema is not None:
            described = {"name": _TOOL, "description": "Give the answer.", "input_schema": request.schema}
            body["tools"] = [described]
            body["tool_choice"] = {"type": "tool", "name": _TOOL}
        return msgspec.json.encode(body)

    def _answer(self, http: HttpStream, request: AskRequest) -> Iterator[str | Usage]:
        tally = _Tally(self.model if request.model is None else request.model)
        whole = read_document(http)
        if whole is not None:
            message = _read(whole, _Message)
            tally.take_message(message)
            text = "".join(map(_text_of, message.content))
            if text != "":
                yield text
            yield tally.usage()
            return
        for data in events(http):
            event = _read(data, _Event)
            if event.type == "error":
                said = self._server.said(event.error)
                raise ProviderUnavailable(f"the server failed in the middle of its answer: {said}")
            text = tally.take(event)
            if text != "":
                yield text
            if event.type == "message_stop":
                yield tally.usage()
                return
        raise ProviderUnavailable(f"{http.address} ended its answer in the middle.")


def _read(data: str | bytes, kind: type[_Read]) -> _Read:
    remedy = "Check that the base URL names a server that speaks Anthropic's protocol."
    return decode(data, kind, whose="Anthropic's", remedy=remedy)


def _text_of(block: _Block) -> str:
    if block.type == "tool_use":
        return msgspec.json.encode(block.input).decode()
    return "" if block.text is None else block.text
