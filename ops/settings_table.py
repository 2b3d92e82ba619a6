"""Every setting: name, type, bounds, default and help, each said once.

A scalar stands as a top-level key in ``3ox.toml`` or as ``BRIDGE_`` + its name in upper case in the
environment. ``3ox config`` prints this table; the tests fail when a setting has no help.
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

#: Marks a setting that is printed as dots and never logged.
SECRET = {"secret": True}

Port = Annotated[int, Meta(ge=0, le=65_535)]
Seconds = Annotated[float, Meta(gt=0)]
Name = Annotated[
    str,
    Meta(
        description="Use letters, digits and . _ @ : + -, beginning with a letter or digit, at most 64.",
        min_length=1,
        max_length=64,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._@:+-]*$",
    ),
]


class Table(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all settings: immutable and strict."""


class ProjectSettings(Table, frozen=True, kw_only=True):
    """A project that ``3ox run`` can be given a task for: ``[projects.NAME]``."""

    path: Annotated[
        str,
        Meta(
            min_length=1,
            description="Where the command runs; ~ is expanded, relative to the workspace.",
        ),
    ]
    command: Annotated[
        list[str],
        Meta(min_length=1, description="Argument list; {task} in any argument is replaced by the task."),
    ]
    timeout_s: Annotated[Seconds | None, Meta(description="Bound on one attempt; the type's if absent.")] = (
        None
    )
    concurrency: Annotated[int, Meta(ge=1)] | None = None
    env: Annotated[dict[str, str], Meta(description="Added to the environment of the command.")] = {}
    max_retries: Annotated[int, Meta(ge=0, le=100)] | None = None
    priority: Annotated[int, Meta(ge=1, le=10)] | None = None


class OpenAISettings(Table, frozen=True, kw_only=True):
    """Any server that speaks the OpenAI chat completions protocol: ``[ask.openai]``."""

    base_url: Annotated[str, Meta(description="Up to and with /v1; OPENAI_BASE_URL when absent.")] = ""
    model: Annotated[str, Meta(description="Model when the command line names none.")] = "gpt-4o-mini"
    api_key_env: Annotated[str, Meta(description="Variable that holds the key.")] = "OPENAI_API_KEY"
    timeout_s: Annotated[Seconds, Meta(description="Bound on silence of the server.")] = 120.0


class CommandSettings(Table, frozen=True, kw_only=True):
    """A local program that answers prompts: ``[ask.command]``."""

    argv: Annotated[
        list[str],
        Meta(min_length=1, description="Argument list; the prompt comes on its standard input."),
    ]
    timeout_s: Annotated[Seconds | None, Meta(description="Bound on one answer; the job's if absent.")] = None


class AskSettings(Table, frozen=True, kw_only=True):
    """Who answers an ``ask``: ``[ask]``."""

    providers: Annotated[
        list[str],
        Meta(description="Providers in the order they are tried; every configured one when empty."),
    ] = []
    openai: OpenAISettings = OpenAISettings()
    command: CommandSettings | None = None


class TypeOverrides(Table, frozen=True, kw_only=True):
    """What ``[types."JOB.TYPE"]`` may set; an absent one is the general default."""

    timeout_s: Seconds | None = None
    max_retries: Annotated[int, Meta(ge=0, le=100)] | None = None
    backoff_min_s: Annotated[float, Meta(ge=0)] | None = None
    backoff_max_s: Annotated[float, Meta(ge=0)] | None = None


class TypeSettings(Table, frozen=True, kw_only=True):
    """How jobs of one type are run, every field filled."""

    timeout_s: float
    max_retries: int
    backoff_min_s: float
    backoff_max_s: float


#: Every job type, and where it differs from the general defaults: a command may have changed the world
#: before it failed, so it is not run again unless somebody says so.
TYPE_DEFAULTS: dict[str, TypeOverrides] = {
    "ask": TypeOverrides(max_retries=2),
    "ingest.file": TypeOverrides(),
    "telegram": TypeOverrides(),
    "rest.request": TypeOverrides(),
    "shell.cmd": TypeOverrides(max_retries=0),
    "heartbeat": TypeOverrides(timeout_s=30.0, max_retries=0),
    "task.custom": TypeOverrides(timeout_s=3600.0, max_retries=0),
}


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
    payload_max_bytes: Annotated[int, Meta(description="Size of a job's payload.", ge=1)] = 1_048_576
    result_max_bytes: Annotated[int, Meta(description="Size of a job's result.", ge=1)] = 1_048_576
    output_max_bytes: Annotated[
        int,
        Meta(description="Output kept of one job; what comes after is dropped, and counted.", ge=1),
    ] = 1_048_576
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
    ] = []
    projects: Annotated[
        dict[Name, ProjectSettings],
        Meta(description="Projects for `3ox run`: [projects.NAME] path, command."),
    ] = {}
    ask: Annotated[AskSettings, Meta(description="Who answers an `ask`.")] = AskSettings()
    types: Annotated[
        dict[str, TypeOverrides],
        Meta(description='Per job type: [types."shell.cmd"] timeout_s, max_retries, backoff_...'),
    ] = {}
    resources: Annotated[
        dict[Name, Annotated[int, Meta(ge=1)]],
        Meta(description="Named resources and how much of each there is."),
    ] = {}

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
