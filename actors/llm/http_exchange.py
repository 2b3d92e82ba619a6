"""One streamed request to a model server: what all HTTP providers share, whatever protocol they speak."""

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

_WHOLE_MAX_BYTES = 8_388_608
_ERROR_MAX_BYTES = 65_536
_ERROR_MAX_CHARS = 300
_OK = 200
#: 408: the server gave up waiting; 429: too many requests. Both pass by themselves, as every 5xx does.
_PASSING = frozenset({408, 429})
_KEY_LIKE = re.compile(r"\b(sk|pk|key)-[A-Za-z0-9_*-]{4,}")

T = TypeVar("T")


class ModelServer:
    """A model server as a provider addresses it.

    Parameters:
        url: Where requests go.
        key: Its API key, empty for none. Never in an error or log.
        key_variable: Where the user sets the key, for remedies.
        silence_s: Bound on each wait for the server, in seconds.
    """

    def __init__(self, url: str, *, key: str, key_variable: str, silence_s: float) -> None:
        self.key = key
        self._url = url
        self._key_variable = key_variable
        self._silence_s = silence_s

    @contextlib.contextmanager
    def post(self, body: bytes, headers: Mapping[str, str]) -> Iterator[HttpStream]:
        """Send a request and give its answer, to be read within the block; an interrupt breaks it off.

        Args:
            body: JSON.
            headers: Beside those that every request has.

        Raises:
            ProviderUnavailable: The server cannot be reached, is silent, overloaded or has failed.
            JobRefused: The server does not take this request.
            JobInterrupted: The job has been cancelled or has run out of time.
        """
        if not (self.key.isascii() and (self.key == "" or self.key.isprintable())):
            raise JobRefused(
                "the API key holds characters that no key has.",
                remedy="Set it again, without line ends and typographic signs.",
            )
        every = {
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
                http.post(body, {**every, **headers})
                if http.status != _OK:
                    raise self._failure(http)
                yield http
            except ProviderUnavailable:
                # An abort looks like a lost connection: the job knows whether it was one.
                context.check_cancelled()
                raise

    def _failure(self, http: HttpStream) -> Exception:
        """Tell a failure that another provider may not have from one that is ours to correct."""
        status = http.status
        try:
            document = msgspec.json.decode(http.read(_ERROR_MAX_BYTES))
        except msgspec.MsgspecError:
            document = None
        detail = document.get("error", document) if isinstance(document, dict) else document
        message = f"{http.address} answered {status}: {self.said(detail)}"
        if status in _PASSING or status >= 500:  # noqa: PLR2004
            wait_s = reset_after_s(http.headers)
            if wait_s is not None:
                message += f" It asks to wait for {wait_s:.3g} s."
            return ProviderUnavailable(message, retry_after_s=wait_s)
        remedies = {
            401: f"Set the API key that belongs to this base URL, in {self._key_variable} for instance.",
            403: "Use a key that may use this model.",
            404: "Check the model (--model) and the base URL.",
        }
        if 300 <= status < 400:  # noqa: PLR2004
            remedy = "Set the base URL to the place that the server points to."
        else:
            remedy = remedies.get(status, "Correct the question or the model.")
        return JobRefused(message, remedy=remedy)

    def said(self, detail: object) -> str:
        """Give the server's own words in one bounded line, without anything that looks like a key."""
        words = detail.get("message", detail.get("detail")) if isinstance(detail, dict) else detail
        text = " ".join(str(words).split()) if words is not None else "no reason given"
        if self.key != "":
            text = text.replace(self.key, "***")
        text = _KEY_LIKE.sub(r"\1-***", text)[:_ERROR_MAX_CHARS]
        return text if text.endswith((".", "!", "?")) else f"{text}."


def read_document(http: HttpStream) -> bytes | None:
    """Give the body of an answer that is one document, bounded; None if it comes as a stream of events.

    Args:
        http: The exchange, its headers read.

    Raises:
        ProviderUnavailable: Silence, or the connection was lost.
    """
    if not http.headers.get("content-type", "").startswith("application/json"):
        return None
    return http.read(_WHOLE_MAX_BYTES)


def events(http: HttpStream) -> Iterator[str]:
    """Give the data of each event of a streamed answer, as it comes.

    Args:
        http: The exchange, its headers read.

    Raises:
        ProviderUnavailable: Silence, the connection was lost, or an event without end.
    """
    parser = EventParser()
    for piece in http.pieces():
        yield from parser.feed(piece)


def decode(data: str | bytes, kind: type[T], *, whose: str, remedy: str) -> T:
    """Read a document of the server.

    Args:
        data: JSON.
        kind: What it has to be.
        whose: Whose format that is.
        remedy: What to check if it is not in that format.

    Raises:
        ProviderUnavailable: It is something else.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.MsgspecError as error:
        raise ProviderUnavailable(
            f"the server's answer is not in {whose} format: {error}.", remedy=remedy
        ) from error
