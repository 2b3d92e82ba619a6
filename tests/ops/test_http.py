"""Outgoing HTTP: proxies, certificates and credentials, against real servers and a real proxy."""

from __future__ import annotations

import base64
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from ops.environment import NETWORK_VARIABLES
from ops.errors import InvalidUrl, RequestFailed, SettingsError
from ops.http.client import EnvironmentTransport, request
from ops.http.environment import export_for_requests, http_environment
from tests.egress.receiver import Receiver
from tests.proxy import Proxy

CERTIFICATE = Path(__file__).parents[1] / "actors/localhost.pem"


@pytest.fixture(autouse=True)
def _no_network_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*NETWORK_VARIABLES, "REQUESTS_CA_BUNDLE"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A server that takes everything."""
    with Receiver() as made:
        yield made


@pytest.mark.parametrize(
    ("no_proxy", "direct", "proxied"),
    [
        ("", [], ["http://a.org", "http://127.0.0.1:1"]),
        ("*", ["http://a.org"], []),
        (
            "localhost,[::1]",
            ["http://localhost:8080", "http://[::1]:99"],
            ["http://127.0.0.1", "http://[::2]"],
        ),
        ("::1 10.0.0.0/8", ["http://[::1]", "http://10.7.3.1"], ["http://11.0.0.1", "http://ten.org"]),
        ("[fd00::/8],[::1]:80", ["http://[fd12::1]:9", "http://[::1]"], ["http://[::1]:81"]),
        ("a.org", ["http://a.org", "http://x.A.org."], ["http://ba.org", "http://a.org.uk"]),
        (".a.org,*.b.org", ["http://a.org", "http://x.a.org", "http://y.b.org"], ["http://xa.org"]),
        ("a.org:8080", ["http://a.org:8080", "https://x.a.org:8080"], ["http://a.org", "https://a.org"]),
        ("https://a.org,127.0.0.1:5", ["https://a.org", "http://127.0.0.1:5"], ["http://127.0.0.1:6"]),
        ("[::1,,:,a b", ["http://b"], ["http://c", "http://[::1]"]),
    ],
)
def test_no_proxy(no_proxy: str, direct: list[str], proxied: list[str]) -> None:
    """Names with subdomains, addresses with and without brackets, networks, ports; no entry is an error."""
    found = http_environment({"ALL_PROXY": "p.org:3128", "NO_PROXY": no_proxy})
    for text, expected in [*((url, None) for url in direct), *((url, "p.org:3128") for url in proxied)]:
        url = httpx.URL(text)
        proxy = found.proxy_for(url.scheme, url.host, url.port)
        assert (None if proxy is None else proxy.place) == expected, text


@pytest.mark.parametrize(
    ("environ", "complaint"),
    [
        ({"HTTPS_PROXY": "ftp://p.org"}, "HTTPS_PROXY names a proxy with the unsupported protocol 'ftp'"),
        (
            {"all_proxy": "http://u:secret@p.org:x"},
            r"all_proxy is not a valid proxy URL: 'http://\*\*\*@p.org:x'",
        ),
        ({"HTTP_PROXY": "http://u:se#cret@p.org"}, "HTTP_PROXY is not a valid proxy URL"),
        ({"HTTP_PROXY": "http://"}, "HTTP_PROXY is not a valid proxy URL"),
        (
            {"SSL_CERT_FILE": "/nowhere.pem"},
            "SSL_CERT_FILE names '/nowhere.pem', which cannot be read: No such",
        ),
        (
            {"SSL_CERT_FILE": "/etc/hostname"},
            "SSL_CERT_FILE names '/etc/hostname', which is not a file of cert",
        ),
        ({"SSL_CERT_DIR": "/nowhere"}, "SSL_CERT_DIR names no directory: '/nowhere'"),
    ],
)
def test_a_wrong_variable_is_named(environ: dict[str, str], complaint: str) -> None:
    """With its value, but never a password."""
    with pytest.raises(SettingsError, match=complaint) as raised:
        http_environment(environ)
    assert "secret" not in str(raised.value)
    assert "se#cret" not in str(raised.value)


def test_what_is_clearly_meant_is_read() -> None:
    """White space, carriage returns, the upper-case name, a missing scheme, the desktops' name of SOCKS 5."""
    found = http_environment(
        {"http_proxy": " p.org:1\r", "HTTP_PROXY": "q.org:1", "ALL_PROXY": "socks://s:1/"}
    )
    assert found.proxies["http"].url == "http://p.org:1"
    assert found.proxies["http"].variable == "http_proxy"
    assert found.proxies["all"].url == "socks5://s:1/"
    assert http_environment({"HTTP_PROXY": "  "}).proxies == {}


