"""Seals the transitions of all jobs into the ledger, each once, within a moment.

Order matters: the lines are forced to disk first, then the store is told. A crash in between leaves lines
that the store does not know of; whoever comes next finds them at the end of the file and does not write them
again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec

from middleware.archive.ledger import Head, Ledger, Transition
from middleware.archive.ledger_line import JobFacts, canonical
from middleware.broker.leadership import Term
from middleware.broker.ledger_progress import LedgerProgress, Unsealed
from ops.errors import LeadershipLost
from ops.logs import get_logger

#: How many jobs are sealed with one write; about two thousand lines.
BATCH = 500
#: How many lines at the end of the file are looked through for such that the store does not know of. A round
#: writes fewer; a store that lost its last seconds has more.
_TAIL_MAX = 50_000
_LOCK_TIMEOUT_S = 5.0

log = get_logger(__name__)


#: The rest of a specification is skipped unread.
_facts_decoder = msgspec.json.Decoder(JobFacts)
_entry_decoder = msgspec.json.Decoder(dict[str, Any])


class Sealer:
    """Seals for one leader.

    Args:
        sealing: The store's side.
        ledger: The file's side.
        clock: Gives the time in seconds since 1970.
    """

    def __init__(
        self, sealing: LedgerProgress, ledger: Ledger, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._sealing = sealing
        self._ledger = ledger
        self._clock = clock
        #: Jobs that the ledger knows and the store has lost, as many as a tail has: they may be taken again.
        self._gone: set[str] = set()

    def seal(self, term: Term) -> int:
        """Seal some of what is to be sealed.

        Args:
            term: Under which we lead.

        Returns:
            How many jobs were looked at; ``BATCH`` means that there may be more.

        Raises:
            StoreUnreachable: The store is away; what was written and not noted is not written again.
            LeadershipLost: Somebody else leads; the same holds.
            LedgerBroken: The ledger cannot be written.
            SettingsError: There is no key to sign with.
        """
        if self._sealing.is_idle():
            return 0
        with self._ledger.writing(timeout_s=_LOCK_TIMEOUT_S):
            # Read within the lock: a leader before us may have been at it until now.
            self._settle_tail(term)
            jobs = self._sealing.unsealed(BATCH)
            transitions = self._transitions(jobs, {}, {})
            if transitions:
                self._ledger.append(transitions, now_s=self._clock())
            self._gone.difference_update(job.job_id for job in jobs if job.chain)
            self._note(term, jobs, self._ledger.head)
        return len(jobs)

    def _settle_tail(self, term: Term) -> None:
        """Tell the store of lines at the end of the file that it does not know of.

        All of them, before anything else: what it notes as the end of the ledger has to mean that it knows of
        every line before that.
        """
        noted = Head(*self._sealing.head(self._ledger.name))
        if self._ledger.go_on_from(noted):
            log.error("ledger.lines_missing", ledger=self._ledger.name, known_to_store=noted.seq)
            return
        if noted.seq == self._ledger.head.seq:
            return
        lines = self._ledger.since(noted.seq, _TAIL_MAX)
        log.info("ledger.tail", lines=len(lines), noted=noted.seq)
        # Last line first: of a transition that is there twice, the later one counts.
        known = {(line.job_id, line.index): canonical(line.entry) for line in reversed(lines)}
        counts = {line.job_id: line.index + 1 for line in reversed(lines)}
        ids = sorted(counts)
        self._gone.clear()
        for at in range(0, len(ids), BATCH):
            jobs = self._sealing.read(ids[at : at + BATCH])
            self._gone.update(job.job_id for job in jobs if not job.chain)
            transitions = self._transitions(jobs, known, counts)
            if transitions:
                self._ledger.append(transitions, now_s=self._clock())
            self._note(term, jobs, noted if at + BATCH < len(ids) else self._ledger.head)

    def _note(self, term: Term, jobs: list[Unsealed], head: Head) -> None:
        counts = {job.job_id: len(job.chain) for job in jobs}
        if counts and not self._sealing.note(term, self._ledger.name, head.seq, head.digest, counts):
            # What is written stands; the leader after us finds it at the end of the file.
            raise LeadershipLost(f"term {term.fence} is over: another clock leads.", remedy="It goes on.")

    def _transitions(
        self, jobs: list[Unsealed], known: dict[tuple[str, int], bytes], counts: dict[str, int]
    ) -> list[Transition]:
        """Give what is to be written of these jobs.

        Args:
            jobs: As the store has them.
            known: Transitions that the ledger has and the store may not know to be sealed.
            counts: How many transitions of a job the ledger has.
        """
        specs = self._sealing.specs([job.job_id for job in jobs if job.sealed == 0 and job.chain])
        found: list[tuple[int, Transition]] = []
        for job in jobs:
            lost, latest_ms = False, 0
            for index in range(job.sealed, len(job.chain)):
                entry = _entry_decoder.decode(job.chain[index])
                written = known.get((job.job_id, index))
                if written == canonical(entry) and not lost:
                    continue
                # The store came back without its last moments, and the job has gone another way since.
                lost = lost or written is not None
                latest_ms = max(latest_ms, int(entry["at"]))
                item = Transition(
                    job_id=job.job_id,
                    index=index,
                    entry=entry,
                    job=_facts(specs.get(job.job_id)) if index == 0 else None,
                    after_loss=written is not None or (index == 0 and job.job_id in self._gone),
                )
                found.append((latest_ms, item))
            if not lost and 0 < len(job.chain) < counts.get(job.job_id, 0):
                found.append(_stands_at(job))
        # By time over all jobs, and by the chain within each: the times of one job do not go back here.
        found.sort(key=lambda pair: pair[0])
        return [item for _, item in found]


def _stands_at(job: Unsealed) -> tuple[int, Transition]:
    """Seal the last transition of a job once more: from there it goes another way, later."""
    entry = _entry_decoder.decode(job.chain[-1])
    again = Transition(job_id=job.job_id, index=len(job.chain) - 1, entry=entry, after_loss=True)
    return int(entry["at"]), again


def _facts(spec: bytes | None) -> JobFacts:
    if spec is None:
        return JobFacts()
    try:
        return _facts_decoder.decode(spec)
    except msgspec.MsgspecError:
        # Written by another version: that it ran is sealed all the same.
        return JobFacts()
