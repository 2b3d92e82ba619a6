"""Download attachments of messages and submit them as jobs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

from ingress.core.drop_folder import received_name
from ingress.core.file_submission import CLAIMED, REFUSED, FileAnswer, FileSubmission
from ingress.telegram.pending_reply import Attachment
from ops.files import digest_of


async def submit_attachment(
    attachment: Attachment,
    submission: FileSubmission,
    job_id: str,
    download: Callable[[str, Path], Awaitable[int]],
) -> FileAnswer:
    """Download an attachment, and submit its job once it is complete, with the caption as its note.

    Args:
        attachment: The attachment.
        submission: Submits the file.
        job_id: Id of its job; the same for each attempt, so that a file is submitted once.
        download: Writes the file of an id to a path and returns its size in bytes.

    Raises:
        OSError: The file cannot be written.
    """
    draft = submission.draft("telegram")
    try:
        await download(attachment.file_id, draft)
        return await asyncio.to_thread(_submit, attachment, submission, job_id, draft)
    finally:
        draft.unlink(missing_ok=True)


def _submit(attachment: Attachment, submission: FileSubmission, job_id: str, draft: Path) -> FileAnswer:
    with draft.open("rb") as file:
        os.fsync(file.fileno())
    sha256, size_bytes = digest_of(draft, lambda: None)
    name = received_name(attachment.name, "telegram")
    return submission.submit(
        draft, name, attachment.caption, sha256=sha256, size_bytes=size_bytes, job_id=job_id
    )


def describe(answer: FileAnswer, *, has_note: bool) -> str:
    """Return what became of an attachment, one or two sentences.

    Args:
        answer: The answer about the file.
        has_note: Whether its caption became its note.
    """
    if answer.status == REFUSED:
        return f"{answer.name} was refused. {answer.reason}"
    note = " with your note" if has_note else ""
    same = "" if answer.same_content is None else f" Same content as job {answer.same_content}."
    if answer.status == CLAIMED:
        return (
            f"{answer.name} ({answer.size_bytes} bytes) waits{note} for the station as job {answer.job_id}."
            f"{same} {answer.reason}"
        )
    return f"{answer.name} ({answer.size_bytes} bytes) is {answer.status}{note} as job {answer.job_id}.{same}"
