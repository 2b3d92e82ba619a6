"""Goes through every accepted job and finds out what became of it."""

from __future__ import annotations

import bisect
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, field

from middleware.job.keys import Keys
from middleware.job.states import FINAL, State
from ops.store.client import Store
from tests.chaos.faults import Kill

_BATCH = 500
#: How a job may come back into the queue after a start, by what its receipt says of it.
_WAYS_BACK = {
    "recovered from": "recovered",
    "taken back from": "taken back unstarted",
    "handed back": "handed back",
    "it was due": "retried",
}
#: Longest time for which a server with ``appendfsync everysec`` postpones writes while a slow sync lasts.
WRITTEN_WITHIN_MS = 2_500
_VARYING = re.compile(r"\b\S+-\d+-[0-9a-f]{4}\b|\b[a-z0-9]{20}\b|\d[\d.,:TZ-]*")  # worker, job, figure


class Line(Struct, frozen=True):
    """One line of a receipt chain, as the store keeps it."""

    at: int
    status: str
    attempt: int = 0
    worker: str = ""
    reason: str = ""


class Accepted(Struct):
    """What the daemon noted of a job: the first receipt that it had for it.

    Attributes:
        order: In which it was accepted.
    """

    job_id: str
    kind: str
    status: str
    order: int


class Journal(Struct):
    """What the shell jobs noted themselves.

    Attributes:
        starts: (job, worker) -> how often.
        ends: The same of ends.
        overlaps: Jobs of which an attempt met a living copy.
    """

    starts: Counter[tuple[str, str]] = field(default_factory=Counter)
    ends: Counter[tuple[str, str]] = field(default_factory=Counter)
    overlaps: list[str] = field(default_factory=list)


class Verdict(Struct):
    """All that was counted; lists hold job ids.

    Attributes:
        by_status: Accepted jobs by their last state.
        lost: Accepted, and unknown to the store or not ended.
        committed_twice: Two ends in the receipt chain, or two events of an end.
        forgotten: Ended, and run again since the store was killed before it had written that down.
        run_twice: Started more than once.
        rerun_after: How those came back into the queue, one for each start after a job's first.
        unexplained: Started more often than the store had given them out, or back in the queue for no reason.
        overlaps: Two attempts alive at a time.
        unfounded: Completed, but the worker that said so has not run it to its end.
        failures: Why jobs or attempts failed -> how many; ids and figures left out.
        recovery_ms: For each job taken back from a killed worker: from the kill to its next start.
        recovery_well_ms: Those of them with no outage of the store in between.
        put_off_ms: The same of jobs that were made to wait, since more than one worker had died with them.
        taken_for_dead: Workers whose jobs were taken from them, and who then went on working.
        spooled: Accepted into the spool.
        out_of_order: Spooled jobs that came into the store before one spooled earlier.
    """

    accepted: int = 0
    by_kind: Counter[str] = field(default_factory=Counter)
    by_status: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    committed_twice: list[str] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    run_twice: list[str] = field(default_factory=list)
    rerun_after: Counter[str] = field(default_factory=Counter)
    unexplained: list[str] = field(default_factory=list)
    overlaps: list[str] = field(default_factory=list)
    unfounded: list[str] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    recovery_ms: list[float] = field(default_factory=list)
    recovery_well_ms: list[float] = field(default_factory=list)
    put_off_ms: list[float] = field(default_factory=list)
    taken_for_dead: list[str] = field(default_factory=list)
    spooled: int = 0
    out_of_order: int = 0

    @property
    def faults(self) -> dict[str, list[str]]:
        """What must not be, by name; only what is."""
        # Workers are not jobs and have no receipts to show, see ``taken_for_dead``.
        found = {
            "lost": self.lost,
            "committed twice": self.committed_twice,
            "overlapping live copies": self.overlaps,
            "unexplained starts": self.unexplained,
            "completed without having run": self.unfounded,
        }
        return {name: jobs for name, jobs in found.items() if jobs}


