"""Remove what is left behind: emptied folders, abandoned drafts, undo journals past their retention."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ingress.core.file_claims import STAGING_SUFFIX, remove_claim
from ingress.station.scanner import DroppedFile, ScannedFolder, open_folder
from ops.drop_folder_layout import CLAIMED
from ops.files import replace_file
from ops.settings.station import StationSettings

_DAY = re.compile(r"\d{4}-\d\d-\d\d")
#: Temporary names of uploads over REST, ``3ox drop`` and Telegram.
_DRAFT = re.compile(r"\.(upload|3ox-drop|telegram)-[0-9A-Za-z]+(\.note)?\.part")
#: Folders that are remembered for the next start.
_REMEMBERED_MAX = 20_000
#: A draft that has not changed for this long is abandoned.
_DRAFT_MAX_AGE_S = 86_400.0


class EmptyFolders:
    """Decides what happens to folders that have been empty for ``empty_folder_s`` seconds.

    A folder that has had an entry is removed: its files have been claimed. One that was dropped empty is part
    of what was dropped, and is claimed. Folders that a rule names stay.

    Args:
        settings: The age, and the rules.
        memory: File with the folders that have had an entry, for the next start of the station.
    """

    def __init__(self, settings: StationSettings, memory: Path) -> None:
        self._empty_folder_s = settings.empty_folder_s
        self._memory = memory
        self._named = {rule.match.lower().split("/", 1)[0] for rule in settings.rules if "/" in rule.match}
        self._filled: set[str] = self._saved()

    def take(self, folders: list[ScannedFolder]) -> list[DroppedFile]:
        """Remove emptied folders, and return those that were dropped empty.

        Args:
            folders: Of one scan, each after the one that contains it.
        """
        present = {item.entry.relative for item in folders}
        filled = (self._filled & present) | {item.entry.relative for item in folders if item.entries}
        if filled != self._filled:
            self._filled = filled
            self._save()
        if self._empty_folder_s == 0:
            return []
        entries = {item.entry.relative: item.entries for item in folders}
        dropped = []
        for item in reversed(folders):
            folder = item.entry
            if entries[folder.relative] or not self._is_due(folder):
                continue
            if folder.relative not in self._filled:
                dropped.append(folder)
                continue
            # Only rmdir can tell reliably whether the folder is empty.
            with contextlib.suppress(OSError), open_folder(folder) as outer:
                os.rmdir(folder.name, dir_fd=outer)
                if folder.folder in entries:
                    entries[folder.folder] -= 1
        return dropped

    def _saved(self) -> set[str]:
        try:
            return set(map(os.fsdecode, self._memory.read_bytes().split(b"\0")))
        except OSError:
            return set()

    def _save(self) -> None:
        # Before the first of them is claimed. Without the file, an emptied folder is claimed after a restart,
        # which does no harm.
        with contextlib.suppress(OSError):
            replace_file(self._memory, b"\0".join(map(os.fsencode, sorted(self._filled)[:_REMEMBERED_MAX])))

    def _is_due(self, folder: DroppedFile) -> bool:
        top = folder.relative.split("/", 1)[0].lower()
        return top not in self._named and time.time() - folder.mtime_ns / 1e9 > self._empty_folder_s


def remove_old_drafts(inbox: Path) -> list[str]:
    """Remove temporary files of interfaces that were killed while they received a file.

    Args:
        inbox: The drop folder.

    Returns:
        Names of the removed files and folders.
    """
    removed: list[str] = []
    drafts = [place for place in inbox.iterdir() if _DRAFT.fullmatch(place.name)]
    for place in (*drafts, *(inbox / CLAIMED).glob(f"*{STAGING_SUFFIX}")):
        # Already removed, or owned by another user.
        with contextlib.suppress(OSError):
            if time.time() - place.lstat().st_mtime > _DRAFT_MAX_AGE_S:
                place.unlink() if place.is_file() else remove_claim(place)
                removed.append(place.name)
    return removed


def remove_old_days(root: Path, *, keep_s: float) -> list[str]:
    """Remove folders ``YYYY-MM-DD`` of days that ended more than ``keep_s`` seconds ago.

    Args:
        root: Parent of the folders; may be missing.
        keep_s: Retention in seconds.

    Returns:
        Names of the removed folders.
    """
    last = f"{datetime.now(UTC) - timedelta(seconds=keep_s, days=1):%Y-%m-%d}"
    try:
        days = [folder for folder in root.iterdir() if _DAY.fullmatch(folder.name) and folder.name < last]
    except FileNotFoundError:
        return []
    for folder in days:
        shutil.rmtree(folder, ignore_errors=True)
    return [folder.name for folder in days]
