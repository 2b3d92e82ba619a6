"""Media types of files, by content and name."""

from __future__ import annotations

import mimetypes
from pathlib import Path

#: Bytes at the beginning of a file that are examined.
HEAD_BYTES = 4096
BINARY = "application/octet-stream"
EMPTY = "inode/x-empty"
PLAIN = "text/plain"

#: Types of text that only the file name reveals.
_TEXT_BY_SUFFIX = {
    ".md": "text/markdown",
    ".markdown": "text/markdown",
    ".txt": PLAIN,
    ".log": PLAIN,
    ".csv": "text/csv",
    ".tsv": "text/tab-separated-values",
    ".json": "application/json",
    ".jsonl": "application/x-ndjson",
    ".html": "text/html",
    ".htm": "text/html",
    ".xml": "application/xml",
    ".svg": "image/svg+xml",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
    ".toml": "application/toml",
    ".py": "text/x-python",
    ".sh": "text/x-shellscript",
    ".js": "text/javascript",
    ".css": "text/css",
    ".c": "text/x-c",
    ".h": "text/x-c",
    ".rs": "text/x-rust",
    ".go": "text/x-go",
}
#: Formats that are zip archives; the name tells which one.
_ZIPPED_BY_SUFFIX = {
    ".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    ".pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    ".odt": "application/vnd.oasis.opendocument.text",
    ".ods": "application/vnd.oasis.opendocument.spreadsheet",
    ".epub": "application/epub+zip",
    ".jar": "application/java-archive",
}
_ZIP_MARK = b"PK\x03\x04"
#: Frequent types whose short signatures puremagic ranks below a misleading name.
_MARKS = (
    (b"%PDF-", "application/pdf"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x1f\x8b", "application/gzip"),
    (b"\x7fELF", "application/x-executable"),
)
#: puremagic's confidence is 0.1 per matched byte; three bytes match by chance.
_CONFIDENCE_MIN = 0.4


def is_text(head: bytes) -> bool:
    """Return whether the beginning of a file is UTF-8 text; its last character may be cut."""
    if b"\0" in head:
        return False
    try:
        head.decode()
    except UnicodeDecodeError as error:
        return error.start >= len(head) - 3 and error.reason == "unexpected end of data"
    return True


def media_type_of(path: Path, name: str) -> str:
    """Return the media type of a file.

    Text is classified by name, because source code or CSV has no signature; everything else by content,
    whatever its name.

    Args:
        path: The file to read.
        name: Its original name.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    return media_type_of_head(head, name)


def media_type_of_head(head: bytes, name: str) -> str:
    """Return the media type of a file from its first ``HEAD_BYTES``; see ``media_type_of``."""
    suffix = f".{name.rpartition('.')[2].lower()}" if "." in name else ""
    if head == b"":
        return EMPTY
    if is_text(head) and not head.startswith((b"%PDF-", b"{\\rtf", b"%!PS")):
        return _text_type(head, suffix, name)
    if head.startswith(_ZIP_MARK):
        return _ZIPPED_BY_SUFFIX.get(suffix, "application/zip")
    return _by_content(head, name)


def _text_type(head: bytes, suffix: str, name: str) -> str:
    known = _TEXT_BY_SUFFIX.get(suffix)
    if known is not None:
        return known
    if head.startswith(b"#!"):
        return "text/x-python" if b"python" in head.split(b"\n", 1)[0] else "text/x-shellscript"
    if head.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")):
        return "text/html"
    guessed = mimetypes.guess_type(name)[0]
    return guessed if guessed is not None and guessed.startswith("text/") else PLAIN


def _by_content(head: bytes, name: str) -> str:
    for mark, media_type in _MARKS:
        if head.startswith(mark):
            return media_type
    # Late import: its table of 3,000 signatures takes 50 ms to load, and most files are text.
    import puremagic

    try:
        found = puremagic.magic_string(head, filename=name)
    except (puremagic.PureError, ValueError):
        found = []
    likely = [match for match in found if match.confidence >= _CONFIDENCE_MIN and match.mime_type]
    return str(likely[0].mime_type) if likely else BINARY
