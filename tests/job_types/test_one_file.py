"""A new built-in job type is one file: added to a copy of the packages it works everywhere, then removed."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cmd_bridge import JOB_TYPES as DECLARED_IN
from cmd_bridge import OWN
from tests.rest.client import Client
from tests.support import ROOT, bridge_environ, eventually
from tests.workers import sweep

MODULE = '''
"""``file.checksum``: the checksum of a file in WORKDESK."""

from __future__ import annotations

import hashlib
from typing import Literal

from msgspec import Struct

from actors.context import current_job, settings
from middleware.job.types import JOB_TYPES, JobType, NonEmpty, Payload
from ops.settings.work import TypeOverrides


class FileChecksumPayload(Payload, frozen=True, kw_only=True):
    """A file whose checksum is wanted."""

    path: NonEmpty
    algorithm: Literal["sha256", "md5"] = "sha256"


class FileChecksum(Struct, frozen=True):
    """A checksum."""

    checksum: str


def file_checksum(payload: FileChecksumPayload) -> FileChecksum:
    """Return the checksum of a file."""
    current_job().progress(50, "hashing")
    data = (settings().workspace.workdesk / payload.path).read_bytes()
    return FileChecksum(hashlib.new(payload.algorithm, data).hexdigest())


JOB_TYPES.add(
    JobType(
        name="file.checksum",
        summary="A file whose checksum is wanted.",
        payload=FileChecksumPayload,
        result=FileChecksum,
        actor=file_checksum,
        queue="files",
        priority=3,
        limits=TypeOverrides(timeout_s=30.0, max_retries=1),
        runs_programs=True,
        delivers=True,
        title=("path",),
        result_texts=("checksum",),
        example={"path": "a.txt"},
    )
)
'''
SETTINGS = """
[[schedule]]
id = "sum"
every = "1s"
job = { job_type = "file.checksum", payload = { path = "a.txt", algorithm = "md5" } }
"""
#: Of the content of a.txt.
MD5, SHA256 = (
    "b1946ac92492d2347c6235b4d2611184",
    "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
)


class ExtendedBridge:
    """A bridge that runs a copy of our packages, of links, to which a file can be added.

    Args:
        folder: An empty folder.
        store_url: Its store.
    """

    def __init__(self, folder: Path, store_url: str) -> None:
        self.home = folder / "home"
        (self.home / "WORKDESK").mkdir(parents=True)
        (self.home / "WORKDESK" / "a.txt").write_text("hello\n")
        self.environ = bridge_environ(self.home, store_url, SETTINGS)
        self._root = folder / "copy"
        package = Path(*DECLARED_IN.split("."))
        self._types = self._root / package
        self._types.mkdir(parents=True)
        for item in (*(ROOT / name for name in OWN if name != package.parts[0]), ROOT / "cmd_bridge.py"):
            (self._root / item.name).symlink_to(item)
        for folder_name in (package.parent, package):
            for item in (ROOT / folder_name).iterdir():
                if item.name != package.name:
                    (self._root / folder_name / item.name).symlink_to(item)

    @property
    def module(self) -> Path:
        """The file of the new type."""
        return self._types / "file_checksum.py"

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run ``3ox``."""
        return subprocess.run(
            [sys.executable, "-P", str(self._root / "cmd_bridge.py"), *arguments],
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def json(self, *arguments: str) -> Any:
        """Run ``3ox`` and return its JSON."""
        done = self(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    @contextlib.contextmanager
    def up(self) -> Iterator[Client]:
        """Run ``3ox up`` within a block; yields a client of its API."""
        try:
            started = self("up", "--detach", "--workers", "1", "--threads", "2")
            assert started.returncode == 0, started.stderr
            url = re.search(r"http://127.0.0.1:\d+", started.stdout)
            token = re.search(r"3ox_[\w-]+", started.stdout)
            assert url is not None
            yield Client(url[0], token[0] if token else None)
        finally:
            self("down", "--now")
            sweep(self.environ)


@pytest.fixture
def bridge(tmp_path: Path, valkey: str) -> ExtendedBridge:
    """A bridge to which a type can be added."""
    return ExtendedBridge(tmp_path, valkey)


def test_add_and_remove_a_type(bridge: ExtendedBridge) -> None:
    """It is in every interface with one file; without the file, its jobs can still be listed."""
    bridge.module.write_text(MODULE)
    with bridge.up() as call:
        job_id = submit(bridge)
        see(bridge, call, job_id)
    bridge.module.unlink()
    (bridge.home / "3ox.toml").write_text("")
    refused = bridge("submit", "file.checksum", "path=a.txt")
    assert refused.returncode == 2
    assert "Unknown job type 'file.checksum'" in refused.stderr
    assert "file.checksum" not in {item["name"] for item in bridge.json("types")["types"]}
    assert bridge.json("jobs", job_id)["result"] == {"checksum": SHA256}


def submit(bridge: ExtendedBridge) -> str:
    """Submit jobs of the type by command and by schedule; return the id of the first."""
    done = bridge("submit", "file.checksum", "path=a.txt", "--wait")
    assert done.returncode == 0, done.stderr
    job_id = done.stdout.split()[0]
    job = bridge.json("jobs", job_id)
    assert (job["result"], job["priority"], job["timeout_seconds"], job["max_retries"]) == (
        {"checksum": SHA256},
        3,
        30.0,
        1,
    )
    mistaken = bridge("submit", "file.checksum", "pth=a.txt")
    assert (mistaken.returncode, "path, algorithm" in mistaken.stderr) == (2, True)

    def by_schedule() -> list[Any]:
        return [item for item in bridge.json("jobs", "--source", "clock")["jobs"] if item["result"]]

    assert eventually(by_schedule, 20.0)[0]["result"] == {"checksum": MD5}
    return job_id


def see(bridge: ExtendedBridge, call: Client, job_id: str) -> None:
    """Look at the type and its jobs by REST, in lists, on the dashboard, in the settings and the results."""
    kind = call("GET", "/v1/types/file.checksum").json
    assert kind == bridge.json("types", "file.checksum")
    assert (kind["origin"], kind["queue"], kind["workers"], kind["example"]) == (
        "built-in",
        "files",
        1,
        {"path": "a.txt"},
    )
    assert kind["result_schema"]["properties"] == {"checksum": {"type": "string"}}
    body = {"job_type": "file.checksum", "payload": {"path": "a.txt", "algorithm": "crc"}}
    assert call("POST", "/v1/jobs", body).json["field"] == "payload.algorithm"
    body["payload"] = {"path": "a.txt"}
    denied = call("POST", "/v1/jobs", body)  # the declaration says that it runs programs
    assert (denied.status, "file.checksum from rest" in denied.json["detail"]) == (403, True)
    schemas = call("GET", "/schema/openapi.json").json["components"]["schemas"]
    assert schemas["FileChecksumRequest"]["properties"]["payload"]["examples"] == [{"path": "a.txt"}]
    page = call("GET", "/jobs?type=file.checksum").body.decode()
    assert "<option selected>file.checksum</option>" in page
    assert '<span class="title">a.txt</span>' in page
    listed = bridge("jobs", "--type", "file.checksum").stdout
    assert re.search(rf"{job_id[-8:]}  file.checksum +completed +100% .* a.txt ", listed)
    assert 'types."file.checksum" = { timeout_s = 30.0, max_retries = 1,' in bridge("config").stdout
    written = eventually(lambda: list((bridge.home / "0UT.3OX").rglob(f"*{job_id}*.md")), 20.0)
    assert SHA256 in written[0].read_text()
