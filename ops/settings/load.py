"""Loads and checks the settings: from ``3ox.toml``, then the environment, then command-line options.

The settings themselves are defined in ``ops.settings.table``.
"""

import functools
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args, get_origin

import msgspec

from ops.environment import BOM, expand_home, normalized, variables
from ops.errors import SettingsError
from ops.ignored_names import check_ignore
from ops.settings.ask import AskSettings, CommandSettings, LocalSettings
from ops.settings.kinds import SECRET, bare, meta_of, plain, table_type
from ops.settings.places import Place
from ops.settings.results import destination_route
from ops.settings.table import Settings
from ops.settings.work import ProjectSettings, ScheduleSettings, TypeOverrides, TypeSettings
from ops.workspace import Workspace, absolute_home, default_home

__all__ = [
    "AskSettings",
    "CommandSettings",
    "LoadedSettings",
    "LocalSettings",
    "ProjectSettings",
    "ScheduleSettings",
    "Settings",
    "TypeOverrides",
    "TypeSettings",
    "load_settings",
]

ENV_PREFIX = "BRIDGE_"
#: Variables with the same prefix that are not settings: they name the workspace, a process or a job.
ENV_MARKS = frozenset(
    {
        "BRIDGE_HOME",
        "BRIDGE_SUPERVISED",
        "BRIDGE_UNIT",
        "BRIDGE_PLUGINS_LOGGED",
        "BRIDGE_LEFT_QUEUES",
        "BRIDGE_WORKER_ID",
        "BRIDGE_JOB_ID",
        "BRIDGE_PROJECT",
        "BRIDGE_TASK",
        "BRIDGE_TASK_FILE",
    },
)
#: Variables of other tools that ``ask`` reads; ``3ox config`` lists them after the settings.
ENV_FOREIGN = (
    "OPENAI_API_KEY",
    "OPENAI_BASE_URL",
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_BASE_URL",
    "GOOGLE_API_KEY",
    "GEMINI_API_KEY",
    "MISTRAL_API_KEY",
    "GROQ_API_KEY",
    "OPENROUTER_API_KEY",
    "OLLAMA_HOST",
)
_LIST_REMEDY = "'3ox config' lists all settings."

_FIELDS = {field.name: field for field in msgspec.structs.fields(Settings)}


class LoadedSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings, and the source of each.

    Attributes:
        settings: The values.
        sources: Per setting: ``default``, ``3ox.toml``, or the name of the environment variable or option.
        written: Dotted names of all keys in 3ox.toml: ``rest``, ``rest.rate_per_s``.
        workspace: The workspace.
        content: Content of 3ox.toml; None if the file is missing.
    """

    settings: Settings
    sources: dict[str, str]
    workspace: Workspace
    written: frozenset[str] = frozenset()
    content: bytes | None = None

    @property
    def embedded_store(self) -> bool:
        """Whether the bridge uses the embedded store."""
        return self.settings.redis_url == ""

    @property
    def store_url(self) -> str:
        """URL of the store with its password; print it through ``ops.store.url.mask_password`` only."""
        if not self.embedded_store:
            return self.settings.redis_url
        from urllib.parse import quote

        return f"unix://{quote(os.fsencode(self.workspace.store_socket))}"


def load_settings(
    home: Path | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, object] | None = None,
) -> LoadedSettings:
    """Read and check all settings.

    Args:
        home: The workspace; ``BRIDGE_HOME`` or ``~/cmd.bridge`` when None.
        environ: Environment to read; that of the process when None.
        overrides: Command-line options by setting name; None for an option that was not given.

    Raises:
        SettingsError: A key is unknown or a value is not valid; names the file or variable, and the key.
    """
    workspace_dir = (
        default_home(environ) if home is None else absolute_home(str(home), "BRIDGE_HOME", environ)
    )
    workspace = Workspace(workspace_dir)
    values: dict[str, Any] = {}
    sources = dict.fromkeys(_FIELDS, "default")
    content = _read_file(workspace.settings_file)
    written = frozenset(_take_file(content, workspace.settings_file, values, sources))
    _take_environment(variables(environ), values, sources)
    for name, value in ({} if overrides is None else overrides).items():
        if value is None:
            continue
        option = "--" + name.replace("_", "-")
        _require_known(name, _scalars(), "option", where="")
        values[name] = _leaf(value, _FIELDS[name].type, option)
        sources[name] = option
    if "projects" in values:
        values["projects"] = {
            name: msgspec.structs.replace(project, path=_project_path(workspace_dir, name, project.path))
            for name, project in values["projects"].items()
        }
    settings = Settings(**values)
    _check_together(settings, sources)
    return LoadedSettings(
        settings=settings, sources=sources, workspace=workspace, written=written, content=content
    )


def _read_file(path: Path) -> bytes | None:
    """Return the content of the file; None if it is missing."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SettingsError(
            f"{path} cannot be read: {error.strerror}.", remedy="Check its permissions."
        ) from error


def _take_file(
    content: bytes | None, path: Path, values: dict[str, Any], sources: dict[str, str]
) -> Iterable[str]:
    """Add the values of the file to ``values`` and ``sources``; returns the dotted names of all its keys."""
    if not content:
        return ()
    import tomllib

    try:
        text = content.removeprefix(BOM).decode()  # the codec utf-8-sig is a module of its own
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(
            f"{path} is not valid TOML: {error}.", remedy="Correct the file at that position."
        ) from error
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise SettingsError(
            f"{path} (line {line}) is not UTF-8.", remedy="Save the file as UTF-8."
        ) from error
    for name, value in document.items():
        place = Place(path, text, name)
        _require_known(name, _FIELDS, "setting", where=place.as_form(" in {file}"))
        cleaned = normalized(value) if isinstance(value, str) else value
        values[name] = _value(cleaned, _FIELDS[name].type, place)
        sources[name] = path.name
    return _written("", document)


