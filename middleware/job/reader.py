"""Read jobs from the store: one job, a page, a receipt, the output; in bounded steps, without scans."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from middleware.job.assembly import LIFE_FIELDS, job_not_found, make_record, stored_receipt
from middleware.job.carriers import Carriers
from middleware.job.deliveries import read_deliveries, undelivered_jobs
from middleware.job.ids import ID_LENGTH, id_named, is_id_part
from middleware.job.keys import DELIVER_QUEUE, QUEUE, Keys
from middleware.job.list_filters import matches, require_cursor
from middleware.job.records import JobPage, JobRecord, OutputChunk, Receipt
from middleware.job.registry import nearest
from middleware.job.states import State
from middleware.job.types import JOB_TYPES
from ops.errors import AmbiguousJobId, InvalidJob
from ops.store.client import Store
from ops.store.resp import Reply, as_dict

LIMIT_MAX = 1000
#: Maximum number of ids that one call filters; it then returns a cursor.
_FILTERED_MAX = 2000
_OUTPUT_PAGE = 500
_FOREIGN_ID_MAX = 64
#: Ids that the error for an ambiguous part names.
_NAMED_MAX = 3


class Reader:
    """The read side of one bridge.

    Args:
        store: The store to read.
        prefix: Prefix of all key names.

    Attributes:
        carriers: What the live workers carry.
    """

    def __init__(self, store: Store, prefix: str) -> None:
        self.store = store
        self.keys = Keys(prefix)
        self.carriers = Carriers(self.read, self.keys)

    def read(self, commands: Sequence[tuple[str | int, ...]]) -> list[Reply]:
        """Run commands in one round trip.

        Raises:
            StoreUnreachable: The store is unavailable.
            StoreError: One of them failed.
        """
        return self.store.read(commands)

    def resolve(self, part: str) -> str:
        """Return the whole id for a shortened one.

        Args:
            part: The id, or a prefix or suffix that only one job has; also ``agent:PROJECT:ID`` or a
                receipt's id.

        Raises:
            JobNotFound: No job matches.
            AmbiguousJobId: More than one job matches.
        """
        word = id_named(part)
        if not is_id_part(word):
            if self._is_foreign(part):
                return part
            raise job_not_found(part)
        if len(word) == ID_LENGTH:
            # A whole id needs no look-up: the caller reads the job next, and may wait for the store then.
            return word
        tail = word[::-1]
        heads, tails = self.read(
            [
                ("ZRANGEBYLEX", self.keys.index_all, f"[{word}", f"({word}~", "LIMIT", 0, 3),
                ("ZRANGEBYLEX", self.keys.index_tail, f"[{tail}", f"({tail}~", "LIMIT", 0, 3),
            ],
        )
        found = {item.decode() for item in heads} | {item.decode()[::-1] for item in tails}
        if not found:
            raise job_not_found(part)
        if len(found) > 1:
            names = ", ".join(sorted(found)[:_NAMED_MAX])
            more = ", ..." if len(found) > _NAMED_MAX else ""
            raise AmbiguousJobId(
                f"{part!r} matches more than one job: {names}{more}.",
                remedy="Use more characters of the id.",
            )
        return str(found.pop())

    def _is_foreign(self, text: str) -> bool:
        """Return whether a job has this id, one that a program chose when it submitted the job."""
        if len(text) > _FOREIGN_ID_MAX:
            return False
        status, queue = self.store.call("HMGET", self.keys.job(text), "status", "queue")
        return status is not None and queue != DELIVER_QUEUE.encode()

    def job(self, job_id: str) -> JobRecord:
        """Return a job by its whole id.

        Raises:
            JobNotFound: The store does not have it.
        """
        life, result, chain = self.read(
            [
                ("HMGET", self.keys.job(job_id), *LIFE_FIELDS),
                ("GET", self.keys.result(job_id)),
                ("LRANGE", self.keys.receipts(job_id), 0, -1),
            ],
        )
        if life[0] is None:
            raise job_not_found(job_id)
        records = self.carriers.explain([make_record(job_id, life, result=result, chain=chain)], [life])
        return self.with_deliveries(records, [life])[0]

    def status_of(self, job_id: str) -> str | None:
        """Return a job's status, None if the store does not have the job."""
        status = self.store.call("HGET", self.keys.job(job_id), "status")
        return None if status is None else str(status.decode())

    def receipt(self, job_id: str, *, duplicate: bool = False) -> Receipt:
        """Return a job's receipt by its whole id.

        Raises:
            JobNotFound: The store does not have the job.
        """
        return stored_receipt(self.store, self.keys, job_id, duplicate=duplicate)

    def queues(self) -> list[str]:
        """Return the names of all queues of jobs: ``jobs`` first, then the others in order."""
        return [QUEUE, *sorted(name.decode() for name in self.store.call("SMEMBERS", self.keys.queues))]

    def published_types(self) -> dict[str, bytes]:
        """Return the job types that workers have published: name to JSON."""
        return as_dict(self.store.call("HGETALL", self.keys.types))

    def summary(
        self, queue: str | None = None, *, job_type: str | None = None, project: str | None = None
    ) -> dict[str, int]:
        """Return the number of jobs in each state.

        Args:
            queue: Only jobs of this queue; None: of all queues but that of deliveries.
            job_type: Only jobs of this type.
            project: Only jobs of this project.
        """
        indexes = [] if project is None else [self.keys.index_project(project)]
        indexes += [] if job_type is None else [self.keys.index_type(job_type)]
        if queue == DELIVER_QUEUE:
            return self._count(indexes, [DELIVER_QUEUE])
        queues = self.queues()
        if queue is None or queues == [queue]:
            return self._count(indexes, queues)
        if queue != QUEUE:
            return self._count([*indexes, self.keys.index_queue(queue)], [queue])
        # That of most jobs has no index: it has what the others leave.
        rest = self._count(indexes, queues)
        for other in queues[1:]:
            counts = self._count([*indexes, self.keys.index_queue(other)], [other])
            rest = {state: max(0, count - counts[state]) for state, count in rest.items()}
        return rest

    def _count(self, indexes: list[str], queues: Sequence[str]) -> dict[str, int]:
        """Return the number of jobs in each state that are in all these indexes too.

        The store walks the smaller set of each pair, 0.17 us per job (measured with 100,000). So the fullest
        state, which may hold all jobs that ever ended, is not counted: it has what the others leave.
        """
        sets = [
            (state, self.keys.state(state, queue))
            for state in State
            for queue in (queues if state is State.QUEUED else queues[:1])
        ]
        sizes = self.read([("ZCARD", key) for _, key in sets])
        found = {str(state): 0 for state in State}
        if not indexes:
            for (state, _), size in zip(sets, sizes, strict=True):
                found[state] += size
            return found
        fullest = max(range(len(sets)), key=lambda at: sizes[at])
        # ZINTERCARD iterates over a single set, too: 50 ms for a million jobs.
        count_all = ("ZCARD",) if len(indexes) == 1 else ("ZINTERCARD", len(indexes))
        commands: list[tuple[str | int, ...]] = [(*count_all, *indexes)]
        others = [row for at, row in enumerate(sets) if at != fullest]
        for _, key in others:
            commands.append(("ZINTERCARD", 1 + len(indexes), key, *indexes))
        # In one transaction: a job that changes its state meanwhile would be counted twice or not at all.
        total, *counts = self.read([("MULTI",), *commands, ("EXEC",)])[-1]
        for (state, _), count in zip(others, counts, strict=True):
            found[state] += count
        found[sets[fullest][0]] += max(0, total - sum(counts))
        return found

    def page(
        self,
        *,
        status: str | None = None,
        job_type: str | None = None,
        project: str | None = None,
        source: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> JobPage:
        """Return a page of jobs, newest first; with ``status``, by the time of that state, latest first.

        Args:
            status: Only jobs in this state.
            job_type: Only jobs of this type.
            project: Only jobs of this project.
            source: Only jobs submitted through this interface; it has no index, so a page may be short.
            limit: Size of the page, at most 1000.
            cursor: ``next`` of the previous page.

        Raises:
            InvalidJob: The state or job type is unknown, or the cursor is not valid.
        """
        if status is not None and status not in set(State):
            raise InvalidJob(
                f"Unknown state {status!r}.", remedy=f"Use one of: {', '.join(State)}.", field="status"
            )
        if job_type is not None:
            self.require_type(job_type)
        require_cursor(cursor, status)
        limit = max(1, min(limit, LIMIT_MAX))
        jobs: list[JobRecord] = []
        looked, place = 0, cursor
        while len(jobs) < limit and looked < _FILTERED_MAX:
            rows, following = self._ids(status, job_type, project, limit, place)
            for (_, at), record in zip(rows, self._records([job_id for job_id, _ in rows]), strict=True):
                if record is None or not matches(record, status, job_type, project, source):
                    continue
                jobs.append(record)
                if len(jobs) == limit:
                    following = following if at == rows[-1][1] else at
                    break
            looked += len(rows)
            place = following
            if place is None:
                break
        return JobPage(jobs, self.summary(job_type=job_type, project=project), place)

    def require_type(self, job_type: str) -> None:
        """Check a filter: the type is built in, published by a worker, or one of which there are jobs.

        Raises:
            InvalidJob: It is none of these; the remedy names the nearest type.
        """
        if job_type in JOB_TYPES or self.store.call("EXISTS", self.keys.index_type(job_type)):
            return
        published = self.published_types()
        if job_type not in published:
            known = (*JOB_TYPES, *sorted(published))
            raise InvalidJob(f"Unknown job type {job_type!r}.", remedy=nearest(job_type, known), field="type")

    def with_deliveries(
        self, records: Sequence[JobRecord], lives: Sequence[list[bytes | None]]
    ) -> list[JobRecord]:
        """Return the records with their deliveries; a round trip only if one of them has any."""
        at = LIFE_FIELDS.index("deliveries")
        counts = {
            record.job_id: int(count)
            for record, life in zip(records, lives, strict=True)
            if (count := life[at]) is not None
        }
        found = read_deliveries(self.read, self.keys, counts)
        return [
            msgspec.structs.replace(record, deliveries=found[record.job_id])
            if record.job_id in found
            else record
            for record in records
        ]

    def undelivered(self, limit: int) -> list[JobRecord]:
        """Return jobs with a delivery that has not arrived, with their deliveries.

        Args:
            limit: Maximum number of jobs.
        """
        ids = undelivered_jobs(self.read, self.keys, limit)
        if not ids:
            return []
        lives = self.read([("HMGET", self.keys.job(job_id), *LIFE_FIELDS) for job_id in ids])
        known = [(job_id, life) for job_id, life in zip(ids, lives, strict=True) if life[0] is not None]
        return self.with_deliveries(
            [make_record(job_id, life) for job_id, life in known], [life for _, life in known]
        )

    def records(self, ids: Sequence[str]) -> list[JobRecord]:
        """Return those of these jobs that the store has, by their whole ids, without their attempts."""
        return [record for record in self._records(ids) if record is not None]

    def _ids(
        self,
        status: str | None,
        job_type: str | None,
        project: str | None,
        count: int,
        place: str | None,
    ) -> tuple[list[tuple[str, str]], str | None]:
        """Return the next ids of the most selective index with their cursors, and the next page's cursor."""
        if status is not None:
            queues = self.queues() if status == State.QUEUED else [QUEUE]
            keys = [self.keys.state(State(status), queue) for queue in queues]
            rows = self._ids_of_state(keys, count, place)
            return rows, rows[-1][1] if len(rows) == count else None
        key = self.keys.index_all
        if project is not None:
            key = self.keys.index_project(project)
        elif job_type is not None:
            key = self.keys.index_type(job_type)
        top = "+" if place is None else f"({place}"
        ids = [row.decode() for row in self.read([("ZREVRANGEBYLEX", key, top, "-", "LIMIT", 0, count)])[0]]
        return [(job_id, job_id) for job_id in ids], ids[-1] if len(ids) == count else None

    def _ids_of_state(self, keys: Sequence[str], count: int, place: str | None) -> list[tuple[str, str]]:
        """Return ids by score, those of one score by id, latest first; a place is ``SCORE:ID``."""
        score, _, last = ("+inf", "", "") if place is None else place.partition(":")
        top = score if place is None else f"({score}"
        commands: list[tuple[str | int, ...]] = []
        for key in keys:
            commands.append(("ZREVRANGEBYSCORE", key, score, score))
            commands.append(("ZREVRANGEBYSCORE", key, top, "-inf", "WITHSCORES", "LIMIT", 0, count))
        replies = self.read(commands)
        found: list[tuple[float, str, str]] = []
        for level, below in zip(replies[::2], replies[1::2], strict=True):
            # Of the jobs of the same millisecond, those that did not fit on the page before.
            found += [
                (float(score), job_id, f"{score}:{job_id}")
                for item in level
                if (job_id := item.decode()) < last
            ]
            found += [
                (float(of), item.decode(), f"{of.decode()}:{item.decode()}")
                for item, of in zip(below[::2], below[1::2], strict=True)
            ]
        found.sort(reverse=True)
        return [(job_id, at) for _, job_id, at in found[:count]]

    def _records(self, ids: Sequence[str]) -> list[JobRecord | None]:
        if not ids:
            return []
        commands: list[tuple[str | int, ...]] = []
        for job_id in ids:
            commands += [("HMGET", self.keys.job(job_id), *LIFE_FIELDS), ("GET", self.keys.result(job_id))]
        replies = self.read(commands)
        known = [at for at in range(len(ids)) if replies[2 * at][0] is not None]
        records = [make_record(ids[at], replies[2 * at], result=replies[2 * at + 1]) for at in known]
        found: list[JobRecord | None] = [None] * len(ids)
        for at, record in zip(
            known, self.carriers.explain(records, [replies[2 * at] for at in known]), strict=True
        ):
            found[at] = record
        return found

    def output(self, job_id: str, after: str = "-", limit: int = _OUTPUT_PAGE) -> list[OutputChunk]:
        """Return the next pieces of a job's output.

        Args:
            job_id: The whole id.
            after: ``entry_id`` of the last piece seen, ``-`` for the beginning.
            limit: Maximum number of pieces.
        """
        start = "-" if after == "-" else f"({after}"
        rows = self.store.call("XRANGE", self.keys.output(job_id), start, "+", "COUNT", limit)
        return [_chunk(row) for row in rows]


def _chunk(row: list[Reply]) -> OutputChunk:
    fields = row[1]
    return OutputChunk(row[0].decode(), fields[1].decode(), fields[3].decode(errors="replace"))
