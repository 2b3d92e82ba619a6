"""Connections over TLS or through Sentinel: ``Connection`` of ``resp.py`` on top of the ``redis`` package."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import hiredis

from ops.errors import SettingsError, StoreUnreachable
from ops.store.resp import Argument, Reply, pack
from ops.store.url import malformed, mask_password

if TYPE_CHECKING:
    import redis


class RedisClients:
    """Opens connections through the ``redis`` package.

    Args:
        url: ``rediss://...`` or ``sentinel://[user:password@]host:port,host:port/service[/db]``.
        timeout_s: Timeout of connecting, and of each reply, in seconds.

    Raises:
        SettingsError: The URL is malformed.
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        self._url = mask_password(url)
        # No retries here: the caller decides how long to wait for the store.
        options: dict[str, Any] = {
            "socket_timeout": timeout_s,
            "socket_connect_timeout": timeout_s,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
            # The pool only creates connections and never gets one back, so its count of them never decreases.
            "max_connections": 2**31 - 1,
        }
        if url.startswith("sentinel://"):
            self._client: redis.Redis = _through_sentinel(url, options)
        else:
            try:
                self._client = redis.Redis.from_url(url, **options)
            except ValueError:
                raise malformed("rediss://[user:password@]host:port/db") from None

    def connect(self) -> RedisConnection:
        """Open a connection.

        Raises:
            StoreUnreachable: The store does not accept the connection.
        """
        return RedisConnection(self._client.connection_pool, self._url)


def _through_sentinel(url: str, options: dict[str, Any]) -> redis.Redis:
    from urllib.parse import unquote

    from redis.sentinel import Sentinel

    credentials, _, address = url.removeprefix("sentinel://").rpartition("@")
    hosts, _, path = address.partition("/")
    service, _, database = path.partition("/")
    try:
        sentinels = [
            (host.rpartition(":")[0] or host, int(host.rpartition(":")[2]) if ":" in host else 26379)
            for host in hosts.split(",")
        ]
        number = int(database) if database else 0
    except ValueError:
        raise malformed("sentinel://[user:password@]host:port,host:port/service[/db]") from None
    if not service:
        raise SettingsError(
            f"redis_url {mask_password(url)!r} names no service.",
            remedy="Write it as sentinel://host:port,host:port/service.",
        )
    user, _, password = credentials.partition(":")
    login = {"username": unquote(user) or None, "password": unquote(password)} if password else {}
    timeouts = {name: options[name] for name in ("socket_timeout", "socket_connect_timeout")}
    sentinel = cast("Any", Sentinel)(sentinels, sentinel_kwargs=timeouts, db=number, **options, **login)
    client: redis.Redis = sentinel.master_for(service)
    return client


class RedisConnection:
    """A ``Connection`` (``ops/store/resp.py``) that uses one of the ``redis`` package."""

    def __init__(self, pool: Any, url: str) -> None:
        self._url = url
        try:
            self._link = pool.make_connection()
            self._link.connect()
        except self._errors() as error:
            raise self._gone(error) from error

    @staticmethod
    def _errors() -> tuple[type[Exception], ...]:
        import redis

        return (redis.RedisError, hiredis.HiredisError, OSError)

    def _gone(self, error: Exception) -> StoreUnreachable:
        # Sentinel's error quotes the representation of its clients, including their passwords.
        reason = re.sub(r"<.*>", "...", str(error), flags=re.DOTALL)
        return StoreUnreachable(
            f"The store at {self._url} does not answer ({reason}).",
            remedy="Check that it runs and that redis_url is correct.",
        )

    def send(self, commands: Sequence[Sequence[Argument]]) -> None:
        """See ``Connection.send``."""
        try:
            self._link.send_packed_command([pack(tuple(item)) for item in commands])
        except self._errors() as error:
            raise self._gone(error) from error

    def read(self, timeout_s: float) -> Reply:
        """See ``Connection.read``."""
        import redis

        try:
            if self._link.can_read(timeout=timeout_s):
                return self._link.read_response(disable_decoding=True, timeout=timeout_s)
        except redis.ResponseError as error:
            return hiredis.ReplyError(_with_code(error))
        except self._errors() as error:
            raise self._gone(error) from error
        raise TimeoutError(f"no reply within {timeout_s} s")

    def close(self) -> None:
        """See ``Connection.close``."""
        self._link.disconnect()


def _with_code(error: Exception) -> str:
    """Return an error reply with the code that the ``redis`` package strips from it."""
    import redis

    codes: dict[type[Exception], str] = {
        redis.exceptions.NoScriptError: "NOSCRIPT",
        redis.exceptions.OutOfMemoryError: "OOM",
        redis.exceptions.ReadOnlyError: "READONLY",
        redis.exceptions.MasterDownError: "MASTERDOWN",
        redis.exceptions.BusyLoadingError: "LOADING",
        redis.exceptions.NoPermissionError: "NOPERM",
    }
    code = codes.get(type(error))
    text = str(error)
    return text if code is None or text.startswith(code) else f"{code} {text}"
