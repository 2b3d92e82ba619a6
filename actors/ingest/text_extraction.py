"""Extracts the text of a file for a model; documents are read by a separate, limited program."""

from __future__ import annotations

import contextlib
import os
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

from actors.context import settings
from actors.ingest.extract_document import EXIT_MISSING
from actors.job_types.ingest_file import IngestFilePayload
from actors.process.child import Child, ChildTimedOut
from actors.process.command import inherited_env
from actors.process.output import Tail
from ops.files import open_file
from ops.filetype import EMPTY, is_text

_OFFICE = "application/vnd.openxmlformats-officedocument."
#: Media type -> file suffix for the extractor.
_DOCUMENTS = {
    "application/pdf": ".pdf",
    f"{_OFFICE}wordprocessingml.document": ".docx",
    f"{_OFFICE}spreadsheetml.sheet": ".xlsx",
    f"{_OFFICE}presentationml.presentation": ".pptx",
}
#: Larger documents are not read: the libraries hold the whole document in memory.
DOCUMENT_MAX_BYTES = 67_108_864
#: Bytes of HTML that are read per byte of text.
_MARKUP_FACTOR = 8


class Extract(NamedTuple):
    """Text of a file.

    Attributes:
        text: Its text, or the beginning of it; empty if there is none.
        truncated: Whether there is more.
        remark: Why the text is missing, one sentence; empty if there is text, or the type has none.
    """

    text: str
    truncated: bool = False
    remark: str = ""


def text_of(path: Path, payload: IngestFilePayload) -> Extract:
    """Return the beginning of a file's text.

    Args:
        path: The file.
        payload: Its name and media type.

    Raises:
        OSError: It cannot be read.
        JobInterrupted: The job was cancelled or ran out of time.
    """
    values = settings().settings.station
    kind = payload.media_type
    if kind == EMPTY:
        return Extract("", remark="The file is empty.")
    if kind in _DOCUMENTS:
        return _document(path, payload, _DOCUMENTS[kind])
    factor = _MARKUP_FACTOR if kind == "text/html" else 1
    with os.fdopen(open_file(path), "rb") as file:
        data = file.read(values.text_max_bytes * factor + 4)
    if not is_text(data):
        return Extract("")
    text = data.decode(errors="ignore")
    if kind == "text/html":
        text = _plain(text)
    cut = _cut(text, values.text_max_bytes)
    return _found(cut, truncated=len(cut) < len(text) or payload.size_bytes > len(data))


def _found(text: str, *, truncated: bool, hint: str = "") -> Extract:
    """Return the extract; text of white space only counts as none."""
    if text.strip():
        return Extract(text, truncated=truncated)
    where = "the part of the file that was read" if truncated else "the file"
    return Extract("", remark=f"No text was found in {where}.{hint}")


def _cut(text: str, max_bytes: int) -> str:
    return text.encode("utf-8", "replace")[:max_bytes].decode(errors="ignore")


def _document(path: Path, payload: IngestFilePayload, suffix: str) -> Extract:
    loaded = settings()
    values = loaded.settings.station
    if payload.size_bytes > DOCUMENT_MAX_BYTES:
        return Extract("", remark=f"The document was not read: it is larger than {DOCUMENT_MAX_BYTES} bytes.")
    script = Path(__file__).with_name("extract_document.py")
    child = Child(
        [
            *(sys.executable, "-I", str(script), str(path), suffix),
            *(str(values.text_memory_bytes), str(values.text_max_bytes + 1)),
        ],
        cwd=loaded.workspace.workdesk,
        env=inherited_env(),
        kill_grace_s=loaded.settings.kill_grace_s,
        timeout_s=values.text_timeout_s,
    )
    parts: list[str] = []
    errors = Tail(300)
    try:
        with contextlib.closing(child.pieces()) as pieces:
            for stream, piece in pieces:
                if stream == "out":
                    parts.append(piece)
                else:
                    errors.write(piece)
    except ChildTimedOut:
        return Extract(
            "", remark=f"The document was not read: it took longer than {values.text_timeout_s:g} s."
        )
    status = None if child.exit is None else child.exit.exit_status
    if status == EXIT_MISSING:
        return Extract(
            "",
            remark="The document was not read: the extra cmd-bridge[documents] is not installed.",
        )
    if status != 0:
        message = " ".join(str(errors).split())
        reason = message if message else f"the extractor ended with status {status}"
        return Extract("", remark=f"The document cannot be read: {reason}.")
    text = "".join(parts)
    cut = _cut(text, values.text_max_bytes)
    hint = " It may be a scan; text in images is not recognized." if suffix == ".pdf" else ""
    return _found(cut, truncated=len(cut) < len(text), hint=hint)


class _TextParser(HTMLParser):
    """Collects the visible text of an HTML page."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del attrs
        self._hidden += tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in ("script", "style") and self._hidden > 0
        if tag in ("p", "div", "li", "tr", "h1", "h2", "h3", "title"):
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.parts.append(data)


def _plain(markup: str) -> str:
    parser = _TextParser()
    parser.feed(markup)
    lines = (" ".join(line.split()) for line in "".join(parser.parts).splitlines())
    return "\n".join(line for line in lines if line)
