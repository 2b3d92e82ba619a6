"""Logging: JSON lines of every process in one ``3ox.log``, readable text on a terminal.

Our own records have an event name and fields (``log.info("job.completed", job_id=...)``). Records of the
standard library's ``logging`` are included with their ``extra``; free text, such as Dramatiq's, has the event
``message``. Every line has ``at`` (UTC), ``level``, ``event``, ``process``, ``pid`` and ``logger``. Nothing
is written to stdout.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote

import msgspec

from ops.environment import NETWORK_VARIABLES, variable, variables
from ops.import_shim import without
from ops.logfile import LINE_MAX_BYTES, LogFile
from ops.settings.kinds import is_secret_name, secrets_in
from ops.settings.load import ENV_FOREIGN, LoadedSettings
from ops.store.url import passwords_in

if TYPE_CHECKING:
    from structlog.stdlib import BoundLogger
    from structlog.typing import EventDict, Processor

_MASK = "********"
#: Shorter values are not masked: that would mask ordinary words.
_SECRET_MIN_LENGTH = 6
#: Attributes of every ``logging`` record; all others were passed as ``extra``.
_RECORD_FIELDS = frozenset(
    {
        *vars(logging.makeLogRecord({})),
        "message",
        "asctime",
        "_logger",
        "_name",
        "_from_structlog",
        "_record",
    },
)
_EVENT_NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)+")


class _LazyLogger:
    """A logger that imports structlog at its first use, which costs 100 ms."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        bound = _bound_logger(self._name)
        if not attribute.startswith("_"):
            setattr(self, attribute, getattr(bound, attribute))
        return getattr(bound, attribute)


def get_logger(name: str) -> BoundLogger:
    """Return a structlog logger; it costs nothing until it is used.

    Before ``configure_logging``, the standard library's ``logging`` writes records of level warning and above
    to stderr.

    Args:
        name: Name of the logger, usually that of the module.
    """
    return cast("BoundLogger", _LazyLogger(name))


def _import_structlog() -> None:
    """Import structlog without rich, which takes 0.2 of its 0.3 s and is only used for tracebacks."""
    with without("rich"):
        import structlog  # noqa: F401


