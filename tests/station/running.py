"""A station as a real process, and questions about its folders."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from ingress.core.daemon import ready_file
from ingress.dispatch import Bridge
from middleware.job.records import JobRecord
from tests.support import eventually, threeox

SETTINGS = """
[station]
settle_s = 0.2
note_wait_s = 0.6
rescan_s = 1.0
poll_s = 0.2
empty_folder_s = 60.0
free_min_bytes = 0
tries = 3

[[station.rules]]
match = "*.invoice"
action = "ARCHIVE"

[[station.rules]]
match = "papers/*"
action = "REFERENCE"

[[station.rules]]
match = "*.outlaw"
action = "MOVE"
to = "../outside"

[types."ingest.file"]
backoff_min_s = 0.05
backoff_max_s = 0.2
"""


class RunningStation:
    """A `3ox serve` within a block.

    Parameters:
        bridge: To look its jobs up.
        environ: Its whole environment.
    """

    def __init__(self, bridge: Bridge, environ: Mapping[str, str]) -> None:
        self.bridge = bridge
        self.environ = dict(environ)
        self.workspace = bridge.loaded.workspace
        self.inbox = self.workspace.inbox
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it is ready."""
        output = (self.workspace.home / "station.out").open("ab")
        self.process = subprocess.Popen(
            threeox("serve"),
            env=self.environ,
            cwd=self.workspace.home,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        output.close()
        file = ready_file(self.workspace, "station")
        pid = str(self.process.pid)
        eventually(lambda: file.exists() and file.read_text() == pid, 20.0)

    def kill(self) -> None:
        """Kill it with SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10.0)

    def stop(self) -> int:
        """Send SIGTERM; return the exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(10.0)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process is not None and self.process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.stop()
            if self.process.poll() is None:
                self.kill()

    def jobs(self, name: str | None = None) -> list[JobRecord]:
        """Return the jobs of the station, of one file or of all."""
        page = self.bridge.reader.page(job_type="ingest.file", limit=1000)
        return [job for job in page.jobs if name is None or job.payload["name"] == name]

    def ended(self, name: str, timeout_s: float = 15.0) -> JobRecord:
        """Wait until the only job of a file has finished and its claim is removed; return the job."""

        def look() -> JobRecord | None:
            found = [job for job in self.jobs(name) if job.is_final]
            return found[0] if found and not self.claimed(found[0].job_id) else None

        job = eventually(look, timeout_s, every_s=0.03)
        assert job is not None
        assert len(self.jobs(name)) == 1
        return job

    def claimed(self, job_id: str) -> bool:
        """Return whether the file of a job is claimed."""
        return (self.inbox / ".claimed" / job_id).exists()

    def claims(self) -> list[str]:
        """Return the job ids of all claims."""
        room = self.inbox / ".claimed"
        return [path.name for path in room.iterdir()] if room.exists() else []

    def left(self) -> list[Path]:
        """Return the files in the drop folder, without those in the bridge's own folders."""
        return [
            path for path in files_below(self.inbox) if path.parts[0] not in (".claimed", "failed", "undone")
        ]

    def failed(self, name: str) -> tuple[Path, str] | None:
        """Return the path of a file in ``failed/``, and its reason; None if it is not there."""
        for path in files_below(self.inbox / "failed"):
            if path.name == name + ".reason.txt":
                file = (self.inbox / "failed" / path).with_name(name)
                return file, (self.inbox / "failed" / path).read_text()
        return None


def files_below(root: Path) -> Iterator[Path]:
    """Yield all files below a folder, relative to it; links are not followed."""
    found = []
    # Unlike `rglob`, this tolerates folders that are removed meanwhile.
    for folder, folders, files in os.walk(root):
        links = [name for name in folders if Path(folder, name).is_symlink()]
        found += [Path(folder, name).relative_to(root) for name in files + links]
    yield from sorted(found)
