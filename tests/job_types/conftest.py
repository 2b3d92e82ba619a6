"""A bridge on a real store, and pools of a user's own actors in processes of their own."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ingress.core.bridge import Bridge
from ops.settings.load import load_settings
from tests.support import RunningValkey, clean_environ
from tests.workers import Worker, running_worker, sweep

HERE = Path(__file__).parent
#: Not tests: the suite of Dramatiq, and what is copied into a user's directory.
collect_ignore = ["dramatiq_conftest.py", "dramatiq_common.py", "my_jobs.py", "other_jobs.py"]


class Pools:
    """A user's directory with two modules of actors.

    Args:
        folder: The directory; also the workspace.
        url: Of the store.
    """

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        for name in ("my_jobs.py", "other_jobs.py"):
            shutil.copy(HERE / name, folder / name)
        self.environ = clean_environ({"BRIDGE_HOME": str(folder), "BRIDGE_REDIS_URL": url})
        self.environ["PYTHONPATH"] += f":{folder}"
        self.bridge = Bridge(load_settings(folder, environ=self.environ))

    def python(self, code: str) -> Any:
        """Run a program in the directory, as a user does; return what it prints, which is JSON."""
        done = subprocess.run(
            [sys.executable, "-c", f"import json\nfrom my_jobs import *\n{code}"],
            env=self.environ,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if done.stdout else None

    @contextlib.contextmanager
    def running(self, module: str = "my_jobs", *, threads: int = 4) -> Iterator[Worker]:
        """Run ``dramatiq MODULE`` for the time of a block."""
        name = module.replace("_", "-")
        with running_worker(self.bridge, self.environ, threads=threads, name=name, module=module) as worker:
            yield worker


@pytest.fixture
def pools(tmp_path: Path) -> Iterator[Pools]:
    """A user's directory on a store of its own."""
    home = tmp_path / "home"
    home.mkdir()
    store = RunningValkey(load_settings(tmp_path / "store"))
    store.start()
    found = Pools(home, store.url)
    yield found
    sweep(found.environ)
    store.stop()
