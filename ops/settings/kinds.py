"""What every table of settings is made of: the base, the kinds of values, the mark of a secret.

The modules of the tables (``settings_ask``, ``settings_station``, ...) keep their annotations as text, which
is made into types when a table is first read from a file: most commands never need them.
"""

import types
from typing import Annotated, Any, Union, get_args, get_origin

from msgspec import Meta, Struct

#: Marks a setting that is printed masked and never logged.
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


def bare(kind: Any) -> Any:
    """Strip ``Annotated`` and ``| None`` off an annotation."""
    while True:
        if get_origin(kind) is Annotated:
            kind = get_args(kind)[0]
        elif get_origin(kind) in (Union, types.UnionType):
            kind = next(arm for arm in get_args(kind) if arm is not type(None))
        else:
            return kind


def plain(kind: Any) -> Any:
    """Give the class of what an annotation stands for: ``list`` for a list of anything."""
    stripped = bare(kind)
    origin = get_origin(stripped)
    return stripped if origin is None else origin


def table_type(kind: Any) -> type[Struct] | None:
    """Give the table that an annotation stands for, or None if it is no table of fixed keys."""
    found = plain(kind)
    return found if isinstance(found, type) and issubclass(found, Struct) else None


def meta_of(kind: Any) -> Meta:
    """Give what an annotation says of its values; of several, the innermost that has a description."""
    if get_origin(kind) is Annotated:
        metas = [extra for extra in get_args(kind)[1:] if isinstance(extra, Meta)]
        described = [meta for meta in metas if meta.description is not None]
        return (described or metas)[0]
    return Meta()
