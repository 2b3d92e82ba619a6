"""The provider for servers with the Anthropic messages protocol, streamed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from actors.llm.http_exchange import ModelServer, decode
from actors.llm.http_provider import HttpProvider, UsageCollector
from actors.llm.provider import AskRequest, ProviderUnavailable

OFFICIAL_BASE_URL = "https://api.anthropic.com"
#: Version of the protocol.
PROTOCOL = "2023-06-01"
#: Anthropic's stop reasons -> the finish reasons of OpenAI, which the result uses.
_FINISH_REASONS = {"end_turn": "stop", "stop_sequence": "stop", "tool_use": "stop", "max_tokens": "length"}
#: For a structured answer, the model is made to call a tool of this name with the document as its input.
_TOOL = "answer"


class _MessageUsage(Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None


class _Block(Struct):
    type: str = ""
    text: str | None = None
    input: Any = None


class _AnswerMessage(Struct):
    """The message of a ``message_start`` event, or a whole answer."""

    model: str | None = None
    usage: _MessageUsage | None = None
    content: list[_Block] = []
    stop_reason: str | None = None


class _EventDelta(Struct):
    text: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None


class _Event(Struct):
    """The fields that we use of an event."""

    type: str = ""
    message: _AnswerMessage | None = None
    delta: _EventDelta | None = None
    usage: _MessageUsage | None = None
    error: Any = None


_Document = TypeVar("_Document", _AnswerMessage, _Event)


class AnthropicProvider(HttpProvider):
    """Asks a server with Anthropic's protocol.

    Parameters:
        base_url: Base URL, with or without ``/v1``.
        model: Model to use when the request names none.
        key: API key, sent as ``x-api-key``; empty sends none. Never logged.
        silence_s: Read timeout, in seconds.
        answer_max_tokens: Length limit of an answer for requests without one; the protocol requires a limit.
        key_variable: Environment variable of the key, for remedies.
    """

    name = "anthropic"
    free = False
    needs_end_marker = True

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
        url = f"{base_url.rstrip('/').removesuffix('/v1')}/v1/messages"
        super().__init__(ModelServer(url, key=key, key_variable=key_variable, silence_s=silence_s), model)
        self.answer_max_tokens: int | None = answer_max_tokens
        self._default_max_tokens = answer_max_tokens

    def _headers(self) -> Mapping[str, str]:
        headers = {"anthropic-version": PROTOCOL}
        if self._server.key != "":
            headers["x-api-key"] = self._server.key
        return headers

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
            tool = {"name": _TOOL, "description": "The answer.", "input_schema": request.schema}
            body["tools"] = [tool]
            body["tool_choice"] = {"type": "tool", "name": _TOOL}
        return msgspec.json.encode(body)

    def _document_text(self, data: bytes, usage: UsageCollector) -> str:
        message = _decode(data, _AnswerMessage)
        _collect(message, usage)
        return "".join(map(_block_text, message.content))

    def _event_text(self, data: str, usage: UsageCollector) -> str | None:
        event = _decode(data, _Event)
        if event.type == "error":
            reason = self._server.error_text(event.error)
            raise ProviderUnavailable(f"The server failed in the middle of its answer: {reason}")
        if event.message is not None:
            _collect(event.message, usage)
        if event.usage is not None:
            _collect_tokens(event.usage, usage)
        text: str | None = None
        if event.delta is not None:
            _collect_finish(event.delta.stop_reason, usage)
            text = event.delta.partial_json if event.delta.text is None else event.delta.text
        if event.type == "message_stop":
            return None
        return "" if text is None else text


def _decode(data: str | bytes, kind: type[_Document]) -> _Document:
    remedy = "Check that the base URL belongs to a server with Anthropic's protocol."
    return decode(data, kind, protocol="Anthropic's", remedy=remedy)


def _collect(message: _AnswerMessage, usage: UsageCollector) -> None:
    usage.update(model=message.model)
    if message.usage is not None:
        _collect_tokens(message.usage, usage)
    _collect_finish(message.stop_reason, usage)


def _collect_tokens(tokens: _MessageUsage, usage: UsageCollector) -> None:
    parts = (tokens.input_tokens, tokens.cache_creation_input_tokens, tokens.cache_read_input_tokens)
    known = [part for part in parts if part is not None]
    usage.update(tokens_in=sum(known) if known else None, tokens_out=tokens.output_tokens)


def _collect_finish(reason: str | None, usage: UsageCollector) -> None:
    if reason is not None:
        usage.update(finish_reason=_FINISH_REASONS.get(reason, reason))


def _block_text(block: _Block) -> str:
    if block.type == "tool_use":
        return msgspec.json.encode(block.input).decode()
    return "" if block.text is None else block.text
