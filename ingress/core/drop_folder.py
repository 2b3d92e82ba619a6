"""Names of files that come in: which ones the station ignores, and how a sender's name is made safe."""

from __future__ import annotations

import os
import unicodedata
from typing import Literal

from ops import ignored_names
from ops.drop_folder_layout import NAME_MAX_BYTES, NOTE_MAX_BYTES, NOTE_SUFFIX, OWN_NAMES, shortened
from ops.errors import UsageProblem
from ops.settings.station import StationSettings

#: Room for the suffix of the note, and for a job id if the name is in use.
_NAME_MAX_BYTES = NAME_MAX_BYTES - 48
#: A longer end of a name is not a suffix.
_SUFFIX_MAX_BYTES = 20

Ignored = Literal["", "own", "temporary name", "dot file"]


class AcceptedNames:
    """Decides which names in the drop folder the station ignores.

    Args:
        settings: Patterns, and whether dot files are ingested. The bridge's own temporary names are always
            ignored.
    """

    def __init__(self, settings: StationSettings) -> None:
        self._own = ignored_names.matcher(OWN_NAMES)
        self._temporary = ignored_names.matcher(ignored_names.patterns(settings.ignore))
        self._dot_files = settings.dot_files

    def why_ignored(self, name: str) -> Ignored:
        """Return why the station ignores files and folders of this name; empty if it does not."""
        if self._own.match(name) is not None:
            return "own"
        if self._temporary.match(name) is not None:
            return "temporary name"
        return "dot file" if name.startswith(".") and not self._dot_files else ""


def utf8_name(path: str) -> str:
    r"""Return a name or path in valid UTF-8, as a job can carry it; a byte ``E9`` becomes ``\xe9``.

    So two names that differ stay different, and a link is changed as the name of its target is.
    """
    try:
        path.encode()
    except UnicodeEncodeError:
        return "/".join(shortened(_escaped(part)) for part in path.split("/"))
    return path


def _escaped(name: str) -> str:
    try:
        return os.fsencode(name).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:
        # A lone surrogate of a sender, which stands for no byte.
        return name.encode("utf-8", "replace").decode()


def visible_name(name: str, interface: str) -> str:
    """Return a name that does not begin with a dot.

    Args:
        name: A file name.
        interface: Word that replaces the dots.
    """
    return f"{interface}-{name.lstrip('.')}" if name.startswith(".") else name


def received_name(given: str, interface: str) -> str:
    """Return the file name for one that a sender has chosen: its last part, printable, visible, not too long.

    Args:
        given: Any text; a path of Windows or Unix too.
        interface: Used if nothing is left, and in front of a name that begins with a dot.
    """
    last = utf8_name(given).replace("\\", "/").rstrip("/").rpartition("/")[2]
    # Neither control characters nor those that change the direction of the text, which could hide a suffix.
    plain = "".join(
        "_" if unicodedata.category(letter) in ("Cc", "Cf", "Zl", "Zp") else letter for letter in last
    )
    name = plain.strip()
    if name.strip(". ") == "":
        return f"{interface}-file"
    name = visible_name(name, interface)
    suffix = name.rpartition(".")[2]
    if len(suffix.encode()) > _SUFFIX_MAX_BYTES and len(name.encode()) > _NAME_MAX_BYTES:
        return name.encode()[:_NAME_MAX_BYTES].decode(errors="ignore")
    return shortened(name, max_bytes=_NAME_MAX_BYTES)


def check_note(note: str | None) -> None:
    """Check the length of a note.

    Raises:
        UsageProblem: The note is too long.
    """
    if note is not None and len(note.encode("utf-8", "replace")) > NOTE_MAX_BYTES:
        raise UsageProblem(
            f"The note is longer than {NOTE_MAX_BYTES} bytes.", remedy="Drop it as a file of its own."
        )


def note_name(name: str) -> str:
    """Return the name of the note of a file."""
    return shortened(name + NOTE_SUFFIX)
