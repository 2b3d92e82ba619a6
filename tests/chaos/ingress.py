"""The daemon of a chaos run: accepts jobs at a steady rate, store or no store, and notes each one it took.

Runs as ``python -m tests.chaos.ingress``; ends when the load is over and its spool is empty.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from ingress.core.acceptance import Acceptance
from ingress.dispatch import connect
from middleware.job.schema import Job, make_job
from ops.errors import QueueFull, SpoolFull
from ops.logs import configure_logging
from ops.settings.load import load_settings
from tests.chaos.compositions import Sender

TASK = Path(__file__).with_name("task.py")
#: Kinds of jobs and their shares; a heartbeat is all bridge and no work.
_SHARES = {"heartbeat": 0.78, "tiny": 0.11, "second": 0.075, "family": 0.03, "long": 0.005}
_TWICE_SHARE = 0.03
_DELAY_SHARE = 0.05


class Load:
    """Makes jobs.

    Args:
        seed: Of what follows.
        files: Directory of the journal and the locks.
        mark: Value of ``CHAOS_RUN`` in everything that the jobs start.
        longest_s: How long a job runs at most.
    """

    def __init__(self, seed: int, files: Path, mark: str, *, longest_s: float) -> None:
        self._rng = random.Random(seed)  # noqa: S311 (to be repeatable)
        self._files = files
        self._mark = mark
        self._longest_s = longest_s

    def next(self) -> tuple[str, Job, float | None]:
        """Return the next job: its kind, the job, its delay in seconds."""
        rng = self._rng
        kind = rng.choices(list(_SHARES), list(_SHARES.values()))[0]
        delay_s = round(rng.uniform(0.05, 2.0), 2) if rng.random() < _DELAY_SHARE else None
        fields: dict[str, Any] = {"priority": rng.randint(1, 10), "source": "python", "actor": "chaos"}
        if kind == "heartbeat":
            return kind, make_job("heartbeat", {"nonce": "chaos"}, **fields), delay_s
        seconds, family = 0.0, "none"
        if kind == "second":
            seconds = rng.uniform(0.3, 1.7)
            if rng.random() < 0.3:
                fields["resources"] = {"seat": 1}
        elif kind == "long":
            seconds = rng.uniform(0.6, 1.0) * self._longest_s
        elif kind == "family":
            seconds = rng.uniform(0.05, 0.8)
            family = rng.choice(["child", "detached", "stubborn"])
        argv = [sys.executable, "-I", "-S", str(TASK)]
        argv += [str(self._files / "journal"), str(self._files / "locks"), f"{seconds:.2f}", family]
        payload = {"argv": argv, "env": {"CHAOS_RUN": self._mark}}
        return kind, make_job("shell.cmd", payload, **fields), delay_s

    def twice(self) -> bool:
        """Return whether the caller has missed the answer and asks again."""
        return self._rng.random() < _TWICE_SHARE


def main() -> int:
    """Accept jobs until the time is over, then hand over what is in the spool."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True, help="jobs a second")
    parser.add_argument("--until", type=float, required=True, help="end of the load, seconds since 1970")
    parser.add_argument("--longest", type=float, required=True, help="a job, in seconds")
    parser.add_argument("--files", type=Path, required=True)
    parser.add_argument("--compositions", type=float, required=True, help="a second")
    options = parser.parse_args()
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    loaded = load_settings()
    configure_logging(loaded, process="chaos-ingress", console=False)
    acceptance = Acceptance(connect(loaded))
    acceptance.start()
    notes_fd = os.open(options.files / "accepted", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    sender = Sender(
        options.seed, options.compositions, options.until, options.files / "compositions", stopping
    )
    load = Load(options.seed, options.files, os.environ["CHAOS_RUN"], longest_s=options.longest)
    due_s = time.time()
    while not stopping.is_set() and due_s < options.until:
        stopping.wait(max(0.0, due_s - time.time()))
        due_s += 1 / options.rate
        _accept(acceptance, load, notes_fd)
    while acceptance.spool.count() and not stopping.wait(0.05):
        continue
    sender.join()
    acceptance.stop()
    return 0


def _accept(acceptance: Acceptance, load: Load, notes_fd: int) -> None:
    kind, job, delay_s = load.next()
    for _ in range(2 if load.twice() else 1):
        try:
            receipt = acceptance.accept(job, delay_s=delay_s)
        except (QueueFull, SpoolFull) as error:
            note = f"refused {job.job_id} {kind} {type(error).__name__} {time.time_ns()}\n"
        else:
            note = f"accepted {receipt.job_id} {kind} {receipt.status} {time.time_ns()}\n"
        # Only now has the caller its receipt, and may count on the job.
        os.write(notes_fd, note.encode())


if __name__ == "__main__":
    sys.exit(main())
