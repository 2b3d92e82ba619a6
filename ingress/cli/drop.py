"""Commands for files: ``drop`` hands them to the station, ``undo`` takes back what was done with one."""

from __future__ import annotations

from pathlib import Path

import click

from ingress.cli.shared import emit_json, json_option, note, utf8
from ops.errors import BridgeError, JobNotFound, StoreUnreachable


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--note", "text", metavar="TEXT", help="What it is about; travels along as NAME.note.txt.")
@json_option
def drop(*, files: tuple[Path, ...], text: str | None, as_json: bool) -> int:
    """Hand files to the station: copies of them into the drop folder IN1N.3OX.

    The station makes a job of each; '3ox jobs --type ingest.file' lists them. Needs no store.
    """
    from ingress.core.drop_folder import drop as put
    from ops.settings.load import load_settings

    loaded = load_settings()
    loaded.workspace.create()
    about = None if text is None else utf8(text, "--note")
    dropped: list[dict[str, str]] = []
    code = 0
    for file in files:
        try:
            place = put(loaded, file, note=about)
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
    from ingress.dispatch import bridge_status

    try:
        daemons = bridge_status()["daemons"]
    except StoreUnreachable:
        note(
            "the store is away: a station that runs takes the files now and hands them over when it is back;"
            " where none runs they wait until '3ox up' or '3ox serve' starts one."
        )
        return
    if not any(daemon["name"] == "station" and daemon["healthy"] for daemon in daemons):
        note("no station is running; the files wait until '3ox up' or '3ox serve' starts one.")


@click.command()
@click.argument("job", metavar="ID")
@json_option
def undo(*, job: str, as_json: bool) -> int:
    """Take back what was done with a dropped file, if nothing has changed since.

    The file goes to IN1N.3OX/undone/ID/. Works on the machine whose worker did it, as long as the journal of
    the job is kept (retention_s).
    """
    from actors.ingest.undo import undo as take_back
    from ingress.dispatch import resolve_id
    from ops.settings.load import load_settings

    workspace = load_settings().workspace
    job_id = resolve_id(job)
    done = take_back(workspace, job_id, ended=_has_ended(job_id))
    if as_json:
        emit_json(done)
        return 0
    click.echo(f"UndoResult: {done.action}." + (f" The file is now {done.file}." if done.file else ""))
    for path in done.kept:
        note(f"{path} stays: there is something else in it.")
    return 0


def _has_ended(job_id: str) -> bool:
    from ingress.dispatch import get_job

    try:
        return get_job(job_id).is_final
    except JobNotFound:
        # It has expired, so it ended long ago; or it never was, and there is no journal of it.
        return True


COMMANDS = [drop, undo]
