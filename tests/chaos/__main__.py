"""``python -m tests.chaos``: breaks a real bridge for some minutes, then accounts for every job."""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import NoReturn

import msgspec

from ops.errors import BridgeError
from tests.chaos.arena import Arena
from tests.chaos.plan import PER_MINUTE, Plan, make_plan
from tests.chaos.report import table
from tests.chaos.run import Run

EXIT_FAULT = 1
EXIT_NOT_RUN = 2
EXIT_INTERRUPTED = 130


def main() -> int:
    """Run it.

    Returns:
        0 if every job is accounted for, 1 if one was lost, committed twice or otherwise went wrong, 2 if
        the bridge could not be run, 130 when interrupted.
    """
    options = _options()
    if not sys.platform.startswith("linux"):
        _say("chaos runs on Linux only: it finds what it kills in /proc")
        return EXIT_NOT_RUN
    seed = random.SystemRandom().randrange(1_000_000) if options.seed is None else options.seed
    plan = make_plan(
        seed=seed,
        minutes=options.minutes,
        jobs_per_s=options.jobs_per_s,
        short=options.short,
        fsync=options.fsync,
        kill_supervisor=options.kill_supervisor,
        without=options.without,
    )
    command = _command(plan, options)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    folder = Path(tempfile.mkdtemp(prefix="3ox-chaos-"))
    _say(f"{command}\n{len(plan.faults)} faults in {plan.load_s:g} s; everything is in {folder}")
    keep = True
    try:
        report = Run(Arena(plan, folder), command, _say).carry_out()
        keep = bool(report.problems) or options.keep
    except KeyboardInterrupt:
        _say("interrupted; everything that was started has been stopped")
        keep = options.keep
        return EXIT_INTERRUPTED
    except BridgeError as error:
        _say(f"the bridge could not be run: {error}")
        return EXIT_NOT_RUN
    finally:
        if keep:
            _say(f"kept: {folder}")
        else:
            shutil.rmtree(folder)
    sys.stdout.write(f"\n{table(report)}\n\nreplay: {command}\n")
    if options.json is not None:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    for name, count in report.problems.items():
        sys.stdout.write(f"WRONG: {name}: {count}\n")
    return EXIT_FAULT if report.problems else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos",
        description="Run a real bridge under load, kill and pause everything in it at random, and account for"
        " every job afterwards.",
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="length of the load (10)")
    parser.add_argument("--seed", type=int, help="of the load and the faults; drawn and printed when absent")
    parser.add_argument("--jobs-per-s", type=float, default=40.0, metavar="R", help="load (40)")
    parser.add_argument("--short", action="store_true", help="about 25 s, each kind of fault at least once")
    parser.add_argument(
        "--fsync", choices=("always", "everysec", "no"), default="everysec", help="of the store"
    )
    parser.add_argument(
        "--kill-supervisor", action="store_true", help="kill `3ox up` itself too, each minute"
    )
    parser.add_argument(
        "--without", action="append", default=[], choices=PER_MINUTE, help="leave this kind of fault out"
    )
    parser.add_argument("--keep", action="store_true", help="keep the workspace also when all is well")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    return parser.parse_args()


def _command(plan: Plan, options: argparse.Namespace) -> str:
    words = ["python -m tests.chaos", "--short" if plan.short else f"--minutes {options.minutes:g}"]
    words += [f"--seed {plan.seed}", f"--jobs-per-s {plan.jobs_per_s:g}"]
    words += [f"--fsync {plan.fsync}"] if plan.fsync != "everysec" else []
    words += ["--kill-supervisor"] if options.kill_supervisor else []
    words += [f"--without {kind}" for kind in options.without]
    return " ".join(words)


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    del number, frame
    for again in (signal.SIGINT, signal.SIGTERM):
        signal.signal(again, signal.SIG_IGN)  # a second one would leave the first one's clean-up half done
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
