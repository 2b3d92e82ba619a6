"""The embedded store: private, durable, alone on its directory."""

from __future__ import annotations

import os
import shutil
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.errors import AlreadyRunning
from ops.settings.load import LoadedSettings, load_settings
from ops.store.client import Store
from ops.store.embedded import EmbeddedValkey
from tests.support import RunningValkey, eventually


@pytest.fixture
def alone(tmp_path: Path) -> LoadedSettings:
    """Settings of a workspace that uses the embedded store."""
    return load_settings(tmp_path, environ={})


@pytest.fixture
def running(alone: LoadedSettings) -> Iterator[RunningValkey]:
    """A store in that workspace."""
    server = RunningValkey(alone)
    server.start()
    yield server
    server.stop()


def test_shared_store_answers(loaded: LoadedSettings) -> None:
    """The store that all tests share answers on its socket."""
    assert Store.open(loaded).call("PING") == b"PONG"


def test_private_and_durable(alone: LoadedSettings, running: RunningValkey) -> None:
    """The server has no port, a private socket, an append-only file, and never evicts."""
    store = Store.open(alone)
    asked = ("port", "appendonly", "maxmemory-policy", "save", "appendfsync", "hash-max-listpack-value")
    reply = store.call("CONFIG", "GET", *asked)
    found = dict(zip(reply[::2], reply[1::2], strict=True))
    assert found == {
        b"port": b"0",
        b"appendonly": b"yes",
        b"maxmemory-policy": b"noeviction",
        b"save": b"",
        b"appendfsync": b"everysec",
        b"hash-max-listpack-value": b"4096",
    }
    assert stat.S_IMODE(running.server.socket_path.stat().st_mode) == 0o700
    assert stat.S_IMODE(alone.workspace.state_dir.stat().st_mode) == 0o700


def test_refuses_to_start_twice(alone: LoadedSettings, running: RunningValkey) -> None:
    """A second server on the same directory is refused, also while only the server itself lives."""
    with pytest.raises(AlreadyRunning, match="3ox down"):
        RunningValkey(alone).start()
    assert running.server.is_answering()


def test_survives_sigkill(alone: LoadedSettings) -> None:
    """After kill -9 the next start has every acknowledged write, whatever files were left."""
    first = RunningValkey(alone)
    first.start()
    store = Store.open(alone)
    for number in range(500):
        store.call("SET", f"k{number}", "v")
    assert first.process is not None
    first.process.kill()
    first.process.wait(10)
    assert first.server.socket_path.exists()
    first.server.release()
    first.server.socket_path.touch()
    second = RunningValkey(alone)
    second.start()
    assert Store.open(alone).call("DBSIZE") == 500
    second.stop()
    assert not second.server.socket_path.exists()


def test_lock_lives_with_the_server(alone: LoadedSettings) -> None:
    """When its starter has died, the server itself still holds the lock."""
    starter = RunningValkey(alone)
    starter.start()
    server = starter.server
    assert starter.process is not None
    lock_fd, server._lock_fd = server._lock_fd, None
    assert lock_fd is not None
    os.close(lock_fd)
    with pytest.raises(AlreadyRunning):
        RunningValkey(alone).server.prepare()
    starter.kill()
    again = RunningValkey(alone)
    again.start()
    again.stop()


def test_long_path(tmp_path: Path) -> None:
    """A workspace whose path is longer than a unix socket's works, and leaves no directory behind."""
    home = tmp_path / ("long" * 30) / ('path %41 "quoted"' * 3)
    loaded = load_settings(home, environ={})
    server = RunningValkey(loaded)
    server.start()
    assert Store.open(loaded).call("PING") == b"PONG"
    folder = server.server.socket_path.parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    server.stop()
    assert not folder.exists()


def test_what_lies_beside_the_socket_holds_up_no_stop(tmp_path: Path) -> None:
    """Neither the socket of a killed model in that directory, nor a directory that is gone."""
    loaded = load_settings(tmp_path / ("long" * 30), environ={})
    folder = loaded.workspace.store_socket.parent
    store = EmbeddedValkey(loaded)
    store.prepare()
    (folder / "model.sock").touch()
    store.release()
    assert [path.name for path in folder.iterdir()] == ["model.sock"]
    store.prepare()
    shutil.rmtree(folder)
    store.release()
    assert not folder.exists()


def test_port_when_asked(tmp_path: Path) -> None:
    """A port is opened on the loopback address only, and only when the settings say so."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = RunningValkey(load_settings(tmp_path, environ={"BRIDGE_STORE_PORT": str(port)}))
    server.start()
    assert eventually(lambda: Store(f"redis://127.0.0.1:{port}").call("PING")) == b"PONG"
    server.stop()
