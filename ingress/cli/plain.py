"""What commands share and what needs no click, so that the short way (``quick.py``) does without it."""

from __future__ import annotations

import os
import sys

from ops.errors import UsageProblem


def emit_json(document: bytes | object) -> None:
    """Write one JSON document to stdout, indented if a person reads it.

    Args:
        document: JSON as bytes, or what msgspec can encode.
    """
    import msgspec

    data = document if isinstance(document, bytes) else msgspec.json.encode(document)
    if sys.stdout.isatty():
        data = msgspec.json.format(data, indent=2)
    sys.stdout.flush()
    sys.stdout.buffer.write(data + b"\n")
    sys.stdout.buffer.flush()


def login_name() -> str:
    """Give the login name of whoever runs this process; the numeric id if it has none."""
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def utf8(text: str, what: str) -> str:
    """Give the text back if it is one that a job can carry.

    Raises:
        UsageProblem: The argument came in bytes that are no UTF-8.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageProblem(f"{what} is not valid UTF-8.", remedy="Pass it through a file.") from error
    return text
