"""The REST API: its limits, and what requests to its endpoints turn into: ``[rest]``."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, field

from ops.settings.kinds import SECRET, Name, Seconds, Table


class EndpointSettings(Table, frozen=True, kw_only=True):
    """What a request to an endpoint turns into, a webhook or a ``rest.request``: ``[rest.endpoints.NAME]``.

    In ``payload`` and ``session_id``, ``{body.a.b}``, ``{query.a}`` and ``{headers.a}`` stand for parts of
    the request; a text that is nothing but one of them becomes that value as it is, number, list or table.
    """

    job: Annotated[
        str,
        Meta(min_length=1, description="Job type it turns into; shell.cmd only if it is named here."),
    ]
    payload: Annotated[
        dict[str, Any], Meta(description="The job's payload, with {body.field} filled in.")
    ] = field(default_factory=dict)
    project: Annotated[Name | None, Meta(description="Project of the job.")] = None
    session_id: Annotated[str | None, Meta(description="Session of the job, filled in like payload.")] = None
    priority: Annotated[
        Annotated[int, Meta(ge=1, le=10)] | None, Meta(description="1 is first, 10 last; 5 if absent.")
    ] = None
    secret: Annotated[
        str,
        Meta(description="Signs the webhook, as GitHub does; without one there is no webhook.", extra=SECRET),
    ] = ""
    secret_env: Annotated[str, Meta(description="Variable that holds the secret, instead of `secret`.")] = ""
    require_timestamp: Annotated[
        bool,
        Meta(description="Refuse a webhook without X-Hub-Timestamp; GitHub sends none."),
    ] = False
    allow_repeats: Annotated[
        bool,
        Meta(description="Take the same signed body again under another delivery id."),
    ] = False


class RestSettings(Table, frozen=True, kw_only=True):
    """The REST API's limits and endpoints: ``[rest]``."""

    endpoints: Annotated[
        dict[Name, EndpointSettings],
        Meta(description="What requests and webhooks turn into: [rest.endpoints.NAME] job, payload, secret."),
    ] = field(default_factory=dict)
    allowed_hosts: Annotated[
        list[str],
        Meta(description="Names by which it may be called, beside localhost and its own address."),
    ] = field(default_factory=list)
    allowed_origins: Annotated[
        list[str],
        Meta(description="Web pages that may call it, like https://example.org, beside its own."),
    ] = field(default_factory=list)
    body_max_bytes: Annotated[int, Meta(description="Size of a request's body.", ge=1024)] = 2_097_152
    upload_max_bytes: Annotated[
        int, Meta(description="Size of an upload, all its files together.", ge=1024)
    ] = 2_147_483_648
    rate_per_s: Annotated[
        float, Meta(description="Requests of one token that are taken per second; 0 is no limit.", ge=0)
    ] = 500.0
    burst: Annotated[int, Meta(description="Requests above the rate that are taken at once.", ge=1)] = 2_000
    streams_max: Annotated[
        int, Meta(description="Event streams and long waits that are open at a time.", ge=1, le=100_000)
    ] = 200
    stream_max_s: Annotated[
        Seconds, Meta(description="An event stream is ended after so long; clients resume.")
    ] = 3600.0
    wait_max_s: Annotated[
        Seconds, Meta(description="Longest wait of ?wait=; one that asks for more is answered by then.")
    ] = 60.0
    webhook_age_max_s: Annotated[
        Seconds, Meta(description="A webhook whose timestamp is further off than this is refused.")
    ] = 300.0
    shutdown_s: Annotated[
        Seconds, Meta(description="Time that open requests have when it is told to stop.")
    ] = 3.0
