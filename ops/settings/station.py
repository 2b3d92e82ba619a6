"""Settings of the drop folder: ``[station]``."""

from __future__ import annotations

import fnmatch
import posixpath
from typing import Annotated, Literal

from msgspec import Meta, field

from ops.settings.kinds import Seconds, Table

#: Prefix of a rule's pattern that matches the media type.
_TYPE_PREFIX = "type:"


def pattern_matches(pattern: str, *, name: str, folder: str, media_type: str) -> bool:
    """Return whether a rule's pattern matches a file, ignoring case.

    Args:
        pattern: Matches the media type with the prefix ``type:``, the path in the drop folder if it contains
            a slash, and the file name otherwise.
        name: Name of the file.
        folder: Folder in the drop folder.
        media_type: Its media type.
    """
    wanted = pattern.lower()
    if wanted.startswith(_TYPE_PREFIX):
        return fnmatch.fnmatchcase(media_type.lower(), wanted[len(_TYPE_PREFIX) :].strip())
    if "/" in wanted:
        return fnmatch.fnmatchcase(posixpath.join(folder, name).lower(), wanted)
    return fnmatch.fnmatchcase(name.lower(), wanted)


class StationRule(Table, frozen=True, kw_only=True):
    """A rule for dropped files: ``[[station.rules]]``; the first rule that matches decides."""

    match: Annotated[
        str,
        Meta(
            min_length=1,
            description="Pattern for the file name (*.pdf), the path in the drop folder (invoices/*) or the"
            " media type (type:image/*); case-insensitive.",
        ),
    ]
    action: Annotated[
        Literal["EDIT", "MOVE", "PROJECT", "CODEX", "GROUP", "ARCHIVE", "REFERENCE"],
        Meta(description="Action to carry out."),
    ] = "EDIT"
    to: Annotated[
        str | None,
        Meta(
            description="Target folder in the workspace, to which ARCHIVE adds YEAR/MONTH; for PROJECT and"
            " GROUP, the name of the project or group."
        ),
    ] = None


class StationSettings(Table, frozen=True, kw_only=True):
    """The drop folder: ``[station]``."""

    settle_s: Annotated[
        float,
        Meta(
            description="A file is claimed once its size and mtime are unchanged for this time, in seconds.",
            ge=0,
        ),
    ] = 1.0
    rescan_s: Annotated[
        Seconds, Meta(description="Longest interval between full scans of the folder, in seconds.")
    ] = 30.0
    poll_s: Annotated[
        Seconds,
        Meta(
            description="Scan interval where the file system reports no changes (network shares), in seconds."
        ),
    ] = 2.0
    watch: Annotated[
        Literal["auto", "events", "polling"],
        Meta(description="How new files are detected; `auto` tests with a probe file whether events arrive."),
    ] = "auto"
    ignore: Annotated[
        list[str],
        Meta(
            description="Patterns of file and folder names to ignore, added to the built-in patterns of"
            " temporary names; case-insensitive. `!PATTERN` switches a built-in one off."
        ),
    ] = field(default_factory=list)
    dot_files: Annotated[
        bool,
        Meta(
            description="Ingest files and folders whose names begin with a dot. Otherwise they stay, and"
            " `3ox status` counts them."
        ),
    ] = False
    note_wait_s: Annotated[
        float,
        Meta(
            description="Time that NAME.note.txt waits for NAME before it is claimed as a file of its own,"
            " in seconds.",
            ge=0,
        ),
    ] = 30.0
    same_content: Annotated[
        Literal["once", "by_name", "again"],
        Meta(
            description="Whether a model is asked again about content that it has decided on: `once` uses its"
            " decision for the same content and note, `by_name` only under the same path, `again` never. Each"
            " file is a job of its own in any case."
        ),
    ] = "once"
    tries: Annotated[
        int,
        Meta(description="Number of attempts to submit a file before it is moved to failed/.", ge=1),
    ] = 6
    free_min_bytes: Annotated[
        int,
        Meta(description="No file is claimed while the disk has less free space than this, in bytes.", ge=0),
    ] = 67_108_864
    empty_folder_s: Annotated[
        float,
        Meta(
            description="Time after which an empty folder leaves the drop folder, in seconds: one that was"
            " dropped empty is a job, one whose files were claimed is removed; 0 keeps both.",
            ge=0,
        ),
    ] = 300.0
    understand: Annotated[
        bool,
        Meta(description="Ask a configured model what to do with a file that matches no rule."),
    ] = True
    text_max_bytes: Annotated[
        int,
        Meta(
            description="Maximum text of a file sent to the model, in bytes, from its beginning.",
            ge=256,
            le=1_048_576,
        ),
    ] = 16_384
    text_timeout_s: Annotated[
        Seconds, Meta(description="Timeout for extracting a document's text, in seconds.")
    ] = 60.0
    text_memory_bytes: Annotated[
        int, Meta(description="Memory limit for extracting a document's text, in bytes.", ge=67_108_864)
    ] = 2_147_483_648
    rules: Annotated[
        list[StationRule],
        Meta(
            description="Rules for dropped files, checked before a model is asked: [[station.rules]] match,"
            " action, to."
        ),
    ] = field(default_factory=list)
