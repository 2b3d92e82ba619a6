"""Uploads: whole under their name or not there at all."""

from __future__ import annotations

import hashlib
import http.client
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.rest.client import Answer, Client
from tests.rest.conftest import Api
from tests.rest.test_auth import assert_problem
from tests.support import eventually

BOUNDARY = "b0undary"


def part(name: str, data: bytes, filename: str | None = None) -> bytes:
    """Give one part of a multipart body."""
    named = "" if filename is None else f'; filename="{filename}"'
    return (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'.encode()
        + data
        + b"\r\n"
    )


def upload(call: Client, *parts: bytes, end: bytes = f"--{BOUNDARY}--\r\n".encode()) -> Answer:
    """Send a multipart body."""
    kind = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    return call("POST", "/v1/files", body=b"".join(parts) + end, headers=kind)


def names(folder: Path) -> list[str]:
    """List a folder."""
    return sorted(item.name for item in folder.iterdir())


@pytest.fixture
def inbox(api: Api) -> Iterator[Path]:
    """The drop folder, empty before and after; no station runs in this test."""
    folder = api.loaded.workspace.inbox
    yield folder
    assert [name for name in names(folder) if name.endswith(".part")] == []
    for file in folder.iterdir():
        file.unlink()


def test_files_and_their_note(call: Client, inbox: Path) -> None:
    """Each under its name with its hash, the note beside it."""
    data = os.urandom(2_500_000)
    answer = upload(
        call, part("note", "für später".encode()), part("file", data, "a.bin"), part("file", b"", "b")
    )
    assert answer.status == 202
    assert [item["name"] for item in answer.json["files"]] == ["a.bin", "b"]
    assert answer.json["files"][0]["sha256"] == hashlib.sha256(data).hexdigest()
    assert answer.json["files"][0]["size_bytes"] == len(data)
    assert (inbox / "a.bin").read_bytes() == data
    assert (inbox / "a.bin.note.txt").read_text() == "für später"
    assert {item.name for item in inbox.iterdir()} == {"a.bin", "a.bin.note.txt", "b", "b.note.txt"}


def test_a_name_that_is_taken(call: Client, inbox: Path) -> None:
    """No file is ever replaced: the later one gets a number."""
    names = [
        upload(call, part("file", text, "same.txt")).json["files"][0]["name"] for text in (b"1", b"2", b"3")
    ]
    assert names == ["same.txt", "same (2).txt", "same (3).txt"]
    assert [(inbox / name).read_bytes() for name in names] == [b"1", b"2", b"3"]


@pytest.mark.parametrize(
    "given",
    [
        "../../up.txt",
        "/etc/passwd",
        "C:\\x\\win.txt",
        "..",
        ".",
        "",
        ".hidden",
        "x.part",
        "failed",
        "n\x01\x7f.txt",
        "é" * 200,
    ],
)
def test_a_name_is_not_trusted(call: Client, inbox: Path, given: str) -> None:
    """Whatever it is called, it lands in the folder, under a name that the station takes."""
    answer = upload(call, part("file", b"data", given))
    assert answer.status == 202, answer.body
    name = answer.json["files"][0]["name"]
    assert names(inbox) == [name]
    assert not name.startswith(".")
    assert not name.endswith(".part")
    assert name != "failed"
    assert len(name.encode()) < 255
    assert name.isprintable()


def test_what_is_no_upload(call: Client, inbox: Path) -> None:
    """No file, an unknown field, no multipart, cut off, too large, too long a note: nothing is left."""
    assert_problem(upload(call), 400)
    assert_problem(upload(call, part("note", b"x")), 400)
    assert_problem(upload(call, part("file", b"x", "f"), part("other", b"x")), 400)
    assert_problem(upload(call, part("file", b"x", "f"), end=b""), 400)
    assert_problem(upload(call, part("file", b"x", "f"), part("note", b"x" * 4001)), 400)
    assert_problem(upload(call, part("file", b"x", "f"), part("note", b"\xff")), 400)
    assert_problem(upload(call, part("file", b"x" * 3_000_001, "f")), 413)
    assert_problem(upload(call, *[part("file", b"x", str(n)) for n in range(102)]), 413)
    assert_problem(call("POST", "/v1/files", {"file": "x"}), 415)
    assert_problem(call("POST", "/v1/files", body=b"x", headers={"Content-Type": "multipart/form-data"}), 415)
    assert names(inbox) == []


def test_larger_than_it_said(call: Client, inbox: Path) -> None:
    """Without a declared length the limit is kept while it streams in."""
    place = urlsplit(call.url)
    connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=20)

    def pieces() -> Iterator[bytes]:
        yield part("file", b"", "f")[:-2]
        for _ in range(64):
            yield b"x" * 65_536

    kind = f"multipart/form-data; boundary={BOUNDARY}"
    connection.putrequest("POST", "/v1/files")
    for name, value in (
        ("Authorization", f"Bearer {call.token}"),
        ("Content-Type", kind),
        ("Transfer-Encoding", "chunked"),
    ):
        connection.putheader(name, value)
    connection.endheaders()
    try:
        for piece in pieces():
            connection.send(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        connection.send(b"0\r\n\r\n")
    except (BrokenPipeError, ConnectionResetError):
        pass  # it need not hear us out
    else:
        assert connection.getresponse().status == 413
    connection.close()
    eventually(lambda: names(inbox) == [])


def test_a_client_that_goes_away(call: Client, inbox: Path) -> None:
    """Half a file is nothing: its draft is removed."""
    place = urlsplit(call.url)
    connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=20)
    connection.putrequest("POST", "/v1/files")
    connection.putheader("Authorization", f"Bearer {call.token}")
    connection.putheader("Content-Type", f"multipart/form-data; boundary={BOUNDARY}")
    connection.putheader("Content-Length", "2900000")
    connection.endheaders()
    connection.send(part("file", b"x" * 2_000_000, f"{uuid.uuid4().hex}.txt"))
    drafts = eventually(lambda: names(inbox))
    assert all(draft.startswith(".") for draft in drafts), drafts
    connection.close()
    eventually(lambda: names(inbox) == [])
    assert call("GET", "/health").status == 200