def read_accepted(file: Path) -> tuple[list[Accepted], Counter[str]]:
    """Read the daemon's notes.

    Returns:
        Each accepted job once, in order, and why others were refused.
    """
    accepted: dict[str, Accepted] = {}
    refused: Counter[str] = Counter()
    for number, line in enumerate(file.read_text().splitlines()):
        what, job_id, kind, status, _ = line.split()
        if what == "refused":
            refused[status] += 1
        elif job_id not in accepted:
            accepted[job_id] = Accepted(job_id, kind, status, number)
    return list(accepted.values()), refused


def read_journal(file: Path) -> Journal:
    """Read what the shell jobs noted."""
    journal = Journal()
    for line in file.read_text().splitlines() if file.exists() else ():
        what, job_id, worker, _, _ = line.split()
        if what == "start":
            journal.starts[job_id, worker] += 1
        elif what == "end":
            journal.ends[job_id, worker] += 1
        else:
            journal.overlaps.append(job_id)
    return journal


class Judge:
    """Judges a run.

    Args:
        journal: What the shell jobs noted.
        ends: Job id -> events of its ends, see ``Witness``.
        kills: The worker processes that were killed.
        outages: When the store did not answer, in seconds since 1970.
        store_kills_ms: When it was killed, in milliseconds since 1970.
    """

    def __init__(
        self,
        journal: Journal,
        ends: Mapping[str, Sequence[str]],
        kills: Sequence[Kill],
        outages: Sequence[tuple[float, float]],
        store_kills_ms: Sequence[float] = (),
    ) -> None:
        self._store_kills_ms = store_kills_ms
        self._journal = journal
        self._ends = ends
        self._kills = {kill.worker_id: kill.at_ms for kill in kills}
        self._outages = [(start_s * 1000, end_s * 1000) for start_s, end_s in outages]
        self._starts_of: Counter[str] = Counter()
        for (job_id, _), count in journal.starts.items():
            self._starts_of[job_id] += count
        self._given_up_ms: dict[str, int] = {}
        self._seen_ms: dict[str, int] = {}
        self.verdict = Verdict(overlaps=sorted(set(journal.overlaps)))

    def judge(self, accepted: Sequence[Accepted], store: Store, prefix: str) -> Verdict:
        """Go through all jobs, reading each one's record from the store."""
        latest_ms = 0
        for job, status, chain in _stories(accepted, store, Keys(prefix)):
            self._judge(job, status, chain)
            if job.status == "spooled" and chain:
                self.verdict.spooled += 1
                self.verdict.out_of_order += chain[0].at < latest_ms
                latest_ms = max(latest_ms, chain[0].at)
        self.verdict.taken_for_dead = sorted(
            worker
            for worker, given_up_ms in self._given_up_ms.items()
            if worker not in self._kills and self._seen_ms.get(worker, 0) > given_up_ms
        )
        return self.verdict

    def _judge(self, job: Accepted, status: str | None, chain: Sequence[Line]) -> None:
        verdict = self.verdict
        verdict.accepted += 1
        verdict.by_kind[job.kind] += 1
        verdict.by_status["unknown" if status is None else status] += 1
        if status is None or State(status) not in FINAL:
            verdict.lost.append(job.job_id)
        ends = sum(line.status in FINAL for line in chain)
        told = sorted(int(event.partition("-")[0]) for event in set(self._ends.get(job.job_id, ())))
        if ends > 1 or (len(told) > 1 and not all(self._is_forgotten(at_ms) for at_ms in told[:-1])):
            verdict.committed_twice.append(job.job_id)
        elif len(told) > 1:
            verdict.forgotten.append(job.job_id)
        self._starts(job, chain)
        for line in chain:
            if line.status in {"failed", "retrying", "cancelled"}:
                reason = _VARYING.sub("#", line.reason if line.reason else "no reason given")
                verdict.failures[f"{line.status}: {reason}"] += 1
        self._recoveries(chain)
        if job.kind != "heartbeat" and status == "completed":
            by = next((line.worker for line in reversed(chain) if line.status == "completed"), "")
            if not self._journal.ends[job.job_id, by]:
                verdict.unfounded.append(job.job_id)

    def _is_forgotten(self, at_ms: int) -> bool:
        """Return whether the store was killed before it had to write this down."""
        return any(at_ms <= kill_ms <= at_ms + WRITTEN_WITHIN_MS for kill_ms in self._store_kills_ms)

    def _starts(self, job: Accepted, chain: Sequence[Line]) -> None:
        """Count how often a job has started, and see whether each time is accounted for."""
        verdict = self.verdict
        given = Counter(line.worker for line in chain if line.status == "processing")
        explained, started, reasons = True, False, ""
        for line in chain:
            if line.status != "processing":
                reasons += f" {line.reason}"
                continue
            if started:
                way = next((way for words, way in _WAYS_BACK.items() if words in reasons), None)
                explained = explained and way is not None
                verdict.rerun_after["unexplained" if way is None else way] += 1
            started, reasons = True, ""
        is_shell = job.kind != "heartbeat"
        if (self._starts_of[job.job_id] if is_shell else sum(given.values())) > 1:
            verdict.run_twice.append(job.job_id)
        beyond = any(self._journal.starts[job.job_id, worker] > count for worker, count in given.items())
        total_beyond = is_shell and self._starts_of[job.job_id] > sum(given.values())
        if beyond or total_beyond or not explained:
            verdict.unexplained.append(job.job_id)

    def _recoveries(self, chain: Sequence[Line]) -> None:
        """Measure from the kill of a worker to the next start of the job it had in hand."""
        for at, line in enumerate(chain):
            if line.worker:
                self._seen_ms[line.worker] = max(line.at, self._seen_ms.get(line.worker, 0))
            if line.reason.startswith("recovered from "):
                worker = line.reason.split()[2]
                self._given_up_ms[worker] = min(line.at, self._given_up_ms.get(worker, line.at))
            killed_ms = self._kills.get(line.worker) if line.status == "processing" else None
            # What the worker had settled before it was killed did not need to be recovered.
            if killed_ms is None or at + 1 == len(chain) or "from " not in chain[at + 1].reason:
                continue
            again = next((later for later in chain[at + 1 :] if later.status == "processing"), None)
            if again is None:
                continue
            took_ms = max(0.0, again.at - killed_ms)
            if chain[at + 1].status == "retrying":
                self.verdict.put_off_ms.append(took_ms)
                continue
            self.verdict.recovery_ms.append(took_ms)
            if not self._away_between(killed_ms, again.at):
                self.verdict.recovery_well_ms.append(took_ms)

    def _away_between(self, start_ms: float, end_ms: float) -> bool:
        return any(began < end_ms and ended > start_ms for began, ended in self._outages)


