"""The connection to a model server: TLS, proxies, credentials, time-outs, and interrupts at any moment."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from middleware.interrupts import JobCancelled
from ops.errors import JobFailed, JobRefused
from tests.actors.conftest import Configure
from tests.actors.running import JobRun
from tests.fake_openai import FakeOpenAI, answers
from tests.proxy import Proxy

pytestmark = pytest.mark.usefixtures("no_provider")

#: Key and self-signed certificate for localhost, made for these tests only.
CERTIFICATE = Path(__file__).with_name("localhost.pem")
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


def _event(content: str, reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": reason}
    return b"data: " + json.dumps({"model": "m", "choices": [choice]}).encode() + b"\n\n"


HELLO = HEAD + _event("hello", "stop") + b"data: [DONE]\n\n"


class Listener:
    """Accepts one connection and reads its request; sends a reply, and then nothing.

    Attributes:
        port: Where it listens.
        accepted: Set when the reply has been sent, or a handshake is waited for.
        hung_up: Set when the client has closed the connection.
        request: What the client has sent.
    """

    def __init__(self, *, secure: bool, handshake: bool, reply: bytes, stays: bool) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._secure = secure
        self._handshake = handshake
        self._reply = reply
        self._stays = stays
        self.port = self._socket.getsockname()[1]
        self.accepted = threading.Event()
        self.hung_up = threading.Event()
        self.request = b""
        self.thread = threading.Thread(target=self._serve, daemon=True)

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            connection, _ = self._socket.accept()
            with connection:
                self._talk(connection)
        self.hung_up.set()

    def _has_all(self) -> bool:
        """Return whether the request is complete, or is no HTTP at all."""
        head, end, body = self.request.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head.lower())
        return head[:1] == b"\x16" or (end != b"" and length is not None and len(body) >= int(length[1]))

    def _talk(self, connection: socket.socket) -> None:
        connection.settimeout(20)
        if self._secure and self._handshake:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(CERTIFICATE)
            connection = context.wrap_socket(connection, server_side=True)
        if not self._secure or self._handshake:
            while not self._has_all():
                piece = connection.recv(4096)
                if piece == b"":
                    return
                self.request += piece
            connection.sendall(self._reply)
        self.accepted.set()
        while self._stays and connection.recv(4096) != b"":
            pass
        connection.close()

    def close(self) -> None:
        """End it."""
        if not self.accepted.is_set():
            # Closing a socket does not wake the thread that accepts on it; a visitor does.
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), 1).close()
        self.thread.join(10)
        self._socket.close()


@contextlib.contextmanager
def listening(
    *, secure: bool = False, handshake: bool = True, reply: bytes = HELLO, stays: bool = False
) -> Iterator[Listener]:
    """Run a listener."""
    listener = Listener(secure=secure, handshake=handshake, reply=reply, stays=stays)
    listener.thread.start()
    try:
        yield listener
    finally:
        listener.close()


def ask() -> JobRun:
    """Make a question."""
    return JobRun("ask", {"prompt": "hi"})


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trust the certificate of these tests."""
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))


@pytest.mark.usefixtures("trusted")
def test_tls_with_a_trusted_certificate(configure: Configure) -> None:
    """The answer comes through TLS."""
    with listening(secure=True) as server:
        configure(f"[ask.openai]\nbase_url = 'https://localhost:{server.port}/v1'\n")
        assert ask().run().text == "hello"
        assert server.request.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")


def test_tls_with_an_unknown_certificate_is_refused(configure: Configure) -> None:
    """An untrusted certificate is a fault of the settings and is not retried."""
    with listening(secure=True) as server:
        configure(f"[ask.openai]\nbase_url = 'https://localhost:{server.port}/v1'\n")
        with pytest.raises(JobRefused, match="certificate") as caught:
            ask().run()
    assert "SSL_CERT_FILE" in caught.value.remedy


def test_a_server_of_another_protocol(configure: Configure) -> None:
    """One that speaks no TLS or no HTTP is reported as a lost connection."""
    with listening(reply=HELLO) as plain, listening(reply=b"220 mail.example.org ESMTP\r\n") as mail:
        for url in (f"https://127.0.0.1:{plain.port}", f"http://127.0.0.1:{mail.port}"):
            configure(f"[ask.openai]\nbase_url = '{url}'\ntimeout_s = 5\n")
            with pytest.raises(JobFailed, match="lost the connection"):
                ask().run()


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize(
    ("secure", "handshake", "reply"),
    [(False, True, b""), (True, True, b""), (True, False, b""), (False, True, HEAD), (True, True, HEAD)],
    ids=["status", "tls", "handshake", "answer", "answer-tls"],
)
def test_an_interrupt_ends_every_wait_at_once(
    configure: Configure, secure: bool, handshake: bool, reply: bytes
) -> None:
    """Whatever is waited for, the job ends within a moment and no connection is left open."""
    scheme = "https" if secure else "http"
    with listening(secure=secure, handshake=handshake, reply=reply, stays=True) as server:
        configure(f"[ask.openai]\nbase_url = '{scheme}://localhost:{server.port}'\n")
        run = ask().start()
        assert server.accepted.wait(15)
        begun = time.monotonic()
        run.interrupt(JobCancelled)
        with pytest.raises(JobCancelled):
            run.finish(10)
        assert time.monotonic() - begun < 3
        assert server.hung_up.wait(5)


