"""Typed calls of the store functions: one method each. All of them are idempotent.

The functions are in one library (``functions.py``), which is loaded when the store does not have it yet. What
each does, with its arguments and replies, is documented in its ``.lua`` file.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import hiredis

from middleware.broker.functions import is_unknown, library, load
from middleware.broker.transitions import Bounds, Delivered, Enqueued, EnqueueRequest, Fetched, Settlement
from middleware.job.keys import QUEUE, QUEUES
from ops.errors import StoreError
from ops.store.client import Store
from ops.store.resp import Argument, Reply, as_error, well_formed

#: Jobs per call of ``enqueue``, which occupies the store for about 1 ms.
BATCH_MAX = 50
#: Maximum length of a reason: it may be the text of any exception, and becomes part of the ledger, whose
#: lines are bounded.
_REASON_MAX_CHARS = 2_000


class Scripts:
    """Calls the store functions.

    Args:
        store: The store.
        prefix: Prefix of all key names.
        bounds: Limits that the functions enforce; the defaults if None.
    """

    def __init__(self, store: Store, prefix: str, bounds: Bounds | None = None) -> None:
        self.store = store
        self.prefix = prefix
        self.bounds = Bounds() if bounds is None else bounds
        self._functions = library().functions

    def command(self, name: str, *arguments: Argument) -> tuple[Argument, ...]:
        """Return the command that calls a function, for use in a pipeline."""
        return ("FCALL", self._functions[name], 1, self.prefix, self.bounds.events_max, *arguments)

    def run(self, name: str, *arguments: Argument) -> Reply:
        """Call a function.

        Raises:
            StoreUnreachable: Calling again is safe.
            StoreError: The function failed, which is a bug.
        """
        return self.run_many([self.command(name, *arguments)])[0]

    def run_many(self, commands: Sequence[tuple[Argument, ...]]) -> list[Reply]:
        """Run commands in one round trip and return their replies.

        Args:
            commands: From ``command``, or commands of the store.

        Raises:
            StoreUnreachable: Running them again is safe.
            StoreError: One of them failed, which is a bug.
        """
        replies = self.exchange(commands)
        for reply in replies:
            if isinstance(reply, hiredis.ReplyError):
                raise as_error(reply)
        return replies

    def exchange(self, commands: Sequence[tuple[Argument, ...]]) -> list[Reply]:
        """Run commands in one round trip and return their replies, error replies included.

        Args:
            commands: From ``command``, or commands of the store.

        Raises:
            StoreUnreachable: Running them again is safe.
            StoreError: The store refuses the library of functions.
        """
        replies = self.store.pipeline(commands)
        unknown = [at for at, reply in enumerate(replies) if is_unknown(reply)]
        if unknown:
            load(self.store)
            again = self.store.pipeline([commands[at] for at in unknown])
            for at, reply in zip(unknown, again, strict=True):
                replies[at] = reply
        return replies

    def enqueue(self, requests: Iterable[EnqueueRequest]) -> Iterator[Enqueued]:
        """Enqueue jobs, in batches. Each job is atomic, all of them together are not.

        Args:
            requests: Consumed as needed, while the store processes the previous ones.

        Yields:
            The reply for each, in order. Read all of them.

        Raises:
            StoreUnreachable: Some may have been enqueued; enqueuing the same requests again does not repeat
                those.
        """
        source = iter(requests)
        # The first batch loads the library if the store does not have it; the others are streamed.
        first = list(islice(source, BATCH_MAX))
        if not first:
            return
        for reply in self.run_many([self._enqueue_command(first)]):
            yield from map(_enqueued, reply)
        if len(first) < BATCH_MAX:
            return
        for reply in self.store.stream(self._enqueue_commands(source)):
            if isinstance(reply, hiredis.ReplyError):
                raise as_error(reply)
            yield from map(_enqueued, reply)

    def _enqueue_commands(self, source: Iterator[EnqueueRequest]) -> Iterator[tuple[Argument, ...]]:
        while batch := list(islice(source, BATCH_MAX)):
            yield self._enqueue_command(batch)

    def _enqueue_command(self, batch: list[EnqueueRequest]) -> tuple[Argument, ...]:
        arguments: list[Argument] = [self.bounds.idempotency_ttl_ms, self.bounds.queue_max]
        for request in batch:
            arguments.extend(_enqueue_arguments(request))
        return self.command("enqueue", *arguments)

    def fetch(self, worker_id: str, queue: str, *, room: int, delivery: str, lease_ms: int) -> Fetched:
        """Fetch a worker's next jobs.

        Args:
            worker_id: Worker whose processing set they go to.
            queue: Name of the queue.
            room: Maximum number of jobs.
            delivery: A token for this fetch only; repeat the fetch with the same token if the reply was lost.
            lease_ms: Duration of the worker's lease from now.
        """
        reply = self.run("fetch", worker_id, queue, room, delivery, lease_ms)
        jobs = [
            Delivered(
                reply[at].decode(),
                reply[at + 1],
                int(reply[at + 2]),
                int(reply[at + 3]),
                int(reply[at + 4]),
                reply[at + 5],
            )
            for at in range(1, len(reply), 6)
        ]
        return Fetched(reply[0], jobs)

    def settle_command(
        self, worker_id: str, job_id: str, delivery: str, settlement: Settlement
    ) -> tuple[Argument, ...]:
        """Return the command that ends an attempt, for use in a pipeline."""
        digest = hashlib.sha256(settlement.result).hexdigest() if settlement.result else ""
        return self.command(
            "settle",
            worker_id,
            job_id,
            delivery,
            settlement.outcome,
            settlement.result,
            digest,
            settlement.error,
            settlement.delay_ms,
            _bounded(settlement.reason),
            self.bounds.retention_ms,
            self.bounds.finished_max,
            *self._followers(settlement),
        )

    def _followers(self, settlement: Settlement) -> list[Argument]:
        """Return the arguments of ``settle`` from the 13th on: options, group and followers."""
        group = settlement.group
        if not settlement.followers and group is None:
            return [self.bounds.idempotency_ttl_ms, settlement.options]
        arguments: list[Argument] = [self.bounds.idempotency_ttl_ms, settlement.options]
        arguments += ["", 0] if group is None else [group.group_id, group.ttl_ms]
        arguments.append(len(settlement.followers))
        for request in (*settlement.followers, *(() if group is None else group.followers)):
            arguments.extend(_enqueue_arguments(request))
        return arguments

    def create_group(self, group_id: str, size: int, *, ttl_ms: int) -> bool:
        """Record the number of members of a group; return whether it is new."""
        reply = self.store.call("SET", f"{self.prefix}groupsize:{group_id}", size, "NX", "PX", ttl_ms)
        return reply is not None

    def park(self, worker_id: str, job_id: str, delivery: str, *, job_type: str, reason: str) -> None:
        """Hold a fetched job for which this worker has no actor, until a worker publishes its type."""
        self.run("park", worker_id, job_id, delivery, job_type, _bounded(reason))

    def publish(self, types: Iterable[tuple[str, str, bytes]]) -> list[str]:
        """Publish the job types for which a worker has actors; queue the jobs that were held until then.

        Args:
            types: Name, queue and description (JSON of ``PublishedType``) of each.

        Returns:
            Names that were refused because the store has the maximum number of types.
        """
        arguments = [part for row in types for part in row]
        return [name.decode() for name in self.run("publish", self.bounds.types_ttl_ms, *arguments)]

    def are_held(self, job_types: Sequence[str]) -> bool:
        """Return whether jobs of one of these types are held since no worker carried their type."""
        keys = [f"{self.prefix}uncarried:{name}" for name in job_types]
        return bool(keys) and self.store.call("EXISTS", *keys) > 0

    def settle(self, worker_id: str, job_id: str, delivery: str, settlement: Settlement) -> tuple[str, str]:
        """End an attempt.

        Returns:
            ``settled``, ``already`` or ``superseded``, and the job's status.
        """
        reply = self.run_many([self.settle_command(worker_id, job_id, delivery, settlement)])[0]
        return reply[0].decode(), reply[1].decode()

    def report_command(
        self,
        worker_id: str,
        job_id: str,
        delivery: str,
        *,
        percent: str,
        message: str,
        output: Sequence[tuple[str, str]],
        bundle: int,
    ) -> tuple[Argument, ...]:
        """Return the command that sends progress and output, for use in a pipeline.

        Args:
            worker_id: Worker that holds the job.
            job_id: Id of the job.
            delivery: Its delivery token.
            percent: Progress, 0 to 100; empty for none.
            message: Progress message.
            output: Pairs of stream and text.
            bundle: Number of this bundle of output within the delivery.
        """
        pieces = [part for piece in output for part in piece]
        limit = self.bounds.output_entries_max
        return self.command("report", worker_id, job_id, delivery, percent, message, limit, bundle, *pieces)

    def recover(
        self,
        worker_id: str = "",
        *,
        not_started: Sequence[str] = (),
        how: str = "its lease ended",
        lease_ms: int = 15_000,
    ) -> list[tuple[str, str, str]]:
        """Recover the jobs of a dead worker, or of all workers whose lease has ended.

        Args:
            worker_id: The worker; '' for all whose lease has ended; call that at least twice per lease.
            not_started: Ids of jobs that it had not started: no crash is counted for these.
            how: How the worker was lost, in a few words.
            lease_ms: Duration of a lease.

        Returns:
            Worker id, job id and new status of each recovered job.
        """
        bounds, spared = self.bounds, ",".join(not_started)
        reply = self.run(
            "recover", worker_id, bounds.max_crashes, spared, how, lease_ms, bounds.crash_pause_ms
        )
        words = [word.decode() for word in reply]
        return [(words[at], words[at + 1], words[at + 2]) for at in range(0, len(words), 3)]

    def cancel(self, job_id: str, reason: str) -> tuple[str, str]:
        """Cancel a job; return ``cancelled``, ``cancelling``, ``finished`` or ``unknown``, and its status."""
        reply = self.run("cancel", job_id, _bounded(reason), os.urandom(8).hex())
        return reply[0].decode(), reply[1].decode()

    def requeue(self, job_id: str, reason: str) -> tuple[str, str]:
        """Queue a finished job again; return ``queued``, ``refused`` or ``unknown``, and its status."""
        reply = self.run("requeue", job_id, _bounded(reason), os.urandom(8).hex())
        return reply[0].decode(), reply[1].decode()

    def promote(self, limit: int = 100) -> int:
        """Move due jobs to the ready queues; return the ms until the next one is due, -1 if there is none."""
        return int(self.run("promote", limit, *QUEUES))

    def beat(self, worker_id: str, lease_ms: int, fields: dict[str, Argument]) -> int:
        """Send a worker's heartbeat; return the number of jobs in its processing set."""
        pairs = [part for pair in fields.items() for part in pair]
        return int(self.run("beat", worker_id, lease_ms, *pairs))

    def leave(self, worker_id: str) -> int:
        """Give up a worker's lease, unless it still holds jobs; return how many."""
        return int(self.run("leave", worker_id))

    def purge(self, state: str, limit: int, until_ms: int | None = None, *, queue: str = QUEUE) -> int:
        """Delete finished jobs; return how many."""
        return int(self.run("purge", state, limit, "+inf" if until_ms is None else until_ms, queue))


def _bounded(reason: str) -> str:
    return well_formed(reason[:_REASON_MAX_CHARS])


def _enqueue_arguments(request: EnqueueRequest) -> tuple[Argument, ...]:
    return (
        request.job_id,
        request.queue,
        request.priority,
        request.spec,
        request.job_type,
        request.project,
        request.input_sha256,
        request.delay_ms,
        request.idempotency_key,
        request.limits,
        ",".join(request.depends_on),
        request.approval,
        request.sinks,
    )


def _enqueued(reply: list[Reply]) -> Enqueued:
    outcome = reply[0].decode()
    if outcome in {"full", "queues"}:
        return Enqueued(outcome, waiting=reply[1])
    if outcome == "dependency":
        return Enqueued(outcome, reply[1].decode(), reply[2].decode())
    if outcome in {"new", "duplicate"}:
        return Enqueued(outcome, reply[1].decode(), reply[2].decode(), int(reply[3]))
    raise StoreError(f"The function enqueue returned an unknown reply: {outcome}.")
