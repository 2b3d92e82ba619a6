"""Every setting with its name, type, bounds, default and help.

A scalar is a top-level key of ``3ox.toml``, or the environment variable ``BRIDGE_`` + its name in upper case.
``3ox config`` prints this table; the tests fail when a setting has no help. Each table of the file, ``[ask]``
or ``[[policy]]``, is defined in one of the modules imported here.
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, field

from ops.environment import NETWORK_VARIABLES
from ops.settings.ask import AskSettings
from ops.settings.kinds import SECRET, Name, Port, Seconds, Table
from ops.settings.rest import RestSettings
from ops.settings.results import DeliverSettings, NotifySettings, WebhookSettings
from ops.settings.station import StationSettings
from ops.settings.work import (
    PolicyRule,
    ProjectSettings,
    ScheduleSettings,
    TypeOverrides,
)


class Settings(Table, frozen=True, kw_only=True):
    """All settings of a bridge."""

    redis_url: Annotated[
        str,
        Meta(
            description="URL of the store: redis://, rediss://, unix:// or"
            " sentinel://host:port,host:port/service; the embedded store is used when empty.",
            pattern=r"^($|redis://|rediss://|unix://|sentinel://)",
            extra=SECRET,
        ),
    ] = ""
    key_prefix: Annotated[
        str,
        Meta(
            description="Prefix of every key in the store.",
            max_length=64,
            pattern=r"^[A-Za-z0-9_.:{}-]*$",
        ),
    ] = "3ox:"
    store_fsync: Annotated[
        Literal["always", "everysec", "no"],
        Meta(description="When the embedded store syncs its append-only file to disk (fsync)."),
    ] = "everysec"
    store_port: Annotated[
        Port,
        Meta(description="TCP port of the embedded store on 127.0.0.1, without a password; 0 opens no port."),
    ] = 0
    store_maxmemory_bytes: Annotated[
        int,
        Meta(description="Memory limit of the embedded store, in bytes; 0 means no limit.", ge=0),
    ] = 0
    workers: Annotated[
        int, Meta(description="Number of worker processes that `3ox up` starts.", ge=0, le=256)
    ] = 2
    threads: Annotated[
        int, Meta(description="Number of jobs that one worker process runs at the same time.", ge=1, le=512)
    ] = 8
    lease_s: Annotated[
        Seconds,
        Meta(description="Time without a heartbeat after which a worker is considered dead, in seconds."),
    ] = 15.0
    heartbeat_s: Annotated[
        Seconds, Meta(description="Interval between the heartbeats of a worker, in seconds.")
    ] = 5.0
    stall_s: Annotated[
        Seconds,
        Meta(
            description="Time without polling for jobs or reaching the store after which a worker is"
            " replaced, in seconds."
        ),
    ] = 30.0
    max_crashes: Annotated[
        int,
        Meta(description="Number of worker crashes after which a job fails for good.", ge=1),
    ] = 3
    default_timeout_s: Annotated[
        Seconds, Meta(description="Timeout of one attempt of a job, in seconds.")
    ] = 600.0
    default_max_retries: Annotated[
        int, Meta(description="Number of retries after the first attempt.", ge=0, le=100)
    ] = 3
    backoff_min_s: Annotated[
        float,
        Meta(
            description="Upper bound of the delay before the first retry, in seconds; it doubles with each"
            " retry.",
            ge=0,
        ),
    ] = 1.0
    backoff_max_s: Annotated[
        float, Meta(description="Upper bound of the delay before any retry, in seconds.", ge=0)
    ] = 300.0
    kill_grace_s: Annotated[
        float,
        Meta(
            description="Time between SIGTERM and SIGKILL when a process is stopped, in seconds.", ge=0, le=60
        ),
    ] = 2.0
    worker_shutdown_timeout_s: Annotated[
        Seconds,
        Meta(description="Grace period for running jobs when a worker is stopped, in seconds."),
    ] = 30.0
    store_timeout_s: Annotated[
        Seconds, Meta(description="Timeout of one reply of the store, in seconds.")
    ] = 5.0
    retention_s: Annotated[
        int,
        Meta(description="Time that a finished job stays in the store, in seconds.", ge=1),
    ] = 604_800
    finished_max: Annotated[int, Meta(description="Maximum number of finished jobs in the store.", ge=1)] = (
        200_000
    )
    history_retention_s: Annotated[
        int,
        Meta(
            description="Time that a finished job stays in the history (.3ox/history.db), in seconds.", ge=1
        ),
    ] = 31_536_000
    history_max: Annotated[
        int,
        Meta(description="Maximum number of finished jobs in the history.", ge=1),
    ] = 1_000_000
    history_output_max_bytes: Annotated[
        int,
        Meta(description="Maximum output of a job kept in the history, in bytes, from its end.", ge=0),
    ] = 65_536
    events_max: Annotated[int, Meta(description="Approximate number of events kept in the store.", ge=1)] = (
        10_000
    )
    idempotency_ttl_s: Annotated[
        int,
        Meta(description="Time that an idempotency key is remembered, in seconds.", ge=1),
    ] = 86_400
    queue_max: Annotated[
        int, Meta(description="Maximum number of queued jobs; further ones are refused.", ge=1)
    ] = 1_000_000
    spool_max_bytes: Annotated[
        int,
        Meta(
            description="Maximum size of the spool, in bytes: jobs accepted while the store is unavailable.",
            ge=1,
        ),
    ] = 268_435_456
    session_messages_max: Annotated[
        int,
        Meta(description="Number of messages that a session keeps (the latest).", ge=2, le=1000),
    ] = 50
    session_ttl_s: Annotated[
        int,
        Meta(description="Time that a session is kept after its last message, in seconds.", ge=1),
    ] = 604_800
    session_context_tokens: Annotated[
        int,
        Meta(
            description="Approximate number of tokens of a session sent along with a prompt; 0 sends none.",
            ge=0,
        ),
    ] = 2_000
    payload_max_bytes: Annotated[
        int, Meta(description="Maximum size of a job's payload, in bytes.", ge=1)
    ] = 1_048_576
    result_max_bytes: Annotated[int, Meta(description="Maximum size of a job's result, in bytes.", ge=1)] = (
        1_048_576
    )
    output_max_bytes: Annotated[
        int,
        Meta(
            description="Maximum output kept of one job, in bytes: of a command its beginning and end, else"
            " its beginning; the rest is dropped and its size reported.",
            ge=1,
        ),
    ] = 1_048_576
    diff_max_bytes: Annotated[
        int,
        Meta(description="Maximum size of the diff in the result of a worktree task, in bytes.", ge=0),
    ] = 65_536
    progress_interval_s: Annotated[
        float,
        Meta(
            description="Minimum interval between writes of a job's progress and output to the store, in"
            " seconds.",
            ge=0,
        ),
    ] = 0.1
    shell_env: Annotated[
        list[str],
        Meta(
            description="Environment variables that commands inherit from the worker; by default also those"
            " of proxies and certificates."
        ),
    ] = field(
        default_factory=lambda: [
            *("PATH", "HOME", "LANG", "LC_ALL", "TZ", "USER", "LOGNAME", "SHELL", "TERM", "TMPDIR"),
            *NETWORK_VARIABLES,
        ],
    )
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Meta(description="Lowest severity that is written to 3ox.log."),
    ] = "info"
    log_max_bytes: Annotated[
        int, Meta(description="Size at which 3ox.log is rotated, in bytes.", ge=4096)
    ] = 10_485_760
    log_keep: Annotated[int, Meta(description="Number of rotated log files kept.", ge=0, le=1000)] = 5
    otel_endpoint: Annotated[
        str,
        Meta(
            description="URL that OpenTelemetry traces are sent to, such as"
            " http://localhost:4318/v1/traces; no tracing when empty. Requires the extra otel.",
            pattern=r"^($|https?://)",
        ),
    ] = ""
    api_host: Annotated[str, Meta(description="Address that the REST API listens on.", min_length=1)] = (
        "127.0.0.1"
    )
    api_port: Annotated[Port, Meta(description="TCP port that the REST API listens on.")] = 7777
    api_token: Annotated[
        str,
        Meta(description="Bearer token of the REST API; one is generated when empty.", extra=SECRET),
    ] = ""
    telegram_token: Annotated[
        str,
        Meta(
            description="Token of the Telegram bot as @BotFather writes it, 123456:ABC...; the bot is not"
            " started when empty.",
            pattern=r"^($|[0-9]+:[A-Za-z0-9_.-]+$)",
            extra=SECRET,
        ),
    ] = ""
    telegram_api: Annotated[
        str,
        Meta(description="Base URL of the Telegram Bot API.", pattern=r"^https?://"),
    ] = "https://api.telegram.org"
    telegram_allow: Annotated[
        list[int],
        Meta(description="IDs of the Telegram chats that the bot answers; it ignores all others."),
    ] = field(default_factory=list)
    telegram_admins: Annotated[
        list[int],
        Meta(
            description="IDs of the Telegram users or chats that receive approval requests and may decide"
            " them."
        ),
    ] = field(default_factory=list)
    telegram_edit_interval_s: Annotated[
        float,
        Meta(
            description="Minimum interval between edits of a streamed answer in one chat, in seconds; three"
            " times as long in groups.",
            ge=0.05,
            le=60,
        ),
    ] = 1.0
    telegram_messages_per_s: Annotated[
        float,
        Meta(
            description="Messages that the bot sends or edits per second, all chats together; Telegram"
            " allows 30.",
            gt=0,
            le=1000,
        ),
    ] = 25.0
    telegram_group_messages_per_min: Annotated[
        float,
        Meta(
            description="Messages that the bot sends or edits per minute in one group or channel; Telegram"
            " allows 20.",
            gt=0,
            le=60_000,
        ),
    ] = 20.0
    projects: Annotated[
        dict[Name, ProjectSettings],
        Meta(description="Projects for `3ox run`: [projects.NAME] path, command, ..."),
    ] = field(default_factory=dict)
    ask: Annotated[AskSettings, Meta(description="Providers, prices and budgets of `ask`.")] = AskSettings()
    policy: Annotated[
        list[PolicyRule],
        Meta(description="Access policy: [[policy]] effect, source, job_type, actor, project, command."),
    ] = field(default_factory=list)
    deliver: Annotated[
        DeliverSettings, Meta(description="Results written to 0UT.3OX: [deliver] types, format.")
    ] = DeliverSettings()
    webhook: Annotated[
        list[WebhookSettings],
        Meta(
            description="Webhooks that receive finished jobs: [[webhook]] name, url, secret_env, when, types."
        ),
    ] = field(default_factory=list)
    notify: Annotated[
        list[NotifySettings],
        Meta(description="Notifications of finished jobs: [[notify]] urls, when, types."),
    ] = field(default_factory=list)
    destinations: Annotated[
        dict[Name, dict[str, Any]],
        Meta(
            description="Destinations of plug-ins: [destinations.NAME] with the keys plugin, types, when, and"
            " those of the plug-in."
        ),
    ] = field(default_factory=dict)
    approval_ttl_s: Annotated[
        Seconds,
        Meta(description="Time after which a pending approval expires and its job is cancelled, in seconds."),
    ] = 604_800.0
    station: Annotated[
        StationSettings, Meta(description="The drop folder and the rules for files in it.")
    ] = StationSettings()
    rest: Annotated[RestSettings, Meta(description="Limits and endpoints of the REST API.")] = RestSettings()
    schedule: Annotated[
        list[ScheduleSettings],
        Meta(description="Schedules: [[schedule]] id, cron or every, job, missed, ..."),
    ] = field(default_factory=list)
    clock_lease_s: Annotated[
        float,
        Meta(
            description="Lease of the leading scheduler, in seconds; when it is not renewed, another one"
            " takes over.",
            ge=1,
            le=60,
        ),
    ] = 3.0
    clock_catch_up_max: Annotated[
        int,
        Meta(
            description="Maximum number of missed runs of a schedule that are handled one by one.",
            ge=1,
            le=10_000,
        ),
    ] = 1_000
    canary_interval_s: Annotated[
        float,
        Meta(
            description="Interval between heartbeat jobs of the scheduler that test the queue, in seconds;"
            " 0 sends none.",
            ge=0,
        ),
    ] = 300.0
    ledger_key_days: Annotated[
        int,
        Meta(description="Days after which the ledger's signing key is rotated; 0 never rotates it.", ge=0),
    ] = 365
    actors: Annotated[
        list[
            Annotated[
                str,
                Meta(
                    description="Write a module as Python imports it, such as my_jobs or my_package.jobs.",
                    pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$",
                ),
            ]
        ],
        Meta(
            description="Modules that declare actors; workers import them, also from the directory of"
            " 3ox.toml."
        ),
    ] = field(default_factory=list)
    types: Annotated[
        dict[str, TypeOverrides],
        Meta(
            description='Overrides per job type: [types."shell.cmd"] timeout_s, max_retries, backoff_min_s,'
            " ..."
        ),
    ] = field(default_factory=dict)
    resources: Annotated[
        dict[Name, Annotated[int, Meta(ge=1)]],
        Meta(description="Named resources and their capacity."),
    ] = field(default_factory=dict)
