"""The mark of a job whose caller waits for it and passes its standard streams on."""

from __future__ import annotations

from typing import Any, Literal

from middleware.job.base import TIME_LIMIT_MAX_S, Job
from ops.settings.load import Settings

#: Key in a job's metadata that marks it. The value says what the caller passes on: ``stdin`` and the output,
#: or the ``output`` only.
ATTACHED = "attached"
AttachedMode = Literal["stdin", "output"]


#: Interfaces whose callers can be attached; from others the mark is text without a meaning.
_SOURCES = frozenset({"cli", "shell"})


def attached_mode(job: Job) -> AttachedMode | None:
    """Return what the caller of a job passes on; None if no caller is attached to it."""
    mode = job.metadata.get(ATTACHED) if job.source in _SOURCES else None
    return "stdin" if mode == "stdin" else "output" if mode == "output" else None


def attached_fields(settings: Settings, *, reads_input: bool, timeout_s: float | None) -> dict[str, Any]:
    """Return the fields of an attached ``shell.cmd`` job.

    The command ends when its caller does, so its time is not limited by default; and it has one attempt,
    because another one would repeat its output.

    Args:
        settings: Limits of the job types.
        reads_input: Whether the caller passes its stdin on.
        timeout_s: Its own time limit, in seconds.
    """
    overrides = settings.types.get("shell.cmd")
    if timeout_s is None and (overrides is None or overrides.timeout_s is None):
        timeout_s = TIME_LIMIT_MAX_S
    return {
        "timeout_seconds": timeout_s,
        "max_retries": 0,
        "metadata": {ATTACHED: "stdin" if reads_input else "output"},
    }
