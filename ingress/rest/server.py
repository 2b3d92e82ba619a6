"""``3ox rest``: the application on uvicorn, as a daemon of the bridge."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import uvicorn
from litestar.concurrency import set_asyncio_executor

from ingress.core.api_address import url_file, url_of
from ingress.core.daemon import Daemon
from ingress.core.http.app_state import AppState
from ingress.core.http.auth import Extension
from ingress.rest.app import build_app
from ops.errors import StartFailed
from ops.logs import get_logger
from ops.settings.load import Settings

#: Requests that talk to the store at a time; more wait for their turn.
THREADS = 16
_PULSE_S = 1.0
_BACKLOG = 1024
#: asyncio complains of each connection that it cannot take, a thousand at once and again each second.
_COMPLAIN_S = 60.0

log = get_logger(__name__)


class Complaints:
    """What the event loop says of errors that nobody awaits: of a lack of descriptors, now and then."""

    def __init__(self) -> None:
        self._quiet_until_s = 0.0

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Log it; see ``loop.set_exception_handler``."""
        error = context.get("exception")
        if not isinstance(error, OSError) or error.errno not in {errno.EMFILE, errno.ENFILE}:
            loop.default_exception_handler(context)
        elif time.monotonic() >= self._quiet_until_s:
            self._quiet_until_s = time.monotonic() + _COMPLAIN_S
            remedy = "Raise its limit (ulimit -n, LimitNOFILE); callers wait meanwhile."
            log.error("rest.no_descriptors", reason=str(error.strerror), remedy=remedy)


class Server(uvicorn.Server):
    """Uvicorn, whose signals the daemon hears.

    Args:
        config: Of uvicorn.
        on_started: Called when it serves.
    """

    def __init__(self, config: uvicorn.Config, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = on_started

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone: the daemon has its own handlers, which set ``should_exit``."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        asyncio.get_running_loop().set_exception_handler(Complaints())
        await super().startup(sockets)
        if self.started:
            self._on_started()


def serve(daemon: Daemon, extensions: Sequence[Callable[[AppState], Extension]] = ()) -> None:
    """Serve until the daemon is asked to stop.

    Args:
        daemon: The process.
        extensions: Make the other adapters that are served beside the API, such as the dashboard.

    Raises:
        StartFailed: The address cannot be used.
    """
    settings, place = daemon.loaded.settings, url_file(daemon.loaded.workspace)
    listening = bind(settings)
    _tell_first_token(daemon)
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
        daemon.announce(place, url)
        daemon.tell(url=url)
        daemon.ready()

    server = Server(config, started)

    def stop() -> None:
        server.should_exit = True
        app_state.stop()

    daemon.on_stop(stop)
    try:
        asyncio.run(_run(server, daemon, listening))
    finally:
        place.unlink(missing_ok=True)


async def _run(server: Server, daemon: Daemon, listening: socket.socket) -> None:
    async def pulse() -> None:
        while True:
            daemon.pulse()
            await asyncio.sleep(_PULSE_S)

    beating = asyncio.create_task(pulse())
    try:
        await server.serve([listening])
    finally:
        beating.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await beating


def bind(settings: Settings) -> socket.socket:
    """Open the address on which the API is served.

    Raises:
        StartFailed: It cannot be used.
    """
    host, port = settings.api_host, settings.api_port
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        # With the protocol: asyncio looks for it before it sets TCP_NODELAY, without which answers to clients
        # that keep their connection come 40 ms late.
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        # From here on clients are kept waiting, not refused, while the rest is made ready.
        listening.listen(_BACKLOG)
    except OSError as error:
        raise StartFailed(
            f"the REST API cannot listen on {host}:{port}: {error.strerror}.",
            remedy="Set BRIDGE_API_HOST or BRIDGE_API_PORT to another one; port 0 takes any that is free.",
        ) from error
    listening.setblocking(False)
    return listening


def _tell_first_token(daemon: Daemon) -> None:
    """Make a token if there is none, and show it to whoever started this daemon by hand.

    Under ``3ox up`` that has been done before; here its output would end up in the log.
    """
    from ops.tokens import Tokens

    loaded = daemon.loaded
    tokens = Tokens(loaded.workspace, loaded.settings.api_token)
    if "BRIDGE_SUPERVISED" in os.environ:
        if not tokens.any():
            log.warning("rest.nobody_may", remedy="3ox token make NAME")
        return
    token = tokens.make_first()
    if token is not None:
        sys.stdout.write(f"API token, shown once: {token}\n")
        sys.stdout.flush()
