"""The rows of ``3ox config``: every setting with value, source and help, secrets masked."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

import msgspec

from ops.environment import variable
from ops.settings.kinds import SECRET, is_secret_name, meta_of, table_type
from ops.settings.load import ENV_FOREIGN, LoadedSettings
from ops.store.url import mask_password

_MASK = "********"
#: User and password in any URL, such as that of a webhook.
_LOGIN = re.compile(r"(?<=://)([^/@:\s]*):[^/@\s]+@")


class SettingRow(NamedTuple):
    """One setting; the value of a secret is masked.

    Attributes:
        name: Name of the setting; within a table, prefixed with the table's: ``rest.rate_per_s``.
        value: Its value, as JSON types.
        source: ``default``, ``3ox.toml``, or the environment variable or option that set it.
        help: What it does.
    """

    name: str
    value: Any
    source: str
    help: str


def rows_of(loaded: LoadedSettings) -> list[SettingRow]:
    """Return every setting in the order of the table; the rows of a nested table follow its own row."""
    rows: list[SettingRow] = []
    for field in msgspec.structs.fields(loaded.settings):
        name, value = field.name, getattr(loaded.settings, field.name)
        rows.append(SettingRow(name, _shown(field, value), loaded.sources[name], _help(field.type)))
        rows += _rows_in(name, field.type, value, loaded.written)
    return rows


def foreign_rows(environ: Mapping[str, str] | None = None) -> list[SettingRow]:
    """Return the environment variables of other tools that the bridge reads, keys masked.

    Args:
        environ: The environment to read; that of the process when None. That of the workers may differ.
    """
    rows = []
    for name in ENV_FOREIGN:
        value = variable(name, environ)
        shown = mask_password(value) if not name.endswith("_KEY") or value == "" else _MASK
        owner = name.partition("_")[0].lower()
        text = f"Environment variable of {owner}; read where the workers run."
        rows.append(SettingRow(name, shown, "environment" if value else "default", text))
    return rows


def _rows_in(table: str, kind: Any, value: Any, written: frozenset[str]) -> Iterator[SettingRow]:
    if table_type(kind) is None or value is None:
        return
    shown = msgspec.to_builtins(_without_secrets(value))
    for field in msgspec.structs.fields(value):
        name = f"{table}.{field.name}"
        source = "3ox.toml" if name in written else "default"
        yield SettingRow(name, shown[field.name], source, _help(field.type))
        yield from _rows_in(name, field.type, getattr(value, field.name), written)


def _shown(field: msgspec.structs.FieldInfo, value: Any) -> Any:
    if meta_of(field.type).extra == SECRET and value != "":
        return mask_password(value) if field.name.endswith("_url") else _MASK
    return msgspec.to_builtins(_without_secrets(value))


def _without_secrets(value: Any) -> Any:
    """Return a value with its secrets masked, in nested tables and in URLs too."""
    if isinstance(value, dict):
        return {
            name: _MASK if isinstance(item, str | list) and is_secret_name(name) else _without_secrets(item)
            for name, item in value.items()
        }
    if isinstance(value, list):
        return [_without_secrets(item) for item in value]
    if isinstance(value, str):
        return _LOGIN.sub(r"\1:***@", value)
    if not isinstance(value, msgspec.Struct):
        return value
    shown = {}
    for field in msgspec.structs.fields(value):
        item = getattr(value, field.name)
        secret = meta_of(field.type).extra == SECRET and item != ""
        shown[field.name] = _MASK if secret else _without_secrets(item)
    return shown


def _help(kind: Any) -> str:
    """Return the help of a setting: the outermost description, or the docstring of its table."""
    while True:
        if get_origin(kind) is Annotated:
            metas = [extra for extra in get_args(kind)[1:] if isinstance(extra, msgspec.Meta)]
            texts = [meta.description for meta in metas if meta.description is not None]
            if texts:
                return texts[-1]
            kind = get_args(kind)[0]
        elif get_origin(kind) in (Union, types.UnionType):
            kind = next(arm for arm in get_args(kind) if arm is not type(None))
        else:
            table = table_type(kind)
            return "" if table is None else (table.__doc__ or "").partition("\n")[0].replace("``", "`")
