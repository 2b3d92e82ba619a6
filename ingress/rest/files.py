"""Uploads: files from afar go into the drop folder, where the station takes them."""

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

from ingress.core.http.app_state import AppStateDependency
from ingress.core.http.auth import requires
from ingress.core.http.problems import MEDIA_TYPE, ApiProblem, Problem
from ingress.rest.contract import BODY, problems
from ingress.rest.models import Upload, UploadedFile
from ingress.rest.upload_storage import UploadDraft, UploadFolder

FILES_MAX = 100
#: What a person writes about a file, in characters; the station reads no more.
_NOTE_MAX = 4_000
#: Written at once; smaller pieces are gathered, so that a thread is asked less often.
_GATHER_BYTES = 1_048_576

#: The body, for the OpenAPI document: the framework does not read it, it is streamed.
_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "file": {
            "type": "string",
            "format": "binary",
            "description": "The file, with its name; may come several times.",
        },
        "note": {
            "maxLength": _NOTE_MAX,
            "description": "What is to be known of it, or done with it.",
        },
    },
    "required": ["file"],
    "additionalProperties": False,
}
BODIES: dict[str, Any] = {
    "uploadFiles": {"required": True, "content": {"multipart/form-data": {"schema": _SCHEMA}}}
}


class MultipartReceiver:
    """Takes a multipart body as it comes.

    Args:
        place: Where files go.
        boundary: Between the parts.
        limit_bytes: All together.
    """

    def __init__(self, place: UploadFolder, boundary: str, *, limit_bytes: int) -> None:
        self._place = place
        self._limit_bytes = limit_bytes
        self._parser = PushMultipartParser(
            boundary, max_segment_count=FILES_MAX + 1, max_segment_size=math.inf, header_charset="utf8"
        )
        self._drafts: list[tuple[UploadDraft, str]] = []
        self._note = bytearray()
        self._target: UploadDraft | bytearray | None = None
        self._taken_bytes = 0

    def feed(self, data: bytes) -> None:
        """Take a piece of the body; blocks on the disk.

        Raises:
            ApiProblem: It is too large, or no valid multipart body.
            OSError: The disk does not take it.
        """
        self._taken_bytes += len(data)
        if self._taken_bytes > self._limit_bytes:
            raise too_large(self._limit_bytes)
        try:
            for event in self._parser.parse(data):
                if isinstance(event, MultipartSegment):
                    self._begin(event)
                elif event is None:
                    self._end()
                else:
                    self._take(bytes(event))
        except ParserLimitReached as error:
            raise ApiProblem(
                413,
                "payload-too-large",
                f"the body has too many parts or too long headers ({error}).",
                remedy=f"Send at most {FILES_MAX} files at a time.",
            ) from error
        except MultipartError as error:
            raise _malformed(str(error)) from error

    def _begin(self, part: MultipartSegment) -> None:
        if part.filename is not None or part.name == "file":
            draft = UploadDraft(self._place.draft())
            self._drafts.append((draft, "" if part.filename is None else part.filename))
            self._target = draft
        elif part.name == "note":
            self._target = self._note
        else:
            raise ApiProblem(
                400,
                "invalid-request",
                f"there is no field {part.name!r}.",
                remedy="Send files as 'file', and one 'note' if you like.",
                field=str(part.name),
            )

    def _take(self, data: bytes) -> None:
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
        """Give every file its name; blocks on the disk.

        Raises:
            ApiProblem: The body is not whole, or has no file.
        """
        try:
            self._parser.close()
        except MultipartError as error:
            raise _malformed(str(error)) from error
        if not self._drafts:
            raise ApiProblem(
                400,
                "invalid-request",
                "the body has no file.",
                remedy="Send one: curl -F file=@NAME.",
                field="file",
            )
        try:
            note = self._note.decode()
        except UnicodeDecodeError as error:
            raise _malformed("the note is no UTF-8") from error
        if len(note) > _NOTE_MAX:
            raise _note_too_long()
        uploaded = []
        for draft, given in self._drafts:
            name = self._place.settle(draft.path, self._place.safe_name(given), note)
            uploaded.append(UploadedFile(name=name, size_bytes=draft.size_bytes, sha256=draft.sha256))
        return Upload(files=uploaded)

    def discard(self) -> None:
        """Remove what has not got its name."""
        for draft, _ in self._drafts:
            draft.discard()


def too_large(limit_bytes: int) -> ApiProblem:
    """Give the problem of an upload beyond the limit."""
    return ApiProblem(
        413,
        "payload-too-large",
        f"the upload is larger than {limit_bytes} bytes.",
        remedy="Send less, or raise [rest] upload_max_bytes in 3ox.toml.",
    )


def _note_too_long() -> ApiProblem:
    return ApiProblem(
        400,
        "invalid-request",
        f"the note has more than {_NOTE_MAX} characters.",
        remedy="Send it as a file.",
        field="note",
    )


def _malformed(reason: str) -> ApiProblem:
    return ApiProblem(
        400,
        "invalid-request",
        f"the body is no valid multipart/form-data: {reason}.",
        remedy="Send it as curl -F does.",
    )


@post(
    "/v1/files",
    status_code=202,
    operation_id="uploadFiles",
    summary="Hand files to the station",
    description="Streamed into the drop folder; the station makes an `ingest.file` job of each.",
    guards=[requires("submit")],
    request_max_body_size=None,
    responses={
        **problems(409, *BODY),
        507: ResponseSpec(
            Problem, generate_examples=False, description="The disk is full.", media_type=MEDIA_TYPE
        ),
    },
)
async def upload_files(request: Request[Any, Any, Any], app_state: AppStateDependency) -> Upload:
    """Take files."""
    kind, options = request.content_type
    if kind.lower() != "multipart/form-data" or not options.get("boundary"):
        raise ApiProblem(
            415,
            "media-type",
            f"the body is declared as {kind!r}.",
            remedy="Send 'Content-Type: multipart/form-data; boundary=...', as curl -F does.",
        )
    limit_bytes = app_state.rest.upload_max_bytes
    if request.content_length is not None and request.content_length > limit_bytes:
        raise too_large(limit_bytes)
    try:
        receiver = MultipartReceiver(
            UploadFolder(app_state.loaded), options["boundary"], limit_bytes=limit_bytes
        )
    except MultipartError as error:
        raise _malformed(str(error)) from error
    try:
        gathered = bytearray()
        async for chunk in request.stream():
            gathered += chunk
            if len(gathered) >= _GATHER_BYTES or not chunk:
                await sync_to_thread(receiver.feed, bytes(gathered))
                gathered.clear()
        return await sync_to_thread(receiver.finish)
    except OSError as error:
        raise ApiProblem(
            507, "disk", f"the file cannot be kept: {error.strerror}.", remedy="Free disk space."
        ) from error
    except InternalServerException as error:
        raise ApiProblem(400, "incomplete", "the client went away.", remedy="Send it again.") from error
    finally:
        await sync_to_thread(receiver.discard)


ROUTES: list[Any] = [upload_files]
