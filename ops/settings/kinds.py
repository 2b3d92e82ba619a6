"""Building blocks of the settings tables: base class, value types, the mark of a secret.

The table modules (``ops.settings.ask``, ``ops.settings.station``, ...) use postponed annotations, which are
evaluated when a table is first read from a file: most commands never need them.
"""

import re
import types
from typing import Annotated, Any, Union, get_args, get_origin

from msgspec import Meta, Struct

#: Names of keys whose text is a secret, in tables and log lines whose keys we do not define. The name of an
#: environment variable (``token_env``) is none.
_MASKED_NAME = r"(token|password|passwd|secret|api_?key|authorization|credential)(?!.*_env$)"
#: Marks a setting that is masked in listings and never logged.
SECRET = {"secret": True}

Port = Annotated[int, Meta(ge=0, le=65_535)]
Seconds = Annotated[float, Meta(gt=0)]
Name = Annotated[
    str,
    Meta(
        description="Use at most 64 letters, digits and . _ @ : + -, beginning with a letter or digit.",
        min_length=1,
        max_length=64,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._@:+-]*$",
    ),
]


class Table(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all settings tables: immutable, unknown keys are errors."""


def is_secret_name(name: str) -> bool:
    """Return whether the text under a key of this name is a secret."""
    return re.search(_MASKED_NAME, name, re.IGNORECASE) is not None


def secrets_in(value: Any, name: str = "") -> list[str]:
    """Return the secrets in a table whose keys we do not define, such as ``[destinations.NAME]``."""
    if isinstance(value, dict):
        return [secret for key, item in value.items() for secret in secrets_in(item, str(key))]
    if isinstance(value, list):
        return [secret for item in value for secret in secrets_in(item, name)]
    return [value] if isinstance(value, str) and is_secret_name(name) else []


def bare(kind: Any) -> Any:
    """Return an annotation without ``Annotated`` and ``| None``."""
    while True:
        if get_origin(kind) is Annotated:
            kind = get_args(kind)[0]
        elif get_origin(kind) in (Union, types.UnionType):
            kind = next(arm for arm in get_args(kind) if arm is not type(None))
        else:
            return kind


def plain(kind: Any) -> Any:
    """Return the class of an annotation's values, such as ``list`` for any list."""
    stripped = bare(kind)
    origin = get_origin(stripped)
    return stripped if origin is None else origin


def table_type(kind: Any) -> type[Struct] | None:
    """Return the table class of an annotation, or None if its values are not a table with fixed keys."""
    found = plain(kind)
    return found if isinstance(found, type) and issubclass(found, Struct) else None


def meta_of(kind: Any) -> Meta:
    """Return the ``Meta`` of an annotation; of several, the innermost with a description."""
    if get_origin(kind) is Annotated:
        metas = [extra for extra in get_args(kind)[1:] if isinstance(extra, Meta)]
        described = [meta for meta in metas if meta.description is not None]
        return (described or metas)[0]
    return Meta()
