"""Run Dramatiq's own test suite with our broker in the place of its own.

    git clone --branch v2.2.0 https://github.com/Bogdanp/dramatiq
    pip install pika pylibmc
    python -m tests.job_types.dramatiq_suite dramatiq [ARGUMENTS OF PYTEST]

267 tests, with the program ``memcached`` on the PATH; 34 fewer without. Those of its tests that look into
another broker are expected to fail: ``DIFFERENT`` in ``dramatiq_conftest.py`` names each with the reason. At
the end they are listed by reason, and the outcomes are counted: of all tests, and of the 235 without the
files ``ADDED_LATER``.

The suite itself is not part of this repository. Its ``conftest.py`` and ``common.py`` are replaced by ours:
the fixture ``stub_broker`` is a ``BridgeBroker`` on an embedded Valkey, with a key prefix of its own; so is
``redis_broker``. The tests of rate limiters and results run with each of Dramatiq's own backends.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from ops.settings.load import load_settings
from tests.support import ROOT, RunningValkey

#: What does not depend on RabbitMQ, a command line or a benchmark.
FILES = (
    "middleware/test_asyncio.py",
    "middleware/test_prometheus.py",
    "middleware/test_retries.py",
    "middleware/test_shutdown.py",
    "middleware/test_threading.py",
    "middleware/test_time_limit.py",
    "test_actors.py",
    "test_barrier.py",
    "test_broker.py",
    "test_bucket_rate_limiter.py",
    "test_callbacks.py",
    "test_canteen.py",
    "test_common.py",
    "test_composition.py",
    "test_concurrent_rate_limiter.py",
    "test_encoders.py",
    "test_generic_actors.py",
    "test_messages.py",
    "test_redis.py",
    "test_results.py",
    "test_stub_broker.py",
    "test_window_rate_limiter.py",
    "test_worker.py",
)
_OURS = Path(__file__).with_name("dramatiq_conftest.py")


def main(checkout: Path, arguments: list[str]) -> int:
    """Run the suite of a checkout and return pytest's exit code.

    Args:
        checkout: Directory of a clone of Dramatiq.
        arguments: Further arguments of pytest.
    """
    with tempfile.TemporaryDirectory(prefix="dramatiq-") as folder:
        suite = Path(folder) / "tests"
        shutil.copytree(checkout / "tests", suite)
        shutil.copy(_OURS, suite / "conftest.py")
        shutil.copy(_OURS.with_name("dramatiq_common.py"), suite / "common.py")
        store = RunningValkey(load_settings(Path(folder) / "home"))
        store.start()
        try:
            environ = {**os.environ, "PYTHONPATH": str(ROOT), "SUITE_REDIS_URL": store.url}
            options = ["-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", folder]
            files = [str(suite / name) for name in FILES]
            command = [sys.executable, "-m", "pytest", *options, *files, *arguments]
            return subprocess.run(command, env=environ, cwd=folder, check=False).returncode
        finally:
            store.stop()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve(), sys.argv[2:]))
