"""Every error that the bridge raises on purpose, in one tree.

An error carries what happened (its message), what to do about it (``remedy``) and the exit code
of the command line. Interrupts (cancellation, time limit) are signals, not errors: see
``middleware.context``.
"""

from __future__ import annotations

from typing import ClassVar


class BridgeError(Exception):
    """Base of the tree.

    Parameters:
        message: What happened, one sentence; the class docstring's first line by default.
        remedy: What the reader can do about it, one sentence.

    Attributes:
        exit_code: What ``3ox`` exits with when this error ends a command.
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
    """The command was used wrongly."""

    exit_code = 2


class SettingsError(UsageProblem):
    """A setting is unknown or has a value that it cannot have."""


class InvalidJob(UsageProblem):
    """A job does not fit its schema.

    Parameters:
        field: Dotted name of the field at fault, ``payload.argv`` for instance; empty if unknown.
    """

    def __init__(self, message: str = "", *, remedy: str = "", field: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.field = field


class UnknownProject(UsageProblem):
    """No such project in 3ox.toml."""


class AmbiguousJobId(UsageProblem):
    """A shortened job id fits more than one job."""


class WrongState(UsageProblem):
    """The job is not in a state that allows this."""


class StoreUnreachable(BridgeError):
    """The store does not answer."""

    exit_code = 3


class StoreTimeout(StoreUnreachable):
    """The store took the command and did not answer in time."""


class StoreError(BridgeError):
    """The store answered with an error.

    Parameters:
        code: First word of the reply: ``OOM``, ``READONLY``, ``WRONGTYPE``, ...
    """

    exit_code = 3

    def __init__(self, message: str = "", *, remedy: str = "", code: str = "ERR") -> None:
        super().__init__(message, remedy=remedy)
        self.code = code


class QueueFull(BridgeError):
    """The queue has reached its limit; try again when it has drained."""


class SpoolFull(BridgeError):
    """The store is away and the spool takes no more; try again later."""


class JobNotFound(BridgeError):
    """No such job."""

    exit_code = 4


class SessionNotFound(BridgeError):
    """No such session."""

    exit_code = 4


class WaitTimeout(BridgeError):
    """The wait ran out before the job ended."""

    exit_code = 124


class AlreadyRunning(UsageProblem):
    """Another process already serves this workspace."""


class StartFailed(BridgeError):
    """A process of the bridge did not start."""


class LeadershipLost(BridgeError):
    """Another process leads now; what was about to be written down is not."""


class LedgerBroken(BridgeError):
    """The ledger cannot be written or does not prove what it should."""


class HistoryBroken(BridgeError):
    """The database of ended jobs cannot be read or written."""


class JobFailed(BridgeError):
    """The job ran and did not succeed. Raised by actors; retried as far as the job allows."""


class JobParked(JobFailed):
    """The job has to wait for somebody who has said when to come back; the attempt is not counted.

    Parameters:
        after_s: Until then, in seconds from now.
        limit_s: Bound on all such waits of one job together, beside the job's own time limit.
    """

    def __init__(self, message: str = "", *, after_s: float, limit_s: float, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.after_s = after_s
        self.limit_s = limit_s


class JobRefused(JobFailed):
    """The job can never succeed as it stands; it fails at once and is not retried."""


class PolicyDenied(JobRefused):
    """The policy of 3ox.toml does not allow this job; raised before it is taken, and again before it runs."""

    exit_code = 2
