"""Notifications through Apprise: e-mail, Slack, ntfy and a hundred other services, each given by a URL."""

from __future__ import annotations

import functools

from actors.egress.outcome import Delivered, Outcome
from middleware.job.texts import request_text, result_text
from ops.environment import variable
from ops.errors import JobFailed, JobRefused, SettingsError
from ops.http.environment import export_for_requests
from ops.settings.load import LoadedSettings
from ops.settings.results import NotifySettings

#: Prefix of a URL setting that names the environment variable holding the URL, for URLs with a secret.
_FROM_ENV = "env:"
_BODY_MAX = 3000
_KINDS = {"completed": "success", "failed": "failure", "cancelled": "warning"}


def deliver(outcome: Outcome, loaded: LoadedSettings, which: str) -> Delivered:
    """Send one notification to one URL.

    Args:
        outcome: The finished job.
        loaded: Settings.
        which: ``ENTRY:NUMBER``: name or number of the [[notify]] entry, and number of its URL, both from 1.

    Raises:
        JobFailed: The notification could not be sent; worth a retry.
        JobRefused: The entry is not configured, or Apprise does not support its URL.
    """
    _prepare_requests()
    import apprise

    url = _address(_entry(loaded, which), which)
    sender = apprise.Apprise()
    if not sender.add(url):
        raise JobRefused(
            f"Apprise does not support the URL of notify:{which}.",
            remedy="Correct it in 3ox.toml; the Apprise documentation lists all URL formats.",
        )
    kind = _KINDS.get(outcome.record.status, "info")
    # Apprise reports failure by its return value and does not raise.
    if not sender.notify(title=outcome.title, body=text_of(outcome), notify_type=apprise.NotifyType(kind)):
        raise JobFailed(
            f"The notification to notify:{which} ({url.partition(':')[0]}) was not accepted.",
            remedy="See the messages of Apprise in 3ox.log.",
        )
    return Delivered(sink=f"notify:{which}", place=url.partition(":")[0])


@functools.cache
def _prepare_requests() -> None:
    """Prepare the environment for the library ``requests``, which Apprise uses.

    Raises:
        JobRefused: A proxy or certificate variable is not valid.
    """
    try:
        export_for_requests()
    except SettingsError as error:
        raise JobRefused(error.message, remedy=error.remedy) from error


def text_of(outcome: Outcome) -> str:
    """Return the text of a notification: the request, the result or error, and the command that shows all."""
    record = outcome.record
    result = record.error.message if record.error is not None else result_text(record)
    parts = [request_text(record), result if result else record.reason]
    body = "\n\n".join(_cut(part.strip()) for part in parts if part.strip())
    return f"{body}\n\n3ox jobs {record.job_id}".strip()


def _cut(text: str) -> str:
    return text if len(text) <= _BODY_MAX // 2 else text[: _BODY_MAX // 2] + " …"


def _entry(loaded: LoadedSettings, which: str) -> NotifySettings:
    name = which.rpartition(":")[0]
    for at, entry in enumerate(loaded.settings.notify, start=1):
        if (entry.name if entry.name else str(at)) == name:
            return entry
    raise JobRefused(f"notify:{which} is not in 3ox.toml.", remedy="Add it again as [[notify]].")


def _address(entry: NotifySettings, which: str) -> str:
    number = which.rpartition(":")[2]
    if not number.isdecimal() or not 1 <= int(number) <= len(entry.urls):
        raise JobRefused(
            f"notify:{which}: the entry in 3ox.toml has no URL {number}.", remedy="Add the URL again."
        )
    url = entry.urls[int(number) - 1]
    if not url.startswith(_FROM_ENV):
        return url
    name = url.removeprefix(_FROM_ENV)
    found = variable(name)
    if not found:
        raise JobRefused(
            f"The URL of notify:{which} is missing: {name} is not set.",
            remedy="Set it in the environment of the workers.",
        )
    return found
