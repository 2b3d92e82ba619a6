"""When a file that could not be claimed or submitted is tried again."""

from __future__ import annotations

import errno

from ops.backoff import exponential_s

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 60.0
#: Errors of the host and not of a file: no space, read-only disk, too little memory, too few descriptors.
_HOST_ERRORS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN}
)


def wait_s(failures: int) -> float:
    """Return the wait after a number of failures: it doubles each time, up to one minute."""
    return exponential_s(failures, first_s=FIRST_WAIT_S, max_s=LONGEST_WAIT_S)


def is_host_error(error: BaseException) -> bool:
    """Return whether an error is due to the host; it is then retried without limit."""
    return isinstance(error, OSError) and error.errno in _HOST_ERRORS
