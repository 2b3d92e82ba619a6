"""The provider for model servers and services: the model library asks them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import msgspec

from actors.context import current_job
from actors.llm.model_library import load_library, needed_protocols, require_library
from actors.llm.model_server import ModelServer
from actors.llm.provider import AskRequest, Usage
from actors.llm.task_stream import stream_task
from ops.logs import get_logger
from ops.settings.ask import AskSettings
from ops.settings.model_services import Protocol

log = get_logger(__name__)


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

    def require_usable(self) -> None:
        """Check the packages, the base URL and the key.

        Raises:
            JobRefused: One of them is missing or cannot be used.
        """
        self.server.require_usable()
        require_library(self.server.protocol, self.name)

    def stream(self, request: AskRequest) -> Iterator[str | Usage]:
        """Answer; see ``Provider.stream``."""
        self.require_usable()
        load_library(self.server.protocol)
        from actors.llm.model_exchange import ask_model

        if request.max_tokens is None and self.answer_max_tokens is not None:
            request = msgspec.structs.replace(request, max_tokens=self.answer_max_tokens)
        model = self.model if request.model is None else request.model
        yield from stream_task(lambda emit: ask_model(self.server, model, request, emit), current_job())


def warm_providers(ask: AskSettings) -> None:
    """Import the library in the background for the services that are configured, so that no question waits.

    Args:
        ask: Settings.
    """
    protocols = needed_protocols(ask)
    if protocols:
        threading.Thread(target=_warm, args=(protocols,), name="library", daemon=True).start()


def _warm(protocols: Sequence[Protocol]) -> None:
    try:
        for protocol in protocols:
            load_library(protocol)
        import actors.llm.model_exchange  # noqa: F401
    except Exception:
        # The first question meets the same error and reports it to its user.
        log.exception("ask.library_not_loaded", protocols=protocols)
