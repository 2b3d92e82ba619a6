"""Crashes of the station, the workers and the store: every file is ingested exactly once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ingress.dispatch import Bridge
from ingress.station.claims import Claims
from ingress.station.scanner import Scanner
from middleware.job.states import State
from ops.settings.load import load_settings
from ops.workspace import Workspace
from tests.station.parts import DEFAULTS
from tests.station.running import RunningStation, files_below
from tests.support import RunningValkey, eventually, frozen
from tests.workers import running_worker


def lay_down(inbox: Path, numbers: range) -> None:
    """Drop files, each complete when its name appears."""
    for number in numbers:
        draft = inbox / f".{number}.part"
        draft.write_text(f"file {number}")
        draft.rename(inbox / f"{number}.txt")


@contextmanager
def in_background(inbox: Path, numbers: range) -> Iterator[None]:
    """Drop files during a block; all are dropped at its end."""
    thread = threading.Thread(target=lay_down, args=(inbox, numbers))
    thread.start()
    yield
    thread.join(30.0)
    assert not thread.is_alive()


class Settled(NamedTuple):
    """Outcome of the dropped files.

    Attributes:
        texts: What lies on the desk, sorted.
        completed: Jobs.
        others: Jobs that failed or were cancelled.
    """

    texts: list[str]
    completed: int
    others: int


def once_each(count: int) -> Settled:
    """Return the expected outcome for this many files."""
    return Settled(sorted(f"file {number}" for number in range(count)), count, 0)


def settled(running: RunningStation, count: int, timeout_s: float = 60.0) -> Settled:
    """Wait until this many files are in WORKDESK and none is left behind; return the outcome."""
    desk = running.workspace.workdesk
    eventually(lambda: sum(1 for _ in files_below(desk)) >= count, timeout_s, every_s=0.1)
    eventually(lambda: not running.left() and not running.claims(), timeout_s, every_s=0.1)
    summary = running.bridge.reader.summary()
    texts = sorted(path.read_text() for path in desk.iterdir())
    return Settled(texts, summary["completed"], summary["failed"] + summary["cancelled"])


def test_killed_under_traffic_it_loses_and_doubles_nothing(own: Bridge, own_environ: dict[str, str]) -> None:
    """200 files while the station is killed three times: each is ingested by one job."""
    own.loaded.workspace.create()
    running = RunningStation(own, own_environ)
    with running_worker(own, own_environ):
        running.start()
        try:
            with in_background(running.inbox, range(200)):
                for round_ in range(3):
                    least = 40 * (round_ + 1)
                    eventually(
                        lambda least=least: (
                            own.reader.summary()["completed"] + len(running.claims()) >= least
                        ),  # type: ignore[misc]
                        30.0,
                    )
                    running.kill()
                    running.start()
            assert settled(running, 200) == once_each(200)
        finally:
            running.stop()


def test_two_stations_share_a_folder(own: Bridge, own_environ: dict[str, str]) -> None:
    """Both claim files, and none claims a file of the other."""
    own.loaded.workspace.create()
    with running_worker(own, own_environ), RunningStation(own, own_environ) as first:
        second = RunningStation(own, own_environ)
        with second:
            lay_down(first.inbox, range(150))
            assert settled(first, 150) == once_each(150)


def test_claims_without_a_job_are_taken_up(own: Bridge, own_environ: dict[str, str]) -> None:
    """The station died between claim and job: the next one submits it, with note and folder.

    The second has the content of the first: version 0.1 made no job for it, and its claims are adopted.
    """
    workspace = own.loaded.workspace
    workspace.create()
    claims = Claims(workspace)
    ids = []
    for name in ("0.txt", "copy.txt"):
        (workspace.inbox / "sub").mkdir(exist_ok=True)
        (workspace.inbox / "sub" / name).write_text("file 0")
        (workspace.inbox / "sub" / f"{name}.note.txt").write_text("about")
        (item,) = Scanner(workspace.inbox, DEFAULTS).scan().files
        claim = claims.claim(item)
        assert claim is not None
        ids.append(claim.job_id)
    with running_worker(own, own_environ), RunningStation(own, own_environ) as running:
        jobs = [running.ended(name) for name in ("0.txt", "copy.txt")]
    assert [(job.job_id, job.payload["folder"], job.payload["note"]) for job in jobs] == [
        (job_id, "sub", "about") for job_id in ids
    ]
    assert jobs[1].payload["same_as"] == ids[0]


def test_an_end_that_nobody_saw_is_tidied_up(own: Bridge, own_environ: dict[str, str]) -> None:
    """The job finished while no station ran: the next one removes the file."""
    own.loaded.workspace.create()
    running = RunningStation(own, own_environ)
    running.start()
    lay_down(running.inbox, range(3))
    eventually(lambda: own.reader.summary()["queued"] == 3)
    running.kill()
    assert len(running.claims()) == 3
    with running_worker(own, own_environ):
        eventually(lambda: own.reader.summary()["completed"] == 3, 20.0)
        assert len(running.claims()) == 3
        with running:
            assert settled(running, 3) == once_each(3)


def test_a_file_that_ends_the_station_is_not_read_for_ever(own: Bridge, own_environ: dict[str, str]) -> None:
    """After ``tries`` crashes it goes to ``failed/``."""
    workspace = own.loaded.workspace
    workspace.create()
    (workspace.inbox / "poison.txt").write_text("x")
    (item,) = Scanner(workspace.inbox, DEFAULTS).scan().files
    claims = Claims(workspace)
    claim = claims.claim(item)
    assert claim is not None
    for _ in range(own.loaded.settings.station.tries):
        claims.count_try(claim.job_id)
    with RunningStation(own, own_environ) as running:
        found = eventually(lambda: running.failed("poison.txt"))
    assert found is not None
    assert "crashed 3 times" in found[1]
    assert own.reader.summary()["queued"] == 0


def test_a_worker_killed_in_the_middle_is_made_good(own_environ: dict[str, str]) -> None:
    """Workers are killed repeatedly while 150 files are ingested: each file exists once."""
    environ = {**own_environ, "BRIDGE_LEASE_S": "2", "BRIDGE_HEARTBEAT_S": "0.5", "BRIDGE_MAX_CRASHES": "20"}
    bridge = Bridge(load_settings(environ=environ))
    bridge.loaded.workspace.create()
    with RunningStation(bridge, environ) as running, in_background(running.inbox, range(150)):
        for round_ in range(3):
            with running_worker(bridge, environ, name=f"worker-{round_}") as worker:
                least = 25 * (round_ + 1)
                eventually(lambda least=least: bridge.reader.summary()["completed"] >= least, 30.0)  # type: ignore[misc]
                worker.kill()
                worker.wait()
        with running_worker(bridge, environ, name="last"):
            assert settled(running, 150) == once_each(150)


def test_while_the_store_is_paused_files_go_to_the_spool(
    mortal: tuple[RunningValkey, dict[str, str]],
) -> None:
    """Files are claimed, their jobs are spooled, and all are done when the store is back."""
    server, environ = mortal
    environ = {**environ, "BRIDGE_STORE_TIMEOUT_S": "0.5"}
    bridge = Bridge(load_settings(environ=environ))
    with running_worker(bridge, environ), RunningStation(bridge, environ) as running:
        with frozen(server.pid):
            lay_down(running.inbox, range(50))
            spool = bridge.loaded.workspace.spool_dir
            eventually(lambda: len(list(spool.glob("*.job"))) == 50, 30.0)
            assert running.left() == []
        assert settled(running, 50) == once_each(50)


def test_a_station_that_starts_without_a_store_takes_files(
    mortal: tuple[RunningValkey, dict[str, str]],
) -> None:
    """Killed with jobs in the spool and without a store: the next one neither loses nor doubles them."""
    server, environ = mortal
    bridge = Bridge(load_settings(environ=environ))
    server.kill()
    running = RunningStation(bridge, environ)
    running.start()
    spool = bridge.loaded.workspace.spool_dir
    lay_down(running.inbox, range(10))
    eventually(lambda: len(list(spool.glob("*.job"))) == 10, 30.0)
    running.kill()
    with running:
        lay_down(running.inbox, range(10, 20))
        eventually(lambda: len(list(spool.glob("*.job"))) == 20, 30.0)
        server.start()
        with running_worker(bridge, environ):
            assert settled(running, 20) == once_each(20)


def test_without_room_nothing_is_taken(own: Bridge, own_environ: dict[str, str]) -> None:
    """WORKDESK cannot be written: the file stays in the drop folder, and is claimed as soon as it can."""
    workspace: Workspace = own.loaded.workspace
    workspace.create()
    with running_worker(own, own_environ), RunningStation(own, own_environ) as running:
        workspace.workdesk.rmdir()
        workspace.workdesk.write_text("in the way")
        lay_down(running.inbox, range(1))
        log = workspace.log_file
        eventually(lambda: log.exists() and "station.held" in log.read_text())
        assert (running.inbox / "0.txt").exists()
        assert own.reader.summary()["queued"] == 0
        workspace.workdesk.unlink()
        assert settled(running, 1) == once_each(1)
    assert own.reader.summary()[State.COMPLETED] == 1
