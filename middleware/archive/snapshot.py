"""Read many jobs in one round trip: record with attempts and deliveries, receipt, end of the output."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from middleware.job.assembly import LIFE_FIELDS, make_record, read_job, read_receipt
from middleware.job.reader import Reader
from middleware.job.records import JobRecord, OutputChunk, Receipt
from ops.store.resp import Reply

#: Output is read from its end, this many pieces at a time.
_PIECES = 200
_COMPLETED = LIFE_FIELDS.index("completed")


class JobSnapshot(Struct, frozen=True):
    """A job with everything that the history keeps; ``ended_ms`` is 0 until it has finished."""

    record: JobRecord
    receipt: Receipt
    ended_ms: int
    output: list[OutputChunk] = []


def read_snapshots(reader: Reader, ids: Sequence[str], *, output_max_bytes: int = 0) -> list[JobSnapshot]:
    """Return those of these jobs that the store has.

    Args:
        reader: Reads the store.
        ids: Their whole ids.
        output_max_bytes: Limit for the end of each job's output; 0 reads none.

    Raises:
        StoreUnreachable: The store is unavailable.
    """
    keys = reader.keys
    commands: list[tuple[str | int, ...]] = []
    for job_id in ids:
        commands += [
            ("HMGET", keys.job(job_id), *LIFE_FIELDS),
            ("GET", keys.result(job_id)),
            ("LRANGE", keys.receipts(job_id), 0, -1),
            _pieces(reader, job_id, "+") if output_max_bytes > 0 else ("EXISTS", keys.output(job_id)),
        ]
    replies = reader.read(commands) if commands else []
    found: list[JobSnapshot] = []
    lives: list[list[bytes | None]] = []
    for at, job_id in enumerate(ids):
        life, result, chain, rows = replies[4 * at : 4 * at + 4]
        if life[0] is None or not chain:
            continue  # removed meanwhile
        output = _output(reader, job_id, rows, output_max_bytes) if output_max_bytes > 0 else []
        found.append(
            JobSnapshot(
                make_record(job_id, life, result=result, chain=chain),
                read_receipt(read_job(job_id, life[0]), chain),
                0 if life[_COMPLETED] is None else int(life[_COMPLETED]),
                output,
            )
        )
        lives.append(life)
    records = reader.with_deliveries(reader.carriers.explain([whole.record for whole in found], lives), lives)
    return [
        msgspec.structs.replace(whole, record=record) for whole, record in zip(found, records, strict=True)
    ]


def _pieces(reader: Reader, job_id: str, top: str) -> tuple[str | int, ...]:
    return ("XREVRANGE", reader.keys.output(job_id), top, "-", "COUNT", _PIECES)


def _output(reader: Reader, job_id: str, rows: list[Reply], max_bytes: int) -> list[OutputChunk]:
    """Return the last pieces of the output, the first of them cut to the limit."""
    pieces: list[OutputChunk] = []
    room_bytes = max_bytes
    while True:
        for entry_id, fields in rows:
            text = fields[3].decode(errors="replace")
            data = text.encode()
            if len(data) > room_bytes:
                text = data[len(data) - room_bytes :].decode(errors="ignore")
            if text:
                pieces.append(OutputChunk(entry_id.decode(), fields[1].decode(), text))
            room_bytes -= min(len(data), room_bytes)
            if room_bytes == 0:
                return pieces[::-1]
        if len(rows) < _PIECES:
            return pieces[::-1]
        rows = reader.store.call(*_pieces(reader, job_id, f"({rows[-1][0].decode()}"))
