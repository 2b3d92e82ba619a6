"""Upload of files into the drop folder, where the station processes them."""

from __future__ import annotations

import math
from typing import Any

from litestar import Request, post
from litestar.concurrency import sync_to_thread
from litestar.exceptions import InternalServerException
from litestar.openapi.datastructures import ResponseSpec
from multipart import (  # type: ignore[import-untyped]
    MultipartError,
    MultipartSegment,
    ParserLimitReached,
    PushMultipartParser,
)

from ingress.core.drop_folder import received_name
from ingress.core.file_jobs import ContentIndex
from ingress.core.file_submission import REFUSED, FileSubmission
from ingress.core.http.app_state import AppStateDependency
from ingress.core.http.auth import requires
from ingress.core.http.content_disposition import filename_of
from ingress.core.http.problems import MEDIA_TYPE, ApiProblem, Problem
from ingress.rest.contract import BODY, problems
from ingress.rest.models import Upload, UploadedFile
from ingress.rest.upload_storage import UploadDraft

FILES_MAX = 100
#: Length of a note in characters; the station reads no more.
_NOTE_MAX = 4_000
#: Data written per call of a thread; smaller pieces are collected first.
_WRITE_BYTES = 1_048_576

#: The body, for the OpenAPI document: it is streamed, so the framework does not parse it.
_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "file": {
            "type": "string",
            "format": "binary",
            "description": "A file with its name; can be repeated.",
        },
        "note": {
            "maxLength": _NOTE_MAX,
            "description": "Text about the files: what they are, or what to do with them.",
        },
    },
    "required": ["file"],
    "additionalProperties": False,
}
BODIES: dict[str, Any] = {
    "uploadFiles": {"required": True, "content": {"multipart/form-data": {"schema": _SCHEMA}}}
}


class MultipartReceiver:
    """Parses a multipart body incrementally and writes its files.

    Args:
        submission: Submits the files.
        boundary: Boundary between the parts.
        limit_bytes: Maximum size of the body.
    """

    def __init__(self, submission: FileSubmission, boundary: str, *, limit_bytes: int) -> None:
        self._submission = submission
        self._limit_bytes = limit_bytes
        self._parser = PushMultipartParser(
            boundary, max_segment_count=FILES_MAX + 1, max_segment_size=math.inf, header_charset="latin-1"
        )
        self._drafts: list[tuple[UploadDraft, str]] = []
        self._note = bytearray()
        self._target: UploadDraft | bytearray | None = None
        self._received_bytes = 0

    def feed(self, data: bytes) -> None:
        """Process a part of the body; blocks on the disk.

        Raises:
            ApiProblem: The body is too large, or not valid multipart.
            OSError: A file cannot be written.
        """
        self._received_bytes += len(data)
        if self._received_bytes > self._limit_bytes:
            raise too_large(self._limit_bytes)
        try:
            for event in self._parser.parse(data):
                if isinstance(event, MultipartSegment):
                    self._begin(event)
                elif event is None:
                    self._end()
                else:
                    self._append(bytes(event))
        except ParserLimitReached as error:
            raise ApiProblem(
                413,
                "payload-too-large",
                f"The body has too many parts or too long headers ({error}).",
                remedy=f"Send at most {FILES_MAX} files at a time.",
            ) from error
        except MultipartError as error:
            raise _malformed(str(error)) from error

    def _begin(self, part: MultipartSegment) -> None:
        filename = filename_of(part.header("Content-Disposition", ""))
        if filename is not None or part.name == "file":
            draft = UploadDraft(self._submission.draft("upload"))
            self._drafts.append((draft, "" if filename is None else filename))
            self._target = draft
        elif part.name == "note":
            self._target = self._note
        else:
            raise ApiProblem(
                400,
                "invalid-request",
                f"Unknown field {part.name!r}.",
                remedy="Send files as 'file', and at most one 'note'.",
                field=str(part.name),
            )

    def _append(self, data: bytes) -> None:
        if isinstance(self._target, UploadDraft):
            self._target.write(data)
        elif self._target is not None:
            self._target += data
            if len(self._note) > 4 * _NOTE_MAX:
                raise _note_too_long()

    def _end(self) -> None:
        if isinstance(self._target, UploadDraft):
            self._target.close()
        self._target = None

    def finish(self) -> Upload:
        """Submit all files; blocks on the disk and the store.

        Raises:
            ApiProblem: The body is incomplete or has no file, or the policy refuses all of them.
        """
        try:
            self._parser.close()
        except MultipartError as error:
            raise _malformed(str(error)) from error
        if not self._drafts:
            raise ApiProblem(
                400,
                "invalid-request",
                "The body has no file.",
                remedy="Send one, for instance: curl -F file=@NAME.",
                field="file",
            )
        try:
            note = self._note.decode()
        except UnicodeDecodeError as error:
            raise _malformed("the note is not UTF-8") from error
        if len(note) > _NOTE_MAX:
            raise _note_too_long()
        uploaded: list[UploadedFile] = []
        for draft, sent_name in self._drafts:
            name = received_name(sent_name, "upload")
            try:
                uploaded.append(self._submit(draft, name, note))
            except OSError as error:
                if all(file.status == REFUSED for file in uploaded):
                    raise
                # The jobs of the others are submitted, so the answer has to name them.
                uploaded.append(_not_stored(draft, name, error))
        if all(file.status == REFUSED for file in uploaded):
            raise ApiProblem(403, "denied", uploaded[0].reason)
        return Upload(files=uploaded)

    def _submit(self, draft: UploadDraft, name: str, note: str) -> UploadedFile:
        answer = self._submission.submit(
            draft.path, name, note, sha256=draft.sha256, size_bytes=draft.size_bytes
        )
        return UploadedFile(
            name=answer.name,
            size_bytes=answer.size_bytes,
            sha256=answer.sha256,
            job_id=None if answer.status == REFUSED else answer.job_id,
            status=answer.status,
            same_content=answer.same_content,
            reason=answer.reason,
        )

    def discard(self) -> None:
        """Remove the files that have not been submitted."""
        for draft, _ in self._drafts:
            draft.discard()


