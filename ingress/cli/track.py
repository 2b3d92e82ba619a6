"""The command ``track``: follow a running process as a job."""

from __future__ import annotations

from pathlib import Path

import click

from ingress.cli.job_builder import line_of
from ingress.cli.shared import json_option
from ingress.core.bridge import current_bridge
from ingress.core.local_user import login_name, utf8
from ingress.core.terminal import emit_json
from middleware.job.schema import make_job
from ops.errors import UsageProblem

#: Project of a process if none is given.
PROJECT = "track"
#: The longest time limit of a job, in seconds.
TIMEOUT_S = 30 * 86_400.0
_READY_WITHIN_S = 15.0
_NAME_MAX_CHARS = 200


@click.command()
@click.argument("pid", type=click.IntRange(min=1))
@click.option("--project", metavar="P", help=f"Project of the process; {PROJECT} by default.")
@click.option("--name", metavar="N", help="What the process does; its command line by default.")
@json_option
def track(*, pid: int, project: str | None, name: str | None, as_json: bool) -> int:
    """Follow a running process as a job until it ends.

    PID is a process of this host. The job completes when the process ends; only its parent knows its exit
    status. Returns at once and prints agent:PROJECT:JOB_ID; a background process follows it, even after this
    terminal is closed. Cancelling the job stops the following, not the process.
    """
    from actors.process.track import find_process  # loads dramatiq
    from ingress.cli.detach import run_detached  # loads structlog
    from ingress.cli.track_process import follow_as_job  # loads dramatiq

    bridge = current_bridge()
    if project is not None and project != PROJECT:
        bridge.admission.project(project)
    process = find_process(pid)
    if process is None:
        raise UsageProblem(f"Process {pid} not found on this host.", remedy="'ps' lists the processes.")
    what = _command_line(pid) if name is None else utf8(name, "--name")
    job = make_job(
        "task.custom",
        {"task": f"follow {pid}: {what}"[:_NAME_MAX_CHARS]},
        source="cli",
        actor=login_name(),
        project=PROJECT if project is None else project,
        timeout_seconds=TIMEOUT_S,
        max_retries=0,
        metadata=process.metadata(),
    )
    bridge.admission.authorize_in_process(job)
    loaded = bridge.loaded
    loaded.workspace.create()
    # An unavailable store is an error of this command, and the background process inherits no connection.
    bridge.store.call("PING")
    bridge.store.close()
    code = run_detached(
        lambda ready: follow_as_job(loaded, job, process, ready),
        timeout_s=_READY_WITHIN_S,
        log_file=loaded.workspace.log_file,
    )
    if code == 0:
        if as_json:
            emit_json(bridge.reader.receipt(job.job_id))
        else:
            click.echo(line_of(job))
    return code


def _command_line(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return "a process"
    line = b" ".join(words).decode(errors="replace").strip()
    return line if line != "" else "a kernel process"


COMMANDS = [track]
