"""How fast a long-lived process reads a job's state: ``python -m tests.bench.cached``.

Beside the answer from memory, which the store keeps true, stand the first answer and a plain read.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from middleware.job.cached import CachedReader
from middleware.job.ids import new_job_id
from middleware.job.keys import Keys
from ops.settings.load import load_settings
from ops.store.client import Store
from tests.support import RunningValkey

_READS = 20_000


def measure(read: Callable[[], object], times: int = _READS) -> str:
    """Give median and 99th percentile of a read, as text."""
    spans_us = []
    for _ in range(times):
        began_s = time.perf_counter()
        read()
        spans_us.append((time.perf_counter() - began_s) * 1e6)
    cuts = statistics.quantiles(spans_us, n=100)
    return f"median {cuts[49]:6.1f} us   p99 {cuts[98]:6.1f} us"


def main() -> int:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="3ox-bench-") as home:
        server = RunningValkey(load_settings(Path(home), environ={}))
        server.start()
        try:
            store, job_id = Store(server.url), new_job_id()
            key = Keys("b:").job(job_id)
            store.call("HSET", key, "status", "processing", "progress", "40", "message", "half way")
            reader = CachedReader(store, "b:")

            def changed() -> None:
                store.call("HSET", key, "attempt", "1")
                reader.state(job_id)

            print(f"state from memory          {measure(lambda: reader.state(job_id))}")  # noqa: T201
            print(f"write, then state          {measure(changed, 2_000)}")  # noqa: T201
            print(f"plain read of the store    {measure(lambda: store.call('HGET', key, 'status'), 2_000)}")  # noqa: T201
            reader.close()
        finally:
            server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
