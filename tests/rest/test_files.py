"""Uploads: whole under their name or not there at all."""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from ops.drop_folder_layout import claim_folder
from tests.rest.client import Answer, Client
from tests.rest.conftest import Api
from tests.rest.test_auth import assert_problem
from tests.support import eventually

BOUNDARY = "b0undary"


def part(name: str, data: bytes, filename: str | None = None) -> bytes:
    """Return one part of a multipart body."""
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


def names(inbox: Path) -> list[str]:
    """List the files in the drop folder and its claims, without those of the bridge."""
    return sorted(item.name for item in inbox.rglob("*") if item.is_file())


@pytest.fixture(autouse=True)
def inbox(api: Api) -> Iterator[Path]:
    """The drop folder, empty before and after; no station runs in this test."""
    folder = api.loaded.workspace.inbox
    yield folder
    assert [name for name in names(folder) if name.startswith(".")] == []
    for item in folder.iterdir():
        shutil.rmtree(item)


def test_each_file_is_a_job_with_its_note(call: Client, api: Api) -> None:
    """The answer names the job of each; equal content is a job of its own that names the first."""
    data = os.urandom(1_300_000)
    answer = upload(
        call,
        part("note", "für später".encode()),
        part("file", data, "a.bin"),
        part("file", b"", "b"),
        part("file", data, "a.bin"),
    )
    assert answer.status == 202
    first, empty, again = answer.json["files"]
    assert (first["name"], first["status"], first["same_content"], first["reason"]) == (
        "a.bin",
        "queued",
        None,
        "",
    )
    assert (first["sha256"], first["size_bytes"]) == (hashlib.sha256(data).hexdigest(), len(data))
    assert (empty["name"], empty["size_bytes"]) == ("b", 0)
    assert again["job_id"] != first["job_id"]
    assert again["same_content"] == first["job_id"]
    for item in (first, empty, again):
        job = call("GET", f"/v1/jobs/{item['job_id']}").json
        assert (job["job_type"], job["payload"]["name"]) == ("ingest.file", item["name"])
        assert job["payload"]["note"] == "für später"
        assert (
            Path(job["payload"]["path"]) == claim_folder(api.loaded.workspace, item["job_id"]) / item["name"]
        )
    assert (claim_folder(api.loaded.workspace, first["job_id"]) / "a.bin").read_bytes() == data


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("../../up.txt", "up.txt"),
        ("/etc/passwd", "passwd"),
        ("C:\\x\\win.txt", "win.txt"),
        ("..", "upload-file"),
        ("", "upload-file"),
        (".hidden", "upload-hidden"),
        ("x.part", "x.part"),
        ("failed", "failed"),
        ("n\x01\x7f.txt", "n__.txt"),
        ("é" * 200, "é" * 103),
    ],
)
def test_a_name_is_not_trusted(call: Client, inbox: Path, given: str, name: str) -> None:
    """Whatever it is called, it gets one visible name."""
    answer = upload(call, part("file", b"data", given))
    assert answer.status == 202, answer.body
    assert [item["name"] for item in answer.json["files"]] == [name]
    assert names(inbox) == [name]


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        (b"filename*=UTF-8''%e2%82%ac%20rates.txt", "€ rates.txt"),
        (b"filename=\"EURO rates.txt\"; filename*=utf-8'en'%e2%82%ac%20rates.txt", "€ rates.txt"),
        (b"filename*=iso-8859-1'en'%A3%20rates.txt", "£ rates.txt"),
        (b"filename*=unknown''%A3; filename=plain.txt", "plain.txt"),
        (b'filename="\xe2\x82\xac.txt"', "€.txt"),
        (b'filename="caf\xe9.txt"', "café.txt"),
        (b'filename="a\\"b;c=d.txt"', 'a"b;c=d.txt'),
        (b'filename="a%22b%20c.txt"', 'a"b%20c.txt'),
        (b"filename*=UTF-8''..%2F..%2Fetc%2Fpasswd", "passwd"),
    ],
)
def test_names_by_rfc_6266(call: Client, inbox: Path, parameters: bytes, name: str) -> None:
    """F6: ``filename*``, UTF-8 and Latin-1, escapes of programs and of browsers."""
    header = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; '.encode() + parameters
    answer = upload(call, header + b"\r\n\r\ndata\r\n")
    assert answer.status == 202, answer.body
    assert [item["name"] for item in answer.json["files"]] == [name]
    assert names(inbox) == [name]


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
