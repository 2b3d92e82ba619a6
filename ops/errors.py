"""The exceptions of the bridge, in one tree.

An exception carries a message, a ``remedy`` for the reader, and the exit code of the command line. Cancelling
a job and its time limit are interrupts, not errors; see ``middleware.context``.

A message is a sentence of its own: it begins with a capital letter (or with a name, such as a path), quotes
the value at fault, and ends with a full stop. The remedy is one sentence in the imperative.
"""

from __future__ import annotations

import errno
from typing import ClassVar


class BridgeError(Exception):
    """Base of all errors that the bridge raises on purpose.

    Parameters:
        message: What is wrong, one sentence; the first line of the class docstring by default.
        remedy: What to do about it, one sentence.

    Attributes:
        exit_code: Exit code of ``3ox`` when this error ends a command.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str = "", *, remedy: str = "") -> None:
        doc = (type(self).__doc__ or "").strip().split("\n", maxsplit=1)[0]
        self.message = message if message else doc
        self.remedy = remedy
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()


class UsageProblem(BridgeError):
    """The command was used incorrectly.

    ``3ox COMMAND --help`` lists arguments and options.
    """

    exit_code = 2


class SettingsError(UsageProblem):
    """A setting is unknown or its value is not valid.

    The message names the file or environment variable and the key; correct it there. ``3ox config`` lists all
    settings.
    """


class InvalidJob(UsageProblem):
    """The job does not match its schema.

    Correct the field that the message names.

    Parameters:
        field: Dotted name of the field at fault, such as ``payload.argv``; empty if unknown.
    """

    def __init__(self, message: str = "", *, remedy: str = "", field: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.field = field


class UnknownProject(UsageProblem):
    """The project is not in 3ox.toml.

    Add it as ``[projects.NAME]``, or correct the name.
    """


class AmbiguousJobId(UsageProblem):
    """The shortened job ID matches more than one job.

    Use more characters of the ID.
    """


class WrongState(UsageProblem):
    """The job is not in a state that allows this.

    Raised by cancel, retry, approve, deny and undo; ``3ox jobs ID`` shows the state.
    """


class StoreUnreachable(BridgeError):
    """The store does not answer.

    Start it (``3ox up`` for the embedded one) or correct ``redis_url``. Daemons retry by themselves.
    """

    exit_code = 3


class StoreTimeout(StoreUnreachable):
    """The store received the command and did not reply in time.

    The command may have been carried out: check before repeating one that is not idempotent.
    """


class StoreError(BridgeError):
    """The store replied with an error.

    Parameters:
        code: First word of the reply, such as ``WRONGTYPE``.
    """

    exit_code = 3

    def __init__(self, message: str = "", *, remedy: str = "", code: str = "ERR") -> None:
        super().__init__(message, remedy=remedy)
        self.code = code


class RequestFailed(BridgeError):
    """A server did not answer an outgoing HTTP request.

    The message names the host, and the proxy if there is one. Repeating the request may help.
    """


class InvalidUrl(UsageProblem):
    """The URL of an outgoing HTTP request is not valid.

    Correct it in ``3ox.toml``. The message does not quote it, since it may contain a secret.
    """


class QueueFull(BridgeError):
    """The queue has reached its limit.

    Retry when jobs have been processed, start more workers, or raise ``queue_max``.
    """


class SpoolFull(BridgeError):
    """The store is unavailable and the spool is full.

    Retry when the store is back, or raise ``spool_max_bytes``.
    """


class JobNotFound(BridgeError):
    """No such job.

    It never existed here, or retention has removed it; ``3ox jobs`` lists the known ones.
    """

    exit_code = 4


class SessionNotFound(BridgeError):
    """No such session.

    ``3ox sessions`` lists the known ones.
    """

    exit_code = 4


class WaitTimeout(BridgeError):
    """The wait timed out before the job finished.

    The job is not affected; wait again or raise ``--timeout``.
    """

    exit_code = 124


class AlreadyRunning(UsageProblem):
    """Another process already serves this workspace.

    ``3ox status`` shows it; ``3ox down`` stops it.
    """


class StartFailed(BridgeError):
    """A process of the bridge did not start.

    The message quotes its last output; see ``3ox.log`` for the rest.
    """


class DiskFull(BridgeError):
    """The disk is full.

    The message names the folder; free some space on its disk.
    """


class LeadershipLost(BridgeError):
    """Leadership was lost; the write was discarded.

    Another scheduler leads now. No action is needed.
    """


class LedgerBroken(BridgeError):
    """The ledger cannot be written or fails verification.

    ``3ox verify`` names the line at fault.
    """


class HistoryBroken(BridgeError):
    """The history database cannot be read or written.

    Check free disk space and permissions of ``.3ox/history.db``.
    """


class JobFailed(BridgeError):
    """The job failed.

    Raised by actors; the job is retried as often as its ``max_retries`` allows.
    """


class JobParked(JobFailed):
    """The job waits for a service that named the time to retry.

    The attempt is not counted against ``max_retries``.

    Parameters:
        after_s: Time until the next attempt, in seconds.
        limit_s: Limit of all such waits of one job together, in seconds, besides the job's own timeout.
    """

    def __init__(self, message: str = "", *, after_s: float, limit_s: float, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.after_s = after_s
        self.limit_s = limit_s


class JobRefused(JobFailed):
    """The job cannot succeed as it is.

    Raised by actors; the job fails at once and is not retried. Correct it and submit it again.
    """


class PolicyDenied(JobRefused):
    """The access policy in 3ox.toml does not allow this job.

    Raised when the job is submitted, and checked again before it runs. See ``[[policy]]``.
    """

    exit_code = 2


def is_disk_full(error: OSError) -> bool:
    """Return whether an error of the system means that the disk, or the user's quota of it, is full."""
    return error.errno in {errno.ENOSPC, errno.EDQUOT}