def _not_stored(draft: UploadDraft, name: str, error: OSError) -> UploadedFile:
    return UploadedFile(
        name=name,
        size_bytes=draft.size_bytes,
        sha256=draft.sha256,
        job_id=None,
        status=REFUSED,
        same_content=None,
        reason=f"The file cannot be stored: {error.strerror}.",
    )


def too_large(limit_bytes: int) -> ApiProblem:
    """Return the problem of an upload that exceeds the limit."""
    return ApiProblem(
        413,
        "payload-too-large",
        f"The upload is larger than {limit_bytes} bytes.",
        remedy="Send less, or raise [rest] upload_max_bytes in 3ox.toml.",
    )


def _note_too_long() -> ApiProblem:
    return ApiProblem(
        400,
        "invalid-request",
        f"The note has more than {_NOTE_MAX} characters.",
        remedy="Send it as a file.",
        field="note",
    )


def _malformed(reason: str) -> ApiProblem:
    return ApiProblem(
        400,
        "invalid-request",
        f"The body is not valid multipart/form-data: {reason}.",
        remedy="Send it as curl -F does.",
    )


@post(
    "/v1/files",
    status_code=202,
    operation_id="uploadFiles",
    summary="Upload files",
    description="Each file becomes an `ingest.file` job; the answer names them in the order of the files.",
    guards=[requires("submit")],
    request_max_body_size=None,
    responses={
        **problems(*BODY),
        507: ResponseSpec(
            Problem, generate_examples=False, description="The disk is full.", media_type=MEDIA_TYPE
        ),
    },
)
async def upload_files(request: Request[Any, Any, Any], app_state: AppStateDependency) -> Upload:
    """Receive files."""
    kind, options = request.content_type
    if kind.lower() != "multipart/form-data" or not options.get("boundary"):
        raise ApiProblem(
            415,
            "media-type",
            f"The body is declared as {kind!r}.",
            remedy="Send 'Content-Type: multipart/form-data; boundary=...', as curl -F does.",
        )
    limit_bytes = app_state.rest.upload_max_bytes
    if request.content_length is not None and request.content_length > limit_bytes:
        raise too_large(limit_bytes)
    try:
        acceptance, loaded = app_state.acceptance, app_state.loaded
        submission = FileSubmission(
            loaded, ContentIndex(acceptance.quick.reader, loaded.settings), acceptance.accept
        )
        receiver = MultipartReceiver(submission, options["boundary"], limit_bytes=limit_bytes)
    except MultipartError as error:
        raise _malformed(str(error)) from error
    try:
        collected = bytearray()
        async for chunk in request.stream():
            collected += chunk
            if len(collected) >= _WRITE_BYTES or not chunk:
                await sync_to_thread(receiver.feed, bytes(collected))
                collected.clear()
        return await sync_to_thread(receiver.finish)
    except OSError as error:
        raise ApiProblem(
            507, "disk", f"The file cannot be stored: {error.strerror}.", remedy="Free disk space."
        ) from error
    except InternalServerException as error:
        raise ApiProblem(
            400, "incomplete", "The client disconnected before the end of the body.", remedy="Send it again."
        ) from error
    finally:
        await sync_to_thread(receiver.discard)


ROUTES: list[Any] = [upload_files]
