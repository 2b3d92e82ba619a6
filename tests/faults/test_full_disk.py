"""A disk that takes nothing: what is started then says so, or goes on, and leaves nothing behind."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

from ingress.core.daemon import Daemon, ready_file
from middleware.broker.vitals import watchdog_paths
from ops.settings.load import LoadedSettings
from tests.support import clean_environ
from tests.workers import worker_unit

#: A worker's file where the disk has room for less than that.
SMALL = """
import resource
import sys
from pathlib import Path
from middleware.broker.vitals import Vitals
resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))  # not ENOSPC, but it ends as early
try:
    Vitals(Path(sys.argv[1]), rows=8, start_time=0)
except OSError as error:
    print(error.strerror)
"""


def test_a_worker_without_room_for_its_file_is_told_so(tmp_path: Path) -> None:
    """It used to be killed by the kernel when it first wrote into a file that had no room on the disk."""
    file = tmp_path / "vitals" / "w"
    ran = subprocess.run(
        [sys.executable, "-c", SMALL, str(file)],
        env=clean_environ(),
        check=True,
        timeout=30,
        capture_output=True,
        text=True,
    )
    assert ran.stdout == f"{os.strerror(errno.EFBIG)}\n"
    assert list(file.parent.iterdir()) == []


def test_a_daemon_serves_though_it_cannot_say_that_it_is_ready(loaded: LoadedSettings) -> None:
    """It says so as soon as there is room."""
    loaded.workspace.create()
    daemon = Daemon("door", loaded)
    file = ready_file(loaded.workspace, "door")
    draft = file.with_suffix(f".{os.getpid()}")
    draft.mkdir()
    daemon.ready()
    daemon.pulse()
    assert not file.exists()
    draft.rmdir()
    daemon.pulse()
    assert file.read_text() == str(os.getpid())


def test_a_worker_that_could_not_be_watched_ends(environ: dict[str, str], loaded: LoadedSettings) -> None:
    """Without its file the watchdog would not see it die; its supervisor starts it again."""
    loaded.workspace.create()
    watchdog_paths(loaded).vitals_dir.write_text("in the way")
    with worker_unit(environ) as process:
        assert process.wait(60) == 1
    said = (loaded.workspace.home / "worker.out").read_text()
    assert f"The worker cannot write its vitals to {watchdog_paths(loaded).vitals_dir}" in said
