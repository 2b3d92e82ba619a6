"""Commands for files: ``drop`` submits them to the drop folder, ``undo`` reverts the action on one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec

from ingress.cli.shared import json_option
from ingress.core.drop_folder import utf8_name
from ingress.core.file_jobs import ContentIndex
from ingress.core.file_submission import CLAIMED, REFUSED, FileAnswer, FileSubmission
from ingress.core.local_user import utf8
from ingress.core.terminal import emit_json, note
from ingress.core.text import one_line
from ingress.dispatch import JobHandle, bridge_status, connect, find_job
from ops.errors import BridgeError, JobNotFound, PolicyDenied, StoreUnreachable
from ops.settings.load import load_settings

#: Limit for the store's answer, in seconds; without one the station submits the files.
_STORE_TIMEOUT_S = 2.0


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--note", "text", metavar="TEXT", help="Note about the files, stored as NAME.note.txt.")
@json_option
def drop(*, files: tuple[Path, ...], text: str | None, as_json: bool) -> int:
    """Submit copies of files to the station, and print what became of each.

    Each file is a job of its own. If its job cannot be submitted now, the copy waits in IN1N.3OX for the
    station. Needs no store.
    """
    loaded = load_settings()
    loaded.workspace.create()
    bridge = connect(loaded, timeout_s=min(_STORE_TIMEOUT_S, loaded.settings.store_timeout_s))
    submission = FileSubmission(loaded, ContentIndex(bridge.reader, loaded.settings), bridge.submit)
    about = None if text is None else utf8(text, "--note")
    dropped: list[dict[str, Any]] = []
    refused: list[dict[str, str]] = []
    code = 0
    for file in files:
        try:
            answer = submission.drop(file, note=about)
        except BridgeError as error:
            code = code if code else error.exit_code
            refused.append({"file": utf8_name(str(file)), "reason": str(error)})
        else:
            if answer.status != REFUSED:
                dropped.append({"file": utf8_name(str(file)), **msgspec.to_builtins(answer)})
                if not as_json:
                    click.echo(one_line(f"{answer.name}: {_outcome(answer)}"))
                continue
            code = code if code else PolicyDenied.exit_code
            refused.append({"file": utf8_name(str(file)), "reason": answer.reason})
        note(one_line(refused[-1]["reason"]))
    if as_json:
        emit_json({"dropped": dropped, "refused": refused})
    if any(item["status"] == CLAIMED for item in dropped):
        _mention_station()
    return code


def _outcome(answer: FileAnswer) -> str:
    """Return what became of a file, in one line."""
    same = "" if answer.same_content is None else f", same content as job {answer.same_content}"
    if answer.status == CLAIMED:
        return f"waits for the station as job {answer.job_id}{same}: {answer.reason}"
    return f"{answer.status} as job {answer.job_id}{same}"


def _mention_station() -> None:
    """Say what the files wait for whose jobs could not be submitted."""
    try:
        daemons = bridge_status()["daemons"]
    except StoreUnreachable:
        note(
            "the store is unavailable: the station submits the files when it is available again; without one"
            " they wait until '3ox up' or '3ox serve' starts it."
        )
        return
    if not any(daemon["name"] == "station" and daemon["healthy"] for daemon in daemons):
        note("no station is running; the files wait until '3ox up' or '3ox serve' starts one.")


@click.command()
@click.argument("job", metavar="ID")
@json_option
def undo(*, job: str, as_json: bool) -> int:
    """Revert the action on a dropped file, if nothing has changed since.

    The file is moved to IN1N.3OX/undone/ID/. Run this on the host whose worker ran the job, before
    the job's journal is deleted (retention_s).
    """
    from actors.ingest.undo import undo as revert  # loads dramatiq

    workspace = load_settings().workspace
    found = find_job(job)
    done = revert(workspace, found.job_id, ended=_has_ended(found))
    if as_json:
        emit_json(done)
        return 0
    click.echo(f"UndoResult: {done.action}." + (f" The file is now {done.file}." if done.file else ""))
    for path in done.kept:
        note(f"{path} is kept: it is not empty.")
    return 0


def _has_ended(job: JobHandle) -> bool:
    try:
        return job.record().is_final
    except JobNotFound:
        # It has expired, so it ended long ago; or it never existed, and has no journal.
        return True


COMMANDS = [drop, undo]
