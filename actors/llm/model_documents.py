"""What servers send, in the form that the model library expects; one class for each protocol.

The library reads a stream of events and takes its end for the end of the answer. Servers send one document
instead of a stream, events that are ``null``, fields of wrong types, and streams that stop in the middle.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from actors.llm.provider import ProviderUnavailable


class AnswerDocuments(ABC):
    """Reads the documents of one answer.

    Attributes:
        ended: Whether the answer is complete.
    """

    #: Text of an event that ends the stream, besides those that are documents; empty for none.
    end_marker = ""

    def __init__(self) -> None:
        self.ended = False

    @abstractmethod
    def is_answer(self, document: dict[str, Any]) -> bool:
        """Return whether a document is a whole answer."""

    @abstractmethod
    def events_of(self, answer: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the events of an answer that came as one document."""

    @abstractmethod
    def clean(self, event: dict[str, Any]) -> dict[str, Any]:
        """Return an event without what the library cannot read, and note whether the answer ends with it.

        Raises:
            ProviderUnavailable: The server reports that it failed.
        """


class ChatDocuments(AnswerDocuments):
    """The chat completions of OpenAI and of all servers that are compatible with it."""

    end_marker = "[DONE]"

    def is_answer(self, document: dict[str, Any]) -> bool:
        """Return whether a document has choices."""
        return isinstance(document.get("choices"), list)

    def events_of(self, answer: dict[str, Any]) -> list[dict[str, Any]]:
        """Return one chunk with the whole message as its delta; what came complete has ended."""
        self.ended = True
        choices = [_as_delta(choice) for choice in answer["choices"] if isinstance(choice, dict)]
        return [self.clean({**answer, "object": "chat.completion.chunk", "choices": choices})]

    def clean(self, event: dict[str, Any]) -> dict[str, Any]:
        """Return a chunk without an unreadable usage or model name."""
        for choice in _dicts(event.get("choices")):
            reason = choice.get("finish_reason")
            if reason == "error":
                raise ProviderUnavailable(
                    "The server failed in the middle of its answer (finish_reason: error)."
                )
            self.ended = self.ended or bool(reason)
        usage = event.get("usage")
        if usage is not None and not _has_counts(usage, "prompt_tokens", "completion_tokens"):
            event = {name: value for name, value in event.items() if name != "usage"}
        if not isinstance(event.get("model", ""), str):
            event = {name: value for name, value in event.items() if name != "model"}
        return event


class MessageDocuments(AnswerDocuments):
    """The messages of Anthropic and of servers that are compatible with it."""

    def is_answer(self, document: dict[str, Any]) -> bool:
        """Return whether a document is a message."""
        return isinstance(document.get("content"), list)

    def events_of(self, answer: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the events that a server sends for such a message."""
        usage = answer.get("usage")
        events: list[dict[str, Any]] = [
            {"type": "message_start", "message": {**answer, "content": [], "stop_reason": None}}
        ]
        for index, block in enumerate(_dicts(answer["content"])):
            events.append({"type": "content_block_start", "index": index, "content_block": block})
            events.append({"type": "content_block_stop", "index": index})
        end = {"stop_reason": answer.get("stop_reason"), "stop_sequence": answer.get("stop_sequence")}
        events.append({"type": "message_delta", "delta": end, "usage": {} if usage is None else usage})
        events.append({"type": "message_stop"})
        return [self.clean(event) for event in events]

    def clean(self, event: dict[str, Any]) -> dict[str, Any]:
        """Return an event with a usage, which the library requires at the end."""
        kind = event.get("type")
        self.ended = self.ended or kind == "message_stop"
        if kind == "message_delta" and not isinstance(event.get("usage"), dict):
            return {**event, "usage": {"output_tokens": 0}}
        return event


def _as_delta(choice: dict[str, Any]) -> dict[str, Any]:
    message = choice.get("message")
    delta = dict(message) if isinstance(message, dict) else {}
    for index, call in enumerate(_dicts(delta.get("tool_calls"))):
        call.setdefault("index", index)
    return {**choice, "delta": delta}


def _dicts(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _has_counts(usage: object, *names: str) -> bool:
    return isinstance(usage, dict) and all(
        value is None or type(value) is int for value in (usage.get(name) for name in names)
    )
