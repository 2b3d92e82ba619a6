"""The provider for the offline model: no account, no network."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
from msgspec import Struct, field

from actors.context import current_job
from actors.llm.provider import AskRequest, ProviderUnavailable, Usage
from actors.llm.task_stream import Emit, stream_task
from ops.errors import JobRefused, StartFailed
from ops.local_model.client import ModelEndpoint, ModelLease, model_name
from ops.settings.load import LoadedSettings

#: A model this small rambles at the engine's default temperature of 0.8.
_SAMPLING: dict[str, object] = {"temperature": 0.2, "top_p": 0.9, "repeat_penalty": 1.1}


_ERROR_MAX_BYTES = 300
_SHORTER = "Ask a shorter question, or raise [ask.local] context_tokens."


class _Delta(Struct):
    content: str | None = None


class _Choice(Struct):
    delta: _Delta = field(default_factory=_Delta)
    finish_reason: str | None = None


class _Tokens(Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Chunk(Struct):
    """The fields that we use of the engine's chunks."""

    model: str | None = None
    choices: list[_Choice] = []
    usage: _Tokens | None = None


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
            limit = self.answer_max_tokens if request.max_tokens is None else request.max_tokens
            body = _body(endpoint.model, request, limit)
            silence_s = self._loaded.settings.ask.local.timeout_s
            yield from stream_task(lambda emit: _ask(endpoint, body, silence_s, emit), context)
        finally:
            lease.close()


def _body(model: str, request: AskRequest, max_tokens: int | None) -> dict[str, object]:
    """Return the body of a request, in OpenAI's protocol."""
    messages = [{"role": item.role, "content": item.content} for item in request.messages]
    if request.system is not None:
        messages.insert(0, {"role": "system", "content": request.system})
    body: dict[str, object] = {"model": model, "messages": messages, "stream": True, **_SAMPLING}
    body["stream_options"] = {"include_usage": True}
    if max_tokens is not None:
        body["max_tokens"] = max_tokens
    if request.schema is not None:
        schema = {"name": "answer", "strict": True, "schema": request.schema}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return body


async def _ask(endpoint: ModelEndpoint, body: dict[str, object], silence_s: float, emit: Emit) -> None:
    """Ask the engine, which is of a known version on this host: nothing but its own answers is understood.

    Raises:
        ProviderUnavailable: It stopped, or does not answer.
        JobRefused: It refuses the request, for instance one that is too long.
    """
    import httpx  # 0.1 s, for the first question only

    chunk, usage = _Chunk(), _Tokens()
    finish_reason = ""
    try:
        async with (
            httpx.AsyncClient(trust_env=False, timeout=silence_s) as client,
            client.stream(
                "POST",
                f"{endpoint.url}/chat/completions",
                json=body,
                headers={"Authorization": f"Bearer {endpoint.key}"},
            ) as response,
        ):
            if response.status_code != httpx.codes.OK:
                reason = (await response.aread())[:_ERROR_MAX_BYTES].decode("utf-8", "replace")
                raise JobRefused(f"The offline model refuses the request: {reason}", remedy=_SHORTER)
            async for line in _lines(response.aiter_bytes()):
                if not line.startswith(b"data: {"):
                    continue
                chunk = msgspec.json.decode(line.removeprefix(b"data: "), type=_Chunk)
                usage = usage if chunk.usage is None else chunk.usage
                for choice in chunk.choices:
                    finish_reason = choice.finish_reason or finish_reason
                    if choice.delta.content:
                        emit(choice.delta.content)
    except (httpx.HTTPError, msgspec.MsgspecError) as error:
        reason = str(error) or type(error).__name__
        raise ProviderUnavailable(
            f"The offline model stopped in the middle of its answer: {reason}."
        ) from error
    if not finish_reason:
        raise ProviderUnavailable("The offline model ended its answer in the middle.")
    emit(
        Usage(
            model=endpoint.model if chunk.model is None else chunk.model,
            tokens_in=usage.prompt_tokens,
            tokens_out=usage.completion_tokens,
            finish_reason=finish_reason,
        )
    )


async def _lines(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    rest = b""
    async for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line
