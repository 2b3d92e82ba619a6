"""Puts files that came with a message into the drop folder, whole and under a harmless name."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Awaitable, Callable
from pathlib import Path

from ingress.telegram.owed import Attachment

#: Of a name in the drop folder; with the counter, the note's ending and ``.part`` it stays below 255 bytes.
_NAME_MAX_BYTES = 150
_SUFFIX_MAX_BYTES = 20
_TRIES = 100


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
    inbox: Path,
    fallback: str,
    fetch: Callable[[str, Path], Awaitable[int]],
) -> tuple[str, int]:
    """Fetch a file into the drop folder; it appears there in one step, its note just before it.

    Args:
        attachment: What is to be fetched.
        inbox: The drop folder.
        fallback: Name of a file that has none.
        fetch: Writes the file with this id to that path and gives its size in bytes.

    Returns:
        The name that it got, and its size in bytes.

    Raises:
        OSError: It cannot be written.
    """
    name = harmless_name(attachment.name, fallback)
    draft = inbox / f".{fallback}.part"
    try:
        size_bytes = await fetch(attachment.file_id, draft)
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        final = _free(inbox, name, attachment.caption)
        if attachment.caption:
            _write_note(final, attachment.caption)
        draft.rename(final)
    finally:
        draft.unlink(missing_ok=True)
    return final.name, size_bytes


def _free(inbox: Path, name: str, caption: str) -> Path:
    """Give a path that nothing has: the station may still be at work on a file of the same name.

    A note that says the same is our own, of a try that was killed before its file was there.
    """
    stem, dot, suffix = name.rpartition(".")
    if not dot:
        stem, suffix = name, ""
    for number in range(1, _TRIES):
        path = inbox / (name if number == 1 else f"{stem}-{number}{dot}{suffix}")
        note = _note_of(path)
        ours = not note.exists() or note.read_text(encoding="utf-8", errors="replace") == caption
        if ours and not path.exists():
            return path
    raise FileExistsError(17, f"there are {_TRIES} files of this name", name)


def _note_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.note.txt")


def _write_note(path: Path, text: str) -> None:
    note = _note_of(path)
    draft = note.with_name(f".{note.name}.part")
    draft.write_text(text, encoding="utf-8", errors="replace")
    draft.rename(note)