@pytest.mark.usefixtures("trusted")
def test_a_silent_connection_times_out(configure: Configure) -> None:
    """Neither connecting nor waiting takes longer than it may."""
    with (
        listening(secure=True, handshake=False, stays=True) as deaf,
        listening(reply=b"", stays=True) as mute,
    ):
        for url, doing in (
            (f"https://localhost:{deaf.port}", "connecting"),
            (f"http://localhost:{mute.port}", "waiting"),
        ):
            configure(f"[ask.openai]\nbase_url = '{url}'\ntimeout_s = 0.3\n")
            with pytest.raises(JobFailed, match=f"timed out {doing}"):
                ask().run()


@pytest.mark.parametrize("end", [b"", b"data: [DONE]\n\n"], ids=["finish reason", "end mark"])
def test_a_complete_answer_needs_no_end_of_the_connection(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, end: bytes
) -> None:
    """A server that keeps the connection open after its answer is not asked again."""
    monkeypatch.setattr("actors.llm.model_client._TRAILER_S", 0.2)
    with listening(reply=HEAD + _event("hello", "stop") + end, stays=True) as server:
        configure(f"[ask.openai]\nbase_url = 'http://localhost:{server.port}'\ntimeout_s = 60\n")
        begun = time.monotonic()
        assert ask().run().text == "hello"
        assert time.monotonic() - begun < 20
        assert server.hung_up.wait(5)


def test_an_answer_that_breaks_off_after_its_end_is_complete(configure: Configure) -> None:
    """The connection of a chunked answer is cut after the finish reason: the text is there, and paid."""
    event = _event("hello", "stop")
    head = HEAD.replace(b"Connection: close", b"Transfer-Encoding: chunked")
    with listening(reply=head + b"%x\r\n%s\r\n" % (len(event), event)) as server:
        configure(f"[ask.openai]\nbase_url = 'http://localhost:{server.port}'\n")
        assert ask().run().text == "hello"


def test_credentials_in_the_base_url(configure: Configure) -> None:
    """They are sent as Basic authentication, and are in no message."""
    with listening() as server:
        configure(f"[ask.openai]\nbase_url = 'http://me:p%40ss@localhost:{server.port}/v1'\n")
        assert ask().run().text == "hello"
        expected = base64.b64encode(b"me:p@ss").decode()
        assert f"authorization: basic {expected}".lower() in server.request.decode().lower()
    configure(f"[ask.openai]\nbase_url = 'http://me:p%40ss@localhost:{server.port}/v1'\n")
    with pytest.raises(JobFailed, match="refused the connection") as caught:
        ask().run()
    assert "p%40ss" not in str(caught.value)
    configure("[ask.openai]\nbase_url = 'ftp://me:p%40ss@localhost/v1'\n")
    with pytest.raises(JobRefused, match="is not valid") as refused:
        ask().run()
    assert "p%40ss" not in str(refused.value)


def test_through_a_proxy(configure: Configure, openai: FakeOpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP_PROXY and NO_PROXY are honoured."""
    configure()
    openai.plan(answers("a"), answers("b"))
    with Proxy() as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://user:secret@{proxy.place}")
        assert ask().run().text == "a"
        login = f"Basic {base64.b64encode(b'user:secret').decode()}"
        assert proxy.taken == [("http", openai.origin.removeprefix("http://"), login)]
        monkeypatch.setenv("NO_PROXY", "localhost,127.0.0.1")
        assert ask().run().text == "b"
        assert len(proxy.taken) == 1


@pytest.mark.usefixtures("trusted")
def test_through_a_tunnel(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTPS_PROXY is asked for a tunnel."""
    with listening(secure=True) as server, Proxy() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{proxy.place}")
        configure(f"[ask.openai]\nbase_url = 'https://localhost:{server.port}/v1'\n")
        assert ask().run().text == "hello"
        assert proxy.taken == [("connect", f"localhost:{server.port}", "")]


def test_a_host_that_cannot_be_a_name(configure: Configure) -> None:
    """A label of more than 63 letters is refused."""
    configure(f"[ask.openai]\nbase_url = 'http://{'a' * 70}.example/'\n")
    with pytest.raises(JobRefused, match="is not valid"):
        ask().run()
