"""Commands for files: ``drop`` submits them to the drop folder, ``undo`` reverts the action on one."""

from __future__ import annotations

from pathlib import Path

import click

from ingress.cli.shared import json_option
from ingress.core import drop_folder
from ingress.core.terminal import emit_json, note, utf8
from ingress.dispatch import JobHandle, bridge_status, find_job
from ops.errors import BridgeError, JobNotFound, StoreUnreachable
from ops.settings.load import load_settings


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--note", "text", metavar="TEXT", help="Note about the files, stored as NAME.note.txt.")
@json_option
def drop(*, files: tuple[Path, ...], text: str | None, as_json: bool) -> int:
    """Submit files to the station by copying them into the drop folder IN1N.3OX.

    The station creates a job for each; '3ox jobs --type ingest.file' lists them. Needs no store.
    """
    loaded = load_settings()
    loaded.workspace.create()
    about = None if text is None else utf8(text, "--note")
    dropped: list[dict[str, str]] = []
    code = 0
    for file in files:
        try:
            place = drop_folder.drop(loaded, file, note=about)
        except BridgeError as error:
            note(str(error))
            code = code if code else error.exit_code
            continue
        dropped.append({"file": str(file), "path": str(place)})
        if not as_json:
            click.echo(str(place))
    if as_json:
        emit_json({"dropped": dropped})
    if dropped:
        _mention_missing_station()
    return code


def _mention_missing_station() -> None:
    try:
        daemons = bridge_status()["daemons"]
    except StoreUnreachable:
        note(
            "the store is unavailable: a running station spools the files until it is available again;"
            " without one they wait until '3ox up' or '3ox serve' starts it."
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
