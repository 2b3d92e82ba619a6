"""The folder 0UT.3OX: one file per job and its receipt, in a folder per completion day."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

from actors.egress.outcome import Delivered, Outcome, as_json, as_markdown
from ops.errors import JobFailed
from ops.files import sync_folder
from ops.settings.load import LoadedSettings

_DAY_LENGTH = len("2026-01-01")
#: Suffix of a file being written; one left by a killed delivery is replaced by the next attempt.
_DRAFT = ".draft"


def deliver(outcome: Outcome, loaded: LoadedSettings, _which: str) -> Delivered:
    """Write the job and its receipt; repeating it writes the same files.

    Each file appears complete or not at all, the receipt first, so that a result is never without one.

    Raises:
        JobFailed: The folder is not writable; worth a retry.
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
    file = folder / f"{record.job_id}.{suffix}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / f"{record.job_id}.receipt.json", receipt + b"\n")
        _write(file, page)
        sync_folder(folder)
    except OSError as error:
        raise JobFailed(
            f"{error.filename} cannot be written: {error.strerror}.",
            remedy="Check the free disk space and the permissions of 0UT.3OX.",
        ) from error
    return Delivered(sink="outbox", place=str(file.relative_to(loaded.workspace.home)))


def _write(path: Path, data: bytes) -> None:
    draft = path.with_name(f".{path.name}{_DRAFT}")
    try:
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise
