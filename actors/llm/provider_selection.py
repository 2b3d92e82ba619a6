"""Selects the configured providers and their order."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import NoReturn, TypedDict

from actors.llm import anthropic_http, openai_http
from actors.llm.local_command import CommandProvider, program_name
from actors.llm.local_offline import LocalProvider
from actors.llm.plugin_providers import OWN_PROVIDERS, make_provider, provider_plugins
from actors.llm.prices import warm_prices
from actors.llm.provider import Provider
from ops.environment import variable
from ops.errors import JobRefused, SettingsError
from ops.local_model.client import INSTALL, model_file
from ops.plugins import why_broken
from ops.settings.load import AnthropicSettings, LoadedSettings, OllamaSettings, OpenAISettings

_OLLAMA_PORT = 11434


class NoProvider(JobRefused):
    """No LLM provider is configured.

    Set OPENAI_API_KEY or ANTHROPIC_API_KEY, or add [ask] to 3ox.toml.
    """


def choose(loaded: LoadedSettings, wanted: str | None, *, fit_to_decide: bool = False) -> list[Provider]:
    """Return the providers to try, in order; at least one.

    Args:
        loaded: Settings; keys and base URLs that they lack come from the environment.
        wanted: Name of the only provider to try. None tries those of ``[ask] providers``; when that is empty,
            every configured one; when none is, the offline model.
        fit_to_decide: Whether the answer will be acted upon: the offline model is then used only if listed.

    Raises:
        JobRefused: A provider is unknown or not configured.
        NoProvider: No provider is configured.
    """
    listed = [wanted] if wanted is not None else loaded.settings.ask.providers
    plugins = provider_plugins()
    for name in listed:
        if name not in OWN_PROVIDERS and name not in plugins:
            _refuse_unknown(name, (*OWN_PROVIDERS, *plugins))
    usual = [name for name in OWN_PROVIDERS if name != "local"]
    usual += [name for name in plugins if name in loaded.settings.ask.plugins]
    found = [(name, _make(name, loaded)) for name in (listed or usual)]
    providers = [provider for _, provider in found if provider is not None]
    missing = [name for name, provider in found if provider is None]
    if listed and missing:
        raise JobRefused(
            f"The provider {missing[0]!r} is not configured.", remedy=_how_to(missing[0], loaded)
        )
    if not providers and not fit_to_decide:
        local = _local(loaded)
        providers = [] if local is None else [local]
    if not providers:
        raise NoProvider(
            "No LLM provider is configured.",
            remedy=" Or: ".join(_how_to(name, loaded) for name in ("openai", "command", "local")),
        )
    if any(not provider.free for provider in providers):
        warm_prices()
    return providers


class _Access(TypedDict):
    """Connection parameters of a service."""

    base_url: str
    model: str
    key: str
    silence_s: float
    key_variable: str


def _access(
    values: OpenAISettings | AnthropicSettings, url_variable: str, official_url: str
) -> _Access | None:
    """Return the connection parameters of a service; None if neither key nor base URL is set."""
    key, base_url = _environ(values.api_key_env), _first(values.base_url, _environ(url_variable))
    if key == "" and base_url == "":
        return None
    return _Access(
        base_url=_first(base_url, official_url),
        model=values.model,
        key=key,
        silence_s=values.timeout_s,
        key_variable=values.api_key_env,
    )


def _openai(loaded: LoadedSettings) -> Provider | None:
    access = _access(loaded.settings.ask.openai, "OPENAI_BASE_URL", openai_http.OFFICIAL_BASE_URL)
    return None if access is None else openai_http.OpenAIProvider(**access)


def _anthropic(loaded: LoadedSettings) -> Provider | None:
    ask = loaded.settings.ask
    access = _access(ask.anthropic, "ANTHROPIC_BASE_URL", anthropic_http.OFFICIAL_BASE_URL)
    return (
        None
        if access is None
        else anthropic_http.AnthropicProvider(**access, answer_max_tokens=ask.answer_max_tokens)
    )


def _ollama(loaded: LoadedSettings) -> Provider | None:
    values = loaded.settings.ask.ollama
    host = _environ("OLLAMA_HOST")
    if values is None and host == "":
        return None
    values = OllamaSettings() if values is None else values
    return openai_http.OpenAIProvider(
        base_url=f"{_ollama_url(_first(values.base_url, host))}/v1",
        model=values.model,
        key="",
        silence_s=values.timeout_s,
        name="ollama",
        free=True,
    )


def _ollama_url(host: str) -> str:
    """Return the URL for an OLLAMA_HOST, which may be a URL, ``host:port``, ``host`` or ``:port``."""
    scheme, given, address = host.rpartition("://")
    address = address.rstrip("/").removesuffix("/v1")
    name, colon, port = address.rpartition(":") if not address.endswith("]") else (address, "", "")
    if not (colon and port.isdecimal()):
        name, port = address, "" if given else str(_OLLAMA_PORT)
    # OLLAMA_HOST of a server may be a wildcard address, which clients cannot use.
    name = "127.0.0.1" if name in ("", "0.0.0.0", "[::]") else name  # noqa: S104
    return f"{_first(scheme, 'http')}://{name}{':' if port else ''}{port}"


def _command(loaded: LoadedSettings) -> Provider | None:
    values = loaded.settings.ask.command
    if values is None:
        return None
    desk = loaded.workspace.workdesk
    desk.mkdir(parents=True, exist_ok=True)
    # A local program costs nothing unless 3ox.toml sets a price for it: it may call a paid service.
    free = program_name(values.argv) not in loaded.settings.ask.prices
    return CommandProvider(values.argv, cwd=desk, timeout_s=values.timeout_s, free=free)


def _local(loaded: LoadedSettings) -> Provider | None:
    try:
        path = model_file(loaded)
    except SettingsError as error:
        raise JobRefused(error.message, remedy=error.remedy) from error
    return None if path is None else LocalProvider(loaded, path)


_MAKERS: dict[str, Callable[[LoadedSettings], Provider | None]] = {
    "openai": _openai,
    "anthropic": _anthropic,
    "ollama": _ollama,
    "command": _command,
    "local": _local,
}


def _make(name: str, loaded: LoadedSettings) -> Provider | None:
    return _MAKERS[name](loaded) if name in _MAKERS else make_provider(name, loaded)


def _environ(name: str) -> str:
    return variable(name)


def _first(*texts: str) -> str:
    """Return the first text that is not empty, or an empty one."""
    return next((text for text in texts if text != ""), "")


def _how_to(name: str, loaded: LoadedSettings) -> str:
    file, ask = loaded.workspace.settings_file, loaded.settings.ask
    remedies = {
        "openai": f"Set {ask.openai.api_key_env} (and OPENAI_BASE_URL for another server) in the environment"
        " of the workers.",
        "anthropic": f"Set {ask.anthropic.api_key_env} in the environment of the workers.",
        "ollama": f"Set OLLAMA_HOST in the environment of the workers, or add [ask.ollama] to {file}.",
        "command": f'Add [ask.command] with argv = ["PROGRAM", ...] to {file}.',
        "local": f"Install the offline model: {INSTALL}.",
    }
    return remedies.get(name, f"Add [ask.plugins.{name}] to {file}, as its package documents it.")


def _refuse_unknown(name: str, known: Sequence[str]) -> NoReturn:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]!r}?" if near else f"Use one of: {', '.join(known)}."
    hint = why_broken("providers", name).lstrip() or hint
    raise JobRefused(f"Unknown provider {name!r}.", remedy=hint)
