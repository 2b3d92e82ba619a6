"""Where results go: ``[deliver]``, ``[[webhook]]``, ``[[notify]]``."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, field

from ops.settings.kinds import SECRET, Name, Seconds, Table

#: States in which a job has ended.
FinalState = Literal["completed", "failed", "cancelled"]


class DeliverSettings(Table, frozen=True, kw_only=True):
    """What becomes of results: ``[deliver]``."""

    types: Annotated[
        list[str],
        Meta(description="Job types whose results go to 0UT.3OX; patterns like *."),
    ] = field(
        default_factory=lambda: ["ask", "ingest.file", "task.custom", "telegram", "rest.request"],
    )
    format: Annotated[
        Literal["markdown", "json"], Meta(description="Of the files in 0UT.3OX; receipts are always JSON.")
    ] = "markdown"


class WebhookSettings(Table, frozen=True, kw_only=True):
    """Where ended jobs are posted to: ``[[webhook]]``."""

    name: Annotated[Name, Meta(description="Of this webhook.")]
    url: Annotated[str, Meta(pattern=r"^https?://[^/]", description="Begins with https:// or http://.")]
    secret_env: Annotated[
        str, Meta(description="Variable that holds the secret which signs the request; unsigned if absent.")
    ] = ""
    when: Annotated[
        list[FinalState], Meta(min_length=1, description="Ends that are told: completed, failed, cancelled.")
    ] = field(default_factory=lambda: ["completed", "failed", "cancelled"])
    types: Annotated[list[str], Meta(description="Job types that are told; patterns.")] = field(
        default_factory=lambda: ["*"]
    )
    timeout_s: Annotated[Seconds, Meta(description="Bound on the receiver's answer.")] = 10.0


class NotifySettings(Table, frozen=True, kw_only=True):
    """Who is notified of ended jobs, through Apprise: ``[[notify]]``."""

    urls: Annotated[
        list[Annotated[str, Meta(min_length=1)]],
        Meta(
            min_length=1,
            description="Apprise URLs, ntfy://... for instance; env:VARIABLE reads one from there.",
            extra=SECRET,
        ),
    ]
    name: Annotated[str, Meta(description="Of this entry; its number when absent.", pattern=r"^[\w.-]*$")] = (
        ""
    )
    when: Annotated[
        list[FinalState], Meta(min_length=1, description="Ends that are told: completed, failed, cancelled.")
    ] = field(default_factory=lambda: ["failed"])
    types: Annotated[list[str], Meta(description="Job types that are told; patterns.")] = field(
        default_factory=lambda: ["*"]
    )
