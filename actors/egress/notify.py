"""Notifications through Apprise: e-mail, Slack, ntfy and a hundred more, each by its URL."""

from __future__ import annotations

import os

from actors.egress.outcome import Delivered, Outcome, request_text, result_text
from ops.errors import JobFailed, JobRefused
from ops.settings.load import LoadedSettings
from ops.settings.results import NotifySettings

#: Before the name of a variable that holds the URL, for one with a secret in it.
_FROM_ENV = "env:"
_BODY_MAX = 3000
_KINDS = {"completed": "success", "failed": "failure", "cancelled": "warning"}


def deliver(outcome: Outcome, loaded: LoadedSettings, which: str) -> Delivered:
    """Send one notification to one address.

    Args:
        outcome: The job.
        loaded: The settings.
        which: Name or number of the [[notify]] entry, ``:``, number of the URL in it, both from 1.

    Raises:
        JobFailed: It could not be sent; worth another attempt.
        JobRefused: The entry is not configured (any more), or its URL is none that Apprise knows.
    """
    import apprise

    url = _address(_entry(loaded, which), which)
    sender = apprise.Apprise()
    if not sender.add(url):
        raise JobRefused(
            f"the URL of notify:{which} is none that Apprise knows.",
            remedy="Correct it in 3ox.toml; Apprise's documentation lists all forms.",
        )
    kind = _KINDS.get(outcome.record.status, "info")
    # Nothing is raised on failure: the answer has to be looked at.
    if not sender.notify(title=outcome.title, body=text_of(outcome), notify_type=apprise.NotifyType(kind)):
        raise JobFailed(
            f"the notification to notify:{which} ({url.partition(':')[0]}) was not taken.",
            remedy="3ox.log has what Apprise said.",
        )
    return Delivered(sink=f"notify:{which}", place=url.partition(":")[0])


def text_of(outcome: Outcome) -> str:
    """Give the text of a message to people: what was asked, what came of it, and how to see all of it."""
    record = outcome.record
    said = record.error.message if record.error is not None else result_text(record)
    parts = [request_text(record), said if said else record.reason]
    body = "\n\n".join(_cut(part.strip()) for part in parts if part.strip())
    return f"{body}\n\n3ox jobs {record.job_id}".strip()


def _cut(text: str) -> str:
    return text if len(text) <= _BODY_MAX // 2 else text[: _BODY_MAX // 2] + " …"


def _entry(loaded: LoadedSettings, which: str) -> NotifySettings:
    name = which.rpartition(":")[0]
    for at, entry in enumerate(loaded.settings.notify, start=1):
        if (entry.name if entry.name else str(at)) == name:
            return entry
    raise JobRefused(f"there is no notify:{which} in 3ox.toml.", remedy="Add it as [[notify]] again.")


def _address(entry: NotifySettings, which: str) -> str:
    number = which.rpartition(":")[2]
    if not number.isdecimal() or not 1 <= int(number) <= len(entry.urls):
        raise JobRefused(f"notify:{which} has no such URL in 3ox.toml.", remedy="Add it again.")
    url = entry.urls[int(number) - 1]
    if not url.startswith(_FROM_ENV):
        return url
    variable = url.removeprefix(_FROM_ENV)
    found = os.environ.get(variable, "")
    if not found:
        raise JobRefused(
            f"the URL of notify:{which} is missing: {variable} is not set.",
            remedy="Set it in the environment of the workers.",
        )
    return found
