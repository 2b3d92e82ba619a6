"""``ingest.file``: verify a file that the station has claimed, decide what to do with it, and do it.

The claimed file stays where it is: the station removes it once the result is committed.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from actors.context import current_job, settings
from actors.ingest.actions import ActionContext
from actors.ingest.decision import Decision, IngestResult, decide_by_rules, default_decision
from actors.ingest.executor import ActionExecutor
from actors.ingest.journal import Journal, read_journal
from actors.ingest.model_decision import decide_by_model
from actors.ingest.paths import parts_of, require_name
from actors.job_types.ingest_file import IngestFilePayload
from middleware.job.ids import ID_LENGTH, is_id_part
from ops.drop_folder_layout import claim_folder, failed_folder
from ops.errors import JobRefused
from ops.files import as_job_error, digest_of, is_link_to
from ops.filetype import media_type_of
from ops.settings.load import LoadedSettings
from ops.workspace import Workspace


def ingest_file(payload: IngestFilePayload) -> IngestResult:
    """Ingest a file.

    Raises:
        JobRefused: The file is missing, has changed, or is outside the drop folder.
        JobFailed: A folder is not writable, or the disk is full; worth a retry.
        JobInterrupted: The job was cancelled or ran out of time; a retry continues where this one stopped.
    """
    context = current_job()
    loaded = settings()
    workspace = loaded.workspace
    source = find_source(workspace, context.job_id, payload)
    _verify(source, payload)
    # An action begun by an earlier attempt is completed as it was decided then.
    begun = read_journal(workspace, context.job_id)
    action = _action_context(loaded, payload, source, begun)
    journal = ActionExecutor(action, source, begun, context.check_cancelled).execute()
    result = _result(action, journal)
    context.log(f"{result.action}: {result.path} ({result.reason})")
    for remark in result.remarks:
        context.log(remark, stream="err")
    return result


def find_source(workspace: Workspace, job_id: str, payload: IngestFilePayload) -> Path:
    """Return the path of the file: where it was claimed, or in ``failed/`` if the job is retried by hand.

    The job may come from any interface, so its path is checked: only files in the drop folder are ingested.

    Raises:
        JobRefused: The file is missing or outside the drop folder.
    """
    require_name(payload.name)
    parts_of(payload.folder)
    inbox = os.path.realpath(workspace.inbox)
    claimed = Path(payload.path)
    if Path(os.path.realpath(claimed.parent)).is_relative_to(inbox) and os.path.lexists(claimed):
        return claimed
    try:
        inner = claimed.relative_to(claim_folder(workspace, job_id))
    except ValueError:
        pass
    else:
        failed = failed_folder(workspace, job_id) / inner
        if os.path.lexists(failed) and Path(os.path.realpath(failed.parent)).is_relative_to(inbox):
            return failed
    raise JobRefused(
        f"The file {payload.name!r} is not in the drop folder.",
        remedy="Drop it again with '3ox drop FILE'. Workers on other hosts need the station's workspace.",
    )


def _verify(source: Path, payload: IngestFilePayload) -> None:
    try:
        unchanged = _is_unchanged(source, payload)
    except OSError as error:
        raise as_job_error(error, f"The {payload.kind} {payload.name!r} cannot be read") from error
    if not unchanged:
        raise JobRefused(
            f"The {payload.kind} {payload.name!r} has changed since it was claimed.",
            remedy="Drop it again when it is complete.",
        )


def _is_unchanged(source: Path, payload: IngestFilePayload) -> bool:
    if payload.kind == "link":
        return is_link_to(source, payload.link)
    if payload.kind == "folder":
        return not source.is_symlink() and not any(source.iterdir())
    return digest_of(source, current_job().check_cancelled) == (payload.sha256, payload.size_bytes)


def _action_context(
    loaded: LoadedSettings, payload: IngestFilePayload, source: Path, begun: Journal | None
) -> ActionContext:
    if payload.media_type == "":
        payload = msgspec.structs.replace(payload, media_type=media_type_of(source, payload.name))
    decision = decide(loaded, payload, source) if begun is None else begun.decision
    return ActionContext(loaded.workspace, current_job().job_id, payload, decision)


def decide(loaded: LoadedSettings, payload: IngestFilePayload, source: Path) -> Decision:
    """Return the decision about a file: of the first matching rule, else of a model, else the default.

    Args:
        loaded: Settings with the rules.
        payload: The file.
        source: Its path.

    Raises:
        JobFailed: The file cannot be read.
        JobParked: The model's server named the time to retry.
        JobInterrupted: The job was cancelled or ran out of time.
    """
    station = loaded.settings.station
    decided = decide_by_rules(station.rules, payload)
    if decided is not None:
        return decided
    if not station.understand or payload.kind != "file":
        return default_decision()
    earlier = _earlier_decision(loaded.workspace, payload.same_as) if payload.reuse else None
    if earlier is not None:
        return earlier
    try:
        return decide_by_model(loaded, payload, source)
    except OSError as error:
        raise as_job_error(error, f"The file {payload.name!r} cannot be read") from error


def _earlier_decision(workspace: Workspace, job_id: str) -> Decision | None:
    """Return the decision of a model about the same content; None if there is none."""
    if len(job_id) != ID_LENGTH or not is_id_part(job_id):
        return None
    journal = read_journal(workspace, job_id)
    if journal is None or "/" not in journal.decision.by:
        return None
    note = f"The content is that of job {job_id}, whose decision was used."
    return msgspec.structs.replace(journal.decision, notes=[*journal.decision.notes, note])


def _result(action: ActionContext, journal: Journal) -> IngestResult:
    payload, decision = action.payload, action.decision
    placed = next((step for step in journal.steps if step.kind in ("file", "link")), journal.steps[-1])
    remarks = list(decision.notes)
    if placed.kind == "file" and not placed.made:
        remarks.append("A file of this name and content was there already; it was not stored again.")
    if payload.left:
        remarks.append(f"Left in IN1N.3OX: {', '.join(payload.left)}.")
    return IngestResult(
        action=decision.action,
        path=placed.path,
        name=payload.name,
        folder=payload.folder,
        sha256=payload.sha256,
        size_bytes=payload.size_bytes,
        media_type=payload.media_type,
        reason=decision.reason,
        by=decision.by,
        made=[step.path for step in journal.steps if step.made],
        note=payload.note,
        links=decision.links,
        priority=decision.priority,
        remarks=remarks,
        same_as=payload.same_as,
    )
