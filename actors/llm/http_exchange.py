"""One request to a model server: errors, retry times, and the reading of its answer."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import TypeVar

import msgspec

from actors.context import current_job
from actors.llm.http_stream import HttpStream
from actors.llm.provider import ProviderUnavailable
from actors.llm.reset_time import reset_after_s
from actors.llm.sse import EventParser
from ops.errors import JobRefused

_DOCUMENT_MAX_BYTES = 8_388_608
_ERROR_MAX_BYTES = 65_536
_ERROR_MAX_CHARS = 300
_OK = 200
#: Request timeout and too many requests: transient, like every 5xx.
_TRANSIENT = frozenset({408, 429})
_KEY_LIKE = re.compile(r"\b(sk|pk|key)-[A-Za-z0-9_*-]{4,}")

T = TypeVar("T")


class ModelServer:
    """A model server.

    Parameters:
        url: URL of the requests.
        key: API key; empty for none. Never part of an error or log line.
        key_variable: Environment variable of the key, for remedies.
        silence_s: Read timeout, in seconds.
    """

    def __init__(self, url: str, *, key: str, key_variable: str, silence_s: float) -> None:
        self.key = key
        self._url = url
        self._key_variable = key_variable
        self._silence_s = silence_s

    @contextlib.contextmanager
    def post(self, body: bytes, headers: Mapping[str, str]) -> Iterator[HttpStream]:
        """Send a request and yield the exchange, to be read within the block; an interrupt aborts it.

        Args:
            body: JSON.
            headers: Headers besides those of every request.

        Raises:
            ProviderUnavailable: The server cannot be reached, times out, is overloaded or failed.
            JobRefused: The server rejects this request.
            JobInterrupted: The job was cancelled or ran out of time.
        """
        if not (self.key.isascii() and (self.key == "" or self.key.isprintable())):
            raise JobRefused(
                "The API key contains control or non-ASCII characters.",
                remedy=f"Set it again in {self._key_variable}, without line breaks.",
            )
        usual = {
            "Content-Type": "application/json",
            "Accept": "text/event-stream",
            "User-Agent": "cmd-bridge",
        }
        context = current_job()
        with (
            HttpStream(self._url, silence_s=self._silence_s) as http,
            context.on_interrupt(lambda _: http.abort()),
        ):
            try:
                http.post(body, {**usual, **headers})
                if http.status != _OK:
                    raise self._failure(http)
                yield http
            except ProviderUnavailable:
                # An abort looks like a lost connection; the job knows which it was.
                context.check_cancelled()
                raise

    def _failure(self, http: HttpStream) -> Exception:
        """Return the error for a response: transient, or a fault of the request or settings."""
        status = http.status
        try:
            document = msgspec.json.decode(http.read(_ERROR_MAX_BYTES))
        except msgspec.MsgspecError:
            document = None
        detail = document.get("error", document) if isinstance(document, dict) else document
        message = f"{http.address} answered {status}: {self.error_text(detail)}"
        if status in _TRANSIENT or status >= 500:  # noqa: PLR2004
            wait_s = reset_after_s(http.headers)
            if wait_s is not None:
                message += f" It asks to retry in {round(wait_s, 1):g} s."
            return ProviderUnavailable(message, retry_after_s=wait_s)
        remedies = {
            401: f"Set the API key that belongs to this base URL, for example in {self._key_variable}.",
            403: "Use a key with access to this model.",
            404: "Check the model (--model) and the base URL.",
        }
        if 300 <= status < 400:  # noqa: PLR2004
            remedy = "Set the base URL to the URL that the server redirects to."
        else:
            remedy = remedies.get(status, "Correct the prompt or the model.")
        return JobRefused(message, remedy=remedy)

    def error_text(self, detail: object) -> str:
        """Return the server's error message in one line of limited length, with keys masked."""
        message = detail.get("message", detail.get("detail")) if isinstance(detail, dict) else detail
        text = " ".join(str(message).split()) if message is not None else "no reason given"
        if self.key != "":
            text = text.replace(self.key, "***")
        text = _KEY_LIKE.sub(r"\1-***", text)[:_ERROR_MAX_CHARS]
        return text if text.endswith((".", "!", "?")) else f"{text}."


def read_document(http: HttpStream) -> bytes | None:
    """Return the body of an answer that is one document (at most 8 MiB), or None for a stream of events.

    Args:
        http: The exchange, after its headers were read.

    Raises:
        ProviderUnavailable: A timeout, or the connection was lost.
    """
    if not http.headers.get("content-type", "").startswith("application/json"):
        return None
    return http.read(_DOCUMENT_MAX_BYTES)


def events(http: HttpStream) -> Iterator[str]:
    """Yield the data of each event of a streamed answer.

    Args:
        http: The exchange, after its headers were read.

    Raises:
        ProviderUnavailable: A timeout, the connection was lost, or an event is too long.
    """
    parser = EventParser()
    for piece in http.pieces():
        yield from parser.feed(piece)


def decode(data: str | bytes, kind: type[T], *, protocol: str, remedy: str) -> T:
    """Decode a JSON document of the server.

    Args:
        data: JSON.
        kind: Its type.
        protocol: Name of the protocol for messages, such as ``OpenAI's``.
        remedy: Remedy if it does not match.

    Raises:
        ProviderUnavailable: The document does not match the type.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.MsgspecError as error:
        raise ProviderUnavailable(
            f"The server's answer is not in {protocol} format: {error}.", remedy=remedy
        ) from error
