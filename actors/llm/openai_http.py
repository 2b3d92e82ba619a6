"""The provider for every server that speaks the OpenAI chat completions protocol, streamed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from actors.llm.http_exchange import ModelServer, decode, events, read_document
from actors.llm.http_stream import HttpStream
from actors.llm.provider import AskRequest, ProviderUnavailable, Usage
from actors.llm.strict_schema import strict_schema

OFFICIAL_BASE_URL = "https://api.openai.com/v1"


class _Delta(Struct):
    content: str | None = None


class _Message(Struct):
    content: str | None = None


class _Choice(Struct):
    delta: _Delta | None = None
    message: _Message | None = None
    finish_reason: str | None = None


class _Tokens(Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Chunk(Struct):
    """What we need of a ``chat.completion.chunk``, or of a whole ``chat.completion``; the rest is ignored."""

    model: str | None = None
    choices: list[_Choice] = []
    usage: _Tokens | None = None
    error: Any = None


class _Tally:
    """What the chunks of one answer have said about it so far."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.tokens = _Tokens()
        self.finish_reason: str | None = None

    def take(self, chunk: _Chunk) -> str:
        """Take a chunk and give the text in it."""
        if chunk.model:
            self.model = chunk.model
        if chunk.usage is not None:
            self.tokens = chunk.usage
        text = ""
        for choice in chunk.choices[:1]:
            part = choice.delta if choice.delta is not None else choice.message
            if part is not None and part.content is not None:
                text += part.content
            if choice.finish_reason is not None:
                self.finish_reason = choice.finish_reason
        return text

    def usage(self) -> Usage:
        return Usage(
            model=self.model,
            tokens_in=self.tokens.prompt_tokens,
            tokens_out=self.tokens.completion_tokens,
            finish_reason=self.finish_reason,
        )


class OpenAIProvider:
    """Asks an OpenAI-compatible server.

    Parameters:
        base_url: Up to and with ``/v1``.
        model: Used when the request names none.
        key: Sent as a bearer token; empty sends none, as local servers like it. Never in an error or log.
        silence_s: Bound on each wait for the server, in seconds.
        name: Of the provider.
        free: Its answers cost nothing.
        key_variable: Where the user sets the key, for remedies.
        extra: Sent with every request: fields of the body that this server knows.
    """

    note = ""
    answer_max_tokens: int | None = None

    def __init__(
        self,
        *,
        base_url: str,
        model: str,
        key: str,
        silence_s: float,
        name: str = "openai",
        free: bool = False,
        key_variable: str = "OPENAI_API_KEY",
        extra: Mapping[str, object] | None = None,
    ) -> None:
        self.name = name
        self.model = model
        self.free = free
        self._base_url = base_url.rstrip("/")
        self._extra = {} if extra is None else dict(extra)
        self._server = ModelServer(
            f"{self._base_url}/chat/completions", key=key, key_variable=key_variable, silence_s=silence_s
        )

    def stream(self, request: AskRequest) -> Iterator[str | Usage]:
        """Answer; see ``Provider.stream``."""
        key = self._server.key
        headers = {} if key == "" else {"Authorization": f"Bearer {key}"}
        with self._server.post(self._body(request), headers) as http:
            yield from self._answer(http, request)

    def _body(self, request: AskRequest) -> bytes:
        messages = [{"role": item.role, "content": item.content} for item in request.messages]
        if request.system is not None:
            messages.insert(0, {"role": "system", "content": request.system})
        body: dict[str, object] = {
            "model": self.model if request.model is None else request.model,
            "messages": messages,
            "stream": True,
            "stream_options": {"include_usage": True},
            **self._extra,
        }
        if request.max_tokens is not None:
            # OpenAI's newer models refuse the old name, and other servers do not know the new one.
            official = self._base_url.startswith("https://api.openai.com/")
            body["max_completion_tokens" if official else "max_tokens"] = request.max_tokens
        if request.schema is not None:
            schema = {"name": "answer", "strict": True, "schema": strict_schema(request.schema)}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return msgspec.json.encode(body)

    def _answer(self, http: HttpStream, request: AskRequest) -> Iterator[str | Usage]:
        tally = _Tally(self.model if request.model is None else request.model)
        whole = read_document(http)
        if whole is not None:
            text = tally.take(self._chunk(whole))
            if text != "":
                yield text
            yield tally.usage()
            return
        for data in events(http):
            if data == "[DONE]":
                yield tally.usage()
                return
            text = tally.take(self._chunk(data))
            if text != "":
                yield text
        if tally.finish_reason is None:
            raise ProviderUnavailable(f"{http.address} ended its answer in the middle.")
        yield tally.usage()

    def _chunk(self, data: str | bytes) -> _Chunk:
        remedy = "Check that the base URL names an OpenAI-compatible server."
        chunk = decode(data, _Chunk, whose="OpenAI's", remedy=remedy)
        if chunk.error is not None:
            raise ProviderUnavailable(
                f"the server failed in the middle of its answer: {self._server.said(chunk.error)}"
            )
        return chunk
