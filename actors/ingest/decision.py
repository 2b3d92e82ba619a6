"""What is to be done with a file, and who says so."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from msgspec import Meta, Struct

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
