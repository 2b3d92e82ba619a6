"""``python -m tests.check``: runs every check at the same time, and reports all that fail.

Each check is a program of its own. What a failed one has written is printed, then one line for each check.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NamedTuple

from tests.selection import BROWSER, NETNS, SLOW
from tests.support import ROOT

SOURCES = ("cmd_bridge.py", "ops", "middleware", "actors", "ingress", "tests", "examples")
BIN = Path(sys.executable).parent
#: Files that are left out; not even collected, which would take longer than some of the others run.
LEFT_OUT = [f"--ignore={file}" for file in dict.fromkeys((*SLOW, *BROWSER, *NETNS))]

LINT: dict[str, Sequence[str]] = {
    "ruff": (f"{BIN}/ruff", "check", "--quiet", *SOURCES),
    "format": (f"{BIN}/ruff", "format", "--check", *SOURCES),
    "types": (f"{BIN}/mypy",),
    "imports": (f"{BIN}/lint-imports",),
}
TESTS: dict[str, Sequence[str]] = {
    "tests": (sys.executable, "-m", "pytest", "-q", "-n", "3", "--serial", "without", *LEFT_OUT),
}


class Check(NamedTuple):
    """A check that runs.

    Attributes:
        name: Of the check.
        process: Its program.
        output: What it writes.
    """

    name: str
    process: subprocess.Popen[bytes]
    output: IO[bytes]


def start(name: str, argv: Sequence[str]) -> Check:
    """Start a check, its output kept in a file without a name."""
    output = tempfile.TemporaryFile()  # noqa: SIM115 (closed when its output has been read)
    process = subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    return Check(name, process, output)


def finish(check: Check) -> tuple[bool, str]:
    """Wait for a check; returns whether it has passed, and what it wrote."""
    code = check.process.wait()
    with check.output as output:
        output.seek(0)
        return code == 0, output.read().decode(errors="replace").strip()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the checks.

    Returns:
        0 if all have passed, else 1.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.check", description=__doc__)
    parser.add_argument("--lint", action="store_true", help="without the fast tests")
    options = parser.parse_args(arguments)
    began_s = time.monotonic()
    checks = [start(name, argv) for name, argv in (LINT if options.lint else LINT | TESTS).items()]
    lines: list[str] = []
    failed = False
    for check in checks:
        passed, output = finish(check)
        failed = failed or not passed
        if not passed:
            sys.stdout.write(f"--- {check.name}\n{output}\n\n")
        last = output.rpartition("\n")[2]
        lines.append(f"{'ok    ' if passed else 'FAILED'}  {check.name:<8} {last}")
    lines.append(f"{'FAILED' if failed else 'ok    '}  in {time.monotonic() - began_s:.0f} s")
    sys.stdout.write("\n".join(lines) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
