"""A worker pool whose ``heartbeat`` actor misbehaves as its nonce says; for ``dramatiq tests.faults.rogue``.

gil:S       stay in one C call for S seconds and hold the interpreter lock all the time
die         end the worker process with SIGKILL
deaf        end the thread that fetches jobs
touch:PATH  append a line to a file
fork:PATH   fork a process that waits before it would run a program, write its pid to a file, and stay
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
from pathlib import Path

from dramatiq.middleware import raise_thread_exception

import actors
from actors.context import current_job
from actors.job_types.heartbeat import HeartbeatPayload


def misbehave(payload: HeartbeatPayload) -> None:
    """Do what the nonce says."""
    what, _, argument = payload.nonce.partition(":")
    if what == "gil":
        ctypes.PyDLL(None).usleep(int(float(argument) * 1_000_000))
    elif what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "deaf":
        for thread in threading.enumerate():
            if type(thread).__name__ == "ConsumerThread" and thread.ident is not None:
                raise_thread_exception(thread.ident, SystemExit)  # type: ignore[no-untyped-call]
    elif what == "fork":
        child = os.fork()
        if child == 0:
            signal.pause()
            os._exit(0)
        Path(argument).write_text(f"{child}\n")
        threading.Event().wait(60)
    elif what == "touch":
        with Path(argument).open("a") as file:
            file.write(f"{current_job().job_id} {time.time()}\n")
    else:
        raise ValueError(payload.nonce)


broker = actors.broker
broker.get_actor("heartbeat").fn = misbehave
