"""The process that follows a process: takes its job in, carries it out, commits its end."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from actors.context import set_settings
from actors.process.track import TrackedProcess, TrackResult, follow_process
from ingress.core.bridge import connect
from middleware.broker.scripts import EnqueueRequest, Settlement
from middleware.broker.single_job_worker import SoloWorker
from middleware.context import JobCancelled
from middleware.destinations import Destinations
from middleware.job.receipt import payload_sha256
from middleware.job.records import JobError
from middleware.job.schema import encode_job
from ops.logs import configure_logging, get_logger

if TYPE_CHECKING:
    from middleware.job.schema import Job
    from ops.settings.load import LoadedSettings, Settings
import click

from ingress.cli.shared import emit_json, json_option, login_name, utf8
from ingress.core.bridge import current_bridge
from middleware.job.schema import make_job
from ops.errors import UsageProblem

#: As long as a job may take at all.
TIMEOUT_S = 30 * 86_400.0
UNIT = "track"

log = get_logger(__name__)


def follow_as_job(
    loaded: LoadedSettings, job: Job, process: TrackedProcess, ready: Callable[[], None] = lambda: None
) -> int:
    """Follow a process as a job to its end.

    Args:
        loaded: Settings of the bridge.
        job: A ``task.custom`` whose metadata names the process.
        process: What it names.
        ready: Called when the job runs.

    Returns:
        0.

    Raises:
        StoreUnreachable: The job could not be taken in.
    """
    configure_logging(loaded, process=UNIT)
    set_settings(loaded)
    bridge = connect(loaded)
    values = loaded.settings
    worker = SoloWorker(bridge.scripts, lease_s=values.lease_s, heartbeat_s=values.heartbeat_s, unit=UNIT)
    worker.take(job, _request(job, values))
    with worker.at_work():
        ready()
        log.info("track.began", job_id=job.job_id, tracked=process.pid)
        settlement = _follow(process)
    outcome = worker.settle(settlement)
    log.info("track.ended", job_id=job.job_id, tracked=process.pid, status=settlement.outcome, commit=outcome)
    return 0


def _request(job: Job, settings: Settings) -> EnqueueRequest:
    """Make the request by hand: a process that runs already takes no slot of its project's concurrency."""
    return EnqueueRequest(
        job_id=job.job_id,
        priority=job.rank,
        spec=encode_job(job),
        job_type=job.job_type,
        input_sha256=payload_sha256(job),
        project="" if job.project is None else job.project,
        sinks=Destinations(settings).of(job),
    )


def _follow(process: TrackedProcess) -> Settlement:
    try:
        result = follow_process(process)
    except JobCancelled:
        return Settlement(outcome="cancelled", reason=f"process {process.pid} goes on, and is not followed")
    except Exception as error:
        # Nobody runs it again: whoever looks at the job has to learn of it.
        log.exception("track.failed", tracked=process.pid)
        return Settlement(
            outcome="failed",
            error=msgspec.json.encode(JobError(type=type(error).__name__, message=str(error))),
            reason=f"failed in its only attempt: {error}",
        )
    return Settlement(outcome="completed", result=msgspec.json.encode(result), reason=_reason(result))


def _reason(result: TrackResult) -> str:
    return f"process {result.pid} has ended; its exit status is known to its parent only"


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
        bridge.admission.project(project)
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
    bridge.admission.prepare_in_process(job)
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