def _bound_logger(name: str) -> BoundLogger:
    _import_structlog()
    import structlog

    processors: list[Processor] = [
        structlog.stdlib.filter_by_level,
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
    ]
    logger: BoundLogger = structlog.wrap_logger(
        logging.getLogger(name),
        processors=processors,
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    return logger


def configure_logging(loaded: LoadedSettings, *, process: str, console: bool | None = None) -> None:
    """Send all records of this process to ``3ox.log``, and to stderr if that is a terminal.

    May be called again; it replaces the handlers of an earlier call and of ``logging.basicConfig``.

    Args:
        loaded: Settings and workspace.
        process: Name of this process in every line: ``worker-1``, ``up``, ``clock``, ...
        console: Whether to write to stderr too; None: if stderr is a terminal and no supervisor runs us.

    Raises:
        SettingsError: The log cannot be written.
    """
    settings = loaded.settings
    loaded.workspace.create()
    secrets = _known_secrets(loaded, variables())
    file = LogFile(loaded.workspace.log_file, max_bytes=settings.log_max_bytes, keep=settings.log_keep)
    handlers: list[logging.Handler] = [_FileHandler(file)]
    handlers[0].setFormatter(_MaskingFormatter(_formatter(process, _to_json), secrets))
    # Descriptor 2, not sys.stderr: in a Dramatiq worker, that is a pipe to the master, which forwards it.
    if console is None:
        console = not variable("BRIDGE_SUPERVISED") and os.isatty(2)
    if console:
        _import_structlog()
        import structlog

        pretty = structlog.dev.ConsoleRenderer(
            colors=os.isatty(2),
            timestamp_key="at",
            exception_formatter=structlog.dev.plain_traceback,
        )
        handlers.append(logging.StreamHandler(sys.stderr))
        handlers[1].setFormatter(_MaskingFormatter(_formatter(process, pretty), secrets))
    root = logging.getLogger()
    for old in list(root.handlers):
        if isinstance(old, _FileHandler) or type(old) is logging.StreamHandler:
            root.removeHandler(old)
            old.close()
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(settings.log_level.upper())
    _Journal.file = None if console else file
    _Journal.level = root.level
    _Journal.process = process
    _Journal.secrets = tuple(secret.encode() for secret in secrets)


_LEVEL_NAMES = {logging.INFO: "info", logging.WARNING: "warning", logging.ERROR: "error"}


class _Journal:
    """Target of ``journal``; set by ``configure_logging``."""

    file: LogFile | None = None
    level = logging.INFO
    process = ""
    secrets: tuple[bytes, ...] = ()


class JournalLine(msgspec.Struct, frozen=True, gc=False):
    """A log line for ``journal``.

    Attributes:
        level: As in ``logging``.
        event: Stable event name, such as ``job.completed``.
        fields: Further fields of the line.
    """

    level: int
    event: str
    fields: dict[str, str | float | None]


def journal(lines: Sequence[JournalLine]) -> None:
    """Write log lines for jobs, in one system call; use it for what is logged for every job.

    It takes a tenth of a logger's time: it bypasses structlog, log records and locks; the lines look like any
    other. With output to a terminal, they go through the standard library's ``logging`` instead.
    """
    if _Journal.file is None:
        for line in lines:
            logging.getLogger("journal").log(line.level, line.event, extra=line.fields)
        return
    at = datetime.now(UTC).isoformat(timespec="milliseconds")[:-6] + "Z"
    about = {"logger": "journal", "process": _Journal.process, "pid": os.getpid()}
    encoded = [
        msgspec.json.encode(
            {"at": at, "level": _LEVEL_NAMES[line.level], "event": line.event, **line.fields, **about}
        )
        for line in lines
        if line.level >= _Journal.level
    ]
    if not encoded:
        return
    text = b"\n".join(encoded)
    for secret in _Journal.secrets:
        text = text.replace(secret, _MASK.encode())
    try:
        _Journal.file.write(text)
    except OSError:
        # As in every handler: a line that cannot be written (disk full) must not fail a job.
        record = {"name": "journal", "levelno": lines[0].level, "msg": lines[0].event}
        logging.getLogger("journal").handle(logging.makeLogRecord(record))


class _FileHandler(logging.Handler):
    """Writes formatted records into the log file."""

    def __init__(self, file: LogFile) -> None:
        super().__init__()
        self._file = file
        self._has_failed = False

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._file.write(self.format(record).encode())
            self._has_failed = False
        except OSError as error:
            # Reported once: a traceback per line would flood stderr.
            if not self._has_failed:
                self._has_failed = True
                with contextlib.suppress(OSError):
                    sys.stderr.write(f"3ox.log cannot be written: {error}\n")
        except Exception:  # noqa: BLE001 (as in every handler: a record that fails must not fail a job)
            self.handleError(record)

    def close(self) -> None:
        self._file.close()
        super().close()


class _MaskingFormatter(logging.Formatter):
    """Masks known secrets in the output of another formatter."""

    def __init__(self, inner: logging.Formatter, secrets: list[str]) -> None:
        super().__init__()
        self._inner = inner
        self._secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        text = self._inner.format(record)
        for secret in self._secrets:
            text = text.replace(secret, _MASK)
        return text


def _formatter(process: str, renderer: Processor) -> logging.Formatter:
    _import_structlog()
    import structlog

    def describe(_logger: Any, _method: str, event: EventDict) -> EventDict:
        record: logging.LogRecord = event.pop("_record")
        named = {"event": event.pop("event")}
        if not event.pop("_from_structlog"):
            event.update({k: v for k, v in record.__dict__.items() if k not in _RECORD_FIELDS})
            if not _EVENT_NAME.fullmatch(named["event"]):
                named = {"event": "message", "message": named["event"]}
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        return {
            "at": at.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            **named,
            **{name: _MASK if is_secret_name(name) else value for name, value in event.items()},
            "logger": record.name,
            "process": process,
            "pid": record.process,
        }

    return structlog.stdlib.ProcessorFormatter(
        processors=[
            describe,
            *([structlog.processors.format_exc_info] if renderer is _to_json else []),
            renderer,
        ],
    )


def _to_json(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
    line = _encode(event)
    if len(line) > LINE_MAX_BYTES:
        share = LINE_MAX_BYTES // (4 * len(event))
        line = _encode({name: _shortened(value, share) for name, value in event.items()})
    return line


def _encode(event: Mapping[str, Any]) -> str:
    try:
        return msgspec.json.encode(event, enc_hook=str).decode()
    except (UnicodeEncodeError, TypeError, ValueError):
        # Lone surrogates (of a file name, for example) or keys that are not text: shown escaped.
        return msgspec.json.encode(
            {_escaped(name): _escaped(value) for name, value in event.items()}
        ).decode()


def _escaped(value: Any) -> Any:
    return value if isinstance(value, int) else str(value).encode(errors="backslashreplace").decode()


def _shortened(value: Any, length: int) -> Any:
    text = value if isinstance(value, str) else repr(value)
    return value if len(text) <= length else f"{text[:length]}... ({len(text)} characters)"


def _known_secrets(loaded: LoadedSettings, environ: Mapping[str, str]) -> list[str]:
    settings = loaded.settings
    endpoints = settings.rest.endpoints.values()
    services = [getattr(settings.ask, name) for name in settings.ask.__struct_fields__]
    notify_urls = [url for entry in settings.notify for url in entry.urls]
    named = (
        *(getattr(service, "api_key_env", "") for service in services),
        *(hook.secret_env for hook in settings.webhook),
        *(endpoint.secret_env for endpoint in endpoints),
        *(url.removeprefix("env:") for url in notify_urls if url.startswith("env:")),
        *(name for name in ENV_FOREIGN if name.endswith("_KEY")),
    )
    values = [
        settings.api_token,
        settings.telegram_token,
        *(environ.get(name, "") for name in named),
        *notify_urls,
        *secrets_in(settings.destinations),
        *secrets_in(settings.ask.plugins),
    ]
    values += [endpoint.secret for endpoint in endpoints]
    urls = [settings.redis_url, settings.otel_endpoint]
    urls += [str(getattr(service, "base_url", "")) for service in services]
    urls += [settings.telegram_api, *(hook.url for hook in settings.webhook)]
    for name in (*NETWORK_VARIABLES, *ENV_FOREIGN):
        text = environ.get(name, "")
        urls.append(text if "://" in text else f"http://{text}")
    for password in (password for url in urls for password in passwords_in(url)):
        values += [password, unquote(password)]
    usable = {value for value in values if len(value) >= _SECRET_MIN_LENGTH}
    # Each value as it is, and as it appears in JSON.
    usable |= {json.dumps(value)[1:-1] for value in usable}
    return sorted(usable, key=len, reverse=True)
