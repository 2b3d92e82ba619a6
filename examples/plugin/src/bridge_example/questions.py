"""An ingress adapter: each line written to the named pipe ``questions`` of the workspace is asked."""

from __future__ import annotations

import os
import select

from ingress.core.daemon import Daemon
from middleware.job.schema import make_job
from ops.errors import BridgeError
from ops.logs import get_logger

LINE_MAX_BYTES = 65_536

log = get_logger(__name__)


def serve(daemon: Daemon) -> None:
    """Read the pipe until the daemon is asked to stop."""
    place = daemon.loaded.workspace.home / "questions"
    place.unlink(missing_ok=True)
    os.mkfifo(place, 0o600)
    # Opened in both directions, so that it does not reach its end with the last writer.
    pipe = os.open(place, os.O_RDWR | os.O_NONBLOCK)
    daemon.ready()
    rest = b""
    while not daemon.stopping.is_set():
        daemon.pulse()
        if select.select([pipe], [], [], 1.0)[0]:
            *lines, rest = (rest + os.read(pipe, LINE_MAX_BYTES)).split(b"\n")
            rest = rest[:LINE_MAX_BYTES]
            for line in lines:
                submit(daemon, line.decode(errors="replace"))
    os.close(pipe)
    place.unlink()


def submit(daemon: Daemon, line: str) -> None:
    """Submit a question; one that is refused is logged with the reason."""
    try:
        job = make_job("ask", {"prompt": line}, source=daemon.name, trust="operator")
        receipt = daemon.acceptance.accept(job)
    except BridgeError as error:
        log.warning("questions.refused", line=line[:200], reason=str(error))
    else:
        log.info("questions.accepted", job_id=receipt.job_id, status=receipt.status)
