"""A user's directory: an installed wheel, two modules of actors, and a bridge of its own."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import shutil
import socket
import subprocess
import urllib.error
import urllib.request
import uuid
import venv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ops.processes import find_marked, stop_processes
from tests.deploy.test_plugins import UV, build, install
from tests.support import ROOT, clean_environ, eventually

MARK = "OWN_PROGRAM_RUN"
SECRET = "a secret of this program"
TOKEN = "a token of this program"  # of a bridge that lives for a minute
MODULES = ("my_jobs.py", "other_jobs.py")
SETTINGS = f"""
kill_grace_s = 1.0

[[schedule]]
id = "thumbs"
every = "5s"
job = {{ job_type = "thumbnail", payload = {{ path = "scheduled.png" }} }}

[rest.endpoints.thumb]
job = "thumbnail"
secret = "{SECRET}"
payload = {{ path = "{{body.file}}", size = "{{body.size}}" }}
"""


class UserDirectory:
    """A user's directory with two modules of actors, an environment of its own, and a bridge.

    Args:
        folder: An empty directory for all of it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin_dir = folder / "venv" / "bin"
        self.home = folder / "workspace"
        self.directory = folder / "directory"
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.port: int = server.getsockname()[1]
        own = {"BRIDGE_API_PORT": str(self.port), "BRIDGE_API_TOKEN": TOKEN, MARK: folder.name}
        self.environ = clean_environ({"BRIDGE_HOME": str(self.home), **own})
        del self.environ["PYTHONPATH"]
        self.environ["PATH"] = f"{self.bin_dir}:{self.environ['PATH']}"

    def install(self, wheel: Path | None) -> None:
        """Install the wheel into a fresh environment, and write the user's modules."""
        for made in (self.home, self.directory):
            made.mkdir()
        (self.home / "3ox.toml").write_text(SETTINGS)
        for name in MODULES:
            shutil.copy(Path(__file__).with_name(name), self.directory / name)
        venv.create(self.folder / "venv", with_pip=not UV.exists())
        if wheel is None:
            build(ROOT, self.folder)
        install(self.bin_dir / "python", next(self.folder.glob("*.whl")) if wheel is None else wheel)

    def run(self, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a program in the user's directory."""
        done = subprocess.run(
            argv,
            env=self.environ,
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0 or not check, f"{argv}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def threeox(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run ``3ox``."""
        return self.run(str(self.bin_dir / "3ox"), *arguments, check=check)

    def json(self, *arguments: str) -> Any:
        """Return what ``3ox ... --json`` prints."""
        return json.loads(self.threeox(*arguments, "--json").stdout)

    def job(self, job_id: str) -> dict[str, Any]:
        """Return one job."""
        found: dict[str, Any] = self.json("jobs", job_id)
        return found

    def ended(self, job_id: str) -> dict[str, Any]:
        """Wait for a job and return it."""
        self.threeox("wait", job_id, "--timeout", "60", check=False)
        return self.job(job_id)

    def jobs(self, job_type: str) -> list[dict[str, Any]]:
        """Return the last jobs of a type."""
        found: list[dict[str, Any]] = self.json("jobs", "--type", job_type, "--limit", "100")["jobs"]
        return found

    def python(self, code: str) -> Any:
        """Run a Python program; return the JSON that it prints."""
        code = f"import json\nfrom my_jobs import *\nfrom other_jobs import *\n{code}"
        done = self.run(str(self.bin_dir / "python"), "-c", code)
        return json.loads(done.stdout) if done.stdout else None

    def send(self, message: str) -> str:
        """Send a message from Python; return its id."""
        sent: str = self.python(f"print(json.dumps({message}.message_id))")
        return sent

    def start_pool(self, module: str, carries: str, *, pools: int = 1) -> subprocess.Popen[bytes]:
        """Run ``dramatiq MODULE`` until its workers are there.

        Args:
            module: Of the user.
            carries: An actor of it.
            pools: How many pools of it there are then.
        """
        with (self.folder / f"{module}.log").open("ab") as log:
            argv = [str(self.bin_dir / "dramatiq"), module]
            pool = subprocess.Popen(
                argv, env=self.environ, cwd=self.directory, stdout=log, stderr=log, start_new_session=True
            )
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

        def ready() -> bool:
            shown = self.threeox("types", carries, "--json", check=False)
            return shown.returncode == 0 and json.loads(shown.stdout)["workers"] >= pools * cores

        eventually(ready, 60.0, every_s=0.1)
        return pool

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Send a request to the API; return status and document."""
        sent = {"Content-Type": "application/json", **({} if headers is None else headers)}
        url = f"http://127.0.0.1:{self.port}{path}"
        request = urllib.request.Request(url, body, sent, method=method)
        try:
            with urllib.request.urlopen(request, timeout=15) as answer:  # noqa: S310
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def post(self, document: Any) -> tuple[int, dict[str, Any]]:
        """Submit a job through REST."""
        body, headers = json.dumps(document).encode(), {"Authorization": f"Bearer {TOKEN}"}
        return self.request("POST", "/v1/jobs", body, headers)

    def hook(self, document: Any) -> tuple[int, dict[str, Any]]:
        """Send a signed webhook."""
        body = json.dumps(document).encode()
        signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
        headers = {"X-GitHub-Delivery": uuid.uuid4().hex, "X-Hub-Signature-256": f"sha256={signature}"}
        return self.request("POST", "/v1/hooks/thumb", body, headers)

    def clean_up(self) -> None:
        """Stop everything."""
        if (self.bin_dir / "3ox").exists():
            self.threeox("down", check=False)
        stop_processes(lambda: find_marked(MARK, self.folder.name), grace_s=2.0)
