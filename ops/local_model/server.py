"""The process that holds the small offline model: ``python -m ops.local_model.server READY_FD``.

The engine (``xllamacpp``) serves OpenAI's protocol on a free port of the loopback, to whoever knows the key;
port and key are told over a private socket, on which every answer and every process that uses the model has
a link. It ends when there has been no answer for ``[ask.local] idle_s``, or when no link is left at all.
"""

from __future__ import annotations

import os
import secrets
import selectors
import signal
import socket
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from ops.errors import BridgeError, StartFailed
from ops.local_model.client import ASK, INSTALL, ModelEndpoint, load_engine, model_file, model_name
from ops.local_model.paths import ModelPaths, ModelState, model_paths, resident_bytes
from ops.lockfile import await_lock
from ops.logs import configure_logging, get_logger
from ops.processes import process_start_time
from ops.settings.load import LoadedSettings, load_settings

#: With nobody linked any more, somebody may be about to come.
_LINGER_S = 0.5
#: Whoever started us comes at once; if not, it has died.
_FIRST_WITHIN_S = 30.0
#: The model has to leave room for what else the host does.
_NICE = 5
_BACKLOG = 128

log = get_logger("ops.local_model.server")


class ModelServer:
    """Serves one model until nobody needs it.

    Args:
        loaded: Settings.
        place: Where it is found.
    """

    def __init__(self, loaded: LoadedSettings, place: ModelPaths) -> None:
        self._local = loaded.settings.ask.local
        self._loaded = loaded
        self._place = place
        self._selector = selectors.DefaultSelector()
        self._links: dict[socket.socket, bytes] = {}
        self._asked_s = time.monotonic()
        self._alone_s: float | None = time.monotonic() + _FIRST_WITHIN_S - _LINGER_S
        self._hello = b""
        self._engine: Any = None
        self._told_to_stop = False
        self._wake, self._sleeper = socket.socketpair()

    def stop(self) -> None:
        """End soon; may be called from a signal handler."""
        self._told_to_stop = True
        self._wake.send(b".")

    def run(self, ready_fd: int) -> int:
        """Serve until nobody needs the model; gives the exit status.

        Args:
            ready_fd: Closed once links are taken.
        """
        listener = self._listen()
        os.close(ready_fd)
        self._selector.register(listener, selectors.EVENT_READ)
        self._selector.register(self._sleeper, selectors.EVENT_READ)
        try:
            hello = self._load()
            self._asked_s = time.monotonic()
            self._hello = msgspec.json.encode(hello) + b"\n"
            why = self._serve(listener) if hello.error == "" else self._turn_away(listener)
        finally:
            # In this order: whoever finds no socket starts another process, which waits for our lock.
            self._place.socket.unlink(missing_ok=True)
            self._place.state.unlink(missing_ok=True)
            listener.close()
        log.info("model.stopped", reason=why)
        return 0 if hello.error == "" else 1

    def _listen(self) -> socket.socket:
        self._place.socket.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self._place.socket))
        self._place.socket.chmod(0o600)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
        return listener

    def _load(self) -> ModelEndpoint:
        """Load the weights; whoever comes meanwhile waits in the listener's backlog."""
        try:
            path = model_file(self._loaded)
        except BridgeError as error:
            return ModelEndpoint(error=str(error))
        if path is None:
            return ModelEndpoint(error=f"it is not installed; {INSTALL}")
        name, key = model_name(path), secrets.token_urlsafe(24)
        begun_s = time.monotonic()
        try:
            self._engine = self._start_engine(path, name, key)
        except StartFailed as error:
            log.error("model.not_loaded", path=str(path), error=error.message)  # noqa: TRY400 (it says all)
            return ModelEndpoint(error=error.message, remedy=error.remedy)
        except Exception as error:
            # The engine is not ours: whatever it raises, those who wait have to hear it.
            log.exception("model.not_loaded", path=str(path))
            return ModelEndpoint(error=f"{path.name} cannot be loaded ({str(error)[:200]})")
        state = ModelState(
            pid=os.getpid(),
            start_time=process_start_time(os.getpid()),
            model=name,
            since=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        )
        self._place.state.write_bytes(msgspec.json.encode(state))
        log.info(
            "model.loaded",
            model=name,
            took_s=round(time.monotonic() - begun_s, 3),
            memory_bytes=resident_bytes(os.getpid()),
        )
        return ModelEndpoint(url=f"{self._engine.listening_address}/v1", key=key, model=name)

    def _start_engine(self, path: Path, name: str, key: str) -> Any:
        engine = load_engine()
        cores = os.cpu_count()
        half = 1 if cores is None else max(1, cores // 2)
        threads = half if self._local.threads == 0 else self._local.threads
        params = engine.CommonParams()
        params.model.path = str(path)
        params.model_alias = {name}
        params.hostnames = ["127.0.0.1"]
        params.port = 0
        params.api_keys = [key]
        params.n_ctx = self._local.context_tokens
        params.n_parallel = 1
        params.cpuparams.n_threads = threads
        params.cpuparams_batch.n_threads = threads
        params.cache_ram_mib = 0
        params.ui = False
        params.endpoint_slots = False
        params.warmup = False
        params.offline = True
        params.verbosity = -1
        return engine.Server(params)

    def _serve(self, listener: socket.socket) -> str:
        while True:
            why = self._over()
            if why != "":
                return why
            for key, _ in self._selector.select(self._wait_s()):
                if key.fileobj is listener:
                    self._welcome(listener)
                elif key.fileobj is self._sleeper:
                    self._sleeper.recv(64)
                else:
                    self._hear(key.fileobj)

    def _over(self) -> str:
        """Say why to end now; empty if not."""
        if self._told_to_stop:
            return "it was told to"
        now_s = time.monotonic()
        if self._alone_s is not None and now_s - self._alone_s >= _LINGER_S:
            return "nobody is left to use it"
        if not self._in_use() and now_s - self._asked_s >= self._local.idle_s:
            return f"it was not asked for {self._local.idle_s:g} s"
        return ""

    def _wait_s(self) -> float | None:
        now_s = time.monotonic()
        waits: list[float] = []
        if self._alone_s is not None:
            waits.append(self._alone_s + _LINGER_S - now_s)
        if not self._in_use():
            waits.append(self._asked_s + self._local.idle_s - now_s)
        return max(0.0, min(waits)) if waits else None

    def _in_use(self) -> bool:
        # A link that has not said yet what it is for may be for an answer.
        return any(purpose in (ASK, b"") for purpose in self._links.values())

    def _welcome(self, listener: socket.socket) -> None:
        try:
            link, _ = listener.accept()
        except OSError:  # it has gone already
            return
        # What we say is short and goes into the socket's buffer: no need to wait for whoever is slow.
        link.setblocking(False)
        self._links[link] = b""
        self._alone_s = None
        self._selector.register(link, selectors.EVENT_READ)

    def _hear(self, link: Any) -> None:
        try:
            said = link.recv(16)
            if said != b"":
                self._links[link] = said[:1]
                self._asked_s = time.monotonic()
                if said[:1] == ASK:
                    link.sendall(self._hello)
                return
        except OSError:
            said = b""
        self._selector.unregister(link)
        link.close()
        if self._links.pop(link) == ASK:
            self._asked_s = time.monotonic()
        if not self._links:
            self._alone_s = time.monotonic()

    def _turn_away(self, listener: socket.socket) -> str:
        """Tell those who wait that there is no model, until none is left."""
        deadline_s = time.monotonic() + _LINGER_S
        while time.monotonic() < deadline_s and not self._told_to_stop:
            for key, _ in self._selector.select(max(0.0, deadline_s - time.monotonic())):
                if key.fileobj is listener:
                    self._welcome(listener)
                elif key.fileobj is not self._sleeper:
                    self._hear(key.fileobj)
        return "it could not be loaded"


def main() -> int:
    """Run the process; gives its exit status."""
    ready_fd = int(sys.argv[1])
    loaded = load_settings()
    place = model_paths(loaded.workspace)
    configure_logging(loaded, process="model", console=False)
    os.nice(_NICE)
    # The one before us may still be ending.
    lock_fd = await_lock(place.lock)
    server = ModelServer(loaded, place)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: server.stop())
    try:
        return server.run(ready_fd)
    except Exception:
        # Nobody reads our stderr: those who wait for the model are sent to the log.
        log.exception("model.failed")
        return 1
    finally:
        place.lock.unlink(missing_ok=True)
        os.close(lock_fd)


if __name__ == "__main__":
    status = main()
    # Without the interpreter's own end: threads of the engine that still compute would hold it up.
    os._exit(status)
