"""What is cleared away in time: empty folders in the drop folder, journals that nobody will undo by."""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ingress.station.inbox import Inbox
from ops.settings.station import StationSettings

_DAY = re.compile(r"\d{4}-\d\d-\d\d")
#: Under these names REST, ``3ox drop`` and Telegram write what has not got its own name yet.
_DRAFT = re.compile(r"\.(upload|3ox-drop|telegram)-[0-9A-Za-z]+(\.note)?\.part")
#: Whoever still writes to a draft has done so within this time.
_DRAFT_S = 86_400.0


def remove_empty_folders(inbox: Inbox, settings: StationSettings) -> list[str]:
    """Remove folders that have been empty for long: those of a tree that was moved in, for instance.

    One that a rule names stays, and one that somebody is about to fill has not been empty for long.

    Args:
        inbox: The drop folder.
        settings: For how long, and the rules.

    Returns:
        What was removed.
    """
    removed: list[str] = []
    if settings.empty_folder_s == 0:
        return removed
    named = {rule.match.lower().split("/", 1)[0] for rule in settings.rules if "/" in rule.match}
    for folder in reversed(inbox.look().folders[1:]):
        place = Path(folder)
        if place.relative_to(inbox.root).parts[0].lower() in named:
            continue
        # One that is not empty says so itself, at the very moment: a look before could be outdated.
        with contextlib.suppress(OSError):
            if time.time() - place.stat().st_mtime > settings.empty_folder_s:
                place.rmdir()
                removed.append(folder)
    return removed


def remove_old_drafts(inbox: Path) -> list[str]:
    """Remove what uploads, ``3ox drop`` and Telegram were writing when they were killed.

    Args:
        inbox: The drop folder.

    Returns:
        Their names.
    """
    removed: list[str] = []
    for place in inbox.iterdir():
        # Gone again, or not ours to remove: then it is somebody else's.
        with contextlib.suppress(OSError):
            if _DRAFT.fullmatch(place.name) and time.time() - place.lstat().st_mtime > _DRAFT_S:
                place.unlink()
                removed.append(place.name)
    return removed


def forget_days(root: Path, *, keep_s: float) -> list[str]:
    """Delete the folders ``YYYY-MM-DD`` of days that have been over for so long.

    Args:
        root: Where they lie; need not exist.
        keep_s: In seconds.

    Returns:
        Which days.
    """
    last = f"{datetime.now(UTC) - timedelta(seconds=keep_s, days=1):%Y-%m-%d}"
    try:
        days = [folder for folder in root.iterdir() if _DAY.fullmatch(folder.name) and folder.name < last]
    except FileNotFoundError:
        return []
    for folder in days:
        shutil.rmtree(folder, ignore_errors=True)
    return [folder.name for folder in days]
