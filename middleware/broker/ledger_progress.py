"""How far the ledger is: jobs with transitions that it lacks, and its last line, see ``seal.lua``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct

from middleware.broker.leadership import Term
from middleware.broker.scripts import Scripts
from middleware.job.keys import Keys
from ops.store.resp import Argument

#: Specifications in one round trip: each can have a megabyte.
_SPECS_MAX = 50


class Unsealed(Struct, frozen=True):
    """A job whose receipt chain has grown.

    Attributes:
        job_id: Id of the job.
        sealed: Number of its lines in the ledger, as far as the store knows.
        chain: All its lines.
    """

    job_id: str
    sealed: int
    chain: list[bytes]


class LedgerProgress:
    """What the store knows of the ledger: which transitions it lacks, and where it ends.

    The sealer (``middleware/archive/sealer.py``) reads this, writes the ledger and notes its progress here;
    the scheduler's seal loop runs the sealer.

    Args:
        scripts: The store functions.
    """

    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts
        self._keys = Keys(scripts.prefix)

    def is_idle(self) -> bool:
        """Return whether there is nothing to seal."""
        return bool(self._scripts.store.call("EXISTS", self._keys.unsealed) == 0)

    def unsealed(self, limit: int) -> list[Unsealed]:
        """Return up to ``limit`` jobs with transitions that are not sealed, in no order."""
        found = self._scripts.store.call("SRANDMEMBER", self._keys.unsealed, limit)
        return self.read([item.decode() for item in found])

    def read(self, ids: Sequence[str]) -> list[Unsealed]:
        """Return these jobs, sealed or not."""
        commands: list[tuple[Argument, ...]] = []
        for job_id in ids:
            commands += [
                ("HGET", self._keys.job(job_id), "sealed"),
                ("LRANGE", self._keys.receipts(job_id), 0, -1),
            ]
        replies = self._scripts.run_many(commands) if commands else []
        return [
            Unsealed(job_id, 0 if replies[2 * at] is None else int(replies[2 * at]), replies[2 * at + 1])
            for at, job_id in enumerate(ids)
        ]

    def specs(self, job_ids: Sequence[str]) -> dict[str, bytes]:
        """Return the specifications of these jobs, of those that exist."""
        found: dict[str, bytes] = {}
        for at in range(0, len(job_ids), _SPECS_MAX):
            some = job_ids[at : at + _SPECS_MAX]
            replies = self._scripts.run_many([("HGET", self._keys.job(job_id), "spec") for job_id in some])
            found.update(
                {job_id: spec for job_id, spec in zip(some, replies, strict=True) if spec is not None}
            )
        return found

    def head(self, ledger: str) -> tuple[int, str]:
        """Return number and SHA-256 of the last line of a ledger that the store knows of; 0 if none."""
        said = self._scripts.store.call("HGET", f"{self._scripts.prefix}ledgers", ledger)
        if said is None:
            return 0, ""
        seq, _, digest = said.decode().partition(" ")
        return int(seq), digest

    def has_ledgers(self) -> bool:
        """Return whether anything was ever sealed, into any ledger."""
        return bool(self._scripts.store.call("EXISTS", f"{self._scripts.prefix}ledgers"))

    def note(self, term: Term, ledger: str, seq: int, digest: str, counts: Mapping[str, int]) -> bool:
        """Record what the ledger has.

        Args:
            term: Term of the leader that has sealed.
            ledger: Name of the ledger.
            seq: Number of its last line.
            digest: SHA-256 of that line.
            counts: Job id -> number of lines of its chain that are sealed.

        Returns:
            Whether it was recorded; if not, another candidate leads.
        """
        pairs = [part for pair in counts.items() for part in pair]
        reply = self._scripts.run("seal", term.fence, ledger, seq, digest, *pairs)
        return bool(reply[0] == b"noted")

    def lost(self) -> int:
        """Return the number of jobs that were deleted before the ledger had all their transitions."""
        said = self._scripts.store.call("GET", f"{self._keys.unsealed}:lost")
        return 0 if said is None else int(said)
