"""The process of the offline model: ``python -m ops.local_model.server READY_FD``.

The engine (``xllamacpp``) serves OpenAI's protocol on a free port of 127.0.0.1, protected by a key. Clients
get port and key over a private socket, on which every answer and every process that uses the model has a
connection. The process exits when there has been no answer for ``[ask.local] idle_s``, or no connection is
left.
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

#: Time without connections before the process exits, for clients that are about to connect.
_LINGER_S = 0.5
#: Timeout for the first connection: the process that started the model connects at once, unless it died.
_FIRST_WITHIN_S = 30.0
#: Niceness: the model yields to the other processes of the host.
_NICE = 5
_BACKLOG = 128

log = get_logger("ops.local_model.server")


class ModelServer:
    """Serves one model until no client needs it.

    Args:
        loaded: Settings.
        paths: Its socket and state file.
    """

    def __init__(self, loaded: LoadedSettings, paths: ModelPaths) -> None:
        self._local = loaded.settings.ask.local
        self._loaded = loaded
        self._paths = paths
        self._selector = selectors.DefaultSelector()
        self._links: dict[socket.socket, bytes] = {}
        self._used_s = time.monotonic()
        self._alone_s: float | None = time.monotonic() + _FIRST_WITHIN_S - _LINGER_S
        self._endpoint = b""
        self._engine: Any = None
        self._stopping = False
        self._wake, self._sleeper = socket.socketpair()

    def stop(self) -> None:
        """Stop the server; may be called from a signal handler."""
        self._stopping = True
        self._wake.send(b".")

    def run(self, ready_fd: int) -> int:
        """Serve until no client needs the model, and return the exit status.

        Args:
            ready_fd: Closed once the socket accepts connections.
        """
        listener = self._listen()
        os.close(ready_fd)
        self._selector.register(listener, selectors.EVENT_READ)
        self._selector.register(self._sleeper, selectors.EVENT_READ)
        try:
            endpoint = self._load()
            self._used_s = time.monotonic()
            self._endpoint = msgspec.json.encode(endpoint) + b"\n"
            reason = self._serve(listener) if endpoint.error == "" else self._report_error(listener)
        finally:
            # In this order: a client that finds no socket starts another process, which waits for our lock.
            self._paths.socket.unlink(missing_ok=True)
            self._paths.state.unlink(missing_ok=True)
            listener.close()
        log.info("model.stopped", reason=reason)
        return 0 if endpoint.error == "" else 1

    def _listen(self) -> socket.socket:
        self._paths.socket.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self._paths.socket))
        self._paths.socket.chmod(0o600)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
        return listener

    def _load(self) -> ModelEndpoint:
        """Load the weights; clients wait in the listener's backlog meanwhile."""
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
            log.error("model.not_loaded", path=str(path), error=error.message)  # noqa: TRY400 (complete as it is)
            return ModelEndpoint(error=error.message, remedy=error.remedy)
        except Exception as error:
            # The engine may raise anything; the waiting clients must get an answer.
            log.exception("model.not_loaded", path=str(path))
            return ModelEndpoint(error=f"{path.name} cannot be loaded ({str(error)[:200]})")
        state = ModelState(
            pid=os.getpid(),
            start_time=process_start_time(os.getpid()),
            model=name,
            since=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        )
        self._paths.state.write_bytes(msgspec.json.encode(state))
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
            reason = self._stop_reason()
            if reason != "":
                return reason
            for key, _ in self._selector.select(self._wait_s()):
                if key.fileobj is listener:
                    self._accept(listener)
                elif key.fileobj is self._sleeper:
                    self._sleeper.recv(64)
                else:
                    self._read(key.fileobj)

    def _stop_reason(self) -> str:
        """Return why to stop now; empty to go on."""
        if self._stopping:
            return "stopped by a signal"
        now_s = time.monotonic()
        if self._alone_s is not None and now_s - self._alone_s >= _LINGER_S:
            return "no client is left"
        if not self._in_use() and now_s - self._used_s >= self._local.idle_s:
            return f"not used for {self._local.idle_s:g} s"
        return ""

    def _wait_s(self) -> float | None:
        now_s = time.monotonic()
        waits: list[float] = []
        if self._alone_s is not None:
            waits.append(self._alone_s + _LINGER_S - now_s)
        if not self._in_use():
            waits.append(self._used_s + self._local.idle_s - now_s)
        return max(0.0, min(waits)) if waits else None

    def _in_use(self) -> bool:
        # A connection that has not sent its purpose yet may be for an answer.
        return any(purpose in (ASK, b"") for purpose in self._links.values())

    def _accept(self, listener: socket.socket) -> None:
        try:
            link, _ = listener.accept()
        except OSError:  # the client has gone already
            return
        # Our answer is short and fits into the socket's buffer, so a slow client does not block us.
        link.setblocking(False)
        self._links[link] = b""
        self._alone_s = None
        self._selector.register(link, selectors.EVENT_READ)

    def _read(self, link: Any) -> None:
        try:
            purpose = link.recv(16)[:1]
            if purpose != b"":
                self._links[link] = purpose
                self._used_s = time.monotonic()
                if purpose == ASK:
                    link.sendall(self._endpoint)
                return
        except OSError:
            purpose = b""
        self._selector.unregister(link)
        link.close()
        if self._links.pop(link) == ASK:
            self._used_s = time.monotonic()
        if not self._links:
            self._alone_s = time.monotonic()

    def _report_error(self, listener: socket.socket) -> str:
        """Send the error to the waiting clients."""
        deadline_s = time.monotonic() + _LINGER_S
        while time.monotonic() < deadline_s and not self._stopping:
            for key, _ in self._selector.select(max(0.0, deadline_s - time.monotonic())):
                if key.fileobj is listener:
                    self._accept(listener)
                elif key.fileobj is not self._sleeper:
                    self._read(key.fileobj)
        return "the model could not be loaded"


def main() -> int:
    """Run the process and return its exit status."""
    ready_fd = int(sys.argv[1])
    loaded = load_settings()
    paths = model_paths(loaded.workspace)
    configure_logging(loaded, process="model", console=False)
    os.nice(_NICE)
    # The previous process may still be exiting.
    lock_fd = await_lock(paths.lock)
    server = ModelServer(loaded, paths)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: server.stop())
    try:
        return server.run(ready_fd)
    except Exception:
        # stderr is discarded: the clients' error points to the log.
        log.exception("model.failed")
        return 1
    finally:
        paths.lock.unlink(missing_ok=True)
        os.close(lock_fd)


if __name__ == "__main__":
    status = main()
    # Without interpreter shutdown, which threads of the engine that are still computing would delay.
    os._exit(status)
