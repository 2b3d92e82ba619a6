"""The provider for every server that speaks the OpenAI chat completions protocol, streamed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Struct

from actors.context import current_job
from actors.llm.http_stream import HttpStream
from actors.llm.provider import AskRequest, ProviderUnavailable, Usage
from actors.llm.sse import EventParser
from ops.errors import JobRefused

OFFICIAL_BASE_URL = "https://api.openai.com/v1"
_ERROR_MAX_BYTES = 65_536
_ERROR_MAX_CHARS = 300
_WHOLE_MAX_BYTES = 8_388_608
#: 408: the server gave up waiting; 429: too many requests. Both pass by themselves, as every 5xx does.
_PASSING = frozenset({408, 429})
_KEY_LIKE = re.compile(r"\b(sk|pk|key)-[A-Za-z0-9_*-]{4,}")


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
    """

    name = "openai"

    def __init__(self, *, base_url: str, model: str, key: str, silence_s: float) -> None:
        self._base_url = base_url.rstrip("/")
        self._model = model
        self._key = key
        self._silence_s = silence_s

    def stream(self, request: AskRequest) -> Iterator[str | Usage]:
        """Answer; see ``Provider.stream``."""
        context = current_job()
        url = f"{self._base_url}/chat/completions"
        with (
            HttpStream(url, silence_s=self._silence_s) as http,
            context.on_interrupt(lambda _: http.abort()),
        ):
            try:
                http.post(self._body(request), self._headers())
                if http.status != 200:  # noqa: PLR2004 (a status reads best as itself)
                    raise self._failure(http)
                yield from self._answer(http, request)
            except ProviderUnavailable:
                # An abort looks like a lost connection: the job knows whether it was one.
                context.check_cancelled()
                raise

    def _headers(self) -> dict[str, str]:
        headers = {
            "Content-Type": "application/json",
            "Accept": "text/event-stream",
            "User-Agent": "cmd-bridge",
        }
        if self._key != "":
            if not (self._key.isascii() and self._key.isprintable()):
                raise JobRefused(
                    "the API key holds characters that no key has.",
                    remedy="Set it again, without line ends and typographic signs.",
                )
            headers["Authorization"] = f"Bearer {self._key}"
        return headers

    def _body(self, request: AskRequest) -> bytes:
        messages = [{"role": "user", "content": request.prompt}]
        if request.system is not None:
            messages.insert(0, {"role": "system", "content": request.system})
        body: dict[str, object] = {
            "model": self._model if request.model is None else request.model,
            "messages": messages,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if request.max_tokens is not None:
            # OpenAI's newer models refuse the old name, and other servers do not know the new one.
            official = self._base_url.startswith("https://api.openai.com/")
            body["max_completion_tokens" if official else "max_tokens"] = request.max_tokens
        return msgspec.json.encode(body)

    def _answer(self, http: HttpStream, request: AskRequest) -> Iterator[str | Usage]:
        tally = _Tally(self._model if request.model is None else request.model)
        if http.headers.get("content-type", "").startswith("application/json"):
            text = tally.take(self._chunk(http.read(_WHOLE_MAX_BYTES)))
            if text != "":
                yield text
            yield tally.usage()
            return
        parser = EventParser()
        for piece in http.pieces():
            for data in parser.feed(piece):
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
        try:
            chunk = msgspec.json.decode(data, type=_Chunk)
        except msgspec.MsgspecError as error:
            raise ProviderUnavailable(
                f"the server's answer is not in OpenAI's format: {error}.",
                remedy="Check that the base URL names an OpenAI-compatible server.",
            ) from error
        if chunk.error is not None:
            raise ProviderUnavailable(
                f"the server failed in the middle of its answer: {self._said(chunk.error)}"
            )
        return chunk

    def _failure(self, http: HttpStream) -> Exception:
        """Tell a failure that another provider may not have from one that is ours to correct."""
        status = http.status
        try:
            document = msgspec.json.decode(http.read(_ERROR_MAX_BYTES))
        except msgspec.MsgspecError:
            document = None
        detail = document.get("error", document) if isinstance(document, dict) else document
        message = f"{http.address} answered {status}: {self._said(detail)}"
        if status in _PASSING or status >= 500:  # noqa: PLR2004
            wait = http.headers.get("retry-after", "")
            if wait.isdecimal():
                message += f" It asks to wait for {wait} s."
            return ProviderUnavailable(message)
        remedies = {
            401: "Set the API key that belongs to this base URL, in OPENAI_API_KEY for instance.",
            403: "Use a key that may use this model.",
            404: "Check the model (--model) and the base URL, which ends in /v1 for most servers.",
        }
        if 300 <= status < 400:  # noqa: PLR2004
            remedy = "Set the base URL to the place that the server points to."
        else:
            remedy = remedies.get(status, "Correct the question or the model.")
        return JobRefused(message, remedy=remedy)

    def _said(self, detail: object) -> str:
        """Give the server's own words in one bounded line, without anything that looks like a key."""
        words = detail.get("message", detail.get("detail")) if isinstance(detail, dict) else detail
        text = " ".join(str(words).split()) if words is not None else "no reason given"
        if self._key != "":
            text = text.replace(self._key, "***")
        text = _KEY_LIKE.sub(r"\1-***", text)[:_ERROR_MAX_CHARS]
        return text if text.endswith((".", "!", "?")) else f"{text}."
