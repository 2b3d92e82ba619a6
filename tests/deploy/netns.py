"""``python -m tests.deploy.netns``: cuts one of three hosts off and brings it back; accounts for all jobs."""

from __future__ import annotations

import argparse
import shutil
import signal
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ops.errors import BridgeError
from tests.deploy.hosts import become_root_inside
from tests.deploy.scaleout import SHORT, Figures, Plan, ScaleOut

EXIT_FAULT = 1
EXIT_NOT_RUN = 2


def main() -> int:
    """Run it.

    Returns:
        0 if nothing was lost and nothing came twice, 1 otherwise, 2 if namespaces cannot be made here.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.deploy.netns", description=__doc__)
    parser.add_argument("--short", action="store_true", help="a lease of 2 s and half a minute in all")
    parser.add_argument("--json", action="store_true", help="write the figures as one JSON document")
    parser.add_argument("--keep", action="store_true", help="keep the workspaces of the hosts")
    options = parser.parse_args()
    # A killed run leaves no namespace: its exits run on SIGTERM, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        become_root_inside()
    except BridgeError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_NOT_RUN
    folder = Path(tempfile.mkdtemp(prefix="3ox-net-"))
    plan = SHORT if options.short else Plan()
    keep = options.keep
    try:
        figures = ScaleOut(plan, folder, lambda text: sys.stderr.write(f"{text}\n")).carry_out()
        keep = keep or bool(figures.faults)
    except BridgeError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_NOT_RUN
    finally:
        if keep:
            sys.stderr.write(f"kept: {folder}\n")
        else:
            shutil.rmtree(folder)
    if options.json:
        sys.stdout.write(msgspec.json.encode(figures).decode() + "\n")
    else:
        sys.stdout.write(table(plan, figures) + "\n")
    for fault in figures.faults:
        sys.stderr.write(f"WRONG: {fault}\n")
    return EXIT_FAULT if figures.faults else 0


def table(plan: Plan, figures: Figures) -> str:
    """Return the figures as lines of name, value and meaning."""
    rows = [
        ("tasks accepted by the API", f"{figures.accepted}", f"{plan.per_s:g} a second"),
        ("completed", f"{figures.completed}", f"left {figures.on_left}, right {figures.on_right}"),
        ("lost", f"{figures.lost}", "accepted, but unknown or not ended"),
        ("committed twice", f"{figures.committed_twice}", "two ends in the receipt"),
        ("in hand when cut off", f"{figures.in_hand}", f"cut off for {plan.cut_s:g} s"),
        ("started elsewhere after, s", _spread(figures.elsewhere_s), f"lease_s = {plan.lease_s:g}"),
        ("results refused", f"{figures.refused}", "of the host that was cut off"),
        ("started twice", f"{figures.started_twice}", f"{figures.unexplained} without having been in hand"),
        ("wait during the cut, s", _spread(figures.during_wait_s), "queued to started"),
        ("at work again after, s", f"{figures.back_s:.2f}", "since its cable was put back"),
    ]
    return "\n".join(f"{name:<28}{value:>20}  {meaning}" for name, value, meaning in rows)


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "-"
    return f"{min(values):.2f} / {statistics.median(values):.2f} / {max(values):.2f}"


if __name__ == "__main__":
    sys.exit(main())
