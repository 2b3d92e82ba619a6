"""Cost of reading a job that has not changed: ``python -m tests.bench.job_cache``.

First the read itself: from memory, after a write, and as a plain read of the store. Then a client that polls
``GET /v1/jobs/{id}``: of a job that does not change, which the API answers from memory, and of one that has
changed before each request (that write is included in the figures of the store).
"""

from __future__ import annotations

import http.client
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from middleware.job.ids import new_job_id
from middleware.job.job_cache import JobCache
from middleware.job.keys import Keys
from middleware.job.schema import make_job
from ops.settings.load import load_settings
from ops.store.client import Store
from tests.rest.conftest import Api, running_api
from tests.support import RunningValkey, bridge_environ

_READS = 20_000
_REQUESTS = 3_000


def measure(read: Callable[[], object], times: int = _READS) -> str:
    """Return median and 99th percentile of a read, as text."""
    spans_us = []
    for _ in range(times):
        began_s = time.perf_counter()
        read()
        spans_us.append((time.perf_counter() - began_s) * 1e6)
    cuts = statistics.quantiles(spans_us, n=100)
    return f"median {cuts[49]:6.1f} us   p99 {cuts[98]:6.1f} us"


def cpu_s(pid: int) -> float:
    """Return the processor time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def poll(api: Api, job_id: str, store: Store, store_pid: int, *, changes: bool) -> str:
    """Return the rate of a client that polls, and what a request costs API and store, as text."""
    key = api.bridge.reader.keys.job(job_id)
    assert api.process is not None
    api_pid = api.process.pid
    place, headers = urlsplit(api.url), {"Authorization": f"Bearer {api.client().token}"}
    connection = http.client.HTTPConnection(str(place.hostname), place.port)

    def get() -> None:
        if changes:
            store.call("HSET", key, "attempt", 0)
        connection.request("GET", f"/v1/jobs/{job_id}", headers=headers)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200

    def commands() -> int:
        lines = store.call("INFO", "stats").decode().splitlines()
        return int(dict(line.split(":") for line in lines if ":" in line)["total_commands_processed"])

    for _ in range(300):
        get()
    before = (cpu_s(api_pid), cpu_s(store_pid), commands(), time.perf_counter())
    for _ in range(_REQUESTS):
        get()
    after = (cpu_s(api_pid), cpu_s(store_pid), commands(), time.perf_counter())
    api_s, store_s, sent, span_s = (new - old for new, old in zip(after, before, strict=True))
    return (
        f"{_REQUESTS / span_s:5.0f} requests/s, CPU per request: API {api_s / _REQUESTS * 1e6:4.0f} us,"
        f" store {store_s / _REQUESTS * 1e6:3.0f} us; {sent / _REQUESTS:.1f} commands of the store"
    )


def main() -> int:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="3ox-bench-") as folder:
        home = Path(folder)
        settings = load_settings(home / "store", environ={})
        settings.workspace.create()
        server = RunningValkey(settings)
        server.start()
        try:
            store, job_id = Store(server.url), new_job_id()
            key = Keys("b:").job(job_id)
            store.call("HSET", key, "attempt", 1)
            cache = JobCache(store, "b:", lambda _: store.call("HGET", key, "attempt"))

            def changed() -> None:
                store.call("HSET", key, "attempt", "1")
                cache.get(job_id)

            print(f"from memory               {measure(lambda: cache.get(job_id))}")  # noqa: T201
            print(f"write, then read          {measure(changed, 2_000)}")  # noqa: T201
            print(f"plain read of the store   {measure(lambda: store.call('HGET', key, 'attempt'), 2_000)}")  # noqa: T201
            cache.close()
            (home / "api").mkdir()
            environ = bridge_environ(home / "api", server.url, "[rest]\nrate_per_s = 0\n")
            with running_api({**environ, "BRIDGE_API_PORT": "0"}) as api:
                job = make_job(job_type="heartbeat", payload={}, source="cli")
                job_id = api.bridge.submit(job).job_id
                for name, changes in (("unchanged", False), ("changed", True)) * 3:
                    print(f"GET, {name:10} {poll(api, job_id, store, server.pid, changes=changes)}")  # noqa: T201
        finally:
            server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
