"""A provider of answers: the words of the question in reverse order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from actors.llm.provider import AskRequest, Provider, Usage


class Reverse:
    """Answers questions.

    Args:
        greeting: What each answer begins with.
    """

    name = "reverse"
    model = "words"
    free = True
    note = ""
    answer_max_tokens = None

    def __init__(self, greeting: str) -> None:
        self._greeting = greeting

    def stream(self, request: AskRequest) -> Iterator[str | Usage]:
        """Answer word by word, and end with the usage."""
        words = request.messages[-1].content.split()
        yield self._greeting
        for word in reversed(words):
            yield f" {word}"
        yield Usage(model=self.model, tokens_in=len(words), tokens_out=len(words), finish_reason="stop")


def make(settings: Mapping[str, Any]) -> Provider:
    """Return the provider; it works without settings."""
    return Reverse(str(settings.get("greeting", "In reverse:")))
