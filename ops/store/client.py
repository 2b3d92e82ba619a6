"""Client of the store: call, pipeline, stream, and connections for blocking reads and subscriptions.

Thread-safe: each call borrows a connection from a pool. A dead connection is replaced and the call repeated
once, which is safe because all our scripts are idempotent.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

import hiredis

from ops.errors import StoreTimeout, StoreUnreachable
from ops.settings.load import LoadedSettings
from ops.store.resp import Argument, Connection, RawConnection, Reply, as_error
from ops.store.tls_sentinel import RedisClients
from ops.store.url import mask_password, parse_endpoint

#: Maximum number of idle connections; further ones are closed.
_IDLE_MAX = 32
#: Maximum number of commands of a stream that await their replies.
_AHEAD_MAX = 3


class Store:
    """A Redis 7 or Valkey server.

    Args:
        url: ``redis://``, ``unix://``, ``rediss://`` or ``sentinel://``.
        timeout_s: Timeout of connecting and of each reply, in seconds.

    Raises:
        SettingsError: The URL is malformed.
    """

    def __init__(self, url: str, *, timeout_s: float = 5.0) -> None:
        self.url = mask_password(url)
        self.timeout_s = timeout_s
        self._idle: deque[Connection] = deque()
        self._lock = threading.Lock()
        self._new: Callable[[], Connection]
        if url.startswith(("rediss://", "sentinel://")):
            self._new = RedisClients(url, timeout_s).connect
        else:
            endpoint = parse_endpoint(url)
            self._new = lambda: RawConnection(endpoint, timeout_s)

    @classmethod
    def open(cls, loaded: LoadedSettings, *, timeout_s: float | None = None) -> Store:
        """Return the store of the settings: ``redis_url``, else the workspace's embedded store."""
        limit_s = loaded.settings.store_timeout_s if timeout_s is None else timeout_s
        return cls(loaded.store_url, timeout_s=limit_s)

    def connect(self) -> Connection:
        """Open a new connection that belongs to the caller, for blocking reads and subscriptions.

        Raises:
            StoreUnreachable: The store does not accept the connection.
        """
        return self._new()

    def call(self, *command: Argument) -> Reply:
        """Run one command.

        Raises:
            StoreUnreachable: No reply in time, or the store cannot serve now.
            StoreError: The store replied with an error.
        """
        return self.read([command])[0]

    def pipeline(self, commands: Sequence[Sequence[Argument]]) -> list[Reply]:
        """Run several commands in one round trip; error replies are returned in the list, not raised.

        Raises:
            StoreUnreachable: No reply in time.
        """
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        if connection is not None:
            try:
                return self._exchange(connection, commands)
            except StoreTimeout:
                raise
            except StoreUnreachable:
                # The store was restarted since this connection was last used: retry on a new one.
                self._forget_idle()
        return self._exchange(self._new(), commands)

    def read(self, commands: Sequence[Sequence[Argument]]) -> list[Reply]:
        """Run several commands in one round trip and return their replies.

        Raises:
            StoreUnreachable: No reply in time, or the store cannot serve now.
            StoreError: One of them failed.
        """
        replies = self.pipeline(commands)
        for reply in replies:
            if isinstance(reply, hiredis.ReplyError):
                raise as_error(reply)
        return replies

    def stream(self, commands: Iterable[Sequence[Argument]]) -> Iterator[Reply]:
        """Run a series of commands, sending the next ones while replies are pending.

        Args:
            commands: The commands; produced as they are needed.

        Yields:
            Their replies, in order; error replies are yielded, not raised.

        Raises:
            StoreUnreachable: No reply in time; any of the commands may have been carried out.
        """
        connection = self._new()
        pending = 0
        try:
            for command in commands:
                connection.send([command])
                pending += 1
                if pending > _AHEAD_MAX:
                    pending -= 1
                    yield self._await(connection)
            while pending:
                pending -= 1
                yield self._await(connection)
        except BaseException:
            connection.close()
            raise
        self._put_back(connection)

    def _await(self, connection: Connection) -> Reply:
        try:
            return connection.read(self.timeout_s)
        except TimeoutError as error:
            raise self._timed_out() from error

    def _timed_out(self) -> StoreTimeout:
        return StoreTimeout(
            f"The store at {self.url} did not answer within {self.timeout_s:g} s.",
            remedy="Check whether it is paused or overloaded.",
        )

    def _exchange(self, connection: Connection, commands: Sequence[Sequence[Argument]]) -> list[Reply]:
        try:
            connection.send(commands)
            replies = [connection.read(self.timeout_s) for _ in commands]
        except TimeoutError as error:
            connection.close()
            raise self._timed_out() from error
        except BaseException:
            connection.close()
            raise
        if any(isinstance(reply, hiredis.ReplyError) and str(reply)[:8] == "READONLY" for reply in replies):
            # A failover made another server the primary; this connection would never reach it.
            connection.close()
            self._forget_idle()
        else:
            self._put_back(connection)
        return replies

    def _put_back(self, connection: Connection) -> None:
        with self._lock:
            if len(self._idle) < _IDLE_MAX:
                self._idle.append(connection)
                return
        connection.close()

    def _forget_idle(self) -> None:
        with self._lock:
            stale, self._idle = list(self._idle), deque()
        for connection in stale:
            connection.close()

    def close(self) -> None:
        """Close all idle connections."""
        self._forget_idle()
