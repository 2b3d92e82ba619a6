"""Checks of the places that results are sent to, and of the secrets that the settings name."""

from __future__ import annotations

from collections.abc import Iterator

from ops.environment import variable
from ops.errors import InvalidUrl, SettingsError
from ops.http.environment import require_url
from ops.settings.load import LoadedSettings

#: Prefix of an Apprise URL that is in an environment variable.
_FROM_ENV = "env:"


def check_webhooks(loaded: LoadedSettings) -> str:
    """Check the URLs of all webhooks; return their number.

    Raises:
        SettingsError: A URL is not valid; names its webhook.
    """
    for hook in loaded.settings.webhook:
        try:
            require_url(hook.url)
        except InvalidUrl as error:
            raise SettingsError(f"[[webhook]] {hook.name}: {error.message}", remedy=error.remedy) from None
    return str(len(loaded.settings.webhook))


def missing_variables(loaded: LoadedSettings) -> Iterator[tuple[str, str]]:
    """Yield the parts of the settings whose secret is in a variable that is not set, with its name."""
    settings = loaded.settings
    named = [(f"webhook {hook.name}", hook.secret_env) for hook in settings.webhook]
    named += [(f"endpoint {name}", row.secret_env) for name, row in settings.rest.endpoints.items()]
    for number, entry in enumerate(settings.notify, start=1):
        names = [url.removeprefix(_FROM_ENV) for url in entry.urls if url.startswith(_FROM_ENV)]
        named += [(f"notify {entry.name or number}", name) for name in names]
    for label, name in named:
        if name and not variable(name):
            yield label, name


def unsupported_notifications(loaded: LoadedSettings) -> Iterator[tuple[str, int]]:
    """Yield the entries of [[notify]] whose URL Apprise does not support, with the number of the URL."""
    if not loaded.settings.notify:
        return
    import apprise

    for number, entry in enumerate(loaded.settings.notify, start=1):
        for position, url in enumerate(entry.urls, start=1):
            found = variable(url.removeprefix(_FROM_ENV)) if url.startswith(_FROM_ENV) else url
            if found and not apprise.Apprise().add(found):
                yield f"notify {entry.name or number}", position
