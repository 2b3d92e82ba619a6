"""What a program on a terminal takes from its user: the login name, and arguments as text."""

from __future__ import annotations

import os

from ops.errors import UsageProblem


def login_name() -> str:
    """Return the login name of this process's user; the numeric id if the user has no name."""
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def utf8(text: str, what: str) -> str:
    """Return the text, if a job can carry it.

    Raises:
        UsageProblem: The argument's bytes were not UTF-8.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageProblem(
            f"{what[:1].upper()}{what[1:]} is not valid UTF-8.", remedy="Pass it in a file."
        ) from error
    return text
