"""Download attachments of messages into the drop folder, under a safe name."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Awaitable, Callable
from pathlib import Path

from ingress.core.drop_folder import AcceptedNames, publish
from ingress.telegram.pending_reply import Attachment
from ops.drop_folder_layout import shortened

#: Limit for a name, so that it stays below 255 bytes with a number, the suffix of the note and ``.part``.
_NAME_MAX_BYTES = 150
_SUFFIX_MAX_BYTES = 20


def safe_file_name(given: str, fallback: str) -> str:
    """Return a safe file name for an untrusted one: no path, not hidden, printable, not too long.

    Args:
        given: Any text.
        fallback: Used if nothing else is left.
    """
    last = unicodedata.normalize("NFC", given).replace("\\", "/").rpartition("/")[2]
    plain = "".join(letter if letter.isprintable() else "_" for letter in last).strip(" .")
    # The station would treat it as the note of another file.
    if plain.lower().endswith(".note.txt"):
        plain = plain[: -len(".note.txt")] + "-note.txt"
    stem, dot, suffix = plain.rpartition(".")
    if not dot or len(suffix.encode(errors="replace")) > _SUFFIX_MAX_BYTES:
        stem, suffix = plain, ""
    end = f".{suffix}" if suffix else ""
    room = _NAME_MAX_BYTES - len(end.encode(errors="replace"))
    stem = stem.encode(errors="replace")[:room].decode(errors="ignore").strip(" .~$")
    return (stem + end) if stem else fallback + end


async def download_attachment(
    attachment: Attachment,
    folder: Path,
    names: AcceptedNames,
    fallback: str,
    download: Callable[[str, Path], Awaitable[int]],
) -> tuple[str, int]:
    """Download an attachment into the drop folder; the complete file appears in one step, its note before it.

    Args:
        attachment: The attachment.
        folder: The drop folder.
        names: Names that the station accepts.
        fallback: Name of a file without one.
        download: Writes the file of an id to a path and returns its size in bytes.

    Returns:
        Name and size in bytes of the file.

    Raises:
        OSError: The file cannot be written.
    """
    name = names.accepted(safe_file_name(attachment.name, fallback), "telegram")
    draft = folder / f".{fallback}.part"
    try:
        size_bytes = await download(attachment.file_id, draft)
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
