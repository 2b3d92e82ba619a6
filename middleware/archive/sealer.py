"""Write the transitions of all jobs to the ledger, each once, within a second.

The lines are forced to disk first, then the store notes that they are sealed. A crash in between leaves lines
that the store does not know of; the next leader finds them at the end of the file and does not write them
again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec

from middleware.archive.ledger import Head, Ledger, UnsealedTransition
from middleware.archive.ledger_line import JobFacts, canonical
from middleware.broker.leadership import Term
from middleware.broker.ledger_progress import LedgerProgress, Unsealed
from ops.errors import LeadershipLost
from ops.logs import get_logger

#: Jobs that are sealed with one write: about two thousand lines.
BATCH = 500
#: Maximum number of lines at the end of the file that are compared with the store. One round writes fewer; a
#: store that lost its last seconds does not know of more.
_TAIL_MAX = 50_000
_LOCK_TIMEOUT_S = 5.0

log = get_logger(__name__)

#: Skips all other fields of a job.
_facts_decoder = msgspec.json.Decoder(JobFacts)
_entry_decoder = msgspec.json.Decoder(dict[str, Any])


class Sealer:
    """Seals transitions; used by the leading scheduler.

    Args:
        sealing: The functions of the store.
        ledger: The files.
        clock: Returns the time in seconds since 1970.
    """

    def __init__(
        self, sealing: LedgerProgress, ledger: Ledger, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._sealing = sealing
        self._ledger = ledger
        self._clock = clock
        #: Jobs that are in the ledger and that the store has lost; they may be submitted again.
        self._gone: set[str] = set()

    def seal(self, term: Term) -> int:
        """Seal the next batch of transitions.

        Args:
            term: Our term as leader.

        Returns:
            How many jobs were read; if ``BATCH``, there may be more to seal.

        Raises:
            StoreUnreachable: The store is unavailable; lines that were written are not written again.
            LeadershipLost: Another scheduler leads; lines that were written are not written again.
            LedgerBroken: The ledger cannot be written.
            SettingsError: The ledger has no signing key.
        """
        if self._sealing.is_idle():
            return 0
        with self._ledger.writing(timeout_s=_LOCK_TIMEOUT_S):
            # Read with the lock held: the previous leader may have been writing until now.
            self._settle_tail(term)
            jobs = self._sealing.unsealed(BATCH)
            transitions = self._transitions(jobs, {}, {})
            if transitions:
                self._ledger.append(transitions, now_s=self._clock())
            self._gone.difference_update(job.job_id for job in jobs if job.chain)
            self._note(term, jobs, self._ledger.head)
        return len(jobs)

    def _settle_tail(self, term: Term) -> None:
        """Note in the store the lines at the end of the file that it does not know of.

        All of them, and before anything else: the end that the store notes means that it knows of every line
        before it.
        """
        noted = Head(*self._sealing.head(self._ledger.name))
        if self._ledger.continue_after(noted):
            log.error("ledger.lines_missing", ledger=self._ledger.name, known_to_store=noted.seq)
            return
        if noted.seq == self._ledger.head.seq:
            return
        lines = self._ledger.since(noted.seq, _TAIL_MAX)
        log.info("ledger.tail", lines=len(lines), noted=noted.seq)
        # The last line comes first: if a transition is sealed twice, the later line counts.
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
            # The lines stay; the next leader finds them at the end of the file.
            raise LeadershipLost(
                f"Term {term.fence} is over: another scheduler leads.", remedy="It continues."
            )

    def _transitions(
        self, jobs: list[Unsealed], known: dict[tuple[str, int], bytes], counts: dict[str, int]
    ) -> list[UnsealedTransition]:
        """Return the transitions of these jobs that are to be written.

        Args:
            jobs: The jobs as the store has them.
            known: Transitions in the ledger that the store may not have noted as sealed.
            counts: Number of transitions in the ledger, by job.
        """
        specs = self._sealing.specs([job.job_id for job in jobs if job.sealed == 0 and job.chain])
        found: list[tuple[int, UnsealedTransition]] = []
        for job in jobs:
            lost, latest_ms = False, 0
            for index in range(job.sealed, len(job.chain)):
                entry = _entry_decoder.decode(job.chain[index])
                written = known.get((job.job_id, index))
                if written == canonical(entry) and not lost:
                    continue
                # The store has lost its last moments, and the job has had other transitions since.
                lost = lost or written is not None
                latest_ms = max(latest_ms, int(entry["at"]))
                item = UnsealedTransition(
                    job_id=job.job_id,
                    index=index,
                    entry=entry,
                    job=_facts(specs.get(job.job_id)) if index == 0 else None,
                    after_loss=written is not None or (index == 0 and job.job_id in self._gone),
                )
                found.append((latest_ms, item))
            if not lost and 0 < len(job.chain) < counts.get(job.job_id, 0):
                found.append(_last_again(job))
        # By time over all jobs, and by the chain within each: ``latest_ms`` never decreases within a job.
        found.sort(key=lambda pair: pair[0])
        return [item for _, item in found]


def _last_again(job: Unsealed) -> tuple[int, UnsealedTransition]:
    """Return the last transition of a job again: the store has lost later ones that are sealed."""
    entry = _entry_decoder.decode(job.chain[-1])
    again = UnsealedTransition(job_id=job.job_id, index=len(job.chain) - 1, entry=entry, after_loss=True)
    return int(entry["at"]), again


def _facts(spec: bytes | None) -> JobFacts:
    if spec is None:
        return JobFacts()
    try:
        return _facts_decoder.decode(spec)
    except msgspec.MsgspecError:
        # Written by another version; its transitions are sealed nevertheless.
        return JobFacts()
