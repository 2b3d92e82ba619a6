"""The settings as ``3ox config`` shows them: each with value, source and help, secrets masked."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

import msgspec

from ops.settings.kinds import SECRET, meta_of, table_type
from ops.settings.load import ENV_FOREIGN, LoadedSettings
from ops.store.url import mask_password

_MASK = "********"
#: Before the host of any address, of a webhook for instance; the store's are ``mask_password``'s.
_LOGIN = re.compile(r"(?<=://)([^/@:\s]*):[^/@\s]+@")


class SettingRow(NamedTuple):
    """One setting; a secret's value is masked.

    What stands in a table bears the table's name and a dot before its own: ``rest.rate_per_s``.
    """

    name: str
    value: Any
    source: str
    help: str


def rows_of(loaded: LoadedSettings) -> list[SettingRow]:
    """Give every setting, in the order of their table; after a fixed table comes what stands in it."""
    rows: list[SettingRow] = []
    for field in msgspec.structs.fields(loaded.settings):
        name, value = field.name, getattr(loaded.settings, field.name)
        rows.append(SettingRow(name, _shown(field, value), loaded.sources[name], _help(field.type)))
        rows += _rows_in(name, field.type, value, loaded.written)
    return rows


def foreign_rows(environ: Mapping[str, str]) -> list[SettingRow]:
    """Give the variables of other tools that the bridge honours, keys masked.

    Args:
        environ: The environment to look into; the workers' own may differ.
    """
    rows = []
    for name in ENV_FOREIGN:
        value = environ.get(name, "")
        shown = mask_password(value) if not name.endswith("_KEY") or value == "" else _MASK
        owner = name.partition("_")[0].lower()
        said = f"A variable of the tools of {owner}; it counts as it is set where the workers run."
        rows.append(SettingRow(name, shown, "environment" if value else "default", said))
    return rows


def _rows_in(place: str, kind: Any, value: Any, written: frozenset[str]) -> Iterator[SettingRow]:
    if table_type(kind) is None or value is None:
        return
    shown = msgspec.to_builtins(_without_secrets(value))
    for field in msgspec.structs.fields(value):
        name = f"{place}.{field.name}"
        source = "3ox.toml" if name in written else "default"
        yield SettingRow(name, shown[field.name], source, _help(field.type))
        yield from _rows_in(name, field.type, getattr(value, field.name), written)


def _shown(field: msgspec.structs.FieldInfo, value: Any) -> Any:
    if meta_of(field.type).extra == SECRET and value != "":
        return mask_password(value) if field.name.endswith("_url") else _MASK
    return msgspec.to_builtins(_without_secrets(value))


def _without_secrets(value: Any) -> Any:
    """Mask the secrets in a value: in the tables below it, and passwords in addresses."""
    if isinstance(value, dict):
        return {name: _without_secrets(item) for name, item in value.items()}
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
    """Give what a setting is for: the outermost description, or what a table says of itself."""
    while True:
        if get_origin(kind) is Annotated:
            metas = [extra for extra in get_args(kind)[1:] if isinstance(extra, msgspec.Meta)]
            said = [meta.description for meta in metas if meta.description is not None]
            if said:
                return said[-1]
            kind = get_args(kind)[0]
        elif get_origin(kind) in (Union, types.UnionType):
            kind = next(arm for arm in get_args(kind) if arm is not type(None))
        else:
            table = table_type(kind)
            return "" if table is None else (table.__doc__ or "").partition("\n")[0].replace("``", "`")
