"""The result of ``ingest.file``."""

from __future__ import annotations

from msgspec import Struct


class IngestResult(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What has become of a file.

    Attributes:
        action: What was done: EDIT, MOVE, PROJECT, CODEX, GROUP, ARCHIVE or REFERENCE.
        path: Where the file is now, relative to the workspace.
        name: Under which name it was dropped.
        folder: In which folder below the drop folder.
        sha256: Of its content.
        size_bytes: Of its content.
        media_type: What it is.
        reason: Why this action.
        by: Who decided: ``rule N``, ``PROVIDER/MODEL`` or ``default``.
        made: All that was made, relative to the workspace.
        note: What came with it.
        links: What it has to do with.
        priority: 1 is first, 10 last.
        remarks: What was refused or fell back on the way.
    """

    action: str
    path: str
    name: str
    folder: str = ""
    sha256: str
    size_bytes: int
    media_type: str
    reason: str
    by: str
    made: list[str]
    note: str | None = None
    links: list[str] = []
    priority: int = 5
    remarks: list[str] = []
