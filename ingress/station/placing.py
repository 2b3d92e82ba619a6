"""Gives a draft in the drop folder its name, its note first; what lies there already is never replaced.

All doors that receive files come here: ``3ox drop``, uploads, chats.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from ops.dropfolder import NOTE_SUFFIX, shortened
from ops.files import appear, open_file, write_new

_TRIES_MAX = 1000


def lay(draft: Path, name_of: Callable[[int], str], note: str | None) -> Path:
    """Give a draft the first name that is free.

    Args:
        draft: The whole file, in the drop folder, under a name that no station takes.
        name_of: Gives the name to be tried, from 1.
        note: Becomes its companion ``NAME.note.txt``. Empty: it has none, and must not be given another
            file's; None: one that lies there already is its own.

    Returns:
        Where it lies now.

    Raises:
        FileExistsError: A thousand names are taken.
        OSError: It cannot be done; the draft stays.
    """
    data = b"" if note is None else note.encode(errors="replace")
    for number in range(1, _TRIES_MAX + 1):
        wanted = draft.with_name(name_of(number))
        companion = wanted.with_name(shortened(wanted.name + NOTE_SUFFIX))
        beside = _beside(companion, data)
        if os.path.lexists(wanted) or (note is not None and beside == "another"):
            continue
        made_note = False
        try:
            if data and beside == "none":
                # First: the station must not see the file without it. As open to others as the file is.
                mode = stat.S_IMODE(draft.stat().st_mode)
                note_draft = draft.with_suffix(".note.part")
                write_new(companion, data, note_draft.name, mode=mode)
                made_note = True
            appear(draft, wanted)
        except OSError as error:
            if made_note:
                companion.unlink(missing_ok=True)
            if isinstance(error, FileExistsError):
                continue
            raise
        return wanted
    raise FileExistsError(errno.EEXIST, "there are too many files of this name", name_of(1))


def _beside(companion: Path, data: bytes) -> Literal["none", "ours", "another"]:
    """Tell whose note lies beside a name.

    One that says the same is our own, of a try that was killed before its file was there.
    """
    try:
        with os.fdopen(open_file(companion), "rb") as file:
            return "ours" if file.read(len(data) + 1) == data else "another"
    except FileNotFoundError:
        return "none"
    except OSError:
        return "another"
