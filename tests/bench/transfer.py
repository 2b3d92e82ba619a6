"""Pass data through ``3ox sh -- cat`` in both directions, and measure what each process takes for it.

    python -m tests.bench.transfer 2000  # megabytes

Starts a store, a worker and the caller, compares the checksums, and prints the rate, the peak
memory of each process before and after, and the size of the store's append-only file.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import IO, NamedTuple

from ingress.dispatch import connect
from ops.settings.load import load_settings
from tests.support import RunningValkey, bridge_environ, threeox
from tests.workers import running_worker

_BLOCK_BYTES = 1024 * 1024
#: Data that is passed first, so that the figures before are those of processes that have done the work once.
_WARM_UP_BYTES = 8 * _BLOCK_BYTES


class Peak(NamedTuple):
    """Peak memory of the processes, in bytes."""

    store: int
    worker: int
    caller: int


class Transfer(NamedTuple):
    """Result of one measurement.

    Attributes:
        equal: Whether what came back is what was sent.
        seconds: Time from the first byte to the last.
        before: Peaks after a small transfer.
        after: Peaks after the large one.
        log_bytes: Growth of the store's append-only file.
    """

    equal: bool
    seconds: float
    before: Peak
    after: Peak
    log_bytes: int


def peak_bytes(pid: int) -> int:
    """Return the peak of the resident memory of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def _send(target: IO[bytes], size_bytes: int, digests: list[str]) -> None:
    block, digest, left = secrets.token_bytes(_BLOCK_BYTES), hashlib.sha256(), size_bytes
    with target:
        while left > 0:
            # No two blocks are equal.
            piece = (left.to_bytes(8, "big") + block[8:])[:left]
            digest.update(piece)
            target.write(piece)
            left -= len(piece)
    digests.append(digest.hexdigest())


def through_cat(environ: dict[str, str], size_bytes: int) -> tuple[bool, float, int]:
    """Pass random data through ``3ox sh -- cat``.

    Args:
        environ: Environment of the caller.
        size_bytes: How much.

    Returns:
        Whether the same came back, the time in seconds, and the peak memory of the caller in bytes.
    """
    caller = subprocess.Popen(
        threeox("sh", "--", "cat"), env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert caller.stdin is not None
    assert caller.stdout is not None
    started_s, sent = time.monotonic(), list[str]()
    sender = threading.Thread(target=_send, args=(caller.stdin, size_bytes, sent))
    sender.start()
    received = hashlib.sha256()
    while piece := caller.stdout.read(_BLOCK_BYTES):
        received.update(piece)
    seconds = time.monotonic() - started_s
    sender.join()
    _, status, usage = os.wait4(caller.pid, 0)
    caller.returncode = os.waitstatus_to_exitcode(status)
    caller.stdout.close()
    return (caller.returncode, [received.hexdigest()]) == (0, sent), seconds, usage.ru_maxrss * 1024


def measure(home: Path, size_bytes: int) -> Transfer:
    """Start a bridge in a folder and pass data through it.

    Args:
        home: An empty folder.
        size_bytes: How much.
    """
    server = RunningValkey(load_settings(home, environ={}))
    server.start()
    environ = bridge_environ(home, server.url)
    log = home / ".3ox" / "valkey" / "appendonlydir"
    try:
        with running_worker(connect(load_settings(environ=environ)), environ) as worker:

            def peaks(caller_bytes: int) -> Peak:
                return Peak(peak_bytes(server.pid), peak_bytes(worker.pid), caller_bytes)

            def log_bytes() -> int:
                return sum(file.stat().st_size for file in log.iterdir())

            warm, _, caller_bytes = through_cat(environ, _WARM_UP_BYTES)
            before, log_before = peaks(caller_bytes), log_bytes()
            equal, seconds, caller_bytes = through_cat(environ, size_bytes)
            return Transfer(warm and equal, seconds, before, peaks(caller_bytes), log_bytes() - log_before)
    finally:
        server.stop()


def main() -> None:
    """Measure and print."""
    size_bytes = int(sys.argv[1]) * 1_000_000 if len(sys.argv) > 1 else 2_000_000_000
    with tempfile.TemporaryDirectory(prefix="3ox-transfer-") as folder:
        done = measure(Path(folder), size_bytes)
    lines = [
        f"checksums    {'equal' if done.equal else 'DIFFERENT'}",
        f"rate         {size_bytes / done.seconds / 1e6:.0f} MB/s each way ({done.seconds:.1f} s)",
        *(
            f"{name:12} {before / 1e6:.0f} MB before, {after / 1e6:.0f} MB after"
            for name, before, after in zip(Peak._fields, done.before, done.after, strict=True)
        ),
        f"store's log  {done.log_bytes / 1e3:.0f} kB",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.exit(0 if done.equal else 1)


if __name__ == "__main__":
    main()
