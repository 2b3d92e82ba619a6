"""Has schemathesis try the API with all its checks; ``python -m tests.rest.fuzz --cases 5000`` for long.

It drives a real ``3ox rest`` over HTTP, by the document that this serves: coverage of every boundary, random
valid and invalid requests, and sequences of requests that use what others have answered.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ops.settings.load import load_settings
from tests.rest.client import Client
from tests.rest.conftest import running_api
from tests.support import RunningValkey, clean_environ

#: Streams and waits end soon, so that a request takes milliseconds; the rate is not limited.
SETTINGS = """
[rest]
stream_max_s = 0.02
wait_max_s = 0.02
rate_per_s = 0

[rest.endpoints.beat]
job = "heartbeat"
secret = "a secret of the fuzz test"
"""
_CASES = re.compile(r"^\s+(\d+) generated", re.MULTILINE)


def fuzz(environ: Mapping[str, str], *, examples: int, seed: int | None = None) -> tuple[int, int, str]:
    """Run schemathesis against an API of its own.

    Args:
        environ: Of the API; its workspace is to be new.
        examples: How many random requests per operation.
        seed: Of the random numbers.

    Returns:
        Exit code (0: no fault), number of requests, and output.
    """
    home = Path(environ["BRIDGE_HOME"])
    home.mkdir(parents=True, exist_ok=True)
    (home / "3ox.toml").write_text(SETTINGS)
    with running_api(environ) as api:
        token = api.tokens.make("fuzz", "admin")
        assert Client(api.url, token)("GET", "/v1/jobs").status == 200
        command = [
            *(sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"),
            *("run", f"{api.url}schema/openapi.json", "--checks", "all"),
            *("-H", f"Authorization: Bearer {token}", "--max-examples", str(examples)),
            *("--generation-database", "none", "--no-color", "--suppress-health-check", "all"),
            *(() if seed is None else ("--seed", str(seed))),
        ]
        ran = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=home, env=clean_environ()
        )
        report = (ran.stdout + ran.stderr).replace(token, "TOKEN")
        faults = [line for line in api.log().splitlines() if '"rest.fault"' in line]
        assert api.process is not None
        assert api.process.poll() is None, report
        if faults:
            return 1, cases_of(report), report + "\n".join(faults)
        return ran.returncode, cases_of(report), report


def cases_of(report: str) -> int:
    """Read how many requests were made."""
    found = _CASES.search(report)
    return 0 if found is None else int(found[1])


def main() -> int:
    """Fuzz until so many cases were tried."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=5000, help="requests at least (5000)")
    parser.add_argument(
        "--examples", type=int, default=100, help="random requests per operation and round (100)"
    )
    wanted = parser.parse_args()
    made = 0
    with tempfile.TemporaryDirectory() as folder:
        store = RunningValkey(load_settings(Path(folder) / "store", environ={}))
        store.start()
        try:
            for number in range(100):
                environ = clean_environ(
                    {
                        "BRIDGE_HOME": str(Path(folder) / str(number)),
                        "BRIDGE_REDIS_URL": store.url,
                        "BRIDGE_KEY_PREFIX": f"fuzz{number}:",
                        "BRIDGE_API_PORT": "0",
                    }
                )
                code, cases, report = fuzz(environ, examples=wanted.examples, seed=number)
                made += cases
                sys.stdout.write(f"round {number}: {cases} cases, exit code {code}, {made} in all\n")
                sys.stdout.flush()
                if code != 0 or cases == 0:
                    sys.stdout.write(report)
                    return 1
                if made >= wanted.cases:
                    return 0
        finally:
            store.stop()
    return 1


if __name__ == "__main__":
    sys.exit(main())
