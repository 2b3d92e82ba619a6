"""What a provider of answers is, and the two ways in which one can fail."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, Protocol

from msgspec import Struct

from ops.errors import JobFailed


class Message(Struct, frozen=True):
    """One message of a conversation.

    Attributes:
        role: Who said it.
        content: What was said.
    """

    role: Literal["user", "assistant"]
    content: str


class AskRequest(Struct, frozen=True, kw_only=True):
    """One question, with what was said before it.

    Attributes:
        messages: The conversation, oldest first; the last one is the question and the user's.
        system: How to answer, for providers and models that know such a thing.
        model: Model to use, of the provider that is asked first; its own when None.
        max_tokens: Bound on the length of the answer.
        schema: JSON schema that the answer has to follow; it is then one JSON document. A provider asks its
            model for that as strictly as it can; whether the answer follows it is for the caller to check.
    """

    messages: Sequence[Message]
    system: str | None = None
    model: str | None = None
    max_tokens: int | None = None
    schema: dict[str, Any] | None = None


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

    @property
    def model(self) -> str:
        """The model that it asks when the request names none."""

    @property
    def free(self) -> bool:
        """Whether its answers cost nothing, so that no budget counts them."""

    @property
    def note(self) -> str:
        """What whoever reads its answers should know about them; empty for nothing."""

    @property
    def answer_max_tokens(self) -> int | None:
        """Its own bound on an answer for which the request names none; None: the one of ``[ask]``."""

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

    Parameters:
        retry_after_s: When it says to come back, in seconds from now; None if it does not say.
    """

    def __init__(self, message: str = "", *, remedy: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.retry_after_s = retry_after_s
