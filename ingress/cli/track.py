"""The command that makes a job of a process that runs already: ``track``."""

from __future__ import annotations

import click

from ingress.cli.shared import emit_json, json_option, login_name, utf8
from ingress.dispatch import current_bridge
from middleware.job.schema import make_job
from ops.errors import UsageProblem

#: Project of a process for which none was named.
PROJECT = "track"
_READY_WITHIN_S = 15.0
_NAME_MAX_CHARS = 200


@click.command()
@click.argument("pid", type=click.IntRange(min=1))
@click.option("--project", metavar="P", help=f"The project that it belongs to; {PROJECT} by default.")
@click.option("--name", metavar="N", help="What it does; its command line by default.")
@json_option
def track(*, pid: int, project: str | None, name: str | None, as_json: bool) -> int:
    """Follow a process that is already running as a job until it ends.

    PID is a process of this host. The job is completed when the process has ended; its exit status is
    known to its parent only. Returns at once, and prints agent:PROJECT:JOB_ID; a process in the background
    follows, also when this terminal is closed. Cancelling the job ends the following, not the process.
    """
    from actors.process.track import find_process
    from ingress.cli.detach import run_detached
    from ingress.cli.track_process import TIMEOUT_S, follow_as_job

    bridge = current_bridge()
    if project is not None and project != PROJECT:
        bridge.intake.project(project)
    process = find_process(pid)
    if process is None:
        raise UsageProblem(f"there is no process {pid} on this host.", remedy="'ps' lists them.")
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
    bridge.intake.check_here(job)
    loaded = bridge.loaded
    loaded.workspace.create()
    # Asked here, so that a store that is away is an error of this command; and no connection is inherited.
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
            click.echo(f"agent:{job.project}:{job.job_id}")
    return code


def _command_line(pid: int) -> str:
    from pathlib import Path

    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return "a process"
    line = b" ".join(words).decode(errors="replace").strip()
    return line if line != "" else "a process of the kernel"


COMMANDS = [track]
