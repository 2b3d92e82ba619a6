"""The rules of 3ox.toml: ``[[station.rules]] match, action, to``; the first that matches counts."""

from __future__ import annotations

import fnmatch
import posixpath
from collections.abc import Sequence

from actors.ingest.decision import Decision
from middleware.job.types import IngestFilePayload
from ops.settings.station import StationRule

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
