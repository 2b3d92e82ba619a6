"""Remove what is left behind: empty folders, abandoned drafts, undo journals past their retention."""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ingress.station.scanner import Scanner
from ops.settings.station import StationSettings

_DAY = re.compile(r"\d{4}-\d\d-\d\d")
#: Temporary names of uploads over REST, ``3ox drop`` and Telegram.
_DRAFT = re.compile(r"\.(upload|3ox-drop|telegram)-[0-9A-Za-z]+(\.note)?\.part")
#: A draft that has not changed for this long is abandoned.
_DRAFT_MAX_AGE_S = 86_400.0


def remove_empty_folders(scanner: Scanner, settings: StationSettings) -> list[str]:
    """Remove subfolders of the drop folder that have been empty for ``empty_folder_s`` seconds.

    Folders that a rule names stay.

    Args:
        scanner: Scans the drop folder.
        settings: The age, and the rules.

    Returns:
        Paths of the removed folders.
    """
    removed: list[str] = []
    if settings.empty_folder_s == 0:
        return removed
    named = {rule.match.lower().split("/", 1)[0] for rule in settings.rules if "/" in rule.match}
    for folder in reversed(scanner.scan().folders[1:]):
        place = Path(folder)
        if place.relative_to(scanner.root).parts[0].lower() in named:
            continue
        # Only rmdir can tell reliably whether the folder is empty.
        with contextlib.suppress(OSError):
            if time.time() - place.stat().st_mtime > settings.empty_folder_s:
                place.rmdir()
                removed.append(folder)
    return removed


def remove_old_drafts(inbox: Path) -> list[str]:
    """Remove temporary files of interfaces that were killed while they received a file.

    Args:
        inbox: The drop folder.

    Returns:
        Names of the removed files.
    """
    removed: list[str] = []
    for place in inbox.iterdir():
        # Already removed, or owned by another user.
        with contextlib.suppress(OSError):
            if _DRAFT.fullmatch(place.name) and time.time() - place.lstat().st_mtime > _DRAFT_MAX_AGE_S:
                place.unlink()
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
