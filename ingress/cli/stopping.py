"""What a stop of the bridge waits for: the jobs that its workers run."""

from __future__ import annotations

import os
import signal
import time

from ingress.core.terminal import note
from ingress.core.text import count_of
from middleware.job.keys import Keys
from ops.errors import BridgeError
from ops.processes import wait_ended
from ops.settings.load import LoadedSettings
from ops.store.client import Store

#: A stop that takes no longer than this is not explained.
EXPLAIN_AFTER_S = 0.4
#: Interval between two lines about a stop that goes on.
_AGAIN_AFTER_S = 10.0
#: Limit for one answer of the store: the line is worth no longer wait.
_STORE_TIMEOUT_S = 0.4


def running_jobs(loaded: LoadedSettings) -> int | None:
    """Return the number of jobs that workers on this host run; None if the store does not answer at once."""
    keys = Keys(loaded.settings.key_prefix)
    try:
        store = Store.open(loaded, timeout_s=_STORE_TIMEOUT_S)
        workers = [item.decode() for item in store.call("ZRANGE", keys.workers, 0, -1)]
        replies = store.read(
            [
                command
                for worker in workers
                for command in (("HGET", keys.heartbeat(worker), "host"), ("HLEN", keys.processing(worker)))
            ]
        )
    except BridgeError:
        return None
    here = os.uname().nodename
    return sum(
        int(held)
        for host, held in zip(replies[::2], replies[1::2], strict=True)
        if host is not None and host.decode() == here
    )


def explain_stop(loaded: LoadedSettings, began_s: float, *, sooner: str = "Ctrl-C again") -> None:
    """Write to stderr which jobs the stop waits for, and what is faster; at first only if there are any.

    Args:
        loaded: Settings.
        began_s: When the stop began, by the monotonic clock.
        sooner: What stops it at once.
    """
    jobs = running_jobs(loaded)
    passed_s = time.monotonic() - began_s
    if not jobs and passed_s < _AGAIN_AFTER_S:
        return
    left_s = max(0.0, loaded.settings.worker_shutdown_timeout_s - passed_s)
    if jobs == 0:
        what = "waiting for the programs to end"
    elif jobs is None:
        what = f"waiting for running jobs, {left_s:.0f} s at most"
    else:
        what = f"waiting for {count_of(jobs, 'running job')}, {left_s:.0f} s at most"
    note(f"{what}; {sooner} stops at once. Jobs that are stopped run again after the next start.")


def await_stop(pid: int, loaded: LoadedSettings, *, patience_s: float, now: bool) -> bool:
    """Stop the bridge, say what it waits for, and return whether it has ended.

    Args:
        pid: Its supervisor.
        loaded: Settings.
        patience_s: Limit of the wait.
        now: Do not wait for running jobs.
    """
    began_s = time.monotonic()
    # The first signal asks the bridge to stop, another one to do so at once; equal ones might become one.
    for number in (signal.SIGTERM, signal.SIGINT) if now else (signal.SIGTERM,):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return True
    wait_s = EXPLAIN_AFTER_S
    while (left_s := began_s + patience_s - time.monotonic()) > 0:
        if wait_ended([pid], min(wait_s, left_s)):
            return True
        if not now:
            explain_stop(loaded, began_s, sooner="'3ox down --now'")
        wait_s = _AGAIN_AFTER_S
    return False
