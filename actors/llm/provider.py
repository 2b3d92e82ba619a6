"""The interface of LLM providers, and the error on which the next one is tried."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, Protocol

from msgspec import Struct

from ops.errors import JobFailed


class Message(Struct, frozen=True):
    """One message of a conversation.

    Attributes:
        role: Its author.
        content: Its text.
    """

    role: Literal["user", "assistant"]
    content: str


class AskRequest(Struct, frozen=True, kw_only=True):
    """A prompt with its conversation.

    Attributes:
        messages: The conversation, oldest first; the last message is the user's prompt.
        system: System prompt.
        model: Model of the first provider; its default when None.
        max_tokens: Maximum length of the answer, in tokens.
        schema: JSON schema of the answer, which is then one JSON document. The provider requests it as
            strictly as its protocol allows; the caller must check the answer.
    """

    messages: Sequence[Message]
    system: str | None = None
    model: str | None = None
    max_tokens: int | None = None
    schema: dict[str, Any] | None = None


class Usage(Struct, frozen=True, kw_only=True):
    """Usage of an answer, as reported by the provider.

    Attributes:
        model: The model that answered.
        tokens_in: Input tokens; None if not reported.
        tokens_out: Output tokens; None if not reported.
        finish_reason: Why the answer ended: ``stop``, ``length``, ...
    """

    model: str
    tokens_in: int | None = None
    tokens_out: int | None = None
    finish_reason: str | None = None


class Provider(Protocol):
    """An LLM provider."""

    @property
    def name(self) -> str:
        """Its name in ``--provider`` and ``[ask] providers``."""

    @property
    def model(self) -> str:
        """Model to use when the request names none."""

    @property
    def free(self) -> bool:
        """Whether its answers cost nothing and are not counted in budgets."""

    @property
    def note(self) -> str:
        """Hint for readers of its answers; empty for none."""

    @property
    def answer_max_tokens(self) -> int | None:
        """Length limit of answers for requests without one; None uses that of ``[ask]``."""

    def stream(self, request: AskRequest) -> Iterator[str | Usage]:
        """Answer a request.

        Args:
            request: The request.

        Yields:
            Pieces of text as they arrive, and one ``Usage`` as the last item.

        Raises:
            ProviderUnavailable: The provider is at fault; another one may answer.
            JobRefused: The request or the settings are at fault; no other provider is tried.
            JobInterrupted: The job was cancelled or ran out of time.
        """


class ProviderUnavailable(JobFailed):
    """The provider cannot be reached, timed out, is overloaded or failed.

    The only error on which the next provider is tried.

    Parameters:
        retry_after_s: Time until a retry that the provider named, in seconds; None if it named none.
        usage: What the failed answer has used, as reported by the provider; None if it reported none.
    """

    def __init__(
        self,
        message: str = "",
        *,
        remedy: str = "",
        retry_after_s: float | None = None,
        usage: Usage | None = None,
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.retry_after_s = retry_after_s
        self.usage = usage
