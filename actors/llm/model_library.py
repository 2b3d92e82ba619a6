"""The model library (``pydantic-ai-slim``, extra ``llm``): whether it is there, its import, and its models.

Importing it takes seconds and 40 to 80 MB. A worker that answers questions does so once, in the background
after its start, and only for the protocols that are configured; see ``model_provider.py``.
"""

from __future__ import annotations

import importlib
import importlib.util
import threading
from typing import TYPE_CHECKING

from actors.llm.model_server import ModelServer
from ops.errors import JobRefused
from ops.settings.ask import AskSettings
from ops.settings.model_services import SERVICES, Protocol, configured_services

if TYPE_CHECKING:
    from httpx2 import AsyncClient
    from openai import AsyncOpenAI
    from pydantic_ai.models import Model

#: Protocol -> the packages that it needs, and the extra of this package that installs them.
_NEEDS: dict[Protocol, tuple[tuple[str, ...], str]] = {
    "openai": (("pydantic_ai", "openai"), "llm"),
    "openrouter": (("pydantic_ai", "openai"), "llm"),
    "anthropic": (("pydantic_ai", "anthropic"), "llm"),
    "google": (("pydantic_ai", "google.genai"), "google"),
    "bedrock": (("pydantic_ai", "boto3"), "bedrock"),
}
_MODULES: dict[Protocol, str] = {
    "openai": "pydantic_ai.models.openai",
    "openrouter": "pydantic_ai.models.openrouter",
    "anthropic": "pydantic_ai.models.anthropic",
    "google": "pydantic_ai.models.google",
    "bedrock": "pydantic_ai.models.bedrock",
}

#: Stands for the key of a server that needs none.
NO_KEY = "no-key"

_LOADING = threading.Lock()
_LOADED: set[Protocol] = set()


def missing_extra(protocol: Protocol) -> str:
    """Return the name of the extra that a protocol lacks; empty if all its packages are installed."""
    packages, extra = _NEEDS[protocol]
    return "" if all(_is_installed(name) for name in packages) else extra


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # its parent is missing, or it is hidden
        return False


def require_library(protocol: Protocol, provider: str) -> None:
    """Check that the packages of a protocol are installed.

    Raises:
        JobRefused: The remedy names the extra.
    """
    extra = missing_extra(protocol)
    if extra != "":
        raise JobRefused(
            f"The provider {provider!r} needs packages that are not installed.",
            remedy=f"Install them: pip install 'cmd-bridge[{extra}]'.",
        )


def needed_protocols(ask: AskSettings) -> list[Protocol]:
    """Return the protocols of the configured services whose packages are installed, each once.

    Args:
        ask: Settings.
    """
    names = configured_services(ask, ask.providers)
    protocols = dict.fromkeys(SERVICES[name].protocol for name in names)
    return [protocol for protocol in protocols if missing_extra(protocol) == ""]


def load_library(protocol: Protocol) -> None:
    """Import the library for a protocol; waits for an import that is going on in another thread.

    Two threads that import parts of a package with circular imports can meet half of a module.
    """
    if protocol in _LOADED:
        return
    with _LOADING:
        importlib.import_module(_MODULES[protocol])
        _LOADED.add(protocol)


def make_model(server: ModelServer, name: str, client: AsyncClient) -> Model:
    """Return the library's model for one answer.

    Args:
        server: The server.
        name: Name of the model.
        client: The HTTP client of the answer; ``bedrock`` has its own.
    """
    makers = {
        "openai": _openai,
        "openrouter": _openrouter,
        "anthropic": _anthropic,
        "google": _google,
        "bedrock": _bedrock,
    }
    return makers[server.protocol](server, name, client)


def _key(server: ModelServer) -> str:
    """Return the key, or what our client removes: without one, the SDKs use any that the environment has."""
    return server.key if server.key != "" else NO_KEY


def _openai_sdk(server: ModelServer, client: AsyncClient) -> AsyncOpenAI:
    from openai import AsyncOpenAI

    return AsyncOpenAI(
        base_url=server.base_url,
        api_key=_key(server),
        http_client=client,
        timeout=client.timeout,
        max_retries=0,
    )


def _openai(server: ModelServer, name: str, client: AsyncClient) -> Model:
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.profiles.openai import OpenAIModelProfile
    from pydantic_ai.providers.openai import OpenAIProvider
    from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider

    sdk = _openai_sdk(server, client)
    if server.official:
        return OpenAIChatModel(name, provider=OpenAIProvider(openai_client=sdk))
    # OpenAI's newer models reject max_tokens, and other servers do not know the new name.
    profile = OpenAIModelProfile(openai_chat_supports_max_completion_tokens=False)
    return OpenAIChatModel(
        name, provider=OpenAICompatibleProvider("openai-compatible", openai_client=sdk, profile=profile)
    )


def _openrouter(server: ModelServer, name: str, client: AsyncClient) -> Model:
    from pydantic_ai.models.openrouter import OpenRouterModel
    from pydantic_ai.providers.openrouter import OpenRouterProvider

    sdk = _openai_sdk(server, client)
    return OpenRouterModel(name, provider=OpenRouterProvider(openai_client=sdk))


def _anthropic(server: ModelServer, name: str, client: AsyncClient) -> Model:
    from anthropic import AsyncAnthropic
    from pydantic_ai.models.anthropic import AnthropicModel
    from pydantic_ai.providers.anthropic import AnthropicProvider

    sdk = AsyncAnthropic(
        base_url=server.base_url,
        api_key=_key(server),
        # The header of the protocol's first versions, which compatible servers require.
        default_headers={"x-api-key": _key(server)},
        http_client=client,
        timeout=client.timeout,
        max_retries=0,
    )
    return AnthropicModel(name, provider=AnthropicProvider(anthropic_client=sdk))


def _google(server: ModelServer, name: str, client: AsyncClient) -> Model:
    from pydantic_ai.models.google import GoogleModel
    from pydantic_ai.providers.google import GoogleProvider

    url = None if server.base_url == "" else server.base_url
    return GoogleModel(name, provider=GoogleProvider(api_key=server.key, base_url=url, http_client=client))


def _bedrock(server: ModelServer, name: str, client: AsyncClient) -> Model:
    import boto3
    from botocore.config import Config
    from pydantic_ai.models.bedrock import BedrockConverseModel
    from pydantic_ai.providers.bedrock import BedrockProvider

    config = Config(
        connect_timeout=client.timeout.connect,
        read_timeout=client.timeout.read,
        retries={"total_max_attempts": 1},
    )
    sdk = boto3.client(
        "bedrock-runtime",
        region_name=server.region if server.region else None,
        endpoint_url=server.base_url if server.base_url else None,
        config=config,
    )
    return BedrockConverseModel(name, provider=BedrockProvider(bedrock_client=sdk))
