"""A raw connection to the store: a socket and hiredis' parser, nothing else.

A job costs one script call to submit and one to settle, so the client's cost per call is the product's cost
per job: a GET takes 29 us here and 65 us through the ``redis`` package, whose import alone costs 100-190 ms
(measured on Python 3.11 over a Unix socket). TLS and Sentinel use that package behind the same interface, see
``ops.store.tls_sentinel``.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias, cast

import hiredis

from ops.errors import StoreError, StoreUnreachable
from ops.store.url import Endpoint

Argument: TypeAlias = str | bytes | int | float | memoryview
Reply: TypeAlias = Any

#: Error replies that are worth a retry.
_TRANSIENT = frozenset(
    {
        "LOADING",
        "MASTERDOWN",
        "READONLY",
        "NOREPLICAS",
        "CLUSTERDOWN",
        "TRYAGAIN",
        "BUSY",
        "MISCONF",  # the store's disk is full
        "NOSCRIPT",  # a failover between loading a script and calling it
        "UNBLOCKED",
    }
)
_TOO_MANY_CLIENTS = "ERR max number of clients"
#: Another version of the bridge has just removed our functions; the next call loads them again.
_FUNCTIONS_GONE = "ERR Function not found"

# The stub of hiredis declares a tuple of one element; it takes any number.
pack = cast("Callable[[tuple[Argument, ...]], bytes]", hiredis.pack_command)


def as_error(reply: Exception) -> StoreError | StoreUnreachable:
    """Return the exception for an error reply."""
    text = str(reply)
    code = text.split(" ", 1)[0]
    if code in _TRANSIENT or text.startswith((_TOO_MANY_CLIENTS, _FUNCTIONS_GONE)):
        return StoreUnreachable(f"The store is not ready: {text}.", remedy="Retry in a moment.")
    if code == "OOM":
        return StoreUnreachable(
            "The store is out of memory.",
            remedy="Raise maxmemory (store_maxmemory_bytes) or lower retention_s and finished_max.",
        )
    if code in {"NOAUTH", "WRONGPASS", "NOPERM"}:
        return StoreUnreachable(
            f"The store refuses the login: {text}.", remedy="Correct user and password in redis_url."
        )
    return StoreError(f"The store replied with an error: {text}.", code=code)


def as_dict(reply: Reply) -> dict[str, bytes]:
    """Return the reply of HGETALL, a map in RESP3 and a flat list before that, as field name to value."""
    pairs = reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2], strict=True)
    return {name.decode(): value for name, value in pairs}


def well_formed(text: str) -> str:
    """Return a text with lone surrogates (of a broken file name, for example) replaced, for UTF-8."""
    return text if text.isascii() else text.encode(errors="replace").decode()


def _timeval(seconds: float) -> bytes:
    """Return a C ``struct timeval``, at least one microsecond: zero would mean no timeout."""
    micros = max(1, round(seconds * 1_000_000))
    return struct.pack("@ll", micros // 1_000_000, micros % 1_000_000)


class Connection(Protocol):
    """One connection to the store, for one thread at a time."""

    def send(self, commands: Sequence[Sequence[Argument]]) -> None:
        """Send commands without waiting for their replies."""

    def read(self, timeout_s: float) -> Reply:
        """Return the next reply; error replies are returned, not raised.

        Raises:
            TimeoutError: No reply in time; the connection remains usable.
            StoreUnreachable: The connection is lost.
        """

    def close(self) -> None:
        """Close the connection."""


class RawConnection:
    """A plain socket that speaks RESP.

    Args:
        endpoint: Address of the store.
        timeout_s: Timeout of connecting, and of each reply to AUTH and SELECT, in seconds.

    Raises:
        StoreUnreachable: The store does not accept the connection in time.
    """

    def __init__(self, endpoint: Endpoint, timeout_s: float) -> None:
        self._endpoint = endpoint
        self._timeout_s = timeout_s
        self._reader = hiredis.Reader()
        self._socket = self._connect()
        # Timeouts of the kernel: Python's own cost an additional system call per send and receive.
        self._socket.settimeout(None)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(timeout_s))
        self._read_timeout_s = -1.0
        self._log_in()

    def _connect(self) -> socket.socket:
        family = socket.AF_UNIX if self._endpoint.path else socket.AF_UNSPEC
        try:
            if family == socket.AF_UNIX:
                link = socket.socket(family)
                link.settimeout(self._timeout_s)
                link.connect(self._endpoint.path)
                return link
            link = socket.create_connection((self._endpoint.host, self._endpoint.port), self._timeout_s)
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        except (OSError, UnicodeError) as error:  # UnicodeError: the host name is not valid
            raise self._gone(error) from error
        return link

    def _log_in(self) -> None:
        commands: list[Sequence[Argument]] = []
        if self._endpoint.password:
            user = (self._endpoint.username,) if self._endpoint.username else ()
            commands.append(("AUTH", *user, self._endpoint.password))
        if self._endpoint.database:
            commands.append(("SELECT", self._endpoint.database))
        if not commands:
            return
        self.send(commands)
        for _ in commands:
            try:
                reply = self.read(self._timeout_s)
            except TimeoutError as error:
                self.close()
                raise self._gone(error) from error
            if isinstance(reply, hiredis.ReplyError):
                self.close()
                raise as_error(reply)

    def _gone(self, error: Exception) -> StoreUnreachable:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return StoreUnreachable(
            f"The store at {self._endpoint.url} does not answer ({reason}).",
            remedy="Start the embedded store with '3ox up', or check redis_url and its server.",
        )

    def send(self, commands: Sequence[Sequence[Argument]]) -> None:
        """See ``Connection.send``."""
        data = b"".join([pack(tuple(command)) for command in commands])
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise self._gone(error) from error

    def read(self, timeout_s: float) -> Reply:
        """See ``Connection.read``."""
        try:
            return self._read(timeout_s)
        except hiredis.ProtocolError as error:
            raise self._gone(error) from error

    def _read(self, timeout_s: float) -> Reply:
        reply = self._reader.gets()
        if reply is not False:
            return reply
        started_s = time.monotonic()
        wait_s = timeout_s
        while True:
            try:
                # The kernel rounds timeouts up to 1 to 10 ms; a non-blocking read takes none of it.
                flags = 0 if wait_s > 0 else socket.MSG_DONTWAIT
                if wait_s > 0 and wait_s != self._read_timeout_s:
                    self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(wait_s))
                    self._read_timeout_s = wait_s
                data = self._socket.recv(65536, flags)
            except BlockingIOError as error:
                raise TimeoutError(f"no reply within {timeout_s:g} s") from error
            except OSError as error:
                raise self._gone(error) from error
            if not data:
                raise self._gone(ConnectionResetError("connection closed"))
            self._reader.feed(data)
            reply = self._reader.gets()
            if reply is not False:
                return reply
            # Part of a large reply: wait for the rest within the remaining time.
            wait_s = max(0.0, started_s + timeout_s - time.monotonic())

    def close(self) -> None:
        """See ``Connection.close``."""
        self._socket.close()
