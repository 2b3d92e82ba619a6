"""The decision about a file: its action, and the rules of 3ox.toml that choose it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Literal, get_args

from msgspec import Meta, Struct

from actors.job_types.ingest_file import IngestFilePayload
from middleware.job.ids import made_ms
from ops.settings.station import StationRule, pattern_matches

Action = Literal["EDIT", "MOVE", "PROJECT", "CODEX", "GROUP", "ARCHIVE", "REFERENCE"]
ACTIONS: tuple[str, ...] = get_args(Action)


class Decision(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What to do with a file.

    Attributes:
        action: The action.
        reason: Why, one sentence.
        location: Folder in the workspace; for PROJECT and GROUP its name.
        links: Subjects, names and addresses that the file is about.
        priority: From 1 (first) to 10 (last).
        by: Who decided: ``rule N``, ``PROVIDER/MODEL`` or ``default``.
        notes: What was refused or fell back to a default, one sentence each.
    """

    action: Action
    reason: Annotated[str, Meta(max_length=500)] = ""
    location: Annotated[str, Meta(max_length=500)] | None = None
    links: Annotated[list[Annotated[str, Meta(max_length=300)]], Meta(max_length=20)] = []
    priority: Annotated[int, Meta(ge=1, le=10)] = 5
    by: str = "default"
    notes: list[str] = []


class IngestResult(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Result of ``ingest.file``.

    Attributes:
        action: The action that was carried out.
        path: Where the file is now, relative to the workspace.
        name: Name under which it was dropped.
        folder: Folder in the drop folder in which it was dropped.
        sha256: SHA-256 of its content.
        size_bytes: Size of its content.
        media_type: Its media type.
        reason: Why this action.
        by: Who decided: ``rule N``, ``PROVIDER/MODEL`` or ``default``.
        made: Everything that was created, relative to the workspace.
        note: The note dropped with it.
        links: Subjects, names and addresses that the file is about.
        priority: From 1 (first) to 10 (last).
        remarks: What was refused, reused or left, or fell back to a default.
        same_as: Id of an earlier job of the same content.
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
    same_as: str = ""


@functools.lru_cache(maxsize=256)
def day_of(job_id: str) -> datetime:
    """Return the creation time of a job, UTC."""
    return datetime.fromtimestamp(made_ms(job_id) / 1000, UTC)


def decide_by_rules(rules: Sequence[StationRule], payload: IngestFilePayload) -> Decision | None:
    """Return the decision of the first matching rule, or None if none matches."""
    for number, rule in enumerate(rules, start=1):
        if matches(rule.match, payload):
            return Decision(
                action=rule.action,
                location=rule.to,
                reason=f"rule {number} ({rule.match}) matches",
                by=f"rule {number}",
            )
    return None


def matches(pattern: str, payload: IngestFilePayload) -> bool:
    """Return whether a rule's pattern matches a file; see ``ops.settings.station.pattern_matches``."""
    return pattern_matches(pattern, name=payload.name, folder=payload.folder, media_type=payload.media_type)


def default_decision(*notes: str) -> Decision:
    """Return the decision for a file that no rule and no model decides about: EDIT."""
    return Decision(action="EDIT", reason="no rule matches", notes=list(notes))
