"""Names of temporary files and of system folders, which the station does not ingest.

A pattern matches the whole name of a file or folder, ignoring case. ``[station] ignore`` adds patterns;
``!PATTERN`` there switches one of these off.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable

from ops.errors import SettingsError

#: Switches a built-in pattern off.
NEGATION = "!"

#: Built-in patterns, by the programs that use such names.
BUILT_IN: dict[str, tuple[str, ...]] = {
    "browsers and download managers": (
        "*.part",
        "*.partial",
        "*.crdownload",
        "*.download",
        "*.opdownload",
        "*.fdmdownload",
        "*.aria2",
        "*.aria2__temp",
        "*.ytdl",
        "*.part-frag*",
    ),
    "torrent clients": ("*.!qb", "*.!ut", "*.!bt", "*.bc!", "*.parts"),
    "file transfer": (
        "*.filepart",
        "*.lftp-pget-status",
        "*.cyberducksegment",
        "*_.gstmp",
        ".*.[a-z0-9][a-z0-9][a-z0-9][a-z0-9][a-z0-9][a-z0-9]",
        ".~tmp~",
        ".in.*",
        ".pureftpd-upload.*",
        ".azdownload-*",
        ".pending-*",
    ),
    "synchronization": (
        ".syncthing.*.tmp",
        "~syncthing~*",
        ".stfolder",
        ".stversions",
        ".stignore",
        "*.!sync",
        ".sync_*.db*",
        "._sync_*.db*",
        ".owncloudsync.log*",
        ".*.~*",
        ".dropbox",
        ".dropbox.*",
        "*.drivedownload",
        "*.driveupload",
        ".unison.*",
    ),
    "network storage": (
        "@eadir",
        "#recycle",
        "#snapshot",
        "@tmp",
        "@recycle",
        "@recently-snapshot",
        ".@__thumb",
        ".recycle",
        ".nfs*",
        ".smbdelete*",
        ".fuse_hidden*",
    ),
    "editors": (
        "*~",
        "4913",
        "*.sw[opx]",
        ".*.sw?",
        "#*#",
        ".#*",
        ".~*",
        ".goutputstream-*",
        "*.kate-swp",
        "*___jb_tmp___",
        "*___jb_old___",
    ),
    "office programs": ("~$*", "*.tmp", "*.temp", "*.laccdb", "*.idlk", "*.dwl", "*.dwl2"),
    "macOS": (
        ".ds_store",
        "._*",
        "__macosx",
        "icon\r",
        ".localized",
        ".apdisk",
        ".spotlight-v100",
        ".trashes",
        ".fseventsd",
        ".temporaryitems",
        ".documentrevisions-v100",
        ".*.icloud",
    ),
    "Windows": (
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "$recycle.bin",
        "system volume information",
        "*:zone.identifier",
    ),
    "Linux": ("lost+found", ".trash-*"),
}
#: A file NAME is incomplete while NAME with one of these suffixes exists beside it: the control file of a
#: download, or the file that will replace an empty placeholder.
PARTIAL_SUFFIXES = (
    ".part",
    ".aria2",
    ".filepart",
    ".crdownload",
    ".opdownload",
    ".!qb",
    ".!ut",
    ".bc!",
    ".lftp-pget-status",
    ".ytdl",
)


def patterns(ignore: Iterable[str]) -> list[str]:
    """Return all patterns in force: the built-in ones and those of a setting, without those switched off.

    Args:
        ignore: ``[station] ignore``.
    """
    added = [pattern for pattern in ignore if not pattern.startswith(NEGATION)]
    removed = {pattern[len(NEGATION) :].lower() for pattern in ignore if pattern.startswith(NEGATION)}
    return [pattern for group in BUILT_IN.values() for pattern in group if pattern not in removed] + added


def matcher(wanted: Iterable[str]) -> re.Pattern[str]:
    """Return an expression that matches a name of any of these patterns, ignoring case."""
    return re.compile("|".join(map(fnmatch.translate, wanted)), re.IGNORECASE)


def check_ignore(ignore: Iterable[str]) -> None:
    """Check that each ``!PATTERN`` names a built-in pattern.

    Args:
        ignore: ``[station] ignore``.

    Raises:
        SettingsError: One does not.
    """
    known = [pattern for group in BUILT_IN.values() for pattern in group]
    for item in ignore:
        wanted = item[len(NEGATION) :].lower()
        if not item.startswith(NEGATION) or wanted in known:
            continue
        import difflib

        near = difflib.get_close_matches(wanted, known, n=1, cutoff=0.5)
        raise SettingsError(
            f"[station] ignore in 3ox.toml switches off {wanted!r}, which is not a built-in pattern.",
            remedy="Set dot_files = true."
            if wanted == ".*"
            else f"Did you mean {near[0]!r}?"
            if near
            else "docs/how-to/drop-folder.md lists the built-in patterns.",
        )