def _stories(
    accepted: Sequence[Accepted], store: Store, keys: Keys
) -> Iterator[tuple[Accepted, str | None, list[Line]]]:
    """Return each job with its state and its receipt chain."""
    decoder = msgspec.json.Decoder(Line)
    for at in range(0, len(accepted), _BATCH):
        jobs = accepted[at : at + _BATCH]
        statuses: list[Any] = store.pipeline([("HGET", keys.job(job.job_id), "status") for job in jobs])
        chains: list[Any] = store.pipeline([("LRANGE", keys.receipts(job.job_id), 0, -1) for job in jobs])
        for job, status, chain in zip(jobs, statuses, chains, strict=True):
            yield job, None if status is None else status.decode(), [decoder.decode(line) for line in chain]


def story(store: Store, prefix: str, job_id: str) -> list[str]:
    """Return the receipt chain of one job as text, for diagnosis."""
    return [line.decode() for line in store.call("LRANGE", Keys(prefix).receipts(job_id), 0, -1)]


def resumed_s(outages: Sequence[tuple[float, float]], ends_ms: Sequence[int]) -> list[float]:
    """Return for each outage how long it took from its end to the next end of a job, in seconds."""
    ordered = sorted(ends_ms)
    found = []
    for _, back_s in outages:
        at = bisect.bisect_left(ordered, back_s * 1000)
        if at < len(ordered):
            found.append(ordered[at] / 1000 - back_s)
    return found
