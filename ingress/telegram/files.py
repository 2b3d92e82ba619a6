"""Puts files that came with a message into the drop folder, whole and under a harmless name."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Awaitable, Callable
from pathlib import Path

from ingress.core.drop_folder import AcceptedNames, publish
from ingress.telegram.pending_reply import Attachment
from ops.dropfolder import shortened

#: Of a name in the drop folder; with the counter, the note's ending and ``.part`` it stays below 255 bytes.
_NAME_MAX_BYTES = 150
_SUFFIX_MAX_BYTES = 20


def harmless_name(given: str, fallback: str) -> str:
    """Make a file name out of what the sender calls a file: no path, nothing hidden, nothing unprintable.

    Args:
        given: Any text.
        fallback: Used if nothing of it is left.
    """
    last = unicodedata.normalize("NFC", given).replace("\\", "/").rpartition("/")[2]
    plain = "".join(letter if letter.isprintable() else "_" for letter in last).strip(" .")
    # A note of its own name would be taken for the companion of another file.
    if plain.lower().endswith(".note.txt"):
        plain = plain[: -len(".note.txt")] + "-note.txt"
    stem, dot, suffix = plain.rpartition(".")
    if not dot or len(suffix.encode(errors="replace")) > _SUFFIX_MAX_BYTES:
        stem, suffix = plain, ""
    end = f".{suffix}" if suffix else ""
    room = _NAME_MAX_BYTES - len(end.encode(errors="replace"))
    stem = stem.encode(errors="replace")[:room].decode(errors="ignore").strip(" .~$")
    return (stem + end) if stem else fallback + end


async def lay_down(
    attachment: Attachment,
    folder: Path,
    names: AcceptedNames,
    fallback: str,
    fetch: Callable[[str, Path], Awaitable[int]],
) -> tuple[str, int]:
    """Fetch a file into the drop folder; it appears there in one step, its note just before it.

    Args:
        attachment: What is to be fetched.
        folder: The drop folder.
        names: Names that the station accepts.
        fallback: Name of a file that has none.
        fetch: Writes the file with this id to that path and gives its size in bytes.

    Returns:
        The name that it got, and its size in bytes.

    Raises:
        OSError: It cannot be written.
    """
    name = names.accepted(harmless_name(attachment.name, fallback), "telegram")
    draft = folder / f".{fallback}.part"
    try:
        size_bytes = await fetch(attachment.file_id, draft)
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        final = publish(
            draft,
            lambda number: name if number == 1 else shortened(name, f"-{number}"),
            attachment.caption,
        )
    finally:
        draft.unlink(missing_ok=True)
    return final.name, size_bytes
