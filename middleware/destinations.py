"""Which destinations receive a job's result; determined once, when the job is accepted.

The choice is stored with the job as text, ``outbox/*,webhook:ci/failed``: a destination and the final state
that it wants, ``*`` for every one. The script that finishes the job creates a delivery for each match.
``actors/deliver.py`` maps each kind of destination to the function that delivers to it.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

from middleware.job.schema import JOB_TYPES, Job
from ops.settings.results import destination_route
from ops.settings.table import Settings

OUTBOX, WEBHOOK, NOTIFY, TELEGRAM, PLUGIN = "outbox", "webhook", "notify", "telegram", "plugin"
#: Metadata of a job whose reply to a chat is a delivery. The bot answers its own jobs itself, because it
#: shows their progress in the same message.
REPLY_MARK, REPLY_BY_EGRESS = "reply", "egress"


class Destinations:
    """Determines the destinations of jobs.

    Args:
        settings: ``[deliver]``, ``[[webhook]]``, ``[[notify]]`` and ``[destinations]`` count.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._by_type: dict[str, str] = {}

    def of(self, job: Job) -> str:
        """Return a job's destinations in the form that ``enqueue`` takes; empty for none."""
        job_type = job.job_type
        known = self._by_type.get(job_type)
        if known is None:
            known = self._by_type[job_type] = ",".join(self._of_type(job_type))
        if job.metadata.get(REPLY_MARK) == REPLY_BY_EGRESS:
            return f"{known},{TELEGRAM}/*" if known else f"{TELEGRAM}/*"
        return known

    def _of_type(self, job_type: str) -> list[str]:
        settings = self._settings
        found = []
        if self._is_delivered(job_type):
            found.append(f"{OUTBOX}/*")
        for hook in settings.webhook:
            if _matches(job_type, hook.types):
                found += [f"{WEBHOOK}:{hook.name}/{state}" for state in dict.fromkeys(hook.when)]
        for at, entry in enumerate(settings.notify, start=1):
            if _matches(job_type, entry.types):
                # One delivery per address: when one of them fails, the others are not notified again.
                found += [
                    f"{NOTIFY}:{entry.name if entry.name else at}:{number}/{state}"
                    for number in range(1, len(entry.urls) + 1)
                    for state in dict.fromkeys(entry.when)
                ]
        for name, table in settings.destinations.items():
            route = destination_route(table)
            if _matches(job_type, route.types):
                found += [f"{PLUGIN}:{name}/{state}" for state in dict.fromkeys(route.when)]
        return found

    def _is_delivered(self, job_type: str) -> bool:
        """Return whether results of a job type are written to 0UT.3OX."""
        patterns = self._settings.deliver.types
        if patterns is not None:
            return _matches(job_type, patterns)
        declared = JOB_TYPES.get(job_type)
        return declared is not None and declared.delivers


def _matches(job_type: str, patterns: list[str]) -> bool:
    return any(fnmatchcase(job_type, pattern) for pattern in patterns)