def test_requests_go_through_the_proxy(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP and SOCKS 5, with credentials for proxy and server; NO_PROXY goes around it."""
    with Proxy(receiver.port) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://pu:p%40w@{proxy.place}")
        assert request("POST", "http://user:p%40ss@hook.test/a?b=c", body=b"one").status == 200
        monkeypatch.setenv("HTTP_PROXY", "")
        monkeypatch.setenv("ALL_PROXY", f"socks5://su:spw@{proxy.place}")
        assert request("POST", "http://hook.test:81/", body=b"two").body == b"{}"
        monkeypatch.setenv("NO_PROXY", "localhost,[::1],127.0.0.0/8")
        assert request("POST", receiver.url, body=b"three").status == 200
    assert proxy.taken == [
        ("http", "hook.test", f"Basic {base64.b64encode(b'pu:p@w').decode()}"),
        ("socks", "hook.test:81", "su:spw"),
    ]
    assert [taken.body for taken in receiver.taken] == [b"one", b"two", b"three"]
    assert receiver.taken[0].path == "/a?b=c"
    assert receiver.taken[0].headers["host"] == "hook.test"
    assert receiver.taken[0].headers["authorization"] == f"Basic {base64.b64encode(b'user:p@ss').decode()}"


def test_a_proxy_that_refuses_is_named(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the variable that names it; its answer to plain HTTP is the response."""
    with Proxy(receiver.port) as proxy:
        proxy.refuse = True
        monkeypatch.setenv("HTTPS_PROXY", proxy.place)
        with pytest.raises(
            RequestFailed, match=rf"hook.test cannot be reached.*{proxy.place} \(HTTPS_PROXY\).*407"
        ):
            request("POST", "https://hook.test/")
    with pytest.raises(RequestFailed, match=rf"hook.test cannot be reached.*{proxy.place} \(HTTPS_PROXY\)"):
        request("POST", "https://hook.test/")


def test_certificates_of_the_environment_are_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTPS through CONNECT to a server whose certificate only SSL_CERT_FILE knows."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    with Proxy(server.server_address[1]) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{proxy.place}")
        with pytest.raises(RequestFailed, match=r"localhost cannot be reached.*certificate verify failed"):
            request("GET", "https://localhost/")
        monkeypatch.setenv("SSL_CERT_FILE", f" {CERTIFICATE}\r\n")
        assert request("GET", "https://localhost/").status == 204
        assert proxy.taken[-1].kind == "connect"
        export_for_requests()
        assert os.environ["REQUESTS_CA_BUNDLE"] == str(CERTIFICATE)
        import requests

        assert requests.get("https://localhost/", timeout=10).status_code == 204
    server.shutdown()
    server.server_close()


def test_requests_of_other_libraries_use_socks_and_brackets(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Apprise sends through the library requests, which reads neither ``socks://`` nor ``[::1]``."""
    import requests

    with Proxy(receiver.port) as proxy:
        monkeypatch.setenv("ALL_PROXY", f"socks://{proxy.place}\r")
        monkeypatch.setenv("NO_PROXY", "localhost,[::1],127.0.0.1")
        export_for_requests()
        assert requests.post("http://hook.test/", timeout=10).status_code == 200
        assert requests.post(receiver.url, timeout=10).status_code == 200
    assert len(proxy.taken) == 1


def _serve_raw(*pieces: bytes, pause_s: float = 0.0) -> tuple[int, threading.Event]:
    """Serve one connection: write the pieces, repeat the last until closed."""
    listener = socket.create_server(("127.0.0.1", 0))
    closed = threading.Event()

    def serve() -> None:
        with listener, listener.accept()[0] as client:
            try:
                client.recv(65_536)
                for piece in pieces:
                    client.sendall(piece)
                while pieces and pause_s and not closed.wait(pause_s):
                    client.sendall(pieces[-1])
            except OSError:
                return
            finally:
                closed.set()

    threading.Thread(target=serve, daemon=True).start()
    return listener.getsockname()[1], closed


@pytest.mark.parametrize(
    ("pieces", "pause_s", "status"),
    [
        ([b"HTTP/1.1 202 Accepted\r\nContent-Length: 900\r\n\r\nbroken off"], 0.0, 202),
        ([b"HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n"], 0.01, 202),
        ([b"HTTP/1.1 202 Accepted\r\n\r\n", b"x" * 65_536], 0.001, 202),
        (
            [b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"],
            0.0,
            200,
        ),
        ([b"HTTP/1.1 410 Gone\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nnotgz"], 0.0, 410),
    ],
    ids=["breaks off", "drips", "endless", "early hints", "broken gzip"],
)
def test_the_status_decides(pieces: list[bytes], pause_s: float, status: int) -> None:
    """A body that breaks off or never ends is read up to a bound, in bounded time."""
    port, closed = _serve_raw(*pieces, pause_s=pause_s)
    began_s = time.monotonic()
    response = request("POST", f"http://127.0.0.1:{port}/", body=b"x", timeout_s=0.3)
    assert response.status == status
    assert len(response.body) <= 65_536
    assert time.monotonic() - began_s < 10.0
    closed.set()


def test_headers_that_never_end_are_a_timeout() -> None:
    """Each byte comes in time; all of them together do not."""
    port, closed = _serve_raw(b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n", pause_s=0.05)
    with pytest.raises(RequestFailed, match=r"127\.0\.0\.1 did not answer within 0\.2 s"):
        request("POST", f"http://127.0.0.1:{port}/", timeout_s=0.2)
    closed.set()


@pytest.mark.parametrize(
    "url", ["ftp://a.org/secret", "http:///secret", "http://a:b/secret", "http://\n/secret"]
)
def test_a_wrong_url_is_not_quoted(url: str) -> None:
    """It may contain a token."""
    with pytest.raises(InvalidUrl) as raised:
        request("GET", url)
    assert "secret" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_an_unknown_host_is_named() -> None:
    """And not the rest of the URL."""
    with pytest.raises(RequestFailed, match=r"The host no-such-host\.invalid cannot be resolved") as raised:
        request("GET", "http://user:secret@no-such-host.invalid/secret")
    assert "secret" not in str(raised.value)


async def _ask_twice(url: str) -> list[int]:
    async with httpx.AsyncClient(transport=EnvironmentTransport(), trust_env=False) as client:
        return [(await client.post(url)).status_code for _ in range(2)]


def test_libraries_take_the_transport(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """What python-telegram-bot sends goes through the proxy as well; the transport keeps connections."""
    import asyncio

    with Proxy(receiver.port) as proxy:
        monkeypatch.setenv("ALL_PROXY", f"socks5h://{proxy.place}")
        assert asyncio.run(_ask_twice("http://api.test/")) == [200, 200]
    assert {taken.target for taken in proxy.taken} == {"api.test:80"}
