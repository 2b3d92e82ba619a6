"""The no-op job that all contestants run, and how its body says when it began."""

from __future__ import annotations

import functools
import os
import platform
import socket
import time
from datetime import UTC, datetime

#: Names the datagram socket on which a marked job reports that its body has begun.
SOCKET_VARIABLE = "BENCH_SOCKET"
#: Begins the nonce of a marked job.
MARK = "probe-"
#: With it the payload, ``{"nonce":"..."}``, has exactly 100 bytes of JSON.
NONCE_BYTES = 88


def make_nonce(text: str) -> str:
    """Fill ``text`` up to the length that gives the payload its size."""
    return text.ljust(NONCE_BYTES, "x")


def report_start(nonce: str) -> None:
    """Send the time to the benchmark if the job is marked; the first thing that a body does."""
    if nonce.startswith(MARK):
        _link().send(f"{time.time()!r} {nonce}".encode())


def stock_body(nonce: str) -> dict[str, object]:
    """Do what our ``heartbeat`` does, for stock Dramatiq: the same fields from the same sources."""
    report_start(nonce)
    at = datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="milliseconds")
    return {
        "nonce": nonce,
        "worker_id": _worker_id(),
        "host": _host(),
        "pid": os.getpid(),
        "at": at[:-6] + "Z",
    }


@functools.cache
def _link() -> socket.socket:
    link = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    link.connect(os.environ[SOCKET_VARIABLE])
    return link


@functools.cache
def _host() -> str:
    return platform.node()


@functools.cache
def _worker_id() -> str:
    return f"{_host()[:24]}-{os.getpid()}-{os.urandom(2).hex()}"
