"""What the store knows of the ledger: which jobs are to be sealed, how far each is, where the ledger ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from middleware.broker.leadership import Term
from middleware.job.keys import Keys

if TYPE_CHECKING:
    from middleware.broker.scripts import Scripts
    from ops.store.resp import Argument

#: A job's specification can be a megabyte, of which a few words are needed: so many at a time.
_SPECS_MAX = 50


class Unsealed(Struct, frozen=True):
    """A job whose receipt chain has grown.

    Attributes:
        job_id: Which.
        sealed: How many of its lines are in the ledger, as far as the store knows.
        chain: All its lines.
    """

    job_id: str
    sealed: int
    chain: list[bytes]


class Sealing:
    """The store's side of the ledger.

    Args:
        scripts: Where it is.
    """

    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts
        self._keys = Keys(scripts.prefix)

    def is_idle(self) -> bool:
        """Tell whether there is nothing to seal."""
        return bool(self._scripts.store.call("EXISTS", self._keys.unsealed) == 0)

    def unsealed(self, limit: int) -> list[Unsealed]:
        """Give jobs that have transitions which are not sealed, at most so many, in no order."""
        found = self._scripts.store.call("SRANDMEMBER", self._keys.unsealed, limit)
        return self.read([item.decode() for item in found])

    def read(self, ids: Sequence[str]) -> list[Unsealed]:
        """Give these jobs, whether they have transitions that are not sealed or not."""
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
        """Give what was dispatched, of jobs that are there."""
        found: dict[str, bytes] = {}
        for at in range(0, len(job_ids), _SPECS_MAX):
            some = job_ids[at : at + _SPECS_MAX]
            replies = self._scripts.run_many([("HGET", self._keys.job(job_id), "spec") for job_id in some])
            found.update(
                {job_id: spec for job_id, spec in zip(some, replies, strict=True) if spec is not None}
            )
        return found

    def head(self, ledger: str) -> tuple[int, str]:
        """Give number and SHA-256 of the last line of a ledger that the store knows of; 0 if of none."""
        said = self._scripts.store.call("HGET", f"{self._scripts.prefix}ledgers", ledger)
        if said is None:
            return 0, ""
        seq, _, digest = said.decode().partition(" ")
        return int(seq), digest

    def has_ledgers(self) -> bool:
        """Tell whether anything was ever sealed, into any ledger."""
        return bool(self._scripts.store.call("EXISTS", f"{self._scripts.prefix}ledgers"))

    def note(self, term: Term, ledger: str, seq: int, digest: str, counts: Mapping[str, int]) -> bool:
        """Note what the ledger has.

        Args:
            term: Under which we lead.
            ledger: Its name.
            seq: Number of its last line.
            digest: SHA-256 of that.
            counts: Job id -> how many lines of its chain are sealed.

        Returns:
            Whether it was noted; if not, somebody else leads.
        """
        pairs = [part for pair in counts.items() for part in pair]
        reply = self._scripts.run("seal", term.fence, ledger, seq, digest, *pairs)
        return bool(reply[0] == b"noted")

    def lost(self) -> int:
        """Count the jobs that were deleted before the ledger had all their transitions."""
        said = self._scripts.store.call("GET", f"{self._keys.unsealed}:lost")
        return 0 if said is None else int(said)
