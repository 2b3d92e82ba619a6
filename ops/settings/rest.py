"""Settings of the REST API, its endpoints and incoming webhooks: ``[rest]``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, field

from ops.settings.kinds import SECRET, Name, Seconds, Table


class EndpointSettings(Table, frozen=True, kw_only=True):
    """The job that a webhook or ``rest.request`` to an endpoint creates: ``[rest.endpoints.NAME]``.

    In ``payload`` and ``session_id``, ``{body.a.b}``, ``{query.a}`` and ``{headers.a}`` are replaced by parts
    of the request, ``{body.a.b|text}`` by the text where the part is missing or null. A text that is a single
    placeholder becomes the value itself: a number, list or table.
    """

    job: Annotated[
        str,
        Meta(min_length=1, description="Type of the job to create."),
    ]
    payload: Annotated[
        dict[str, Any],
        Meta(description="Payload of the job; placeholders such as {body.field} are replaced."),
    ] = field(default_factory=dict)
    project: Annotated[Name | None, Meta(description="Project of the job.")] = None
    session_id: Annotated[str | None, Meta(description="Session of the job; placeholders are replaced.")] = (
        None
    )
    priority: Annotated[
        Annotated[int, Meta(ge=1, le=10)] | None,
        Meta(description="Priority from 1 (first) to 10 (last); that of the project, else 5, when absent."),
    ] = None
    preset: Annotated[
        Literal["github", "gitlab", "gitea", "stripe", "standard"],
        Meta(
            description="Kind of sender of the webhook: where it puts signature, event and delivery ID;"
            " `standard` is Standard Webhooks."
        ),
    ] = "github"
    events: Annotated[
        list[Annotated[str, Meta(min_length=1)]],
        Meta(
            description="Events of the webhook that create a job, such as push; others are answered with 200"
            " and ignored. All but ping when empty."
        ),
    ] = field(default_factory=list)
    secret: Annotated[
        str,
        Meta(
            description="Secret that verifies the signature of the webhook; without a secret the webhook is"
            " disabled.",
            extra=SECRET,
        ),
    ] = ""
    secret_env: Annotated[
        str, Meta(description="Environment variable that holds the secret, instead of `secret`.")
    ] = ""
    require_timestamp: Annotated[
        bool,
        Meta(description="Refuse webhooks without the header X-Hub-Timestamp (GitHub does not send it)."),
    ] = False
    allow_repeats: Annotated[
        bool,
        Meta(description="Accept the same signed body again under another delivery ID."),
    ] = False


class RestSettings(Table, frozen=True, kw_only=True):
    """Limits and endpoints of the REST API: ``[rest]``."""

    endpoints: Annotated[
        dict[Name, EndpointSettings],
        Meta(
            description="Jobs that requests and webhooks create: [rest.endpoints.NAME] job, payload,"
            " secret, ..."
        ),
    ] = field(default_factory=dict)
    allowed_hosts: Annotated[
        list[str],
        Meta(description="Host names accepted in requests, besides localhost and the API's own address."),
    ] = field(default_factory=list)
    allowed_origins: Annotated[
        list[str],
        Meta(
            description="Origins of web pages that may call the API, such as https://example.org, besides"
            " its own."
        ),
    ] = field(default_factory=list)
    body_max_bytes: Annotated[int, Meta(description="Maximum size of a request body, in bytes.", ge=1024)] = (
        2_097_152
    )
    upload_max_bytes: Annotated[
        int, Meta(description="Maximum size of an upload, all files together, in bytes.", ge=1024)
    ] = 2_147_483_648
    rate_per_s: Annotated[
        float, Meta(description="Requests per second allowed per token; 0 means no limit.", ge=0)
    ] = 500.0
    burst: Annotated[int, Meta(description="Requests above the rate that are allowed in a burst.", ge=1)] = (
        2_000
    )
    streams_max: Annotated[
        int, Meta(description="Maximum number of open event streams and long waits.", ge=1, le=100_000)
    ] = 200
    stream_max_s: Annotated[
        Seconds,
        Meta(description="Time after which an event stream is closed, in seconds; clients resume it."),
    ] = 3600.0
    wait_max_s: Annotated[
        Seconds,
        Meta(description="Maximum of the parameter `wait`, in seconds; a longer one is reduced to it."),
    ] = 60.0
    webhook_age_max_s: Annotated[
        Seconds,
        Meta(
            description="Maximum age of a webhook's timestamp, in seconds; older and future ones are refused."
        ),
    ] = 300.0
    shutdown_s: Annotated[
        Seconds, Meta(description="Grace period for open requests on shutdown, in seconds.")
    ] = 3.0
