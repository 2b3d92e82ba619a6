"""The environment of this process: the only module that reads or changes ``os.environ``.

Values come from shells, unit files, ``.env`` files and container definitions, which add white space, carriage
returns and byte order marks that their authors do not see. ``variable`` removes them, and an empty value
counts as unset. Values from files (names of paths, secrets) go through ``normalized`` as well.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from ops.errors import SettingsError

#: What commands, git and other children inherit so that they reach the network as the bridge does.
NETWORK_VARIABLES = (
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
    *("http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR"),
)
#: Byte order mark that editors put at the beginning of a file.
BOM = b"\xef\xbb\xbf"
_BOM = BOM.decode()


def normalized(text: str) -> str:
    """Return a value without surrounding white space, carriage returns and byte order marks."""
    return text.strip().strip(_BOM).strip()


def variable(name: str, environ: Mapping[str, str] | None = None) -> str:
    """Return the value of an environment variable, or an empty text if it is unset or blank.

    Args:
        name: Its name.
        environ: The environment to read; that of the process when None.
    """
    return normalized((os.environ if environ is None else environ).get(name, ""))


def variables(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return all variables that are set, with normalized values.

    Args:
        environ: The environment to read; that of the process when None.
    """
    items = (os.environ if environ is None else environ).items()
    return {name: value for name, text in items if (value := normalized(text)) != ""}


def selected(names: Iterable[str]) -> dict[str, str]:
    """Return the named variables as they are, empty ones included; for the environment of a child process."""
    return {name: os.environ[name] for name in names if name in os.environ}


def for_child(more: Mapping[str, str] | None = None, *, without: Iterable[str] = ()) -> dict[str, str]:
    """Return a copy of the environment of this process, for one that it starts.

    Args:
        more: Variables to add or replace.
        without: Names of variables to leave out.
    """
    left_out = frozenset(without)
    inherited = {name: value for name, value in os.environ.items() if name not in left_out}
    return inherited | ({} if more is None else dict(more))


def export(values: Mapping[str, str]) -> None:
    """Set variables of this process, for libraries that read the environment by themselves."""
    os.environ.update(values)


def expand_home(path: str, where: str, environ: Mapping[str, str] | None = None) -> str:
    """Return a path with ``~`` and ``~USER`` replaced by the home directory.

    Args:
        path: The path.
        where: The variable or setting that contains it, for the error.
        environ: The environment whose ``HOME`` counts; that of the process when None.

    Raises:
        SettingsError: The home directory does not exist.
    """
    if not path.startswith("~"):
        return path
    user, slash, rest = path.partition("/")
    home = variable("HOME", environ) if user == "~" else ""
    found = home if home != "" else os.path.expanduser(user)  # noqa: PTH111 (Path raises another error)
    if found.startswith("~"):
        raise SettingsError(
            f"{where}: the home directory in {path!r} is unknown; HOME is not set and the user has none.",
            remedy="Set BRIDGE_HOME to the absolute path of the workspace."
            if where.startswith("BRIDGE_HOME")
            else "Write an absolute path.",
        )
    return found.rstrip("/") + slash + rest if rest or slash else found
