"""The drop folder, and what becomes of the files in it: ``[station]``."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, field

from ops.settings.kinds import Seconds, Table


class StationRule(Table, frozen=True, kw_only=True):
    """Where files of a kind go: ``[[station.rules]]``; the first that matches counts."""

    match: Annotated[
        str,
        Meta(
            min_length=1,
            description="Pattern like *.pdf for the name, invoices/* for the path in the drop folder,"
            " or type:image/* for the type; letter case does not matter.",
        ),
    ]
    action: Annotated[
        Literal["EDIT", "MOVE", "PROJECT", "CODEX", "GROUP", "ARCHIVE", "REFERENCE"],
        Meta(description="What is done with the file."),
    ] = "EDIT"
    to: Annotated[
        str | None,
        Meta(description="Folder in the workspace; the name of the project or group for PROJECT and GROUP."),
    ] = None


class StationSettings(Table, frozen=True, kw_only=True):
    """The drop folder and what becomes of the files in it: ``[station]``."""

    settle_s: Annotated[
        float,
        Meta(description="A file is taken when its size and time have stood still for so long.", ge=0),
    ] = 1.0
    rescan_s: Annotated[Seconds, Meta(description="The folder is looked through at least so often.")] = 30.0
    poll_s: Annotated[
        Seconds, Meta(description="The same where the file system tells of no changes (network shares).")
    ] = 2.0
    watch: Annotated[
        Literal["auto", "events", "polling"],
        Meta(description="How new files are noticed; auto tries events with a probe file."),
    ] = "auto"
    ignore: Annotated[
        list[str], Meta(description="Names that are left alone; patterns, for folders too.")
    ] = field(
        default_factory=lambda: [
            ".*",
            ".~*",
            "~$*",
            "*~",
            "*.part",
            "*.partial",
            "*.tmp",
            "*.temp",
            "*.crdownload",
            "*.download",
            "*.swp",
            "Thumbs.db",
            "desktop.ini",
            "lost+found",
        ],
    )
    note_wait_s: Annotated[
        float,
        Meta(description="NAME.note.txt waits so long for NAME before it is taken as a file itself.", ge=0),
    ] = 30.0
    same_content: Annotated[
        Literal["once", "by_name", "again"],
        Meta(
            description="Content that was taken before: answered with the first job, only under the same"
            " name, or taken again."
        ),
    ] = "once"
    tries: Annotated[
        int,
        Meta(description="A file that cannot be taken is tried so often before it goes to failed/.", ge=1),
    ] = 6
    free_min_bytes: Annotated[
        int, Meta(description="Nothing is taken while the disk has less room than this.", ge=0)
    ] = 67_108_864
    empty_folder_s: Annotated[
        float,
        Meta(description="An empty folder in the drop folder is removed after so long; 0: never.", ge=0),
    ] = 300.0
    understand: Annotated[
        bool,
        Meta(description="Ask a configured model what to do with a file that no rule matches."),
    ] = True
    text_max_bytes: Annotated[
        int, Meta(description="Of a file's text, so much is shown to the model.", ge=256, le=1_048_576)
    ] = 16_384
    text_timeout_s: Annotated[Seconds, Meta(description="Bound on the extraction of a document's text.")] = (
        60.0
    )
    text_memory_bytes: Annotated[
        int, Meta(description="Memory that the extraction of a document's text may use.", ge=67_108_864)
    ] = 2_147_483_648
    rules: Annotated[
        list[StationRule], Meta(description="[[station.rules]] match, action, to; before any model.")
    ] = field(default_factory=list)
