"""The provider for servers with the OpenAI chat completions protocol, streamed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from actors.llm.http_exchange import ModelServer, decode
from actors.llm.http_provider import HttpProvider, UsageCollector
from actors.llm.provider import AskRequest, ProviderUnavailable
from actors.llm.strict_schema import strict_schema

OFFICIAL_BASE_URL = "https://api.openai.com/v1"
_END_MARKER = "[DONE]"


class _ChatMessage(Struct):
    content: str | None = None


class _Choice(Struct):
    delta: _ChatMessage | None = None
    message: _ChatMessage | None = None
    finish_reason: str | None = None


class _CompletionUsage(Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Completion(Struct):
    """The fields that we use of a ``chat.completion`` or ``chat.completion.chunk``."""

    model: str | None = None
    choices: list[_Choice] = []
    usage: _CompletionUsage | None = None
    error: Any = None


class OpenAIProvider(HttpProvider):
    """Asks an OpenAI-compatible server.

    Parameters:
        base_url: Base URL including ``/v1``.
        model: Model to use when the request names none.
        key: API key, sent as a bearer token; empty sends none, for local servers. Never logged.
        silence_s: Read timeout, in seconds.
        name: Name of the provider.
        free: Whether its answers cost nothing.
        key_variable: Environment variable of the key, for remedies.
        extra: Additional fields of each request body.
    """

    answer_max_tokens: int | None = None
    needs_end_marker = False

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
        self._base_url = base_url.rstrip("/")
        url = f"{self._base_url}/chat/completions"
        super().__init__(ModelServer(url, key=key, key_variable=key_variable, silence_s=silence_s), model)
        self.name = name
        self.free = free
        self._extra = {} if extra is None else dict(extra)

    def _headers(self) -> Mapping[str, str]:
        key = self._server.key
        return {} if key == "" else {"Authorization": f"Bearer {key}"}

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
            # OpenAI's newer models reject the old name, and other servers do not know the new one.
            official = self._base_url.startswith("https://api.openai.com/")
            body["max_completion_tokens" if official else "max_tokens"] = request.max_tokens
        if request.schema is not None:
            schema = {"name": "answer", "strict": True, "schema": strict_schema(request.schema)}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return msgspec.json.encode(body)

    def _document_text(self, data: bytes, usage: UsageCollector) -> str:
        return self._completion_text(data, usage)

    def _event_text(self, data: str, usage: UsageCollector) -> str | None:
        return None if data == _END_MARKER else self._completion_text(data, usage)

    def _completion_text(self, data: str | bytes, usage: UsageCollector) -> str:
        remedy = "Check that the base URL belongs to an OpenAI-compatible server."
        completion = decode(data, _Completion, protocol="OpenAI's", remedy=remedy)
        if completion.error is not None:
            reason = self._server.error_text(completion.error)
            raise ProviderUnavailable(f"The server failed in the middle of its answer: {reason}")
        tokens = _CompletionUsage() if completion.usage is None else completion.usage
        usage.update(
            model=completion.model, tokens_in=tokens.prompt_tokens, tokens_out=tokens.completion_tokens
        )
        if not completion.choices:
            return ""
        choice = completion.choices[0]
        usage.update(finish_reason=choice.finish_reason)
        message = choice.message if choice.delta is None else choice.delta
        return "" if message is None or message.content is None else message.content
