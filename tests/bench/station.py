"""Files a second: many small files dropped at once, each ingested once; `python -m tests.bench.station [N]`.

A store, workers and a station of our own, as `3ox up` runs them, in a temporary workspace. The clock runs
from the move of the first file into the drop folder until the last one lies on the desk and the drop folder,
claims included, is empty. Every content differs, and every one is looked for afterwards.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from ingress.dispatch import Bridge
from ops.settings.load import load_settings
from tests.station.running import RunningStation
from tests.support import RunningValkey, clean_environ, eventually
from tests.workers import running_worker, sweep

FILES = 5000
WORKERS = 2
THREADS = 8
_LIMIT_S = 600.0


class StationRate(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured.

    Attributes:
        files: Dropped at once.
        claimed_s: Until the drop folder was empty but for claims, in seconds.
        ingested_s: Until all were on the desk.
        tidied_s: Until no claim was left.
        files_per_s: Over all of it.
        jobs: How many jobs there were; as many as files.
    """

    files: int
    claimed_s: float
    ingested_s: float
    tidied_s: float
    files_per_s: float
    jobs: int


def measure_station(files: int = FILES) -> StationRate:
    """Drop files into a new bridge and wait for the end of the last one.

    Args:
        files: How many, 100 bytes each.

    Raises:
        AssertionError: One was lost, doubled or changed, or it took longer than ten minutes.
    """
    home = Path(tempfile.mkdtemp(prefix="3ox-bench-"))
    environ = clean_environ({"BRIDGE_HOME": str(home / "bridge")})
    loaded = load_settings(environ=environ)
    loaded.workspace.create()
    server = RunningValkey(loaded)
    server.start()
    try:
        with contextlib.ExitStack() as stack:
            bridge = Bridge(loaded)
            for number in range(WORKERS):
                stack.enter_context(running_worker(bridge, environ, threads=THREADS, name=f"worker-{number}"))
            return _drop(stack.enter_context(RunningStation(bridge, environ)), home, files)
    finally:
        sweep(environ)
        server.stop()
        shutil.rmtree(home)


def _drop(station: RunningStation, home: Path, files: int) -> StationRate:
    ready = home / "ready"
    ready.mkdir()
    contents = {f"{number:08d} {'x' * 90}\n" for number in range(files)}
    for number, text in enumerate(sorted(contents)):
        (ready / f"{number}.txt").write_text(text)
    desk = station.workspace.workdesk
    began_s = time.monotonic()
    for path in ready.iterdir():
        path.rename(station.inbox / path.name)
    eventually(lambda: not any(station.inbox.glob("*.txt")), _LIMIT_S, every_s=0.05)
    claimed_s = time.monotonic() - began_s
    eventually(lambda: station.bridge.reader.summary()["completed"] >= files, _LIMIT_S, every_s=0.05)
    ingested_s = time.monotonic() - began_s
    eventually(lambda: not station.claims(), _LIMIT_S, every_s=0.05)
    tidied_s = time.monotonic() - began_s
    found = [path.read_text() for path in desk.iterdir()]
    assert len(found) == files, f"{len(found)} of {files} files are on the desk"
    assert set(found) == contents, "the files on the desk are not those that were dropped"
    jobs = station.bridge.store.call("ZCARD", station.bridge.reader.keys.index_type("ingest.file"))
    assert jobs == files, f"{jobs} jobs for {files} files"
    return StationRate(
        files=files,
        claimed_s=round(claimed_s, 2),
        ingested_s=round(ingested_s, 2),
        tidied_s=round(tidied_s, 2),
        files_per_s=round(files / tidied_s, 1),
        jobs=jobs,
    )


def main(arguments: list[str]) -> int:
    """Measure and print."""
    rate = measure_station(int(arguments[0]) if arguments else FILES)
    print(  # noqa: T201 (it is a program)
        f"{rate.files} files dropped at once, {WORKERS} workers x {THREADS} threads: "
        f"{rate.files_per_s:g} files/s\n"
        f"  claimed after {rate.claimed_s:g} s, ingested after {rate.ingested_s:g} s, "
        f"drop folder empty after {rate.tidied_s:g} s; {rate.jobs} jobs"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
