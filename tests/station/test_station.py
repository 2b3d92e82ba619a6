"""A real station with a real worker: every dropped file ends in the right place, once."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest

from ingress.core import control
from ingress.dispatch import bridge_status, cancel, connect
from middleware.job.ids import new_job_id
from middleware.job.schema import make_job
from ops.drop_folder_layout import claim_folder
from ops.settings.load import load_settings
from tests.station.running import RunningStation, files_below
from tests.support import RunningValkey, eventually, run_3ox
from tests.workers import running_worker


def test_a_dropped_file_is_ingested_once_and_leaves(station: RunningStation) -> None:
    """The copy is complete, the job has source, owner, type and hash, and the folder is empty."""
    content = os.urandom(100_000)
    (station.inbox / "simple.bin").write_bytes(content)
    job = station.ended("simple.bin")
    assert (job.status, job.source, job.trust) == ("completed", "station", "untrusted")
    assert job.payload["sha256"] == job.result["sha256"] == hashlib.sha256(content).hexdigest()
    assert job.result["action"] == "EDIT"
    assert (station.workspace.home / job.result["path"]).read_bytes() == content
    assert not (station.inbox / "simple.bin").exists()
    assert not station.claimed(job.job_id)


def test_a_note_travels_along(station: RunningStation) -> None:
    """It is in the payload, in the result, and beside the file."""
    (station.inbox / "noted.txt.note.txt").write_text("what it is about, grüße")
    (station.inbox / "noted.txt").write_text("noted")
    job = station.ended("noted.txt")
    assert job.payload["note"] == "what it is about, grüße"
    assert (station.workspace.workdesk / "noted.txt.note.txt").read_text() == "what it is about, grüße"
    assert station.jobs("noted.txt.note.txt") == []


def test_rules_route(station: RunningStation) -> None:
    """By name and by folder; the first match wins."""
    (station.inbox / "papers").mkdir(exist_ok=True)
    (station.inbox / "papers" / "one.txt").write_text("a paper")
    (station.inbox / "march.invoice").write_text("an invoice")
    assert station.ended("one.txt").result["path"] == "REFERENCE/one.txt"
    job = station.ended("march.invoice")
    assert (job.result["action"], job.result["by"]) == ("ARCHIVE", "rule 1")
    assert (station.workspace.home / job.result["path"]).read_text() == "an invoice"


def test_a_file_that_is_being_written_is_not_taken(station: RunningStation) -> None:
    """A slow copy with pauses longer than the settling time arrives complete."""
    file = station.inbox / "slow.bin"
    with file.open("wb") as writer:
        for part in range(4):
            writer.write(bytes([part]) * 1000)
            writer.flush()
            still_s = time.monotonic() + 0.7
            eventually(lambda still_s=still_s: time.monotonic() > still_s)  # type: ignore[misc]
            assert file.exists(), "it was taken while it was being written"
    job = station.ended("slow.bin")
    assert job.payload["size_bytes"] == 4000
    assert (station.workspace.home / job.result["path"]).read_bytes() == b"".join(
        bytes([part]) * 1000 for part in range(4)
    )


def test_a_file_written_in_separate_pieces_is_claimed_when_it_is_stable(station: RunningStation) -> None:
    """Each write opens and closes the file, as ``echo >>`` does, faster than the settling time."""
    file = station.inbox / "pieces.txt"
    for part in range(10):
        with file.open("a") as writer:
            writer.write(f"{part}\n")
        still_s = time.monotonic() + 0.08
        eventually(lambda still_s=still_s: time.monotonic() > still_s)  # type: ignore[misc]
    job = station.ended("pieces.txt")
    assert (station.workspace.home / job.result["path"]).read_text() == "".join(f"{n}\n" for n in range(10))


def test_a_folder_that_is_moved_in_keeps_its_shape(station: RunningStation, tmp_path: Path) -> None:
    """Files in subfolders, with unicode and newlines in their names, are all claimed."""
    names = ["a.txt", "sub/b.txt", "sub/deep er/ü\nc.txt", "sub/deep er/-rf"]
    for name in names:
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).write_text(f"content of {name}")
    (tmp_path / "tree").rename(station.inbox / "tree")
    for name in names:
        job = station.ended(name.rpartition("/")[2])
        assert job.result["path"] == f"WORKDESK/tree/{name}"
        assert (station.workspace.workdesk / "tree" / name).read_text() == f"content of {name}"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere every name is UTF-8")
def test_a_file_with_a_name_that_is_not_utf8_is_ingested(station: RunningStation) -> None:
    """It is ingested, and the watching thread survives it."""
    eventually(lambda: '"station.events"' in station.workspace.log_file.read_text())
    (station.inbox / os.fsdecode(b"odd \xff\xfe.txt")).write_text("odd")
    eventually(lambda: not station.left() and not station.claims())
    job = station.jobs()[0]
    assert job.status == "completed"
    assert (station.workspace.home / job.result["path"]).read_text() == "odd"
    assert "duty.failed" not in station.workspace.log_file.read_text()


def test_the_same_content_is_answered_with_the_first_job(station: RunningStation) -> None:
    """The second file gets no job of its own; when the first result is gone, it is ingested again."""
    (station.inbox / "first.txt").write_text("same content")
    first = station.ended("first.txt")
    (station.inbox / "second.txt").write_text("same content")
    eventually(lambda: not station.left() and not station.claims(), 15.0)
    assert station.jobs("second.txt") == []
    (station.workspace.home / first.result["path"]).unlink()
    (station.inbox / "third.txt").write_text("same content")
    job = station.ended("third.txt")
    assert (station.workspace.home / job.result["path"]).read_text() == "same content"


def test_an_empty_file_is_a_file(station: RunningStation) -> None:
    """It is ingested like any other."""
    (station.inbox / "empty").touch()
    job = station.ended("empty")
    assert (job.status, job.payload["media_type"]) == ("completed", "inode/x-empty")


def test_the_file_of_a_refused_job_moves_to_failed(station: RunningStation) -> None:
    """With the reason beside it; nothing was written outside; a manual retry finds the file there."""
    (station.inbox / "one.outlaw").write_text("x")
    job = station.ended("one.outlaw")
    assert job.status == "failed"
    found = eventually(lambda: station.failed("one.outlaw"))
    assert found is not None
    file, reason = found
    assert file.read_text() == "x"
    assert "not a folder inside the workspace" in reason
    assert f"3ox retry {job.job_id}" in reason
    assert not (station.workspace.home.parent / "outside").exists()
    control.retry(station.bridge, job.job_id, "once more")
    again = eventually(
        lambda: (
            record
            if (record := station.bridge.reader.job(job.job_id)).attempt == 2 and record.is_final
            else None
        )
    )
    assert again is not None
    assert "not a folder inside the workspace" in again.reason


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_other_kinds_of_entries_are_refused(kind: str, station: RunningStation) -> None:
    """A link out and a pipe go to ``failed/`` unread and without a job."""
    path = station.inbox / f"odd-{kind}"
    if kind == "link":
        path.symlink_to("/etc/passwd")
    else:
        os.mkfifo(path)
    eventually(lambda: station.failed(path.name))
    assert station.jobs(path.name) == []
    assert not os.path.lexists(path)


def test_a_large_file_is_streamed(station: RunningStation) -> None:
    """300 MB, sparse: ingested by a link, with its hash, in bounded memory."""
    file = station.inbox / "large.img"
    with file.open("wb") as writer:
        writer.truncate(300 * 1024 * 1024)
    job = station.ended("large.img", 60.0)
    assert job.result["size_bytes"] == 300 * 1024 * 1024
    assert station.process is not None
    status = Path(f"/proc/{station.process.pid}/status").read_text()
    peak_kb = int(status.split("VmHWM:")[1].split()[0])
    assert peak_kb < 200_000


def test_the_station_shows_in_status(station: RunningStation) -> None:
    """With its mode and the number of processed files."""
    connect(station.bridge.loaded)

    def entry() -> dict[str, object] | None:
        rows = [row for row in bridge_status()["daemons"] if row["name"] == "station"]
        return rows[0] if rows and rows[0]["healthy"] else None

    row = eventually(entry)
    assert row is not None
    assert "events" in json.dumps(row)


def test_the_file_of_a_cancelled_job_moves_to_failed(station: RunningStation) -> None:
    """Cancelled before it started: the file is kept, with the reason."""
    connect(station.bridge.loaded)
    job_id = new_job_id()
    file = claim_folder(station.workspace, job_id) / "unwanted.txt"
    file.parent.mkdir(parents=True)
    file.write_text("never mind")
    payload = {
        "path": str(file),
        "name": file.name,
        "sha256": hashlib.sha256(b"never mind").hexdigest(),
        "size_bytes": len("never mind"),
    }
    station.bridge.submit(make_job("ingest.file", payload, job_id=job_id, source="rest"), delay_s=600.0)
    assert cancel(job_id).outcome == "cancelled"
    found = eventually(lambda: station.failed("unwanted.txt"))
    assert found is not None
    assert found[0].read_text() == "never mind"


def test_drop_hands_files_to_the_station(station: RunningStation, tmp_path: Path) -> None:
    """Complete copies with a note each; the originals stay; a folder is refused."""
    files = []
    for name in ("paper 1.txt", "paper 2.txt"):
        (tmp_path / name).write_text(f"text of {name}")
        files.append(str(tmp_path / name))
    done = run_3ox(
        "drop", *files, str(tmp_path), "--note", "from the desk", "--json", environ=station.environ
    )
    assert done.returncode == 2
    assert "is not a file" in done.stderr
    dropped = json.loads(done.stdout)["dropped"]
    assert [item["file"] for item in dropped] == files
    for name in ("paper 1.txt", "paper 2.txt"):
        job = station.ended(name)
        assert (job.payload["note"], (tmp_path / name).exists()) == ("from the desk", True)
    assert run_3ox("undo", job.job_id, environ=station.environ).returncode == 0
    assert not (station.workspace.home / job.result["path"]).exists()
    again = run_3ox("undo", job.job_id, environ=station.environ)
    assert (again.returncode, "undone before" in again.stderr) == (2, True)


def test_drop_never_overwrites(own_environ: dict[str, str], tmp_path: Path) -> None:
    """Without a station they wait under numbered names, each with its note; the command says so."""
    source = tmp_path / "a.txt"
    texts = ["one", "two", "three"]
    for text in texts:
        source.write_text(text)
        done = run_3ox("drop", str(source), "--note", f"note {text}", environ=own_environ)
        assert done.returncode == 0
        assert "no station is running" in done.stderr
    inbox = Path(own_environ["BRIDGE_HOME"]) / "IN1N.3OX"
    assert sorted(path.name for path in inbox.iterdir()) == sorted(
        f"{name}{end}" for name in ("a.txt", "a-2.txt", "a-3.txt") for end in ("", ".note.txt")
    )
    assert (inbox / "a-2.txt").read_text() == "two"
    assert (inbox / "a-2.txt.note.txt").read_text() == "note two"


def test_drop_while_the_store_is_unavailable(
    mortal: tuple[RunningValkey, dict[str, str]], tmp_path: Path
) -> None:
    """The command says what happens to the file; a running station claims it and it is ingested later."""
    server, environ = mortal
    bridge = connect(load_settings(environ=environ))
    (tmp_path / "late.txt").write_text("dropped meanwhile")
    with running_worker(bridge, environ), RunningStation(bridge, environ) as running:
        server.kill()
        done = run_3ox("drop", str(tmp_path / "late.txt"), environ=environ)
        assert done.returncode == 0, done.stderr
        assert "a running station spools the files" in done.stderr
        eventually(lambda: not (running.inbox / "late.txt").exists(), 20.0)
        server.start()
        job = running.ended("late.txt")
    assert (job.source, job.status) == ("station", "completed")


def test_many_files_at_once_are_ingested_once(station: RunningStation, tmp_path: Path) -> None:
    """A thousand in one move: each is ingested once."""
    for number in range(1000):
        (tmp_path / f"many-{number}.txt").write_text(f"file {number}")
    subprocess.run(["cp", "-r", str(tmp_path), str(station.inbox / "many")], check=True)
    desk = station.workspace.workdesk / "many"
    eventually(lambda: sum(1 for _ in files_below(desk)) == 1000, 60.0, every_s=0.1)
    eventually(lambda: not station.claims(), 20.0, every_s=0.1)
    assert {path.read_text() for path in desk.iterdir()} == {f"file {number}" for number in range(1000)}
    ids = station.bridge.store.call("ZCARD", station.bridge.reader.keys.index_type("ingest.file"))
    names = {msgspec.json.encode(job.payload["name"]) for job in station.jobs()}
    assert ids >= 1000
    assert len(names) == len(station.jobs())


def test_it_stops_on_sigterm(own_environ: dict[str, str]) -> None:
    """SIGTERM ends it in order within seconds and removes it from the status."""
    from ingress.dispatch import Bridge
    from ops.settings.load import load_settings

    bridge = Bridge(load_settings(environ=own_environ))
    bridge.loaded.workspace.create()
    running = RunningStation(bridge, own_environ)
    running.start()
    began_s = time.monotonic()
    assert running.stop() == 0
    assert time.monotonic() - began_s < 5.0
    assert bridge.store.call("ZCARD", bridge.reader.keys.daemons) == 0
    assert threading.active_count() < 100