def _written(prefix: str, table: Mapping[str, Any]) -> Iterator[str]:
    for name, value in table.items():
        yield prefix + name
        if isinstance(value, dict):
            yield from _written(f"{prefix}{name}.", value)


def _take_environment(environ: Mapping[str, str], values: dict[str, Any], sources: dict[str, str]) -> None:
    known = {ENV_PREFIX + name.upper(): name for name in _scalars()}
    for variable, text in environ.items():
        if not variable.startswith(ENV_PREFIX) or variable in ENV_MARKS:
            continue
        _require_known(variable, (*known, *ENV_MARKS), "setting", where=" (environment)")
        name = known[variable]
        kind = _FIELDS[name].type
        parsed = [part for part in re.split(r"[,\s]+", text) if part] if plain(kind) is list else text
        values[name] = _leaf(parsed, kind, variable, strict=False)
        sources[name] = variable


def _value(value: Any, kind: Any, place: Place) -> Any:
    """Check a value from the file against its type, table by table, so that errors name the exact key."""
    table = table_type(kind)
    if table is not None:
        if not isinstance(value, dict):
            _fail(place, "must be a table", f"Write it as [{place.key}].")
        fields = {field.name: field for field in msgspec.structs.fields(table)}
        for name in value:
            _require_known(name, fields, "key", where=place.as_form(" in [{key}] of {file}", name))
        for name, field in fields.items():
            if field.required and name not in value:
                _fail(place.as_form("[{key}] in {file}"), f"lacks the required key {name!r}", "Add it.")
        return table(
            **{name: _value(item, fields[name].type, place.below(name)) for name, item in value.items()},
        )
    if plain(kind) is list and isinstance(value, list) and table_type(get_args(bare(kind))[0]) is not None:
        item_type = get_args(bare(kind))[0]
        return [_value(item, item_type, place.item(n)) for n, item in enumerate(value, start=1)]
    if plain(kind) is dict and isinstance(value, dict):
        key_type, item_type = get_args(bare(kind))
        named = "A name in [{key}] of {file}"
        return {
            _leaf(name, key_type, place.as_form(named, name)): _value(item, item_type, place.below(name))
            for name, item in value.items()
        }
    return _leaf(value, kind, place)


def _leaf(value: Any, kind: Any, where: Place | str, *, strict: bool = True) -> Any:
    try:
        return msgspec.convert(value, kind, strict=strict)
    except msgspec.ValidationError as error:
        meta = meta_of(kind)
        choices = get_args(bare(kind)) if get_origin(bare(kind)) is Literal else ()
        if choices:
            _fail(where, f"is {value!r}", f"Use one of: {', '.join(choices)}.")
        shown = "" if meta.extra == SECRET or isinstance(value, dict | list) else f", not {value!r}"
        if meta.pattern is not None and isinstance(value, str):
            _fail(where, f"has the wrong form{shown and f': {value!r}'}", meta.description or "")
        _fail(where, f"is not valid: {error}{shown}", "Correct the value.")


def _fail(where: Place | str, complaint: str, remedy: str) -> NoReturn:
    raise SettingsError(f"{where} {complaint}.", remedy=remedy)


def _require_known(name: str, known: Iterable[str], what: str, *, where: Place | str) -> None:
    names = list(known)
    if name in names:
        return
    import difflib

    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    remedy = f"Did you mean {near[0]!r}?" if near else _LIST_REMEDY
    raise SettingsError(f"Unknown {what} {name!r}{where}.", remedy=remedy)


def _check_together(settings: Settings, sources: Mapping[str, str]) -> None:
    for low, high in (("heartbeat_s", "lease_s"), ("backoff_min_s", "backoff_max_s")):
        least, most = getattr(settings, low), getattr(settings, high)
        if least > most:
            raise SettingsError(
                f"{low} ({least:g}, {sources[low]}) is greater than {high} ({most:g}, {sources[high]}).",
                remedy=f"Lower {low} or raise {high}.",
            )
    check_ignore(settings.station.ignore)
    _require_unique([hook.name for hook in settings.webhook], "[[webhook]]")
    for name, table in settings.destinations.items():
        try:
            destination_route(table)
        except msgspec.ValidationError as error:
            _fail(f"[destinations.{name}] of 3ox.toml", f"is not valid: {error}", "Correct the value.")
    _require_unique([entry.name for entry in settings.notify if entry.name], "[[notify]]")


def _require_unique(names: list[str], what: str) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise SettingsError(f"Two {what} entries have the name {twice!r}.", remedy="Rename one of them.")


def _project_path(home: Path, name: str, path: str) -> str:
    return str(home / expand_home(normalized(path), f"[projects.{name}] path"))


@functools.cache
def _scalars() -> tuple[str, ...]:
    """Return the names of the settings that a variable or option can set: all that are not tables."""
    return tuple(name for name, field in _FIELDS.items() if not _is_table(field.type))


def _is_table(kind: Any) -> bool:
    outer = plain(kind)
    inner = get_args(bare(kind))[0] if outer is list else kind
    return outer is dict or table_type(inner) is not None
