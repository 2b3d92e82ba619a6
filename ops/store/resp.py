"""One raw connection to the store: a socket, hiredis' reader, nothing else.

A job is dispatched by one script call and settled by another, so the client's cost per call is the
product's cost per job: a GET takes 29 us here, 65 us through the full client, whose import alone costs
100-190 ms (measured on Python 3.11 over a unix socket). TLS and Sentinel go through the full client, see
``redis_client.py``; both have the same face.
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

#: Error replies that mean "not now": the caller waits and tries again.
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
        "NOSCRIPT",  # a failover between the loading of a script and its call
        "UNBLOCKED",
    }
)
_TOO_MANY_CLIENTS = "ERR max number of clients"
#: Another version of the bridge has just removed our functions; the next call brings them back.
_FUNCTIONS_GONE = "ERR Function not found"

# hiredis' stub says "a tuple of one"; it takes any number.
pack = cast("Callable[[tuple[Argument, ...]], bytes]", hiredis.pack_command)


def as_error(reply: Exception) -> StoreError | StoreUnreachable:
    """Turn an error reply into one of our errors."""
    text = str(reply)
    code = text.split(" ", 1)[0]
    if code in _TRANSIENT or text.startswith((_TOO_MANY_CLIENTS, _FUNCTIONS_GONE)):
        return StoreUnreachable(f"the store is not ready: {text}.", remedy="It is tried again.")
    if code == "OOM":
        return StoreUnreachable(
            "the store is out of memory.",
            remedy="Raise maxmemory (store_maxmemory_bytes) or lower retention_s and finished_max.",
        )
    if code in {"NOAUTH", "WRONGPASS", "NOPERM"}:
        return StoreUnreachable(f"the store refuses us: {text}.", remedy="Correct the password in redis_url.")
    return StoreError(f"the store answered: {text}.", code=code)


def well_formed(text: str) -> str:
    """Give a text without lone surrogates (half an emoji, a broken file name), which UTF-8 cannot hold."""
    return text if text.isascii() else text.encode(errors="replace").decode()


def _timeval(seconds: float) -> bytes:
    """Give a C ``struct timeval``; all zero would mean "for ever"."""
    micros = max(1, round(seconds * 1_000_000))
    return struct.pack("@ll", micros // 1_000_000, micros % 1_000_000)


class Connection(Protocol):
    """One connection to the store, for one thread at a time."""

    def send(self, commands: Sequence[Sequence[Argument]]) -> None:
        """Send commands without waiting for their replies."""

    def read(self, timeout_s: float) -> Reply:
        """Give the next reply; error replies are returned, not raised.

        Raises:
            TimeoutError: Nothing came in time; the connection stays usable.
            StoreUnreachable: The connection is gone.
        """

    def close(self) -> None:
        """Close it."""


class RawConnection:
    """A plain socket that speaks RESP.

    Args:
        endpoint: Where the store listens.
        timeout_s: Bound on connecting and on each reply of the greeting.

    Raises:
        StoreUnreachable: Nobody listens there, or not in time.
    """

    def __init__(self, endpoint: Endpoint, timeout_s: float) -> None:
        self._endpoint = endpoint
        self._timeout_s = timeout_s
        self._reader = hiredis.Reader()
        self._socket = self._connect()
        # The kernel keeps the time: Python's own time-outs cost a system call more for each send and receive.
        self._socket.settimeout(None)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(timeout_s))
        self._read_timeout_s = -1.0
        self._greet()

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
        except (OSError, UnicodeError) as error:  # a host name that cannot be one raises UnicodeError
            raise self._gone(error) from error
        return link

    def _greet(self) -> None:
        greeting: list[Sequence[Argument]] = []
        if self._endpoint.password:
            user = (self._endpoint.username,) if self._endpoint.username else ()
            greeting.append(("AUTH", *user, self._endpoint.password))
        if self._endpoint.database:
            greeting.append(("SELECT", self._endpoint.database))
        if not greeting:
            return
        self.send(greeting)
        for _ in greeting:
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
            f"the store at {self._endpoint.url} does not answer ({reason}).",
            remedy="'3ox up' starts the embedded one; for another, check that it runs, and redis_url.",
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
                # The kernel rounds time-outs up to 1 to 10 ms; to look whether something is there takes none.
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
            # Part of a large reply: the rest has the rest of the time.
            wait_s = max(0.0, started_s + timeout_s - time.monotonic())

    def close(self) -> None:
        """See ``Connection.close``."""
        self._socket.close()
