"""Chooses who gets a job's result; asked once, when the job is taken.

The choice travels with the job as text, ``outbox/*,webhook:ci/failed``: a sink and the end that it wants to
hear of, ``*`` for every end. Whichever script ends the job makes a delivery of each that fits, in that step.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

from middleware.job.schema import Job
from ops.settings.table import Settings

OUTBOX, WEBHOOK, NOTIFY, TELEGRAM = "outbox", "webhook", "notify", "telegram"
#: Metadata of a job that is answered in a chat by a delivery. The bot answers its own jobs itself, since it
#: shows their progress in the same message.
REPLY_MARK, REPLY_BY_EGRESS = "reply", "egress"


class Sinks:
    """Knows the sinks of each job type.

    Args:
        settings: What is delivered where.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._by_type: dict[str, str] = {}

    def of(self, job: Job) -> str:
        """Give a job's sinks as ``enqueue`` takes them; empty if nobody wants its result."""
        job_type = job.job_type
        known = self._by_type.get(job_type)
        if known is None:
            known = self._by_type[job_type] = ",".join(self._of_type(job_type))
        if job.metadata.get(REPLY_MARK) == REPLY_BY_EGRESS:
            return f"{known},{TELEGRAM}/*" if known else f"{TELEGRAM}/*"
        return known

    def _of_type(self, job_type: str) -> list[str]:
        settings = self._settings
        sinks = []
        if _fits(job_type, settings.deliver.types):
            sinks.append(f"{OUTBOX}/*")
        for hook in settings.webhook:
            if _fits(job_type, hook.types):
                sinks += [f"{WEBHOOK}:{hook.name}/{state}" for state in dict.fromkeys(hook.when)]
        for at, entry in enumerate(settings.notify, start=1):
            if _fits(job_type, entry.types):
                # One for each address: if one of them fails, the others are not told again.
                sinks += [
                    f"{NOTIFY}:{entry.name if entry.name else at}:{number}/{state}"
                    for number in range(1, len(entry.urls) + 1)
                    for state in dict.fromkeys(entry.when)
                ]
        return sinks


def _fits(job_type: str, patterns: list[str]) -> bool:
    return any(fnmatchcase(job_type, pattern) for pattern in patterns)
