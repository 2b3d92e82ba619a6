"""What every table of settings is made of: the base, the kinds of values, the mark of a secret.

The modules of the tables (``settings_ask``, ``settings_station``, ...) keep their annotations as text, which
is made into types when a table is first read from a file: most commands never need them.
"""

from typing import Annotated

from msgspec import Meta, Struct

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
