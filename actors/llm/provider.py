"""What a provider of answers is, and the two ways in which one can fail."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from msgspec import Struct

from ops.errors import JobFailed


class AskRequest(Struct, frozen=True, kw_only=True):
    """One question.

    Attributes:
        prompt: The user's text.
        system: How to answer, for providers and models that know such a thing.
        model: Model to use; the provider's own when None.
        max_tokens: Bound on the length of the answer.
    """

    prompt: str
    system: str | None = None
    model: str | None = None
    max_tokens: int | None = None


class Usage(Struct, frozen=True, kw_only=True):
    """What an answer took, as far as the provider says.

    Attributes:
        model: The model that answered, by the provider's own account where it gives one.
        tokens_in: Length of the question.
        tokens_out: Length of the answer.
        finish_reason: Why the answer ended: ``stop``, ``length``, ...
    """

    model: str
    tokens_in: int | None = None
    tokens_out: int | None = None
    finish_reason: str | None = None


class Provider(Protocol):
    """Answers questions."""

    @property
    def name(self) -> str:
        """What ``--provider`` and ``[ask] providers`` call it."""

    def stream(self, request: AskRequest) -> Iterator[str | Usage]:
        """Answer, piece by piece, and end with the usage.

        Args:
            request: The question.

        Yields:
            Pieces of text as they come, and one ``Usage`` as the last item.

        Raises:
            ProviderUnavailable: Nothing wrong with the question; another provider may answer it.
            JobRefused: The question or the configuration is at fault; no other provider is asked.
            JobInterrupted: The job has been cancelled or has run out of time.
        """


class ProviderUnavailable(JobFailed):
    """The provider cannot be reached, is silent, is overloaded or has failed by itself.

    The only failure on which the next provider is asked.
    """
