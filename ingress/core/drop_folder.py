"""Put files into the drop folder under a name that the station accepts; never replace a file.

Used by every interface that receives files: ``3ox drop``, uploads over REST, documents from chats.
"""

from __future__ import annotations

import errno
import fnmatch
import os
import re
import shutil
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from middleware.job.ids import new_job_id
from ops.drop_folder_layout import (
    NAME_MAX_BYTES,
    NOTE_MAX_BYTES,
    NOTE_SUFFIX,
    OWN_NAMES,
    RESERVED_FOLDERS,
    shortened,
)
from ops.errors import BridgeError, UsageProblem
from ops.files import NotAFile, open_file, publish_draft, write_new
from ops.settings.load import LoadedSettings

_NAMES_MAX = 1000


class AcceptedNames:
    """Decides which file names in the drop folder the station accepts.

    Args:
        ignore: Patterns of names to ignore; the bridge's own temporary names are always ignored.
    """

    def __init__(self, ignore: Sequence[str]) -> None:
        self._ignored = re.compile("|".join(fnmatch.translate(pattern) for pattern in (*OWN_NAMES, *ignore)))

    def is_ignored(self, name: str) -> bool:
        """Return whether the station ignores files of this name."""
        return self._ignored.match(name) is not None

    def accepted(self, name: str, interface: str) -> str:
        """Return a name that the station accepts, as close as possible to the one given.

        Args:
            name: Name of a file at the top of the drop folder.
            interface: Word added to a name that would otherwise be ignored.
        """
        if name in RESERVED_FOLDERS or self.is_ignored(name):
            name = f"{interface}-{name.lstrip('.~$')}"
        return f"{name}.{interface}" if self.is_ignored(name) else name


def utf8_name(name: str) -> str:
    """Return a file name in valid UTF-8, as a job can carry it; other bytes become question marks."""
    return name.encode("utf-8", "replace").decode()


def file_name(text: str) -> str:
    """Return the last part of an untrusted path as a valid file name.

    Args:
        text: From an upload, a chat or a command line.
    """
    name = utf8_name(text).replace("\\", "/").rstrip("/").rpartition("/")[2].replace("\0", "")
    name = name if name not in ("", ".", "..") else "file"
    return shortened(name, max_bytes=NAME_MAX_BYTES - len(NOTE_SUFFIX))


def check_note(note: str | None) -> None:
    """Check the length of a note.

    Raises:
        UsageProblem: The note is too long.
    """
    if note is not None and len(note.encode("utf-8", "replace")) > NOTE_MAX_BYTES:
        raise UsageProblem(
            f"The note is longer than {NOTE_MAX_BYTES} bytes.", remedy="Drop it as a file of its own."
        )


def drop(loaded: LoadedSettings, source: Path, *, note: str | None = None) -> Path:
    """Copy a file into the drop folder in one step.

    A name that is taken gets a number; a name that the station ignores is changed.

    Args:
        loaded: Settings and workspace.
        source: The file to copy.
        note: Text of the companion ``NAME.note.txt``.

    Returns:
        Path of the copy.

    Raises:
        UsageProblem: ``source`` is not a regular file or cannot be read, or the note is too long.
        BridgeError: The copy failed.
    """
    check_note(note)
    try:
        source_fd = open_file(Path(os.path.realpath(source)))
    except NotAFile as error:
        raise UsageProblem(f"{str(source)!r} is not a file.", remedy="Name files, not folders.") from error
    except OSError as error:
        raise UsageProblem(
            f"{str(source)!r} cannot be read: {error.strerror}.", remedy="Check its name and mode."
        ) from error
    folder = loaded.workspace.inbox
    names = AcceptedNames(loaded.settings.station.ignore)
    name = file_name(names.accepted(file_name(source.name), "drop"))
    # The station ignores names of this pattern.
    draft = folder / f".3ox-drop-{new_job_id()}.part"
    try:
        with os.fdopen(source_fd, "rb") as file, draft.open("xb") as copy:
            shutil.copyfileobj(file, copy, 1_048_576)
        return publish(draft, lambda number: name if number == 1 else shortened(name, f"-{number}"), note)
    except OSError as error:
        raise BridgeError(
            f"{str(source)!r} cannot be dropped: {error.strerror}.",
            remedy="Check the disk and the mode of IN1N.3OX.",
        ) from error
    finally:
        draft.unlink(missing_ok=True)


def publish(draft: Path, name_of: Callable[[int], str], note: str | None) -> Path:
    """Rename a draft to the first free name, its note first; an existing file is never replaced.

    Args:
        draft: The complete file in the drop folder, under a name that the station ignores.
        name_of: Returns the candidate names, numbered from 1.
        note: Text of the companion ``NAME.note.txt``. Empty: no note, and the name must not have the note
            of another file beside it. None: a note that exists beside the name belongs to this file.

    Returns:
        The new path.

    Raises:
        FileExistsError: 1,000 names are taken.
        OSError: The file or its note cannot be written; the draft stays.
    """
    data = b"" if note is None else note.encode(errors="replace")
    for number in range(1, _NAMES_MAX + 1):
        wanted = draft.with_name(name_of(number))
        companion = wanted.with_name(shortened(wanted.name + NOTE_SUFFIX))
        existing = _existing_note(companion, data)
        if os.path.lexists(wanted) or (note is not None and existing == "foreign"):
            continue
        made_note = False
        try:
            if data and existing == "none":
                # Before the file: the station must not see the file without its note. Same mode as the file.
                mode = stat.S_IMODE(draft.stat().st_mode)
                note_draft = draft.with_suffix(".note.part")
                write_new(companion, data, note_draft.name, mode=mode)
                made_note = True
            publish_draft(draft, wanted)
        except OSError as error:
            if made_note:
                companion.unlink(missing_ok=True)
            if isinstance(error, FileExistsError):
                continue
            raise
        return wanted
    raise FileExistsError(errno.EEXIST, "there are too many files of this name", name_of(1))


def _existing_note(companion: Path, data: bytes) -> Literal["none", "own", "foreign"]:
    """Return whose note exists beside a name.

    A note with the same text is our own, from an attempt that was killed before it renamed the file.
    """
    try:
        with os.fdopen(open_file(companion), "rb") as file:
            return "own" if file.read(len(data) + 1) == data else "foreign"
    except FileNotFoundError:
        return "none"
    except OSError:
        return "foreign"
