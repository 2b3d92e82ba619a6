"""One POST request with a streamed answer that another thread can abort at once.

Built on the standard library: one request to one server needs no client library.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import os
import selectors
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from actors.llm.provider import ProviderUnavailable
from ops.errors import JobRefused

#: Connect timeout: a running server accepts in milliseconds, and a fallback must still have time to answer.
CONNECT_TIMEOUT_S = 10.0
_PIECE_BYTES = 65_536


class _Connection(http.client.HTTPConnection):
    """An HTTP connection over a socket that is already connected."""

    def __init__(self, host: str, port: int, opened: socket.socket) -> None:
        super().__init__(host, port)
        self._opened = opened

    def connect(self) -> None:
        self.sock = self._opened


class HttpStream:
    """A POST request and its response, as a context manager.

    ``abort`` may be called from any thread at any time and makes any wait raise ``ProviderUnavailable`` at
    once (the caller then checks whether its job was interrupted). Only name resolution cannot be aborted; the
    resolver has its own timeout.

    Parameters:
        url: ``http://`` or ``https://`` URL.
        silence_s: Read timeout, in seconds.
        connect_timeout_s: Timeout of the connection to one address, in seconds.

    Attributes:
        status: HTTP status, after ``post``.
        headers: Response headers with lower-case names, after ``post``.
    """

    def __init__(self, url: str, *, silence_s: float, connect_timeout_s: float = CONNECT_TIMEOUT_S) -> None:
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = -1
        if parts.scheme not in ("http", "https") or not parts.hostname or port == -1:
            raise JobRefused(
                f"The base URL {url!r} is not valid.",
                remedy="Write the provider's base URL as https://host[:port][/path].",
            )
        self._host = parts.hostname
        self._secure = parts.scheme == "https"
        self._port = port if port is not None else (443 if self._secure else 80)
        self._name = parts.netloc.rpartition("@")[2]
        self._path = parts.path + (f"?{parts.query}" if parts.query else "")
        self._silence_s = silence_s
        self._connect_timeout_s = min(connect_timeout_s, silence_s)
        # Re-entrant: a signal handler may call abort() in the thread that holds the lock.
        self._lock = threading.RLock()
        self._aborted = False
        self._socket: socket.socket | None = None
        self._connection: http.client.HTTPConnection | None = None
        self._response: http.client.HTTPResponse | None = None
        self._wake_read, self._wake_write = os.pipe()
        self.status = 0
        self.headers: dict[str, str] = {}

    @property
    def address(self) -> str:
        """``HOST:PORT``, for messages."""
        return f"{self._host}:{self._port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            opened, self._socket = self._socket, None
            wake_write, self._wake_write = self._wake_write, -1
            os.close(wake_write)
            os.close(self._wake_read)
        if self._response is not None:
            self._response.close()
        if self._connection is not None:
            self._connection.close()
        if opened is not None:
            opened.close()

    def abort(self) -> None:
        """Abort the exchange; safe from any thread, also after its end."""
        with self._lock:
            self._aborted = True
            if self._wake_write != -1:
                os.write(self._wake_write, b"x")
            if self._socket is not None:
                # The method of the plain socket: that of a TLS socket would drop the session under the
                # reading thread. It fails if the peer has closed the connection; then no thread waits.
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def post(self, body: bytes, headers: Mapping[str, str]) -> None:
        """Send the request and wait for status and headers of the response.

        Args:
            body: Request body.
            headers: Request headers; ``Host`` and ``Content-Length`` are added.

        Raises:
            ProviderUnavailable: The connection failed, timed out, or does not speak HTTP.
            JobRefused: The server's certificate is not valid.
        """
        with self._failures("connecting"):
            self._connection = _Connection(self._host, self._port, self._open())
        with self._failures("waiting for an answer"):
            self._connection.request("POST", self._path, body=body, headers={"Host": self._name, **headers})
            self._response = self._connection.getresponse()
        self.status = self._response.status
        self.headers = {name.lower(): value for name, value in self._response.getheaders()}

    def pieces(self) -> Iterator[bytes]:
        """Yield the response body as it arrives.

        Raises:
            ProviderUnavailable: No data for longer than ``silence_s``, or the connection was lost.
        """
        response = self._response
        if response is None:
            raise LookupError("call post() first")
        while True:
            with self._failures("reading the answer"):
                piece = response.read1(_PIECE_BYTES)
            if piece == b"":
                return
            yield piece

    def read(self, limit_bytes: int) -> bytes:
        """Return the rest of the body, at most ``limit_bytes``."""
        body = b""
        for piece in self.pieces():
            body += piece
            if len(body) >= limit_bytes:
                break
        return body[:limit_bytes]

    @contextlib.contextmanager
    def _failures(self, doing: str) -> Iterator[None]:
        """Convert network errors into ``ProviderUnavailable`` or ``JobRefused``."""
        try:
            yield
            problem = "was aborted" if self._aborted else ""
            cause: Exception | None = None
        except ssl.SSLCertVerificationError as error:
            raise JobRefused(
                f"The certificate of {self.address} is not valid: {error.verify_message}.",
                remedy="Check the base URL, or set SSL_CERT_FILE to the authority that signed it.",
            ) from error
        except TimeoutError as error:
            problem, cause = f"timed out {doing}", error
        except ConnectionRefusedError as error:
            problem, cause = "refused the connection", error
        except socket.gaierror as error:
            problem, cause = f"cannot be resolved ({error.strerror})", error
        except UnicodeError as error:
            raise JobRefused(
                f"The host name {self._host!r} is not valid.", remedy="Correct the base URL of the provider."
            ) from error
        except (OSError, http.client.HTTPException) as error:
            detail = str(error) or type(error).__name__
            problem, cause = f"lost the connection {doing} ({detail})", error
        if problem:
            raise ProviderUnavailable(
                f"{self.address} {problem}.",
                remedy="Check that the server runs and that the base URL is correct.",
            ) from cause

    def _open(self) -> socket.socket:
        failure: OSError = OSError("no address")
        for family, kind, protocol, _, address in socket.getaddrinfo(
            self._host, self._port, type=socket.SOCK_STREAM
        ):
            plain = socket.socket(family, kind, protocol)
            try:
                self._connect(plain, address)
            except OSError as error:
                plain.close()
                failure = error
                if self._aborted:
                    break
                continue
            return self._register(plain)
        raise failure

    def _connect(self, plain: socket.socket, address: Any) -> None:
        """Connect without blocking, because a connecting socket cannot be shut down by another thread."""
        plain.setblocking(False)
        code = plain.connect_ex(address)
        if code in (errno.EINPROGRESS, errno.EWOULDBLOCK):
            with selectors.DefaultSelector() as selector:
                selector.register(self._wake_read, selectors.EVENT_READ)
                selector.register(plain, selectors.EVENT_WRITE)
                ready = selector.select(self._connect_timeout_s)
            if not ready:
                raise TimeoutError
            code = plain.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if self._aborted:
            raise ConnectionAbortedError
        if code != 0:
            raise OSError(code, os.strerror(code))
        plain.settimeout(self._silence_s)

    def _register(self, plain: socket.socket) -> socket.socket:
        opened: socket.socket = plain
        if self._secure:
            # The handshake waits for the server, so abort() must know the socket before it.
            opened = ssl.create_default_context().wrap_socket(
                plain, server_hostname=self._host, do_handshake_on_connect=False
            )
        with self._lock:
            self._socket = opened
            if self._aborted:
                raise ConnectionAbortedError
        if isinstance(opened, ssl.SSLSocket):
            opened.settimeout(self._connect_timeout_s)
            opened.do_handshake()
            opened.settimeout(self._silence_s)
        return opened
