"""The HTTP exchange of an answer: TLS, timeouts, and aborts at any moment."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.llm.http_stream import HttpStream
from actors.llm.provider import ProviderUnavailable
from ops.errors import JobRefused

#: Key and self-signed certificate for localhost, made for these tests only.
CERTIFICATE = Path(__file__).with_name("localhost.pem")
REPLY = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"


class Listener:
    """Accepts connections and reads requests; what it answers and when is the test's business.

    Attributes:
        port: Where it listens.
        accepted: Set when a connection is there.
        request: What the client has sent.
    """

    def __init__(self, *, secure: bool, handshake: bool = True, reply: bytes = b"") -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._secure = secure
        self._handshake = handshake
        self._reply = reply
        self.port = self._socket.getsockname()[1]
        self.accepted = threading.Event()
        self.request = b""
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._serve, daemon=True)

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            connection, _ = self._socket.accept()
            with connection:
                self._talk(connection)

    def _talk(self, connection: socket.socket) -> None:
        connection.settimeout(10)
        if self._secure and self._handshake:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(CERTIFICATE)
            connection = context.wrap_socket(connection, server_side=True)
        if not self._secure or self._handshake:
            while b"\r\n\r\n" not in self.request:
                piece = connection.recv(4096)
                if piece == b"":
                    return
                self.request += piece
            connection.sendall(self._reply)
        self.accepted.set()
        self.done.wait(10)
        connection.close()

    def close(self) -> None:
        """End it."""
        self.done.set()
        if not self.accepted.is_set():
            # Closing a socket does not wake the thread that accepts on it; a visitor does.
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), 1).close()
        self.thread.join(10)
        self._socket.close()


@contextlib.contextmanager
def listening(*, secure: bool = False, handshake: bool = True, reply: bytes = b"") -> Iterator[Listener]:
    """Run a listener."""
    listener = Listener(secure=secure, handshake=handshake, reply=reply)
    listener.thread.start()
    try:
        yield listener
    finally:
        listener.close()


def test_tls_with_a_trusted_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer comes through TLS, and the Host header is right."""
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    with listening(secure=True, reply=REPLY) as server:
        with HttpStream(f"https://localhost:{server.port}/v1/x?y=1", silence_s=5) as stream:
            stream.post(b"{}", {"X-Test": "1"})
            assert stream.status == 200
            assert stream.headers["content-type"] == "text/plain"
            assert stream.read(100) == b"hello"
        head = server.request.decode()
        assert head.startswith("POST /v1/x?y=1 HTTP/1.1\r\n")
        assert head.count("Host:") == 1
        assert f"Host: localhost:{server.port}\r\n" in head


def test_tls_with_an_unknown_certificate_is_refused() -> None:
    """An untrusted certificate is a configuration error and is not retried."""
    with (
        listening(secure=True) as server,
        HttpStream(f"https://localhost:{server.port}/", silence_s=5) as stream,
        pytest.raises(JobRefused, match="certificate") as caught,
    ):
        stream.post(b"{}", {})
    assert "SSL_CERT_FILE" in caught.value.remedy


def test_plain_http_behind_an_https_url_is_unavailable() -> None:
    """A server that speaks no TLS is reported as such a failure, not as a traceback."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def answer_plainly() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(REPLY)

        thread = threading.Thread(target=answer_plainly, daemon=True)
        thread.start()
        with (
            HttpStream(f"https://127.0.0.1:{port}/", silence_s=5) as stream,
            pytest.raises(ProviderUnavailable, match="connecting"),
        ):
            stream.post(b"{}", {})
        thread.join(5)


@pytest.mark.parametrize(
    ("secure", "handshake"), [(False, True), (True, True), (True, False)], ids=["plain", "tls", "handshake"]
)
def test_abort_ends_every_wait_at_once(
    secure: bool, handshake: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Waiting for the handshake or for the answer, through TLS or not: an abort is felt at once."""
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    scheme = "https" if secure else "http"
    with (
        listening(secure=secure, handshake=handshake) as server,
        HttpStream(f"{scheme}://localhost:{server.port}/", silence_s=30, connect_timeout_s=30) as stream,
    ):

        def abort() -> None:
            server.accepted.wait(10)
            stream.abort()

        threading.Thread(target=abort, daemon=True).start()
        begun = time.monotonic()
        with pytest.raises(ProviderUnavailable):
            stream.post(b"{}", {})
        assert time.monotonic() - begun < 5


@pytest.mark.parametrize("secure", [False, True])
def test_abort_in_the_middle_of_the_answer(secure: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has come is given; then the abort ends the wait for the rest."""
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    half = REPLY.replace(b"Content-Length: 5", b"Content-Length: 500")
    scheme = "https" if secure else "http"
    with (
        listening(secure=secure, reply=half) as server,
        HttpStream(f"{scheme}://localhost:{server.port}/", silence_s=30) as stream,
    ):
        stream.post(b"{}", {})
        pieces = stream.pieces()
        assert next(pieces) == b"hello"
        threading.Thread(target=stream.abort, daemon=True).start()
        begun = time.monotonic()
        with pytest.raises(ProviderUnavailable):
            next(pieces)
        assert time.monotonic() - begun < 5


def test_abort_before_and_after() -> None:
    """An abort that comes first prevents the connection; one that comes too late is harmless."""
    with listening(reply=REPLY) as server:
        stream = HttpStream(f"http://127.0.0.1:{server.port}/", silence_s=5)
        stream.abort()
        with stream, pytest.raises(ProviderUnavailable, match="lost the connection"):
            stream.post(b"{}", {})
        stream.abort()
        assert server.request == b""


def test_a_silent_connection_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither connecting nor waiting goes on for longer than it may."""
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    with listening(secure=True, handshake=False) as server:
        url = f"https://localhost:{server.port}/"
        with (
            HttpStream(url, silence_s=5, connect_timeout_s=0.2) as stream,
            pytest.raises(ProviderUnavailable, match="timed out connecting"),
        ):
            stream.post(b"{}", {})
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        with (
            HttpStream(url, silence_s=0.2) as stream,
            pytest.raises(ProviderUnavailable, match="timed out waiting"),
        ):
            stream.post(b"{}", {})


def test_what_is_no_http_is_unavailable() -> None:
    """A server of another protocol is reported as a lost connection."""
    with (
        listening(reply=b"220 mail.example.org ESMTP\r\n") as server,
        HttpStream(f"http://127.0.0.1:{server.port}/", silence_s=5) as stream,
        pytest.raises(ProviderUnavailable, match="220 mail"),
    ):
        stream.post(b"{}", {})


def test_a_host_that_cannot_be_a_name() -> None:
    """A label of more than 63 letters is refused, not raised as a Unicode error."""
    with (
        HttpStream(f"http://{'a' * 70}.example/", silence_s=5) as stream,
        pytest.raises(JobRefused, match="is not valid"),
    ):
        stream.post(b"{}", {})
