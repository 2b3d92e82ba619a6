"""The wait for the offline model can be aborted at any moment."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from ops.errors import StartFailed
from ops.local_model.client import ModelLease
from ops.local_model.paths import model_paths
from ops.lockfile import await_lock
from ops.processes import find_marked, stop_processes
from ops.settings.load import LoadedSettings
from tests.support import eventually

#: Far below what it would wait for the weights.
AT_ONCE_S = 5.0


@pytest.fixture
def loading(loaded: LoadedSettings) -> Iterator[socket.socket]:
    """A process of the model that takes links and is still loading its weights: it says nothing."""
    place = model_paths(loaded.workspace)
    place.socket.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place.socket))
        listener.listen()
        yield listener
    place.socket.unlink(missing_ok=True)


def broken_off(lease: ModelLease) -> float:
    """Open a lease whose wait is aborted; returns how long that took, in seconds."""
    begun_s = time.monotonic()
    with pytest.raises(StartFailed, match="was aborted"):
        lease.open()
    lease.close()
    return time.monotonic() - begun_s


class AbortedOnTheWay(ModelLease):
    """Is aborted between the dialling and the wait."""

    def _dial(self, purpose: bytes) -> socket.socket | None:
        link = super()._dial(purpose)
        self.abort()
        return link


@pytest.mark.usefixtures("loading")
def test_between_dialling_and_waiting(loaded: LoadedSettings) -> None:
    """The connection exists but is not registered yet: it is not waited on."""
    assert broken_off(AbortedOnTheWay(loaded)) < AT_ONCE_S


@pytest.mark.usefixtures("loading")
def test_before_it_has_begun(loaded: LoadedSettings) -> None:
    """A job that is cancelled just before it asks does not ask."""
    lease = ModelLease(loaded)
    lease.abort()
    assert broken_off(lease) < AT_ONCE_S


def test_while_the_weights_are_loaded(loaded: LoadedSettings, loading: socket.socket) -> None:
    """The connection is shut down under a waiting thread."""
    lease = ModelLease(loaded)
    links: list[socket.socket] = []

    def abort_when_linked() -> None:
        links.append(loading.accept()[0])
        lease.abort()

    other = threading.Thread(target=abort_when_linked)
    other.start()
    assert broken_off(lease) < AT_ONCE_S
    other.join(5.0)
    assert links[0].recv(16) == b"a"
    assert links[0].recv(16) == b"", "the process sees that the client has gone"
    links[0].close()


def servers(loaded: LoadedSettings) -> list[int]:
    """Return the processes that have been started for this workspace."""
    found = find_marked("BRIDGE_HOME", str(loaded.workspace.home))
    return [pid for pid in found if pid != os.getpid()]


def test_while_the_process_starts(loaded: LoadedSettings) -> None:
    """It has been started and does not listen yet, since the one before it is still ending."""
    place = model_paths(loaded.workspace)
    loaded.workspace.create()
    before = await_lock(place.lock)
    lease = ModelLease(loaded)

    def abort_when_started() -> None:
        eventually(lambda: servers(loaded))
        lease.abort()

    other = threading.Thread(target=abort_when_started)
    other.start()
    try:
        assert broken_off(lease) < AT_ONCE_S
        other.join(5.0)
        assert not other.is_alive()
    finally:
        stop_processes(lambda: servers(loaded), grace_s=0.0)
        with contextlib.suppress(FileNotFoundError):
            place.lock.unlink()
        os.close(before)


def test_the_log_says_why_it_does_not_start(loaded: LoadedSettings) -> None:
    """The error of a process that fails before it listens is where its user is sent."""
    place = model_paths(loaded.workspace)
    loaded.workspace.create()
    (place.socket / "in the way").mkdir(parents=True)
    with pytest.raises(StartFailed, match=r"3ox\.log"):
        ModelLease(loaded).open()
    assert '"event":"model.failed"' in loaded.workspace.log_file.read_text()
