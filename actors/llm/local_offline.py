"""The provider for the offline model: no account, no network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from actors.context import current_job
from actors.llm.openai_http import OpenAIProvider
from actors.llm.provider import AskRequest, ProviderUnavailable, Usage
from ops.errors import StartFailed
from ops.local_model.client import ModelLease, model_name
from ops.settings.load import LoadedSettings

#: A model this small rambles at the engine's default temperature of 0.8.
_SAMPLING: dict[str, object] = {"temperature": 0.2, "top_p": 0.9, "repeat_penalty": 1.1}


class LocalProvider:
    """Asks the offline model of this host, which all workers share and which is started on demand.

    There is only one model: a model named by the request is ignored.

    Parameters:
        loaded: Settings.
        path: File with the weights.
    """

    name = "local"
    free = True

    def __init__(self, loaded: LoadedSettings, path: Path) -> None:
        self._loaded = loaded
        self.model = model_name(path)
        self.answer_max_tokens: int | None = loaded.settings.ask.local.max_tokens
        self.note = (
            f"answered by {self.model}, a small offline model on this host. For better answers, set"
            " OPENAI_API_KEY or ANTHROPIC_API_KEY in the environment of the workers, or see [ask] in"
            " '3ox config'."
        )

    def stream(self, request: AskRequest) -> Iterator[str | Usage]:
        """Answer; see ``Provider.stream``."""
        context = current_job()
        lease = ModelLease(self._loaded)
        with context.on_interrupt(lambda _: lease.abort()):
            try:
                endpoint = lease.open()
            except StartFailed as error:
                context.check_cancelled()
                raise ProviderUnavailable(error.message, remedy=error.remedy) from error
        try:
            context.log(f"3ox: {self.note}", stream="err")
            server = OpenAIProvider(
                base_url=endpoint.url,
                model=endpoint.model,
                key=endpoint.key,
                silence_s=self._loaded.settings.ask.local.timeout_s,
                name=self.name,
                free=True,
                extra=_SAMPLING,
            )
            limit = self.answer_max_tokens if request.max_tokens is None else request.max_tokens
            yield from server.stream(msgspec.structs.replace(request, model=None, max_tokens=limit))
        finally:
            lease.close()
