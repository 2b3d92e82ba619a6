"""Settings of the services and servers that answer ``ask``, and which of them are configured."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from ops.environment import variable
from ops.settings.kinds import Seconds, Table

#: How a server is asked: OpenAI's chat completions, OpenRouter's variant of them, Anthropic's messages,
#: Google's Gemini API, Amazon Bedrock.
Protocol = Literal["openai", "openrouter", "anthropic", "google", "bedrock"]

ReadTimeout = Annotated[
    Seconds,
    Meta(description="Read timeout, in seconds: the longest wait for the next data from the server."),
]
BaseUrl = Annotated[str, Meta(description="Base URL; that of the service when absent.")]
ModelName = Annotated[str, Meta(description="Model to use when the job names none.")]
KeyVariable = Annotated[str, Meta(description="Environment variable that holds the API key.")]


class OpenAISettings(Table, frozen=True, kw_only=True):
    """Any server that speaks the OpenAI chat completions protocol: ``[ask.openai]``."""

    base_url: Annotated[
        str, Meta(description="Base URL including /v1; the variable OPENAI_BASE_URL when absent.")
    ] = ""
    model: ModelName = "gpt-4o-mini"
    api_key_env: KeyVariable = "OPENAI_API_KEY"
    timeout_s: ReadTimeout = 120.0


class AnthropicSettings(Table, frozen=True, kw_only=True):
    """Any server that speaks the Anthropic messages protocol: ``[ask.anthropic]``."""

    base_url: Annotated[
        str, Meta(description="Base URL without /v1; the variable ANTHROPIC_BASE_URL when absent.")
    ] = ""
    model: ModelName = "claude-haiku-4-5"
    api_key_env: KeyVariable = "ANTHROPIC_API_KEY"
    timeout_s: ReadTimeout = 120.0


class OllamaSettings(Table, frozen=True, kw_only=True):
    """An Ollama server: ``[ask.ollama]``, or the variable OLLAMA_HOST alone."""

    base_url: Annotated[
        str, Meta(description="Base URL, http://host:port; the variable OLLAMA_HOST when absent.")
    ] = ""
    model: ModelName = "llama3.2"
    timeout_s: ReadTimeout = 120.0


class MistralSettings(Table, frozen=True, kw_only=True):
    """Mistral's service: ``[ask.mistral]``."""

    base_url: BaseUrl = ""
    model: ModelName = "mistral-small-latest"
    api_key_env: KeyVariable = "MISTRAL_API_KEY"
    timeout_s: ReadTimeout = 120.0


class GroqSettings(Table, frozen=True, kw_only=True):
    """Groq's service: ``[ask.groq]``."""

    base_url: BaseUrl = ""
    model: ModelName = "openai/gpt-oss-20b"
    api_key_env: KeyVariable = "GROQ_API_KEY"
    timeout_s: ReadTimeout = 120.0


class OpenRouterSettings(Table, frozen=True, kw_only=True):
    """OpenRouter, a gateway to models of many vendors: ``[ask.openrouter]``."""

    base_url: BaseUrl = ""
    model: ModelName = "openrouter/auto"
    api_key_env: KeyVariable = "OPENROUTER_API_KEY"
    timeout_s: ReadTimeout = 120.0


class GoogleSettings(Table, frozen=True, kw_only=True):
    """Google's Gemini API, with the extra ``google``: ``[ask.google]``."""

    base_url: BaseUrl = ""
    model: ModelName = "gemini-3.5-flash-lite"
    api_key_env: KeyVariable = "GOOGLE_API_KEY"
    timeout_s: ReadTimeout = 120.0


class BedrockSettings(Table, frozen=True, kw_only=True):
    """Amazon Bedrock, with the extra ``bedrock``: ``[ask.bedrock]``.

    Used only with this table; credentials are those that AWS's own tools use.
    """

    base_url: BaseUrl = ""
    model: ModelName = "global.amazon.nova-2-lite-v1:0"
    region: Annotated[str, Meta(description="AWS region; that of AWS's own settings when absent.")] = ""
    timeout_s: ReadTimeout = 120.0


class ServiceTables(Table, frozen=True, kw_only=True):
    """The tables of ``[ask]`` for model servers and services."""

    openai: OpenAISettings = OpenAISettings()
    anthropic: AnthropicSettings = AnthropicSettings()
    ollama: OllamaSettings | None = None
    mistral: MistralSettings = MistralSettings()
    groq: GroqSettings = GroqSettings()
    openrouter: OpenRouterSettings = OpenRouterSettings()
    google: GoogleSettings = GoogleSettings()
    bedrock: BedrockSettings | None = None


class Service(Struct, frozen=True, kw_only=True):
    """What is known of a service besides its settings.

    Attributes:
        protocol: Its protocol.
        url: Its base URL; empty if it has none of its own, or the library knows it.
        url_variable: Environment variable with another base URL; empty for none.
        key_alias: Second environment variable of the key; empty for none.
        free: Whether its answers cost nothing.
    """

    protocol: Protocol
    url: str = ""
    url_variable: str = ""
    key_alias: str = ""
    free: bool = False


#: The services, in the order in which they are tried unless ``[ask] providers`` sets another.
SERVICES: dict[str, Service] = {
    "openai": Service(protocol="openai", url="https://api.openai.com/v1", url_variable="OPENAI_BASE_URL"),
    "anthropic": Service(
        protocol="anthropic", url="https://api.anthropic.com", url_variable="ANTHROPIC_BASE_URL"
    ),
    "google": Service(protocol="google", key_alias="GEMINI_API_KEY"),
    "mistral": Service(protocol="openai", url="https://api.mistral.ai/v1"),
    "groq": Service(protocol="openai", url="https://api.groq.com/openai/v1"),
    "openrouter": Service(protocol="openrouter", url="https://openrouter.ai/api/v1"),
    "bedrock": Service(protocol="bedrock"),
    "ollama": Service(protocol="openai", url_variable="OLLAMA_HOST", free=True),
}


def service_key(tables: ServiceTables, name: str) -> str:
    """Return the API key of a service; empty if there is none."""
    service, key_variable = SERVICES[name], getattr(getattr(tables, name), "api_key_env", "")
    names = [item for item in (key_variable, service.key_alias) if item != ""]
    return next((key for key in map(variable, names) if key != ""), "")


def is_configured(tables: ServiceTables, name: str) -> bool:
    """Return whether a service can be asked: by its key, its base URL, or its table where that is enough.

    Args:
        tables: Settings.
        name: Name of the service.
    """
    table, service = getattr(tables, name), SERVICES[name]
    if name in ("ollama", "bedrock"):
        return table is not None or (service.url_variable != "" and variable(service.url_variable) != "")
    base_url = variable(service.url_variable) if service.url_variable else ""
    return service_key(tables, name) != "" or base_url != "" or table.base_url != ""


def configured_services(tables: ServiceTables, listed: list[str]) -> list[str]:
    """Return the configured services, in the order in which they are tried.

    Args:
        tables: Settings.
        listed: ``[ask] providers``; all services when empty.
    """
    names = [name for name in listed if name in SERVICES] if listed else list(SERVICES)
    return [name for name in names if is_configured(tables, name)]
