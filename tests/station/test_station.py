"""A real station with a real worker: every dropped file ends in the right place, once."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest

from ingress.core import control
from ingress.dispatch import Bridge, bridge_status, cancel, connect
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


def test_equal_content_is_not_identity(station: RunningStation, tmp_path: Path) -> None:
    """F1: each file is a job of its own in its place, and the later ones name the first."""
    tree = tmp_path / "packages"
    for name in ("__init__.py", "one/__init__.py", "one/two/__init__.py"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).touch()
    for name in ("alice.txt", "bob.txt"):
        (tree / name).write_text("the same letter")
    tree.rename(station.inbox / "packages")
    eventually(lambda: len([job for job in station.jobs("__init__.py") if job.is_final]) == 3, 15.0)
    assert {job.result["path"] for job in station.jobs("__init__.py")} == {
        f"WORKDESK/packages/{folder}__init__.py" for folder in ("", "one/", "one/two/")
    }
    jobs = {name: station.ended(name) for name in ("alice.txt", "bob.txt")}
    for name, job in jobs.items():
        assert (station.workspace.workdesk / "packages" / name).read_text() == "the same letter"
        assert job.result["path"] == f"WORKDESK/packages/{name}"
    named = {job.result.get("same_as") for job in jobs.values()}
    assert named in ({None, jobs["alice.txt"].job_id}, {None, jobs["bob.txt"].job_id})


def test_the_same_file_again_with_another_note(station: RunningStation) -> None:
    """F1: two jobs, both notes are kept, and the second says that the file was there already."""
    for note in ("signed", "not signed"):
        (station.inbox / "contract.txt.note.txt").write_text(note)
        (station.inbox / "contract.txt").write_text("we agree")
        eventually(lambda: not station.left() and not station.claims(), 15.0)
    second, first = station.jobs("contract.txt")
    assert [job.payload["note"] for job in (first, second)] == ["signed", "not signed"]
    assert first.result["path"] == second.result["path"] == "WORKDESK/contract.txt"
    assert "there already" in " ".join(second.result["remarks"])
    notes = {path.read_text() for path in station.workspace.workdesk.glob("contract*note*")}
    assert notes == {"signed", "not signed"}


ODD_NAMES = [
    "a\\b.txt",
    "~tilde",
    "-rf",
    " trailing ",
    "two\nlines.txt",
    "😀.txt",
    "x" * 251 + ".txt",
    "a..b",
    "con",
    "%41",
    "failed",
    "{file}",
    "$(id).txt",
]


def test_odd_names_in_odd_folders(station: RunningStation, tmp_path: Path) -> None:
    """F2: whatever the file system allows is kept as it is, as file and as folder, at any depth."""
    tree = tmp_path / "odd"
    deep = "/".join(["~deep\\er"] + ["d"] * 30)
    places = [*ODD_NAMES, *(f"in {name[:40]}/{name}" for name in ODD_NAMES), f"{deep}/bottom.txt"]
    for number, name in enumerate(places):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(str(number))
    tree.rename(station.inbox / "odd")
    desk = station.workspace.workdesk / "odd"
    eventually(lambda: sum(1 for _ in files_below(desk)) >= len(places), 30.0)
    assert {str(path): (desk / path).read_text() for path in files_below(desk)} == {
        name: str(number) for number, name in enumerate(places)
    }
    eventually(lambda: not station.claims())


def test_a_tree_keeps_its_links_and_empty_folders(station: RunningStation, tmp_path: Path) -> None:
    """F3: a relative link inside the tree stays one, others are refused. F4: what is left is named."""
    tree = tmp_path / "linked"
    (tree / "sub" / "empty").mkdir(parents=True)
    os.utime(tree / "sub" / "empty", (1, 1))
    (tree / "real.txt").write_text("real")
    (tree / ".env").write_text("left")
    links = {"one": "real.txt", "sub/two": "../real.txt", "sub/three": "..", "gone": "missing"}
    for name, target in {**links, "out": "../../secret", "sub/abs": "/nonexistent/x"}.items():
        (tree / name).symlink_to(target)
    tree.rename(station.inbox / "linked")
    desk = station.workspace.workdesk / "linked"
    for name, target in links.items():
        eventually(lambda name=name: os.path.lexists(desk / name), 15.0)  # type: ignore[misc]
        assert (desk / name).is_symlink()
        assert os.readlink(desk / name) == target  # noqa: PTH115 (the text as it is)
    assert (desk / "sub" / "two").read_text() == "real"
    eventually((desk / "sub" / "empty").is_dir)
    for name in ("out", "abs"):
        found = eventually(lambda name=name: station.failed(name))  # type: ignore[misc]
        assert found is not None
        assert "symbolic link" in found[1]
    assert not os.path.lexists(desk / "out")
    eventually(lambda: [str(path) for path in station.left()] == ["linked/.env"])
    told = [job for job in station.jobs() if "linked/.env (dot file)" in job.payload.get("left", [])]
    assert len(told) == 1
    assert "Left in IN1N.3OX: linked/.env (dot file)." in " ".join(told[0].result["remarks"])

    connect(station.bridge.loaded)
    left = {"left": 1, "names": ["linked/.env (dot file)"]}
    eventually(lambda: bridge_status()["drop_folder"] == left, 15.0)
    shown = run_3ox("status", environ=station.environ)
    assert "linked/.env (dot file)" in shown.stdout
    checked = run_3ox("doctor", environ=station.environ)
    assert "linked/.env (dot file)" in checked.stdout
    job = next(job for job in station.jobs("two") if job.payload["kind"] == "link")
    assert run_3ox("undo", job.job_id, environ=station.environ).returncode == 0
    assert not os.path.lexists(desk / "sub" / "two")
    assert (station.inbox / "undone" / job.job_id / "two").is_symlink()
    (station.inbox / "linked" / ".env").unlink()


def test_an_empty_file_is_a_file(station: RunningStation) -> None:
    """It is ingested like any other."""
    (station.inbox / "nothing.txt").touch()
    job = station.ended("nothing.txt")
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


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_other_kinds_of_entries_are_refused(kind: str, station: RunningStation) -> None:
    """A pipe and a socket go to ``failed/`` unread and without a job."""
    path = station.inbox / f"odd-{kind}"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        os.mknod(path, stat.S_IFSOCK | 0o600)
    found = eventually(lambda: station.failed(path.name))
    assert found is not None
    assert "a pipe, a socket or a device" in found[1]
    assert station.jobs(path.name) == []
    assert not os.path.lexists(path)


def test_hard_links_become_files_of_their_own(station: RunningStation, tmp_path: Path) -> None:
    """Neither shares its content with the other or with the original."""
    original = tmp_path / "original"
    original.write_text("shared")
    for name in ("hard-1", "hard-2"):
        (station.inbox / name).hardlink_to(original)
    places = [station.workspace.home / station.ended(name).result["path"] for name in ("hard-1", "hard-2")]
    places[0].write_text("changed")
    assert [places[1].read_text(), original.read_text()] == ["shared", "shared"]


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


def test_drop_answers_what_became_of_each_file(station: RunningStation, tmp_path: Path) -> None:
    """A job for each with its note; the originals stay; a folder is refused; the same file again is a job."""
    files = []
    for name in ("paper 1.txt", "a\\b.part"):
        (tmp_path / name).write_text(f"text of {name}")
        files.append(str(tmp_path / name))
    done = run_3ox(
        "drop", *files, str(tmp_path), "--note", "from the desk", "--json", environ=station.environ
    )
    assert done.returncode == 2
    answer = json.loads(done.stdout)
    assert [item["file"] for item in answer["dropped"]] == files
    (refused,) = answer["refused"]
    assert "is not a file" in refused["reason"]
    assert refused["reason"] in done.stderr
    for item, name in zip(answer["dropped"], ("paper 1.txt", "a\\b.part"), strict=True):
        job = station.ended(name)
        assert (job.job_id, job.payload["note"]) == (item["job_id"], "from the desk")
        assert (item["status"], item["same_content"]) == ("queued", None)
        assert (tmp_path / name).exists()
    again = run_3ox("drop", files[0], "--note", "from the desk", environ=station.environ)
    assert again.returncode == 0, again.stderr
    first_id = answer["dropped"][0]["job_id"]
    second = eventually(lambda: station.jobs("paper 1.txt")[1:] and station.jobs("paper 1.txt")[0])
    assert second
    assert again.stdout == f"paper 1.txt: queued as job {second.job_id}, same content as job {first_id}\n"
    assert run_3ox("undo", job.job_id, environ=station.environ).returncode == 0
    assert not (station.workspace.home / job.result["path"]).exists()
    twice = run_3ox("undo", job.job_id, environ=station.environ)
    assert (twice.returncode, "undone before" in twice.stderr) == (2, True)


def test_a_drop_that_the_policy_denies_stores_nothing(own_environ: dict[str, str], tmp_path: Path) -> None:
    """The answer names the rule; the original stays."""
    home = Path(own_environ["BRIDGE_HOME"])
    settings = home / "3ox.toml"
    settings.write_text(settings.read_text() + '\n[[policy]]\njob_type = "ingest.file"\neffect = "deny"\n')
    (tmp_path / "a.txt").write_text("a")
    done = run_3ox("drop", str(tmp_path / "a.txt"), "--json", environ=own_environ)
    assert done.returncode != 0
    answer = json.loads(done.stdout)
    assert answer["dropped"] == []
    assert "policy" in answer["refused"][0]["reason"].lower()
    assert list(files_below(home / "IN1N.3OX")) == []


def test_drop_without_a_station(own: Bridge, own_environ: dict[str, str], tmp_path: Path) -> None:
    """Three drops of one name are three jobs; the station that starts later settles them."""
    source = tmp_path / "a.txt"
    for text in ("one", "two", "three"):
        source.write_text(text)
        done = run_3ox("drop", str(source), "--note", f"note {text}", environ=own_environ)
        assert done.returncode == 0, done.stderr
    with running_worker(own, own_environ), RunningStation(own, own_environ) as running:
        eventually(lambda: not running.claims(), 20.0)
        notes = {
            (running.workspace.home / job.result["path"]).read_text(): job.payload["note"]
            for job in running.jobs()
        }
    assert notes == {text: f"note {text}" for text in ("one", "two", "three")}


def test_drop_while_the_store_is_unavailable(
    mortal: tuple[RunningValkey, dict[str, str]], tmp_path: Path
) -> None:
    """The command says what happens to the file; the station submits its job when the store is back."""
    server, environ = mortal
    bridge = connect(load_settings(environ=environ))
    (tmp_path / "late.txt").write_text("dropped meanwhile")
    server.kill()
    done = run_3ox("drop", str(tmp_path / "late.txt"), "--json", environ=environ)
    assert done.returncode == 0, done.stderr
    assert "the store is unavailable: the station submits the files" in done.stderr
    (item,) = json.loads(done.stdout)["dropped"]
    assert item["status"] == "claimed"
    server.start()
    with running_worker(bridge, environ), RunningStation(bridge, environ) as running:
        job = running.ended("late.txt")
    assert (job.job_id, job.source, job.status) == (item["job_id"], "station", "completed")


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
    bridge = Bridge(load_settings(environ=own_environ))
    bridge.loaded.workspace.create()
    running = RunningStation(bridge, own_environ)
    running.start()
    began_s = time.monotonic()
    assert running.stop() == 0
    assert time.monotonic() - began_s < 5.0
    assert bridge.store.call("ZCARD", bridge.reader.keys.daemons) == 0
    assert threading.active_count() < 100
