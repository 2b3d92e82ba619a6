"""Providers of installed packages: entry point group ``cmd_bridge.providers``.

An entry point is a function that makes a provider (``actors.llm.provider.Provider``)::

    def make(settings: Mapping[str, Any]) -> Provider | None:
        return None if "url" not in settings else MyProvider(settings["url"])

``settings`` is the table ``[ask.plugins.NAME]`` of 3ox.toml, empty when absent. None means that the provider
is not configured. A provider is asked by ``3ox ask --provider NAME`` and if ``[ask] providers`` lists it;
without such a list, after our own ones if there is a table ``[ask.plugins.NAME]``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from actors.llm.provider import Provider
from ops.errors import JobRefused
from ops.plugins import PluginError, load_plugins, require_callable
from ops.settings.load import LoadedSettings
from ops.settings.model_services import SERVICES

#: Our own providers, in the order in which they are tried unless ``[ask] providers`` sets another; ``local``
#: is used only if no other is configured.
OWN_PROVIDERS = (*SERVICES, "command", "local")
_ATTRIBUTES = ("name", "model", "free", "note", "answer_max_tokens", "stream")


class ProviderPlugin(Protocol):
    """What an entry point is."""

    def __call__(self, settings: Mapping[str, Any], /) -> Provider | None:
        """Make a provider from its settings; None if they are not enough."""


def provider_plugins() -> dict[str, ProviderPlugin]:
    """Return the functions of installed packages that make providers, by the names of the providers."""
    plugins = load_plugins("providers", _check, reserved=OWN_PROVIDERS)
    return {name: plugin.use for name, plugin in plugins.items()}


def _check(name: str, found: Any) -> ProviderPlugin:
    del name
    require_callable(found, "settings")
    checked: ProviderPlugin = found
    return checked


def make_provider(name: str, loaded: LoadedSettings) -> Provider | None:
    """Return the provider of a package; None if it is not configured.

    Args:
        name: Its name; one of ``provider_plugins``.
        loaded: Settings.

    Raises:
        JobRefused: It cannot be made, or lacks an attribute of a provider.
    """
    try:
        provider = provider_plugins()[name](loaded.settings.ask.plugins.get(name, {}))
        if provider is not None:
            _require_provider(provider, name)
    except Exception as error:
        raise JobRefused(
            f"The provider {name!r} cannot be used: {type(error).__name__}: {error}.",
            remedy=f"Check [ask.plugins.{name}] in 3ox.toml and the package.",
        ) from error
    return provider


def _require_provider(provider: Provider, name: str) -> None:
    missing = [item for item in _ATTRIBUTES if not hasattr(provider, item)]
    if missing:
        raise PluginError(f"it has no attribute {', '.join(missing)}")
    if provider.name != name:
        raise PluginError(f"its name is {provider.name!r}")
