"""The daemon of ``3ox rest``: the application on uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import uvicorn
from litestar.concurrency import set_asyncio_executor

from ingress.core.api_address import bind_api, url_file, url_of
from ingress.core.daemon import Daemon
from ingress.core.http.app_state import AppState
from ingress.core.http.auth import Extension
from ingress.rest.app import build_app
from ops.environment import variable
from ops.logs import get_logger
from ops.tokens import Tokens

#: Requests that use the store at the same time; more wait.
THREADS = 16
_HEARTBEAT_S = 1.0
#: asyncio reports each connection that it cannot accept, a thousand at once and again each second.
_REPORT_INTERVAL_S = 60.0

log = get_logger(__name__)


class LoopExceptionHandler:
    """Handles exceptions of the event loop; a lack of file descriptors is logged once a minute."""

    def __init__(self) -> None:
        self._quiet_until_s = 0.0

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Log the exception; see ``loop.set_exception_handler``."""
        error = context.get("exception")
        if not isinstance(error, OSError) or error.errno not in {errno.EMFILE, errno.ENFILE}:
            loop.default_exception_handler(context)
        elif time.monotonic() >= self._quiet_until_s:
            self._quiet_until_s = time.monotonic() + _REPORT_INTERVAL_S
            remedy = "Raise the limit (ulimit -n, LimitNOFILE); new connections wait meanwhile."
            log.error("rest.no_descriptors", reason=str(error.strerror), remedy=remedy)


class Server(uvicorn.Server):
    """Uvicorn without its signal handlers.

    Args:
        config: Settings of uvicorn.
        on_started: Called when the server accepts requests.
    """

    def __init__(self, config: uvicorn.Config, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = on_started

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Install no signal handlers: the daemon's own set ``should_exit``."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then call ``on_started``."""
        asyncio.get_running_loop().set_exception_handler(LoopExceptionHandler())
        await super().startup(sockets)
        if self.started:
            self._on_started()


def serve(daemon: Daemon, extensions: Sequence[Callable[[AppState], Extension]] = ()) -> None:
    """Serve until the daemon is asked to stop.

    Args:
        daemon: The process.
        extensions: Make the other adapters that are served beside the API, such as the dashboard.

    Raises:
        StartFailed: The server cannot listen on the address.
    """
    settings, address_file = daemon.loaded.settings, url_file(daemon.loaded.workspace)
    listening = bind_api(settings)
    _show_first_token(daemon)
    app_state = AppState(daemon)
    set_asyncio_executor(ThreadPoolExecutor(THREADS, thread_name_prefix="rest"))
    config = uvicorn.Config(
        build_app(app_state, extensions),
        lifespan="on",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=max(1, round(settings.rest.shutdown_s)),
    )

    def started() -> None:
        url = url_of(settings, listening.getsockname()[1])
        daemon.announce(address_file, url)
        daemon.report(url=url)
        daemon.ready()

    server = Server(config, started)

    def stop() -> None:
        server.should_exit = True
        app_state.stop()

    daemon.on_stop(stop)
    try:
        asyncio.run(_run(server, daemon, listening))
    finally:
        address_file.unlink(missing_ok=True)


async def _run(server: Server, daemon: Daemon, listening: socket.socket) -> None:
    async def send_heartbeats() -> None:
        while True:
            daemon.pulse()
            await asyncio.sleep(_HEARTBEAT_S)

    heartbeats = asyncio.create_task(send_heartbeats())
    try:
        await server.serve([listening])
    finally:
        heartbeats.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await heartbeats


def _show_first_token(daemon: Daemon) -> None:
    """Create a token if there is none, and print it for the user who started this daemon by hand.

    ``3ox up`` has created one before; under it the output would end up in the log.
    """
    loaded = daemon.loaded
    tokens = Tokens(loaded.workspace, loaded.settings.api_token)
    if variable("BRIDGE_SUPERVISED"):
        if not tokens.any():
            log.warning("rest.nobody_may", remedy="3ox token make NAME")
        return
    token = tokens.make_first()
    if token is not None:
        sys.stdout.write(f"API token, shown once: {token}\n")
        sys.stdout.flush()
