"""Every setting: name, type, bounds, default and help, each said once.

A scalar stands as a top-level key in ``3ox.toml`` or as ``BRIDGE_`` + its name in upper case in the
environment. ``3ox config`` prints this table; the tests fail when a setting has no help. What stands below a
heading, ``[ask]`` or ``[[policy]]``, has its table in one of the modules that this one imports.
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, field

from ops.settings.ask import AskSettings
from ops.settings.kinds import SECRET, Name, Port, Seconds, Table
from ops.settings.rest import RestSettings
from ops.settings.results import DeliverSettings, NotifySettings, WebhookSettings
from ops.settings.station import StationSettings
from ops.settings.work import (
    TYPE_DEFAULTS,
    PolicyRule,
    ProjectSettings,
    ScheduleSettings,
    TypeOverrides,
    TypeSettings,
)


class Settings(Table, frozen=True, kw_only=True):
    """All settings of a bridge."""

    redis_url: Annotated[
        str,
        Meta(
            description="Store to use instead of the embedded one: redis://, rediss://, unix:// or"
            " sentinel://host:port,host:port/service.",
            pattern=r"^($|redis://|rediss://|unix://|sentinel://)",
            extra=SECRET,
        ),
    ] = ""
    key_prefix: Annotated[
        str,
        Meta(
            description="First part of every key in the store.",
            max_length=64,
            pattern=r"^[A-Za-z0-9_.:{}-]*$",
        ),
    ] = "3ox:"
    store_fsync: Annotated[
        Literal["always", "everysec", "no"],
        Meta(description="When the embedded store forces its append-only file to disk."),
    ] = "everysec"
    store_port: Annotated[
        Port,
        Meta(description="TCP port of the embedded store on 127.0.0.1, without a password; 0 opens none."),
    ] = 0
    store_maxmemory_bytes: Annotated[
        int,
        Meta(description="Memory limit of the embedded store; 0 is none.", ge=0),
    ] = 0
    workers: Annotated[int, Meta(description="Worker processes that `3ox up` starts.", ge=0, le=256)] = 2
    threads: Annotated[int, Meta(description="Jobs that one worker runs at a time.", ge=1, le=512)] = 8
    lease_s: Annotated[
        Seconds,
        Meta(description="A worker that has not been heard of for so long is taken for dead."),
    ] = 15.0
    heartbeat_s: Annotated[Seconds, Meta(description="A worker says that it lives so often.")] = 5.0
    stall_s: Annotated[
        Seconds,
        Meta(
            description="A worker that has not looked for work or reached the store for so long is replaced."
        ),
    ] = 30.0
    max_crashes: Annotated[
        int,
        Meta(description="A job that killed its worker so often is not run again.", ge=1),
    ] = 3
    default_timeout_s: Annotated[Seconds, Meta(description="Bound on one attempt of a job.")] = 600.0
    default_max_retries: Annotated[int, Meta(description="Attempts after the first.", ge=0, le=100)] = 3
    backoff_min_s: Annotated[float, Meta(description="Longest wait before the first retry.", ge=0)] = 1.0
    backoff_max_s: Annotated[float, Meta(description="Longest wait before any retry.", ge=0)] = 300.0
    kill_grace_s: Annotated[
        float,
        Meta(description="Time that a process has between SIGTERM and SIGKILL.", ge=0, le=60),
    ] = 2.0
    worker_shutdown_timeout_s: Annotated[
        Seconds,
        Meta(description="Time that running jobs have when a worker is told to stop."),
    ] = 30.0
    store_timeout_s: Annotated[Seconds, Meta(description="Bound on one answer of the store.")] = 5.0
    retention_s: Annotated[
        int,
        Meta(description="How long a finished job stays in the store.", ge=1),
    ] = 604_800
    finished_max: Annotated[int, Meta(description="Finished jobs kept in the store at most.", ge=1)] = 200_000
    history_retention_s: Annotated[
        int,
        Meta(description="How long a finished job stays in the history, .3ox/history.db.", ge=1),
    ] = 31_536_000
    history_max: Annotated[
        int,
        Meta(description="Finished jobs kept in the history at most.", ge=1),
    ] = 1_000_000
    history_output_max_bytes: Annotated[
        int,
        Meta(description="Of a job's output, its end of this size goes into the history.", ge=0),
    ] = 65_536
    events_max: Annotated[int, Meta(description="Events kept in the store's stream, about.", ge=1)] = 10_000
    idempotency_ttl_s: Annotated[
        int,
        Meta(description="How long an idempotency key is remembered.", ge=1),
    ] = 86_400
    queue_max: Annotated[int, Meta(description="Jobs that may wait; more are refused.", ge=1)] = 1_000_000
    spool_max_bytes: Annotated[
        int,
        Meta(description="Jobs that daemons keep on disk while the store is away, all together.", ge=1),
    ] = 268_435_456
    session_messages_max: Annotated[
        int,
        Meta(description="Messages that a session keeps, the last ones.", ge=2, le=1000),
    ] = 50
    session_ttl_s: Annotated[
        int,
        Meta(description="How long a session is kept after its last message.", ge=1),
    ] = 604_800
    session_context_tokens: Annotated[
        int,
        Meta(description="Of a session so much is sent along with a question, about; 0 is nothing.", ge=0),
    ] = 2_000
    payload_max_bytes: Annotated[int, Meta(description="Size of a job's payload.", ge=1)] = 1_048_576
    result_max_bytes: Annotated[int, Meta(description="Size of a job's result.", ge=1)] = 1_048_576
    output_max_bytes: Annotated[
        int,
        Meta(description="Output kept of one job; what comes after is dropped, and counted.", ge=1),
    ] = 1_048_576
    diff_max_bytes: Annotated[
        int,
        Meta(description="Of the changes of a task in a worktree, so much is kept in its result.", ge=0),
    ] = 65_536
    progress_interval_s: Annotated[
        float,
        Meta(description="Progress and output of one job go to the store at most so often.", ge=0),
    ] = 0.1
    shell_env: Annotated[
        list[str],
        Meta(description="Environment variables that a command inherits."),
    ] = field(
        default_factory=lambda: [
            "PATH",
            "HOME",
            "LANG",
            "LC_ALL",
            "TZ",
            "USER",
            "LOGNAME",
            "SHELL",
            "TERM",
            "TMPDIR",
        ],
    )
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Meta(description="Least severe record that goes into 3ox.log."),
    ] = "info"
    log_max_bytes: Annotated[int, Meta(description="3ox.log is rotated at this size.", ge=4096)] = 10_485_760
    log_keep: Annotated[int, Meta(description="Rotated logs kept beside 3ox.log.", ge=0, le=1000)] = 5
    otel_endpoint: Annotated[
        str,
        Meta(
            description="Where OpenTelemetry traces go, http://localhost:4318/v1/traces for instance; none"
            " when empty. It needs the extra otel.",
            pattern=r"^($|https?://)",
        ),
    ] = ""
    api_host: Annotated[str, Meta(description="Address the REST API listens on.", min_length=1)] = "127.0.0.1"
    api_port: Annotated[Port, Meta(description="Port the REST API listens on.")] = 7777
    api_token: Annotated[
        str,
        Meta(description="Bearer token of the REST API; one is made when empty.", extra=SECRET),
    ] = ""
    telegram_token: Annotated[
        str,
        Meta(description="Token of the Telegram bot; no bot runs when empty.", extra=SECRET),
    ] = ""
    telegram_api: Annotated[
        str,
        Meta(description="Base URL of the Telegram Bot API.", pattern=r"^https?://"),
    ] = "https://api.telegram.org"
    telegram_allow: Annotated[
        list[int],
        Meta(description="Ids of the Telegram chats that are heard."),
    ] = field(default_factory=list)
    telegram_admins: Annotated[
        list[int],
        Meta(
            description="Ids of the Telegram users or chats that are asked for approvals and may give them."
        ),
    ] = field(default_factory=list)
    telegram_edit_interval_s: Annotated[
        float,
        Meta(
            description="A growing answer is shown at most so often in one chat; three times that in groups.",
            ge=0.05,
            le=60,
        ),
    ] = 1.0
    telegram_messages_per_s: Annotated[
        float,
        Meta(
            description="Messages that the bot sends or edits in all chats; Telegram allows 30.",
            gt=0,
            le=1000,
        ),
    ] = 25.0
    projects: Annotated[
        dict[Name, ProjectSettings],
        Meta(description="Projects for `3ox run`: [projects.NAME] path, command."),
    ] = field(default_factory=dict)
    ask: Annotated[AskSettings, Meta(description="Who answers an `ask`.")] = AskSettings()
    policy: Annotated[
        list[PolicyRule],
        Meta(
            description="Who may have what done: [[policy]] source, job_type, actor, project, command, effect"
        ),
    ] = field(default_factory=list)
    deliver: Annotated[
        DeliverSettings, Meta(description="What becomes of results: [deliver] types, format.")
    ] = DeliverSettings()
    webhook: Annotated[
        list[WebhookSettings],
        Meta(description="Where ended jobs are posted to: [[webhook]] name, url, secret_env, when, types."),
    ] = field(default_factory=list)
    notify: Annotated[
        list[NotifySettings],
        Meta(description="Who is notified of ended jobs: [[notify]] urls, when, types."),
    ] = field(default_factory=list)
    approval_ttl_s: Annotated[
        Seconds,
        Meta(description="A job that nobody has approved for so long is cancelled."),
    ] = 604_800.0
    station: Annotated[
        StationSettings, Meta(description="The drop folder, and what becomes of the files in it.")
    ] = StationSettings()
    rest: Annotated[RestSettings, Meta(description="The REST API's limits and endpoints.")] = RestSettings()
    schedule: Annotated[
        list[ScheduleSettings],
        Meta(description="What the clock starts: [[schedule]] id, cron or every, job, missed, ..."),
    ] = field(default_factory=list)
    clock_lease_s: Annotated[
        float,
        Meta(description="A clock that leads and is not heard of for so long is replaced.", ge=1, le=60),
    ] = 3.0
    clock_catch_up_max: Annotated[
        int,
        Meta(description="Missed runs of a schedule that are treated one by one.", ge=1, le=10_000),
    ] = 1_000
    canary_interval_s: Annotated[
        float,
        Meta(description="The clock sends a heartbeat job through the queue so often; 0: never.", ge=0),
    ] = 300.0
    ledger_key_days: Annotated[
        int,
        Meta(description="The ledger's signing key is replaced after so many days; 0: never.", ge=0),
    ] = 365
    types: Annotated[
        dict[str, TypeOverrides],
        Meta(description='Per job type: [types."shell.cmd"] timeout_s, max_retries, backoff_...'),
    ] = field(default_factory=dict)
    resources: Annotated[
        dict[Name, Annotated[int, Meta(ge=1)]],
        Meta(description="Named resources and how much of each there is."),
    ] = field(default_factory=dict)

    def type_settings(self, job_type: str) -> TypeSettings:
        """Give the limits of a job type: 3ox.toml first, then the type's own default, then the general one.

        Args:
            job_type: ``shell.cmd``, for instance; one without a table of its own gets the general defaults.
        """
        nothing = TypeOverrides()
        layers = (self.types.get(job_type, nothing), TYPE_DEFAULTS.get(job_type, nothing))

        def first(name: str, general: float) -> Any:
            found = (getattr(layer, name) for layer in layers)
            return next((value for value in found if value is not None), general)

        return TypeSettings(
            timeout_s=first("timeout_s", self.default_timeout_s),
            max_retries=first("max_retries", self.default_max_retries),
            backoff_min_s=first("backoff_min_s", self.backoff_min_s),
            backoff_max_s=first("backoff_max_s", self.backoff_max_s),
        )
