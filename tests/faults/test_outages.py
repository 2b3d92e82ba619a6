"""Stores that answer, but not as they should: full memory, a failover."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingress.dispatch import Bridge, connect, dispatch, get_job, wait_for
from middleware.job.records import Receipt
from ops.errors import StoreUnreachable
from ops.settings.load import load_settings
from ops.store.client import Store
from ops.store.embedded import find_binary
from ops.workspace import Workspace
from tests.dispatch.test_faults import mortal
from tests.support import RunningValkey, clean_environ, eventually
from tests.workers import running_worker, sweep

__all__ = ["mortal"]


def test_a_full_store_refuses_new_jobs_and_keeps_what_it_has(
    mortal: tuple[RunningValkey, dict[str, str]], tmp_path: Path
) -> None:
    """No memory left: new jobs are refused with the remedy, running ones are committed, later all goes on."""
    _, environ = mortal
    bridge = connect(load_settings(environ=environ))
    gate = tmp_path / "gate"
    with running_worker(bridge, environ):
        argv = ["sh", "-c", f"while [ ! -e {gate} ]; do sleep 0.05; done; echo done"]
        running = dispatch("shell.cmd", {"argv": argv})
        eventually(lambda: get_job(running.job_id).status == "processing")
        bridge.store.call("CONFIG", "SET", "maxmemory", "1mb")
        with pytest.raises(StoreUnreachable, match="out of memory") as refused:
            dispatch("heartbeat", {})
        assert "store_maxmemory_bytes" in refused.value.remedy
        gate.touch()
        eventually(lambda: get_job(running.job_id).status == "completed")
        bridge.store.call("CONFIG", "SET", "maxmemory", "0")
        later = dispatch("heartbeat", {})
        back_s = time.monotonic()
        assert wait_for(later.job_id, timeout_s=20).status == "completed"
        assert time.monotonic() - back_s < 8.0


def test_a_connection_to_a_demoted_primary_is_not_kept(mortal: tuple[RunningValkey, dict[str, str]]) -> None:
    """Behind an address that moves, a client that kept its connection would never reach the new primary."""
    server, _ = mortal
    store, admin = Store(server.url), Store(server.url)
    store.call("SET", "x", "1")
    own = store.call("CLIENT", "ID")
    admin.call("REPLICAOF", "127.0.0.1", "1")
    try:
        for _ in range(2):
            with pytest.raises(StoreUnreachable, match="READONLY"):
                store.call("SET", "x", "2")
    finally:
        admin.call("REPLICAOF", "NO", "ONE")
    store.call("SET", "x", "3")
    assert store.call("CLIENT", "ID") > own


class Sentinel:
    """A primary, a replica and a sentinel that watches them, each a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.primary_port, self.replica_port, self.sentinel_port = (_free_port() for _ in range(3))
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start all three and wait until they know of each other."""
        self._server("primary", self.primary_port)
        self._server("replica", self.replica_port, "--replicaof", f"127.0.0.1 {self.primary_port}")
        replica = Store(f"redis://127.0.0.1:{self.replica_port}", timeout_s=1.0)
        eventually(lambda: b"master_link_status:up" in _info(replica), 20.0)
        replica.close()
        config = self.folder / "sentinel.conf"
        config.write_text(
            f"port {self.sentinel_port}\nbind 127.0.0.1\ndir {self.folder}\n"
            f"sentinel monitor bridge 127.0.0.1 {self.primary_port} 1\n"
            "sentinel down-after-milliseconds bridge 500\nsentinel failover-timeout bridge 2000\n",
        )
        self._spawn(str(config), "--sentinel")
        guard = Store(f"redis://127.0.0.1:{self.sentinel_port}", timeout_s=1.0)
        eventually(lambda: _answers(guard) and guard.call("SENTINEL", "REPLICAS", "bridge"), 20.0)
        guard.close()

    def _server(self, name: str, port: int, *more: str) -> None:
        folder = self.folder / name
        folder.mkdir()
        self._spawn("--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "", *more)
        server = Store(f"redis://127.0.0.1:{port}", timeout_s=1.0)
        eventually(lambda: _answers(server), 10.0)
        server.close()

    def _spawn(self, *arguments: str) -> None:
        self.processes.append(
            subprocess.Popen(
                [str(find_binary()), *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            ),
        )

    def stop(self) -> None:
        """End all three."""
        for process in self.processes:
            process.kill()
            process.wait(10.0)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(store: Store) -> bool:
    with contextlib.suppress(StoreUnreachable):
        return bool(store.call("PING") == b"PONG")
    return False


def _info(store: Store) -> bytes:
    with contextlib.suppress(StoreUnreachable):
        return bytes(store.call("INFO", "replication"))
    return b""


@pytest.fixture
def sentinel(tmp_path: Path) -> Iterator[Sentinel]:
    """Three servers on free ports."""
    folder = tmp_path / "servers"
    folder.mkdir()
    servers = Sentinel(folder)
    try:
        servers.start()
        yield servers
    finally:
        servers.stop()


def test_work_goes_on_after_a_failover(sentinel: Sentinel, workspace: Workspace) -> None:
    """The primary dies, the sentinel promotes the replica: worker and callers find it by themselves."""
    url = f"sentinel://127.0.0.1:{sentinel.sentinel_port}/bridge"
    environ = clean_environ(
        {"BRIDGE_HOME": str(workspace.home), "BRIDGE_REDIS_URL": url, "BRIDGE_STORE_TIMEOUT_S": "1"},
    )
    bridge: Bridge = connect(load_settings(environ=environ))
    try:
        with running_worker(bridge, environ):
            before = dispatch("heartbeat", {"nonce": "before"})
            assert wait_for(before.job_id, timeout_s=10).status == "completed"
            sentinel.processes[0].kill()
            sentinel.processes[0].wait(10.0)

            def offer() -> Receipt | None:
                with contextlib.suppress(StoreUnreachable):
                    return dispatch("heartbeat", {"nonce": "after"})
                return None

            after = eventually(offer, 30.0, every_s=0.1)
            assert after is not None
            promoted_s = time.monotonic()
            record = wait_for(after.job_id, timeout_s=20)
            assert (record.status, record.result["nonce"]) == ("completed", "after")
            assert time.monotonic() - promoted_s < 5.0
            assert get_job(before.job_id).status == "completed"
    finally:
        sweep(environ)
