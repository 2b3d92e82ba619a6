"""The folder 0UT.3OX: a page for each job under the day of its end, and its receipt beside it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

from actors.egress.outcome import Delivered, Outcome, as_json, as_markdown
from ops.errors import JobFailed
from ops.settings.load import LoadedSettings

_DAY_LENGTH = len("2026-01-01")
#: Of a delivery that was killed while it wrote; the next attempt replaces it.
_DRAFT = ".draft"


def deliver(outcome: Outcome, loaded: LoadedSettings, _which: str) -> Delivered:
    """Write the job and its receipt; the same again writes the same.

    A file appears whole or not at all, the receipt first: who sees the page finds its receipt.

    Raises:
        JobFailed: The folder cannot be written to; worth another attempt.
    """
    record = outcome.record
    ended = record.completed_at
    day = "undated" if ended is None else ended[:_DAY_LENGTH]
    folder = loaded.workspace.outbox / day
    receipt = msgspec.json.format(msgspec.json.encode(outcome.receipt), indent=2)
    if loaded.settings.deliver.format == "json":
        page, suffix = msgspec.json.format(as_json(outcome), indent=2), "json"
    else:
        page, suffix = as_markdown(outcome).encode(), "md"
    place = folder / f"{record.job_id}.{suffix}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / f"{record.job_id}.receipt.json", receipt + b"\n")
        _write(place, page)
        _sync(folder)
    except OSError as error:
        raise JobFailed(
            f"{error.filename} cannot be written: {error.strerror}.",
            remedy="Check space and mode of 0UT.3OX.",
        ) from error
    return Delivered(sink="outbox", place=str(place.relative_to(loaded.workspace.home)))


def _write(place: Path, data: bytes) -> None:
    draft = place.with_name(f".{place.name}{_DRAFT}")
    try:
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(place)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
