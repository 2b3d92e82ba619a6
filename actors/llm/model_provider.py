"""The provider for model servers and services: the model library asks them."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from actors.context import current_job
from actors.llm.model_library import require_library
from actors.llm.model_server import ModelServer
from actors.llm.provider import AskRequest, Usage
from actors.llm.task_stream import stream_task


class ModelProvider:
    """Asks a model server.

    Parameters:
        server: The server.
        name: Name of the provider.
        model: Model to use when the request names none.
        free: Whether its answers cost nothing.
        answer_max_tokens: Length limit of answers for requests without one; None uses that of ``[ask]``.
    """

    note = ""

    def __init__(
        self,
        server: ModelServer,
        *,
        name: str,
        model: str,
        free: bool = False,
        answer_max_tokens: int | None = None,
    ) -> None:
        self.name = name
        self.model = model
        self.free = free
        self.answer_max_tokens = answer_max_tokens
        self.server = server

    def stream(self, request: AskRequest) -> Iterator[str | Usage]:
        """Answer; see ``Provider.stream``."""
        self.server.require_usable()
        require_library(self.server.protocol, self.name)
        from actors.llm.model_exchange import ask_model

        if request.max_tokens is None and self.answer_max_tokens is not None:
            request = msgspec.structs.replace(request, max_tokens=self.answer_max_tokens)
        model = self.model if request.model is None else request.model
        yield from stream_task(lambda emit: ask_model(self.server, model, request, emit), current_job())
