"""What is to be done with a file, and who says so."""

from __future__ import annotations

import fnmatch
import functools
import posixpath
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Literal, get_args

from msgspec import Meta, Struct

from middleware.job.ids import made_ms
from middleware.job.types import IngestFilePayload
from ops.settings.station import StationRule

Action = Literal["EDIT", "MOVE", "PROJECT", "CODEX", "GROUP", "ARCHIVE", "REFERENCE"]
ACTIONS: tuple[str, ...] = get_args(Action)


class Decision(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is to be done with a file.

    Attributes:
        action: One of the seven.
        reason: Why, one sentence.
        location: Folder in the workspace; for PROJECT and GROUP its name.
        links: What the file has to do with: words, names, addresses.
        priority: 1 is first, 10 last.
        by: Who decided: ``rule N``, ``PROVIDER/MODEL``, ``default``.
        notes: What was refused or fell back on the way, a sentence each.
    """

    action: Action
    reason: Annotated[str, Meta(max_length=500)] = ""
    location: Annotated[str, Meta(max_length=500)] | None = None
    links: Annotated[list[Annotated[str, Meta(max_length=300)]], Meta(max_length=20)] = []
    priority: Annotated[int, Meta(ge=1, le=10)] = 5
    by: str = "default"
    notes: list[str] = []


@functools.lru_cache(maxsize=256)
def day_of(job_id: str) -> datetime:
    """Give the moment in which a job was made, UTC."""
    return datetime.fromtimestamp(made_ms(job_id) / 1000, UTC)


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


_TYPE = "type:"


def matches(pattern: str, payload: IngestFilePayload) -> bool:
    """Tell whether a rule's pattern fits a file.

    Args:
        pattern: For the name; for the path below the drop folder if it holds a slash; for the media type
            after ``type:``. Letter case does not matter.
        payload: The file.
    """
    wanted = pattern.lower()
    if wanted.startswith(_TYPE):
        return fnmatch.fnmatchcase(payload.media_type.lower(), wanted[len(_TYPE) :].strip())
    if "/" in wanted:
        return fnmatch.fnmatchcase(posixpath.join(payload.folder, payload.name).lower(), wanted)
    return fnmatch.fnmatchcase(payload.name.lower(), wanted)


def decide_by_rules(rules: Sequence[StationRule], payload: IngestFilePayload) -> Decision | None:
    """Give what the first matching rule says, None if none matches."""
    for number, rule in enumerate(rules, start=1):
        if matches(rule.match, payload):
            return Decision(
                action=rule.action,
                location=rule.to,
                reason=f"rule {number} ({rule.match}) says so",
                by=f"rule {number}",
            )
    return None


def default_decision(*notes: str) -> Decision:
    """Give what is done with a file about which nobody says anything."""
    return Decision(action="EDIT", reason="no rule matches", notes=list(notes))
