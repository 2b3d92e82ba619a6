"""One question to a model through the model library, streamed.

Imported with the library, which costs start-up time; see ``model_library.py``.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx2
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    ModelResponseStreamEvent,
    PartDeltaEvent,
    PartStartEvent,
    SystemPromptPart,
    TextPart,
    TextPartDelta,
    ThinkingPart,
    ToolCallPart,
    ToolCallPartDelta,
    UserPromptPart,
)
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.output import OutputObjectDefinition
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import ToolDefinition

from actors.llm.model_client import CONNECT_TIMEOUT_S, ModelClient
from actors.llm.model_documents import AnswerDocuments, ChatDocuments, MessageDocuments
from actors.llm.model_failure import error_text, failure_of
from actors.llm.model_library import make_model
from actors.llm.model_server import ModelServer
from actors.llm.provider import AskRequest, ProviderUnavailable, Usage
from actors.llm.task_stream import Emit
from ops.errors import JobRefused, SettingsError
from ops.http.environment import http_environment, shared_ssl_context
from ops.settings.model_services import Protocol

#: Protocols whose answers our HTTP client reads before the library does.
_DOCUMENTS: dict[Protocol, type[AnswerDocuments]] = {
    "openai": ChatDocuments,
    "openrouter": ChatDocuments,
    "anthropic": MessageDocuments,
}
#: For a structured answer, the model is made to call a tool of this name, unless it takes a schema.
_ANSWER = "answer"


async def ask_model(server: ModelServer, model: str, request: AskRequest, emit: Emit) -> None:
    """Ask a model, and pass on each piece of its answer and, at the end, its usage.

    Args:
        server: The server.
        model: Name of the model.
        request: The request.
        emit: Takes the pieces.

    Raises:
        ProviderUnavailable: The server is at fault, or the answer is empty; another one may answer.
        JobRefused: The request or the settings are at fault.
    """
    async with _http_client(server) as client:
        try:
            made = make_model(server, model, client)
            stream = made.request_stream(
                _messages(request), _settings(request), _parameters(made, server, request)
            )
            async with stream as events:
                async for event in events:
                    piece = _piece(event)
                    if piece != "":
                        emit(piece)
            response = events.get()
        except Exception as error:
            raise failure_of(error, server) from error
    usage = _usage(response, model)
    _require_answer(response, server, usage, checked=server.protocol in _DOCUMENTS)
    emit(usage)


@contextlib.asynccontextmanager
async def _http_client(server: ModelServer) -> AsyncIterator[httpx2.AsyncClient]:
    """Yield a client with the proxies and certificates of the environment.

    Raises:
        JobRefused: A variable of the environment is not valid.
    """
    try:
        environment = http_environment()
    except SettingsError as error:
        raise JobRefused(error.message, remedy=error.remedy) from error
    context = shared_ssl_context(environment.ca_file, environment.ca_dir)
    through, proxy = None, server.proxy(environment)
    if proxy is not None:
        secure = proxy.url.startswith("https:")
        through = httpx2.Proxy(proxy.url, ssl_context=context if secure else None)
    transport = httpx2.AsyncHTTPTransport(verify=context, proxy=through)
    timeout = httpx2.Timeout(server.silence_s, connect=min(CONNECT_TIMEOUT_S, server.silence_s))
    documents = _DOCUMENTS.get(server.protocol)
    client = (
        httpx2.AsyncClient(transport=transport, timeout=timeout)
        if documents is None
        else ModelClient(server, documents(), transport=transport, timeout=timeout)
    )
    async with client:
        yield client


def _messages(request: AskRequest) -> list[ModelMessage]:
    messages: list[ModelMessage] = []
    system = [] if request.system is None else [SystemPromptPart(request.system)]
    for message in request.messages:
        if message.role == "user":
            messages.append(ModelRequest(parts=[*system, UserPromptPart(message.content)]))
        else:
            if system:
                messages.append(ModelRequest(parts=system))
            messages.append(ModelResponse(parts=[TextPart(message.content)]))
        system = []
    return messages


def _settings(request: AskRequest) -> ModelSettings:
    return ModelSettings() if request.max_tokens is None else ModelSettings(max_tokens=request.max_tokens)


def _parameters(model: Model, server: ModelServer, request: AskRequest) -> ModelRequestParameters:
    if request.schema is None:
        return ModelRequestParameters()
    takes_schema = model.profile.get("supports_json_schema_output", False)
    if server.protocol in ("openai", "openrouter") and takes_schema:
        schema = OutputObjectDefinition(json_schema=request.schema, name=_ANSWER, strict=True)
        return ModelRequestParameters(output_mode="native", output_object=schema)
    tool = ToolDefinition(
        name=_ANSWER, description="The answer.", parameters_json_schema=request.schema, kind="output"
    )
    return ModelRequestParameters(output_mode="tool", output_tools=[tool], allow_text_output=False)


def _piece(event: ModelResponseStreamEvent) -> str:
    """Return the part of the answer that an event brings: its text, or arguments of the tool call."""
    match event:
        case (
            PartStartEvent(part=TextPart(content=text))
            | PartDeltaEvent(delta=TextPartDelta(content_delta=text))
        ):
            return text
        case (
            PartStartEvent(part=ToolCallPart(args=data))
            | PartDeltaEvent(delta=ToolCallPartDelta(args_delta=data))
        ):
            return _arguments(data)
    return ""


def _arguments(data: str | Mapping[str, Any] | None) -> str:
    if data is None:
        return ""
    return data if isinstance(data, str) else json.dumps(data)


def _usage(response: ModelResponse, model: str) -> Usage:
    # The library counts 0 for what the server does not report.
    tokens_in, tokens_out = response.usage.input_tokens, response.usage.output_tokens
    reason: str | None = response.finish_reason
    if reason is None and response.provider_details is not None:
        reason = response.provider_details.get("finish_reason")
    return Usage(
        model=response.model_name if response.model_name else model,
        tokens_in=tokens_in if tokens_in > 0 else None,
        tokens_out=tokens_out if tokens_out > 0 else None,
        finish_reason="stop" if reason == "tool_call" else reason,
    )


def _require_answer(response: ModelResponse, server: ModelServer, usage: Usage, *, checked: bool) -> None:
    """Check that a stream is an answer.

    Args:
        response: What the library made of it.
        server: The server.
        usage: Its usage.
        checked: Whether our client has seen its end.

    Raises:
        ProviderUnavailable: It was filtered, refused, empty, failed, or has no end.
    """
    reason, name = response.finish_reason, server.address
    details = {} if response.provider_details is None else response.provider_details
    problem = ""
    if reason == "content_filter":
        said = details.get("refusal")
        problem = (
            f"{name} filtered the answer: its content filter stopped it."
            if said is None
            else f"{name} refused to answer: {error_text(said, server.key)}"
        )
    elif reason == "error":
        problem = f"{name} failed in the middle of its answer."
    elif reason is None and not checked:
        problem = f"{name} ended its answer in the middle."
    elif not any(isinstance(part, TextPart | ToolCallPart) for part in response.parts):
        thought = any(isinstance(part, ThinkingPart) for part in response.parts)
        problem = f"{name} gave an empty answer."
        if thought:
            problem = f"{name} gave no answer, only its reasoning."
        if reason == "length":
            problem += " It reached the limit of its length: raise max_tokens."
    if problem != "":
        raise ProviderUnavailable(problem, usage=usage)
