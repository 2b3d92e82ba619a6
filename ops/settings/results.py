"""Destinations of results: ``[deliver]``, ``[[webhook]]``, ``[[notify]]``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct, field

from ops.settings.kinds import SECRET, Name, Seconds, Table

#: Final states of a job.
FinalState = Literal["completed", "failed", "cancelled"]


class DeliverSettings(Table, frozen=True, kw_only=True):
    """Results written to the folder 0UT.3OX: ``[deliver]``."""

    types: Annotated[
        list[str] | None,
        Meta(
            description="Job types whose results are written to 0UT.3OX; patterns such as * are allowed. When"
            " absent: all built-in types but shell.cmd and heartbeat."
        ),
    ] = None
    format: Annotated[
        Literal["markdown", "json"],
        Meta(description="Format of the files in 0UT.3OX; receipts are always JSON."),
    ] = "markdown"


class WebhookSettings(Table, frozen=True, kw_only=True):
    """A webhook that receives finished jobs: ``[[webhook]]``."""

    name: Annotated[Name, Meta(description="Unique name of the webhook.")]
    url: Annotated[
        str,
        Meta(
            pattern=r"^https?://[^/]",
            description="URL that jobs are posted to; begins with https:// or http://.",
        ),
    ]
    secret_env: Annotated[
        str,
        Meta(
            description="Environment variable that holds the signing secret; requests are not signed when"
            " absent."
        ),
    ] = ""
    when: Annotated[
        list[FinalState],
        Meta(min_length=1, description="Final states that trigger it: completed, failed, cancelled."),
    ] = field(default_factory=lambda: ["completed", "failed", "cancelled"])
    types: Annotated[
        list[str], Meta(description="Job types that trigger it; patterns such as * are allowed.")
    ] = field(default_factory=lambda: ["*"])
    timeout_s: Annotated[Seconds, Meta(description="Timeout of each step of a request, in seconds.")] = 10.0


class NotifySettings(Table, frozen=True, kw_only=True):
    """Notifications of finished jobs through Apprise: ``[[notify]]``."""

    urls: Annotated[
        list[Annotated[str, Meta(min_length=1)]],
        Meta(
            min_length=1,
            description="Apprise URLs such as ntfy://...; env:VARIABLE reads the URL from that environment"
            " variable.",
            extra=SECRET,
        ),
    ]
    name: Annotated[
        str, Meta(description="Unique name of the entry; its number when absent.", pattern=r"^[\w.-]*$")
    ] = ""
    when: Annotated[
        list[FinalState],
        Meta(min_length=1, description="Final states that trigger it: completed, failed, cancelled."),
    ] = field(default_factory=lambda: ["failed"])
    types: Annotated[
        list[str], Meta(description="Job types that trigger it; patterns such as * are allowed.")
    ] = field(default_factory=lambda: ["*"])


class DestinationRoute(Struct, frozen=True, kw_only=True):
    """The keys of ``[destinations.NAME]`` that the bridge uses; all others are the plug-in's.

    Attributes:
        plugin: Name of the plug-in; NAME when empty.
        types: Job types whose results it receives; patterns such as * are allowed.
        when: Final states that trigger it.
    """

    plugin: str = ""
    types: list[str] = field(default_factory=lambda: ["*"])
    when: Annotated[list[FinalState], Meta(min_length=1)] = field(
        default_factory=lambda: ["completed", "failed", "cancelled"]
    )


def destination_route(table: dict[str, Any]) -> DestinationRoute:
    """Return which results a destination receives.

    Args:
        table: The table ``[destinations.NAME]``.

    Raises:
        msgspec.ValidationError: A value is not valid.
    """
    return msgspec.convert(table, DestinationRoute)
